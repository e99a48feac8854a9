//! What is decided before the body: the answer comes at once, whoever is still writing sees it, and the connection
//! stays right for whatever comes behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, unused_imports)]
mod harness;

use std::io::Write;
use std::time::{Duration, Instant};

use harness::{Bench, Ending, Form, Request, TEXT, get, wav};

fn upload(length: usize) -> Request {
    Request::post(&Form::of(&wav(length)))
}

/// Requests that their heads condemn, and the statuses they get.
fn condemned(length: usize) -> Vec<(&'static str, Request, u16)> {
    vec![
        ("no key", upload(length).without("Authorization"), 401),
        ("a wrong key", upload(length).set("Authorization", "Bearer wrong"), 401),
        ("too large", upload(length).header("X", "1"), 413),
        ("an unknown path", upload(length).target("/v1/audio/speech"), 404),
        ("a wrong method", upload(length).method("PUT"), 405),
        ("a content coding", upload(length).header("Content-Encoding", "gzip"), 415),
        ("no form", upload(length).set("Content-Type", "audio/wav"), 400),
        ("no boundary", upload(length).set("Content-Type", "multipart/form-data"), 400),
        ("translations", upload(length).target("/v1/audio/translations"), 400),
        (
            "an unknown deployment",
            upload(length).target("/openai/deployments/gpt-9/audio/transcriptions"),
            404,
        ),
    ]
}

#[test]
fn the_answer_comes_before_a_single_body_byte_and_before_100_continue() {
    let bench = Bench::with(|launch| launch.flags(&["--max-upload-mb", "1"]));
    for (what, request, status) in condemned(2 << 20) {
        for expectation in [None, Some("100-continue")] {
            let mut request = request.clone();
            if status != 413 {
                request = request.set("Content-Length", "500000");
            }
            if let Some(expectation) = expectation {
                request = request.header("Expect", expectation);
            }
            let mut wire = bench.edge.wire();
            wire.send(request.head());
            let start = Instant::now();
            let reply = wire.reply();
            assert_eq!(reply.status, status, "{what}: {reply:?}");
            assert!(start.elapsed() < Duration::from_secs(15), "{what}: {:?}", start.elapsed());
            assert!(wire.informational.is_empty(), "{what}: {:?}", wire.informational);
            reply.error();
            reply.is_ours(what);
            assert_eq!(reply.header("connection"), Some("close"), "{what}");
        }
    }
    assert!(bench.stub.seen().is_empty());
}

#[test]
fn a_client_that_writes_on_for_megabytes_sees_the_answer_and_no_reset() {
    let bench = Bench::with(|launch| launch.flags(&["--max-upload-mb", "4"]));
    for (what, request, status) in condemned(8 << 20) {
        let bytes = request.bytes();
        let mut wire = bench.edge.wire();
        let mut writer = wire.writer();
        let sending = std::thread::spawn(move || writer.write_all(&bytes));
        // Everything is written before the answer is looked at, as Node does.
        sending.join().unwrap().unwrap_or_else(|error| panic!("{what}: {error}"));
        let reply = wire.reply();
        // All that is over the limit is 413 where the head gets that far.
        assert!(reply.status == status || reply.status == 413, "{what}: {reply:?}");
        assert_eq!(wire.ended(), Ending::Closed, "{what}");
    }
    assert!(bench.stub.seen().is_empty());
}

#[test]
fn a_lingering_close_has_an_end() {
    let bench = Bench::start();
    let mut wire = bench.edge.wire();
    wire.send(upload(3 << 20).without("Authorization").head());
    wire.reply().refuses("no key", 401, None);
    // Half-closed by the program; a client that says nothing more is not waited for.
    wire.ended();
    let start = Instant::now();
    while wire.offer([0]).is_ok() {
        std::thread::sleep(Duration::from_millis(300));
        if start.elapsed() > Duration::from_secs(3) {
            break;
        }
        // One byte now and then keeps it open, within the bound on the whole.
    }
    drop(wire);
    let mut silent = bench.edge.wire();
    silent.send(upload(3 << 20).without("Authorization").head());
    silent.reply().refuses("no key", 401, None);
    silent.ended();
    std::thread::sleep(Duration::from_millis(3500));
    let _ = silent.offer([0]);
    std::thread::sleep(Duration::from_millis(100));
    assert!(silent.offer([0]).is_err(), "it is closed after two silent seconds");
}

#[test]
fn a_connection_survives_every_refusal_whose_body_has_been_read() {
    let bench = Bench::start();
    let audio = wav(3000);
    let mut wire = bench.edge.wire();
    for (what, request, status) in [
        ("an unknown path", get("/v1/nothing"), 404),
        ("a wrong method", Request::new("POST", "/v1/models").body(""), 405),
        ("no key", get("/v1/models").without("Authorization"), 401),
        ("an unknown model", get("/v1/models/gpt-9"), 404),
        ("srt", Request::post(&Form::of(&audio).field("response_format", "srt")), 400),
    ] {
        let mut open = bench.edge.wire();
        open.send(request.bytes());
        let reply = open.reply();
        assert_eq!(reply.status, status, "{what}: {reply:?}");
        if reply.header("connection") != Some("close") {
            open.send(get("/v1/models/whisper-1").bytes());
            assert_eq!(open.reply().json()["id"], "whisper-1", "{what}: the connection is out of step");
        }
        wire.send(get("/healthz").bytes());
        assert_eq!(wire.reply().status, 200, "{what}");
    }
    // GETs without a body at least must not cost the client its connection.
    let mut kept = bench.edge.wire();
    for _ in 0..3 {
        kept.send(get("/v1/nothing").bytes());
        let reply = kept.reply();
        assert_eq!(reply.status, 404);
        assert_ne!(reply.header("connection"), Some("close"), "{reply:?}");
    }
}

#[test]
fn a_request_pipelined_behind_a_refusal_is_answered_or_the_connection_closed_but_never_confused() {
    let bench = Bench::start();
    let audio = wav(20_000);
    // The body of every upload holds a whole request: to answer it would be request smuggling.
    let hidden = get("/v1/models/gpt-4o-transcribe").bytes();
    let smuggling = [audio.as_slice(), &hidden].concat();
    let form = Form::of(&smuggling);
    for (what, request, status) in [
        ("no key", Request::post(&form).without("Authorization"), 401),
        ("a wrong path", Request::post(&form).target("/v1/nothing"), 404),
        ("a wrong type", Request::post(&form).set("Content-Type", "audio/wav"), 400),
        ("a wrong field", Request::post(&form.clone().field("stream", "maybe")), 400),
        ("a wrong field first", Request::post(&Form::new().field("stream", "maybe").file(&smuggling)), 400),
        ("chunks", Request::post(&form.clone().field("stream", "maybe")).chunked(900), 400),
        ("chunks and no key", Request::post(&form).chunked(900).without("Authorization"), 401),
        ("a success", Request::post(&form), 200),
    ] {
        let mut wire = bench.edge.wire();
        let _ = wire.offer([request.bytes(), get("/v1/models/whisper-1").bytes()].concat());
        let reply = wire.reply();
        assert_eq!(reply.status, status, "{what}: {reply:?}");
        match wire.reply_or_end() {
            Ok(next) => {
                assert_eq!(next.json()["id"], "whisper-1", "{what}: {next:?}");
                assert_ne!(reply.header("connection"), Some("close"), "{what}: answered behind a close");
            }
            Err(_) => assert_eq!(reply.header("connection"), Some("close"), "{what}: closed without a word"),
        }
    }
}

#[test]
fn a_half_closed_client_still_gets_its_answer() {
    let bench = Bench::start();
    bench.stub.script(serde_json::json!({"delay_ms": 500, "text": TEXT}));
    for request in [upload(3000), upload(3000).chunked(500), upload(3000).version("HTTP/1.0")] {
        let mut wire = bench.edge.wire();
        wire.send(request.bytes());
        wire.finish();
        assert_eq!(wire.reply().json()["text"], TEXT);
        wire.ended();
    }
}

#[test]
fn connection_close_is_honoured() {
    let bench = Bench::start();
    let mut wire = bench.edge.wire();
    wire.send(upload(3000).header("Connection", "close").bytes());
    let reply = wire.reply();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")));
    assert_eq!(wire.ended(), Ending::Closed);
}

#[test]
fn an_http_1_0_client_that_asks_for_more_keeps_its_connection_or_is_told() {
    let bench = Bench::start();
    let mut wire = bench.edge.wire();
    wire.send(get("/healthz").version("HTTP/1.0").header("Connection", "keep-alive").bytes());
    let reply = wire.reply();
    assert_eq!(reply.status, 200);
    if reply.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("keep-alive")) {
        wire.send(get("/healthz").version("HTTP/1.0").bytes());
        assert_eq!(wire.reply().status, 200);
    }
    wire.ended();
}

#[test]
fn a_connection_carries_one_upload_after_the_other_asked_for_or_not() {
    let bench = Bench::start();
    let mut wire = bench.edge.wire();
    for round in 0..4 {
        let audio = wav(5000 + round);
        bench.stub.forget();
        let request = Request::post(&Form::of(&audio));
        let request = if round % 2 == 0 { request } else { request.chunked(777) };
        wire.send(request.header("Expect", "100-continue").bytes());
        let reply = wire.reply_or_end().unwrap_or_else(|ending| panic!("round {round}: {ending:?}"));
        assert_eq!(reply.status, 200, "{round}");
        bench.heard("again", &audio);
    }
}

#[test]
fn the_upload_streams_through_while_it_is_still_coming() {
    let bench = Bench::start();
    let audio = wav(600_000);
    let bytes = Request::post(&Form::of(&audio)).bytes();
    let mut wire = bench.edge.wire();
    wire.send(&bytes[..300_000]);
    bench.stub.wait("the first half", |seen| seen.iter().any(|seen| seen.audio_bytes() > 200_000));
    assert!(!bench.stub.seen()[0].is_complete());
    wire.send(&bytes[300_000..]);
    assert_eq!(wire.reply().status, 200);
    bench.heard("streamed", &audio);
}
