//! Reads the form with multer while it arrives: parts are hashed and noted, audio is never kept.

use http::header;
use multer::{Field, Multipart};
use sha2::{Digest, Sha256};

use super::contract::{self, Breach};
use super::intake::Intake;
use super::seen::{self, Entry, Part};

/// A text field with more bytes is refused.
const LONGEST_TEXT: usize = 256 * 1024;
/// A form with more parts is refused.
const MOST_PARTS: usize = 64;

/// A form as the upstream understands it.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Bytes of audio.
    pub(super) bytes: u64,
    /// The container's extension; empty until a file has been heard.
    pub(super) extension: &'static str,
    /// The language asked for.
    pub(super) language: Option<String>,
}

/// Reads the form as far as it comes; the first breach stands. Whether the body ended well is for `intake` to say.
pub(super) async fn hear(
    intake: &mut Intake,
    boundary: &str,
    hash: bool,
    entry: &Entry,
) -> Result<Heard, Breach> {
    let unreadable = |fault: multer::Error| Breach::new(format!("the form cannot be read: {fault}"));
    let mut form = Multipart::new(intake, boundary);
    let mut heard = Heard::default();
    let mut names = Vec::new();
    let mut verdict = Ok(());
    for _ in 0..MOST_PARTS {
        let field = match form.next_field().await {
            Ok(Some(field)) => field,
            Ok(None) if heard.extension.is_empty() => {
                return Err(verdict.err().unwrap_or_else(|| Breach::new("no file")));
            }
            Ok(None) => return verdict.map(|()| heard),
            Err(fault) => return Err(verdict.err().unwrap_or_else(|| unreadable(fault))),
        };
        match listen(field, hash, entry).await {
            Ok((part, content)) => {
                verdict = verdict.and_then(|()| judge(&part, content, &mut names, &mut heard));
            }
            Err(fault) => return Err(verdict.err().unwrap_or_else(|| unreadable(fault))),
        }
    }
    Err(Breach::new("too many parts"))
}

/// What is kept of a part's content.
enum Content {
    /// A file's first bytes.
    File(Vec<u8>),
    Text(Option<String>),
}

/// Reads one part to its end, noting what comes as it comes.
async fn listen(mut field: Field<'_>, hash: bool, entry: &Entry) -> Result<(Part, Content), multer::Error> {
    let content_type = field.headers().get(header::CONTENT_TYPE);
    let mut part = Part {
        name: field.name().map(str::to_owned),
        filename: field.file_name().map(str::to_owned),
        content_type: content_type.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()),
        ..Part::default()
    };
    let is_file = part.name.as_deref() == Some("file") || part.filename.is_some();
    let keep = if is_file { contract::MAGIC } else { LONGEST_TEXT };
    entry.record().parts.push(part.clone());

    let mut digest = hash.then(Sha256::new);
    let mut kept = Vec::new();
    while let Some(chunk) = field.chunk().await? {
        part.bytes += chunk.len() as u64;
        kept.extend(chunk.iter().take(keep.saturating_sub(kept.len())));
        {
            let mut record = entry.record();
            if is_file && !chunk.is_empty() {
                record.first_file_byte_unix_ns.get_or_insert_with(seen::now);
            }
            if let Some(noted) = record.parts.last_mut() {
                noted.bytes = part.bytes;
            }
        }
        if let Some(digest) = &mut digest {
            digest.update(&chunk);
        }
    }
    part.sha256 = digest.map(|digest| hex::encode(digest.finalize()));
    let content = if is_file {
        Content::File(kept)
    } else {
        let whole = part.bytes == kept.len() as u64;
        part.value = String::from_utf8(kept).ok().filter(|_| whole);
        Content::Text(part.value.clone())
    };
    if let Some(noted) = entry.record().parts.last_mut() {
        noted.clone_from(&part);
    }
    Ok((part, content))
}

/// Checks one part, and takes from it what the answer needs.
fn judge(part: &Part, content: Content, names: &mut Vec<String>, heard: &mut Heard) -> Result<(), Breach> {
    let name = part.name.as_deref().ok_or_else(|| Breach::new("a part without a name"))?;
    if !["file", "language", "prompt"].contains(&name) {
        return Err(Breach::new(format!("unexpected field {name}")));
    }
    if names.iter().any(|seen| seen == name) {
        return Err(Breach::new(format!("field {name} twice")));
    }
    names.push(name.to_owned());
    match content {
        Content::File(_) if name != "file" => Err(Breach::new(format!("a file name on {name}"))),
        Content::File(start) => {
            heard.bytes = part.bytes;
            heard.extension = contract::file(part.filename.as_deref(), part.content_type.as_deref(), &start)?;
            Ok(())
        }
        Content::Text(None) => Err(Breach::new(format!("{name} is too long, or not UTF-8"))),
        Content::Text(Some(value)) => {
            contract::text(name, &value)?;
            if name == "language" {
                heard.language = Some(value);
            }
            Ok(())
        }
    }
}
