//! Answers that come before the upload is complete.

use std::io::Write;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Bench, Ending, Form, Launch, Request, Stub, TEXT, Wire, wav};

/// Sends all of it from another thread: the client does not look at answers before it is done.
fn pour(wire: &Wire, bytes: Vec<u8>) -> JoinHandle<std::io::Result<()>> {
    let mut writer = wire.writer();
    std::thread::spawn(move || writer.write_all(&bytes))
}

#[test]
fn an_answer_in_the_midst_of_the_upload_is_passed_on_in_the_midst_of_it() {
    for (status, expected) in [(413, 413), (429, 429), (401, 503), (503, 502)] {
        let bench = Bench::start();
        bench.stub.script(
            json!({"early": true, "early_after": 20_000, "status": status, "body": {"detail": "no"}}),
        );
        let bytes = Request::post(&Form::of(&wav(8 << 20))).bytes();
        let mut wire = bench.edge.wire();
        // The client stops in the midst of it: the answer must not wait for the rest.
        wire.send(&bytes[..200_000]);
        let start = Instant::now();
        let reply = wire.reply();
        assert_eq!(reply.status, expected, "{status}: {reply:?}");
        assert!(start.elapsed() < Duration::from_secs(15), "{status}: {:?}", start.elapsed());
        assert_eq!(reply.header("connection"), Some("close"), "{status}");
        bench.assert_nothing_whole("early answers");
    }
}

#[test]
fn a_success_before_the_upload_is_complete_is_none() {
    let bench = Bench::start();
    bench.stub.script(json!({"early": true, "early_after": 20_000, "status": 200}));
    let mut wire = bench.edge.wire();
    wire.send(&Request::post(&Form::of(&wav(1 << 20))).bytes()[..200_000]);
    wire.reply().refuses("an early 200", 502, Some("upstream_broken"));
}

#[test]
fn a_client_that_writes_on_sees_the_early_answer() {
    let bench = Bench::start();
    bench.stub.script(json!({"early": true, "early_after": 100_000, "status": 429}));
    let mut wire = bench.edge.wire();
    let sending = pour(&wire, Request::post(&Form::of(&wav(8 << 20))).bytes());
    wire.reply().refuses("429", 429, Some("rate_limit_exceeded"));
    assert_eq!(wire.ended(), Ending::Closed);
    sending.join().unwrap().unwrap();
}

#[test]
fn a_stalled_upload_does_not_hide_the_answer() {
    for flags in [&["--no-h2"][..], &["--no-h2", "--tls"], &["--tls"]] {
        let stub = Stub::start(&[&["--text", TEXT, "--receive-buffer", "4096"], flags].concat());
        let bench = Bench::before(stub, |launch: Launch| launch);
        bench.stub.script(json!({"early": true, "early_after": 50_000, "status": 413}));
        let mut wire = bench.edge.wire();
        let sending = pour(&wire, Request::post(&Form::of(&wav(24 << 20))).bytes());
        let start = Instant::now();
        let reply = wire.reply();
        assert_eq!(reply.status, 413, "{flags:?}: {reply:?}");
        assert!(start.elapsed() < Duration::from_secs(15), "{flags:?}: {:?}", start.elapsed());
        drop(wire);
        let _ = sending.join().unwrap();
    }
}

#[test]
fn a_client_that_leaves_never_completes_the_upstream_s_request() {
    let bench = Bench::start();
    let audio = wav(300_000);
    for request in [Request::post(&Form::of(&audio)), Request::post(&Form::of(&audio)).chunked(9000)] {
        let bytes = request.bytes();
        let mut wire = bench.edge.wire();
        wire.send(&bytes[..bytes.len() - 50]);
        std::thread::sleep(Duration::from_millis(200));
        drop(wire);
    }
    std::thread::sleep(Duration::from_millis(300));
    bench.assert_nothing_whole("killed clients");
    assert_eq!(bench.ask(&Request::post(&Form::of(&audio))).status, 200);
}

#[test]
fn a_client_that_leaves_while_the_upstream_thinks_frees_its_place() {
    let bench = Bench::with(|launch| launch.flags(&["--concurrency", "1"]));
    bench.stub.script(json!({"delay_ms": 25000, "times": 1}));
    let audio = wav(3000);
    let mut wire = bench.edge.wire();
    wire.send(Request::post(&Form::of(&audio)).bytes());
    bench.stub.wait("the upload", |seen| seen.iter().any(crate::harness::Seen::is_complete));
    wire.reset();
    let start = Instant::now();
    assert_eq!(bench.ask(&Request::post(&Form::of(&audio))).status, 200);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn a_refusal_of_ours_in_the_midst_drops_the_upstream_s_request() {
    let bench = Bench::start();
    let form = Form::new().file(&wav(2 << 20)).field("response_format", "srt");
    bench.ask(&Request::post(&form)).refuses("srt behind 2 MiB", 400, Some("unsupported_value"));
    bench.stub.wait("the upload began", |seen| seen.iter().any(|seen| seen.audio_bytes() > 0));
    bench.assert_nothing_whole("srt");
}
