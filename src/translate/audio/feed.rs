//! Brings a scanner the fields it asks for, each in one piece, however the file is cut.

use super::super::refusal::Found;
use super::{Length, Refusal};

/// A field a scanner wants to see: `size` bytes of the file from byte `at` on. Zero bytes: nothing more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Want {
    pub(super) at: u64,
    pub(super) size: usize,
}

/// Why a scanner reads no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes are not what they should be: nothing is known from here on.
    Lost,
    /// It is nothing that the upstream takes.
    Unfit(Found),
}

/// Reads one container, field by field, without holding any of it.
pub(super) trait Scan {
    /// The first field, counted from where the container begins.
    const FIRST: usize;

    /// Takes the field that was asked for, which starts at byte `at`, and asks for the next. That one may start
    /// inside this one, but not before it; at the same byte only if it is longer.
    fn field(&mut self, at: u64, field: &[u8]) -> Result<Want, Stop>;

    /// Takes many fields at once, as [`Self::field`] would one by one: the wanted one, which starts at byte `at`, with
    /// all that has come from there on. Asks for the next, further on; `None` if it took nothing.
    fn leap(&mut self, _at: u64, _bytes: &[u8]) -> Option<Want> {
        None
    }

    /// The file ends before or inside the field that was asked for; this is as much as there is of it.
    fn rest(&mut self, _at: u64, _rest: &[u8]) -> Result<(), Stop> {
        Ok(())
    }

    /// How long it plays, if the file were to end after `seen` bytes.
    fn length(&self, seen: u64) -> Length;

    /// How long it plays by its own header, as soon as that has passed.
    fn claim(&self) -> Option<std::time::Duration> {
        None
    }
}

/// The file as it passes a scanner.
#[derive(Clone)]
pub(super) struct Feed<S> {
    scan: S,
    want: Want,
    /// The first bytes of the wanted field, while it is not whole.
    held: Vec<u8>,
    seen: u64,
    lost: bool,
}

impl Want {
    /// The scanner has seen enough.
    pub(super) const NOTHING: Self = Self { at: u64::MAX, size: 0 };

    pub(super) const fn new(at: u64, size: usize) -> Self {
        Self { at, size }
    }
}

impl<S: Scan> Feed<S> {
    /// A scanner for a container that begins at byte `start` of the file.
    pub(super) const fn new(scan: S, start: u64) -> Self {
        Self { scan, want: Want::new(start, S::FIRST), held: Vec::new(), seen: 0, lost: false }
    }

    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let start = self.seen;
        self.seen = start.saturating_add(piece.len() as u64);
        if !self.held.is_empty() && !self.finish_held(start, piece)? {
            return Ok(());
        }
        while self.want.size > 0 && self.want.at < self.seen {
            let offset = usize::try_from(self.want.at.saturating_sub(start)).unwrap_or(usize::MAX);
            let rest = piece.get(offset..).unwrap_or_default();
            if let Some(next) = self.scan.leap(self.want.at, rest) {
                self.follow(Ok(next))?;
                continue;
            }
            let Some(field) = rest.get(..self.want.size) else {
                self.held.extend_from_slice(rest);
                break;
            };
            let answer = self.scan.field(self.want.at, field);
            self.follow(answer)?;
        }
        Ok(())
    }

    /// The file has ended.
    pub(super) fn end(&mut self) -> Result<(), Refusal> {
        if self.want.size == 0 || self.want.at > self.seen {
            return Ok(());
        }
        match self.scan.rest(self.want.at, &self.held) {
            Ok(()) => Ok(()),
            Err(stop) => self.stop(stop),
        }
    }

    pub(super) fn length(&self) -> Length {
        if self.lost { Length::Unknown } else { self.scan.length(self.seen) }
    }

    pub(super) fn claim(&self) -> Option<std::time::Duration> {
        self.scan.claim()
    }

    pub(super) const fn scan(&self) -> &S {
        &self.scan
    }

    /// How much of the file has passed, bytes.
    pub(super) const fn seen(&self) -> u64 {
        self.seen
    }

    /// Bytes held.
    pub(super) const fn held(&self) -> usize {
        self.held.capacity()
    }

    /// Completes the fields that began in an earlier piece; whether all of them are done.
    fn finish_held(&mut self, start: u64, piece: &[u8]) -> Result<bool, Refusal> {
        while self.want.size > 0 && self.want.at < start {
            let before = usize::try_from(start.saturating_sub(self.want.at)).unwrap_or(usize::MAX);
            let missing = self.want.size.saturating_sub(before);
            let Some(taken) = piece.get(..missing) else {
                self.held.extend_from_slice(piece);
                return Ok(false);
            };
            self.held.extend_from_slice(taken);
            let at = self.want.at;
            let field = self.held.get(..self.want.size).unwrap_or_default();
            let answer = self.scan.field(at, field);
            self.follow(answer)?;
            // What this piece brought can be taken from it again; of the rest, keep what the next field needs.
            self.held.truncate(before);
            let passed = usize::try_from(self.want.at.saturating_sub(at)).unwrap_or(usize::MAX);
            self.held.drain(..passed.min(before));
        }
        self.held = Vec::new();
        Ok(true)
    }

    fn follow(&mut self, answer: Result<Want, Stop>) -> Result<(), Refusal> {
        match answer {
            // A scanner that asks for what it has just seen would never end.
            Ok(next)
                if next.at < self.want.at || (next.at == self.want.at && next.size <= self.want.size) =>
            {
                self.stop(Stop::Lost)
            }
            Ok(next) => {
                self.want = next;
                Ok(())
            }
            Err(stop) => self.stop(stop),
        }
    }

    fn stop(&mut self, stop: Stop) -> Result<(), Refusal> {
        self.want = Want::NOTHING;
        match stop {
            Stop::Lost => {
                self.lost = true;
                Ok(())
            }
            Stop::Unfit(found) => Err(Refusal::AudioUnsupported(Some(found))),
        }
    }
}

/// `N` bytes of a field from its byte `at` on.
pub(super) fn bytes<const N: usize>(field: &[u8], at: usize) -> Result<[u8; N], Stop> {
    field.get(at..).and_then(|rest| rest.first_chunk::<N>()).copied().ok_or(Stop::Lost)
}

pub(super) fn be32(field: &[u8], at: usize) -> Result<u32, Stop> {
    bytes(field, at).map(u32::from_be_bytes)
}

pub(super) fn be64(field: &[u8], at: usize) -> Result<u64, Stop> {
    bytes(field, at).map(u64::from_be_bytes)
}

pub(super) fn le16(field: &[u8], at: usize) -> Result<u16, Stop> {
    bytes(field, at).map(u16::from_le_bytes)
}

pub(super) fn le32(field: &[u8], at: usize) -> Result<u32, Stop> {
    bytes(field, at).map(u32::from_le_bytes)
}

/// What every scanner's tests need: a file measured in many cuttings.
#[cfg(test)]
pub(super) mod cutting {
    use super::*;

    /// The same length for every cutting, or the refusal.
    pub(in super::super) fn measure<S: Scan>(file: &[u8], scan: impl Fn() -> S) -> Result<Length, Refusal> {
        let steps = (1..=file.len().min(70)).chain([997, file.len().max(1)]);
        let mut lengths = steps.map(|step| {
            let mut feed = Feed::new(scan(), 0);
            file.chunks(step).try_for_each(|piece| feed.push(piece))?;
            feed.end()?;
            Ok(feed.length())
        });
        let first = lengths.next().unwrap();
        assert!(lengths.all(|length| length == first));
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads overlapping fields of growing size, and remembers them.
    #[derive(Default)]
    struct Windows(Vec<(u64, Vec<u8>)>);

    impl Scan for Windows {
        const FIRST: usize = 3;

        fn field(&mut self, at: u64, field: &[u8]) -> Result<Want, Stop> {
            self.0.push((at, field.to_vec()));
            Ok(match self.0.len() {
                1 => Want::new(at, 9),
                2 => Want::new(at + 1, 2),
                3 => Want::new(at + 1, 12),
                4 => Want::new(at + 40, 5),
                _ => Want::new(at + 3, 4),
            })
        }

        fn rest(&mut self, at: u64, rest: &[u8]) -> Result<(), Stop> {
            self.0.push((at, rest.to_vec()));
            Ok(())
        }

        fn length(&self, _: u64) -> Length {
            Length::Unknown
        }
    }

    #[test]
    fn fields_come_whole_however_the_file_is_cut() {
        let file: Vec<u8> = (0..100).collect();
        let windows = |step| {
            let mut feed = Feed::new(Windows::default(), 5);
            file.chunks(step).for_each(|piece| feed.push(piece).unwrap());
            feed.end().unwrap();
            feed.scan.0
        };
        let whole = windows(100);
        for (at, field) in &whole {
            let at = *at as usize;
            assert_eq!(&file[at..at + field.len()], field);
        }
        assert_eq!(whole.last().unwrap().0, 98);
        for step in 1..100 {
            assert_eq!(windows(step), whole, "{step}");
        }
    }

    #[test]
    fn a_scanner_that_does_not_move_is_stopped() {
        struct Stuck;
        impl Scan for Stuck {
            const FIRST: usize = 1;
            fn field(&mut self, at: u64, _: &[u8]) -> Result<Want, Stop> {
                Ok(Want::new(at, 1))
            }
            fn length(&self, _: u64) -> Length {
                Length::Empty
            }
        }
        let mut feed = Feed::new(Stuck, 0);
        feed.push(&[0; 10]).unwrap();
        assert_eq!(feed.length(), Length::Unknown);
    }
}
