//! The client's multipart body, scanned as it comes in (RFC 2046 5.1.1, RFC 7578).
//!
//! Data leaves as slices of the chunks it came in. Held back is at most the beginning of a delimiter at the end of
//! a chunk, and of that only its length: the bytes are known. Since a boundary has no CR in it, a delimiter begun
//! and not completed cannot hide the start of another one, and nothing is ever scanned twice.

use bytes::{Buf, Bytes};
use memchr::memmem::Finder;

use super::boundary::Boundary;
use super::disposition::Head;
use super::limits::Limits;
use super::refusal::Refusal;

/// Bytes before the first delimiter. No client sends any; RFC 2046 wants a note for mail readers to be skipped.
const PREAMBLE: usize = 64 * 1024;

/// What the scanner finds, in order: `Part`, any number of `Data`, `End`, and again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A part begins; its data starts at [`Upload::position`].
    Part(Head),
    /// Data of the part, never empty.
    Data(Bytes),
    /// The part is complete.
    End,
}

/// Where the scanner stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the first delimiter.
    Preamble,
    /// In a part's data.
    Data,
    /// Right behind a delimiter.
    Delimiter,
    /// Behind a delimiter and one dash.
    Dash,
    /// Behind a delimiter and white space (transport padding).
    Padding,
    /// Behind a delimiter and CR.
    Return,
    /// In a part's header block.
    Head,
    /// Behind the closing delimiter: whatever comes is dropped.
    Epilogue,
}

pub(super) struct Upload {
    /// CRLF, two dashes, boundary.
    delimiter: Bytes,
    finder: Finder<'static>,
    at: At,
    /// How much of a delimiter the last chunk ended with.
    begun: usize,
    /// What is left of the current chunk.
    chunk: Bytes,
    /// The header block so far.
    head: Vec<u8>,
    parts: usize,
    max_parts: usize,
    max_head: usize,
    /// Bytes pushed, in all.
    pushed: u64,
    /// Bytes of preamble skipped.
    skipped: usize,
}

impl Upload {
    pub(super) fn new(boundary: &Boundary, limits: &Limits) -> Self {
        let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
        Self {
            finder: Finder::new(&delimiter).into_owned(),
            delimiter: delimiter.into(),
            at: At::Preamble,
            begun: 2, // the first delimiter needs no CRLF when the body starts with it
            chunk: Bytes::new(),
            head: Vec::new(),
            parts: 0,
            max_parts: limits.parts,
            max_head: limits.part_head,
            pushed: 0,
            skipped: 0,
        }
    }

    /// Takes the next chunk. All events of the one before must have been fetched.
    pub(super) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty());
        self.pushed = self.pushed.saturating_add(chunk.len() as u64);
        self.chunk = chunk;
    }

    /// How many bytes of the body lie behind the events fetched so far.
    pub(super) fn position(&self) -> u64 {
        self.pushed.saturating_sub(self.chunk.len() as u64)
    }

    /// The next event; `None` when the chunk is used up.
    pub(super) fn event(&mut self) -> Result<Option<Event>, Refusal> {
        while !self.chunk.is_empty() {
            let event = match self.at {
                At::Preamble | At::Data => self.scan()?,
                At::Head => self.read_head()?,
                At::Epilogue => {
                    self.chunk.clear();
                    None
                }
                At::Delimiter | At::Dash | At::Padding | At::Return => {
                    let byte = self.chunk.get_u8();
                    self.at = self.behind_delimiter(byte)?;
                    None
                }
            };
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Says whether the body may end here: only behind its closing delimiter.
    pub(super) fn finish(&self) -> Result<(), Refusal> {
        match self.at {
            At::Epilogue => Ok(()),
            At::Preamble => Err(Refusal::Multipart("the body does not contain the boundary")),
            At::Head => Err(Refusal::Multipart("the body ends within a part header")),
            _ => Err(Refusal::Multipart("the body ends without the closing boundary")),
        }
    }

    /// Data up to the next delimiter, or the delimiter itself.
    fn scan(&mut self) -> Result<Option<Event>, Refusal> {
        if self.begun > 0 {
            return self.resume();
        }
        match self.finder.find(&self.chunk) {
            Some(0) => {
                self.chunk.advance(self.delimiter.len());
                Ok(self.delimited())
            }
            Some(at) => {
                let data = self.chunk.split_to(at);
                self.data(data)
            }
            None => {
                self.begun = self.begun_at_end();
                let data = self.chunk.split_to(self.chunk.len().saturating_sub(self.begun));
                self.chunk.clear();
                self.data(data)
            }
        }
    }

    /// Goes on with a delimiter that began in an earlier chunk.
    fn resume(&mut self) -> Result<Option<Event>, Refusal> {
        let missing = self.delimiter.get(self.begun..).unwrap_or_default();
        let same = missing.iter().zip(&self.chunk).take_while(|(wanted, found)| wanted == found).count();
        self.chunk.advance(same);
        self.begun += same;
        if same == missing.len() {
            self.begun = 0;
            Ok(self.delimited())
        } else if self.chunk.is_empty() {
            Ok(None)
        } else {
            let data = self.delimiter.slice(..std::mem::take(&mut self.begun));
            self.data(data)
        }
    }

    /// How much of a delimiter the chunk ends with. Its only CR is the first byte.
    fn begun_at_end(&self) -> usize {
        let longest = self.delimiter.len().saturating_sub(1).min(self.chunk.len());
        let tail = self.chunk.get(self.chunk.len().saturating_sub(longest)..).unwrap_or_default();
        memchr::memrchr(b'\r', tail)
            .and_then(|at| tail.get(at..))
            .filter(|end| self.delimiter.starts_with(end))
            .map_or(0, <[u8]>::len)
    }

    fn data(&mut self, data: Bytes) -> Result<Option<Event>, Refusal> {
        if self.at == At::Data {
            return Ok((!data.is_empty()).then_some(Event::Data(data)));
        }
        self.skipped = self.skipped.saturating_add(data.len());
        if self.skipped > PREAMBLE {
            return Err(Refusal::Multipart("the body does not start with the boundary"));
        }
        Ok(None)
    }

    fn delimited(&mut self) -> Option<Event> {
        let was = std::mem::replace(&mut self.at, At::Delimiter);
        (was == At::Data).then_some(Event::End)
    }

    /// Two dashes close the body; white space and CRLF lead to the next part. Anything else would be a line that
    /// merely starts like a delimiter, which RFC 2046 forbids in data and parsers read in two ways.
    fn behind_delimiter(&mut self, byte: u8) -> Result<At, Refusal> {
        match (self.at, byte) {
            (At::Delimiter, b'-') => Ok(At::Dash),
            (At::Dash, b'-') => Ok(At::Epilogue),
            (At::Delimiter | At::Padding, b' ' | b'\t') => Ok(At::Padding),
            (At::Delimiter | At::Padding, b'\r') => Ok(At::Return),
            (At::Return, b'\n') => {
                self.parts += 1;
                if self.parts > self.max_parts {
                    return Err(Refusal::TooManyParts(self.max_parts));
                }
                Ok(At::Head)
            }
            _ => Err(Refusal::Multipart("a boundary is followed by other text on its line")),
        }
    }

    /// Collects the header block up to its empty line.
    fn read_head(&mut self) -> Result<Option<Event>, Refusal> {
        let before = self.head.len();
        let room = self.max_head.saturating_sub(before).min(self.chunk.len());
        self.head.extend_from_slice(self.chunk.get(..room).unwrap_or_default());
        let Some(end) = head_end(&self.head, before) else {
            self.chunk.advance(room);
            if self.head.len() < self.max_head {
                return Ok(None);
            }
            // Without its empty line the data itself is taken for a header: say that rather than "too long".
            return Err(if self.head.iter().any(|byte| is_control(*byte)) {
                Refusal::Multipart("a part header is malformed")
            } else {
                Refusal::PartHeadTooLong(self.max_head)
            });
        };
        self.chunk.advance(end.saturating_sub(before));
        self.head.truncate(end);
        self.at = At::Data;
        Head::parse(std::mem::take(&mut self.head)).map(|head| Some(Event::Part(head)))
    }
}

/// What can stand in no header, not even as white space.
const fn is_control(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r' | b'\n')
}

/// Where the header block ends, when its first `before` bytes are known not to hold the end.
fn head_end(head: &[u8], before: usize) -> Option<usize> {
    if head.starts_with(b"\r\n") {
        return Some(2);
    }
    let from = before.saturating_sub(3);
    Some(from + memchr::memmem::find(head.get(from..)?, b"\r\n\r\n")? + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Content-Disposition: form-data; name=a\r\n\r\n";

    /// Names and data of the parts, pushed in pieces of `step` bytes.
    fn scan(body: &[u8], step: usize) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
        scan_within(body, step, &Limits::default())
    }

    fn scan_within(body: &[u8], step: usize, limits: &Limits) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
        let boundary = Boundary::from_content_type(b"multipart/form-data; boundary=bound").unwrap();
        let mut upload = Upload::new(&boundary, limits);
        let mut parts = Vec::new();
        let mut open = None;
        for chunk in body.chunks(step) {
            upload.push(Bytes::copy_from_slice(chunk));
            while let Some(event) = upload.event()? {
                match event {
                    Event::Part(head) => open = Some((String::from_utf8(head.name).unwrap(), Vec::new())),
                    Event::Data(data) => {
                        assert!(!data.is_empty());
                        open.as_mut().unwrap().1.extend_from_slice(&data);
                    }
                    Event::End => parts.push(open.take().unwrap()),
                }
            }
        }
        upload.finish().map(|()| parts)
    }

    /// The same for every step.
    fn scan_all(body: &[u8]) -> Result<Vec<(String, Vec<u8>)>, Refusal> {
        let whole = scan(body, body.len().max(1));
        for step in 1..body.len() {
            assert_eq!(scan(body, step), whole, "in steps of {step}");
        }
        whole
    }

    fn one(data: &[u8]) -> Vec<(String, Vec<u8>)> {
        vec![("a".to_owned(), data.to_vec())]
    }

    fn body(data: &[u8]) -> Vec<u8> {
        [b"--bound\r\n", HEAD.as_bytes(), data, b"\r\n--bound--\r\n"].concat()
    }

    #[test]
    fn parts_come_out_whole_however_the_body_is_cut() {
        assert_eq!(scan_all(&body(b"hello")), Ok(one(b"hello")));
        assert_eq!(scan_all(&body(b"")), Ok(one(b"")));
        let two = format!("--bound\r\n{HEAD}1\r\n--bound\r\n{HEAD}2\r\n--bound--");
        assert_eq!(scan_all(two.as_bytes()).unwrap().len(), 2);
    }

    #[test]
    fn data_that_nearly_is_a_delimiter_stays_data() {
        for data in [
            &b"\r\n--boun"[..],
            b"x\r\n--boun\r\n--boun",
            b"\n--bound\n--bound--",
            b"--bound\r\n",
            b"\r\r\n\r\n-\r\n--\r",
            b"\r\n",
            b"\r",
        ] {
            assert_eq!(scan_all(&body(data)), Ok(one(data)), "{data:?}");
        }
    }

    #[test]
    fn preamble_padding_and_epilogue_are_skipped() {
        let text =
            format!("a note\r\n--boun\r\n\r\n--bound \t \r\n{HEAD}x\r\n--bound-- \r\n\r\n--bound\r\nmore");
        assert_eq!(scan_all(text.as_bytes()), Ok(one(b"x")));
    }

    #[test]
    fn a_body_must_be_delimited_and_closed() {
        for text in [
            "".to_owned(),
            "no delimiter at all".to_owned(),
            "\n--bound--".to_owned(),
            format!("--bound\r\n{HEAD}x"),
            format!("--bound\r\n{HEAD}x\r\n--bound"),
            format!("--bound\r\n{HEAD}x\r\n--bound-"),
            format!("--bound\r\n{HEAD}x\r\n--bound\r\n"),
            format!("--bound\r\n{HEAD}x\r\n--boundary--"),
            format!("--bound\r\n{HEAD}x\r\n--bound-x"),
            format!("--bound\r\n{HEAD}x\r\n--bound\n{HEAD}"),
            "--bound\r\nContent-Disposition: form-data; name=a\r\nvalue\r\n--bound--\r\n\r\n".to_owned(),
        ] {
            assert!(matches!(scan_all(text.as_bytes()), Err(Refusal::Multipart(_))), "{text:?}");
        }
    }

    #[test]
    fn parts_and_heads_are_bounded() {
        let limits = Limits { parts: 2, part_head: 60, ..Limits::default() };
        let part = format!("\r\n--bound\r\n{HEAD}x");
        let two = format!("{}\r\n--bound--", part.repeat(2));
        let three = format!("{}\r\n--bound--", part.repeat(3));
        let long = format!("--bound\r\nX-Long: {}\r\n{HEAD}x\r\n--bound--", "y".repeat(60));
        for step in [1, 7, 1000] {
            assert!(scan_within(two.as_bytes(), step, &limits).is_ok());
            assert_eq!(scan_within(three.as_bytes(), step, &limits), Err(Refusal::TooManyParts(2)));
            assert_eq!(scan_within(long.as_bytes(), step, &limits), Err(Refusal::PartHeadTooLong(60)));
        }
    }

    #[test]
    fn a_head_without_its_empty_line_is_malformed_not_too_long() {
        let audio =
            [b"--bound\r\nContent-Disposition: form-data; name=a\r\n".to_vec(), vec![0; 20_000]].concat();
        for step in [1, 4096, 100_000] {
            assert!(matches!(scan(&audio, step), Err(Refusal::Multipart(_))));
        }
    }

    #[test]
    fn a_body_that_never_starts_is_given_up_early() {
        let noise = vec![b'x'; 10 * PREAMBLE];
        assert_eq!(scan(&noise, 1000), Err(Refusal::Multipart("the body does not start with the boundary")));
    }

    #[test]
    fn data_leaves_as_slices_of_the_chunk() {
        let boundary = Boundary::from_content_type(b"multipart/form-data; boundary=bound").unwrap();
        let mut upload = Upload::new(&boundary, &Limits::default());
        let chunk = Bytes::from(body(b"zero copy"));
        upload.push(chunk.clone());
        assert!(matches!(upload.event(), Ok(Some(Event::Part(_)))));
        let Ok(Some(Event::Data(data))) = upload.event() else { panic!("no data") };
        assert!(chunk.as_ptr_range().contains(&data.as_ptr()));
    }
}
