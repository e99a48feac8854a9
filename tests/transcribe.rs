//! `asr-edge transcribe FILE`: one shot, without a server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, clippy::disallowed_methods)]

#[allow(dead_code, unused_imports)]
mod harness;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use harness::{ACCOUNT, Stub, TEXT, TOKEN, clip, sha256, transcript, wav};

struct Desk {
    stub: Stub,
    folder: TempDir,
}

/// Exit code, standard output, standard error.
type Ended = (i32, String, String);

impl Desk {
    fn new() -> Self {
        Self::before(Stub::start(&["--text", TEXT]))
    }

    fn before(stub: Stub) -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("a.wav"), wav(3000)).unwrap();
        Self { stub, folder }
    }

    /// The command in the desk's folder, with a login and the way to the stand-in.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.bare(words);
        command.args(["--endpoint", &self.stub.url(), "--bearer", TOKEN, "--account-id", ACCOUNT]);
        if let Some(root) = self.stub.root() {
            command.arg("--ca-root").arg(root);
        }
        command
    }

    fn bare(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_asr-edge"));
        command.args(words).current_dir(self.folder.path()).env_clear().stdin(Stdio::null());
        command.env("HOME", self.folder.path());
        command
    }

    fn run(&self, words: &[&str]) -> Ended {
        ended(&mut self.command(words))
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.folder.path().join(name), bytes).unwrap();
    }
}

fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

#[test]
fn a_file_becomes_its_text() {
    let desk = Desk::new();
    for words in [&["transcribe", "a.wav"][..], &["a.wav"], &["./a.wav"]] {
        desk.stub.forget();
        assert_eq!(desk.run(words), (0, format!("{TEXT}\n"), String::new()), "{words:?}");
        let seen = desk.stub.seen();
        assert_eq!(seen.len(), 1);
        assert!(seen[0].is_complete() && seen[0].breach().is_none(), "{seen:?}");
        assert_eq!(seen[0].audio_hash(), sha256(&wav(3000)));
        assert_eq!(seen[0].audio_name(), ("audio.wav", "audio/wav"));
        assert_eq!(seen[0].header("authorization"), Some(format!("Bearer {TOKEN}").as_str()));
        assert_eq!(seen[0].header("chatgpt-account-id"), Some(ACCOUNT));
        assert_eq!(seen[0].declared(), Some(seen[0].body_bytes()));
    }
}

#[test]
fn json_language_prompt_name_and_type_are_taken() {
    let desk = Desk::new();
    desk.write("odd \" name\r\n.bin", clip());
    let (code, out, err) = desk.run(&[
        "transcribe",
        "odd \" name\r\n.bin",
        "--json",
        "--language",
        "German",
        "--prompt",
        "Grüße, \"Müller\"",
        "--content-type",
        "audio/flac",
        "--filename",
        "clip.flac",
    ]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), transcript(TEXT, 4));
    let seen = desk.stub.seen();
    assert_eq!(seen[0].field("language"), Some("de"));
    assert_eq!(seen[0].field("prompt"), Some("Grüße, \"Müller\""));
    assert_eq!(seen[0].audio_name(), ("audio.flac", "audio/flac"));
    desk.stub.forget();
    assert_eq!(desk.run(&["odd \" name\r\n.bin", "--json"]).0, 0);
    assert_eq!(desk.stub.seen()[0].audio_hash(), sha256(&clip()));
}

#[test]
fn standard_input_is_a_file_or_a_pipe() {
    for flags in [&[][..], &["--no-h2"], &["--tls"]] {
        let desk = Desk::before(Stub::start(&[&["--text", TEXT], flags].concat()));
        let audio = wav(2 << 20);
        desk.write("b.wav", &audio);
        let file = File::open(desk.folder.path().join("b.wav")).unwrap();
        let (code, out, err) = ended(desk.command(&["-"]).stdin(file));
        assert_eq!((code, out.trim_end()), (0, TEXT), "{flags:?}: {err}");
        assert_eq!(desk.stub.seen()[0].declared(), Some(desk.stub.seen()[0].body_bytes()), "a known length");

        desk.stub.forget();
        let mut piped = desk.command(&["transcribe", "-"]);
        let mut child = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        for piece in audio.chunks(100_000) {
            stdin.write_all(piece).unwrap();
        }
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), TEXT, "{flags:?}");
        assert_eq!(desk.stub.seen()[0].audio_hash(), sha256(&audio), "{flags:?}");
    }
}

#[test]
fn an_early_refusal_does_not_wait_for_the_end_of_a_pipe() {
    let desk = Desk::new();
    let mut command = desk.command(&["-"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&[b"<!DOCTYPE html><html>".as_slice(), &[b' '; 20_000]].concat()).unwrap();
    let start = Instant::now();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    drop(stdin);
}

#[test]
fn what_goes_wrong_is_told_in_a_line_with_exit_code_1() {
    let desk = Desk::new();
    desk.write("page.wav", "<!DOCTYPE html><html><body>no audio</body></html>".repeat(50));
    desk.write("empty.wav", "");
    for (file, script, words) in [
        ("no-such.wav", json!({}), "no-such.wav"),
        (".", json!({}), "directory"),
        ("empty.wav", json!({}), "too short"),
        ("page.wav", json!({}), "HTML"),
        ("a.wav", json!({"status": 500, "body": {"detail": "Error in ASR API"}}), "corrupted"),
        ("a.wav", json!({"challenge": true}), "challenge"),
        ("a.wav", json!({"status": 401}), "login"),
        ("a.wav", json!({"status": 429, "headers": {"retry-after": "77"}}), "77 seconds"),
        ("a.wav", json!({"status": 200, "body": "no json"}), "understood"),
    ] {
        desk.stub.script(script.clone());
        let (code, out, err) = desk.run(&["transcribe", file]);
        assert_eq!((code, out.as_str()), (1, ""), "{file} {script}: {err}");
        assert!(err.to_lowercase().contains(&words.to_lowercase()), "{file} {script}: {err}");
        assert!(!err.contains(TOKEN), "{err}");
    }
    let (code, _, err) = ended(
        desk.bare(&["a.wav", "--bearer", TOKEN])
            .args(["--endpoint", "http://127.0.0.1:1/backend-api/transcribe"]),
    );
    assert_eq!(code, 1);
    assert!(err.contains("could not be reached"), "{err}");
}

#[test]
fn a_command_line_or_a_configuration_at_fault_is_64() {
    let desk = Desk::new();
    desk.write("bad.toml", "[codex]\nendpont = \"x\"\n");
    for (words, said) in [
        (&["transcribe"][..], "FILE"),
        (&["transcribe", "a.wav", "--no-such-flag"], "--no-such-flag"),
        (&["a.wav", "--language", "no language at all"], "language"),
        (&["a.wav", "--language", "qqq"], "language"),
        (&["a.wav", "--content-type", "audio/wav\r\nx: y"], "ASCII"),
        (&["a.wav", "--config", "bad.toml"], "endpoint"),
        (&["a.wav", "--config", "none.toml"], "none.toml"),
        (&["transcrib", "a.wav"], "transcribe"),
    ] {
        let (code, out, err) = desk.run(words);
        assert_eq!((code, out.as_str()), (64, ""), "{words:?}: {err}");
        assert!(err.contains(said), "{words:?}: {err}");
    }
    let (code, _, err) = ended(&mut desk.bare(&["a.wav"]));
    assert_eq!(code, 64, "no login: {err}");
    assert!(err.contains("codex login"), "{err}");
}

#[test]
fn a_server_s_config_serves_for_its_upstream() {
    let desk = Desk::new();
    let auth = json!({"auth_mode": "chatgpt", "tokens": {"access_token": TOKEN, "account_id": ACCOUNT}});
    desk.write("auth.json", auth.to_string());
    let config = format!(
        "[server]\nhttp = [\"0.0.0.0:1\"]\n[keys]\nfile = \"/nowhere/keys.toml\"\n\
         [codex]\nendpoint = \"{}\"\nauth_file = \"auth.json\"\nlanguage = \"fr\"\n[limits]\nmax_upload = \"1KiB\"\n",
        desk.stub.url()
    );
    desk.write("edge.toml", &config);
    let (code, _, err) = ended(&mut desk.bare(&["a.wav", "--config", "edge.toml"]));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("1024"), "{err}");
    desk.write("edge.toml", config.replace("1KiB", "1MiB"));
    let (code, out, err) =
        ended(desk.bare(&["a.wav", "--config", "edge.toml"]).env("CODEX_ASR_DOMAIN", "a.example"));
    assert_eq!((code, out.trim_end()), (0, TEXT), "{err}");
    assert_eq!(desk.stub.seen()[0].field("language"), Some("fr"));
    assert_eq!(desk.stub.seen()[0].header("authorization"), Some(format!("Bearer {TOKEN}").as_str()));
}

#[test]
fn an_expired_login_is_told_before_anything_is_sent() {
    let desk = Desk::new();
    let (code, _, err) = ended(
        desk.bare(&["a.wav", "--endpoint", &desk.stub.url()]).args(["--bearer", "e30.eyJleHAiOjF9.c2ln"]),
    );
    assert_eq!(code, 1);
    assert!(err.contains("expired"), "{err}");
    assert!(desk.stub.seen().is_empty());
}

/// `script` of util-linux gives the command a terminal.
#[test]
fn a_terminal_gets_a_progress_bar_and_a_clean_line_after_it() {
    let desk = Desk::new();
    desk.write("b.wav", wav(4 << 20));
    if !Path::new("/usr/bin/script").exists() {
        eprintln!("SKIPPED: there is no script(1) here (util-linux)");
        return;
    }
    let program = env!("CARGO_BIN_EXE_asr-edge");
    let line = format!("{program} b.wav --endpoint {} --bearer {TOKEN}", desk.stub.url());
    let mut command = Command::new("/usr/bin/script");
    command.args(["-qec", &line, "/dev/null"]).current_dir(desk.folder.path()).stdin(Stdio::null());
    let (code, out, _) = ended(&mut command);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("of 4.0 MiB"), "{out}");
    assert!(out.contains("waiting for the transcript"), "{out}");
    assert!(out.ends_with(&format!("\r\x1b[K{TEXT}\r\n")), "{out:?}");
}
