//! How many connections there may be, in all and from one address: one client cannot take every place, and all of them
//! together not every file of the process.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::forwarded::subscriber;

/// Raises the limit of open files to the most that this process may have (`RLIMIT_NOFILE`, soft to hard), and says what
/// it is now.
pub fn open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { raised.current } else { limit.current };
    current.unwrap_or(u64::MAX)
}

/// How many connections so many open files are good for: each has a second one upstream, or a spooled body; some files
/// are for other things.
pub fn connections_for(files: u64) -> usize {
    usize::try_from(files / 2).unwrap_or(usize::MAX).saturating_sub(64).clamp(64, 16_384)
}

/// The places for connections.
pub struct Permits {
    in_all: usize,
    per_address: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    in_all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A connection's place, given back when dropped.
pub struct Permit {
    permits: Arc<Permits>,
    address: Option<IpAddr>,
}

impl Permits {
    /// So many places.
    pub fn new(in_all: usize, per_address: usize) -> Self {
        Self { in_all, per_address, taken: Mutex::default() }
    }

    /// Whether so many are allowed.
    pub const fn are_for(&self, in_all: usize, per_address: usize) -> bool {
        self.in_all == in_all && self.per_address == per_address
    }

    /// A place among all; `None` when every one is taken.
    pub fn enter(self: &Arc<Self>) -> Option<Permit> {
        let mut taken = self.taken.lock();
        if taken.in_all >= self.in_all {
            return None;
        }
        taken.in_all += 1;
        Some(Permit { permits: Arc::clone(self), address: None })
    }
}

impl Permit {
    /// The same place as one of those for this address, or its IPv6 network; `None` when they are all taken.
    #[must_use]
    pub fn held_by(mut self, address: IpAddr) -> Option<Self> {
        let address = subscriber(address);
        {
            let mut taken = self.permits.taken.lock();
            let places = taken.by_address.entry(address).or_default();
            if *places >= self.permits.per_address {
                return None;
            }
            *places += 1;
        }
        self.address = Some(address);
        Some(self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self.permits.taken.lock();
        taken.in_all = taken.in_all.saturating_sub(1);
        if let Some(address) = self.address
            && let Some(places) = taken.by_address.get_mut(&address)
        {
            *places = places.saturating_sub(1);
            if *places == 0 {
                taken.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn taken(permits: &Permits) -> usize {
        permits.taken.lock().in_all
    }

    #[test]
    fn a_place_given_back_is_free_again() {
        let permits = Arc::new(Permits::new(2, 2));
        let (first, _second) = (permits.enter().unwrap(), permits.enter().unwrap());
        assert!(permits.enter().is_none());
        drop(first);
        assert!(permits.enter().is_some());
        assert_eq!(taken(&permits), 1);
    }

    #[test]
    fn one_address_takes_no_more_than_its_share_and_leaves_nothing_behind() {
        let permits = Arc::new(Permits::new(10, 2));
        let enter = |text: &str| permits.enter().and_then(|permit| permit.held_by(address(text)));
        let held = [enter("192.0.2.1").unwrap(), enter("::ffff:192.0.2.1").unwrap()];
        assert!(enter("192.0.2.1").is_none());
        assert_eq!(taken(&permits), 2, "a refused one gives its place back");
        let others =
            [enter("192.0.2.2").unwrap(), enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap()];
        assert!(enter("2001:db8::3").is_none(), "one IPv6 network is one client");
        assert!(enter("2001:db8:0:1::3").is_some());
        drop((held, others));
        assert_eq!(taken(&permits), 0);
        assert!(permits.taken.lock().by_address.is_empty());
    }

    #[test]
    fn files_are_left_for_the_other_side() {
        assert_eq!(connections_for(1024), 448);
        assert_eq!(connections_for(100), 64);
        assert_eq!(connections_for(u64::MAX), 16_384);
    }

    #[test]
    fn the_limit_of_open_files_is_as_high_as_it_can_be() {
        let now = open_files();
        assert_eq!(now, getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
    }
}
