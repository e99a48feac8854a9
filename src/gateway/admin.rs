//! Liveness, readiness, metrics and status, on a private address.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{Method, Response, StatusCode};
use pingora::apps::http_app::{HttpServer, ServeHttp};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use serde_json::{Map, Value, json};

use super::gauges::conditions;
use super::site::Site;
use crate::accept::listener::{self, Listener};
use crate::authenticate::Keys;
use crate::base::clock;
use crate::observe::exposition;
use crate::observe::metrics::Metrics;
use crate::upstream::Upstream;
use crate::upstream::breaker::{Condition, State, Trouble};
use crate::upstream::credential::LoginFault;

/// A login that ends within this time is worth a warning.
const SOON: Duration = Duration::from_secs(3 * 24 * 60 * 60);

/// What the admin address tells of.
pub(super) struct Admin {
    pub(super) keys: Arc<Keys>,
    /// Codex.
    pub(super) upstream: Arc<Upstream>,
    /// Codex, and the services that speak as it does, by name.
    pub(super) upstreams: Vec<(Arc<str>, Arc<Upstream>)>,
    pub(super) in_flight: Arc<AtomicUsize>,
    /// There are services beside Codex, which need no login.
    pub(super) services: bool,
    pub(super) site: Arc<Site>,
    pub(super) metrics: Arc<Metrics>,
}

/// What the admin address tells of now: connections to it outlive a reload.
pub(super) type Current = Arc<ArcSwap<Admin>>;

struct App(Current);

/// Serves the admin address until `shutdown` turns true.
pub(super) async fn serve(listeners: Vec<Listener>, admin: Current, shutdown: ShutdownWatch) {
    listener::serve(listeners, "admin", HttpServer::new_app(App(admin)), shutdown).await;
}

impl Admin {
    /// Whether a transcription can succeed now; why not, and what will soon go wrong.
    pub(super) fn ready(&self) -> (bool, Value) {
        let login = self.upstream.credential.current().err();
        let beside = self.services && login == Some(LoginFault::Missing);
        let login = login.filter(|_| !beside);
        let warnings: Vec<_> = [
            beside.then_some("login_missing"),
            self.expires_in().filter(|left| *left < SOON && login.is_none()).map(|_| "login_expires_soon"),
            self.upstream
                .credential
                .fault()
                .filter(|_| login.is_none() && !beside)
                .map(|_| "login_file_not_read"),
            self.keys.fault().map(|_| "key_file_not_read"),
        ]
        .into_iter()
        .flatten()
        .chain(
            conditions(&self.upstream).filter(|now| now.state == State::Open).map(|now| trouble(now.trouble)),
        )
        .chain(self.site.warnings(clock::unix()))
        .collect();
        let no_certificate = self.site.fault(clock::unix());
        let reasons: Vec<_> = login.iter().map(LoginFault::to_string).chain(no_certificate).collect();
        (reasons.is_empty(), json!({ "ready": reasons.is_empty(), "reasons": reasons, "warnings": warnings }))
    }

    fn status(&self) -> Value {
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "in_flight": self.in_flight.load(Ordering::Relaxed),
            "queue": { "waiting": self.upstream.queue.waiting() },
            "spool": { "bytes": self.upstream.spool.used() },
            "upstreams": self.upstreams.iter().map(|(name, of)| (name.to_string(), health(of))).collect::<Map<_, _>>(),
            "login": { "expires_in_seconds": self.expires_in().map(|left| left.as_secs()) },
            "keys": { "required": !self.keys.is_open() },
            "tls": self.site.status(clock::unix()),
            "readiness": self.ready().1,
        })
    }

    fn expires_in(&self) -> Option<Duration> {
        self.upstream.credential.expires().map(|at| at.duration_since(clock::now()).unwrap_or_default())
    }
}

#[async_trait]
impl ServeHttp for App {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        self.0.load_full().response(session)
    }
}

impl Admin {
    fn response(&self, session: &ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let reads = matches!(request.method, Method::GET | Method::HEAD);
        if reads && request.uri.path() == "/metrics" {
            return respond(StatusCode::OK, exposition::CONTENT_TYPE, self.metrics(), &request.method);
        }
        let (status, body) = match (&request.method, request.uri.path()) {
            (&Method::GET | &Method::HEAD, "/live") => (StatusCode::OK, json!({ "live": true })),
            (&Method::GET | &Method::HEAD, "/ready") => match self.ready() {
                (true, body) => (StatusCode::OK, body),
                (false, body) => (StatusCode::SERVICE_UNAVAILABLE, body),
            },
            (&Method::GET | &Method::HEAD, "/status") => (StatusCode::OK, self.status()),
            (_, "/live" | "/ready" | "/metrics" | "/status") => {
                (StatusCode::METHOD_NOT_ALLOWED, json!({ "allow": "GET, HEAD" }))
            }
            _ => (StatusCode::NOT_FOUND, json!({ "paths": ["/live", "/ready", "/metrics", "/status"] })),
        };
        respond(status, "application/json", body.to_string(), &request.method)
    }
}

fn respond(status: StatusCode, content_type: &str, body: String, method: &Method) -> Response<Vec<u8>> {
    let body = if method == Method::HEAD { Vec::new() } else { body.into_bytes() };
    let response = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, content_type)
        .header(CONTENT_LENGTH, body.len())
        .header(CACHE_CONTROL, "no-store")
        .body(body);
    response.unwrap_or_else(|_| Response::new(Vec::new()))
}

/// For `/status`: an upstream's breakers.
fn health(upstream: &Upstream) -> Value {
    let breaker = |now: Condition| {
        let left = now.left.as_secs_f64().ceil();
        let of = json!({ "state": now.state.name(), "probe_in_seconds": left, "met": now.met });
        (now.trouble.name().to_owned(), of)
    };
    json!({ "waiting": upstream.queue.waiting(), "breakers": conditions(upstream).map(breaker).collect::<Map<_, _>>() })
}

/// What `/ready` calls a trouble that lasts. It passes by itself, or the login's owner sees to it: taking this process
/// out of service would help neither, and keep the probe away.
const fn trouble(trouble: Trouble) -> &'static str {
    match trouble {
        Trouble::Challenge => "upstream_challenge",
        Trouble::Login => "upstream_auth",
        Trouble::RateLimit => "upstream_rate_limited",
    }
}
