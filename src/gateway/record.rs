//! What is known about one request, for its access line and the counters.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use parking_lot::Mutex;
use pingora::proxy::Session;
use tokio::time::Instant;

use crate::answer::{Blame, Fault};
use crate::base::random;
use crate::observe::metrics::Ended;
use crate::observe::traceparent;
use crate::translate::Asked;

/// Whoever was waited for longer than this was slow.
const SLOW: Duration = Duration::from_secs(1);

/// A fresh `x-request-id`, in OpenAI's form.
pub(super) fn request_id() -> String {
    format!("req_{}", random::hex::<16>())
}

/// The trace that a request belongs to, if it says so in one valid `traceparent`.
pub(super) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("traceparent").iter();
    let (only, None) = (values.next()?, values.next()) else { return None };
    traceparent::trace_id(only.as_bytes())
}

/// What the upstream said last, early answers too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// HTTP status.
    pub(super) status: Option<u16>,
    /// Cloudflare's id of the exchange, to ask its operator about.
    ray: Option<String>,
    /// Generation of the login that it was said to.
    pub(super) login: u64,
}

impl Said {
    pub(super) fn new(status: u16, headers: &HeaderMap, login: u64) -> Self {
        let ray = headers.get("cf-ray").and_then(|ray| ray.to_str().ok()).filter(|ray| is_ray(ray));
        Self { status: Some(status), ray: ray.map(str::to_owned), login }
    }
}

/// `8c1f0a2b3c4d5e6f-FRA`. Nothing else reaches the log.
fn is_ray(ray: &str) -> bool {
    let (id, airport) = ray.split_once('-').unwrap_or((ray, "AMS"));
    (1..=32).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        && airport.len() == 3
        && airport.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// What the upstream said last, told by whoever hears it.
pub(super) type Heard = Mutex<Said>;

/// Filled in as the request goes through the rooms; written out once at its end.
pub(super) struct Record {
    /// `x-request-id` of the answer: ours, since a client's could be anything.
    pub(super) id: String,
    /// The client's address, once known: that behind trusted proxies.
    pub(super) address: Option<IpAddr>,
    /// Name of the key, once known.
    pub(super) caller: Option<Arc<str>>,
    /// Name of the service that it went to, if it is not Codex.
    pub(super) service: Option<Arc<str>>,
    /// Name of the route, one of our own words.
    pub(super) route: &'static str,
    /// Name of the model, one that is served.
    pub(super) model: Option<String>,
    /// TLS version of the connection.
    pub(super) tls: Option<Cow<'static, str>>,
    /// The trace that it belongs to (W3C).
    pub(super) trace: Option<String>,
    /// How long the client was waited for.
    pub(super) client: Duration,
    /// How long the upstream was waited for.
    pub(super) upstream: Duration,
    started: Instant,
    admitted: Option<Instant>,
    uploaded: Option<Instant>,
    answered: Option<Instant>,
    finished: Option<Instant>,
    said: Said,
    format: Option<&'static str>,
    audio: Option<Duration>,
    status: u16,
    fault: Option<(&'static str, Blame)>,
}

impl Record {
    /// A request that has just come in.
    pub(super) fn new() -> Self {
        Self {
            id: request_id(),
            address: None,
            caller: None,
            service: None,
            route: "unparsed",
            model: None,
            tls: None,
            trace: None,
            client: Duration::ZERO,
            upstream: Duration::ZERO,
            started: Instant::now(),
            admitted: None,
            uploaded: None,
            answered: None,
            finished: None,
            said: Said::default(),
            format: None,
            audio: None,
            status: 0,
            fault: None,
        }
    }

    /// Since the head was complete.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// It has its place at the upstream.
    pub(super) fn admitted(&mut self) {
        self.admitted = Some(Instant::now());
    }

    /// The client's body is whole.
    pub(super) fn uploaded(&mut self) {
        self.uploaded = Some(Instant::now());
    }

    /// What the fields said.
    pub(super) fn asked(&mut self, asked: &Asked) {
        self.model = Some(asked.model.clone());
        self.format = Some(asked.format.name());
        self.audio = asked.duration;
    }

    /// The upstream's answer is whole.
    pub(super) fn answered(&mut self) {
        self.answered = Some(Instant::now());
    }

    /// What the upstream said.
    pub(super) fn heard(&mut self, said: Said) {
        self.said = said;
    }

    /// A service answers; what was not its time was the client's.
    pub(super) fn service_answers(&mut self, status: u16, headers: &HeaderMap) {
        self.heard(Said::new(status, headers, 0));
        self.answered();
        self.replied(status, None);
        let upload = self.uploaded.map_or(Duration::ZERO, |at| at - self.started);
        (self.client, self.upstream) = (upload, self.elapsed().saturating_sub(upload));
    }

    /// What goes back.
    pub(super) fn replied(&mut self, status: u16, fault: Option<&Fault>) {
        self.status = status;
        self.fault = fault.map(|fault| (fault.name(), fault.blame()));
    }

    /// It has gone back.
    pub(super) fn finished(&mut self) {
        self.finished.get_or_insert_with(Instant::now);
    }

    /// A passage ended early, with its answer already on the way back or nobody left to have one.
    pub(super) fn broke_off(&mut self, begun: bool) {
        if begun {
            self.fault = Some(("broke_off", Blame::Upstream));
        } else {
            self.gone();
        }
    }

    /// The client left before there was an answer (nginx's 499).
    pub(super) fn gone(&mut self) {
        self.status = 499;
        self.fault = Some(("client_gone", Blame::Client));
    }

    /// Ends it: writes the access line, and says what is to be counted. Of the client's own words the line has the id
    /// of a trace, hexadecimal digits, and of the upstream's one of the same kind.
    pub(super) fn end(&mut self, session: &Session) -> Ended {
        self.finished();
        let downstream = session.as_downstream();
        let ended = self.ended(downstream.body_bytes_read() as u64, downstream.body_bytes_sent() as u64);
        let queue = self.admitted.map(|at| at - self.started);
        let answer = self.answered.zip(self.finished).map(|(from, to)| to - from);
        tracing::info!(
            target: "access",
            request_id = %self.id,
            trace_id = self.trace.as_deref(),
            client = self.address.map(tracing::field::display),
            protocol = if downstream.is_http2() { "h2" } else { "h1" },
            tls = self.tls.as_deref(),
            key = self.caller.as_deref(),
            route = self.route,
            service = self.service.as_deref(),
            model = self.model.as_deref(),
            format = self.format,
            status = self.status,
            fault = ended.fault,
            blame = self.fault.map(|(_, blame)| blame_name(blame)),
            slow = self.slow(),
            bytes_in = ended.received,
            bytes_out = ended.sent,
            audio_seconds = ended.audio.map(|audio| audio.as_secs_f64()),
            queue_ms = queue.map(millis),
            upload_ms = ended.upload.map(millis),
            upstream_wait_ms = ended.upstream_wait.map(millis),
            answer_ms = answer.map(millis),
            total_ms = millis(ended.total),
            upstream_status = self.said.status,
            cf_ray = self.said.ray.as_deref(),
        );
        ended
    }

    fn ended(&self, received: u64, sent: u64) -> Ended {
        let finished = self.finished.unwrap_or(self.started);
        let begun = self.admitted.unwrap_or(self.started);
        Ended {
            route: self.route,
            status: self.status,
            fault: self.fault.map(|(name, _)| name),
            received,
            sent,
            audio: self.audio,
            upload: self.uploaded.map(|at| at - begun),
            upstream_wait: self.uploaded.map(|at| self.answered.unwrap_or(finished) - at),
            total: finished - self.started,
        }
    }

    /// Who was waited for, if it was long.
    fn slow(&self) -> Option<&'static str> {
        let who = if self.client >= self.upstream { "client" } else { "upstream" };
        (self.client.max(self.upstream) >= SLOW).then_some(who)
    }
}

/// Does something, and adds how long it took.
pub(super) async fn timed<T>(total: &mut Duration, work: impl Future<Output = T>) -> T {
    let from = Instant::now();
    let result = work.await;
    *total += from.elapsed();
    result
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

const fn blame_name(blame: Blame) -> &'static str {
    match blame {
        Blame::Client => "client",
        Blame::Upstream => "upstream",
        Blame::Us => "us",
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_ray_is_logged_only_if_it_can_be_nothing_else() {
        let said = |ray: &'static str| {
            let headers = HeaderMap::from_iter([("cf-ray".parse().unwrap(), HeaderValue::from_static(ray))]);
            Said::new(200, &headers, 1).ray
        };
        for ray in ["8c1f0a2b3c4d5e6f-FRA", "8c1f0a2b3c4d5e6f"] {
            assert_eq!(said(ray).as_deref(), Some(ray));
        }
        for ray in ["", "-FRA", "planted words", "8c1f-fra", "8c1f-FRANKFURT", "sk-ABC", "8c1f-FRA-1"] {
            assert_eq!(said(ray), None, "{ray}");
        }
    }

    #[test]
    fn a_trace_is_told_by_one_valid_header() {
        let value = HeaderValue::from_static("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        let mut headers = HeaderMap::new();
        assert_eq!(trace_id(&headers), None);
        headers.append("traceparent", value.clone());
        assert_eq!(trace_id(&headers), Some("4bf92f3577b34da6a3ce929d0e0e4736"));
        headers.append("traceparent", value);
        assert_eq!(trace_id(&headers), None, "two of them");
    }

    #[test]
    fn who_was_slow_is_who_was_waited_for_longest() {
        let slow = |client, upstream| {
            let (client, upstream) = (Duration::from_millis(client), Duration::from_millis(upstream));
            Record { client, upstream, ..Record::new() }.slow()
        };
        assert_eq!(slow(900, 999), None);
        assert_eq!(slow(1500, 999), Some("client"));
        assert_eq!(slow(1500, 1600), Some("upstream"));
    }
}
