//! What a request and a part say of themselves: the boundary in `Content-Type`, the name in `Content-Disposition`.
//!
//! Whatever is accepted as a boundary obeys RFC 2046 5.1.1, and reads the same in every spelling. The name of a part
//! is the one that a plain parser reads, and what that one reads is accepted. A name or boundary that is written by
//! the grammar, in any order, case, quoting, folding and white space, reads back; multer reads no other one. No name
//! holds a CR, LF or NUL.
//!
//! Input: a line of choices (see `Spelling`), the first of which says what follows: as it is, what may stand in
//! either header; or a boundary; or the name of a part, and other parameters' values, a line each.

#![no_main]

use asr_edge_fuzz::choices::{Choices, line};
use asr_edge_fuzz::part::{self, head};
use asr_edge_fuzz::reference;
use asr_edge_fuzz::translate::{Boundary, Refusal};
use futures_util::FutureExt;
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|input: &[u8]| -> Corpus {
    let (choices, rest) = line(input);
    let mut spelling = Spelling { choices: Choices(choices), folds: false };
    match spelling.choices.byte() {
        b'h' => read_head(rest),
        b'b' => return written_boundary(rest, &mut spelling),
        b'n' => return written_name(rest, &mut spelling),
        _ => read_boundary(rest, &mut spelling),
    }
    Corpus::Keep
});

fn read_boundary(header: &[u8], spelling: &mut Spelling) {
    match Boundary::from_content_type(header) {
        Ok(boundary) => {
            let boundary = boundary.as_bytes();
            assert!(is_boundary(boundary), "{:?}", boundary.escape_ascii().to_string());
            let again = spelling.content_type(boundary);
            assert_eq!(Boundary::from_content_type(&again).expect("the same").as_bytes(), boundary);
            assert!(multer_agrees(header, boundary), "multer reads another one");
        }
        Err(Refusal::ContentType(named)) => {
            assert!(named.len() <= 100 && named.bytes().all(|byte| byte.is_ascii_graphic()), "{named:?}");
        }
        Err(Refusal::Multipart(_)) => {}
        Err(other) => panic!("{other}: of the boundary?"),
    }
}

fn written_boundary(raw: &[u8], spelling: &mut Spelling) -> Corpus {
    let written = spelling.content_type(raw);
    let read = Boundary::from_content_type(&written);
    let text = written.escape_ascii();
    if is_boundary(raw) {
        assert_eq!(read.expect("one of RFC 2046").as_bytes(), raw, "{text}");
        assert!(multer_agrees(&written, raw), "multer reads another one: {text}");
    } else {
        assert!(matches!(read, Err(Refusal::Multipart(_))), "{text}");
    }
    Corpus::Keep
}

fn is_boundary(bytes: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    matches!(bytes, [.., last] if *last != b' ') && bytes.len() <= 70 && bytes.iter().all(allowed)
}

/// Whether multer reads that boundary, or none.
fn multer_agrees(header: &[u8], boundary: &[u8]) -> bool {
    let header = std::str::from_utf8(header).unwrap_or_default();
    multer::parse_boundary(header).map_or(true, |read| read.as_bytes() == boundary)
}

fn read_head(raw: &[u8]) {
    let end = raw.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(raw.len());
    let raw = &raw[..end];
    let expected = reference::name(raw).filter(|_| !raw.starts_with(b"\r\n"));
    match head(&[raw, b"\r\n\r\n"].concat()) {
        Ok((name, ..)) => {
            assert!(!name.is_empty() && !name.iter().any(|byte| b"\r\n\0".contains(byte)), "{name:?}");
            assert_eq!(Some(name), expected, "another name than the reference's");
        }
        Err(part::Refusal::Multipart(why)) => {
            assert_eq!(expected, None, "refused ({why}), and the reference reads it");
        }
        Err(other) => panic!("{other}: of a part's head?"),
    }
}

fn written_name(raw: &[u8], spelling: &mut Spelling) -> Corpus {
    let (name, mut rest) = line(raw);
    // Not even the grammar has a way to write these.
    let unwritable = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    if name.is_empty() || raw.iter().any(|byte| unwritable(byte) && *byte != b'\n') {
        return Corpus::Reject;
    }
    let key: &[u8] = spelling.choices.one(&[b"name", b"NAME", b"Name"]);
    let before = usize::from(spelling.choices.byte() % 4);
    let mut others: Vec<(&[u8], &[u8])> = Vec::new();
    for key in [&b"filename"[..], b"filename*", b"x", b"FileName", b"names"] {
        if !rest.is_empty() {
            let value;
            (value, rest) = line(rest);
            others.push((key, value));
        }
    }
    let mut parameters = others.clone();
    parameters.insert(before.min(others.len()), (key, name));

    let mut block = Vec::new();
    let beside: [&[u8]; 4] =
        [b"", b"Content-Type: audio/wav\r\n", b"X-Name: name=x\r\n", b"content-length: 1\r\n"];
    block.extend_from_slice(spelling.choices.one(&beside));
    block.extend_from_slice(spelling.choices.one(&[&b"Content-Disposition:"[..], b"content-disposition: "]));
    block.extend_from_slice(spelling.choices.one(&[&b"form-data"[..], b"Form-Data"]));
    spelling.folds = true;
    block.extend(spelling.parameters(&parameters));
    block.extend_from_slice(b"\r\n");
    block.extend_from_slice(spelling.choices.one(&beside));
    block.extend_from_slice(b"\r\n");
    let text = block.escape_ascii();
    let (read, foreign_charset, encoded) = head(&block).unwrap_or_else(|why| panic!("{why}: {text}"));
    assert_eq!(read, name, "{text}");
    assert!(!foreign_charset && !encoded, "{text}");

    // multer takes `name` within another value for a parameter, ends a bare name at a space, keeps a tab behind it, and
    // knows one of the two escapes.
    let simple = !others.iter().any(|(_, value)| value.windows(4).any(|window| window == b"name"))
        && !name.iter().any(|byte| b" \t\\\"".contains(byte));
    if simple && key == b"name" {
        let multers = multers_name(&block);
        assert!(
            multers.is_none_or(|multers| multers.trim_ascii_end().as_bytes() == name),
            "multer's is another: {text}"
        );
    }
    Corpus::Keep
}

/// The name that multer reads in such a head.
fn multers_name(block: &[u8]) -> Option<String> {
    let body = [b"--x\r\n", block, b"\r\n--x--\r\n"].concat();
    let body = futures_util::stream::iter([Ok::<_, std::io::Error>(body)]);
    let field = multer::Multipart::new(body, "x").next_field().now_or_never()?.ok()??;
    field.name().map(str::to_owned)
}

/// How a header is written, choice by choice.
struct Spelling<'a> {
    choices: Choices<'a>,
    /// White space may be folded.
    folds: bool,
}

impl Spelling<'_> {
    fn content_type(&mut self, boundary: &[u8]) -> Vec<u8> {
        let kind = self.choices.one(&["multipart/form-data", "Multipart/Form-Data"]);
        let key = self.choices.one(&[&b"boundary"[..], b"BOUNDARY", b"Boundary"]);
        let charset = (&b"charset"[..], &b"utf-8"[..]);
        let parameters = match self.choices.byte() % 3 {
            0 => vec![(key, boundary)],
            1 => vec![charset, (key, boundary)],
            _ => vec![(key, boundary), charset],
        };
        [kind.as_bytes(), &self.parameters(&parameters)].concat()
    }

    fn parameters(&mut self, parameters: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, value) in parameters {
            out.extend([self.space(), self.choices.one(&[";", ";;", "; ;"]), self.space()].concat().bytes());
            out.extend_from_slice(key);
            out.extend([self.space(), "=", self.space()].concat().bytes());
            self.value(value, &mut out);
        }
        out.extend([self.space(), self.choices.one(&["", ";"])].concat().bytes());
        out
    }

    fn space(&mut self) -> &'static str {
        let spaces = ["", " ", "\t", "  ", "\r\n ", "\r\n\t", " \r\n  "];
        self.choices.one(if self.folds { &spaces } else { &spaces[..4] })
    }

    /// Browsers escape no backslash, others all.
    fn value(&mut self, value: &[u8], out: &mut Vec<u8>) {
        let bare = !value.is_empty()
            && value.trim_ascii() == value
            && !value.iter().any(|byte| b";\"".contains(byte));
        if bare && self.choices.yes() {
            out.extend_from_slice(value);
            return;
        }
        let browser = self.choices.yes();
        out.push(b'"');
        for (at, byte) in value.iter().enumerate() {
            let harmless = browser && value.get(at + 1).is_some_and(|next| !b"\"\\".contains(next));
            if *byte == b'"' || (*byte == b'\\' && !harmless) {
                out.push(b'\\');
            }
            out.push(*byte);
        }
        out.push(b'"');
    }
}
