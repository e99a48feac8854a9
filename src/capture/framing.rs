//! A captured HTTP/1.1 request taken apart: where its head, its body and what is behind it stand in the bytes.

use std::ops::Range;

/// Header fields that are looked at; Pingora's own limit.
const MOST_HEADERS: usize = 256;

/// Why a capture cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoRequest {
    #[error("this is an HTTP/2 connection: capture the request over HTTP/1.1 (curl --http1.1)")]
    Http2,
    #[error("the head of the request has no end: an empty line is missing")]
    NoEnd,
    #[error("this is no HTTP/1.1 request (a server answers 400): {0}")]
    Malformed(httparse::Error),
}

/// How the body is framed (RFC 9112 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// No body.
    None,
    /// `Content-Length`.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// A request, by ranges of the capture.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) minor: u8,
    pub(super) headers: Vec<(&'a str, &'a [u8])>,
    /// The request line and the header fields, with the empty line.
    pub(super) head: Range<usize>,
    pub(super) framing: Framing,
    /// The body's pieces: its chunks' data, or the whole.
    pub(super) body: Vec<Range<usize>>,
    /// The body has its end.
    pub(super) whole: bool,
    /// Behind the body: the next request, or nothing.
    pub(super) rest: Range<usize>,
}

impl<'a> Request<'a> {
    /// Reads the first request of a captured connection.
    pub(super) fn read(raw: &'a [u8]) -> Result<Self, NoRequest> {
        if raw.starts_with(b"PRI * HTTP/2.0\r\n") {
            return Err(NoRequest::Http2);
        }
        let mut fields = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut fields);
        let end = match request.parse(raw).map_err(NoRequest::Malformed)? {
            httparse::Status::Complete(end) => end,
            httparse::Status::Partial => return Err(NoRequest::NoEnd),
        };
        let headers: Vec<_> = request.headers.iter().map(|field| (field.name, field.value)).collect();
        let value = |wanted: &str| {
            headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| *value)
        };
        let length = value("content-length").and_then(|value| str::from_utf8(value).ok());
        let framing = match length.and_then(|text| text.split(',').next()?.trim().parse().ok()) {
            _ if value("transfer-encoding").is_some() => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::None,
        };
        let (body, whole, after) = match framing {
            Framing::None => (Vec::new(), true, end),
            Framing::Length(length) => {
                let wanted = usize::try_from(length).ok().and_then(|length| end.checked_add(length));
                let to = wanted.unwrap_or(usize::MAX).min(raw.len());
                (vec![Range { start: end, end: to }], wanted == Some(to), to)
            }
            Framing::Chunked => chunks(raw, end),
        };
        Ok(Self {
            method: request.method.unwrap_or_default(),
            target: request.path.unwrap_or_default(),
            minor: request.version.unwrap_or_default(),
            headers,
            head: 0..end,
            framing,
            body,
            whole,
            rest: after..raw.len(),
        })
    }
}

/// The data of all chunks, whether the last one is there, and where the body ends (RFC 9112 7.1).
fn chunks(raw: &[u8], from: usize) -> (Vec<Range<usize>>, bool, usize) {
    let mut found = Vec::new();
    let mut at = from;
    loop {
        let Some((line, size)) = raw.get(at..).and_then(|rest| match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete((line, size))) => Some((line, usize::try_from(size).ok()?)),
            _ => None,
        }) else {
            return (found, false, at);
        };
        let start = at.saturating_add(line);
        if size == 0 {
            // Trailer fields, then an empty line.
            let mut next = start;
            while let Some(line) = raw.get(next..).and_then(|rest| memchr::memmem::find(rest, b"\r\n")) {
                next = next.saturating_add(line).saturating_add(2);
                if line == 0 {
                    return (found, true, next);
                }
            }
            return (found, false, start);
        }
        let end = start.saturating_add(size);
        found.push(start..end.min(raw.len()));
        at = end.saturating_add(2);
        if raw.get(end..at) != Some(b"\r\n") {
            return (found, false, at.min(raw.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(raw: &[u8]) -> (Vec<u8>, bool, &[u8]) {
        let request = Request::read(raw).unwrap();
        let body = request.body.iter().flat_map(|range| raw[range.clone()].to_vec()).collect();
        (body, request.whole, &raw[request.rest])
    }

    #[test]
    fn bodies_are_found_however_they_are_framed() {
        let length = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcNEXT";
        assert_eq!(body(length), (b"abc".to_vec(), true, &b"NEXT"[..]));
        let short = b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc";
        assert_eq!(body(short), (b"abc".to_vec(), false, &b""[..]));
        let huge = b"POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\nabc";
        assert_eq!(body(huge), (b"abc".to_vec(), false, &b""[..]));
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (framed, data, whole, rest) in [
            ("3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\nNEXT", "abcde", true, "NEXT"),
            ("3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", "abc", true, ""),
            ("3\r\nabc\r\n0\r\n", "abc", false, ""),
            ("9\r\nabc", "abc", false, ""),
            ("3\r\nabcd\r\n", "abc", false, "\n"),
            ("ffffffffffffffff\r\nabc", "abc", false, ""),
            ("x\r\n", "", false, "x\r\n"),
        ] {
            let raw = format!("{head}{framed}");
            let expected = (data.as_bytes().to_vec(), whole);
            let (found, complete, _) = body(raw.as_bytes());
            assert_eq!((found, complete), expected, "{framed}");
            if whole {
                assert_eq!(body(raw.as_bytes()).2, rest.as_bytes(), "{framed}");
            }
        }
    }

    #[test]
    fn what_is_no_request_is_told() {
        assert_eq!(Request::read(b"PRI * HTTP/2.0\r\n\r\nSM").unwrap_err(), NoRequest::Http2);
        assert_eq!(Request::read(b"POST / HTTP/1.1\r\nA: b\r\n").unwrap_err(), NoRequest::NoEnd);
        assert!(matches!(Request::read(b"\x16\x03\x01\x00"), Err(NoRequest::Malformed(_))));
    }
}
