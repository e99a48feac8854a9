//! The parts of a multipart body, found by their delimiters alone: also where the translator would refuse them.

use std::ops::Range;

use memchr::memmem;

/// One part, by ranges of the body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Header lines, without the empty line.
    pub(super) head: Range<usize>,
    /// Its data, without the line break before the next delimiter.
    pub(super) data: Range<usize>,
    /// A delimiter follows.
    pub(super) closed: bool,
}

/// All parts between delimiters of this boundary, and where the closing delimiter's line ends.
pub(super) fn parts(body: &[u8], boundary: &[u8]) -> (Vec<Part>, Option<usize>) {
    let delimiter = [b"--", boundary].concat();
    let at_line_start = |at: &usize| *at == 0 || body.get(at.saturating_sub(2)..*at) == Some(b"\r\n");
    let places: Vec<_> = memmem::find_iter(body, &delimiter).filter(at_line_start).collect();
    let mut found = Vec::new();
    for (number, place) in places.iter().enumerate() {
        let behind = place.saturating_add(delimiter.len());
        let rest = body.get(behind..).unwrap_or_default();
        if rest.starts_with(b"--") {
            let line = memmem::find(rest, b"\r\n").map_or(rest.len(), |at| at + 2);
            return (found, Some(behind.saturating_add(line)));
        }
        let next = places.get(number + 1).copied();
        let end = next.map_or(body.len(), |next| next.saturating_sub(2)).max(behind);
        let text = body.get(behind..end).unwrap_or_default();
        let start = behind.saturating_add(memmem::find(text, b"\r\n").map_or(text.len(), |at| at + 2));
        let rest = body.get(start..end).unwrap_or_default();
        // The empty line is the first one of a part without headers.
        let (head, data) = match memmem::find(rest, b"\r\n\r\n") {
            _ if rest.starts_with(b"\r\n") => (0, 2),
            Some(at) => (at, at + 4),
            None => (rest.len(), rest.len()),
        };
        let data = start.saturating_add(data);
        found.push(Part { head: start..start.saturating_add(head), data: data..end, closed: next.is_some() });
    }
    (found, None)
}

/// A header of a part, in the part's own bytes.
pub(super) fn header<'a>(head: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let lines = head.split(|byte| *byte == b'\n');
    lines.map(<[u8]>::trim_ascii).find_map(|line| {
        let at = memchr::memchr(b':', line)?;
        let (name, value) = line.split_at_checked(at)?;
        name.eq_ignore_ascii_case(wanted.as_bytes()).then(|| value.get(1..).unwrap_or_default().trim_ascii())
    })
}

/// Where a parameter's value stands in a header: within its quotes, if it has some.
pub(super) fn parameter(header: &[u8], wanted: &str) -> Option<Range<usize>> {
    let mut at = memchr::memchr(b';', header)?;
    loop {
        let rest = header.get(at..)?;
        let skipped =
            rest.iter().take_while(|byte| matches!(**byte, b';' | b' ' | b'\t' | b'\r' | b'\n')).count();
        at += skipped;
        let rest = header.get(at..)?;
        let equals = memchr::memchr(b'=', rest)?;
        let name = rest.get(..equals)?.trim_ascii();
        let from = at + equals + 1;
        let value = header.get(from..)?;
        let (range, next) = match value.strip_prefix(b"\"") {
            Some(quoted) => {
                let length = closing_quote(quoted);
                (from + 1..from + 1 + length, from + length + 2)
            }
            None => {
                let length = memchr::memchr(b';', value).unwrap_or(value.len());
                (from..from + length, from + length)
            }
        };
        if name.eq_ignore_ascii_case(wanted.as_bytes()) {
            return Some(range.start.min(header.len())..range.end.min(header.len()));
        }
        at = next;
    }
}

/// Bytes before the quote that no backslash stands before.
fn closing_quote(quoted: &[u8]) -> usize {
    let mut escaped = false;
    let end = quoted.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    });
    end.unwrap_or(quoted.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_with_or_without_an_end() {
        let body = b"pre\r\n--x\r\nA: b\r\n\r\none\r\n--x\r\n\r\n--xy\r\n--x--\r\nepilogue";
        let (found, end) = parts(body, b"x");
        let text = |range: &Range<usize>| String::from_utf8_lossy(&body[range.clone()]).into_owned();
        let shown: Vec<_> =
            found.iter().map(|part| (text(&part.head), text(&part.data), part.closed)).collect();
        assert_eq!(shown[0], ("A: b".into(), "one".into(), true));
        assert_eq!(shown[1], (String::new(), String::new(), true));
        assert_eq!(&body[end.unwrap()..], b"epilogue");
        let (found, end) = parts(b"--x\r\nA: b\r\n\r\nhalf", b"x");
        assert_eq!((found.len(), found[0].closed, end), (1, false, None));
        assert_eq!(parts(b"--x\r\n--x\r\n", b"x").0.len(), 2);
        assert_eq!(parts(b"", b"x"), (Vec::new(), None));
    }

    #[test]
    fn headers_and_parameters_are_found() {
        let head =
            b"content-disposition: form-data; name=file; filename=\"a \\\"b\\\".wav\"; x=y\r\nOther: 1";
        let value = header(head, "Content-Disposition").unwrap();
        let text =
            |name| parameter(value, name).map(|range| String::from_utf8_lossy(&value[range]).into_owned());
        assert_eq!(text("name").as_deref(), Some("file"));
        assert_eq!(text("filename").as_deref(), Some("a \\\"b\\\".wav"));
        assert_eq!(text("X").as_deref(), Some("y"));
        assert_eq!(text("size"), None);
        for odd in [&b"form-data; name=\""[..], b";", b";;=", b"; a", b"; name="] {
            let found = parameter(odd, "name");
            assert!(found.is_none_or(|range| range.end <= odd.len()), "{odd:?}");
        }
    }
}
