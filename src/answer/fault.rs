//! Everything that a client can see go wrong: the one table of statuses, OpenAI error objects, retry hints and blame.
//!
//! The words are OpenAI's where it has words for the case (`contract: openai-audio.md` section 5). No message holds
//! a key, a token or anything of the upload but a model's name or media type, bounded and printable.

mod upload;

use std::fmt;
use std::time::Duration;

use super::Reply;
use super::envelope::{Retry, Row, printable, whole_seconds};
use crate::translate::Refusal;

/// What went wrong, as far as the answer depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No key came.
    NoKey,
    /// A key came that is none of ours.
    WrongKey,
    /// Too many wrong keys came from this address.
    TooManyFailedKeys {
        /// When the next one is looked at.
        retry_after: Duration,
    },
    /// There is no place for another connection.
    TooManyConnections,
    /// Two `Authorization` headers: which one would count differs from reader to reader.
    SeveralKeys,
    /// A path that is not served.
    UnknownUrl {
        /// The method as sent.
        method: String,
        /// The path as sent, without its query, which may hold a key.
        path: String,
    },
    /// A path that is served, with another method.
    WrongMethod {
        /// The value of `Allow`.
        allow: &'static str,
    },
    /// A model that is not served.
    ModelNotFound(String),
    /// Translations: this upstream has none.
    NoTranslations,
    /// An `Expect` other than `100-continue`.
    Expectation,
    /// The request body comes in a content coding.
    ContentEncoding,
    /// The request head is over its limit.
    HeadTooLarge,
    /// The request target is over its limit.
    UriTooLong,
    /// A version of HTTP that is not spoken here.
    HttpVersion,
    /// The request head did not arrive in time.
    HeadTimeout,
    /// The request body stopped arriving.
    BodyTimeout,
    /// The request body ended early, or its chunked framing is broken.
    BodyBroken,
    /// `Content-Length` and `Transfer-Encoding` do not frame one body.
    LengthBad,
    /// `Host` is missing, malformed or given twice.
    HostBad,
    /// Header fields that may not be passed on as they are.
    HeadBad,
    /// `Host` is none of the names that our certificates are for.
    Misdirected,
    /// The API was called without TLS where there is TLS.
    PlainHttp,
    /// The upload is refused.
    Upload(Refusal),
    /// As many uploads are in flight as may be, and the queue's time is up.
    Busy {
        /// When to come again.
        retry_after: Duration,
    },
    /// Our upstream login has run out, as its own text says.
    LoginExpired,
    /// There is no usable upstream login.
    LoginMissing,
    /// The upstream rejected our login.
    UpstreamAuth {
        /// When it is tried again, if that is known.
        retry_after: Option<Duration>,
    },
    /// The upstream has had enough of us.
    UpstreamRateLimited {
        /// How long it wants to be left alone, if it said so.
        retry_after: Option<Duration>,
    },
    /// The upload is too large for the upstream.
    UpstreamTooLarge,
    /// The upstream's edge wants a browser.
    UpstreamChallenge {
        /// When it is tried again, if that is known.
        retry_after: Option<Duration>,
    },
    /// The upstream's recogniser cannot read the audio.
    UpstreamAsr,
    /// The upstream's answer is no answer: no transcript in a 200, an early 2xx, a status that does not exist.
    UpstreamBroken,
    /// The upstream failed by its own word, or the connection was lost on the way.
    UpstreamUnavailable {
        /// How long it wants to be left alone, if it said so.
        retry_after: Option<Duration>,
    },
    /// No connection to the upstream: name, route, TLS.
    UpstreamUnreachable,
    /// No connection to the proxy on the way to the upstream: name, route, TLS, time.
    ProxyUnreachable,
    /// That proxy does not connect to the upstream, by this status.
    ProxyRefused(u16),
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream refused the request with this status, for no reason that we know.
    UpstreamRefused(u16),
    /// An upload of unknown length found no room to wait in.
    SpoolFull,
    /// The service is stopping.
    Draining,
    /// A fault in this program.
    Internal,
}

/// Whose fault it is: the axis on which an operator sorts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The client's request cannot be served.
    Client,
    /// The upstream, or the way to it.
    Upstream,
    /// This service: its login, its room, its code.
    Us,
}

impl Fault {
    /// The whole answer.
    pub fn reply(&self) -> Reply {
        self.row().reply()
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.row().status
    }

    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        self.row().blame
    }

    /// A fixed `snake_case` name, for logs and metrics.
    pub fn name(&self) -> &'static str {
        self.row().name
    }

    /// What the client is told, in a sentence.
    pub fn message(&self) -> String {
        self.row().message.into_owned()
    }

    fn row(&self) -> Row {
        match self {
            Self::NoKey => Row::client(
                "no_key",
                401,
                "You didn't provide an API key. You need to provide your API key in an Authorization header using \
                 Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
            )
            .header("www-authenticate", "Bearer"),
            Self::WrongKey => {
                let message = "Incorrect API key provided. Keys for this service come from its operator.";
                Row::client("wrong_key", 401, message)
                    .code("invalid_api_key")
                    .header("www-authenticate", "Bearer")
            }
            Self::TooManyFailedKeys { retry_after } => Row::client(
                "too_many_failed_keys",
                429,
                "Too many requests with a wrong API key, or none, have come from your address. Nothing is looked at for \
                 a while.",
            )
            .kind("requests")
            .code("rate_limit_exceeded")
            .retry(Retry::After(*retry_after)),
            Self::TooManyConnections => {
                let message = "Too many connections are open. Close some, or try again in a moment.";
                Row::us("too_many_connections", 503, message).retry(Retry::After(SHORT_WAIT))
            }
            Self::SeveralKeys => {
                Row::client("several_keys", 400, "The request has more than one Authorization header.")
                    .header("www-authenticate", "Bearer")
            }
            Self::UnknownUrl { method, path } => Row::client("unknown_url", 404, invalid_url(method, path)),
            Self::WrongMethod { allow } => {
                let message = format!("This URL does not take that method. It takes: {allow}.");
                Row::client("wrong_method", 405, message).code("method_not_supported").header("allow", allow)
            }
            Self::ModelNotFound(model) => model_not_found(model),
            Self::NoTranslations => Row::client(
                "no_translations",
                400,
                "Translations are not available: the upstream of this service can only transcribe. \
                 Use /v1/audio/transcriptions instead.",
            )
            .code("unsupported_endpoint"),
            Self::Expectation => {
                Row::client("expectation", 417, "The only Expect that this service can meet is 100-continue.")
            }
            Self::ContentEncoding => {
                Row::client("content_encoding", 415, "The request body must come without a Content-Encoding.")
                    .header("accept-encoding", "identity")
            }
            Self::HeadTooLarge => {
                Row::client("head_too_large", 431, "The request's header fields are too large.")
            }
            Self::UriTooLong => Row::client("uri_too_long", 414, "The request's URL is too long."),
            Self::HttpVersion => {
                Row::client("http_version", 505, "This service speaks HTTP/1.0, HTTP/1.1 and HTTP/2.")
            }
            Self::HeadTimeout => {
                Row::client("head_timeout", 408, "The request's header fields did not arrive in time.")
            }
            Self::BodyTimeout => Row::client("body_timeout", 408, "The request body did not arrive in time."),
            Self::BodyBroken => {
                let message = "The request body ended before it was complete, or its framing is broken.";
                Row::client("body_broken", 400, message)
            }
            Self::LengthBad => {
                Row::client("length_bad", 400, "Content-Length or Transfer-Encoding is invalid.")
            }
            Self::HostBad => {
                Row::client("host_bad", 400, "The Host header is missing, invalid or given more than once.")
            }
            Self::HeadBad => Row::client("head_bad", 400, "The request's header fields are malformed."),
            Self::Misdirected => {
                let message = "This server does not answer for that host. Check the base URL of your client.";
                Row::client("misdirected", 421, message).code("misdirected_request")
            }
            Self::PlainHttp => Row::client(
                "plain_http",
                403,
                "This service is reached over HTTPS only: use https:// in the base URL. If this request carried an API \
                 key, it crossed the network in clear text: have it replaced.",
            )
            .code("https_required"),
            Self::Upload(refusal) => upload::row(refusal),

            Self::Busy { retry_after } => {
                let message = "The service is handling as many uploads as it can. Please try again in a moment.";
                Row::us("busy", 429, message)
                    .kind("requests")
                    .code("rate_limit_exceeded")
                    .retry(Retry::After(*retry_after))
            }
            Self::LoginExpired => login("login_expired", "The service's own login at the upstream has expired"),
            Self::LoginMissing => login("login_missing", "The service has no usable login at the upstream"),
            Self::UpstreamAuth { retry_after } => {
                login("upstream_auth", "The upstream rejected the service's own login").retry(later(*retry_after))
            }

            Self::UpstreamRateLimited { retry_after } => {
                Row::upstream("upstream_rate_limited", 429, rate_limited(*retry_after))
                    .kind("requests")
                    .code("rate_limit_exceeded")
                    .retry(Retry::After(retry_after.unwrap_or(UNSAID_WAIT)))
            }
            Self::UpstreamTooLarge => {
                Row::client("upstream_too_large", 413, "The upload is larger than the upstream takes.")
                    .kind("server_error")
                    .code("upstream_too_large")
            }
            Self::UpstreamChallenge { retry_after } => Row::upstream(
                "upstream_challenge",
                502,
                "The upstream's network edge asked for a browser challenge, which this service does not solve.",
            )
            .retry(later(*retry_after)),
            Self::UpstreamAsr => {
                Row::client("upstream_asr", 400, "Audio file might be corrupted or unsupported")
                    .param("file")
                    .code("invalid_value")
            }
            Self::UpstreamBroken => {
                Row::upstream("upstream_broken", 502, "The upstream's answer could not be understood.")
            }
            Self::UpstreamUnavailable { retry_after } => {
                let message = "The upstream failed, or the connection to it was lost.";
                Row::upstream("upstream_unavailable", 502, message)
                    .retry(retry_after.map_or(Retry::Unsaid, Retry::After))
            }
            Self::UpstreamUnreachable => {
                Row::upstream("upstream_unreachable", 502, "The upstream could not be reached.")
            }
            Self::ProxyUnreachable => {
                let message = "The proxy between this service and its upstream could not be reached.";
                Row::us("proxy_unreachable", 502, message).code("proxy_unreachable")
            }
            Self::ProxyRefused(status) => {
                let message = format!(
                    "The proxy between this service and its upstream refused to connect them, with status {status}."
                );
                // What it forbids it forbids again; what it could not reach, it may reach later.
                let retry = if *status < 500 { Retry::Never } else { Retry::Unsaid };
                Row::us("proxy_refused", 502, message).code("proxy_refused").retry(retry)
            }
            Self::UpstreamTimeout => {
                Row::upstream("upstream_timeout", 504, "The upstream did not answer in time.")
            }
            Self::UpstreamRefused(status) => {
                let message = format!("The upstream refused the request with status {status}.");
                Row::upstream("upstream_refused", 502, message).retry(Retry::Never)
            }

            Self::SpoolFull => Row::us(
                "spool_full",
                503,
                "The service has no room for an upload of unknown length right now. \
                 Send it with a Content-Length, or try again in a moment.",
            )
            .retry(Retry::After(SHORT_WAIT)),
            Self::Draining => {
                Row::us("draining", 503, "The service is restarting. Please try again in a moment.")
                    .retry(Retry::After(SHORT_WAIT))
            }
            Self::Internal => {
                let message = "The server had an error while processing your request. Sorry about that!";
                Row::us("internal", 500, message)
            }
        }
    }
}

/// What a rate-limited upstream is given when it names no time. SDKs left to themselves upload again within a second.
const UNSAID_WAIT: Duration = Duration::from_secs(10);

/// What passes by itself: an upload ends, another process takes over.
const SHORT_WAIT: Duration = Duration::from_secs(2);

/// An SDK that tries again by itself would upload in vain; its user may after a while.
fn later(wait: Option<Duration>) -> Retry {
    wait.map_or(Retry::Never, Retry::Later)
}

/// One row for the two ways a model is asked for: in the form, and in the path.
fn model_not_found(model: &str) -> Row {
    let model = printable(model, 128);
    let message = format!("The model '{model}' does not exist or you do not have access to it.");
    Row::client("model_not_found", 404, message).code("model_not_found")
}

/// Our login at the upstream, not the client's key: to say 401 would send its user looking in the wrong place.
fn login(name: &'static str, what: &str) -> Row {
    let message = format!("{what}, and its operator must renew it. Your API key is not at fault.");
    Row::us(name, 503, message).code("upstream_auth").retry(Retry::Never)
}

fn invalid_url(method: &str, path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    format!("Invalid URL ({} {})", printable(method, 16), printable(path, 128))
}

fn rate_limited(retry_after: Option<Duration>) -> String {
    let limited = "The upstream's rate limit is reached.";
    match retry_after {
        Some(wait) => format!("{limited} Please try again in {} seconds.", whole_seconds(wait)),
        None => format!("{limited} Please try again later."),
    }
}

/// The name alone, which is safe wherever an error's text may end up.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;
    use crate::answer::tests::assert_envelope;

    const WAIT: Duration = Duration::from_secs(3);

    /// Every fault but the refused uploads, which have tests of their own, with the status it must have.
    fn all() -> Vec<(Fault, u16, Blame)> {
        use Blame::{Client, Upstream, Us};
        vec![
            (Fault::NoKey, 401, Client),
            (Fault::WrongKey, 401, Client),
            (Fault::TooManyFailedKeys { retry_after: WAIT }, 429, Client),
            (Fault::TooManyConnections, 503, Us),
            (Fault::SeveralKeys, 400, Client),
            (Fault::UnknownUrl { method: "POST".into(), path: "/v1/foo".into() }, 404, Client),
            (Fault::WrongMethod { allow: "GET, HEAD" }, 405, Client),
            (Fault::ModelNotFound("whisper-9".into()), 404, Client),
            (Fault::NoTranslations, 400, Client),
            (Fault::Expectation, 417, Client),
            (Fault::ContentEncoding, 415, Client),
            (Fault::HeadTooLarge, 431, Client),
            (Fault::UriTooLong, 414, Client),
            (Fault::HttpVersion, 505, Client),
            (Fault::HeadTimeout, 408, Client),
            (Fault::BodyTimeout, 408, Client),
            (Fault::BodyBroken, 400, Client),
            (Fault::LengthBad, 400, Client),
            (Fault::HostBad, 400, Client),
            (Fault::HeadBad, 400, Client),
            (Fault::Misdirected, 421, Client),
            (Fault::PlainHttp, 403, Client),
            (Fault::Busy { retry_after: WAIT }, 429, Us),
            (Fault::LoginExpired, 503, Us),
            (Fault::LoginMissing, 503, Us),
            (Fault::UpstreamAuth { retry_after: None }, 503, Us),
            (Fault::UpstreamRateLimited { retry_after: Some(WAIT) }, 429, Upstream),
            (Fault::UpstreamTooLarge, 413, Client),
            (Fault::UpstreamChallenge { retry_after: None }, 502, Upstream),
            (Fault::UpstreamAsr, 400, Client),
            (Fault::UpstreamBroken, 502, Upstream),
            (Fault::UpstreamUnavailable { retry_after: None }, 502, Upstream),
            (Fault::UpstreamUnreachable, 502, Upstream),
            (Fault::ProxyUnreachable, 502, Us),
            (Fault::ProxyRefused(407), 502, Us),
            (Fault::UpstreamTimeout, 504, Upstream),
            (Fault::UpstreamRefused(422), 502, Upstream),
            (Fault::SpoolFull, 503, Us),
            (Fault::Draining, 503, Us),
            (Fault::Internal, 500, Us),
        ]
    }

    fn header(fault: &Fault, name: &str) -> Option<String> {
        fault.reply().headers.into_iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    fn error(fault: &Fault) -> Value {
        let body: Value = serde_json::from_slice(&fault.reply().body).unwrap();
        body["error"].clone()
    }

    #[test]
    fn every_fault_has_its_status_blame_and_a_whole_envelope() {
        for (fault, status, blame) in all() {
            assert_eq!((fault.status(), fault.blame()), (status, blame), "{fault}");
            assert_envelope(&fault.reply());
        }
    }

    #[test]
    fn every_fault_has_a_name_of_its_own_fit_for_a_metric() {
        let mut names = HashSet::new();
        for (fault, ..) in all() {
            let name = fault.name();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(names.insert(name), "{name} twice");
            assert_eq!(fault.to_string(), name);
        }
    }

    #[test]
    fn a_refusal_for_want_of_a_key_says_how_to_bring_one() {
        for fault in [Fault::NoKey, Fault::WrongKey, Fault::SeveralKeys] {
            assert_eq!(header(&fault, "www-authenticate").as_deref(), Some("Bearer"), "{fault}");
        }
        assert_eq!(error(&Fault::NoKey)["code"], Value::Null);
        assert_eq!(error(&Fault::WrongKey)["code"], "invalid_api_key");
    }

    #[test]
    fn a_wrong_method_and_a_content_coding_name_what_is_right() {
        let fault = Fault::WrongMethod { allow: "POST" };
        assert_eq!(header(&fault, "allow").as_deref(), Some("POST"));
        assert_eq!(header(&Fault::ContentEncoding, "accept-encoding").as_deref(), Some("identity"));
    }

    #[test]
    fn the_upstreams_quarrel_with_our_login_is_never_the_clients_401() {
        for fault in [Fault::LoginExpired, Fault::LoginMissing, Fault::UpstreamAuth { retry_after: None }] {
            assert_eq!(fault.status(), 503);
            assert_eq!(error(&fault)["code"], "upstream_auth");
            assert_eq!(header(&fault, "x-should-retry").as_deref(), Some("false"));
        }
    }

    #[test]
    fn no_sdk_uploads_again_what_must_fail_again() {
        let long = Some(Duration::from_secs(61));
        let mut hopeless = vec![
            Fault::UpstreamChallenge { retry_after: None },
            Fault::UpstreamChallenge { retry_after: Some(WAIT) },
            Fault::UpstreamAuth { retry_after: Some(WAIT) },
            Fault::UpstreamRefused(400),
            Fault::ProxyRefused(407),
            Fault::UpstreamRateLimited { retry_after: long },
            Fault::UpstreamUnavailable { retry_after: long },
        ];
        // But for what passes by itself.
        let lasts = |fault: &Fault| !matches!(fault, Fault::TooManyFailedKeys { .. });
        let clients = all().into_iter().filter(|(_, _, blame)| *blame == Blame::Client);
        hopeless.extend(clients.map(|(fault, ..)| fault).filter(lasts));
        for fault in hopeless {
            assert_eq!(header(&fault, "x-should-retry").as_deref(), Some("false"), "{fault}");
        }
    }

    #[test]
    fn what_passes_by_itself_may_be_retried() {
        for (fault, retry_after) in [
            (Fault::Busy { retry_after: WAIT }, Some("3")),
            (Fault::UpstreamRateLimited { retry_after: Some(WAIT) }, Some("3")),
            (Fault::UpstreamRateLimited { retry_after: None }, Some("10")),
            (Fault::UpstreamUnavailable { retry_after: Some(WAIT) }, Some("3")),
            (Fault::UpstreamUnavailable { retry_after: None }, None),
            (Fault::UpstreamUnreachable, None),
            (Fault::ProxyUnreachable, None),
            (Fault::ProxyRefused(503), None),
            (Fault::UpstreamTimeout, None),
            (Fault::UpstreamBroken, None),
            (Fault::SpoolFull, Some("2")),
            (Fault::Draining, Some("2")),
            (Fault::Internal, None),
        ] {
            assert_eq!(header(&fault, "retry-after").as_deref(), retry_after, "{fault}");
            assert_eq!(header(&fault, "x-should-retry"), None, "{fault}");
        }
    }

    #[test]
    fn rate_limits_are_openais() {
        for fault in [Fault::Busy { retry_after: WAIT }, Fault::UpstreamRateLimited { retry_after: None }] {
            let error = error(&fault);
            assert_eq!((&error["type"], &error["code"]), (&"requests".into(), &"rate_limit_exceeded".into()));
        }
    }

    #[test]
    fn audio_that_the_recogniser_cannot_read_is_the_clients_matter() {
        let error = error(&Fault::UpstreamAsr);
        assert_eq!(error["message"], "Audio file might be corrupted or unsupported");
        assert_eq!((&error["param"], &error["code"]), (&"file".into(), &"invalid_value".into()));
    }

    #[test]
    fn an_echoed_url_or_model_is_bounded_printable_and_without_its_query() {
        let path = format!("/v1/\u{1b}[2J/{}", "x".repeat(9_000));
        let fault = Fault::UnknownUrl { method: "POST\r\n".into(), path };
        let message = error(&fault)["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("Invalid URL (POST?? /v1/?[2J/xxx"), "{message}");
        assert!(message.len() < 200, "{message}");

        let fault = Fault::UnknownUrl { method: "POST".into(), path: "/v1/foo?key=planted".into() };
        assert_eq!(error(&fault)["message"], "Invalid URL (POST /v1/foo)");

        let fault = Fault::ModelNotFound("x".repeat(9_000));
        assert!(error(&fault)["message"].as_str().unwrap().len() < 250);
        assert_eq!(error(&fault)["code"], "model_not_found");
    }
}
