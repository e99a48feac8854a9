//! The conformance table (`contract: conformance.md`), row by row: A1 to A25 are accepted, with byte-identical audio
//! upstream, and R1 to R25 are refused, without a whole request upstream.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[path = "conformance/accept_form.rs"]
mod accept_form;
#[path = "conformance/accept_http.rs"]
mod accept_http;
#[allow(dead_code, unused_imports)]
mod harness;
#[path = "conformance/refuse_form.rs"]
mod refuse_form;
#[path = "conformance/refuse_framing.rs"]
mod refuse_framing;
#[path = "conformance/refuse_head.rs"]
mod refuse_head;
#[path = "conformance/refuse_http2.rs"]
mod refuse_http2;
