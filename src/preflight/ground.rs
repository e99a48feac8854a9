//! What lies on this machine: the state folder, the login, the keys.

use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::Finding;
use crate::authenticate::{Keys, Sources};
use crate::base::{clock, file};
use crate::config::{AcmeSettings, Config, KeySource, LoginSource};
use crate::upstream::credential::{Credential, LoginFault, Source};

/// As much as an account, a key and a chain take together.
const PROBE: usize = 10 * 1024;
/// Codex renews its login days ahead; nearer than this nobody seems to use it.
const SOON: Duration = Duration::from_secs(2 * 24 * 60 * 60);
const DAY: u64 = 24 * 60 * 60;

/// Writes a probe, reads it back and removes it. A folder that is not there yet is not made: its owner would be whoever
/// runs the check.
pub(super) fn storage(acme: &AcmeSettings) -> Finding {
    let subject = format!("storage {}", acme.state.display());
    let Some(there) = acme.state.ancestors().find(|folder| folder.is_dir()) else {
        return Finding::fail(subject, "no folder above it exists");
    };
    match probe(there) {
        Err(error) => Finding::fail(
            subject,
            format!("nothing can be kept in {} ({error}): orders would be lost", there.display()),
        ),
        Ok(()) if there != acme.state => Finding::pass(
            subject,
            format!("will be made: {} can be written to by this user", there.display()),
        ),
        Ok(()) if file::open_to_others(there) => Finding::warn(
            subject,
            format!("can be written to, but others may look in: chmod 700 {}", there.display()),
        ),
        Ok(()) => Finding::pass(subject, "can be written to by this user"),
    }
}

fn probe(folder: &Path) -> io::Result<()> {
    let mut probe = tempfile::NamedTempFile::new_in(folder)?;
    probe.write_all(&[b'.'; PROBE])?;
    probe.as_file().sync_all()?;
    probe.rewind()?;
    let mut back = Vec::new();
    probe.read_to_end(&mut back)?;
    if back.len() != PROBE || back.iter().any(|byte| *byte != b'.') {
        return Err(io::Error::other("what was written does not come back"));
    }
    probe.close()
}

/// Whether there is a login that can be sent, and for how long.
pub(super) fn login(config: &Config) -> Finding {
    let (source, file) = match &config.codex.login {
        LoginSource::Bearer(token) => (Source::Bearer { token: token.clone(), account: None }, None),
        LoginSource::File(path) => (Source::File { path: path.clone(), account: None }, Some(path)),
    };
    let credential = Credential::new(source);
    match credential.current() {
        // Those who come for the other services need none.
        Err(LoginFault::Missing) if !config.services.is_empty() => {
            Finding::warn("login", format!("{}; only the other services will work", LoginFault::Missing))
        }
        Err(fault) => Finding::fail("login", fault.to_string()),
        Ok(_) if file.is_some_and(|path| file::open_to_others(path)) => Finding::warn(
            "login",
            format!("{}; others may read the file: chmod 600 it", left(credential.expires()).detail),
        ),
        Ok(_) => left(credential.expires()),
    }
}

fn left(expires: Option<SystemTime>) -> Finding {
    let Some(at) = expires else {
        return Finding::pass("login", "is there; it does not say when it ends");
    };
    let left = at.duration_since(clock::now()).unwrap_or_default();
    let days = left.as_secs() / DAY;
    if left < SOON {
        let hours = left.as_secs() / 3600;
        return Finding::warn(
            "login",
            format!("ends in {hours} hours: use Codex once on the machine that keeps it"),
        );
    }
    Finding::pass("login", format!("ends in {days} days"))
}

/// Whether anybody could come in.
pub(super) fn keys(source: &KeySource) -> Finding {
    let sources = match source {
        KeySource::Open => return Finding::pass("keys", "none needed: loopback only"),
        KeySource::Single(key) => Sources { key: Some(key.clone()), file: None },
        KeySource::File(path) => Sources { key: None, file: Some(path.clone()) },
    };
    match Keys::new(sources).map(|keys| keys.count(clock::now())) {
        Err(fault) => Finding::fail("keys", fault.to_string()),
        Ok(0) => Finding::fail("keys", "none is taken: make one with `asr-edge key new`"),
        Ok(1) => Finding::pass("keys", "1 is taken"),
        Ok(count) => Finding::pass("keys", format!("{count} are taken")),
    }
}
