//! Captured requests, taken out of their HTTP/1.1 framing.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value};

/// One captured upload, and what `index.json` says of it.
pub(crate) struct Capture {
    pub(crate) name: String,
    pub(crate) content_type: String,
    /// `None` for a chunked body.
    pub(crate) length: Option<u64>,
    pub(crate) body: Bytes,
    /// The body as the client framed it: its chunks, or the whole.
    pub(crate) pieces: Vec<Bytes>,
    pub(crate) parts: Vec<Part>,
}

/// A part as the index has it.
pub(crate) struct Part {
    pub(crate) name: String,
    /// Of text parts.
    pub(crate) value: Option<String>,
    /// Of file parts, in hexadecimal.
    pub(crate) sha256: Option<String>,
}

impl Capture {
    /// The value of a text part, if it is there and not empty.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let part = self.parts.iter().find(|part| part.name == name)?;
        part.value.as_deref().filter(|value| !value.is_empty())
    }
}

/// Every captured request with a body.
pub(crate) fn all() -> &'static [Capture] {
    static ALL: LazyLock<Vec<Capture>> = LazyLock::new(load);
    &ALL
}

fn load() -> Vec<Capture> {
    let folder = format!("{}/tests/fixtures/captures", env!("CARGO_MANIFEST_DIR"));
    let index = std::fs::File::open(format!("{folder}/index.json")).unwrap();
    let index: Map<String, Value> = serde_json::from_reader(index).unwrap();
    let with_body = index.into_iter().filter(|(_, entry)| entry["body_bytes"].as_u64() > Some(0));
    let captures: Vec<Capture> = with_body
        .map(|(name, entry)| {
            let mut raw = Vec::new();
            let mut file = std::fs::File::open(format!("{folder}/{name}")).unwrap();
            std::io::Read::read_to_end(&mut file, &mut raw).unwrap();
            read(name, raw.into(), &entry)
        })
        .collect();
    assert!(captures.len() > 75, "only {} captures", captures.len());
    captures
}

fn read(name: String, mut raw: Bytes, entry: &Value) -> Capture {
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(raw.split_to(end + 4).to_vec()).unwrap();
    let header = |wanted: &str| {
        head.lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned()))
    };
    let length = header("content-length").map(|length| length.parse().unwrap());
    let pieces = match length {
        Some(length) => vec![raw.split_to(usize::try_from(length).unwrap())],
        None => chunks(raw),
    };
    let body = Bytes::from(pieces.concat());
    assert_eq!(body.len() as u64, entry["body_bytes"].as_u64().unwrap(), "{name}");
    let text = |part: &Value, key: &str| part[key].as_str().map(str::to_owned);
    let parts = entry["parts"].as_array().into_iter().flatten().map(|part| Part {
        name: text(part, "name").unwrap(),
        value: text(part, "value"),
        sha256: text(part, "sha256"),
    });
    Capture {
        content_type: header("content-type").unwrap(),
        length,
        body,
        pieces,
        parts: parts.collect(),
        name,
    }
}

/// The chunks of a chunked body (RFC 9112 7.1).
fn chunks(mut raw: Bytes) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    loop {
        let end = raw.windows(2).position(|window| window == b"\r\n").unwrap();
        let line = String::from_utf8(raw.split_to(end + 2).to_vec()).unwrap();
        let size = line.split(';').next().unwrap().trim();
        match usize::from_str_radix(size, 16).unwrap() {
            0 => return chunks,
            size => chunks.push(raw.split_to(size)),
        }
        assert_eq!(raw.split_to(2), "\r\n");
    }
}
