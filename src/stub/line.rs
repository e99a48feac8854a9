//! One accepted connection: what its requests may do to it as a whole.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// How a connection is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    NotYet,
    /// After the requests that it has now.
    Gently,
    /// At once.
    Now,
}

type Words = Arc<Mutex<Vec<u8>>>;

/// The handle that requests have on their connection.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) number: u64,
    ending: watch::Sender<Ending>,
    words: Words,
}

impl Line {
    /// A line, and what tells its connection to end.
    pub(super) fn new(number: u64) -> (Self, watch::Receiver<Ending>) {
        let (ending, told) = watch::channel(Ending::NotYet);
        (Self { number, ending, words: Words::default() }, told)
    }

    pub(super) fn end(&self, how: Ending) {
        self.ending.send_replace(how);
    }

    /// Waits until the connection is gone.
    pub(super) async fn gone(&self) {
        self.ending.closed().await;
    }

    /// Puts an informational answer in front of whatever is sent next (hyper's server cannot). HTTP/1.1 only.
    pub(super) fn inform(&self, status: u16) {
        let head = format!("HTTP/1.1 {status} Informational\r\n\r\n");
        self.words.lock().unwrap_or_else(PoisonError::into_inner).extend(head.into_bytes());
    }

    /// The socket, with these words put in.
    pub(super) fn wrap<S>(&self, socket: S) -> Wrapped<S> {
        Wrapped { socket, words: Arc::clone(&self.words) }
    }
}

/// A socket that sends the line's own words first.
pub(super) struct Wrapped<S> {
    socket: S,
    words: Words,
}

impl<S: AsyncWrite + Unpin> Wrapped<S> {
    fn poll_words(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        while !words.is_empty() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(context, &words))?;
            words.drain(..sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wrapped<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wrapped<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_words(context))?;
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_words(context))?;
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_words(context))?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
