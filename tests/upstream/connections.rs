//! Connections to the upstream: dropped, reused, refused, too slow, too many.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Bench, Form, Launch, Request, Seen, Stub, TEXT, transcript, wav};

fn upload() -> Request {
    Request::post(&Form::of(&wav(3000)))
}

#[test]
fn a_connection_dropped_at_any_point_is_502() {
    let bench = Bench::start();
    for point in ["after_head", "mid_body_after:100", "before_answer", "mid_answer"] {
        bench.stub.script(json!({"drop": point}));
        let reply = bench.ask(&upload());
        assert_eq!(reply.status, 502, "{point}: {reply:?}");
        reply.is_ours(point);
        let code = reply.error()["code"].as_str().unwrap().to_owned();
        assert!(["upstream_unavailable", "upstream_broken"].contains(&code.as_str()), "{point}: {code}");
    }
    bench.stub.script(json!({}));
    assert_eq!(bench.ask(&upload()).status, 200, "and the next one is fine");
}

#[test]
fn a_large_upload_whose_connection_drops_is_502_at_once() {
    let bench = Bench::start();
    bench.stub.script(json!({"drop": "mid_body_after:1000000"}));
    let reply = bench.ask(&Request::post(&Form::of(&wav(6 << 20))));
    reply.refuses("dropped", 502, Some("upstream_unavailable"));
}

/// Uploads so that a connection is left behind. To lie in the pool takes it a moment, in which it is not found there.
fn leave_a_connection(bench: &Bench) {
    assert_eq!(bench.ask(&upload()).status, 200);
    std::thread::sleep(Duration::from_millis(60));
}

#[test]
fn connections_are_reused() {
    let bench = Bench::start();
    for _ in 0..5 {
        leave_a_connection(&bench);
    }
    let mut connections: Vec<u64> = bench.stub.seen().iter().map(Seen::connection).collect();
    assert_eq!(connections.len(), 5);
    connections.dedup();
    assert!(connections.len() <= 2, "{connections:?}");
}

#[test]
fn a_reused_connection_that_dies_before_an_answer_is_replayed() {
    let bench = Bench::start();
    let audio = wav(200_000);
    for point in ["after_head", "mid_body_after:70000", "before_answer"] {
        bench.stub.script(json!({}));
        leave_a_connection(&bench);
        bench.stub.forget();
        bench.stub.script(json!({"drop": point, "times": 1, "text": "replayed"}));
        let reply = bench.ask(&Request::post(&Form::of(&audio)));
        assert_eq!((reply.status, reply.json()), (200, transcript(TEXT, 7)), "{point}: {reply:?}");
        let seen = bench.stub.seen();
        assert_eq!(seen.len(), 2, "{point}: {seen:?}");
        assert_ne!(seen[0].connection(), seen[1].connection(), "{point}");
        assert_eq!(seen[1].audio_hash(), crate::harness::sha256(&audio), "{point}");
    }
}

#[test]
fn an_upload_too_long_to_be_kept_is_not_replayed() {
    let bench = Bench::start();
    leave_a_connection(&bench);
    bench.stub.forget();
    bench.stub.script(json!({"drop": "before_answer", "times": 1}));
    let reply = bench.ask(&Request::post(&Form::of(&wav(3 << 20))));
    reply.refuses("3 MiB", 502, Some("upstream_unavailable"));
    assert_eq!(bench.stub.seen().len(), 1);
}

#[test]
fn an_upstream_that_is_not_there_is_502() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let edge = Launch::at(&format!("http://127.0.0.1:{port}/backend-api/transcribe")).start();
    edge.ask(&upload()).refuses("refused", 502, Some("upstream_unreachable"));
    let edge = Launch::at("https://no-such-host.invalid/backend-api/transcribe").start();
    edge.ask(&upload()).refuses("no name", 502, Some("upstream_unreachable"));
}

/// An address whose queue of connections is full: more of them neither succeed nor fail.
fn full() -> (tokio::net::TcpListener, Vec<TcpStream>, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _guard = runtime.enter();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let waiting =
        (0..8).map_while(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok()).collect();
    (listener, waiting, address)
}

#[test]
fn a_connection_that_takes_too_long_to_make_is_told_in_time() {
    let (_listener, _waiting, address) = full();
    let edge = Launch::at(&format!("http://{address}/backend-api/transcribe"))
        .flags(&["--connect-timeout-seconds", "1"])
        .start();
    let start = Instant::now();
    let reply = edge.ask(&upload());
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    assert!([502, 504].contains(&reply.status), "{reply:?}");
    assert_eq!(reply.error()["type"], "server_error");
}

#[test]
fn an_upstream_that_stays_silent_is_504() {
    for config in ["first_byte_timeout = \"1s\"", "request_timeout = \"1s\""] {
        let bench = Bench::with(|launch| launch.config(&format!("[codex]\n{config}\n")));
        bench.stub.script(json!({"delay_ms": 25000}));
        let start = Instant::now();
        bench.ask(&upload()).refuses(config, 504, Some("upstream_timeout"));
        assert!(start.elapsed() < Duration::from_secs(15), "{config}: {:?}", start.elapsed());
    }
}

#[test]
fn an_answer_that_stops_half_way_is_bounded_by_the_request_s_time() {
    let bench = Bench::with(|launch| launch.flags(&["--request-timeout-seconds", "2"]));
    bench.stub.script(json!({"first_byte_delay_ms": 25000}));
    let start = Instant::now();
    let reply = bench.ask(&upload());
    assert!([502, 504].contains(&reply.status), "{reply:?}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn an_upstream_that_takes_nothing_is_504() {
    let stub = Stub::start(&["--text", TEXT, "--receive-buffer", "4096"]);
    let bench = Bench::before(stub, |launch| launch.flags(&["--request-timeout-seconds", "2"]));
    bench.stub.script(json!({"stop_reading_after": 1000}));
    let mut wire = bench.edge.wire();
    let mut writer = wire.writer();
    let bytes = Request::post(&Form::of(&wav(20 << 20))).bytes();
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &bytes));
    let start = Instant::now();
    wire.reply().refuses("stalled", 504, Some("upstream_timeout"));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    drop(wire);
    let _ = sending.join().unwrap();
    bench.assert_nothing_whole("stalled");
}

#[test]
fn more_uploads_than_may_be_in_flight_wait_and_then_are_told_when_to_come_again() {
    let bench = Bench::with(|launch| {
        launch.flags(&["--concurrency", "1"]).config("[limits]\nqueue = 1\nqueue_wait = \"1s\"\n")
    });
    bench.stub.script(json!({"delay_ms": 3000}));
    let mut first = bench.edge.wire();
    first.send(upload().bytes());
    bench.stub.wait("the first upload", |seen| seen.len() == 1);

    let mut second = bench.edge.wire();
    second.send(upload().header("Expect", "100-continue").head());
    std::thread::sleep(Duration::from_millis(300));
    let third = bench.ask(&upload());
    third.refuses("a full queue", 429, Some("rate_limit_exceeded"));
    assert!(third.header("retry-after").is_some());

    let reply = second.reply();
    let error = reply.refuses("waited long enough", 429, Some("rate_limit_exceeded"));
    assert_eq!(error["type"], "requests");
    assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(second.informational.is_empty(), "no body is asked for while it waits");
    assert_eq!(first.reply().status, 200);
    assert_eq!(bench.stub.seen().len(), 1);
}

#[test]
fn an_upload_that_waits_its_turn_is_served() {
    let bench = Bench::with(|launch| launch.flags(&["--concurrency", "1"]));
    bench.stub.script(json!({"delay_ms": 700}));
    let mut first = bench.edge.wire();
    first.send(upload().bytes());
    let mut second = bench.edge.wire();
    second.send(upload().bytes());
    assert_eq!((first.reply().status, second.reply().status), (200, 200));
}
