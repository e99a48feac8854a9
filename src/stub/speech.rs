//! The stand-in's answers, with their pauses and their breaks.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;

use super::script::{Drop, Script};

/// The connection or the stream is to be ended here and now.
#[derive(Debug, thiserror::Error)]
#[error("dropped, as the script says")]
pub(super) struct Dropped;

/// One step of an answer's body.
pub(super) enum Step {
    Wait(Duration),
    Say(Bytes),
    /// Break off, this many bytes short of what the head promised.
    Break(u64),
}

/// The body of an answer.
pub(super) struct Speech {
    steps: VecDeque<Step>,
    wait: Option<Pin<Box<Sleep>>>,
}

/// How long the first half of an answer is given to leave before the connection breaks.
const HALF_WAY: Duration = Duration::from_millis(20);

impl Speech {
    /// A body that is said at once.
    pub(super) fn plain(body: impl Into<Bytes>) -> Self {
        Self { steps: [Step::Say(body.into())].into(), wait: None }
    }

    /// A body as the script has it.
    fn scripted(mut body: Bytes, script: &Script) -> Self {
        let mut steps = VecDeque::new();
        if script.first_byte_delay_ms > 0 {
            steps.push_back(Step::Wait(Duration::from_millis(script.first_byte_delay_ms)));
        }
        if script.drop == Some(Drop::MidAnswer) {
            let rest = body.split_off(body.len() / 2).len() as u64;
            steps.extend([Step::Say(body), Step::Wait(HALF_WAY), Step::Break(rest.max(1))]);
        } else {
            steps.push_back(Step::Say(body));
        }
        Self { steps, wait: None }
    }
}

impl Body for Speech {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        loop {
            if let Some(wait) = &mut self.wait {
                ready!(wait.as_mut().poll(context));
                self.wait = None;
            }
            match self.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Wait(time)) => self.wait = Some(Box::pin(tokio::time::sleep(time))),
                Some(Step::Say(bytes)) if bytes.is_empty() => {}
                Some(Step::Say(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Step::Break(_)) => return Poll::Ready(Some(Err(Dropped))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.wait.is_none() && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.steps.iter().map(|step| match step {
            Step::Wait(_) => 0,
            Step::Say(bytes) => bytes.len() as u64,
            Step::Break(missing) => *missing,
        });
        SizeHint::with_exact(left.sum())
    }
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Response<Speech> {
    let mut response = Response::new(Speech::plain(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// `{"detail": ...}`, as FastAPI says it.
pub(super) fn detail(status: StatusCode, what: &str) -> Response<Speech> {
    json(status, serde_json::json!({ "detail": what }).to_string())
}

/// The answer that the script asks for. `text` is the transcript.
pub(super) fn scripted(script: &Script, text: &str) -> Response<Speech> {
    let status = script.status();
    let body = match &script.body {
        Some(serde_json::Value::String(body)) => body.clone(),
        Some(other) => other.to_string(),
        None if script.challenge => CHALLENGE.to_owned(),
        None if status.is_success() => serde_json::json!({ "text": text }).to_string(),
        None if status == StatusCode::INTERNAL_SERVER_ERROR => UNREADABLE.to_owned(),
        None => serde_json::json!({ "detail": status.canonical_reason() }).to_string(),
    };
    let mut response = json(status, Bytes::new());
    *response.body_mut() = Speech::scripted(body.into(), script);
    let headers = response.headers_mut();
    if script.challenge {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=UTF-8"));
        headers.insert(header::SERVER, HeaderValue::from_static("cloudflare"));
        headers.insert("cf-mitigated", HeaderValue::from_static("challenge"));
        headers.insert("cf-ray", HeaderValue::from_static("8d2f1c0a9b3e4f5d-AMS"));
    }
    for (name, value) in &script.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    for cookie in &script.set_cookie {
        if let Ok(cookie) = HeaderValue::try_from(cookie) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
    response
}

const UNREADABLE: &str = r#"{"detail":"Error in ASR API"}"#;
const CHALLENGE: &str = "<!DOCTYPE html><html lang=\"en-US\"><head><title>Just a moment...</title></head>\
    <body>Enable JavaScript and cookies to continue</body></html>";
