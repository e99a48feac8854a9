//! One upload on its way to the upstream: connects, sends, notices early answers, and sends again what may be sent
//! again.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep};

use super::exchange::{Broken, Dialer, Exchange};
use super::record::{Heard, Said};
use crate::answer::{Answer, Fault, passes_by_itself};
use crate::base::{clock, random};
use crate::upstream::Upstream;
use crate::upstream::credential::Login;
use crate::upstream::spool::{Spool, SpoolError};

/// Bodies up to this many bytes are kept until they are answered, so that they can be sent again.
pub(super) const KEPT: u64 = 1024 * 1024;
/// How much is kept of the start of a longer one, on a connection from the pool: whether that had been closed shows with
/// the first writes, and uploads are many.
const KEPT_OF_LONGER: u64 = 256 * 1024;
/// Pieces are put together up to this many bytes a write.
pub(super) const ONE_WRITE: usize = 48 * 1024;
/// Before a body is sent again to an upstream that failed: at least this, and up to half of it more.
const BACKOFF: Duration = Duration::from_millis(300);
/// An upstream that wants to be left alone for longer is left to the client.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// A pool can hold several connections that the upstream has closed.
const RECONNECTS: u8 = 3;

/// What has been sent and can be sent again.
enum Kept {
    Nothing,
    Pieces { pieces: Vec<Bytes>, bytes: u64 },
    Spool(Spool),
}

/// What came of sending.
pub(super) enum Sent {
    /// On its way.
    Taken,
    /// Answered before all of it was sent: that is the end.
    Answered(Answer),
    /// The upstream will not take it without a length: here is all that was sent so far, for a spool.
    NeedsLength(Vec<Bytes>),
}

/// An upload that has begun.
pub(super) struct Delivery<'a> {
    dialer: &'a Dialer,
    upstream: &'a Upstream,
    heard: &'a Heard,
    login: Arc<Login>,
    content_type: &'a str,
    length: Option<u64>,
    exchange: Exchange,
    kept: Kept,
    keep_at_most: u64,
    finished: bool,
    reconnects: u8,
    logged_in_again: bool,
    /// It has been sent again after the upstream failed by its own word.
    repeated: bool,
    /// When the exchange at hand began.
    opened: Instant,
    /// When the request's time is up.
    until: Instant,
}

impl<'a> Delivery<'a> {
    /// Connects and sends the head; nothing is tried again that cannot end by `until`. `None`: the upstream speaks HTTP/1.1 and there is no length to tell it.
    ///
    /// # Errors
    /// The [`Fault`] for an upstream that is not there.
    pub(super) async fn begin(
        dialer: &'a Dialer,
        upstream: &'a Upstream,
        heard: &'a Heard,
        login: Arc<Login>,
        content_type: &'a str,
        length: Option<u64>,
        until: Instant,
    ) -> Result<Option<Self>, Fault> {
        let mut reconnects = 0;
        let exchange = loop {
            match open(dialer, upstream, &login, content_type, length).await {
                Err(Broken::Died) if reconnects < RECONNECTS => reconnects += 1,
                Err(Broken::NoChunks) => return Ok(None),
                opened => break opened.map_err(fault)?,
            }
        };
        let keep_at_most = match length {
            Some(length) if length > KEPT => u64::from(exchange.reused) * KEPT_OF_LONGER,
            _ => KEPT,
        };
        let kept =
            if keep_at_most > 0 { Kept::Pieces { pieces: Vec::new(), bytes: 0 } } else { Kept::Nothing };
        Ok(Some(Self {
            dialer,
            upstream,
            heard,
            login,
            content_type,
            length,
            exchange,
            kept,
            keep_at_most,
            finished: false,
            reconnects,
            logged_in_again: false,
            repeated: false,
            opened: Instant::now(),
            until,
        }))
    }

    /// The request's time is counted anew.
    pub(super) const fn end_by(&mut self, until: Instant) {
        self.until = until;
    }

    /// Sends a whole body that has been spooled, as often as it takes.
    ///
    /// # Errors
    /// The [`Fault`] that ends it.
    pub(super) async fn send_spooled(&mut self, spool: Spool) -> Result<(), Fault> {
        self.kept = Kept::Spool(spool);
        self.finished = true;
        match self.resend().await {
            Ok(()) => Ok(()),
            Err(Stop::Broken(broken)) => self.recover(broken).await,
            Err(Stop::Fault(fault)) => Err(fault),
        }
    }

    /// Sends pieces, small ones together.
    ///
    /// # Errors
    /// The [`Fault`] that ends the request.
    pub(super) async fn send(&mut self, pieces: Vec<Bytes>) -> Result<Sent, Fault> {
        let mut pieces = coalesce(pieces).into_iter();
        while let Some(piece) = pieces.next() {
            self.keep(&piece);
            match self.exchange.write(piece).await {
                Ok(false) => {}
                Ok(true) => match self.early_answer().await? {
                    Sent::Taken => {}
                    Sent::NeedsLength(mut kept) => {
                        kept.extend(pieces);
                        return Ok(Sent::NeedsLength(kept));
                    }
                    answered @ Sent::Answered(_) => return Ok(answered),
                },
                Err(broken) => self.recover(broken).await?,
            }
        }
        Ok(Sent::Taken)
    }

    /// Waits until the upstream answers, or leaves, although it has not got everything. May be dropped and called
    /// again.
    pub(super) async fn answers_early(&mut self) {
        let _ = self.exchange.head().await;
    }

    /// Takes the early answer: after one of an expired login, or of a failure that may pass, everything so far is sent
    /// again; any other is the end.
    ///
    /// # Errors
    /// The [`Fault`] for an answer that does not come.
    pub(super) async fn early_answer(&mut self) -> Result<Sent, Fault> {
        let answer = match self.hear(Duration::ZERO).await {
            Ok(answer) => answer,
            Err(broken) => {
                self.recover(broken).await?;
                return Ok(Sent::Taken);
            }
        };
        if self.log_in_again(&answer).await {
            self.reopen().await?;
            return Ok(Sent::Taken);
        }
        if self.wants_length(&answer)
            && let Kept::Pieces { pieces, .. } = &mut self.kept
        {
            return Ok(Sent::NeedsLength(std::mem::take(pieces)));
        }
        if self.try_again(&answer).await {
            self.reopen().await?;
            return Ok(Sent::Taken);
        }
        Ok(Sent::Answered(answer))
    }

    /// Ends the body. From here on the upstream has a whole request.
    ///
    /// # Errors
    /// The [`Fault`] that ends the request.
    pub(super) async fn finish(&mut self) -> Result<(), Fault> {
        self.finished = true;
        match self.exchange.finish().await {
            Ok(()) => Ok(()),
            Err(broken) => self.recover(broken).await,
        }
    }

    /// Waits for the whole answer and gives the connection back. It may take `longer` than usual.
    ///
    /// # Errors
    /// The [`Fault`] for an answer that does not come.
    pub(super) async fn answer(mut self, longer: Duration) -> Result<Answer, Fault> {
        loop {
            let answer = match self.hear(longer).await {
                Ok(answer) => answer,
                Err(broken) => {
                    self.recover(broken).await?;
                    continue;
                }
            };
            if self.log_in_again(&answer).await {
                self.reopen().await?;
                continue;
            }
            if self.length.is_none() {
                if answer.status == 200 {
                    self.upstream.lengthless.accepted();
                } else if self.wants_length(&answer)
                    && let Kept::Pieces { bytes, .. } = self.kept
                {
                    self.length = Some(bytes);
                    self.reopen().await?;
                    continue;
                }
            }
            if self.try_again(&answer).await {
                self.reopen().await?;
                continue;
            }
            self.dialer.release(self.exchange).await;
            return Ok(answer);
        }
    }

    async fn hear(&mut self, longer: Duration) -> Result<Answer, Broken> {
        let answer = self.exchange.answer(longer).await?;
        *self.heard.lock() = Said::new(answer.status, &answer.headers, self.login.generation);
        self.upstream.answered(&self.login, &answer.headers);
        Ok(answer)
    }

    fn keep(&mut self, piece: &Bytes) {
        if let Kept::Pieces { pieces, bytes } = &mut self.kept {
            *bytes += piece.len() as u64;
            pieces.push(piece.clone());
            if *bytes > self.keep_at_most {
                self.kept = Kept::Nothing;
            }
        }
    }

    /// A connection from the pool that dies before any answer was dead before: send again what was sent on it.
    async fn recover(&mut self, mut broken: Broken) -> Result<(), Fault> {
        while broken == Broken::Died && self.exchange.reused && self.reconnects < RECONNECTS {
            if matches!(self.kept, Kept::Nothing) {
                break;
            }
            self.reconnects += 1;
            match self.try_reopen().await {
                Ok(()) => return Ok(()),
                Err(Stop::Broken(again)) => broken = again,
                Err(Stop::Fault(fault)) => return Err(fault),
            }
        }
        // A stream that was reset can be a refusal of the missing length too.
        if broken == Broken::Died
            && self.finished
            && self.length.is_none()
            && let Kept::Pieces { bytes, .. } = self.kept
            && self.upstream.lengthless.refused()
        {
            self.length = Some(bytes);
            return Box::pin(self.reopen()).await;
        }
        Err(fault(broken))
    }

    async fn reopen(&mut self) -> Result<(), Fault> {
        match self.try_reopen().await {
            Ok(()) => Ok(()),
            Err(Stop::Broken(broken)) => self.recover(broken).await,
            Err(Stop::Fault(fault)) => Err(fault),
        }
    }

    async fn try_reopen(&mut self) -> Result<(), Stop> {
        self.opened = Instant::now();
        self.exchange = open(self.dialer, self.upstream, &self.login, self.content_type, self.length).await?;
        self.resend().await
    }

    /// Sends all that is kept on the exchange at hand. An early answer meanwhile is left for whoever reads next.
    async fn resend(&mut self) -> Result<(), Stop> {
        match &mut self.kept {
            Kept::Nothing => return Err(Stop::Broken(Broken::Died)),
            Kept::Pieces { pieces, .. } => {
                for piece in pieces {
                    if self.exchange.write(piece.clone()).await? {
                        return Ok(());
                    }
                }
            }
            Kept::Spool(spool) => {
                let mut reader = spool.rewind().await?;
                while let Some(block) = reader.next().await? {
                    if self.exchange.write(block).await? {
                        return Ok(());
                    }
                }
            }
        }
        if self.finished {
            self.exchange.finish().await?;
        }
        Ok(())
    }

    /// After a 401: reads the login anew. True when there is a new one and the body can be sent again.
    async fn log_in_again(&mut self, answer: &Answer) -> bool {
        if answer.status != 401 || self.logged_in_again || matches!(self.kept, Kept::Nothing) {
            return false;
        }
        self.logged_in_again = true;
        if !self.upstream.credential.reread(self.login.generation).await {
            return false;
        }
        let Ok(login) = self.upstream.credential.current() else { return false };
        self.login = login;
        true
    }

    /// After a failure that may pass by itself: waits a moment. True when the body can be sent again, for the first time,
    /// and a second try that takes as long as the first would still end in time.
    async fn try_again(&mut self, answer: &Answer) -> bool {
        let Some(wanted) = passes_by_itself(answer, clock::unix()) else { return false };
        if self.repeated || wanted > LONGEST_BACKOFF || matches!(self.kept, Kept::Nothing) {
            return false;
        }
        let [jitter] = random::fill();
        let wait = wanted.max(BACKOFF) + BACKOFF * u32::from(jitter) / 512;
        if Instant::now() + wait + self.opened.elapsed() > self.until {
            return false;
        }
        tracing::debug!(status = answer.status, "upstream failed, asked again");
        self.repeated = true;
        sleep(wait).await;
        true
    }

    /// Whether a refusal is to be read as one of the missing length. Login and quota have nothing to do with it.
    fn wants_length(&self, answer: &Answer) -> bool {
        self.length.is_none()
            && !matches!(answer.status, 200 | 401 | 403 | 429)
            && self.upstream.lengthless.refused()
    }
}

/// Why sending again stopped.
enum Stop {
    Broken(Broken),
    Fault(Fault),
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl From<SpoolError> for Stop {
    fn from(error: SpoolError) -> Self {
        tracing::error!(%error, "spooled body lost");
        Self::Fault(Fault::SpoolFull)
    }
}

async fn open(
    dialer: &Dialer,
    upstream: &Upstream,
    login: &Login,
    content_type: &str,
    length: Option<u64>,
) -> Result<Exchange, Broken> {
    let head = upstream.head(login, content_type, length).map_err(|_| Broken::Unreachable)?;
    dialer.open(head).await
}

/// What the client sees of an exchange that broke.
fn fault(broken: Broken) -> Fault {
    match broken {
        Broken::Unreachable => Fault::UpstreamUnreachable,
        Broken::ProxyUnreachable => Fault::ProxyUnreachable,
        Broken::ProxyRefused(status) => Fault::ProxyRefused(status),
        Broken::ConnectTimeout | Broken::Late => Fault::UpstreamTimeout,
        Broken::Died | Broken::NoChunks => Fault::UpstreamUnavailable { retry_after: None },
        Broken::Garbled => Fault::UpstreamBroken,
    }
}

/// Puts small pieces together: fewer writes.
fn coalesce(mut pieces: Vec<Bytes>) -> Vec<Bytes> {
    if pieces.len() < 2 {
        return pieces;
    }
    let mut together = Vec::new();
    let mut run = BytesMut::new();
    for piece in pieces.drain(..) {
        if run.len() + piece.len() > ONE_WRITE && !run.is_empty() {
            together.push(run.split().freeze());
        }
        if piece.len() > ONE_WRITE {
            together.push(piece);
        } else {
            run.extend_from_slice(&piece);
        }
    }
    if !run.is_empty() {
        together.push(run.freeze());
    }
    together
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_pieces_go_out_together_and_large_ones_uncopied() {
        let large = Bytes::from(vec![7; ONE_WRITE + 1]);
        let pieces =
            vec![Bytes::from_static(b"a"), Bytes::from_static(b"b"), large.clone(), Bytes::from_static(b"c")];
        let together = coalesce(pieces);
        assert_eq!(together.len(), 3);
        assert_eq!(together[0], "ab");
        assert_eq!(together[1].as_ptr(), large.as_ptr());
        assert_eq!(together[2], "c");
    }
}
