//! After an early answer on an HTTP/2 stream: what the client is still sending is read and forgotten for a while.
//! Then the stream ends with RST_STREAM(NO_ERROR) (RFC 9113 8.1). A reset right behind the answer overtakes it: many
//! clients then report a broken stream and never see the status. HTTP/1 connections linger in `accept`.

use pingora::proxy::Session;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::accept::linger::{PLACES, QUIET, TOTAL};

/// The places for lingering streams.
pub(super) struct Lingering(Semaphore);

impl Lingering {
    pub(super) const fn new() -> Self {
        Self(Semaphore::const_new(PLACES))
    }

    /// Reads up to `bytes` of body, within bounds.
    pub(super) async fn linger(&self, session: &mut Session, bytes: u64) {
        let Ok(_place) = self.0.try_acquire() else { return };
        let mut left = bytes;
        let drained = async {
            while left > 0 {
                match timeout(QUIET, session.as_downstream_mut().read_request_body()).await {
                    Ok(Ok(Some(chunk))) => left = left.saturating_sub(chunk.len() as u64),
                    _ => break,
                }
            }
        };
        let _ = timeout(TOTAL, drained).await;
    }
}
