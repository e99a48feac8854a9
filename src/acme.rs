//! Certificates by themselves (RFC 8555): ordered, renewed and kept, off the path of any handshake. Nothing that fails
//! here changes what is served.
//!
//! The loop asks [`due`] what to do, does it, publishes to `tls`, and sleeps. Time, chance and the way to the CA come
//! in as a [`World`].

mod account;
pub mod challenge;
pub mod due;
pub mod failure;
mod order;
mod site;
pub mod store;
pub mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::base::{clock, random};
use crate::config::{AcmeSettings, Identifier};
use crate::tls::{CertificateSource, Certificates};

pub use challenge::Challenges;
pub use wire::{Https, Transport};

use site::{Memory, Site};

/// At most so many orders within [`THROTTLE`]: a CA that is asked more often is asked wrongly.
const MOST_ORDERS: usize = 10;
const THROTTLE: Duration = Duration::from_secs(10);
/// How long after a panic the loop is started again, in seconds: doubled each time, an hour at most.
const RESTART: u64 = 60;

/// The time of day, Unix seconds.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// Now.
    fn now(&self) -> u64;

    /// Returns when it is that time, or a little later, however the clock gets there; and when the clock has been set
    /// back, since the time to wait for was reckoned by the other one.
    async fn sleep_until(&self, at: u64);
}

/// The system's clock. A step of it, or that the machine was suspended, is noticed within a minute.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> u64 {
        clock::unix()
    }

    async fn sleep_until(&self, at: u64) {
        let mut before = 0;
        loop {
            let now = clock::unix();
            if now >= at || now < before {
                return;
            }
            before = now;
            tokio::time::sleep(Duration::from_secs(at.saturating_sub(now).min(60))).await;
        }
    }
}

/// What the loop cannot do without and a test brings along itself.
#[derive(Clone)]
pub struct World {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// A fraction from 0 to 1, a new one each time.
    pub chance: Arc<dyn Fn() -> f64 + Send + Sync>,
    /// The way to the CA.
    pub transport: Arc<dyn Transport>,
}

impl World {
    /// The real one.
    ///
    /// # Errors
    /// Never with the TLS provider that is built in.
    pub fn real(settings: &AcmeSettings) -> Result<Self, rustls::Error> {
        let transport = Https::new(&settings.ca_root)?;
        Ok(Self { clock: Arc::new(SystemClock), chance: Arc::new(fraction), transport: Arc::new(transport) })
    }
}

/// How it stands with one set of names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AcmeStatus {
    /// The names.
    pub names: Vec<String>,
    /// Who signed the certificate that is served; `None` when there is none.
    pub issuer: Option<String>,
    /// The first second that it is no longer good, Unix time.
    pub not_after: Option<u64>,
    /// When the next order is planned, Unix time.
    pub next_renewal: u64,
    /// Why the last attempt failed; `None` after a success.
    pub last_error: Option<String>,
    /// Failed attempts since the last success, and the one under way.
    pub fails: u32,
    /// Whether the CA has refused these settings for good: change them. Until then it is asked once a day.
    pub stopped: bool,
    /// Whether the certificate is in memory alone, because the disk fails.
    pub unsaved: bool,
}

/// The running loop; dropping it ends it.
pub struct Acme {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

/// What the loop, its restarts and its watchers share.
struct Shared {
    settings: AcmeSettings,
    /// Stands for the settings that an order depends on.
    settings_mark: String,
    certificates: Arc<Certificates>,
    challenges: Arc<Challenges>,
    world: World,
    board: Mutex<BTreeMap<Vec<Identifier>, Memory>>,
    throttle: Throttle,
    panics: AtomicU64,
}

impl Acme {
    /// Publishes what is stored, expired or not, and starts the loop. Must be called within a Tokio runtime, once the
    /// ports are bound where challenges are answered.
    pub fn start(
        settings: AcmeSettings,
        certificates: Arc<Certificates>,
        challenges: Arc<Challenges>,
        world: World,
    ) -> Self {
        let shared = Arc::new(Shared {
            settings_mark: settings_mark(&settings),
            settings,
            certificates,
            challenges,
            world,
            board: Mutex::default(),
            throttle: Throttle::default(),
            panics: AtomicU64::new(0),
        });
        let all = Site::load(&shared, shared.settings.domains.clone());
        if let Some(names) = all.rest() {
            Site::load(&shared, names);
        }
        if shared.certificates.is_empty() {
            tracing::warn!(names = ?all.names(), "no certificate yet: HTTPS is refused until one has come");
        }
        let task = tokio::spawn(supervise(Arc::clone(&shared)));
        Self { shared, task }
    }

    /// How it stands with each set of names: all of them, and where a name keeps the others from being certified, the
    /// rest too.
    pub fn status(&self) -> Vec<AcmeStatus> {
        self.shared.board.lock().values().map(|memory| memory.status.clone()).collect()
    }

    /// Why HTTPS is of no use now: no certificate that is good. `None` when there is one.
    pub fn problem(&self) -> Option<String> {
        let now = self.shared.world.clock.now();
        let board = self.shared.board.lock();
        let mut served = board.values().filter_map(|memory| memory.served.as_deref());
        if served.any(|held| held.pair.is_valid_at(now)) {
            return None;
        }
        let expired = board.values().any(|memory| memory.served.is_some());
        let why = board.values().find_map(|memory| memory.status.last_error.as_deref());
        let what = if expired { "the certificate has expired" } else { "there is no certificate yet" };
        Some(why.map_or_else(|| what.to_owned(), |why| format!("{what}: {why}")))
    }

    /// How often the loop has panicked and been started again.
    pub fn panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }

    /// Ends the loop, in the middle of an order if need be: challenges and locks are released, what is served stays.
    /// Called when this process is to end and another may take over.
    pub fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Acme {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Acme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.status()).finish()
    }
}

impl Shared {
    /// Puts one set of names on the board and publishes the lot: good ones first, those that last longest first.
    fn put(&self, names: &[Identifier], memory: Memory) {
        let mut board = self.board.lock();
        let old = board.insert(names.to_vec(), memory);
        let served =
            |memory: Option<&Memory>| memory.and_then(|memory| memory.served.as_ref().map(Arc::as_ptr));
        if served(old.as_ref()) != served(board.get(names)) {
            self.publish(&board);
        }
    }

    /// Takes all other sets of names off the board.
    fn withdraw_all_but(&self, names: &[Identifier]) {
        let mut board = self.board.lock();
        let before = board.len();
        board.retain(|other, _| other == names);
        if board.len() < before {
            self.publish(&board);
        }
    }

    fn publish(&self, board: &BTreeMap<Vec<Identifier>, Memory>) {
        let mut pairs: Vec<_> =
            board.values().filter_map(|memory| Some(memory.served.as_ref()?.pair.clone())).collect();
        pairs.sort_by_key(|pair| std::cmp::Reverse(pair.not_after()));
        self.certificates.publish(CertificateSource::Acme, pairs);
    }
}

/// Runs the loop, and again when it panics: what it knew is on the board and on disk, and a panic in the middle of an
/// attempt counts as a failed one.
async fn supervise(shared: Arc<Shared>) {
    let mut wait = RESTART;
    loop {
        let mut task = JoinSet::new();
        task.spawn(run(Arc::clone(&shared)));
        match task.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                let panics = shared.panics.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                tracing::error!(panics, seconds = wait, "the renewal loop has panicked and is started again");
            }
            _ => return,
        }
        shared.world.clock.sleep_until(shared.world.clock.now().saturating_add(wait)).await;
        wait = wait.saturating_mul(2).min(due::HOUR);
    }
}

/// All names in one certificate; where some of them cannot be proved and nothing good is left, the rest in another one
/// meanwhile. One order at a time.
async fn run(shared: Arc<Shared>) {
    let mut all = Site::load(&shared, shared.settings.domains.clone());
    let mut rest: Option<Site> = None;
    loop {
        let mut until = all.step().await;
        rest = match all.rest() {
            Some(names) => {
                rest.filter(|site| site.names() == names).or_else(|| Some(Site::load(&shared, names)))
            }
            None => {
                shared.withdraw_all_but(all.names());
                None
            }
        };
        if let Some(site) = &mut rest {
            until = until.min(site.step().await);
        }
        shared.world.clock.sleep_until(until).await;
    }
}

/// Orders of the last seconds.
#[derive(Default)]
struct Throttle(tokio::sync::Mutex<VecDeque<Instant>>);

impl Throttle {
    /// Waits until one more order is within bounds.
    async fn turn(&self) {
        let mut orders = self.0.lock().await;
        if orders.len() >= MOST_ORDERS
            && let Some(first) = orders.pop_front()
        {
            tokio::time::sleep_until(first + THROTTLE).await;
        }
        orders.push_back(Instant::now());
    }
}

/// Stands for all in the settings that can make a CA refuse an order, and for the version of this program.
fn settings_mark(settings: &AcmeSettings) -> String {
    let mut texts: Vec<String> = vec![env!("CARGO_PKG_VERSION").to_owned()];
    texts.push(settings.directory.as_str().to_owned());
    texts.extend(settings.domains.iter().map(ToString::to_string));
    texts.extend(settings.challenges.iter().map(|way| way.name().to_owned()));
    texts.extend(settings.contact.iter().cloned());
    texts.push(settings.profile.clone().unwrap_or_default());
    texts.push(settings.eab.as_ref().map(|eab| eab.key_id.clone()).unwrap_or_default());
    store::fingerprint(&texts)
}

/// A fraction from the system's randomness.
fn fraction() -> f64 {
    let word = u32::from_be_bytes(random::fill());
    f64::from(word) / f64::from(u32::MAX)
}
