//! A client's body against the clock: it may be silent for so long, and must not trickle. Waiting is what counts: what
//! comes as fast as the upstream takes it is fast enough.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::body::Body;
use super::transcribe::Deadlines;
use crate::answer::Fault;

const MINUTE: Duration = Duration::from_secs(60);

/// One body's pace.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    silence: Duration,
    /// A pause as long as may be, and as much again to make up for it: what came is looked at once in this time.
    span: Duration,
    /// The fewest bytes in a span.
    floor: u64,
    /// Of the span at hand.
    waited: Duration,
    /// Bytes that came before the span at hand.
    before: u64,
}

impl Pace {
    pub(super) fn new(deadlines: &Deadlines) -> Self {
        let span = deadlines.body.saturating_mul(2);
        let floor = u128::from(deadlines.floor) * span.as_millis() / MINUTE.as_millis();
        let floor = u64::try_from(floor).unwrap_or(u64::MAX);
        Self { silence: deadlines.body, span, floor, waited: Duration::ZERO, before: 0 }
    }

    /// The next piece of the body; `None` at its end.
    ///
    /// # Errors
    /// [`Fault::BodyTimeout`], or [`Fault::BodyBroken`].
    pub(super) async fn read(&mut self, body: &mut Body<'_>) -> Result<Option<Bytes>, Fault> {
        let begun = Instant::now();
        let patience = self.patience(body.came());
        let read = timeout(patience, body.read()).await.map_err(|_| Fault::BodyTimeout)??;
        if read.is_some() {
            self.waited(begun.elapsed(), body.came())?;
        }
        Ok(read)
    }

    /// How long the next piece may take, when so many bytes have come in all.
    fn patience(&self, came: u64) -> Duration {
        if self.owes(came) { self.silence.min(self.span.saturating_sub(self.waited)) } else { self.silence }
    }

    /// A piece took so long to come; now there are so many bytes in all.
    ///
    /// # Errors
    /// [`Fault::BodyTimeout`] when they are too few.
    pub(super) fn waited(&mut self, time: Duration, came: u64) -> Result<(), Fault> {
        self.waited += time;
        if self.waited >= self.span {
            if self.owes(came) {
                return Err(Fault::BodyTimeout);
            }
            (self.waited, self.before) = (Duration::ZERO, came);
        }
        Ok(())
    }

    const fn owes(&self, came: u64) -> bool {
        came.saturating_sub(self.before) < self.floor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pace(floor: u64) -> Pace {
        let (body, request) = (30 * SECOND, 300 * SECOND);
        Pace::new(&Deadlines { body, floor, request, per_mib: Duration::ZERO, client: None })
    }

    /// When a client that sends so much every so often is too slow, if ever in an hour.
    fn ends(mut pace: Pace, piece: u64, every: Duration) -> Option<Duration> {
        let (mut came, mut now) = (0, Duration::ZERO);
        while now < 3600 * SECOND {
            let patience = pace.patience(came);
            if patience < every {
                return Some(now + patience);
            }
            (now, came) = (now + every, came + piece);
            if pace.waited(every, came).is_err() {
                return Some(now);
            }
        }
        None
    }

    #[test]
    fn a_trickle_ends_when_the_first_minute_is_over() {
        assert_eq!(ends(pace(16 << 10), 1, 29 * SECOND), Some(60 * SECOND));
        assert_eq!(ends(pace(16 << 10), 1, SECOND), Some(60 * SECOND));
        assert_eq!(ends(pace(16 << 10), 250, SECOND), Some(60 * SECOND));
    }

    #[test]
    fn speech_at_its_own_speed_is_fast_enough() {
        // Opus at 6 kbit/s, with pauses.
        assert_eq!(ends(pace(16 << 10), 750, SECOND), None);
        assert_eq!(ends(pace(16 << 10), 20_000, 29 * SECOND), None);
    }

    #[test]
    fn a_fast_start_buys_no_slow_end() {
        let mut pace = pace(16 << 10);
        pace.waited(60 * SECOND, 50 << 20).unwrap();
        assert!(pace.waited(59 * SECOND, (50 << 20) + 100).is_ok());
        assert_eq!(pace.patience((50 << 20) + 100), SECOND);
        assert_eq!(pace.waited(SECOND, (50 << 20) + 101), Err(Fault::BodyTimeout));
    }

    #[test]
    fn without_a_floor_only_silence_counts() {
        assert_eq!(ends(pace(0), 1, 30 * SECOND), None);
        assert_eq!(ends(pace(0), 1, 31 * SECOND), Some(30 * SECOND));
    }
}
