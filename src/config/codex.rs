//! `[codex]`: the upstream, the login, the way there.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::HeaderValue;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::check::{Desk, Given, unreadable};
use super::raw::{Period, RawCodex};
use super::{Codex, CodexFlags, Endpoint, LoginSource, Proxy, no_proxy, read};
use crate::base::secret::Secret;

/// Codex's own, `contract: codex-upstream.md` section 1.
const ENDPOINT: &str = "https://chatgpt.com/backend-api/transcribe";
/// What codex-asr sends: the set the endpoint is known to take.
const ORIGINATOR: &str = "Codex Desktop";
const DESKTOP_VERSION: &str = "26.429.30905";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// An hour of speech at 64 kbit/s has 28 MiB: two minutes more.
const TIME_PER_MIB: Duration = Duration::from_secs(4);
/// Longer means nothing, and sums stay far from overflow.
const LONGEST_PER_MIB: Duration = Duration::from_secs(600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Why plain HTTP is refused off loopback: the login would be readable on the way.
const PLAIN_HTTP: &str = "would send the login in the clear; use https://, or set codex.allow_plain_http = true \
     if the network in between is yours alone";

/// Checks `[codex]`. With `services` there may be callers enough without a Codex login.
pub(super) fn check(raw: RawCodex, flags: &CodexFlags, services: bool, desk: &mut Desk<'_>) -> Codex {
    let allow_plain_http = raw.allow_plain_http.unwrap_or(false);
    let endpoint = endpoint(raw.endpoint, flags, allow_plain_http, desk);
    let proxy = proxy(raw.proxy, flags, &endpoint, desk);
    let login = login(raw.bearer, raw.auth_file, flags, services, desk);
    let account = match (&flags.account_id, raw.account_id) {
        (Some(id), _) => account("--account-id", id, desk),
        (None, Some(id)) => account("codex.account_id", &id, desk),
        (None, None) => None,
    };
    let ca_root = match (&flags.ca_root, raw.ca_root) {
        (Some(path), _) => roots("--ca-root", path, desk),
        (None, Some(path)) => roots("codex.ca_root", &desk.path(&path), desk),
        (None, None) => Vec::new(),
    };

    let seconds = ("--request-timeout-seconds", flags.request_timeout_seconds.as_ref());
    let variables = ["CODEX_ASR_REQUEST_TIMEOUT_SECONDS", "CODEX_ASR_TIMEOUT_SECONDS"];
    let request_timeout =
        timeout(seconds, &variables, ("codex.request_timeout", raw.request_timeout), REQUEST_TIMEOUT, desk);
    let seconds = ("--connect-timeout-seconds", flags.connect_timeout_seconds.as_ref());
    let variables = ["CODEX_ASR_CONNECT_TIMEOUT_SECONDS"];
    let connect_timeout =
        timeout(seconds, &variables, ("codex.connect_timeout", raw.connect_timeout), CONNECT_TIMEOUT, desk);
    let first_byte_timeout =
        desk.period("codex.first_byte_timeout", raw.first_byte_timeout, request_timeout).min(request_timeout);

    // Unlike the other times, 0 is fine here.
    let time_per_mib = match raw.time_per_mib {
        Some(Period(time)) if time.is_zero() => time,
        given => desk.period("codex.time_per_mib", given, TIME_PER_MIB).min(LONGEST_PER_MIB),
    };

    let language = match (&flags.language, raw.language) {
        (Some(text), _) => language("--language", text, desk),
        (None, Some(text)) => language("codex.language", &text, desk),
        (None, None) => None,
    };
    let models = raw.models.unwrap_or_default();
    models_checked("codex.models", &models, desk);

    let default_agent =
        format!("{ORIGINATOR}/{DESKTOP_VERSION} ({}; {})", std::env::consts::OS, std::env::consts::ARCH);
    Codex {
        endpoint,
        allow_plain_http,
        login,
        account,
        proxy,
        user_agent: header("codex.user_agent", &raw.user_agent.unwrap_or(default_agent), desk),
        originator: header("codex.originator", raw.originator.as_deref().unwrap_or(ORIGINATOR), desk),
        ca_root,
        connect_timeout,
        request_timeout,
        first_byte_timeout,
        time_per_mib,
        language,
        models,
        strict: raw.strict.unwrap_or(false),
    }
}

/// Model names: visible ASCII of 128 characters at most, no two the same.
pub(super) fn models_checked(path: &str, models: &[String], desk: &mut Desk<'_>) {
    for (n, name) in models.iter().enumerate() {
        if name.is_empty() || name.len() > 128 || !name.bytes().all(|b| b.is_ascii_graphic()) {
            desk.fault(format!("{path}[{n}]"), "must be 1 to 128 printable ASCII characters without spaces");
        } else if models.iter().take(n).any(|earlier| earlier == name) {
            desk.fault(format!("{path}[{n}]"), format!("`{name}` is there twice"));
        }
    }
}

fn endpoint(raw: Option<String>, flags: &CodexFlags, plain: bool, desk: &mut Desk<'_>) -> Endpoint {
    let given = match (&flags.endpoint, raw) {
        (Some(url), _) => Given { from: "--endpoint", value: url.clone() },
        (None, Some(value)) => Given { from: "codex.endpoint", value },
        (None, None) => Given { from: "codex.endpoint", value: ENDPOINT.to_owned() },
    };
    let mut endpoint = match Endpoint::parse(given.value.trim()) {
        Ok(endpoint) => endpoint,
        Err(why) => {
            desk.fault(given.from, why.to_string());
            // Never used, since there is a fault; loopback, so that no other check stumbles over it.
            return Endpoint { tls: true, host: "localhost".to_owned(), port: 443, path: "/".to_owned() };
        }
    };
    // Codex's base URL is taken for what Codex makes of it (`contract: codex-upstream.md` section 1).
    let ours = ["chatgpt.com", "chat.openai.com"].contains(&endpoint.host.as_str());
    let path = endpoint.path.trim_end_matches('/');
    if path.is_empty() && ours {
        endpoint.path = "/backend-api/transcribe".to_owned();
    } else if path.ends_with("/backend-api") {
        endpoint.path = format!("{path}/transcribe");
    }
    if !endpoint.tls && !endpoint.is_loopback() && !plain {
        desk.fault(given.from, PLAIN_HTTP);
    }
    endpoint
}

/// The flag, `CODEX_ASR_PROXY`, the file; else the system-wide variables as codex-asr takes them: for an `https`
/// endpoint. Those do not speak of this machine, nor of what `NO_PROXY` names.
fn proxy(
    raw: Option<Secret<String>>,
    flags: &CodexFlags,
    endpoint: &Endpoint,
    desk: &mut Desk<'_>,
) -> Option<Proxy> {
    let flag =
        flags.proxy.as_ref().map(|url| Given { from: "--proxy", value: url.expose().trim().to_owned() });
    let given = flag
        .filter(|given| !given.value.is_empty())
        .or_else(|| desk.variable(&["CODEX_ASR_PROXY", "CODEX_VOICE_PROXY"]))
        .or_else(|| raw.map(|url| Given { from: "codex.proxy", value: url.expose().trim().to_owned() }))
        .or_else(|| {
            let exempt = desk
                .variable(&["NO_PROXY", "no_proxy"])
                .is_some_and(|list| no_proxy::names(&list.value, endpoint));
            let meant = endpoint.tls && !endpoint.is_loopback() && !exempt;
            meant.then(|| desk.variable(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])).flatten()
        })?;
    match Proxy::parse(&given.value) {
        Ok(proxy) => Some(proxy),
        Err(why) => {
            desk.fault(given.from, why.to_string());
            None
        }
    }
}

/// By layer; within one, a token wins over a file, as codex-asr has it.
fn login(
    raw_bearer: Option<Secret<String>>,
    raw_file: Option<PathBuf>,
    flags: &CodexFlags,
    services: bool,
    desk: &mut Desk<'_>,
) -> LoginSource {
    if let Some(token) = &flags.bearer {
        return bearer("--bearer", token.expose(), desk);
    }
    if let Some(path) = &flags.auth_file {
        return auth_file("--auth-file", path.clone(), desk);
    }
    if let Some(token) = desk.variable(&["CODEX_ASR_BEARER"]) {
        return bearer(token.from, &token.value, desk);
    }
    if let Some(path) = desk.variable(&["CODEX_ASR_AUTH_FILE"]) {
        return auth_file(path.from, path.value.into(), desk);
    }
    match (raw_bearer, raw_file) {
        (Some(token), None) => return bearer("codex.bearer", token.expose(), desk),
        (None, Some(path)) => return auth_file("codex.auth_file", desk.path(&path), desk),
        (Some(token), Some(_)) => {
            desk.fault("codex.bearer", "is given beside codex.auth_file; drop one of them");
            return LoginSource::Bearer(token);
        }
        (None, None) => {}
    }
    let home = match desk.variable(&["CODEX_HOME"]) {
        Some(home) => PathBuf::from(home.value),
        None => desk.variable(&["HOME"]).map_or_else(PathBuf::new, |home| home.value.into()).join(".codex"),
    };
    let path = home.join("auth.json");
    // A login key that is misspelt has been told already.
    let told =
        ["codex.auth", "codex.bearer"].iter().any(|key| desk.faults.iter().any(|f| f.path.starts_with(key)));
    if services || told {
        return LoginSource::File(path);
    }
    auth_file("codex.auth_file", path, desk)
}

fn bearer(from: &'static str, text: &str, desk: &mut Desk<'_>) -> LoginSource {
    let text = text.trim();
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let token = if word.eq_ignore_ascii_case("bearer") { rest.trim() } else { text };
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
        desk.fault(from, "is no access token: it must be printable ASCII without spaces, and not empty");
    }
    LoginSource::Bearer(Secret::new(token.to_owned()))
}

fn auth_file(from: &'static str, path: PathBuf, desk: &mut Desk<'_>) -> LoginSource {
    if let Some(why) = unreadable(&path) {
        desk.fault(
            from,
            format!(
                "{why}; log in with `codex login` (with cli_auth_credentials_store = \"file\": a keyring cannot be read), \
                 or give --auth-file or --bearer"
            ),
        );
    }
    LoginSource::File(path)
}

fn account(from: &'static str, id: &str, desk: &mut Desk<'_>) -> Option<HeaderValue> {
    let id = id.trim();
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_graphic()) {
        desk.fault(from, "must be printable ASCII without spaces, and not empty");
        return None;
    }
    let mut value = HeaderValue::from_str(id).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn header(from: &'static str, text: &str, desk: &mut Desk<'_>) -> HeaderValue {
    let plain = text.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
    match HeaderValue::from_str(text.trim()) {
        Ok(value) if plain && !value.is_empty() => value,
        _ => {
            desk.fault(from, "must be printable ASCII, and not empty: it is sent as a header");
            HeaderValue::from_static(ORIGINATOR)
        }
    }
}

fn timeout(
    flag: (&'static str, Option<&String>),
    variables: &[&'static str],
    (path, file): (&'static str, Option<Period>),
    default: Duration,
    desk: &mut Desk<'_>,
) -> Duration {
    // The file's value is checked even where another one wins: a fault in it stays a fault.
    let file = desk.period(path, file, default);
    match desk.number(flag, variables) {
        Some(given) => desk.period(given.from, Some(Period(Duration::from_secs(given.value))), default),
        None => file,
    }
}

/// The shape of a language tag (RFC 5646 section 2.1) or an English name; what it means, `translate` knows.
fn language(from: &'static str, text: &str, desk: &mut Desk<'_>) -> Option<String> {
    let text = text.trim();
    if text.len() > 35 || !text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-' || b == b'_') {
        desk.fault(from, "must be a language such as en, zh or en-US");
    }
    (!text.is_empty()).then(|| text.to_owned())
}

/// The certificates of a PEM file, each fit to be a root.
pub(super) fn roots(from: &'static str, path: &Path, desk: &mut Desk<'_>) -> Vec<CertificateDer<'static>> {
    let bytes = match read::bounded(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            desk.fault(from, format!("cannot read {}: {error}", path.display()));
            return Vec::new();
        }
    };
    let Ok(certificates) = CertificateDer::pem_slice_iter(&bytes).collect::<Result<Vec<_>, _>>() else {
        desk.fault(from, format!("{} is not PEM", path.display()));
        return Vec::new();
    };
    if certificates.is_empty() {
        desk.fault(from, format!("{} holds no certificate", path.display()));
    }
    let mut store = RootCertStore::empty();
    for (n, certificate) in certificates.iter().enumerate() {
        if store.add(certificate.clone()).is_err() {
            desk.fault(from, format!("certificate {} in {} cannot be a root", n + 1, path.display()));
        }
    }
    certificates
}
