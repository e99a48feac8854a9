//! What most of a WebM file is, read without ado: simple blocks of one track, one behind the other.

use super::PEEK;

/// A simple block of the track, neither laced nor tiny, with a head that a field has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Simple {
    /// Where it begins.
    start: usize,
    /// From the element's head to the packet, bytes.
    head: usize,
    /// With its head, bytes.
    size: usize,
    /// From the cluster's time, ticks.
    pub(super) offset: i16,
}

/// Such blocks, one behind the other.
#[derive(Default)]
pub(super) struct Run {
    /// The last of them, and the one before.
    pub(super) last: Option<Simple>,
    pub(super) previous: Option<Simple>,
    /// The earliest of their offsets, ticks.
    pub(super) earliest: i16,
}

impl Run {
    /// The blocks of the track with that number that these bytes begin with, each as far as a field goes.
    pub(super) fn read(track: u8, bytes: &[u8]) -> Self {
        let (mut run, mut next) = (Self { earliest: i16::MAX, ..Self::default() }, 0);
        while let Some(block) = Simple::read(track, bytes, next) {
            run.previous = run.last.replace(block);
            run.earliest = run.earliest.min(block.offset);
            next = block.end();
        }
        run
    }
}

impl Simple {
    fn read(track: u8, bytes: &[u8], start: usize) -> Option<Self> {
        let field = bytes.get(start..)?.first_chunk::<PEEK>()?;
        let word = u64::from_be_bytes(*field.first_chunk::<8>()?);
        // The element's identifier, and a size of two bytes, or of one.
        let (head, size) = match word >> 48 {
            0xa340..=0xa37e => (3, word >> 40 & 0x3fff),
            0xa386..=0xa3fe => (2, word >> 48 & 0x7f),
            _ => return None,
        };
        let [number, high, low, flags, ..] = (word << (8 * head)).to_be_bytes();
        let is_plain = number == track | 0x80 && flags & 6 == 0 && size >= 6;
        let size = head + usize::try_from(size).ok()?;
        let offset = i16::from_be_bytes([high, low]);
        is_plain.then_some(Self { start, head: head + 4, size, offset })
    }

    /// Where it ends.
    pub(super) const fn end(&self) -> usize {
        self.start + self.size
    }

    /// What its packet begins with.
    pub(super) fn packet(&self, bytes: &[u8]) -> Option<[u8; 2]> {
        bytes.get(self.start + self.head..)?.first_chunk::<2>().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(block: &[u8]) -> Option<(usize, i16)> {
        let bytes = [block, &[9; PEEK]].concat();
        Simple::read(1, &bytes, 0).map(|block| (block.end(), block.offset))
    }

    #[test]
    fn plain_blocks_of_the_track_are_known() {
        assert_eq!(read(&[0xa3, 0x86, 0x81, 0, 20, 0x80]), Some((8, 20)));
        assert_eq!(read(&[0xa3, 0xfe, 0x81, 0xff, 0xff, 0x80]), Some((128, -1)));
        assert_eq!(read(&[0xa3, 0x41, 0x02, 0x81, 0x12, 0x34, 0]), Some((261, 0x1234)));
        assert_eq!(read(&[0xa3, 0x40, 0x06, 0x81, 0, 0, 0]), Some((9, 0)));
        assert_eq!(Simple::read(1, &[0xa3, 0x86, 0x81, 0, 20, 0x80, 1, 2, 3], 0), None, "less than a field");
    }

    #[test]
    fn all_others_are_left_to_be_read_in_full() {
        for other in [
            &[0xa3, 0x85, 0x81, 0, 20, 0x80][..],   // tiny
            &[0xa3, 0x40, 0x05, 0x81, 0, 20, 0x80], // tiny
            &[0xa3, 0xff, 0x81, 0, 20, 0x80],       // of unknown size
            &[0xa3, 0x7f, 0xff, 0x81, 0, 20, 0x80], // of unknown size
            &[0xa3, 0x20, 0x01, 0x02, 0x81, 0, 20], // large
            &[0xa3, 0x90, 0x82, 0, 20, 0x80],       // of another track
            &[0xa3, 0x90, 0x40, 0x01, 0, 20, 0x80], // its track's number is written long
            &[0xa3, 0x90, 0x81, 0, 20, 0x84],       // laced
            &[0xa1, 0x90, 0x81, 0, 20, 0],          // in a group
            &[0xe7, 0x84, 0, 0, 0, 1],
        ] {
            assert_eq!(read(other), None, "{other:x?}");
        }
    }
}
