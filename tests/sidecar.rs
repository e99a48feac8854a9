//! In front of services that exist: the real binary, a service that tells what it got, and the stand-in for Codex.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)]

#[path = "sidecar/peer.rs"]
mod peer;

use std::fs;
use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tempfile::TempDir;

use peer::{
    KEY, LONG, Process, Service, ask, connect, form, get, head, header, read_head, reply, service, start,
    upload,
};

/// The edge with a login at `codex`, where there is one, and these services.
fn edge(codex: Option<&Process>, services: &str) -> Process {
    let endpoint = codex.map(|codex| format!("http://{}/backend-api/transcribe", codex.address));
    let mut flags = vec!["serve", "--port", "0", "--api-key", "k", "--log-level", "info"];
    if let Some(endpoint) = &endpoint {
        flags.extend(["--bearer", "t", "--endpoint", endpoint]);
    }
    start(&flags, Some(&format!("[codex]\nfirst_byte_timeout = \"1s\"\n{services}")))
}

fn stub() -> Process {
    start(&["upstream-stub", "--listen", "127.0.0.1:0", "--text", "from codex"], None)
}

fn entry(name: &str, address: impl std::fmt::Display, kind: &str, more: &str) -> String {
    format!("[[service]]\nname = \"{name}\"\nurl = \"http://{address}\"\nkind = \"{kind}\"\n{more}\n")
}

fn app(service: &Service) -> String {
    entry("app", service.address, "plain", "paths = [\"/app\"]")
}

fn whisper(service: &Service) -> String {
    entry("whisper", service.address, "openai", "models = [\"large\", \"gpt-transcribe\"]")
}

const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";

/// What Codex's transcript of the clip becomes.
const FROM_CODEX: &str = r#"{"text":"from codex","usage":{"type":"duration","seconds":4}}"#;

#[test]
fn a_request_below_a_services_path_passes_unchanged_both_ways() {
    let service = service();
    let edge = edge(None, &entry("app", format!("{}/base", service.address), "plain", "paths = [\"/app\"]"));

    let reply = get(&edge, "/app/a%20b?x=1&y=%2F", &format!("{KEY}X-Custom: Value\r\nCookie: c=1\r\n"));
    assert_eq!((reply.status, reply.body.as_str()), (201, "{\"text\":\"from the service\"}"));
    assert_eq!(header(&reply.head, "x-own").as_deref(), Some("yes"));
    let id = header(&reply.head, "x-request-id").unwrap();
    assert!(id.starts_with("req_"), "{id}");
    let got = service.last();
    assert!(got.head.starts_with("GET /base/app/a%20b?x=1&y=%2F HTTP/1.1\n"), "{}", got.head);
    assert_eq!(got.header("x-custom").as_deref(), Some("Value"));
    assert_eq!(got.header("cookie").as_deref(), Some("c=1"));
    assert_eq!(got.header("host").as_deref(), Some("edge.test"));
    assert_eq!(got.header("x-request-id"), Some(id));

    for (framing, body) in
        [("Content-Length: 5", "hello"), ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n")]
    {
        for method in ["POST", "PATCH", "DELETE"] {
            let request = format!("{method} /app HTTP/1.1\r\nHost: h\r\n{KEY}{framing}\r\n\r\n{body}");
            assert_eq!(ask(&edge, request.as_bytes()).status, 201, "{method} {framing}");
            let got = service.last();
            assert!(got.head.starts_with(&format!("{method} /base/app HTTP/1.1\n")), "{}", got.head);
            assert_eq!(got.body, b"hello");
        }
    }
    let before = service.got().len();
    assert_eq!(get(&edge, "/apple", KEY).status, 404);
    assert_eq!(service.got().len(), before);
}

#[test]
fn a_trace_is_passed_on_if_it_is_one() {
    let service = service();
    let edge = edge(None, &app(&service));
    let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    get(&edge, "/app", &format!("{KEY}traceparent: {valid}\r\ntracestate: a=1\r\n"));
    assert_eq!(service.last().header("traceparent").as_deref(), Some(valid));
    assert_eq!(service.last().header("tracestate").as_deref(), Some("a=1"));
    get(&edge, "/app", &format!("{KEY}traceparent: 00-none-at-all\r\ntracestate: a=1\r\n"));
    for name in ["traceparent", "tracestate"] {
        assert_eq!(service.last().header(name), None);
    }
}

#[test]
fn a_key_is_asked_for_and_stays_here() {
    let service = service();
    let edge = edge(None, &app(&service));
    assert_eq!(get(&edge, "/app", "").status, 401);
    let wrong = get(&edge, "/app", "X-API-Key: wrong\r\n");
    assert_eq!((wrong.status, &wrong.error()["code"]), (401, &Value::from("invalid_api_key")));
    assert!(service.got().is_empty());

    for key in
        ["Authorization: Bearer k", "X-API-Key: k", "api-key: k", "Authorization: Bearer k\r\napi-key: z"]
    {
        assert_eq!(get(&edge, "/app", &format!("{key}\r\n")).status, 201, "{key}");
        for name in ["authorization", "x-api-key", "api-key"] {
            assert_eq!(service.last().header(name), None, "{key}");
        }
    }
}

#[test]
fn where_no_key_is_asked_for_the_callers_own_passes() {
    let service = service();
    let config = format!("[keys]\nrequired = false\n{}", app(&service));
    let edge = start(&["serve", "--port", "0"], Some(&config));
    assert_eq!(get(&edge, "/app", "Authorization: Bearer theirs\r\n").status, 201);
    assert_eq!(service.last().header("authorization").as_deref(), Some("Bearer theirs"));
}

#[test]
fn forged_origins_and_hop_by_hop_headers_do_not_pass() {
    let service = service();
    let edge = edge(None, &app(&service));
    let forged = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\n\
                  X-Forwarded-Host: evil.test\r\nX-Forwarded-Port: 1\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
                  X-Request-Id: forged\r\nConnection: X-Hop\r\nX-Hop: 1\r\nTE: gzip\r\nProxy-Authorization: Basic x\r\n";
    assert_eq!(get(&edge, "/app", &format!("{KEY}{forged}")).status, 201);
    let got = service.last();
    assert_eq!(got.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(got.header("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(got.header("x-forwarded-host").as_deref(), Some("edge.test"));
    for gone in ["x-real-ip", "forwarded", "x-forwarded-port", "x-hop", "te", "proxy-authorization"] {
        assert_eq!(got.header(gone), None, "{gone}");
    }
    assert!(!got.head.contains("forged") && !got.head.contains("6.6.6.6") && !got.head.contains("7.7.7.7"));
    let hidden = get(&edge, "/app", &format!("{KEY}Connection: X-Forwarded-For\r\n"));
    assert_eq!(hidden.status, 400);
    assert_eq!(hidden.error()["type"], "invalid_request_error");
}

#[test]
fn an_answer_streams_through_while_it_is_made() {
    let service = service();
    let edge = edge(None, &app(&service));
    let mut stream = connect(&edge);
    stream.write_all(format!("GET /app/stream HTTP/1.1\r\nHost: h\r\n{KEY}\r\n").as_bytes()).unwrap();
    let mut so_far = String::new();
    while !so_far.contains("first\n") {
        let mut block = [0; 1024];
        let read = stream.read(&mut block).unwrap();
        assert!(read > 0, "{so_far}");
        so_far.push_str(std::str::from_utf8(&block[..read]).unwrap());
    }
    service.go_on.send(()).unwrap();
    while !so_far.ends_with("0\r\n\r\n") {
        let mut block = [0; 1024];
        let read = stream.read(&mut block).unwrap();
        assert!(read > 0, "{so_far}");
        so_far.push_str(std::str::from_utf8(&block[..read]).unwrap());
    }
    assert!(so_far.contains("second\n"), "{so_far}");
}

#[test]
fn a_websocket_passes() {
    let service = service();
    let edge = edge(None, &app(&service));
    let mut stream = connect(&edge);
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n";
    stream
        .write_all(format!("GET /app/socket HTTP/1.1\r\nHost: h\r\n{KEY}{upgrade}\r\n").as_bytes())
        .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    assert!(read_head(&mut reader).unwrap().starts_with("HTTP/1.1 101"));
    // Longer than any timeout of the request's own.
    thread::sleep(Duration::from_millis(1500));
    for word in ["hello", "again"] {
        stream.write_all(word.as_bytes()).unwrap();
        let mut echo = [0; 5];
        reader.read_exact(&mut echo).unwrap();
        assert_eq!(echo, word.to_uppercase().as_bytes());
    }
    assert_eq!(service.last().header("authorization"), None);
    stream.shutdown(Shutdown::Both).unwrap();
}

#[test]
fn the_model_in_the_form_decides_where_an_upload_goes() {
    let (service, codex) = (service(), stub());
    let edge = edge(Some(&codex), &whisper(&service));

    let body = form(&[("model", "large"), ("response_format", "srt"), ("file", "")]);
    for path in [
        TRANSCRIPTIONS,
        "/audio/transcriptions",
        "//v1/audio/transcriptions/",
        "/openai/v1/audio/transcriptions",
    ] {
        let reply = upload(&edge, path, &body);
        assert_eq!((reply.status, reply.body.as_str()), (201, "{\"text\":\"from the service\"}"), "{path}");
        let got = service.last();
        assert!(got.head.starts_with("POST /v1/audio/transcriptions HTTP/1.1\n"), "{}", got.head);
        assert_eq!(got.header("content-type").as_deref(), Some("multipart/form-data; boundary=bound"));
        assert_eq!(got.header("content-length"), Some(body.len().to_string()));
        assert_eq!(got.header("host"), Some(service.address.to_string()));
        assert!(got.body == body, "the form came as another one");
        assert_eq!(got.header("authorization"), None);
    }
    // A name of OpenAI's that a service claims is the service's.
    let claimed = form(&[("prompt", "p"), ("model", "gpt-transcribe"), ("file", "")]);
    assert_eq!(upload(&edge, TRANSCRIPTIONS, &claimed).status, 201);
    let azure = form(&[("file", "")]);
    assert_eq!(
        upload(&edge, "/openai/deployments/large/audio/transcriptions?api-version=1", &azure).status,
        201
    );
    assert!(service.last().head.starts_with("POST /v1/audio/transcriptions?api-version=1 HTTP/1.1\n"));
    assert_eq!(upload(&edge, "/v1/audio/translations", &body).status, 201);
    assert!(service.last().head.starts_with("POST /v1/audio/translations HTTP/1.1\n"));

    let before = service.got().len();
    for parts in [
        &[("model", "whisper-1"), ("file", "")][..],
        &[("file", ""), ("model", "whisper-1")],
        &[("prompt", "p"), ("file", "")],
    ] {
        let reply = upload(&edge, TRANSCRIPTIONS, &form(parts));
        assert_eq!((reply.status, reply.body.as_str()), (200, FROM_CODEX), "{parts:?}");
    }
    assert_eq!(
        upload(&edge, "/backend-api/transcribe", &form(&[("model", "large"), ("file", "")])).status,
        200
    );
    let unknown = upload(&edge, TRANSCRIPTIONS, &form(&[("model", "nobody"), ("file", "")]));
    assert_eq!((unknown.status, &unknown.error()["code"]), (404, &Value::from("model_not_found")));
    for late in ["large", "gpt-transcribe"] {
        let late = upload(&edge, TRANSCRIPTIONS, &form(&[("file", ""), ("model", late)]));
        assert_eq!((late.status, &late.error()["param"]), (400, &Value::from("model")));
        assert!(late.error()["message"].as_str().unwrap().contains("before 'file'"), "{late:?}");
    }
    let translation = upload(&edge, "/v1/audio/translations", &form(&[("model", "whisper-1"), ("file", "")]));
    assert_eq!(translation.error()["code"], "unsupported_endpoint");
    assert_eq!(service.got().len(), before);
}

#[test]
fn an_upload_arrives_whole_however_it_is_cut() {
    let (service, codex) = (service(), stub());
    let edge = edge(Some(&codex), &whisper(&service));
    let prompt = "p".repeat(40_000);
    // The last model comes behind all that can be sent again, so that nobody looks so far.
    let far = "p".repeat(100_000);
    let long = "x".repeat(300_000);
    for (parts, status) in [
        (&[("model", "large"), ("file", "")][..], 201),
        (&[("model", "large"), ("file", &long)], 201),
        (&[("prompt", &prompt), ("model", "large"), ("file", "")], 201),
        (&[("prompt", &prompt), ("model", "whisper-1"), ("file", "")], 200),
        (&[("prompt", &far), ("model", "large"), ("file", "")], 400),
    ] {
        let body = form(parts);
        let head = head(TRANSCRIPTIONS, "", &body);
        for (first, second) in [(0, 1), (1, 30), (60, 20_000), (20_000, 40_000), (body.len() - 1, 0)] {
            let mut stream = connect(&edge);
            stream.set_nodelay(true).unwrap();
            let (before, rest) = body.split_at(first);
            let (middle, after) = rest.split_at(second.min(rest.len()));
            stream.write_all(&[head.as_bytes(), before].concat()).unwrap();
            for piece in [middle, after] {
                thread::sleep(Duration::from_millis(20));
                // A refusal may come before the end.
                let _ = stream.write_all(piece);
            }
            let reply = reply(&stream);
            assert_eq!(reply.status, status, "{first} {second} {}", reply.body);
            if status == 201 {
                assert!(service.last().body == body, "another body came: {first} {second}");
            }
        }
    }
    let chunked: Vec<u8> = form(&[("model", "large"), ("file", "")]);
    let pieces: Vec<u8> = chunked
        .chunks(7_000)
        .flat_map(|piece| [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())
        .chain(*b"0\r\n\r\n")
        .collect();
    let head = head(TRANSCRIPTIONS, "", b"").replace("Content-Length: 0", "Transfer-Encoding: chunked");
    assert_eq!(ask(&edge, &[head.as_bytes(), &pieces].concat()).status, 201);
    assert!(service.last().body == chunked);
}

#[test]
fn a_service_of_codexs_kind_is_translated_for_and_gets_no_login() {
    let (service, codex) = (service(), stub());
    let local = entry("local", format!("{}/codex", service.address), "codex", "models = [\"mine\"]");
    let edge = edge(Some(&codex), &local);
    let reply =
        upload(&edge, TRANSCRIPTIONS, &form(&[("model", "mine"), ("response_format", "text"), ("file", "")]));
    assert_eq!((reply.status, reply.body.trim()), (200, "from the service"));
    let got = service.last();
    assert!(got.head.starts_with("POST /codex HTTP/1.1\n"), "{}", got.head);
    assert_eq!((got.header("authorization"), got.header("chatgpt-account-id")), (None, None));
    let body = String::from_utf8_lossy(&got.body);
    assert!(body.contains("name=\"file\"") && !body.contains("response_format"), "another form than Codex's");
    let other = upload(&edge, TRANSCRIPTIONS, &form(&[("model", "whisper-1"), ("file", "")]));
    assert_eq!(other.body, FROM_CODEX);
}

#[test]
fn without_a_login_only_codex_is_missing() {
    let service = service();
    let edge = edge(None, &format!("{}{}", app(&service), whisper(&service)));
    assert_eq!(get(&edge, "/app", KEY).status, 201);
    assert_eq!(upload(&edge, TRANSCRIPTIONS, &form(&[("model", "large"), ("file", "")])).status, 201);
    let codex = upload(&edge, TRANSCRIPTIONS, &form(&[("model", "whisper-1"), ("file", "")]));
    assert_eq!((codex.status, &codex.error()["code"]), (503, &Value::from("upstream_auth")));
}

#[test]
fn the_models_of_services_are_listed_as_theirs() {
    let service = service();
    let edge = edge(None, &whisper(&service));
    let list: Value = serde_json::from_str(&get(&edge, "/v1/models", KEY).body).unwrap();
    let owners = |id: &str| -> Vec<String> {
        let all = list["data"].as_array().unwrap().iter();
        all.filter(|model| model["id"] == id)
            .map(|model| model["owned_by"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(owners("large"), ["whisper"]);
    assert_eq!(owners("gpt-transcribe"), ["whisper"]);
    assert_eq!(owners("whisper-1"), ["openai"]);
    let one: Value = serde_json::from_str(&get(&edge, "/v1/models/large", KEY).body).unwrap();
    assert_eq!(one["owned_by"], "whisper");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_over_http_2_are_served_alike() {
    let service = service();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down = entry("down", gone, "plain", "paths = [\"/down\"]");
    let edge = edge(None, &format!("{}{}{down}", app(&service), whisper(&service)));
    let stream = tokio::net::TcpStream::connect(&edge.address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let long = form(&[("model", "large"), ("file", &"x".repeat(3_000_000))]);
    for (path, status) in [("/app/x?y", 201), (TRANSCRIPTIONS, 201), ("/down", 502)] {
        let request = http::Request::post(format!("http://edge.test{path}"))
            .header("authorization", "Bearer k")
            .header("content-type", "multipart/form-data; boundary=bound")
            .body(Full::new(Bytes::from(long.clone())))
            .unwrap();
        let answer = client.send_request(request).await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert!(answer.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        if status == 502 {
            let error: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(error["error"]["code"], "upstream_unreachable");
            continue;
        }
        let got = service.last();
        assert!(got.head.starts_with(&format!("POST {path} HTTP/1.1\n")), "{}", got.head);
        assert_eq!(got.header("x-forwarded-host").as_deref(), Some("edge.test"));
        assert_eq!(got.header("authorization"), None);
        assert_eq!((got.bytes, got.body == long[..got.body.len()]), (long.len(), true));
    }
}

#[test]
fn a_service_that_is_down_or_silent_is_told_in_the_envelope() {
    let service = service();
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let down = entry("down", gone, "openai", "models = [\"down\"]\npaths = [\"/down\"]");
    let edge = edge(None, &format!("{}{down}", app(&service)));
    for reply in [
        get(&edge, "/down/x?secret=planted", KEY),
        upload(&edge, TRANSCRIPTIONS, &form(&[("model", "down"), ("file", "")])),
    ] {
        assert_eq!(reply.status, 502, "{reply:?}");
        assert_eq!(reply.error()["code"], "upstream_unreachable");
        assert!(header(&reply.head, "x-request-id").unwrap().starts_with("req_"));
    }
    let began = Instant::now();
    let silent = get(&edge, "/app/mute", KEY);
    assert_eq!((silent.status, &silent.error()["code"]), (504, &Value::from("upstream_timeout")));
    assert!(began.elapsed() >= Duration::from_secs(1) && began.elapsed() < Duration::from_secs(15));

    let until = Instant::now() + LONG;
    let line = loop {
        let log = edge.log.lock().unwrap().clone();
        if let Some(line) = log.lines().find(|line| line.contains("upstream_timeout")) {
            assert!(!log.contains("planted") && !log.contains("/app/mute"), "{log}");
            break line.to_owned();
        }
        assert!(Instant::now() < until, "no access line: {log}");
        thread::sleep(Duration::from_millis(20));
    };
    assert!(line.contains("app") && line.contains("504"), "{line}");
}

#[test]
fn a_client_that_waits_for_it_is_told_to_go_on() {
    let service = service();
    let edge = edge(None, &format!("{}{}", app(&service), whisper(&service)));
    let body = form(&[("model", "large"), ("file", "")]);
    for path in ["/app/x", TRANSCRIPTIONS] {
        let mut stream = connect(&edge);
        stream.write_all(head(path, "Expect: 100-continue\r\n", &body).as_bytes()).unwrap();
        assert_eq!(reply(&stream).status, 100, "{path}");
        stream.write_all(&body).unwrap();
        assert_eq!(reply(&stream).status, 201, "{path}");
        assert_eq!(service.last().header("expect"), None);
        assert!(service.last().body == body);
    }
    let refused = head("/app/x", "Expect: 100-continue\r\n", &body).replace("Bearer k", "Bearer no");
    assert_eq!(ask(&edge, refused.as_bytes()).status, 401);
}

#[test]
fn a_large_upload_takes_no_memory_and_uploads_of_models_have_their_limit() {
    const PIECE: usize = 1024 * 1024;
    let service = service();
    let edge = edge(None, &format!("{}{}", app(&service), whisper(&service)));
    assert_eq!(get(&edge, "/app", KEY).status, 201);
    let peak = |edge: &Process| -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", edge.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    };
    let before = peak(&edge);
    let mut stream = connect(&edge);
    let length = 128 * PIECE;
    let head = format!("PUT /app/big HTTP/1.1\r\nHost: h\r\n{KEY}Content-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let piece = vec![7; PIECE];
    for _ in 0..128 {
        stream.write_all(&piece).unwrap();
    }
    assert_eq!(reply(&stream).status, 201);
    assert_eq!(service.last().bytes, length);
    let grown = peak(&edge) - before;
    assert!(grown < 16 * 1024, "{grown} KiB more");

    // Without a length the limit shows on the way.
    let start = form(&[("model", "large"), ("file", "")]);
    let head = format!(
        "POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: h\r\n{KEY}Content-Type: multipart/form-data; boundary=bound\r\n\
         Transfer-Encoding: chunked\r\n\r\n{:x}\r\n",
        start.len()
    );
    let mut stream = connect(&edge);
    stream.write_all(&[head.as_bytes(), &start, b"\r\n"].concat()).unwrap();
    for _ in 0..51 {
        let chunk = [format!("{PIECE:x}\r\n").as_bytes(), &piece, b"\r\n"].concat();
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    assert_eq!(reply(&stream).status, 413);
}

#[test]
fn a_service_behind_tls_is_verified() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("root.pem");
    let root = root.to_str().unwrap();
    let secure = start(&["upstream-stub", "--listen", "127.0.0.1:0", "--tls", "--root", root], None);
    let port = secure.address.rsplit(':').next().unwrap();
    let services = entry("secure", format!("localhost:{port}"), "plain", "paths = [\"/seen\"]");
    let services = services.replace("http://", "https://");
    let flags = ["serve", "--port", "0", "--api-key", "k"];
    let trusting = start(&[&flags[..], &["--ca-root", root]].concat(), Some(&services));
    for _ in 0..2 {
        let seen = get(&trusting, "/seen", KEY);
        assert_eq!(seen.status, 200, "{}", seen.body);
    }
    let doubting = get(&start(&flags, Some(&services)), "/seen", KEY);
    assert_eq!((doubting.status, &doubting.error()["code"]), (502, &Value::from("upstream_unreachable")));
}
