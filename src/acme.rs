//! Certificates by themselves (RFC 8555): ordered, renewed and kept, off the path of any handshake. Nothing that fails
//! here changes what is served.

pub mod challenge;
pub mod due;
pub mod store;

pub use challenge::Challenges;
