//! The pure rooms of asr-edge, built without the rest of it. That they build here shows that they are pure.

pub mod reference;

#[path = "../src"]
mod rooms {
    pub mod translate;
    pub mod accept {
        pub mod forwarded;
        pub mod peek;
        pub mod proxy_protocol;
    }
}

pub use rooms::accept::{forwarded, peek, proxy_protocol};
pub use rooms::translate;
