//! Legal oddities of HTTP: cutting, chunks, expectations, old versions, spellings of the key and the path.

use std::time::Duration;

use crate::harness::{Bench, Form, KEY, Request, TEXT, get, wav};

#[test]
fn a15_every_byte_sent_alone() {
    let bench = Bench::start();
    let audio = wav(60);
    let request = Request::post(&Form::of(&audio)).bytes();
    let mut wire = bench.edge.wire();
    for byte in &request {
        wire.send([*byte]);
    }
    assert_eq!(wire.reply().json()["text"], TEXT);
    bench.heard("byte by byte", &audio);
}

#[test]
fn a15_a_delimiter_cut_at_each_of_its_bytes() {
    let bench = Bench::start();
    let audio = wav(60);
    let form = Form::of(&audio).field("prompt", "p");
    let request = Request::post(&form).bytes();
    let delimiter = form.content_type()["multipart/form-data; boundary=".len()..].len() + 8;
    let at = request.len() - form.closed().len()
        + form.open().windows(60).position(|w| audio.ends_with(w)).unwrap()
        + 60;
    let mut wire = bench.edge.wire();
    for cut in at - 2..at + delimiter {
        bench.stub.forget();
        let (start, end) = request.split_at(cut);
        wire.send(start);
        std::thread::sleep(Duration::from_millis(2));
        wire.send(end);
        assert_eq!(wire.reply().status, 200, "cut at {cut}");
        let seen = bench.heard("cut", &audio);
        assert_eq!(seen.field("prompt"), Some("p"), "cut at {cut}");
    }
}

#[test]
fn a16_chunks_with_extensions_odd_sizes_and_trailers() {
    let bench = Bench::start();
    let audio = wav(5000);
    let form = Form::of(&audio);
    let body = form.closed();
    let (first, rest) = body.split_at(0xAB);
    let (second, third) = rest.split_at(0x1F);
    let mut encoded = format!("000AB;a=\"b\\\"c\";d\r\n{}", "").into_bytes();
    encoded.extend(first);
    encoded.extend(b"\r\n1F ; x = y\r\n");
    encoded.extend(second);
    encoded.extend(format!("\r\n{:08X};q=\"1\"\r\n", third.len()).into_bytes());
    encoded.extend(third);
    encoded.extend(b"\r\n000;last\r\nX-Trailer: 1\r\nAuthorization: Bearer other\r\n\r\n");
    let request = Request::post(&form).encoded(encoded);
    let mut wire = bench.edge.wire();
    wire.send(request.bytes());
    assert_eq!(wire.reply().status, 200);
    let seen = bench.heard("odd chunks", &audio);
    assert_eq!(seen.header("x-trailer"), None);
    // The trailers have been read: the connection stands where the next request begins.
    wire.send(get("/healthz").bytes());
    assert_eq!(wire.reply().status, 200);
}

#[test]
fn a21_an_expectation_in_any_case_is_met_before_the_body() {
    let bench = Bench::start();
    let audio = wav(5000);
    for expectation in ["100-continue", "100-Continue", "100-CONTINUE"] {
        let request = Request::post(&Form::of(&audio)).header("Expect", expectation);
        bench.stub.forget();
        let mut wire = bench.edge.wire();
        wire.send(request.head());
        assert_eq!(wire.informed(), 100, "{expectation}");
        wire.send(request.payload());
        assert_eq!(wire.reply().status, 200, "{expectation}");
        bench.heard(expectation, &audio);
    }
}

#[test]
fn a21_an_expectation_with_the_body_already_sent() {
    let bench = Bench::start();
    let audio = wav(5000);
    bench.accepts("all at once", &Request::post(&Form::of(&audio)).header("expect", "100-continue"), &audio);
    bench.accepts(
        "chunked",
        &Request::post(&Form::of(&audio)).chunked(700).header("Expect", "100-continue"),
        &audio,
    );
}

#[test]
fn a22_an_offer_to_upgrade_is_ignored() {
    let bench = Bench::start();
    let audio = wav(5000);
    let request = Request::post(&Form::of(&audio))
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA");
    let mut wire = bench.edge.wire();
    wire.send(request.bytes());
    let reply = wire.reply();
    assert_eq!((reply.status, reply.header("upgrade")), (200, None));
    assert!(wire.informational.is_empty(), "{:?}", wire.informational);
    bench.heard("upgrade", &audio);
}

#[test]
fn a23_http_1_0_gets_an_answer_with_a_length_and_a_close() {
    let bench = Bench::start();
    let audio = wav(5000);
    let request = Request::post(&Form::of(&audio)).version("HTTP/1.0");
    let mut wire = bench.edge.wire();
    wire.send(request.bytes());
    let reply = wire.reply();
    assert_eq!((reply.status, reply.header("transfer-encoding")), (200, None));
    assert!(reply.header("content-length").is_some());
    wire.ended();
    bench.heard("1.0", &audio);
}

#[test]
fn a23_an_absolute_target_and_empty_lines_before_the_request() {
    let bench = Bench::start();
    let audio = wav(5000);
    let absolute = Request::post(&Form::of(&audio)).target("http://asr.test/v1/audio/transcriptions?x=1");
    bench.accepts("absolute", &absolute, &audio);
    bench.stub.forget();
    let mut wire = bench.edge.wire();
    wire.send(b"\r\n\r\n");
    wire.send(Request::post(&Form::of(&audio)).bytes());
    assert_eq!(wire.reply().status, 200);
    bench.heard("empty lines", &audio);
}

#[test]
fn a23_a_second_request_sent_with_the_first_is_answered_too() {
    let bench = Bench::start();
    let audio = wav(5000);
    let first = Request::post(&Form::of(&audio)).bytes();
    let second = Request::post(&Form::of(&audio).field("response_format", "text")).bytes();
    let third = get("/v1/models/whisper-1").bytes();
    let mut wire = bench.edge.wire();
    wire.send([first, second, third].concat());
    assert_eq!(wire.reply().json()["text"], TEXT);
    assert_eq!(wire.reply().text(), format!("{TEXT}\n"));
    assert_eq!(wire.reply().json()["id"], "whisper-1");
    assert_eq!(bench.stub.seen().len(), 2);
}

#[test]
fn a24_the_key_in_every_spelling() {
    let bench = Bench::start();
    let audio = wav(300);
    let request = Request::post(&Form::of(&audio)).without("Authorization");
    let basic = base64(format!("user:{KEY}").as_bytes());
    for (name, value) in [
        ("authorization", format!("bearer {KEY}")),
        ("AUTHORIZATION", format!("BEARER   {KEY}")),
        ("Authorization", format!("Bearer {KEY}  ")),
        ("Authorization", format!("Basic {basic}")),
        ("X-API-Key", KEY.to_owned()),
        ("api-key", KEY.to_owned()),
    ] {
        bench.accepts(&format!("{name}: {value}"), &request.clone().header(name, &value), &audio);
    }
}

#[test]
fn a24_the_path_with_stray_slashes_and_a_query() {
    let bench = Bench::start();
    let audio = wav(300);
    for target in [
        "//v1/audio/transcriptions",
        "/v1/audio/transcriptions/",
        "/v1//audio//transcriptions//",
        "/v1/audio/transcriptions?api-version=2024-06-01&x=%2F",
    ] {
        bench.accepts(target, &Request::post(&Form::of(&audio)).target(target), &audio);
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
