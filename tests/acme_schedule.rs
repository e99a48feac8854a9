//! What the renewal loop does in the course of days and years, on a clock that the tests move: first one fault at a
//! time, then a year of all of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test may panic, and writes its own files"
)]

#[path = "acme/fake_ca.rs"]
mod fake_ca;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use asr_edge::acme::Acme;
use asr_edge::tls::Certificates;
use fake_ca::{Bench, DAY, EPOCH, HOUR, pass};

const NAME: &str = "a.example";

fn serial(certificates: &Certificates) -> Vec<u64> {
    certificates.list().iter().map(|info| info.not_after).collect()
}

/// A server that has had its first certificate for a while.
async fn running(bench: &Bench) -> Acme {
    let acme = bench.start();
    pass(120).await;
    assert_eq!(bench.served_until(NAME), EPOCH - HOUR + bench.ca.lock().life, "{acme:?}");
    acme
}

#[tokio::test(start_paused = true)]
async fn orders_at_once_when_there_is_nothing_and_is_ready_then() {
    let bench = Bench::new(&[NAME, "b.example"]);
    let acme = bench.start();
    assert_eq!(acme.problem().as_deref(), Some("there is no certificate yet"));
    pass(60).await;
    assert_eq!(acme.problem(), None);
    let orders = bench.ca.orders();
    assert_eq!(orders.len(), 1);
    assert_eq!(orders[0].names, [NAME, "b.example"]);
    assert!(orders[0].replaces.is_none() && orders[0].profile.is_none());
    let status = &acme.status()[0];
    assert_eq!(
        (status.fails, &status.last_error, status.not_after),
        (0, &None, Some(EPOCH - HOUR + 90 * DAY))
    );
    assert!(bench.ca.challenges.is_empty());
}

#[tokio::test(start_paused = true)]
async fn renews_at_two_thirds_and_says_what_it_replaces() {
    let bench = Bench::new(&[NAME]);
    let _acme = running(&bench).await;
    pass(58 * DAY).await;
    assert_eq!(bench.ca.orders().len(), 1);
    pass(8 * DAY).await;
    let orders = bench.ca.orders();
    assert_eq!(orders.len(), 2);
    assert!(orders[1].replaces.as_ref().is_some_and(|id| id.contains('.')));
    let since = orders[1].at - EPOCH;
    assert!((59 * DAY..66 * DAY).contains(&since), "{since}");
}

#[tokio::test(start_paused = true)]
async fn keeps_serving_the_old_certificate_while_renewal_fails_and_takes_the_new_one_then() {
    let bench = Bench::new(&[NAME]);
    let acme = running(&bench).await;
    let before = serial(&bench.certificates);
    bench.ca.weather(|weather| weather.hangs = true);
    pass(75 * DAY).await;
    assert_eq!(serial(&bench.certificates), before);
    let status = acme.status().remove(0);
    assert!(status.fails > 5 && status.last_error.is_some(), "{status:?}");
    bench.ca.weather(|weather| weather.hangs = false);
    pass(2 * DAY).await;
    assert_ne!(serial(&bench.certificates), before);
    assert_eq!(acme.status()[0].last_error, None);
}

#[tokio::test(start_paused = true)]
async fn an_expired_certificate_is_served_at_start_and_replaced_at_once() {
    let bench = Bench::new(&[NAME]);
    drop(running(&bench).await);
    pass(100 * DAY).await;
    bench.ca.weather(|weather| weather.down = true);
    let acme = bench.start();
    assert_eq!(bench.served_until(NAME), EPOCH - HOUR + 90 * DAY, "served before anything else happens");
    pass(30).await;
    assert!(acme.problem().unwrap().starts_with("the certificate has expired"));
    let asked = bench.ca.lock().ari_asked;
    bench.ca.weather(|weather| weather.down = false);
    pass(120).await;
    assert_eq!(acme.problem(), None);
    assert_eq!(bench.ca.orders().len(), 2);
    assert!(bench.ca.lock().ari_asked <= asked + 1, "asked for the new one alone");
}

#[tokio::test(start_paused = true)]
async fn restarts_neither_order_again_nor_reset_the_ladder() {
    let bench = Bench::new(&[NAME]);
    for _ in 0..10 {
        let acme = bench.start();
        pass(20).await;
        drop(acme);
    }
    assert_eq!(bench.ca.orders().len(), 1);

    let bench = Bench::new(&[NAME]);
    bench.ca.weather(|weather| weather.refuses = Some(("serverInternal", 500, None)));
    let calls = |bench: &Bench| bench.ca.lock().calls;
    for _ in 0..4 {
        let acme = bench.start();
        pass(3 * HOUR).await;
        drop(acme);
    }
    let before = calls(&bench);
    for _ in 0..10 {
        let acme = bench.start();
        pass(60).await;
        assert!(acme.status()[0].fails >= 4, "{acme:?}");
        drop(acme);
    }
    assert_eq!(calls(&bench), before, "the CA does not hear of restarts");
}

#[tokio::test(start_paused = true)]
async fn killed_in_the_middle_again_and_again_it_still_climbs_the_ladder() {
    let bench = Bench::new(&[NAME]);
    bench.ca.weather(|weather| weather.slow = true);
    for _ in 0..10 {
        let acme = bench.start();
        pass(10).await;
        drop(acme);
        pass(1).await;
        assert!(bench.ca.challenges.is_empty(), "nothing is left on the table");
    }
    // 110 s have passed: the first attempt, and the second after a minute.
    assert_eq!(bench.ca.orders().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn two_processes_place_one_order_and_make_one_account() {
    let bench = Bench::new(&[NAME]);
    let _one = bench.start();
    let (_other, theirs) = bench.start_beside();
    pass(120).await;
    assert_eq!((bench.ca.orders().len(), bench.ca.lock().accounts.len()), (1, 1));
    assert_eq!(serial(&bench.certificates), serial(&theirs));
    pass(70 * DAY).await;
    assert_eq!((bench.ca.orders().len(), bench.ca.lock().accounts.len()), (2, 1));
    assert_eq!(serial(&bench.certificates), serial(&theirs));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_starts_while_another_one_orders_takes_up_what_comes_of_it() {
    let begin = |bench: &Bench| {
        bench.ca.weather(|weather| weather.delay = Duration::from_secs(2));
        bench.start()
    };
    let bench = Bench::new(&[NAME]);
    let _one = begin(&bench);
    pass(5).await;
    let (other, theirs) = bench.start_beside();
    pass(50).await;
    assert_eq!((other.problem(), other.status()[0].fails), (None, 0));
    assert_eq!((serial(&theirs), bench.ca.orders().len()), (serial(&bench.certificates), 1));

    let bench = Bench::new(&[NAME]);
    bench.ca.weather(|weather| weather.refuses = Some(("rateLimited", 429, Some(5 * DAY))));
    let one = begin(&bench);
    pass(5).await;
    let (other, _) = bench.start_beside();
    pass(20).await;
    assert_eq!((one.status(), one.status()[0].fails), (other.status(), 1));
    let calls = bench.ca.lock().calls;
    pass(4 * DAY).await;
    assert_eq!(bench.ca.lock().calls, calls, "the limit holds for both");
}

#[tokio::test(start_paused = true)]
async fn a_rate_limit_is_waited_out_however_long() {
    let bench = Bench::new(&[NAME]);
    bench.ca.weather(|weather| weather.refuses = Some(("rateLimited", 429, Some(5 * DAY))));
    let acme = bench.start();
    pass(60).await;
    let calls = bench.ca.lock().calls;
    bench.ca.weather(|weather| weather.refuses = None);
    pass(5 * DAY - 120).await;
    assert_eq!(bench.ca.lock().calls, calls, "nothing is asked meanwhile");
    assert!(acme.status()[0].next_renewal >= EPOCH + 5 * DAY);
    pass(DAY).await;
    assert_eq!(acme.problem(), None);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_not_tried_again_until_the_settings_change() {
    let mut bench = Bench::new(&[NAME]);
    bench.ca.weather(|weather| weather.refuses = Some(("rejectedIdentifier", 400, None)));
    let acme = bench.start();
    pass(20 * HOUR).await;
    let calls = bench.ca.lock().calls;
    assert!(acme.status()[0].stopped);
    drop(acme);
    bench.ca.weather(|weather| weather.refuses = None);
    let acme = bench.start();
    pass(HOUR).await;
    assert_eq!(bench.ca.lock().calls, calls, "nor by a restart");
    drop(acme);
    bench.settings.profile = Some("classic".to_owned());
    let acme = bench.start();
    pass(60).await;
    assert_eq!(acme.problem(), None);
    assert_eq!(bench.ca.orders()[0].profile.as_deref(), Some("classic"));
}

#[tokio::test(start_paused = true)]
async fn an_order_refused_for_what_it_replaces_is_placed_without() {
    let bench = Bench::new(&[NAME]);
    let _acme = running(&bench).await;
    bench.ca.weather(|weather| weather.no_replaces = true);
    pass(70 * DAY).await;
    let orders = bench.ca.orders();
    assert_eq!(orders.len(), 3);
    assert!(orders[1].replaces.is_some() && !orders[1].issued);
    assert!(orders[2].replaces.is_none() && orders[2].issued);
    assert!(orders[2].at - orders[1].at < 60, "at once");
}

#[tokio::test(start_paused = true)]
async fn an_account_the_ca_has_forgotten_is_made_anew_once() {
    let bench = Bench::new(&[NAME]);
    let acme = running(&bench).await;
    bench.ca.weather(|weather| weather.forgets_accounts = true);
    pass(70 * DAY).await;
    let known: Vec<_> = bench.ca.lock().accounts.values().copied().collect();
    assert_eq!(known.iter().filter(|known| **known).count(), 1);
    assert_eq!((known.len(), bench.ca.orders().len()), (2, 2));
    assert_eq!(acme.status()[0].last_error, None);
}

#[tokio::test(start_paused = true)]
async fn without_a_place_to_keep_it_nothing_is_ordered() {
    let bench = Bench::new(&[NAME]);
    fs::write(bench.state(), "a regular file").unwrap();
    let acme = bench.start();
    pass(2 * DAY).await;
    assert_eq!(bench.ca.lock().calls, 0);
    assert!(acme.status()[0].last_error.as_ref().unwrap().contains("state folder"));
    fs::remove_file(bench.state()).unwrap();
    pass(HOUR).await;
    assert_eq!(acme.problem(), None);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_cannot_be_saved_is_served_and_saved_later() {
    let bench = Bench::new(&[NAME]);
    let (state, away) = (bench.state().to_path_buf(), bench.folder.path().join("away"));
    let swap = (state.clone(), away.clone());
    bench.ca.lock().on_issue = Some(Box::new(move || {
        fs::rename(&swap.0, &swap.1).unwrap();
        fs::write(&swap.0, "the disk is gone").unwrap();
    }));
    let acme = bench.start();
    pass(2 * HOUR).await;
    assert_eq!(acme.problem(), None);
    assert!(acme.status()[0].unsaved);
    fs::remove_file(&state).unwrap();
    fs::rename(&away, &state).unwrap();
    pass(HOUR).await;
    assert!(!acme.status()[0].unsaved);
    drop(acme);
    let (beside, theirs) = bench.start_beside();
    assert_eq!(serial(&theirs), serial(&bench.certificates), "it is on disk now: {beside:?}");
    assert_eq!(bench.ca.orders().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_name_that_cannot_be_proved_does_not_stop_the_others() {
    let bench = Bench::new(&[NAME, "bad.example", "c.example"]);
    bench.ca.weather(|weather| weather.unproved.extend(["bad.example".to_owned()]));
    let acme = bench.start();
    pass(60).await;
    assert!(bench.served_until(NAME) > EPOCH && bench.served_until("c.example") > EPOCH);
    assert_eq!(bench.served_until("bad.example"), 0);
    assert_eq!((acme.problem(), acme.status().len()), (None, 2));
    let orders = bench.ca.orders();
    assert_eq!(orders[1].names, [NAME, "c.example"]);
    pass(3 * DAY).await;
    bench.ca.weather(|weather| weather.unproved.clear());
    pass(2 * DAY).await;
    assert!(bench.served_until("bad.example") > EPOCH);
    assert_eq!((bench.certificates.list().len(), acme.status().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_order_is_rehearsed_and_production_is_spared() {
    let bench = Bench::new(&[NAME]);
    bench.ca.weather(|weather| weather.unproved.extend([NAME.to_owned()]));
    let acme = bench.start();
    pass(10 * DAY).await;
    assert_eq!(bench.ca.orders().len(), 1, "one failure in earnest");
    let rehearsals = bench.ca.lock().orders.iter().filter(|order| order.staging).count();
    assert!(rehearsals > 8, "{rehearsals}");
    assert!(acme.status()[0].last_error.as_ref().unwrap().starts_with("rehearsed"));
    bench.ca.weather(|weather| weather.unproved.clear());
    pass(DAY + 2 * HOUR).await;
    assert_eq!(acme.problem(), None);
    assert_eq!(bench.ca.orders().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_ca_can_call_a_certificate_in() {
    let bench = Bench::new(&[NAME]);
    let _acme = running(&bench).await;
    bench.ca.weather(|weather| weather.window = Some((EPOCH + DAY, EPOCH + 2 * DAY)));
    pass(3 * DAY).await;
    let orders = bench.ca.orders();
    assert!(orders.len() >= 2);
    assert!((EPOCH + DAY..=EPOCH + 2 * DAY).contains(&orders[1].at), "{}", orders[1].at - EPOCH);
}

#[tokio::test(start_paused = true)]
async fn an_address_gets_the_short_lived_profile_and_is_renewed_at_half_its_life() {
    let bench = Bench::new(&["192.0.2.7"]);
    bench.ca.lock().life = 160 * HOUR;
    let _acme = bench.start();
    pass(78 * HOUR).await;
    let orders = bench.ca.orders();
    assert_eq!((orders.len(), orders[0].profile.as_deref()), (1, Some("shortlived")));
    pass(11 * HOUR).await;
    assert_eq!(bench.ca.orders().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_from_a_little_ahead_is_waited_for_and_the_old_one_kept() {
    let bench = Bench::new(&[NAME]);
    let _acme = running(&bench).await;
    let old = serial(&bench.certificates);
    bench.ca.lock().backdate = -2 * i64::try_from(HOUR).unwrap();
    while bench.ca.orders().len() < 2 {
        pass(600).await;
    }
    pass(HOUR).await;
    assert_eq!(serial(&bench.certificates), old);
    pass(2 * HOUR).await;
    assert_ne!(serial(&bench.certificates), old);
    assert_eq!(bench.ca.orders().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_clock_far_behind_orders_nothing_and_serves_what_there_is() {
    let bench = Bench::new(&[NAME]);
    drop(running(&bench).await);
    bench.ca.time.off_by.store(-i64::try_from(3_000 * DAY).unwrap(), Ordering::Relaxed);
    let calls = bench.ca.lock().calls;
    let _acme = bench.start();
    pass(3 * DAY).await;
    assert_eq!(bench.ca.lock().calls, calls);
    assert!(bench.served_until(NAME) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_counted_and_the_loop_runs_again() {
    let bench = Bench::new(&[NAME]);
    let left = AtomicU32::new(3);
    let acme = bench.start_with(move || {
        let panics = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok();
        assert!(!panics, "on purpose");
        0.5
    });
    pass(2 * HOUR).await;
    assert_eq!((acme.panics(), acme.problem()), (3, None));
}

/// Small, and the same on every machine (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// A year with something wrong a third of the time: the CA (gone, hanging, broken, limiting, refusing, forgetting), the
/// disk, the clock, restarts and panics. Once everything is well again for two hours (and what the CA has asked to wait),
/// an expired certificate is our fault.
async fn year(seed: u64, life: u64) -> (u64, usize) {
    const STEP: u64 = 600;
    const GRACE: u64 = 2 * HOUR + HOUR;
    let bench = Bench::new(&[NAME, "b.example"]);
    bench.ca.lock().life = life;
    let mut dice = Dice(seed);
    let panic_now = Arc::new(AtomicBool::new(false));
    let start = |bench: &Bench| {
        let panic_now = Arc::clone(&panic_now);
        let chance = std::sync::Mutex::new(Dice(seed ^ 0xffff));
        bench.start_with(move || {
            assert!(!panic_now.swap(false, Ordering::Relaxed), "on purpose");
            let roll = chance.lock().unwrap_or_else(std::sync::PoisonError::into_inner).roll(1_000);
            f64::from(u32::try_from(roll).unwrap()) / 1_000.0
        })
    };
    let mut acme = start(&bench);
    pass(STEP).await;
    let (mut fault, mut fault_ends, mut next_fault, mut excused) = (None, 0, EPOCH + DAY, EPOCH);
    let (mut dark, away) = (0, bench.folder.path().join("away"));
    while bench.ca.time.truth() < EPOCH + 365 * DAY {
        pass(STEP).await;
        let now = bench.ca.time.truth();
        if let Some(kind) = fault
            && now >= fault_ends
        {
            bench.ca.weather(|weather| *weather = fake_ca::Weather::default());
            bench.ca.time.off_by.store(0, Ordering::Relaxed);
            if kind == 7 {
                fs::remove_file(bench.state()).unwrap();
                fs::rename(&away, bench.state()).unwrap();
            }
            // A limit outlasts the refusal; panics are followed by an hour at most.
            excused = now + if kind == 3 { 7 * HOUR } else { 0 };
            next_fault = now + dice.roll(if life < 10 * DAY { 4 * DAY } else { 20 * DAY });
            fault = None;
        }
        if fault.is_none() && now >= next_fault {
            let kind = dice.roll(11);
            let longest = if dice.roll(5) == 0 { life / 2 } else { 2 * DAY };
            let length = STEP + dice.roll(longest);
            fault_ends = now + length;
            let hours = i64::try_from((dice.roll(60 * 24) + 1) * HOUR).unwrap();
            match kind {
                0 => bench.ca.weather(|weather| weather.down = true),
                1 => bench.ca.weather(|weather| weather.hangs = true),
                2 => bench.ca.weather(|weather| weather.refuses = Some(("serverInternal", 500, None))),
                3 => bench.ca.weather(|weather| weather.refuses = Some(("rateLimited", 429, Some(6 * HOUR)))),
                4 => bench.ca.weather(|weather| weather.refuses = Some(("caa", 403, None))),
                5 => bench.ca.weather(|weather| weather.unproved.extend([NAME.to_owned()])),
                6 => bench.ca.weather(|weather| {
                    weather.forgets_accounts = true;
                    weather.no_replaces = true;
                    weather.window = Some((now + life, now + 2 * life));
                }),
                7 => {
                    fs::rename(bench.state(), &away).unwrap();
                    fs::write(bench.state(), "gone").unwrap();
                }
                8 => bench.ca.time.off_by.store(hours, Ordering::Relaxed),
                9 => bench.ca.time.off_by.store(-hours, Ordering::Relaxed),
                _ => {
                    panic_now.store(true, Ordering::Relaxed);
                    drop(acme);
                    acme = start_after_panic(&panic_now, || start(&bench));
                }
            }
            fault = Some(kind);
        }
        for name in [NAME, "b.example"] {
            let expired = bench.served_until(name) <= now;
            dark += u64::from(expired) * STEP;
            let forced = fault.is_some() || now < excused + GRACE;
            assert!(
                !expired || forced,
                "seed {seed}, life {life}, day {}: {name} has been expired since {} s without a fault: {acme:?}",
                (now - EPOCH) / DAY,
                now - bench.served_until(name),
            );
        }
    }
    (dark, bench.ca.orders().len())
}

/// A restart. The panic it may begin with is the loop's, not that of the start itself.
fn start_after_panic(panic_now: &AtomicBool, start: impl Fn() -> Acme) -> Acme {
    let armed = panic_now.swap(false, Ordering::Relaxed);
    let acme = start();
    panic_now.store(armed, Ordering::Relaxed);
    acme
}

#[tokio::test(start_paused = true)]
async fn a_year_of_faults_leaves_no_minute_of_expired_service_that_they_did_not_force() {
    for (seed, life) in (0..).zip([90 * DAY, 64 * DAY, 45 * DAY, 160 * HOUR, 160 * HOUR]) {
        let (dark, orders) = year(seed, life).await;
        println!("seed {seed}, {} h: {orders} orders, {dark} s expired, all forced", life / HOUR);
        let needed = 365 * DAY / life;
        assert!(orders as u64 >= needed, "{orders} orders in a year");
    }
}
