//! ISO base media (ISO 14496-12): MP4, M4A, QuickTime; whole or in fragments, `moov` in front or behind.
//!
//! Boxes are walked as they pass and tables are added up in passing, so a `moov` of any size is held nowhere. A
//! track's length is believed when the bytes of its samples have come.

mod table;
mod track;

use std::time::Duration;

use super::super::refusal::{Found, Kind};
use super::Length;
use super::feed::{Scan, Stop, Want, be32, be64, bytes};
use table::Table;
use track::Track;

/// Tracks beyond these are not looked at.
const TRACKS: usize = 32;

/// As much of a box as counts, other than tables.
const BODY: u64 = 40;

/// The scanner.
#[derive(Clone, Default)]
pub(super) struct Mp4 {
    field: Field,
    /// Where the boxes end that enclose the current one, and what they are.
    open: Vec<(u64, [u8; 4])>,
    /// Ticks a second of the edit lists.
    scale: u32,
    tracks: Vec<Track>,
    has_moov: bool,
    /// Bytes of the `mdat` boxes that have passed whole.
    data: u64,
    /// The `mdat` that is passing: from, to.
    passing: Option<(u64, u64)>,
    fragment: Fragment,
    /// A fragment has begun.
    is_fragmented: bool,
    /// A fragment had not all its bytes.
    is_torn: bool,
}

/// What comes next.
#[derive(Default, Clone, Copy)]
enum Field {
    #[default]
    Head,
    /// A head with a 64-bit size.
    LongHead,
    Body {
        kind: [u8; 4],
        next: u64,
    },
    Entries {
        table: Table,
        next: u64,
    },
}

/// The movie fragment that is passing.
#[derive(Clone, Default)]
struct Fragment {
    /// Which track the current `traf` is about.
    track: Option<usize>,
    /// Duration and size of its samples where `trun` tells none.
    defaults: (u32, u32),
    /// Bytes of all its samples.
    size: u64,
    /// Bytes of data before it.
    before: u64,
}

impl Scan for Mp4 {
    const FIRST: usize = 8;

    fn field(&mut self, at: u64, field: &[u8]) -> Result<Want, Stop> {
        match std::mem::take(&mut self.field) {
            Field::Head => {
                self.close(at)?;
                let kind = bytes(field, 4)?;
                match be32(field, 0)? {
                    0 if self.open.is_empty() => self.enter(at, 8, kind, u64::MAX),
                    1 => {
                        self.field = Field::LongHead;
                        Ok(Want::new(at, 16))
                    }
                    size @ 8.. => self.enter(at, 8, kind, at.saturating_add(size.into())),
                    _ => Err(Stop::Lost),
                }
            }
            Field::LongHead => match be64(field, 8)? {
                size @ 16.. => self.enter(at, 16, bytes(field, 4)?, at.saturating_add(size)),
                _ => Err(Stop::Lost),
            },
            Field::Body { kind, next } => {
                let table = self.read(kind, field)?;
                match table {
                    Some(table) => self.list(at.saturating_add(table.offset()), table, next),
                    None => Ok(Want::new(next, 8)),
                }
            }
            Field::Entries { mut table, next } => {
                table.read(field, |entry| add(&mut self.tracks, &mut self.fragment, &entry))?;
                self.list(at.saturating_add(field.len() as u64), table, next)
            }
        }
    }

    fn rest(&mut self, at: u64, _: &[u8]) -> Result<(), Stop> {
        self.close(at)
    }

    fn length(&self, seen: u64) -> Length {
        let passing = self.passing.map_or(0, |(from, to)| seen.min(to).saturating_sub(from));
        let data = self.data.saturating_add(passing);
        if !self.has_moov {
            return Length::Unknown;
        }
        let promised = self.tracks.iter().filter_map(|track| track.size).fold(0, u64::saturating_add);
        let is_whole = self.passing.is_none_or(|(_, to)| to <= seen || to == u64::MAX);
        let sound = || self.tracks.iter().filter(|track| track.is_sound);
        let fragment = self.is_complete(data);
        if sound().all(|track| track.ticks == 0 && (track.pending == 0 || !fragment)) {
            let pending = sound().any(|track| track.pending > 0);
            return if pending || self.is_torn { Length::Unknown } else { Length::Empty };
        }
        if promised > data || !is_whole && (promised > 0 || !self.is_fragmented) {
            return Length::Unknown;
        }
        let played = sound().filter_map(|track| track.duration(fragment, self.scale)).max();
        played.map_or(Length::Unknown, Length::Lasts)
    }

    fn claim(&self) -> Option<Duration> {
        let sound = self.tracks.iter().filter(|track| track.is_sound);
        let claim = sound.filter_map(|track| track.duration(false, self.scale)).max();
        claim.filter(|_| self.has_moov && !self.is_fragmented)
    }
}

impl Mp4 {
    /// A box begins; its content starts `head` bytes on.
    fn enter(&mut self, at: u64, head: u64, kind: [u8; 4], end: u64) -> Result<Want, Stop> {
        if self.open.last().is_some_and(|(outer, _)| end > *outer) {
            return Err(Stop::Lost);
        }
        let body = at.saturating_add(head);
        let inside = self.open.last().map(|(_, kind)| kind);
        match (&kind, inside) {
            (b"moov", None) => self.has_moov = false,
            (b"moof", None) => {
                self.is_fragmented = true;
                self.is_torn |= !self.settle();
                self.fragment = Fragment { before: self.data, ..Fragment::default() };
            }
            (b"mdat", None) => {
                self.passing = Some((body, end));
                return Ok(Want::new(end, 8));
            }
            (b"trak", Some(b"moov")) => {
                if self.tracks.len() == TRACKS {
                    return Ok(Want::new(end, 8));
                }
                self.tracks.push(Track::default());
            }
            (b"traf", Some(b"moof")) => self.fragment.track = None,
            (b"mdia", Some(b"trak")) | (b"minf", Some(b"mdia")) | (b"stbl", Some(b"minf")) => {}
            (b"edts", Some(b"trak")) | (b"mvex", Some(b"moov")) => {}
            (
                b"mvhd" | b"tkhd" | b"mdhd" | b"hdlr" | b"stsd" | b"elst" | b"stts" | b"stsz" | b"trex"
                | b"tfhd" | b"trun",
                Some(_),
            ) if end > body => {
                self.field = Field::Body { kind, next: end };
                let size = end.saturating_sub(body).min(BODY);
                return Ok(Want::new(body, usize::try_from(size).unwrap_or_default()));
            }
            _ => return Ok(Want::new(end, 8)),
        }
        self.open.push((end, kind));
        Ok(Want::new(body, 8))
    }

    /// Closes the boxes that end here.
    fn close(&mut self, at: u64) -> Result<(), Stop> {
        if let Some((from, to)) = self.passing.take() {
            self.data = self.data.saturating_add(to.saturating_sub(from));
        }
        while let Some((_, kind)) = self.open.pop_if(|(end, _)| *end <= at) {
            if &kind == b"moov" {
                self.has_moov = true;
                if !self.tracks.iter().any(|track| track.is_sound) {
                    return refuse("MP4 without a sound track", Kind::Silent);
                }
            }
        }
        Ok(())
    }

    /// The track that is being described.
    fn track(&mut self) -> Result<&mut Track, Stop> {
        self.tracks.last_mut().ok_or(Stop::Lost)
    }

    /// Reads a box's content, up to its table if it has one.
    fn read(&mut self, kind: [u8; 4], field: &[u8]) -> Result<Option<Table>, Stop> {
        let flags = be32(field, 0)?;
        let is_long = flags >> 24 == 1;
        match &kind {
            b"mvhd" => self.scale = be32(field, if is_long { 20 } else { 12 })?,
            b"mdhd" => self.track()?.scale = be32(field, if is_long { 20 } else { 12 })?,
            b"tkhd" => self.track()?.id = be32(field, if is_long { 20 } else { 12 })?,
            // A `meta` box has a handler too, but is not entered.
            b"hdlr" => self.track()?.is_sound |= &bytes::<4>(field, 8)? == b"soun",
            b"stsd" => match &bytes::<4>(field, 12).unwrap_or_default() {
                b"enca" | b"drms" => return refuse("an MP4 that is encrypted (DRM)", Kind::Encrypted),
                _ => {}
            },
            b"elst" => return Ok(Some(Table::edits(be32(field, 4)?, is_long))),
            b"stts" => return Ok(Some(Table::times(be32(field, 4)?))),
            b"stsz" => {
                let (each, count) = (be32(field, 4)?, be32(field, 8)?);
                self.track()?.size = match each {
                    // Old QuickTime says 1 of samples that are less than that.
                    1 => None,
                    each => Some(u64::from(each) * u64::from(count)),
                };
                return Ok((each == 0).then(|| Table::sizes(count)));
            }
            b"trex" => {
                let (id, defaults) = (be32(field, 4)?, (be32(field, 12)?, be32(field, 16)?));
                if let Some(track) = self.tracks.iter_mut().find(|track| track.id == id) {
                    track.defaults = defaults;
                }
            }
            b"tfhd" => {
                let id = be32(field, 4)?;
                let mut at = 8 + if flags & 1 == 0 { 0 } else { 8 } + if flags & 2 == 0 { 0 } else { 4 };
                self.fragment.track = self.tracks.iter().position(|track| track.id == id);
                let track = self.fragment.track.and_then(|track| self.tracks.get(track));
                let (mut duration, mut size) = track.map_or((0, 0), |track| track.defaults);
                if flags & 8 != 0 {
                    duration = be32(field, at)?;
                    at += 4;
                }
                if flags & 0x10 != 0 {
                    size = be32(field, at)?;
                }
                self.fragment.defaults = (duration, size);
            }
            b"trun" => {
                let table = Table::run(flags, be32(field, 4)?);
                let (duration, size) = self.fragment.defaults;
                if !table.has_durations() {
                    let ticks = u64::from(duration).saturating_mul(table.left());
                    add(&mut self.tracks, &mut self.fragment, &table::Entry::Sample { ticks, size: 0 })?;
                }
                if !table.has_sizes() {
                    let size = u64::from(size).saturating_mul(table.left());
                    add(&mut self.tracks, &mut self.fragment, &table::Entry::Sample { ticks: 0, size })?;
                }
                return Ok(Some(table));
            }
            _ => {}
        }
        Ok(None)
    }

    /// Goes on with a table, or past its box.
    fn list(&mut self, at: u64, table: Table, next: u64) -> Result<Want, Stop> {
        let size = table.batch();
        if size == 0 {
            return Ok(Want::new(next, 8));
        }
        if at.saturating_add(size as u64) > next {
            return Err(Stop::Lost);
        }
        self.field = Field::Entries { table, next };
        Ok(Want::new(at, size))
    }

    /// Whether the bytes of the current fragment's samples have come, when `data` bytes have.
    const fn is_complete(&self, data: u64) -> bool {
        self.fragment.size > 0 && self.fragment.size <= data.saturating_sub(self.fragment.before)
    }

    /// Adds what the last fragment brought, if it did.
    fn settle(&mut self) -> bool {
        let is_complete = self.is_complete(self.data);
        let mut is_empty = true;
        for track in &mut self.tracks {
            let pending = std::mem::take(&mut track.pending);
            is_empty &= pending == 0;
            if is_complete {
                track.ticks = track.ticks.saturating_add(pending);
            }
        }
        is_complete || is_empty
    }
}

/// Adds a table's entry to the track it is about.
fn add(tracks: &mut [Track], fragment: &mut Fragment, entry: &table::Entry) -> Result<(), Stop> {
    let described = tracks.last_mut();
    match *entry {
        table::Entry::Edit { duration, from } => described.ok_or(Stop::Lost)?.edits.add(duration, from),
        table::Entry::Times { ticks } => {
            let track = described.ok_or(Stop::Lost)?;
            track.ticks = track.ticks.saturating_add(ticks);
        }
        table::Entry::Size { size } => {
            let track = described.ok_or(Stop::Lost)?;
            track.size = Some(track.size.unwrap_or(0).saturating_add(size));
        }
        table::Entry::Sample { ticks, size } => {
            fragment.size = fragment.size.saturating_add(size);
            if let Some(track) = fragment.track.and_then(|track| tracks.get_mut(track)) {
                track.pending = track.pending.saturating_add(ticks);
            }
        }
    }
    Ok(())
}

fn refuse<T>(name: &'static str, kind: Kind) -> Result<T, Stop> {
    Err(Stop::Unfit(Found::new(name, kind)))
}

#[cfg(test)]
mod tests;
