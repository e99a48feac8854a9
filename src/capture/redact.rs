//! A capture without what is nobody's business: keys, audio, names and words. Its length, its framing and whatever
//! decides how it is read stay.

use std::ops::Range;

use super::form::{self, Part};
use super::framing::Request;
use crate::translate::{Field, Language, Models};

/// How much of the audio is kept, bytes: its container is recognised by its beginning.
const AUDIO_KEPT: usize = 1024;

/// Header fields that say nothing about anybody; of all others only the length is kept.
const PLAIN: [&str; 12] = [
    "accept",
    "accept-encoding",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// The same bytes with the private ones masked.
pub(super) fn redacted(raw: &[u8], request: &Request<'_>, boundary: Option<&[u8]>) -> Vec<u8> {
    let mut out = raw.to_vec();
    if let Some(head) = out.get_mut(request.head.clone()) {
        mask_head(head);
    }
    let mut body: Vec<u8> =
        request.body.iter().filter_map(|range| raw.get(range.clone())).flatten().copied().collect();
    mask_body(&mut body, boundary);
    let mut masked = body.into_iter();
    for range in &request.body {
        let places = out.get_mut(range.clone()).into_iter().flatten();
        places.zip(&mut masked).for_each(|(place, byte)| *place = byte);
    }
    // Trailers, the next request: whatever follows is not looked at.
    if let Some(rest) = out.get_mut(request.rest.clone()) {
        mask(rest);
    }
    out
}

/// Line by line: the query of the target, and the values of all fields but the plain ones.
fn mask_head(head: &mut [u8]) {
    for (number, line) in head.split_mut(|byte| *byte == b'\n').enumerate() {
        if number == 0 {
            let query = memchr::memchr(b'?', line);
            let end = memchr::memrchr(b' ', line).unwrap_or(line.len());
            if let Some(query) = query.and_then(|from| line.get_mut(from..end)) {
                mask(query);
            }
            continue;
        }
        let Some(colon) = memchr::memchr(b':', line) else {
            mask(line);
            continue;
        };
        let name = String::from_utf8_lossy(line.get(..colon).unwrap_or_default()).trim().to_ascii_lowercase();
        if PLAIN.contains(&name.as_str()) || name.starts_with("x-stainless-") {
            continue;
        }
        let Some(value) = line.get_mut(colon + 1..) else { continue };
        match name.as_str() {
            // What is before the key decides how it is read.
            "authorization" | "proxy-authorization" => {
                let start = value.iter().take_while(|byte| **byte == b' ').count();
                let scheme = memchr::memchr(b' ', value.get(start..).unwrap_or_default());
                let key = scheme.map_or(start, |length| start + length + 1);
                value.get_mut(key..).into_iter().for_each(mask);
            }
            "host" => {
                let port = memchr::memrchr(b':', value).unwrap_or(value.len());
                value.get_mut(..port).into_iter().for_each(mask);
            }
            _ => mask(value),
        }
    }
}

fn mask_body(body: &mut [u8], boundary: Option<&[u8]>) {
    let (parts, _) = boundary.map(|boundary| form::parts(body, boundary)).unwrap_or_default();
    let mut masked = 0;
    for Part { head, data, .. } in parts {
        if masked == 0 {
            // Before the first delimiter nothing should be.
            let delimiter = boundary.map_or(0, <[u8]>::len) + 4;
            between(body, 0..head.start.saturating_sub(delimiter));
        }
        masked = data.end;
        let lines = body.get(head.clone()).unwrap_or_default();
        let disposition = form::header(lines, "content-disposition").unwrap_or_default();
        let value = |name| Some(disposition.get(form::parameter(disposition, name)?)?.to_vec());
        let name = String::from_utf8_lossy(&value("name").unwrap_or_default()).into_owned();
        let named = value("filename").is_some() || value("filename*").is_some();
        let bare = name.split('[').next().unwrap_or_default().to_owned();
        if named || bare == Field::File.name() {
            body.get_mut(data)
                .into_iter()
                .flat_map(|data| data.iter_mut().skip(AUDIO_KEPT))
                .for_each(|b| *b = 0);
        } else if !body.get(data.clone()).is_some_and(|value| is_plain(&bare, value)) {
            between(body, data);
        }
        body.get_mut(head).into_iter().for_each(|head| mask_part_head(head, Field::named(&bare).is_some()));
    }
    let rest = match boundary {
        // The closing delimiter stays; what is behind its line goes.
        Some(boundary) => form::parts(body, boundary).1.unwrap_or(body.len()),
        None => 0,
    };
    between(body, rest.max(masked)..body.len());
    if boundary.is_some() && masked == 0 {
        between(body, 0..body.len());
    }
}

fn between(body: &mut [u8], range: Range<usize>) {
    body.get_mut(range).into_iter().for_each(mask);
}

/// Names of files, and of fields that we do not know; all headers but the two that are read.
fn mask_part_head(head: &mut [u8], known: bool) {
    for line in head.split_mut(|byte| *byte == b'\n') {
        let colon = memchr::memchr(b':', line).unwrap_or(0);
        let name = String::from_utf8_lossy(line.get(..colon).unwrap_or_default()).trim().to_ascii_lowercase();
        let Some(value) = line.get_mut(colon..) else { continue };
        match name.as_str() {
            "content-type" | "content-transfer-encoding" => {}
            "content-disposition" => {
                let doomed: &[&str] =
                    if known { &["filename", "filename*"] } else { &["filename", "filename*", "name"] };
                for parameter in doomed {
                    let Some(range) = form::parameter(value, parameter) else { continue };
                    let Some(text) = value.get_mut(range) else { continue };
                    mask_name(text);
                }
            }
            _ => mask(value),
        }
    }
}

/// But for what stands before `''` in RFC 8187's form, and a short ending such as `.wav`.
fn mask_name(name: &mut [u8]) {
    let start = memchr::memmem::find(name, b"''").map_or(0, |at| at + 2);
    let dot = memchr::memrchr(b'.', name).filter(|dot| {
        let ending = name.get(dot + 1..).unwrap_or_default();
        (1..=4).contains(&ending.len()) && ending.iter().all(u8::is_ascii_alphanumeric)
    });
    let end = dot.unwrap_or(name.len());
    let Some(name) = name.get_mut(start.min(end)..end) else { return };
    // Two digits behind a `%` must stay digits: `%78` is an x.
    let mut coming = 0;
    for byte in name {
        match (coming, *byte) {
            (2, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => *byte = b'7',
            (1, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => *byte = b'8',
            (_, b'%') => coming = 3,
            (_, other) => *byte = masked(other),
        }
        coming = i32::max(coming - 1, 0);
    }
}

/// Whether a value is one of the words that the field is made for, and so says nothing.
fn is_plain(field: &str, value: &[u8]) -> bool {
    let Ok(value) = str::from_utf8(value) else { return false };
    match Field::named(field) {
        Some(Field::Model) => Models::default().knows(value),
        Some(Field::Language | Field::Languages) => Language::parse(value).is_ok(),
        Some(Field::ResponseFormat) => {
            ["json", "text", "srt", "verbose_json", "vtt", "diarized_json", "markdown"].contains(&value)
        }
        Some(Field::Temperature) => value.len() <= 8 && value.parse::<f32>().is_ok(),
        Some(Field::Stream) => ["true", "false", "null", "1", "0", ""].contains(&value),
        Some(Field::TimestampGranularities) => ["word", "segment"].contains(&value),
        Some(Field::Include) => value == "logprobs",
        Some(Field::ChunkingStrategy) => ["auto", "server_vad"].contains(&value),
        _ => value.is_empty(),
    }
}

/// Letters and digits, and all that is not ASCII; what is left is space and punctuation.
fn mask(text: &mut [u8]) {
    text.iter_mut().for_each(|byte| *byte = masked(*byte));
}

const fn masked(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() || !byte.is_ascii() { b'x' } else { byte }
}
