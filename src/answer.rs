//! The upstream's answer and [`Asked`] in, one OpenAI answer out.
//!
//! Whatever goes wrong, here or anywhere else, is a [`Fault`], and `fault` is the one table of what the client
//! sees of it.

pub mod about;
mod diagnose;
mod envelope;
mod events;
pub mod fault;
mod format;
pub mod models;
mod transcript;

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

pub use diagnose::{fault_of, passes_by_itself};
pub use fault::{Blame, Fault};

use crate::translate::Asked;

/// What the upstream said, read whole and bounded.
#[derive(Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Response headers.
    pub headers: http::HeaderMap,
    /// Response body.
    pub body: Bytes,
}

/// What goes back to the client, complete but for the headers that every answer carries.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Further headers of this very answer (`retry-after`, `allow`, `x-asr-ignored`, ...).
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
}

/// Renders the upstream's whole answer as the caller asked for it. Only a 200 with a transcript is a success, and
/// an empty transcript is one (silence); everything else is a fault.
///
/// `now` is the time in seconds since the Unix epoch: a rate limit may name the moment of its end.
pub fn reply(answer: &Answer, asked: &Asked, now: u64) -> Result<Reply, Fault> {
    let text = match answer.status {
        200 => transcript::text(&answer.body),
        _ => None,
    };
    let Some(text) = text else {
        return Err(fault_of(answer, now));
    };
    let mut reply = if asked.stream { events::render(&text) } else { format::render(&text, asked) };
    if !asked.ignored.is_empty() {
        reply.headers.push(("x-asr-ignored", asked.ignored.join(",")));
    }
    Ok(reply)
}

impl Reply {
    fn new(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status, content_type, headers: Vec::new(), body: body.into() }
    }

    fn json(status: u16, body: &impl Serialize) -> Self {
        Self::new(status, "application/json", to_json(body))
    }
}

/// Our own plain structs of strings and numbers, which `serde_json` cannot fail to write.
fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// Without headers and body: those may hold cookies and the transcript.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("status", &self.status).field("bytes", &self.body.len()).finish()
    }
}

/// Without the body: it may hold the transcript.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("content_type", &self.content_type)
            .field("headers", &self.headers)
            .field("bytes", &self.body.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderName, HeaderValue};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::translate::{Container, Format, Language, Shape};

    /// A plain request for this format.
    pub(super) fn asked(format: Format) -> Asked {
        Asked {
            shape: Shape::OpenAi,
            model: "whisper-1".to_owned(),
            format,
            stream: false,
            language: None,
            container: Container::Wav,
            duration: None,
            ignored: Vec::new(),
        }
    }

    /// An upstream answer.
    pub(super) fn answer(
        status: u16,
        headers: &[(&'static str, &'static str)],
        body: &'static str,
    ) -> Answer {
        let header = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        Answer {
            status,
            headers: headers.iter().map(header).collect(),
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    /// Fails unless this is an OpenAI error that every SDK reads, in headers that every server can send.
    pub(super) fn assert_envelope(reply: &Reply) {
        assert!((400..=599).contains(&reply.status), "{reply:?}");
        assert_eq!(reply.content_type, "application/json");
        assert_headers(reply);
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
        let error = body["error"].as_object().unwrap();
        let mut keys: Vec<_> = error.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["code", "message", "param", "type"]);
        assert!(!error["message"].as_str().unwrap().is_empty());
        assert!(!error["type"].as_str().unwrap().is_empty());
        for key in ["param", "code"] {
            assert!(error[key].is_string() || error[key].is_null(), "{body}");
        }
    }

    fn assert_headers(reply: &Reply) {
        for (name, value) in &reply.headers {
            assert_eq!(HeaderName::from_static(name).as_str(), *name);
            assert!(HeaderValue::from_str(value).is_ok(), "{name}: {value:?}");
        }
    }

    #[test]
    fn a_transcript_is_rendered_and_what_had_no_effect_is_named() {
        let mut asked = asked(Format::Text);
        asked.ignored = vec!["temperature".to_owned(), "include".to_owned()];
        let reply = reply(&answer(200, &[], r#"{"text":"Hi"}"#), &asked, 0).unwrap();
        assert_eq!(reply.body, "Hi\n");
        assert_eq!(reply.headers, [("x-asr-ignored", "temperature,include".to_owned())]);
    }

    #[test]
    fn a_stream_is_events_whatever_the_format_and_names_what_had_no_effect_too() {
        for format in [Format::Json, Format::Text, Format::Markdown, Format::VerboseJson] {
            let mut asked = asked(format);
            asked.stream = true;
            asked.ignored = vec!["seed".to_owned()];
            let reply = reply(&answer(200, &[], r#"{"text":"Hi"}"#), &asked, 0).unwrap();
            assert_eq!(reply.content_type, "text/event-stream; charset=utf-8");
            assert_eq!(reply.headers, [("x-asr-ignored", "seed".to_owned())]);
        }
    }

    #[test]
    fn silence_is_a_success() {
        let reply = reply(&answer(200, &[], r#"{"text":""}"#), &asked(Format::Json), 0).unwrap();
        assert_eq!((reply.status, reply.body.as_ref()), (200, &b"{\"text\":\"\"}"[..]));
    }

    #[test]
    fn a_text_under_another_status_than_200_is_no_success() {
        for (status, fault) in [
            (201, Fault::UpstreamBroken),
            (206, Fault::UpstreamBroken),
            (401, Fault::UpstreamAuth { retry_after: None }),
        ] {
            let result = reply(&answer(status, &[], r#"{"text":"Hi"}"#), &asked(Format::Json), 0);
            assert_eq!(result, Err(fault), "{status}");
        }
    }

    #[test]
    fn a_200_without_a_text_is_a_broken_upstream_or_a_challenge() {
        for body in ["", "{}", "<html>", r#"{"text":null}"#, r#"["Hi"]"#] {
            let result = reply(&answer(200, &[], body), &asked(Format::Json), 0);
            assert_eq!(result, Err(Fault::UpstreamBroken), "{body}");
        }
        let challenge = answer(200, &[("cf-mitigated", "challenge")], "<html>");
        assert_eq!(
            reply(&challenge, &asked(Format::Json), 0),
            Err(Fault::UpstreamChallenge { retry_after: None })
        );
    }

    #[test]
    fn content_and_cookies_stay_out_of_debug_output() {
        let upstream = answer(200, &[("set-cookie", "__cf_bm=planted")], r#"{"text":"planted"}"#);
        let reply = reply(&upstream, &asked(Format::Json), 0).unwrap();
        assert!(!format!("{upstream:?} {reply:?}").contains("planted"));
    }

    fn any_answer() -> impl Strategy<Value = Answer> {
        let status = prop_oneof![Just(200), Just(403), Just(429), Just(500), any::<u16>()];
        let body = prop_oneof![
            any::<Vec<u8>>(),
            any::<String>().prop_map(|text| serde_json::json!({ "text": text }).to_string().into_bytes()),
            any::<f64>()
                .prop_map(|n| format!(r#"{{"error":{{"resets_at":{n:e},"resets_in_seconds":{n}}}}}"#).into()),
        ];
        let headers = proptest::collection::vec(
            (
                prop_oneof![Just("retry-after"), Just("content-type"), Just("cf-mitigated"), Just("x-other")],
                prop_oneof![
                    "[ -~]{0,40}",
                    any::<f64>().prop_map(|n| n.to_string()),
                    Just("challenge".to_owned())
                ],
            ),
            0..4,
        );
        (status, headers, body).prop_map(|(status, headers, body)| {
            let headers: HeaderMap = headers
                .into_iter()
                .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap()))
                .collect();
            Answer { status, headers, body: body.into() }
        })
    }

    fn any_asked() -> impl Strategy<Value = Asked> {
        let format = prop_oneof![
            Just(Format::Json),
            Just(Format::Text),
            Just(Format::Markdown),
            Just(Format::VerboseJson)
        ];
        let language = prop_oneof![Just(None), Just(Some("en")), Just(Some("tlh"))];
        (format, any::<bool>(), language, any::<Option<Duration>>()).prop_map(
            |(format, stream, language, duration)| Asked {
                stream,
                duration,
                language: language.map(|code| Language(code.to_owned())),
                ..asked(format)
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_the_upstream_says_the_client_gets_one_whole_answer(
            answer in any_answer(),
            asked in any_asked(),
            now in any::<u64>(),
        ) {
            match reply(&answer, &asked, now) {
                Ok(reply) => {
                    prop_assert_eq!((reply.status, answer.status), (200, 200));
                    assert_headers(&reply);
                    if reply.content_type == "application/json" {
                        let body: Value = serde_json::from_slice(&reply.body).unwrap();
                        prop_assert!(body["text"].is_string());
                        prop_assert!(body.as_object().unwrap().values().all(|value| !value.is_null()));
                    } else {
                        prop_assert!(std::str::from_utf8(&reply.body).is_ok());
                    }
                }
                Err(fault) => assert_envelope(&fault.reply()),
            }
            assert_envelope(&fault_of(&answer, now).reply());
        }
    }
}
