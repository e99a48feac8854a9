//! Codex's `/transcribe` form out: `file`, `language`, `prompt`, and nothing else
//! (`contract: codex-upstream.md` section 1).

use bytes::Bytes;

use super::asked::Container;
use super::limits::Limits;
use super::refusal::Refusal;

/// Names and values of the text fields, in the order they go out.
pub(super) type Fields<'a> = [(&'static str, &'a str)];

/// How the head of a text field is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    /// As everybody writes it.
    Usual,
    /// As short as the grammar allows: for a client that wrote it so and thus pays for no more.
    Terse,
}

/// Writes all of the upstream form but the data of the file.
pub(super) struct Emitter {
    boundary: String,
    /// How much longer our boundary is than the client's.
    growth: u64,
}

impl Emitter {
    /// The boundary is fresh randomness, as long as the client's so that the framing costs the same, but never
    /// short enough to be met by chance.
    pub(super) fn new(seed: &[u8; 35], client_boundary: usize) -> Self {
        let mut boundary = hex::encode(seed);
        boundary.truncate(client_boundary.max(24));
        let growth = boundary.len().saturating_sub(client_boundary) as u64;
        Self { boundary, growth }
    }

    pub(super) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }

    /// Everything before the data of the file.
    pub(super) fn opening(&self, fields: &Fields<'_>, container: Container) -> Bytes {
        let mut text = String::with_capacity(512);
        for (name, value) in fields {
            self.field(&mut text, Style::Usual, name, value);
        }
        push_all(&mut text, &["\r\n--", &self.boundary]);
        push_all(&mut text, &["\r\nContent-Disposition: form-data; name=\"file\"; filename=\"audio."]);
        push_all(
            &mut text,
            &[container.extension(), "\"\r\nContent-Type: ", container.media_type(), "\r\n\r\n"],
        );
        Bytes::from(text).slice(2..) // the first delimiter needs no CRLF in front
    }

    /// Everything behind the data of the file. `room` is what the declared length leaves for it, to be filled
    /// exactly: RFC 2046 5.1.1 has receivers ignore the spaces behind the closing delimiter. An error when that
    /// takes too many of them, or when the room is too small, which [`Emitter::reserve`] rules out.
    pub(super) fn closing(
        &self,
        fields: &Fields<'_>,
        room: Option<u64>,
        limits: &Limits,
    ) -> Result<Bytes, Refusal> {
        let mut text = self.tail(Style::Usual, fields);
        let Some(room) = room else {
            text.push_str("\r\n");
            return Ok(text.into());
        };
        if text.len() as u64 > room {
            text = self.tail(Style::Terse, fields);
        }
        let left =
            room.checked_sub(text.len() as u64).ok_or(Refusal::Multipart("the body outgrew its length"))?;
        if left > limits.ignored {
            return Err(limits.too_much_ignored());
        }
        match usize::try_from(left).unwrap_or_default() {
            0 => {}
            1 => text.push(' '),
            padding => push_all(&mut text, &["\r\n", &" ".repeat(padding - 2)]),
        }
        Ok(text.into())
    }

    /// How much longer than the client's rest of the body our tail can get: by the difference of the boundaries for
    /// the closing delimiter and each field that may still come, and by a field that is ours to add.
    pub(super) fn reserve(&self, late: u64, ours: Option<(&'static str, &str)>) -> u64 {
        let mut field = String::new();
        if let Some((name, value)) = ours {
            self.field(&mut field, Style::Usual, name, value);
        }
        self.growth * (1 + late) + field.len() as u64
    }

    fn tail(&self, style: Style, fields: &Fields<'_>) -> String {
        let mut text = String::new();
        for (name, value) in fields {
            self.field(&mut text, style, name, value);
        }
        push_all(&mut text, &["\r\n--", &self.boundary, "--"]);
        text
    }

    fn field(&self, text: &mut String, style: Style, name: &str, value: &str) {
        push_all(text, &["\r\n--", &self.boundary, "\r\n"]);
        match style {
            Style::Usual => push_all(text, &["Content-Disposition: form-data; name=\"", name, "\""]),
            Style::Terse => push_all(text, &["Content-Disposition:form-data;name=", name]),
        }
        push_all(text, &["\r\n\r\n", value]);
    }
}

fn push_all(text: &mut String, pieces: &[&str]) {
    text.extend(pieces.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emitter(client_boundary: usize) -> Emitter {
        Emitter::new(&[0xab; 35], client_boundary)
    }

    fn closing(emitter: &Emitter, fields: &Fields<'_>, room: Option<u64>) -> Result<Bytes, Refusal> {
        emitter.closing(fields, room, &Limits { ignored: 100, ..Limits::default() })
    }

    #[test]
    fn the_boundary_is_as_long_as_the_clients_within_24_and_70() {
        for (client, ours) in [(1, 24), (24, 24), (40, 40), (70, 70)] {
            let emitter = emitter(client);
            assert_eq!(emitter.boundary.len(), ours);
            assert_eq!(emitter.growth, (ours - client) as u64);
            assert_eq!(
                emitter.content_type(),
                format!("multipart/form-data; boundary={}", "ab".repeat(ours / 2))
            );
        }
    }

    #[test]
    fn the_form_has_the_shape_that_the_upstream_takes() {
        let emitter = emitter(24);
        let b = "ab".repeat(12);
        assert_eq!(
            emitter.opening(&[("language", "en")], Container::M4a),
            format!(
                "--{b}\r\nContent-Disposition: form-data; name=\"language\"\r\n\r\nen\r\n--{b}\r\n\
                 Content-Disposition: form-data; name=\"file\"; filename=\"audio.m4a\"\r\n\
                 Content-Type: audio/mp4\r\n\r\n"
            )
        );
        assert_eq!(
            closing(&emitter, &[("prompt", "a\r\nb")], None).unwrap(),
            format!(
                "\r\n--{b}\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na\r\nb\r\n--{b}--\r\n"
            )
        );
    }

    #[test]
    fn the_closing_fills_its_room_exactly() {
        let emitter = emitter(24);
        let bare = format!("\r\n--{}--", "ab".repeat(12));
        let length = bare.len() as u64;
        for (spare, end) in [(0, ""), (1, " "), (2, "\r\n"), (5, "\r\n   ")] {
            assert_eq!(closing(&emitter, &[], Some(length + spare)).unwrap(), format!("{bare}{end}"));
        }
        assert!(matches!(closing(&emitter, &[], Some(length - 1)), Err(Refusal::Multipart(_))));
        assert!(closing(&emitter, &[], Some(length + 100)).is_ok());
        assert_eq!(closing(&emitter, &[], Some(length + 101)), Err(Refusal::TooMuchIgnored(100)));
    }

    #[test]
    fn a_field_that_was_written_tersely_is_passed_on_tersely() {
        let emitter = emitter(24);
        let b = "ab".repeat(12);
        let terse = format!("\r\n--{b}\r\nContent-Disposition:form-data;name=prompt\r\n\r\nx\r\n--{b}--");
        assert_eq!(closing(&emitter, &[("prompt", "x")], Some(terse.len() as u64)).unwrap(), terse);
    }
}
