//! The tables in an MP4 file's boxes, read some entries at a time.

use std::slice::ChunksExact;

use super::super::feed::{Stop, be32, be64, bytes};

/// Entries that are read at once.
const BATCH: u32 = 256;

/// A table, as far as it has not been read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table {
    kind: Kind,
    /// Entries left.
    left: u32,
    /// The size of an entry, bytes.
    each: u8,
    /// Where the table begins in its box's content.
    offset: u8,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Edits { is_long: bool },
    Times,
    Sizes,
    Run { duration: Option<u8>, size: Option<u8> },
}

/// What a table's entry says, or many of them together.
pub(super) enum Entry {
    /// `elst`
    Edit { duration: u64, from: i64 },
    /// `stts`: what so many samples last.
    Times { ticks: u64 },
    /// `stsz`
    Size { size: u64 },
    /// `trun`
    Sample { ticks: u64, size: u64 },
}

impl Table {
    pub(super) const fn edits(count: u32, is_long: bool) -> Self {
        Self { kind: Kind::Edits { is_long }, left: count, each: if is_long { 20 } else { 12 }, offset: 8 }
    }

    pub(super) const fn times(count: u32) -> Self {
        Self { kind: Kind::Times, left: count, each: 8, offset: 8 }
    }

    pub(super) const fn sizes(count: u32) -> Self {
        Self { kind: Kind::Sizes, left: count, each: 4, offset: 12 }
    }

    /// A track run with these flags: which fields its entries have.
    pub(super) fn run(flags: u32, count: u32) -> Self {
        let width = |flag| if flags & flag == 0 { 0 } else { 4 };
        let (duration, size) = (width(0x100), width(0x200));
        Self {
            kind: Kind::Run {
                duration: if duration == 0 { None } else { Some(0) },
                size: if size == 0 { None } else { Some(duration) },
            },
            left: count,
            each: duration + size + width(0x400) + width(0x800),
            offset: 8 + width(1) + width(4),
        }
    }

    pub(super) const fn offset(self) -> u64 {
        self.offset as u64
    }

    pub(super) const fn left(self) -> u64 {
        self.left as u64
    }

    pub(super) const fn has_durations(self) -> bool {
        matches!(self.kind, Kind::Run { duration: Some(_), .. })
    }

    pub(super) const fn has_sizes(self) -> bool {
        matches!(self.kind, Kind::Run { size: Some(_), .. })
    }

    /// How many bytes to read next; 0: no more.
    pub(super) fn batch(self) -> usize {
        let is_told = !matches!(self.kind, Kind::Run { duration: None, size: None });
        if is_told { self.left.min(BATCH) as usize * usize::from(self.each) } else { 0 }
    }

    /// Reads a batch.
    pub(super) fn read(
        &mut self,
        field: &[u8],
        mut take: impl FnMut(Entry) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.left = self.left.saturating_sub(BATCH);
        let mut entries = field.chunks_exact(usize::from(self.each).max(1));
        match self.kind {
            Kind::Edits { is_long } => entries.try_for_each(|entry| take(edit(entry, is_long)?)),
            Kind::Times => {
                let ticks = entries.map(|entry| Ok(u64::from(be32(entry, 0)?) * u64::from(be32(entry, 4)?)));
                take(Entry::Times { ticks: sum(ticks)? })
            }
            Kind::Sizes => take(Entry::Size { size: column(entries, 0) }),
            Kind::Run { duration, size } => {
                let ticks = duration.map_or(0, |at| column(entries.clone(), at));
                take(Entry::Sample { ticks, size: size.map_or(0, |at| column(entries, at)) })
            }
        }
    }
}

fn edit(entry: &[u8], is_long: bool) -> Result<Entry, Stop> {
    let (duration, from) = if is_long {
        (be64(entry, 0)?, bytes(entry, 8).map(i64::from_be_bytes)?)
    } else {
        (be32(entry, 0)?.into(), bytes(entry, 4).map(i32::from_be_bytes)?.into())
    };
    Ok(Entry::Edit { duration, from })
}

/// The numbers at byte `at` of the entries, added up: a batch is too small for them to overflow.
fn column(entries: ChunksExact<'_, u8>, at: u8) -> u64 {
    let number = |entry: &[u8]| entry.get(usize::from(at)..)?.first_chunk::<4>().copied();
    entries.filter_map(number).map(|number| u64::from(u32::from_be_bytes(number))).sum()
}

fn sum(mut numbers: impl Iterator<Item = Result<u64, Stop>>) -> Result<u64, Stop> {
    numbers.try_fold(0_u64, |sum, number| Ok(sum.saturating_add(number?)))
}
