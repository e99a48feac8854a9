//! RIFF WAVE: samples are counted as they pass, since streamed files do not know their own size.

use std::time::Duration;

use super::feed::{Scan, Stop, Want, bytes, le16, le32};
use super::{Length, lasting};

const PCM: u16 = 1;
const MS_ADPCM: u16 = 2;
const FLOAT: u16 = 3;
const A_LAW: u16 = 6;
const MU_LAW: u16 = 7;
const IMA_ADPCM: u16 = 0x11;
const GSM: u16 = 0x31;
/// The real format tag is the start of a GUID further on.
const EXTENSIBLE: u16 = 0xfffe;

/// Sizes from here on are what writers put that cannot go back.
const STREAMED: u32 = 0x7fff_0000;

/// As much of a `fmt ` chunk as counts: up to the extensible form's format tag.
const FORMAT: usize = 26;

/// The scanner.
#[derive(Clone, Default)]
pub(super) struct Wav {
    field: Field,
    riff_size: u32,
    format: Option<Format>,
    /// The `fact` chunk: samples per channel.
    fact: Option<u32>,
    data: Option<Data>,
}

/// What comes next.
#[derive(Clone, Default)]
enum Field {
    #[default]
    Riff,
    ChunkHead,
    Format {
        next: u64,
    },
    Fact {
        next: u64,
    },
}

#[derive(Clone)]
struct Format {
    tag: u16,
    channels: u16,
    rate: u32,
    block: u16,
    bits: u16,
}

#[derive(Clone, Copy)]
struct Data {
    start: u64,
    size: u32,
}

impl Scan for Wav {
    const FIRST: usize = 12;

    fn field(&mut self, at: u64, field: &[u8]) -> Result<Want, Stop> {
        let next = match self.field {
            Field::Riff => {
                self.riff_size = le32(field, 4)?;
                at.saturating_add(12)
            }
            Field::ChunkHead => {
                let (body, size) = (at.saturating_add(8), le32(field, 4)?);
                // chunks are padded to an even size
                let next = body.saturating_add(u64::from(size)).saturating_add(u64::from(size % 2));
                match &bytes::<4>(field, 0)? {
                    b"fmt " if size >= 16 => {
                        self.field = Field::Format { next };
                        return Ok(Want::new(body, usize::try_from(size).unwrap_or(FORMAT).min(FORMAT)));
                    }
                    b"fact" if size >= 4 => {
                        self.field = Field::Fact { next };
                        return Ok(Want::new(body, 4));
                    }
                    b"data" => {
                        self.data = Some(Data { start: body, size });
                        return Ok(Want::NOTHING);
                    }
                    _ => next,
                }
            }
            Field::Format { next } => {
                self.format = Some(Format::read(field)?);
                next
            }
            Field::Fact { next } => {
                self.fact = Some(le32(field, 0)?);
                next
            }
        };
        self.field = Field::ChunkHead;
        Ok(Want::new(next, 8))
    }

    fn length(&self, seen: u64) -> Length {
        let Some(data) = self.data else { return Length::Empty };
        let came = seen.saturating_sub(data.start);
        // Zero means "unknown" in a streamed file and "nothing" in one whose RIFF size fits the file.
        let empty = data.size == 0 && (u64::from(self.riff_size) + 8).abs_diff(seen) <= 1;
        let size = if data.size == 0 && !empty { came } else { came.min(data.size.into()) };
        if size == 0 { Length::Empty } else { self.lasts(size, u64::from(data.size) <= came) }
    }

    fn claim(&self) -> Option<Duration> {
        let size = self.data?.size;
        if size == 0 || size >= STREAMED || size > self.riff_size {
            return None;
        }
        match self.lasts(size.into(), true) {
            Length::Lasts(duration) => Some(duration),
            _ => None,
        }
    }
}

impl Wav {
    /// How long `size` bytes play.
    fn lasts(&self, size: u64, whole: bool) -> Length {
        let Some(format) = &self.format else { return Length::Unknown };
        let samples = match (format.per_block(), self.fact) {
            (Some((samples, block)), _) => (size / block).saturating_mul(samples),
            // Other codecs have blocks of any length: the header's word is all there is, for a whole file.
            (None, Some(fact @ 1..)) if whole => fact.into(),
            _ => return Length::Unknown,
        };
        lasting(samples, format.rate)
    }
}

impl Format {
    fn read(field: &[u8]) -> Result<Self, Stop> {
        let tag = match le16(field, 0)? {
            EXTENSIBLE => le16(field, 24).unwrap_or(PCM),
            tag => tag,
        };
        Ok(Self {
            tag,
            channels: le16(field, 2)?,
            rate: le32(field, 4)?,
            block: le16(field, 12)?,
            bits: le16(field, 14)?,
        })
    }

    /// Samples per channel in a block, and the block's size in bytes, where it has one.
    fn per_block(&self) -> Option<(u64, u64)> {
        let (channels, block) = (u64::from(self.channels), u64::from(self.block));
        let samples = match self.tag {
            PCM | FLOAT | A_LAW | MU_LAW => {
                // A block size that does not fit the sample size is a slip of the writer's.
                let frame = channels * u64::from(self.bits.div_ceil(8));
                return Some((1, frame)).filter(|_| frame > 0);
            }
            // Per channel, a head with one or two samples in it, and then four bits a sample.
            IMA_ADPCM => block.checked_div(channels)?.checked_sub(4)? * 2 + 1,
            MS_ADPCM => block.checked_div(channels)?.checked_sub(7)? * 2 + 2,
            GSM => return Some((320, 65)),
            _ => return None,
        };
        Some((samples, block))
    }
}

#[cfg(test)]
mod tests {
    use super::super::feed::cutting;
    use super::*;

    fn chunk(kind: &[u8; 4], size: u32, content: &[u8]) -> Vec<u8> {
        [&kind[..], &size.to_le_bytes(), content].concat()
    }

    /// 16 kHz, mono, 16 bits.
    fn format(tag: u16) -> Vec<u8> {
        let mut content = Vec::new();
        content.extend(tag.to_le_bytes());
        content.extend(1_u16.to_le_bytes());
        content.extend(16_000_u32.to_le_bytes());
        content.extend(32_000_u32.to_le_bytes());
        content.extend(if tag == IMA_ADPCM { 256_u16 } else { 2 }.to_le_bytes());
        content.extend(16_u16.to_le_bytes());
        chunk(b"fmt ", 16, &content)
    }

    fn extensible(tag: u16) -> Vec<u8> {
        let plain = format(EXTENSIBLE);
        let content = [&plain[8..], &[22, 0, 16, 0, 4, 0, 0, 0], &tag.to_le_bytes(), &[0; 14]].concat();
        chunk(b"fmt ", 40, &content)
    }

    fn file(riff_size: Option<u32>, chunks: &[Vec<u8>]) -> Vec<u8> {
        let chunks = chunks.concat();
        let size = riff_size.unwrap_or(chunks.len() as u32 + 4);
        [b"RIFF", &size.to_le_bytes()[..], b"WAVE", &chunks].concat()
    }

    fn measure(file: &[u8]) -> Length {
        cutting::measure(file, Wav::default).unwrap()
    }

    fn millis(millis: u64) -> Length {
        Length::Lasts(Duration::from_millis(millis))
    }

    #[test]
    fn a_plain_file_lasts_as_long_as_its_data() {
        assert_eq!(measure(&file(None, &[format(1), chunk(b"data", 3200, &[0; 3200])])), millis(100));
    }

    #[test]
    fn streamed_sizes_are_replaced_by_what_came() {
        for size in [0, u32::MAX, 0x7fff_ffff] {
            assert_eq!(
                measure(&file(Some(size), &[format(1), chunk(b"data", size, &[0; 3200])])),
                millis(100)
            );
        }
        assert_eq!(measure(&file(Some(u32::MAX), &[format(1), chunk(b"data", 0, &[0; 3200])])), millis(100));
    }

    #[test]
    fn chunks_before_and_after_the_data_do_not_count() {
        let odd = chunk(b"LIST", 5, b"abcde\0");
        let chunks = [odd.clone(), extensible(1), odd.clone(), chunk(b"data", 3200, &[0; 3200]), odd];
        assert_eq!(measure(&file(None, &chunks)), millis(100));
    }

    #[test]
    fn a_file_cut_short_lasts_as_long_as_what_came() {
        assert_eq!(measure(&file(Some(9999), &[format(1), chunk(b"data", 6400, &[0; 3200])])), millis(100));
    }

    #[test]
    fn a_header_without_audio_is_empty() {
        for bytes in [
            file(None, &[format(1), chunk(b"data", 0, &[])]),
            file(Some(u32::MAX), &[format(1), chunk(b"data", u32::MAX, &[])]),
            file(None, &[format(1), chunk(b"data", 0, &[]), chunk(b"LIST", 4, b"abcd")]),
            file(None, &[format(1)]),
            file(None, &[]),
            b"RIFF".to_vec(),
        ] {
            assert_eq!(measure(&bytes), Length::Empty);
        }
    }

    #[test]
    fn adpcm_is_measured_by_its_blocks() {
        // 505 samples a block of 256 bytes
        let data = chunk(b"data", 25_600, &[0; 25_600]);
        let expected = lasting(50_500, 16_000);
        assert_eq!(measure(&file(None, &[format(IMA_ADPCM), data])), expected);
        let fact = chunk(b"fact", 4, &u32::MAX.to_le_bytes());
        let cut = chunk(b"data", 25_600, &[0; 2570]);
        assert_eq!(measure(&file(None, &[format(IMA_ADPCM), fact, cut])), lasting(5050, 16_000));
    }

    #[test]
    fn other_codecs_are_measured_by_the_fact_chunk_of_a_whole_file_only() {
        let data = chunk(b"data", 100, &[0; 100]);
        let fact = chunk(b"fact", 4, &1600_u32.to_le_bytes());
        for format in [format(0x55), extensible(0x55)] {
            assert_eq!(measure(&file(None, &[format, fact.clone(), data.clone()])), millis(100));
        }
        let cut = chunk(b"data", 101, &[0; 100]);
        assert_eq!(measure(&file(None, &[format(0x55), fact, cut])), Length::Unknown);
        assert_eq!(measure(&file(None, &[format(0x55), data.clone()])), Length::Unknown);
        assert_eq!(measure(&file(None, &[data])), Length::Unknown);
    }

    #[test]
    fn only_a_size_that_was_meant_is_a_claim() {
        let claim = |riff, size| {
            let mut wav = super::super::feed::Feed::new(Wav::default(), 0);
            wav.push(&file(Some(riff), &[format(1), chunk(b"data", size, &[])])).unwrap();
            wav.claim()
        };
        assert_eq!(claim(64_000, 32_000), Some(Duration::from_secs(1)));
        assert_eq!((claim(u32::MAX, u32::MAX), claim(0, 32_000), claim(100, 0)), (None, None, None));
    }
}
