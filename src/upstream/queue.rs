//! Places at the upstream: so many in flight, so many waiting, and no longer than so.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// No place came free in time, or too many wait already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// When it makes sense to ask again.
    pub retry_after: Duration,
}

/// A place at the upstream, given back on drop.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held, never read")] OwnedSemaphorePermit);

/// The queue before the upstream: the account behind it is the scarce thing.
#[derive(Debug)]
pub struct Queue {
    places: Arc<Semaphore>,
    count: usize,
    waiting: Arc<AtomicUsize>,
    most_waiting: usize,
    longest_wait: Duration,
}

impl Queue {
    /// `places` in flight at most, `most_waiting` behind them, each for `longest_wait` at most.
    pub fn new(places: usize, most_waiting: usize, longest_wait: Duration) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places)),
            count: places,
            waiting: Arc::default(),
            most_waiting,
            longest_wait,
        }
    }

    /// The same queue with other bounds, for those who come from now on: places that are taken stay so. Fewer places
    /// come into force as they are given back. Must be called within a Tokio runtime.
    pub fn resized(&self, places: usize, most_waiting: usize, longest_wait: Duration) -> Self {
        let all = Arc::clone(&self.places);
        match places.checked_sub(self.count) {
            Some(more) => all.add_permits(more),
            None => {
                let fewer = u32::try_from(self.count - places).unwrap_or(u32::MAX);
                let all = Arc::clone(&all);
                tokio::spawn(async move {
                    if let Ok(permits) = all.acquire_many_owned(fewer).await {
                        permits.forget();
                    }
                });
            }
        }
        let waiting = Arc::clone(&self.waiting);
        Self { places: all, count: places, waiting, most_waiting, longest_wait }
    }

    /// Waits for a place, in order of arrival.
    ///
    /// # Errors
    /// [`Busy`] when the queue is full, or no place came free within the longest wait.
    pub async fn enter(&self) -> Result<Place, Busy> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place(permit));
        }
        let _waiting = Waiting::new(&self.waiting, self.most_waiting).ok_or_else(|| self.busy())?;
        match timeout(self.longest_wait, Arc::clone(&self.places).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place(permit)),
            _ => Err(self.busy()),
        }
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn busy(&self) -> Busy {
        Busy { retry_after: self.longest_wait.max(Duration::from_secs(1)) }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                (waiting < most).then_some(waiting + 1)
            })
            .ok()
            .map(|_| Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_given_back_goes_to_the_one_who_waits() {
        let queue = Arc::new(Queue::new(1, 1, Duration::from_secs(5)));
        let place = queue.enter().await.unwrap();
        let waiter = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.enter().await.is_ok() }
        });
        while queue.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(queue.enter().await.is_err(), "the queue holds one");
        drop(place);
        assert!(waiter.await.unwrap());
        assert_eq!(queue.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_told() {
        let queue = Queue::new(1, 8, Duration::from_secs(3));
        let _place = queue.enter().await.unwrap();
        assert_eq!(queue.enter().await.unwrap_err(), Busy { retry_after: Duration::from_secs(3) });
        assert_eq!(queue.waiting(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn other_bounds_hold_for_places_that_are_taken_too() {
        let wait = Duration::from_secs(1);
        let queue = Queue::new(2, 4, wait);
        let (first, second) = (queue.enter().await.unwrap(), queue.enter().await.unwrap());
        let fewer = queue.resized(1, 4, wait);
        tokio::task::yield_now().await;
        drop(first);
        assert!(fewer.enter().await.is_err(), "two were taken, one is too many");
        drop(second);
        let _only = fewer.enter().await.unwrap();
        let more = fewer.resized(2, 4, wait);
        let _both = more.enter().await.unwrap();
        assert!(more.enter().await.is_err());
    }
}
