//! The ground: the only rooms that touch the clock, randomness and files.

pub mod clock;
pub mod file;
pub mod random;
pub mod secret;
