//! Connections that are shared, and may be dead without anyone's having said so: a NAT forgets them, a route changes. TCP
//! takes a quarter of an hour to notice, and until then every request on such a connection would wait in vain.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::base::clock;

/// An upstream that owes something and has said nothing for so long may not be there any more.
const SUSPICIOUS: Duration = Duration::from_secs(10);

/// The number of the connections that new requests may share with each other.
#[derive(Debug, Clone, Default)]
pub(super) struct Shared(Arc<AtomicU64>);

/// What is owed to one request on one of them. Dropped after too long a wait, it keeps later requests away from it.
#[derive(Debug)]
pub(super) struct Waiting {
    shared: Shared,
    number: u64,
    patience: Duration,
    since: Option<Instant>,
}

impl Shared {
    /// The number in force.
    pub(super) fn number(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// For a request on a connection of this number, which is given up after `patience` without an answer.
    pub(super) fn waiting(&self, number: u64, patience: Duration) -> Waiting {
        Waiting { shared: self.clone(), number, patience: patience.min(SUSPICIOUS), since: None }
    }
}

impl Waiting {
    /// From now on the upstream owes something.
    pub(super) fn begin(&mut self) {
        self.since = Some(clock::instant());
    }

    /// There it is.
    pub(super) const fn end(&mut self) {
        self.since = None;
    }

    fn is_over_at(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= self.patience)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_over_at(clock::instant()) {
            let next = self.number.wrapping_add(1);
            let relaxed = Ordering::Relaxed;
            if self.shared.0.compare_exchange(self.number, next, relaxed, relaxed).is_ok() {
                tracing::warn!("no word on an upstream connection: later requests get another one");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waited_in_vain_keeps_later_requests_away_once() {
        let shared = Shared::default();
        let [mut one, mut other] = [(); 2].map(|()| shared.waiting(shared.number(), Duration::ZERO));
        one.begin();
        other.begin();
        drop(one);
        assert_eq!(shared.number(), 1);
        drop(other);
        assert_eq!(shared.number(), 1, "it was on the same one");
    }

    #[test]
    fn whoever_is_owed_nothing_or_left_early_says_nothing() {
        let shared = Shared::default();
        drop(shared.waiting(0, Duration::ZERO));
        let mut answered = shared.waiting(0, Duration::ZERO);
        answered.begin();
        answered.end();
        drop(answered);
        let mut left = shared.waiting(0, Duration::from_secs(300));
        left.begin();
        assert!(left.is_over_at(clock::instant() + SUSPICIOUS));
        drop(left);
        assert_eq!(shared.number(), 0);
    }
}
