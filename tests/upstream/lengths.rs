//! Lengths: exact when the client tells one; made up for, or done without, when it does not.

use serde_json::json;

use crate::harness::{Bench, Form, Request, Seen, Stub, TEXT, wav};

fn chunked(length: usize) -> Request {
    Request::post(&Form::of(&wav(length))).chunked(50_000)
}

#[test]
fn a_length_is_met_exactly_wherever_the_fields_stand() {
    let bench = Bench::with(|launch| launch.flags(&["--language", "en"]));
    let audio = wav(100_000);
    let fields = [
        ("model", "whisper-1"),
        ("language", "english"),
        ("prompt", "p"),
        ("temperature", "0"),
        ("odd", "xyz"),
    ];
    let with = |form: Form, fields: &[(&str, &str)]| {
        fields.iter().fold(form, |form, (name, value)| form.field(name, value))
    };
    for first in 0..=fields.len() {
        for boundary in ["x", "------------------------7f3c9e2b51d84a06", &"b".repeat(70)] {
            let form = with(Form::with_boundary(boundary), &fields[..first]).file(&audio);
            let form = with(form, &fields[first..]);
            let (_, seen) = bench.accepts(boundary, &Request::post(&form), &audio);
            assert_eq!(seen.declared(), Some(seen.body_bytes()), "{boundary}: {seen:?}");
            if first == fields.len() && boundary.len() > 24 {
                assert!(seen.padding() <= 128, "{seen:?}");
            }
        }
    }
}

#[test]
fn an_upload_without_a_length_gets_one_over_http_1() {
    let bench = Bench::start();
    for length in [3000, 900_000, 5 << 20] {
        let (_, seen) = bench.accepts("chunked", &chunked(length), &wav(length));
        assert_eq!(seen.declared(), Some(seen.body_bytes()), "{length}");
        assert_eq!(seen.padding(), 0, "{length}: what is known whole needs none");
    }
}

#[test]
fn an_upload_without_a_length_gets_one_where_tls_brings_no_http2() {
    let bench = Bench::before(Stub::start(&["--tls", "--no-h2", "--text", TEXT]), |launch| launch);
    for _ in 0..2 {
        let (_, seen) = bench.accepts("chunked", &chunked(300_000), &wav(300_000));
        assert_eq!((seen.protocol(), seen.declared()), ("HTTP/1.1", Some(seen.body_bytes())));
    }
}

#[test]
fn a_spool_that_is_full_says_so() {
    let bench = Bench::with(|launch| {
        launch.flags(&["--max-upload-mb", "4"]).config("[limits]\nspool_total = \"4MiB\"\n")
    });
    bench.stub.script(json!({"delay_ms": 1500}));
    let mut first = bench.edge.wire();
    first.send(chunked(3 << 20).bytes());
    bench.stub.wait("the first upload", |seen| seen.iter().any(Seen::is_complete));
    let mut second = bench.edge.wire();
    let mut writer = second.writer();
    let sending =
        std::thread::spawn(move || std::io::Write::write_all(&mut writer, &chunked(3 << 20).bytes()));
    let reply = second.reply();
    assert_eq!(reply.status, 503, "{reply:?}");
    reply.is_ours("full");
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    assert_eq!(first.reply().status, 200);
    let _ = sending.join().unwrap();
}

#[test]
fn an_upload_without_a_length_is_streamed_over_http2() {
    let bench = Bench::before(Stub::start(&["--tls", "--text", TEXT]), |launch| launch);
    for _ in 0..2 {
        let (_, seen) = bench.accepts("h2", &chunked(300_000), &wav(300_000));
        assert_eq!((seen.protocol(), seen.declared()), ("HTTP/2", None));
    }
    let request = chunked(2 << 20).bytes();
    let mut wire = bench.edge.wire();
    bench.stub.forget();
    wire.send(&request[..1 << 20]);
    bench.stub.wait("audio before the end", |seen| seen.iter().any(|seen| seen.audio_bytes() > 500_000));
    wire.send(&request[1 << 20..]);
    assert_eq!(wire.reply().status, 200);
    bench.heard("streamed", &wav(2 << 20));
}

#[test]
fn an_upstream_that_wants_a_length_gets_one_from_then_on() {
    let bench = Bench::before(Stub::start(&["--tls", "--require-length", "--text", TEXT]), |launch| launch);
    let audio = wav(300_000);
    let reply = bench.ask(&chunked(300_000));
    assert_eq!(reply.status, 200, "{reply:?}");
    let seen = bench.stub.seen();
    let last = seen.last().unwrap();
    assert!(last.is_complete() && last.breach().is_none(), "{seen:?}");
    assert_eq!(last.declared(), Some(last.body_bytes()));
    assert_eq!(last.audio_hash(), crate::harness::sha256(&audio));
    // Now it is known: no second attempt is wasted.
    let (_, seen) = bench.accepts("spooled at once", &chunked(300_000), &audio);
    assert_eq!(seen.declared(), Some(seen.body_bytes()));
}
