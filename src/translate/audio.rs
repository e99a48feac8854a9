//! The audio on its way through: held until its container is known, measured from then on.

mod feed;
mod flac;
pub(super) mod mp3;
mod mp4;
pub(super) mod ogg;
mod opus;
mod wav;
mod webm;

use std::time::Duration;

use bytes::Bytes;

use super::asked::Container;
use super::container::HOLD;
use super::refusal::Refusal;
use feed::Feed;
use flac::Flac;
use mp3::Mp3;
use mp4::Mp4;
use ogg::Ogg;
use wav::Wav;
use webm::Webm;

/// Fewer bits a second than any codec makes of silence: a file that plays so long is not believed.
const FEWEST: u128 = 100;

/// The file part, from its first byte to its last.
#[derive(Clone, Default)]
pub struct Audio {
    /// The first bytes, while they do not tell what they are.
    held: Vec<u8>,
    known: Option<(Container, Meter)>,
    /// Bytes so far.
    seen: u64,
    /// The longest that may pass.
    limit: Option<Duration>,
    /// Once it has ended.
    length: Option<Length>,
}

/// How long a file plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Length {
    /// Nothing to hear behind the header.
    Empty,
    /// The file does not say, or says what its bytes contradict.
    Unknown,
    /// Measured.
    Lasts(Duration),
}

/// A push measurer for one container: sees every byte once, keeps a bounded state, never guesses.
#[derive(Clone)]
enum Meter {
    Wav(Feed<Wav>),
    Mp3(Feed<Mp3>),
    Mp4(Feed<Mp4>),
    Flac(Flac),
    Ogg(Feed<Ogg>),
    Webm(Feed<Webm>),
}

impl Audio {
    /// A file that may play for `limit` at most.
    pub fn new(limit: Option<Duration>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Takes a piece of the file; gives back what may go out, once it is known what it is.
    ///
    /// # Errors
    /// No audio, none that the upstream takes, or too much of it.
    pub fn push(&mut self, piece: Bytes) -> Result<Option<Bytes>, Refusal> {
        if self.known.is_some() || self.held.is_empty() && self.recognise(&piece, false)? {
            return self.pass(piece).map(Some);
        }
        self.held.extend_from_slice(&piece);
        let held = std::mem::take(&mut self.held);
        if self.recognise(&held, false)? {
            return self.pass(held.into()).map(Some);
        }
        self.held = held;
        Ok(None)
    }

    /// The file ends: what was still held, if anything, may go out.
    ///
    /// # Errors
    /// As for [`Self::push`], and a file without anything to hear.
    pub fn end(&mut self) -> Result<Option<Bytes>, Refusal> {
        let held = std::mem::take(&mut self.held);
        let held = if self.known.is_none() && self.recognise(&held, true)? {
            Some(self.pass(held.into())?)
        } else {
            None
        };
        let Some((_, meter)) = &mut self.known else { return Err(Refusal::AudioTooShort) };
        meter.end()?;
        let length = meter.length().within(self.seen);
        self.length = Some(length);
        match (length, self.limit) {
            (Length::Empty, _) => Err(Refusal::AudioTooShort),
            (Length::Lasts(duration), Some(limit)) if duration > limit => Err(too_long(limit, None)),
            _ => Ok(held),
        }
    }

    /// What the file turned out to be.
    pub fn container(&self) -> Option<Container> {
        self.known.as_ref().map(|(container, _)| *container)
    }

    /// How long it plays, once it has ended; `None` where that cannot be known.
    pub const fn duration(&self) -> Option<Duration> {
        match self.length {
            Some(Length::Lasts(duration)) => Some(duration),
            _ => None,
        }
    }

    /// Bytes of the file that are kept at the moment.
    pub fn held(&self) -> usize {
        self.held.len() + self.known.as_ref().map_or(0, |(_, meter)| meter.held())
    }

    /// Whether these bytes, the file's first, tell what it is.
    fn recognise(&mut self, start: &[u8], is_all: bool) -> Result<bool, Refusal> {
        let seen = start.get(..HOLD).unwrap_or(start);
        let Some(found) = Container::recognise(seen, is_all || seen.len() == HOLD) else { return Ok(false) };
        let (container, start) = found?;
        self.known = Some((container, Meter::new(container, start)));
        Ok(true)
    }

    fn pass(&mut self, piece: Bytes) -> Result<Bytes, Refusal> {
        let Some((_, meter)) = &mut self.known else { return Ok(piece) };
        self.seen = self.seen.saturating_add(piece.len() as u64);
        meter.push(&piece)?;
        if let Some(limit) = self.limit {
            if let Some(claim) = meter.claim().filter(|claim| *claim > limit) {
                return Err(too_long(limit, Some(claim)));
            }
            if meter.shown().is_some_and(|shown| shown > limit) {
                return Err(too_long(limit, None));
            }
        }
        Ok(piece)
    }
}

const fn too_long(limit: Duration, duration: Option<Duration>) -> Refusal {
    Refusal::AudioTooLong { limit, duration }
}

impl Meter {
    /// For a container that begins at byte `start`.
    fn new(container: Container, start: u64) -> Self {
        match container {
            Container::Wav => Self::Wav(Feed::new(Wav::default(), start)),
            Container::Mp3 => Self::Mp3(Feed::new(Mp3::default(), start)),
            Container::M4a => Self::Mp4(Feed::new(Mp4::default(), start)),
            Container::Flac => Self::Flac(Flac::new(start)),
            Container::Ogg => Self::Ogg(Feed::new(Ogg::default(), start)),
            Container::Webm => Self::Webm(Feed::new(Webm::default(), start)),
        }
    }

    fn push(&mut self, piece: &Bytes) -> Result<(), Refusal> {
        match self {
            Self::Wav(feed) => feed.push(piece),
            Self::Mp3(feed) => feed.push(piece),
            Self::Mp4(feed) => feed.push(piece),
            Self::Flac(flac) => flac.push(piece),
            Self::Ogg(feed) => feed.push(piece),
            Self::Webm(feed) => feed.push(piece),
        }
    }

    fn end(&mut self) -> Result<(), Refusal> {
        match self {
            Self::Wav(feed) => feed.end(),
            Self::Mp3(feed) => feed.end(),
            Self::Mp4(feed) => feed.end(),
            Self::Flac(_) => Ok(()),
            Self::Ogg(feed) => feed.end(),
            Self::Webm(feed) => feed.end(),
        }
    }

    fn length(&self) -> Length {
        match self {
            Self::Wav(feed) => feed.length(),
            Self::Mp3(feed) => feed.length(),
            Self::Mp4(feed) => feed.length(),
            Self::Flac(flac) => flac.length(),
            Self::Ogg(feed) => feed.length(),
            Self::Webm(feed) => feed.length(),
        }
    }

    /// What the header says.
    fn claim(&self) -> Option<Duration> {
        match self {
            Self::Wav(feed) => feed.claim(),
            Self::Mp3(feed) => feed.claim(),
            Self::Mp4(feed) => feed.claim(),
            Self::Flac(flac) => flac.claim(),
            Self::Ogg(feed) => feed.claim(),
            Self::Webm(feed) => feed.claim(),
        }
    }

    /// What has come so far, where that is cheap to tell.
    fn shown(&self) -> Option<Duration> {
        match self {
            Self::Flac(_) => None,
            _ => match self.length() {
                Length::Lasts(duration) => Some(duration),
                _ => None,
            },
        }
    }

    fn held(&self) -> usize {
        match self {
            Self::Wav(feed) => feed.held(),
            Self::Mp3(feed) => feed.held(),
            Self::Mp4(feed) => feed.held(),
            Self::Flac(flac) => flac.held(),
            Self::Ogg(feed) => feed.held(),
            Self::Webm(feed) => feed.held(),
        }
    }
}

impl Length {
    /// Not more than what `bytes` can hold; and where something began, and nothing of it is whole, not nothing.
    fn within(self, bytes: u64) -> Self {
        match self {
            Self::Lasts(Duration::ZERO) => Self::Unknown,
            Self::Lasts(duration) if duration.as_millis() * FEWEST > u128::from(bytes) * 8 * 1000 => {
                Self::Unknown
            }
            length => length,
        }
    }
}

/// `samples` at `rate` samples a second, to the nanosecond; no recording has a rate that is far out.
fn lasting(samples: u64, rate: u32) -> Length {
    if !(1000..=3_000_000).contains(&rate) {
        return Length::Unknown;
    }
    let nanoseconds = u128::from(samples) * 1_000_000_000 / u128::from(rate);
    match u64::try_from(nanoseconds) {
        Ok(0) => Length::Empty,
        Ok(nanoseconds) => Length::Lasts(Duration::from_nanos(nanoseconds)),
        Err(_) => Length::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::super::refusal::Kind;
    use super::*;

    #[test]
    fn nothing_goes_out_before_the_container_is_known() {
        let mut audio = Audio::default();
        assert_eq!(audio.push(Bytes::from_static(b"RIFF\0")), Ok(None));
        assert_eq!((audio.container(), audio.held()), (None, 5));
        let piece = audio.push(Bytes::from_static(b"\0\0\0WAVE")).unwrap();
        assert_eq!(piece.as_deref(), Some(&b"RIFF\0\0\0\0WAVE"[..]));
        assert_eq!(audio.container(), Some(Container::Wav));
        assert_eq!(audio.end(), Err(Refusal::AudioTooShort));
        assert_eq!(audio.duration(), None);
    }

    #[test]
    fn a_file_shorter_than_the_magic_is_decided_at_its_end() {
        let mut audio = Audio::default();
        assert_eq!(audio.push(Bytes::from_static(b"ID3\x04\0")), Ok(None));
        assert_eq!(audio.end(), Err(Refusal::AudioTooShort));
        let mut audio = Audio::default();
        assert_eq!(audio.push(Bytes::from_static(b"abc")), Ok(None));
        let refused = audio.end();
        assert!(matches!(refused, Err(Refusal::AudioUnsupported(Some(found))) if found.kind == Kind::Text));
        assert_eq!(Audio::default().end(), Err(Refusal::AudioTooShort));
    }

    /// 8 kHz, mono, 8 bits.
    fn wav(seconds: u32, size: u32) -> Bytes {
        let mut wav =
            b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0"
                .to_vec();
        wav.extend(b"data");
        wav.extend(size.to_le_bytes());
        wav.resize(wav.len() + seconds as usize * 8000, 0x80);
        wav.into()
    }

    #[test]
    fn too_much_audio_is_refused_when_the_header_or_the_bytes_show_it() {
        let limit = Duration::from_secs(3);
        let too_long = |duration| Err(Refusal::AudioTooLong { limit, duration });
        let mut audio = Audio::new(Some(limit));
        assert_eq!(audio.push(wav(0, 32_000)), too_long(Some(Duration::from_secs(4))));
        let mut audio = Audio::new(Some(limit));
        assert!(audio.push(wav(2, u32::MAX)).is_ok() && audio.push(vec![0; 8000].into()).is_ok());
        assert_eq!(audio.push(vec![0; 8].into()), too_long(None));
        let mut audio = Audio::new(Some(limit));
        assert!(audio.push(wav(3, 24_000)).is_ok() && audio.end().is_ok());
        assert_eq!(audio.duration(), Some(limit));
    }

    #[test]
    fn a_length_too_long_for_a_clock_or_for_its_bytes_is_unknown() {
        assert_eq!(lasting(16_000, 16_000), Length::Lasts(Duration::from_secs(1)));
        assert_eq!(lasting(u64::MAX, 1000), Length::Unknown);
        assert_eq!((lasting(1, 0), lasting(0, 8000)), (Length::Unknown, Length::Empty));
        assert_eq!(lasting(3600 * 8000, 8000).within(10_000), Length::Unknown);
        assert_eq!(lasting(3600 * 8000, 8000).within(45_000), lasting(3600 * 8000, 8000));
    }
}
