//! Every captured request of a real client, replayed byte for byte through the program: what the upstream sees must be
//! what an independent reading of the capture says, and the refusals among them must be told what is wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, unused_imports)]
mod harness;

use serde_json::{Value, json};

use harness::{Bench, Capture, Http2, Outcome, Reply, STATUS_200, Seen, TEXT, captures, sha256, transcript};

/// The keys that the captured clients sent.
const KEYS: [&str; 2] = ["sk-dummy", "gsk-dummy"];

/// Those that are refused: status, `code`, `param`.
const REFUSED: [(&str, u16, Option<&str>, Option<&str>); 6] = [
    ("curl-data-binary.http", 400, Some("unsupported_content_type"), None),
    ("curl-expect-reject401.http", 401, None, None),
    ("curl-file-as-text.http", 400, Some("invalid_value"), Some("file")),
    ("openai-node6-Blob.http", 400, None, Some("file")),
    ("openai-python-translate.http", 400, Some("unsupported_endpoint"), None),
    ("python-requests-manual-ct.http", 400, None, None),
];

/// Those that are neither transcribed nor refused.
const OTHERS: [&str; 2] = ["curl-expect-auto-big.head.http", "openai-python-models.http"];

/// Takes the keys of the captures, and Groq's model beside OpenAI's.
fn bench() -> Bench {
    Bench::with(|launch| {
        let entry =
            |key: &&str| format!("[[key]]\nname = \"{key}\"\nsha256 = \"{}\"\n", sha256(key.as_bytes()));
        let keys = launch.file("keys.toml", &KEYS.iter().map(entry).collect::<String>());
        let config = format!("[keys]\nfile = {:?}\n[codex]\nmodels = [\"whisper-large-v3\"]\n", keys);
        launch.without_key().config(&config)
    })
}

/// Word timestamps are asked for where they would show: this upstream cannot give them.
fn asks_for_words(capture: &Capture) -> bool {
    let verbose = capture.values("response_format").contains(&"verbose_json");
    verbose && capture.values("timestamp_granularities[]").contains(&"word")
}

fn is_transcribed(capture: &Capture) -> bool {
    let refused = REFUSED.iter().any(|(name, ..)| *name == capture.name);
    !refused && !asks_for_words(capture) && !OTHERS.contains(&capture.name.as_str())
}

fn replay(bench: &Bench, capture: &Capture) -> Reply {
    bench.stub.forget();
    let mut wire = bench.edge.wire();
    wire.send(&capture.bytes);
    wire.reply()
}

/// The upstream saw one faultless request: this audio under a name and type that fit it, and the texts given.
fn assert_translated(capture: &Capture, seen: &[Seen]) {
    let name = &capture.name;
    assert_eq!(seen.len(), 1, "{name}: {seen:?}");
    let seen = &seen[0];
    assert!(seen.is_complete() && seen.breach().is_none(), "{name}: {seen:?}");
    assert_eq!(Some(seen.audio_hash()), capture.audio_hash(), "{name}");
    let fixture = Some(sha256(&Capture::fixture()));
    let label = if capture.audio_hash() == fixture.as_deref() {
        ("audio.wav", "audio/wav")
    } else {
        ("audio.mp3", "audio/mpeg")
    };
    assert_eq!(seen.audio_name(), label, "{name}");
    let mut expected = vec!["file"];
    for field in ["language", "prompt"] {
        let given = capture.values(field).into_iter().find(|value| !value.is_empty());
        assert_eq!(seen.field(field), given, "{name}: {field}");
        expected.extend(given.map(|_| field));
    }
    let mut parts = seen.parts();
    parts.sort_unstable();
    assert_eq!(parts, expected, "{name}");
    assert_eq!(seen.declared(), Some(seen.body_bytes()), "{name}: {seen:?}");
}

/// The answer has the shape that was asked for.
fn assert_answered(capture: &Capture, reply: &Reply) {
    let name = &capture.name;
    assert_eq!(reply.status, 200, "{name}: {reply:?}");
    reply.is_ours(name);
    let streams = capture.values("stream").contains(&"true");
    match capture.values("response_format").first() {
        _ if streams => {
            assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"), "{name}");
            let delta = json!({"type": "transcript.text.delta", "delta": TEXT});
            let done = json!({"type": "transcript.text.done", "text": TEXT});
            assert_eq!(reply.events(), [delta, done], "{name}");
        }
        Some(&"text") => assert_eq!(reply.text(), format!("{TEXT}\n"), "{name}"),
        Some(&"verbose_json") => assert_eq!(reply.json()["task"], "transcribe", "{name}"),
        _ => assert_eq!(reply.json(), transcript(TEXT, 1), "{name}"),
    }
}

#[test]
fn every_transcription_reaches_the_upstream_as_its_oracle_says() {
    let bench = bench();
    let all: Vec<Capture> = captures().into_iter().filter(is_transcribed).collect();
    assert!(all.len() > 60, "only {} captures", all.len());
    for capture in &all {
        let reply = replay(&bench, capture);
        assert_eq!(reply.status, 200, "{}: {reply:?}", capture.name);
        assert_translated(capture, &bench.stub.seen());
        assert_answered(capture, &reply);
    }
}

#[test]
fn every_refusal_among_them_says_what_is_wrong() {
    let bench = bench();
    let all = captures();
    for (name, status, code, param) in REFUSED {
        let capture = all.iter().find(|capture| capture.name == name).unwrap();
        let error = replay(&bench, capture).refuses(name, status, code);
        assert_eq!(error["param"].as_str(), param, "{name}");
        bench.assert_nothing_whole(name);
    }
    let words: Vec<&Capture> = all.iter().filter(|capture| asks_for_words(capture)).collect();
    assert!(words.len() > 5, "only {}", words.len());
    for capture in words {
        let error = replay(&bench, capture).refuses(&capture.name, 400, Some("unsupported_value"));
        assert_eq!(error["param"], "timestamp_granularities", "{}", capture.name);
        assert!(!bench.stub.seen().iter().any(Seen::is_complete), "{}", capture.name);
    }
}

#[test]
fn the_models_request_of_the_python_sdk_gets_the_list() {
    let bench = bench();
    let all = captures();
    let capture = all.iter().find(|capture| capture.name == "openai-python-models.http").unwrap();
    let list = replay(&bench, capture).json();
    assert_eq!(list["object"], "list");
    assert!(list["data"].as_array().unwrap().iter().any(|model| model["id"] == "whisper-large-v3"));
}

#[test]
fn curl_with_a_large_file_is_asked_for_it_at_once() {
    let bench = bench();
    let all = captures();
    let capture = all.iter().find(|capture| capture.name == "curl-expect-auto-big.head.http").unwrap();
    let mut wire = bench.edge.wire();
    wire.send(&capture.bytes);
    assert_eq!(wire.informed(), 100);
    drop(wire);
    bench.assert_nothing_whole("curl left");
}

#[test]
fn captures_over_http2_are_transcribed_too() {
    let bench = bench();
    let connections = Capture::http2();
    assert_eq!(connections.len(), 2);
    for (name, bytes) in connections {
        bench.stub.forget();
        let mut http2 = Http2::replay(bench.edge.address, &bytes);
        let outcome = http2.outcome(1);
        let Outcome::Answered(status, answer) = outcome else {
            panic!("{name}: {outcome:?}\n{}", bench.edge.printed())
        };
        assert_eq!(status, STATUS_200, "{name}");
        assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap(), transcript(TEXT, 1), "{name}");
        let seen = bench.heard(&name, &Capture::fixture());
        assert_eq!(seen.declared(), Some(seen.body_bytes()), "{name}");
    }
}
