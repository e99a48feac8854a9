//! The look at a new connection before TLS, under arbitrary cutting.
//!
//! Input: a byte that seeds the cutting, and what the client sends.

#![no_main]

use asr_edge_fuzz::peek::{LONGEST, Peek, Sight};
use libfuzzer_sys::{Corpus, fuzz_target};
use rustls::server::Acceptor;

/// The head of a record that is too long has been seen by then.
const DECIDED: usize = LONGEST + 5;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((seed, bytes)) = input.split_first() else { return Corpus::Reject };
    let whole = outcome([bytes]);
    assert_eq!(outcome(cut(bytes, u64::from(*seed))), whole, "cutting changes the outcome");
    assert_eq!(outcome(bytes.chunks(1)), whole, "single bytes change the outcome");
    if let (Outcome::Hello { name, .. }, Some(expected)) = (&whole, reference(bytes)) {
        assert_eq!(*name, expected, "another name than rustls sees");
    }
    if whole == Outcome::Undecided {
        assert!(bytes.len() < DECIDED, "more than {LONGEST} bytes decide nothing");
        return Corpus::Keep;
    }
    // An endless client is cut off.
    let more = vec![0; DECIDED];
    assert_ne!(outcome([bytes, &more[..]]), Outcome::Undecided);
    Corpus::Keep
});

#[derive(Debug, PartialEq)]
enum Outcome {
    Undecided,
    Hello { name: Option<String>, challenge: bool },
    Broken(Vec<u8>),
    PlainText,
    Unknown,
}

/// What is seen in the end; checks on the way that no byte is lost.
fn outcome<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let (mut peek, mut pushed) = (Peek::new(), Vec::new());
    let mut outcome = Outcome::Undecided;
    for piece in pieces {
        pushed.extend_from_slice(piece);
        outcome = match peek.push(piece) {
            Sight::More => continue,
            Sight::Hello(hello) => Outcome::Hello { name: hello.name, challenge: hello.challenge },
            Sight::Broken(alert) => Outcome::Broken(alert),
            Sight::PlainText => Outcome::PlainText,
            Sight::Unknown => Outcome::Unknown,
        };
        break;
    }
    assert!(peek.into_seen() == pushed, "bytes are lost");
    outcome
}

/// The name that rustls' server finds when it is given everything at once.
fn reference(mut bytes: &[u8]) -> Option<Option<String>> {
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        acceptor.read_tls(&mut bytes).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return Some(accepted.client_hello().server_name().map(str::to_ascii_lowercase));
        }
    }
    None
}

/// Pieces of 1 to 64 bytes.
fn cut(bytes: &[u8], seed: u64) -> impl Iterator<Item = &[u8]> {
    let (mut rest, mut state) = (bytes, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    std::iter::from_fn(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let (piece, left) = rest.split_at((1 + state as usize % 64).min(rest.len()));
        rest = left;
        (!piece.is_empty()).then_some(piece)
    })
}
