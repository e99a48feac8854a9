//! The head of an MPEG audio frame (ISO 11172-3 2.4.2.3, ISO 13818-3), looked up rather than worked out: a long
//! recording has a hundred thousand of them.

/// Ticks a second that every MPEG sample rate divides.
pub(super) const TICKS: u64 = 14_112_000;

/// A frame, by its first four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super::super) struct Frame {
    /// With its head, bytes.
    pub(in super::super::super) size: u16,
    /// How long it plays, [`TICKS`].
    pub(super) ticks: u32,
    /// Version, layer and sample rate, which stay the same from frame to frame.
    kind: u16,
    mono: bool,
}

impl Frame {
    /// Reads a head. Free format, which does not tell the size, is none.
    pub(in super::super::super) fn read(head: [u8; 4]) -> Option<Self> {
        let [0xff, second, third, fourth] = head else { return None };
        if second < 0xe0 {
            return None;
        }
        let index = usize::from(second & 0x1e) << 5 | usize::from(third >> 2);
        let (size, ticks) = *TABLE.get(index)?;
        if size == 0 {
            return None;
        }
        let padding = if third & 2 == 0 { 0 } else { slot(second) };
        let kind = u16::from_be_bytes([second & 0x1e, third & 0x0c]);
        Some(Self { size: size + padding, ticks, kind, mono: fourth >> 6 == 3 })
    }

    /// Whether both can stand in one stream.
    pub(in super::super::super) const fn is_like(self, other: Self) -> bool {
        self.kind == other.kind
    }

    /// Where a Xing or Info tag stands in a frame of layer III: behind the side information.
    pub(super) const fn xing(self) -> usize {
        let is_mpeg1 = self.kind & 0x1800 == 0x1800;
        match (is_mpeg1, self.mono) {
            (true, false) => 36,
            (true, true) | (false, false) => 21,
            (false, true) => 13,
        }
    }
}

/// How much a frame's padding takes, by the second byte of its head: more in layer I.
pub(super) const fn slot(second: u8) -> u16 {
    if second & 6 == 6 { 4 } else { 1 }
}

/// Size without padding, and ticks, by version, layer, bit rate and sample rate as they stand in a head; size 0:
/// there is no such frame.
static TABLE: [(u16, u32); 1024] = table();

#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "worked out when compiled")]
const fn table() -> [(u16, u32); 1024] {
    let mut table = [(0, 0); 1024];
    let mut index = 0;
    while index < table.len() {
        let (version, layer) = (index >> 8, index >> 6 & 3);
        let (bit_rate, sample_rate) = (index >> 2 & 15, index & 3);
        index += 1;
        if version == 1 || layer == 0 || bit_rate == 0 || bit_rate == 15 || sample_rate == 3 {
            continue;
        }
        let is_mpeg1 = version == 3;
        let kbps = match (is_mpeg1, layer) {
            (true, 3) => 32 * bit_rate as u32,
            (true, 2) => MPEG1_LAYER2[bit_rate - 1],
            (true, _) => MPEG1_LAYER3[bit_rate - 1],
            (false, 3) => MPEG2_LAYER1[bit_rate - 1],
            (false, _) => MPEG2_LAYER3[bit_rate - 1],
        };
        let rate = [44_100, 48_000, 32_000][sample_rate]
            >> if is_mpeg1 {
                0
            } else if version == 2 {
                1
            } else {
                2
            };
        let samples = match (is_mpeg1, layer) {
            (_, 3) => 384,
            (false, 1) => 576,
            _ => 1152,
        };
        let size = if layer == 3 { 12_000 * kbps / rate * 4 } else { samples / 8 * 1000 * kbps / rate };
        table[index - 1] = (size as u16, samples * (TICKS as u32 / rate));
    }
    table
}

const MPEG1_LAYER2: [u32; 14] = [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384];
const MPEG1_LAYER3: [u32; 14] = [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320];
const MPEG2_LAYER1: [u32; 14] = [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256];
const MPEG2_LAYER3: [u32; 14] = [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_size_and_length_that_the_standard_gives_them() {
        for (head, size, samples, rate) in [
            ([0xff, 0xfb, 0x90, 0x64], 417, 1152, 44_100),
            ([0xff, 0xfb, 0x92, 0x64], 418, 1152, 44_100),
            ([0xff, 0xfb, 0xe4, 0xc4], 960, 1152, 48_000),
            ([0xff, 0xf3, 0x88, 0xc4], 288, 576, 16_000),
            ([0xff, 0xe3, 0x18, 0xc4], 72, 576, 8_000),
            ([0xff, 0xfd, 0xa8, 0xc4], 864, 1152, 32_000),
            ([0xff, 0xff, 0xe2, 0xc4], 488, 384, 44_100),
        ] {
            let frame = Frame::read(head).unwrap();
            assert_eq!((frame.size, u64::from(frame.ticks)), (size, samples * TICKS / rate), "{head:x?}");
        }
    }

    #[test]
    fn what_is_no_frame_is_none() {
        for head in [
            [0xff, 0xf1, 0x50, 0x80], // ADTS
            [0xff, 0xfb, 0xf0, 0x64], // bit rate 15
            [0xff, 0xfb, 0x00, 0x64], // free format
            [0xff, 0xfb, 0x9c, 0x64], // sample rate 3
            [0xff, 0xeb, 0x90, 0x64], // version 1
            [0xff, 0xdb, 0x90, 0x64],
            [0xfe, 0xfb, 0x90, 0x64],
        ] {
            assert_eq!(Frame::read(head), None, "{head:x?}");
        }
    }

    #[test]
    fn a_xing_tag_stands_behind_the_side_information() {
        for (second, fourth, expected) in [(0xfb, 0, 36), (0xfb, 0xc0, 21), (0xf3, 0, 21), (0xf3, 0xc0, 13)] {
            assert_eq!(Frame::read([0xff, second, 0x80, fourth]).unwrap().xing(), expected);
        }
    }
}
