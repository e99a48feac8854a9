//! Starting, checking, reloading and stopping.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, unused_imports)]
mod harness;

use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use harness::{
    Bench, Edge, Form, KEY, Launch, Process, Request, Stub, TEXT, Wire, eventually, get, run, wav,
};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_asr-edge"))
}

fn upload() -> Request {
    Request::post(&Form::of(&wav(3000)))
}

const NOWHERE: &str = "http://127.0.0.1:9/backend-api/transcribe";

#[test]
fn every_fault_of_the_config_is_told_at_once_before_a_port_is_bound() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "[server]\nhttp = [\"{}\", \"nonsense\"]\nhtpp = 1\n[limits]\nconcurrency = 0\nmax_upload = \"much\"\n\
         [codex]\nendpoint = \"ftp://x\"\n[log]\nformat = \"xml\"\n",
        taken.local_addr().unwrap()
    );
    let launch = Launch::at(NOWHERE).config(&config.replace("[log]", "[keys]\nrequired = 7\n[other]"));
    for command in ["serve", "check"] {
        let output = launch.run(command);
        assert_eq!(output.code, 64, "{command}: {output:?}");
        for path in
            ["server.http[1]", "server.htpp", "limits.concurrency", "limits.max_upload", "keys.required"]
        {
            assert!(output.stderr.contains(path), "{command}: no {path}: {}", output.stderr);
        }
        assert!(!output.stdout.contains("listening"), "{command}: {output:?}");
        // The port is taken: had it come to binding, that would be told too.
        assert!(!output.stderr.contains("in use"), "{command}: {}", output.stderr);
    }
}

#[test]
fn a_config_that_is_no_toml_is_told_with_its_line() {
    let output = Launch::at(NOWHERE).config("[limits]\nconcurrency = = 3\n").run("check");
    assert_eq!(output.code, 64);
    assert!(output.stderr.contains('2'), "{}", output.stderr);
}

#[test]
fn check_is_content_with_a_good_config_and_binds_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!("[server]\nhttp = [\"{}\"]\n", taken.local_addr().unwrap());
    let output = Launch::at(NOWHERE).config(&config).run("check");
    assert_eq!(output.code, 0, "{output:?}");
    assert!(!format!("{output:?}").contains(KEY));
}

#[test]
fn serving_the_world_without_a_key_is_refused() {
    for flags in [&["--no-api-key", "--host", "0.0.0.0"][..], &["--no-api-key", "--host", "::"]] {
        let output = Launch::at(NOWHERE)
            .without_key()
            .config("[server]\n")
            .flags(flags)
            .flags(&["--port", "0"])
            .run("serve");
        assert_eq!(output.code, 64, "{flags:?}: {output:?}");
        assert!(!output.stdout.contains("listening"), "{output:?}");
    }
    let output = Launch::at(NOWHERE).without_key().run("serve");
    assert_eq!(output.code, 64, "no key and not told that none is wanted: {output:?}");
}

#[test]
fn serving_oneself_without_a_key_is_fine() {
    let stub = Stub::start(&["--text", TEXT]);
    let edge = Launch::to(&stub).without_key().flags(&["--no-api-key"]).start();
    assert_eq!(edge.ask(&upload().without("Authorization")).status, 200);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Launch::at(NOWHERE).config(&format!("[server]\nhttp = [\"{address}\"]\n")).run("serve");
    assert_ne!(output.code, 0);
    assert!(output.stderr.contains(&address), "{output:?}");
    assert!(!output.stderr.contains("panicked"), "{output:?}");
}

#[test]
fn a_missing_login_is_told_with_what_to_do() {
    let output = Launch::at(NOWHERE).without_login().run("serve");
    assert_eq!(output.code, 64, "{output:?}");
    assert!(
        output.stderr.contains("auth.json") && output.stderr.contains("codex login"),
        "{}",
        output.stderr
    );
}

#[test]
fn the_login_of_codex_home_and_the_key_of_the_environment_are_found() {
    let stub = Stub::start(&["--text", TEXT]);
    let launch = Launch::to(&stub).without_login().without_key();
    launch.file(
        "auth.json",
        &json!({"tokens": {"access_token": "tok-home", "account_id": "acct-home"}}).to_string(),
    );
    let edge = launch.env("CODEX_ASR_SERVER_KEY", KEY).start();
    assert_eq!(edge.ask(&upload()).status, 200);
    assert_eq!(edge.ask(&upload().set("Authorization", "Bearer x")).status, 401);
    let seen = stub.seen();
    assert_eq!(seen[0].header("authorization"), Some("Bearer tok-home"));
    assert_eq!(seen[0].header("chatgpt-account-id"), Some("acct-home"));
}

/// Makes a key with the program; gives the key.
fn key_new(folder: &TempDir, name: &str) -> String {
    let file = folder.path().join("keys.toml");
    let (code, stdout, stderr) = run(program().args(["key", "new", "--name", name, "--file"]).arg(&file));
    assert_eq!(code, 0, "{stderr}");
    let text = std::fs::read_to_string(file).unwrap();
    let key = stdout.split_whitespace().find(|word| word.starts_with("sk-")).unwrap().to_owned();
    assert!(text.contains(name) && !text.contains(&key), "{text}");
    assert_eq!(stdout.matches(&key).count(), 1);
    key
}

#[test]
fn new_keys_are_taken_and_removed_ones_refused_without_a_restart() {
    let folder = TempDir::new().unwrap();
    let first = key_new(&folder, "first");
    let file = folder.path().join("keys.toml");
    let stub = Stub::start(&["--text", TEXT]);
    let config = format!("[keys]\nfile = {file:?}\n");
    let edge = Launch::to(&stub).without_key().config(&config).start();
    let status = |key: &str| edge.ask(&upload().set("Authorization", format!("Bearer {key}"))).status;
    assert_eq!((status(&first), status(KEY)), (200, 401));

    let second = key_new(&folder, "second");
    assert_ne!(first, second);
    eventually("the second key", || (status(&second) == 200).then_some(()));
    assert_eq!(status(&first), 200);

    std::fs::write(&file, "[[key]]\nname = \"half").unwrap();
    std::thread::sleep(Duration::from_millis(1800));
    assert_eq!((status(&first), status(&second)), (200, 200), "a broken file keeps the old keys");

    let third = {
        std::fs::remove_file(&file).unwrap();
        key_new(&folder, "third")
    };
    eventually("the third key", || (status(&third) == 200).then_some(()));
    assert_eq!((status(&first), status(&second)), (401, 401));

    let (code, _, stderr) = run(program().args(["key", "new", "--name", "third", "--file"]).arg(&file));
    assert!(code != 0 && stderr.contains("name"), "{code}: {stderr}");
}

#[test]
fn health_asks_a_running_server() {
    let bench = Bench::start();
    let url = format!("http://{}/healthz", bench.edge.address);
    let (code, ..) = run(program().args(["health", &url]));
    assert_eq!(code, 0);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (code, ..) = run(program().args(["health", &format!("http://127.0.0.1:{port}/healthz")]));
    assert_eq!(code, 1);
    let (code, ..) = run(program().args(["health", &format!("http://{}/v1/models", bench.edge.address)]));
    assert_eq!(code, 1, "401 is not well");
}

#[test]
fn the_admin_address_tells_how_things_are() {
    let bench = Bench::with(|launch| launch.flags(&["--admin", "127.0.0.1:0"]));
    let ask = |path: &str| {
        let mut wire = Wire::connect(bench.edge.admin.unwrap());
        wire.send(get(path).without("Authorization").bytes());
        wire.reply()
    };
    for path in ["/live", "/ready"] {
        assert_eq!(ask(path).status, 200, "{path}");
    }
    assert_eq!(bench.ask(&upload()).status, 200);
    assert_eq!(bench.ask(&upload().set("Authorization", "Bearer x")).status, 401);
    assert!(ask("/status").json().is_object());
    // And the public address knows nothing of it.
    for path in ["/live", "/ready", "/metrics", "/status"] {
        assert_eq!(bench.ask(&get(path)).status, 404, "{path}");
    }
}

#[test]
fn the_demonstration_runs_by_itself_and_ends() {
    let folder = TempDir::new().unwrap();
    let (code, stdout, stderr) =
        run(program().args(["demo", "--once", "--port", "0"]).env("HOME", folder.path()));
    assert_eq!(code, 0, "{stdout}\n{stderr}");
    assert!(stdout.contains("\"text\":\"") && stdout.contains(" 200 in "), "{stdout}");
}

#[test]
fn the_demonstration_goes_on_until_told_to_stop_and_its_curl_line_is_true() {
    let folder = TempDir::new().unwrap();
    let mut command = program();
    let mut demo = Process::start(
        command.args(["demo", "--port", "0"]).env("HOME", folder.path()).env("TMPDIR", folder.path()),
    );
    let key = demo.announced("key").trim().to_owned();
    let curl = eventually("the curl line", || {
        let printed = demo.printed();
        printed.split_once("curl ").map(|(_, curl)| curl.to_owned()).filter(|curl| curl.contains("file=@"))
    });
    assert!(curl.contains(&key), "{curl}");
    // As pasted, but for the status.
    let line = format!("curl -sS -o /dev/null -w %{{http_code}} {}", curl.trim_end());
    let ran = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "200", "{line}: {ran:?}");
    assert!(demo.runs());
    demo.terminate();
    demo.end(Duration::from_secs(10));
}

#[test]
fn a_command_line_that_makes_no_sense_is_told_how_to_go_on() {
    for arguments in [&["frobnicate"][..], &["serve", "--no-such-flag"], &["key", "new"]] {
        let (code, _, stderr) = run(program().args(arguments));
        assert!(code == 64 || code == 2, "{arguments:?}: {code}");
        assert!(stderr.contains("--help"), "{stderr}");
    }
    let (code, stdout, _) = run(program().arg("--help"));
    assert_eq!(code, 0);
    for command in ["serve", "demo", "check", "key", "upstream-stub", "health"] {
        assert!(stdout.contains(command), "{stdout}");
    }
}

/// The edge refuses new connections, or closes them without a word.
fn takes_no_more(edge: &Edge) -> bool {
    let Ok(socket) = TcpStream::connect_timeout(&edge.address, Duration::from_secs(2)) else { return true };
    drop(socket);
    false
}

#[test]
fn told_to_stop_it_finishes_the_upload_in_flight_and_leaves_at_once() {
    let mut bench = Bench::start();
    let audio = wav(400_000);
    let bytes = Request::post(&Form::of(&audio)).bytes();
    let mut wire = bench.edge.wire();
    wire.send(&bytes[..100_000]);
    bench.stub.wait("the upload began", |seen| seen.iter().any(|seen| seen.audio_bytes() > 0));
    bench.edge.terminate();
    eventually("no new connections", || takes_no_more(&bench.edge).then_some(()));
    assert!(bench.edge.runs(), "an upload is in flight");
    wire.send(&bytes[100_000..]);
    assert_eq!(wire.reply().status, 200);
    bench.heard("finished", &audio);
    let start = Instant::now();
    let status = bench.edge.end();
    assert!(status.success(), "{status}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn told_to_stop_with_nothing_in_flight_it_leaves_at_once() {
    let mut bench = Bench::start();
    let mut idle = bench.edge.wire();
    idle.send(get("/healthz").bytes());
    assert_eq!(idle.reply().status, 200);
    bench.edge.terminate();
    let start = Instant::now();
    assert!(bench.edge.end().success());
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn an_upload_that_outlasts_the_drain_is_cut_off() {
    let mut bench =
        Bench::with(|launch| launch.config("[server]\nhttp = [\"127.0.0.1:0\"]\ndrain_seconds = 1\n"));
    let bytes = upload().bytes();
    let mut wire = bench.edge.wire();
    wire.send(&bytes[..bytes.len() - 10]);
    bench.stub.wait("the upload began", |seen| seen.iter().any(|seen| seen.audio_bytes() > 0));
    bench.edge.terminate();
    assert!(bench.edge.end_within(Duration::from_secs(8)).success());
    bench.assert_nothing_whole("cut off");
}
