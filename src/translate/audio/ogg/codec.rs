//! What an Ogg stream's first packet says about it.

use super::super::feed::{Stop, be32, bytes, le16, le32};
use super::super::opus;

/// As much of the first packet as counts.
pub(super) const HEAD: usize = 72;

/// An audio stream that can be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Codec {
    /// Granules a second.
    pub(super) rate: u32,
    /// Granules at the start that are not played.
    pub(super) skip: u64,
    /// Granules that one packet can stand for, at most.
    pub(super) longest: u64,
    /// Packets in front of the audio.
    pub(super) heads: u64,
    /// Packets tell their own length.
    pub(super) is_opus: bool,
}

/// What an Ogg stream carries, by the start of its first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super::super) enum Kind {
    Opus,
    Vorbis,
    Speex,
    Flac,
    /// A table of contents for the other streams.
    Skeleton,
    /// No audio; its name.
    Other(&'static str),
}

impl Kind {
    pub(in super::super::super) fn of(packet: &[u8]) -> Self {
        match packet {
            [b'O', b'p', b'u', b's', b'H', b'e', b'a', b'd', ..] => Self::Opus,
            [1, b'v', b'o', b'r', b'b', b'i', b's', ..] => Self::Vorbis,
            [b'S', b'p', b'e', b'e', b'x', b' ', ..] => Self::Speex,
            [0x7f, b'F', b'L', b'A', b'C', ..] => Self::Flac,
            [b'f', b'i', b's', b'h', b'e', b'a', b'd', ..] => Self::Skeleton,
            [0x80, b't', b'h', b'e', b'o', b'r', b'a', ..] => {
                Self::Other("Ogg with Theora video and no audio")
            }
            [b'B', b'B', b'C', b'D', 0, ..] => Self::Other("Ogg with Dirac video and no audio"),
            [b'O', b'V', b'P', b'8', b'0', ..] => Self::Other("Ogg with VP8 video and no audio"),
            [b'C', b'E', b'L', b'T', b' ', ..] => Self::Other("Ogg with CELT audio"),
            [b'P', b'C', b'M', b' ', b' ', ..] => Self::Other("Ogg with PCM audio"),
            [b'O', b'g', b'g', b'M', b'I', b'D', b'I', ..] => Self::Other("Ogg with MIDI"),
            _ => Self::Other("Ogg without Opus or Vorbis"),
        }
    }
}

impl Codec {
    /// Reads the first packet; `None` for a stream that is no audio.
    pub(super) fn read(packet: &[u8]) -> Result<Option<Self>, Stop> {
        let codec = match Kind::of(packet) {
            Kind::Opus => Self {
                rate: opus::RATE,
                skip: le16(packet, 10)?.into(),
                longest: opus::LONGEST.into(),
                heads: 2,
                is_opus: true,
            },
            Kind::Vorbis => {
                let [blocks] = bytes(packet, 28)?;
                let longest = 1 << (blocks >> 4);
                Self { rate: le32(packet, 12)?, skip: 0, longest, heads: 3, is_opus: false }
            }
            Kind::Speex => {
                let (rate, extra) = (le32(packet, 36)?, le32(packet, 68).unwrap_or_default().min(64));
                let longest = u64::from(le32(packet, 56)?) * u64::from(le32(packet, 64)?.max(1));
                let heads = 2 + u64::from(extra);
                Self { rate, skip: 0, longest: longest.min(65_535), heads, is_opus: false }
            }
            Kind::Flac => {
                let heads = 1 + u64::from(u16::from_be_bytes(bytes(packet, 7)?));
                Self { rate: be32(packet, 27)? >> 12, skip: 0, longest: 65_535, heads, is_opus: false }
            }
            Kind::Skeleton | Kind::Other(_) => return Ok(None),
        };
        Ok(Some(codec))
    }
}
