//! Answers that are no transcript.

use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{Bench, Form, Launch, Puppet, Reply, Request, transcript, wav};

fn upload() -> Request {
    Request::post(&Form::of(&wav(3000)))
}

fn told(bench: &Bench, script: Value) -> Reply {
    bench.stub.script(script);
    bench.ask(&upload())
}

#[test]
fn a_challenge_page_is_named_and_not_worth_a_retry() {
    let bench = Bench::start();
    let reply = told(&bench, json!({"challenge": true}));
    reply.refuses("challenge", 502, Some("upstream_challenge"));
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    assert!(!reply.text().contains('<'), "{reply:?}");
    assert_eq!(bench.stub.seen().len(), 1, "one try");
}

#[test]
fn an_upload_too_large_for_the_upstream_is_413() {
    let bench = Bench::start();
    let reply = told(&bench, json!({"status": 413, "body": "<html>Request Entity Too Large</html>"}));
    let error = reply.refuses("413", 413, Some("upstream_too_large"));
    assert_eq!(error["type"], "server_error");
}

#[test]
fn audio_that_the_upstream_cannot_read_is_the_client_s_fault() {
    let bench = Bench::start();
    let reply = told(&bench, json!({"status": 500, "body": {"detail": "Error in ASR API"}}));
    let error = reply.refuses("ASR", 400, Some("invalid_value"));
    assert_eq!(error["param"], "file");
    assert_eq!(reply.header("x-should-retry"), Some("false"));
}

#[test]
fn a_failing_upstream_is_502_and_may_be_tried_again() {
    let bench = Bench::start();
    for (status, body) in [
        (500, json!({"detail": "Something else"})),
        (502, json!("<html>bad gateway</html>")),
        (503, json!("")),
        (599, json!("?")),
        (408, json!("")),
    ] {
        let reply = told(&bench, json!({"status": status, "body": body}));
        let error = reply.refuses(&status.to_string(), 502, Some("upstream_unavailable"));
        assert_eq!(error["type"], "server_error");
        assert_eq!(reply.header("x-should-retry"), None, "{status}");
    }
    let reply = told(&bench, json!({"status": 503, "headers": {"retry-after": "3"}}));
    assert_eq!(reply.header("retry-after"), Some("3"));
}

#[test]
fn a_refusal_that_nobody_understands_is_502_and_final() {
    let bench = Bench::start();
    for status in [302, 400, 404, 411, 422] {
        let reply = told(&bench, json!({"status": status, "body": {"detail": "secret reasons"}}));
        reply.refuses(&status.to_string(), 502, Some("upstream_refused"));
        assert_eq!(reply.header("x-should-retry"), Some("false"), "{status}");
        assert!(!reply.text().contains("secret reasons"), "{status}");
    }
}

#[test]
fn a_success_without_a_text_is_502() {
    let bench = Bench::start();
    for body in [
        json!("<!DOCTYPE html><html>Welcome</html>"),
        json!(""),
        json!("{\"text\":\"cut"),
        json!({}),
        json!({"text": null}),
        json!({"text": 7}),
        json!(["text"]),
    ] {
        let reply = told(&bench, json!({"status": 200, "body": body}));
        reply.refuses(&body.to_string(), 502, Some("upstream_broken"));
    }
}

#[test]
fn silence_is_a_success() {
    let bench = Bench::start();
    let reply = told(&bench, json!({"status": 200, "body": {"text": ""}}));
    assert_eq!((reply.status, reply.json()), (200, transcript("", 1)));
}

#[test]
fn other_keys_beside_the_text_do_no_harm() {
    let bench = Bench::start();
    let body = json!({"asset_pointer": "x", "text": "hi", "segments": [1, 2]});
    assert_eq!(told(&bench, json!({"body": body})).json(), transcript("hi", 1));
}

#[test]
fn a_rate_limit_passes_on_how_long_it_lasts() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(30));
    for (what, headers, body, least, most) in [
        ("seconds", json!({"retry-after": "7"}), json!(""), 7, 7),
        ("a date", json!({"retry-after": date}), json!(""), 25, 31),
        (
            "resets_in_seconds",
            json!({}),
            json!({"error": {"type": "usage_limit_reached", "resets_in_seconds": 42}}),
            42,
            42,
        ),
        (
            "resets_at",
            json!({}),
            json!({"error": {"type": "usage_limit_reached", "resets_at": now + 50}}),
            45,
            51,
        ),
        ("no hint", json!({}), json!({"detail": "slow down"}), 1, 60),
    ] {
        let bench = Bench::start();
        let reply = told(&bench, json!({"status": 429, "headers": headers, "body": body}));
        let error = reply.refuses(what, 429, Some("rate_limit_exceeded"));
        assert_eq!(error["type"], "requests", "{what}");
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((least..=most).contains(&wait), "{what}: {wait}");
        assert_eq!(reply.header("x-should-retry"), None, "{what}");
    }
}

#[test]
fn a_rate_limit_of_an_hour_forbids_the_retry_that_node_would_sleep_for() {
    let bench = Bench::start();
    let body = json!({"error": {"type": "usage_limit_reached", "resets_in_seconds": 3600}});
    let reply = told(&bench, json!({"status": 429, "body": body}));
    reply.refuses("an hour", 429, Some("rate_limit_exceeded"));
    assert_eq!(reply.header("retry-after"), Some("3600"));
    assert_eq!(reply.header("x-should-retry"), Some("false"));
}

#[test]
fn an_informational_answer_is_waited_past() {
    let bench = Bench::start();
    bench.stub.script(json!({"informational": 103, "text": "after 103"}));
    assert_eq!(bench.ask(&upload()).json()["text"], "after 103");
}

#[test]
fn an_answer_without_an_end_is_cut_off() {
    let puppet = Puppet::start(|mut socket, _| {
        if !Puppet::read_request(&mut socket) {
            return;
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000000\r\n\r\n{\"text\":\"";
        let _ = socket.write_all(head.as_bytes());
        let piece = [b'a'; 64 * 1024];
        while socket.write_all(&piece).is_ok() {}
    });
    let edge = Launch::at(&puppet.url()).start();
    let before = edge.memory();
    let reply = edge.ask(&upload());
    reply.refuses("endless", 502, Some("upstream_broken"));
    assert!(edge.memory().saturating_sub(before) < 96 * 1024);
}

#[test]
fn an_answer_that_is_not_http_is_502() {
    for answer in [
        "SSH-2.0-OpenSSH\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header\r\n\r\n{\"text\":\"x\"}",
    ] {
        let puppet = Puppet::start(move |mut socket, _| {
            if Puppet::read_request(&mut socket) {
                let _ = socket.write_all(answer.as_bytes());
            }
        });
        let reply = Launch::at(&puppet.url()).start().ask(&upload());
        assert_eq!(reply.status, 502, "{answer}: {reply:?}");
        reply.is_ours(answer);
        assert!(reply.error()["code"].as_str().unwrap().starts_with("upstream_"), "{answer}");
    }
}

#[test]
fn not_one_client_header_passes() {
    let bench = Bench::start();
    let request = upload()
        .header("Cookie", "mine=1; __cf_bm=client")
        .header("User-Agent", "OpenAI/Python 3.51.0")
        .header("X-Stainless-Lang", "python")
        .header("OpenAI-Organization", "org")
        .header("Idempotency-Key", "k")
        .header("Accept", "*/*")
        .header("X-Forwarded-For", "203.0.113.9")
        .header("originator", "evil")
        .header("ChatGPT-Account-Id", "evil");
    let (_, seen) = bench.accepts("headers", &request, &wav(3000));
    assert_eq!(seen.header("originator"), Some("Codex Desktop"));
    assert_eq!(seen.header("chatgpt-account-id"), Some(crate::harness::ACCOUNT));
    assert_eq!(seen.header("authorization"), Some(format!("Bearer {}", crate::harness::TOKEN).as_str()));
    assert!(seen.header("user-agent").unwrap().starts_with("Codex Desktop/"));
}
