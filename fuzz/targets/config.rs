//! The config file, whatever it holds, under some flags and variables.
//!
//! Any text gives settings or a list of faults, the same ones every time. A fault is one line. Its place is the file
//! where the file is no TOML, else a flag or variable, a key that stands in the file, or one that `conf/*.toml` shows
//! and the file lacks. Nothing that is shown, be it a fault, a notice, an explanation or a `Debug`, holds a token, a
//! proxy's password or an ACME key of the file; of what is no TOML, it holds no value at all. Settings that are
//! accepted never serve without a key off loopback, HTTPS without a certificate, two listeners on one address or a
//! login in the clear, and keep to their limits.
//!
//! Input: a byte of flags (see `flags`), and the file, in which `PLANTED` stands for a secret.

#![no_main]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use asr_edge_fuzz::base::file;
use asr_edge_fuzz::base::secret::Secret;
use asr_edge_fuzz::choices::plant;
use asr_edge_fuzz::config::{
    Challenge, Codex, Config, ConfigFault, Endpoint, KeySource, Proxy, ServeFlags, Service, explain,
};
use libfuzzer_sys::{Corpus, fuzz_target};
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

/// Fit for a token, a password in a URL, and base64url.
const SECRET: &str = "Pl4nt-7Qx9vLw2ZkT5b0";
/// Beside files that there are: the examples.
const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/fuzzed.toml");
const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../conf/ca.pem");
const BROKEN_CA: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
const DAY: Duration = Duration::from_secs(86_400);

/// Every key that the examples show, commented out or not.
static KNOWN: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let mut known = BTreeSet::new();
    for text in [
        include_str!("../../conf/local.toml"),
        include_str!("../../conf/public.toml"),
        include_str!("../../conf/sidecar.toml"),
    ] {
        let mut section = String::new();
        for line in text.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)) {
            let name =
                |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || b"_.".contains(&byte));
            if let Some(table) = line.strip_prefix('[') {
                section = table.trim_matches(['[', ']']).to_owned();
            } else if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| name(key)) {
                known.insert(format!("{section}.{key}"));
            }
        }
    }
    known
});

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((bits, text)) = input.split_first() else { return Corpus::Reject };
    let text = plant(text, SECRET.as_bytes());
    file::put(FILE, text.as_slice());
    file::put(CA, BROKEN_CA);
    let (flags, variables) = flags(*bits);
    let env =
        |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let table = std::str::from_utf8(&text).ok().and_then(|text| DeTable::parse(text).ok());
    let table = table.map(|table| of_table(table.get_ref()));

    let found = Config::load(&flags, &env);
    assert_eq!(format!("{found:?}"), format!("{:?}", Config::load(&flags, &env)), "another outcome");
    let upstream = Config::load_upstream(Some(Path::new(FILE)), &flags.codex, &env);
    for found in [&found, &upstream] {
        let mut shown = Vec::new();
        match found {
            Ok(config) => {
                check(config);
                assert!(table.as_ref().is_some_and(has_tables), "a section that is no table was read");
                shown.extend(explain(config));
                shown.extend(config.notices.clone());
                shown.push(format!("{config:?}"));
            }
            Err(faults) => {
                assert!(!faults.is_empty());
                for fault in faults {
                    placed(fault, table.as_ref(), &variables);
                    shown.push(fault.to_string());
                }
            }
        }
        let elsewhere =
            table.as_ref().is_some_and(|table| public_words(table).iter().any(|word| leaks(word)));
        let leak = shown.iter().find(|line| leaks(line));
        assert!(elsewhere || leak.is_none(), "{leak:?}");
    }
    Corpus::Keep
});

/// The file as TOML's grammar has it: there, a number may be too large for any.
fn of_table(table: &DeTable<'_>) -> Table {
    table.iter().map(|(name, value)| (name.get_ref().to_string(), of_value(value.get_ref()))).collect()
}

fn of_value(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| of_value(item.get_ref())).collect()),
        DeValue::Table(table) => Value::Table(of_table(table)),
        DeValue::Integer(number) => Value::Integer(number.as_str().parse().unwrap_or(0)),
        _ => Value::Boolean(false),
    }
}

/// Whether what the examples show as a section is a table, or a list of tables where they show that.
fn has_tables(table: &Table) -> bool {
    let is_table = |value: &Value| match value {
        Value::Table(table) => table.get("eab").is_none_or(Value::is_table),
        _ => false,
    };
    table.iter().all(|(section, value)| match value {
        Value::Array(items) if section == "service" => items.iter().all(is_table),
        value => is_table(value),
    })
}

type Variables = Vec<(&'static str, &'static str)>;

/// No key is asked for, or one is given, or neither; the domain; a public address; a token; a home; a proxy; a time.
fn flags(bits: u8) -> (ServeFlags, Variables) {
    let bit = |bit: u8| bits >> bit & 1 == 1;
    let mut flags =
        ServeFlags { config: Some(FILE.into()), no_api_key: bits & 3 == 1, ..ServeFlags::default() };
    let mut variables = Variables::new();
    if bits & 3 == 2 {
        variables.push(("CODEX_ASR_SERVER_KEY", "sk-given"));
    }
    if bit(2) {
        variables.push(("CODEX_ASR_DOMAIN", "asr.example.com, 203.0.113.7"));
    }
    if bit(3) {
        flags.host = Some("0.0.0.0".to_owned());
    }
    if bit(4) {
        flags.codex.bearer = Some(Secret::new("given".to_owned()));
    }
    if bit(5) {
        variables.push(("HOME", "/nonexistent"));
    }
    if bit(6) {
        variables.push(("HTTPS_PROXY", "http://u:p@proxy.example.com:3128"));
    }
    if bit(7) {
        variables.push(("CODEX_ASR_REQUEST_TIMEOUT_SECONDS", "9999999"));
    }
    (flags, variables)
}

/// Whether twelve bytes of the secret can be seen.
fn leaks(shown: &str) -> bool {
    (0..=SECRET.len() - 12).any(|at| shown.contains(&SECRET[at..at + 12]))
}

/// All names and strings but the secrets: `codex.bearer`, `codex.proxy` as far as it is no host, `acme.eab.hmac_key`.
fn public_words(table: &Table) -> Vec<String> {
    let mut table = table.clone();
    if let Some(codex) = table.get_mut("codex").and_then(Value::as_table_mut) {
        codex.remove("bearer");
        if let Some(Value::String(url)) = codex.get_mut("proxy") {
            *url = url.rsplit_once('@').map_or(url.as_str(), |(_, host)| host).to_owned();
        } else {
            codex.remove("proxy");
        }
    }
    if let Some(acme) = table.get_mut("acme").and_then(Value::as_table_mut)
        && let Some(eab) = acme.get_mut("eab").and_then(Value::as_table_mut)
    {
        eab.remove("hmac_key");
    }
    let mut found = Vec::new();
    words(&Value::Table(table), &mut found);
    found
}

fn words(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| words(item, found)),
        Value::Table(table) => table.iter().for_each(|(name, value)| {
            found.push(name.clone());
            words(value, found);
        }),
        _ => {}
    }
}

fn placed(fault: &ConfigFault, table: Option<&Table>, variables: &Variables) {
    let ConfigFault { path, why } = fault;
    assert!(!path.is_empty() && !why.is_empty(), "{fault:?}");
    assert!(!fault.to_string().contains(char::is_control), "{fault:?} is not one line");
    let Some(table) = table else {
        return assert_eq!(path, FILE, "{fault}: the file is no TOML");
    };
    // A token of digits, without its quotes.
    let secret = match path.split_once('.') {
        Some(("codex", name @ ("bearer" | "proxy"))) => table.get("codex").and_then(|codex| codex.get(name)),
        Some(("acme", "eab.hmac_key")) => table.get("acme").and_then(|acme| acme.get("eab")?.get("hmac_key")),
        _ => None,
    };
    if let Some(number) = secret.and_then(Value::as_integer).filter(|number| *number > 99_999) {
        assert!(!why.contains(&number.to_string()), "{fault}");
    }
    let flag = ["--no-api-key", "--api-key", "--port", "--host", "--bearer"].contains(&path.as_str());
    let variable = variables.iter().any(|(name, _)| name == path);
    // `service[1].url` is shown as `service.url`.
    let mut parts = path.split('[');
    let first = parts.next().unwrap_or_default();
    let plain = parts
        .fold(first.to_owned(), |plain, part| plain + part.split_once(']').map_or(part, |(_, rest)| rest));
    let lacking = KNOWN.contains(&plain) || ["service", "tls", "acme"].contains(&plain.as_str());
    assert!(flag || variable || lacking || stands(table, path), "{fault}: no such place");
}

/// Whether there is something at this path. Names hold whatever they hold, dots and brackets too; no name is shown as "".
fn stands(table: &Table, path: &str) -> bool {
    table.iter().any(|(name, value)| {
        let name = if name.is_empty() { "\"\"" } else { name };
        path.strip_prefix(name).is_some_and(|rest| below(value, rest))
    })
}

fn below(value: &Value, rest: &str) -> bool {
    rest.is_empty()
        || match value {
            Value::Table(table) => rest.strip_prefix('.').is_some_and(|rest| stands(table, rest)),
            Value::Array(items) => {
                rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).is_some_and(|(number, rest)| {
                    number
                        .parse::<usize>()
                        .ok()
                        .and_then(|n| items.get(n))
                        .is_some_and(|item| below(item, rest))
                })
            }
            _ => false,
        }
}

fn check(config: &Config) {
    let Config { server, tls, acme, keys, codex, limits, services, .. } = config;
    let served: Vec<&SocketAddr> = server.http.iter().chain(&server.https).collect();
    if let KeySource::Open = keys {
        assert!(served.iter().all(|address| address.ip().to_canonical().is_loopback()), "open to {served:?}");
    }
    assert!(server.https.is_empty() || tls.is_some() || acme.is_some(), "HTTPS without a certificate");
    assert!(!served.is_empty(), "nobody is served");
    let bound: Vec<&SocketAddr> = served.into_iter().chain(&server.port80).chain(&server.admin).collect();
    for (n, a) in bound.iter().enumerate().filter(|(_, address)| address.port() != 0) {
        for b in bound[..n].iter().filter(|other| other.port() == a.port()) {
            let wild = a.ip().is_unspecified() || b.ip().is_unspecified();
            assert!(a.ip() != b.ip() && (!wild || a.is_ipv4() != b.is_ipv4()), "{a} and {b}");
        }
    }
    assert!(!server.proxy_protocol || !server.trust.proxies.is_empty());
    assert!(server.drain <= DAY);

    if let Some(acme) = acme {
        assert!(!acme.domains.is_empty() && !acme.challenges.is_empty() && !server.https.is_empty());
        assert!(!acme.challenges.contains(&Challenge::Http01) || !server.port80.is_empty());
        assert!(
            acme.directory.as_str().starts_with("https://")
                || acme.directory.as_str().starts_with("HTTPS://")
        );
        assert!((1..acme.domains.len()).all(|n| !acme.domains[..n].contains(&acme.domains[n])));
    }
    check_codex(codex);
    assert!(limits.max_upload >= 1 && limits.concurrency >= 1 && limits.requests_per_connection >= 1);
    assert!(limits.spool_total == 0 || limits.spool_total >= limits.max_upload);
    assert!(limits.max_uri <= limits.max_head && limits.parts >= 1 && limits.connections != Some(0));
    for time in [limits.queue_wait, limits.head_timeout, limits.body_timeout, limits.idle_timeout] {
        assert!(!time.is_zero() && time <= DAY, "{time:?}");
    }
    assert!(limits.max_duration.is_none_or(|time| !time.is_zero() && time <= DAY));
    for (n, service) in services.iter().enumerate() {
        check_service(service, &services[..n], codex);
    }
}

fn check_codex(codex: &Codex) {
    let endpoint = &codex.endpoint;
    assert!(!endpoint.host.is_empty() && endpoint.port != 0 && endpoint.path.starts_with('/'));
    assert!(endpoint.tls || endpoint.is_loopback() || codex.allow_plain_http, "the login in the clear");
    assert_eq!(Endpoint::parse(&endpoint.url()).as_ref(), Ok(endpoint));
    if let Some(proxy) = &codex.proxy {
        let again = Proxy::parse(&proxy.url()).expect("a proxy");
        assert_eq!((again.tls, &again.host, again.port), (proxy.tls, &proxy.host, proxy.port));
        assert!(again.credentials.is_none());
    }
    let sent = [&codex.user_agent, &codex.originator].into_iter().chain(&codex.account);
    for value in sent {
        let bytes = value.as_bytes();
        assert!(!bytes.is_empty() && bytes.trim_ascii() == bytes && value.to_str().is_ok(), "{bytes:?}");
    }
    assert!(codex.account.as_ref().is_none_or(|account| account.is_sensitive()));
    for time in [codex.connect_timeout, codex.request_timeout, codex.first_byte_timeout] {
        assert!(!time.is_zero() && time <= DAY, "{time:?}");
    }
    assert!(codex.first_byte_timeout <= codex.request_timeout);
}

fn check_service(service: &Service, earlier: &[Service], codex: &Codex) {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    assert!((1..64).contains(&service.name.len()) && service.name.bytes().all(plain), "{}", service.name);
    assert!(service.name != "codex" && earlier.iter().all(|other| other.name != service.name));
    assert!(service.models.iter().all(|model| !codex.models.contains(model)));
    assert!(earlier.iter().all(|other| other.models.iter().all(|model| !service.models.contains(model))));
    assert!(service.paths.iter().all(|path| path.starts_with('/')));
    assert!(!service.models.is_empty() || !service.paths.is_empty(), "never gets a request");
}
