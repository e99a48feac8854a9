//! A request that passes through to a service: Pingora's own proxy phases carry it, with what is ours taken out and
//! what the service must know put in.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, EXPECT, FORWARDED, HOST};
use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use pingora::listeners::ALPN;
use pingora::proxy::Session;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use tokio::time::Instant;

use super::admission::declared_length;
use super::pace::Pace;
use super::record::{Record, trace_id};
use super::services::Service;
use super::{Ctx, Gateway};
use crate::answer::Fault;
use crate::authenticate::key_headers;
use crate::translate::Refusal;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Connections of requests that switch protocols are kept apart from those of others (Pingora's `group_key`).
const UPGRADES: u64 = 1;
/// A body up to this many bytes is sent within any timeout.
const SHORT_BODY: u64 = 1024 * 1024;

/// One request on its way to a service and back.
pub(super) struct Passage {
    pub(super) service: Arc<Service>,
    /// Path and query at the service.
    target: String,
    /// The caller's key is ours and stays here.
    keeps_key: bool,
    /// The most bytes of body that may pass, if there is a limit, and how many have.
    limit: Option<u64>,
    passed: u64,
    /// How fast it must pass, if there is a limit.
    pace: Option<(Pace, Instant)>,
    /// Addresses of the service that did not take the connection.
    tried: usize,
    addresses: usize,
    /// What we found wrong ourselves.
    fault: Option<Fault>,
}

impl Passage {
    /// A passage to `target` at a service. Without `keeps_key` all headers of the caller pass: where no key is asked for,
    /// none of them is ours.
    pub(super) const fn new(service: Arc<Service>, target: String, keeps_key: bool) -> Self {
        let (limit, pace) = (None, None);
        Self { service, target, keeps_key, limit, passed: 0, pace, tried: 0, addresses: 0, fault: None }
    }

    /// The same with a limit on the body, in bytes, and a pace that it must keep.
    pub(super) fn within(self, limit: u64, pace: Pace) -> Self {
        Self { limit: Some(limit), pace: Some((pace, Instant::now())), ..self }
    }

    /// The next address to try.
    pub(super) async fn peer(&mut self, session: &mut Session) -> pingora::Result<Box<HttpPeer>> {
        let found = self.service.address.resolve().await.unwrap_or_default();
        self.addresses = found.len();
        let Some(address) = found.get(self.tried).or_else(|| found.first()) else {
            tracing::warn!(service = %self.service.name, "service name not resolved");
            return Err(self.stop(Fault::UpstreamUnreachable));
        };
        let mut peer = HttpPeer::new(address, self.service.url.tls, self.service.url.host.clone());
        peer.options = self.service.options.clone();
        let upgrade = session.as_downstream().is_upgrade_req();
        if self.service.url.tls && !upgrade && !is_long_upload(session) {
            peer.options.alpn = ALPN::H2H1;
        }
        if upgrade {
            // A socket may be silent for as long as both sides like.
            peer.options.read_timeout = None;
            // Its connection is its own.
            peer.options.custom_l4 = Some(self.service.upgrade.clone());
            peer.group_key = UPGRADES;
        }
        Ok(Box::new(peer))
    }

    /// A connection was not made: there may be another address.
    pub(super) fn not_connected(&mut self, mut error: Box<Error>) -> Box<Error> {
        self.tried += 1;
        error.set_retry(self.tried < self.addresses);
        error
    }

    /// Turns the copy of the client's head into ours.
    pub(super) fn head(
        &self,
        session: &Session,
        record: &Record,
        request: &mut RequestHeader,
    ) -> pingora::Result<()> {
        let downstream = session.as_downstream();
        let asked = downstream.req_header();
        let host = match asked.uri.authority() {
            Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            None => asked.headers.get(HOST).cloned(),
        };
        let said: Vec<HeaderName> = request
            .headers
            .keys()
            .filter(|name| name.as_str().starts_with("x-forwarded-") || [FORWARDED, REAL_IP].contains(name))
            .cloned()
            .collect();
        let keys = if self.keeps_key { &key_headers()[..] } else { &[] };
        for name in said.iter().chain(keys).chain(&[EXPECT]) {
            request.remove_header(name);
        }
        // What is no trace of anybody's must not become one there (Trace Context 4.3).
        if trace_id(&asked.headers).is_none() {
            request.remove_header("traceparent");
            request.remove_header("tracestate");
        }
        if let Some(client) = record.address {
            request.insert_header(FORWARDED_FOR, client.to_string())?;
        }
        let tls = downstream.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        request.insert_header(FORWARDED_PROTO, if tls { "https" } else { "http" })?;
        if let Some(host) = host {
            request.insert_header(FORWARDED_HOST, host.clone())?;
            request.insert_header(HOST, host)?;
        }
        if !self.service.keeps_host {
            request.insert_header(HOST, self.service.url.authority())?;
        }
        request.insert_header(REQUEST_ID, &record.id)?;
        request.set_raw_path(self.target.as_bytes())
    }

    /// Counts a piece of the body. Its pace is that of the slower of client and service: which of them it is cannot be
    /// seen from here.
    pub(super) fn body(&mut self, piece: Option<&Bytes>) -> pingora::Result<()> {
        self.passed = self.passed.saturating_add(piece.map_or(0, |piece| piece.len() as u64));
        if let Some((pace, last)) = &mut self.pace {
            let waited = std::mem::replace(last, Instant::now()).elapsed();
            if let Err(fault) = pace.waited(waited, self.passed) {
                return Err(self.stop(fault));
            }
        }
        match self.limit.filter(|limit| self.passed > *limit) {
            Some(limit) => Err(self.stop(Fault::Upload(Refusal::TooLarge { limit, read: self.passed }))),
            None => Ok(()),
        }
    }

    /// What an error comes to, for the client; `None` when the client is gone.
    pub(super) fn fault(&mut self, error: &Error) -> Option<Fault> {
        let fault = self.fault.take().or_else(|| fault_of(error));
        // The kind alone: an error's text can quote what was received.
        tracing::debug!(service = %self.service.name, kind = error.etype().as_str(), "passage ended");
        fault
    }

    fn stop(&mut self, fault: Fault) -> Box<Error> {
        self.fault = Some(fault);
        Error::new_in(ErrorType::InternalError)
    }
}

impl Gateway {
    /// Ends a passage that failed: tells the client, if it can still be told. The status that went out, or 0.
    pub(super) async fn give_up(&self, session: &mut Session, error: &Error, ctx: &mut Ctx) -> u16 {
        // Without a passage it is our own reply that the client did not take.
        let Some(passage) = &mut ctx.passage else { return 0 };
        let begun = session.as_downstream().response_written().map(|head| head.status);
        let begun = begun.is_some_and(|status| !status.is_informational() || status.as_u16() == 101);
        let Some(fault) = passage.fault(error).filter(|_| !begun) else {
            ctx.record.broke_off(begun);
            return 0;
        };
        let reply = fault.reply();
        let status = reply.status;
        ctx.record.replied(status, Some(&fault));
        session.as_downstream_mut().set_keepalive(None);
        // Pingora drops a connection that failed without the lingering close, and with it the answer.
        if self.reply(session, ctx, reply, false).await.is_err() {
            ctx.record.gone();
        } else if !session.as_downstream().is_http2() {
            let _ = session.as_downstream_mut().finish_body().await;
            session.as_downstream_mut().shutdown().await;
        }
        status
    }
}

/// Whether a body is so long that sending it can take longer than the service may be silent: over HTTP/2 Pingora waits
/// for the answer from the first byte of the body on, over HTTP/1.1 from the last. gRPC knows nothing but HTTP/2.
fn is_long_upload(session: &mut Session) -> bool {
    let downstream = session.as_downstream_mut();
    let empty = downstream.is_body_empty();
    let headers = &downstream.req_header().headers;
    let grpc = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let length = declared_length(headers).ok().flatten();
    !empty && !grpc && length.is_none_or(|length| length > SHORT_BODY)
}

fn fault_of(error: &Error) -> Option<Fault> {
    use ErrorType::{
        ConnectError, ConnectNoRoute, ConnectRefused, ConnectTimedout, ConnectionClosed, HandshakeError,
        InvalidCert, InvalidHTTPHeader, ReadTimedout, SocketError, TLSHandshakeFailure, TLSHandshakeTimedout,
        WriteError, WriteTimedout,
    };
    Some(match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, WriteError | ConnectionClosed) => return None,
        (ErrorSource::Downstream, ReadTimedout) => Fault::BodyTimeout,
        (ErrorSource::Downstream, InvalidHTTPHeader) => Fault::HeadBad,
        (ErrorSource::Downstream, _) => Fault::BodyBroken,
        (ErrorSource::Upstream, ConnectTimedout | TLSHandshakeTimedout | ReadTimedout | WriteTimedout) => {
            Fault::UpstreamTimeout
        }
        (
            ErrorSource::Upstream,
            ConnectRefused | ConnectNoRoute | ConnectError | SocketError | TLSHandshakeFailure
            | HandshakeError | InvalidCert,
        ) => Fault::UpstreamUnreachable,
        (ErrorSource::Upstream, InvalidHTTPHeader) => Fault::UpstreamBroken,
        (ErrorSource::Upstream, _) => Fault::UpstreamUnavailable { retry_after: None },
        (ErrorSource::Internal | ErrorSource::Unset, _) => Fault::Internal,
    })
}
