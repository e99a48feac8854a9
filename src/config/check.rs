//! From what was written to what it means: `[keys]` and `[log]` here, the others in their own files.
//!
//! A value at fault is reported and its default taken in its place, so that the check goes on to the end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::raw::{Period, Raw, RawKeys, RawLog};
use super::{
    Config, ConfigFault, KeySource, Log, ServeFlags, Server, acme, codex, limits, listen, service, tls,
};
use crate::base::secret::Secret;

/// No time in the config is longer: sums with the clock stay far from overflow.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// Checks the lot; `faults` are those the file already has.
pub(super) fn check(
    raw: Raw,
    faults: Vec<ConfigFault>,
    flags: &ServeFlags,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, Vec<ConfigFault>> {
    let folder =
        flags.config.as_deref().and_then(Path::parent).unwrap_or_else(|| Path::new("")).to_path_buf();
    let mut desk = Desk { env, folder, faults, notices: Vec::new() };
    let names = acme::by_variable(&desk);
    let ordered = acme::wanted(&raw.acme, names.is_some(), raw.tls.is_some());
    let public = listen::Public { by_variable: names.is_some(), acme: ordered };
    let Raw { server, tls, mut acme, keys, codex, limits, log, service } = raw;
    let server = listen::check(server, acme.http.take(), &public, flags, &mut desk);
    let tls = tls.map(|raw| tls::check(raw, &server, &mut desk));
    let acme = ordered.then(|| acme::check(acme, names, &server, &mut desk));
    if !server.https.is_empty()
        && tls.is_none()
        && acme.is_none()
        && !["tls", "acme"].iter().any(|room| desk.told(room))
    {
        desk.fault(
            "server.https",
            "has no certificate to show: give [tls] files, or [acme] to have one ordered",
        );
    }
    let keys = self::keys(keys, flags, &server, &mut desk);
    let codex = codex::check(codex, &flags.codex, !service.is_empty(), &mut desk);
    let limits = limits::check(limits, flags, &mut desk);
    let log = self::log(log, flags, &mut desk);
    let services = service::check(service, &codex, &mut desk);
    let Desk { faults, notices, .. } = desk;
    if faults.is_empty() {
        Ok(Config { server, tls, acme, keys, codex, limits, log, services, notices })
    } else {
        Err(faults)
    }
}

/// What every check needs at hand: the environment, where relative paths begin, and where faults go.
pub(super) struct Desk<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    folder: PathBuf,
    pub(super) faults: Vec<ConfigFault>,
    notices: Vec<String>,
}

/// A value, and the flag, variable or key it came from.
pub(super) struct Given<T> {
    pub(super) from: &'static str,
    pub(super) value: T,
}

impl Desk<'_> {
    /// Writes a fault down.
    pub(super) fn fault(&mut self, path: impl Into<String>, why: impl Into<String>) {
        self.faults.push(ConfigFault { path: path.into(), why: why.into() });
    }

    /// Writes down what is no fault, yet should be heard.
    pub(super) fn notice(&mut self, line: String) {
        self.notices.push(line);
    }

    /// Whether there is a fault at this path or below it already: a value of the wrong type is missing later on.
    pub(super) fn told(&self, path: &str) -> bool {
        let below = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.faults.iter().any(|fault| fault.path.strip_prefix(path).is_some_and(below))
    }

    /// The first of the variables that is set and not empty, without surrounding space.
    pub(super) fn variable(&self, names: &[&'static str]) -> Option<Given<String>> {
        names.iter().find_map(|name| {
            let text = (self.env)(name)?;
            let text = text.trim();
            (!text.is_empty()).then(|| Given { from: name, value: text.to_owned() })
        })
    }

    /// A whole number of one or more, given by flag or variable.
    pub(super) fn number(
        &mut self,
        flag: (&'static str, Option<&String>),
        variables: &[&'static str],
    ) -> Option<Given<u64>> {
        let given = match flag {
            (from, Some(text)) => Given { from, value: text.trim().to_owned() },
            (_, None) => self.variable(variables)?,
        };
        match given.value.parse() {
            Ok(value) if value > 0 => Some(Given { from: given.from, value }),
            _ => {
                self.fault(given.from, "must be a whole number, 1 or more");
                None
            }
        }
    }

    /// A time above zero and of a day at most, or its default.
    pub(super) fn period(
        &mut self,
        path: &'static str,
        given: Option<Period>,
        default: Duration,
    ) -> Duration {
        match given {
            None => default,
            Some(Period(time)) if !time.is_zero() && time <= LONGEST => time,
            Some(_) => {
                self.fault(path, "must be longer than nothing and 24h at most");
                default
            }
        }
    }

    /// A path from the file: `~/` is the home folder, relative ones begin at the file.
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        match (path.strip_prefix("~"), (self.env)("HOME")) {
            (Ok(rest), Some(home)) => Path::new(&home).join(rest),
            _ => self.folder.join(path),
        }
    }
}

/// Whether a file can be opened for reading; if not, why.
pub(super) fn unreadable(path: &Path) -> Option<String> {
    let why = match path.metadata() {
        Ok(meta) if meta.is_dir() => "it is a folder".to_owned(),
        // A pipe would wait for its writer here.
        Ok(meta) if !meta.is_file() => return None,
        Ok(_) => File::open(path).err()?.to_string(),
        Err(error) => error.to_string(),
    };
    Some(format!("cannot read {}: {why}", path.display()))
}

fn keys(raw: RawKeys, flags: &ServeFlags, server: &Server, desk: &mut Desk<'_>) -> KeySource {
    if flags.no_api_key {
        if flags.api_key.is_some() {
            desk.fault("--no-api-key", "contradicts --api-key; give one of them");
        }
        return open("--no-api-key", server, desk);
    }
    let flag =
        flags.api_key.as_ref().map(|key| Given { from: "--api-key", value: key.expose().trim().to_owned() });
    if let Some(key) = flag.or_else(|| desk.variable(&["CODEX_ASR_SERVER_KEY"])) {
        if key.value.is_empty() || !key.value.bytes().all(|b| b.is_ascii_graphic()) {
            desk.fault(key.from, "must be printable ASCII without spaces, and not empty");
        }
        return KeySource::Single(Secret::new(key.value));
    }
    match (raw.file, raw.required) {
        (Some(_), Some(false)) => {
            desk.fault("keys.required", "is false, yet keys.file names a key file; drop one of them");
            KeySource::Open
        }
        (Some(file), _) => {
            let path = desk.path(&file);
            if let Some(why) = unreadable(&path) {
                let make = format!("asr-edge key new --name NAME --file {}", path.display());
                desk.fault("keys.file", format!("{why}; make one with `{make}`"));
            }
            KeySource::File(path)
        }
        (None, Some(false)) => open("keys.required", server, desk),
        (None, _) => {
            // A key path that is misspelt has been told already.
            if !desk.faults.iter().any(|fault| fault.path.starts_with("keys")) {
                desk.fault(
                    "--api-key",
                    "no key is given: use --api-key, CODEX_ASR_SERVER_KEY or keys.file, or say --no-api-key \
                     (loopback only)",
                );
            }
            KeySource::Open
        }
    }
}

/// Serving without a key lends the login to whoever can connect: only this machine may.
fn open(from: &'static str, server: &Server, desk: &mut Desk<'_>) -> KeySource {
    let mut addresses = server.http.iter().chain(&server.https);
    if let Some(public) = addresses.find(|address| !address.ip().to_canonical().is_loopback()) {
        desk.fault(
            from,
            format!("refused: {public} is not a loopback address, anybody who can reach it could use the login; give a key"),
        );
    }
    KeySource::Open
}

fn log(raw: RawLog, flags: &ServeFlags, desk: &mut Desk<'_>) -> Log {
    let given = match (&flags.log_level, raw.level) {
        (Some(level), _) => Given { from: "--log-level", value: level.clone() },
        (None, level) => Given { from: "log.level", value: level.unwrap_or_else(|| "info".to_owned()) },
    };
    let level = given.value;
    // A lone word that is no level would be taken for the name of a target, and silence everything else.
    let lone = !level.contains(['=', ',', '[']);
    let known =
        ["off", "error", "warn", "info", "debug", "trace"].contains(&level.to_ascii_lowercase().as_str());
    if (lone && !known) || EnvFilter::try_new(&level).is_err() {
        desk.fault(
            given.from,
            "must be off, error, warn, info, debug or trace, or directives such as info,asr_edge=debug",
        );
    }
    Log { format: flags.log_format.unwrap_or(raw.format), level }
}
