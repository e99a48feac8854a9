//! How a row of the fault table becomes an answer: OpenAI's error envelope and the headers around it
//! (`contract: openai-audio.md` sections 5 and 6).

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

use super::{Blame, Reply};

/// The longest wait that is worth an automatic retry: Node's SDK sleeps through any `retry-after` and then uploads
/// everything again.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// All that one fault shows, to the client and to the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) status: u16,
    pub(super) blame: Blame,
    kind: &'static str,
    param: Option<&'static str>,
    code: Option<&'static str>,
    pub(super) message: Cow<'static, str>,
    retry: Retry,
    header: Option<(&'static str, &'static str)>,
}

/// What the client's SDK is told about sending the same request again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Nothing: it goes by the status.
    Unsaid,
    /// Not by itself: the outcome would be the same.
    Never,
    /// Not before this has passed.
    After(Duration),
    /// Not by itself, and not before this has passed.
    Later(Duration),
}

impl Row {
    /// The client's own fault: the same request fails again, so no SDK should send it again.
    pub(super) fn client(name: &'static str, status: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name,
            status,
            blame: Blame::Client,
            kind: "invalid_request_error",
            param: None,
            code: None,
            message: message.into(),
            retry: Retry::Never,
            header: None,
        }
    }

    /// The upstream's fault. The code is the name, so that clients can tell it from a fault of ours.
    pub(super) fn upstream(name: &'static str, status: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self { blame: Blame::Upstream, code: Some(name), ..Self::us(name, status, message) }
    }

    /// This service's fault.
    pub(super) fn us(name: &'static str, status: u16, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            blame: Blame::Us,
            kind: "server_error",
            retry: Retry::Unsaid,
            ..Self::client(name, status, message)
        }
    }

    pub(super) fn kind(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    pub(super) fn param(self, param: &'static str) -> Self {
        Self { param: Some(param), ..self }
    }

    pub(super) fn code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(super) fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    pub(super) fn header(self, name: &'static str, value: &'static str) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    /// All four keys are always there: SDKs read them blindly.
    pub(super) fn reply(&self) -> Reply {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: Error<'a>,
        }
        #[derive(Serialize)]
        struct Error<'a> {
            message: &'a str,
            r#type: &'a str,
            param: Option<&'a str>,
            code: Option<&'a str>,
        }
        let error = Error { message: &self.message, r#type: self.kind, param: self.param, code: self.code };
        let mut reply = Reply::json(self.status, &Envelope { error });
        reply.headers.extend(self.header.map(|(name, value)| (name, value.to_owned())));
        reply.headers.extend(self.retry.headers());
        reply
    }
}

impl Retry {
    /// SDKs prefer `retry-after-ms`, which tells what lies between seconds; `x-should-retry` overrules both, and the
    /// status.
    fn headers(self) -> Vec<(&'static str, String)> {
        let never = ("x-should-retry", "false".to_owned());
        match self {
            Self::Unsaid => Vec::new(),
            Self::Never => vec![never],
            Self::Later(wait) => vec![("retry-after", whole_seconds(wait).to_string()), never],
            Self::After(wait) => {
                let mut headers = vec![("retry-after", whole_seconds(wait).to_string())];
                if wait > LONGEST_RETRY {
                    headers.push(never);
                } else if wait.subsec_millis() != 0 {
                    headers.push(("retry-after-ms", wait.as_millis().to_string()));
                }
                headers
            }
        }
    }
}

/// A wait in seconds as `retry-after` has it: rounded up, at least one.
pub(super) fn whole_seconds(wait: Duration) -> u128 {
    wait.as_millis().div_ceil(1000).max(1)
}

/// Words of the client's as a message may repeat them: `longest` characters at most, with nothing among them that
/// steers a terminal or hides text.
pub(super) fn printable(text: &str, longest: usize) -> String {
    let shown = |c: char| if c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    text.chars().take(longest).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_has_four_keys_in_openais_order() {
        let row = Row::client("x", 400, "A \"quoted\" message").param("file").code("invalid_value");
        let reply = row.reply();
        assert_eq!((reply.status, reply.content_type), (400, "application/json"));
        assert_eq!(
            reply.body,
            r#"{"error":{"message":"A \"quoted\" message","type":"invalid_request_error","param":"file","code":"invalid_value"}}"#
        );
        let body = Row::us("x", 500, "M").reply().body;
        assert_eq!(body, r#"{"error":{"message":"M","type":"server_error","param":null,"code":null}}"#);
    }

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_a_long_one_forbids_the_retry() {
        for (millis, expected) in [
            (0, vec![("retry-after", "1")]),
            (250, vec![("retry-after", "1"), ("retry-after-ms", "250")]),
            (1_000, vec![("retry-after", "1")]),
            (1_500, vec![("retry-after", "2"), ("retry-after-ms", "1500")]),
            (60_000, vec![("retry-after", "60")]),
            (60_001, vec![("retry-after", "61"), ("x-should-retry", "false")]),
            (7_200_000, vec![("retry-after", "7200"), ("x-should-retry", "false")]),
        ] {
            let headers = Retry::After(Duration::from_millis(millis)).headers();
            let expected: Vec<_> = expected.into_iter().map(|(n, v)| (n, v.to_owned())).collect();
            assert_eq!(headers, expected, "{millis} ms");
        }
        let later = Retry::Later(Duration::from_millis(1_500)).headers();
        assert_eq!(later, [("retry-after", "2".to_owned()), ("x-should-retry", "false".to_owned())]);
    }

    #[test]
    fn echoed_words_are_bounded_and_printable() {
        assert_eq!(printable("whisper-1 (é, 録音)", 99), "whisper-1 (é, 録音)");
        assert_eq!(printable("a\r\nb\0c\u{202e}d\u{200b}e\u{1b}[31m", 99), "a??b?c?d?e?[31m");
        assert_eq!(printable(&"é".repeat(500), 128), "é".repeat(128));
    }
}
