//! An upstream HTTP/1.1 connection that can be read while a write stands still.
//!
//! Pingora's session needs itself for either, so an answer would stay hidden behind a write that the upstream does not
//! take. Told to, the connection takes in what is left of that write, and passes it on whenever it is read.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::listeners::ALPN;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use pingora::upstreams::peer::HttpPeer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Tells a connection that is in a session's hands to hold what the upstream does not take. Shut again once all of it
/// has been passed on.
#[derive(Debug, Default)]
pub(super) struct Valve(AtomicBool);

impl Valve {
    /// Lets the write at hand end.
    pub(super) fn open(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Something may still be held.
    pub(super) fn is_open(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Ends when nothing is held any more. For a task that reads the connection meanwhile: that moves it.
    pub(super) async fn shut(&self) {
        poll_fn(|_| if self.is_open() { Poll::Pending } else { Poll::Ready(()) }).await;
    }
}

/// The connection. Holds one write at most, since whoever writes waits for the valve first.
pub(super) struct Duplex {
    inner: Stream,
    valve: Arc<Valve>,
    held: BytesMut,
    failed: Option<io::ErrorKind>,
}

impl Duplex {
    /// The same session over a connection of this kind, as one from the pool is already.
    pub(super) fn under(session: HttpSession, peer: &HttpPeer) -> (HttpSession, Arc<Valve>) {
        if let Some(duplex) = (**session.stream()).as_any().downcast_ref::<Self>() {
            let valve = Arc::clone(&duplex.valve);
            return (session, valve);
        }
        let valve = Arc::<Valve>::default();
        let inner = session.into_inner();
        let duplex = Self { inner, valve: Arc::clone(&valve), held: BytesMut::new(), failed: None };
        (HttpSession::new_with_options(Box::new(duplex), peer), valve)
    }

    /// Passes on what is held, as far as the upstream takes it.
    fn pass_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let taken = ready!(Pin::new(&mut self.inner).poll_write(cx, &self.held))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(taken);
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.valve.is_open()
            && let Poll::Ready(passed) = self.pass_on(cx)
        {
            // An answer may be there although nothing more can be written: that is for the next write to say.
            self.failed = passed.err().map(|error| error.kind());
            self.held = BytesMut::new();
            self.valve.0.store(false, Ordering::Relaxed);
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(failed) = self.failed {
            return Poll::Ready(Err(failed.into()));
        }
        if self.valve.is_open() {
            self.held.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.valve.is_open() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Duplex {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

#[async_trait]
impl Peek for Duplex {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.inner.try_peek(buf).await
    }
}

impl UniqueID for Duplex {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Duplex {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Duplex {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for Duplex {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for Duplex {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

impl fmt::Debug for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duplex").field("id", &self.inner.id()).field("held", &self.held.len()).finish()
    }
}
