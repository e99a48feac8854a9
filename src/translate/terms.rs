//! What is settled before the first byte of an upload.

use std::sync::Arc;

use super::asked::{Language, Shape};
use super::limits::Limits;
use super::model::Models;

/// What the route, the configuration and the request's head settle before the first byte of the body.
#[derive(Clone)]
pub struct Terms {
    /// The client's `Content-Length`, in bytes; `None` for a body without one.
    pub length: Option<u64>,
    /// Fresh random bytes for our boundary: 35, which make 70 characters.
    pub seed: [u8; 35],
    /// Whose request it is.
    pub shape: Shape,
    /// The models that are served.
    pub models: Arc<Models>,
    /// The model that the path names (Azure); wins over the field.
    pub model: Option<String>,
    /// The configured language, for requests that say nothing about theirs.
    pub language: Option<Language>,
    /// How much of everything is allowed.
    pub limits: Limits,
}
