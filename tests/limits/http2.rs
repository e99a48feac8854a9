//! The same over HTTP/2, where a connection carries many requests and a client can say when it takes an answer.

use std::time::{Duration, Instant};

use super::{HEALTH, MODELS, limited, unharmed};
use crate::harness::{
    END_HEADERS, END_STREAM, Form, Http2, KEY, Kind, Outcome, STATUS_200, eventually, frame, header_block,
    upload_block, wav,
};

/// The header block of a GET.
fn block(path: &str) -> Vec<u8> {
    let key = format!("Bearer {KEY}");
    header_block(&[
        (":method", b"GET"),
        (":scheme", b"http"),
        (":authority", b"asr.test"),
        (":path", path.as_bytes()),
        ("authorization", key.as_bytes()),
    ])
}

fn ask(http2: &mut Http2, stream: u32, path: &str) {
    http2.send(Kind::Headers, END_HEADERS | END_STREAM, stream, &block(path));
}

/// Reads until the connection ends; the codes of what GOAWAY said on the way.
fn goaways(http2: &mut Http2) -> Vec<u32> {
    let mut codes = Vec::new();
    while let Ok(frame) = http2.frame() {
        if frame.kind == Kind::GoAway {
            codes.push(u32::from_be_bytes(frame.payload[4..8].try_into().unwrap()));
        }
    }
    codes
}

#[test]
fn an_idle_connection_ends_after_the_configured_time() {
    let bench = limited("idle_timeout = \"1s\"");
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    ask(&mut http2, 1, HEALTH);
    assert!(matches!(http2.outcome(1), Outcome::Answered(STATUS_200, _)));
    let start = Instant::now();
    goaways(&mut http2);
    let took = start.elapsed();
    assert!(took > Duration::from_millis(700) && took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn after_its_last_request_a_connection_says_goaway_and_ends() {
    let bench = limited("requests_per_connection = 3");
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    for stream in [1, 3, 5] {
        ask(&mut http2, stream, HEALTH);
        assert!(matches!(http2.outcome(stream), Outcome::Answered(STATUS_200, _)), "stream {stream}");
    }
    let start = Instant::now();
    let codes = goaways(&mut http2);
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == 0), "{codes:?}");
    assert!(start.elapsed() < Duration::from_secs(10));
    unharmed(&bench);
}

#[test]
fn an_upload_that_was_under_way_when_goaway_was_said_is_served() {
    let bench = limited("requests_per_connection = 2");
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    let form = Form::of(&wav(20_000));
    http2.send(Kind::Headers, END_HEADERS, 1, &upload_block(&form.content_type(), &[]));
    ask(&mut http2, 3, HEALTH);
    // Longer than a connection without anything to do would stay.
    std::thread::sleep(Duration::from_secs(7));
    http2.send_body(1, &form.closed());
    assert!(matches!(http2.outcome(1), Outcome::Answered(STATUS_200, _)));
}

#[test]
fn who_goes_on_after_goaway_and_reads_nothing_is_cut_off() {
    let bench = limited("requests_per_connection = 3");
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    let start = Instant::now();
    let block = block(HEALTH);
    let stopped = (0..5000_u32).any(|n| {
        // One after the other: as many at once as there may be would be refused for that alone.
        std::thread::sleep(Duration::from_millis(1));
        let reset = frame(Kind::Reset, 0, 2 * n + 1, &8_u32.to_be_bytes());
        let open = frame(Kind::Headers, END_HEADERS | END_STREAM, 2 * n + 1, &block);
        http2.offer_bytes(&[open, reset].concat()).is_err()
    });
    assert!(stopped, "5000 requests were taken");
    assert!(start.elapsed() < Duration::from_secs(10));
    unharmed(&bench);
}

#[test]
fn a_client_that_takes_no_answer_is_not_waited_for() {
    let bench = limited("body_timeout = \"1s\"");
    // No window for answers.
    let mut http2 = Http2::connect(bench.edge.address, &[(4, 0)]);
    for stream in [1, 3, 5] {
        ask(&mut http2, stream, MODELS);
    }
    let start = Instant::now();
    let mut reset = Vec::new();
    while reset.len() < 3 {
        let frame = http2.frame().unwrap_or_else(|ending| panic!("{ending:?} after {reset:?}"));
        if frame.kind == Kind::Reset {
            reset.push(frame.stream);
        }
    }
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    unharmed(&bench);
}

#[test]
fn a_body_that_trickles_is_told_408() {
    let bench = limited("body_timeout = \"1s\"\nbody_floor = \"120KiB\"");
    let form = Form::of(&wav(30_000));
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    http2.send(Kind::Headers, END_HEADERS, 1, &upload_block(&form.content_type(), &[]));
    let start = Instant::now();
    for _ in 0..40 {
        std::thread::sleep(Duration::from_millis(100));
        let _ = http2.offer(Kind::Data, 0, 1, b"x");
    }
    let Outcome::Answered(_, body) = http2.outcome(1) else { panic!("no answer") };
    assert!(String::from_utf8_lossy(&body).contains("body"), "{}", String::from_utf8_lossy(&body));
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    eventually("the access line", || bench.edge.printed().contains("status=408").then_some(()));
    bench.assert_nothing_whole("a trickle");
}
