//! What the operator asked for, checked before any port is bound.
//!
//! Three layers are laid over each other, the first that speaks wins: flags, environment variables, the TOML file;
//! then defaults. The file is read into its plain shape (`raw`), then checked into [`Config`]. Every fault of every
//! layer is reported at once, each with the key, flag or variable that holds it.
//!
//! Relative paths in the file are taken from the folder of the file, those in flags from the working directory.
//! `~/` means `$HOME/`.

mod acme;
mod check;
mod codex;
mod endpoint;
mod explain;
mod flags;
mod limits;
mod listen;
mod no_proxy;
mod raw;
mod read;
mod service;
mod tls;

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::CertificateDer;

use crate::accept::forwarded::Trust;
use crate::base::secret::Secret;

pub use acme::{AcmeSettings, Challenge, DirectoryUrl, Eab, Identifier, NameFault};
pub use endpoint::{Endpoint, Proxy, UrlFault};
pub use explain::explain;
pub use flags::{CodexFlags, ServeFlags};
pub use raw::{LogFormat, ServiceKind};

/// Everything the program runs by: checked, plain data.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[server]`: where to listen.
    pub server: Server,
    /// `[tls]`: certificate files of one's own.
    pub tls: Option<TlsFiles>,
    /// `[acme]`: the certificate to be ordered. With `server.https` there is this, `tls`, or both.
    pub acme: Option<AcmeSettings>,
    /// `[keys]`: who may call.
    pub keys: KeySource,
    /// `[codex]`: the upstream and the login it is called with.
    pub codex: Codex,
    /// `[limits]`: how much, how many, how long.
    pub limits: Limits,
    /// `[log]`: what is written down, and how.
    pub log: Log,
    /// `[[service]]`: services that exist already and are served beside Codex, in order of appearance.
    pub services: Vec<Service>,
    /// What is no fault, yet should be heard at start: one line each, no secrets.
    pub notices: Vec<String>,
}

/// `[server]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Plain HTTP addresses; may be empty when there is HTTPS. No two addresses in here are the same.
    pub http: Vec<SocketAddr>,
    /// HTTPS addresses. Unless empty there is a certificate: files, or one to be ordered.
    pub https: Vec<SocketAddr>,
    /// `acme.http`: where http-01 is answered and browsers are sent on to HTTPS. May stand beside certificate files too.
    pub port80: Vec<SocketAddr>,
    /// `max-age` of `Strict-Transport-Security` on HTTPS (RFC 6797 section 6.1.1), seconds; `None`: not sent.
    pub hsts: Option<u64>,
    /// Where `/live /ready /metrics /status` answer; `None`: nowhere.
    pub admin: Option<SocketAddr>,
    /// The proxies that are believed about whom they speak for: `trusted_proxies` and `client_header`.
    pub trust: Trust,
    /// Every connection from a trusted proxy begins with a PROXY protocol header, on plain and HTTPS addresses alike.
    pub proxy_protocol: bool,
    /// How long requests in flight may take to end after SIGTERM.
    pub drain: Duration,
    /// Where `serve --upgrade` asks for the listening sockets: a Unix socket in a folder of ours; `None`: nowhere.
    pub upgrade_socket: Option<PathBuf>,
}

/// `[tls]`: two PEM files. They could be opened; their content has not been looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by what it was issued by.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Where the callers' keys come from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// No key is needed. Every address is a loopback one.
    Open,
    /// The one key given by `--api-key` or `CODEX_ASR_SERVER_KEY`: printable ASCII without spaces.
    Single(Secret<String>),
    /// A file of hashed keys. It could be opened; its content has not been looked at.
    File(PathBuf),
}

/// `[codex]`
#[derive(Debug, Clone)]
pub struct Codex {
    /// Where transcriptions are sent.
    pub endpoint: Endpoint,
    /// Whether the endpoint may be spoken to without TLS although it is not on loopback.
    pub allow_plain_http: bool,
    /// Where the login comes from.
    pub login: LoginSource,
    /// `ChatGPT-Account-Id` when given by hand; else it is taken from the login. Marked sensitive.
    pub account: Option<HeaderValue>,
    /// The HTTP proxy on the way to the endpoint.
    pub proxy: Option<Proxy>,
    /// `User-Agent` sent upstream.
    pub user_agent: HeaderValue,
    /// `originator` sent upstream.
    pub originator: HeaderValue,
    /// Roots trusted for the upstream beside the system's; empty when none were named.
    pub ca_root: Vec<CertificateDer<'static>>,
    /// How long connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long a transcription may take upstream in all.
    pub request_timeout: Duration,
    /// How long the upstream may stay silent once it has the whole request. Never more than `request_timeout`.
    pub first_byte_timeout: Duration,
    /// How much longer both of these are for every MiB of audio; may be nothing.
    pub time_per_mib: Duration,
    /// The language of callers that name none: ASCII letters and hyphens, not yet normalised.
    pub language: Option<String>,
    /// Model names served beside OpenAI's own.
    pub models: Vec<String>,
    /// Whether a request must name a model.
    pub strict: bool,
}

/// Where the Codex login comes from.
#[derive(Debug, Clone)]
pub enum LoginSource {
    /// An access token, without the word `Bearer`; it can be sent in a header.
    Bearer(Secret<String>),
    /// Codex's `auth.json`; its content has not been looked at. It could be opened, unless it is the default one and
    /// there are services beside Codex: those are served without a login too.
    File(PathBuf),
}

/// `[limits]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Longest request body, bytes.
    pub max_upload: u64,
    /// How long the audio of one may play, where that is limited.
    pub max_duration: Option<Duration>,
    /// Transcriptions in flight at most; at least one.
    pub concurrency: usize,
    /// How many more may wait for their turn.
    pub queue: usize,
    /// How long one may wait for its turn.
    pub queue_wait: Duration,
    /// Where uploads without a length are kept once they outgrow memory; a folder that can be written to.
    pub spool_dir: PathBuf,
    /// How much may be kept there in all, bytes; 0 keeps nothing.
    pub spool_total: u64,
    /// From the connection (or the end of the last request) to the end of a request head that has begun.
    pub head_timeout: Duration,
    /// How long a body may stay silent between two reads.
    pub body_timeout: Duration,
    /// The fewest bytes of body in a minute of waiting for them; 0: as few as `body_timeout` lets through.
    pub body_floor: u64,
    /// How long a connection may stay open with nothing going on.
    pub idle_timeout: Duration,
    /// Requests served on one connection; then it is closed.
    pub requests_per_connection: u32,
    /// Connections at once; `None`: half as many as the system lets us have files.
    pub connections: Option<usize>,
    /// Connections at once from one address, or one IPv6 /64. Trusted proxies are not counted.
    pub connections_per_address: usize,
    /// Wrong and missing keys from one address, or one IPv6 /64, in a minute; 0: any number.
    pub failed_keys_per_minute: u32,
    /// Longest request head, bytes.
    pub max_head: usize,
    /// Longest request target, bytes.
    pub max_uri: usize,
    /// Parts in a form at most.
    pub parts: usize,
    /// Longest header block of a part, bytes.
    pub part_head: usize,
    /// Longest text field, bytes.
    pub field: usize,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Text for people, JSON for machines.
    pub format: LogFormat,
    /// A level (`info`), or `tracing_subscriber`'s directives (`info,asr_edge=debug`).
    pub level: String,
}

/// `[[service]]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name in logs and metrics: lower-case letters, digits and hyphens; no two the same.
    pub name: String,
    /// Where it is; the path is put before the request's own.
    pub url: Endpoint,
    /// What it speaks.
    pub kind: ServiceKind,
    /// Model names whose transcriptions go there.
    pub models: Vec<String>,
    /// Path prefixes whose requests go there unchanged; `/a` covers `/a` and all below it. Our own routes come first,
    /// but for the front page.
    pub paths: Vec<String>,
}

/// One thing that is wrong with the configuration, for the operator's eyes. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFault {
    /// Where it was given: a key path (`codex.endpoint`, `service[0].url`), a flag (`--port`), a variable, or the file.
    pub path: String,
    /// What is wrong, and what would be right.
    pub why: String,
}

/// One line: the names and values in it may hold anything, line ends included.
impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = [self.path.as_str(), ": ", self.why.as_str()];
        line.into_iter().flat_map(str::chars).try_for_each(|character| match character.is_control() {
            true => write!(f, "{}", character.escape_default()),
            false => f.write_char(character),
        })
    }
}

impl std::error::Error for ConfigFault {}

impl Config {
    /// Lays flags over variables over the file over defaults, and checks the lot.
    ///
    /// `env` looks a variable up; empty ones count as unset. Reads the file named by `--config` and the CA files,
    /// looks whether key file, login, certificate files, spool and state folder can be used; binds and changes nothing.
    ///
    /// # Errors
    /// Every fault found. A file that is no TOML hides the others: what it would have said is not known.
    pub fn load(flags: &ServeFlags, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<ConfigFault>> {
        let (raw, faults) = match &flags.config {
            Some(path) => read::file(path)?,
            None => Default::default(),
        };
        check::check(raw, faults, flags, env)
    }

    /// The same for one transcription without a server: of the file nothing counts but `[codex]` and `[limits]`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_upstream(
        file: Option<&Path>,
        flags: &CodexFlags,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Vec<ConfigFault>> {
        let (raw, faults) = file.map_or_else(|| Ok(Default::default()), read::file)?;
        let raw = raw::Raw { codex: raw.codex, limits: raw.limits, ..Default::default() };
        let flags = ServeFlags {
            config: file.map(Path::to_path_buf),
            no_api_key: true,
            codex: flags.clone(),
            ..ServeFlags::default()
        };
        let env = |name: &str| (name != acme::DOMAIN).then(|| env(name)).flatten();
        check::check(raw, faults, &flags, &env)
    }

    /// The same for looking at requests that nobody sends: of the file nothing counts but `[limits]`, `[[service]]`, and
    /// language, models and strictness of `[codex]`. Login, keys, proxy and spool need not be there.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_offline(file: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Self, Vec<ConfigFault>> {
        let (raw, faults) = read::file(file)?;
        let raw::RawCodex { language, models, strict, .. } = raw.codex;
        let codex = raw::RawCodex { language, models, strict, ..Default::default() };
        let limits = raw::RawLimits { spool_dir: None, spool_total: Some(raw::Size(0)), ..raw.limits };
        let raw = raw::Raw { codex, limits, service: raw.service, ..Default::default() };
        let none = CodexFlags { bearer: Some(Secret::new("none".to_owned())), ..CodexFlags::default() };
        let flags = ServeFlags {
            config: Some(file.to_path_buf()),
            no_api_key: true,
            codex: none,
            ..ServeFlags::default()
        };
        let env = |name: &str| limits::VARIABLES.contains(&name).then(|| env(name)).flatten();
        check::check(raw, faults, &flags, &env)
    }
}
