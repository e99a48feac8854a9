//! One accepted connection: the stream that Pingora reads and writes, with a clock of our own.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep};

use super::drain::{Begins, Open};
use super::guard::Patience;
use super::linger::Linger;
use super::peer::Peer;

/// RFC 9113 3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What may follow an answer that Pingora wrote by itself, to a head that it could not parse.
const LINGER_UNPARSED: u64 = 64 * 1024;
/// The most that one read gives while a head, or the beginning of a body, is looked at: what can be kept of it is
/// bounded, and must not be passed by a single read.
pub const SIP: usize = 16 * 1024;

/// Whose turn it is on an HTTP/1 connection. The gateway holds one end, the stream's clock the other.
#[derive(Debug)]
pub struct Turn {
    phase: AtomicU8,
    linger: AtomicU64,
    sips: AtomicBool,
    /// There has been a request.
    served: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Nothing of the next request has come yet.
    Idle,
    /// A request head is coming in.
    Head,
    /// The gateway has the request: body and answer have limits of their own.
    Request,
    /// HTTP/2 by ALPN, of which the preface is still to come.
    Preface,
    /// HTTP/2: streams have limits of their own.
    Multiplexed,
}

impl Turn {
    fn new(phase: Phase) -> Self {
        Self {
            phase: AtomicU8::new(phase as u8),
            linger: AtomicU64::new(LINGER_UNPARSED),
            sips: AtomicBool::new(false),
            served: AtomicBool::new(false),
        }
    }

    /// The head is complete: the gateway has the request.
    pub fn take(&self) {
        self.set(Phase::Request);
        self.served.store(true, Ordering::Relaxed);
        self.linger.store(0, Ordering::Relaxed);
        self.sip(false);
    }

    /// The request is answered: the next may come.
    pub fn give_back(&self) {
        self.set(Phase::Idle);
    }

    /// An answer goes out while `bytes` of body are still to come: read and forget them after the half-close, since
    /// a close with unread bytes resets the connection and the client loses the answer (RFC 9112 9.6).
    pub fn linger(&self, bytes: u64) {
        self.linger.store(bytes, Ordering::Relaxed);
    }

    /// From now on a read gives [`SIP`] bytes at most, or as much as there is again.
    pub fn sip(&self, sips: bool) {
        self.sips.store(sips, Ordering::Relaxed);
    }

    fn set(&self, phase: Phase) {
        if !matches!(self.phase(), Phase::Preface | Phase::Multiplexed) {
            self.phase.store(phase as u8, Ordering::Relaxed);
        }
    }

    /// HTTP/2 it is.
    fn multiplex(&self) {
        self.phase.store(Phase::Multiplexed as u8, Ordering::Relaxed);
    }

    /// Whether this is HTTP/2 by now.
    pub(super) fn is_multiplexed(&self) -> bool {
        self.phase() == Phase::Multiplexed
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Request,
            3 => Phase::Preface,
            _ => Phase::Multiplexed,
        }
    }
}

/// The stream that Pingora gets.
pub struct Connection {
    inner: Stream,
    turn: Arc<Turn>,
    patience: Patience,
    lingering: Arc<Semaphore>,
    /// The peer, for whoever sees no stream.
    digest: Option<Arc<ProxyDigest>>,
    /// Bytes that were peeked at and are still to be read.
    rewound: Bytes,
    /// Bytes of an HTTP/2 preface that are still to come.
    preface: usize,
    timer: Pin<Box<Sleep>>,
    /// The phase that the timer runs for.
    timed: Option<Phase>,
    linger: Option<Linger>,
    /// The end of the program; `None` once it has come.
    drain: Option<Begins>,
    /// Given back when all that is left is to linger.
    open: Option<Open>,
}

impl Connection {
    /// Wraps an established stream. `lingering` bounds how many may be drained at once.
    pub(super) fn new(
        inner: Stream,
        peer: &Arc<Peer>,
        patience: Patience,
        lingering: Arc<Semaphore>,
        drain: Begins,
        open: Open,
    ) -> Self {
        let h2 = matches!(inner.selected_alpn_proto(), Some(ALPN::H2));
        let turn = Arc::new(Turn::new(if h2 { Phase::Preface } else { Phase::Idle }));
        let timer = Box::pin(sleep(patience.idle));
        Self {
            inner,
            turn,
            patience,
            lingering,
            digest: peer.digest(),
            rewound: Bytes::new(),
            preface: H2_PREFACE.len(),
            timer,
            timed: None,
            linger: None,
            drain: Some(drain),
            open: Some(open),
        }
    }

    /// The turn of the connection under an HTTP/1 session, if it is one of ours.
    pub fn turn_of(stream: &Stream) -> Option<Arc<Turn>> {
        (**stream).as_any().downcast_ref::<Self>().map(|connection| Arc::clone(&connection.turn))
    }

    pub(super) fn turn(&self) -> Arc<Turn> {
        Arc::clone(&self.turn)
    }

    /// Reads [`SIP`] bytes at most.
    fn sip(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buf.remaining() <= SIP {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(SIP));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        Poll::Ready(Ok(()))
    }

    /// Whether the program is ending. One that has been waited for in vain is woken by it.
    fn drains(&mut self, cx: &mut Context<'_>) -> bool {
        if self.drain.as_mut().is_some_and(|drain| drain.as_mut().poll(cx).is_ready()) {
            self.drain = None;
        }
        self.drain.is_none()
    }

    fn time(&mut self, phase: Phase) {
        if self.timed != Some(phase) {
            let limit = if phase == Phase::Idle { self.patience.idle } else { self.patience.head };
            self.timer.as_mut().reset(Instant::now() + limit);
            self.timed = Some(phase);
        }
    }

    /// Time is up: an idle connection ends like one that the peer closed, a slow head is told 408 first.
    fn expire(&mut self, phase: Phase, cx: &mut Context<'_>) -> io::Result<()> {
        if phase == Phase::Idle {
            return Ok(());
        }
        if phase == Phase::Preface {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut late = (self.patience.late)();
        while !late.is_empty() {
            match Pin::new(&mut self.inner).poll_write(cx, &late) {
                Poll::Ready(Ok(written)) if written > 0 => late.advance(written),
                _ => break,
            }
        }
        let _ = Pin::new(&mut self.inner).poll_flush(cx);
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.rewound.is_empty() {
            let part = this.rewound.split_to(this.rewound.len().min(buf.remaining()));
            buf.put_slice(&part);
            return Poll::Ready(Ok(()));
        }
        let phase = this.turn.phase();
        if matches!(phase, Phase::Request | Phase::Multiplexed) {
            this.timed = None;
            if this.turn.sips.load(Ordering::Relaxed) {
                return this.sip(cx, buf);
            }
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        this.time(phase);
        let before = buf.filled().len();
        match this.sip(cx, buf) {
            Poll::Ready(read) => {
                let new = buf.filled().len().saturating_sub(before);
                if phase == Phase::Idle && new > 0 {
                    this.turn.set(Phase::Head);
                    this.time(Phase::Head);
                }
                if phase == Phase::Preface {
                    this.preface = this.preface.saturating_sub(new);
                    if this.preface == 0 {
                        this.turn.multiplex();
                    }
                }
                Poll::Ready(read)
            }
            Poll::Pending => {
                // A fresh connection gets its first answer: its client could not know.
                if phase == Phase::Idle && this.turn.served.load(Ordering::Relaxed) && this.drains(cx) {
                    return Poll::Ready(Ok(()));
                }
                ready!(this.timer.as_mut().poll(cx));
                Poll::Ready(this.expire(phase, cx))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// Half-closes, then lingers if an answer went out early. Pingora ends connections this way.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.inner).poll_shutdown(cx))?;
            let bytes = this.turn.linger.swap(0, Ordering::Relaxed);
            if bytes > 0
                && let Ok(place) = Arc::clone(&this.lingering).try_acquire_owned()
            {
                this.linger = Some(Linger::new(bytes, place));
                this.open = None;
            }
        }
        if let Some(linger) = &mut this.linger {
            ready!(linger.poll(&mut this.inner, cx));
            this.linger = None;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

#[async_trait]
impl Peek for Connection {
    /// Reads no further than needed to tell an HTTP/2 preface from a request line: an HTTP/1.0 request can be
    /// shorter than the preface.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        let mut seen = 0;
        while let Some(room) = buf.get_mut(seen..).filter(|room| !room.is_empty()) {
            let read = self.read(room).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            seen += read;
            if !H2_PREFACE.starts_with(buf.get(..seen).unwrap_or_default()) {
                break;
            }
        }
        if buf == H2_PREFACE {
            self.turn.multiplex();
        }
        self.rewound = Bytes::copy_from_slice(buf.get(..seen).unwrap_or_default());
        Ok(true)
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Connection {
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

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.clone()
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.inner.id())
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}
