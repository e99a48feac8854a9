//! An upstream by HTTP/2 over TLS, as the real one is.

use super::client::Leg;
use super::proxy::{Act, Plan, Way};
use super::{AT_MOST_ONCE, Lengths, Line, NEVER, ONCE, blamed};

/// Acknowledgements and goodbyes go with a request and with an answer, before or behind its end, and Huffman coding makes
/// the one's boundary longer than the other's: within so many bytes of the end nobody knows what breaks.
const TAIL: usize = 160;

/// Breaks the way to the upstream at bytes of all phases.
fn breaks(way: Way, acts: &[Act]) {
    let mut line = Line::by(Leg::Http1, &["--tls"]);
    let Lengths { back, .. } = line.lengths();
    assert_eq!(line.stub.seen()[0].protocol(), "HTTP/2");
    let length = back[usize::from(way == Way::Down)];
    let end = length - TAIL;
    for act in acts {
        for at in (0..end).step_by(17).chain((end..length).step_by(7)) {
            let what = format!("{act:?} {way:?} at {at}");
            let status = line.behind(Plan { way, at, act: *act });
            let whole = match (status, way) {
                (Some(200), _) => {
                    assert!(at >= end, "{what}: a success");
                    ONCE
                }
                (_, Way::Up) if at < end => NEVER,
                _ => AT_MOST_ONCE,
            };
            assert!(status == Some(200) || blamed(status), "{what}: {status:?}");
            assert!(at >= end || line.back.struck(), "{what}: nothing broke");
            line.is_well(&what, whole);
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
