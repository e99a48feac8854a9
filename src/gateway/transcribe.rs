//! A transcription from the first body byte to the answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use tokio::time::{Instant, timeout};

use super::body::Body;
use super::delivery::{Delivery, ONE_WRITE, Sent};
use super::exchange::Dialer;
use super::pace::Pace;
use super::record::{Heard, Record, timed};
use crate::answer::{self, Answer, Fault, Reply, fault_of};
use crate::base::clock;
use crate::translate::{Asked, Refusal, Translator};
use crate::upstream::Upstream;
use crate::upstream::credential::Login;
use crate::upstream::spool::{Spool, SpoolError};

/// What may take how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    /// Between two reads of the client's body.
    pub(super) body: Duration,
    /// The fewest bytes of it in a minute of waiting.
    pub(super) floor: u64,
    /// From the end of the upload to the end of the answer, and for an upstream that takes nothing.
    pub(super) request: Duration,
    /// How much longer the answer may take for every MiB of upload.
    pub(super) per_mib: Duration,
    /// How long the client waits for it, if it says so.
    pub(super) client: Option<Duration>,
}

impl Deadlines {
    /// How much longer the answer to so many bytes may take.
    fn longer(&self, bytes: u64) -> Duration {
        self.per_mib.saturating_mul(u32::try_from(bytes >> 20).unwrap_or(u32::MAX))
    }

    /// How long the answer may take when it may take `longer`.
    fn answer(&self, longer: Duration) -> Duration {
        let answer = self.request.saturating_add(longer);
        self.client.map_or(answer, |client| client.min(answer))
    }

    /// The request's time cut down to what the client will wait for the answer.
    pub(super) fn within(self, client: Option<Duration>) -> Self {
        Self { request: client.map_or(self.request, |client| client.min(self.request)), client, ..self }
    }
}

/// How a transcription ends without a reply.
pub(super) enum Ended {
    /// The client is told.
    Fault(Fault),
    /// Nobody is left to tell.
    Gone,
}

impl From<Fault> for Ended {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Fault(Fault::Upload(refusal))
    }
}

impl From<SpoolError> for Fault {
    fn from(error: SpoolError) -> Self {
        tracing::error!(%error, "body not spooled");
        Self::SpoolFull
    }
}

/// One transcription, with all it needs from the gateway.
pub(super) struct Transcription<'a> {
    pub(super) dialer: &'a Dialer,
    pub(super) upstream: &'a Upstream,
    /// Where what the upstream says is noted.
    pub(super) heard: &'a Heard,
    pub(super) deadlines: Deadlines,
    pub(super) pace: Pace,
    pub(super) login: Arc<Login>,
    pub(super) translator: Translator,
    /// What has been read of the body already.
    pub(super) ahead: VecDeque<Bytes>,
}

/// Where the translated bytes go.
enum Sink<'a> {
    /// Nothing has come out yet.
    Waiting,
    Upstream(Box<Delivery<'a>>),
    Spool(Spool),
}

impl<'a> Transcription<'a> {
    /// Reads, translates, sends, waits, maps.
    ///
    /// # Errors
    /// [`Ended`]; the upstream has then not seen a whole request, unless it has answered one.
    pub(super) async fn run(mut self, body: &mut Body<'_>, record: &mut Record) -> Result<Reply, Ended> {
        let content_type = self.translator.content_type();
        let mut sink = Sink::Waiting;
        let asked = loop {
            let chunk = match timed(&mut record.client, self.next(body, &mut sink)).await? {
                Next::Body(chunk) => chunk,
                Next::EarlyAnswer => {
                    sink = self.early_answer(sink).await?;
                    continue;
                }
            };
            let mut out = Vec::new();
            let asked = self.translate(body, chunk, &mut out)?;
            sink = timed(&mut record.upstream, self.pour(sink, out, &content_type)).await?;
            if let Some(asked) = asked {
                break asked;
            }
        };
        record.uploaded();
        record.asked(&asked);
        let longer = self.deadlines.longer(body.came());
        let patience = self.deadlines.answer(longer);
        let concluding = timeout(patience, self.conclude(sink, &content_type, longer));
        let answer = tokio::select! { biased;
            answer = timed(&mut record.upstream, concluding) => {
                answer.unwrap_or(Err(Fault::UpstreamTimeout))?
            }
            () = body.departure() => return Err(Ended::Gone),
        };
        record.answered();
        Ok(reply(&answer, &asked)?)
    }

    /// The client's next piece, or the upstream's early answer, whichever comes first.
    async fn next(&mut self, body: &mut Body<'_>, sink: &mut Sink<'a>) -> Result<Next, Ended> {
        if let Some(piece) = self.ahead.pop_front() {
            return Ok(Next::Body(Some(piece)));
        }
        let read = self.pace.read(body);
        let read = match sink {
            Sink::Upstream(delivery) => tokio::select! { biased;
                () = delivery.answers_early() => return Ok(Next::EarlyAnswer),
                read = read => read,
            },
            _ => read.await,
        };
        Ok(Next::Body(read?))
    }

    /// Translates a chunk, and with it what else has arrived by now, up to one write's worth: the end too, if it is
    /// here.
    fn translate(
        &mut self,
        body: &mut Body<'_>,
        chunk: Option<Bytes>,
        out: &mut Vec<Bytes>,
    ) -> Result<Option<Asked>, Ended> {
        let mut chunk = chunk;
        loop {
            let Some(piece) = chunk else { return Ok(Some(self.translator.finish(out)?)) };
            self.translator.push(piece, out)?;
            if let Some(piece) = self.ahead.pop_front() {
                chunk = Some(piece);
            } else if body.is_done() {
                chunk = None;
            } else if out.iter().map(Bytes::len).sum::<usize>() >= ONE_WRITE {
                return Ok(None);
            } else {
                match body.read().now_or_never() {
                    Some(read) => chunk = read.map_err(Fault::from)?,
                    None => return Ok(None),
                }
            }
        }
    }

    /// Passes translated pieces on; opens the way upstream with the first of them.
    async fn pour(&self, sink: Sink<'a>, out: Vec<Bytes>, content_type: &'a str) -> Result<Sink<'a>, Ended> {
        let Some(begun) = self.translator.begun() else { return Ok(sink) };
        let mut sink = match sink {
            Sink::Waiting => self.open(begun.length, content_type).await?,
            open => open,
        };
        match &mut sink {
            Sink::Waiting => {}
            Sink::Spool(spool) => {
                for piece in out {
                    spool.push(piece).await.map_err(Fault::from)?;
                }
            }
            Sink::Upstream(delivery) => {
                let sent = timeout(self.deadlines.request, delivery.send(out)).await;
                match sent.unwrap_or(Err(Fault::UpstreamTimeout))? {
                    Sent::Taken => {}
                    Sent::NeedsLength(pieces) => sink = self.spool(pieces).await?,
                    Sent::Answered(answer) => return Err(fault_of(&answer, clock::unix()).into()),
                }
            }
        }
        Ok(sink)
    }

    /// Decides between streaming and spooling. A body without a length is streamed over HTTP/2 alone, and spooled
    /// once the upstream has refused one.
    async fn open(&self, length: Option<u64>, content_type: &'a str) -> Result<Sink<'a>, Ended> {
        if length.is_none() && !self.upstream.lengthless.worth_trying() {
            return Ok(self.spool(Vec::new()).await?);
        }
        match self.begin(length, content_type).await? {
            Some(delivery) => Ok(Sink::Upstream(Box::new(delivery))),
            None => {
                self.upstream.lengthless.speaks_http_1();
                Ok(self.spool(Vec::new()).await?)
            }
        }
    }

    async fn begin(&self, length: Option<u64>, content_type: &'a str) -> Result<Option<Delivery<'a>>, Fault> {
        let login = Arc::clone(&self.login);
        Delivery::begin(self.dialer, self.upstream, self.heard, login, content_type, length, self.until())
            .await
    }

    fn until(&self) -> Instant {
        Instant::now() + self.deadlines.request
    }

    async fn spool(&self, pieces: Vec<Bytes>) -> Result<Sink<'a>, Fault> {
        let mut spool = Spool::new(Arc::clone(&self.upstream.spool));
        for piece in pieces {
            spool.push(piece).await?;
        }
        Ok(Sink::Spool(spool))
    }

    async fn early_answer(&self, sink: Sink<'a>) -> Result<Sink<'a>, Fault> {
        let Sink::Upstream(mut delivery) = sink else { return Ok(sink) };
        match timeout(self.deadlines.request, delivery.early_answer())
            .await
            .unwrap_or(Err(Fault::UpstreamTimeout))?
        {
            Sent::Taken => Ok(Sink::Upstream(delivery)),
            Sent::NeedsLength(pieces) => self.spool(pieces).await,
            // Never a success: it cannot be about the whole upload.
            Sent::Answered(answer) => Err(fault_of(&answer, clock::unix())),
        }
    }

    /// Everything is translated: ends the body upstream and waits for the answer.
    async fn conclude(
        &self,
        sink: Sink<'a>,
        content_type: &'a str,
        longer: Duration,
    ) -> Result<Answer, Fault> {
        let delivery = match sink {
            Sink::Waiting => return Err(Fault::Internal),
            Sink::Upstream(mut delivery) => {
                delivery.end_by(self.until());
                delivery.finish().await?;
                delivery
            }
            Sink::Spool(spool) => {
                let begun = self.begin(Some(spool.bytes()), content_type).await?;
                let mut delivery = Box::new(begun.ok_or(Fault::Internal)?);
                delivery.send_spooled(spool).await?;
                delivery
            }
        };
        delivery.answer(longer).await
    }
}

enum Next {
    /// A chunk of the client's body; `None` at its end.
    Body(Option<Bytes>),
    EarlyAnswer,
}

fn reply(answer: &Answer, asked: &Asked) -> Result<Reply, Fault> {
    answer::reply(answer, asked, clock::unix())
}
