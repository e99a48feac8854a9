//! The certificates in use: one immutable snapshot, swapped whole, and what a handshake picks from it.

pub mod files;
pub mod keypair;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::Serialize;

pub use files::{CertificateFiles, FilesFault};
pub use keypair::{Keypair, KeypairFault, Name};

/// Where a certificate comes from. Where two are for the same name, the operator's own file wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateSource {
    /// `[tls]`: the operator's own files.
    Files,
    /// `[acme]`: issued to us.
    Acme,
}

/// What an operator may see of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CertificateInfo {
    /// What it is for.
    pub names: Vec<String>,
    /// Who signed it.
    pub issuer: String,
    /// The first second that it is good for, Unix time.
    pub not_before: u64,
    /// The first second that it is no longer good for, Unix time.
    pub not_after: u64,
    /// Where it comes from.
    pub source: CertificateSource,
}

/// Every certificate there is, shared by all listeners.
#[derive(Default)]
pub struct Certificates {
    snapshot: ArcSwap<Snapshot>,
    /// What each source has published; one publishes at a time.
    published: Mutex<Published>,
}

#[derive(Default)]
struct Published {
    files: Vec<Keypair>,
    acme: Vec<Keypair>,
}

impl Certificates {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts these in the place of all that `source` published before. The next handshake picks from them; connections
    /// that are up are not touched.
    pub fn publish(&self, source: CertificateSource, pairs: Vec<Keypair>) {
        let mut published = self.published.lock();
        match source {
            CertificateSource::Files => published.files = pairs,
            CertificateSource::Acme => published.acme = pairs,
        }
        self.snapshot.store(Arc::new(Snapshot::of(&published)));
    }

    /// The certificate for a client that asks for this name (SNI), or for none: exact name first, then wildcard. A
    /// client that names nothing has connected to an address: it gets the first certificate for one, else the only
    /// certificate there is.
    pub fn pick(&self, asked: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let snapshot = self.snapshot.load();
        let pair = match asked {
            Some(name) => snapshot.find(&Name::of_host(name)?),
            None => snapshot.unnamed(),
        };
        pair.map(Keypair::certified)
    }

    /// [`Certificates::pick`] as rustls asks it.
    pub fn resolver(self: &Arc<Self>) -> Arc<dyn ResolvesServerCert> {
        Arc::new(Resolver(Arc::clone(self)))
    }

    /// Whether a request for this host (a Host header, with or without a port) is ours to answer.
    pub fn covers(&self, host: &str) -> bool {
        Name::of_host(host).is_some_and(|name| self.snapshot.load().find(&name).is_some())
    }

    /// All of them, own files first.
    pub fn list(&self) -> Vec<CertificateInfo> {
        self.snapshot.load().pairs.iter().map(|(source, pair)| info(*source, pair)).collect()
    }

    /// Whether there is none at all.
    pub fn is_empty(&self) -> bool {
        self.snapshot.load().pairs.is_empty()
    }

    /// Whether at least one is good at this time (Unix seconds).
    pub fn any_valid_at(&self, now: u64) -> bool {
        self.snapshot.load().pairs.iter().any(|(_, pair)| pair.is_valid_at(now))
    }

    /// Whether what this source has published is good at this time; false when it is nothing.
    pub fn valid_from(&self, source: CertificateSource, now: u64) -> bool {
        let snapshot = self.snapshot.load();
        let mut of_source = snapshot.pairs.iter().filter(|(from, _)| *from == source).peekable();
        of_source.peek().is_some() && of_source.all(|(_, pair)| pair.is_valid_at(now))
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list()).finish()
    }
}

fn info(source: CertificateSource, pair: &Keypair) -> CertificateInfo {
    CertificateInfo {
        names: pair.names().iter().map(ToString::to_string).collect(),
        issuer: pair.issuer().to_owned(),
        not_before: pair.not_before(),
        not_after: pair.not_after(),
        source,
    }
}

/// The pairs in order of preference, and which name leads to which of them.
#[derive(Default)]
struct Snapshot {
    pairs: Vec<(CertificateSource, Keypair)>,
    by_name: HashMap<Name, usize>,
}

impl Snapshot {
    fn of(published: &Published) -> Self {
        let files = published.files.iter().map(|pair| (CertificateSource::Files, pair.clone()));
        let acme = published.acme.iter().map(|pair| (CertificateSource::Acme, pair.clone()));
        let pairs: Vec<_> = files.chain(acme).collect();
        let mut by_name = HashMap::new();
        for (at, (_, pair)) in pairs.iter().enumerate() {
            for name in pair.names() {
                by_name.entry(name.clone()).or_insert(at);
            }
        }
        Self { pairs, by_name }
    }

    fn find(&self, asked: &Name) -> Option<&Keypair> {
        let wildcard = || match asked {
            Name::Dns(name) => {
                let (_, parent) = name.split_once('.')?;
                self.by_name.get(&Name::Dns(format!("*.{parent}")))
            }
            Name::Ip(_) => None,
        };
        let at = self.by_name.get(asked).or_else(wildcard)?;
        self.pairs.get(*at).map(|(_, pair)| pair)
    }

    fn unnamed(&self) -> Option<&Keypair> {
        let mut pairs = self.pairs.iter().map(|(_, pair)| pair);
        let for_address = |pair: &&Keypair| pair.names().iter().any(|name| matches!(name, Name::Ip(_)));
        pairs.clone().find(for_address).or_else(|| pairs.next().filter(|_| pairs.next().is_none()))
    }
}

#[derive(Debug)]
struct Resolver(Arc<Certificates>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.pick(hello.server_name())
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// A self-signed pair.
    pub(super) fn pair(names: &[&str]) -> Keypair {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Keypair::from_pem(certificate.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap()
    }

    fn same(picked: Option<Arc<CertifiedKey>>, pair: &Keypair) -> bool {
        picked.is_some_and(|picked| Arc::ptr_eq(&picked, &pair.certified()))
    }

    #[test]
    fn an_exact_name_wins_over_a_wildcard_and_an_unknown_one_gets_nothing() {
        let certificates = Certificates::new();
        let (wild, exact) = (pair(&["*.example.com"]), pair(&["asr.example.com"]));
        certificates.publish(CertificateSource::Acme, vec![wild.clone(), exact.clone()]);
        assert!(same(certificates.pick(Some("asr.example.com")), &exact));
        assert!(same(certificates.pick(Some("other.example.com")), &wild));
        for unknown in ["example.com", "a.b.example.com", "example.org", "not a name"] {
            assert!(certificates.pick(Some(unknown)).is_none(), "{unknown}");
        }
    }

    #[test]
    fn a_client_that_names_nothing_gets_the_one_for_an_address_or_the_only_one() {
        let certificates = Certificates::new();
        assert!(certificates.pick(None).is_none());
        let (named, address) = (pair(&["asr.example.com"]), pair(&["192.0.2.7"]));
        certificates.publish(CertificateSource::Files, vec![named.clone()]);
        assert!(same(certificates.pick(None), &named), "the only one");
        certificates.publish(CertificateSource::Acme, vec![address.clone()]);
        assert!(same(certificates.pick(None), &address), "the one for an address");
        certificates.publish(CertificateSource::Acme, vec![pair(&["other.example.com"])]);
        assert!(certificates.pick(None).is_none(), "no guess between two");
    }

    #[test]
    fn own_files_win_and_a_source_replaces_only_its_own() {
        let certificates = Certificates::new();
        let (own, issued) = (pair(&["asr.example.com"]), pair(&["asr.example.com", "b.example.com"]));
        certificates.publish(CertificateSource::Acme, vec![issued.clone()]);
        certificates.publish(CertificateSource::Files, vec![own.clone()]);
        assert!(same(certificates.pick(Some("asr.example.com")), &own));
        assert!(same(certificates.pick(Some("b.example.com")), &issued));
        certificates.publish(CertificateSource::Files, Vec::new());
        assert!(same(certificates.pick(Some("asr.example.com")), &issued));
    }

    #[test]
    fn a_host_is_covered_by_name_wildcard_or_address() {
        let certificates = Certificates::new();
        assert!(!certificates.covers("asr.example.com") && certificates.is_empty());
        certificates.publish(
            CertificateSource::Acme,
            vec![pair(&["asr.example.com", "*.example.org", "192.0.2.7", "2001:db8::7"])],
        );
        for host in ["ASR.example.com:443", "a.example.org", "192.0.2.7:8443", "[2001:db8::7]:443"] {
            assert!(certificates.covers(host), "{host}");
        }
        for host in
            ["", "example.com", "192.0.2.8", "[2001:db8::8]", "*.example.org", "asr.example.com.evil.com"]
        {
            assert!(!certificates.covers(host), "{host}");
        }
    }

    #[test]
    fn what_is_listed_says_where_it_comes_from() {
        let certificates = Certificates::new();
        certificates.publish(CertificateSource::Acme, vec![pair(&["a.example"])]);
        certificates.publish(CertificateSource::Files, vec![pair(&["b.example"])]);
        let listed: Vec<_> = certificates.list().into_iter().map(|info| (info.names, info.source)).collect();
        assert_eq!(
            listed,
            [
                (vec!["b.example".to_owned()], CertificateSource::Files),
                (vec!["a.example".to_owned()], CertificateSource::Acme)
            ]
        );
        let shown = serde_json::to_value(certificates.list()).unwrap();
        assert_eq!(shown[0]["source"], "files");
    }
}
