//! The lingering close of RFC 9112 9.6: after the half-close, what the peer is still sending is read and forgotten.
//! A close with unread bytes resets the connection, and the client loses the answer.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep};

/// A peer that sends nothing for this long is not waited for.
pub const QUIET: Duration = Duration::from_secs(2);
/// The whole of a lingering close.
pub const TOTAL: Duration = Duration::from_secs(30);
/// How many may be drained at once after an early answer; further ones are closed at once.
pub const PLACES: usize = 256;
/// What is read and forgotten at once, bytes.
const BLOCK: usize = 16 * 1024;

/// A half-closed connection being drained.
pub(super) struct Linger {
    left: u64,
    quiet: Pin<Box<Sleep>>,
    end: Pin<Box<Sleep>>,
    sink: Vec<u8>,
    _place: OwnedSemaphorePermit,
}

impl Linger {
    /// Drains `left` bytes at most, and holds one of the places for it.
    pub(super) fn new(left: u64, place: OwnedSemaphorePermit) -> Self {
        let (quiet, end) = (Box::pin(sleep(QUIET)), Box::pin(sleep(TOTAL)));
        Self { left, quiet, end, sink: vec![0; BLOCK], _place: place }
    }

    /// Ready when the peer has closed, has said all it may, or has been quiet for too long.
    pub(super) fn poll(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<()> {
        while self.left > 0 {
            let mut buf = ReadBuf::new(&mut self.sink);
            match Pin::new(&mut *stream).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {
                    self.left = self.left.saturating_sub(buf.filled().len() as u64);
                    self.quiet.as_mut().reset(Instant::now() + QUIET);
                }
                Poll::Ready(_) => break,
                Poll::Pending => {
                    if self.end.as_mut().poll(cx).is_pending() {
                        ready!(self.quiet.as_mut().poll(cx));
                    }
                    break;
                }
            }
        }
        Poll::Ready(())
    }
}
