//! Connections that break at any byte: in front of us and behind us. After each, the next request works, nothing is
//! counted as in flight any more, and the upstream has never seen a whole request for a broken one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, unused_imports)]
mod harness;

#[path = "faults/proxy.rs"]
mod proxy;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use harness::{Edge, Form, LONG, Launch, Request, Stub, TEXT, eventually, wav};
use proxy::{Act, Plan, Proxy, Way};

/// Every wait of the program's own is short, so that stalls end soon.
const CONFIG: &str = "[server]\nhttp = [\"127.0.0.1:0\"]\n\
    [limits]\nhead_timeout = \"1s\"\nbody_timeout = \"1s\"\nidle_timeout = \"2s\"\n\
    [codex]\nrequest_timeout = \"3s\"\nfirst_byte_timeout = \"2s\"\n";

/// The program between two proxies, before a stand-in that closes every connection after its answer: each request
/// behind us has one of its own to break.
struct Line {
    edge: Edge,
    stub: Stub,
    front: Proxy,
    back: Proxy,
    /// Good requests since the stand-in last forgot.
    good: usize,
}

impl Line {
    fn start() -> Self {
        let stub = Stub::start(&["--text", TEXT, "--script", r#"{"close": true}"#]);
        let back = Proxy::start(stub.address());
        let url = format!("http://{}/backend-api/transcribe", back.address);
        let edge = Launch::at(&url).config(CONFIG).flags(&["--admin", "127.0.0.1:0"]).start();
        let front = Proxy::start(edge.address);
        Self { edge, stub, front, back, good: 0 }
    }

    /// How many bytes a good request has each way: in front, then behind.
    fn lengths(&mut self) -> [[usize; 2]; 2] {
        assert_eq!(exchange(self.front.address), Some(200));
        self.good += 1;
        // What is under way behind us ends with its connection.
        [&self.front, &self.back].map(|proxy| eventually("the count", || proxy.carried()))
    }

    /// One request through a front that breaks so. The status that came back whole, if any.
    fn in_front(&mut self, plan: Plan) -> Option<u16> {
        self.front.plan(plan);
        exchange(self.front.address)
    }

    /// One request with a way behind us that breaks so.
    fn behind(&mut self, plan: Plan) -> Option<u16> {
        self.back.plan(plan);
        exchange(self.edge.address)
    }

    /// The next request works, and all is as before. `whole`: so many broken requests were whole to the upstream.
    fn is_well(&mut self, what: &str, whole: usize) {
        self.back.forget_plan();
        assert_eq!(exchange(self.edge.address), Some(200), "{what}: the next request");
        self.good += 1 + whole;
        eventually(what, || {
            let status = self.edge.admin_page("/status").json();
            let idle =
                status["in_flight"] == 0 && status["queue"]["waiting"] == 0 && status["spool"]["bytes"] == 0;
            idle.then_some(())
        });
        let complete = self.stub.seen().iter().filter(|seen| seen.is_complete()).count();
        assert_eq!(complete, self.good, "{what}: whole requests upstream");
        if self.good > 40 {
            // What comes late would be counted here.
            std::thread::sleep(Duration::from_millis(100));
            let complete = self.stub.seen().iter().filter(|seen| seen.is_complete()).count();
            assert_eq!(complete, self.good, "{what}: whole requests upstream, after a while");
            self.stub.forget();
            self.good = 0;
        }
    }
}

fn request() -> Vec<u8> {
    Request::post(&Form::of(&wav(40))).header("Connection", "close").bytes()
}

/// Sends the request and reads to the end. The status, if the answer came whole.
fn exchange(address: SocketAddr) -> Option<u16> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    let _ = stream.write_all(&request());
    let mut answer = Vec::new();
    let start = Instant::now();
    let ended = stream.read_to_end(&mut answer);
    assert!(start.elapsed() < LONG, "no end after {:?}: {ended:?}", start.elapsed());
    let _ = stream.shutdown(Shutdown::Both);
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(&answer).ok()? else { return None };
    let body = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    let body: usize = std::str::from_utf8(body.value).ok()?.parse().ok()?;
    (answer.len() >= length + body).then_some(head.code?)
}

/// Nobody was told of a success.
fn refused(status: Option<u16>) -> bool {
    status.is_none_or(|status| status >= 400)
}

#[test]
fn a_request_that_is_cut_anywhere_never_goes_upstream_whole() {
    let mut line = Line::start();
    let [[up, _], _] = line.lengths();
    assert_eq!(up, request().len());
    for at in 0..up {
        let status = line.in_front(Plan { way: Way::Up, at, act: Act::Cut });
        assert!(refused(status), "cut at {at}: {status:?}");
        line.is_well(&format!("cut at {at}"), 0);
    }
}

#[test]
fn an_answer_that_is_cut_anywhere_on_its_way_back_leaves_nothing_behind() {
    let mut line = Line::start();
    let [[_, down], _] = line.lengths();
    for at in 0..down {
        let status = line.in_front(Plan { way: Way::Down, at, act: Act::Cut });
        assert_eq!(status, None, "cut at {at}");
        line.is_well(&format!("cut at {at}"), 1);
    }
}

#[test]
fn an_upstream_that_breaks_off_anywhere_in_the_request_has_not_seen_it_whole() {
    let mut line = Line::start();
    let [_, [up, _]] = line.lengths();
    for at in 0..up {
        let status = line.behind(Plan { way: Way::Up, at, act: Act::Cut });
        assert!(status.is_some_and(|status| status >= 500), "cut at {at}: {status:?}");
        line.is_well(&format!("cut at {at}"), 0);
    }
}

#[test]
fn an_upstream_that_breaks_off_anywhere_in_its_answer_is_no_success() {
    let mut line = Line::start();
    let [_, [_, down]] = line.lengths();
    for at in 0..down {
        let status = line.behind(Plan { way: Way::Down, at, act: Act::Cut });
        assert!(status.is_some_and(|status| status >= 500), "cut at {at}: {status:?}");
        line.is_well(&format!("cut at {at}"), 1);
    }
}

#[test]
fn resets_half_closes_and_garbage_in_front_are_refused() {
    let mut line = Line::start();
    let [[up, _], _] = line.lengths();
    for act in [Act::Reset, Act::HalfClose, Act::Garbage] {
        // Behind the closing boundary garbage is an epilogue, which nobody reads (RFC 2046 5.1.1).
        let last = if act == Act::Garbage { up - 4 } else { up - 1 };
        for at in (0..last).step_by(13).chain([last]) {
            let status = line.in_front(Plan { way: Way::Up, at, act });
            assert!(refused(status), "{act:?} at {at}: {status:?}");
            line.is_well(&format!("{act:?} at {at}"), 0);
        }
    }
}

#[test]
fn resets_half_closes_and_garbage_behind_are_our_upstream_s_fault() {
    let mut line = Line::start();
    let [_, [up, down]] = line.lengths();
    for act in [Act::Reset, Act::HalfClose] {
        for at in (0..up).step_by(41).chain([up - 1]) {
            let status = line.behind(Plan { way: Way::Up, at, act });
            assert!(status.is_some_and(|status| status >= 500), "{act:?} at {at}: {status:?}");
            line.is_well(&format!("{act:?} up at {at}"), 0);
        }
        for at in (0..down).step_by(29).chain([down - 1]) {
            let status = line.behind(Plan { way: Way::Down, at, act });
            assert!(status.is_some_and(|status| status >= 500), "{act:?} at {at}: {status:?}");
            line.is_well(&format!("{act:?} down at {at}"), 1);
        }
    }
    // Garbage before an answer's first byte, where nothing can make sense of it.
    let status = line.behind(Plan { way: Way::Down, at: 0, act: Act::Garbage });
    assert!(status.is_some_and(|status| status >= 500), "{status:?}");
    line.is_well("garbage", 1);
}

#[test]
fn a_stall_in_any_phase_ends_by_itself() {
    let mut line = Line::start();
    let [[up, _], [back_up, back_down]] = line.lengths();
    let body = Form::of(&wav(40)).closed().len();
    // Before the head, in the head, in the body's framing, in the audio.
    for at in [0, 40, up - body + 5, up - 20] {
        let status = line.in_front(Plan { way: Way::Up, at, act: Act::Stall });
        assert!(status.is_none() || status == Some(408), "{at}: {status:?}");
        line.is_well(&format!("stall in front at {at}"), 0);
    }
    // The upstream takes no head, half a body; answers nothing, half a head, half a body.
    for (way, at, whole) in [
        (Way::Up, 0, 0),
        (Way::Up, back_up - 30, 0),
        (Way::Down, 0, 1),
        (Way::Down, 30, 1),
        (Way::Down, back_down - 5, 1),
    ] {
        let status = line.behind(Plan { way, at, act: Act::Stall });
        assert!(status.is_some_and(|status| status >= 500), "{at}: {status:?}");
        line.is_well(&format!("stall behind, {way:?} at {at}"), whole);
    }
}

#[test]
fn what_drips_arrives() {
    let mut line = Line::start();
    for way in [Way::Up, Way::Down] {
        assert_eq!(line.in_front(Plan { way, at: 0, act: Act::Drip }), Some(200), "{way:?}");
        line.is_well("dripped in front", 1);
        assert_eq!(line.behind(Plan { way, at: 0, act: Act::Drip }), Some(200), "{way:?}");
        line.is_well("dripped behind", 1);
    }
}
