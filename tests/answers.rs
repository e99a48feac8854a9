//! What a client gets: every format, every endpoint, the headers on all of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, unused_imports)]
mod harness;

use serde_json::{Value, json};

use harness::{Bench, ENDPOINT, Form, KEY, Reply, Request, TEXT, clip, get, transcript, wav};

/// One second.
const SECOND: usize = 32_000;

fn asked(bench: &Bench, fields: &[(&str, &str)]) -> Reply {
    let form = fields.iter().fold(Form::of(&wav(SECOND)), |form, (name, value)| form.field(name, value));
    let reply = bench.ask(&Request::post(&form));
    assert_eq!(reply.status, 200, "{fields:?}: {reply:?}");
    reply.is_ours("an answer");
    reply
}

#[test]
fn json_is_the_text_and_how_many_seconds_have_begun() {
    let bench = Bench::start();
    for fields in [&[][..], &[("response_format", "json")]] {
        let reply = asked(&bench, fields);
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.json(), transcript(TEXT, 1));
    }
    let longer = bench.ask(&Request::post(&Form::of(&wav(SECOND + 320))));
    assert_eq!(longer.json(), transcript(TEXT, 2));
}

#[test]
fn text_is_bare_and_ends_its_line() {
    let bench = Bench::start();
    let reply = asked(&bench, &[("response_format", "text")]);
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(reply.text(), format!("{TEXT}\n"));
    let reply = asked(&bench, &[("response_format", "markdown")]);
    assert_eq!(reply.text(), TEXT);
}

#[test]
fn verbose_json_measures_the_audio_and_names_the_language() {
    let bench = Bench::start();
    let reply = asked(&bench, &[("response_format", "verbose_json"), ("language", "de")]);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let usage = json!({"type": "duration", "seconds": 1});
    let expected = json!({"task": "transcribe", "language": "german", "duration": 1.0, "text": TEXT,
        "segments": [], "usage": usage});
    assert_eq!(reply.json(), expected);

    let form = Form::of(&clip()).field("response_format", "verbose_json");
    let (reply, _) = bench.accepts("FLAC", &Request::post(&form), &clip());
    let body = reply.json();
    assert_eq!(body["language"], "unknown");
    assert!(body["duration"].as_f64().is_some_and(|duration| duration > 0.1 && duration < 60.0), "{body}");

    let words = Form::of(&wav(SECOND)).field("response_format", "verbose_json");
    let words = words.field("timestamp_granularities[]", "segment");
    assert_eq!(bench.ask(&Request::post(&words)).json()["duration"], 1.0);
}

/// Files whose headers are broken, in ways that leave open how long they play.
fn unmeasurable() -> [(&'static str, Vec<u8>); 6] {
    let with = |start: &[u8]| [start, &[7; 3000]].concat();
    let mut wav = wav(SECOND);
    // A codec that only its encoder's word can measure, which is missing.
    wav[20] = 0x55;
    let info =
        [&[0x10, 0, 0x10, 0, 0, 0, 0, 0, 0, 0][..], &(44_100_u64 << 44).to_be_bytes(), &[0; 16]].concat();
    // A page that begins a stream of Opus, and no other.
    let page = [b"OggS\0\x02".as_slice(), &[0; 20], &[1, 19], b"OpusHead\x01\x01", &[0; 9]].concat();
    [
        ("audio.wav", wav),
        ("audio.flac", with(&[b"fLaC\x80\0\0\x22".as_slice(), &info].concat())),
        ("audio.ogg", with(&page)),
        ("audio.mp3", with(b"ID3\x04\0\0\0\0\0\0")),
        ("audio.m4a", with(b"\0\0\0\x20ftypM4A \0\0\0\0")),
        ("audio.webm", with(b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81")),
    ]
}

#[test]
fn what_cannot_be_measured_is_left_out_and_said() {
    let bench = Bench::start();
    for (name, audio) in unmeasurable() {
        for format in ["json", "verbose_json"] {
            let form = Form::of(&audio).field("response_format", format);
            let (reply, seen) = bench.accepts(name, &Request::post(&form), &audio);
            assert_eq!(seen.audio_name().0, name);
            let body = reply.json();
            assert_eq!((body.get("duration"), body.get("usage")), (None, None), "{name}: never null: {body}");
            assert_eq!(reply.header("x-asr-unmeasured"), Some("duration"), "{name}, {format}");
        }
    }
}

#[test]
fn nothing_is_said_to_be_unmeasured_that_was_measured_or_would_not_stand_there() {
    let bench = Bench::start();
    let (_, broken) = unmeasurable().into_iter().next().unwrap();
    for (audio, fields) in [
        (wav(SECOND), &[("response_format", "json")][..]),
        (wav(SECOND), &[("response_format", "verbose_json")]),
        (broken.clone(), &[("response_format", "text")]),
        (broken.clone(), &[("response_format", "markdown")]),
        (broken.clone(), &[("stream", "true")]),
    ] {
        let form = fields.iter().fold(Form::of(&audio), |form, (name, value)| form.field(name, value));
        let (reply, _) = bench.accepts("measured", &Request::post(&form), &audio);
        assert_eq!(reply.header("x-asr-unmeasured"), None, "{fields:?}");
    }
    let codex = Request::post(&Form::new().file(&broken)).target("/backend-api/transcribe");
    assert_eq!(bench.ask(&codex).header("x-asr-unmeasured"), None);
}

#[test]
fn every_container_goes_by_its_own_name() {
    let bench = Bench::start();
    let with = |start: &[u8]| [start, &[9; 2000]].concat();
    let frames = [b"\xff\xfb\x90\x64".as_slice(), &[9; 413]].concat().repeat(5);
    for (audio, name) in [
        (frames.clone(), ("audio.mp3", "audio/mpeg")),
        ([b"ID3\x04\0\0\0\0\0\0", &frames[..]].concat(), ("audio.mp3", "audio/mpeg")),
        (with(b"\0\0\0\x20ftypM4A \0\0\0\0"), ("audio.m4a", "audio/mp4")),
        (with(b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81"), ("audio.webm", "audio/webm")),
        (clip(), ("audio.flac", "audio/flac")),
        (wav(300), ("audio.wav", "audio/wav")),
    ] {
        let (_, seen) = bench.accepts(name.0, &Request::post(&Form::of(&audio)), &audio);
        assert_eq!(seen.audio_name(), name);
    }
}

#[test]
fn a_stream_is_a_delta_and_a_done() {
    let bench = Bench::start();
    for fields in [&[("stream", "true")][..], &[("stream", "True"), ("response_format", "text")]] {
        let reply = asked(&bench, fields);
        assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
        let delta = json!({"type": "transcript.text.delta", "delta": TEXT});
        let done = json!({"type": "transcript.text.done", "text": TEXT});
        assert_eq!(reply.events(), [delta, done]);
    }
    bench.stub.script(json!({"text": ""}));
    assert_eq!(
        asked(&bench, &[("stream", "1")]).events(),
        [json!({"type": "transcript.text.done", "text": ""})]
    );
}

#[test]
fn fields_without_effect_are_named() {
    let bench = Bench::start();
    let fields =
        [("temperature", "0.2"), ("include[]", "logprobs"), ("vad_filter", "true"), ("language", "en")];
    assert_eq!(asked(&bench, &fields).header("x-asr-ignored"), Some("temperature,include,vad_filter"));
    assert_eq!(asked(&bench, &[("language", "en")]).header("x-asr-ignored"), None);
}

#[test]
fn names_of_ignored_fields_cannot_break_out_of_their_header() {
    let bench = Bench::start();
    let head = "Content-Disposition: form-data; name=\"na%22me%0D%0Aé\"";
    let form = Form::of(&wav(300)).part(head, "v").field("a b,c;d", "v").field(&"x".repeat(3000), "v");
    let (reply, _) = bench.accepts("odd names", &Request::post(&form), &wav(300));
    let named = reply.header("x-asr-ignored").unwrap_or_default();
    assert!(named.len() < 2000 && named.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{named}");
}

#[test]
fn languages_are_told_upstream_in_its_own_words() {
    let bench = Bench::start();
    for (given, told) in [
        ("en", Some("en")),
        ("en-US", Some("en")),
        ("english", Some("en")),
        ("German", Some("de")),
        ("zh-Hans", Some("zh")),
        ("auto", None),
        ("", None),
    ] {
        let form = Form::of(&wav(300)).field("language", given);
        let (_, seen) = bench.accepts(given, &Request::post(&form), &wav(300));
        assert_eq!(seen.field("language"), told, "{given}");
    }
}

#[test]
fn a_configured_language_counts_where_none_is_asked_for() {
    let bench = Bench::with(|launch| launch.flags(&["--language", "french"]));
    for (given, told) in
        [(None, Some("fr")), (Some("de"), Some("de")), (Some("auto"), None), (Some(""), Some("fr"))]
    {
        for file_first in [false, true] {
            let mut form = if file_first { Form::of(&wav(300)) } else { Form::new() };
            if let Some(given) = given {
                form = form.field("language", given);
            }
            form = if file_first { form } else { form.file(&wav(300)) };
            let (_, seen) = bench.accepts("configured", &Request::post(&form), &wav(300));
            assert_eq!(seen.field("language"), told, "{given:?}");
            assert_eq!(seen.declared(), Some(seen.body_bytes()));
        }
    }
}

#[test]
fn every_alias_transcribes() {
    let bench = Bench::start();
    for target in [ENDPOINT, "/audio/transcriptions", "/openai/v1/audio/transcriptions"] {
        bench.accepts(target, &Request::post(&Form::of(&wav(300))).target(target), &wav(300));
    }
}

#[test]
fn azure_s_path_names_the_model_and_its_header_brings_the_key() {
    let bench = Bench::start();
    let form = Form::new().file(&wav(300));
    let azure = |model: &str| {
        let target = format!("/openai/deployments/{model}/audio/transcriptions?api-version=2024-06-01");
        Request::post(&form).target(&target).without("Authorization").header("api-key", KEY)
    };
    bench.accepts("azure", &azure("whisper-1"), &wav(300));
    bench.ask(&azure("gpt-9")).refuses("unknown", 404, Some("model_not_found"));
}

#[test]
fn codex_s_own_route_takes_and_gives_codex_s_own_shape() {
    let bench = Bench::start();
    let form = Form::new().file(&wav(300)).field("prompt", "p").field("language", "en");
    let request = Request::post(&form).target("/backend-api/transcribe");
    let (reply, seen) = bench.accepts("codex", &request, &wav(300));
    assert_eq!(reply.json(), json!({"text": TEXT}));
    assert_eq!((seen.field("prompt"), seen.field("language")), (Some("p"), Some("en")));
}

#[test]
fn translations_are_refused_by_name() {
    let bench = Bench::start();
    for target in ["/v1/audio/translations", "/audio/translations"] {
        let reply = bench.ask(&Request::post(&Form::of(&wav(300))).target(target));
        assert_eq!(reply.status, 400, "{reply:?}");
        assert!(reply.error()["message"].as_str().unwrap().contains("ranslation"), "{reply:?}");
    }
}

#[test]
fn the_models_are_listed_one_by_one_and_with_their_abilities() {
    let bench = Bench::with(|launch| launch.config("[codex]\nmodels = [\"acme/whisper\"]\n"));
    let list = bench.ask(&get("/v1/models"));
    list.is_ours("models");
    let data = list.json()["data"].as_array().unwrap().clone();
    let ids: Vec<&str> = data.iter().map(|model| model["id"].as_str().unwrap()).collect();
    for id in ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe", "acme/whisper"] {
        assert!(ids.contains(&id), "{ids:?}");
    }
    for id in &ids {
        let one = bench.ask(&get(&format!("/v1/models/{}", id.replace('/', "%2F")))).json();
        assert_eq!((one["id"].as_str(), one["object"].as_str()), (Some(*id), Some("model")));
        assert!(one["created"].is_u64() && one["owned_by"].is_string(), "{one}");
    }
    let metadata = bench.ask(&get("/v1/models/metadata")).json();
    assert_eq!(metadata["data"].as_array().unwrap().len(), ids.len());
    bench.ask(&get("/v1/models/gpt-9")).refuses("unknown", 404, Some("model_not_found"));
    let head = bench.ask(&Request::new("HEAD", "/v1/models"));
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn health_and_the_front_page_need_no_key() {
    let bench = Bench::start();
    for path in ["/healthz", "/health"] {
        let reply = bench.ask(&get(path).without("Authorization"));
        assert_eq!((reply.status, reply.json()["status"].as_str()), (200, Some("ok")), "{path}");
        reply.is_ours(path);
    }
    for path in ["/", "/v1", "/v1/"] {
        let reply = bench.ask(&get(path).without("Authorization"));
        assert_eq!((reply.status, reply.json()["name"].as_str()), (200, Some("asr-edge")), "{path}");
    }
    let head = bench.ask(&Request::new("HEAD", "/healthz").without("Authorization"));
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn every_request_has_an_id_of_its_own() {
    let bench = Bench::start();
    let id = || {
        bench
            .ask(&get("/v1/models").header("X-Request-Id", "mine"))
            .header("x-request-id")
            .unwrap()
            .to_owned()
    };
    let (one, two) = (id(), id());
    assert_ne!(one, two);
    for id in [one, two] {
        assert!(id.starts_with("req_") && id.len() == 36, "{id}");
    }
    let reply = bench.ask(&get("/v1/models"));
    assert_eq!(reply.header("openai-version"), Some("2020-10-01"));
    assert!(reply.header("openai-processing-ms").unwrap().parse::<u64>().is_ok());
}

#[test]
fn an_empty_transcript_is_a_success_in_every_format() {
    let bench = Bench::start();
    bench.stub.script(json!({"body": {"text": ""}}));
    assert_eq!(asked(&bench, &[]).json(), transcript("", 1));
    assert_eq!(asked(&bench, &[("response_format", "text")]).text(), "\n");
    let verbose: Value = asked(&bench, &[("response_format", "verbose_json")]).json();
    assert_eq!(verbose["text"], "");
}
