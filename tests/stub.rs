//! The stand-in upstream: strict where the contract is, and misbehaving as it is told.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use asr_edge::demo::clip;
use asr_edge::stub::{self, Options, Script, Stub};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

const BOUNDARY: &str = "0123456789abcdef0123456789";
const LONG: Duration = Duration::from_secs(20);

struct Peer {
    address: SocketAddr,
    root: tempfile::NamedTempFile,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

async fn start(change: impl FnOnce(&mut Options)) -> Peer {
    let mut options = Options::new("127.0.0.1:0".parse().unwrap());
    change(&mut options);
    let stub: Stub = stub::bind(options).await.unwrap();
    let mut root = tempfile::NamedTempFile::new().unwrap();
    root.write_all(stub.root_pem().unwrap_or_default().as_bytes()).unwrap();
    Peer { address: stub.address(), root, task: tokio::spawn(stub.run()) }
}

async fn scripted(script: &str) -> Peer {
    let script = Script::parse(script.as_bytes()).unwrap();
    start(|options| options.script = script).await
}

/// A file part, other fields, and what comes after the closing boundary.
fn form(fields: &[(&str, &str)], audio: &[u8], epilogue: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        let part =
            format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
        body.extend(part.into_bytes());
    }
    let head =
        "Content-Disposition: form-data; name=\"file\"; filename=\"audio.flac\"\r\nContent-Type: audio/flac";
    body.extend(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").into_bytes());
    body.extend(audio);
    body.extend(format!("\r\n--{BOUNDARY}--{epilogue}").into_bytes());
    body
}

fn head(length: &str) -> String {
    format!(
        "POST /backend-api/transcribe HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer made-up\r\n\
         chatgpt-account-id: account\r\noriginator: Codex Desktop\r\nuser-agent: Codex Desktop/26\r\n\
         accept-encoding: identity\r\ncontent-type: multipart/form-data; boundary={BOUNDARY}\r\n{length}\r\n"
    )
}

fn request(body: &[u8]) -> Vec<u8> {
    let mut request = head(&format!("content-length: {}\r\n", body.len())).into_bytes();
    request.extend(body);
    request
}

/// Reads one answer; `None` when the connection ends before it is whole.
async fn reply(stream: &mut TcpStream) -> Option<Reply> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let wanted = length.map_or(0, |length| length.parse().unwrap());
            if body.len() >= wanted {
                let status = head.get(9..12).unwrap().parse().unwrap();
                return Some(Reply { status, head, body: body.to_owned() });
            }
        }
        if timeout(LONG, stream.read_buf(&mut bytes)).await.expect("an answer or an end").ok()? == 0 {
            return None;
        }
    }
}

async fn ask(peer: &Peer, request: &[u8]) -> Reply {
    let mut stream = TcpStream::connect(peer.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    reply(&mut stream).await.expect("an answer")
}

async fn seen(peer: &Peer) -> Value {
    let reply = ask(peer, b"GET /seen HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    serde_json::from_str(&reply.body).unwrap()
}

/// Runs curl against the stand-in with the headers of a correct upload.
async fn curl(peer: &Peer, scheme: &str, more: &[&str], form: &'static [&'static str]) -> String {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "20", "-w", "\n%{http_version} %{http_code}", "-H", "Accept:"]);
    for header in [
        "Authorization: Bearer made-up",
        "originator: Codex Desktop",
        "User-Agent: Codex Desktop/26",
        "Accept-Encoding: identity",
        "Expect:",
    ] {
        command.args(["-H", header]);
    }
    command.arg("--cacert").arg(peer.root.path()).args(more);
    for field in form {
        command.args(["-F", field]);
    }
    command.arg(format!("{scheme}://localhost:{}/backend-api/transcribe", peer.address.port()));
    let output = tokio::task::spawn_blocking(move || command.output().expect("curl runs")).await.unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const CLIP: &str =
    concat!("file=@", env!("CARGO_MANIFEST_DIR"), "/src/demo/clip.flac;filename=audio.flac;type=audio/flac");

#[tokio::test(flavor = "multi_thread")]
async fn a_correct_upload_is_heard_and_reported() {
    let peer = start(|_| ()).await;
    let body = form(&[("language", "en"), ("prompt", "Zoë")], clip::AUDIO, "\r\n     ");
    let reply = ask(&peer, &request(&body)).await;
    let text = format!("heard {} bytes of flac in en", clip::AUDIO.len());
    assert_eq!((reply.status, reply.body), (200, json!({ "text": text }).to_string()));

    let seen = seen(&peer).await;
    let request = &seen["requests"][0];
    assert_eq!(request["protocol"], "HTTP/1.1");
    assert_eq!(request["complete"], true);
    assert_eq!(request["breach"], Value::Null);
    assert_eq!(request["status"], 200);
    assert_eq!(request["padding"], 5);
    assert_eq!(request["declared"], body.len());
    assert_eq!(request["body_bytes"], body.len());
    assert_eq!(request["headers"]["authorization"], "Bearer made-up");
    assert_eq!(request["parts"][0]["value"], "en");
    assert_eq!(request["parts"][1]["value"], "Zoë");
    assert_eq!(request["parts"][2]["filename"], "audio.flac");
    assert_eq!(request["parts"][2]["bytes"], clip::AUDIO.len());
    let digest = <sha2::Sha256 as sha2::Digest>::digest(clip::AUDIO);
    assert_eq!(request["parts"][2]["sha256"], hex::encode(digest));
    let (first, last) = (&request["first_file_byte_unix_ns"], &request["last_byte_unix_ns"]);
    assert!(first.as_u64().unwrap() <= last.as_u64().unwrap());

    ask(&peer, b"DELETE /seen HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(self::seen(&peer).await["requests"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_contract_does_not_have_is_refused_and_noted() {
    let peer = start(|_| ()).await;
    let good = form(&[], clip::AUDIO, "\r\n");
    let text = String::from_utf8_lossy(&good).into_owned();
    let cut = good.len() - format!("\r\n--{BOUNDARY}--\r\n").len();
    let with = |header: &str| {
        let mut bytes = head(&format!("content-length: {}\r\n{header}\r\n", good.len())).into_bytes();
        bytes.extend(&good);
        bytes
    };
    let named = |name: &str| {
        let body = good.clone();
        let at = text.find("audio.flac").unwrap();
        [&body[..at], name.as_bytes(), &body[at + "audio.flac".len()..]].concat()
    };
    for (what, request, status) in [
        ("unexpected field model", request(&form(&[("model", "whisper-1")], clip::AUDIO, "\r\n")), 400),
        ("field prompt twice", request(&form(&[("prompt", "a"), ("prompt", "b")], clip::AUDIO, "")), 400),
        ("language is empty or auto", request(&form(&[("language", "auto")], clip::AUDIO, "")), 400),
        ("language is empty or auto", request(&form(&[("language", "")], clip::AUDIO, "")), 400),
        ("the epilogue is not CRLF and spaces", request(&form(&[], clip::AUDIO, "\r\nmore")), 400),
        ("the closing boundary is missing", request(&good[..cut]), 400),
        ("the file's first bytes do not fit .flac", request(&form(&[], b"OggS and the rest", "")), 400),
        ("the file is empty", request(&form(&[], b"", "")), 500),
        ("the file is SILK", request(&form(&[], b"\x02#!SILK_V3 and the rest", "")), 500),
        ("the file's name is not audio.<wav|mp3|m4a|mp4|flac|ogg|webm>", request(&named("voice.flac")), 400),
        ("the file's content type does not fit .ogg", request(&named("audio.ogg")), 400),
        ("unexpected header accept", with("accept: */*"), 400),
        ("header authorization twice", with("authorization: Bearer other"), 400),
        ("unexpected cookie session", with("cookie: __cf_bm=1; session=2"), 400),
    ] {
        ask(&peer, b"DELETE /seen HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        let reply = ask(&peer, &request).await;
        assert_eq!(reply.status, status, "{what}: {}", reply.body);
        let seen = seen(&peer).await;
        assert_eq!(seen["requests"][0]["breach"], what);
        assert_eq!(seen["requests"][0]["status"], status);
        let said = if status == 500 { "Error in ASR API".to_owned() } else { format!("contract: {what}") };
        assert_eq!(reply.body, json!({ "detail": said }).to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_without_a_length_is_refused_on_http_1_1_and_taken_on_http_2() {
    let peer = start(|_| ()).await;
    let body = form(&[], clip::AUDIO, "\r\n");
    let mut chunked = head("transfer-encoding: chunked\r\n").into_bytes();
    chunked.extend(format!("{:x}\r\n", body.len()).into_bytes());
    chunked.extend(&body);
    chunked.extend(b"\r\n0\r\n\r\n");
    let refused = ask(&peer, &chunked).await;
    assert_eq!((refused.status, refused.body.as_str()), (411, r#"{"detail":"contract: no Content-Length"}"#));

    let length_less = ["--http2-prior-knowledge", "-H", "Content-Length:"];
    let taken = curl(&peer, "http", &length_less, &[CLIP]).await;
    assert!(taken.ends_with("2 200"), "{taken}");
    assert_eq!(seen(&peer).await["requests"][1]["declared"], Value::Null);

    let strict = start(|options| options.require_length = true).await;
    let refused = curl(&strict, "http", &length_less, &[CLIP]).await;
    assert!(refused.ends_with("2 411"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_with_both_protocols_under_a_root_of_its_own() {
    let peer = start(|options| options.tls = true).await;
    for (flag, answer) in [("--http2", "2 200"), ("--http1.1", "1.1 200")] {
        let reply = curl(&peer, "https", &[flag], &[CLIP, "language=de"]).await;
        assert!(reply.contains("bytes of flac in de"), "{reply}");
        assert!(reply.ends_with(answer), "{reply}");
    }
    let untrusted = curl(&peer, "https", &["--cacert", "/etc/hosts"], &[CLIP]).await;
    assert!(untrusted.contains("000"), "{untrusted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_comes_before_the_body_ends_and_the_connection_stays_open() {
    let peer = start(|options| {
        options.receive_buffer = Some(16 * 1024);
        options.script = Script::parse(br#"{"early": true, "early_after": 4096, "status": 413}"#).unwrap();
    })
    .await;
    let mut stream = TcpStream::connect(peer.address).await.unwrap();
    let start =
        [head("content-length: 500000000\r\n").as_bytes(), &form(&[], clip::AUDIO, "")[..8192]].concat();
    stream.write_all(&start).await.unwrap();
    assert_eq!(reply(&mut stream).await.unwrap().status, 413);

    // Nobody reads on: what can still be sent is what the buffers hold.
    let flood = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    let stalled = loop {
        match timeout(Duration::from_millis(500), stream.write(&flood)).await {
            Err(_) => break true,
            Ok(Err(_) | Ok(0)) => break false,
            Ok(Ok(bytes)) => sent += bytes,
        }
        assert!(sent < 100_000_000, "somebody reads the body");
    };
    assert!(stalled, "the connection was closed after {sent} bytes");
    let seen = seen(&peer).await;
    assert_eq!(seen["requests"][0]["complete"], false);
    assert_eq!(seen["requests"][0]["status"], 413);
    assert_ne!(seen["requests"][0]["first_file_byte_unix_ns"], Value::Null);
    assert_eq!(seen["open"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_reaches_an_http_2_client_too() {
    let peer = scripted(r#"{"early": true, "status": 429, "headers": {"retry-after": "7"}}"#).await;
    let reply = curl(&peer, "http", &["--http2-prior-knowledge", "-D", "-"], &[CLIP]).await;
    assert!(reply.contains("retry-after: 7"), "{reply}");
    assert!(reply.contains("2 429"), "{reply}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_reads_stalls_its_sender() {
    let peer = start(|options| {
        options.receive_buffer = Some(16 * 1024);
        options.script = Script::parse(br#"{"stop_reading_after": 1000, "hold_ms": 1500}"#).unwrap();
    })
    .await;
    let mut stream = TcpStream::connect(peer.address).await.unwrap();
    stream.write_all(head("content-length: 500000000\r\n").as_bytes()).await.unwrap();
    let flood = vec![b'x'; 64 * 1024];
    while let Ok(written) = timeout(Duration::from_millis(400), stream.write(&flood)).await {
        written.unwrap();
    }
    assert_eq!(seen(&peer).await["open"], 2);
    assert!(reply(&mut stream).await.is_none(), "the hold ends with the connection");
    assert!(seen(&peer).await["requests"][0]["body_bytes"].as_u64().unwrap() >= 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_connection_ends_where_the_script_says() {
    let body = form(&[], clip::AUDIO, "\r\n");
    for (drop, complete, status) in [
        ("after_head", false, Value::Null),
        ("mid_body_after:20000", false, Value::Null),
        ("before_answer", true, Value::Null),
        ("mid_answer", true, json!(200)),
    ] {
        let peer = scripted(&json!({ "drop": drop }).to_string()).await;
        let mut stream = TcpStream::connect(peer.address).await.unwrap();
        let _ = stream.write_all(&request(&body)).await;
        assert!(reply(&mut stream).await.is_none(), "{drop}");
        let seen = seen(&peer).await;
        assert_eq!(seen["requests"][0]["complete"], complete, "{drop}");
        assert_eq!(seen["requests"][0]["status"], status, "{drop}");

        let reset = curl(&peer, "http", &["--http2-prior-knowledge"], &[CLIP]).await;
        assert!(reset.contains("curl: (92)"), "{drop}: {reset}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_an_incomplete_record() {
    let peer = start(|_| ()).await;
    let whole = request(&form(&[("language", "en")], clip::AUDIO, "\r\n"));
    let mut stream = TcpStream::connect(peer.address).await.unwrap();
    stream.write_all(&whole[..whole.len() / 2]).await.unwrap();
    let deadline = Instant::now() + LONG;
    while seen(&peer).await["requests"][0]["parts"][1]["bytes"].as_u64().unwrap_or(0) < 1000 {
        assert!(Instant::now() < deadline, "the half is never noted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(stream);
    while seen(&peer).await["open"] != 1 {
        assert!(Instant::now() < deadline, "the departure is never noted");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seen = seen(&peer).await;
    assert_eq!(seen["requests"][0]["complete"], false);
    assert_eq!(seen["requests"][0]["status"], Value::Null);
    assert_eq!(seen["requests"][0]["parts"][1]["sha256"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_posted_while_it_runs_applies_as_often_as_it_says() {
    let peer = start(|_| ()).await;
    let script = r#"{"challenge": true, "times": 1, "set_cookie": ["__cf_bm=a; Path=/", "_cfuvid=b"]}"#;
    let post = |script: &str| {
        format!("POST /script HTTP/1.1\r\nhost: l\r\ncontent-length: {}\r\n\r\n{script}", script.len())
    };
    assert_eq!(ask(&peer, post(script).as_bytes()).await.status, 200);
    let upload = request(&form(&[], clip::AUDIO, "\r\n"));
    let challenge = ask(&peer, &upload).await;
    assert_eq!(challenge.status, 403);
    for line in [
        "cf-mitigated: challenge",
        "server: cloudflare",
        "cf-ray: ",
        "content-type: text/html",
        "set-cookie: _cfuvid=b",
    ] {
        assert!(challenge.head.contains(line), "{line} in {}", challenge.head);
    }
    assert_eq!(ask(&peer, &upload).await.status, 200);
    assert_eq!(ask(&peer, post(r#"{"statsu": 500}"#).as_bytes()).await.status, 400);
    assert_eq!(
        ask(&peer, b"GET /nowhere HTTP/1.1\r\nhost: l\r\n\r\n").await.body,
        r#"{"detail":"Not Found"}"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_and_slow_reading_take_their_time() {
    let upload = request(&form(&[], clip::AUDIO, "\r\n"));
    for script in [r#"{"delay_ms": 300}"#, r#"{"first_byte_delay_ms": 300}"#, r#"{"slow_read": 150000}"#] {
        let peer = scripted(script).await;
        let start = Instant::now();
        assert_eq!(ask(&peer, &upload).await.status, 200, "{script}");
        assert!(start.elapsed() >= Duration::from_millis(300), "{script}: {:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_reused_unless_the_answer_closes_them() {
    let upload = request(&form(&[], clip::AUDIO, "\r\n"));
    let peer = start(|_| ()).await;
    let mut stream = TcpStream::connect(peer.address).await.unwrap();
    for _ in 0..2 {
        stream.write_all(&upload).await.unwrap();
        assert_eq!(reply(&mut stream).await.unwrap().status, 200);
    }
    let requests = seen(&peer).await["requests"].clone();
    assert_eq!(requests[0]["connection"], requests[1]["connection"]);

    let peer = scripted(r#"{"close": true}"#).await;
    let mut stream = TcpStream::connect(peer.address).await.unwrap();
    stream.write_all(&upload).await.unwrap();
    assert!(reply(&mut stream).await.unwrap().head.contains("connection: close"));
    assert_eq!(timeout(LONG, stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
    let goaway = curl(&peer, "http", &["--http2-prior-knowledge"], &[CLIP]).await;
    assert!(goaway.ends_with("2 200"), "{goaway}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_informational_answer_goes_ahead_of_the_real_one() {
    let peer = scripted(r#"{"informational": 103, "delay_ms": 4000}"#).await;
    let mut stream = TcpStream::connect(peer.address).await.unwrap();
    stream.write_all(&request(&form(&[], clip::AUDIO, "\r\n"))).await.unwrap();
    let start = Instant::now();
    assert_eq!(reply(&mut stream).await.unwrap().status, 103);
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert_eq!(reply(&mut stream).await.unwrap().status, 200);
}
