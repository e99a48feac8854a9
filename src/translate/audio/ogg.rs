//! Ogg (RFC 3533): the granule positions of the pages' heads, which count samples; no page is read further, but for
//! the packets' first bytes where an Opus stream begins.

mod codec;
mod page;

use std::time::Duration;

use super::feed::{Scan, Stop, Want, bytes};
use super::{Length, lasting, opus};
pub(in super::super) use codec::Kind;
use codec::{Codec, HEAD};
pub(in super::super) use page::PAGE;
use page::{Page, Run};

/// The scanner. Streams that follow each other add up; of streams side by side the first audio one counts.
#[derive(Clone, Default)]
pub(super) struct Ogg {
    field: Field,
    /// How long the streams before this one played.
    before: Duration,
    stream: Option<Stream>,
    /// The page that is passing, and where it begins.
    page: Option<Page>,
    at: u64,
    /// A stream of which too little is known to say how long it played.
    unclear: bool,
}

/// What comes next.
#[derive(Clone, Default)]
enum Field {
    #[default]
    Page,
    /// The page's head and the table of its segments.
    Table,
    /// The start of a stream's first packet.
    FirstPacket,
    /// The first bytes of a packet of the first page of audio.
    Toc(Tocs),
}

/// An audio stream.
#[derive(Clone)]
struct Stream {
    serial: u32,
    codec: Codec,
    /// Packets that have come whole.
    packets: u64,
    /// The granule position where the audio begins: not 0 in what was cut from a longer one.
    start: Option<u64>,
    /// The last granule position of a whole page.
    last: u64,
}

/// The packets on a page that are still to be looked at.
#[derive(Clone)]
struct Tocs {
    /// Sizes, the next one last.
    sizes: Vec<usize>,
    at: u64,
    /// Samples so far.
    samples: u64,
}

impl Scan for Ogg {
    const FIRST: usize = PAGE;

    fn field(&mut self, at: u64, field: &[u8]) -> Result<Want, Stop> {
        match std::mem::take(&mut self.field) {
            Field::Page => {
                self.turn();
                let [b'O', b'g', b'g', b'S', 0] = bytes(field, 0)? else { return Err(Stop::Lost) };
                let [segments] = bytes(field, PAGE - 1)?;
                if segments == 0 {
                    return self.begin(at, field);
                }
                self.field = Field::Table;
                Ok(Want::new(at, PAGE + usize::from(segments)))
            }
            Field::Table => self.begin(at, field),
            Field::FirstPacket => {
                let page = self.page.ok_or(Stop::Lost)?;
                if let Some(codec) = Codec::read(field)? {
                    self.close();
                    self.stream =
                        Some(Stream { serial: page.serial, codec, packets: 0, start: None, last: 0 });
                }
                Ok(page.next(self.at))
            }
            Field::Toc(mut tocs) => {
                let samples = opus::samples(field).ok_or(Stop::Lost)?;
                tocs.samples += u64::from(samples);
                let size = tocs.sizes.pop().unwrap_or_default();
                tocs.at = tocs.at.saturating_add(size as u64);
                self.next_toc(tocs)
            }
        }
    }

    fn leap(&mut self, at: u64, bytes: &[u8]) -> Option<Want> {
        if !matches!(self.field, Field::Page) {
            return None;
        }
        let stream = self.stream.as_ref().filter(|stream| stream.start.is_some() || !stream.codec.is_opus)?;
        let Run { last, packets, granule } = Run::read(stream.serial, bytes);
        let (start, page) = last?;
        self.turn();
        if let Some(stream) = &mut self.stream {
            stream.packets = stream.packets.saturating_add(packets);
            stream.last = stream.last.max(granule);
        }
        self.at = at.saturating_add(start as u64);
        self.page = Some(page);
        Some(page.next(self.at))
    }

    fn length(&self, seen: u64) -> Length {
        let whole = self.page.filter(|page| page.next(self.at).at <= seen);
        let current = match &self.stream {
            Some(stream) => {
                let mut stream = stream.clone();
                whole.iter().for_each(|page| stream.add(page));
                stream.length()
            }
            None => return if self.page.is_some() { Length::Unknown } else { Length::Empty },
        };
        match current {
            _ if self.unclear => Length::Unknown,
            Length::Lasts(current) => Length::Lasts(self.before.saturating_add(current)),
            Length::Empty if !self.before.is_zero() => Length::Lasts(self.before),
            // More than the heads has begun to come.
            Length::Empty if whole.is_none() && self.page.is_some_and(|page| seen > self.body(&page)) => {
                Length::Unknown
            }
            other => other,
        }
    }
}

impl Ogg {
    /// A page's head with its table.
    fn begin(&mut self, at: u64, field: &[u8]) -> Result<Want, Stop> {
        let page = Page::read(field).ok_or(Stop::Lost)?;
        (self.page, self.at) = (Some(page), at);
        let body = self.body(&page);
        if page.begins {
            let goes_on = self.stream.as_ref().is_some_and(|stream| stream.packets <= 1);
            if !goes_on {
                self.field = Field::FirstPacket;
                let size = page.size - page.head;
                return if size == 0 { Err(Stop::Lost) } else { Ok(Want::new(body, size.min(HEAD))) };
            }
        }
        match &mut self.stream {
            Some(stream) if stream.begins_audio(&page) && !page.ends => {
                let sizes = packets(field.get(PAGE..).unwrap_or_default());
                self.next_toc(Tocs { sizes, at: body, samples: 0 })
            }
            _ => Ok(page.next(at)),
        }
    }

    /// Where what a page holds begins.
    const fn body(&self, page: &Page) -> u64 {
        self.at.saturating_add(page.head as u64)
    }

    /// Goes to the next packet that must be looked at, or past the page.
    fn next_toc(&mut self, mut tocs: Tocs) -> Result<Want, Stop> {
        let page = self.page.ok_or(Stop::Lost)?;
        while let Some(size) = tocs.sizes.last() {
            if *size == 0 {
                tocs.sizes.pop();
                continue;
            }
            let want = Want::new(tocs.at, (*size).min(2));
            self.field = Field::Toc(tocs);
            return Ok(want);
        }
        if let (Some(stream), Some(granule)) = (&mut self.stream, page.granule) {
            stream.start = Some(granule.saturating_sub(tocs.samples));
        }
        Ok(page.next(self.at))
    }

    /// The page has passed whole.
    fn turn(&mut self) {
        if let (Some(stream), Some(page)) = (&mut self.stream, self.page.take()) {
            stream.add(&page);
        }
    }

    /// Another stream begins.
    fn close(&mut self) {
        match self.stream.take().map(|stream| stream.length()) {
            Some(Length::Lasts(played)) => self.before = self.before.saturating_add(played),
            Some(Length::Unknown) => self.unclear = true,
            Some(Length::Empty) | None => {}
        }
    }
}

impl Stream {
    /// Whether this page is the first with a granule position behind the heads, in a stream whose packets tell.
    fn begins_audio(&self, page: &Page) -> bool {
        self.codec.is_opus
            && self.start.is_none()
            && page.serial == self.serial
            && page.granule.is_some()
            && self.packets >= self.codec.heads
    }

    /// Adds a page that has passed, if it is one of its own.
    fn add(&mut self, page: &Page) {
        if page.serial == self.serial {
            self.packets = self.packets.saturating_add(page.packets);
            self.last = page.granule.unwrap_or(0).max(self.last);
            self.start = self.start.or_else(|| page.granule.filter(|granule| *granule > 0).map(|_| 0));
        }
    }

    fn length(&self) -> Length {
        let audio = self.packets.saturating_sub(self.codec.heads);
        let played = self.last.saturating_sub(self.start.unwrap_or(0));
        if audio == 0 || self.last == 0 {
            return Length::Empty;
        }
        // One more for what the first packet carries over from a stream that this one was cut from.
        if played > self.codec.longest.saturating_mul(audio.saturating_add(1)) {
            return Length::Unknown;
        }
        lasting(played.saturating_sub(self.codec.skip), self.codec.rate)
    }
}

/// The sizes of the packets that a table of segments tells of, the first one last.
fn packets(table: &[u8]) -> Vec<usize> {
    let mut sizes: Vec<_> = table
        .split_inclusive(|size| *size < 255)
        .map(|packet| packet.iter().map(|size| usize::from(*size)).sum())
        .collect();
    sizes.reverse();
    sizes
}

#[cfg(test)]
mod tests {
    use super::super::feed::cutting;
    use super::*;

    /// A page of packets that are all shorter than 255 bytes.
    fn page(serial: u8, flags: u8, granule: i64, packets: &[&[u8]]) -> Vec<u8> {
        let mut page = b"OggS\0".to_vec();
        page.push(flags);
        page.extend(granule.to_le_bytes());
        page.extend([serial, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, packets.len() as u8]);
        page.extend(packets.iter().map(|packet| packet.len() as u8));
        page.extend(packets.concat());
        page
    }

    /// The heads of a stream with a pre-skip of 312 samples.
    fn opus(serial: u8) -> Vec<u8> {
        let head = b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0";
        [page(serial, 2, 0, &[head]), page(serial, 0, 0, &[b"OpusTags"])].concat()
    }

    /// 20 ms.
    const PACKET: &[u8] = b"\x78 sound";

    fn fifty(serial: u8, flags: u8, granule: i64) -> Vec<u8> {
        page(serial, flags, granule, &[PACKET; 50])
    }

    fn measure(pages: &[Vec<u8>]) -> Length {
        cutting::measure(&pages.concat(), Ogg::default).unwrap()
    }

    fn samples(samples: u64) -> Length {
        lasting(samples, 48_000)
    }

    #[test]
    fn opus_plays_up_to_its_last_granule_less_the_pre_skip() {
        assert_eq!(measure(&[opus(1), fifty(1, 0, 48_000), fifty(1, 4, 95_000)]), samples(95_000 - 312));
        // an only page may end before its packets do
        assert_eq!(measure(&[opus(1), fifty(1, 4, 20_000)]), samples(20_000 - 312));
    }

    #[test]
    fn what_was_cut_from_a_longer_stream_plays_as_long_as_its_packets() {
        let later = 48_000 * 3600;
        assert_eq!(
            measure(&[opus(1), fifty(1, 0, later), fifty(1, 4, later + 48_000)]),
            samples(96_000 - 312)
        );
    }

    #[test]
    fn streams_in_a_row_add_up_and_others_beside_do_not_count() {
        let theora = page(9, 2, 0, &[b"\x80theora...."]);
        let one = [theora, opus(1), page(9, 0, 77, &[b"video"]), fifty(1, 4, 48_000)].concat();
        let other = [opus(2), fifty(2, 4, 48_000)].concat();
        assert_eq!(measure(&[one.clone(), other]), samples(2 * (48_000 - 312)));
        assert_eq!(measure(&[one]), samples(48_000 - 312));
    }

    #[test]
    fn pages_of_any_size_are_walked() {
        let mut pages = opus(1);
        let (mut granule, mut last) = (0, Vec::new());
        for n in 1..60_u8 {
            let packets = vec![PACKET; usize::from(n % 5)];
            granule += 960 * packets.len() as i64;
            // No packet ends on some pages, and some are another stream's.
            last = page(1, 0, if packets.is_empty() { -1 } else { granule }, &packets);
            pages.extend(&last);
            pages.extend(if n % 7 == 0 { page(9, 0, i64::MAX, &[PACKET]) } else { Vec::new() });
        }
        assert_eq!(measure(&[pages.clone()]), samples(granule as u64 - 312));
        assert_eq!(measure(&[pages.clone(), last, fifty(2, 4, 99)]), samples(granule as u64 - 312));
        let next = [opus(2), fifty(2, 4, 48_000)].concat();
        assert_eq!(measure(&[pages, next]), samples(granule as u64 + 48_000 - 2 * 312));
    }

    #[test]
    fn only_whole_pages_count() {
        let whole = [opus(1), fifty(1, 0, 48_000), fifty(1, 0, 96_000)].concat();
        let cut = |by: usize| measure(&[whole[..whole.len() - by].to_vec()]);
        assert_eq!((cut(0), cut(1)), (samples(96_000 - 312), samples(48_000 - 312)));
        assert_eq!(measure(&[opus(1), fifty(1, 0, 48_000)[..90].to_vec()]), Length::Unknown);
    }

    #[test]
    fn granules_that_the_packets_cannot_fill_are_not_believed() {
        let hour = 48_000 * 3600;
        assert_eq!(measure(&[opus(1), fifty(1, 0, 48_000), fifty(1, 4, hour)]), Length::Unknown);
        let mut vorbis = b"\x01vorbis\0\0\0\0\x01\x80\xbb\0\0".to_vec();
        vorbis.extend([0; 12]);
        vorbis.extend([0xb8, 1]);
        let vorbis = [page(1, 2, 0, &[&vorbis]), page(1, 0, 0, &[b"\x03vorbis", b"\x05vorbis"])].concat();
        assert_eq!(measure(&[vorbis.clone(), fifty(1, 4, 40_000)]), samples(40_000));
        assert_eq!(measure(&[vorbis.clone(), fifty(1, 4, hour)]), Length::Unknown);
        assert_eq!(measure(&[vorbis]), Length::Empty);
    }

    #[test]
    fn heads_alone_are_empty_and_a_broken_page_leaves_it_unknown() {
        assert_eq!(measure(&[opus(1)]), Length::Empty);
        assert_eq!(measure(&[opus(1), page(1, 4, 0, &[])]), Length::Empty);
        assert_eq!(measure(&[opus(1), fifty(1, 0, 48_000), vec![0; 40]]), Length::Unknown);
    }
}
