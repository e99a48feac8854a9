//! What the tests of the whole program share: the real binary, the real stand-in upstream, and a client that sends
//! exact bytes. Every process dies with its handle; every wait has an end.

mod captures;
mod edge;
mod form;
mod http2;
mod process;
mod puppet;
mod request;
mod stub;
mod wire;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) use captures::{Capture, captures};
pub(crate) use edge::{Edge, Launch, Output};
pub(crate) use form::{Form, clip, wav};
pub(crate) use http2::{
    END_HEADERS, END_STREAM, Http2, Kind, Outcome, STATUS_200, STATUS_400, frame, header_block, upload_block,
};
pub(crate) use process::{Process, run};
pub(crate) use puppet::Puppet;
pub(crate) use request::{Request, get};
pub(crate) use stub::{Seen, Stub};
pub(crate) use wire::{Ending, Reply, Wire};

/// The key that callers send, the login that goes upstream, and the words that come back. None may ever be printed.
pub(crate) const KEY: &str = "sk-test-0f1e2d3c4b5a69788796a5b4c3d2e1f0";
pub(crate) const TOKEN: &str = "tok-61e1b1a2c0ffee00-upstream";
pub(crate) const ACCOUNT: &str = "acct-5d41402abc4b2a76";
pub(crate) const TEXT: &str = "The transcript: “grüße”, said she.";
/// Where almost every request goes.
pub(crate) const ENDPOINT: &str = "/v1/audio/transcriptions";

/// Longer than anything here takes on a busy machine; a test that waits this long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A stand-in upstream, and the program in front of it.
pub(crate) struct Bench {
    pub(crate) edge: Edge,
    pub(crate) stub: Stub,
}

impl Bench {
    /// Both with their defaults.
    pub(crate) fn start() -> Self {
        Self::with(|launch| launch)
    }

    /// The program with other flags or another config.
    pub(crate) fn with(change: impl FnOnce(Launch) -> Launch) -> Self {
        Self::before(Stub::start(&["--text", TEXT]), change)
    }

    /// The program before this stand-in.
    pub(crate) fn before(stub: Stub, change: impl FnOnce(Launch) -> Launch) -> Self {
        Self { edge: change(Launch::to(&stub)).start(), stub }
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: &Request) -> Reply {
        self.edge.ask(request)
    }

    /// Sends the request; it must succeed, and the upstream must have seen exactly this audio in a faultless request.
    pub(crate) fn accepts(&self, what: &str, request: &Request, audio: &[u8]) -> (Reply, Seen) {
        self.stub.forget();
        let reply = self.ask(request);
        assert_eq!(reply.status, 200, "{what}: {reply:?}");
        (reply, self.heard(what, audio))
    }

    /// The one request that the upstream saw since it last forgot: whole, faultless, with exactly this audio.
    pub(crate) fn heard(&self, what: &str, audio: &[u8]) -> Seen {
        let seen = self.stub.seen();
        assert_eq!(seen.len(), 1, "{what}: {seen:?}");
        let seen = seen.into_iter().next().unwrap();
        assert!(seen.is_complete() && seen.breach().is_none(), "{what}: {seen:?}");
        assert_eq!(seen.audio_hash(), sha256(audio), "{what}: {seen:?}");
        seen
    }

    /// Nothing whole came upstream. A request that was given up may still be on its way there: it gets some time.
    pub(crate) fn assert_nothing_whole(&self, what: &str) {
        self.stub.assert_nothing_whole(what);
    }
}

/// The plain answer with this text, about audio of so many seconds, rounded up.
pub(crate) fn transcript(text: &str, seconds: u64) -> Value {
    json!({"text": text, "usage": {"type": "duration", "seconds": seconds}})
}

/// As hexadecimal digits.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Looks until there is something, for as long as any test may wait.
pub(crate) fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < LONG, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
