//! A request's body on its way in: counted, paced, cut off where the script says, its ends looked at.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use hyper::body::{Body, Incoming};
use tokio::sync::Notify;
use tokio::time::Sleep;

use super::seen::{self, Entry};

/// A reader that never waits gets no more than this much at once, since multer keeps all it is given.
const BURST: usize = 256 * 1024;

/// How a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was sent whole, whatever is in it.
    Whole,
    /// As much was read as was wanted.
    Limit,
    /// The client went away.
    Gone,
}

/// The body as a stream. One that is cut short waits for ever, and says so through [`Intake::cut`]: an error would
/// make multer throw away what it has not told yet.
pub(super) struct Intake {
    body: Incoming,
    entry: Entry,
    edges: Edges,
    limit: Option<u64>,
    rate: Option<u64>,
    pause: Option<Pin<Box<Sleep>>>,
    taken: u64,
    burst: usize,
    end: Option<End>,
    cut: Arc<Notify>,
}

impl Intake {
    /// `limit` is in bytes, `rate` in bytes a second.
    pub(super) fn new(
        body: Incoming,
        entry: Entry,
        boundary: &str,
        limit: Option<u64>,
        rate: Option<u64>,
    ) -> Self {
        let edges = Edges::new(boundary);
        Self {
            body,
            entry,
            edges,
            limit,
            rate,
            pause: None,
            taken: 0,
            burst: 0,
            end: None,
            cut: Arc::default(),
        }
    }

    /// Tells once that the body was cut short.
    pub(super) fn cut(&self) -> Arc<Notify> {
        Arc::clone(&self.cut)
    }

    /// Reads what is left. May be called again.
    pub(super) async fn finish(&mut self) -> End {
        poll_fn(|context| {
            loop {
                let step = Pin::new(&mut *self).poll_next(context);
                match (self.end, step) {
                    (Some(end), _) => return Poll::Ready(end),
                    (None, Poll::Pending) => return Poll::Pending,
                    (None, Poll::Ready(_)) => {}
                }
            }
        })
        .await
    }

    /// Whether the closing boundary came and nothing was where nothing should be. For a body that ended.
    pub(super) fn edges(&self) -> Result<(), &'static str> {
        self.edges.check()
    }

    pub(super) const fn closed(&self) -> bool {
        self.edges.epilogue.is_some()
    }

    fn took(&mut self, chunk: &Bytes) {
        self.taken += chunk.len() as u64;
        self.burst += chunk.len();
        self.edges.see(chunk);
        let mut record = self.entry.record();
        record.body_bytes = self.taken;
        record.last_byte_unix_ns = Some(seen::now());
        record.padding = self.edges.padding();
        drop(record);
        if let Some(rate) = self.rate {
            let seconds = chunk.len() as f64 / rate.max(1) as f64;
            self.pause = Some(Box::pin(tokio::time::sleep(Duration::from_secs_f64(seconds))));
        }
    }

    fn ended(&mut self, end: End) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.end = Some(end);
        if end == End::Whole {
            return Poll::Ready(None);
        }
        self.cut.notify_one();
        Poll::Pending
    }
}

impl Stream for Intake {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        match this.end {
            None => {}
            Some(End::Whole) => return Poll::Ready(None),
            Some(End::Limit | End::Gone) => return Poll::Pending,
        }
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(context));
            this.pause = None;
        }
        if this.burst >= BURST {
            this.burst = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            if this.limit.is_some_and(|limit| this.taken >= limit) {
                return this.ended(End::Limit);
            }
            match ready!(Pin::new(&mut this.body).poll_frame(context)) {
                None => return this.ended(End::Whole),
                Some(Err(_)) => return this.ended(End::Gone),
                Some(Ok(frame)) => {
                    if let Ok(chunk) = frame.into_data() {
                        this.took(&chunk);
                        return Poll::Ready(Some(Ok(chunk)));
                    }
                }
            }
        }
    }
}

/// The two ends of a form, which multer does not look at: nothing before the first delimiter, and after the closing
/// one nothing but CRLF and spaces (RFC 2046 5.1.1 lets receivers ignore both; the proxy has no reason for more).
struct Edges {
    opening: Vec<u8>,
    start: Vec<u8>,
    closing: Vec<u8>,
    /// The last bytes seen, one less than the closing delimiter has.
    tail: Vec<u8>,
    epilogue: Option<Epilogue>,
}

#[derive(Default)]
struct Epilogue {
    length: u64,
    other: bool,
}

impl Edges {
    fn new(boundary: &str) -> Self {
        Self {
            opening: format!("--{boundary}\r\n").into_bytes(),
            start: Vec::new(),
            closing: format!("\r\n--{boundary}--").into_bytes(),
            // The line break before a delimiter may be the body's own start.
            tail: b"\r\n".to_vec(),
            epilogue: None,
        }
    }

    fn see(&mut self, chunk: &[u8]) {
        let missing = self.opening.len() - self.start.len();
        self.start.extend(chunk.iter().take(missing));
        if let Some(epilogue) = &mut self.epilogue {
            return epilogue.see(chunk);
        }
        let keep = self.closing.len() - 1;
        let mut seam = std::mem::take(&mut self.tail);
        let before = seam.len();
        seam.extend(chunk.iter().take(keep));
        let after = memchr::memmem::find(&seam, &self.closing)
            .map(|at| at + self.closing.len() - before)
            .or_else(|| memchr::memmem::find(chunk, &self.closing).map(|at| at + self.closing.len()));
        if let Some(after) = after {
            let mut epilogue = Epilogue::default();
            epilogue.see(chunk.get(after..).unwrap_or_default());
            self.epilogue = Some(epilogue);
        } else {
            let last = chunk.len().checked_sub(keep).and_then(|from| chunk.get(from..));
            self.tail = last.map_or_else(|| seam.split_off(seam.len().saturating_sub(keep)), <[u8]>::to_vec);
        }
    }

    fn padding(&self) -> u64 {
        self.epilogue.as_ref().map_or(0, |epilogue| epilogue.length.saturating_sub(2))
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.start != self.opening {
            return Err("the body does not begin with its boundary");
        }
        match &self.epilogue {
            None => Err("the closing boundary is missing"),
            Some(epilogue) if epilogue.other || epilogue.length == 1 => {
                Err("the epilogue is not CRLF and spaces")
            }
            Some(_) => Ok(()),
        }
    }
}

impl Epilogue {
    fn see(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let wanted = match self.length {
                0 => b'\r',
                1 => b'\n',
                _ => b' ',
            };
            self.other |= *byte != wanted;
            self.length += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, step: usize) -> (Result<(), &'static str>, u64) {
        let mut edges = Edges::new("xyz");
        body.as_bytes().chunks(step).for_each(|chunk| edges.see(chunk));
        (edges.check(), edges.padding())
    }

    #[test]
    fn a_form_s_ends_are_judged_alike_however_it_is_cut() {
        let long = format!("--xyz\r\n\r\n{}\r\n--xyz--\r\n   ", "\r\n--xy\r\n--xyz-".repeat(9));
        for step in 1..80 {
            assert_eq!(check(&long, step), (Ok(()), 3), "{step}");
            assert_eq!(check("--xyz\r\n\r\n\r\n--xyz--", step), (Ok(()), 0), "{step}");
            for wrong in [
                " --xyz\r\n\r\n\r\n--xyz--",
                "--xyz\r\n\r\n\r\n--xyz-",
                "--xyz\r\n\r\n\r\n--xyz--\r",
                "--xyz\r\n\r\n\r\n--xyz--\r\nx",
                "--xyz\r\n\r\n\r\n--xyz--  ",
                "--xyz--\r\n",
                "",
            ] {
                assert!(check(wrong, step).0.is_err(), "{wrong:?} by {step}");
            }
        }
    }
}
