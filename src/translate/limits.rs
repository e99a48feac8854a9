//! How much of everything a request may bring.

use std::time::Duration;

use super::refusal::Refusal;

/// Bounds on one upload. The defaults suit OpenAI's own 25 MiB rule with room to spare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The whole body, in bytes.
    pub upload: u64,
    /// Parts of the form.
    pub parts: usize,
    /// A part's header block, in bytes.
    pub part_head: usize,
    /// A text field, in bytes.
    pub field: usize,
    /// One of `known_speaker_references[]`, which are whole audio clips, in bytes.
    pub references: usize,
    /// What may follow the file without going upstream when the upstream was told a length: padding stands in for
    /// it. In bytes.
    pub ignored: u64,
    /// How long the audio may play, where that is limited.
    pub duration: Option<Duration>,
}

impl Limits {
    pub(super) fn too_much_ignored(&self) -> Refusal {
        Refusal::TooMuchIgnored(usize::try_from(self.ignored).unwrap_or(usize::MAX))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            upload: 50 << 20,
            parts: 64,
            part_head: 8 << 10,
            field: 256 << 10,
            references: 8 << 20,
            ignored: 64 << 10,
            duration: None,
        }
    }
}
