//! What becomes of a request, without a client, a login or an upstream: the checks of the head and the translation, as
//! they run in a server with its defaults.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Version};
use pingora::http::RequestHeader;

use super::admission::{HeadLimits, check_head, check_upload};
use crate::answer::Fault;
use crate::route::{self, Route};
use crate::translate::{Asked, Begun, Limits, Models, Terms, Translator};

/// The head of a request as it came.
pub struct Head<'a> {
    /// The method.
    pub method: &'a str,
    /// The request target.
    pub target: &'a str,
    /// The digit behind `HTTP/1.`.
    pub minor: u8,
    /// Header fields, in order.
    pub headers: Vec<(&'a str, &'a [u8])>,
}

/// What goes upstream.
pub struct Translated {
    /// `Content-Type` of the upstream request.
    pub content_type: String,
    /// Its exact `Content-Length`, where the client's was known.
    pub length: Option<u64>,
    /// The whole upstream body.
    pub body: Vec<u8>,
    /// What the answer depends on.
    pub asked: Asked,
}

/// What becomes of a request.
pub enum Outcome {
    /// It goes upstream.
    Translated(Box<Translated>),
    /// It is no upload: another page of ours answers, of this name.
    Page(&'static str),
}

/// Judges a request by its head and the pieces of its body; `whole` is false where the body breaks off. Keys are not
/// looked at.
///
/// # Errors
/// The [`Fault`] that the client would be told.
pub fn judge(head: &Head<'_>, body: &[Bytes], whole: bool) -> Result<Outcome, Fault> {
    let request = request(head)?;
    check_head(&request, HeadLimits { head: 64 * 1024, uri: 8 * 1024 })?;
    let (shape, model) = match route::find(head.method, request.uri.path(), &[]) {
        Route::Transcribe { shape, model } => (shape, model),
        Route::Translations => return Err(Fault::NoTranslations),
        Route::WrongMethod { allow } => return Err(Fault::WrongMethod { allow }),
        Route::Unknown => {
            let path = request.uri.path().to_owned();
            return Err(Fault::UnknownUrl { method: head.method.to_owned(), path });
        }
        page => return Ok(Outcome::Page(page.name())),
    };
    let limits = Limits::default();
    let announced = check_upload(&request.headers, &limits)?;
    let models = Models::default();
    if let Some(name) = model.as_ref().filter(|name| !models.knows(name)) {
        return Err(Fault::ModelNotFound(name.clone()));
    }
    let terms = Terms {
        length: announced.length,
        // The same report for the same capture.
        seed: [0xa5; 35],
        shape,
        models: Arc::new(models),
        model,
        language: None,
        limits,
    };
    let mut translator = Translator::new(&announced.boundary, terms);
    let mut out = Vec::new();
    for piece in body {
        translator.push(piece.clone(), &mut out).map_err(Fault::Upload)?;
    }
    if !whole {
        return Err(Fault::BodyBroken);
    }
    let asked = translator.finish(&mut out).map_err(Fault::Upload)?;
    Ok(Outcome::Translated(Box::new(Translated {
        content_type: translator.content_type(),
        length: translator.begun().and_then(|Begun { length }| length),
        body: out.concat(),
        asked,
    })))
}

fn request(head: &Head<'_>) -> Result<RequestHeader, Fault> {
    let target = head.target.as_bytes();
    let mut request = RequestHeader::build(head.method, target, None).map_err(|_| Fault::HeadBad)?;
    request.set_version(if head.minor == 0 { Version::HTTP_10 } else { Version::HTTP_11 });
    for (name, value) in &head.headers {
        let name = HeaderName::try_from(*name).map_err(|_| Fault::HeadBad)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Fault::HeadBad)?;
        request.append_header(name, value).map_err(|_| Fault::HeadBad)?;
    }
    Ok(request)
}
