//! Clients that speak HTTP/2, or TLS: what breaks is a frame, a record, or a handshake.

use super::client::Leg;
use super::proxy::{Act, Plan, Way};
use super::{AT_MOST_ONCE, Lengths, Line, NEVER, ONCE, refused};

const ACTS: [Act; 4] = [Act::Cut, Act::Reset, Act::HalfClose, Act::Garbage];

/// Every so many bytes, and each of the last.
fn samples(length: usize, step: usize) -> impl Iterator<Item = usize> {
    let last = length.saturating_sub(12);
    (0..last).step_by(step).chain(last..length)
}

/// Breaks uploads at these bytes: no success, and nothing whole upstream.
fn uploads_break(line: &mut Line, act: Act, bytes: impl Iterator<Item = usize>) {
    for at in bytes {
        let status = line.in_front(Plan { way: Way::Up, at, act });
        assert!(refused(status) && line.front.struck(), "{act:?} at {at}: {status:?}");
        line.is_well(&format!("{act:?} at {at}"), NEVER);
    }
}

/// Breaks answers, and the program's side of the handshake, at these bytes: a success is told to those alone who have
/// all of it, and the request went upstream once at most.
fn answers_break(line: &mut Line, act: Act, bytes: impl Iterator<Item = usize>) {
    for at in bytes {
        let status = line.in_front(Plan { way: Way::Down, at, act });
        let whole = match status {
            // What breaks is the goodbye behind the answer; or nothing at all, where that has not come.
            Some(200) => ONCE,
            None => AT_MOST_ONCE,
            Some(_) => panic!("{act:?} at {at}: {status:?}"),
        };
        line.is_well(&format!("{act:?} down at {at}"), whole);
    }
}

#[test]
fn an_upload_over_http_2_that_is_cut_anywhere_never_goes_upstream_whole() {
    let mut line = Line::by(Leg::Http2, &[]);
    let Lengths { front: [up, _], .. } = line.lengths();
    line.came_by("protocol=\"h2\"");
    uploads_break(&mut line, Act::Cut, 0..up);
    line.leaves_nothing();
}

#[test]
fn resets_half_closes_and_garbage_over_http_2_are_refused() {
    let mut line = Line::by(Leg::Http2, &[]);
    let Lengths { front: [up, down], .. } = line.lengths();
    for act in [Act::Reset, Act::HalfClose, Act::Garbage] {
        uploads_break(&mut line, act, samples(up, 5));
    }
    for act in [Act::Cut, Act::Reset, Act::HalfClose] {
        answers_break(&mut line, act, samples(down, 5));
    }
    line.leaves_nothing();
}

/// The ciphertext of an exchange breaks at bytes of all its phases.
fn breaks_over_tls(leg: Leg, protocol: &str) {
    let mut line = Line::by(leg, &[]);
    let Lengths { front: [up, down], .. } = line.lengths();
    line.came_by("tls=\"TLSv1.3\"");
    line.came_by(protocol);
    for act in ACTS {
        uploads_break(&mut line, act, samples(up, 17));
        answers_break(&mut line, act, samples(down, 17));
    }
    line.leaves_nothing();
}

#[test]
fn an_exchange_over_tls_by_http_1_1_that_breaks_anywhere_is_no_success() {
    breaks_over_tls(Leg::Http1Tls(None), "protocol=\"h1\"");
}

#[test]
fn an_exchange_over_tls_by_http_2_that_breaks_anywhere_is_no_success() {
    breaks_over_tls(Leg::Http2Tls(None), "protocol=\"h2\"");
}
