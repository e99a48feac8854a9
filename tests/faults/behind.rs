//! An upstream by HTTP/2 over TLS, as the real one is.

use serde_json::json;

use super::client::Leg;
use super::proxy::{Act, Plan, Way};
use super::{AT_MOST_ONCE, Lengths, Line, NEVER, ONCE, ONCE_OR_TWICE, blamed};
use crate::harness::TEXT;

/// Acknowledgements and goodbyes go with a request and with an answer, before or behind its end, and Huffman coding makes
/// the one's boundary longer than the other's: within so many bytes of the end nobody knows what breaks.
const TAIL: usize = 160;

/// The status of a request whose connection broke; `None` when none did, because there is no such byte. One that is just
/// being given up may take one more request, and leave none to break.
fn broken(line: &mut Line, plan: Plan, what: &str) -> Option<Option<u16>> {
    for _ in 0..5 {
        let status = line.behind(plan);
        if line.back.struck() {
            return Some(status);
        }
        assert_eq!(status, Some(200), "{what}: nothing broke");
        line.is_well(what, ONCE);
    }
    None
}

/// Breaks the way to the upstream at bytes of all phases.
fn breaks(way: Way, acts: &[Act]) {
    let mut line = Line::by(Leg::Http1, &["--tls"]);
    let Lengths { back, .. } = line.lengths();
    assert_eq!(line.stub.seen()[0].protocol(), "HTTP/2");
    let length = back[usize::from(way == Way::Down)];
    let end = length - TAIL;
    for act in acts {
        // Garbage behind the answer may look like the head of a long record, whose rest is waited for in silence.
        let last = if *act == Act::Garbage { end } else { length };
        for at in (0..end).step_by(17).chain((end..last).step_by(7)) {
            let what = format!("{act:?} {way:?} at {at}");
            let Some(status) = broken(&mut line, Plan { way, at, act: *act }, &what) else {
                assert!(at >= end, "{what}: nothing broke");
                continue;
            };
            let (whole, next) = match status {
                Some(200) => {
                    assert!(at >= end, "{what}: a success");
                    // What broke behind the answer shows on the connection when it is used again, and then the request is
                    // too.
                    (ONCE, ONCE_OR_TWICE)
                }
                _ => {
                    assert!(blamed(status), "{what}: {status:?}");
                    (if way == Way::Up && at < end { NEVER } else { AT_MOST_ONCE }, ONCE)
                }
            };
            line.is_well_after(&what, whole, next);
        }
    }
    assert!(line.stub.connections() > 100, "each had a connection of its own");
    line.leaves_nothing();
}

#[test]
fn an_upstream_that_breaks_off_in_the_handshake_or_the_request_has_not_seen_it_whole() {
    breaks(Way::Up, &[Act::Cut, Act::Reset, Act::HalfClose]);
}

#[test]
fn an_upstream_that_breaks_off_in_the_handshake_or_its_answer_is_no_success() {
    breaks(Way::Down, &[Act::Cut, Act::Reset, Act::HalfClose, Act::Garbage]);
}

#[test]
fn a_connection_that_goes_dead_without_a_word_costs_one_request() {
    let mut line = Line::by(Leg::Http1, &["--tls"]);
    line.stub.script(json!({"text": TEXT}));
    for _ in 0..2 {
        assert_eq!(line.ask(), Some(200));
    }
    line.back.freeze();
    assert_eq!(line.ask(), Some(504));
    for _ in 0..3 {
        assert_eq!(line.ask(), Some(200), "the next gets another one");
    }
    assert_eq!(line.back.uploads(|_| ()).len(), 2, "connections");
}
