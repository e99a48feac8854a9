//! asr-edge: a public, OpenAI-compatible speech-to-text endpoint in front of a Codex / ChatGPT login.
//!
//! Audio flows *through* it. A request passes these rooms, in this order:
//!
//! ```text
//! accept -> tls -> route -> authenticate -> translate -> upstream -> answer -> respond
//! ```

// The flow.

// OpenAI's multipart in, Codex's out, while it arrives.
pub mod translate;

// Around it.

// Clock, randomness, files, secrets.
pub mod base;
