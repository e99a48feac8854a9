//! An upstream that has had enough: what is refused at once, for how long, and what opens the way again.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, unused_imports)]
mod harness;

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use harness::{Bench, Form, Launch, Puppet, Reply, Request, Stub, TEXT, Wire, eventually, get, wav};

fn upload() -> Request {
    Request::post(&Form::of(&wav(3000)))
}

fn start() -> Bench {
    Bench::with(|launch| launch.flags(&["--admin", "127.0.0.1:0"]))
}

fn admin(bench: &Bench, path: &str) -> Reply {
    let mut wire = Wire::connect(bench.edge.admin.unwrap());
    wire.send(get(path).bytes());
    wire.reply()
}

/// State of one of Codex's breakers, as the status page tells it, and how often the trouble was met.
fn state(bench: &Bench, trouble: &str) -> (String, u64) {
    let status = admin(bench, "/status").json();
    let state = status["upstreams"]["codex"]["breakers"][trouble]["state"].as_str().unwrap().to_owned();
    (state, metric(bench, "asr_edge_upstream_troubles_total", trouble))
}

/// The value of a metric of one of Codex's breakers.
fn metric(bench: &Bench, name: &str, trouble: &str) -> u64 {
    let page = admin(bench, "/metrics");
    let start = format!("{name}{{upstream=\"codex\",trouble=\"{trouble}\"}} ");
    page.text().lines().find_map(|line| line.strip_prefix(&start)).unwrap().parse().unwrap()
}

/// An upload that is refused before its body has been asked for.
#[track_caller]
fn refused(bench: &Bench, status: u16, code: &str) -> u64 {
    let mut wire = bench.edge.wire();
    wire.send(upload().header("Expect", "100-continue").head());
    let reply = wire.reply();
    reply.refuses("an open breaker", status, Some(code));
    assert!(wire.informational.is_empty(), "the body was asked for");
    reply.header("retry-after").unwrap_or_else(|| panic!("{reply:?}")).parse().unwrap()
}

#[test]
fn a_rate_limit_is_kept_to_for_the_stated_time_and_no_longer() {
    let bench = start();
    assert_eq!(state(&bench, "rate_limit"), ("closed".to_owned(), 0));
    bench.stub.script(json!({"status": 429, "headers": {"retry-after": "3"}, "times": 1}));
    let limited = Instant::now();
    bench.ask(&upload()).refuses("429", 429, Some("rate_limit_exceeded"));
    assert_eq!(state(&bench, "rate_limit"), ("open".to_owned(), 1));
    let wait = refused(&bench, 429, "rate_limit_exceeded");
    assert!((1..=3).contains(&wait), "{wait}");
    assert_eq!(bench.stub.seen().len(), 1, "the upstream is left alone");
    let ready = admin(&bench, "/ready");
    assert_eq!((ready.status, &ready.json()["warnings"]), (200, &json!(["upstream_rate_limited"])));
    eventually("the time to be up", || (state(&bench, "rate_limit").0 == "half_open").then_some(()));
    assert_eq!(metric(&bench, "asr_edge_breaker_state", "rate_limit"), 2);
    assert!(limited.elapsed() > Duration::from_millis(2900), "{:?}", limited.elapsed());
    assert_eq!(bench.ask(&upload()).status, 200);
    assert_eq!(state(&bench, "rate_limit"), ("closed".to_owned(), 1));
    assert_eq!(bench.stub.seen().len(), 2);
}

#[test]
fn one_request_probes_while_the_others_are_still_refused() {
    let bench = start();
    bench.stub.script(json!({"status": 429, "headers": {"retry-after": "1"}, "times": 1}));
    bench.ask(&upload()).refuses("429", 429, Some("rate_limit_exceeded"));
    eventually("the time to be up", || (state(&bench, "rate_limit").0 == "half_open").then_some(()));
    bench.stub.script(json!({"delay_ms": 1500, "text": TEXT}));
    let mut probe = bench.edge.wire();
    probe.send(upload().bytes());
    bench.stub.wait("the probe", |seen| seen.len() == 2);
    assert_eq!(refused(&bench, 429, "rate_limit_exceeded"), 5);
    assert_eq!(probe.reply().status, 200);
    assert_eq!(bench.ask(&upload()).status, 200);
    assert_eq!(bench.stub.seen().len(), 3);
}

#[test]
fn a_probe_whose_client_leaves_makes_room_for_the_next() {
    let bench = start();
    bench.stub.script(json!({"status": 429, "headers": {"retry-after": "1"}, "times": 1}));
    bench.ask(&upload()).refuses("429", 429, Some("rate_limit_exceeded"));
    eventually("the time to be up", || (state(&bench, "rate_limit").0 == "half_open").then_some(()));
    let mut probe = bench.edge.wire();
    let bytes = upload().bytes();
    probe.send(&bytes[..bytes.len() - 500]);
    bench.stub.wait("the probe", |seen| seen.len() == 2);
    refused(&bench, 429, "rate_limit_exceeded");
    probe.reset();
    eventually("another probe", || (bench.ask(&upload()).status == 200).then_some(()));
    assert_eq!(state(&bench, "rate_limit").0, "closed");
}

#[test]
fn a_challenge_is_not_run_into_twice_and_is_not_the_account_s() {
    let bench = start();
    bench.stub.script(json!({"challenge": true}));
    bench.ask(&upload()).refuses("a challenge", 502, Some("upstream_challenge"));
    let wait = refused(&bench, 502, "upstream_challenge");
    assert!((28..=30).contains(&wait), "{wait}");
    assert_eq!(bench.stub.seen().len(), 1);
    assert_eq!(state(&bench, "challenge"), ("open".to_owned(), 1));
    assert_eq!(state(&bench, "login").0, "closed");
    let metric = |trouble| metric(&bench, "asr_edge_breaker_state", trouble);
    assert_eq!([metric("challenge"), metric("login"), metric("rate_limit")], [1, 0, 0]);
    assert_eq!(bench.ask(&get("/v1/models")).status, 200, "what needs no upstream goes on");
}

#[test]
fn a_rejected_login_is_not_sent_again_and_a_new_one_at_once() {
    let auth = |token: &str| json!({"tokens": {"access_token": token, "account_id": "acct-1"}}).to_string();
    let bench = Bench::with(|launch| launch.auth_file(&auth("old")).flags(&["--admin", "127.0.0.1:0"]));
    bench.stub.script(json!({"status": 401, "times": 1}));
    bench.ask(&upload()).refuses("401", 503, Some("upstream_auth"));
    let wait = refused(&bench, 503, "upstream_auth");
    assert!((58..=60).contains(&wait), "{wait}");
    assert_eq!(bench.stub.seen().len(), 1);
    assert_eq!(state(&bench, "login"), ("open".to_owned(), 1));
    bench.edge.replace("auth.json", &auth("new"));
    eventually("the new login", || (bench.ask(&upload()).status == 200).then_some(()));
    let seen = bench.stub.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[1].header("authorization"), Some("Bearer new"));
    assert_eq!(state(&bench, "login"), ("closed".to_owned(), 1));
}

#[test]
fn an_upstream_that_fails_is_asked_again_every_time() {
    let bench = start();
    let mut asked = 0;
    for status in [500, 502, 503, 403, 404, 413] {
        bench.stub.script(json!({"status": status, "headers": {"content-type": "application/json"}}));
        assert_ne!(bench.ask(&upload()).status, 200);
        // What may pass by itself is asked about once more; a bare 500 is about the audio.
        asked += if status > 500 { 2 } else { 1 };
        assert_eq!(bench.stub.seen().len(), asked, "{status}");
    }
    bench.stub.script(json!({}));
    assert_eq!(bench.ask(&upload()).status, 200);
}

#[test]
fn who_waits_in_the_queue_when_the_limit_is_reached_is_not_sent_either() {
    let bench = Bench::with(|launch| launch.flags(&["--concurrency", "1"]));
    bench.stub.script(json!({"status": 429, "delay_ms": 700}));
    let mut wires = [bench.edge.wire(), bench.edge.wire()];
    for (wire, seen) in wires.iter_mut().zip([1, 1]) {
        wire.send(upload().bytes());
        bench.stub.wait("the first", |so_far| so_far.len() == seen);
    }
    for wire in &mut wires {
        let reply = wire.reply();
        reply.refuses("429", 429, Some("rate_limit_exceeded"));
        assert_eq!(reply.header("retry-after"), Some("10"));
    }
    assert_eq!(bench.stub.seen().len(), 1);
}

#[test]
fn every_upstream_has_breakers_of_its_own() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let other = Puppet::start(move |mut socket, _| {
        while Puppet::read_request(&mut socket) {
            let answer = match counted.fetch_add(1, Ordering::Relaxed) {
                0 => "200 OK\r\ncontent-length: 25\r\n\r\n{\"text\":\"from the other\"}",
                _ => "403 Forbidden\r\ncf-mitigated: challenge\r\ncontent-length: 0\r\n\r\n",
            };
            socket.write_all(format!("HTTP/1.1 {answer}").as_bytes()).unwrap();
        }
    });
    let codex = Stub::start(&["--text", TEXT]);
    let service = format!(
        "[[service]]\nname = \"other\"\nkind = \"codex\"\nurl = \"{}\"\nmodels = [\"large\"]\n",
        other.url()
    );
    let bench =
        Bench::before(codex, |launch: Launch| launch.config(&service).flags(&["--admin", "127.0.0.1:0"]));
    let large = || Request::post(&Form::new().field("model", "large").file(&wav(3000)));
    bench.stub.script(json!({"status": 429, "headers": {"retry-after": "60"}}));
    bench.ask(&upload()).refuses("429", 429, Some("rate_limit_exceeded"));
    bench.ask(&upload()).refuses("429", 429, Some("rate_limit_exceeded"));
    let reply = bench.ask(&large());
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.json()["text"], "from the other");
    for what in ["a challenge", "still"] {
        bench.ask(&large()).refuses(what, 502, Some("upstream_challenge"));
    }
    assert_eq!((bench.stub.seen().len(), asked.load(Ordering::Relaxed)), (1, 2));
    let status: Value = admin(&bench, "/status").json();
    let state = |name: &str, trouble: &str| status["upstreams"][name]["breakers"][trouble]["state"].clone();
    assert_eq!([state("codex", "rate_limit"), state("codex", "challenge")], ["open", "closed"]);
    assert_eq!([state("other", "rate_limit"), state("other", "challenge")], ["closed", "open"]);
}
