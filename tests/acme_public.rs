//! A fresh server, by the shipped `conf/public.toml`, becomes a trusted HTTPS endpoint by itself: the real program, a
//! real CA, a client that verifies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, tells the time and writes its own files"
)]

#[allow(dead_code, unused_imports, reason = "shared by all tests of the program")]
mod harness;
#[path = "acme/pebble.rs"]
mod pebble;
#[path = "acme/site.rs"]
mod site;

use asr_edge::base::clock;
use harness::{Stub, TEXT, Wire, get};
use pebble::{Pebble, Temper};
use site::{Running, Site};

const NAME: &str = "asr.example.com";
const OTHER: &str = "b.example.com";
/// What Pebble says when it comes by http-01.
const BY_HTTP: &str = "Attempting to validate w/ HTTP: http://asr.example.com:";

/// A server that is issued to by Pebble, from its first start to its first certificate.
struct Bench {
    pebble: Pebble,
    running: Running,
    _site: Site,
    _stub: Stub,
}

impl Bench {
    fn start(names: &[&str], change: impl FnOnce(Site) -> Site) -> Self {
        let (pebble, stub) = (Pebble::start(&Temper::default()), Stub::start(&["--text", TEXT]));
        let site = Site::new(&stub, names, &pebble.directory, &pebble.ca_root())
            .set("server", "https", &format!("[\"{}\"]", pebble.tls))
            .set("acme", "http", &format!("[\"{}\"]", pebble.http));
        let site = change(site);
        site.trust_pebble(pebble.admin, &pebble.ca_root());
        let running = site.start();
        running.until_ready();
        Self { pebble, running, _site: site, _stub: stub }
    }

    /// One order, and nothing left to say about it.
    fn assert_quiet(&self) {
        let log = self.running.process.printed();
        assert!(!log.contains("ERROR"), "{log}");
        assert_eq!((self.pebble.orders(), self.pebble.accounts()), (1, 1), "{}", self.pebble.said());
    }
}

#[test]
fn a_fresh_server_gets_its_certificate_by_http_01_and_transcribes_with_no_restart() {
    let bench = Bench::start(&[NAME], |site| site.set("acme", "challenges", "[\"http-01\"]"));
    bench.running.transcribes(NAME);
    assert!(bench.pebble.said().contains(BY_HTTP), "{}", bench.pebble.said());
    bench.assert_quiet();
}

#[test]
fn port_443_alone_is_enough() {
    let bench = Bench::start(&[NAME], |site| {
        site.set("acme", "challenges", "[\"tls-alpn-01\"]").set("acme", "http", "[]")
    });
    assert!(!bench.running.process.printed().contains("redirecting"));
    assert!(!bench.pebble.said().contains(BY_HTTP), "{}", bench.pebble.said());
    bench.running.transcribes(NAME);
    bench.assert_quiet();
}

#[test]
fn two_names_share_one_certificate_and_no_other_is_served() {
    let bench = Bench::start(&[NAME, OTHER], |site| site);
    bench.running.transcribes(NAME);
    bench.running.transcribes(OTHER);
    assert_eq!(bench.running.shows(NAME), bench.running.shows(OTHER));
    let refused = bench.running.connect("c.example.com").err().unwrap().to_string();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    bench.assert_quiet();
}

#[test]
fn an_address_is_certified_like_a_name() {
    let bench = Bench::start(&["127.0.0.1"], |site| site);
    bench.running.transcribes("127.0.0.1");
    bench.assert_quiet();
}

#[test]
fn status_tells_names_issuer_end_and_next_renewal() {
    let bench = Bench::start(&[NAME, OTHER], |site| site);
    let status = bench.running.status();
    assert_eq!(status["names"], serde_json::json!([NAME, OTHER]));
    assert!(status["issuer"].as_str().unwrap().contains("Pebble Intermediate CA"), "{status}");
    let (end, next) = (status["not_after"].as_u64().unwrap(), status["next_renewal"].as_u64().unwrap());
    assert!(clock::unix() < next && next < end, "{status}");
    assert!(status["last_error"].is_null() && status["fails"] == 0, "{status}");
    assert_eq!((&status["stopped"], &status["unsaved"]), (&false.into(), &false.into()), "{status}");
    let listed = bench.running.admin("/status").json()["tls"]["certificates"].take();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!((&listed[0]["source"], &listed[0]["names"]), (&"acme".into(), &status["names"]), "{listed}");
    let ready = bench.running.admin("/ready").json();
    assert_eq!(ready, serde_json::json!({"ready": true, "reasons": [], "warnings": []}));
}

#[test]
fn port_80_sends_browsers_to_https_where_the_certificate_is_good() {
    let bench = Bench::start(&[NAME], |site| site);
    let mut wire = Wire::connect(bench.pebble.http);
    wire.send(
        get("/healthz")
            .without("Authorization")
            .set("Host", format!("{NAME}:{}", bench.pebble.http.port()))
            .bytes(),
    );
    let reply = wire.reply();
    let port = bench.pebble.tls.port();
    assert_eq!(reply.status, 308, "{reply:?}");
    assert_eq!(
        reply.header("location"),
        Some(format!("https://{NAME}:{port}/healthz").as_str()),
        "{reply:?}"
    );
    let (mut wire, _) = bench.running.connect(NAME).unwrap();
    wire.send(get("/healthz").set("Host", format!("{NAME}:{port}")).bytes());
    assert_eq!(wire.reply().status, 200);
}
