//! One set of names and its certificate: asks `due`, acts, publishes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::CertificateIdentifier;
use rustls::pki_types::Der;
use tokio::time::timeout;

use super::due::{Action, DAY, HOUR, Life, Renewal, Setback, due, jitter};
use super::failure::{Class, Failure, Fix};
use super::order::{Wanted, issue};
use super::store::{Held, Lock, Store, fingerprint};
use super::{AcmeStatus, Shared, account};
use crate::config::{DirectoryUrl, Identifier};
use crate::tls::Keypair;

/// How long after another process was found at work on an order it is looked at again, in seconds.
const BESIDE: u64 = 2;
/// When a state folder that cannot be written to is tried again, in seconds.
const DISK_AGAIN: u64 = 600;
/// A certificate that begins this much later than now may still be the fault of a clock that is a little off.
const SKEW: u64 = 300;
/// The longest an attempt may take, and what each name may add.
const ATTEMPT: Duration = Duration::from_secs(600);
const ATTEMPT_NAME: Duration = Duration::from_secs(90);

/// One set of names.
pub(super) struct Site {
    shared: Arc<Shared>,
    names: Vec<Identifier>,
    store: Store,
    /// The certificate that came last.
    newest: Option<Arc<Held>>,
    /// The one that is served: another one only while `newest` is not good yet.
    served: Option<Arc<Held>>,
    /// Whether `newest` is in memory alone.
    unsaved: bool,
    renewal: Renewal,
}

/// What outlives a panic of the task, and is served when the disk fails.
#[derive(Clone)]
pub(super) struct Memory {
    newest: Option<Arc<Held>>,
    pub(super) served: Option<Arc<Held>>,
    unsaved: bool,
    renewal: Renewal,
    pub(super) status: AcmeStatus,
}

impl Site {
    /// Takes up what is in memory or on disk, and publishes it, expired or not.
    pub(super) fn load(shared: &Arc<Shared>, names: Vec<Identifier>) -> Self {
        let store = Store::new(&shared.settings.state, &shared.settings.directory, &names);
        let remembered = shared.board.lock().get(&names).cloned();
        let (newest, served, unsaved, renewal) = match remembered {
            Some(memory) => (memory.newest, memory.served, memory.unsaved, memory.renewal),
            None => {
                let newest = store.certificate().map(Arc::new);
                let renewal = schedule(&store, newest.is_none()).unwrap_or_default();
                (newest.clone(), newest, false, renewal)
            }
        };
        let mut site = Self { shared: Arc::clone(shared), names, store, newest, served, unsaved, renewal };
        site.renewal.resume_with(&shared.settings_mark);
        site.show();
        site
    }

    /// The names without those that keep the others from being certified; `None` while there is a certificate that
    /// lasts, or nothing to gain.
    pub(super) fn rest(&self) -> Option<Vec<Identifier>> {
        let lasts = |life: Life| life.holds(self.now()) && self.now() < life.emergency();
        if self.renewal.blamed.is_empty() || self.served.as_deref().map(life).is_some_and(lasts) {
            return None;
        }
        let blamed =
            |name: &&Identifier| self.renewal.blamed.iter().any(|blamed| *blamed == name.to_string());
        let rest: Vec<_> = self.names.iter().filter(|name| !blamed(name)).cloned().collect();
        (!rest.is_empty() && rest.len() < self.names.len()).then_some(rest)
    }

    pub(super) fn names(&self) -> &[Identifier] {
        &self.names
    }

    /// Does what is due, and says when to come back.
    pub(super) async fn step(&mut self) -> u64 {
        loop {
            let now = self.now();
            let busy = self.look_beside(now).await;
            self.catch_up(now).await;
            let mark = self.newest.as_deref().map(|held| (mark(&held.pair), life(held)));
            let held = mark.as_ref().map(|(mark, life)| (mark.as_str(), *life));
            if self.renewal.settle(held, now, self.chance()) {
                self.remember().await;
            }
            self.show();
            match due(self.life(), &self.renewal, now) {
                Action::Sleep(until) | Action::Stop(until) => {
                    let until = self.wake(until, now);
                    return busy.map_or(until, |busy| busy.min(until));
                }
                Action::FetchAri => self.ask(now).await,
                Action::Order { rehearse } => self.order(rehearse).await,
            }
        }
    }

    /// Sees to an attempt that another process may have begun before this one read the schedule: takes up what has come
    /// of it, or says when to look again.
    async fn look_beside(&mut self, now: u64) -> Option<u64> {
        if self.renewal.fails == 0 {
            return None;
        }
        match self.store.try_lock() {
            Ok(Some(_lock)) => {
                let _ = self.adopt().await;
                None
            }
            Ok(None) => Some(now.saturating_add(BESIDE)),
            Err(_) => None,
        }
    }

    /// Serves the newest certificate as soon as it is good, and saves what could not be saved.
    async fn catch_up(&mut self, now: u64) {
        if let Some(newest) = &self.newest {
            let wait =
                life(newest).from > now && self.served.as_deref().is_some_and(|held| life(held).holds(now));
            if !wait {
                self.served = Some(Arc::clone(newest));
            }
        }
        if self.unsaved && self.save().await.is_ok() {
            self.unsaved = false;
            tracing::info!("the certificate is saved now");
        }
    }

    fn wake(&self, until: u64, now: u64) -> u64 {
        let good = self.newest.as_deref().map(|held| life(held).from).filter(|from| *from > now);
        let save = self.unsaved.then(|| now.saturating_add(DISK_AGAIN));
        [Some(until), good, save].into_iter().flatten().min().unwrap_or(until)
    }

    /// One attempt, from the proof that its outcome can be kept to the outcome.
    async fn order(&mut self, rehearse: bool) {
        let lock = match self.prepare().await {
            Ok(Some(lock)) => lock,
            Ok(None) => return,
            Err(error) => {
                let failure = Failure::Storage(error.to_string());
                tracing::error!(%failure, "certificate");
                self.renewal.last_error = Some(failure.to_string());
                self.renewal.next = self.now().saturating_add(jitter(DISK_AGAIN, self.chance()));
                return;
            }
        };
        self.renewal.begin(self.life(), self.now(), self.chance());
        self.remember().await;
        self.show();
        let names = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let limit = ATTEMPT.saturating_add(ATTEMPT_NAME.saturating_mul(names));
        let outcome = match timeout(limit, self.attempt(rehearse)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Unreached(format!("the order took longer than {} s", limit.as_secs()))),
        };
        match outcome {
            Ok(held) => self.arrived(held).await,
            Err(failure) => self.set_back(&failure).await,
        }
        drop(lock);
    }

    /// Proves the storage, waits for the turn, and looks whether another process has done the work meanwhile.
    async fn prepare(&mut self) -> io::Result<Option<Lock>> {
        self.on_disk(|store| store.probe()).await?;
        let lock = self.store.lock().await?;
        if self.adopt().await? {
            return Ok(None);
        }
        let still = matches!(due(self.life(), &self.renewal, self.now()), Action::Order { .. });
        Ok(still.then_some(lock))
    }

    /// Takes up what another process has left on disk. Whether it is a certificate. The lock must be held.
    async fn adopt(&mut self) -> io::Result<bool> {
        let none = self.newest.is_none();
        let kept = self.on_disk(move |store| {
            let certificate = store.certificate();
            let renewal = schedule(store, none && certificate.is_none());
            Ok((certificate, renewal))
        });
        let (certificate, renewal) = kept.await?;
        let ours = self.newest.as_deref().map_or(0, |held| held.pair.not_after());
        if let Some(held) = certificate.filter(|held| held.pair.not_after() > ours && !self.unsaved) {
            tracing::info!("another process has renewed the certificate");
            self.newest = Some(Arc::new(held));
            self.renewal = renewal.unwrap_or_default();
            return Ok(true);
        }
        // Of one attempt, its outcome is later than its beginning.
        let later = |theirs: &Renewal| (theirs.tried, theirs.next) > (self.renewal.tried, self.renewal.next);
        if let Some(renewal) = renewal.filter(later) {
            self.renewal = renewal;
            self.renewal.resume_with(&self.shared.settings_mark);
        }
        Ok(false)
    }

    async fn attempt(&mut self, rehearse: bool) -> Result<Held, Failure> {
        let directory = self.shared.settings.directory.clone();
        if let Some(staging) = directory.staging().filter(|_| rehearse) {
            let store = Store::new(&self.shared.settings.state, &staging, &self.names);
            match self.issue(&staging, &store, None).await {
                // Never kept, never served.
                Ok(_) => tracing::info!("the rehearsal went well"),
                Err(failure) if failure.is_about_the_order() => {
                    return Err(Failure::Rehearsal(Box::new(failure)));
                }
                Err(failure) => tracing::warn!(%failure, "no rehearsal"),
            }
        }
        let replaces = self.newest.as_deref().and_then(|held| ari_id(&held.pair));
        let replaces = replaces.filter(|id| self.renewal.replaced.as_deref() != Some(&id.to_string()));
        let store = self.store.clone();
        match self.issue(&directory, &store, replaces.as_ref()).await {
            Err(failure) if failure.class() == Class::FixNow(Fix::WithoutReplaces) => {
                tracing::warn!(%failure, "ordering without");
                self.renewal.replaced = replaces.map(|id| id.to_string());
                self.issue(&directory, &store, None).await
            }
            outcome => outcome,
        }
    }

    /// One issuance at one CA; with a new account if the CA does not know the old one.
    async fn issue(
        &self,
        directory: &DirectoryUrl,
        store: &Store,
        replaces: Option<&CertificateIdentifier<'static>>,
    ) -> Result<Held, Failure> {
        let settings = &self.shared.settings;
        // A way that has failed may be closed: each attempt begins with the next one.
        let mut ways = settings.challenges.clone();
        let turn = usize::try_from(self.renewal.fails.saturating_sub(1)).unwrap_or(0);
        let turn = turn.checked_rem(ways.len()).unwrap_or(0);
        ways.rotate_left(turn);
        let profile = settings.profile.as_deref();
        let wanted = Wanted { names: &self.names, profile, replaces, ways: &ways };
        let transport = &self.shared.world.transport;
        let open = || account::open(settings, directory, store, transport);

        let account = open().await?;
        self.shared.throttle.turn().await;
        let outcome = issue(&account, &wanted, &self.shared.challenges).await;
        let outcome = match outcome {
            Err(failure) if failure.class() == Class::FixNow(Fix::NewAccount) => {
                tracing::warn!(%failure, "making a new account");
                store
                    .set_account_aside(account.id(), self.now())
                    .map_err(|error| Failure::Storage(error.to_string()))?;
                let account = open().await?;
                self.shared.throttle.turn().await;
                issue(&account, &wanted, &self.shared.challenges).await
            }
            outcome => outcome,
        };
        let held = Held::from_pem(outcome?).map_err(|fault| Failure::Unusable(fault.to_string()))?;
        self.store.check(&held).map_err(Failure::Unusable)?;
        Ok(held)
    }

    async fn arrived(&mut self, held: Held) {
        let (now, life) = (self.now(), life(&held));
        if life.from > now.saturating_add(SKEW) {
            tracing::error!(
                begins = life.from,
                now,
                "the new certificate is not good yet: is the clock right?"
            );
        }
        if now >= life.window(0.0).start {
            tracing::error!(ends = life.until, now, "the new certificate is an old one: is the clock right?");
        }
        self.newest = Some(Arc::new(held));
        self.renewal.succeeded(life, now);
        // Served even when it cannot be saved.
        self.unsaved = self.save().await.is_err();
        self.catch_up(now).await;
        tracing::info!(names = ?self.status().names, until = life.until, "a new certificate");
        let pruned = self.on_disk(move |store| {
            store.prune(now);
            Ok(())
        });
        let _ = pruned.await;
    }

    async fn set_back(&mut self, failure: &Failure) {
        let class = failure.class();
        let retry_after = match class {
            Class::Later { retry_after } => retry_after,
            Class::Final | Class::FixNow(_) => None,
        };
        let can_rehearse = self.shared.settings.directory.staging().is_some();
        let setback = Setback {
            error: failure.to_string(),
            retry_after,
            stopped: (class == Class::Final).then(|| self.shared.settings_mark.clone()),
            blamed: failure.blamed(),
            rehearse: can_rehearse && failure.is_about_the_order(),
        };
        self.renewal.failed(setback, self.life(), self.now(), self.chance());
        let (fails, next) = (self.renewal.fails, self.renewal.next);
        tracing::error!(names = ?self.status().names, %failure, fails, next, "no new certificate");
        self.remember().await;
    }

    /// Asks when the CA would like the certificate renewed, unless somebody is busy with it.
    async fn ask(&mut self, now: u64) {
        let Some(newest) = self.newest.clone() else { return };
        let lock = self.store.try_lock();
        if matches!(lock, Ok(None)) {
            self.renewal.ari_at = now.saturating_add(SKEW);
            return;
        }
        let chance = self.chance();
        match self.renewal_info(&newest.pair).await {
            Ok(Some((window, retry_after))) => {
                self.renewal.suggest(life(&newest), window, retry_after, now, chance);
            }
            Ok(None) => self.renewal.no_suggestion(DAY, now, chance),
            Err(failure) => {
                tracing::debug!(%failure, "renewal information");
                let retry_after = match failure.class() {
                    Class::Later { retry_after } => retry_after,
                    Class::Final | Class::FixNow(_) => Some(DAY),
                };
                self.renewal.no_suggestion(retry_after.unwrap_or(HOUR), now, chance);
            }
        }
        self.remember().await;
    }

    /// The window and when to ask again; `None` where there is nothing to ask, or nobody.
    async fn renewal_info(&self, pair: &Keypair) -> Result<Option<((u64, u64), u64)>, Failure> {
        let Some(id) = ari_id(pair) else { return Ok(None) };
        let account = account::nobody(&self.shared.settings.directory, &self.shared.world.transport).await?;
        match account.renewal_info(&id).await {
            Ok((info, again)) => {
                let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
                let window = info.suggested_window;
                let window = (seconds(window.start.unix_timestamp()), seconds(window.end.unix_timestamp()));
                Ok(Some((window, again.as_secs())))
            }
            Err(instant_acme::Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn save(&self) -> io::Result<()> {
        let Some(newest) = self.newest.clone() else { return Ok(()) };
        let renewal = self.renewal.clone();
        let kept = self.on_disk(move |store| {
            store.keep_certificate(&newest.pem)?;
            store.keep_renewal(&renewal)
        });
        kept.await.inspect_err(|error| tracing::error!(%error, "the certificate is in memory alone"))
    }

    /// Puts the schedule on disk. In memory it holds either way.
    async fn remember(&self) {
        let renewal = self.renewal.clone();
        if let Err(error) = self.on_disk(move |store| store.keep_renewal(&renewal)).await {
            tracing::warn!(%error, "the renewal schedule is in memory alone");
        }
    }

    /// Files on a thread that may block.
    async fn on_disk<T: Send + 'static>(
        &self,
        task: impl FnOnce(&Store) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || task(&store)).await.map_err(io::Error::other)?
    }

    /// Publishes and reports as things stand.
    fn show(&mut self) {
        let memory = Memory {
            newest: self.newest.clone(),
            served: self.served.clone(),
            unsaved: self.unsaved,
            renewal: self.renewal.clone(),
            status: self.status(),
        };
        self.shared.put(&self.names, memory);
    }

    fn status(&self) -> AcmeStatus {
        let now = self.now();
        let served = self.served.as_deref().map(|held| &held.pair);
        let next = match due(self.life(), &self.renewal, now) {
            Action::Order { .. } => now,
            _ => {
                let planned =
                    self.renewal.window.filter(|_| self.newest.is_some()).map(|window| window.point);
                let planned = planned.zip(self.life()).map(|(point, life)| point.min(life.emergency()));
                planned.unwrap_or(0).max(self.renewal.next)
            }
        };
        AcmeStatus {
            names: self.names.iter().map(ToString::to_string).collect(),
            issuer: served.map(|pair| pair.issuer().to_owned()),
            not_after: served.map(Keypair::not_after),
            next_renewal: next,
            last_error: self.renewal.last_error.clone(),
            fails: self.renewal.fails,
            stopped: self.renewal.stopped.is_some(),
            unsaved: self.unsaved,
        }
    }

    fn life(&self) -> Option<Life> {
        self.newest.as_deref().map(life)
    }

    fn now(&self) -> u64 {
        self.shared.world.clock.now()
    }

    fn chance(&self) -> f64 {
        (self.shared.world.chance)()
    }
}

/// What is kept of the schedule. `lost`: there is no certificate.
fn schedule(store: &Store, lost: bool) -> Option<Renewal> {
    let mut renewal = store.renewal()?;
    if lost {
        renewal.lost();
    }
    Some(renewal)
}

/// From when until when it is good.
fn life(held: &Held) -> Life {
    Life { from: held.pair.not_before(), until: held.pair.not_after() }
}

/// What renewal information calls it (RFC 9773 section 4.1). A certificate that does not name its issuer's key has no
/// such name.
fn ari_id(pair: &Keypair) -> Option<CertificateIdentifier<'static>> {
    let authority = Der::from_slice(pair.authority_key_id()?);
    Some(CertificateIdentifier::new(authority, Der::from_slice(pair.serial())).into_owned())
}

/// What tells it from any other.
fn mark(pair: &Keypair) -> String {
    match ari_id(pair) {
        Some(id) => id.to_string(),
        None => fingerprint(&pair.chain().iter().take(1).collect::<Vec<_>>()),
    }
}
