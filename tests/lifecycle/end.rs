//! SIGTERM: what is begun ends well, nothing new begins, and nobody is waited for in vain.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{begun, refuses, upload};
use crate::harness::{
    Bench, END_HEADERS, Ending, Form, Http2, KEY, Kind, Outcome, Request, STATUS_200, eventually, get,
    upload_block, wav,
};

/// Ends within this time when nothing is in flight; far below the drain time.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn an_upload_over_http_1_is_finished_and_its_answer_says_that_it_is_the_last() {
    let mut bench = Bench::start();
    let (mut wire, rest) = begun(&bench, &upload());
    bench.edge.terminate();
    eventually("no new connections", || refuses(bench.edge.address).then_some(()));
    wire.send(rest);
    let reply = wire.reply();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")), "{reply:?}");
    assert_eq!(wire.ended(), Ending::Closed);
    bench.heard("finished", &wav(3000));
    assert!(bench.edge.end_within(SOON).success());
}

#[test]
fn an_upload_over_http_2_is_finished_after_the_goodbye() {
    let mut bench = Bench::start();
    let form = Form::of(&wav(20_000));
    let body = form.closed();
    let (first, rest) = body.split_at(15_000);
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    let length = body.len().to_string();
    let block = upload_block(&form.content_type(), &[("content-length", length.as_bytes())]);
    http2.send(Kind::Headers, END_HEADERS, 1, &block);
    http2.send(Kind::Data, 0, 1, first);
    bench.stub.wait("the upload began", |seen| seen.iter().any(|seen| seen.audio_bytes() > 0));
    bench.edge.terminate();
    assert_eq!(http2.frame().unwrap().kind, Kind::GoAway);
    http2.send_body(1, rest);
    assert!(matches!(http2.outcome(1), Outcome::Answered(STATUS_200, _)));
    bench.heard("finished", &wav(20_000));
    assert!(bench.edge.end_within(SOON).success());
}

#[test]
fn idle_connections_are_closed_at_once() {
    let mut bench = Bench::start();
    let mut idle = bench.edge.wire();
    idle.send(get("/healthz").bytes());
    assert_eq!(idle.reply().status, 200);
    let mut idle2 = Http2::connect(bench.edge.address, &[]);
    idle2.send(Kind::Ping, 0, 0, &[0; 8]);
    let (mut wire, rest) = begun(&bench, &upload());
    let start = Instant::now();
    bench.edge.terminate();
    assert_eq!(idle.ended(), Ending::Closed);
    while idle2.frame().is_ok() {}
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    wire.send(rest);
    assert_eq!(wire.reply().status, 200);
    assert!(bench.edge.end_within(SOON).success());
}

#[test]
fn a_connection_that_has_just_been_made_gets_its_first_answer() {
    let mut bench = Bench::start();
    let (mut slow, rest) = begun(&bench, &upload());
    let mut fresh = bench.edge.wire();
    // It has been accepted once a later one has been answered.
    assert_eq!(bench.ask(&get("/healthz")).status, 200);
    bench.edge.terminate();
    eventually("no new connections", || refuses(bench.edge.address).then_some(()));
    fresh.send(upload().bytes());
    let reply = fresh.reply();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")), "{reply:?}");
    slow.send(rest);
    assert_eq!(slow.reply().status, 200);
    assert!(bench.edge.end_within(SOON).success());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut bench = Bench::start();
    let (_wire, _rest) = begun(&bench, &upload());
    bench.edge.terminate();
    eventually("no new connections", || refuses(bench.edge.address).then_some(()));
    assert!(bench.edge.runs(), "an upload is in flight");
    bench.edge.terminate();
    assert!(bench.edge.end_within(SOON).success());
    bench.assert_nothing_whole("cut off");
}

#[test]
fn a_refused_client_that_is_still_sending_does_not_hold_it_up() {
    let mut bench = Bench::start();
    let request = upload().set("Authorization", "Bearer wrong").set("Content-Length", "1000000");
    let mut wire = bench.edge.wire();
    wire.send(request.bytes());
    assert_eq!(wire.reply().status, 401);
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    let block = upload_block("text/plain", &[]);
    http2.send(Kind::Headers, END_HEADERS, 1, &block);
    assert!(!matches!(http2.frame().unwrap().kind, Kind::GoAway));
    // Both keep sending: a quiet client is let go by itself.
    let mut writer = wire.writer();
    let sending = std::thread::spawn(move || {
        while writer.write_all(b"more").is_ok() && http2.offer(Kind::Data, 0, 1, b"more").is_ok() {
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    bench.edge.terminate();
    assert!(bench.edge.end_within(SOON).success());
    sending.join().unwrap();
}

#[test]
fn a_passage_of_no_end_is_cut_when_the_drain_time_is_up() {
    let service = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = service.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = service.accept().unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).unwrap();
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(switch.as_bytes()).unwrap();
        std::io::copy(&mut stream.try_clone().unwrap(), &mut stream)
    });
    let config = format!(
        "[server]\nhttp = [\"127.0.0.1:0\"]\ndrain_seconds = 3\n\
         [[service]]\nname = \"app\"\nurl = \"http://{address}\"\nkind = \"plain\"\npaths = [\"/app\"]\n"
    );
    let mut bench = Bench::with(|launch| launch.config(&config));
    let mut stream = TcpStream::connect(bench.edge.address).unwrap();
    let head = format!(
        "GET /app HTTP/1.1\r\nHost: h\r\nX-API-Key: {KEY}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut switched = [0; 12];
    stream.read_exact(&mut switched).unwrap();
    assert_eq!(&switched, b"HTTP/1.1 101");
    let start = Instant::now();
    bench.edge.terminate();
    std::thread::sleep(Duration::from_secs(1));
    stream.write_all(b"still here").unwrap();
    let mut said = Vec::new();
    while !said.ends_with(b"still here") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        said.extend(byte);
    }
    assert!(bench.edge.end().success());
    let took = start.elapsed();
    assert!((Duration::from_secs(3)..Duration::from_secs(20)).contains(&took), "{took:?}");
}

#[test]
fn nothing_is_waited_for_when_nothing_is_in_flight() {
    let mut bench = Bench::start();
    let mut idle = bench.edge.wire();
    idle.send(Request::new("GET", "/healthz").bytes());
    assert_eq!(idle.reply().status, 200);
    let start = Instant::now();
    bench.edge.terminate();
    assert!(bench.edge.end().success());
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}
