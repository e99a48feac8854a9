//! Frames that follow each other without a gap, counted at once.
//!
//! An hour at 32 kbit/s has 138,000 of them, and what one costs decides what a recording costs: one that is like the one
//! before is known by its head's bits, without a look into the table.

use super::frame::{Frame, slot};

/// Such frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// How long all but the last of them play, [`TICKS`](super::frame::TICKS).
    pub(super) ticks: u64,
    /// Where the last one begins.
    start: usize,
    /// Its size, bytes.
    size: usize,
    /// How long it plays, [`TICKS`](super::frame::TICKS).
    pub(super) last: u64,
}

/// The bits of a head that tell a frame's size and length, and the one among them that tells its padding.
const SIZED: u32 = u32::from_le_bytes([0xff, 0xfe, 0xfe, 0]);
const PADDING: u32 = u32::from_le_bytes([0, 0, 2, 0]);

impl Run {
    /// The frames that these bytes begin with, up to and with the first behind which no other head has come.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let first = Frame::read(head(bytes, 0)?)?;
        let mut run = Self { ticks: 0, start: 0, size: first.size.into(), last: first.ticks.into() };
        loop {
            run.pass_same(bytes);
            run.pass_padded(bytes);
            let next = run.end();
            let Some(frame) = head(bytes, next).and_then(Frame::read) else { return Some(run) };
            run.ticks += run.last;
            (run.start, run.size, run.last) = (next, frame.size.into(), frame.ticks.into());
        }
    }

    /// Where the last one ends.
    pub(super) const fn end(&self) -> usize {
        self.start + self.size
    }

    /// Passes frames of the same size. Where the next head stands is known before this one has been looked at: the
    /// processor reads many at once.
    fn pass_same(&mut self, bytes: &[u8]) {
        let Some(like) = word(bytes, self.start).map(|word| word & SIZED) else { return };
        let (mut next, mut count) = (self.end(), 0);
        while word(bytes, next).is_some_and(|word| word & SIZED == like) {
            next += self.size;
            count += 1;
        }
        self.start = next - self.size;
        self.ticks += count * self.last;
    }

    /// Passes frames that differ in nothing but their padding, if such a one follows. Whether the next one has any can
    /// be guessed badly, and to wait for it takes long: both places where its head can stand are read beforehand.
    fn pass_padded(&mut self, bytes: &[u8]) {
        let (Some(mut word), Some(next)) = (word(bytes, self.start), word(bytes, self.end())) else { return };
        if (word ^ next) & SIZED != PADDING {
            return;
        }
        let [_, second, ..] = word.to_le_bytes();
        let places = PADDING.ilog2() - slot(second).ilog2();
        let padding = |word: u32| ((word & PADDING) >> places) as usize;
        let (bare, like) = (self.size - padding(word), word & SIZED & !PADDING);
        let (mut start, mut count) = (self.start, 0);
        while let Some(both) = bytes.get(start + bare..).and_then(|both| both.first_chunk::<8>()) {
            let found = (u64::from_le_bytes(*both) >> (8 * padding(word))) as u32;
            if found & SIZED & !PADDING != like {
                break;
            }
            (start, word) = (start + bare + padding(word), found);
            count += 1;
        }
        (self.start, self.size) = (start, bare + padding(word));
        self.ticks += count * self.last;
    }
}

fn head(bytes: &[u8], at: usize) -> Option<[u8; 4]> {
    bytes.get(at..)?.first_chunk::<4>().copied()
}

/// A head in one piece, the first byte lowest.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    head(bytes, at).map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a look at every single head finds.
    fn one_by_one(bytes: &[u8]) -> Option<Run> {
        let mut run = None;
        let (mut at, mut ticks) = (0, 0);
        while let Some(frame) = head(bytes, at).and_then(Frame::read) {
            let last = u64::from(frame.ticks);
            run = Some(Run { ticks, start: at, size: frame.size.into(), last });
            (at, ticks) = (at + usize::from(frame.size), ticks + last);
        }
        run
    }

    /// Frames with these second and third bytes.
    fn frames(heads: &[(u8, u8)]) -> Vec<u8> {
        let mut file = Vec::new();
        for (n, (second, third)) in heads.iter().enumerate() {
            let head = [0xff, *second, *third, n as u8];
            file.extend(head);
            file.resize(file.len() + usize::from(Frame::read(head).unwrap().size) - 4, 0xff);
        }
        file
    }

    #[test]
    fn frames_that_follow_each_other_are_counted_as_one_by_one() {
        let (plain, padded, faster, layer1, layer1_padded) =
            ((0xfb, 0x90), (0xfb, 0x92), (0xfb, 0xa0), (0xff, 0x90), (0xff, 0x92));
        let turns = [plain, padded, plain, plain, padded, padded, plain];
        for heads in [
            vec![plain; 9],
            vec![padded; 9],
            turns.repeat(5),
            [layer1, layer1_padded, layer1_padded, layer1].repeat(4),
            [plain, faster, padded, (0xfa, 0x93), (0xf3, 0x90), (0xe3, 0x90), plain, layer1_padded, padded]
                .repeat(3),
        ] {
            let file = frames(&heads);
            for size in (0..file.len()).step_by(3).chain([file.len()]) {
                assert_eq!(Run::read(&file[..size]), one_by_one(&file[..size]), "{heads:x?} up to {size}");
            }
            for junk in [&b"TAG"[..], b"\xff\xfb\x90", b"\xff\xfb\xf0\x64", &[0; 9]] {
                let file = [&file[..], junk].concat();
                assert_eq!(Run::read(&file), one_by_one(&file), "{heads:x?}");
            }
        }
        assert_eq!(Run::read(b"\xff\xfb\xf0\x64...."), None);
    }
}
