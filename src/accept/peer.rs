//! The other end of a connection, as all requests on it see it: its address, how many they are, and when to end.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderMap;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::server::ShutdownWatch;
use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::forwarded::Trust;

/// What a client may still ask for once it has been told that no more is served here (GOAWAY): what was under way then.
const AFTERTHOUGHTS: u32 = 200;
/// How long an HTTP/2 connection that has been told so may stay with nothing going on.
const GOODBYE: Duration = Duration::from_secs(5);

/// The other end of a connection.
pub struct Peer {
    /// Whoever connected, or whom a trusted proxy named in a PROXY header.
    address: Option<IpAddr>,
    trust: Arc<Trust>,
    most: u32,
    begun: AtomicU32,
    under_way: AtomicUsize,
    end: watch::Sender<bool>,
    cut: Notify,
}

/// One request on the connection, until dropped.
pub struct Visit(Arc<Peer>);

impl Peer {
    /// A peer that may ask for `most` things, and the sign that Pingora ends the connection at.
    pub(super) fn new(address: Option<IpAddr>, trust: Arc<Trust>, most: u32) -> (Arc<Self>, ShutdownWatch) {
        let (end, ended) = watch::channel(false);
        let (begun, under_way, cut) = (AtomicU32::new(0), AtomicUsize::new(0), Notify::new());
        (Arc::new(Self { address, trust, most, begun, under_way, end, cut }), ended)
    }

    /// The peer of a session on a guarded connection.
    pub fn of(session: &ServerSession) -> Option<Arc<Self>> {
        let beside = session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?;
        beside.downcast_ref::<Arc<Self>>().map(Arc::clone)
    }

    /// Who sent a request with these headers; `None` where the system does not know.
    pub fn client(&self, headers: &HeaderMap) -> Option<IpAddr> {
        self.address.map(|address| self.trust.client(address, headers))
    }

    /// Counts a request. The last one that the connection is good for makes it end; HTTP/1 is told by Pingora, HTTP/2
    /// by GOAWAY, and a peer that does not care is cut off.
    pub fn visit(self: &Arc<Self>) -> Visit {
        let number = self.begun.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if number >= self.most {
            self.end.send_replace(true);
        }
        if number > self.most.saturating_add(AFTERTHOUGHTS) {
            self.cut.notify_one();
        }
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Visit(Arc::clone(self))
    }

    /// Passes `shutdown` on, and ends when the connection must: it was cut, or it is one of many streams and stays on
    /// with nothing to do after it was told to end.
    pub(super) async fn over(&self, mut shutdown: ShutdownWatch, multiplexed: impl Fn() -> bool) {
        let mut told = self.end.subscribe();
        tokio::select! {
            _ = shutdown.wait_for(|shut| *shut) => {}
            _ = told.wait_for(|told| *told) => {}
            () = self.cut.notified() => return,
        }
        self.end.send_replace(true);
        loop {
            tokio::select! {
                () = self.cut.notified() => return,
                () = sleep(GOODBYE) => {
                    if multiplexed() && self.under_way.load(Ordering::Relaxed) == 0 {
                        return;
                    }
                }
            }
        }
    }

    /// Where [`Peer::of`] finds it: the only place beside a stream that Pingora shows to HTTP/2 sessions too.
    pub(super) fn digest(self: &Arc<Self>) -> Option<Arc<ProxyDigest>> {
        let response = ResponseHeader::build(200, Some(0)).ok()?;
        Some(Arc::new(ProxyDigest::new(Box::new(response), Some(Box::new(Arc::clone(self))))))
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
