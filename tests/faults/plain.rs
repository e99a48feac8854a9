//! HTTP/1.1 in clear on both sides, at every byte.

use super::client::request;
use super::proxy::{Act, Plan, Way};
use super::{Lengths, Line, NEVER, ONCE, blamed, refused};
use crate::harness::{Form, wav};

#[test]
fn a_request_that_is_cut_anywhere_never_goes_upstream_whole() {
    let mut line = Line::start();
    let Lengths { front: [up, _], .. } = line.lengths();
    assert_eq!(up, request(0).len());
    for at in 0..up {
        let status = line.in_front(Plan { way: Way::Up, at, act: Act::Cut });
        assert!(refused(status), "cut at {at}: {status:?}");
        line.is_well(&format!("cut at {at}"), NEVER);
    }
    line.leaves_nothing();
}

#[test]
fn an_answer_that_is_cut_anywhere_on_its_way_back_leaves_nothing_behind() {
    let mut line = Line::start();
    let Lengths { front: [_, down], .. } = line.lengths();
    for at in 0..down {
        let status = line.in_front(Plan { way: Way::Down, at, act: Act::Cut });
        // An answer that says of itself that it took 9 ms is shorter than the first one, which took 10.
        let whole = at + 4 > down && !line.front.struck();
        assert_eq!(status, whole.then_some(200), "cut at {at}");
        line.is_well(&format!("cut at {at}"), ONCE);
    }
    line.leaves_nothing();
}

#[test]
fn an_upstream_that_breaks_off_anywhere_in_the_request_has_not_seen_it_whole() {
    let mut line = Line::start();
    let Lengths { back: [up, _], .. } = line.lengths();
    for at in 0..up {
        let status = line.behind(Plan { way: Way::Up, at, act: Act::Cut });
        assert!(blamed(status), "cut at {at}: {status:?}");
        line.is_well(&format!("cut at {at}"), NEVER);
    }
    line.leaves_nothing();
}

#[test]
fn an_upstream_that_breaks_off_anywhere_in_its_answer_is_no_success() {
    let mut line = Line::start();
    let Lengths { back: [_, down], .. } = line.lengths();
    for at in 0..down {
        let status = line.behind(Plan { way: Way::Down, at, act: Act::Cut });
        assert!(blamed(status), "cut at {at}: {status:?}");
        line.is_well(&format!("cut at {at}"), ONCE);
    }
    line.leaves_nothing();
}

#[test]
fn resets_half_closes_and_garbage_in_front_are_refused() {
    let mut line = Line::start();
    let Lengths { front: [up, _], .. } = line.lengths();
    for act in [Act::Reset, Act::HalfClose, Act::Garbage] {
        // Behind the closing boundary garbage is an epilogue, which nobody reads (RFC 2046 5.1.1).
        let end = if act == Act::Garbage { up - 3 } else { up };
        for at in 0..end {
            let status = line.in_front(Plan { way: Way::Up, at, act });
            assert!(refused(status), "{act:?} at {at}: {status:?}");
            line.is_well(&format!("{act:?} at {at}"), NEVER);
        }
    }
    line.leaves_nothing();
}

#[test]
fn resets_and_half_closes_behind_are_our_upstream_s_fault() {
    let mut line = Line::start();
    let Lengths { back: [up, down], .. } = line.lengths();
    for act in [Act::Reset, Act::HalfClose] {
        for (way, length, whole) in [(Way::Up, up, NEVER), (Way::Down, down, ONCE)] {
            for at in 0..length {
                let status = line.behind(Plan { way, at, act });
                assert!(blamed(status), "{act:?} {way:?} at {at}: {status:?}");
                line.is_well(&format!("{act:?} {way:?} at {at}"), whole.clone());
            }
        }
    }
    // Garbage before an answer's first byte, where nothing can make sense of it.
    let status = line.behind(Plan { way: Way::Down, at: 0, act: Act::Garbage });
    assert!(blamed(status), "{status:?}");
    line.is_well("garbage", ONCE);
    line.leaves_nothing();
}

#[test]
fn a_client_that_stalls_in_any_phase_is_let_go() {
    let mut line = Line::start();
    let Lengths { front: [up, _], .. } = line.lengths();
    let body = Form::of(&wav(40)).closed().len();
    // Before the head, in the head, in the body's framing, in the audio.
    for at in [0, 40, up - body + 5, up - 20] {
        let status = line.in_front(Plan { way: Way::Up, at, act: Act::Stall });
        assert!(status.is_none() || status == Some(408), "{at}: {status:?}");
        line.is_well(&format!("stall in front at {at}"), NEVER);
    }
    line.leaves_nothing();
}

#[test]
fn an_upstream_that_stalls_in_any_phase_is_given_up() {
    let mut line = Line::start();
    let Lengths { back: [up, down], .. } = line.lengths();
    // The upstream takes no head, half a body; answers nothing, half a head, half a body.
    for (way, at, whole) in [
        (Way::Up, 0, NEVER),
        (Way::Up, up - 30, NEVER),
        (Way::Down, 0, ONCE),
        (Way::Down, 30, ONCE),
        (Way::Down, down - 5, ONCE),
    ] {
        let status = line.behind(Plan { way, at, act: Act::Stall });
        assert!(blamed(status), "{at}: {status:?}");
        line.is_well(&format!("stall behind, {way:?} at {at}"), whole);
    }
    line.leaves_nothing();
}

#[test]
fn what_drips_arrives() {
    let mut line = Line::start();
    line.lengths();
    for way in [Way::Up, Way::Down] {
        assert_eq!(line.in_front(Plan { way, at: 0, act: Act::Drip }), Some(200), "{way:?}");
        line.is_well("dripped in front", ONCE);
        assert_eq!(line.behind(Plan { way, at: 0, act: Act::Drip }), Some(200), "{way:?}");
        line.is_well("dripped behind", ONCE);
    }
    line.leaves_nothing();
}
