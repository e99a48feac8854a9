//! Listeners and the connections that come in by them, before HTTP.

pub mod connection;
pub mod drain;
pub mod forwarded;
pub mod guard;
pub mod handover;
pub mod handshake;
pub mod linger;
pub mod listener;
pub mod peek;
pub mod peer;
pub mod permits;
pub mod proxy_protocol;

pub use connection::{Connection, SIP, Turn};
pub use drain::Drain;
pub use guard::{Guard, Patience, Rules};
pub use handshake::Handshakes;
pub use peer::{Peer, Visit};
