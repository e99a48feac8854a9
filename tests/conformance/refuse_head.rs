//! Request heads that are refused: keys, broken lines, limits, time, methods and versions.

use std::time::{Duration, Instant};

use crate::harness::{Bench, ENDPOINT, Form, KEY, Launch, Request, get, wav};

fn upload() -> Request {
    Request::post(&Form::of(&wav(3000)))
}

#[test]
fn r1_no_key_a_wrong_key_and_two_keys_are_told_apart_before_the_body() {
    let bench = Bench::start();
    let bare = || upload().without("Authorization");
    for (what, request, status, code) in [
        ("no key", bare(), 401, None),
        ("an empty key", bare().header("Authorization", "Bearer "), 401, None),
        ("another scheme", bare().header("Authorization", "Digest x"), 401, None),
        ("a wrong key", bare().header("Authorization", "Bearer sk-wrong"), 401, Some("invalid_api_key")),
        (
            "a longer key",
            bare().header("Authorization", format!("Bearer {KEY}x")),
            401,
            Some("invalid_api_key"),
        ),
        ("a wrong Azure key", bare().header("api-key", "sk-wrong"), 401, Some("invalid_api_key")),
        ("the key twice", upload().header("Authorization", format!("Bearer {KEY}")), 400, None),
        ("a wrong key beside the right one", upload().header("Authorization", "Bearer sk-wrong"), 400, None),
    ] {
        let mut wire = bench.edge.wire();
        wire.send(request.header("Expect", "100-continue").head());
        let reply = wire.reply();
        reply.refuses(what, status, code);
        assert!(reply.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")), "{what}");
        assert!(!reply.text().contains("sk-wrong") && !reply.text().contains(KEY), "{what}");
        assert!(wire.informational.is_empty(), "{what}: no body byte is asked for");
        wire.ended();
    }
    assert!(bench.stub.seen().is_empty());
}

#[test]
fn r1_the_models_are_behind_the_key_too() {
    let bench = Bench::start();
    bench.ask(&get("/v1/models").without("Authorization")).refuses("models", 401, None);
    bench.ask(&get("/v1/models/whisper-1").set("Authorization", "Bearer x")).refuses(
        "one",
        401,
        Some("invalid_api_key"),
    );
}

#[test]
fn r8_lines_that_are_no_header_fields() {
    let bench = Bench::start();
    let head = String::from_utf8(get("/v1/models").head()).unwrap();
    for (what, line) in [
        ("a space before the colon", b"X-Odd : 1\r\n".as_slice()),
        ("a folded line", b"X-Odd: 1\r\n 2\r\n"),
        ("a folded line first", b" X-Odd: 1\r\n"),
        ("a bare carriage return", b"X-Odd: 1\rX-Evil: 2\r\n"),
        ("NUL", b"X-Odd: a\0b\r\n"),
        ("a control character", b"X-Odd: a\x01b\r\n"),
        ("DEL", b"X-Odd: a\x7fb\r\n"),
        ("no colon", b"X-Odd\r\n"),
        ("no name", b": 1\r\n"),
        ("a space in the name", b"X Odd: 1\r\n"),
    ] {
        let (line_end, _) = head.match_indices("\r\n").next().unwrap();
        let (start, end) = head.split_at(line_end + 2);
        let bytes = [start.as_bytes(), line, end.as_bytes(), get("/healthz").head().as_slice()].concat();
        let mut wire = bench.edge.wire();
        let _ = wire.offer(bytes);
        let reply = wire.reply();
        assert_eq!(reply.status, 400, "{what}: {reply:?}");
        let (rest, _) = wire.rest();
        assert!(rest.is_empty(), "{what}: {:?}", String::from_utf8_lossy(&rest));
    }
}

#[test]
fn r9_a_host_that_is_missing_broken_or_there_twice() {
    let bench = Bench::start();
    for (what, request) in [
        ("missing", get("/v1/models").without("Host")),
        ("two", get("/v1/models").header("Host", "asr.test")),
        ("two that differ", get("/v1/models").header("Host", "other.test")),
        ("a space in it", get("/v1/models").set("Host", "asr test")),
        ("a path in it", get("/v1/models").set("Host", "asr.test/x")),
        ("credentials in it", get("/v1/models").set("Host", "user@asr.test")),
        ("a port that is none", get("/v1/models").set("Host", "asr.test:http")),
    ] {
        let reply = bench.ask(&request);
        assert_eq!(reply.status, 400, "{what}: {reply:?}");
        if !reply.body.is_empty() {
            reply.error();
        }
    }
    assert_eq!(bench.ask(&get("/v1/models").set("Host", "[::1]:8788")).status, 200);
    let old = get("/v1/models").without("Host").version("HTTP/1.0");
    assert_eq!(bench.ask(&old).status, 200, "HTTP/1.0 needs none");
}

#[test]
fn r10_heads_and_targets_over_their_limits() {
    let bench = Bench::start();
    let long = format!("/v1/models?{}", "q".repeat(9000));
    bench.ask(&get(&long)).refuses("a target", 414, None);
    let one = get("/v1/models").header("X-Long", "x".repeat(70_000));
    bench.ask(&one).refuses("one field", 431, None);
    let many =
        (0..120).fold(get("/v1/models"), |request, n| request.header(&format!("X-{n}"), "x".repeat(600)));
    bench.ask(&many).refuses("many fields", 431, None);
    let fits = get("/v1/models").header("X-Long", "x".repeat(40_000));
    assert_eq!(bench.ask(&fits).status, 200);
}

fn impatient(launch: Launch) -> Launch {
    launch.config("[limits]\nhead_timeout = \"1s\"\nbody_timeout = \"1s\"\nidle_timeout = \"1s\"\n")
}

#[test]
fn r12_a_head_that_trickles_in_is_told_408() {
    let bench = Bench::with(impatient);
    let start = Instant::now();
    let mut wire = bench.edge.wire();
    for byte in b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a".iter().take(40) {
        if wire.offer([*byte]).is_err() || wire.hears_within(Duration::from_millis(100)) {
            break;
        }
    }
    let reply = wire.reply();
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    reply.refuses("a slow head", 408, None);
    assert_eq!(reply.header("connection"), Some("close"));
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    wire.ended();
}

#[test]
fn r12_a_body_that_stops_is_told_408() {
    let bench = Bench::with(impatient);
    for request in [upload(), upload().chunked(500)] {
        let bytes = request.bytes();
        let mut wire = bench.edge.wire();
        let start = Instant::now();
        wire.send(&bytes[..bytes.len() - 700]);
        let reply = wire.reply();
        assert!(start.elapsed() > Duration::from_millis(900) && start.elapsed() < Duration::from_secs(15));
        reply.refuses("a stopped body", 408, None);
        assert_eq!(reply.header("x-should-retry"), Some("false"));
        assert_eq!(reply.header("connection"), Some("close"));
        wire.ended();
    }
    bench.assert_nothing_whole("stopped bodies");
}

#[test]
fn r12_a_slow_body_that_keeps_coming_is_no_idle_one() {
    let bench = Bench::with(impatient);
    let audio = wav(3000);
    let bytes = Request::post(&Form::of(&audio)).bytes();
    let mut wire = bench.edge.wire();
    for piece in bytes.chunks(bytes.len() / 5) {
        wire.send(piece);
        std::thread::sleep(Duration::from_millis(400));
    }
    assert_eq!(wire.reply().status, 200);
    bench.heard("slow", &audio);
}

#[test]
fn r12_an_idle_connection_is_closed_without_a_word() {
    let bench = Bench::with(impatient);
    let start = Instant::now();
    bench.edge.wire().ended();
    let mut used = bench.edge.wire();
    used.send(get("/healthz").bytes());
    assert_eq!(used.reply().status, 200);
    used.ended();
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn r13_an_expectation_that_nobody_can_meet() {
    let bench = Bench::start();
    let mut wire = bench.edge.wire();
    wire.send(upload().header("Expect", "200-ok").head());
    wire.reply().refuses("Expect", 417, None);
    assert!(bench.stub.seen().is_empty());
}

#[test]
fn r14_a_body_in_a_content_coding() {
    let bench = Bench::start();
    for coding in ["gzip", "br", "deflate, gzip", "zstd", "x"] {
        let mut wire = bench.edge.wire();
        wire.send(upload().header("Content-Encoding", coding).header("Expect", "100-continue").head());
        let reply = wire.reply();
        reply.refuses(coding, 415, None);
        assert_eq!(reply.header("accept-encoding"), Some("identity"), "{coding}");
        assert!(wire.informational.is_empty(), "{coding}");
    }
    assert!(bench.stub.seen().is_empty());
    let audio = wav(3000);
    bench.accepts("identity", &upload().header("Content-Encoding", "identity"), &audio);
}

#[test]
fn r24_wrong_methods_are_told_the_right_ones() {
    let bench = Bench::start();
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let reply = bench.ask(&Request::new(method, ENDPOINT));
        reply.refuses(method, 405, Some("method_not_supported"));
        assert_eq!(reply.header("allow"), Some("POST"), "{method}");
    }
    let head = bench.ask(&Request::new("HEAD", ENDPOINT));
    assert_eq!((head.status, head.body.len()), (405, 0));
    let reply = bench.ask(&Request::new("POST", "/v1/models"));
    reply.refuses("POST", 405, Some("method_not_supported"));
    assert_eq!(reply.header("allow"), Some("GET, HEAD"));
    for request in [Request::new("TRACE", ENDPOINT), Request::new("CONNECT", "asr.test:443")] {
        let reply = bench.ask(&request);
        assert!([400, 404, 405, 501].contains(&reply.status), "{reply:?}");
        assert!(!reply.text().contains(KEY));
    }
}

#[test]
fn r24_unknown_paths_are_told_as_openai_tells_them() {
    let bench = Bench::start();
    for (method, path) in [("POST", "/v1/foo"), ("GET", "/v1/audio"), ("POST", "/v1/audio/speech")] {
        let reply = bench.ask(&Request::new(method, path).body(""));
        let error = reply.refuses(path, 404, None);
        assert_eq!(error["message"], format!("Invalid URL ({method} {path})"));
    }
}

#[test]
fn r24_versions_that_nobody_speaks() {
    let bench = Bench::start();
    for version in ["HTTP/3.7", "HTTP/2.0", "HTTP/1.2", "HTTX/1.1", "http/1.1", ""] {
        let reply = bench.ask(&get("/v1/models").version(version));
        // A minor version above 1 may be answered as 1.1 (RFC 9110 2.5).
        let allowed: &[u16] = if version == "HTTP/1.2" { &[200, 400, 505] } else { &[400, 505] };
        assert!(allowed.contains(&reply.status), "{version}: {reply:?}");
    }
}
