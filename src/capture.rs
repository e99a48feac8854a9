//! `asr-edge translate CAPTURE`: what a captured request becomes, offline, for bug reports.

mod form;
mod framing;
mod redact;

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;

use self::framing::{Framing, Request};
use crate::answer::Fault;
use crate::base::file;
use crate::config::{Config, ConfigFault};
use crate::gateway::offline::{Head, Outcome, Setting, Translated, judge};
use crate::translate::Boundary;

/// The longest capture that is read, bytes.
const LONGEST: u64 = 256 * 1024 * 1024;

/// The flags of `translate`.
#[derive(Debug, Clone, clap::Args)]
pub struct TranslateArgs {
    /// A raw HTTP/1.1 request as it came over the connection, chunks and all.
    #[arg(value_name = "CAPTURE")]
    pub capture: PathBuf,
    /// Writes the capture back, fit to be shown: keys, words and names masked, audio zeroed after its first KiB.
    #[arg(long)]
    pub redact: bool,
    /// Config file (TOML), of which `limits`, `service`, and of `codex` language, models and strict count.
    #[arg(long, value_name = "FILE", conflicts_with = "redact")]
    pub config: Option<PathBuf>,
}

impl TranslateArgs {
    /// What the file, with the variables over it, says of requests; without a file, the defaults.
    ///
    /// # Errors
    /// Every fault found.
    pub fn setting(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Setting, Vec<ConfigFault>> {
        let Some(path) = &self.config else { return Ok(Setting::default()) };
        Setting::of(&Config::load_offline(path, env)?).map_err(|fault| vec![fault])
    }

    /// What is to be printed: the report, or the redacted capture.
    ///
    /// # Errors
    /// The file cannot be read, or holds no HTTP/1.1 request.
    pub fn run(&self, setting: &Setting) -> io::Result<Vec<u8>> {
        let name =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", self.capture.display()));
        let raw = file::read(&self.capture, LONGEST).map_err(name)?;
        let request = Request::read(&raw).map_err(|why| name(io::Error::other(why)))?;
        if self.redact {
            let boundary = boundary(&request);
            return Ok(redact::redacted(&raw, &request, boundary.as_ref().map(Boundary::as_bytes)));
        }
        Ok(report(setting, &Bytes::copy_from_slice(&raw), &request).into_bytes())
    }
}

fn boundary(request: &Request<'_>) -> Option<Boundary> {
    let (_, value) = request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"))?;
    Boundary::from_content_type(value).ok()
}

fn report(setting: &Setting, raw: &Bytes, request: &Request<'_>) -> String {
    let pieces: Vec<Bytes> = request.body.iter().map(|range| raw.slice(range.clone())).collect();
    let body = pieces.concat();
    let head = Head {
        method: request.method,
        target: request.target,
        minor: request.minor,
        headers: request.headers.clone(),
    };
    let mut text = String::new();
    let path = request.target.split('?').next().unwrap_or_default();
    line(
        &mut text,
        "request",
        format_args!("{} {} HTTP/1.{}", request.method, shown(path.as_bytes()), request.minor),
    );
    let framed = match request.framing {
        Framing::None => "no body".to_owned(),
        Framing::Length(length) if request.whole => format!("{length} bytes, with a length"),
        Framing::Length(length) => format!("{} of {length} bytes: it breaks off", body.len()),
        Framing::Chunked if request.whole => format!("{} bytes in {} chunks", body.len(), pieces.len()),
        Framing::Chunked => format!("{} bytes in {} chunks: it breaks off", body.len(), pieces.len()),
    };
    line(&mut text, "body", format_args!("{framed}"));
    if let Some(boundary) = boundary(request) {
        line(&mut text, "boundary", format_args!("{} characters", boundary.as_bytes().len()));
        list(&mut text, &body, boundary.as_bytes());
    }
    if !request.rest.is_empty() {
        line(&mut text, "behind it", format_args!("{} bytes", request.rest.len()));
    }
    match judge(setting, &head, &pieces, request.whole) {
        Ok(Outcome::Translated(translated)) => accepted(&mut text, &translated),
        Ok(Outcome::Passed(service)) => {
            line(&mut text, "outcome", format_args!("passes unchanged to the service `{service}`"));
        }
        Ok(Outcome::Page(page)) => {
            line(&mut text, "outcome", format_args!("no upload: answered by `{page}`"))
        }
        Err(fault) => refused(&mut text, &fault),
    }
    text
}

fn accepted(text: &mut String, translated: &Translated) {
    let Translated { content_type, length, body, asked, service } = translated;
    line(text, "outcome", format_args!("goes upstream"));
    if let Some(service) = service {
        line(text, "service", format_args!("{service}"));
    }
    line(text, "content-type", format_args!("{content_type}"));
    match length {
        Some(length) => line(text, "declared", format_args!("{length} bytes")),
        None => line(text, "declared", format_args!("no length: streamed over HTTP/2, else spooled")),
    }
    if let Ok(boundary) = Boundary::from_content_type(content_type.as_bytes()) {
        list(text, body, boundary.as_bytes());
        let end = form::parts(body, boundary.as_bytes()).1.unwrap_or(body.len());
        line(text, "padding", format_args!("{} bytes", body.len() - end));
    }
    line(
        text,
        "ignored",
        format_args!(
            "{}",
            if asked.ignored.is_empty() { "nothing".into() } else { asked.ignored.join(", ") }
        ),
    );
    let seconds = asked.duration.map(|duration| format!("{:.3} s", duration.as_secs_f64()));
    line(
        text,
        "audio",
        format_args!("{:?}, {}", asked.container, seconds.as_deref().unwrap_or("of unknown length")),
    );
    let stream = if asked.stream { ", as events" } else { "" };
    line(text, "answer", format_args!("{:?}{stream}", asked.format));
}

fn refused(text: &mut String, fault: &Fault) {
    line(text, "outcome", format_args!("refused with {}, `{}`", fault.status(), fault.name()));
    let reply = fault.reply();
    line(text, "answer", format_args!("{}", String::from_utf8_lossy(&reply.body)));
    for (name, value) in reply.headers {
        line(text, "header", format_args!("{name}: {value}"));
    }
}

/// The parts of a form: names, sizes, types. No values.
fn list(text: &mut String, body: &[u8], boundary: &[u8]) {
    for part in form::parts(body, boundary).0 {
        let head = body.get(part.head.clone()).unwrap_or_default();
        let disposition = form::header(head, "content-disposition").unwrap_or_default();
        let value = |name| disposition.get(form::parameter(disposition, name)?).map(shown);
        let mut about = format!("{}: {} bytes", value("name").unwrap_or_else(|| "?".into()), part.data.len());
        if let Some(name) = value("filename").or_else(|| value("filename*")) {
            let _ = write!(about, ", file name {name}");
        }
        if let Some(media_type) = form::header(head, "content-type") {
            let _ = write!(about, ", {}", shown(media_type));
        }
        if !part.closed {
            about.push_str(", without an end");
        }
        line(text, "  part", format_args!("{about}"));
    }
}

fn line(text: &mut String, name: &str, value: std::fmt::Arguments<'_>) {
    let _ = writeln!(text, "{name:<14}{value}");
}

/// Fit for a terminal, and not too long for one.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(200).flat_map(char::escape_debug).collect()
}
