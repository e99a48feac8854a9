//! A certificate chain and its private key, read from PEM and checked against each other.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

/// RFC 1035 2.3.4.
const LONGEST_NAME: usize = 253;

/// What a certificate is for, or a client asks for: lower case, without the root's dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    /// A DNS name. In a certificate it may begin with `*.`.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
}

impl Name {
    /// The host of a URL or a Host header, with or without a port; IPv6 in brackets or bare. `None`: no name that a
    /// certificate could hold.
    pub fn of_host(host: &str) -> Option<Self> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Self::Ip(ip));
        }
        if let Some((ip, rest)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            return is_port(rest).then(|| ip.parse::<Ipv6Addr>().ok())?.map(|ip| Self::Ip(ip.into()));
        }
        let (name, port) = host.split_at(host.find(':').unwrap_or(host.len()));
        if !is_port(port) {
            return None;
        }
        match name.parse::<Ipv4Addr>() {
            Ok(ip) => Some(Self::Ip(ip.into())),
            Err(_) => dns(name).map(Self::Dns),
        }
    }

    /// Whether a certificate with this name is good for `asked`. A wildcard stands for one whole label (RFC 9525 6.3).
    pub fn covers(&self, asked: &Self) -> bool {
        match (self, asked) {
            (Self::Dns(own), Self::Dns(asked)) => match own.strip_prefix("*.") {
                Some(parent) => asked.split_once('.').is_some_and(|(_, rest)| rest == parent),
                None => own == asked,
            },
            (Self::Ip(own), Self::Ip(asked)) => own == asked,
            _ => false,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(ip) => ip.fmt(f),
        }
    }
}

/// `:` and digits, or nothing.
fn is_port(text: &str) -> bool {
    text.strip_prefix(':').map_or(text.is_empty(), |port| port.bytes().all(|digit| digit.is_ascii_digit()))
}

/// A DNS name in letters, digits, hyphens and underscores, lower case.
fn dns(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    (name.len() <= LONGEST_NAME && name.split('.').all(label)).then(|| name.to_ascii_lowercase())
}

/// Why a chain and a key cannot be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeypairFault {
    /// The chain is no PEM, or was cut.
    #[error("the certificate file is no whole PEM")]
    ChainPem,
    /// No `BEGIN CERTIFICATE`.
    #[error("there is no certificate in the file")]
    NoCertificate,
    /// The key is no PEM, was cut, or there is none in the file.
    #[error("there is no private key in PEM (PKCS #8, PKCS #1 or SEC 1, not encrypted) in the file")]
    NoKey,
    /// What is in the PEM is no X.509 version 3 certificate.
    #[error("the certificate cannot be read")]
    Certificate,
    /// No RSA (2048 to 8192 bits), ECDSA P-256 or P-384, or Ed25519 key.
    #[error("the kind of private key is not supported (RSA, ECDSA P-256 or P-384, Ed25519)")]
    KeyKind,
    /// The key belongs to another certificate, or the leaf is not the first in the chain.
    #[error("the private key does not belong to the first certificate of the chain")]
    Mismatch,
    /// Browsers and SDKs do not look at the common name.
    #[error("the certificate names no DNS name or IP address as subjectAltName")]
    Nameless,
}

/// A chain, leaf first, whose key is at hand.
#[derive(Clone)]
pub struct Keypair {
    certified: Arc<CertifiedKey>,
    names: Vec<Name>,
    issuer: String,
    not_before: u64,
    not_after: u64,
    serial: Vec<u8>,
    authority: Option<Vec<u8>>,
}

impl Keypair {
    /// Reads a PEM chain, leaf first, and the PEM key of its leaf. Both may be in the same text.
    ///
    /// # Errors
    /// [`KeypairFault`]. Dates are not looked at: that takes a clock.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, KeypairFault> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, pem::Error>>();
        let chain = chain.map_err(|_| KeypairFault::ChainPem)?;
        if chain.is_empty() {
            return Err(KeypairFault::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| KeypairFault::NoKey)?;
        Self::from_der(chain, &key)
    }

    /// As [`Keypair::from_pem`], from what is inside.
    ///
    /// # Errors
    /// [`KeypairFault`].
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: &PrivateKeyDer<'_>,
    ) -> Result<Self, KeypairFault> {
        let leaf = chain.first().cloned().ok_or(KeypairFault::NoCertificate)?;
        let (_, leaf) = X509Certificate::from_der(&leaf).map_err(|_| KeypairFault::Certificate)?;
        let key = any_supported_type(key).map_err(|_| KeypairFault::KeyKind)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => KeypairFault::Mismatch,
            _ => KeypairFault::Certificate,
        })?;
        let names = names(&leaf);
        if names.is_empty() {
            return Err(KeypairFault::Nameless);
        }
        let seconds = |at: i64| u64::try_from(at).unwrap_or(0);
        Ok(Self {
            names,
            issuer: leaf.issuer().to_string(),
            not_before: seconds(leaf.validity().not_before.timestamp()),
            // RFC 5280 4.1.2.5: the last second belongs to it.
            not_after: seconds(leaf.validity().not_after.timestamp()).saturating_add(1),
            serial: leaf.raw_serial().to_vec(),
            authority: authority(&leaf),
            certified: Arc::new(certified),
        })
    }

    /// What a TLS handshake needs.
    pub fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// The leaf, then what vouches for it.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    /// The names of the leaf (subjectAltName; the common name is not looked at).
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// Who signed it, for people to read.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The first second that it is good for, Unix time.
    pub const fn not_before(&self) -> u64 {
        self.not_before
    }

    /// The first second that it is no longer good for, Unix time.
    pub const fn not_after(&self) -> u64 {
        self.not_after
    }

    /// Whether it is good at this time (Unix seconds).
    pub const fn is_valid_at(&self, now: u64) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// The serial number's DER content, with its leading zero if there is one (RFC 9773 4.1).
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// The issuer's key identifier (RFC 9773 4.1); a self-signed certificate may have none.
    pub fn authority_key_id(&self) -> Option<&[u8]> {
        self.authority.as_deref()
    }

    /// Whether one of its names is good for `asked`.
    pub fn covers(&self, asked: &Name) -> bool {
        self.names.iter().any(|name| name.covers(asked))
    }
}

/// Names and dates; the key stays out.
impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keypair")
            .field("names", &self.names)
            .field("issuer", &self.issuer)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn names(leaf: &X509Certificate<'_>) -> Vec<Name> {
    let Ok(Some(listed)) = leaf.subject_alternative_name() else { return Vec::new() };
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => match name.strip_prefix("*.") {
            Some(parent) => dns(parent).map(|parent| Name::Dns(format!("*.{parent}"))),
            None => dns(name).map(Name::Dns),
        },
        GeneralName::IPAddress(bytes) => ip(bytes).map(Name::Ip),
        _ => None,
    };
    listed.value.general_names.iter().filter_map(name).collect()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn authority(leaf: &X509Certificate<'_>) -> Option<Vec<u8>> {
    leaf.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(authority) => {
            authority.key_identifier.as_ref().map(|id| id.0.to_vec())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, Issuer, KeyPair, SerialNumber, date_time_ymd};

    use super::*;

    /// A self-signed certificate and its key, PEM.
    fn pem(names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 4, 1);
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    fn name(text: &str) -> Name {
        Name::of_host(text).unwrap()
    }

    #[test]
    fn names_dates_and_issuer_are_read_from_the_leaf() {
        let (chain, key) = pem(&["ASR.example.com", "*.example.org", "192.0.2.7", "2001:db8::7"]);
        let pair = Keypair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        let names: Vec<_> = pair.names().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["asr.example.com", "*.example.org", "192.0.2.7", "2001:db8::7"]);
        assert_eq!(pair.not_before(), 1_767_225_600);
        assert_eq!(pair.not_after(), 1_775_001_600 + 1, "the last second is inclusive");
        assert!(pair.is_valid_at(1_775_001_600) && !pair.is_valid_at(1_775_001_601));
        assert!(!pair.is_valid_at(1_767_225_599));
        assert!(pair.issuer().starts_with("CN="), "{}", pair.issuer());
        assert_eq!(pair.chain().len(), 1);
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let (chain, key) = pem(&["*.example.org"]);
        let pair = Keypair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
        assert!(pair.covers(&name("a.example.org")));
        assert!(pair.covers(&name("A.EXAMPLE.ORG.")));
        for other in ["example.org", "a.b.example.org", "a.example.com", "192.0.2.7"] {
            assert!(!pair.covers(&name(other)), "{other}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for (host, expected) in [
            ("Asr.Example.com:8443", "asr.example.com"),
            ("localhost", "localhost"),
            ("127.0.0.1:443", "127.0.0.1"),
            ("[::1]:443", "::1"),
            ("[2001:DB8::7]", "2001:db8::7"),
            ("::1", "::1"),
        ] {
            assert_eq!(Name::of_host(host).unwrap().to_string(), expected);
        }
        for host in [
            "",
            ":443",
            "a b",
            "a..b",
            "[::1",
            "[::1]x",
            "a:b",
            "a/b",
            "ä.example",
            "*.example.org",
            "[127.0.0.1]",
        ] {
            assert_eq!(Name::of_host(host), None, "{host}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_told() {
        let ((chain, key), (_, other)) = (pem(&["a.example"]), pem(&["a.example"]));
        assert!(Keypair::from_pem(chain.as_bytes(), key.as_bytes()).is_ok());
        assert_eq!(
            Keypair::from_pem(chain.as_bytes(), other.as_bytes()).unwrap_err(),
            KeypairFault::Mismatch
        );
    }

    #[test]
    fn torn_and_empty_files_are_told_apart() {
        let (chain, key) = pem(&["a.example"]);
        let from = |chain: &str, key: &str| Keypair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap_err();
        assert_eq!(from("", &key), KeypairFault::NoCertificate);
        assert_eq!(from(&key, &key), KeypairFault::NoCertificate);
        assert_eq!(from(&chain, ""), KeypairFault::NoKey);
        assert_eq!(from(&chain, &chain), KeypairFault::NoKey);
        assert_eq!(from(&chain[..chain.len() / 2], &key), KeypairFault::ChainPem);
        assert_eq!(from(&chain, &key[..key.len() / 2]), KeypairFault::NoKey);
        let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(from(garbage, &key), KeypairFault::Certificate);
        let (nameless, key) = pem(&[]);
        assert_eq!(from(&nameless, &key), KeypairFault::Nameless);
    }

    #[test]
    fn what_ari_asks_for_is_read_from_a_signed_certificate() {
        let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = CertificateParams::new(Vec::new()).unwrap();
        let issuer = Issuer::new(root, root_key);
        let mut leaf = CertificateParams::new(["a.example".to_owned()]).unwrap();
        leaf.serial_number = Some(SerialNumber::from(vec![0x87, 0x65, 0x43]));
        leaf.use_authority_key_identifier_extension = true;
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let pair = Keypair::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        assert_eq!(pair.serial(), [0, 0x87, 0x65, 0x43], "DER keeps it positive");
        assert!(pair.authority_key_id().is_some_and(|id| id.len() >= 20));
    }

    #[test]
    fn the_key_is_not_shown() {
        let (chain, key) = pem(&["a.example"]);
        let shown = format!("{:?}", Keypair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap());
        assert!(shown.contains("a.example") && !shown.contains("key"), "{shown}");
    }
}
