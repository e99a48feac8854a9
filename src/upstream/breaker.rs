//! Whether to ask the upstream at all: a challenge page, a rejected login and a rate limit each shut the door for a
//! while. Asking on meanwhile uploads for nothing, and makes an upstream that has had enough of us angrier.
//!
//! What the upstream's answers say to its own faults (5xx) shuts nothing: they concern one request.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A probe that has taken this long may be a slow client's: another one is let through.
const PROBE_PATIENCE: Duration = Duration::from_secs(60);
/// When to come again while a probe is under way.
const PROBE_WAIT: Duration = Duration::from_secs(5);
/// A stated wait of nothing would be no wait.
const SHORTEST: Duration = Duration::from_secs(1);

/// What shuts the door, in the order in which a request meets it: the edge, then the login, then the quota. An answer
/// about one of them shows that those before it let the request pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The upstream's edge asked for a browser.
    Challenge,
    /// The upstream rejected the login, and there was no newer one.
    Login,
    /// The upstream has had enough of this account.
    RateLimit,
}

impl Trouble {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Challenge, Self::Login, Self::RateLimit];

    /// A fixed name, for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Challenge => "challenge",
            Self::Login => "login",
            Self::RateLimit => "rate_limit",
        }
    }

    /// How long the door stays shut at first, and at most: twice as long after every failed probe.
    const fn waits(self) -> (Duration, Duration) {
        let (first, longest) = match self {
            Self::Challenge => (30, 600),
            Self::Login => (60, 60),
            Self::RateLimit => (10, 300),
        };
        (Duration::from_secs(first), Duration::from_secs(longest))
    }

    /// Whether it concerns the login alone that met it: another one may be another account's.
    const fn is_of_a_login(self) -> bool {
        !matches!(self, Self::Challenge)
    }
}

/// How it stands with one trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Requests pass.
    Closed,
    /// Requests are refused.
    Open,
    /// The time is up: one request is let through, or under way, to see.
    HalfOpen,
}

impl State {
    /// A fixed name, for the status page.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// What an operator may see of one trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which.
    pub trouble: Trouble,
    /// How it stands.
    pub state: State,
    /// Until the next probe; zero when requests pass.
    pub left: Duration,
    /// How many answers of this kind there were.
    pub met: u64,
}

/// A request that is not even tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What shuts the door.
    pub trouble: Trouble,
    /// When it makes sense to ask again.
    pub retry_after: Duration,
}

/// The breakers of one upstream.
#[derive(Debug, Default)]
pub struct Breakers([Mutex<Breaker>; Trouble::ALL.len()]);

#[derive(Debug, Default)]
struct Breaker {
    shut: Option<Shut>,
    met: u64,
}

#[derive(Debug, Clone, Copy)]
struct Shut {
    until: Instant,
    /// The last wait that was not stated by the upstream.
    wait: Duration,
    /// When the probe that is under way was let through.
    probe: Option<Instant>,
    /// Generation of the login that met it.
    login: u64,
}

impl Breakers {
    /// All of them closed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a request with the login of this generation would be let through now.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn check(&self, login: u64, now: Instant) -> Result<(), Refused> {
        for (trouble, breaker) in self.each() {
            breaker.lock().refuses(trouble, login, now)?;
        }
        Ok(())
    }

    /// Lets a request through, as the probe where one is due. Tell the pass how it went.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn enter(&self, login: u64, now: Instant) -> Result<Pass<'_>, Refused> {
        let mut pass = Pass { breakers: self, at: now, probes: [false; Trouble::ALL.len()] };
        for ((trouble, breaker), probes) in self.each().zip(&mut pass.probes) {
            let mut breaker = breaker.lock();
            // Probes taken so far are given back by the pass's drop.
            breaker.refuses(trouble, login, now)?;
            if let Some(shut) = breaker.shut.as_mut().filter(|shut| shut.concerns(trouble, login)) {
                shut.probe = Some(now);
                *probes = true;
            }
        }
        Ok(pass)
    }

    /// How it stands with each, for the login of this generation.
    pub fn conditions(&self, login: u64, now: Instant) -> impl Iterator<Item = Condition> {
        self.each().map(move |(trouble, breaker)| {
            let breaker = breaker.lock();
            let shut = breaker.shut.filter(|shut| shut.concerns(trouble, login));
            let left = shut.map_or(Duration::ZERO, |shut| shut.until.saturating_duration_since(now));
            let state = match shut {
                None => State::Closed,
                Some(_) if left.is_zero() => State::HalfOpen,
                Some(_) => State::Open,
            };
            Condition { trouble, state, left, met: breaker.met }
        })
    }

    fn each(&self) -> impl Iterator<Item = (Trouble, &Mutex<Breaker>)> {
        Trouble::ALL.into_iter().zip(&self.0)
    }
}

impl Breaker {
    fn refuses(&self, trouble: Trouble, login: u64, now: Instant) -> Result<(), Refused> {
        let Some(shut) = self.shut.filter(|shut| shut.concerns(trouble, login)) else { return Ok(()) };
        let left = shut.until.saturating_duration_since(now);
        let probing = shut.probe.is_some_and(|since| now.saturating_duration_since(since) < PROBE_PATIENCE);
        match (left.is_zero(), probing) {
            (true, false) => Ok(()),
            (true, true) => Err(Refused { trouble, retry_after: PROBE_WAIT }),
            (false, _) => Err(Refused { trouble, retry_after: left }),
        }
    }

    /// Shuts for as long as the upstream wants, else for longer after a failed probe than before it. Requests that were
    /// under way when it shut change nothing but a stated wait that is longer.
    fn shut(
        &mut self,
        trouble: Trouble,
        stated: Option<Duration>,
        login: u64,
        probe: bool,
        now: Instant,
    ) -> Duration {
        self.met = self.met.saturating_add(1);
        let (first, longest) = trouble.waits();
        let stated = stated.map(|stated| stated.max(SHORTEST));
        let before = self.shut.filter(|shut| shut.concerns(trouble, login));
        let (wait, until) = match before {
            None => (first, now + stated.unwrap_or(first)),
            Some(before) if probe => {
                let wait = before.wait.saturating_mul(2).min(longest);
                (wait, now + stated.unwrap_or(wait))
            }
            Some(before) => {
                let unsaid = if now < before.until { Duration::ZERO } else { before.wait };
                (before.wait, before.until.max(now + stated.unwrap_or(unsaid)))
            }
        };
        let under_way = before.and_then(|before| before.probe).filter(|_| !probe);
        self.shut = Some(Shut { until, wait, probe: under_way, login });
        until.saturating_duration_since(now)
    }
}

impl Shut {
    fn concerns(&self, trouble: Trouble, login: u64) -> bool {
        !trouble.is_of_a_login() || self.login == login
    }
}

/// Leave for one request. Dropped without a word it says nothing of the upstream: the next one may probe.
#[derive(Debug)]
pub struct Pass<'a> {
    breakers: &'a Breakers,
    at: Instant,
    probes: [bool; Trouble::ALL.len()],
}

impl Pass<'_> {
    /// The upstream has dealt with the request itself.
    pub fn succeeded(self) {
        self.close(Trouble::ALL.len());
    }

    /// The upstream has answered with this trouble, and stated a wait or not; the login that it was asked with last is
    /// of this generation. Returns how long the door is shut now.
    pub fn failed(self, trouble: Trouble, stated: Option<Duration>, login: u64, now: Instant) -> Duration {
        let place = Trouble::ALL.iter().take_while(|other| **other != trouble).count();
        self.close(place);
        let probe = self.probes.get(place).is_some_and(|probe| *probe);
        let breaker = self.breakers.0.get(place);
        breaker.map_or(Duration::ZERO, |breaker| breaker.lock().shut(trouble, stated, login, probe, now))
    }

    /// Closes the first so many of those that this request was the probe of.
    fn close(&self, many: usize) {
        for (breaker, _) in self.breakers.0.iter().zip(self.probes).take(many).filter(|(_, probe)| *probe) {
            let mut breaker = breaker.lock();
            // Unless another probe has taken its place.
            breaker.shut = breaker.shut.filter(|shut| shut.probe != Some(self.at));
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        for (breaker, _) in self.breakers.0.iter().zip(self.probes).filter(|(_, probe)| *probe) {
            if let Some(shut) = breaker.lock().shut.as_mut().filter(|shut| shut.probe == Some(self.at)) {
                shut.probe = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn refused(trouble: Trouble, seconds: u64) -> Result<(), Refused> {
        Err(Refused { trouble, retry_after: Duration::from_secs(seconds) })
    }

    fn fail(breakers: &Breakers, trouble: Trouble, stated: Option<u64>, now: Instant) -> u64 {
        let stated = stated.map(Duration::from_secs);
        breakers.enter(1, now).unwrap().failed(trouble, stated, 1, now).as_secs()
    }

    fn states(breakers: &Breakers, login: u64, now: Instant) -> Vec<State> {
        breakers.conditions(login, now).map(|condition| condition.state).collect()
    }

    #[test]
    fn a_door_stays_shut_for_the_stated_time_then_one_probe_opens_it_for_all() {
        let (breakers, start) = (Breakers::new(), clock::instant());
        assert_eq!(fail(&breakers, Trouble::RateLimit, Some(7), start), 7);
        let almost = start + 6 * SECOND;
        assert_eq!(breakers.check(1, almost), refused(Trouble::RateLimit, 1));
        assert_eq!(breakers.enter(1, almost).unwrap_err().retry_after, SECOND);
        let up = start + 7 * SECOND;
        assert_eq!(states(&breakers, 1, up), [State::Closed, State::Closed, State::HalfOpen]);
        let probe = breakers.enter(1, up).unwrap();
        assert_eq!(breakers.check(1, up), refused(Trouble::RateLimit, 5), "the others wait");
        assert!(breakers.enter(1, up).is_err());
        probe.succeeded();
        assert_eq!(breakers.check(1, up), Ok(()));
        assert_eq!(states(&breakers, 1, up), [State::Closed; 3]);
    }

    #[test]
    fn a_failed_probe_doubles_the_wait_up_to_a_bound_and_a_success_forgets_it() {
        for (trouble, waits) in [
            (Trouble::RateLimit, &[10, 20, 40, 80, 160, 300, 300][..]),
            (Trouble::Challenge, &[30, 60, 120, 240, 480, 600, 600]),
            (Trouble::Login, &[60, 60, 60]),
        ] {
            let (breakers, mut now) = (Breakers::new(), clock::instant());
            for wait in waits {
                assert_eq!(fail(&breakers, trouble, None, now), *wait, "{trouble:?}");
                assert!(breakers.check(1, now + Duration::from_secs(*wait - 1)).is_err(), "{trouble:?}");
                now += Duration::from_secs(*wait);
            }
            breakers.enter(1, now).unwrap().succeeded();
            assert_eq!(fail(&breakers, trouble, None, now), waits[0], "{trouble:?}");
            let met: u64 = breakers.conditions(1, now).map(|condition| condition.met).sum();
            assert_eq!(met, waits.len() as u64 + 1);
        }
    }

    #[test]
    fn requests_under_way_when_the_door_shuts_do_not_double_the_wait() {
        let (breakers, now) = (Breakers::new(), clock::instant());
        let passes: Vec<_> = (0..5).map(|_| breakers.enter(1, now).unwrap()).collect();
        for pass in passes {
            assert_eq!(pass.failed(Trouble::RateLimit, None, 1, now), 10 * SECOND);
        }
        let late = breakers.conditions(1, now).nth(2).unwrap();
        assert_eq!((late.left, late.met), (10 * SECOND, 5));
    }

    #[test]
    fn a_longer_stated_wait_counts_and_a_success_of_a_request_under_way_opens_nothing() {
        let (breakers, now) = (Breakers::new(), clock::instant());
        let [first, second, third] = [(); 3].map(|()| breakers.enter(1, now).unwrap());
        first.failed(Trouble::RateLimit, Some(5 * SECOND), 1, now);
        second.failed(Trouble::RateLimit, Some(50 * SECOND), 1, now);
        third.succeeded();
        assert_eq!(breakers.check(1, now), refused(Trouble::RateLimit, 50));
    }

    #[test]
    fn another_login_passes_at_once_but_not_through_a_challenge() {
        let (breakers, now) = (Breakers::new(), clock::instant());
        fail(&breakers, Trouble::Login, None, now);
        assert_eq!(breakers.check(1, now), refused(Trouble::Login, 60));
        assert_eq!(breakers.check(2, now), Ok(()));
        assert_eq!(states(&breakers, 2, now), [State::Closed; 3]);
        breakers.enter(2, now).unwrap().failed(Trouble::Challenge, None, 2, now);
        assert_eq!(breakers.check(3, now), refused(Trouble::Challenge, 30));
    }

    #[test]
    fn a_login_read_anew_and_rejected_too_shuts_the_door_for_itself() {
        let (breakers, now) = (Breakers::new(), clock::instant());
        breakers.enter(1, now).unwrap().failed(Trouble::Login, None, 2, now);
        assert_eq!(breakers.check(2, now), refused(Trouble::Login, 60));
    }

    #[test]
    fn a_probe_that_says_nothing_leaves_its_place_to_the_next() {
        let (breakers, now) = (Breakers::new(), clock::instant());
        fail(&breakers, Trouble::Challenge, None, now);
        let up = now + 30 * SECOND;
        drop(breakers.enter(1, up).unwrap());
        let slow = breakers.enter(1, up).unwrap();
        assert_eq!(breakers.check(1, up + 59 * SECOND), refused(Trouble::Challenge, 5));
        let next = breakers.enter(1, up + 60 * SECOND).expect("a slow client does not hold the door");
        drop(slow);
        assert!(breakers.enter(1, up + 60 * SECOND).is_err(), "the second probe is still under way");
        next.succeeded();
        assert_eq!(breakers.check(1, up), Ok(()));
    }

    #[test]
    fn a_rate_limit_shows_that_edge_and_login_let_the_probe_pass() {
        let (breakers, now) = (Breakers::new(), clock::instant());
        let [first, second] = [(); 2].map(|()| breakers.enter(1, now).unwrap());
        first.failed(Trouble::Challenge, None, 1, now);
        second.failed(Trouble::Login, None, 1, now);
        let up = now + 60 * SECOND;
        breakers.enter(1, up).unwrap().failed(Trouble::RateLimit, None, 1, up);
        assert_eq!(states(&breakers, 1, up), [State::Closed, State::Closed, State::Open]);
        let up = up + 10 * SECOND;
        breakers.enter(1, up).unwrap().failed(Trouble::Challenge, None, 1, up);
        assert_eq!(
            states(&breakers, 1, up),
            [State::Open, State::Closed, State::HalfOpen],
            "nothing is known"
        );
    }

    #[test]
    fn a_stated_wait_of_nothing_is_a_second() {
        let (breakers, now) = (Breakers::new(), clock::instant());
        assert_eq!(fail(&breakers, Trouble::RateLimit, Some(0), now), 1);
    }
}
