//! FLAC (RFC 9639): what STREAMINFO says counts if the last frame bears it out.
//!
//! Frames do not tell their size, and looking for each would cost more than carrying the file. The last one is
//! enough, since every frame tells its place in the stream: the end of the file is kept, and searched when it has
//! come.

mod frame;
mod tail;

use std::time::Duration;

use bytes::Bytes;

use super::feed::{Feed, Scan, Stop, Want, be32, bytes};
use super::{Length, Refusal, lasting};
use tail::Tail;

/// No frame that is looked for is longer. One of 65,535 samples of eight channels could be; encoders write a tenth.
const LONGEST: usize = 64 << 10;

/// A frame has a head of six bytes, a subframe of two, and two of checksum at least.
const SHORTEST: u64 = 10;

/// The measurer.
#[derive(Clone)]
pub(super) struct Flac {
    head: Feed<Head>,
    tail: Tail,
}

/// The scanner for the metadata blocks in front of the frames.
#[derive(Clone)]
struct Head {
    field: Field,
    info: StreamInfo,
    /// Where the frames begin.
    frames: Option<u64>,
}

/// What comes next.
#[derive(Clone)]
enum Field {
    Magic,
    BlockHead,
    StreamInfo { last: bool, next: u64 },
}

/// RFC 9639 8.2, as far as it counts.
#[derive(Default, Clone, Copy)]
struct StreamInfo {
    /// Samples per channel in the longest block, which is every but the last one where the size is fixed.
    block: u16,
    /// The size of the longest frame, bytes; 0 when the encoder did not know.
    longest: u32,
    rate: u32,
    /// Samples per channel; 0 when the encoder did not know.
    samples: u64,
}

impl Flac {
    /// For a stream that begins at byte `start` of the file.
    pub(super) fn new(start: u64) -> Self {
        let head = Head { field: Field::Magic, info: StreamInfo::default(), frames: None };
        Self { head: Feed::new(head, start), tail: Tail::default() }
    }

    pub(super) fn push(&mut self, piece: &Bytes) -> Result<(), Refusal> {
        self.head.push(piece)?;
        if self.head.scan().frames.is_some() {
            self.tail.push(piece.clone(), self.head.scan().info.window());
        }
        Ok(())
    }

    pub(super) fn length(&self) -> Length {
        let head = self.head.scan();
        let Some(frames) = head.frames else { return self.head.length() };
        let seen = self.head.seen();
        if seen <= frames {
            return Length::Empty;
        }
        let tail = self.tail.join();
        // What the tail holds may start before the frames do.
        let before = usize::try_from((frames + tail.len() as u64).saturating_sub(seen)).unwrap_or(usize::MAX);
        let Some(shown) = frame::last(tail.get(before..).unwrap_or_default(), &head.info) else {
            return Length::Unknown;
        };
        let frames_before = (seen - frames) / SHORTEST;
        if shown.start / u64::from(head.info.block.max(1)) > frames_before {
            return Length::Unknown;
        }
        let told = head.info.samples;
        let fits = shown.whole && shown.start < told && told <= shown.end;
        lasting(if fits { told } else { shown.played() }, head.info.rate)
    }

    pub(super) fn claim(&self) -> Option<Duration> {
        self.head.claim()
    }

    /// Bytes held, at most: pieces that are kept share their memory with their neighbours.
    pub(super) fn held(&self) -> usize {
        self.head.held() + self.tail.held()
    }
}

impl Scan for Head {
    const FIRST: usize = 4;

    fn field(&mut self, at: u64, field: &[u8]) -> Result<Want, Stop> {
        let (last, next) = match self.field {
            Field::Magic => (false, at.saturating_add(4)),
            Field::BlockHead => {
                let head = be32(field, 0)?;
                let (last, kind, size) = (head >> 31 == 1, head >> 24 & 0x7f, head & 0xff_ffff);
                let next = at.saturating_add(4).saturating_add(size.into());
                if (kind, size) == (0, 34) {
                    self.field = Field::StreamInfo { last, next };
                    return Ok(Want::new(at.saturating_add(4), 18));
                }
                (last, next)
            }
            Field::StreamInfo { last, next } => {
                self.info = StreamInfo::read(field)?;
                (last, next)
            }
        };
        self.field = Field::BlockHead;
        if last {
            self.frames = Some(next);
            return Ok(Want::NOTHING);
        }
        Ok(Want::new(next, 4))
    }

    fn length(&self, _: u64) -> Length {
        Length::Empty
    }

    fn claim(&self) -> Option<Duration> {
        match lasting(self.info.samples, self.info.rate) {
            Length::Lasts(duration) if self.info.samples > 0 => Some(duration),
            _ => None,
        }
    }
}

impl StreamInfo {
    fn read(field: &[u8]) -> Result<Self, Stop> {
        let [_, _, b0, b1, _, _, _, l0, l1, l2] = bytes(field, 0)?;
        // 20 bits sample rate, 3 channels, 5 bits per sample, 36 total samples
        let packed = u64::from_be_bytes(bytes(field, 10)?);
        Ok(Self {
            block: u16::from_be_bytes([b0, b1]),
            longest: u32::from_be_bytes([0, l0, l1, l2]),
            rate: u32::try_from(packed >> 44).unwrap_or_default(),
            samples: packed & 0xf_ffff_ffff,
        })
    }

    /// How much of the file's end must be kept to have its last frame, and an ID3v1 tag behind it.
    fn window(&self) -> usize {
        let longest = usize::try_from(self.longest).unwrap_or(LONGEST);
        if longest == 0 { LONGEST } else { longest.min(LONGEST) + frame::TAG }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(kind: u8, content: &[u8]) -> Vec<u8> {
        let size = (content.len() as u32).to_be_bytes();
        [&[kind][..], &size[1..], content].concat()
    }

    /// Blocks of 4096 samples.
    fn stream_info(rate: u64, samples: u64) -> Vec<u8> {
        let packed = rate << 44 | 1 << 41 | 15 << 36 | samples;
        [&[0x10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0][..], &packed.to_be_bytes(), &[0; 16]].concat()
    }

    /// `count` frames of 4096 samples at 44.1 kHz.
    fn frames(count: u8) -> Vec<u8> {
        (0..count).flat_map(|number| frame::tests::frame(number, 50)).collect()
    }

    /// The same for every cutting.
    fn measure(parts: &[Vec<u8>]) -> Length {
        let file = Bytes::from([b"fLaC".to_vec(), parts.concat()].concat());
        let mut lengths = (1..=file.len().min(90)).chain([file.len()]).map(|step| {
            let mut flac = Flac::new(0);
            for at in (0..file.len()).step_by(step) {
                flac.push(&file.slice(at..file.len().min(at + step))).unwrap();
            }
            flac.length()
        });
        let first = lengths.next().unwrap();
        assert!(lengths.all(|length| length == first));
        first
    }

    #[test]
    fn the_stream_info_block_gives_the_length_that_the_last_frame_bears_out() {
        for samples in [4096 * 9 + 1, 40_000, 4096 * 10] {
            let info = block(0, &stream_info(44_100, samples));
            let expected = lasting(samples, 44_100);
            assert_eq!(measure(&[info.clone(), block(0x84, b"comment"), frames(10)]), expected);
            let tag = [b"TAG".to_vec(), vec![0; 125]].concat();
            assert_eq!(measure(&[info, block(0x84, b"comment"), frames(10), tag]), expected);
        }
    }

    #[test]
    fn a_length_that_the_frames_contradict_is_not_believed() {
        let shown = lasting(4096 * 10, 44_100);
        for samples in [0, 1, 44_100 * 3600] {
            assert_eq!(measure(&[block(0x80, &stream_info(44_100, samples)), frames(10)]), shown);
        }
        let mut cut = frames(10);
        cut.truncate(cut.len() - 1);
        assert_eq!(measure(&[block(0x80, &stream_info(44_100, 4096 * 10)), cut]), lasting(4096 * 9, 44_100));
    }

    #[test]
    fn without_a_frame_to_be_found_nothing_is_known() {
        let info = block(0x80, &stream_info(44_100, 40_960));
        assert_eq!(measure(&[info.clone(), vec![0xff; 20]]), Length::Unknown);
        // frame 100 cannot be in the first hundred bytes
        assert_eq!(measure(&[info, frame::tests::frame(100, 50)]), Length::Unknown);
    }

    #[test]
    fn metadata_without_frames_is_empty() {
        assert_eq!(measure(&[block(0x80, &stream_info(44_100, 66_150))]), Length::Empty);
        assert_eq!(measure(&[block(0, &stream_info(44_100, 66_150)), block(0x81, b"")]), Length::Empty);
        assert_eq!(measure(&[]), Length::Empty);
    }

    #[test]
    fn the_header_claims_before_any_frame_has_come() {
        let mut flac = Flac::new(0);
        flac.push(&[b"fLaC".to_vec(), block(0x80, &stream_info(44_100, 88_200))].concat().into()).unwrap();
        assert_eq!(flac.claim(), Some(Duration::from_secs(2)));
    }
}
