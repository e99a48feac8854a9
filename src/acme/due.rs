//! When to act: what is due now, how long to wait after a failure, where in its life a certificate is renewed. All times
//! are Unix seconds; chance comes in as a fraction from 0 to 1.

use serde::{Deserialize, Serialize};

/// An hour in seconds.
pub const HOUR: u64 = 3_600;
/// A day in seconds: the longest sleep, and the longest time between two looks at the CA's renewal information.
pub const DAY: u64 = 24 * HOUR;
/// When to ask for renewal information again if the CA does not say.
pub const ARI_DEFAULT: u64 = 12 * HOUR;
/// Waits after the first failure, the second and so on; the last one stays (Let's Encrypt's integration guide).
const LADDER: [u64; 4] = [60, 600, 6_000, DAY];
/// With a certificate running out, the ladder ends here.
const URGENT: u64 = 6_000;
/// Let's Encrypt gives five certificates for one set of names in a week: one back every 34 hours.
const SPARING: u64 = 36 * HOUR;
/// The longest `Retry-After` that is believed.
const LONGEST_WAIT: u64 = 31 * DAY;
/// Certificates of ten days or less are renewed at half their life, longer ones at two thirds.
const SHORT_LIFE: u64 = 10 * DAY;

/// From when until when a certificate is good; the end is the first second that it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The first second.
    pub from: u64,
    /// The second after the last.
    pub until: u64,
}

/// When to renew: a point chosen once within a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its first second.
    pub start: u64,
    /// Its end.
    pub end: u64,
    /// The moment chosen in it.
    pub point: u64,
    /// Whether the CA has suggested it (RFC 9773), and not the lifetime.
    pub suggested: bool,
}

/// What is remembered about one set of names between orders, on disk too.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Renewal {
    /// The certificate that `window` is about (RFC 9773 section 4.1).
    pub certificate: Option<String>,
    /// When it is to be renewed.
    pub window: Option<Window>,
    /// When to ask for renewal information.
    pub ari_at: u64,
    /// Attempts since the last success, the one under way among them.
    pub fails: u32,
    /// When the last attempt began.
    pub tried: u64,
    /// No order before this.
    pub next: u64,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// The names that it failed for.
    pub blamed: Vec<String>,
    /// Whether the next order is rehearsed at a staging CA first.
    pub rehearse: bool,
    /// The settings that the CA has refused for good.
    pub stopped: Option<String>,
    /// The certificate which the CA will not have named as the replaced one.
    pub replaced: Option<String>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing until then; a day at most, and then ask again.
    Sleep(u64),
    /// Ask the CA when it would like this certificate renewed.
    FetchAri,
    /// Order a certificate.
    Order {
        /// At the staging CA first.
        rehearse: bool,
    },
    /// Nothing but a look a day: the CA has refused these settings for good.
    Stop(u64),
}

/// How an attempt has failed, as far as the schedule is concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setback {
    /// Why, for people.
    pub error: String,
    /// Seconds before which the CA will not be asked again.
    pub retry_after: Option<u64>,
    /// The settings that were refused for good.
    pub stopped: Option<String>,
    /// The names it failed for.
    pub blamed: Vec<String>,
    /// Whether the CA has looked at the order and refused it, so that the next one is better rehearsed.
    pub rehearse: bool,
}

/// What to do now about a certificate with this life, or about none.
pub fn due(life: Option<Life>, renewal: &Renewal, now: u64) -> Action {
    let horizon = now.saturating_add(DAY);
    if let Some(life) = life.filter(|life| life.from > horizon) {
        // No certificate comes from so far in the future: it is the clock that lags (a board without a battery).
        return Action::Sleep(life.from.saturating_sub(DAY).min(horizon));
    }
    let wanted = life.map_or(0, |life| {
        let point = renewal.window.unwrap_or_else(|| life.window(0.0)).point;
        point.min(life.emergency())
    });
    let at = wanted.max(renewal.next);
    if at <= now {
        return Action::Order { rehearse: renewal.rehearse };
    }
    if renewal.stopped.is_some() && wanted <= now {
        return Action::Stop(at.min(horizon));
    }
    match life {
        Some(life) if now < life.until && renewal.ari_at <= now => Action::FetchAri,
        Some(life) if now < life.until => Action::Sleep(at.min(renewal.ari_at).min(horizon)),
        _ => Action::Sleep(at.min(horizon)),
    }
}

/// Up to a twentieth more, so that many servers do not come at once.
pub fn jitter(seconds: u64, chance: f64) -> u64 {
    seconds.saturating_add(part(seconds / 20, chance))
}

impl Life {
    /// From two thirds of its life (half, when that is ten days or less) and a twentieth on.
    pub fn window(self, chance: f64) -> Window {
        let length = self.length();
        let start = self.from.saturating_add(if length <= SHORT_LIFE { length / 2 } else { length / 3 * 2 });
        Window::new(start, start.saturating_add(length / 20), chance, false)
    }

    /// When it is renewed whatever the CA suggests: the last twentieth begins.
    pub fn emergency(self) -> u64 {
        self.until.saturating_sub(self.length() / 20)
    }

    /// Whether it is good at this time.
    pub const fn holds(self, now: u64) -> bool {
        self.from <= now && now < self.until
    }

    const fn length(self) -> u64 {
        self.until.saturating_sub(self.from)
    }
}

impl Window {
    fn new(start: u64, end: u64, chance: f64, suggested: bool) -> Self {
        let point = start.saturating_add(part(end.saturating_sub(start), chance));
        Self { start, end, point, suggested }
    }
}

impl Renewal {
    /// Gets ready for this certificate: chooses when to renew it unless that has been done, and sees to a clock that was
    /// set back. Says whether anything is new.
    pub fn settle(&mut self, held: Option<(&str, Life)>, now: u64, chance: f64) -> bool {
        let before = self.clone();
        if now < self.tried {
            // The rest of the wait counts from now: it would never end, or a set of backward steps would skip it.
            self.next = now.saturating_add(self.next.saturating_sub(self.tried));
            self.tried = now;
        }
        self.next = self.next.min(now.saturating_add(LONGEST_WAIT));
        self.ari_at = self.ari_at.min(now.saturating_add(DAY));
        if let Some((certificate, life)) = held
            && (self.certificate.as_deref() != Some(certificate) || self.window.is_none())
        {
            self.certificate = Some(certificate.to_owned());
            self.window = Some(life.window(chance));
            self.ari_at = 0;
        }
        *self != before
    }

    /// Takes the CA's suggestion. A window that is no window, or ends after the certificate, is none; one that has not
    /// changed keeps its point.
    pub fn suggest(&mut self, life: Life, window: (u64, u64), retry_after: u64, now: u64, chance: f64) {
        let (start, end) = window;
        let same = |old: &Window| old.suggested && (old.start, old.end) == window;
        if start >= end || end > life.until {
            self.forget_suggestion(life, chance);
        } else if !self.window.as_ref().is_some_and(same) {
            self.window = Some(Window::new(start, end, chance, true));
        }
        self.ari_at = now.saturating_add(jitter(retry_after, chance).clamp(60, DAY));
    }

    /// There was no suggestion to be had. The lifetime decides when there never was one; an older one stands.
    pub fn no_suggestion(&mut self, retry_after: u64, now: u64, chance: f64) {
        self.ari_at = now.saturating_add(jitter(retry_after, chance).clamp(60, DAY));
    }

    fn forget_suggestion(&mut self, life: Life, chance: f64) {
        if self.window.is_none_or(|window| window.suggested) {
            self.window = Some(life.window(chance));
        }
    }

    /// An attempt begins. It counts as failed until it is known to have gone well, so that a process which is killed
    /// in the middle again and again climbs the ladder too.
    pub fn begin(&mut self, life: Option<Life>, now: u64, chance: f64) {
        self.fails = self.fails.saturating_add(1);
        self.tried = now;
        self.next = now.saturating_add(jitter(wait(self.fails, life, now), chance));
    }

    /// The attempt has failed.
    pub fn failed(&mut self, setback: Setback, life: Option<Life>, now: u64, chance: f64) {
        let rung = if setback.stopped.is_some() { u32::MAX } else { self.fails };
        let asked = setback.retry_after.unwrap_or(0).min(LONGEST_WAIT);
        self.next = now.saturating_add(jitter(wait(rung, life, now).max(asked), chance));
        self.last_error = Some(setback.error);
        self.stopped = setback.stopped;
        // An outage says nothing about names: whom the CA has blamed before stays blamed.
        if !setback.blamed.is_empty() {
            self.blamed = setback.blamed;
        }
        self.rehearse = setback.rehearse;
    }

    /// A certificate has come. The next order waits a little even if the CA or the clock would have it at once.
    pub fn succeeded(&mut self, life: Life, now: u64) {
        let fresh = now < life.window(0.0).start;
        let pause = if fresh { HOUR.min(life.length() / 50) } else { SPARING.min(life.length() / 4).max(60) };
        *self = Self { next: now.saturating_add(pause), tried: now, ..Self::default() };
    }

    /// There is no certificate. Where the last attempt went well it has been lost since, and the pause after that attempt
    /// would only keep the server dark.
    pub fn lost(&mut self) {
        if self.fails == 0 {
            self.next = 0;
        }
    }

    /// The settings are other ones than those the CA has refused: nothing holds the next attempt back.
    pub fn resume_with(&mut self, settings: &str) {
        if self.stopped.as_deref().is_some_and(|stopped| stopped != settings) {
            self.stopped = None;
            self.next = 0;
        }
    }
}

/// How long to wait after this many failures. With a certificate that is running out or has run out, a third of the
/// time left is enough, and a day is too long.
fn wait(fails: u32, life: Option<Life>, now: u64) -> u64 {
    let rung = usize::try_from(fails.saturating_sub(1)).unwrap_or(usize::MAX);
    let rung = LADDER.get(rung).copied().unwrap_or(DAY);
    match life {
        Some(life) => rung.min((life.until.saturating_sub(now) / 3).max(URGENT)),
        None => rung,
    }
}

/// That fraction of it.
fn part(seconds: u64, chance: f64) -> u64 {
    (seconds as f64 * chance.clamp(0.0, 1.0)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn life(seconds: u64) -> Life {
        Life { from: NOW, until: NOW + seconds }
    }

    /// What is remembered right after this certificate came, with nothing holding the next order back.
    fn held(life: Life) -> Renewal {
        let mut renewal = Renewal { ari_at: u64::MAX, ..Renewal::default() };
        renewal.settle(Some(("a.1", life)), NOW, 0.5);
        renewal.ari_at = u64::MAX;
        renewal
    }

    fn setback() -> Setback {
        Setback { error: "x".into(), ..Setback::default() }
    }

    #[test]
    fn without_a_certificate_one_is_ordered_at_once() {
        assert_eq!(due(None, &Renewal::default(), NOW), Action::Order { rehearse: false });
    }

    #[test]
    fn long_lives_are_renewed_from_two_thirds_on_and_short_ones_from_half() {
        for days in [90, 64, 45] {
            let window = life(days * DAY).window(0.0);
            assert_eq!(window.start - NOW, days * DAY / 3 * 2, "{days} days");
            assert_eq!(window.end - window.start, days * DAY / 20);
        }
        let window = life(160 * HOUR).window(0.0);
        assert_eq!((window.start - NOW, window.end - NOW), (80 * HOUR, 88 * HOUR));
        assert_eq!(life(10 * DAY).window(0.0).start - NOW, 5 * DAY);
    }

    #[test]
    fn the_point_is_chosen_once_and_kept_until_there_is_another_certificate() {
        let life = life(90 * DAY);
        let mut renewal = Renewal::default();
        assert!(renewal.settle(Some(("a.1", life)), NOW, 0.25));
        let window = renewal.window.unwrap();
        assert!((window.start..=window.end).contains(&window.point) && window.point != window.start);
        assert!(!renewal.settle(Some(("a.1", life)), NOW + DAY, 0.75));
        assert_eq!(renewal.window.unwrap(), window);
        assert!(renewal.settle(Some(("a.2", life)), NOW + DAY, 0.75));
        assert_ne!(renewal.window.unwrap().point, window.point);
    }

    #[test]
    fn it_is_renewed_at_the_point_and_not_before() {
        let life = life(90 * DAY);
        let renewal = held(life);
        let point = renewal.window.unwrap().point;
        assert_eq!(due(Some(life), &renewal, point - 1), Action::Sleep(point));
        assert_eq!(due(Some(life), &renewal, point), Action::Order { rehearse: false });
    }

    #[test]
    fn no_sleep_is_longer_than_a_day() {
        let life = life(90 * DAY);
        assert_eq!(due(Some(life), &held(life), NOW), Action::Sleep(NOW + DAY));
        let waiting = Renewal { next: NOW + 9 * DAY, ..Renewal::default() };
        assert_eq!(due(None, &waiting, NOW), Action::Sleep(NOW + DAY));
    }

    #[test]
    fn the_ca_may_move_the_point_but_not_beyond_the_last_twentieth() {
        let life = life(90 * DAY);
        let mut renewal = held(life);
        renewal.suggest(life, (NOW + 10 * DAY, NOW + 12 * DAY), HOUR, NOW, 0.5);
        assert_eq!(renewal.window.unwrap().point, NOW + 11 * DAY);
        assert_eq!(due(Some(life), &renewal, NOW + 11 * DAY), Action::Order { rehearse: false });
        renewal.suggest(life, (NOW + 89 * DAY, NOW + 90 * DAY), HOUR, NOW, 0.5);
        let emergency = NOW + 90 * DAY - 90 * DAY / 20;
        renewal.ari_at = u64::MAX;
        assert_eq!(due(Some(life), &renewal, emergency - 1), Action::Sleep(emergency));
        assert_eq!(due(Some(life), &renewal, emergency), Action::Order { rehearse: false });
    }

    #[test]
    fn a_window_in_the_past_is_due_at_once() {
        let life = life(90 * DAY);
        let mut renewal = held(life);
        renewal.suggest(life, (NOW - 2 * DAY, NOW - DAY), HOUR, NOW, 0.9);
        assert_eq!(due(Some(life), &renewal, NOW), Action::Order { rehearse: false });
    }

    #[test]
    fn a_suggestion_that_has_not_changed_keeps_its_point() {
        let life = life(90 * DAY);
        let mut renewal = held(life);
        renewal.suggest(life, (NOW + DAY, NOW + 3 * DAY), HOUR, NOW, 0.5);
        renewal.suggest(life, (NOW + DAY, NOW + 3 * DAY), HOUR, NOW + HOUR, 0.9);
        assert_eq!(renewal.window.unwrap().point, NOW + 2 * DAY);
        renewal.suggest(life, (NOW + DAY, NOW + 4 * DAY), HOUR, NOW + HOUR, 1.0);
        assert_eq!(renewal.window.unwrap().point, NOW + 4 * DAY);
    }

    #[test]
    fn a_window_that_is_none_falls_back_to_the_lifetime() {
        let life = life(90 * DAY);
        for window in [(NOW + DAY, NOW + DAY), (NOW + 2 * DAY, NOW + DAY), (NOW + DAY, life.until + 1)] {
            let mut renewal = held(life);
            renewal.suggest(life, (NOW + DAY, NOW + 2 * DAY), HOUR, NOW, 0.5);
            renewal.suggest(life, window, HOUR, NOW, 0.5);
            assert_eq!(renewal.window, Some(life.window(0.5)), "{window:?}");
        }
    }

    #[test]
    fn the_next_question_comes_after_a_minute_at_the_earliest_and_a_day_at_the_latest() {
        let life = life(90 * DAY);
        let mut renewal = held(life);
        for (asked, from, to) in [(0, 60, 60), (HOUR, HOUR, HOUR + HOUR / 20), (99 * DAY, DAY, DAY)] {
            renewal.suggest(life, (NOW + DAY, NOW + 2 * DAY), asked, NOW, 0.7);
            assert!((from..=to).contains(&(renewal.ari_at - NOW)), "{asked}: {}", renewal.ari_at - NOW);
        }
    }

    #[test]
    fn suggestions_are_fetched_after_issuance_then_when_asked_and_never_for_an_expired_certificate() {
        let life = life(90 * DAY);
        let mut renewal = Renewal::default();
        renewal.settle(Some(("a.1", life)), NOW, 0.5);
        assert_eq!(due(Some(life), &renewal, NOW), Action::FetchAri);
        renewal.no_suggestion(HOUR, NOW, 0.0);
        assert_eq!(due(Some(life), &renewal, NOW), Action::Sleep(NOW + HOUR));
        assert_eq!(due(Some(life), &renewal, NOW + HOUR), Action::FetchAri);
        renewal.begin(Some(life), life.until, 0.0);
        assert!(matches!(due(Some(life), &renewal, life.until), Action::Sleep(_)));
    }

    #[test]
    fn failures_are_followed_by_one_ten_and_a_hundred_minutes_then_by_a_day() {
        for life in [None, Some(life(90 * DAY))] {
            let mut renewal = Renewal::default();
            for minutes in [1, 10, 100, 24 * 60, 24 * 60] {
                renewal.begin(life, NOW, 0.5);
                renewal.failed(setback(), life, NOW, 0.5);
                let wait = renewal.next - NOW;
                assert!((minutes * 60..=minutes * 63).contains(&wait), "{minutes} minutes: {wait}");
                assert!(matches!(due(None, &renewal, renewal.next - 1), Action::Sleep(_)));
                assert_eq!(due(None, &renewal, renewal.next), Action::Order { rehearse: false });
            }
        }
    }

    #[test]
    fn a_certificate_that_runs_out_or_has_run_out_does_not_wait_a_day() {
        let life = life(160 * HOUR);
        let mut renewal = Renewal { fails: 9, ..Renewal::default() };
        let wait = |renewal: &mut Renewal, now: u64| {
            renewal.failed(setback(), Some(life), now, 0.0);
            renewal.next - now
        };
        assert_eq!(wait(&mut renewal, NOW + 80 * HOUR), DAY);
        assert_eq!(wait(&mut renewal, NOW + 130 * HOUR), 10 * HOUR);
        assert_eq!(wait(&mut renewal, NOW + 159 * HOUR), 6000);
        assert_eq!(wait(&mut renewal, NOW + 300 * HOUR), 6000);
    }

    #[test]
    fn a_process_killed_in_the_middle_of_its_attempts_climbs_the_ladder() {
        let mut renewal = Renewal::default();
        renewal.begin(None, NOW, 0.0);
        let text = serde_json::to_string(&renewal).unwrap();
        let mut renewal: Renewal = serde_json::from_str(&text).unwrap();
        assert_eq!(due(None, &renewal, NOW), Action::Sleep(NOW + 60));
        renewal.begin(None, NOW + 60, 0.0);
        assert_eq!(due(None, &renewal, NOW + 61), Action::Sleep(NOW + 660));
    }

    #[test]
    fn a_certificate_that_is_lost_is_ordered_at_once_and_one_that_never_came_up_the_ladder() {
        let mut renewal = Renewal::default();
        renewal.begin(None, NOW, 0.0);
        renewal.lost();
        assert_eq!(due(None, &renewal, NOW), Action::Sleep(NOW + 60));
        renewal.succeeded(life(90 * DAY), NOW);
        assert!(renewal.next > NOW);
        renewal.lost();
        assert_eq!(due(None, &renewal, NOW), Action::Order { rehearse: false });
    }

    #[test]
    fn what_the_ca_asks_for_is_honoured_where_it_is_longer_than_the_ladder() {
        let mut renewal = Renewal { fails: 1, ..Renewal::default() };
        renewal.failed(Setback { retry_after: Some(7 * DAY), ..setback() }, None, NOW, 0.0);
        assert_eq!(renewal.next, NOW + 7 * DAY);
        renewal.failed(Setback { retry_after: Some(1), ..setback() }, None, NOW, 0.0);
        assert_eq!(renewal.next, NOW + 60);
        renewal.failed(Setback { retry_after: Some(u64::MAX), ..setback() }, None, NOW, 1.0);
        assert!(renewal.next <= NOW + 33 * DAY);
    }

    #[test]
    fn what_is_refused_for_good_is_asked_once_a_day_and_at_once_with_other_settings() {
        let mut renewal = Renewal::default();
        renewal.begin(None, NOW, 0.0);
        renewal.failed(Setback { stopped: Some("these".into()), ..setback() }, None, NOW, 0.0);
        assert_eq!(due(None, &renewal, NOW + HOUR), Action::Stop(NOW + DAY));
        renewal.resume_with("these");
        assert_eq!(due(None, &renewal, NOW + HOUR), Action::Stop(NOW + DAY), "a restart changes nothing");
        renewal.resume_with("others");
        assert_eq!(due(None, &renewal, NOW + HOUR), Action::Order { rehearse: false });
    }

    #[test]
    fn after_the_ca_has_refused_an_order_the_next_one_is_rehearsed() {
        let mut renewal = Renewal::default();
        renewal.begin(None, NOW, 0.0);
        renewal.failed(Setback { rehearse: true, ..setback() }, None, NOW, 0.0);
        assert_eq!(due(None, &renewal, NOW + HOUR), Action::Order { rehearse: true });
        renewal.succeeded(life(90 * DAY), NOW);
        assert!(!renewal.rehearse && renewal.last_error.is_none() && renewal.fails == 0);
    }

    #[test]
    fn a_clock_far_behind_orders_nothing() {
        let life = life(90 * DAY);
        let renewal = held(life);
        let lost = 1_000_000;
        assert_eq!(due(Some(life), &renewal, lost), Action::Sleep(lost + DAY));
        assert_eq!(due(Some(life), &renewal, NOW - DAY - 60), Action::Sleep(NOW - DAY));
    }

    #[test]
    fn a_clock_set_back_waits_the_rest_and_no_longer() {
        let mut renewal = Renewal { fails: 1, ..Renewal::default() };
        renewal.begin(None, NOW, 0.0);
        assert_eq!(renewal.next, NOW + 600);
        assert!(renewal.settle(None, NOW - 400 * DAY, 0.0));
        assert_eq!(due(None, &renewal, NOW - 400 * DAY), Action::Sleep(NOW - 400 * DAY + 600));
    }

    #[test]
    fn a_clock_ahead_does_not_order_one_certificate_after_the_other() {
        let life = life(90 * DAY);
        let ahead = NOW + 200 * DAY;
        let mut renewal = Renewal::default();
        renewal.begin(Some(life), ahead, 0.0);
        renewal.succeeded(life, ahead);
        renewal.settle(Some(("a.1", life)), ahead, 0.0);
        assert_eq!(due(Some(life), &renewal, ahead), Action::Sleep(ahead + DAY));
        assert_eq!(due(Some(life), &renewal, ahead + DAY), Action::Sleep(ahead + SPARING));
    }

    #[test]
    fn names_stay_blamed_through_an_outage() {
        let mut renewal = Renewal::default();
        renewal.failed(Setback { blamed: vec!["b.example".into()], ..setback() }, None, NOW, 0.0);
        renewal.failed(setback(), None, NOW, 0.0);
        assert_eq!(renewal.blamed, ["b.example"]);
    }
}
