//! The translator over its public interface: real clients' uploads and generated ones, cut in every way.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test"
)]

#[path = "translate/capture.rs"]
mod capture;
#[path = "translate/form.rs"]
mod form;
#[path = "translate/judge.rs"]
mod judge;

use asr_edge::translate::{Field, Format, Language, Refusal, Terms};
use bytes::Bytes;
use capture::Capture;
use form::any_form;
use judge::{Done, cut, parts, terms, translate};
use proptest::prelude::*;
use sha2::{Digest, Sha256};

/// What must come of a capture, by `index.json` alone.
fn refusal_expected(capture: &Capture) -> Option<fn(&Refusal) -> bool> {
    if capture.parts.is_empty() {
        return Some(|refusal| matches!(refusal, Refusal::ContentType(_) | Refusal::Multipart(_)));
    }
    let Some(file) = capture.parts.iter().find(|part| part.name == "file") else {
        return Some(|refusal| *refusal == Refusal::Missing(Field::File));
    };
    if file.sha256.is_none() {
        return Some(|refusal| matches!(refusal, Refusal::AudioUnsupported(Some(_))));
    }
    let has = |name: &str, value: &str| {
        capture.parts.iter().any(|part| part.name.starts_with(name) && part.value.as_deref() == Some(value))
    };
    let words = has("timestamp_granularities", "word") && has("response_format", "verbose_json");
    words.then_some(|refusal| matches!(refusal, Refusal::Unsupported { value: "word", .. }))
}

fn translate_capture(capture: &Capture, pieces: impl IntoIterator<Item = Bytes>) -> Result<Done, Refusal> {
    translate(&capture.content_type, pieces, terms(capture.length))
}

#[test]
fn every_capture_is_translated_or_refused_as_its_parts_say() {
    for capture in capture::all() {
        let name = &capture.name;
        let done = match (translate_capture(capture, capture.pieces.clone()), refusal_expected(capture)) {
            (Ok(done), None) => done,
            (Err(refusal), Some(expected)) if expected(&refusal) => continue,
            (other, _) => panic!("{name}: {other:?}"),
        };
        let parts = parts(&done);
        let file = parts.iter().find(|part| part.name == "file").unwrap();
        let sent = capture.parts.iter().find(|part| part.name == "file").unwrap();
        assert_eq!(Some(hex::encode(Sha256::digest(&file.data))), sent.sha256, "{name}");
        let (file_name, media_type) = match &file.data[..4] {
            b"RIFF" => ("audio.wav", "audio/wav"),
            _ => ("audio.mp3", "audio/mpeg"),
        };
        assert_eq!(file.file_name.as_deref(), Some(file_name), "{name}");
        assert_eq!(file.content_type.as_deref(), Some(media_type), "{name}");
        for field in ["language", "prompt"] {
            let text = parts.iter().find(|part| part.name == field);
            assert_eq!(text.map(|part| &part.data[..]), capture.value(field).map(str::as_bytes), "{name}");
        }
        assert!(
            parts.iter().all(|part| ["file", "language", "prompt"].contains(&part.name.as_str())),
            "{name}"
        );
        assert_eq!(done.asked.model, capture.value("model").unwrap(), "{name}");
        assert_eq!(done.asked.stream, capture.value("stream") == Some("true"), "{name}");
        let format = match capture.value("response_format") {
            Some("text") => Format::Text,
            Some("verbose_json") => Format::VerboseJson,
            _ => Format::Json,
        };
        assert_eq!(done.asked.format, format, "{name}");
        assert!(done.asked.duration.is_some(), "{name}");
    }
}

#[test]
fn clients_with_a_usual_boundary_and_the_file_last_need_no_padding() {
    let mut seen = 0;
    for capture in capture::all() {
        let file_last = capture.parts.last().is_some_and(|part| part.sha256.is_some());
        let Ok(done) = translate_capture(capture, [capture.body.clone()]) else { continue };
        if capture.length.is_some() && file_last {
            let end = done.upstream.rsplit(|byte| *byte == b'-').next().unwrap();
            assert!(end == b"" || end.trim_ascii().is_empty() && end.len() <= 4, "{}: {end:?}", capture.name);
            seen += 1;
        }
    }
    assert!(seen > 20);
}

#[test]
fn every_capture_cut_in_two_anywhere_or_into_bytes_gives_the_same() {
    for capture in capture::all() {
        let whole = translate_capture(capture, [capture.body.clone()]);
        assert_eq!(
            translate_capture(capture, cut(&capture.body, &(0..capture.body.len()).collect::<Vec<_>>())),
            whole
        );
        for place in 1..capture.body.len() {
            assert_eq!(
                translate_capture(capture, cut(&capture.body, &[place])),
                whole,
                "{} at {place}",
                capture.name
            );
        }
    }
}

#[test]
fn every_capture_cut_short_is_refused() {
    for capture in capture::all().iter().filter(|capture| refusal_expected(capture).is_none()) {
        let closing = capture.body.windows(4).rposition(|window| window.starts_with(b"--")).unwrap();
        for length in (0..closing).step_by(17).chain([closing]) {
            let short = capture.body.slice(..length);
            assert!(
                translate(&capture.content_type, [short], terms(None)).is_err(),
                "{} at {length}",
                capture.name
            );
        }
    }
}

#[test]
fn a_large_field_behind_the_file_is_refused_the_same_way_however_it_is_cut() {
    for (name, size) in
        [("odd", 70_000), ("odd", 300_000), ("known_speaker_references[]", 9 << 20), ("prompt", 300_000)]
    {
        let file = "--b\r\nContent-Disposition: form-data; name=file\r\n\r\nOggS and some more bytes";
        let field =
            format!("\r\n--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{}", "x".repeat(size));
        let body = Bytes::from(format!("{file}{field}\r\n--b--\r\n"));
        let content_type = "multipart/form-data; boundary=b";
        for length in [None, Some(body.len() as u64)] {
            let whole = translate(content_type, [body.clone()], terms(length));
            let places: Vec<usize> = (0..body.len()).step_by(997).collect();
            assert_eq!(translate(content_type, cut(&body, &places), terms(length)), whole, "{name} {size}");
        }
    }
}

proptest! {
    #[test]
    fn every_cutting_of_a_capture_gives_the_same(
        which in any::<prop::sample::Index>(),
        places in prop::collection::vec(any::<usize>(), 0..60),
        language in prop::option::of(Just("fr")),
    ) {
        let capture = which.get(capture::all());
        let language = language.and_then(|language| Language::parse(language).unwrap());
        let terms = Terms { language, ..terms(capture.length) };
        let whole = translate(&capture.content_type, [capture.body.clone()], terms.clone());
        let pieces = cut(&capture.body, &places);
        prop_assert_eq!(translate(&capture.content_type, pieces, terms), whole);
    }

    #[test]
    fn every_form_that_a_client_can_write_is_translated(form in any_form(), places in prop::collection::vec(any::<usize>(), 0..40)) {
        let body = Bytes::from(form.body());
        let content_type = format!("multipart/form-data; boundary=\"{}\"", form.boundary);
        for length in [None, Some(body.len() as u64)] {
            let language = form.configured.then(|| Language::parse("zh-tw").unwrap().unwrap());
            let terms = Terms { language, ..terms(length) };
            let done = translate(&content_type, [body.clone()], terms.clone()).unwrap();
            prop_assert_eq!(&translate(&content_type, cut(&body, &places), terms).unwrap(), &done);

            let parts = parts(&done);
            let find = |name: &str| parts.iter().find(|part| part.name == name).map(|part| part.data.to_vec());
            let language = form.value("language").map(|_| "en").or_else(|| form.configured.then_some("zh-tw"));
            prop_assert_eq!(find("file"), Some(form.file()));
            prop_assert_eq!(find("language"), language.map(|code| code.as_bytes().to_vec()));
            prop_assert_eq!(find("prompt"), form.value("prompt").map(|value| value.as_bytes().to_vec()));
            prop_assert_eq!(parts.len(), 1 + usize::from(find("language").is_some()) + usize::from(find("prompt").is_some()));
        }
    }

    #[test]
    fn noise_is_refused_the_same_way_however_it_is_cut(
        noise in prop::collection::vec(
            prop::sample::select(vec![
                "\r\n", "--b", "--", "\r", "\n", " ", "x", "Content-Disposition: form-data; name=", "file", "prompt",
                "model", "\r\n\r\n", "RIFF", "OggS: 16 bytes and more", "\r\n--b\r\n", "\r\n--b--", "whisper-1", "\"", ";",
            ]),
            0..60,
        ),
        places in prop::collection::vec(any::<usize>(), 0..30),
    ) {
        let body = Bytes::from(noise.concat());
        let content_type = "multipart/form-data; boundary=b";
        for length in [None, Some(body.len() as u64)] {
            let whole = translate(content_type, [body.clone()], terms(length));
            prop_assert_eq!(translate(content_type, cut(&body, &places), terms(length)), whole);
        }
    }
}
