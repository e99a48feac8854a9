//! A key as it is kept: its hash, and for how long it is taken.

use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// One key, as its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    pub(super) sha256: [u8; 32],
    pub(super) expires: Option<SystemTime>,
    pub(super) disabled: bool,
}

impl Entry {
    /// A key that is taken without end.
    pub(super) fn new(name: &str, key: &[u8]) -> Self {
        Self { name: name.into(), sha256: Sha256::digest(key).into(), expires: None, disabled: false }
    }

    /// Whether it is taken at that moment.
    pub(super) fn is_taken_at(&self, now: SystemTime) -> bool {
        !self.disabled && self.expires.is_none_or(|end| now < end)
    }
}

/// Whose key this is at `now`: the name of the last entry that takes it.
pub(super) fn whose<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    key: &[u8],
    now: SystemTime,
) -> Option<&'a Arc<str>> {
    let digest = Sha256::digest(key);
    let mut found = None;
    // No early exit: how long this takes says nothing about which entry matched.
    for entry in entries {
        if bool::from(entry.sha256.ct_eq(&digest)) && entry.is_taken_at(now) {
            found = Some(&entry.name);
        }
    }
    found
}
