//! `[acme]`: which certificates to order, from whom, and how it is proved that the names are ours.

mod identifier;

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;

use super::check::{Desk, Given};
use super::raw::{RawAcme, RawEab};
use super::{Endpoint, Server, codex};
use crate::base::secret::Secret;

pub use identifier::{Identifier, NameFault};

/// The variable that alone makes a server public.
pub(super) const DOMAIN: &str = "CODEX_ASR_DOMAIN";
/// A public CA puts no more names into one certificate.
const MOST_NAMES: usize = 100;
const STATE: &str = "/var/lib/asr-edge/acme";
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const LETS_ENCRYPT_STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
/// The only profile under which Let's Encrypt certifies IP addresses.
const SHORT_LIVED: &str = "shortlived";

/// Everything needed to order a certificate. The CA's terms have been agreed to.
#[derive(Debug, Clone, PartialEq)]
pub struct AcmeSettings {
    /// What the one certificate is for; at least one, no two the same.
    pub domains: Vec<Identifier>,
    /// `mailto:` URLs the CA may write to; may be empty.
    pub contact: Vec<String>,
    /// Where the CA is.
    pub directory: DirectoryUrl,
    /// How the names may be proved, the preferred way first; at least one, no two the same.
    pub challenges: Vec<Challenge>,
    /// The folder for accounts, keys and certificates. It can be written to, or made.
    pub state: PathBuf,
    /// The CA's profile to order under (draft-ietf-acme-profiles); `None`: the CA's default.
    pub profile: Option<String>,
    /// Roots trusted for the CA's own address beside the system's; empty when none were named.
    pub ca_root: Vec<CertificateDer<'static>>,
    /// External account binding (RFC 8555 section 7.3.4), for CAs that ask for it.
    pub eab: Option<Eab>,
}

/// A way to prove a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Challenge {
    /// On port 443, in the TLS handshake (RFC 8737).
    TlsAlpn01,
    /// On port 80 (RFC 8555 section 8.3).
    Http01,
}

/// The URL of a CA's directory: `https`, with a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DirectoryUrl(String);

/// External account binding.
#[derive(Debug, Clone)]
pub struct Eab {
    /// The key's name at the CA.
    pub key_id: String,
    /// The key itself, base64url-decoded.
    pub hmac_key: Secret<Vec<u8>>,
}

impl PartialEq for Eab {
    /// Compares the operator's settings with each other, never with what somebody sent: time tells nobody anything.
    fn eq(&self, other: &Self) -> bool {
        self.key_id == other.key_id && self.hmac_key.expose() == other.hmac_key.expose()
    }
}

impl Challenge {
    /// Its name in the protocol and in the config.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Http01 => "http-01",
        }
    }
}

impl DirectoryUrl {
    /// `letsencrypt`, `letsencrypt-staging`, or an `https` URL.
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "letsencrypt" => Some(Self(LETS_ENCRYPT.to_owned())),
            "letsencrypt-staging" => Some(Self(LETS_ENCRYPT_STAGING.to_owned())),
            url => Endpoint::parse(url).ok().filter(|endpoint| endpoint.tls).map(|_| Self(url.to_owned())),
        }
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is Let's Encrypt, in earnest or staging: what it refuses always is refused before an order is spent.
    pub fn is_lets_encrypt(&self) -> bool {
        [LETS_ENCRYPT, LETS_ENCRYPT_STAGING].contains(&self.as_str())
    }

    /// Where an order can be rehearsed that counts against no limit; `None` when this CA has no such place, or is it.
    pub fn staging(&self) -> Option<Self> {
        (self.as_str() == LETS_ENCRYPT).then(|| Self(LETS_ENCRYPT_STAGING.to_owned()))
    }
}

impl fmt::Display for DirectoryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The domains given by variable; several are split by commas or spaces.
pub(super) fn by_variable(desk: &Desk<'_>) -> Option<Vec<String>> {
    let given = desk.variable(&[DOMAIN])?;
    let names = given.value.split([',', ' ']).filter(|name| !name.is_empty());
    Some(names.map(str::to_owned).collect())
}

/// Whether a certificate is to be ordered. `[acme]` with nothing but `http`, beside certificate files, is no more than
/// the address of port 80.
pub(super) fn wanted(raw: &RawAcme, by_variable: bool, files: bool) -> bool {
    let RawAcme { domains, contact, directory, challenges, http, state, profile, accept_terms, ca_root, eab } =
        raw;
    let about_orders = domains.is_some()
        || contact.is_some()
        || directory.is_some()
        || challenges.is_some()
        || state.is_some()
        || profile.is_some()
        || accept_terms.is_some()
        || ca_root.is_some()
        || eab.is_some();
    by_variable || about_orders || (http.is_some() && !files)
}

/// Checks `[acme]` for a server that is to have certificates ordered.
pub(super) fn check(
    raw: RawAcme,
    by_variable: Option<Vec<String>>,
    server: &Server,
    desk: &mut Desk<'_>,
) -> AcmeSettings {
    terms(raw.accept_terms, by_variable.is_some(), desk);
    let directory = directory(raw.directory, desk);
    let overridden = by_variable.is_some() && raw.domains.is_some();
    let domains = match by_variable {
        Some(names) => domains(&names, |_| DOMAIN.to_owned(), &directory, desk),
        None => {
            let names = raw.domains.unwrap_or_default();
            if names.is_empty() && !desk.told("acme.domains") {
                desk.fault(
                    "acme.domains",
                    "names nothing to certify: [\"asr.example.com\"], or an IP address",
                );
            }
            domains(&names, |n| format!("acme.domains[{n}]"), &directory, desk)
        }
    };
    if overridden {
        desk.notice(format!("{DOMAIN} replaces acme.domains"));
    }
    let profile = profile(raw.profile, &domains, &directory, desk);
    let challenges = challenges(raw.challenges, server, desk);
    let state = match raw.state {
        Some(path) => desk.path(&path),
        // Where systemd's StateDirectory= is, if there is one.
        None => desk
            .variable(&["STATE_DIRECTORY"])
            .and_then(|given| given.value.split(':').next().map(|folder| Path::new(folder).join("acme")))
            .unwrap_or_else(|| STATE.into()),
    };
    if let Some(why) = unkept(&state) {
        desk.fault("acme.state", why);
    }
    if server.https.is_empty() && !desk.told("server.https") {
        desk.fault(
            "acme.domains",
            "has certificates ordered that nobody would see: server.https names no address",
        );
    }
    AcmeSettings {
        domains,
        contact: contact(raw.contact, desk),
        directory,
        challenges,
        state,
        profile,
        ca_root: match raw.ca_root.filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => codex::roots("acme.ca_root", &desk.path(&path), desk),
            None => Vec::new(),
        },
        eab: raw.eab.and_then(|raw| eab(raw, desk)),
    }
}

fn terms(accepted: Option<bool>, by_variable: bool, desk: &mut Desk<'_>) {
    match accepted {
        Some(true) => {}
        // Whoever deploys by variable alone has no other place to say so.
        None if by_variable => desk.notice(format!(
            "{DOMAIN} is set, which says that you agree to the terms of service of the certificate authority"
        )),
        _ if desk.told("acme.accept_terms") => {}
        _ => desk.fault(
            "acme.accept_terms",
            "must be true before anything is ordered: it says that you agree to the CA's terms of service \
             (Let's Encrypt: https://letsencrypt.org/repository/)",
        ),
    }
}

fn directory(raw: Option<String>, desk: &mut Desk<'_>) -> DirectoryUrl {
    let given = desk
        .variable(&["CODEX_ASR_ACME_DIRECTORY"])
        .or_else(|| raw.map(|value| Given { from: "acme.directory", value }));
    let Some(given) = given else {
        return DirectoryUrl(LETS_ENCRYPT.to_owned());
    };
    DirectoryUrl::parse(&given.value).unwrap_or_else(|| {
        desk.fault(
            given.from,
            "must be \"letsencrypt\", \"letsencrypt-staging\", or the https:// URL of another CA's directory",
        );
        // Never used, since there is a fault; no CA of which we know anything.
        DirectoryUrl(String::new())
    })
}

fn domains(
    names: &[String],
    path: impl Fn(usize) -> String,
    directory: &DirectoryUrl,
    desk: &mut Desk<'_>,
) -> Vec<Identifier> {
    let mut domains: Vec<Identifier> = Vec::new();
    for (n, text) in names.iter().enumerate() {
        match Identifier::parse(text) {
            Ok(name) if domains.contains(&name) => desk.fault(path(n), format!("`{name}` is there twice")),
            Ok(name) if directory.is_lets_encrypt() && !name.is_public() => {
                desk.fault(
                    path(n),
                    format!("`{name}` is private: Let's Encrypt certifies only what the internet can reach"),
                );
            }
            Ok(name) => domains.push(name),
            Err(why) => desk.fault(path(n), format!("`{}` {why}", text.escape_debug())),
        }
    }
    if names.len() > MOST_NAMES {
        desk.fault(path(MOST_NAMES), format!("is more than {MOST_NAMES} names for one certificate"));
    }
    domains
}

/// An IP address needs a profile that has them: at Let's Encrypt that is one, so it is taken unless another is asked for.
fn profile(
    raw: Option<String>,
    domains: &[Identifier],
    directory: &DirectoryUrl,
    desk: &mut Desk<'_>,
) -> Option<String> {
    let profile = raw.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let addresses = domains.iter().any(|name| matches!(name, Identifier::Ip(_)));
    match profile {
        Some(name) if name.len() > 64 || !name.bytes().all(|b| b.is_ascii_graphic()) => {
            desk.fault("acme.profile", "must be 64 printable ASCII characters at most, without spaces");
            None
        }
        Some(name) if addresses && directory.is_lets_encrypt() && name != SHORT_LIVED => {
            desk.fault(
                "acme.profile",
                format!("must be \"{SHORT_LIVED}\", or left out: no other one has IP addresses"),
            );
            None
        }
        None if addresses && directory.is_lets_encrypt() => Some(SHORT_LIVED.to_owned()),
        profile => profile,
    }
}

fn challenges(raw: Option<Vec<String>>, server: &Server, desk: &mut Desk<'_>) -> Vec<Challenge> {
    let Some(names) = raw else {
        let both = [Challenge::TlsAlpn01, Challenge::Http01];
        let open = |way: &Challenge| *way != Challenge::Http01 || !server.port80.is_empty();
        return both.into_iter().filter(open).collect();
    };
    if names.is_empty() {
        desk.fault("acme.challenges", "is empty: \"tls-alpn-01\", \"http-01\", or both");
    }
    let mut challenges = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let path = format!("acme.challenges[{n}]");
        match [Challenge::TlsAlpn01, Challenge::Http01].into_iter().find(|way| way.name() == name) {
            Some(way) if challenges.contains(&way) => desk.fault(path, format!("{name} is there twice")),
            Some(Challenge::Http01) if server.port80.is_empty() && !desk.told("acme.http") => {
                desk.fault(path, "http-01 is answered on port 80, and acme.http names no address");
            }
            Some(way) => challenges.push(way),
            None if name == "dns-01" => {
                desk.fault(path, "dns-01 is not supported: \"tls-alpn-01\" or \"http-01\"");
            }
            None => desk.fault(path, "must be \"tls-alpn-01\" or \"http-01\""),
        }
    }
    challenges
}

/// RFC 8555 section 7.3: a `mailto:` with one address and no header fields.
fn contact(raw: Option<Vec<String>>, desk: &mut Desk<'_>) -> Vec<String> {
    let address = |text: &str| {
        text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty())
            && text.bytes().all(|b| b.is_ascii_graphic() && b != b',' && b != b'?')
    };
    if let Some(given) = desk.variable(&["CODEX_ASR_ACME_EMAIL"]) {
        let email = given.value.strip_prefix("mailto:").unwrap_or(&given.value);
        if !address(email) {
            desk.fault(given.from, "must be one e-mail address");
        }
        return vec![format!("mailto:{email}")];
    }
    let contact = raw.unwrap_or_default();
    for (n, url) in contact.iter().enumerate() {
        if !url.strip_prefix("mailto:").is_some_and(address) {
            desk.fault(
                format!("acme.contact[{n}]"),
                "must be mailto: and one address, such as mailto:you@example.com",
            );
        }
    }
    contact
}

fn eab(raw: RawEab, desk: &mut Desk<'_>) -> Option<Eab> {
    let id = raw.key_id.filter(|id| !id.is_empty());
    let key = raw.hmac_key.filter(|key| !key.expose().is_empty());
    if id.is_none() && !desk.told("acme.eab.key_id") {
        desk.fault("acme.eab.key_id", "is missing: the CA gives key_id and hmac_key together");
    }
    if key.is_none() && !desk.told("acme.eab.hmac_key") {
        desk.fault("acme.eab.hmac_key", "is missing: the CA gives key_id and hmac_key together");
    }
    let (key_id, key) = id.zip(key)?;
    if key_id.chars().any(char::is_control) {
        desk.fault("acme.eab.key_id", "holds a control character");
    }
    match URL_SAFE_NO_PAD.decode(key.expose().trim().trim_end_matches('=')) {
        Ok(bytes) => Some(Eab { key_id, hmac_key: Secret::new(bytes) }),
        Err(_) => {
            desk.fault("acme.eab.hmac_key", "is not base64url (RFC 4648 section 5), as the CA gives it");
            None
        }
    }
}

/// Why nothing could be kept in a folder that is there or still to be made. Proved without leaving anything behind.
fn unkept(folder: &Path) -> Option<String> {
    let there =
        folder.ancestors().find(|path| path.as_os_str().is_empty() || path.symlink_metadata().is_ok())?;
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    if !there.is_dir() {
        return Some(format!("cannot be a folder: {} is a file", there.display()));
    }
    let error = tempfile::tempfile_in(there).err()?;
    let what = if there == folder { "keep files" } else { "make a folder" };
    Some(format!("cannot {what} in {}: {}", there.display(), error.kind()))
}
