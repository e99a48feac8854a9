//! The head of a part: which field it is, and how its bytes are to be read.

use super::parameters::{self, Parameters};
use super::refusal::Refusal;

/// More header lines than any client writes for a part.
const LINES: usize = 32;

/// What a part's header block says, as far as it matters. Everything else in it is ignored, even a wrong
/// `Content-Length` (RFC 7578 4.8), and so is the file name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The field name, raw.
    pub(super) name: Vec<u8>,
    /// `Content-Type` asks for a charset other than UTF-8 and its subset US-ASCII.
    pub(super) foreign_charset: bool,
    /// `Content-Transfer-Encoding` is one that would have to be undone (RFC 7578 4.7 deprecates them).
    pub(super) encoded: bool,
}

impl Head {
    /// Reads a header block that ends with its empty line. Line ends are CRLF; a folded line is unfolded.
    pub(super) fn parse(mut block: Vec<u8>) -> Result<Self, Refusal> {
        unfold(&mut block)?;
        let mut lines = [httparse::EMPTY_HEADER; LINES];
        let lines = match httparse::parse_headers(&block, &mut lines) {
            Ok(httparse::Status::Complete((read, lines))) if read == block.len() => lines,
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Refusal::Multipart("a part has too many headers"));
            }
            _ => return Err(Refusal::Multipart("a part header is malformed")),
        };
        let mut name = None;
        let mut head = Self { name: Vec::new(), foreign_charset: false, encoded: false };
        for line in lines {
            if line.name.eq_ignore_ascii_case("content-disposition") {
                if name.replace(field_name(line.value)?).is_some() {
                    return Err(Refusal::Multipart("a part has two Content-Disposition headers"));
                }
            } else if line.name.eq_ignore_ascii_case("content-type") {
                let (media_type, parameters) = parameters::split(line.value);
                if media_type.get(..10).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/")) {
                    return Err(Refusal::Multipart("a part is itself multipart"));
                }
                head.foreign_charset |= has_foreign_charset(parameters);
            } else if line.name.eq_ignore_ascii_case("content-transfer-encoding") {
                let plain: [&[u8]; 4] = [b"binary", b"8bit", b"7bit", b""];
                head.encoded |=
                    !plain.iter().any(|plain| line.value.trim_ascii().eq_ignore_ascii_case(plain));
            }
        }
        head.name = name.ok_or(Refusal::Multipart("a part has no Content-Disposition"))?;
        Ok(head)
    }
}

/// The `name` of a `form-data` disposition (RFC 7578 4.2).
fn field_name(disposition: &[u8]) -> Result<Vec<u8>, Refusal> {
    let (kind, parameters) = parameters::split(disposition);
    if !kind.eq_ignore_ascii_case(b"form-data") {
        return Err(Refusal::Multipart("a part's Content-Disposition is not form-data"));
    }
    let mut name = None;
    for parameter in parameters {
        let parameter = parameter.map_err(|_| Refusal::Multipart("a Content-Disposition is malformed"))?;
        if parameter.name.eq_ignore_ascii_case(b"name") && name.replace(parameter.value).is_some() {
            return Err(Refusal::Multipart("a part has two names"));
        }
    }
    name.filter(|name| !name.is_empty()).ok_or(Refusal::Multipart("a part has no name"))
}

fn has_foreign_charset(parameters: Parameters<'_>) -> bool {
    let known: [&[u8]; 3] = [b"utf-8", b"utf8", b"us-ascii"];
    // A malformed parameter of a Content-Type says nothing about the charset: clients' types are often wrong.
    parameters.flatten().any(|parameter| {
        parameter.name.eq_ignore_ascii_case(b"charset")
            && !known.iter().any(|known| parameter.value.eq_ignore_ascii_case(known))
    })
}

/// Turns each fold (CRLF and white space, RFC 5322 2.2.3) into spaces, and refuses a bare CR or LF: the block
/// must not read differently to a parser that takes either for a line end.
fn unfold(block: &mut [u8]) -> Result<(), Refusal> {
    let mut rest = block;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        rest = match rest.split_at_mut_checked(at) {
            Some((_, [cr @ b'\r', lf @ b'\n', after @ ..])) => {
                if let Some(b' ' | b'\t') = after.first() {
                    (*cr, *lf) = (b' ', b' ');
                }
                after
            }
            _ => return Err(Refusal::Multipart("a part header has a bare CR or LF")),
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(block: &str) -> Result<Head, Refusal> {
        Head::parse(block.as_bytes().to_vec())
    }

    fn name(block: &str) -> String {
        String::from_utf8(parse(block).unwrap().name).unwrap()
    }

    #[test]
    fn names_are_read_in_every_spelling_that_clients_use() {
        for (block, expected) in [
            ("Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n", "file"),
            ("content-disposition:form-data;name=\"file\"\r\n\r\n", "file"),
            ("CONTENT-DISPOSITION:   Form-Data ; NAME=file\r\n\r\n", "file"),
            (
                "Content-Disposition: form-data; name=file; filename=a.wav; filename*=utf-8''a.wav\r\n\r\n",
                "file",
            ),
            (
                "Content-Type: audio/wav\r\nX-Odd: 1\r\nContent-Length: 9\r\nContent-Disposition: form-data; name=x\r\n\r\n",
                "x",
            ),
            ("Content-Disposition: form-data;\r\n name=\"folded\"\r\n\r\n", "folded"),
            ("Content-Disposition: form-data; name=\"a\\\"b\\\\c\\d\"\r\n\r\n", "a\"b\\c\\d"),
            ("Content-Disposition: form-data; name=\"na%22me%0D%0Ax%41\"\r\n\r\n", "na%22me%0D%0Ax%41"),
            (
                "Content-Disposition: form-data; name=\"x\"; filename=\"réunion \\\"été\\\" 録音.wav\"\r\n\r\n",
                "x",
            ),
        ] {
            assert_eq!(name(block), expected, "{block}");
        }
    }

    #[test]
    fn a_file_name_of_invalid_utf8_does_no_harm() {
        let block = b"Content-Disposition: form-data; name=\"file\"; filename=\"\xff\xfe.wav\"\r\n\r\n";
        assert_eq!(Head::parse(block.to_vec()).unwrap().name, b"file");
    }

    #[test]
    fn a_part_must_say_which_field_it_is_and_only_once() {
        for block in [
            "\r\n",
            "Content-Type: text/plain\r\n\r\n",
            "Content-Disposition: attachment; name=\"x\"\r\n\r\n",
            "Content-Disposition: form-data\r\n\r\n",
            "Content-Disposition: form-data; name=\"\"\r\n\r\n",
            "Content-Disposition: form-data; name=a; name=a\r\n\r\n",
            "Content-Disposition: form-data; name=\"a\r\n\r\n",
            "Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=a\r\n\r\n",
            "Content-Disposition: form-data; name=a\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n",
        ] {
            assert!(matches!(parse(block), Err(Refusal::Multipart(_))), "{block:?}");
        }
    }

    #[test]
    fn lines_that_parsers_read_differently_are_refused() {
        for block in [
            "Content-Disposition : form-data; name=a\r\n\r\n",
            "Content-Disposition: form-data; name=a\nX: y\r\n\r\n",
            "Content-Disposition: form-data; name=a\rX: y\r\n\r\n",
            "Content-Disposition: form-data; name=a\r\nno colon\r\n\r\n",
            "Content-Disposition: form-data; name=\"a\0b\"\r\n\r\n",
            " Content-Disposition: form-data; name=a\r\n\r\n",
        ] {
            assert!(matches!(parse(block), Err(Refusal::Multipart(_))), "{block:?}");
        }
        let many = "X: y\r\n".repeat(40) + "\r\n";
        assert!(matches!(parse(&many), Err(Refusal::Multipart(_))));
    }

    #[test]
    fn charsets_and_encodings_are_noticed() {
        let with =
            |line: &str| parse(&format!("Content-Disposition: form-data; name=a\r\n{line}\r\n\r\n")).unwrap();
        for line in [
            "Content-Type: text/plain; charset=UTF-8",
            "Content-Type: text/plain;charset=\"us-ascii\"",
            "X: y",
        ] {
            assert!(!with(line).foreign_charset, "{line}");
        }
        assert!(with("Content-Type: text/plain; charset=iso-8859-1").foreign_charset);
        for line in ["Content-Transfer-Encoding: binary", "content-transfer-encoding: 8BIT"] {
            assert!(!with(line).encoded, "{line}");
        }
        for line in ["Content-Transfer-Encoding: base64", "Content-Transfer-Encoding: quoted-printable"] {
            assert!(with(line).encoded, "{line}");
        }
    }
}
