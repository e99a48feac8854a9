//! An EBML element (RFC 8794) as it stands in the file.

use super::super::feed::Stop;

pub(super) const SEGMENT: u32 = 0x1853_8067;
pub(super) const INFO: u32 = 0x1549_a966;
pub(super) const TIMESTAMP_SCALE: u32 = 0x002a_d7b1;
pub(super) const DURATION: u32 = 0x4489;
pub(super) const TRACKS: u32 = 0x1654_ae6b;
pub(super) const TRACK_ENTRY: u32 = 0xae;
pub(super) const TRACK_NUMBER: u32 = 0xd7;
pub(super) const TRACK_TYPE: u32 = 0x83;
pub(super) const CODEC_ID: u32 = 0x86;
pub(super) const DEFAULT_DURATION: u32 = 0x0023_e383;
pub(super) const CONTENT_ENCODINGS: u32 = 0x6d80;
pub(super) const CONTENT_ENCODING: u32 = 0x6240;
pub(super) const CONTENT_ENCODING_TYPE: u32 = 0x5033;
pub(super) const CLUSTER: u32 = 0x1f43_b675;
pub(super) const TIMESTAMP: u32 = 0xe7;
pub(super) const SIMPLE_BLOCK: u32 = 0xa3;
pub(super) const BLOCK_GROUP: u32 = 0xa0;
pub(super) const BLOCK: u32 = 0xa1;
pub(super) const DISCARD_PADDING: u32 = 0x75a2;
pub(super) const BLOCK_DURATION: u32 = 0x9b;

/// An element's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    /// With its length marker.
    pub(super) id: u32,
    /// The head's size, bytes.
    pub(super) head: usize,
    /// The content's size, bytes; `None`: not known when it was written.
    pub(super) size: Option<u64>,
}

impl Element {
    /// Reads a head.
    pub(super) fn read(field: &[u8]) -> Result<Self, Stop> {
        let id = field.first().map_or(5, |first| first.leading_zeros() as usize + 1);
        let (id, rest) = field.split_at_checked(id).filter(|(id, _)| id.len() <= 4).ok_or(Stop::Lost)?;
        let id = id.iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
        let (size, width) = vint(rest).ok_or(Stop::Lost)?;
        let unknown = u64::MAX >> (64 - 7 * width);
        let size = Some(size).filter(|size| *size != unknown);
        let head = field.len().saturating_sub(rest.len()).saturating_add(width);
        Ok(Self { id, head, size })
    }

    /// The content, if it is all there.
    pub(super) fn body(self, field: &[u8]) -> Result<&[u8], Stop> {
        let size = usize::try_from(self.size.ok_or(Stop::Lost)?).map_err(|_| Stop::Lost)?;
        field.get(self.head..).and_then(|rest| rest.get(..size)).ok_or(Stop::Lost)
    }

    /// A number of eight bytes at most.
    pub(super) fn uint(self, field: &[u8]) -> Result<u64, Stop> {
        let body = self.body(field)?;
        if body.len() > 8 {
            return Err(Stop::Lost);
        }
        Ok(body.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// A number of four or eight bytes with a binary point.
    pub(super) fn float(self, field: &[u8]) -> Result<f64, Stop> {
        let body = self.body(field)?;
        match (body.try_into(), body.try_into()) {
            (Ok(single), _) => Ok(f32::from_be_bytes(single).into()),
            (_, Ok(double)) => Ok(f64::from_be_bytes(double)),
            _ => Ok(0.0),
        }
    }
}

/// A number that tells its own size in its leading zero bits, and that size.
pub(super) fn vint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let width = first.leading_zeros() as usize + 1;
    let more = bytes.get(1..width)?;
    let start = u64::from(first) & (0x7f >> (width - 1));
    Some((more.iter().fold(start, |value, byte| value << 8 | u64::from(*byte)), width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_of_every_width_are_read() {
        for (field, id, head, size) in [
            (&[0xa3, 0x85][..], 0xa3, 2, Some(5)),
            (&[0x42, 0x86, 0x40, 0x01], 0x4286, 4, Some(1)),
            (&[0x1f, 0x43, 0xb6, 0x75, 0xff], CLUSTER, 5, None),
            (&[0x18, 0x53, 0x80, 0x67, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], SEGMENT, 12, None),
            (&[0x18, 0x53, 0x80, 0x67, 1, 0, 0, 0, 0, 0, 1, 0], SEGMENT, 12, Some(256)),
        ] {
            assert_eq!(Element::read(field), Ok(Element { id, head, size }), "{field:x?}");
        }
        for field in [&[][..], &[0xa3], &[0x08, 1, 1, 1, 1, 0x81], &[0, 0, 0], &[0xa3, 0x40], &[0xa3, 0]] {
            assert_eq!(Element::read(field), Err(Stop::Lost), "{field:x?}");
        }
    }

    #[test]
    fn numbers_are_read() {
        let element = Element::read(&[0x44, 0x89, 0x84]).unwrap();
        assert_eq!(element.uint(&[0, 0, 0, 1, 2, 3, 4]), Ok(0x0102_0304));
        assert_eq!(element.float(&[0, 0, 0, 0x3f, 0x80, 0, 0]), Ok(1.0));
        assert_eq!(element.uint(&[0, 0, 0, 1]), Err(Stop::Lost));
    }
}
