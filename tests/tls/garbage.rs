//! What comes to port 443 and is no client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use crate::edge::{Edge, Folder, LONG, ask, client, get};

const NAME: &str = "asr.example.com";

fn tcp(edge: &Edge) -> TcpStream {
    let stream = TcpStream::connect(edge.https).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

/// A ClientHello.
fn hello(edge: &Edge) -> Vec<u8> {
    let config = std::sync::Arc::new(client(&edge.folder.path("root.pem")));
    let mut client = rustls::ClientConnection::new(config, NAME.try_into().unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// How long until the other side closes.
fn closes_after(mut stream: TcpStream) -> Duration {
    let began = Instant::now();
    let mut sink = [0; 1024];
    while matches!(stream.read(&mut sink), Ok(read) if read > 0) {}
    began.elapsed()
}

fn answers(edge: &Edge) {
    let began = Instant::now();
    assert_eq!(edge.ask(NAME, &get("/healthz", NAME)).status, 200);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

/// All clients here have one address.
const CROWDED: &str = "[limits]\nconnections_per_address = 2000\n";

#[test]
fn plain_http_is_told_to_use_https() {
    let edge = Edge::start(Folder::with(&[NAME]), "", "");
    let answer = ask(tcp(&edge), &get("/v1/models", NAME));
    assert_eq!(answer.status, 403, "{answer:?}");
    assert!(answer.body.contains("https_required"), "{answer:?}");
    let mut upload = tcp(&edge);
    upload
        .write_all(b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: a\r\nContent-Length: 40000\r\n\r\n")
        .unwrap();
    assert_eq!(ask(upload, &"x".repeat(40_000)).status, 403, "in spite of the body");
    answers(&edge);
}

#[test]
fn what_is_no_tls_is_closed_at_once_and_broken_tls_gets_an_alert() {
    let edge = Edge::start(Folder::with(&[NAME]), "", "");
    for garbage in [&b"\0\0\0\0"[..], b"\x80\x2e\x01\x00\x02\x00", b"\xff", b"\x15\x03\x01\x00\x02\x02\x28"] {
        let mut stream = tcp(&edge);
        stream.write_all(garbage).unwrap();
        assert!(closes_after(stream) < Duration::from_secs(8), "{garbage:?}");
    }
    for broken in [&b"\x16\x03\x01\xff\xff"[..], b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"] {
        let mut stream = tcp(&edge);
        stream.write_all(broken).unwrap();
        let mut alert = [0; 7];
        stream.read_exact(&mut alert).unwrap();
        assert_eq!((alert[0], alert[5]), (21, 2), "a fatal alert: {alert:?}");
    }
    answers(&edge);
    assert!(!edge.log().contains("ERROR"), "{}", edge.log());
}

#[test]
fn idle_and_half_open_handshakes_do_not_keep_others_out_and_end_in_time() {
    let edge = Edge::start(Folder::with(&[NAME]), "", CROWDED);
    let hello = hello(&edge);
    let idle: Vec<_> = (0..500).map(|_| tcp(&edge)).collect();
    let half: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = tcp(&edge);
            stream.write_all(&hello[..hello.len() / 2]).unwrap();
            stream
        })
        .collect();
    // A whole ClientHello, and then nothing.
    let mut silent = tcp(&edge);
    silent.write_all(&hello).unwrap();
    let mut drip = tcp(&edge);
    let dripped = hello.clone();
    let dripping = spawn(move || {
        let began = Instant::now();
        let mut gone = |byte: &u8| drip.write_all(&[*byte]).is_err();
        let cut = dripped.iter().any(|byte| {
            sleep(Duration::from_millis(100));
            gone(byte)
        });
        (cut, began.elapsed())
    });
    answers(&edge);
    let began = Instant::now();
    for stream in idle.into_iter().chain(half).chain([silent]) {
        closes_after(stream);
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let (cut, after) = dripping.join().unwrap();
    assert!(cut && after < Duration::from_secs(15), "{after:?}");
    answers(&edge);
}

#[test]
fn more_handshakes_than_there_is_room_for_push_out_the_oldest() {
    let edge = Edge::start(Folder::with(&[NAME]), "", CROWDED);
    // Descriptors: the program and this test have a thousand each, by default.
    let limit = std::process::Command::new("sh").args(["-c", "ulimit -n"]).output().unwrap();
    let limit: u64 = String::from_utf8_lossy(&limit.stdout).trim().parse().unwrap_or(u64::MAX);
    if limit < 1400 {
        eprintln!("SKIPPED: only {limit} open files are allowed");
        return;
    }
    // All of them end by themselves after ten seconds: on a busy machine that can come first.
    let made_room = (0..3).any(|_| {
        let first = tcp(&edge);
        let others: Vec<_> = (0..1100).map(|_| tcp(&edge)).collect();
        let soon = closes_after(first) < Duration::from_secs(5);
        answers(&edge);
        drop(others);
        soon
    });
    assert!(made_room, "the oldest stays");
}

#[test]
fn http_2_that_is_agreed_on_and_never_begun_ends_with_the_head_timeout() {
    let edge = Edge::start(Folder::with(&[NAME]), "", "[limits]\nhead_timeout = \"1s\"\n");
    let mut config = client(&edge.folder.path("root.pem"));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connection = rustls::ClientConnection::new(config.into(), NAME.try_into().unwrap()).unwrap();
    let mut tls = rustls::StreamOwned::new(connection, tcp(&edge));
    tls.write_all(b"PRI * HTTP").unwrap();
    tls.flush().unwrap();
    assert_eq!(tls.conn.alpn_protocol(), Some(&b"h2"[..]));
    let began = Instant::now();
    let mut sink = [0; 1024];
    while matches!(tls.read(&mut sink), Ok(read) if read > 0) {}
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    answers(&edge);
}
