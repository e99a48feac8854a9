//! The keys that are taken: one from the command line, and a file of hashes that is watched and swapped whole.

mod entry;
mod key_file;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderMap;
use zeroize::Zeroizing;

use super::{Caller, KeyFault, presented};
use crate::base::file::{self, Watching};
use crate::base::secret::Secret;
use crate::base::{clock, random};

use entry::Entry;
pub use key_file::KeyFileFault;

/// The longest key file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// An editor may truncate the file and write it in place: a text without keys, or a broken one, counts only after it has
/// stayed so for some looks.
const HALF_WRITTEN: Duration = Duration::from_millis(250);
/// How many looks those are.
const ATTEMPTS: usize = 5;

/// Where keys come from. With neither, every request is refused.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--api-key` or its variable.
    pub key: Option<Secret<String>>,
    /// The key file.
    pub file: Option<PathBuf>,
}

/// The keys in use.
pub struct Keys {
    /// `None`: no key is asked for.
    required: Option<Required>,
}

struct Required {
    given: Option<Entry>,
    file: Option<PathBuf>,
    of_file: ArcSwap<Vec<Entry>>,
    fault: ArcSwap<Option<KeyFileFault>>,
}

impl Keys {
    /// Asks for no key: every caller is `anonymous`.
    pub const fn open() -> Self {
        Self { required: None }
    }

    /// Takes the keys of these sources.
    ///
    /// # Errors
    /// The key file cannot be read, or has faults: all of them at once.
    pub fn new(sources: Sources) -> Result<Self, KeyFileFault> {
        let of_file = sources.file.as_deref().map_or_else(|| Ok(Vec::new()), read)?;
        let given = sources.key.as_ref().filter(|key| !key.expose().is_empty());
        let given = given.map(|key| Entry::new("api-key", key.expose().as_bytes()));
        let of_file = ArcSwap::from_pointee(of_file);
        let required = Required { given, file: sources.file, of_file, fault: ArcSwap::default() };
        Ok(Self { required: Some(required) })
    }

    /// Whether no key is asked for.
    pub const fn is_open(&self) -> bool {
        self.required.is_none()
    }

    /// How many keys are taken at `now`; 0 too where none is asked for.
    pub fn count(&self, now: SystemTime) -> usize {
        self.required.as_ref().map_or(0, |required| {
            let of_file = required.of_file.load();
            of_file.iter().chain(&required.given).filter(|key| key.is_taken_at(now)).count()
        })
    }

    /// Who is calling, by the headers of the request.
    ///
    /// # Errors
    /// No key, one that is not (or no longer) taken, or one header twice.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, KeyFault> {
        let Some(required) = &self.required else { return Ok(Caller { name: "anonymous".into() }) };
        let key = presented(headers)?;
        let of_file = required.of_file.load();
        let entries = required.given.iter().chain(of_file.iter());
        let name = entry::whose(entries, &key, clock::now()).ok_or(KeyFault::Wrong)?;
        Ok(Caller { name: Arc::clone(name) })
    }

    /// Why the file's last change was not taken; the keys from before are in use then.
    pub fn fault(&self) -> Option<KeyFileFault> {
        self.required.as_ref().and_then(|required| required.fault.load().as_ref().clone())
    }

    /// Follows the key file until the returned value is dropped. Must be called within a Tokio runtime.
    pub fn watch(self: &Arc<Self>) -> Watching {
        let file = self.required.as_ref().and_then(|required| required.file.clone());
        let Some(path) = file else { return Watching::nothing() };
        let this = Arc::clone(self);
        Watching::start(path.clone(), move || {
            let (this, path) = (Arc::clone(&this), path.clone());
            async move {
                match &this.required {
                    Some(required) => required.reload(path).await,
                    None => true,
                }
            }
        })
    }
}

impl Required {
    /// Takes over the file's keys, or keeps the old ones and says why, once.
    async fn reload(&self, path: PathBuf) -> bool {
        let mut found = read_aside(path.clone()).await;
        for _ in 1..ATTEMPTS {
            if found.as_ref().is_ok_and(|keys| !keys.is_empty() || self.of_file.load().is_empty()) {
                break;
            }
            tokio::time::sleep(HALF_WRITTEN).await;
            found = read_aside(path.clone()).await;
        }
        let fault = match found {
            Ok(keys) => {
                if keys != **self.of_file.load() {
                    tracing::info!(key = "keys.file", keys = keys.len(), "the key file has changed");
                    self.of_file.store(Arc::new(keys));
                }
                None
            }
            Err(fault) => Some(fault),
        };
        if let Some(fault) = &fault
            && self.fault.load().as_ref().as_ref() != Some(fault)
        {
            tracing::warn!(key = "keys.file", %fault, "the key file is not taken: the keys from before stay");
        }
        let good = fault.is_none();
        self.fault.store(Arc::new(fault));
        good
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count =
            self.required.as_ref().map(|keys| keys.of_file.load().len() + usize::from(keys.given.is_some()));
        f.debug_struct("Keys").field("count", &count).finish()
    }
}

/// Makes a key, `sk-asr-` and 48 hexadecimal digits (192 bits), under a name and appends its hash to the file, which may
/// have to be made. What stands in the file stays as it is, comments and all.
///
/// # Errors
/// The name cannot be used or is taken; the file has faults (it is left alone then), or cannot be read or written.
pub fn add(path: &Path, name: &str) -> Result<Secret<String>, KeyFileFault> {
    let text = match file::read(path, MAX_BYTES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        text => text.map_err(|error| KeyFileFault::Unreadable(error.kind()))?,
    };
    let key = Secret::new(format!("sk-asr-{}", *Zeroizing::new(random::hex::<24>())));
    let now = humantime::format_rfc3339_seconds(clock::now()).to_string();
    let text = key_file::with(&text, name, &key, now.get(..10).unwrap_or(&now))?;
    file::replace(path, &text).map_err(|error| KeyFileFault::Unwritable(error.kind()))?;
    Ok(key)
}

fn read(path: &Path) -> Result<Vec<Entry>, KeyFileFault> {
    let text = file::read(path, MAX_BYTES).map_err(|error| KeyFileFault::Unreadable(error.kind()))?;
    key_file::parse(&text)
}

/// Reads on a thread that may block.
async fn read_aside(path: PathBuf) -> Result<Vec<Entry>, KeyFileFault> {
    match tokio::task::spawn_blocking(move || read(&path)).await {
        Ok(found) => found,
        Err(_) => Err(KeyFileFault::Unreadable(io::ErrorKind::Interrupted)),
    }
}
