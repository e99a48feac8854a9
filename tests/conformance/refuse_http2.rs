//! R25: HTTP/2 that breaks its own rules. The stream or the connection ends, memory stays bounded, and everybody else
//! is served.

use std::time::Duration;

use crate::harness::{
    Bench, END_HEADERS, END_STREAM, Form, Http2, KEY, Kind, Outcome, Request, STATUS_200, STATUS_400, Seen,
    frame, header_block, upload_block, wav,
};

/// Others are served as if nothing had happened, and nothing was kept for whoever misbehaved.
fn unharmed(bench: &Bench, before: u64) {
    let audio = wav(5000);
    bench.accepts("another client", &Request::post(&Form::of(&audio)), &audio);
    let grown = bench.edge.memory().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more than before");
}

fn refused(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Reset(_) | Outcome::Ended | Outcome::Answered(STATUS_400, _))
}

#[test]
fn http2_by_prior_knowledge_is_served() {
    let bench = Bench::start();
    let form = Form::of(&wav(100_000));
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    for stream in [1, 3, 5] {
        bench.stub.forget();
        http2.send(Kind::Headers, END_HEADERS, stream, &upload_block(&form.content_type(), &[]));
        // Small enough for the default window of a stream; the rest waits for more.
        let body = Form::of(&wav(20_000)).closed();
        http2.send_body(stream, &body);
        let Outcome::Answered(STATUS_200, answer) = http2.outcome(stream) else { panic!("stream {stream}") };
        assert!(String::from_utf8_lossy(&answer).contains("text"), "{answer:?}");
        bench.heard("h2", &wav(20_000));
    }
}

#[test]
fn r25_a_content_length_that_is_not_the_sum_of_the_data() {
    let bench = Bench::start();
    let before = bench.edge.memory();
    let form = Form::of(&wav(3000));
    let body = form.closed();
    for declared in [body.len() - 1, body.len() + 1, 5, 100_000] {
        let mut http2 = Http2::connect(bench.edge.address, &[]);
        let length = declared.to_string();
        let block = upload_block(&form.content_type(), &[("content-length", length.as_bytes())]);
        http2.send(Kind::Headers, END_HEADERS, 1, &block);
        http2.send_body(1, &body);
        let outcome = http2.outcome(1);
        assert!(refused(&outcome), "{declared}: {outcome:?}");
    }
    bench.assert_nothing_whole("lengths");
    unharmed(&bench, before);
}

#[test]
fn r25_fields_that_http2_does_not_have() {
    let bench = Bench::start();
    let before = bench.edge.memory();
    let form = Form::of(&wav(3000));
    let odd: [(&str, &[u8]); 10] = [
        ("connection", b"close"),
        ("transfer-encoding", b"chunked"),
        ("keep-alive", b"1"),
        ("upgrade", b"h2c"),
        ("proxy-connection", b"close"),
        ("te", b"gzip"),
        ("X-Upper", b"1"),
        ("x-break", b"a\r\nx-evil: 1"),
        ("x-nul", b"a\0b"),
        ("x space", b"1"),
    ];
    for field in odd {
        let mut http2 = Http2::connect(bench.edge.address, &[]);
        http2.send(Kind::Headers, END_HEADERS, 1, &upload_block(&form.content_type(), &[field]));
        let _ = http2.offer_bytes(&frame(Kind::Data, END_STREAM, 1, &form.closed()));
        let outcome = http2.outcome(1);
        assert!(refused(&outcome), "{}: {outcome:?}", field.0);
    }
    let key = format!("Bearer {KEY}");
    for pseudo in [
        vec![(":method", b"POST".as_slice()), (":scheme", b"http"), ("authorization", key.as_bytes())],
        vec![
            ("authorization", key.as_bytes()),
            (":method", b"GET"),
            (":scheme", b"http"),
            (":path", b"/v1/models"),
        ],
        vec![(":method", b"GET"), (":method", b"POST"), (":scheme", b"http"), (":path", b"/v1/models")],
        vec![(":method", b"GET"), (":scheme", b"http"), (":path", b"/v1/models"), (":odd", b"1")],
        vec![(":method", b"GET"), (":scheme", b"http"), (":path", b"")],
    ] {
        let mut http2 = Http2::connect(bench.edge.address, &[]);
        http2.send(Kind::Headers, END_HEADERS | END_STREAM, 1, &header_block(&pseudo));
        let outcome = http2.outcome(1);
        assert!(refused(&outcome), "{pseudo:?}: {outcome:?}");
    }
    bench.assert_nothing_whole("fields");
    unharmed(&bench, before);
}

#[test]
fn r25_streams_opened_and_reset_by_the_thousand() {
    let bench = Bench::start();
    let before = bench.edge.memory();
    let block = upload_block(&Form::of(&[]).content_type(), &[]);
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    let mut stopped = false;
    for round in 0..5000_u32 {
        let stream = 2 * round + 1;
        let open = frame(Kind::Headers, END_HEADERS, stream, &block);
        let reset = frame(Kind::Reset, 0, stream, &8_u32.to_be_bytes());
        if http2.offer_bytes(&[open, reset].concat()).is_err() {
            stopped = true;
            break;
        }
    }
    bench.assert_nothing_whole("resets");
    unharmed(&bench, before);
    assert!(stopped || http2.outcome(1) == Outcome::Ended, "nobody stopped the flood");
}

#[test]
fn r25_a_header_block_that_never_ends() {
    let bench = Bench::start();
    let before = bench.edge.memory();
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    http2.send(Kind::Headers, 0, 1, &upload_block("multipart/form-data; boundary=x", &[]));
    let value = "v".repeat(16_000);
    let block = header_block(&[("x-flood", value.as_bytes())]);
    let continuation = frame(Kind::Continuation, 0, 1, &block);
    let stopped = (0..4000).any(|_| http2.offer_bytes(&continuation).is_err());
    assert!(stopped || http2.outcome(1) == Outcome::Ended, "nobody stopped the flood");
    unharmed(&bench, before);
}

#[test]
fn r25_a_client_that_takes_no_answer() {
    let bench = Bench::start();
    let before = bench.edge.memory();
    // All of them together fit into the window that a connection has from the start.
    let form = Form::of(&wav(1000));
    // No window for answers at all.
    let mut stalled = Http2::connect(bench.edge.address, &[(4, 0)]);
    for round in 0..20 {
        let stream = 2 * round + 1;
        stalled.send(Kind::Headers, END_HEADERS, stream, &upload_block(&form.content_type(), &[]));
        stalled.send(Kind::Data, END_STREAM, stream, &form.closed());
    }
    let all = |seen: &[Seen]| seen.iter().filter(|seen| seen.is_complete()).count() == 20;
    bench.stub.wait("no upload waits for another's client", all);
    unharmed(&bench, before);
}

#[test]
fn r25_a_flood_of_empty_data() {
    let bench = Bench::start();
    let before = bench.edge.memory();
    let form = Form::of(&wav(3000));
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    http2.send(Kind::Headers, END_HEADERS, 1, &upload_block(&form.content_type(), &[]));
    let empty = frame(Kind::Data, 0, 1, &[]).repeat(100);
    for _ in 0..300 {
        if http2.offer_bytes(&empty).is_err() {
            break;
        }
    }
    unharmed(&bench, before);
    bench.stub.forget();
    drop(http2);
    std::thread::sleep(Duration::from_millis(100));
    bench.assert_nothing_whole("empty data");
}
