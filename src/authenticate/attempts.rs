//! How many keys one address may get wrong. Beyond that nothing of its requests is looked at for a while, so that
//! guessing is slow and a flood costs next to nothing.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::accept::forwarded::subscriber;

/// Minutes' worth of wrong keys that may come at once.
const BURST: u32 = 2;
/// Addresses that are remembered at most, in two halves: when the younger is full, the older is forgotten.
const MOST: usize = 65_536;
const MINUTE: Duration = Duration::from_secs(60);

/// The budgets of all addresses.
pub struct Attempts {
    /// The time that earns one attempt; `None`: there is no limit.
    interval: Option<Duration>,
    capacity: Duration,
    debts: Arc<Mutex<Debts>>,
}

/// For each address that has failed, when its budget is whole again.
#[derive(Default)]
struct Debts {
    young: HashMap<IpAddr, Instant>,
    old: HashMap<IpAddr, Instant>,
}

impl Attempts {
    /// So many a minute for each address, and twice as many at once; 0: any number.
    pub fn new(per_minute: u32) -> Self {
        let interval = MINUTE.checked_div(per_minute);
        let capacity = interval.unwrap_or_default() * per_minute.saturating_mul(BURST);
        Self { interval, capacity, debts: Arc::default() }
    }

    /// The same budgets by another limit: whatever part of one is used up, and for however long, stays so.
    pub fn limited(&self, per_minute: u32) -> Self {
        Self { debts: Arc::clone(&self.debts), ..Self::new(per_minute) }
    }

    /// Whether a key from this address is looked at.
    ///
    /// # Errors
    /// It is not; it will be after this time.
    pub fn check(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let Some(interval) = self.interval else { return Ok(()) };
        let owed = self.debts.lock().whole_at(subscriber(address)).map(|whole| whole.duration_since(now));
        match owed.unwrap_or_default().checked_sub(self.capacity.saturating_sub(interval)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// A key from this address was wrong, or missing.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        let Some(interval) = self.interval else { return };
        let address = subscriber(address);
        let mut debts = self.debts.lock();
        let whole = debts.whole_at(address).map_or(now, |whole| whole.max(now)) + interval;
        debts.note(address, whole);
    }
}

impl Debts {
    fn whole_at(&self, address: IpAddr) -> Option<Instant> {
        self.young.get(&address).or_else(|| self.old.get(&address)).copied()
    }

    fn note(&mut self, address: IpAddr, whole: Instant) {
        if self.young.len() >= MOST / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(address, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    fn address(n: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(n).into()
    }

    /// How many attempts in a row are looked at.
    fn attempts(attempts: &Attempts, from: IpAddr, now: Instant) -> usize {
        std::iter::repeat_with(|| attempts.check(from, now).map(|()| attempts.failed(from, now)))
            .take(1000)
            .take_while(Result::is_ok)
            .count()
    }

    #[test]
    fn twice_a_minutes_worth_at_once_then_one_at_a_time() {
        let budget = Attempts::new(10);
        let (from, now) = (address(1), clock::instant());
        assert_eq!(attempts(&budget, from, now), 20);
        assert_eq!(budget.check(from, now), Err(Duration::from_secs(6)));
        assert_eq!(budget.check(from, now + Duration::from_secs(4)), Err(Duration::from_secs(2)));
        assert_eq!(attempts(&budget, from, now + Duration::from_secs(6)), 1);
        assert_eq!(attempts(&budget, from, now + Duration::from_secs(66)), 10);
        assert_eq!(attempts(&budget, from, now + Duration::from_secs(600)), 20, "forgiven");
        assert_eq!(attempts(&budget, address(2), now), 20, "each address has its own");
    }

    #[test]
    fn an_ipv6_network_has_one_budget() {
        let budget = Attempts::new(1);
        let now = clock::instant();
        assert_eq!(attempts(&budget, "2001:db8::1".parse().unwrap(), now), 2);
        assert_eq!(attempts(&budget, "2001:db8::2".parse().unwrap(), now), 0);
        assert_eq!(attempts(&budget, "2001:db8:0:1::1".parse().unwrap(), now), 2);
    }

    #[test]
    fn another_limit_gives_nobody_a_fresh_budget() {
        let (budget, now) = (Attempts::new(10), clock::instant());
        assert_eq!(attempts(&budget, address(1), now), 20);
        for _ in 0..10 {
            budget.failed(address(2), now);
        }
        let (same, tighter) = (budget.limited(10), budget.limited(2));
        assert_eq!((attempts(&same, address(1), now), attempts(&tighter, address(1), now)), (0, 0));
        assert_eq!(attempts(&tighter, address(2), now), 2, "half of it is left");
        assert_eq!(attempts(&tighter, address(3), now), 4);
        assert!(budget.check(address(3), now).is_err(), "they are the same budgets");
        assert!(budget.limited(0).check(address(1), now).is_ok());
    }

    #[test]
    fn without_a_limit_nothing_is_remembered() {
        let budget = Attempts::new(0);
        assert_eq!(attempts(&budget, address(1), clock::instant()), 1000);
        assert!(budget.debts.lock().young.is_empty());
    }

    #[test]
    fn however_many_addresses_come_memory_is_bounded_and_the_latest_are_known() {
        let budget = Attempts::new(1);
        let now = clock::instant();
        for n in 0..200_000 {
            attempts(&budget, address(n), now);
        }
        let debts = budget.debts.lock();
        assert!(debts.young.len() + debts.old.len() <= MOST);
        drop(debts);
        assert!(budget.check(address(199_999), now).is_err());
    }
}
