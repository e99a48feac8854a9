//! Forms as clients may write them, generated.

use proptest::prelude::*;

/// A form as some client may write it.
#[derive(Debug)]
pub(crate) struct Form {
    pub(crate) boundary: String,
    preamble: &'static str,
    fields: Vec<FormField>,
    end: &'static str,
    /// Whether a language is configured.
    pub(crate) configured: bool,
}

#[derive(Debug, Clone)]
struct FormField {
    name: &'static str,
    head: usize,
    value: Value,
}

#[derive(Debug, Clone)]
enum Value {
    Text(String),
    /// Audio, and then bytes and pieces of delimiters.
    Audio(Vec<Piece>),
}

#[derive(Debug, Clone)]
enum Piece {
    Bytes(Vec<u8>),
    /// CRLF, dashes, and that much of the boundary, never the whole.
    NearDelimiter(usize),
}

impl Form {
    /// The body of the request.
    pub(crate) fn body(&self) -> Vec<u8> {
        let mut body = self.preamble.as_bytes().to_vec();
        for (index, field) in self.fields.iter().enumerate() {
            let (name, delimiter) = (field.name, if index == 0 { "--" } else { "\r\n--" });
            let head = [
                format!("Content-Disposition: form-data; name=\"{name}\""),
                format!("Content-Disposition:form-data;name={name}"),
                format!(
                    "Content-Type: text/plain; charset=utf-8\r\ncontent-disposition: FORM-DATA ; name={name}; filename=\"a\\\"b.mp3\""
                ),
                format!(
                    "X-Odd: 1\r\nContent-Disposition: form-data;\r\n\tname=\"{name}\"\r\nContent-Length: 3"
                ),
            ];
            let head = &head[field.head % head.len()];
            body.extend(format!("{delimiter}{}\r\n{head}\r\n\r\n", self.boundary).into_bytes());
            body.extend(self.bytes(&field.value));
        }
        body.extend(format!("\r\n--{}--{}", self.boundary, self.end).into_bytes());
        body
    }

    fn bytes(&self, value: &Value) -> Vec<u8> {
        match value {
            Value::Text(text) => text.clone().into_bytes(),
            Value::Audio(pieces) => {
                // A WAV that was streamed may go on as it likes.
                let mut audio = b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
                audio.extend(b"\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data\xff\xff\xff\xff\x80");
                for piece in pieces {
                    match piece {
                        Piece::Bytes(bytes) => audio.extend(bytes),
                        Piece::NearDelimiter(length) => {
                            let near = format!("\r\n--{}", self.boundary);
                            audio.extend(&near.as_bytes()[..length % near.len()]);
                            audio.push(b'\0');
                        }
                    }
                }
                audio
            }
        }
    }

    /// The bytes of the file.
    pub(crate) fn file(&self) -> Vec<u8> {
        let file = self.fields.iter().find(|field| field.name == "file").unwrap();
        self.bytes(&file.value)
    }

    /// The value of a text field that is there and not empty.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|field| field.name == name).and_then(|field| match &field.value {
            Value::Text(text) if !text.is_empty() => Some(text.as_str()),
            _ => None,
        })
    }
}

/// Any form that must be accepted.
pub(crate) fn any_form() -> impl Strategy<Value = Form> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Piece::Bytes),
        any::<usize>().prop_map(Piece::NearDelimiter),
    ];
    let text = |name, values: &'static str| {
        (any::<usize>(), values).prop_map(move |(head, value)| FormField {
            name,
            head,
            value: Value::Text(value),
        })
    };
    let file = (any::<usize>(), prop::collection::vec(piece, 0..20)).prop_map(|(head, pieces)| FormField {
        name: "file",
        head,
        value: Value::Audio(pieces),
    });
    let fields = (
        file,
        prop::option::of(text("language", "(en|en-US|english|EN|eng)?")),
        prop::option::of(text("prompt", "[a-zé\r\n \"-]{0,30}")),
        prop::option::of(text("model", "(whisper-1|gpt-4o-transcribe)?")),
        prop::option::of(text("response_format", "(json|text|verbose_json)?")),
        prop::option::of(text("temperature", "(0|0\\.5|1)")),
        prop::option::of(text("keywords[]", "[a-z,]{0,20}")),
        prop::option::of(text("vad_filter", "[ -~]{0,200}")),
    )
        .prop_map(|(file, a, b, c, d, e, f, g)| {
            [Some(file), a, b, c, d, e, f, g].into_iter().flatten().collect()
        })
        .prop_flat_map(|fields: Vec<FormField>| Just(fields).prop_shuffle());
    (
        "[0-9A-Za-z'()+_,./:=?-]{1,70}",
        prop::sample::select(vec!["", "\r\n", "a note for mail readers\r\n\r\n"]),
        fields,
        prop::sample::select(vec!["", "\n", "\r\n", "\r\n\r\n", " \r\nepilogue\r\n--not-a-boundary--"]),
        any::<bool>(),
    )
        .prop_map(|(boundary, preamble, fields, end, configured)| Form {
            boundary,
            preamble,
            fields,
            end,
            configured,
        })
        // a short boundary may stand in the data by chance; then the form is another one
        .prop_filter("the boundary occurs in the data", |form| {
            let near = format!("\r\n--{}", form.boundary);
            !form.fields.iter().any(|field| {
                form.bytes(&field.value).windows(near.len()).any(|window| window == near.as_bytes())
            })
        })
}
