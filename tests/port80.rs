//! Plain HTTP beside HTTPS: what browsers, CAs and misconfigured SDKs get there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, clippy::disallowed_methods)]

#[path = "tls/edge.rs"]
#[allow(dead_code, reason = "shared with the tests of TLS")]
mod edge;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use edge::{Answer, Edge, Folder, LONG, ask, get, rest};

const NAME: &str = "asr.example.com";

fn start() -> Edge {
    let limits = "[limits]\nhead_timeout = \"1s\"\nconnections_per_address = 2000\n";
    Edge::start(Folder::with(&[NAME, "127.0.0.1", "::1"]), "", limits)
}

fn tcp(edge: &Edge) -> TcpStream {
    let stream = TcpStream::connect(edge.port80).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

fn send(edge: &Edge, request: &str) -> Answer {
    ask(tcp(edge), request)
}

#[test]
fn browsers_are_sent_to_the_same_place_over_https() {
    let edge = start();
    let (plain, https) = (edge.port80.port(), edge.https.port());
    for (host, path, location) in [
        (NAME.to_owned(), "/", format!("https://{NAME}/")),
        (format!("{NAME}:80"), "/a?b=c&d=%20", format!("https://{NAME}/a?b=c&d=%20")),
        ("ASR.Example.com".to_owned(), "//evil.example/x", format!("https://{NAME}//evil.example/x")),
        (format!("127.0.0.1:{plain}"), "/v1/models", format!("https://127.0.0.1:{https}/v1/models")),
        ("[::1]".to_owned(), "/", "https://[::1]/".to_owned()),
    ] {
        let answer = send(&edge, &get(path, &host));
        assert_eq!((answer.status, answer.header("location")), (308, Some(&location[..])), "{answer:?}");
    }
    let head = send(&edge, &format!("HEAD /x HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
    assert_eq!((head.status, &head.body[..]), (308, ""));
}

#[test]
fn nobody_is_sent_to_a_host_that_is_not_ours() {
    let edge = start();
    for host in ["evil.example", "asr.example.com.evil.example", "127.0.0.2", ""] {
        let answer = send(&edge, &get("/", host));
        assert_eq!(answer.status, 421, "{host}: {answer:?}");
        assert_eq!(answer.header("location"), None);
    }
    // Pingora hangs up on some of these.
    let user = get("/", "asr.example.com@evil.example");
    assert_eq!(send(&edge, &user).header("location"), None);
    let absolute = "GET http://evil.example/ HTTP/1.1\r\nHost: asr.example.com\r\n\r\n";
    assert_eq!(send(&edge, absolute).header("location"), None);
    let twice = "GET / HTTP/1.1\r\nHost: asr.example.com\r\nHost: evil.example\r\n\r\n";
    assert_eq!(send(&edge, twice).header("location"), None);
}

#[test]
fn the_api_is_refused_loudly_and_never_redirected() {
    let edge = start();
    let body = "x".repeat(1_000_000);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request = format!(
            "{method} /v1/audio/transcriptions HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer sk-secret\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = send(&edge, &request);
        assert_eq!(answer.status, 403, "{method}: {answer:?}");
        let error: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(error["error"]["code"], "https_required");
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        assert!(answer.header("x-request-id").is_some_and(|id| id.starts_with("req_")));
        assert_eq!(answer.header("location"), None);
    }
    for key in ["Authorization: Bearer sk-secret", "X-API-Key: sk-secret", "api-key: sk-secret"] {
        let request = format!("GET /v1/models HTTP/1.1\r\nHost: {NAME}\r\n{key}\r\n\r\n");
        assert_eq!(send(&edge, &request).status, 403, "a redirect would hide that {key} was seen");
    }
    assert!(!edge.log().contains("sk-secret"));
}

#[test]
fn an_unknown_token_is_404_in_plain_text_and_warned_of_once() {
    let edge = start();
    for path in ["unknown-token_1", "", "..", "a/b", "%41", "a?b"] {
        let answer = send(&edge, &get(&format!("/.well-known/acme-challenge/{path}"), "anything.example"));
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (404, Some("text/plain")),
            "{path}: {answer:?}"
        );
        assert!(!answer.body.is_empty());
    }
    let post = "POST /.well-known/acme-challenge/a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let answer = send(&edge, post);
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{answer:?}");
    let log = edge.log();
    assert_eq!(log.matches("a challenge was asked for that is not ours").count(), 1, "{log}");
    assert!(log.contains("client=127.0.0.1 "), "{log}");
}

#[test]
fn slow_idle_and_broken_requests_leave_it_answering() {
    let edge = start();
    let _idle: Vec<_> = (0..300).map(|_| tcp(&edge)).collect();
    let mut slow = tcp(&edge);
    slow.write_all(b"GET / HTTP/1.1\r\nHos").unwrap();
    for garbage in [&b"\x16\x03\x01\x02\x00\x01\x00"[..], b"\0\0\0\r\n\r\n", b"GET\r\n\r\n"] {
        let mut stream = tcp(&edge);
        stream.write_all(garbage).unwrap();
    }
    assert_eq!(send(&edge, &get("/", NAME)).status, 308);
    let began = Instant::now();
    assert_eq!(rest(slow).status, 408);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}
