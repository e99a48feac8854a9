//! Renewal by the real program: what is served changes with no connection lost, and nothing that a CA does or does not
//! do takes away what is served already.
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

use std::thread::sleep;
use std::time::{Duration, Instant};

use asr_edge::base::clock;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use front::Front;
use harness::{Form, Request, Stub, TEXT, Wire, get, sha256, wav};
use pebble::{Pebble, Temper};
use site::{Running, Site};
use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};

const NAME: &str = "asr.example.com";
/// An answer that nobody delays comes much sooner.
const SOON: Duration = Duration::from_secs(15);

fn stub() -> Stub {
    Stub::start(&["--text", TEXT])
}

/// A server that has its first certificate from Pebble, one of this many seconds.
fn issued_by_pebble(life: u64, stub: &Stub) -> (Pebble, Site, Running) {
    let pebble = Pebble::start(&Temper { life: Some(life), ..Temper::default() });
    let site = Site::new(stub, &[NAME], &pebble.directory, &pebble.ca_root())
        .set("server", "https", &format!("[\"{}\"]", pebble.tls))
        .set("acme", "http", &format!("[\"{}\"]", pebble.http));
    site.trust_pebble(pebble.admin, &pebble.ca_root());
    let running = site.start();
    running.until_ready();
    (pebble, site, running)
}

/// A server of the CA behind a front.
fn site_of(front: &Front, stub: &Stub) -> Site {
    let site = Site::new(stub, &[NAME], &front.directory(), &front.ca_root());
    site.trust(&front.ca.root);
    site.set("acme", "challenges", "[\"http-01\"]")
}

/// Starts it and tells the CA where its port 80 is.
fn start(site: &Site, front: &Front) -> Running {
    let running = site.start();
    front.ca.lock().port80 = Some(running.port80.unwrap());
    running
}

/// A CA that calls every certificate in as soon as it has issued it, which the server obeys after some four seconds.
fn impatient_ca() -> Front {
    let front = Front::start();
    let mut ca = front.ca.lock();
    (ca.life, ca.backdate) = (200, 1);
    let now = clock::unix();
    ca.weather.window = Some((now - 7_200, now - 3_600));
    drop(ca);
    front
}

#[test]
fn a_renewal_shows_in_the_next_handshake_while_a_slow_upload_runs_on_untouched() {
    let stub = stub();
    let (pebble, _site, running) = issued_by_pebble(20, &stub);
    let audio = wav(60_000);
    let request = Request::post(&Form::of(&audio)).set("Host", NAME).bytes();
    let (mut upload, old) = running.connect(NAME).unwrap();
    let mut idle = running.connect(NAME).unwrap().0;
    let begun = Instant::now();
    let mut left = request.as_slice();
    let mut renewed = false;
    // A piece and a look at a time, until there is a new certificate; then the rest.
    while !renewed {
        let (piece, rest) = left.split_at(500.min(left.len() - 1_000));
        upload.send(piece);
        left = rest;
        sleep(Duration::from_millis(200));
        renewed = running.shows(NAME) != old;
        assert!(begun.elapsed() < Duration::from_secs(19), "no renewal: {}", running.status());
    }
    assert!(begun.elapsed() > Duration::from_secs(7), "not before half its life is over");
    upload.send(left);
    let reply = upload.reply();
    assert_eq!((reply.status, reply.json()["text"].as_str()), (200, Some(TEXT)), "{reply:?}");
    let seen = stub.seen();
    assert_eq!((seen.len(), seen[0].audio_hash()), (1, sha256(&audio).as_str()));
    idle.send(get("/healthz").set("Host", NAME).bytes());
    assert_eq!(idle.reply().status, 200, "the connection from before");
    assert_eq!((pebble.orders(), pebble.accounts()), (2, 1), "{}", pebble.said());
}

#[test]
fn the_old_certificate_is_served_to_its_end_and_beyond_when_renewal_fails() {
    let stub = stub();
    let (mut pebble, _site, running) = issued_by_pebble(18, &stub);
    let old = running.shows(NAME);
    let end = running.status()["not_after"].as_u64().unwrap();
    pebble.kill();
    let why = running.until_failed();
    assert!(why.contains("not reached"), "{why}");
    assert!(clock::unix() < end, "too slow a machine for this test");
    assert_eq!(running.shows(NAME), old);
    running.transcribes(NAME);
    let status = running.status();
    assert_eq!((&status["fails"], &status["not_after"]), (&1.into(), &end.into()), "{status}");
    assert!(status["next_renewal"].as_u64().unwrap() > clock::unix(), "{status}");
    assert!(running.is_ready());
    running.until("the end", |_| clock::unix() >= end);
    let refused = running.connect(NAME).err().unwrap().to_string();
    assert!(refused.contains("expired"), "clients are told why: {refused}");
    assert!(running.reason().starts_with("the certificate has expired: "), "{}", running.reason());
}

#[test]
fn the_ca_may_call_a_certificate_in_and_is_told_which_one_and_which_profile() {
    let (stub, front) = (stub(), impatient_ca());
    let site = site_of(&front, &stub).set("acme", "profile", "\"shortlived\"");
    let running = start(&site, &front);
    running.until_ready();
    let first = running.shows(NAME);
    running.until("a second certificate", |running| running.shows(NAME) != first);
    let orders = front.ca.orders();
    assert!(orders.len() >= 2 && orders.iter().all(|order| order.profile.as_deref() == Some("shortlived")));
    assert_eq!((orders[0].replaces.as_ref(), orders[1].replaces.as_ref()), (None, Some(&ari_id(&first))));
    running.transcribes(NAME);
}

/// RFC 9773 section 4.1.
fn ari_id(der: &[u8]) -> String {
    let (_, leaf) = X509Certificate::from_der(der).unwrap();
    let key = leaf.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => Some(id.key_identifier.as_ref().unwrap().0),
        _ => None,
    });
    format!("{}.{}", URL_SAFE_NO_PAD.encode(key.unwrap()), URL_SAFE_NO_PAD.encode(leaf.raw_serial()))
}

#[test]
fn a_ca_that_hangs_during_a_renewal_keeps_nobody_waiting() {
    let (stub, front) = (stub(), impatient_ca());
    let site = site_of(&front, &stub);
    let mut running = start(&site, &front);
    running.until_ready();
    let old = running.shows(NAME);
    front.ca.weather(|weather| weather.hangs = true);
    let before = front.calls();
    running.until("a call", |_| front.calls() > before);
    for _ in 0..5 {
        let begun = Instant::now();
        running.transcribes(NAME);
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    }
    assert_eq!(running.shows(NAME), old);
    assert!(running.is_ready());
    running.process.terminate();
    assert!(running.process.end(SOON).success());
}

#[test]
fn with_a_ca_that_hangs_and_no_certificate_the_rest_of_the_program_works() {
    let (stub, front) = (stub(), Front::start());
    front.ca.weather(|weather| weather.hangs = true);
    let site = site_of(&front, &stub);
    let mut running = start(&site, &front);
    running.until("a call", |_| front.calls() > 0);
    assert_eq!(running.reason(), "there is no certificate yet");
    assert_eq!(running.admin("/live").status, 200);
    let refused = running.connect(NAME).err().unwrap().to_string();
    assert!(refused.contains("UnrecognisedName"), "a clean refusal: {refused}");
    let mut wire = Wire::connect(running.plain);
    wire.send(Request::post(&Form::of(&wav(2_000))).bytes());
    assert_eq!(wire.reply().status, 200);
    running.process.terminate();
    assert!(running.process.end(SOON).success());
}

#[test]
fn a_retry_after_of_seconds_is_waited_out_within_the_order() {
    let (stub, front) = (stub(), Front::start());
    front.ca.weather(|weather| weather.refuses = Some(("rateLimited", 429, Some(2))));
    let site = site_of(&front, &stub);
    let running = start(&site, &front);
    running.until("a refusal", |_| !front.heard("/order").is_empty());
    front.ca.weather(|weather| weather.refuses = None);
    running.until_ready();
    let asked = front.heard("/order");
    assert_eq!(asked.len(), 2);
    assert!(asked[1] - asked[0] >= Duration::from_secs(2), "{:?}", asked[1] - asked[0]);
    assert_eq!(running.status()["fails"], 0, "it was no failure");
    running.transcribes(NAME);
}

#[test]
fn a_retry_after_of_hours_is_kept_even_by_a_restart() {
    let (stub, front) = (stub(), Front::start());
    front.ca.weather(|weather| weather.refuses = Some(("rateLimited", 429, Some(7_200))));
    let site = site_of(&front, &stub);
    let running = start(&site, &front);
    let why = running.until_failed();
    assert!(why.contains("rateLimited"), "{why}");
    let refused = clock::unix();
    let next = |running: &Running| running.status()["next_renewal"].as_u64().unwrap();
    let planned = next(&running);
    assert!((7_190..7_200 * 21 / 20 + 1).contains(&(planned - refused)), "{}", planned - refused);
    front.ca.weather(|weather| weather.refuses = None);
    drop(running);
    let (running, calls) = (start(&site, &front), front.calls());
    sleep(Duration::from_secs(2));
    assert_eq!((front.calls(), next(&running)), (calls, planned));
    assert!(running.reason().contains("rateLimited"), "{}", running.reason());
}
