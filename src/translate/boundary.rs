//! The boundary that the client announces in `Content-Type`.

use super::parameters;
use super::refusal::Refusal;

/// A boundary that RFC 2046 5.1.1 allows: 1 to 70 of its characters, no space at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boundary(Vec<u8>);

impl Boundary {
    /// Reads a request's `Content-Type`; an absent header is empty.
    ///
    /// [`Refusal::ContentType`] for anything but `multipart/form-data`, [`Refusal::Multipart`] for a boundary that
    /// is missing, given twice or not allowed.
    pub fn from_content_type(header: &[u8]) -> Result<Self, Refusal> {
        let (media_type, parameters) = parameters::split(header);
        if !media_type.eq_ignore_ascii_case(b"multipart/form-data") {
            return Err(Refusal::ContentType(printable(media_type)));
        }
        let mut boundary = None;
        for parameter in parameters {
            let parameter =
                parameter.map_err(|_| Refusal::Multipart("Content-Type has a malformed parameter"))?;
            if !parameter.name.eq_ignore_ascii_case(b"boundary") {
                continue;
            }
            if boundary.replace(parameter.value).is_some() {
                return Err(Refusal::Multipart("Content-Type gives the boundary twice"));
            }
        }
        let boundary = boundary.ok_or(Refusal::Multipart(
            "Content-Type has no boundary; do not set the header by hand, let the HTTP library write it",
        ))?;
        Self::checked(boundary)
    }

    /// The boundary itself, without the dashes in front.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn checked(boundary: Vec<u8>) -> Result<Self, Refusal> {
        if !(1..=70).contains(&boundary.len()) {
            return Err(Refusal::Multipart("the boundary must have 1 to 70 characters"));
        }
        if !boundary.iter().all(|byte| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte)) {
            return Err(Refusal::Multipart("the boundary has a character that RFC 2046 does not allow"));
        }
        if boundary.ends_with(b" ") {
            return Err(Refusal::Multipart("the boundary ends with a space"));
        }
        Ok(Self(boundary))
    }
}

/// Safe to be quoted in an answer.
fn printable(media_type: &[u8]) -> String {
    media_type.iter().filter(|byte| byte.is_ascii_graphic()).take(100).map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Result<String, Refusal> {
        Boundary::from_content_type(header.as_bytes())
            .map(|boundary| String::from_utf8(boundary.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn legal_boundaries_are_read_in_every_spelling() {
        let seventy = "=_".repeat(35);
        for (header, expected) in [
            ("multipart/form-data; boundary=x", "x"),
            ("Multipart/Form-Data; charset=utf-8; BOUNDARY=x", "x"),
            ("multipart/form-data ;  boundary=\"x\" ; a=b", "x"),
            ("multipart/form-data;boundary=----WebKit7MA4", "----WebKit7MA4"),
            ("multipart/form-data; boundary=\"'()+_,-./:=? x\"", "'()+_,-./:=? x"),
            (&format!("multipart/form-data; boundary=\"{seventy}\""), &seventy),
            (&format!("multipart/form-data; boundary={seventy}"), &seventy),
        ] {
            assert_eq!(read(header).as_deref(), Ok(expected), "{header}");
        }
    }

    #[test]
    fn other_media_types_are_named_in_the_refusal() {
        for (header, named) in [
            ("application/json; charset=utf-8", "application/json"),
            ("", ""),
            ("multipart/mixed; boundary=x", "multipart/mixed"),
            ("te\u{1b}xt/\u{e9}", "text/"),
        ] {
            assert_eq!(read(header), Err(Refusal::ContentType(named.to_owned())));
        }
        assert_eq!(read(&"a".repeat(500)), Err(Refusal::ContentType("a".repeat(100))));
    }

    #[test]
    fn illegal_boundaries_are_refused() {
        for header in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=\"x \"",
            "multipart/form-data; boundary=\"x",
            "multipart/form-data; boundary=x; boundary=x",
            "multipart/form-data; boundary=x; BOUNDARY=y",
            "multipart/form-data; boundary=a&b",
            "multipart/form-data; boundary=\"a\\\"b\"",
            &format!("multipart/form-data; boundary={}", "x".repeat(71)),
        ] {
            assert!(matches!(read(header), Err(Refusal::Multipart(_))), "{header}");
        }
    }
}
