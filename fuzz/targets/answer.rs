//! What becomes of the upstream's answer, for every format that can be asked for.
//!
//! A 200 with a transcript, and nothing else, is a 200, which holds exactly that text: as JSON of the asked shape, as
//! the text itself, or as server-sent events that end with their one `done`. Everything else is one OpenAI error,
//! with all four keys, under a status of the table; never a 401 or 403, and a 200 that is broken is a 502. No wait is
//! longer than 30 days. Of what the upstream says, in headers and body, no word shows in an error: another word in
//! the same place makes the same error, byte for byte.
//!
//! Input: a byte of flags (see `asked`), the status, LF, header lines (`name: value`), an empty line, the body. With
//! the highest flag the rest is a text, which the upstream gives as JSON. JSON with a language is Codex's own shape.

#![no_main]

use std::time::Duration;

use asr_edge_fuzz::answer::{Answer, Blame, Fault, Reply, fault_of, passes_by_itself, reply};
use asr_edge_fuzz::choices::{line, plant};
use asr_edge_fuzz::translate::{Asked, Container, Format, Language, Shape};
use http::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Value, json};

/// A moment in 2026, in Unix seconds.
const NOW: u64 = 1_790_000_000;

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((flags, rest)) = input.split_first() else { return Corpus::Reject };
    let asked = asked(*flags);
    if flags & 0x80 != 0 {
        let text = String::from_utf8_lossy(rest);
        let answer =
            Answer { status: 200, headers: HeaderMap::new(), body: said(&text, flags & 4 != 0).into() };
        let reply = reply(&answer, &asked, NOW).expect("a transcript");
        check_success(&reply, &text, &asked);
        return Corpus::Keep;
    }
    let Some(answer) = answer(&plant(rest, b"eyJh.first-word.kQ")) else { return Corpus::Reject };
    let other = self::answer(&plant(rest, b"eyJz.other-word.Kq")).expect("the same but for a word");
    match reply(&answer, &asked, NOW) {
        Ok(reply) => {
            let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
            assert_eq!(answer.status, 200);
            check_success(&reply, body["text"].as_str().expect("a text"), &asked);
        }
        Err(fault) => {
            let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
            let text = body.as_ref().and_then(|body| body.as_object()?.get("text")?.as_str());
            assert!(answer.status != 200 || text.is_none(), "{fault} of a transcript");
            assert!(answer.status != 200 || fault.status() == 502, "{fault} of a broken 200");
            assert_eq!(
                self::reply(&other, &asked, NOW),
                Err(fault.clone()),
                "a word of the upstream's counts"
            );
            check_fault(&fault, answer.status);
        }
    }
    // Before the upload is complete, whatever comes is a fault.
    let fault = fault_of(&answer, NOW);
    assert_eq!(fault_of(&other, NOW), fault, "a word of the upstream's counts");
    check_fault(&fault, answer.status);
    let again = passes_by_itself(&answer, NOW);
    assert_eq!(again.is_some(), matches!(fault, Fault::UpstreamUnavailable { .. }));
    assert!(again.is_none() || matches!(answer.status, 408 | 425 | 500..=599), "{} passes", answer.status);
    Corpus::Keep
});

/// Low bits: the format (2), characters of a said text are escaped, a stream, a language, a duration, ignored fields.
fn asked(flags: u8) -> Asked {
    let bit = |bit: u8| flags >> bit & 1 == 1;
    let codex = flags & 3 == 0 && bit(4);
    Asked {
        shape: if codex { Shape::Codex } else { Shape::OpenAi },
        model: "whisper-1".to_owned(),
        format: Format::ALL[usize::from(flags & 3)],
        stream: bit(3),
        language: bit(4).then(|| Language::parse(if bit(5) { "tlh" } else { "de" }).ok().flatten()).flatten(),
        container: Container::Wav,
        duration: bit(5).then(|| Duration::from_millis(8_470)),
        ignored: if bit(6) { vec!["temperature".to_owned(), "vad_filter".to_owned()] } else { Vec::new() },
    }
}

fn answer(text: &[u8]) -> Option<Answer> {
    let (status, mut rest) = line(text);
    let status = std::str::from_utf8(status).ok()?.trim().parse().ok()?;
    let mut headers = HeaderMap::new();
    loop {
        let field;
        (field, rest) = line(rest);
        if field.is_empty() {
            break;
        }
        let colon = field.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&field[..colon]).ok()?;
        headers.append(name, HeaderValue::from_bytes(field[colon + 1..].trim_ascii()).ok()?);
    }
    Some(Answer { status, headers, body: rest.to_vec().into() })
}

/// The upstream's body for a text, its characters escaped as little or as much as JSON has it (RFC 8259 section 7).
fn said(text: &str, escape: bool) -> String {
    let mut body = String::from(r#" {"language":null,"text":""#);
    for character in text.chars() {
        if escape || matches!(character, '"' | '\\' | '\0'..='\x1f') {
            for unit in character.encode_utf16(&mut [0; 2]) {
                body += &format!("\\u{unit:04x}");
            }
        } else {
            body.push(character);
        }
    }
    body + "\",\"assets\":[{\"text\":\"x\"}]}\n"
}

fn check_success(reply: &Reply, text: &str, asked: &Asked) {
    assert_eq!(reply.status, 200);
    check_headers(reply);
    let header =
        |name: &str| reply.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
    assert_eq!(header("x-asr-ignored").is_some(), !asked.ignored.is_empty());
    let body = std::str::from_utf8(&reply.body).expect("UTF-8");
    if asked.stream {
        assert_eq!(reply.content_type, "text/event-stream; charset=utf-8");
        return check_events(body, text);
    }
    match asked.format {
        Format::Json => {
            assert_eq!(reply.content_type, "application/json");
            let mut body: Value = serde_json::from_str(body).expect("JSON");
            let usage = body.as_object_mut().expect("an object").remove("usage");
            if asked.shape == Shape::Codex {
                assert_eq!((usage, header("x-asr-unmeasured")), (None, None));
            } else {
                check_usage(usage, asked);
                assert_eq!(header("x-asr-unmeasured").is_some(), asked.duration.is_none());
            }
            assert_eq!(body, json!({ "text": text }));
        }
        Format::VerboseJson => {
            assert_eq!(reply.content_type, "application/json");
            let mut body: Value = serde_json::from_str(body).expect("JSON");
            let fields = body.as_object_mut().expect("an object");
            check_usage(fields.remove("usage"), asked);
            let duration = fields.remove("duration");
            assert_eq!(duration, asked.duration.map(|duration| duration.as_secs_f64().into()));
            assert_eq!(header("x-asr-unmeasured").is_some(), duration.is_none());
            let language = body["language"].as_str().expect("a language").to_owned();
            assert!(language.len() > 3, "{language}: no English name");
            let task = "transcribe";
            let expected = json!({ "task": task, "language": language, "text": text, "segments": [] });
            assert_eq!(body, expected);
        }
        Format::Text => {
            assert_eq!(reply.content_type, "text/plain; charset=utf-8");
            assert!(
                body.ends_with('\n') && body.trim_end_matches('\n') == text.trim_end_matches('\n'),
                "{body:?}"
            );
        }
        Format::Markdown => {
            assert_eq!(reply.content_type, "text/markdown; charset=utf-8");
            assert_eq!(body, text);
        }
    }
}

/// Begun seconds count whole.
fn check_usage(usage: Option<Value>, asked: &Asked) {
    let seconds = asked.duration.map(|duration| duration.as_millis().div_ceil(1000) as u64);
    assert_eq!(usage, seconds.map(|seconds| json!({ "type": "duration", "seconds": seconds })));
}

/// Reads the stream as a browser does (HTML section 9.2.6): fields by line, an event at each empty one.
fn check_events(body: &str, text: &str) {
    let (mut data, mut events) = (String::new(), Vec::<Value>::new());
    for line in body.replace("\r\n", "\n").split(['\n', '\r']) {
        if line.is_empty() {
            if !data.is_empty() {
                events.push(serde_json::from_str(&data).expect("JSON"));
            }
            data.clear();
        } else {
            let value = line.strip_prefix("data:").expect("no other field");
            assert!(data.is_empty(), "an event on two lines");
            data += value.strip_prefix(' ').unwrap_or(value);
        }
    }
    assert!(data.is_empty(), "the last event is not ended");
    let (done, deltas) = events.split_last().expect("events");
    assert_eq!(*done, json!({ "type": "transcript.text.done", "text": text }));
    let mut joined = String::new();
    for delta in deltas {
        assert_eq!(delta["type"], "transcript.text.delta");
        joined += delta["delta"].as_str().expect("a delta");
    }
    assert_eq!(joined, text);
}

fn check_fault(fault: &Fault, upstream: u16) {
    let reply = fault.reply();
    assert_eq!(reply.status, fault.status());
    let statuses: &[u16] = match upstream {
        413 => &[413, 502],
        429 => &[429, 502],
        401 | 403 => &[503, 502],
        500 => &[400, 502],
        _ => &[502],
    };
    assert!(statuses.contains(&reply.status), "{} for {upstream}", reply.status);
    assert_eq!(reply.status == 503, fault.blame() == Blame::Us, "{fault}");
    assert_eq!(reply.content_type, "application/json");
    check_headers(&reply);
    let body: Value = serde_json::from_slice(&reply.body).expect("JSON");
    let error = body["error"].as_object().expect("an error");
    assert_eq!((body.as_object().expect("an object").len(), error.len()), (1, 4), "{body}");
    assert_eq!(error["message"], fault.message());
    assert!(!fault.message().is_empty() && error["type"].is_string(), "{body}");
    assert!(error["code"].is_string() && (error["param"].is_string() || error["param"].is_null()), "{body}");
}

fn check_headers(reply: &Reply) {
    for (name, value) in &reply.headers {
        assert_eq!(HeaderName::from_static(name).as_str(), *name);
        assert!(HeaderValue::from_str(value).is_ok(), "{name}: {value:?}");
        match *name {
            "retry-after" => {
                assert!((1..=30 * 86_400).contains(&value.parse::<u64>().expect("seconds")), "{value}")
            }
            "retry-after-ms" => {
                assert!((1..=60_000).contains(&value.parse::<u64>().expect("milliseconds")), "{value}")
            }
            "x-should-retry" => assert_eq!(value, "false"),
            "x-asr-ignored" | "x-asr-unmeasured" => assert_eq!(reply.status, 200),
            _ => panic!("{name}: of an answer?"),
        }
    }
}
