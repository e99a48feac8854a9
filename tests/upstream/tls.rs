//! TLS to the upstream: verified, with HTTP/2 where it is offered.

use crate::harness::{Bench, Form, Launch, Request, Stub, TEXT, wav};

fn upload() -> Request {
    Request::post(&Form::of(&wav(3000)))
}

#[test]
fn a_private_root_makes_the_upstream_trusted_and_http2_is_spoken() {
    let bench = Bench::before(Stub::start(&["--tls", "--text", TEXT]), |launch| launch);
    for _ in 0..3 {
        let (_, seen) = bench.accepts("tls", &upload(), &wav(3000));
        assert_eq!(seen.protocol(), "HTTP/2");
        assert_eq!(seen.declared(), Some(seen.body_bytes()));
    }
}

#[test]
fn an_upstream_without_http2_is_spoken_to_over_http_1() {
    let bench = Bench::before(Stub::start(&["--tls", "--no-h2", "--text", TEXT]), |launch| launch);
    let (_, seen) = bench.accepts("tls", &upload(), &wav(3000));
    assert_eq!(seen.protocol(), "HTTP/1.1");
}

#[test]
fn uploads_at_the_same_time_share_http2_connections() {
    let bench = Bench::before(Stub::start(&["--tls", "--text", TEXT]), |launch| launch);
    bench.stub.script(serde_json::json!({"delay_ms": 1500}));
    let mut wires: Vec<_> = (0..8).map(|_| bench.edge.wire()).collect();
    // One behind the other: while a connection is looked at, another request makes one of its own.
    for (n, wire) in wires.iter_mut().enumerate() {
        wire.send(upload().bytes());
        bench.stub.wait("the next one", |seen| seen.len() > n);
    }
    for wire in &mut wires {
        assert_eq!(wire.reply().status, 200);
    }
    let seen = bench.stub.seen();
    assert_eq!(seen.len(), 8);
    let mut connections: Vec<u64> = seen.iter().map(crate::harness::Seen::connection).collect();
    connections.sort_unstable();
    connections.dedup();
    assert!(connections.len() <= 2, "{connections:?}");
}

#[test]
fn an_upstream_with_a_root_that_nobody_trusts_never_gets_a_request() {
    let stub = Stub::start(&["--tls", "--text", TEXT]);
    let other = Stub::start(&["--tls"]);
    let wrong = other.root().unwrap().to_str().unwrap().to_owned();
    for launch in [Launch::at(&stub.url()), Launch::at(&stub.url()).flags(&["--ca-root", &wrong])] {
        let edge = launch.start();
        edge.ask(&upload()).refuses("untrusted", 502, Some("upstream_unreachable"));
    }
    assert!(stub.seen().is_empty());
}

#[test]
fn an_upstream_under_another_name_never_gets_a_request() {
    let stub = Stub::start(&["--tls", "--text", TEXT]);
    // The certificate is for localhost and the loopback addresses.
    let url = stub.url().replace("localhost", "other.localhost");
    let root = stub.root().unwrap().to_str().unwrap().to_owned();
    let edge = Launch::at(&url).flags(&["--ca-root", &root]).start();
    edge.ask(&upload()).refuses("another name", 502, Some("upstream_unreachable"));
    assert!(stub.seen().is_empty());
}

#[test]
fn http2_faults_are_told_like_others() {
    let bench = Bench::before(Stub::start(&["--tls", "--text", TEXT]), |launch| launch);
    for point in ["after_head", "mid_body_after:100", "before_answer", "mid_answer"] {
        bench.stub.script(serde_json::json!({"drop": point}));
        let reply = bench.ask(&upload());
        assert_eq!(reply.status, 502, "{point}: {reply:?}");
        reply.is_ours(point);
    }
    bench.stub.script(serde_json::json!({"drop": "after_head", "hang_up": true, "times": 1}));
    bench.ask(&upload());
    assert_eq!(bench.ask(&upload()).status, 200, "and the next one is fine");
}
