//! The bundled clip: what the demo sends through itself.

/// A few seconds of synthetic speech (espeak-ng): FLAC, mono, 16 kHz.
pub const AUDIO: &[u8] = include_bytes!("clip.flac");

/// The words spoken in [`AUDIO`].
pub const TEXT: &str = "Hello from asr edge. The bytes went straight through.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clip_is_a_small_flac_file() {
        assert!(AUDIO.starts_with(b"fLaC"));
        assert!(AUDIO.len() < 60 * 1024, "{} bytes", AUDIO.len());
    }
}
