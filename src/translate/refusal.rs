//! Why an upload is refused.

use std::time::Duration;

use super::asked::Field;

/// Why an upload is refused. What the client sees of it (status, `type`, `code`, message) stands in
/// `answer::fault` and nowhere else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The body is no `multipart/form-data`; holds the media type without parameters, printable ASCII, 100 bytes at most.
    #[error("unsupported content type")]
    ContentType(String),
    /// The multipart grammar is broken: boundary, delimiter, part header, missing end. Says what.
    #[error("malformed multipart: {0}")]
    Multipart(&'static str),
    /// More parts than the limit.
    #[error("more than {0} parts")]
    TooManyParts(usize),
    /// A part's header block is longer than the limit, in bytes.
    #[error("part header over {0} bytes")]
    PartHeadTooLong(usize),
    /// A text field is longer than the limit, in bytes. `None`: a field that we do not know.
    #[error("field over {1} bytes")]
    FieldTooLong(Option<Field>, usize),
    /// More bytes behind the file that go nowhere (ignored fields, epilogue) than padding can stand for.
    #[error("more than {0} ignored bytes after the file")]
    TooMuchIgnored(usize),
    /// The whole body is longer than the limit: limit, bytes read so far (or declared).
    #[error("body over {limit} bytes")]
    TooLarge {
        /// The limit, bytes.
        limit: u64,
        /// What was declared or had been read when it was passed, bytes.
        read: u64,
    },
    /// A field that must come is not there (`file`, or `model` under `strict`).
    #[error("missing field {}", .0.name())]
    Missing(Field),
    /// A field that may come once came twice with different values, or two files.
    #[error("field {} given twice", .0.name())]
    Twice(Field),
    /// A value that is not allowed for the field: enum, range, charset, control characters. Says why, without the value.
    #[error("invalid {}: {why}", field.name())]
    Invalid {
        /// The field at fault.
        field: Field,
        /// What is allowed, or what is wrong.
        why: &'static str,
    },
    /// A value that OpenAI knows and this upstream cannot give (`srt`, `diarized_json`, word timestamps, ...).
    #[error("unsupported {}: {why}", field.name())]
    Unsupported {
        /// The field at fault.
        field: Field,
        /// The value, one of our own words.
        value: &'static str,
        /// Why this upstream cannot.
        why: &'static str,
    },
    /// A model name that is not served; at most 128 bytes of printable characters.
    #[error("unknown model")]
    UnknownModel(String),
    /// A model of another service, named only after this one had begun: it must be the first field.
    #[error("model named too late")]
    ModelTooLate,
    /// The file part comes in an encoding that would have to be undone (`base64`, `quoted-printable`).
    #[error("file in a content-transfer-encoding")]
    TransferEncoding,
    /// Empty file, or a header without audio behind it.
    #[error("audio too short")]
    AudioTooShort,
    /// The file is not one that the upstream takes; says what was found, if known.
    #[error("unsupported audio")]
    AudioUnsupported(Option<Found>),
    /// The audio plays longer than the configured maximum.
    #[error("audio too long")]
    AudioTooLong {
        /// The maximum.
        limit: Duration,
        /// How long it plays, where its header says so; otherwise what came was more than the limit.
        duration: Option<Duration>,
    },
}

/// What a file is that the upstream does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its name, fit to follow "this looks like".
    pub name: &'static str,
    /// What kind of thing it is, which decides what to do instead.
    pub kind: Kind,
}

/// Kinds of files that the upstream does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Audio, or video with audio, in another format: convert it.
    Foreign,
    /// Video without sound.
    Silent,
    /// Text where the file's bytes should be.
    Text,
    /// Packed: unpack it.
    Packed,
    /// Encrypted: decrypt it.
    Encrypted,
    /// Something that has nothing to do with sound.
    Other,
}

impl Found {
    pub(super) const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind }
    }
}
