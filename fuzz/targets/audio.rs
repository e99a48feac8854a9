//! The audio's scanners under arbitrary cutting: the same container and the same length, or the same refusal, for every
//! cutting; every byte passes, in bounded memory; no length that so few bytes cannot hold; and a maximum of half that
//! length refuses the file.
//!
//! Input: a byte that chooses what the file begins with (see `START`), a byte that seeds the cutting, and the file.

#![no_main]

use std::time::Duration;

use asr_edge_fuzz::translate::{Audio, Container, Refusal};
use bytes::Bytes;
use libfuzzer_sys::{Corpus, fuzz_target};

/// What stands in front of the input, so that every container is reached at once: the first of them is nothing.
const START: [&[u8]; 8] = [
    b"",
    b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0",
    b"fLaC\0\0\0\x22\x10\0\x10\0",
    b"OggS\0\x02\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x01\x13OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0",
    b"ID3\x04\0\0\0\0\0\x02..\xff\xfb\x90\x64",
    b"\0\0\0\x10ftypM4A \0\0\0\0",
    b"\x1a\x45\xdf\xa3\x84\x42\x86\x81\x01\x18\x53\x80\x67\xff",
    b"\xff\xf3\x48\xc4",
];

/// The longest that is held of any file.
const HELD: usize = 66 << 10;

type Outcome = Result<(Container, Option<Duration>), Refusal>;

fuzz_target!(|input: &[u8]| -> Corpus {
    let [start, seed, rest @ ..] = input else { return Corpus::Reject };
    let file = Bytes::from([START[usize::from(*start) % START.len()], rest].concat());

    let whole = measure(&file, std::iter::once(file.len()), None);
    let mut state = u64::from(*seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let random = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 8) as usize % if state & 3 == 0 { 1500 } else { 30 }
    });
    assert_eq!(measure(&file, random, None), whole, "cutting changes the result");
    if file.len() <= 2048 {
        assert_eq!(measure(&file, std::iter::repeat(1), None), whole, "single bytes change the result");
    }

    if let Ok((_, Some(duration))) = whole {
        let most = Duration::from_millis(file.len() as u64 * 80);
        assert!(duration <= most + Duration::from_millis(1), "{duration:?} in {} bytes", file.len());
        let limit = duration / 2;
        let limited = measure(&file, std::iter::repeat(100), Some(limit));
        assert!(matches!(limited, Err(Refusal::AudioTooLong { .. })), "{limited:?}, not over {limit:?}");
    }
    Corpus::Keep
});

/// Pushes the file in these pieces.
fn measure(file: &Bytes, pieces: impl IntoIterator<Item = usize>, limit: Option<Duration>) -> Outcome {
    let (mut audio, mut rest, mut out) = (Audio::new(limit), file.clone(), 0);
    for piece in pieces {
        let piece = rest.split_to(piece.min(rest.len()));
        out += audio.push(piece)?.map_or(0, |piece| piece.len());
        assert!(audio.held() <= HELD, "{} bytes are held", audio.held());
        assert!(file.len() - rest.len() - out <= 1024, "too much is held back");
        if rest.is_empty() {
            break;
        }
    }
    out += audio.end()?.map_or(0, |piece| piece.len());
    assert_eq!(out, file.len(), "every byte passes");
    Ok((audio.container().expect("known"), audio.duration()))
}
