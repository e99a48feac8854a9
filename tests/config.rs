//! What an operator sees of the configuration: the examples load, every fault is told at once, flags win.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and writes its own files"
)]

#[path = "config/bench.rs"]
mod bench;
#[path = "config/faults.rs"]
mod faults;
#[path = "config/public.rs"]
mod public;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use asr_edge::config::{KeySource, LogFormat, LoginSource, ServiceKind, explain};

use bench::{Bench, assert_fault};

const KEY: &str = "sk-PLANTED-key";
const TOKEN: &str = "eyPLANTED.token.x";

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)).unwrap()
}

/// The example with every line uncommented that shows a key.
fn uncommented(text: &str) -> String {
    let shows_a_key = |line: &str| {
        line.split_once(" = ")
            .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
            || (line.starts_with('[') && line.ends_with(']'))
    };
    let lines =
        text.lines().map(|line| line.strip_prefix("# ").filter(|rest| shows_a_key(rest)).unwrap_or(line));
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn the_examples_load_clean() {
    let bench = Bench::new();
    fs::write(bench.folder.path().join("keys.toml"), "").unwrap();
    let bench = bench.file(&example("local.toml"));
    let local = bench.config();
    assert!(matches!(&local.keys, KeySource::File(path) if *path == bench.folder.path().join("keys.toml")));
    assert_eq!(local.server.admin, Some("127.0.0.1:8790".parse().unwrap()));

    let sidecar = Bench::new().file(&example("sidecar.toml")).config();
    assert!(matches!(sidecar.keys, KeySource::Open));
    assert_eq!(sidecar.server.http.len(), 2);
    assert_eq!(sidecar.log.format, LogFormat::Json);
    let kinds: Vec<_> =
        sidecar.services.iter().map(|service| (service.name.as_str(), service.kind)).collect();
    assert_eq!(kinds, [("whisper", ServiceKind::Openai), ("app", ServiceKind::Plain)]);
}

#[test]
fn the_defaults_in_the_local_example_are_the_defaults() {
    let dropped = [
        "https",
        "hsts",
        "auth_file",
        "bearer",
        "account_id",
        "proxy",
        "ca_root",
        "required",
        "language",
        "max_duration",
        "spool_dir",
        "connections",
    ];
    let shown: String = uncommented(&example("local.toml"))
        .lines()
        .filter(|line| !dropped.iter().any(|key| line.starts_with(&format!("{key} = "))))
        .flat_map(|line| [line, "\n"])
        .collect();
    let shown = Bench::new().file(&shown).flags("--api-key k").config();
    let plain = Bench::new().flags("--api-key k").config();
    assert_eq!(shown.server.http, plain.server.http);
    assert_eq!(shown.server.drain, plain.server.drain);
    assert_eq!((shown.server.trust, shown.server.proxy_protocol), (plain.server.trust, false));
    assert_eq!(shown.codex.time_per_mib, plain.codex.time_per_mib);
    assert_eq!(shown.limits, plain.limits);
    assert_eq!(shown.log, plain.log);
    assert_eq!(shown.codex.endpoint, plain.codex.endpoint);
    assert_eq!(shown.codex.originator, plain.codex.originator);
    assert_eq!(shown.codex.connect_timeout, plain.codex.connect_timeout);
    assert_eq!(shown.codex.request_timeout, plain.codex.request_timeout);
    assert_eq!(shown.codex.first_byte_timeout, plain.codex.first_byte_timeout);
    assert_eq!((shown.codex.models, shown.codex.strict), (plain.codex.models, plain.codex.strict));
    let start = "Codex Desktop/26.429.30905 (";
    assert!(shown.codex.user_agent.to_str().unwrap().starts_with(start));
    assert!(plain.codex.user_agent.to_str().unwrap().starts_with(start));
}

#[test]
fn both_examples_show_every_key_the_program_knows() {
    for (section, key) in [
        ("server", "http"),
        ("keys", "file"),
        ("codex", "endpoint"),
        ("limits", "field"),
        ("log", "level"),
        ("service", "kind"),
    ] {
        let header = if section == "service" { "[[service]]".to_owned() } else { format!("[{section}]") };
        let asked = format!("{header}\nzzzzzzzzzzzzzzzzzzzzzzzz = 1\n");
        let faults = Bench::new().file(&asked).flags("--api-key k").faults();
        let (_, known) = faults.iter().find_map(|fault| fault.split_once("known here: ")).unwrap();
        assert!(known.contains(key), "{known}");
        for name in ["local.toml", "sidecar.toml"] {
            let text = uncommented(&example(name));
            for key in known.split(", ") {
                assert!(
                    text.lines().any(|line| line.starts_with(&format!("{key} = "))),
                    "{name}: {section}.{key}"
                );
            }
        }
    }
}

#[test]
fn without_a_file_it_serves_as_codex_asr_does() {
    let config = Bench::new().flags("--api-key").flags(KEY).config();
    assert_eq!(config.server.http, ["127.0.0.1:8788".parse::<SocketAddr>().unwrap()]);
    assert_eq!(config.server.admin, None);
    assert!(matches!(&config.keys, KeySource::Single(key) if key.expose() == KEY));
    assert_eq!(config.codex.endpoint.url(), "https://chatgpt.com/backend-api/transcribe");
    assert!(matches!(&config.codex.login, LoginSource::File(path) if path.ends_with("codex/auth.json")));
    assert_eq!(config.codex.request_timeout, Duration::from_secs(300));
    assert_eq!(config.codex.connect_timeout, Duration::from_secs(15));
    assert_eq!((config.limits.concurrency, config.limits.max_upload), (16, 50 << 20));
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let file = "[server]\nhttp = [\"127.0.0.1:1\"]\n[keys]\nfile = \"nowhere.toml\"\n\
                [codex]\nbearer = \"file\"\nproxy = \"http://file:1\"\nrequest_timeout = \"1s\"\nlanguage = \"fr\"\n\
                [limits]\nmax_upload = 1\nconcurrency = 1\n";
    let bench = Bench::new()
        .file(file)
        .variable("CODEX_ASR_SERVER_KEY", "variable")
        .variable("CODEX_ASR_BEARER", "Bearer variable")
        .variable("CODEX_ASR_PROXY", "variable:1")
        .variable("CODEX_ASR_REQUEST_TIMEOUT_SECONDS", " 2 ")
        .variable("CODEX_ASR_MAX_UPLOAD_MB", "2");
    let config = bench.config();
    assert!(matches!(&config.keys, KeySource::Single(key) if key.expose() == "variable"));
    assert!(matches!(&config.codex.login, LoginSource::Bearer(token) if token.expose() == "variable"));
    assert_eq!(config.codex.proxy.unwrap().host, "variable");
    assert_eq!(config.codex.request_timeout, Duration::from_secs(2));
    assert_eq!(config.limits.max_upload, 2 << 20);
    assert_eq!((config.limits.concurrency, config.codex.language.as_deref()), (1, Some("fr")));

    let config = bench
        .flags("--api-key flag --bearer flag --proxy flag:1 --request-timeout-seconds 3 --max-upload-mb 3")
        .flags("--port 0 --concurrency 3 --language de")
        .config();
    assert!(matches!(&config.keys, KeySource::Single(key) if key.expose() == "flag"));
    assert!(matches!(&config.codex.login, LoginSource::Bearer(token) if token.expose() == "flag"));
    assert_eq!(config.codex.proxy.unwrap().host, "flag");
    assert_eq!(config.codex.request_timeout, Duration::from_secs(3));
    assert_eq!((config.limits.max_upload, config.limits.concurrency), (3 << 20, 3));
    assert_eq!(config.server.http, ["127.0.0.1:0".parse::<SocketAddr>().unwrap()]);
    assert_eq!(config.codex.language.as_deref(), Some("de"));
}

#[test]
fn empty_variables_count_as_unset() {
    let names = [
        "CODEX_ASR_BEARER",
        "CODEX_ASR_PROXY",
        "CODEX_ASR_MAX_UPLOAD_MB",
        "CODEX_ASR_CONNECT_TIMEOUT_SECONDS",
    ];
    let bench = names.iter().fold(Bench::new(), |bench, name| bench.variable(name, " "));
    let config = bench.flags("--no-api-key").config();
    assert!(matches!(config.codex.login, LoginSource::File(_)));
    assert!(config.codex.proxy.is_none());
    assert_fault(&Bench::new().variable("CODEX_ASR_SERVER_KEY", ""), "--api-key", "no key is given");
}

#[test]
fn an_open_server_off_loopback_is_refused() {
    for host in ["0.0.0.0", "::", "[::]", "192.0.2.1", "::ffff:192.0.2.1"] {
        assert_fault(
            &Bench::new().flags("--no-api-key --host").flags(host),
            "--no-api-key",
            "not a loopback address",
        );
    }
    for host in ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]", "::ffff:127.0.0.1"] {
        let config = Bench::new().flags("--no-api-key --host").flags(host).config();
        assert!(matches!(config.keys, KeySource::Open), "{host}");
    }
    let file = "[server]\nhttp = [\"127.0.0.1:1\", \"192.0.2.1:1\"]\n[keys]\nrequired = false\n";
    assert_fault(&Bench::new().file(file), "keys.required", "192.0.2.1:1 is not a loopback");
    Bench::new().file(file).flags("--api-key k").config();
}

#[test]
fn a_base_url_of_codex_is_completed() {
    let whole = "https://chatgpt.com/backend-api/transcribe";
    for (given, meant) in [
        ("https://chatgpt.com", whole),
        ("https://chatgpt.com/", whole),
        ("https://chatgpt.com/backend-api", whole),
        ("https://chatgpt.com/backend-api/", whole),
        (whole, whole),
        ("https://chat.openai.com", "https://chat.openai.com/backend-api/transcribe"),
        ("http://127.0.0.1:9/backend-api", "http://127.0.0.1:9/backend-api/transcribe"),
        ("http://127.0.0.1:9/own", "http://127.0.0.1:9/own"),
        ("https://asr.example.com", "https://asr.example.com/"),
    ] {
        let config = Bench::new().flags("--no-api-key --endpoint").flags(given).config();
        assert_eq!(config.codex.endpoint.url(), meant);
    }
}

#[test]
fn system_wide_proxies_are_for_https_off_this_machine_only() {
    let host = |endpoint: &str, no_proxy: &str| {
        let bench = Bench::new().variable("ALL_PROXY", "all:1").variable("https_proxy", "http://u:p@wide:1");
        let bench = bench.variable("NO_PROXY", no_proxy).flags("--no-api-key --endpoint").flags(endpoint);
        bench.config().codex.proxy.map(|proxy| proxy.host)
    };
    assert_eq!(host("https://chatgpt.com", ""), Some("wide".to_owned()));
    assert_eq!(host("https://chatgpt.com", "example.com, tgpt.com"), Some("wide".to_owned()));
    for exempt in ["*", "chatgpt.com", "a.b, .com", "*.com"] {
        assert_eq!(host("https://chatgpt.com", exempt), None, "{exempt}");
    }
    assert_eq!(host("https://localhost:9/", ""), None);
    assert_eq!(host("http://127.0.0.1:9/", ""), None);
}

#[test]
fn a_private_root_is_read_and_proved() {
    let bench = Bench::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(["ca.example.com".to_owned()]).unwrap().self_signed(&key).unwrap();
    let path = bench.folder.path().join("ca.pem");
    fs::write(&path, certificate.pem()).unwrap();
    let bench = bench.file("[codex]\nca_root = \"ca.pem\"\n").flags("--no-api-key");
    assert_eq!(bench.config().codex.ca_root.len(), 1);

    fs::write(
        &path,
        format!("{}-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", certificate.pem()),
    )
    .unwrap();
    assert_fault(&bench, "codex.ca_root", "certificate 2 in");
    fs::write(&path, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    assert_fault(&bench, "codex.ca_root", "is not PEM");
}

#[test]
fn neither_the_config_nor_its_explanation_shows_a_secret() {
    let bench = Bench::new()
        .flags("--api-key")
        .flags(KEY)
        .variable("CODEX_ASR_BEARER", TOKEN)
        .variable("CODEX_ASR_PROXY", "http://PLANTED:PLANTED@proxy.example.com:3128")
        .flags("--account-id PLANTED-account --admin [::1]:9");
    let config = bench.config();
    let lines = explain(&config);
    assert!(!format!("{config:?}{lines:?}").contains("PLANTED"), "{config:?}{lines:?}");
    for line in [
        "listens on http://127.0.0.1:8788",
        "admin on http://[::1]:9: /live /ready /metrics /status",
        "upstream: https://chatgpt.com/backend-api/transcribe",
        "login: the access token given",
        "proxy: http://proxy.example.com:3128, with credentials",
        "upstream times: connect 15s, first byte 5m, in all 5m",
        "limits: uploads up to 50.0 MiB, 16 at once, 64 more wait up to 30s",
    ] {
        assert!(lines.iter().any(|shown| shown == line), "{line}: {lines:#?}");
    }
}
