//! Everything that can go wrong upstream, and what the client is told of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[path = "upstream/answers.rs"]
mod answers;
#[path = "upstream/connections.rs"]
mod connections;
#[path = "upstream/early.rs"]
mod early;
#[allow(dead_code, unused_imports)]
mod harness;
#[path = "upstream/lengths.rs"]
mod lengths;
#[path = "upstream/login.rs"]
mod login;
#[path = "upstream/tls.rs"]
mod tls;
