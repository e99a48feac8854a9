//! Processes that are killed, started again and started twice: the CA hears of one order and one account.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, tells the time and writes its own files"
)]

#[path = "acme/fake_ca.rs"]
mod fake_ca;
#[path = "acme/front.rs"]
mod front;
#[allow(dead_code, unused_imports, reason = "shared by all tests of the program")]
mod harness;
#[path = "acme/pebble.rs"]
mod pebble;
#[path = "acme/site.rs"]
mod site;

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use asr_edge::base::{clock, random};
use front::Front;
use harness::{Stub, TEXT};
use pebble::{Pebble, Temper};
use serde_json::Value;
use site::{Running, Site, files};

const NAME: &str = "asr.example.com";

fn stub() -> Stub {
    Stub::start(&["--text", TEXT])
}

/// A CA that believes everything, so that any process may be the one that orders, and a server of it.
fn bench(stub: &Stub) -> (Pebble, Site) {
    let pebble = Pebble::start(&Temper { credulous: true, ..Temper::default() });
    let site = site_of(&pebble, stub);
    (pebble, site)
}

fn site_of(pebble: &Pebble, stub: &Stub) -> Site {
    let site = Site::new(stub, &[NAME], &pebble.directory, &pebble.ca_root());
    site.trust_pebble(pebble.admin, &pebble.ca_root());
    site
}

/// Some time below this many milliseconds.
fn a_while(most: u16) -> Duration {
    Duration::from_millis((u16::from_be_bytes(random::fill()) % most).into())
}

/// Everything kept is there whole or not at all, and for the owner alone.
fn assert_whole(site: &Site) {
    use std::os::unix::fs::PermissionsExt;
    for path in files(&site.path("state")) {
        let text = fs::read_to_string(&path).unwrap();
        let whole = match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => serde_json::from_str::<Value>(&text).is_ok(),
            Some("pem") => text.starts_with("-----BEGIN") && text.ends_with("-----\n"),
            _ => true,
        };
        assert!(whole, "{}: {text}", path.display());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn killed_ten_times_once_it_has_its_certificate_it_has_placed_one_order() {
    let stub = stub();
    let (pebble, site) = bench(&stub);
    let running = site.start();
    running.until_ready();
    let first = running.shows(NAME);
    drop(running);
    for _ in 0..10 {
        let running = site.start();
        sleep(a_while(300));
        assert_whole(&site);
        drop(running);
    }
    let running = site.start();
    running.until_ready();
    assert_eq!(running.shows(NAME), first, "from the folder");
    running.transcribes(NAME);
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1), "{}", pebble.said());
}

#[test]
fn killed_at_any_moment_of_its_first_order_it_tries_again_a_minute_later_and_not_at_each_start() {
    let stub = stub();
    let (pebble, site) = bench(&stub);
    for _ in 0..10 {
        let running = site.start();
        sleep(a_while(600));
        assert_whole(&site);
        drop(running);
        assert!(pebble.orders() <= 1 && pebble.accounts() <= 1, "{}", pebble.said());
    }
    let running = site.start();
    running.until("what was kept", |running| running.status().is_object());
    let status = running.status();
    if !running.is_ready() {
        // The attempt that was cut off counts as a failed one: the next comes after a minute, not with the next start.
        assert_eq!(status["fails"], 1, "{status}");
        assert!((1..=63).contains(&(status["next_renewal"].as_u64().unwrap() - clock::unix())), "{status}");
        drop(running);
        let running = after_its_wait(&site);
        running.until_ready();
        running.transcribes(NAME);
    }
    assert!(pebble.orders() <= 2, "the one that was cut off, and the one a minute later: {}", pebble.said());
    assert_eq!(pebble.accounts(), 1, "{}", pebble.said());
}

/// Starts the server as it would be when the wait that its schedule names is over.
fn after_its_wait(site: &Site) -> Running {
    let path = site.kept("renewal.json");
    let mut renewal: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    renewal["next"] = 0.into();
    fs::write(path, renewal.to_string()).unwrap();
    site.start()
}

#[test]
fn two_processes_on_one_folder_place_one_order_and_make_one_account() {
    let stub = stub();
    let (pebble, site) = bench(&stub);
    let beside = site_of(&pebble, &stub).keep_at(site.path("state"));
    let (one, other) = (site.start(), beside.start());
    one.until_ready();
    other.until_ready();
    assert_eq!(one.shows(NAME), other.shows(NAME));
    one.transcribes(NAME);
    other.transcribes(NAME);
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1), "{}", pebble.said());
}

#[test]
fn the_lock_of_a_killed_process_keeps_nobody_waiting() {
    let (stub, front) = (stub(), Front::start());
    front.ca.weather(|weather| weather.hangs = true);
    let site = Site::new(&stub, &[NAME], &front.directory(), &front.ca_root()).set(
        "acme",
        "challenges",
        "[\"http-01\"]",
    );
    site.trust(&front.ca.root);
    let running = site.start();
    running.until("a call", |_| front.calls() > 0);
    drop(running);
    front.ca.weather(|weather| weather.hangs = false);
    let running = after_its_wait(&site);
    front.ca.lock().port80 = running.port80;
    running.until_ready();
    assert_eq!((front.ca.orders().len(), front.ca.lock().accounts.len()), (1, 1));
}

#[test]
fn an_expired_certificate_is_served_at_the_start_and_replaced_at_once() {
    let (stub, front) = (stub(), Front::start());
    (front.ca.lock().life, front.ca.lock().backdate) = (6, 1);
    let site = Site::new(&stub, &[NAME], &front.directory(), &front.ca_root()).set(
        "acme",
        "challenges",
        "[\"http-01\"]",
    );
    site.trust(&front.ca.root);
    let running = site.start();
    front.ca.lock().port80 = running.port80;
    running.until("a certificate", |running| running.status()["not_after"].is_u64());
    let end = running.status()["not_after"].as_u64().unwrap();
    drop(running);
    front.ca.lock().life = 86_400;
    while clock::unix() <= end {
        sleep(Duration::from_millis(100));
    }
    let orders = front.ca.orders().len();
    // Time to look at it.
    front.ca.weather(|weather| weather.delay = Duration::from_millis(200));
    let running = site.start();
    front.ca.lock().port80 = running.port80;
    let refused = running.connect(NAME).err().unwrap().to_string();
    assert!(refused.contains("expired"), "served, expired as it is: {refused}");
    assert!(running.reason().starts_with("the certificate has expired"), "{}", running.reason());
    running.until_ready();
    running.transcribes(NAME);
    assert_eq!(front.ca.orders().len(), orders + 1);
}
