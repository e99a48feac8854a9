//! Xing, Info and VBRI: what an encoder says of the whole stream in its first frame.

use super::super::feed::be32;
use super::frame::Frame;

/// The smallest frame an encoder makes, in bytes: 8 kbit/s at 24 kHz.
const SMALLEST: u32 = 24;

/// What the tag says.
pub(super) struct Tag {
    /// Frames of sound; 0: not known, nor are the bytes.
    pub(super) frames: u32,
    /// Bytes of the stream, with the tag's own frame; `None`: not known, or too few for that many frames.
    pub(super) bytes: Option<u32>,
    /// All frames have the same bit rate.
    pub(super) steady: bool,
}

impl Tag {
    /// Reads the first frame's tag, if it has one.
    pub(super) fn read(field: &[u8], frame: Frame) -> Option<Self> {
        let xing = field.get(frame.xing()..).unwrap_or_default();
        let (frames, bytes, steady) =
            if let [b'X', b'i', b'n', b'g', ..] | [b'I', b'n', b'f', b'o', ..] = xing {
                let flags = be32(xing, 4).ok()?;
                let frames = if flags & 1 == 0 { 0 } else { be32(xing, 8).ok()? };
                let bytes = if flags & 3 == 3 { be32(xing, 12).ok()? } else { 0 };
                (frames, bytes, xing.starts_with(b"Info"))
            } else {
                let vbri = field.get(36..).filter(|vbri| vbri.starts_with(b"VBRI"))?;
                (be32(vbri, 14).ok()?, be32(vbri, 10).ok()?, false)
            };
        let least = frames.checked_mul(SMALLEST).and_then(|least| least.checked_add(frame.size.into()));
        let holds = frames > 0 && least.is_some_and(|least| least <= bytes);
        Some(Self { frames, bytes: holds.then_some(bytes), steady })
    }
}
