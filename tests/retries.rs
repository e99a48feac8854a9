//! What is tried again, by us and by the client: once, when it may help, within the time there is, and as told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, unused_imports)]
mod harness;

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use harness::{Bench, Form, Reply, Request, Seen, Stub, TEXT, sha256, transcript, wav};

fn upload() -> Request {
    Request::post(&Form::of(&wav(3000)))
}

fn told(bench: &Bench, script: Value) -> Reply {
    bench.stub.forget();
    bench.stub.script(script);
    bench.ask(&upload())
}

fn whole(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| seen.is_complete()).count()
}

#[test]
fn a_failure_that_passes_is_never_seen_by_the_client() {
    let bench = Bench::start();
    for status in [408, 425, 500, 502, 503, 504, 529] {
        let start = Instant::now();
        let reply = told(&bench, json!({"status": status, "body": "<html>", "times": 1}));
        assert_eq!((reply.status, reply.json()), (200, transcript(TEXT, 1)), "{status}: {reply:?}");
        assert!(start.elapsed() > Duration::from_millis(280), "{status}: not at once");
        let seen = bench.stub.seen();
        assert_eq!(whole(&seen), 2, "{status}: {seen:?}");
        assert!(seen.iter().all(|seen| seen.audio_hash() == sha256(&wav(3000))), "{status}: {seen:?}");
        assert!(seen.iter().all(|seen| seen.breach().is_none()), "{status}: {seen:?}");
    }
}

#[test]
fn a_failure_that_lasts_is_told_after_one_more_try() {
    let bench = Bench::start();
    let reply = told(&bench, json!({"status": 503}));
    reply.refuses("503", 502, Some("upstream_unavailable"));
    assert_eq!(reply.header("x-should-retry"), None);
    assert_eq!(whole(&bench.stub.seen()), 2);
}

#[test]
fn what_fails_again_is_not_sent_again() {
    let bench = Bench::start();
    for (script, status) in [
        (json!({"status": 500, "body": {"detail": "Error in ASR API"}}), 400),
        (json!({"challenge": true}), 502),
        (json!({"status": 503, "headers": {"cf-mitigated": "challenge"}}), 502),
        (json!({"status": 403, "body": {"detail": "no"}}), 503),
        (json!({"status": 422}), 502),
        (json!({"status": 413}), 413),
        (json!({"status": 429, "headers": {"retry-after": "1"}}), 429),
        (json!({"status": 503, "headers": {"x-should-retry": "false"}}), 502),
        (json!({"status": 503, "headers": {"retry-after": "30"}}), 502),
    ] {
        // Each with a program of its own: what it has been told before must not matter.
        let bench = if status == 502 || status == 429 { &Bench::start() } else { &bench };
        let reply = told(bench, script.clone());
        assert_eq!(reply.status, status, "{script}: {reply:?}");
        assert_eq!(bench.stub.seen().len(), 1, "{script}");
    }
}

#[test]
fn an_upstream_s_short_wait_is_kept_before_the_second_try() {
    let bench = Bench::start();
    for headers in [json!({"retry-after": "1"}), json!({"retry-after-ms": "900", "retry-after": "60"})] {
        let start = Instant::now();
        let reply = told(&bench, json!({"status": 503, "headers": headers, "times": 1}));
        assert_eq!(reply.status, 200, "{headers}: {reply:?}");
        assert!(start.elapsed() >= Duration::from_millis(900), "{headers}: {:?}", start.elapsed());
    }
}

#[test]
fn a_spooled_body_is_sent_again_and_a_long_one_that_is_not_kept_is_not() {
    let stub = Stub::start(&["--text", TEXT, "--no-h2"]);
    let bench = Bench::before(stub, |launch| launch);
    let audio = wav(3 << 20);
    let request = Request::post(&Form::of(&audio));
    bench.stub.script(json!({"status": 503, "times": 1}));
    assert_eq!(bench.ask(&request.clone().chunked(60_000)).status, 200);
    let seen = bench.stub.seen();
    assert_eq!(whole(&seen), 2, "{seen:?}");
    assert_eq!(seen[1].audio_hash(), sha256(&audio));

    bench.stub.forget();
    bench.stub.script(json!({"status": 503, "times": 1}));
    bench.ask(&request).refuses("3 MiB", 502, Some("upstream_unavailable"));
    assert_eq!(bench.stub.seen().len(), 1);
}

#[test]
fn a_failure_in_the_midst_of_a_short_upload_is_tried_again_too() {
    let bench = Bench::start();
    let bytes = Request::post(&Form::of(&wav(200_000))).bytes();
    bench.stub.script(json!({"early": true, "early_after": 20_000, "status": 503, "times": 1}));
    let mut wire = bench.edge.wire();
    wire.send(&bytes[..100_000]);
    bench.stub.wait("the second try", |seen| seen.len() == 2);
    wire.send(&bytes[100_000..]);
    assert_eq!(wire.reply().status, 200);
    let seen = bench.stub.seen();
    assert_eq!(seen[1].audio_hash(), sha256(&wav(200_000)), "{seen:?}");
}

#[test]
fn there_is_no_second_try_without_the_time_for_it() {
    let bench = Bench::with(|launch| launch.flags(&["--request-timeout-seconds", "2"]));
    let reply = told(&bench, json!({"status": 503, "delay_ms": 1200}));
    reply.refuses("late", 502, Some("upstream_unavailable"));
    assert_eq!(bench.stub.seen().len(), 1);
}

#[test]
fn a_client_s_own_deadline_shortens_ours() {
    let bench = Bench::start();
    for header in ["x-stainless-read-timeout", "X-Stainless-Timeout"] {
        bench.stub.script(json!({"delay_ms": 25000, "times": 1}));
        let start = Instant::now();
        bench.ask(&upload().header(header, "1")).refuses(header, 504, Some("upstream_timeout"));
        assert!(start.elapsed() < Duration::from_secs(15), "{header}: {:?}", start.elapsed());
    }
    bench.stub.script(json!({"delay_ms": 1500, "times": 1}));
    for junk in ["600", "0", "None", "-1"] {
        let reply = bench.ask(&upload().header("x-stainless-read-timeout", junk));
        assert_eq!(reply.status, 200, "{junk}: {reply:?}");
    }
}

#[test]
fn every_form_of_a_rate_limit_reaches_the_client_as_one() {
    for (headers, body, seconds, again) in [
        (json!({"retry-after-ms": "1500"}), json!(""), "2", true),
        (json!({}), json!({"error": {"message": "Please try again in 1m30s."}}), "90", false),
        (json!({}), json!({"detail": "Rate limited. Try again in 20 seconds"}), "20", true),
        (json!({}), json!({"error": {"type": "insufficient_quota"}}), "120", false),
        (json!({"x-should-retry": "false", "retry-after": "1"}), json!(""), "120", false),
    ] {
        let bench = Bench::start();
        let reply = told(&bench, json!({"status": 429, "headers": headers, "body": body}));
        reply.refuses(&body.to_string(), 429, Some("rate_limit_exceeded"));
        assert_eq!(reply.header("retry-after"), Some(seconds), "{headers} {body}");
        assert_eq!(reply.header("x-should-retry"), (!again).then_some("false"), "{headers} {body}");
    }
}

#[test]
fn cloudflare_s_cookies_come_back_with_the_next_request_and_none_other() {
    for flags in [&[][..], &["--tls"]] {
        let bench = Bench::before(Stub::start(&[&["--text", TEXT], flags].concat()), |launch| launch);
        let client = upload().header("Cookie", "__cf_bm=client; mine=1");
        bench.stub.script(json!({"set_cookie": [
            "__cf_bm=first; path=/; HttpOnly; Secure; Max-Age=1800",
            "_cfuvid=second; path=/; HttpOnly; Secure; SameSite=None",
            "session=planted; path=/",
        ], "times": 1}));
        assert_eq!(bench.ask(&client).status, 200);
        assert_eq!(bench.ask(&client).status, 200);
        let seen = bench.stub.seen();
        assert_eq!(seen[0].header("cookie"), None, "{flags:?}: {seen:?}");
        assert_eq!(seen[1].header("cookie"), Some("__cf_bm=first; _cfuvid=second"), "{flags:?}: {seen:?}");
        assert!(!bench.edge.printed().contains("first"));
    }
}

#[test]
fn a_cookie_that_comes_with_a_failure_goes_with_the_second_try() {
    let bench = Bench::start();
    let reply = told(&bench, json!({"status": 503, "set_cookie": ["__cf_bm=of-503; path=/"], "times": 1}));
    assert_eq!((reply.status, reply.header("set-cookie")), (200, None));
    assert_eq!(bench.stub.seen()[1].header("cookie"), Some("__cf_bm=of-503"));
}
