//! The last frame of a FLAC stream, found from its end (RFC 9639 9).

use super::super::feed::{Stop, bytes};
use super::StreamInfo;

/// An ID3v1 tag, which some put behind the stream, bytes.
pub(super) const TAG: usize = 128;

/// What a frame shows of the stream.
pub(super) struct Shown {
    /// Its first sample.
    pub(super) start: u64,
    /// The one behind its last.
    pub(super) end: u64,
    /// Its checksum is right: nothing is missing.
    pub(super) whole: bool,
}

/// The last frame that begins in these bytes, which go up to the end of the file.
pub(super) fn last(bytes: &[u8], info: &StreamInfo) -> Option<Shown> {
    let tag = bytes.len().checked_sub(TAG).and_then(|at| bytes.split_at_checked(at));
    let bytes = match tag {
        Some((before, tag)) if tag.starts_with(b"TAG") => before,
        _ => bytes,
    };
    memchr::memrchr_iter(0xff, bytes).find_map(|at| {
        let frame = bytes.get(at..)?;
        let (start, samples) = read(frame, info).ok()?;
        let whole = frame.len() > 10 && crc16(frame) == 0;
        Some(Shown { start, end: start.checked_add(samples.into())?, whole })
    })
}

impl Shown {
    /// The samples that are there for sure.
    pub(super) const fn played(&self) -> u64 {
        if self.whole { self.end } else { self.start }
    }
}

/// Reads a frame's head: its first sample, and how many it has.
fn read(frame: &[u8], info: &StreamInfo) -> Result<(u64, u32), Stop> {
    let [sync, blocking, sizes, channels, first] = bytes(frame, 0)?;
    if sync != 0xff || blocking & 0xfe != 0xf8 || channels >> 4 > 10 || channels & 1 == 1 {
        return Err(Stop::Lost);
    }
    let (number, mut at) = number(frame, first)?;
    let block = match sizes >> 4 {
        0 => return Err(Stop::Lost),
        1 => 192,
        code @ 2..=5 => 576 << (code - 2),
        6 => {
            let [size] = bytes(frame, at)?;
            at += 1;
            u32::from(size) + 1
        }
        7 => {
            let size = u16::from_be_bytes(bytes(frame, at)?);
            at += 2;
            u32::from(size) + 1
        }
        code => 256 << (code - 8),
    };
    let rate = match sizes & 15 {
        0 => info.rate,
        code @ 1..=11 => *RATES.get(usize::from(code)).ok_or(Stop::Lost)?,
        12 => {
            let [rate] = bytes(frame, at)?;
            at += 1;
            u32::from(rate) * 1000
        }
        code @ (13 | 14) => {
            let rate = u32::from(u16::from_be_bytes(bytes(frame, at)?));
            at += 2;
            if code == 13 { rate } else { rate * 10 }
        }
        _ => return Err(Stop::Lost),
    };
    // Up to and with its checksum.
    let head = frame.get(..=at).ok_or(Stop::Lost)?;
    if crc8(head) != 0 || rate != info.rate || block > u32::from(info.block) {
        return Err(Stop::Lost);
    }
    // A stream of fixed block size counts frames, one of variable block size samples.
    let start = if blocking & 1 == 1 { Some(number) } else { number.checked_mul(info.block.into()) };
    Ok((start.ok_or(Stop::Lost)?, block))
}

const RATES: [u32; 12] =
    [0, 88_200, 176_400, 192_000, 8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000];

/// The frame or sample number at byte 4, written as UTF-8 writes characters, and the byte behind it.
fn number(frame: &[u8], first: u8) -> Result<(u64, usize), Stop> {
    let more = match first.leading_ones() {
        0 => return Ok((first.into(), 5)),
        ones @ 2..=7 => ones - 1,
        _ => return Err(Stop::Lost),
    };
    let end = 5 + usize::try_from(more).unwrap_or_default();
    let value = u64::from(first) & (0x3f >> more);
    let value = frame.get(5..end).ok_or(Stop::Lost)?.iter().try_fold(value, |value, byte| {
        (byte >> 6 == 2).then_some(value << 6 | u64::from(byte & 0x3f)).ok_or(Stop::Lost)
    })?;
    Ok((value, end))
}

/// x^8 + x^2 + x + 1; 0 over bytes and their checksum.
fn crc8(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc, _| if crc & 0x80 == 0 { crc << 1 } else { crc << 1 ^ 0x07 })
    })
}

/// x^16 + x^15 + x^2 + 1; 0 over bytes and their checksum.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let [high, low] = crc.to_be_bytes();
        u16::from_be_bytes([low, 0]) ^ CRC16.get(usize::from(high ^ byte)).copied().unwrap_or_default()
    })
}

/// What each byte makes of a checksum of zero: a frame can be long.
static CRC16: [u16; 256] = crc16_of_bytes();

#[allow(clippy::indexing_slicing, clippy::cast_possible_truncation, reason = "worked out when compiled")]
const fn crc16_of_bytes() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let (mut crc, mut bit) = ((byte as u16) << 8, 0);
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x8005 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A frame of 4096 samples with `size` bytes of something in it; numbers up to 127.
    pub(in super::super) fn frame(number: u8, size: usize) -> Vec<u8> {
        let mut frame = vec![0xff, 0xf8, 0xc9, 0x18, number];
        frame.push(crc8(&frame));
        frame.extend((0..size).map(|byte| (byte * 37) as u8));
        frame.extend(crc16(&frame).to_be_bytes());
        frame
    }

    const INFO: StreamInfo = StreamInfo { block: 4096, longest: 0, rate: 44_100, samples: 0 };

    #[test]
    fn heads_of_every_shape_are_read() {
        let read = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            bytes.push(crc8(&bytes));
            read(&bytes, &INFO).ok()
        };
        assert_eq!(read(&[0xff, 0xf8, 0xc9, 0x18, 3]), Some((12_288, 4096)));
        assert_eq!(read(&[0xff, 0xf9, 0x10, 0x18, 3]), Some((3, 192)));
        assert_eq!(read(&[0xff, 0xf8, 0x69, 0x18, 0xc4, 0x80, 99]), Some((256 * 4096, 100)));
        assert_eq!(read(&[0xff, 0xf9, 0x7d, 0x18, 0xe1, 0x80, 0x80, 3, 231, 0xac, 0x44]), Some((4096, 1000)));
        // another rate, a block that is too long, a broken number
        assert_eq!(read(&[0xff, 0xf8, 0xca, 0x18, 3]), None);
        assert_eq!(read(&[0xff, 0xf8, 0xd9, 0x18, 3]), None);
        assert_eq!(read(&[0xff, 0xf8, 0xc9, 0x18, 0xc4, 0x00]), None);
        assert_eq!(super::read(&[0xff, 0xf8, 0xc9, 0x18, 3, 0], &INFO).ok(), None);
    }

    #[test]
    fn the_last_frame_is_found_behind_anything() {
        let bytes = [vec![0xff, 0xf8, 0xff], frame(1, 99), frame(2, 30)].concat();
        let shown = last(&bytes, &INFO).unwrap();
        assert_eq!((shown.start, shown.end, shown.whole), (8192, 12_288, true));
        let cut = last(&bytes[..bytes.len() - 3], &INFO).unwrap();
        assert_eq!((cut.whole, cut.played()), (false, 8192));
    }
}
