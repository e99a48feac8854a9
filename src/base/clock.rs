//! The clock. Other rooms take a time as a value, so that they can be tested at any hour.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of day.
#[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Whole seconds since 1970-01-01T00:00:00Z; 0 on a clock set before that.
pub fn unix() -> u64 {
    now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// A point on the clock that never goes back, for measuring.
#[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
pub fn instant() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_seconds_and_the_time_of_day_agree() {
        let before = unix();
        let seconds = now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!((before..=unix()).contains(&seconds));
    }
}
