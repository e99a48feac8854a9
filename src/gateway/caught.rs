//! A panic ends the request that it happens in, and no other.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// Runs a request's work; `None` when it panicked. The panic has been recorded then, with its place and without its
/// message, by `observe`'s hook. What the work has left half done must not be used for another request.
pub(super) async fn caught<T>(work: impl Future<Output = T>) -> Option<T> {
    AssertUnwindSafe(work).catch_unwind().await.ok()
}

/// The same for work that waits for nothing.
pub(super) fn caught_at_once<T>(work: impl FnOnce() -> T) -> Option<T> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_ends_the_work_alone() {
        let mut left = 0;
        let ended = caught(async {
            left = 1;
            tokio::task::yield_now().await;
            "none".parse::<u8>().unwrap()
        });
        assert_eq!(ended.await, None);
        assert_eq!(left, 1);
        assert_eq!(caught(async { 7 }).await, Some(7));
        assert_eq!(caught_at_once(|| "none".parse::<u8>().unwrap()), None);
        assert_eq!(caught_at_once(|| 7), Some(7));
    }
}
