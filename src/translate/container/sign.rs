//! The first bytes of what the upstream does not take.

use super::super::refusal::{Found, Kind};
use Kind::{Encrypted, Foreign, Other, Packed, Text};

/// Stands for the brand of an MP4 file that is a fragment of one.
pub(super) const FRAGMENT: &[u8] = b"moof";

/// What an MP4 file of this brand is, if it is no audio.
pub(super) fn brand(brand: &[u8]) -> Option<Found> {
    let (name, kind) = match brand {
        FRAGMENT => ("a fragment of an MP4 without its beginning", Foreign),
        b"heic" | b"heix" | b"heim" | b"heis" | b"hevc" | b"mif1" | b"msf1" => ("HEIF image", Other),
        b"avif" | b"avis" => ("AVIF image", Other),
        b"crx " => ("Canon raw image", Other),
        b"aax " | b"aaxc" => ("Audible audiobook, which is encrypted", Encrypted),
        b"M4P " => ("an MP4 that is encrypted (DRM)", Encrypted),
        _ => return None,
    };
    Some(Found::new(name, kind))
}

/// What a file is that begins like this.
pub(super) fn of(start: &[u8]) -> Option<Found> {
    // A letter or two tell nothing by themselves.
    let holds = |sign: &[u8]| start.starts_with(sign) && (sign.len() > 1 || is_text(start));
    let listed = SIGNS.iter().find(|(sign, ..)| holds(sign));
    let (name, kind) = match (listed, start) {
        (Some((_, name, kind)), _) => (*name, *kind),
        (None, [0xff, second, ..]) if second & 0xf6 == 0xf0 => ("AAC in ADTS", Foreign),
        (None, [0x56, second, ..]) if second >> 5 == 7 => ("AAC in LATM", Foreign),
        // Public-key or passphrase packets of version 3 or 4 (RFC 9580 5.1, 5.3)
        (None, [0x84, _, 3, ..] | [0x85, _, _, 3, ..] | [0xc1, _, 3, ..] | [0xc1, _, _, 3, ..]) => OPENPGP,
        (None, [0x8c, _, 4, ..] | [0xc3, _, 4, ..]) => OPENPGP,
        (None, text) if is_utf16(text) => ("plain text in UTF-16", Text),
        _ => return None,
    };
    Some(Found::new(name, kind))
}

/// What a file is that begins with nothing but letters.
pub(super) fn text(start: &[u8]) -> Option<Found> {
    is_text(start).then_some(Found::new("plain text", Text))
}

/// What a file is by a sign that stands further on.
pub(super) fn further(start: &[u8]) -> Option<Found> {
    let is = |at: usize, sign: &[u8]| start.get(at..).is_some_and(|rest| rest.starts_with(sign));
    if is(0, b"G") && is(188, b"G") && is(376, b"G") {
        return Some(Found::new("MPEG transport stream", Foreign));
    }
    if is(257, b"ustar") {
        return Some(Found::new("tar archive", Packed));
    }
    let is_zero = start.iter().all(|byte| *byte == 0);
    is_zero.then_some(Found::new("nothing but zero bytes", Other))
}

const OPENPGP: (&str, Kind) = ("OpenPGP message", Encrypted);

/// A byte order mark, and a letter of ours.
pub(super) const fn is_utf16(start: &[u8]) -> bool {
    matches!(start, [0xff, 0xfe, 1..=0xff, 0, ..] | [0xfe, 0xff, 0, 1..=0xff, ..])
}

/// Letters of any script, without control characters; cut in the middle of one, maybe.
fn is_text(start: &[u8]) -> bool {
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => {
            std::str::from_utf8(start.get(..error.valid_up_to()).unwrap_or_default()).unwrap_or_default()
        }
        Err(_) => return false,
    };
    text.chars().all(|char| !char.is_control() || matches!(char, '\t' | '\r' | '\n' | '\u{c}'))
}

const SIGNS: [(&[u8], &str, Kind); 81] = [
    (b"ADIF", "AAC in ADIF", Foreign),
    (b"FORM", "AIFF", Foreign),
    (b"caff", "Apple CAF", Foreign),
    (b"#!SILK", "SILK", Foreign),
    (b"\x02#!SILK", "SILK", Foreign),
    (b"#!AMR", "AMR", Foreign),
    (b"#!EVS", "EVS", Foreign),
    (b".snd", "Sun AU", Foreign),
    (b"RIFX", "big-endian WAV", Foreign),
    (b"RF64", "RF64", Foreign),
    (b"BW64", "BW64", Foreign),
    (b"riff", "Wave64", Foreign),
    (b"RIFF", "RIFF without WAVE, such as AVI", Foreign),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media", Foreign),
    (b".RMF", "RealMedia", Foreign),
    (b".ra\xfd", "RealAudio", Foreign),
    (b"FLV\x01", "Flash video", Foreign),
    (b"\x00\x00\x01\xba", "MPEG program stream", Foreign),
    (b"\x00\x00\x01\xb3", "MPEG video", Kind::Silent),
    (b"wvpk", "WavPack", Foreign),
    (b"MAC ", "Monkey's Audio", Foreign),
    (b"TTA1", "True Audio", Foreign),
    (b"MPCK", "Musepack", Foreign),
    (b"MP+", "Musepack", Foreign),
    (b"DSD ", "DSD", Foreign),
    (b"FRM8", "DSD", Foreign),
    (b"OFR ", "OptimFROG", Foreign),
    (b"ajkg", "Shorten", Foreign),
    (b"NIST_1A", "NIST Sphere", Foreign),
    (b"Creative Voice File", "Creative VOC", Foreign),
    (b"\x0b\x77", "Dolby Digital (AC-3)", Foreign),
    (b"\x7f\xfe\x80\x01", "DTS", Foreign),
    (b"APETAGEX", "an APE tag in front of the audio", Foreign),
    (b"MThd", "MIDI, which is notes and no sound", Other),
    (b"-----BEGIN PGP MESSAGE", "OpenPGP message", Encrypted),
    (b"age-encryption.org/", "age-encrypted file", Encrypted),
    (b"-----BEGIN AGE ENCRYPTED", "age-encrypted file", Encrypted),
    (b"Salted__", "OpenSSL-encrypted file", Encrypted),
    (b"LUKS\xba\xbe", "LUKS volume", Encrypted),
    (b"PK\x03\x04", "ZIP archive", Packed),
    (b"PK\x05\x06", "ZIP archive", Packed),
    (b"\x1f\x8b", "gzip", Packed),
    (b"BZh", "bzip2", Packed),
    (b"\xfd7zXZ\x00", "xz", Packed),
    (b"\x28\xb5\x2f\xfd", "Zstandard", Packed),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip archive", Packed),
    (b"Rar!\x1a\x07", "RAR archive", Packed),
    (b"%PDF", "PDF", Other),
    (b"\x89PNG", "PNG image", Other),
    (b"\xff\xd8\xff", "JPEG image", Other),
    (b"GIF8", "GIF image", Other),
    (b"II*\x00", "TIFF image", Other),
    (b"MM\x00*", "TIFF image", Other),
    (b"\x7fELF", "program", Other),
    (b"MZ\x90\x00", "program", Other),
    (b"\xd0\xcf\x11\xe0", "Office document", Other),
    (b"SQLite format 3", "SQLite database", Other),
    (b"wOF2", "font", Other),
    (b"data:", "a data: URL", Text),
    (b"blob:", "a blob: URL", Text),
    (b"http://", "a URL", Text),
    (b"https://", "a URL", Text),
    (b"file:", "a file name", Text),
    (b"#EXTM3U", "a playlist", Text),
    (b"[playlist]", "a playlist", Text),
    (b"WEBVTT", "subtitles", Text),
    (b"UklGR", "Base64 text", Text),
    (b"SUQz", "Base64 text", Text),
    (b"//uQ", "Base64 text", Text),
    (b"//vQ", "Base64 text", Text),
    (b"T2dnUw", "Base64 text", Text),
    (b"ZkxhQ", "Base64 text", Text),
    (b"GkXfo", "Base64 text", Text),
    (b"AAAAGGZ0eX", "Base64 text", Text),
    (b"AAAAHGZ0eX", "Base64 text", Text),
    (b"AAAAIGZ0eX", "Base64 text", Text),
    (b"[object ", "the words [object ...], which JavaScript makes of an object", Text),
    (b"{", "JSON", Text),
    (b"[", "JSON", Text),
    (b"<", "HTML or XML", Text),
    (b"\xef\xbb\xbf", "plain text", Text),
];
