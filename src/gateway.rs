//! The rooms in order: head, route, key, then our own pages, an upload's way to Codex and back, or a passage through to
//! a service.

mod admin;
mod admission;
mod ahead;
mod backend;
mod body;
mod caught;
mod delivery;
mod duplex;
mod exchange;
mod gauges;
mod generation;
mod health;
mod linger;
pub mod offline;
pub mod once;
mod pace;
mod passage;
mod port80;
mod ports;
mod record;
pub mod serve;
mod services;
mod silence;
mod site;
mod transcribe;
mod tunnel;
mod upgrade;
mod upload;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{STRICT_TRANSPORT_SECURITY, TRANSFER_ENCODING};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};
use tokio::time::timeout;

use self::admission::{HeadLimits, check_head, declared_length};
use self::backend::Backend;
use self::caught::{caught, caught_at_once};
use self::linger::Lingering;
use self::passage::Passage;
use self::record::{Record, trace_id};
use self::services::Services;
use self::site::{Site, tls_version};
use self::transcribe::{Deadlines, Ended};
use crate::accept::{Connection, Drain, Peer, Turn, Visit};
use crate::answer::{Fault, Reply, about, models};
use crate::authenticate::{Attempts, KeyFault, Keys};
use crate::base::clock;
use crate::observe::metrics::Metrics;
use crate::respond::respond;
use crate::route::{self, Route};
use crate::translate::{Language, Limits};
use crate::upstream::credential::LoginFault;

/// How fast an answer must be taken at least, bytes a second, once it is longer than what any client takes at once.
const SLOWEST_READER: u64 = 16 * 1024;

/// The gateway in use, behind every listener. A request keeps the one that it began with.
pub struct Front(Arc<ArcSwap<Gateway>>);

/// The product's own state, shared by all requests.
pub struct Gateway {
    keys: Arc<Keys>,
    codex: Backend,
    services: Services,
    language: Option<Language>,
    limits: Limits,
    head_limits: HeadLimits,
    deadlines: Deadlines,
    idle: Duration,
    attempts: Attempts,
    in_flight: Arc<AtomicUsize>,
    lingering: Lingering,
    drain: Drain,
    site: Arc<Site>,
    metrics: Arc<Metrics>,
}

/// Per-request state.
pub struct Ctx {
    gateway: Arc<Gateway>,
    record: Record,
    turn: Option<Arc<Turn>>,
    _visit: Option<Visit>,
    /// Set when the request passes through to a service.
    passage: Option<Passage>,
    /// Its share in the count of requests in flight, until the answer is out.
    in_flight: Option<InFlight>,
}

struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Gateway {
    /// One request, from its head to the reply; `None` when it passes through to a service.
    async fn handle(&self, session: &mut Session, ctx: &mut Ctx) -> Result<Option<Reply>, Ended> {
        let request = session.as_downstream().req_header();
        check_head(request, self.head_limits)?;
        if ctx.record.tls.is_some() {
            self.site.check_host(request)?;
        }
        let route = route::find(request.method.as_str(), request.uri.path(), self.services.prefixes());
        ctx.record.route = route.name();
        match route {
            Route::Health => return Ok(Some(about::health())),
            Route::Root => return Ok(Some(about::root())),
            Route::Unknown => {
                let (method, path) = (request.method.to_string(), request.uri.path().to_owned());
                return Err(Fault::UnknownUrl { method, path }.into());
            }
            Route::WrongMethod { allow } => return Err(Fault::WrongMethod { allow }.into()),
            _ => {}
        }
        ctx.record.caller = Some(self.caller(&request.headers, ctx.record.address)?);
        match route {
            Route::Models => Ok(Some(models::list(self.models()))),
            Route::Model(name) => match self.models().find(|(known, _)| *known == name) {
                Some(model) => Ok(Some(models::one(model))),
                None => Err(Fault::ModelNotFound(name).into()),
            },
            Route::ModelsMetadata => Ok(Some(models::metadata(self.models(), self.limits.upload))),
            Route::Translations => Box::pin(self.translation(session, ctx)).await,
            // Apart, so that requests of all other kinds are small while they wait for their client.
            Route::Transcribe { shape, model } => Box::pin(self.transcribe(session, ctx, shape, model)).await,
            Route::Service(number) => match self.services.get(number) {
                Some(service) => Box::pin(self.pass(session, ctx, service)).await,
                None => Err(Fault::Internal.into()),
            },
            _ => Err(Fault::Internal.into()),
        }
    }

    /// The name of the caller's key. An address that has had its share of wrong ones is refused whatever it brings.
    fn caller(&self, headers: &HeaderMap, client: Option<IpAddr>) -> Result<Arc<str>, Fault> {
        let now = clock::instant();
        if let Some(client) = client {
            let refused = |retry_after| Fault::TooManyFailedKeys { retry_after };
            self.attempts.check(client, now).map_err(refused)?;
        }
        match self.keys.caller(headers) {
            Ok(caller) => Ok(caller.name),
            Err(fault) => {
                if let Some(client) = client.filter(|_| fault != KeyFault::Several) {
                    self.attempts.failed(client, now);
                }
                Err(fault.into())
            }
        }
    }

    /// All models, Codex's first, with whose they are.
    fn models(&self) -> impl Iterator<Item = models::Listed<'_>> {
        self.codex.models.names().map(|name| (name, "openai")).chain(self.services.models())
    }

    /// Writes a reply of our own; the connection outlives it only if the request came whole, and it is certain where
    /// the next one begins.
    async fn reply(
        &self,
        session: &mut Session,
        ctx: &mut Ctx,
        mut reply: Reply,
        astray: bool,
    ) -> pingora::Result<()> {
        if astray || self.drain.begun() {
            session.as_downstream_mut().set_keepalive(None);
        }
        let hsts = self.hsts(ctx).map(|hsts| (STRICT_TRANSPORT_SECURITY.as_str(), hsts.to_owned()));
        reply.headers.extend(hsts);
        if let Some(turn) = &ctx.turn
            && (astray || !session.as_downstream_mut().is_body_done())
        {
            turn.linger(self.unread(session));
        }
        // Whoever takes it byte by byte gets so much time in all.
        let patience = self.deadlines.body + Duration::from_secs(reply.body.len() as u64 / SLOWEST_READER);
        let responded = timeout(patience, respond(session, &reply, &ctx.record.id, ctx.record.elapsed()));
        responded.await.unwrap_or_else(|_| Err(Error::new_down(ErrorType::WriteTimedout)))?;
        ctx.record.finished();
        ctx.in_flight = None;
        self.linger(session).await;
        Ok(())
    }

    /// `Strict-Transport-Security`, which only answers over TLS may carry (RFC 6797 7.2).
    fn hsts(&self, ctx: &Ctx) -> Option<&str> {
        ctx.record.tls.as_ref().and_then(|_| self.site.hsts())
    }

    /// Waits for an HTTP/2 client that was answered early and is still sending.
    async fn linger(&self, session: &mut Session) {
        if session.as_downstream().is_http2() && !session.as_downstream_mut().is_body_done() {
            let coming = self.unread(session);
            self.lingering.linger(session, coming).await;
        }
    }

    /// How much of the body a client may still be sending.
    fn unread(&self, session: &Session) -> u64 {
        let downstream = session.as_downstream();
        let read = downstream.body_bytes_read() as u64;
        let declared = declared_length(&downstream.req_header().headers).ok().flatten();
        // Past the limit as well: a client told 413 is often in the midst of a longer body.
        let coming = declared.unwrap_or_else(|| self.limits.upload.saturating_mul(2));
        coming.saturating_sub(read).max(1)
    }
}

/// Whether it is uncertain where the next request begins. After a fault of our own anything is. To Pingora broken chunks are a body's end, and an empty chunk
/// size is the last chunk's, which looks like a form without an end.
fn is_astray(fault: &Fault, session: &Session) -> bool {
    let chunked = session.as_downstream().req_header().headers.contains_key(TRANSFER_ENCODING);
    matches!(fault, Fault::BodyBroken | Fault::Internal) || chunked && matches!(fault, Fault::Upload(_))
}

/// What ends a request for a fault of our own.
fn broken() -> Box<Error> {
    Error::new_in(ErrorType::InternalError)
}

impl From<KeyFault> for Fault {
    fn from(fault: KeyFault) -> Self {
        match fault {
            KeyFault::Missing => Self::NoKey,
            KeyFault::Wrong => Self::WrongKey,
            KeyFault::Several => Self::SeveralKeys,
        }
    }
}

impl From<LoginFault> for Fault {
    fn from(fault: LoginFault) -> Self {
        if fault == LoginFault::Expired { Self::LoginExpired } else { Self::LoginMissing }
    }
}

#[async_trait]
impl ProxyHttp for Front {
    type CTX = Ctx;

    fn new_ctx(&self) -> Ctx {
        let gateway = self.0.load_full();
        let in_flight = Some(InFlight::new(&gateway.in_flight));
        Ctx { gateway, record: Record::new(), turn: None, _visit: None, passage: None, in_flight }
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Ctx) -> pingora::Result<bool> {
        let gateway = Arc::clone(&ctx.gateway);
        ctx.turn = session.as_downstream().stream().and_then(Connection::turn_of);
        if let Some(turn) = &ctx.turn {
            turn.take();
        }
        let downstream = session.as_downstream_mut();
        downstream.set_pipelining_enabled(true);
        downstream.set_abort_on_close(false);
        downstream.set_read_timeout(None);
        // A client that takes nothing of its answer.
        downstream.set_write_timeout(Some(gateway.deadlines.body));
        // Pingora's own is 60 s; none means that the client has asked for none.
        if downstream.get_keepalive().is_some() {
            downstream.set_keepalive(Some(gateway.idle.as_secs().max(1)));
        }
        if let Some(peer) = Peer::of(downstream) {
            ctx.record.address = peer.client(&downstream.req_header().headers);
            ctx._visit = Some(peer.visit());
        }
        ctx.record.tls = tls_version(session);
        ctx.record.trace = trace_id(&session.as_downstream().req_header().headers).map(str::to_owned);
        let handled = caught(gateway.handle(session, ctx)).await;
        let (reply, fault) = match handled.unwrap_or_else(|| Err(Fault::Internal.into())) {
            Ok(None) => return Ok(false),
            Ok(Some(reply)) => (reply, None),
            Err(Ended::Fault(fault)) => (fault.reply(), Some(fault)),
            Err(Ended::Gone) => {
                ctx.record.gone();
                session.as_downstream_mut().set_keepalive(None);
                return Ok(true);
            }
        };
        ctx.record.replied(reply.status, fault.as_ref());
        let astray = fault.as_ref().is_some_and(|fault| is_astray(fault, session));
        caught(gateway.reply(session, ctx, reply, astray)).await.unwrap_or_else(|| Err(broken()))?;
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Ctx) -> pingora::Result<Box<HttpPeer>> {
        match &mut ctx.passage {
            Some(passage) => caught(passage.peer(session)).await.unwrap_or_else(|| Err(broken())),
            None => Err(broken()),
        }
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Ctx,
        error: Box<Error>,
    ) -> Box<Error> {
        match &mut ctx.passage {
            Some(passage) => passage.not_connected(error),
            None => error,
        }
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Ctx,
    ) -> pingora::Result<()> {
        let Some(passage) = &ctx.passage else { return Ok(()) };
        caught_at_once(|| passage.head(session, &ctx.record, request)).unwrap_or_else(|| Err(broken()))
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end: bool,
        ctx: &mut Ctx,
    ) -> pingora::Result<()> {
        if end {
            ctx.record.uploaded();
        }
        let Some(passage) = &mut ctx.passage else { return Ok(()) };
        caught_at_once(|| passage.body(body.as_ref())).unwrap_or_else(|| Err(broken()))
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Ctx,
    ) -> pingora::Result<()> {
        let answers = || {
            let status = response.status.as_u16();
            ctx.record.service_answers(status, &response.headers);
            if ctx.gateway.drain.begun() && status != 101 {
                session.as_downstream_mut().set_keepalive(None);
            }
            if let Some(hsts) = ctx.gateway.hsts(ctx) {
                response.insert_header(STRICT_TRANSPORT_SECURITY, hsts)?;
            }
            response.insert_header("x-request-id", &ctx.record.id)
        };
        caught_at_once(answers).unwrap_or_else(|| Err(broken()))
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> FailToProxy {
        let gateway = Arc::clone(&ctx.gateway);
        let error_code = caught(gateway.give_up(session, error, ctx)).await.unwrap_or_default();
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    /// Paths and queries stay out of logs.
    fn request_summary(&self, _session: &Session, ctx: &Ctx) -> String {
        ctx.record.id.clone()
    }

    /// The access line tells of it; Pingora's own line quotes the error, which can quote what was received.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Ctx, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Ctx,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, ctx: &mut Ctx) {
        ctx.gateway.metrics.ended(&ctx.record.end(session));
        ctx.in_flight = None;
        if ctx.passage.is_some() && error.is_none() {
            ctx.gateway.linger(session).await;
        }
        if let Some(turn) = &ctx.turn {
            turn.give_back();
        }
    }
}
