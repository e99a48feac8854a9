//! Connections that break at any byte: in front of us and behind us, in clear and over TLS, by HTTP/1.1 and HTTP/2.
//! After each, the next request works, nothing is counted as in flight any more, and the upstream has never seen a
//! whole request for a broken one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, unused_imports)]
mod harness;

#[path = "faults/behind.rs"]
mod behind;
#[path = "faults/client.rs"]
mod client;
#[path = "faults/front.rs"]
mod front;
#[path = "faults/plain.rs"]
mod plain;
#[path = "faults/proxy.rs"]
mod proxy;

use std::ops::RangeInclusive;
use std::time::Duration;

use client::{Leg, audio};
use harness::{Edge, Launch, Stub, TEXT, eventually, sha256};
use proxy::{Plan, Proxy};
use rcgen::{CertificateParams, KeyPair};

/// Every wait of the program's own is short, so that stalls end soon.
const TIMES: &str = "[limits]\nhead_timeout = \"1s\"\nbody_timeout = \"1s\"\nidle_timeout = \"2s\"\n\
    [codex]\nrequest_timeout = \"3s\"\nfirst_byte_timeout = \"2s\"\n";

/// How often the upstream saw a request whole.
const NEVER: RangeInclusive<usize> = 0..=0;
const ONCE: RangeInclusive<usize> = 1..=1;
const ONCE_OR_TWICE: RangeInclusive<usize> = 1..=2;
const AT_MOST_ONCE: RangeInclusive<usize> = 0..=1;

/// The program between two proxies, before a stand-in that closes every connection after its answer: each request
/// behind us has one of its own to break.
struct Line {
    edge: Edge,
    stub: Stub,
    front: Proxy,
    back: Proxy,
    leg: Leg,
    /// Each request has audio of its own, by this number.
    number: u32,
    /// The requests since the stand-in last forgot, what they were, and how often they may have come whole.
    sent: Vec<(u32, String, RangeInclusive<usize>)>,
    /// What the program had open when all was well.
    open_files: usize,
}

/// How many bytes a good request has each way. What the client sends after its request is not counted.
struct Lengths {
    front: [usize; 2],
    back: [usize; 2],
}

impl Line {
    /// In clear, by HTTP/1.1.
    fn start() -> Self {
        Self::by(Leg::Http1, &[])
    }

    /// With this leg in front, and a stand-in with these flags.
    fn by(leg: Leg, flags: &[&str]) -> Self {
        let script = ["--text", TEXT, "--script", r#"{"close": true}"#];
        let stub = Stub::start(&[&script[..], flags].concat());
        let back = Proxy::start(stub.address());
        let (scheme, root) = match stub.root() {
            None => ("http", None),
            Some(root) => ("https", Some(["--ca-root", root.to_str().unwrap()])),
        };
        let launch =
            Launch::at(&format!("{scheme}://localhost:{}/backend-api/transcribe", back.address.port()));
        let launch =
            launch.flags(&["--admin", "127.0.0.1:0"]).flags(root.as_ref().map_or(&[], |flags| flags));
        let (server, leg) = match leg.is_tls() {
            false => ("http = [\"127.0.0.1:0\"]\n".to_owned(), leg),
            true => {
                let key = KeyPair::generate().unwrap();
                let names = ["localhost".to_owned(), "asr.test".to_owned()];
                let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
                let paths = [("c.pem", certificate.pem()), ("k.pem", key.serialize_pem())]
                    .map(|(name, text)| launch.file(name, &text));
                let [certificate, key] = &paths;
                (
                    format!(
                        "http = []\nhttps = [\"127.0.0.1:0\"]\n[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n"
                    ),
                    leg.trusting(certificate),
                )
            }
        };
        let edge = launch.config(&format!("[server]\n{server}{TIMES}")).start();
        let front = Proxy::start(edge.address);
        Self { edge, stub, front, back, leg, number: 0, sent: Vec::new(), open_files: 0 }
    }

    /// What a good request takes. To be asked first.
    fn lengths(&mut self) -> Lengths {
        let exchange = self.leg.exchange(self.front.address, self.number);
        assert_eq!(exchange.status, Some(200));
        self.sent.push((self.number, "the first request".to_owned(), ONCE));
        // What is under way behind us ends with its connection.
        let [front, back] =
            [&self.front, &self.back].map(|proxy| eventually("the count", || proxy.carried()));
        self.is_idle("the first request");
        self.open_files = self.edge.open_files();
        Lengths { front: [exchange.request, front[1]], back }
    }

    /// One request that nothing breaks.
    fn ask(&mut self) -> Option<u16> {
        self.number += 1;
        self.leg.exchange(self.edge.address, self.number).status
    }

    /// One request through a front that breaks so. The status that came back whole, if any.
    fn in_front(&mut self, plan: Plan) -> Option<u16> {
        self.front.plan(plan);
        self.number += 1;
        self.leg.exchange(self.front.address, self.number).status
    }

    /// One request with a way behind us that breaks so.
    fn behind(&mut self, plan: Plan) -> Option<u16> {
        self.back.plan(plan);
        self.number += 1;
        self.leg.exchange(self.edge.address, self.number).status
    }

    /// The next request works, and all is as before. The broken one came upstream whole so often.
    fn is_well(&mut self, what: &str, whole: RangeInclusive<usize>) {
        self.is_well_after(what, whole, ONCE);
    }

    /// The same, with how often the next one came.
    fn is_well_after(&mut self, what: &str, whole: RangeInclusive<usize>, next_whole: RangeInclusive<usize>) {
        self.back.forget_plan();
        self.sent.push((self.number, what.to_owned(), whole));
        self.number += 1;
        let next = self.leg.exchange(self.edge.address, self.number).status;
        assert_eq!(next, Some(200), "{what}: the next request");
        self.sent.push((self.number, format!("{what}: the next request"), next_whole));
        self.is_idle(what);
        self.look();
        if self.sent.len() > 80 {
            self.look_once_more();
        }
    }

    /// For the end of a test: nothing is left open either, and nothing went wrong that was merely caught.
    fn leaves_nothing(&mut self) {
        self.look_once_more();
        assert!(self.edge.admin_page("/metrics").text().contains("\nasr_edge_panics_total 0\n"));
        let files = self.open_files;
        eventually("closed files", || (self.edge.open_files() <= files).then_some(()));
    }

    /// The first request's access line says so.
    fn came_by(&self, column: &str) {
        eventually(column, || self.edge.printed().contains(column).then_some(()));
    }

    fn is_idle(&self, what: &str) {
        eventually(what, || {
            let status = self.edge.admin_page("/status").json();
            let idle =
                status["in_flight"] == 0 && status["queue"]["waiting"] == 0 && status["spool"]["bytes"] == 0;
            idle.then_some(())
        });
    }

    /// What the upstream has seen whole is what it may have; what went there by the wire too, since whoever breaks off
    /// right behind a request may never be heard.
    fn look(&self) {
        let on_wire: Vec<u32> = self.back.uploads(client::whole_upload).into_iter().flatten().collect();
        for (number, what, expected) in &self.sent {
            let whole = on_wire.iter().filter(|sent| *sent == number).count();
            assert!(whole <= *expected.end(), "{what}: sent upstream whole {whole} times");
        }
        let mut seen = self.stub.seen();
        seen.retain(harness::Seen::is_complete);
        for (number, what, expected) in &self.sent {
            let hash = sha256(&audio(*number));
            let before = seen.len();
            seen.retain(|seen| seen.audio_hash() != hash);
            let whole = before - seen.len();
            assert!(expected.contains(&whole), "{what}: whole upstream {whole} times, not {expected:?}");
        }
        assert!(seen.is_empty(), "nobody sent these: {seen:?}");
    }

    /// The same, for what comes late; then the stand-in may forget it all.
    fn look_once_more(&mut self) {
        std::thread::sleep(Duration::from_millis(100));
        self.look();
        self.stub.forget();
        self.back.forget_uploads();
        self.sent.clear();
    }
}

/// Nobody was told of a success.
fn refused(status: Option<u16>) -> bool {
    status.is_none_or(|status| status >= 400)
}

/// Our upstream is at fault.
fn blamed(status: Option<u16>) -> bool {
    status.is_some_and(|status| status >= 500)
}
