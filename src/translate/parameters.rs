//! `value; name=token; name="quoted"`, as Content-Type and Content-Disposition write it (RFC 9110 5.6.6), read
//! the way clients send it.

/// One parameter. Names are compared without regard to case; values are raw bytes.
pub(super) struct Parameter<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: Vec<u8>,
}

/// A parameter without `=`, a name that is no token, or a quotation that is open, begins late or ends early.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The value before the first `;`, and the parameters behind it.
pub(super) fn split(header: &[u8]) -> (&[u8], Parameters<'_>) {
    let (value, rest) = cut(header, b';').unwrap_or((header, &[]));
    (value.trim_ascii(), Parameters { rest })
}

/// Iterator over the parameters; spent after the first error.
pub(super) struct Parameters<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Parameters<'a> {
    type Item = Result<Parameter<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = std::mem::take(&mut self.rest).trim_ascii_start();
        while let Some((b';', behind)) = rest.split_first() {
            rest = behind.trim_ascii_start(); // RFC 9110 5.6.6 lets parameters be empty
        }
        if rest.is_empty() {
            return None;
        }
        Some(self.parameter(rest).ok_or(Malformed))
    }
}

impl<'a> Parameters<'a> {
    fn parameter(&mut self, text: &'a [u8]) -> Option<Parameter<'a>> {
        let (name, text) = cut(text, b'=')?;
        let (name, text) = (name.trim_ascii(), text.trim_ascii_start());
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return None;
        }
        let (value, rest) = match text.split_first() {
            Some((b'"', quoted)) => unquote(quoted)?,
            _ => {
                let (value, rest) = cut(text, b';').unwrap_or((text, &[]));
                if value.contains(&b'"') {
                    return None; // a parser that lets quotes begin anywhere would read on behind the `;`
                }
                (value.trim_ascii_end().to_vec(), rest)
            }
        };
        self.rest = rest;
        Some(Parameter { name, value })
    }
}

/// Reads up to the closing quote and the `;` behind it. Only `\"` and `\\` are escapes: browsers leave every
/// other backslash of a Windows path as it is, and `%22` is theirs to keep (`contract: clients.md` 4).
fn unquote(mut text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut value = Vec::new();
    loop {
        text = match text {
            [b'\\', escaped @ (b'"' | b'\\'), rest @ ..] => {
                value.push(*escaped);
                rest
            }
            [b'"', rest @ ..] => {
                let rest = rest.trim_ascii_start();
                return (rest.is_empty() || rest.starts_with(b";")).then_some((value, rest));
            }
            [byte, rest @ ..] => {
                value.push(*byte);
                rest
            }
            [] => return None,
        }
    }
}

/// RFC 9110 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What stands before and behind the first `byte`.
fn cut(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(byte, text)?;
    let (before, behind) = text.split_at_checked(at)?;
    Some((before, behind.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Result<Vec<(String, String)>, Malformed> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (_, parameters) = split(header.as_bytes());
        parameters.map(|read| read.map(|found| (text(found.name), text(&found.value)))).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Result<Vec<(String, String)>, Malformed> {
        Ok(expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn tokens_and_quoted_strings_are_read() {
        assert_eq!(read("a/b"), pairs(&[]));
        assert_eq!(read("form-data;name=\"file\""), pairs(&[("name", "file")]));
        assert_eq!(read("x ; a=1;; b = \"2\" ;"), pairs(&[("a", "1"), ("b", "2")]));
        assert_eq!(read("x; filename*=utf-8''a.wav"), pairs(&[("filename*", "utf-8''a.wav")]));
        assert_eq!(read("x; a=\"1;2\"; b=3"), pairs(&[("a", "1;2"), ("b", "3")]));
    }

    #[test]
    fn only_quote_and_backslash_are_escaped() {
        assert_eq!(read(r#"x; f="a\"b\\c""#), pairs(&[("f", r#"a"b\c"#)]));
        assert_eq!(read(r#"x; f="C:\dir\a.wav""#), pairs(&[("f", r"C:\dir\a.wav")]));
        assert_eq!(read(r#"x; f="%22%0D%41""#), pairs(&[("f", "%22%0D%41")]));
    }

    #[test]
    fn broken_parameters_are_told() {
        for header in [
            "x; name",
            "x; name; a=1",
            "x; =1",
            "x; \"a=1\"",
            "x; a=\"1",
            "x; a=\"1\"2",
            "x; a=1\"; b=\"2",
            r#"x; a="1\""#,
        ] {
            assert_eq!(read(header), Err(Malformed), "{header}");
        }
    }
}
