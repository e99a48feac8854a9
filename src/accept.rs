//! Listeners and the connections that come in by them, before HTTP.

pub mod forwarded;
pub mod proxy_protocol;
