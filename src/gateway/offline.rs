//! What becomes of a request, without a client, a login or an upstream: the checks of the head and the translation, as
//! they run in a server.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Version};
use pingora::http::RequestHeader;

use super::admission::{Announced, HeadLimits, check_head, check_upload};
use super::generation;
use crate::answer::Fault;
use crate::config::{Config, ConfigFault, Service, ServiceKind};
use crate::route::{self, Prefix, Route};
use crate::translate::{Asked, Begun, Language, Limits, Models, Peek, Peeked, Shape, Terms, Translator};

/// As much of a body as a server reads to find the model that decides where it goes, bytes.
const AHEAD: usize = 64 * 1024;

/// What a configuration says of requests.
pub struct Setting {
    limits: Limits,
    head_limits: HeadLimits,
    language: Option<Language>,
    models: Arc<Models>,
    services: Vec<Service>,
    prefixes: Vec<Prefix>,
}

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
    /// The service that it goes to, if not to Codex.
    pub service: Option<String>,
}

/// What becomes of a request.
pub enum Outcome {
    /// It goes upstream.
    Translated(Box<Translated>),
    /// It passes unchanged to the service of this name.
    Passed(String),
    /// It is no upload: another page of ours answers, of this name.
    Page(&'static str),
}

impl Default for Setting {
    /// A server without a configuration.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            head_limits: HeadLimits { head: 64 * 1024, uri: 8 * 1024 },
            language: None,
            models: Arc::default(),
            services: Vec::new(),
            prefixes: Vec::new(),
        }
    }
}

impl Setting {
    /// A server with this configuration.
    ///
    /// # Errors
    /// Its language is none.
    pub fn of(config: &Config) -> Result<Self, ConfigFault> {
        let services = config.services.clone();
        let elsewhere = services.iter().flat_map(|service| service.models.clone()).collect();
        let paths = services.iter().enumerate();
        let paths = paths.flat_map(|(n, service)| service.paths.iter().map(move |path| (path.as_str(), n)));
        Ok(Self {
            limits: generation::limits(config),
            head_limits: HeadLimits { head: config.limits.max_head, uri: config.limits.max_uri },
            language: generation::language(config)?,
            models: Arc::new(
                Models::new(config.codex.models.clone(), config.codex.strict).without(elsewhere),
            ),
            prefixes: route::prefixes(paths),
            services,
        })
    }

    fn of_model(&self, model: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.models.iter().any(|name| name == model))
    }

    /// Whether the model in a form decides where it goes.
    fn have_models(&self) -> bool {
        self.services.iter().any(|service| !service.models.is_empty())
    }

    /// The service that has the model which the form names before its file.
    fn of_form(&self, announced: &Announced, body: &[Bytes]) -> Option<&Service> {
        if !self.have_models() {
            return None;
        }
        let mut peek = Peek::new(&announced.boundary, &self.limits);
        let mut room = AHEAD;
        for piece in body {
            let piece = piece.slice(..piece.len().min(room));
            room -= piece.len();
            match peek.push(piece) {
                Peeked::More => {}
                Peeked::Nothing => return None,
                Peeked::Model(model) => return self.of_model(&model),
            }
        }
        None
    }
}

/// Judges a request by its head and the pieces of its body; `whole` is false where the body breaks off. Keys are not
/// looked at.
///
/// # Errors
/// The [`Fault`] that the client would be told.
pub fn judge(setting: &Setting, head: &Head<'_>, body: &[Bytes], whole: bool) -> Result<Outcome, Fault> {
    let request = request(head)?;
    check_head(&request, setting.head_limits)?;
    let (shape, model) = match route::find(head.method, request.uri.path(), &setting.prefixes) {
        Route::Transcribe { shape, model } => (shape, model),
        Route::Translations => {
            let service = match setting.have_models() {
                true => setting.of_form(&check_upload(&request.headers, &setting.limits)?, body),
                false => None,
            };
            return match service.filter(|service| service.kind != ServiceKind::Codex) {
                Some(service) => Ok(Outcome::Passed(service.name.clone())),
                None => Err(Fault::NoTranslations),
            };
        }
        Route::Service(number) => {
            let service = setting.services.get(number).ok_or(Fault::Internal)?;
            return Ok(Outcome::Passed(service.name.clone()));
        }
        Route::WrongMethod { allow } => return Err(Fault::WrongMethod { allow }),
        Route::Unknown => {
            let path = request.uri.path().to_owned();
            return Err(Fault::UnknownUrl { method: head.method.to_owned(), path });
        }
        page => return Ok(Outcome::Page(page.name())),
    };
    let announced = check_upload(&request.headers, &setting.limits)?;
    let service = match &model {
        Some(model) => setting.of_model(model),
        None if shape == Shape::OpenAi => setting.of_form(&announced, body),
        None => None,
    };
    let models = match service {
        Some(Service { kind: ServiceKind::Codex, models, .. }) => {
            Arc::new(Models::new(models.clone(), false))
        }
        Some(service) => return Ok(Outcome::Passed(service.name.clone())),
        None => Arc::clone(&setting.models),
    };
    if let Some(name) = model.as_ref().filter(|name| !models.knows(name)) {
        return Err(Fault::ModelNotFound(name.clone()));
    }
    let terms = Terms {
        length: announced.length,
        // The same report for the same capture.
        seed: [0xa5; 35],
        shape,
        models,
        model,
        language: setting.language.clone(),
        limits: setting.limits.clone(),
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
        service: service.map(|service| service.name.clone()),
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
