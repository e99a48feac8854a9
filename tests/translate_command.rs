//! `asr-edge translate CAPTURE`: what it says of every captured request is what a server does with it, and what it
//! redacts is gone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, unused_imports)]
mod harness;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use harness::{Bench, Capture, Form, Request, captures, sha256, wav};

/// Exit code, standard output, standard error.
fn run(flags: &[&str], capture: &[u8]) -> (i32, Vec<u8>, String) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("capture.http");
    fs::write(&path, capture).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_asr-edge"))
        .arg("translate")
        .arg(&path)
        .args(flags)
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap_or(-1), output.stdout, err)
}

fn report(what: &str, capture: &[u8]) -> String {
    let (code, out, err) = run(&[], capture);
    assert_eq!((code, err.as_str()), (0, ""), "{what}");
    String::from_utf8(out).unwrap()
}

fn redacted(what: &str, capture: &[u8]) -> Vec<u8> {
    let (code, out, err) = run(&["--redact"], capture);
    assert_eq!((code, err.as_str()), (0, ""), "{what}");
    assert_eq!(out.len(), capture.len(), "{what}");
    out
}

/// The value behind a name.
fn of<'a>(report: &'a str, name: &str) -> Option<&'a str> {
    report.lines().find_map(|line| Some(line.strip_prefix(name)?.trim())).filter(|value| !value.is_empty())
}

/// 200 for what goes upstream, else the status that it is refused with.
fn status(report: &str) -> u16 {
    let outcome = of(report, "outcome").unwrap();
    match outcome.strip_prefix("refused with ") {
        Some(rest) => rest.split(',').next().unwrap().parse().unwrap(),
        None => 200,
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(bytes, needle).is_some()
}

#[test]
fn every_capture_is_said_to_become_what_a_server_makes_of_it() {
    let bench = Bench::with(|launch| {
        let key = |key: &str| format!("[[key]]\nname = \"{key}\"\nsha256 = \"{}\"\n", sha256(key.as_bytes()));
        let keys = launch.file("keys.toml", &[key("sk-dummy"), key("gsk-dummy")].concat());
        launch.without_key().config(&format!("[keys]\nfile = {keys:?}\n"))
    });
    let mut compared = 0;
    // A server sees a wrong key first, and waits for what a head alone leaves out.
    let unlike = ["curl-expect-reject401.http", "curl-expect-auto-big.head.http"];
    for capture in captures().iter().filter(|capture| !unlike.contains(&capture.name.as_str())) {
        let (name, report) = (&capture.name, report(&capture.name, &capture.bytes));
        bench.stub.forget();
        let mut wire = bench.edge.wire();
        wire.send(&capture.bytes);
        let reply = wire.reply();
        assert_eq!(status(&report), reply.status, "{name}: {reply:?}\n{report}");
        compared += 1;
        if !of(&report, "outcome").unwrap().starts_with("goes upstream") {
            if reply.status != 200 {
                let told: serde_json::Value = serde_json::from_str(of(&report, "answer").unwrap()).unwrap();
                assert_eq!(told, reply.json(), "{name}");
            }
            continue;
        }
        let seen = bench.heard(name, &hashed(capture));
        let ours: Vec<_> = of_upstream(&report);
        let theirs: Vec<_> = seen.parts();
        assert_eq!(ours, theirs, "{name}\n{report}");
        if let Some(declared) = of(&report, "declared").unwrap().strip_suffix(" bytes") {
            assert_eq!(seen.declared().map(|length| length.to_string()).as_deref(), Some(declared), "{name}");
            assert_eq!(of(&report, "padding").unwrap(), format!("{} bytes", seen.padding()), "{name}");
        }
        let ignored = of(&report, "ignored").map(|names| names.replace(", ", ","));
        assert_eq!(reply.header("x-asr-ignored").unwrap_or("nothing"), ignored.unwrap(), "{name}");
    }
    assert!(compared > 75, "only {compared} captures");
}

/// The audio of a capture, by its hash among the two that all of them carry.
fn hashed(capture: &Capture) -> Vec<u8> {
    let fixture = Capture::fixture();
    let at = memchr::memmem::find(&capture.bytes, b"ID3").unwrap_or_default();
    let candidates =
        (0..=capture.bytes.len()).rev().map(|end| capture.bytes.get(at..end).unwrap_or_default());
    match capture.audio_hash() {
        Some(hash) if hash == sha256(&fixture) => fixture,
        Some(hash) => candidates.take(2000).find(|audio| sha256(audio) == hash).unwrap().to_vec(),
        None => panic!("{}: no audio", capture.name),
    }
}

/// The names of the parts behind the outcome.
fn of_upstream(report: &str) -> Vec<&str> {
    let upstream = report.lines().skip_while(|line| !line.starts_with("outcome"));
    let parts = upstream.filter_map(|line| line.strip_prefix("  part"));
    parts.map(|part| part.trim().split(':').next().unwrap()).collect()
}

/// A configuration that differs from the defaults in all that counts here.
const OWN: &str = "
[codex]
language = \"german\"
models = [\"acme/whisper\"]
strict = true
[[service]]
name = \"mine\"
url = \"http://127.0.0.1:9\"
kind = \"openai\"
models = [\"mine\"]
paths = [\"/mine\"]
[limits]
max_upload = \"20KiB\"
max_duration = \"500ms\"
max_uri = 200
parts = 3
field = \"1KiB\"
";

/// What need not be where a capture is looked at.
const ELSEWHERE: &str = "
spool_dir = \"nowhere\"
[server]
http = [\"192.0.2.1:1\"]
[keys]
file = \"nowhere.toml\"
";

#[test]
fn a_configuration_counts_as_it_does_in_a_server() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("own.toml");
    fs::write(&path, format!("{OWN}{ELSEWHERE}")).unwrap();
    let with = |capture: &[u8]| {
        let (code, out, err) = run(&["--config", path.to_str().unwrap()], capture);
        assert_eq!((code, err.as_str()), (0, ""));
        String::from_utf8(out).unwrap()
    };
    let bench = Bench::with(|launch| launch.config(OWN));
    let form = || Form::new().field("model", "whisper-1");
    let short = wav(3000);
    for (what, request, default) in [
        ("language", Request::post(&form().file(&short)), 200),
        ("its own", Request::post(&form().field("language", "fr").file(&short)), 200),
        ("model", Request::post(&Form::new().field("model", "acme/whisper").file(&short)), 404),
        ("strict", Request::post(&Form::new().file(&short)), 200),
        ("parts", Request::post(&form().field("a", "b").field("c", "d").file(&short)), 200),
        ("field", Request::post(&form().field("prompt", &"x".repeat(2000)).file(&short)), 200),
        ("upload", Request::post(&form().file(&wav(30_000))), 200),
        ("duration", Request::post(&form().file(&wav(17_000))), 200),
        (
            "target",
            Request::post(&form().file(&short)).target(&format!("/v1/models?{}", "x".repeat(300))),
            405,
        ),
    ] {
        let capture = request.bytes();
        assert_eq!(status(&report(what, &capture)), default, "{what}");
        let report = with(&capture);
        bench.stub.forget();
        let reply = bench.ask(&request);
        assert_eq!(status(&report), reply.status, "{what}: {reply:?}\n{report}");
        if reply.status == 200 {
            assert_eq!(of_upstream(&report), bench.heard(what, &short).parts(), "{what}\n{report}");
            assert!(report.contains("language: 2 bytes"), "{what}\n{report}");
        } else {
            assert_ne!(status(&report), default, "{what}");
            let told: serde_json::Value = serde_json::from_str(of(&report, "answer").unwrap()).unwrap();
            assert_eq!(told, reply.json(), "{what}");
        }
    }
    for (request, service) in [
        (Request::post(&Form::new().field("model", "mine").file(&short)), true),
        (Request::new("GET", "/mine/too"), true),
        (
            Request::post(&Form::new().field("model", "mine").file(&short)).target("/v1/audio/translations"),
            true,
        ),
        (Request::post(&Form::new().file(&short).field("model", "mine")), false),
    ] {
        let report = with(&request.bytes());
        let passes = of(&report, "outcome").unwrap() == "passes unchanged to the service `mine`";
        assert_eq!(passes, service, "{report}");
    }
}

#[test]
fn a_faulty_configuration_is_told_with_exit_code_64() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("own.toml");
    let capture = Request::post(&Form::of(&wav(300))).bytes();
    let with = |config: &str, flags: &[&str]| {
        fs::write(&path, config).unwrap();
        run(&[&["--config", path.to_str().unwrap()], flags].concat(), &capture)
    };
    for (config, words) in [
        ("[limits]\nparts = 0\n", "limits.parts"),
        ("[codex]\nlanguage = \"klingonese\"\n", "codex.language"),
        ("[codex]\nmodel = \"x\"\n", "did you mean `models`"),
    ] {
        let (code, out, err) = with(config, &[]);
        assert_eq!((code, out), (64, Vec::new()), "{err}");
        assert!(err.contains(words), "{err}");
    }
    assert_eq!(with("", &[]).0, 0);
    assert_eq!(with("", &["--redact"]).0, 64, "a redacted capture has nothing to do with a configuration");
    let (code, _, err) = run(&["--config", "/no/such.toml"], &capture);
    assert!(code == 64 && err.contains("/no/such.toml"), "{err}");
}

#[test]
fn every_redacted_capture_keeps_its_outcome_and_tells_nothing() {
    for capture in captures() {
        let name = &capture.name;
        let out = redacted(name, &capture.bytes);
        let (before, after) = (report(name, &capture.bytes), report(name, &out));
        assert_eq!(status(&before), status(&after), "{name}\n{before}\n{after}");
        for field in ["body", "boundary", "declared", "padding"] {
            assert_eq!(of(&before, field), of(&after, field), "{name}: {field}");
        }
        for planted in ["sk-dummy", "gsk-dummy", "localhost"] {
            assert!(!contains(&out, planted.as_bytes()), "{name}: {planted}");
        }
        for prompt in capture.values("prompt").into_iter().filter(|prompt| prompt.len() > 3) {
            assert!(!contains(&out, prompt.as_bytes()), "{name}: {prompt}");
        }
        assert_eq!(redacted(name, &out), out, "{name}: once is enough");
    }
}

#[test]
fn what_is_planted_anywhere_is_gone() {
    let mut audio = wav(6000);
    audio.splice(2000..2007, *b"PLANTED");
    let form = Form::new()
        .raw("PLANTED preamble\r\n")
        .field("model", "whisper-1")
        .field("language", "en")
        .field("prompt", "words PLANTED and Grüße-PLANTED")
        .field("PLANTED-field", "PLANTED")
        .field("response_format", "PLANTED")
        .part(
            "Content-Disposition: form-data; name=\"file\"; filename=\"PLANTED \\\"x\\\".wav\"; \
             filename*=UTF-8''PLANTED%C3%A4.wav\r\nContent-Type: audio/wav\r\nX-Note: PLANTED",
            &audio,
        );
    let body = form.closed_with("\r\nPLANTED epilogue");
    let request = Request::upload(&form.content_type(), body)
        .target("/v1/audio/transcriptions?key=PLANTED")
        .set("Authorization", "Bearer PLANTED-key")
        .set("Host", "PLANTED.example:8443")
        .header("X-API-Key", "PLANTED")
        .header("Cookie", "a=PLANTED")
        .header("User-Agent", "OpenAI/Python 1");
    for (what, request) in [("length", request.clone()), ("chunks", request.chunked(700))] {
        let capture = [request.bytes(), b"POST /PLANTED".to_vec()].concat();
        let out = redacted(what, &capture);
        let text = String::from_utf8_lossy(&out);
        assert!(!text.contains("PLANTED") && !text.contains("Gr"), "{what}: {text}");
        for kept in
            ["whisper-1", "\"language\"", "\r\n\r\nen\r\n", "Bearer xxx", "OpenAI/Python 1", ".wav\"", "RIFF"]
        {
            if what == "length" {
                assert!(text.contains(kept), "{what}: {kept}: {text}");
            }
        }
        let report = report(what, &out);
        assert!(!report.contains("PLANTED"), "{report}");
    }
}

#[test]
fn a_refusal_is_told_with_its_status_its_sentence_and_its_headers() {
    let upload = |form: Form| Request::post(&form).bytes();
    let audio = wav(3000);
    for (what, capture, expected, words) in [
        ("srt", upload(Form::of(&audio).field("response_format", "srt")), 400, "unsupported_value"),
        ("no file", upload(Form::new().field("model", "whisper-1")), 400, "file"),
        ("model", upload(Form::new().field("model", "nope").file(&audio)), 404, "model_not_found"),
        ("path", Request::new("POST", "/v1/foo").bytes(), 404, "Invalid URL"),
        ("method", Request::new("GET", "/v1/audio/transcriptions").bytes(), 405, "allow: POST"),
        ("type", Request::upload("application/json", "{}").bytes(), 400, "unsupported_content_type"),
        (
            "two lengths",
            Request::post(&Form::of(&audio)).header("Transfer-Encoding", "gzip").bytes(),
            400,
            "length",
        ),
    ] {
        let report = report(what, &capture);
        assert_eq!(status(&report), expected, "{what}: {report}");
        assert!(report.contains(words), "{what}: {report}");
        assert!(report.contains("x-should-retry: false"), "{what}: {report}");
    }
    let whole = upload(Form::of(&audio));
    let broken = report("broken", &whole[..whole.len() - 40]);
    assert_eq!(status(&broken), 400, "{broken}");
    assert!(broken.contains("it breaks off") && broken.contains("body_broken"), "{broken}");
}

#[test]
fn what_is_no_capture_is_refused_with_exit_code_1() {
    for (bytes, words) in
        [(&b""[..], "no end"), (b"hello\r\n\r\n", "no HTTP/1.1"), (b"\x16\x03\x01", "no HTTP/1.1")]
    {
        for flags in [&[][..], &["--redact"]] {
            let (code, out, err) = run(flags, bytes);
            assert_eq!((code, out), (1, Vec::new()), "{err}");
            assert!(err.contains(words), "{err}");
        }
    }
    for (name, bytes) in Capture::http2() {
        let (code, _, err) = run(&[], &bytes);
        assert_eq!(code, 1, "{name}");
        assert!(err.contains("HTTP/2"), "{name}: {err}");
    }
    let missing =
        Command::new(env!("CARGO_BIN_EXE_asr-edge")).args(["translate", "/no/such"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(!Path::new("/no/such").exists());
}
