//! The operator's own certificate, from two files that are followed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{CertificateSource, Certificates, Keypair, KeypairFault};
use crate::base::clock;
use crate::base::file::{self, Watching};

/// The longest file that is read, in bytes. Long chains have some 10 KiB.
const MAX_BYTES: u64 = 1 << 20;

/// Why the files are not what is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FilesFault {
    /// The certificate file cannot be read.
    #[error("the certificate file cannot be read: {0}")]
    Certificate(io::ErrorKind),
    /// The key file cannot be read.
    #[error("the key file cannot be read: {0}")]
    Key(io::ErrorKind),
    /// They do not belong together, or one is broken; a pair that is just being replaced looks so for a moment.
    #[error(transparent)]
    Pair(#[from] KeypairFault),
    /// Not good before a time that is still to come (Unix seconds).
    #[error("the certificate is not valid yet")]
    Early(u64),
    /// Good until a time that has passed (Unix seconds).
    #[error("the certificate has expired")]
    Expired(u64),
}

impl FilesFault {
    /// Whether the pair would do at another time of day.
    const fn is_of_dates(self) -> bool {
        matches!(self, Self::Early(_) | Self::Expired(_))
    }
}

/// Follows a certificate file and a key file, and publishes what is good.
pub struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    certificates: Arc<Certificates>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    fault: Option<FilesFault>,
    served: Option<Keypair>,
    warned_of_mode: bool,
}

impl CertificateFiles {
    /// Reads the pair and publishes it. One out of its dates is published too, since there is nothing better yet;
    /// [`CertificateFiles::fault`] tells.
    ///
    /// # Errors
    /// There is no pair to serve.
    pub fn load(
        certificate: PathBuf,
        key: PathBuf,
        certificates: Arc<Certificates>,
    ) -> Result<Arc<Self>, FilesFault> {
        let files = Self { certificate, key, certificates, state: Mutex::default() };
        match files.reload(clock::unix()) {
            Err(fault) if !fault.is_of_dates() => Err(fault),
            _ => Ok(Arc::new(files)),
        }
    }

    /// Reads both files again. What is served changes only for a pair that is whole, and in its dates; one out of its
    /// dates is taken where nothing valid is served.
    ///
    /// # Errors
    /// What is wrong with the files; said in the log once.
    pub fn reload(&self, now: u64) -> Result<(), FilesFault> {
        let mut state = self.state.lock();
        let (pair, fault) = match self.read(now) {
            Ok((pair, fault)) => (Some(pair), fault),
            Err(fault) => (None, Some(fault)),
        };
        let taken =
            pair.filter(|_| fault.is_none() || !self.certificates.valid_from(CertificateSource::Files, now));
        if let Some(fault) = fault.filter(|_| state.fault != fault) {
            let certificate = self.certificate.display();
            tracing::error!(%certificate, %fault, kept_old = taken.is_none(), "own certificate");
        }
        state.fault = fault;
        if let Some(pair) = taken {
            self.publish(pair, &mut state);
        }
        fault.map_or(Ok(()), Err)
    }

    /// What is wrong with the files now, though an earlier pair may still be served.
    pub fn fault(&self) -> Option<FilesFault> {
        self.state.lock().fault
    }

    /// Follows both files until the returned values are dropped. Must be called within a Tokio runtime.
    pub fn watch(self: &Arc<Self>) -> [Watching; 2] {
        [&self.certificate, &self.key].map(|path| {
            let this = Arc::clone(self);
            Watching::start(path.clone(), move || {
                let good = this.reload(clock::unix()).is_ok();
                async move { good }
            })
        })
    }

    /// The pair, and what is wrong with its dates.
    fn read(&self, now: u64) -> Result<(Keypair, Option<FilesFault>), FilesFault> {
        let read = |path: &Path| file::read(path, MAX_BYTES).map(zeroize::Zeroizing::new);
        let chain = read(&self.certificate).map_err(|error| FilesFault::Certificate(error.kind()))?;
        let key = read(&self.key).map_err(|error| FilesFault::Key(error.kind()))?;
        let pair = Keypair::from_pem(&chain, &key)?;
        let fault = if now < pair.not_before() {
            Some(FilesFault::Early(pair.not_before()))
        } else if now >= pair.not_after() {
            Some(FilesFault::Expired(pair.not_after()))
        } else {
            None
        };
        Ok((pair, fault))
    }

    fn publish(&self, pair: Keypair, state: &mut State) {
        let old = state.served.as_ref();
        if old.is_some_and(|old| old.chain() == pair.chain()) {
            return;
        }
        let lost: Vec<_> = old
            .map_or(&[][..], Keypair::names)
            .iter()
            .filter(|name| !pair.covers(name))
            .map(ToString::to_string)
            .collect();
        if !lost.is_empty() {
            tracing::warn!(?lost, "the new certificate is no longer for these names");
        }
        if !state.warned_of_mode && file::open_to_others(&self.key) {
            state.warned_of_mode = true;
            tracing::warn!(key = %self.key.display(), "the private key can be read by others: chmod 600");
        }
        let names: Vec<_> = pair.names().iter().map(ToString::to_string).collect();
        tracing::info!(?names, not_after = pair.not_after(), "own certificate in use");
        state.served = Some(pair.clone());
        self.certificates.publish(CertificateSource::Files, vec![pair]);
    }
}

impl fmt::Debug for CertificateFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateFiles")
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use tempfile::TempDir;

    use super::*;

    const MAY_2026: u64 = 1_777_593_600;

    struct Folder(TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// Certificate and key, PEM, good for the given years.
        fn pem(name: &str, from: i32, to: i32) -> (String, String) {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new([name.to_owned()]).unwrap();
            params.not_before = date_time_ymd(from, 1, 1);
            params.not_after = date_time_ymd(to, 1, 1);
            (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        }

        fn write(&self, (chain, key): &(String, String)) {
            file::replace(&self.path("c.pem"), chain.as_bytes()).unwrap();
            file::replace(&self.path("k.pem"), key.as_bytes()).unwrap();
        }

        fn files(&self) -> (CertificateFiles, Arc<Certificates>) {
            let certificates = Arc::new(Certificates::new());
            let (certificate, key) = (self.path("c.pem"), self.path("k.pem"));
            let files = CertificateFiles {
                certificate,
                key,
                certificates: Arc::clone(&certificates),
                state: Mutex::default(),
            };
            (files, certificates)
        }
    }

    #[test]
    fn a_whole_pair_is_served_and_a_new_one_takes_its_place() {
        let folder = Folder::new();
        folder.write(&Folder::pem("a.example", 2026, 2027));
        let (files, certificates) = folder.files();
        files.reload(MAY_2026).unwrap();
        assert!(certificates.pick(Some("a.example")).is_some());
        folder.write(&Folder::pem("b.example", 2026, 2027));
        files.reload(MAY_2026).unwrap();
        assert!(certificates.pick(Some("a.example")).is_none());
        assert!(certificates.pick(Some("b.example")).is_some());
    }

    #[test]
    fn a_torn_mismatched_expired_or_early_pair_leaves_the_old_one_and_says_so() {
        let folder = Folder::new();
        let good = Folder::pem("a.example", 2026, 2027);
        folder.write(&good);
        let (files, certificates) = folder.files();
        files.reload(MAY_2026).unwrap();
        let old = certificates.pick(Some("a.example")).unwrap();
        let other = Folder::pem("a.example", 2026, 2027);
        for (pair, fault) in [
            ((other.0.clone(), good.1.clone()), FilesFault::Pair(KeypairFault::Mismatch)),
            (
                (other.0[..other.0.len() / 2].to_owned(), other.1.clone()),
                FilesFault::Pair(KeypairFault::ChainPem),
            ),
            ((other.0.clone(), String::new()), FilesFault::Pair(KeypairFault::NoKey)),
            (Folder::pem("a.example", 2024, 2026), FilesFault::Expired(1_767_225_601)),
            (Folder::pem("a.example", 2027, 2028), FilesFault::Early(1_798_761_600)),
        ] {
            folder.write(&pair);
            assert_eq!(files.reload(MAY_2026), Err(fault));
            assert_eq!(files.fault(), Some(fault));
            assert!(Arc::ptr_eq(&certificates.pick(Some("a.example")).unwrap(), &old), "{fault}");
        }
        folder.write(&other);
        files.reload(MAY_2026).unwrap();
        assert_eq!(files.fault(), None);
        assert!(!Arc::ptr_eq(&certificates.pick(Some("a.example")).unwrap(), &old));
    }

    #[test]
    fn an_expired_pair_is_served_where_there_is_nothing_better() {
        let folder = Folder::new();
        folder.write(&Folder::pem("a.example", 2024, 2026));
        let (files, certificates) = folder.files();
        assert_eq!(files.reload(MAY_2026), Err(FilesFault::Expired(1_767_225_601)));
        assert!(certificates.pick(Some("a.example")).is_some());
        assert!(!certificates.any_valid_at(MAY_2026));
    }

    #[test]
    fn there_is_no_start_without_a_pair() {
        let folder = Folder::new();
        let load = || {
            let (certificate, key) = (folder.path("c.pem"), folder.path("k.pem"));
            CertificateFiles::load(certificate, key, Arc::new(Certificates::new())).map(|_| ())
        };
        assert_eq!(load(), Err(FilesFault::Certificate(io::ErrorKind::NotFound)));
        folder.write(&Folder::pem("a.example", 2020, 2021));
        assert_eq!(load(), Ok(()), "expired: served, and said");
    }

    #[tokio::test]
    async fn both_files_are_followed() {
        let folder = Folder::new();
        folder.write(&Folder::pem("a.example", 2020, 2100));
        let certificates = Arc::new(Certificates::new());
        let files =
            CertificateFiles::load(folder.path("c.pem"), folder.path("k.pem"), Arc::clone(&certificates))
                .unwrap();
        let _watching = files.watch();
        folder.write(&Folder::pem("b.example", 2020, 2100));
        let swapped = async {
            while certificates.pick(Some("b.example")).is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), swapped)
            .await
            .expect("the new pair is taken");
    }
}
