//! asr-edge: a public, OpenAI-compatible speech-to-text endpoint in front of a Codex / ChatGPT login.
//!
//! Audio flows *through* it. A request passes these rooms, in this order:
//!
//! ```text
//! accept -> tls -> route -> authenticate -> translate -> upstream -> answer -> respond
//! ```
//!
//! `gateway` calls them in that order. Rooms come in layers, held by `tests/layers.rs`: `base` (clock, randomness,
//! files), pure rooms (`route`, `translate`, `answer`), state (`config`, `tls`, `authenticate`, `upstream`, `observe`),
//! and the glue that alone names Pingora (`accept`, `respond`, `gateway`).

// The flow.

// Listeners, and connections before HTTP.
pub mod accept;
// The certificates, and which a handshake gets.
pub mod tls;
// Certificates ordered and renewed by ourselves.
pub mod acme;
// Method and path -> what is asked for.
pub mod route;
// Headers -> whose key it is.
pub mod authenticate;
// OpenAI's multipart in, Codex's out, while it arrives.
pub mod translate;
// The endpoint, the login, the queue, the spool.
pub mod upstream;
// What the upstream said -> what OpenAI would have said.
pub mod answer;
// A reply -> the client.
pub mod respond;
// The rooms above, in order, for every request.
pub mod gateway;

// Around it.

// Clock, randomness, files, secrets.
pub mod base;
// Flags, variables and file -> checked settings.
pub mod config;
// What an operator sees.
pub mod observe;
// Names, ports, CA and login looked at before a public start.
pub mod preflight;
// One request to ourselves.
pub mod probe;
// What a captured request becomes.
pub mod capture;
// One transcription without a server.
pub mod transcribe;
// A stand-in for the upstream.
pub mod stub;
// Everything embedded, once, for show.
pub mod demo;
