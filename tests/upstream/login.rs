//! The login: refused upstream, replaced on disk, expired.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use crate::harness::{Bench, Form, Request, eventually, wav};

fn upload() -> Request {
    Request::post(&Form::of(&wav(3000)))
}

fn auth(token: &str) -> String {
    json!({"auth_mode": "chatgpt", "tokens": {"access_token": token, "account_id": "acct-1"}}).to_string()
}

/// A token that says when it ends and whose it is.
fn jwt(expires: u64) -> String {
    let claims = json!({"exp": expires, "https://api.openai.com/auth": {"chatgpt_account_id": "acct-claim"}});
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

#[test]
fn a_login_that_is_refused_is_never_the_client_s_401() {
    let bench = Bench::start();
    bench.stub.script(json!({"status": 401, "body": {"error": {"code": "token_expired"}}}));
    let reply = bench.ask(&upload());
    reply.refuses("401", 503, Some("upstream_auth"));
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    assert_eq!(reply.header("www-authenticate"), None);
    assert_eq!(bench.stub.seen().len(), 1, "the same login is not tried again");
    bench.stub.script(json!({"status": 403, "body": {"detail": "forbidden"}}));
    bench.ask(&upload()).refuses("403", 503, Some("upstream_auth"));
}

#[test]
fn a_login_file_that_did_not_change_is_read_again_but_not_tried_again() {
    let bench = Bench::with(|launch| launch.auth_file(&auth("old-token")));
    bench.stub.script(json!({"status": 401}));
    bench.ask(&upload()).refuses("401", 503, Some("upstream_auth"));
    assert_eq!(bench.stub.seen().len(), 1);
}

#[test]
fn a_login_replaced_while_the_old_one_was_refused_is_tried_once_with_the_whole_upload() {
    let bench = Bench::with(|launch| launch.auth_file(&auth("old-token")));
    bench.stub.script(json!({"status": 401, "delay_ms": 800, "times": 1}));
    let audio = wav(3000);
    let mut wire = bench.edge.wire();
    wire.send(Request::post(&Form::of(&audio)).bytes());
    bench.stub.wait("the first try", |seen| seen.len() == 1);
    bench.edge.replace("auth.json", &auth("new-token"));
    assert_eq!(wire.reply().status, 200);
    let seen = bench.stub.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[0].header("authorization"), Some("Bearer old-token"));
    assert_eq!(seen[1].header("authorization"), Some("Bearer new-token"));
    assert_eq!(seen[0].audio_hash(), seen[1].audio_hash());
}

#[test]
fn a_login_refused_twice_is_not_tried_a_third_time() {
    let bench = Bench::with(|launch| launch.auth_file(&auth("old-token")));
    bench.stub.script(json!({"status": 401, "delay_ms": 500}));
    let mut wire = bench.edge.wire();
    wire.send(upload().bytes());
    bench.stub.wait("the first try", |seen| seen.len() == 1);
    bench.edge.replace("auth.json", &auth("new-token"));
    wire.reply().refuses("twice", 503, Some("upstream_auth"));
    assert_eq!(bench.stub.seen().len(), 2);
}

#[test]
fn a_replaced_login_is_used_without_a_restart_and_a_broken_one_is_not() {
    let bench = Bench::with(|launch| launch.auth_file(&auth("first-token")));
    assert_eq!(bench.ask(&upload()).status, 200);
    bench.edge.replace("auth.json", "{\"tokens\": {\"access_tok");
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(bench.ask(&upload()).status, 200, "the last good one stays");
    bench.edge.replace("auth.json", &auth("second-token"));
    eventually("the new login", || {
        bench.stub.forget();
        assert_eq!(bench.ask(&upload()).status, 200);
        (bench.stub.seen()[0].header("authorization") == Some("Bearer second-token")).then_some(())
    });
}

#[test]
fn a_login_that_has_run_out_is_told_before_the_upload() {
    let bench = Bench::with(|launch| launch.auth_file(&auth(&jwt(1_600_000_000))));
    let mut wire = bench.edge.wire();
    wire.send(upload().header("Expect", "100-continue").head());
    let reply = wire.reply();
    reply.refuses("expired", 503, Some("upstream_auth"));
    assert_eq!(reply.header("x-should-retry"), Some("false"));
    assert!(wire.informational.is_empty());
    assert!(bench.stub.seen().is_empty());
}

#[test]
fn the_account_comes_from_the_file_or_from_the_token_s_claim() {
    let with_claim = json!({"tokens": {"access_token": jwt(4_000_000_000)}}).to_string();
    for (file, account) in [(auth("t"), "acct-1"), (with_claim, "acct-claim")] {
        let bench = Bench::with(|launch| launch.auth_file(&file));
        let (_, seen) = bench.accepts(account, &upload(), &wav(3000));
        assert_eq!(seen.header("chatgpt-account-id"), Some(account));
    }
}
