//! The head of an Ogg page (RFC 3533 6), with the table of its segments.

use super::super::feed::Want;

/// A page's head, without the table of its segments, bytes.
pub(in super::super::super) const PAGE: usize = 27;

/// A page.
#[derive(Clone, Copy)]
pub(super) struct Page {
    pub(super) serial: u32,
    /// A stream's first one.
    pub(super) begins: bool,
    /// A stream's last one.
    pub(super) ends: bool,
    /// `None`: no packet ends on this page.
    pub(super) granule: Option<u64>,
    /// Packets that end on it.
    pub(super) packets: u64,
    /// Its head and table, bytes.
    pub(super) head: usize,
    /// All of it, bytes.
    pub(super) size: usize,
}

/// Pages of one stream that follow each other, none of which begins it.
#[derive(Default)]
pub(super) struct Run {
    /// Where the last of them begins, and what it is.
    pub(super) last: Option<(usize, Page)>,
    /// Packets that end on the others.
    pub(super) packets: u64,
    /// The latest of their granule positions.
    pub(super) granule: u64,
}

impl Page {
    /// Reads the page that these bytes begin with, if its head and table are all there.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let [b'O', b'g', b'g', b'S', 0, flags, rest @ ..] = bytes.first_chunk::<PAGE>()? else { return None };
        let (granule, rest) = rest.split_first_chunk::<8>()?;
        let granule = u64::from_le_bytes(*granule);
        let table = bytes.get(PAGE..PAGE + usize::from(*rest.last()?))?;
        let (mut packets, mut size) = (0, PAGE + table.len());
        for segment in table {
            packets += u64::from(*segment < 255);
            size += usize::from(*segment);
        }
        Some(Self {
            serial: u32::from_le_bytes(*rest.first_chunk::<4>()?),
            begins: flags & 2 != 0,
            ends: flags & 4 != 0,
            granule: (granule >> 63 == 0).then_some(granule),
            packets,
            head: PAGE + table.len(),
            size,
        })
    }

    /// The field behind a page that begins at byte `at`: the next one's head.
    pub(super) const fn next(&self, at: u64) -> Want {
        Want::new(at.saturating_add(self.size as u64), PAGE)
    }
}

impl Run {
    /// The pages of this stream that these bytes begin with, as far as their heads are there.
    pub(super) fn read(serial: u32, bytes: &[u8]) -> Self {
        let (mut run, mut next) = (Self::default(), 0);
        while let Some(page) = bytes.get(next..).and_then(Page::read) {
            if page.serial != serial || page.begins {
                break;
            }
            if let Some((_, passed)) = run.last.replace((next, page)) {
                run.packets += passed.packets;
                run.granule = passed.granule.unwrap_or(0).max(run.granule);
            }
            next += page.size;
        }
        run
    }
}
