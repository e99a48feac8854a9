//! How long an Opus packet plays (RFC 6716 3.1).

/// Samples a second that Opus counts in, whatever it was made from.
pub(super) const RATE: u32 = 48_000;

/// The longest packet, in samples: 120 ms.
pub(super) const LONGEST: u32 = 5760;

/// Samples in a packet that begins with these bytes; it takes the first two at most.
pub(super) fn samples(packet: &[u8]) -> Option<u32> {
    let (toc, more) = packet.split_first()?;
    let config = toc >> 3;
    let frame = match config {
        0..=11 => [480, 960, 1920, 2880].get(usize::from(config % 4)).copied()?,
        12..=15 => 480 << (config % 2),
        _ => 120 << (config % 4),
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(more.first()? & 0x3f),
    };
    Some(frame * frames).filter(|samples| (1..=LONGEST).contains(samples))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_packet_has_its_length() {
        for (packet, expected) in [
            (&[0x00][..], Some(480)),
            (&[0x18], Some(2880)),
            (&[0x68], Some(960)),
            (&[0x80], Some(120)),
            (&[0xfc], Some(960)),
            (&[0xfd, 9], Some(1920)),
            (&[0xff, 6], Some(5760)),
            (&[0xff, 7], None),
            (&[0xff, 0], None),
            (&[0xff], None),
            (&[], None),
        ] {
            assert_eq!(samples(packet), expected, "{packet:?}");
        }
    }
}
