//! What the stand-in is told to do to the requests to come.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value;

/// One way of (mis)behaving. The default one answers 200 with a text as soon as the body has been read.
///
/// A breach of the contract is answered as such whatever the script says, unless the script has the answer or the
/// end of the connection come before the body has been read.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Script {
    /// Status of the answer; 200 when absent.
    pub status: Option<u16>,
    /// Body of the answer: a string as it is, any other JSON value serialised.
    pub body: Option<Value>,
    /// Headers of the answer, over those it would have.
    pub headers: BTreeMap<String, String>,
    /// Milliseconds from the body's end to the answer's head.
    pub delay_ms: u64,
    /// Milliseconds from the answer's head to the first byte of its body.
    pub first_byte_delay_ms: u64,
    /// Answer as Cloudflare's challenge: 403, HTML, `cf-mitigated: challenge`.
    pub challenge: bool,
    /// Read the body at this many bytes a second.
    pub slow_read: Option<u64>,
    /// Stop reading once this many body bytes have come; the connection stays open.
    pub stop_reading_after: Option<u64>,
    /// Answer before the body has been read, then read no further; the connection stays open.
    pub early: bool,
    /// With `early`: answer once this many body bytes have come, instead of none.
    pub early_after: u64,
    /// How long a connection is kept open that is no longer read from; 30,000 when absent.
    pub hold_ms: Option<u64>,
    /// Close the connection (HTTP/2: reset the stream) at this point.
    pub drop: Option<Drop>,
    /// With `drop`, on HTTP/2: close the whole connection too.
    pub hang_up: bool,
    /// The transcript.
    pub text: Option<String>,
    /// Send this informational status (such as 103) as soon as the head has come. HTTP/1.1 only.
    pub informational: Option<u16>,
    /// Announce the connection's end with the answer: `Connection: close`, or GOAWAY on HTTP/2.
    pub close: bool,
    /// `Set-Cookie` headers of the answer.
    pub set_cookie: Vec<String>,
    /// Apply to this many requests, then behave as at the start; to all of them when absent.
    pub times: Option<u64>,
}

/// Where a connection is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Drop {
    /// `after_head`: the request's head has come, none of its body has been read.
    AfterHead,
    /// `mid_body_after:N`: N bytes of the request's body have been read.
    MidBody(u64),
    /// `before_answer`: the whole request has been read.
    BeforeAnswer,
    /// `mid_answer`: the answer's head and half its body have been sent.
    MidAnswer,
}

impl TryFrom<String> for Drop {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fault = || format!("no such drop: {text}");
        match text.as_str() {
            "after_head" => Ok(Self::AfterHead),
            "before_answer" => Ok(Self::BeforeAnswer),
            "mid_answer" => Ok(Self::MidAnswer),
            other => {
                let bytes = other.strip_prefix("mid_body_after:").ok_or_else(fault)?;
                Ok(Self::MidBody(bytes.parse().map_err(|_| fault())?))
            }
        }
    }
}

/// What happens to a request before its body has been read whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Answer,
    Stall,
    Drop,
}

impl Script {
    /// Reads a script and checks what serde cannot.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        let script: Self = serde_json::from_slice(json).map_err(|fault| fault.to_string())?;
        if let Some(status) = script.status
            && !(200..=599).contains(&status)
        {
            return Err(format!("not the status of an answer: {status}"));
        }
        if script.informational.is_some_and(|status| !(102..=199).contains(&status)) {
            return Err("not an informational status".to_owned());
        }
        for (name, value) in &script.headers {
            HeaderName::try_from(name).map_err(|_| format!("not a header name: {name}"))?;
            HeaderValue::try_from(value).map_err(|_| format!("not a value of {name}"))?;
        }
        Ok(script)
    }

    pub(super) fn status(&self) -> StatusCode {
        let wanted = self.status.unwrap_or(if self.challenge { 403 } else { 200 });
        StatusCode::from_u16(wanted).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(super) fn hold(&self) -> Duration {
        Duration::from_millis(self.hold_ms.unwrap_or(30_000))
    }

    /// After how many body bytes the request takes another turn, and which.
    pub(super) fn turn(&self) -> Option<(u64, Turn)> {
        if self.early {
            return Some((self.early_after, Turn::Answer));
        }
        match self.drop {
            Some(Drop::AfterHead) => Some((0, Turn::Drop)),
            Some(Drop::MidBody(bytes)) => Some((bytes, Turn::Drop)),
            _ => self.stop_reading_after.map(|bytes| (bytes, Turn::Stall)),
        }
    }
}

/// The script in force, and the one of the whole run to fall back to.
pub(super) struct Stage {
    base: Script,
    now: Mutex<Option<Script>>,
}

impl Stage {
    pub(super) const fn new(base: Script) -> Self {
        Self { base, now: Mutex::new(None) }
    }

    /// Puts a script in force.
    pub(super) fn set(&self, script: Script) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Some(script);
    }

    /// The script for the next request.
    pub(super) fn next(&self) -> Script {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        match now.as_mut().map(|script| script.times.as_mut()) {
            None => {}
            Some(Some(0)) => *now = None,
            Some(Some(left)) => *left -= 1,
            Some(None) => {}
        }
        now.as_ref().unwrap_or(&self.base).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_applies_as_often_as_it_says_and_then_the_run_s_own_does() {
        let stage = Stage::new(Script { status: Some(503), ..Script::default() });
        assert_eq!(stage.next().status(), 503);
        stage.set(Script::parse(br#"{"status": 429, "times": 2}"#).unwrap());
        let statuses: Vec<u16> = (0..4).map(|_| stage.next().status().as_u16()).collect();
        assert_eq!(statuses, [429, 429, 503, 503]);
        stage.set(Script::parse(b"{}").unwrap());
        assert_eq!(stage.next().status(), 200);
        assert_eq!(stage.next().status(), 200);
    }

    #[test]
    fn a_script_with_a_wrong_word_is_refused() {
        for wrong in [
            r#"{"stauts": 1}"#,
            r#"{"status": 99}"#,
            r#"{"drop": "sometime"}"#,
            r#"{"drop": "mid_body_after:x"}"#,
            r#"{"headers": {"a b": "c"}}"#,
            r#"{"informational": 200}"#,
        ] {
            assert!(Script::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let script = Script::parse(br#"{"drop": "mid_body_after:70"}"#).unwrap();
        assert_eq!(script.turn(), Some((70, Turn::Drop)));
    }
}
