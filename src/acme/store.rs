//! What is kept on disk, below `acme.state`:
//!
//! ```text
//! {CA}/account.json            key, and the account's URL once the CA has given it
//! {CA}/lock                    held while the account is made
//! {CA}/{names}/certificate.pem key and chain in one file, so that no crash can part them
//! {CA}/{names}/renewal.json    the schedule
//! {CA}/{names}/lock            held while a certificate is ordered
//! ```
//!
//! Folders are 0700, files 0600, every write atomic. A file that is empty, torn or not what it should be counts as
//! absent. Locks are the system's (flock): they end with the process that holds them.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::due::{DAY, Renewal};
use crate::base::secret::Secret;
use crate::base::{file, random};
use crate::config::{DirectoryUrl, Identifier};
use crate::tls::{Keypair, Name};

/// The longest file that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;
/// What is written and read back before anything is ordered, in bytes.
const PROBE: usize = 10 * 1024;
/// Certificates of names no longer asked for are removed this long after they have expired.
const GRACE: u64 = 30 * DAY;
/// How often a taken lock is tried again.
const LOCK_POLL: Duration = Duration::from_secs(1);

const ACCOUNT: &str = "account.json";
const CERTIFICATE: &str = "certificate.pem";
const RENEWAL: &str = "renewal.json";
const LOCK: &str = "lock";

/// The folder of one CA and one set of names.
#[derive(Debug, Clone)]
pub struct Store {
    ca: PathBuf,
    names: PathBuf,
    covers: Vec<Name>,
}

/// A certificate with the text it is kept as.
pub struct Held {
    /// As it is served.
    pub pair: Keypair,
    /// Key and chain.
    pub pem: Zeroizing<String>,
}

/// An account at a CA. The key is on disk before the CA hears of it, so that an account is never made twice.
#[derive(Serialize, Deserialize)]
pub struct Account {
    /// PKCS #8.
    #[serde(with = "base64url")]
    pub key: Secret<Vec<u8>>,
    /// The account's URL; `None` until the CA has given it.
    pub id: Option<String>,
    /// What the CA knows as contacts.
    #[serde(default)]
    pub contact: Vec<String>,
}

/// A lock that is held; dropping it, or the end of the process, releases it.
#[derive(Debug)]
#[must_use]
pub struct Lock(#[expect(dead_code, reason = "held for its flock")] File);

impl Store {
    /// The place for these names at this CA. Touches nothing.
    pub fn new(state: &Path, directory: &DirectoryUrl, names: &[Identifier]) -> Self {
        let ca = state.join(ca_folder(directory.as_str()));
        let covers = names.iter().map(name).collect();
        Self { names: ca.join(names_folder(names)), ca, covers }
    }

    /// Proves that what will come can be kept: makes the folders and writes, reads back and removes a probe.
    ///
    /// # Errors
    /// Whatever the system says. Nothing may be ordered then.
    pub fn probe(&self) -> io::Result<()> {
        self.make_folders()?;
        let path = self.names.join(format!(".probe-{}", random::hex::<8>()));
        let content = random::hex::<32>().repeat(PROBE / 64);
        let outcome = file::replace(&path, content.as_bytes()).and_then(|()| file::read(&path, MAX_BYTES));
        let removed = fs::remove_file(&path);
        if outcome? != content.as_bytes() {
            return Err(io::Error::other("what was written is not what is read"));
        }
        removed
    }

    /// The certificate, if there is one that is whole, has its key, and is for all the names. Expired ones count.
    pub fn certificate(&self) -> Option<Held> {
        let path = self.names.join(CERTIFICATE);
        let text = Zeroizing::new(String::from_utf8(read_private(&path)?).ok()?);
        let held = Held::from_pem(text).map_err(|why| why.to_string());
        let held = held.and_then(|held| held.check(&self.covers).map(|()| held));
        held.inspect_err(
            |why| tracing::warn!(path = %path.display(), %why, "stored certificate: counts as absent"),
        )
        .ok()
    }

    /// Keeps a certificate.
    ///
    /// # Errors
    /// Whatever the system says; what was kept before is untouched then.
    pub fn keep_certificate(&self, pem: &str) -> io::Result<()> {
        self.make_folders()?;
        file::replace(&self.names.join(CERTIFICATE), pem.as_bytes())
    }

    /// Whether a pair is for all the names.
    ///
    /// # Errors
    /// Says which name is missing.
    pub fn check(&self, held: &Held) -> Result<(), String> {
        held.check(&self.covers)
    }

    /// The schedule, if it can be read.
    pub fn renewal(&self) -> Option<Renewal> {
        read_json(&self.names.join(RENEWAL))
    }

    /// Keeps the schedule.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn keep_renewal(&self, renewal: &Renewal) -> io::Result<()> {
        self.make_folders()?;
        file::replace(&self.names.join(RENEWAL), &serde_json::to_vec_pretty(renewal)?)
    }

    /// The account at this CA, if there is one.
    pub fn account(&self) -> Option<Account> {
        read_json(&self.ca.join(ACCOUNT))
    }

    /// Keeps the account.
    ///
    /// # Errors
    /// Whatever the system says. An account that was not kept must not be made.
    pub fn keep_account(&self, account: &Account) -> io::Result<()> {
        self.make_folders()?;
        file::replace(&self.ca.join(ACCOUNT), &Zeroizing::new(serde_json::to_vec_pretty(account)?))
    }

    /// Sets the account aside, under another name, if it is still this one.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn set_account_aside(&self, id: &str, now: u64) -> io::Result<()> {
        if self.account().is_some_and(|account| account.id.as_deref() == Some(id)) {
            fs::rename(self.ca.join(ACCOUNT), self.ca.join(format!("account-{now}.json")))?;
        }
        Ok(())
    }

    /// Waits for the turn to order these names. Cancelling the wait leaves nothing behind.
    ///
    /// # Errors
    /// Whatever the system says.
    pub async fn lock(&self) -> io::Result<Lock> {
        lock(&self.names).await
    }

    /// The turn to order these names, if nobody has it.
    ///
    /// # Errors
    /// Whatever the system says.
    pub fn try_lock(&self) -> io::Result<Option<Lock>> {
        try_lock(&self.names)
    }

    /// Waits for the turn to make the account.
    ///
    /// # Errors
    /// Whatever the system says.
    pub async fn lock_account(&self) -> io::Result<Lock> {
        lock(&self.ca).await
    }

    /// Removes long expired certificates, keys and schedules of other names at this CA, those that nobody is busy with.
    pub fn prune(&self, now: u64) {
        let Ok(folders) = fs::read_dir(&self.ca) else { return };
        for folder in folders.flatten().map(|entry| entry.path()).filter(|path| *path != self.names) {
            let certificate = folder.join(CERTIFICATE);
            let old = || read_private(&certificate).and_then(|pem| Keypair::from_pem(&pem, &pem).ok());
            if old().is_none_or(|pair| pair.not_after().saturating_add(GRACE) >= now) {
                continue;
            }
            // The lock stays: whoever waits for it must not be left with a file that is none.
            if let Ok(Some(_lock)) = try_lock(&folder) {
                for path in [certificate.as_path(), &folder.join(RENEWAL)] {
                    let _ = fs::remove_file(path);
                }
                tracing::info!(folder = %folder.display(), "removed an expired certificate");
            }
        }
    }

    fn make_folders(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.names)?;
        for folder in [&self.ca, &self.names] {
            tighten(folder, 0o700);
        }
        Ok(())
    }
}

impl Held {
    /// Reads key and chain out of one text.
    ///
    /// # Errors
    /// [`crate::tls::KeypairFault`].
    pub fn from_pem(pem: Zeroizing<String>) -> Result<Self, crate::tls::KeypairFault> {
        Ok(Self { pair: Keypair::from_pem(pem.as_bytes(), pem.as_bytes())?, pem })
    }

    fn check(&self, names: &[Name]) -> Result<(), String> {
        match names.iter().find(|name| !self.pair.covers(name)) {
            Some(name) => Err(format!("it is not for {name}")),
            None => Ok(()),
        }
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.pair.fmt(f)
    }
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A configured name as certificates have it.
fn name(identifier: &Identifier) -> Name {
    match identifier {
        Identifier::Dns(name) => Name::Dns(name.clone()),
        Identifier::Ip(ip) => Name::Ip(*ip),
    }
}

/// One folder for each directory URL: staging and production never meet.
fn ca_folder(url: &str) -> String {
    let readable = url.strip_prefix("https://").unwrap_or(url);
    format!("{}-{}", escaped(readable), fingerprint(&[url]))
}

/// One folder for each set of names, in whatever order they are given.
fn names_folder(names: &[Identifier]) -> String {
    let mut names: Vec<_> = names.iter().map(ToString::to_string).collect();
    names.sort_unstable();
    names.dedup();
    let first = names.first().map(String::as_str).unwrap_or_default();
    let more = if names.len() > 1 { format!("+{}", names.len() - 1) } else { String::new() };
    format!("{}{more}-{}", escaped(first), fingerprint(&names))
}

/// No `/`, `:`, `*` or leading dot, and short enough for any file system.
fn escaped(text: &str) -> String {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    let text: String = text.chars().take(100).map(|c| if fine(c) { c } else { '_' }).collect();
    text.trim_matches(['.', '_']).to_owned()
}

/// Some hexadecimal digits that stand for these texts.
pub(super) fn fingerprint(texts: &[impl AsRef<[u8]>]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update(text.as_ref().len().to_be_bytes());
        hash.update(text.as_ref());
    }
    hex::encode(hash.finalize()).chars().take(12).collect()
}

/// Reads a file of ours and closes it to others. `None`: it is not there, or cannot be read, which is said.
fn read_private(path: &Path) -> Option<Vec<u8>> {
    match file::read(path, MAX_BYTES) {
        Ok(bytes) => {
            tighten(path, 0o600);
            Some(bytes)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot be read: counts as absent");
            None
        }
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    let bytes = Zeroizing::new(read_private(path)?);
    serde_json::from_slice(&bytes)
        // The text of the error may quote the file, and the file may hold a key.
        .map_err(
            |error| tracing::warn!(path = %path.display(), line = error.line(), "is torn: counts as absent"),
        )
        .ok()
}

/// Says loudly that others can get at it, and takes that away where it is ours. Serving goes on either way: on some
/// volumes modes cannot be set.
fn tighten(path: &Path, mode: u32) {
    if file::open_to_others(path) {
        let closed = fs::set_permissions(path, Permissions::from_mode(mode)).is_ok();
        tracing::warn!(path = %path.display(), closed, "was open to other users of this machine");
    }
}

async fn lock(folder: &Path) -> io::Result<Lock> {
    loop {
        if let Some(lock) = try_lock(folder)? {
            return Ok(lock);
        }
        // Asking again can be cancelled, waiting in the system could not.
        tokio::time::sleep(LOCK_POLL).await;
    }
}

fn try_lock(folder: &Path) -> io::Result<Option<Lock>> {
    use std::os::unix::fs::OpenOptionsExt;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let file = File::options().create(true).append(true).mode(0o600).open(folder.join(LOCK))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Lock(file))),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

mod base64url {
    use serde::{Deserializer, Serializer, de::Error};

    use super::*;

    pub(super) fn serialize<S: Serializer>(key: &Secret<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(URL_SAFE_NO_PAD.encode(key.expose())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Secret<Vec<u8>>, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = URL_SAFE_NO_PAD.decode(text.as_bytes());
        bytes.map(Secret::new).map_err(|_| D::Error::custom("the key is no base64url"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use tempfile::TempDir;

    use super::*;

    fn dns(name: &str) -> Identifier {
        Identifier::Dns(name.to_owned())
    }

    fn url(text: &str) -> DirectoryUrl {
        DirectoryUrl::parse(text).unwrap()
    }

    fn store(folder: &TempDir, names: &[&str]) -> Store {
        let names: Vec<_> = names.iter().copied().map(dns).collect();
        Store::new(folder.path(), &url("https://ca.example/dir"), &names)
    }

    fn pem(names: &[&str]) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 3, 1);
        key.serialize_pem() + &params.self_signed(&key).unwrap().pem()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn what_is_kept_comes_back_and_is_for_its_owner_alone() {
        let folder = TempDir::new().unwrap();
        let store = store(&folder, &["a.example"]);
        assert!(store.certificate().is_none() && store.renewal().is_none() && store.account().is_none());
        store.probe().unwrap();
        let pem = pem(&["a.example"]);
        store.keep_certificate(&pem).unwrap();
        assert_eq!(*store.certificate().unwrap().pem, pem);
        let renewal = Renewal { fails: 3, next: 77, last_error: Some("x".into()), ..Renewal::default() };
        store.keep_renewal(&renewal).unwrap();
        assert_eq!(store.renewal(), Some(renewal));
        let account = Account { key: Secret::new(vec![1, 2, 3]), id: Some("u".into()), contact: vec![] };
        store.keep_account(&account).unwrap();
        assert_eq!(store.account().unwrap().key.expose(), &[1, 2, 3]);
        assert_eq!(format!("{account:?}"), "Account { id: Some(\"u\"), .. }");
        for path in [store.ca.join(ACCOUNT), store.names.join(CERTIFICATE), store.names.join(RENEWAL)] {
            assert_eq!(mode(&path), 0o600, "{}", path.display());
        }
        assert_eq!((mode(&store.ca), mode(&store.names)), (0o700, 0o700));
        let left: Vec<_> = fs::read_dir(&store.names).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left.len(), 2, "the probe is gone: {left:?}");
    }

    #[test]
    fn what_is_open_to_others_is_closed_and_used() {
        let folder = TempDir::new().unwrap();
        let store = store(&folder, &["a.example"]);
        store.keep_certificate(&pem(&["a.example"])).unwrap();
        let path = store.names.join(CERTIFICATE);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(&store.names, Permissions::from_mode(0o755)).unwrap();
        assert!(store.certificate().is_some());
        store.probe().unwrap();
        assert_eq!((mode(&path), mode(&store.names)), (0o600, 0o700));
    }

    #[test]
    fn empty_torn_mismatched_and_foreign_files_are_absent() {
        let folder = TempDir::new().unwrap();
        let store = store(&folder, &["a.example"]);
        let (whole, other) = (pem(&["a.example"]), pem(&["a.example"]));
        let (key, _) = whole.split_at(whole.find("-----BEGIN CERT").unwrap());
        let (_, chain) = other.split_at(other.find("-----BEGIN CERT").unwrap());
        let mismatched = format!("{key}{chain}");
        let torn = &whole[..whole.len() - 40];
        for text in ["", "x", key, chain, torn, &mismatched, &pem(&["b.example"])] {
            store.keep_certificate(text).unwrap();
            assert!(store.certificate().is_none(), "{text}");
        }
        for text in ["", "{", "{\"fails\":-1}", "{\"fails\":"] {
            fs::create_dir_all(&store.names).unwrap();
            file::replace(&store.names.join(RENEWAL), text.as_bytes()).unwrap();
            file::replace(&store.ca.join(ACCOUNT), text.as_bytes()).unwrap();
            assert!(store.renewal().is_none() && store.account().is_none(), "{text}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_found_out() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("file");
        file::replace(&file, b"x").unwrap();
        let below = Store::new(&file, &url("letsencrypt"), &[dns("a.example")]);
        assert!(below.probe().is_err(), "below a regular file");
        assert!(below.keep_certificate("x").is_err() && below.try_lock().is_err());
    }

    #[test]
    fn cas_and_sets_of_names_never_share_a_folder() {
        let state = Path::new("s");
        let place = |ca: &str, names: &[Identifier]| Store::new(state, &url(ca), names).names;
        let both = [dns("a.example"), dns("b.example")];
        let turned = [dns("b.example"), dns("a.example")];
        let six = [Identifier::Ip("2001:db8::1".parse().unwrap())];
        let all = [
            place("letsencrypt", &both),
            place("letsencrypt-staging", &both),
            place("letsencrypt", &both[..1]),
            place("letsencrypt", &six),
            place("https://ca.example/a/b", &both),
            place("https://ca.example/a_b", &both),
        ];
        for (n, one) in all.iter().enumerate() {
            assert!(all.iter().skip(n + 1).all(|other| other != one), "{one:?}");
            assert_eq!(one.components().count(), 3, "{one:?}");
            assert!(!one.to_str().unwrap().contains([':', '*']), "{one:?}");
        }
        assert_eq!(place("letsencrypt", &both), place("letsencrypt", &turned));
    }

    #[tokio::test(start_paused = true)]
    async fn one_has_the_lock_and_the_next_gets_it_when_it_is_dropped() {
        let folder = TempDir::new().unwrap();
        let store = store(&folder, &["a.example"]);
        let held = store.lock().await.unwrap();
        assert!(store.try_lock().unwrap().is_none());
        let waiting = store.clone();
        let waiting = tokio::spawn(async move { waiting.lock().await.map(drop) });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!waiting.is_finished());
        drop(held);
        waiting.await.unwrap().unwrap();
        assert!(store.try_lock().unwrap().is_some());
    }

    #[test]
    fn an_unknown_account_is_set_aside_and_a_new_one_is_not() {
        let folder = TempDir::new().unwrap();
        let store = store(&folder, &["a.example"]);
        let account = Account { key: Secret::new(vec![1]), id: Some("new".into()), contact: vec![] };
        store.keep_account(&account).unwrap();
        store.set_account_aside("old", 5).unwrap();
        assert!(store.account().is_some(), "another process has made a new one");
        store.set_account_aside("new", 5).unwrap();
        assert!(store.account().is_none() && store.ca.join("account-5.json").exists());
    }

    #[test]
    fn only_long_expired_certificates_of_other_names_are_removed() {
        let folder = TempDir::new().unwrap();
        let (ours, others) = (store(&folder, &["a.example"]), store(&folder, &["b.example"]));
        ours.keep_certificate(&pem(&["a.example"])).unwrap();
        others.keep_certificate(&pem(&["b.example"])).unwrap();
        let expired = others.certificate().unwrap().pair.not_after();
        ours.prune(expired + GRACE - DAY);
        assert!(others.certificate().is_some(), "still within grace");
        let busy = others.try_lock().unwrap();
        ours.prune(expired + GRACE + DAY);
        assert!(others.certificate().is_some(), "somebody is busy with it");
        drop(busy);
        ours.prune(expired + GRACE + DAY);
        assert!(others.certificate().is_none() && ours.certificate().is_some());
    }
}
