//! MPEG audio: frames are counted by leaping from head to head, or believed to a Xing, Info or VBRI tag whose byte
//! count the file fulfils.
//!
//! What an encoder adds in front and behind is counted, since it is played by most.

pub(in super::super) mod frame;
mod run;
mod tag;

use std::time::Duration;

use super::super::refusal::{Found, Kind};
use super::Length;
use super::feed::{Scan, Stop, Want, bytes};
use frame::{Frame, TICKS};
use run::Run;
use tag::Tag;

/// Bytes between two frames, and between frames in all, after which the rest is not looked through any more: to look
/// costs more than to carry.
const LOST: u64 = 64 << 10;
const STREWN: u64 = 1 << 20;

/// An ID3v2 head.
const ID3: usize = 10;

/// The scanner.
#[derive(Clone, Default)]
pub(super) struct Mp3 {
    field: Field,
    /// The frame that all others must be like.
    first: Option<Frame>,
    /// Frames that have passed whole, [`TICKS`].
    ticks: u64,
    /// The frame, or the run of frames that a tag tells of, that is passing: what it lasts, and where it ends.
    passing: (u64, u64),
    /// That run, where all its frames have the same size: what came of it counts.
    steady: Option<Steady>,
    /// Bytes that belong to nothing, since the last frame and in all.
    junk: u64,
    strewn: u64,
    claim: Option<Duration>,
}

/// What comes next.
#[derive(Clone, Default)]
enum Field {
    /// An ID3v2 head, or a frame.
    #[default]
    Start,
    /// Perhaps a frame's head, where one must come.
    Frame,
    /// Perhaps a frame's head, in what is none.
    Search,
    /// A whole frame, and the next one's head, which proves it.
    Proof,
}

/// Frames of the same size, from `start` on.
#[derive(Clone)]
struct Steady {
    start: u64,
    /// What one lasts, and its size.
    frame: (u64, u64),
}

impl Scan for Mp3 {
    const FIRST: usize = ID3;

    fn field(&mut self, at: u64, field: &[u8]) -> Result<Want, Stop> {
        match std::mem::take(&mut self.field) {
            Field::Start => match id3(field) {
                Some(size) => Ok(Want::new(at.saturating_add(size), ID3)),
                None => self.seek(at, bytes(field, 0)?),
            },
            Field::Frame => self.frame(at, bytes(field, 0)?),
            Field::Search => self.seek(at, bytes(field, 0)?),
            Field::Proof => self.prove(at, field),
        }
    }

    fn leap(&mut self, at: u64, bytes: &[u8]) -> Option<Want> {
        if !matches!(self.field, Field::Frame) {
            return None;
        }
        let run = Run::read(bytes)?;
        self.turn();
        self.ticks = self.ticks.saturating_add(run.ticks);
        let end = at.saturating_add(run.end() as u64);
        self.passing = (run.last, end);
        Some(Want::new(end, 4))
    }

    fn rest(&mut self, at: u64, rest: &[u8]) -> Result<(), Stop> {
        if matches!(self.field, Field::Proof) && !rest.is_empty() {
            // The last frame has none behind it to prove it.
            self.accept(at, rest)?;
        }
        Ok(())
    }

    fn length(&self, seen: u64) -> Length {
        let (ticks, end) = self.passing;
        let passing = match &self.steady {
            _ if end <= seen => ticks,
            Some(Steady { start, frame: (ticks, size) }) => seen.saturating_sub(*start) / size * ticks,
            // A tag's word for more than came.
            None if self.claim.is_some() && self.ticks == 0 => return Length::Unknown,
            None => 0,
        };
        let ticks = self.ticks.saturating_add(passing);
        match &self.first {
            Some(_) => Length::Lasts(lasts(ticks)),
            None if seen <= ID3 as u64 || self.junk == 0 => Length::Empty,
            None => Length::Unknown,
        }
    }

    fn claim(&self) -> Option<Duration> {
        self.claim
    }
}

impl Mp3 {
    /// What was passing has passed.
    fn turn(&mut self) {
        let (ticks, _) = std::mem::take(&mut self.passing);
        self.ticks = self.ticks.saturating_add(ticks);
        self.steady = None;
    }

    /// Where a frame must come.
    fn frame(&mut self, at: u64, head: [u8; 4]) -> Result<Want, Stop> {
        self.turn();
        match Frame::read(head) {
            Some(frame) => {
                let end = at.saturating_add(frame.size.into());
                self.passing = (frame.ticks.into(), end);
                self.field = Field::Frame;
                Ok(Want::new(end, 4))
            }
            None => match &head {
                [b'I', b'D', b'3', _] => Ok(Want::new(at, ID3)),
                // ID3v1, APE and Lyrics3 tags end a file.
                b"TAG+" | b"APET" | b"LYRI" | [b'T', b'A', b'G', _] => Ok(Want::NOTHING),
                _ => self.seek(at, head),
            },
        }
    }

    /// Looks for a frame in what is none.
    fn seek(&mut self, at: u64, head: [u8; 4]) -> Result<Want, Stop> {
        if self.junk == 0 && self.first.is_none() {
            not_aac(head)?;
        }
        let like = |frame: &Frame| self.first.is_none_or(|first| first.is_like(*frame));
        if let Some(frame) = Frame::read(head).filter(like) {
            self.field = Field::Proof;
            return Ok(Want::new(at, usize::from(frame.size) + 4));
        }
        self.go_on(at)
    }

    /// A frame, if another one of its kind follows.
    fn prove(&mut self, at: u64, field: &[u8]) -> Result<Want, Stop> {
        let frame = Frame::read(bytes(field, 0)?).ok_or(Stop::Lost)?;
        let next = bytes(field, usize::from(frame.size))?;
        let proven = match next {
            [b'T', b'A', b'G', _] | [b'I', b'D', b'3', _] | [b'A', b'P', b'E', b'T'] => true,
            next => Frame::read(next).is_some_and(|next| next.is_like(frame)),
        };
        if proven { self.accept(at, field) } else { self.go_on(at) }
    }

    /// The byte at `at` is no frame's first.
    fn go_on(&mut self, at: u64) -> Result<Want, Stop> {
        self.junk += 1;
        self.strewn += 1;
        if self.junk > LOST || self.strewn > STREWN {
            return Err(Stop::Lost);
        }
        self.field = Field::Search;
        Ok(Want::new(at.saturating_add(1), 4))
    }

    /// Takes a frame that has been proven; the first one may carry a tag in place of sound.
    fn accept(&mut self, at: u64, field: &[u8]) -> Result<Want, Stop> {
        let frame = Frame::read(bytes(field, 0)?).ok_or(Stop::Lost)?;
        self.junk = 0;
        let is_first = self.first.is_none();
        self.first = Some(frame);
        let size = u64::from(frame.size);
        let end = at.saturating_add(size);
        self.passing = match Tag::read(field, frame).filter(|_| is_first) {
            None => (frame.ticks.into(), end),
            Some(Tag { frames, bytes: Some(bytes), steady }) => {
                let ticks = u64::from(frames) * u64::from(frame.ticks);
                self.claim = Some(lasts(ticks));
                // A little more than the mean, so that a part never counts for too much.
                let each = u64::from(bytes).saturating_sub(size) / u64::from(frames.max(1)) + 1;
                self.steady = steady.then_some(Steady { start: end, frame: (frame.ticks.into(), each) });
                (ticks, at.saturating_add(bytes.into()))
            }
            // The tag's own frame is no sound.
            Some(_) => (0, end),
        };
        self.field = Field::Frame;
        Ok(Want::new(self.passing.1, 4))
    }
}

/// The size of an ID3v2 tag with its head, and its foot if it has one.
pub(in super::super) fn id3(head: &[u8]) -> Option<u64> {
    let [b'I', b'D', b'3', _, _, flags, size @ ..] = head else { return None };
    let size = size.first_chunk::<4>()?.iter().fold(0, |size, byte| size << 7 | u64::from(byte & 0x7f));
    let foot = if flags & 0x10 == 0 { 0 } else { ID3 as u64 };
    Some(size + ID3 as u64 + foot)
}

/// ADTS has the sync word of MPEG audio, and layer 0.
fn not_aac(head: [u8; 4]) -> Result<(), Stop> {
    match head {
        [0xff, second, ..] if second & 0xf6 == 0xf0 => {
            Err(Stop::Unfit(Found::new("AAC in ADTS", Kind::Foreign)))
        }
        _ => Ok(()),
    }
}

fn lasts(ticks: u64) -> Duration {
    let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(TICKS);
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::feed::cutting;
    use super::*;

    /// 128 kbit/s, 44.1 kHz.
    const HEAD: [u8; 4] = [0xff, 0xfb, 0x90, 0x64];
    const SIZE: usize = 417;

    fn frames(count: usize) -> Vec<u8> {
        [&HEAD[..], &[0x55; SIZE - 4]].concat().repeat(count)
    }

    fn tagged(name: &[u8], flags: u8, frames: u32, bytes: u32) -> Vec<u8> {
        let mut frame = HEAD.to_vec();
        frame.resize(36, 0);
        frame.extend(name);
        frame.extend([0, 0, 0, flags]);
        frame.extend(frames.to_be_bytes());
        frame.extend(bytes.to_be_bytes());
        frame.resize(SIZE, 0);
        frame
    }

    fn measure(parts: &[Vec<u8>]) -> Length {
        cutting::measure(&parts.concat(), Mp3::default).unwrap()
    }

    /// Of a long file.
    fn cut_once(file: &[u8]) -> Length {
        let mut feed = super::super::feed::Feed::new(Mp3::default(), 0);
        file.chunks(50_000).for_each(|piece| feed.push(piece).unwrap());
        feed.end().unwrap();
        feed.length()
    }

    fn lasting(frames: u64) -> Length {
        Length::Lasts(lasts(frames * 1152 * (TICKS / 44_100)))
    }

    fn id3(size: usize) -> Vec<u8> {
        let mut tag = vec![b'I', b'D', b'3', 4, 0, 0, 0, 0, (size >> 7) as u8, (size & 127) as u8];
        tag.resize(tag.len() + size, 0xff);
        tag
    }

    #[test]
    fn frames_are_counted() {
        assert_eq!(measure(&[frames(1)]), lasting(1));
        assert_eq!(measure(&[frames(10)]), lasting(10));
        // the last one is not whole
        assert_eq!(measure(&[frames(10), frames(1)[..300].to_vec()]), lasting(10));
    }

    #[test]
    fn tags_in_front_between_and_behind_do_not_count() {
        assert_eq!(measure(&[id3(1000), id3(3), frames(5)]), lasting(5));
        assert_eq!(measure(&[frames(5), id3(50), frames(5)]), lasting(10));
        let behind = [b"TAG".to_vec(), vec![0; 125]].concat();
        assert_eq!(measure(&[frames(5), behind]), lasting(5));
        assert_eq!(measure(&[frames(5), b"APETAGEX".to_vec(), frames(5)]), lasting(5));
    }

    #[test]
    fn a_tag_whose_byte_count_the_file_fulfils_is_believed() {
        for (name, flags) in [(b"Xing", 3), (b"Info", 3), (b"Info", 15)] {
            let tag = tagged(name, flags, 10, 11 * SIZE as u32);
            assert_eq!(measure(&[tag.clone(), frames(10)]), lasting(10));
            assert_eq!(measure(&[tag, frames(12)]), lasting(12));
        }
        let mut vbri = HEAD.to_vec();
        vbri.resize(36, 0);
        vbri.extend(b"VBRI\0\x01\0\0\0\0");
        vbri.extend((11 * SIZE as u32).to_be_bytes());
        vbri.extend(10_u32.to_be_bytes());
        vbri.resize(SIZE, 0);
        assert_eq!(measure(&[vbri, frames(10)]), lasting(10));
    }

    #[test]
    fn a_tag_that_the_file_contradicts_is_not_believed() {
        let hour = 3600 * 44_100 / 1152;
        // more frames than the bytes can hold: they are counted
        assert_eq!(measure(&[tagged(b"Xing", 3, hour, 11 * SIZE as u32), frames(10)]), lasting(10));
        assert_eq!(measure(&[tagged(b"Xing", 1, hour, 0), frames(10)]), lasting(10));
        assert_eq!(measure(&[tagged(b"Xing", 3, 0, 0), frames(10)]), lasting(10));
        // more bytes than came: what came counts where all frames are alike
        let bytes = (hour + 1) * SIZE as u32;
        assert_eq!(measure(&[tagged(b"Xing", 3, hour, bytes), frames(10)]), Length::Unknown);
        let Length::Lasts(shown) = measure(&[tagged(b"Info", 3, hour, bytes), frames(10)]) else { panic!() };
        assert!(Length::Lasts(shown) <= lasting(10) && Length::Lasts(shown) >= lasting(9), "{shown:?}");
    }

    #[test]
    fn frames_are_found_again_behind_junk() {
        let junk = vec![0xff, 0xfb, 0x90, 0x64, 0, 0, 0];
        assert_eq!(measure(&[junk.clone(), frames(5), junk, frames(5)]), lasting(10));
        assert_eq!(measure(&[frames(5), vec![0; 70_000]]), Length::Unknown);
        let strewn = [frames(5), vec![0; 60_000]].concat().repeat(18);
        assert_eq!(cut_once(&strewn), Length::Unknown);
        assert_eq!(cut_once(&strewn[..strewn.len() / 2]), lasting(45));
        assert_eq!(measure(&[vec![0; 500]]), Length::Unknown);
    }

    #[test]
    fn a_tag_without_frames_is_empty() {
        assert_eq!(measure(&[id3(100)]), Length::Empty);
        assert_eq!(measure(&[id3(100)[..50].to_vec()]), Length::Empty);
    }

    #[test]
    fn aac_behind_a_tag_is_refused() {
        let file = [id3(100), vec![0xff, 0xf1, 0x50, 0x80, 0, 0, 0, 0, 0, 0]].concat();
        assert!(cutting::measure(&file, Mp3::default).is_err());
    }

    #[test]
    fn a_tag_claims_at_once() {
        let mut feed = super::super::feed::Feed::new(Mp3::default(), 0);
        feed.push(&[tagged(b"Info", 3, 100, 101 * SIZE as u32), frames(1)].concat()).unwrap();
        assert_eq!(Some(feed.claim().map(Length::Lasts).unwrap()), Some(lasting(100)));
    }
}
