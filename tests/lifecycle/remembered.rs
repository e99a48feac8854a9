//! SIGHUP: what has been learned while running is not forgotten, unless the config says that it no longer holds.

use std::io::Write;

use serde_json::json;

use super::reload::{SERVER, reload, start};
use super::upload;
use crate::harness::{Bench, Launch, Puppet, Reply, Stub, TEXT, get};

/// A reload that says nothing of what is looked at here.
fn reload_logging(bench: &Bench, more: &str) {
    assert!(reload(&bench.edge, &format!("{SERVER}{more}[log]\nlevel = \"debug\"\n")));
}

/// What a rate limit of the upstream's own is answered with; how many requests it has seen since it forgot.
fn limited(bench: &Bench) -> usize {
    bench.ask(&upload()).refuses("a rate limit", 429, Some("rate_limit_exceeded"));
    bench.stub.seen().len()
}

/// The same, by the counter.
fn troubles(bench: &Bench) -> u64 {
    let page = bench.edge.admin_page("/metrics");
    let start = "asr_edge_upstream_troubles_total{upstream=\"codex\",trouble=\"rate_limit\"} ";
    page.text().lines().find_map(|line| line.strip_prefix(start)).unwrap().parse().unwrap()
}

#[test]
fn an_upstream_that_has_had_enough_is_still_left_alone() {
    let bench = start("");
    bench.stub.script(json!({"status": 429, "headers": {"retry-after": "300"}, "times": 1}));
    assert_eq!(limited(&bench), 1);
    reload_logging(&bench, "[limits]\nconcurrency = 3\n");
    assert_eq!((limited(&bench), troubles(&bench)), (1, 1), "it was not asked");
    reload_logging(&bench, "");
    assert_eq!((limited(&bench), troubles(&bench)), (1, 1), "however often");
    let status = bench.edge.admin_page("/status").json();
    assert_eq!(status["upstreams"]["codex"]["breakers"]["rate_limit"]["state"], "open", "{status}");
    // To another agent it may say something else.
    reload_logging(&bench, "[codex]\nuser_agent = \"other/1\"\n");
    assert_eq!(bench.ask(&upload()).status, 200);
}

#[test]
fn a_service_that_has_had_enough_is_left_alone_as_long_as_it_is_the_same() {
    // One connection a request.
    let puppet = || {
        Puppet::start(|mut socket, _| {
            if Puppet::read_request(&mut socket) {
                let head =
                    "HTTP/1.1 429 x\r\nretry-after: 300\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = socket.write_all(head.as_bytes());
            }
        })
    };
    let (one, other) = (puppet(), puppet());
    let service = |puppet: &Puppet| {
        let url = puppet.url();
        format!("[[service]]\nname = \"own\"\nkind = \"codex\"\nurl = \"{url}\"\nmodels = [\"whisper-1\"]\n")
    };
    let bench = start(&service(&one));
    let asked = || {
        limited(&bench);
        (one.connections(), other.connections())
    };
    assert_eq!(asked(), (1, 0));
    reload_logging(&bench, &service(&one));
    assert_eq!(asked(), (1, 0));
    reload_logging(&bench, &service(&other));
    assert_eq!(asked(), (1, 1), "that is another one");
}

#[test]
fn another_login_passes_where_the_old_one_was_limited_and_the_same_one_does_not() {
    let stub = Stub::start(&["--text", TEXT]);
    let auth = |token| json!({"tokens": {"access_token": token, "account_id": "acct-1"}}).to_string();
    let launch = Launch::to(&stub).auth_file(&auth("one")).config(SERVER);
    let edge = launch.flags(&["--admin", "127.0.0.1:0"]).start();
    let bench = Bench { edge, stub };
    bench.stub.script(json!({"status": 429, "headers": {"retry-after": "300"}, "times": 1}));
    assert_eq!(limited(&bench), 1);
    reload_logging(&bench, "");
    assert_eq!(limited(&bench), 1);
    bench.edge.replace("auth.json", &auth("two"));
    reload_logging(&bench, "");
    assert_eq!(bench.ask(&upload()).status, 200);
    assert_eq!(bench.stub.seen()[1].header("authorization"), Some("Bearer two"));
    // A file that is being written when the config is read again.
    bench.edge.replace("auth.json", "{\"tokens\":");
    reload_logging(&bench, "");
    assert_eq!(bench.ask(&upload()).status, 200, "the login that was last read");
}

#[test]
fn cookies_and_connections_are_kept_as_long_as_the_upstream_is_the_same() {
    let bench = start("");
    bench.stub.script(json!({"set_cookie": ["__cf_bm=kept; path=/"], "text": TEXT, "times": 1}));
    assert_eq!(bench.ask(&upload()).status, 200);
    reload_logging(&bench, "");
    assert_eq!(bench.ask(&upload()).status, 200);
    reload_logging(&bench, "[codex]\noriginator = \"other\"\n");
    assert_eq!(bench.ask(&upload()).status, 200);
    let seen = bench.stub.seen();
    let cookies: Vec<_> = seen.iter().map(|seen| seen.header("cookie")).collect();
    assert_eq!(cookies, [None, Some("__cf_bm=kept"), None]);
    assert_eq!(seen[0].connection(), seen[1].connection());
    assert_ne!(seen[0].connection(), seen[2].connection());
}

#[test]
fn whoever_guesses_keys_gets_no_fresh_budget() {
    let limit = |number: u32| format!("[limits]\nfailed_keys_per_minute = {number}\n");
    let bench = start(&limit(2));
    let guess = || bench.ask(&get("/v1/models").set("Authorization", "Bearer sk-guess"));
    let is_refused = |reply: &Reply, longest: u64| {
        reply.refuses("after too many wrong keys", 429, Some("rate_limit_exceeded"));
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=longest).contains(&wait), "{wait}");
    };
    for _ in 0..4 {
        assert_eq!(guess().status, 401);
    }
    is_refused(&guess(), 30);
    reload_logging(&bench, &limit(2));
    is_refused(&guess(), 30);
    is_refused(&bench.ask(&get("/v1/models")), 30);
    reload_logging(&bench, &limit(1));
    is_refused(&guess(), 60);
    reload_logging(&bench, &limit(0));
    assert_eq!(guess().status, 401, "no limit");
    assert_eq!(bench.ask(&get("/v1/models")).status, 200);
}
