//! One track of an MP4 file, and how long it plays.

use std::time::Duration;

/// What `moov` and the fragments say of a track.
#[derive(Clone, Default)]
pub(super) struct Track {
    pub(super) id: u32,
    /// Its handler is that of sound.
    pub(super) is_sound: bool,
    /// Ticks a second.
    pub(super) scale: u32,
    /// What its samples last, ticks.
    pub(super) ticks: u64,
    /// What the samples of a fragment last whose bytes have not all come, ticks.
    pub(super) pending: u64,
    /// What its samples take, bytes; `None` where they do not say.
    pub(super) size: Option<u64>,
    pub(super) edits: Edits,
    /// Duration and size of samples for which a fragment tells none.
    pub(super) defaults: (u32, u32),
}

/// The edit list, which says what of the track is played.
#[derive(Clone, Default)]
pub(super) struct Edits {
    count: u32,
    /// Silence in front, ticks of the movie.
    empty: u64,
    /// What is played, ticks of the movie.
    played: u64,
    /// What is left out at the start, ticks of the track.
    skipped: u64,
}

impl Edits {
    /// Adds an entry; a negative `from` is silence.
    pub(super) fn add(&mut self, duration: u64, from: i64) {
        self.count = self.count.saturating_add(1);
        match u64::try_from(from) {
            Ok(from) => {
                self.played = self.played.saturating_add(duration);
                if self.count <= 2 {
                    self.skipped = from;
                }
            }
            Err(_) => self.empty = self.empty.saturating_add(duration),
        }
    }
}

impl Track {
    /// How long it plays, with the pending fragment or without; `movie` is the scale of the edit list. With an edit
    /// list, what that lists, as far as there are samples for it; edits without a duration, as fragmented files have
    /// them, change nothing.
    pub(super) fn duration(&self, with_pending: bool, movie: u32) -> Option<Duration> {
        let pending = if with_pending { self.pending } else { 0 };
        let samples = lasting(self.ticks.saturating_add(pending), self.scale)?;
        if self.edits.count == 0 || self.edits.played == 0 {
            return Some(samples);
        }
        let left = samples.saturating_sub(lasting(self.edits.skipped, self.scale)?);
        let played = lasting(self.edits.played, movie)?.min(left);
        played.checked_add(lasting(self.edits.empty, movie)?)
    }
}

fn lasting(ticks: u64, scale: u32) -> Option<Duration> {
    let nanoseconds = (u128::from(ticks) * 1_000_000_000).checked_div(scale.into())?;
    u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
}
