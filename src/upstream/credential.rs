//! The login that goes upstream: one immutable snapshot, swapped when Codex writes its auth file. The file is only ever
//! read: refresh tokens are single-use, and a second refresher logs its owner out.

mod auth_file;
mod claims;
mod login;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};
use std::{fmt, io};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use crate::base::file::{self, Watching};
use crate::base::{clock, secret::Secret};

pub use login::{Login, LoginFault};

/// The longest auth file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// Codex truncates the file and writes it anew in place: a reader in between waits this long and reads again.
const HALF_WRITTEN: Duration = Duration::from_millis(50);
/// How often it does so before the file counts as broken.
const ATTEMPTS: usize = 5;

/// Where the login comes from. A configured account id wins over the one that comes with the token.
#[derive(Debug, Clone)]
pub enum Source {
    /// Nowhere: the upstream asks for none.
    None,
    /// A token given by hand, with or without `Bearer ` before it.
    Bearer {
        /// The token.
        token: Secret<String>,
        /// `ChatGPT-Account-Id`.
        account: Option<String>,
    },
    /// Codex's `auth.json`.
    File {
        /// Its path.
        path: PathBuf,
        /// `ChatGPT-Account-Id`.
        account: Option<String>,
    },
}

impl Source {
    /// Whether both are the same file, read in the same way.
    fn is_file_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File { path, account }, Self::File { path: other, account: another }) => {
                (path, account) == (other, another)
            }
            _ => false,
        }
    }
}

/// The login in use. A request takes [`Credential::current`] once, at its start, and keeps it.
pub struct Credential {
    source: Source,
    state: ArcSwap<State>,
    /// How many logins there have been.
    generations: Arc<AtomicU64>,
    /// One read at a time; those who wait for it take its result.
    turn: Mutex<()>,
    reads: AtomicU64,
    warned_of_mode: AtomicBool,
}

/// The last good login, and what is wrong with the file now.
#[derive(Debug, Clone, Default)]
struct State {
    login: Option<Arc<Login>>,
    fault: Option<LoginFault>,
}

impl Credential {
    /// Reads the login once. A fault is logged, and told by [`Credential::current`] until the login is there.
    pub fn new(source: Source) -> Self {
        let first = read(&source);
        Self::begin(source, first, State::default(), Arc::default())
    }

    /// The one that takes this one's place, which does not change: reads its login once. The same login is of the same
    /// generation, another one of one that there has not been. A file at fault leaves the login in use that was last read
    /// from it.
    pub fn succeeded_by(&self, source: Source) -> Self {
        let first = read(&source);
        let before = if first.is_ok() || self.source.is_file_of(&source) {
            State::clone(&self.state.load())
        } else {
            State::default()
        };
        Self::begin(source, first, before, Arc::clone(&self.generations))
    }

    fn begin(
        source: Source,
        first: Result<Login, LoginFault>,
        before: State,
        generations: Arc<AtomicU64>,
    ) -> Self {
        let credential = Self {
            source,
            state: ArcSwap::from_pointee(before),
            generations,
            turn: Mutex::default(),
            reads: AtomicU64::new(0),
            warned_of_mode: AtomicBool::new(false),
        };
        credential.apply(first);
        credential
    }

    /// The login to send, if it can be good. Never touches the file.
    ///
    /// # Errors
    /// [`LoginFault::Expired`], or why there has been no login since the start.
    pub fn current(&self) -> Result<Arc<Login>, LoginFault> {
        let state = self.state.load();
        match &state.login {
            Some(login) if login.expires.is_some_and(|at| at <= clock::now()) => Err(LoginFault::Expired),
            Some(login) => Ok(Arc::clone(login)),
            None => Err(state.fault.clone().unwrap_or(LoginFault::Missing)),
        }
    }

    /// When the token ends, if it says so.
    pub fn expires(&self) -> Option<SystemTime> {
        self.state.load().login.as_ref().and_then(|login| login.expires)
    }

    /// What is wrong with the source now, though an earlier login may still be in use.
    pub fn fault(&self) -> Option<LoginFault> {
        self.state.load().fault.clone()
    }

    /// Reads the file again after the upstream refused generation `seen`, and says whether the login is another one
    /// now. Many callers at once cause one read.
    pub async fn reread(&self, seen: u64) -> bool {
        self.load().await;
        self.state.load().login.as_ref().is_some_and(|login| login.generation != seen)
    }

    /// Follows the file until the returned value is dropped. Must be called within a Tokio runtime.
    pub fn watch(self: &Arc<Self>) -> Watching {
        let Source::File { path, .. } = &self.source else { return Watching::nothing() };
        let this = Arc::clone(self);
        Watching::start(path.clone(), move || {
            let this = Arc::clone(&this);
            async move {
                this.load().await;
                this.state.load().fault.is_none()
            }
        })
    }

    /// Brings the state up to date with the file: by reading it, or by waiting for a read that is under way.
    async fn load(&self) {
        let before = self.reads.load(Ordering::Acquire);
        let _turn = self.turn.lock().await;
        if self.reads.load(Ordering::Acquire) != before {
            return;
        }
        let found = self.read_until_whole().await;
        self.apply(found);
        self.reads.fetch_add(1, Ordering::Release);
    }

    async fn read_until_whole(&self) -> Result<Login, LoginFault> {
        for _ in 1..ATTEMPTS {
            match self.read_aside().await {
                Err(fault) if fault.may_be_half_written() => tokio::time::sleep(HALF_WRITTEN).await,
                found => return found,
            }
        }
        self.read_aside().await
    }

    /// Reads on a thread that may block.
    async fn read_aside(&self) -> Result<Login, LoginFault> {
        let source = self.source.clone();
        match tokio::task::spawn_blocking(move || read(&source)).await {
            Ok(found) => found,
            Err(_) => Err(LoginFault::Unreadable(io::ErrorKind::Interrupted)),
        }
    }

    /// Takes over a new login; keeps the last good one otherwise. Each news is told once.
    fn apply(&self, found: Result<Login, LoginFault>) {
        let old = self.state.load_full();
        let new = match found {
            Ok(login) => State { login: Some(self.adopt(login, old.login.as_ref())), fault: None },
            Err(fault) => State { login: old.login.clone(), fault: Some(fault) },
        };
        match &new.fault {
            Some(fault) if old.fault.as_ref() != Some(fault) => {
                let kept = new.login.is_some();
                tracing::warn!(key = "codex.auth_file", %fault, last_login_kept = kept, "no login can be read");
            }
            None if old.fault.is_some() => {
                tracing::info!(key = "codex.auth_file", "the login can be read again")
            }
            _ => {}
        }
        if let (Some(old), Some(new)) = (&old.login, &new.login)
            && old.generation != new.generation
        {
            tracing::info!(key = "codex.auth_file", generation = new.generation, "a new login is in use");
        }
        if let Source::File { path, .. } = &self.source {
            self.warn_of_mode(path);
        }
        self.state.store(Arc::new(new));
    }

    /// The old login when nothing has changed, else the new one under the next generation.
    fn adopt(&self, new: Login, old: Option<&Arc<Login>>) -> Arc<Login> {
        match old {
            Some(old) if old.same_as(&new) => Arc::clone(old),
            _ => {
                let generation = self.generations.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                Arc::new(Login { generation, ..new })
            }
        }
    }

    fn warn_of_mode(&self, path: &Path) {
        let open = file::open_to_others(path);
        if open && !self.warned_of_mode.load(Ordering::Relaxed) {
            tracing::warn!(key = "codex.auth_file", "others can read the login file: set its mode to 0600");
        }
        self.warned_of_mode.store(open, Ordering::Relaxed);
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("source", &self.source).field("state", &self.state.load()).finish()
    }
}

fn read(source: &Source) -> Result<Login, LoginFault> {
    match source {
        Source::None => Ok(Login::none()),
        Source::Bearer { token, account } => Login::new(token, account.as_deref()),
        Source::File { path, account } => {
            let text = Zeroizing::new(file::read(path, MAX_BYTES)?);
            auth_file::login(&text, account.as_deref())
        }
    }
}
