//! What lies in `deploy/` fits the program.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test may panic, and reads and writes its own files"
)]

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use asr_edge::config::{Config, Identifier, KeySource, LoginSource, ServeFlags};
use tempfile::TempDir;

fn deployed(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name)).unwrap()
}

/// `NAME=value` lines, those shown in comments too.
fn env_example() -> HashMap<String, String> {
    let text = deployed(".env.example");
    let lines = text.lines().filter_map(|line| line.trim_start_matches("# ").split_once('='));
    lines
        .filter(|(name, _)| name.starts_with("CODEX_ASR_"))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// Compose's `${NAME:-default}` and `${NAME:?why}`, one in a value.
fn filled(value: &str, env: &HashMap<String, String>) -> String {
    let Some(inner) = value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
        return value.to_owned();
    };
    let (name, rest) = inner.split_once(':').unwrap_or((inner, ""));
    match env.get(name).filter(|value| !value.is_empty()) {
        Some(value) => value.clone(),
        None => rest.strip_prefix('-').unwrap_or_else(|| panic!("{name} is not given")).to_owned(),
    }
}

/// The variables that compose gives the container.
fn environment(env: &HashMap<String, String>) -> HashMap<String, String> {
    let text = deployed("compose.public.yml");
    let (_, section) = text.split_once("    environment:\n").unwrap();
    let lines = section.lines().take_while(|line| line.starts_with("      "));
    let pairs = lines.filter_map(|line| line.trim().split_once(": "));
    pairs.filter(|(name, _)| !name.starts_with('#')).map(|(n, v)| (n.to_owned(), filled(v, env))).collect()
}

#[test]
fn the_variables_of_the_compose_file_make_a_public_server() {
    let folder = TempDir::new().unwrap();
    let login = folder.path().join("auth.json");
    fs::write(&login, "{}").unwrap();
    let mut env = env_example();
    env.insert("CODEX_ASR_SERVER_KEY".to_owned(), "sk-1".to_owned());
    env.insert("CODEX_ASR_MAX_UPLOAD_MB".to_owned(), "7".to_owned());
    env.insert("CODEX_ASR_REQUEST_TIMEOUT_SECONDS".to_owned(), "70".to_owned());
    let mut given = environment(&env);
    assert_eq!(given["CODEX_ASR_AUTH_FILE"], "/run/codex/auth.json");
    given.insert("CODEX_ASR_AUTH_FILE".to_owned(), login.display().to_string());
    given.insert("STATE_DIRECTORY".to_owned(), folder.path().display().to_string());

    let config = Config::load(&ServeFlags::default(), &|name| given.get(name).cloned()).unwrap();
    assert_eq!(config.server.https, ["[::]:443".parse().unwrap()]);
    assert_eq!(config.server.port80, ["[::]:80".parse().unwrap()]);
    assert_eq!(config.server.http, ["127.0.0.1:8788".parse().unwrap()], "the health check asks there");
    assert!(matches!(config.keys, KeySource::Single(key) if key.expose() == "sk-1"));
    assert!(matches!(config.codex.login, LoginSource::File(path) if path == login));
    assert_eq!(config.limits.max_upload, 7 << 20);
    assert_eq!(config.codex.request_timeout, Duration::from_secs(70));
    assert_eq!(config.codex.proxy.unwrap().port, 7890);
    let acme = config.acme.unwrap();
    assert_eq!(acme.domains, [Identifier::Dns("asr.example.com".to_owned())]);
    assert_eq!(acme.contact, ["mailto:you@example.com"]);
    assert!(acme.directory.as_str().contains("staging"));
}

#[test]
fn the_env_of_codex_asr_is_enough() {
    let names = ["CODEX_ASR_DOMAIN", "CODEX_ASR_AUTH_FILE", "CODEX_ASR_SERVER_KEY"];
    let env: HashMap<String, String> = names.iter().map(|name| ((*name).into(), "x".to_owned())).collect();
    let given = environment(&env);
    assert_eq!(given["CODEX_ASR_MAX_UPLOAD_MB"], "50");
    assert_eq!(given["CODEX_ASR_REQUEST_TIMEOUT_SECONDS"], "300");
    assert_eq!(given["CODEX_ASR_ACME_DIRECTORY"], "");
    let text = deployed("compose.public.yml");
    for name in names {
        assert!(text.contains(&format!("${{{name}:?")), "{name} must be asked for");
    }
}

#[test]
fn the_unit_is_valid_and_hardened() {
    let unit = deployed("asr-edge.service");
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(&format!("{key}="))).unwrap();
    let flags = ServeFlags { no_api_key: true, ..ServeFlags::default() };
    let plain = Config::load(&flags, &|name| (name == "CODEX_ASR_BEARER").then(|| "t".to_owned())).unwrap();
    assert!(value("TimeoutStopSec").parse::<u64>().unwrap() > plain.server.drain.as_secs());
    assert_eq!(value("RestartPreventExitStatus"), "64");

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("asr-edge.service");
    fs::write(&path, unit.replace("/usr/local/bin/asr-edge", env!("CARGO_BIN_EXE_asr-edge"))).unwrap();
    let analyze = |arguments: &[&str]| {
        let output = Command::new("systemd-analyze").args(arguments).arg(&path).output().ok()?;
        let said = [output.stdout, output.stderr].concat();
        Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
    };
    let Some((valid, said)) = analyze(&["verify"]) else {
        eprintln!("SKIPPED: there is no systemd-analyze here");
        return;
    };
    assert!(valid && said.trim().is_empty(), "{said}");
    // In tenths, of 100 at most; 0 is no exposure.
    let (safe, said) = analyze(&["security", "--offline=true", "--threshold=20"]).unwrap();
    assert!(safe, "{said}");
}
