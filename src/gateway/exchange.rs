//! One request on one upstream connection. Dropped before its end it closes the connection (HTTP/1.1) or resets the
//! stream (HTTP/2), so that the upstream never sees a whole request for something that was given up.

use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_LENGTH;
use http::request;
use pingora::ErrorType;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::listeners::ALPN;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v2::write_body as write_h2_body;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::{HttpPeer, PeerOptions};
use pingora::utils::tls::{WrappedX509, parse_x509};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use tokio::time::timeout;

use super::duplex::{Duplex, Valve};
use super::silence::{Shared, Waiting};
use super::tunnel::{self, Tunnel};
use crate::answer::Answer;
use crate::config::Codex;
use crate::upstream::Upstream;

/// An answer longer than this is no transcript.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;
/// A write that has not moved for this long is let go, to see whether there is an answer meanwhile.
const STALL: Duration = Duration::from_millis(500);
/// How long an answer may take that is known to be on its way.
const EARLY_ANSWER: Duration = Duration::from_secs(5);
/// How long an idle upstream connection is kept.
const POOL_IDLE: Duration = Duration::from_secs(90);
/// Idle upstream connections kept at most.
const POOL_SIZE: usize = 128;
/// Requests that may share one HTTP/2 connection (Pingora's default is one).
const H2_STREAMS: usize = 64;

/// How an exchange ends without a whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// No address, no connection, no TLS.
    Unreachable,
    /// The same of the proxy on the way.
    ProxyUnreachable,
    /// The proxy answered with this status.
    ProxyRefused(u16),
    /// Connecting took too long.
    ConnectTimeout,
    /// HTTP/1.1, where a body without a length would have to be sent in chunks.
    NoChunks,
    /// The connection ended before the first byte of an answer.
    Died,
    /// The answer ended early, is too long, or is not HTTP.
    Garbled,
    /// The answer was not there in time.
    Late,
}

/// Opens exchanges; holds the pool of upstream connections.
pub(super) struct Dialer {
    connector: Arc<Connector>,
    shared: Shared,
    options: PeerOptions,
    upstream: Arc<Upstream>,
    connect_timeout: Duration,
    silence: Duration,
}

impl Dialer {
    /// A dialer with the pool of one to the same upstream by the same way, or an empty one. The roots that the config
    /// names come beside the system's own.
    pub(super) fn new(upstream: Arc<Upstream>, codex: &Codex, before: Option<&Self>) -> Self {
        // Through a proxy there are two legs, each with a time of its own.
        let connect_timeout = codex.connect_timeout * if codex.proxy.is_some() { 2 } else { 1 };
        let mut options = PeerOptions::new();
        options.alpn = if codex.endpoint.tls { ALPN::H2H1 } else { ALPN::H1 };
        options.max_h2_streams = H2_STREAMS;
        options.connection_timeout = Some(connect_timeout);
        options.total_connection_timeout = Some(connect_timeout);
        options.idle_timeout = Some(POOL_IDLE);
        if !codex.ca_root.is_empty() {
            options.ca = Some(roots(&codex.ca_root));
        }
        if let Some(proxy) = &codex.proxy {
            options.custom_l4 = Some(Arc::new(Tunnel::new(proxy, codex)));
        }
        let (connector, shared) = before.map_or_else(
            || (Arc::new(Connector::new(Some(ConnectorOptions::new(POOL_SIZE)))), Shared::default()),
            |before| (Arc::clone(&before.connector), before.shared.clone()),
        );
        Self { connector, shared, options, upstream, connect_timeout, silence: codex.first_byte_timeout }
    }

    /// Connects, or takes a connection from the pool, and sends the head.
    ///
    /// # Errors
    /// [`Broken::Unreachable`] and the proxy's, [`Broken::ConnectTimeout`], [`Broken::NoChunks`], [`Broken::Died`].
    pub(super) async fn open(&self, head: request::Parts) -> Result<Exchange, Broken> {
        let connecting = timeout(self.connect_timeout, self.connect()).await;
        let (session, peer, reused) = connecting.map_err(|_| Broken::ConnectTimeout)??;
        if matches!(session, HttpSession::H1(_)) && !head.headers.contains_key(CONTENT_LENGTH) {
            return Err(Broken::NoChunks);
        }
        let (session, valve) = match session {
            HttpSession::H1(h1) => {
                let (h1, valve) = Duplex::under(h1, &peer);
                (HttpSession::H1(h1), valve)
            }
            other => (other, Arc::default()),
        };
        let waiting = self.shared.waiting(peer.group_key, self.silence);
        let mut exchange = Exchange {
            session,
            waiting,
            body: None,
            peer,
            silence: self.silence,
            reused,
            valve,
            answered: false,
            broken: None,
            finished: false,
        };
        exchange.send_head(head).await?;
        Ok(exchange)
    }

    /// Gives the connection back for the next request.
    pub(super) async fn release(&self, mut exchange: Exchange) {
        let success = exchange.status() == 200;
        if let HttpSession::H1(h1) = &mut exchange.session {
            // An upstream may refuse before it has read the body, and leave the rest of it in the way of the next request.
            if !success {
                return;
            }
            h1.respect_keepalive();
        }
        if exchange.finished && !exchange.valve.is_open() {
            self.connector.release_http_session(exchange.session, &exchange.peer, Some(POOL_IDLE)).await;
        }
    }

    /// The first address that takes a connection, in the resolver's order.
    async fn connect(&self) -> Result<(HttpSession, HttpPeer, bool), Broken> {
        let endpoint = &self.upstream.endpoint;
        let addresses = if self.options.custom_l4.is_some() {
            // The proxy looks the name up.
            vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, endpoint.port))]
        } else {
            self.upstream.address.resolve().await.map_err(|error| {
                tracing::warn!(kind = %error.kind(), "upstream name not resolved");
                Broken::Unreachable
            })?
        };
        let (mut broken, number) = (Broken::Unreachable, self.shared.number());
        for address in addresses {
            let mut peer = HttpPeer::new(address, endpoint.tls, endpoint.host.clone());
            peer.options = self.options.clone();
            // Connections of another number are not in the pool for it.
            peer.group_key = number;
            match self.connector.get_http_session(&peer).await {
                Ok((session, reused)) => return Ok((session, peer, reused)),
                Err(error) => {
                    tracing::warn!(%address, kind = error.etype().as_str(), "upstream not reached");
                    match error.etype() {
                        ErrorType::Custom(tunnel::UNREACHABLE) => broken = Broken::ProxyUnreachable,
                        ErrorType::CustomCode(tunnel::REFUSED, status) => {
                            broken = Broken::ProxyRefused(*status);
                        }
                        other if other.as_str().contains("Timedout") => broken = Broken::ConnectTimeout,
                        _ => {}
                    }
                }
            }
        }
        Err(broken)
    }
}

/// One request and its answer.
pub(super) struct Exchange {
    session: HttpSession,
    /// HTTP/2 alone shares connections.
    waiting: Waiting,
    /// HTTP/2 can read and write at the same time: its writing half.
    body: Option<H2Body>,
    peer: HttpPeer,
    /// How long the upstream may be silent once it has everything.
    silence: Duration,
    /// The connection has served a request before, so the upstream may have closed it meanwhile.
    pub(super) reused: bool,
    valve: Arc<Valve>,
    answered: bool,
    /// Reading the answer failed: it must not be tried again (HTTP/2 sessions panic then).
    broken: Option<Broken>,
    finished: bool,
}

type H2Body = h2::SendStream<Bytes>;

impl Exchange {
    async fn send_head(&mut self, head: request::Parts) -> Result<(), Broken> {
        let head = Box::new(RequestHeader::from(head));
        self.session.write_request_header(head).await.map_err(|_| Broken::Died)?;
        if let HttpSession::H2(h2) = &mut self.session {
            self.body = h2.take_request_body_writer();
        }
        Ok(())
    }

    /// Sends a piece of the body. True when the upstream answers before it has the rest: stop sending then.
    ///
    /// # Errors
    /// [`Broken::Died`].
    pub(super) async fn write(&mut self, piece: Bytes) -> Result<bool, Broken> {
        if self.answer_first().await? {
            return Ok(true);
        }
        let written = match (&mut self.session, &mut self.body) {
            (HttpSession::H2(h2), Some(body)) => {
                self.waiting.begin();
                tokio::select! { biased;
                    written = write_h2_body(body, piece, false, None) => written.is_ok(),
                    head = h2.read_response_header() => {
                        self.answered = head.is_ok();
                        self.broken = head.is_err().then_some(Broken::Died);
                        false
                    }
                }
            }
            (session, _) => {
                let mut writing = pin!(session.write_request_body(piece, false));
                let written = match timeout(STALL, &mut writing).await {
                    Ok(written) => written,
                    Err(_) => {
                        self.valve.open();
                        writing.await
                    }
                };
                written.is_ok()
            }
        };
        if written {
            self.waiting.end();
            return Ok(false);
        }
        // A refused write often means that the answer is already there.
        match timeout(EARLY_ANSWER, self.head()).await {
            Ok(Ok(())) => Ok(true),
            _ => Err(Broken::Died),
        }
    }

    /// Looks for an answer, for as long as something is held that goes before what is to be written.
    async fn answer_first(&mut self) -> Result<bool, Broken> {
        let valve = Arc::clone(&self.valve);
        tokio::select! { biased;
            head = self.head() => head.map(|()| true),
            () = valve.shut() => Ok(false),
        }
    }

    /// Ends the body: only now the upstream has a whole request.
    ///
    /// # Errors
    /// [`Broken::Died`].
    pub(super) async fn finish(&mut self) -> Result<(), Broken> {
        self.finished = match &mut self.body {
            Some(body) => {
                self.waiting.begin();
                body.send_data(Bytes::new(), true).is_ok()
            }
            None => self.session.finish_request_body().await.is_ok(),
        };
        if self.finished || matches!(timeout(EARLY_ANSWER, self.head()).await, Ok(Ok(()))) {
            return Ok(());
        }
        Err(Broken::Died)
    }

    /// Waits for the head of the answer. May be dropped and called again.
    ///
    /// # Errors
    /// [`Broken::Died`], [`Broken::Garbled`].
    pub(super) async fn head(&mut self) -> Result<(), Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        while !self.answered {
            if let Err(error) = self.session.read_response_header().await {
                let garbled = *error.etype() == ErrorType::InvalidHTTPHeader;
                return Err(*self.broken.insert(if garbled { Broken::Garbled } else { Broken::Died }));
            }
            // 1xx: the answer is still to come (RFC 9110 15.2).
            self.answered = self.status() >= 200;
        }
        Ok(())
    }

    /// The whole answer, head and bounded body. The upstream may be silent for `longer` than usual.
    ///
    /// # Errors
    /// [`Broken`].
    pub(super) async fn answer(&mut self, longer: Duration) -> Result<Answer, Broken> {
        let silence = self.silence.saturating_add(longer);
        timeout(silence, self.head()).await.map_err(|_| Broken::Late)??;
        let headers = self.session.response_header().map(|head| head.headers.clone()).unwrap_or_default();
        let mut body = BytesMut::new();
        while let Some(part) = self.session.read_response_body().await.map_err(|_| Broken::Garbled)? {
            if body.len() + part.len() > LONGEST_ANSWER {
                return Err(Broken::Garbled);
            }
            body.extend_from_slice(&part);
        }
        self.waiting.end();
        Ok(Answer { status: self.status(), headers, body: body.freeze() })
    }

    fn status(&self) -> u16 {
        self.session.response_header().map_or(0, |head| head.status.as_u16())
    }
}

/// The system's roots and those of the config; what cannot be a root is left out.
pub(super) fn roots(own: &[CertificateDer<'_>]) -> Arc<CaType> {
    rustls_native_certs::load_native_certs()
        .certs
        .iter()
        .chain(own)
        .filter(|root| RootCertStore::empty().add((*root).clone()).is_ok())
        .map(|root| WrappedX509::new(root.to_vec(), parse_x509))
        .collect()
}
