//! Drives a translator, checks what must hold for every upload, and reads the upstream body with another parser.

use std::sync::Arc;

use asr_edge::translate::{Asked, Boundary, Limits, Models, Refusal, Shape, Terms, Translator};
use bytes::Bytes;

/// What may be added to an upload: the heads we write are longer than some that clients write.
const CONSTANT: u64 = 512;

/// What the captured Groq clients ask for.
const MODEL: &str = "whisper-large-v3";

/// A translated upload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) content_type: String,
    pub(crate) upstream: Vec<u8>,
    pub(crate) declared: Option<u64>,
    pub(crate) asked: Asked,
}

/// A part of the upstream body, as multer reads it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) file_name: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) data: Bytes,
}

pub(crate) fn terms(length: Option<u64>) -> Terms {
    Terms {
        length,
        seed: *b"35 bytes that nobody could foresee.",
        shape: Shape::OpenAi,
        models: Arc::new(Models::new(vec![MODEL.to_owned()], false)),
        model: None,
        language: None,
        limits: Limits::default(),
    }
}

/// Pushes the pieces in order.
pub(crate) fn translate(
    content_type: &str,
    pieces: impl IntoIterator<Item = Bytes>,
    terms: Terms,
) -> Result<Done, Refusal> {
    let boundary = Boundary::from_content_type(content_type.as_bytes())?;
    let length = terms.length;
    let mut translator = Translator::new(&boundary, terms);
    let (mut out, mut pushed) = (Vec::new(), 0);
    for piece in pieces {
        pushed += piece.len() as u64;
        translator.push(piece, &mut out)?;
        assert_eq!(translator.begun().is_some(), !out.is_empty(), "output and begun come together");
        let sent: usize = out.iter().map(Bytes::len).sum();
        assert!(sent as u64 <= pushed + CONSTANT, "{sent} bytes out for {pushed} in");
    }
    let asked = translator.finish(&mut out)?;
    let declared = translator.begun().expect("begun").length;
    let upstream = out.concat();
    assert!(upstream.len() as u64 <= pushed + CONSTANT, "{} bytes out for {pushed} in", upstream.len());
    assert_eq!(declared.is_some(), length.is_some());
    assert_eq!(
        upstream.len() as u64,
        declared.unwrap_or(upstream.len() as u64),
        "the declared length is met"
    );
    Ok(Done { content_type: translator.content_type(), upstream, declared, asked })
}

/// The upstream body as multer reads it.
pub(crate) fn parts(done: &Done) -> Vec<Part> {
    let boundary = multer::parse_boundary(&done.content_type).unwrap();
    let body = Bytes::from(done.upstream.clone());
    let stream = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(body)]);
    let mut multipart = multer::Multipart::new(stream, boundary);
    let mut parts = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        while let Some(field) = multipart.next_field().await.unwrap() {
            parts.push(Part {
                name: field.name().unwrap().to_owned(),
                file_name: field.file_name().map(str::to_owned),
                content_type: field.content_type().map(ToString::to_string),
                data: field.bytes().await.unwrap(),
            });
        }
    });
    parts
}

/// `body` cut at these places, in any order and as often as given.
pub(crate) fn cut(body: &Bytes, places: &[usize]) -> Vec<Bytes> {
    let mut places: Vec<usize> = places.iter().map(|place| place % (body.len() + 1)).collect();
    places.sort_unstable();
    let starts = std::iter::once(0).chain(places.iter().copied());
    let ends = places.iter().copied().chain([body.len()]);
    starts.zip(ends).filter(|(start, end)| start < end).map(|(start, end)| body.slice(start..end)).collect()
}
