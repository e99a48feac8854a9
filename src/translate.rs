//! An OpenAI multipart upload in, Codex's `/transcribe` multipart out, while the bytes are still arriving.

pub mod asked;
mod audio;
mod boundary;
mod container;
mod disposition;
#[allow(dead_code, reason = "the translator reads the rest")]
mod limits;
mod parameters;
mod peek;
pub mod refusal;
#[allow(dead_code, reason = "the translator reads the rest")]
mod text;
#[allow(dead_code, reason = "the translator reads the rest")]
mod upload;

pub use asked::{Asked, Container, Field, Format, Language};
pub use audio::Audio;
pub use boundary::Boundary;
pub use limits::Limits;
pub use peek::{Peek, Peeked};
pub use refusal::Refusal;
