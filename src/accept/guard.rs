//! Wraps every accepted stream before Pingora's HTTP sees it: Pingora waits 60 s *per read* for a request head and
//! has no hook before `request_filter`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora::apps::ServerApp;
use pingora::protocols::l4::stream::Stream as L4Stream;
use pingora::protocols::{GetSocketDigest, Stream};
use pingora::server::ShutdownWatch;
use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connection::Connection;
use super::drain::Drain;
use super::forwarded::Trust;
use super::handshake::{Handshakes, part};
use super::linger;
use super::peer::Peer;
use super::permits::{Permit, Permits};
use super::proxy_protocol::{Preamble, read};
use crate::observe::metrics::Metrics;

/// How long a connection may take for what, and what it is told when it took longer.
#[derive(Debug, Clone)]
pub struct Patience {
    /// From the first byte of a request head to its last.
    pub head: Duration,
    /// From the end of one request (or the accept) to the first byte of the next.
    pub idle: Duration,
    /// A whole HTTP/1.1 answer, 408, for a head that came too slowly (RFC 9110 15.5.9).
    pub late: fn() -> Bytes,
    /// A whole HTTP/1.1 answer for a connection that there is no place for.
    pub full: fn() -> Bytes,
}

/// What holds for connections by whatever address they come in.
#[derive(Clone)]
pub struct Rules {
    /// How long.
    pub patience: Patience,
    /// How many.
    pub permits: Arc<Permits>,
    /// Who is believed about whom they speak for.
    pub trust: Arc<Trust>,
    /// Those who are begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Requests that a connection is good for.
    pub requests: u32,
}

/// A [`ServerApp`] that hands guarded connections to another.
pub struct Guard<A> {
    app: Arc<A>,
    rules: Rules,
    lingering: Arc<Semaphore>,
    drain: Drain,
    tls: Option<Handshakes>,
    metrics: Arc<Metrics>,
}

impl<A> Guard<A> {
    /// Guards `app`. Its connections outlive the listener, and end with the `drain`.
    pub fn new(app: Arc<A>, rules: Rules, drain: Drain, metrics: &Arc<Metrics>) -> Self {
        let lingering = Arc::new(Semaphore::new(linger::PLACES));
        Self { app, rules, lingering, drain, tls: None, metrics: Arc::clone(metrics) }
    }

    /// Every connection has to speak TLS first.
    #[must_use]
    pub fn over_tls(self, tls: Handshakes) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Finds out who has come, and takes a place for them; `None` when there is none. Trusted proxies speak for many, and
    /// are counted among all connections alone.
    async fn admit(&self, mut stream: L4Stream) -> Option<(L4Stream, Permit, Option<IpAddr>)> {
        let Some(permit) = self.rules.permits.enter() else {
            self.turn_away(stream).await;
            return None;
        };
        let mut address = address(&stream);
        let trusted =
            |address: Option<IpAddr>| address.is_some_and(|address| self.rules.trust.covers(address));
        if self.rules.proxy_protocol && trusted(address) {
            let introduced = timeout(self.rules.patience.head, introduce(&mut stream)).await;
            let Ok(Some(client)) = introduced else {
                tracing::debug!("a trusted proxy sent no PROXY header");
                return None;
            };
            address = client.or(address);
        }
        match address.filter(|_| !trusted(address)) {
            None => Some((stream, permit, address)),
            Some(client) => match permit.held_by(client) {
                Some(permit) => Some((stream, permit, address)),
                None => {
                    self.turn_away(stream).await;
                    None
                }
            },
        }
    }

    /// Says that there is no place, where that can be said without TLS and as long as few are told at once.
    async fn turn_away(&self, stream: L4Stream) {
        self.metrics.turned_away();
        if self.tls.is_none()
            && let Ok(_place) = self.lingering.try_acquire()
        {
            part(stream, &(self.rules.patience.full)()).await;
        }
    }
}

fn address(stream: &L4Stream) -> Option<IpAddr> {
    let digest = stream.get_socket_digest()?;
    Some(digest.peer_addr()?.as_inet()?.ip().to_canonical())
}

/// Reads the PROXY header and leaves what follows it. `None`: there is none; within, whom it names.
async fn introduce(stream: &mut L4Stream) -> Option<Option<IpAddr>> {
    let (mut seen, mut buffer) = (Vec::new(), [0; 512]);
    loop {
        let received = stream.read(&mut buffer).await.ok().filter(|received| *received > 0)?;
        seen.extend_from_slice(buffer.get(..received)?);
        match read(&seen) {
            Preamble::More => {}
            Preamble::Whole { length, client } => {
                stream.rewind(seen.get(length..).unwrap_or_default());
                return Some(client);
            }
            Preamble::Broken => return None,
        }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Guard<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, _listener: &ShutdownWatch) -> Option<Stream> {
        let _counted = self.metrics.connected();
        let open = self.drain.enter();
        let stream = *stream.into_any().downcast::<L4Stream>().ok()?;
        let (stream, _permit, address) = self.admit(stream).await?;
        let stream: Stream = match &self.tls {
            Some(tls) => tls.establish(stream).await?,
            None => Box::new(stream),
        };
        let (peer, ended) = Peer::new(address, Arc::clone(&self.rules.trust), self.rules.requests);
        let (patience, lingering) = (self.rules.patience.clone(), Arc::clone(&self.lingering));
        let connection = Connection::new(stream, &peer, patience, lingering, self.drain.begins(), open);
        let turn = connection.turn();
        tokio::select! { biased;
            stream = self.app.process_new(Box::new(connection), &ended) => stream,
            () = peer.over(self.drain.watch().clone(), || turn.is_multiplexed()) => None,
        }
    }
}
