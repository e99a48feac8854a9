//! What one client may take: time, requests, connections, wrong keys; and who counts as one where proxies stand between.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, clippy::disallowed_methods)]

#[allow(dead_code, unused_imports, reason = "shared by many tests")]
mod harness;

#[path = "limits/http2.rs"]
mod http2;
#[path = "limits/proxies.rs"]
mod proxies;

use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Bench, Ending, Form, Launch, Process, Reply, Request, Stub, Wire, eventually, get, wav};

const HEALTH: &str = "/healthz";
const MODELS: &str = "/v1/models";

/// A program with these limits, before a stand-in.
fn limited(limits: &str) -> Bench {
    Bench::with(|launch| launch.config(&format!("[limits]\n{limits}\n")))
}

/// Another client's upload succeeds meanwhile.
fn unharmed(bench: &Bench) {
    let audio = wav(5000);
    let start = Instant::now();
    bench.accepts("another client", &Request::post(&Form::of(&audio)), &audio);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// Sends `piece` every so often until there is an answer.
fn drip(wire: &mut Wire, piece: &[u8], every: Duration, most: Duration) -> Option<Reply> {
    let start = Instant::now();
    while start.elapsed() < most {
        if wire.hears_within(every) {
            return Some(wire.reply());
        }
        let _ = wire.offer(piece);
    }
    None
}

#[test]
fn a_head_that_drips_in_is_told_408_when_its_time_is_up() {
    let bench = limited("head_timeout = \"1s\"");
    let mut wire = bench.edge.wire();
    wire.send("GET /healthz HTTP/1.1\r\n");
    let start = Instant::now();
    let late = drip(&mut wire, b"X-A: b\r\n", Duration::from_millis(100), Duration::from_secs(10));
    assert_eq!(late.expect("an answer").status, 408);
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    unharmed(&bench);
}

#[test]
fn a_body_that_trickles_is_told_408_and_one_at_a_walk_is_served() {
    // 4 KiB in every 2 seconds.
    let bench = limited("body_timeout = \"1s\"\nbody_floor = \"120KiB\"");
    let form = Form::of(&wav(30_000));
    let request = Request::post(&form);
    for chunked in [false, true] {
        let mut wire = bench.edge.wire();
        let head = if chunked { request.clone().chunked(64).head() } else { request.head() };
        wire.send(head);
        let piece: &[u8] = if chunked { b"1\r\nx\r\n" } else { b"x" };
        let start = Instant::now();
        let late = drip(&mut wire, piece, Duration::from_millis(200), Duration::from_secs(10));
        late.expect("an answer").refuses("a trickle", 408, None);
        let took = start.elapsed();
        assert!(took > Duration::from_millis(1500) && took < Duration::from_secs(15), "{took:?}");
    }
    bench.assert_nothing_whole("a trickle");

    let mut wire = bench.edge.wire();
    wire.send(request.head());
    for piece in request.payload().chunks(2500) {
        wire.send(piece);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(wire.reply().status, 200);
}

#[test]
fn an_idle_connection_ends_after_the_configured_time() {
    let bench = limited("idle_timeout = \"1s\"");
    let mut wire = bench.edge.wire();
    wire.send(get(HEALTH).bytes());
    assert_eq!(wire.reply().status, 200);
    let start = Instant::now();
    assert_eq!(wire.ended(), Ending::Closed);
    let took = start.elapsed();
    assert!(took > Duration::from_millis(700) && took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn after_its_last_request_a_connection_is_closed() {
    let bench = limited("requests_per_connection = 3");
    let mut wire = bench.edge.wire();
    for number in 1..=3 {
        wire.send(get(HEALTH).bytes());
        let reply = wire.reply();
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("connection") == Some("close"), number == 3, "request {number}: {reply:?}");
    }
    assert_eq!(wire.ended(), Ending::Closed);
}

#[test]
fn the_answer_to_long_audio_may_take_longer() {
    let stub = Stub::start(&["--latency", "1500"]);
    let config = "[codex]\nrequest_timeout = \"1s\"\ntime_per_mib = \"2s\"\n";
    let bench = Bench::before(stub, |launch| launch.config(config));
    bench.ask(&Request::post(&Form::of(&wav(1000)))).refuses("short audio", 504, Some("upstream_timeout"));
    assert_eq!(bench.ask(&Request::post(&Form::of(&wav(1_200_000)))).status, 200);
}

#[test]
fn one_address_has_so_many_connections_and_the_next_is_told_so() {
    let bench = limited("connections_per_address = 2");
    let mut held: Vec<Wire> = (0..2).map(|_| bench.edge.wire()).collect();
    for wire in &mut held {
        wire.send(get(HEALTH).bytes());
        assert_eq!(wire.reply().status, 200);
    }
    let mut third = bench.edge.wire();
    third.reply().refuses("a third connection", 503, None);
    assert_eq!(third.ended(), Ending::Closed);
    for wire in &mut held {
        wire.send(get(HEALTH).bytes());
        assert_eq!(wire.reply().status, 200, "who has a place keeps it");
    }
    held.pop();
    eventually("a place is free again", || {
        let mut wire = bench.edge.wire();
        wire.offer(get(HEALTH).bytes()).ok()?;
        wire.reply_or_end().ok().filter(|reply| reply.status == 200)
    });
}

#[test]
fn all_together_have_so_many_connections_too() {
    let bench = limited("connections = 3");
    let held: Vec<Wire> = (0..3)
        .map(|_| {
            let mut wire = bench.edge.wire();
            wire.send(get(HEALTH).bytes());
            assert_eq!(wire.reply().status, 200);
            wire
        })
        .collect();
    bench.edge.wire().reply().refuses("a fourth connection", 503, None);
    drop(held);
    eventually("places are free again", || {
        let mut wire = bench.edge.wire();
        wire.offer(get(HEALTH).bytes()).ok()?;
        wire.reply_or_end().ok().filter(|reply| reply.status == 200)
    });
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_it_goes() {
    let stub = Stub::start(&[]);
    let launch = Launch::to(&stub);
    let command = launch.command("serve");
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -Sn 200 && exec \"$0\" \"$@\""]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let process = Process::start(&mut limited);
    process.announced("listening on ");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "soft and hard: {line}");
    assert_ne!(words[3], "200");
}

#[test]
fn after_too_many_wrong_keys_no_key_of_the_address_is_looked_at() {
    let bench = limited("failed_keys_per_minute = 2");
    let wrong = get(MODELS).set("Authorization", "Bearer sk-guess");
    let missing = get(MODELS).without("Authorization");
    for request in [&wrong, &missing, &wrong, &missing] {
        assert_eq!(bench.ask(request).status, 401);
    }
    for request in [&wrong, &missing, &get(MODELS)] {
        let refused = bench.ask(request);
        refused.refuses("after four wrong keys", 429, Some("rate_limit_exceeded"));
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=30).contains(&wait), "{wait}");
    }
    assert_eq!(bench.ask(&get(HEALTH)).status, 200, "what needs no key is served");
}

#[test]
fn right_keys_cost_nothing_and_the_limit_can_be_lifted() {
    let bench = limited("failed_keys_per_minute = 1");
    for _ in 0..20 {
        assert_eq!(bench.ask(&get(MODELS)).status, 200);
    }
    let bench = limited("failed_keys_per_minute = 0");
    for _ in 0..50 {
        assert_eq!(bench.ask(&get(MODELS).set("Authorization", "Bearer sk-guess")).status, 401);
    }
    assert_eq!(bench.ask(&get(MODELS)).status, 200);
}
