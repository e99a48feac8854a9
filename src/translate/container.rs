//! What kind of audio the first bytes are, whatever the client calls it.

mod sign;

use super::asked::Container;
use super::audio::mp3::{self, frame::Frame};
use super::audio::ogg;
use super::refusal::{Found, Kind, Refusal};

/// As many of a file's bytes as are held at most to tell what it is.
pub(super) const HOLD: usize = 1024;

/// What most containers are told by.
const MAGIC: usize = 12;

/// So many letters are text.
const TEXT: usize = 48;

/// How many bytes are looked at before more are waited for, so that what is found does not depend on how they come.
const LOOKS: [usize; 9] = [MAGIC, 24, 48, 96, 192, 384, 512, 768, HOLD];

/// Where a container was found, or why the file is refused; `None`: that takes more bytes.
type Recognised = Option<Result<(Container, u64), Refusal>>;

impl Container {
    /// The file name extension that the upstream expects.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Mp3 => "mp3",
            Self::M4a => "m4a",
            Self::Flac => "flac",
            Self::Ogg => "ogg",
            Self::Webm => "webm",
        }
    }

    /// The media type that goes with it.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Wav => "audio/wav",
            Self::Mp3 => "audio/mpeg",
            Self::M4a => "audio/mp4",
            Self::Flac => "audio/flac",
            Self::Ogg => "audio/ogg",
            Self::Webm => "audio/webm",
        }
    }

    /// Reads the first bytes of a file; `is_all` when no more can be had. Gives the container, and the byte at which
    /// it begins: behind ID3 tags, which some put in front of anything.
    pub(super) fn recognise(start: &[u8], is_all: bool) -> Recognised {
        let looks = LOOKS.into_iter().map_while(|size| start.get(..size));
        let found = looks.map(|seen| Self::look(seen, seen.len() == HOLD)).find_map(|found| found);
        found.or_else(|| if is_all { Self::look(start, true) } else { None })
    }

    /// One look at so many bytes.
    fn look(start: &[u8], is_all: bool) -> Recognised {
        let (mut at, mut rest) = (0_usize, start);
        while let Some(size) = mp3::id3(rest) {
            let next = at.saturating_add(usize::try_from(size).unwrap_or(HOLD));
            match start.get(next..) {
                Some(behind) if next <= HOLD - MAGIC => (at, rest) = (next, behind),
                // Too long a tag to wait for its end; what comes then is measured as what it is.
                _ if next > HOLD - MAGIC || is_all => return Some(Ok((Self::Mp3, 0))),
                _ => return None,
            }
        }
        match recognise(rest, is_all)? {
            Ok(Self::Mp3) => Some(Ok((Self::Mp3, 0))),
            Ok(container) => Some(Ok((container, at as u64))),
            Err(Refusal::AudioUnsupported(Some(found))) if found.kind == Kind::Foreign => {
                Some(Err(Refusal::AudioUnsupported(Some(found))))
            }
            // Behind a tag, MP3 may begin with some bytes that belong to nothing.
            Err(_) if at > 0 => Some(Ok((Self::Mp3, 0))),
            Err(refusal) => Some(Err(refusal)),
        }
    }
}

fn recognise(start: &[u8], is_all: bool) -> Option<Result<Container, Refusal>> {
    if start.len() < MAGIC && !is_all {
        return None;
    }
    match start {
        [] => return Some(Err(Refusal::AudioTooShort)),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => return Some(Ok(Container::Wav)),
        [b'f', b'L', b'a', b'C', ..] => return Some(Ok(Container::Flac)),
        [b'O', b'g', b'g', b'S', ..] => return is_ogg_audio(start, is_all),
        [0x1a, 0x45, 0xdf, 0xa3, ..] => return Some(Ok(Container::Webm)),
        // A tag that is cut short, in a file that is nothing else.
        [b'I', b'D', b'3', ..] => return Some(Ok(Container::Mp3)),
        _ => {}
    }
    if let Some(brand) = mp4_brand(start) {
        return Some(sign::brand(brand).map_or(Ok(Container::M4a), refuse));
    }
    if !sign::is_utf16(start) && is_mpeg_audio(start, is_all)? {
        return Some(Ok(Container::Mp3));
    }
    // Some signs are longer than the first look, and begin like text.
    let found = sign::of(start).or_else(|| sign::text(start).filter(|_| is_all || start.len() >= TEXT));
    if let Some(found) = found {
        return Some(refuse(found));
    }
    // The rest may yet be MP3 cut out of a longer one, or a format whose sign stands further on.
    if !is_all {
        return None;
    }
    match sign::further(start) {
        Some(found) => Some(refuse(found)),
        None if has_mpeg_audio(start) => Some(Ok(Container::Mp3)),
        None => Some(Err(Refusal::AudioUnsupported(None))),
    }
}

const fn refuse(found: Found) -> Result<Container, Refusal> {
    Err(Refusal::AudioUnsupported(Some(found)))
}

/// The major brand, or nothing in its place, of what begins with a box that ISO base media or QuickTime files begin
/// with.
fn mp4_brand(start: &[u8]) -> Option<&[u8]> {
    // No first box but the data is longer than 16 MiB, and no text is this short.
    let is_short = start.first() == Some(&0);
    match start.get(4..8)? {
        b"ftyp" | b"styp" if is_short => Some(start.get(8..12).unwrap_or_default()),
        b"moov" | b"wide" | b"free" | b"skip" | b"pnot" if is_short => Some(b""),
        b"moof" | b"sidx" if is_short => Some(sign::FRAGMENT),
        b"mdat" => Some(b""),
        _ => None,
    }
}

/// An MPEG audio frame, and where it is near enough to see, another one behind it.
fn is_mpeg_audio(start: &[u8], is_all: bool) -> Option<bool> {
    let Some(head) = start.first_chunk::<4>() else { return Some(false) };
    let Some(frame) = Frame::read(*head) else {
        // Free format: layer III, bit rate 0.
        let [first, second, third, _] = *head;
        return Some(first == 0xff && matches!(second, 0xfa | 0xfb | 0xf2 | 0xf3) && third & 0xfc == 0);
    };
    let next = usize::from(frame.size);
    match start.get(next..next + 4) {
        None if next + 4 <= HOLD && !is_all => None,
        None => Some(true),
        Some(next) => Some(
            is_alike(frame, next) || matches!(next, [b'T', b'A', b'G', _] | b"APET" | [b'I', b'D', b'3', _]),
        ),
    }
}

/// Two frames in a row, anywhere.
fn has_mpeg_audio(start: &[u8]) -> bool {
    memchr::memchr_iter(0xff, start).any(|at| {
        let rest = start.get(at..).unwrap_or_default();
        let frame = rest.first_chunk::<4>().and_then(|head| Frame::read(*head));
        frame.is_some_and(|frame| {
            rest.get(usize::from(frame.size)..).is_some_and(|next| is_alike(frame, next))
        })
    })
}

fn is_alike(frame: Frame, next: &[u8]) -> bool {
    let next = next.first_chunk::<4>().and_then(|head| Frame::read(*head));
    next.is_some_and(|next| next.is_like(frame))
}

/// The streams of an Ogg file all begin before any goes on: one of them must be audio.
fn is_ogg_audio(start: &[u8], is_all: bool) -> Option<Result<Container, Refusal>> {
    let mut rest = start;
    let mut other = None;
    loop {
        let Some((flags, packet, behind)) = ogg_page(rest) else {
            let found = other.map_or(Ok(Container::Ogg), refuse_ogg);
            return is_all.then_some(found);
        };
        if flags & 2 == 0 {
            return Some(refuse_ogg(other.unwrap_or("Ogg without Opus or Vorbis")));
        }
        match ogg::Kind::of(packet) {
            ogg::Kind::Skeleton => {}
            ogg::Kind::Other(name) => other = other.or(Some(name)),
            _ => return Some(Ok(Container::Ogg)),
        }
        rest = start.get(start.len().saturating_sub(rest.len()).saturating_add(behind)..).unwrap_or_default();
    }
}

const fn refuse_ogg(name: &'static str) -> Result<Container, Refusal> {
    refuse(Found::new(name, Kind::Foreign))
}

/// A page's flags, the start of what it holds, and its size.
fn ogg_page(page: &[u8]) -> Option<(u8, &[u8], usize)> {
    let segments = usize::from(*page.get(ogg::PAGE - 1)?);
    let (head, body) = page.split_at_checked(ogg::PAGE + segments)?;
    let size = head.get(ogg::PAGE..)?.iter().map(|size| usize::from(*size)).sum::<usize>();
    let packet = body.get(..size.min(8))?;
    page.starts_with(b"OggS").then_some((*head.get(5)?, packet, head.len() + size))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAV: &[u8] = b"RIFF\xff\xff\xff\xffWAVEfmt ";

    fn found(start: &[u8]) -> Option<(&'static str, Kind)> {
        match Container::recognise(start, true) {
            Some(Err(Refusal::AudioUnsupported(found))) => found.map(|found| (found.name, found.kind)),
            other => panic!("{other:?}: {start:?}"),
        }
    }

    #[test]
    fn the_six_containers_are_known_by_their_first_bytes() {
        for (start, expected) in [
            (WAV, Container::Wav),
            (b"fLaC\0\0\0\x22\x10\0\x10\0", Container::Flac),
            (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81", Container::Webm),
            (b"\0\0\0\x1cftypM4A ", Container::M4a),
            (b"\0\0\0\x18ftypmp42", Container::M4a),
            (b"\0\0\0\x08wide\0\0\0\0mdat", Container::M4a),
        ] {
            assert_eq!(Container::recognise(start, false), Some(Ok((expected, 0))), "{start:?}");
            assert_eq!(Container::recognise(&start[..11], false), None, "{start:?}");
        }
    }

    fn frames(head: &[u8; 4], size: usize, count: usize) -> Vec<u8> {
        let mut frame = head.to_vec();
        frame.resize(size, 0);
        frame.repeat(count)
    }

    #[test]
    fn a_frame_of_mpeg_audio_is_proven_by_the_next_one() {
        let mp3 = Some(Ok((Container::Mp3, 0)));
        let file = frames(b"\xff\xfb\x90\x64", 417, 3);
        assert_eq!(Container::recognise(&file[..512], false), mp3);
        assert_eq!(Container::recognise(&file[..511], false), None);
        assert_eq!(Container::recognise(&file[..420], true), mp3);
        // free format, a frame too long to wait for, one that was cut in front
        assert_eq!(Container::recognise(b"\xff\xfb\0\x64........", false), mp3);
        assert_eq!(Container::recognise(&frames(b"\xff\xfb\xe2\x64", 1045, 1)[..12], false), mp3);
        assert_eq!(Container::recognise(&file[100..], true), mp3);
        let alone = [frames(b"\xff\xfb\x90\x64", 417, 1), vec![1; 700]].concat();
        assert_eq!(found(&alone[..HOLD]), None);
    }

    #[test]
    fn behind_id3_tags_comes_the_true_type() {
        let tag =
            |size: u8| [&b"ID3\x04\0\0\0\0\x03"[..], &[size], &vec![0; 384 + usize::from(size)]].concat();
        let behind = |start: &[u8]| Container::recognise(&[tag(5), start.to_vec()].concat(), true);
        assert_eq!(behind(b"fLaC\0\0\0\x22\x10\0\x10\0"), Some(Ok((Container::Flac, 399))));
        assert_eq!(behind(WAV), Some(Ok((Container::Wav, 399))));
        assert_eq!(behind(&frames(b"\xff\xfb\x90\x64", 417, 1)), Some(Ok((Container::Mp3, 0))));
        assert_eq!(behind(&[0; 30]), Some(Ok((Container::Mp3, 0))));
        assert!(matches!(behind(b"\xff\xf1\x50\x80\0\0\0\0\0\0\0\0"), Some(Err(_))));
        let twice = [tag(0), tag(9), WAV.to_vec()].concat();
        assert_eq!(Container::recognise(&twice, true), Some(Ok((Container::Wav, 797))));
        assert_eq!(Container::recognise(&twice[..700], false), None);
        // a picture
        assert_eq!(Container::recognise(b"ID3\x04\0\0\0\x0f\0\0..", false), Some(Ok((Container::Mp3, 0))));
    }

    fn page(flags: u8, packet: &[u8]) -> Vec<u8> {
        let mut page = [b"OggS\0", &[flags][..], &[0; 20], &[1, packet.len() as u8]].concat();
        page.extend(packet);
        page
    }

    #[test]
    fn ogg_must_carry_audio() {
        let (opus, theora) = (page(2, b"OpusHead\x01\x01"), page(2, b"\x80theora\x03\x02"));
        let skeleton = page(2, &[b"fishead\0", &[0; 72][..]].concat());
        let audio = Some(Ok((Container::Ogg, 0)));
        assert_eq!(Container::recognise(&opus, true), audio);
        assert_eq!(Container::recognise(&opus[..36], false), None);
        for start in [[skeleton.clone(), opus.clone()].concat(), [theora.clone(), opus].concat()] {
            assert_eq!(Container::recognise(&[&start[..], &[0; 99]].concat(), false), audio);
        }
        let silent = [skeleton, theora, page(0, b"\x81theora...")].concat();
        assert_eq!(found(&silent), Some(("Ogg with Theora video and no audio", Kind::Foreign)));
        assert_eq!(Container::recognise(&silent[..150], false), None);
    }

    #[test]
    fn what_the_upstream_fails_on_is_named() {
        let ts = [&b"G\x40\x11\x10"[..], &[0xff; 184]].concat().repeat(3);
        for (start, name, kind) in [
            (&b"\xff\xf1\x50\x80\x02\x1f\xfc"[..], "AAC in ADTS", Kind::Foreign),
            (b"FORM\0\0\0\0AIFF", "AIFF", Kind::Foreign),
            (b"caff\0\x01\0\0desc", "Apple CAF", Kind::Foreign),
            (b"\x02#!SILK_V3\0\0", "SILK", Kind::Foreign),
            (b"#!AMR-WB\n\0\0\0", "AMR", Kind::Foreign),
            (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\0\xaa", "Windows Media", Kind::Foreign),
            (b"MThd\0\0\0\x06\0\x01\0\x02", "MIDI, which is notes and no sound", Kind::Other),
            (b"RIFF\0\0\0\0AVI LIST", "RIFF without WAVE, such as AVI", Kind::Foreign),
            (&ts, "MPEG transport stream", Kind::Foreign),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIF image", Kind::Other),
            (b"\0\0\0\x18moof\0\0\0\x10mfhd", "a fragment of an MP4 without its beginning", Kind::Foreign),
            (b"PK\x03\x04\x14\0\0\0\x08\0\0\0", "ZIP archive", Kind::Packed),
            (b"<!DOCTYPE html>", "HTML or XML", Kind::Text),
            (b"{\"error\": {}}", "JSON", Kind::Text),
            (b"\xff\xfea\0u\0d\0i\0o\0", "plain text in UTF-16", Kind::Text),
            ("音频.wav 在桌面上".as_bytes(), "plain text", Kind::Text),
            (b"a.wav", "plain text", Kind::Text),
            (b"GIF of the year, and other stories", "plain text", Kind::Text),
            (b"UklGRiQAAABXQVZF", "Base64 text", Kind::Text),
            (b"age-encryption.org/v1\n", "age-encrypted file", Kind::Encrypted),
            (b"\x85\x02\x0c\x03\x12\x34\x56\x78\x9a\xbc\xde\xf0", "OpenPGP message", Kind::Encrypted),
            (b"\x8c\x0d\x04\x09\x03\x02\x56\x78\x9a\xbc\xde\xf0", "OpenPGP message", Kind::Encrypted),
            (&[0; HOLD], "nothing but zero bytes", Kind::Other),
        ] {
            assert_eq!(found(start), Some((name, kind)), "{start:?}");
        }
        // raw samples
        assert_eq!(found(b"\xff\xff\xff\xff\x01\0\x02\0\xfe\xff\x07\0"), None);
        assert_eq!(found(b"[\0\x02\0\x05\0\xfe\xff\x07\0\0\0"), None);
    }

    #[test]
    fn what_is_found_does_not_depend_on_how_much_has_come() {
        let riddles = [
            b"twelve bytes\0of text and then none".to_vec(),
            [&b"age-encryptia"[..], &frames(b"\xff\xfb\x90\x64", 417, 3)].concat(),
            [vec![0; 300], frames(b"\xff\xfb\x50\x64", 208, 9)].concat(),
            vec![0x55; 2000],
        ];
        for riddle in riddles {
            let riddle = &riddle[..riddle.len().min(HOLD)];
            let found = Container::recognise(riddle, true);
            let first = (0..riddle.len()).find_map(|size| Container::recognise(&riddle[..size], false));
            assert!(first.is_none_or(|first| Some(first) == found), "{found:?}");
        }
    }

    #[test]
    fn an_empty_file_is_too_short() {
        assert_eq!(Container::recognise(b"", true), Some(Err(Refusal::AudioTooShort)));
        assert_eq!(Container::recognise(b"", false), None);
    }
}
