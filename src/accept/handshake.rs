//! From an accepted connection to one that speaks TLS: bounded in time and number, with the handshakes of a CA on the
//! side (tls-alpn-01).
//!
//! Run inside the connection's [`ServerApp`](pingora::apps::ServerApp) and not as Pingora's pre-TLS callback: that one
//! is over before the handshake is, which then may take 60 s, and every failure ends as a line at `ERROR`.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use pingora::listeners::tls::Acceptor;
use pingora::protocols::Stream;
use pingora::protocols::l4::stream::Stream as L4Stream;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::Accepted;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::StartHandshake;

use super::peek::{Peek, Sight};
use crate::acme::challenge::Challenges;
use crate::tls::Certificates;

/// A whole handshake. Slow mobile links need two seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Handshakes under way at once. When there are more, the oldest goes: an honest one is over in a few round trips, so
/// it is not the oldest for long.
const MOST: usize = 1024;
/// How long, and how much, of what a refused client still sends is read, so that it sees why (RFC 9112 9.6).
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 64 * 1024;

/// Makes TLS connections.
pub struct Handshakes {
    site: Acceptor,
    validation: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    challenges: Arc<Challenges>,
    /// A whole HTTP/1.1 answer for a client that speaks HTTP without TLS.
    plain: fn() -> Bytes,
    room: Arc<Room>,
}

impl Handshakes {
    /// Handshakes with these certificates: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1 by ALPN. `plain`: a whole HTTP/1.1
    /// answer for a client that speaks HTTP without TLS.
    ///
    /// # Errors
    /// rustls', which there is no cause for.
    pub fn new(
        certificates: Arc<Certificates>,
        challenges: Arc<Challenges>,
        plain: fn() -> Bytes,
    ) -> Result<Self, rustls::Error> {
        // One provider, named: what is installed for the process does not matter.
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(certificates.resolver());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let site = Acceptor::from_server_config(Arc::new(config));
        let validation = challenges.server_config()?;
        Ok(Self { site, validation, certificates, challenges, plain, room: Arc::default() })
    }

    /// The connection with TLS on it; `None` when it has ended.
    pub(super) async fn establish(&self, stream: L4Stream) -> Option<Stream> {
        let mut place = self.room.enter();
        tokio::select! { biased;
            established = timeout(PATIENCE, self.shake(stream)) => established.ok().flatten(),
            () = place.taken() => None,
        }
    }

    async fn shake(&self, mut stream: L4Stream) -> Option<Stream> {
        let (sight, seen) = peek(&mut stream).await.ok()?;
        match sight {
            Sight::Hello(hello) => {
                let name = hello.name.as_deref();
                if hello.challenge && name.is_some_and(|name| self.challenges.alpn(name).is_some()) {
                    let proved = prove(hello.accepted, &mut stream, Arc::clone(&self.validation)).await;
                    tracing::debug!(ok = proved.is_ok(), "tls-alpn-01 handshake");
                    return None;
                }
                if self.certificates.pick(name).is_none() {
                    tracing::debug!(named = name.is_some(), "no certificate for the name asked for");
                    part(stream, &hello.refusal()).await;
                    return None;
                }
                stream.rewind(&seen);
                match self.site.tls_handshake(stream).await {
                    Ok(stream) => Some(Box::new(stream)),
                    Err(error) => {
                        tracing::debug!(%error, "TLS handshake failed");
                        None
                    }
                }
            }
            Sight::Broken(alert) => {
                part(stream, &alert).await;
                None
            }
            Sight::PlainText => {
                part(stream, &(self.plain)()).await;
                None
            }
            Sight::Unknown | Sight::More => None,
        }
    }
}

/// Reads until there is something to see, or the end.
async fn peek(stream: &mut L4Stream) -> io::Result<(Sight, Vec<u8>)> {
    let (mut peek, mut buffer) = (Peek::new(), [0; 2048]);
    loop {
        let read = stream.read(&mut buffer).await?;
        let sight = peek.push(buffer.get(..read).unwrap_or_default());
        if read == 0 || !matches!(sight, Sight::More) {
            return Ok((sight, peek.into_seen()));
        }
    }
}

/// The handshake of RFC 8737 3, after which there is nothing to say.
async fn prove(accepted: Accepted, stream: &mut L4Stream, config: Arc<ServerConfig>) -> io::Result<()> {
    StartHandshake::from_parts(accepted, stream).into_stream(config).await?.shutdown().await
}

/// Says a last word and closes so that it arrives.
pub(super) async fn part(mut stream: L4Stream, word: &[u8]) {
    let farewell = async {
        stream.write_all(word).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    let _ = timeout(LINGER, farewell).await;
}

/// The handshakes under way, in the order of their beginning.
#[derive(Default)]
struct Room {
    next: AtomicU64,
    places: Mutex<BTreeMap<u64, oneshot::Sender<()>>>,
}

/// A place in the room, given back when dropped.
struct Place {
    room: Arc<Room>,
    number: u64,
    taken: oneshot::Receiver<()>,
}

impl Room {
    fn enter(self: &Arc<Self>) -> Place {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (keep, taken) = oneshot::channel();
        let mut places = self.places.lock();
        places.insert(number, keep);
        if places.len() > MOST {
            places.pop_first();
        }
        Place { room: Arc::clone(self), number, taken }
    }
}

impl Place {
    /// Ends when a newer handshake needs the place.
    fn taken(&mut self) -> impl Future<Output = ()> {
        let taken = &mut self.taken;
        async move {
            let _closed = taken.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.places.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn when_there_is_no_room_the_oldest_handshake_goes() {
        let room = Arc::new(Room::default());
        let mut oldest = room.enter();
        let mut others: Vec<_> = (1..MOST).map(|_| room.enter()).collect();
        let short = Duration::from_millis(20);
        assert!(timeout(short, oldest.taken()).await.is_err(), "there is room");
        let newest = room.enter();
        timeout(short, oldest.taken()).await.expect("the oldest makes room");
        assert!(timeout(short, others[0].taken()).await.is_err(), "and no other");
        drop((oldest, newest));
        let _again = room.enter();
        assert!(timeout(short, others[0].taken()).await.is_err(), "a place given back is free");
        others.clear();
        assert_eq!(room.places.lock().len(), 1);
    }
}
