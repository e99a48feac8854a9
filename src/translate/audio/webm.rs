//! WebM and Matroska (RFC 9559): the times of the audio's blocks. A file that is still being written has no duration,
//! and segments and clusters of unknown size; the blocks tell in any case.
//!
//! Elements are walked as they come, whatever encloses them: what is not entered is skipped by its size.

mod element;
mod simple;

use std::time::Duration;

use super::super::refusal::{Found, Kind};
use super::feed::{Scan, Stop, Want};
use super::{Length, opus};
use element::Element;
use simple::Run;

/// An element's head, and a small value or a block's head behind it.
const PEEK: usize = 24;

/// A frame is hardly longer, nanoseconds.
const FRAME: u64 = 250_000_000;

/// The scanner.
#[derive(Clone)]
pub(super) struct Webm {
    /// Nanoseconds a tick.
    scale: u64,
    claim: Option<Duration>,
    /// Where the list of tracks ends.
    tracks_end: Option<u64>,
    /// The track that is being described.
    entry: Option<Track>,
    /// The first audio track.
    audio: Option<Track>,
    /// How many tracks there are.
    tracks: u32,
    /// Where the segment ends, if it says so.
    segment_end: Option<u64>,
    /// The current cluster's time, ticks.
    cluster: u64,
    /// Where the current cluster ends, if it is to be skipped.
    skip: Option<u64>,
    /// The times of the first and the last block of the audio, and of the one before, ticks.
    first: Option<u64>,
    last: Option<Block>,
    previous: u64,
    /// The time of the last cluster that was skipped, ticks.
    skipped: Option<u64>,
    /// Where the next element begins.
    next: u64,
}

#[derive(Default, Clone, Copy)]
struct Track {
    number: u64,
    is_audio: bool,
    is_opus: bool,
    is_encrypted: bool,
    /// What a frame lasts, nanoseconds.
    frame: Option<u64>,
}

/// A block of audio.
#[derive(Clone, Copy)]
struct Block {
    /// Ticks.
    time: u64,
    /// Where it ends in the file.
    end: u64,
    /// How long it plays.
    lasts: Lasts,
}

/// How long a block plays, as far as it tells.
#[derive(Clone, Copy)]
enum Lasts {
    /// As its track's frames do, or the block before.
    Untold,
    /// As this start of an Opus packet says, less some nanoseconds of padding.
    Packet([u8; 2], u64),
    /// So many ticks.
    Ticks(u64),
}

impl Track {
    /// Its number, if that is written in one byte.
    fn short_number(self) -> Option<u8> {
        u8::try_from(self.number).ok().filter(|number| *number < 127)
    }
}

impl Default for Webm {
    fn default() -> Self {
        Self {
            scale: 1_000_000,
            claim: None,
            tracks_end: None,
            entry: None,
            audio: None,
            tracks: 0,
            segment_end: None,
            cluster: 0,
            skip: None,
            first: None,
            last: None,
            previous: 0,
            skipped: None,
            next: 0,
        }
    }
}

impl Scan for Webm {
    const FIRST: usize = PEEK;

    fn field(&mut self, at: u64, field: &[u8]) -> Result<Want, Stop> {
        self.next = self.element(at, field)?;
        Ok(Want::new(self.next, PEEK))
    }

    fn leap(&mut self, at: u64, bytes: &[u8]) -> Option<Want> {
        // The end of the list of tracks is still to be looked at.
        let track = self.audio.filter(|_| self.tracks_end.is_none())?.short_number()?;
        let run = Run::read(track, bytes);
        let last = run.last?;
        let earliest = self.cluster.saturating_add_signed(run.earliest.into());
        self.first = Some(self.first.unwrap_or(earliest).min(earliest));
        for block in [run.previous, run.last].into_iter().flatten() {
            self.heard(block.offset, at.saturating_add(block.end() as u64), block.packet(bytes));
        }
        self.next = at.saturating_add(last.end() as u64);
        Some(Want::new(self.next, PEEK))
    }

    fn rest(&mut self, at: u64, rest: &[u8]) -> Result<(), Stop> {
        let end = at.saturating_add(rest.len() as u64);
        let mut next = at;
        while next < end {
            let offset = usize::try_from(next.saturating_sub(at)).unwrap_or(usize::MAX);
            let Some(field) = rest.get(offset..).filter(|field| Element::read(field).is_ok()) else { break };
            next = self.element(next, field)?;
            self.next = next;
        }
        Ok(())
    }

    fn length(&self, seen: u64) -> Length {
        let Some(last) = self.last else {
            return if self.next <= seen { Length::Empty } else { Length::Unknown };
        };
        let told = self.claim.and_then(|claim| u64::try_from(claim.as_nanos()).ok());
        let is_whole = self.segment_end.is_some_and(|end| end <= seen);
        let end = match self.skipped {
            // The header's word, for a whole file, and no more than a cluster can add to the time of the last one.
            Some(skipped) => {
                told.filter(|told| is_whole && self.can_end(skipped, *told)).or_else(|| self.time(skipped))
            }
            None => self.end(&last, seen).map(|end| {
                // Where the last block's own length is an estimate, the header knows better.
                let told =
                    told.filter(|told| self.time(last.time).is_some_and(|time| time < *told) && *told < end);
                told.unwrap_or(end)
            }),
        };
        let start = self.time(self.first.unwrap_or(0));
        match end.zip(start).map(|(end, start)| end.saturating_sub(start)) {
            None | Some(0) => Length::Unknown,
            Some(nanoseconds) => Length::Lasts(Duration::from_nanos(nanoseconds)),
        }
    }

    fn claim(&self) -> Option<Duration> {
        self.claim
    }
}

impl Webm {
    /// Takes an element, and says where to go on: inside it or behind it.
    fn element(&mut self, at: u64, field: &[u8]) -> Result<u64, Stop> {
        let element = Element::read(field)?;
        let body = at.saturating_add(element.head as u64);
        let end = element.size.map(|size| body.saturating_add(size));
        if self.tracks_end.is_some_and(|end| at >= end) || element.id == element::CLUSTER {
            self.close_tracks()?;
        }
        match element.id {
            element::SEGMENT => {
                self.segment_end = end;
                return Ok(body);
            }
            element::INFO | element::BLOCK_GROUP => return Ok(body),
            element::CONTENT_ENCODINGS | element::CONTENT_ENCODING => return Ok(body),
            element::CLUSTER => {
                self.cluster = 0;
                self.skip = end.filter(|_| self.can_skip());
                return Ok(body);
            }
            element::TRACKS => {
                self.tracks_end = Some(end.unwrap_or(u64::MAX));
                return Ok(body);
            }
            element::TRACK_ENTRY => {
                self.close_entry()?;
                self.tracks = self.tracks.saturating_add(1);
                self.entry = Some(Track::default());
                return Ok(body);
            }
            element::TIMESTAMP_SCALE => self.scale = element.uint(field)?,
            element::DURATION => self.claim = self.ticks(element.float(field)?),
            element::TIMESTAMP => {
                self.cluster = element.uint(field)?;
                if let Some(end) = self.skip.take() {
                    self.skipped = Some(self.cluster);
                    return Ok(end);
                }
            }
            element::SIMPLE_BLOCK | element::BLOCK => self.block(&element, body, field)?,
            element::BLOCK_DURATION => {
                let ticks = element.uint(field)?;
                if let Some(last) = &mut self.last {
                    last.lasts = Lasts::Ticks(ticks);
                }
            }
            element::DISCARD_PADDING => {
                let padding = element.uint(field)?;
                if let Some(Block { lasts: Lasts::Packet(_, less), .. }) = &mut self.last {
                    *less = padding;
                }
            }
            _ => self.describe(&element, field)?,
        }
        end.ok_or(Stop::Lost)
    }

    /// An element of the track that is being described.
    fn describe(&mut self, element: &Element, field: &[u8]) -> Result<(), Stop> {
        let Some(track) = &mut self.entry else { return Ok(()) };
        match element.id {
            element::TRACK_NUMBER => track.number = element.uint(field)?,
            element::TRACK_TYPE => track.is_audio = element.uint(field)? == 2,
            element::CODEC_ID => track.is_opus = element.body(field).is_ok_and(|id| id == b"A_OPUS"),
            element::DEFAULT_DURATION => track.frame = Some(element.uint(field)?).filter(|frame| *frame > 0),
            element::CONTENT_ENCODING_TYPE => track.is_encrypted |= element.uint(field)? == 1,
            _ => {}
        }
        Ok(())
    }

    fn close_entry(&mut self) -> Result<(), Stop> {
        match self.entry.take() {
            Some(Track { is_audio: true, is_encrypted: true, .. }) => {
                refuse("a WebM that is encrypted", Kind::Encrypted)
            }
            Some(track) if track.is_audio && self.audio.is_none() => {
                self.audio = Some(track);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The list of tracks has come to its end.
    fn close_tracks(&mut self) -> Result<(), Stop> {
        self.close_entry()?;
        match self.tracks_end.take() {
            Some(_) if self.audio.is_none() => refuse("WebM without an audio track", Kind::Silent),
            _ => Ok(()),
        }
    }

    fn block(&mut self, element: &Element, body: u64, field: &[u8]) -> Result<(), Stop> {
        let Some(audio) = self.audio else { return Ok(()) };
        let block = field.get(element.head..).unwrap_or_default();
        let (number, head) = element::vint(block).ok_or(Stop::Lost)?;
        if number != audio.number {
            return Ok(());
        }
        let Some([high, low, flags, frame @ ..]) = block.get(head..) else { return Err(Stop::Lost) };
        let size = element.size.ok_or(Stop::Lost)?;
        // In a laced block the frames come behind their sizes.
        let packet = if flags & 6 == 0 { frame.first_chunk::<2>() } else { None };
        self.heard(i16::from_be_bytes([*high, *low]), body.saturating_add(size), packet.copied());
        Ok(())
    }

    /// A block of the audio, by its offset from the cluster's time, its end in the file, and what it begins with.
    fn heard(&mut self, offset: i16, end: u64, packet: Option<[u8; 2]>) {
        let time = self.cluster.saturating_add_signed(offset.into());
        let lasts = match packet {
            Some(packet) if self.audio.is_some_and(|audio| audio.is_opus) => Lasts::Packet(packet, 0),
            _ => Lasts::Untold,
        };
        self.previous = self.last.map_or(time, |last| last.time);
        self.first = Some(self.first.unwrap_or(time).min(time));
        self.last = Some(Block { time, end, lasts });
        self.skipped = None;
    }

    /// Whether clusters need not be walked: the first one has been, the header says how long all of it is, where it
    /// ends, and that there is nothing but this audio.
    const fn can_skip(&self) -> bool {
        self.claim.is_some() && self.segment_end.is_some() && self.tracks == 1 && self.last.is_some()
    }

    /// Whether a cluster of that time can hold audio up to there: offsets in it have 16 bits.
    fn can_end(&self, cluster: u64, end: u64) -> bool {
        let latest = cluster.checked_add(i16::MAX.unsigned_abs().into()).and_then(|latest| self.time(latest));
        let earliest = self.time(cluster);
        earliest
            .zip(latest)
            .is_some_and(|(earliest, latest)| (earliest..=latest.saturating_add(FRAME)).contains(&end))
    }

    /// Where the audio ends with this block, nanoseconds; at its start if it is not whole.
    fn end(&self, last: &Block, seen: u64) -> Option<u64> {
        let time = self.time(last.time)?;
        if last.end > seen {
            return Some(time);
        }
        let lasts = match last.lasts {
            Lasts::Ticks(ticks) => Some(self.time(ticks)?),
            Lasts::Packet(packet, less) => opus::samples(&packet)
                .map(|samples| u64::from(samples) * 1_000_000_000 / u64::from(opus::RATE))
                .map(|lasts| lasts.saturating_sub(less)),
            Lasts::Untold => None,
        };
        let lasts = lasts.or_else(|| self.audio?.frame);
        let lasts = lasts.or_else(|| self.time(last.time.saturating_sub(self.previous)))?;
        time.checked_add(lasts)
    }

    /// Ticks in nanoseconds.
    const fn time(&self, ticks: u64) -> Option<u64> {
        ticks.checked_mul(self.scale)
    }

    fn ticks(&self, ticks: f64) -> Option<Duration> {
        Duration::try_from_secs_f64(ticks * Duration::from_nanos(self.scale).as_secs_f64()).ok()
    }
}

fn refuse<T>(name: &'static str, kind: Kind) -> Result<T, Stop> {
    Err(Stop::Unfit(Found::new(name, kind)))
}

#[cfg(test)]
mod tests;
