//! The translator under arbitrary cutting, judged by a plain parser that reads the whole body at once.
//!
//! Input: a byte of flags (see `terms`), a byte that seeds the cutting, the boundary, LF, and the body.

#![no_main]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use asr_edge_fuzz::reference;
use asr_edge_fuzz::translate::{
    Asked, Boundary, Language, Limits, Models, Refusal, Shape, Terms, Translator,
};
use bytes::Bytes;
use libfuzzer_sys::{Corpus, fuzz_target};

/// What may be added to an upload: the heads we write are longer than some that clients write.
const CONSTANT: usize = 512;

const TIGHT: Limits =
    Limits { upload: 2000, parts: 4, part_head: 100, field: 60, references: 80, ignored: 20, duration: None };

fuzz_target!(|input: &[u8]| -> Corpus {
    let [flags, seed, rest @ ..] = input else { return Corpus::Reject };
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Corpus::Reject };
    let content_type = [b"multipart/form-data; boundary=\"", &rest[..end], b"\""].concat();
    let Ok(boundary) = Boundary::from_content_type(&content_type) else { return Corpus::Reject };
    let body = Bytes::copy_from_slice(&rest[end + 1..]);
    let terms = terms(*flags, &body);

    let whole = translate(&boundary, terms.clone(), [body.clone()]);
    assert!(
        translate(&boundary, terms.clone(), cut(&body, u64::from(*seed))) == whole,
        "cutting changes the output"
    );
    if body.len() <= 2048 {
        let bytes = (0..body.len()).map(|at| body.slice(at..=at));
        assert!(translate(&boundary, terms, bytes) == whole, "single bytes change the output");
    }

    let expected = reference::parts(boundary.as_bytes(), &body);
    match whole {
        Ok((ours, upstream, _)) => {
            let sent = expected.expect("accepted, and the reference finds no form");
            let got = reference::parts(&ours, &upstream).expect("what goes upstream is a form");
            compare(&sent, &got, *flags);
        }
        Err(Refusal::Multipart(why)) => {
            assert!(expected.is_none(), "refused ({why}), and the reference reads it")
        }
        Err(_) => {}
    }
    Corpus::Keep
});

/// Low bits: the length is known; a language is configured; Codex's shape; a model in the path; models must come;
/// tight limits.
fn terms(flags: u8, body: &[u8]) -> Terms {
    let bit = |bit: u8| flags >> bit & 1 == 1;
    Terms {
        length: bit(0).then_some(body.len() as u64),
        seed: seed(body),
        shape: if bit(2) { Shape::Codex } else { Shape::OpenAi },
        models: Arc::new(Models::new(Vec::new(), bit(4))),
        model: bit(3).then(|| "whisper-1".to_owned()),
        language: bit(1).then(|| Language::parse("zh-tw").unwrap().unwrap()),
        limits: if bit(5) { TIGHT } else { Limits::default() },
    }
}

/// A boundary that the body cannot foresee: the fuzzer would soon write a fixed one into the audio.
fn seed(body: &[u8]) -> [u8; 35] {
    std::array::from_fn(|at| {
        let mut hasher = DefaultHasher::new();
        (at, body).hash(&mut hasher);
        hasher.finish() as u8
    })
}

/// Our boundary, the upstream body and what was asked; checks the length on the way.
fn translate(
    boundary: &Boundary,
    terms: Terms,
    pieces: impl IntoIterator<Item = Bytes>,
) -> Result<(Vec<u8>, Vec<u8>, Asked), Refusal> {
    let mut translator = Translator::new(boundary, terms);
    let (mut out, mut pushed) = (Vec::new(), 0);
    for piece in pieces {
        pushed += piece.len();
        translator.push(piece, &mut out).map_err(without_count)?;
        assert_eq!(translator.begun().is_some(), !out.is_empty(), "output and begun come together");
    }
    let asked = translator.finish(&mut out)?;
    let upstream = out.concat();
    assert!(upstream.len() <= pushed + CONSTANT, "{} bytes out for {pushed} in", upstream.len());
    if let Some(length) = translator.begun().expect("begun").length {
        assert_eq!(upstream.len() as u64, length, "the declared length is met");
    }
    let content_type = translator.content_type();
    let ours = content_type.split_once("boundary=").expect("a boundary").1;
    Ok((ours.as_bytes().to_vec(), upstream, asked))
}

/// How much had been read when the limit was passed is the one thing that depends on the cutting.
fn without_count(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::TooLarge { limit, .. } => Refusal::TooLarge { limit, read: limit },
        other => other,
    }
}

/// Pieces of one to some hundred bytes.
fn cut(body: &Bytes, seed: u64) -> Vec<Bytes> {
    let (mut rest, mut pieces) = (body.clone(), Vec::new());
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while !rest.is_empty() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let longest = if state & 3 == 0 { 400 } else { 20 };
        let length = (state >> 8) as usize % longest + 1;
        pieces.push(rest.split_to(length.min(rest.len())));
    }
    pieces
}

/// The file byte by byte, and of the text fields the two that the upstream takes.
fn compare(sent: &[reference::Part], got: &[reference::Part], flags: u8) {
    let only = |parts: &[reference::Part], name: &str| {
        let mut found = parts.iter().filter(|part| part.name == name.as_bytes() && !part.data.is_empty());
        let first = found.next().map(|part| part.data.clone());
        assert!(found.all(|part| name == "language" || Some(&part.data) == first.as_ref()), "{name} differs");
        first
    };
    assert_eq!(only(sent, "file"), only(got, "file"));
    assert_eq!(only(sent, "prompt"), only(got, "prompt"));
    let asked =
        only(sent, "language").map(|raw| Language::parse(std::str::from_utf8(&raw).unwrap()).unwrap());
    let configured = (flags >> 1 & 1 == 1).then(|| "zh-tw".to_owned());
    let expected = asked.map_or(configured, |asked| asked.map(|language| language.code().to_owned()));
    assert_eq!(only(got, "language"), expected.map(String::into_bytes));
    assert!(got.iter().all(|part| [&b"file"[..], b"language", b"prompt"].contains(&&part.name[..])));
}
