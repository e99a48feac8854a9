//! One transcription without a server: the same translator, login and connections, with a file for a client.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::fs::File;

use super::backend::Backend;
use super::body::{Body, FileForm};
use super::generation;
use super::pace::Pace;
use super::record::{Heard, Record};
use super::transcribe::{Deadlines, Ended, Transcription};
use crate::answer::{Fault, Reply};
use crate::base::random;
use crate::config::{Config, ConfigFault};
use crate::translate::{Boundary, Refusal, Shape, Terms, Translator};
use crate::upstream::credential::LoginFault;

/// A file is read as fast as it can be; what feeds a pipe may take its time.
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// What is to be transcribed, and how.
pub struct Upload {
    /// The audio, read from where it stands.
    pub file: File,
    /// Bytes from there to its end, where that is known.
    pub length: Option<u64>,
    /// The name that a client would give it.
    pub name: String,
    /// The media type that a client would give it: printable ASCII.
    pub content_type: String,
    /// The text fields beside it.
    pub fields: Vec<(&'static str, String)>,
    /// Is told how many bytes of the file have been read, and at its end once more.
    pub progress: Box<dyn FnMut(u64, bool) + Send>,
}

/// Why there is no transcript.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration.
    #[error("the configuration is at fault")]
    Config(Vec<ConfigFault>),
    /// There is no login to send.
    #[error("{0}")]
    Login(#[from] LoginFault),
    /// The file cannot be read to its end.
    #[error("{0}")]
    File(#[from] io::Error),
    /// Refused by us, or failed upstream.
    #[error("{}", .0.message())]
    Fault(#[from] Fault),
}

/// Carries one upload through. Needs a tokio runtime.
///
/// # Errors
/// [`Failure`].
pub async fn transcribe(config: &Config, upload: Upload) -> Result<Reply, Failure> {
    let language = generation::language(config).map_err(|fault| Failure::Config(vec![fault]))?;
    let backend = Backend::codex(config, None, |models| models);
    let login = backend.upstream.credential.current()?;
    let (opening, closing, boundary) = form(&upload).map_err(Fault::Upload)?;
    let framing = (opening.len() + closing.len()) as u64;
    let length = upload.length.map(|length| length.saturating_add(framing));
    let limits = generation::limits(config);
    if let Some(read) = length.filter(|length| *length > limits.upload) {
        return Err(Fault::Upload(Refusal::TooLarge { limit: limits.upload, read }).into());
    }
    let terms = Terms {
        length,
        seed: random::fill(),
        shape: Shape::OpenAi,
        models: Arc::clone(&backend.models),
        model: None,
        language,
        limits,
    };
    let heard = Heard::default();
    let deadlines = Deadlines {
        body: PATIENCE,
        floor: 0,
        request: config.codex.request_timeout,
        per_mib: config.codex.time_per_mib,
        client: None,
    };
    let transcription = Transcription {
        heard: &heard,
        dialer: &backend.dialer,
        upstream: &backend.upstream,
        pace: Pace::new(&deadlines),
        deadlines,
        login,
        translator: Translator::new(&boundary, terms),
        ahead: VecDeque::new(),
    };
    let mut body = Body::Form(FileForm::new(opening, upload.file, closing, upload.progress));
    match transcription.run(&mut body, &mut Record::new()).await {
        Ok(reply) => Ok(reply),
        Err(Ended::Gone) => Err(Fault::Internal.into()),
        Err(Ended::Fault(fault)) => match body {
            Body::Form(FileForm { error: Some(error), .. }) => Err(error.into()),
            _ => Err(fault.into()),
        },
    }
}

/// What goes before and behind the file, and the boundary in it.
fn form(upload: &Upload) -> Result<(Bytes, Bytes, Boundary), Refusal> {
    let boundary = random::hex::<16>();
    let mut opening = String::new();
    for (name, value) in &upload.fields {
        opening.push_str(&format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        ));
    }
    // As browsers write it (WHATWG HTML, multipart/form-data encoding).
    let name = upload.name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A");
    opening.push_str(&format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         Content-Type: {}\r\n\r\n",
        upload.content_type
    ));
    let closing = format!("\r\n--{boundary}--\r\n");
    let content_type = format!("multipart/form-data; boundary={boundary}");
    Ok((opening.into(), closing.into(), Boundary::from_content_type(content_type.as_bytes())?))
}
