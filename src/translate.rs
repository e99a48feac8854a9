//! An OpenAI multipart upload in, Codex's `/transcribe` multipart out, while the bytes are still arriving.
//!
//! The [`Translator`] is a push machine without I/O: the client's bytes go in as they come, the upstream's come out.
//! However the input is cut, the output is the same. It keeps a bounded state; the audio passes as slices of the
//! chunks it came in. The closing boundary comes out of [`Translator::finish`] only, so that the upstream never sees
//! a whole request for something that is refused.

pub mod asked;
mod audio;
mod boundary;
mod container;
mod disposition;
mod emit;
mod form;
mod language;
mod limits;
mod model;
mod parameters;
mod peek;
pub mod refusal;
mod terms;
mod text;
mod upload;
mod value;

use bytes::Bytes;

pub use asked::{Asked, Container, Field, Format, Language, Shape};
pub use audio::Audio;
pub use boundary::Boundary;
pub use language::NotALanguage;
pub use limits::Limits;
pub use model::Models;
pub use peek::{Peek, Peeked};
pub use refusal::Refusal;
pub use terms::Terms;

use disposition::Head;
use emit::Emitter;
use form::Form;
use text::{Name, Text};
use upload::{Event, Upload};

/// The upstream request can be begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// The exact length of the whole upstream body, in bytes, where the client's was known.
    pub length: Option<u64>,
}

/// Turns one upload into one upstream body. After an error it is spent and repeats that error.
pub struct Translator {
    upload: Upload,
    emitter: Emitter,
    form: Form,
    shape: Shape,
    limits: Limits,
    length: Option<u64>,
    /// The configured language.
    language: Option<Language>,
    /// What the bytes now coming in belong to.
    part: Part,
    file: Option<File>,
    opened: Option<Opened>,
    /// Bytes put out so far.
    sent: u64,
    /// Bytes of fields that nobody looks at, where padding will have to stand for them.
    dropped: u64,
    spent: Option<Refusal>,
}

enum Part {
    Outside,
    File,
    Text(Text),
}

struct File {
    /// Where its data starts in the client's body.
    start: u64,
    audio: Audio,
}

/// The upstream body as far as it was settled when the file began.
struct Opened {
    length: Option<u64>,
    /// `language` has been written, or is not to be.
    language: bool,
    /// `prompt` has been written.
    prompt: bool,
}

impl Translator {
    /// A translator for a body with that boundary.
    pub fn new(client: &Boundary, terms: Terms) -> Self {
        let model = match terms.shape {
            Shape::OpenAi => terms.model,
            Shape::Codex => Some(Models::DEFAULT.to_owned()),
        };
        let form = Form::new(terms.models, model);
        Self {
            upload: Upload::new(client, &terms.limits),
            emitter: Emitter::new(&terms.seed, client.as_bytes().len()),
            spent: form.check_path().err(),
            form,
            shape: terms.shape,
            limits: terms.limits,
            length: terms.length,
            language: terms.language,
            part: Part::Outside,
            file: None,
            opened: None,
            sent: 0,
            dropped: 0,
        }
    }

    /// The upstream body's `Content-Type`.
    pub fn content_type(&self) -> String {
        self.emitter.content_type()
    }

    /// Takes the next bytes of the client's body and appends what can go upstream to `out`. Nothing goes out before
    /// the audio's container has been recognised. After an error, drop what was put out.
    pub fn push(&mut self, chunk: Bytes, out: &mut Vec<Bytes>) -> Result<(), Refusal> {
        self.unless_spent(|this| this.take(chunk, out))
    }

    /// What the upstream request head must say; `Some` as soon as there is something to send.
    pub fn begun(&self) -> Option<Begun> {
        self.opened.as_ref().map(|opened| Begun { length: opened.length })
    }

    /// The client's body has ended well: checks what is left to check and appends the closing boundary to `out`.
    pub fn finish(&mut self, out: &mut Vec<Bytes>) -> Result<Asked, Refusal> {
        let asked = self.unless_spent(|this| this.conclude(out))?;
        self.spent = Some(Refusal::Multipart("the body has ended"));
        Ok(asked)
    }

    fn unless_spent<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, Refusal>) -> Result<T, Refusal> {
        let result = self.spent.clone().map_or_else(|| act(self), Err);
        self.spent = result.as_ref().err().cloned();
        result
    }

    /// Takes a chunk up to where the body must end. What lies behind is refused only after the rest has been read,
    /// so that the refusal does not depend on the cutting.
    fn take(&mut self, mut chunk: Bytes, out: &mut Vec<Bytes>) -> Result<(), Refusal> {
        let end = self.length.map_or(self.limits.upload, |length| length.min(self.limits.upload));
        let room = usize::try_from(end.saturating_sub(self.upload.position())).unwrap_or(usize::MAX);
        let beyond = chunk.split_off(room.min(chunk.len()));
        self.upload.push(chunk);
        while let Some(event) = self.upload.event()? {
            match event {
                Event::Part(head) => self.begin_part(&head)?,
                Event::Data(data) => self.take_data(data, out)?,
                Event::End => self.end_part(out)?,
            }
        }
        if beyond.is_empty() {
            return Ok(());
        }
        Err(if self.length == Some(end) {
            Refusal::Multipart("the body is longer than its Content-Length")
        } else {
            Refusal::TooLarge { limit: end, read: end.saturating_add(beyond.len() as u64) }
        })
    }

    fn begin_part(&mut self, head: &Head) -> Result<(), Refusal> {
        let mut name = Name::parse(&head.name);
        if self.shape == Shape::Codex
            && !matches!(name.field, Some(Field::File | Field::Language | Field::Prompt))
        {
            name.field = None;
        }
        if name.field != Some(Field::File) {
            self.part = Part::Text(Text::new(name, head, &self.limits)?);
            return Ok(());
        }
        if head.encoded {
            return Err(Refusal::TransferEncoding);
        }
        let file = File { start: self.upload.position(), audio: Audio::new(self.limits.duration) };
        if self.file.replace(file).is_some() {
            return Err(Refusal::Twice(Field::File));
        }
        self.part = Part::File;
        Ok(())
    }

    fn take_data(&mut self, data: Bytes, out: &mut Vec<Bytes>) -> Result<(), Refusal> {
        match (&mut self.part, &mut self.file) {
            (Part::File, Some(file)) => {
                let audio = file.audio.push(data)?;
                self.send_audio(audio, out);
            }
            (Part::Text(text), _) => text.push(&data)?,
            _ => {}
        }
        Ok(())
    }

    fn end_part(&mut self, out: &mut Vec<Bytes>) -> Result<(), Refusal> {
        match std::mem::replace(&mut self.part, Part::Outside) {
            Part::Text(text) => {
                if self.opened.as_ref().is_some_and(|opened| opened.length.is_some()) {
                    self.dropped = self.dropped.saturating_add(text.dropped());
                }
                if self.dropped > self.limits.ignored {
                    return Err(self.limits.too_much_ignored());
                }
                if let Some((name, value)) = text.end()? {
                    self.form.take(name, value)?;
                }
            }
            Part::File => {
                let held = self.file.as_mut().map_or(Ok(None), |file| file.audio.end())?;
                self.send_audio(held, out);
            }
            Part::Outside => {}
        }
        Ok(())
    }

    /// Sends a piece of the file, and everything before the file ahead of the first.
    fn send_audio(&mut self, piece: Option<Bytes>, out: &mut Vec<Bytes>) {
        let Some(piece) = piece else { return };
        if self.opened.is_none() {
            self.open(out);
        }
        self.send(piece, out);
    }

    /// Writes the fields known so far and the head of the file, and settles the length: what is written, what the
    /// client still has to send, and what our tail may need more than the client's.
    fn open(&mut self, out: &mut Vec<Bytes>) {
        let Some(File { start, audio }) = &self.file else { return };
        let Some(container) = audio.container() else { return };
        let (language, prompt) = (self.form.language(), self.form.prompt());
        let mut fields = Vec::new();
        fields.extend(language.flatten().map(|language| ("language", language.code())));
        fields.extend(prompt.map(|prompt| ("prompt", prompt)));
        let opening = self.emitter.opening(&fields, container);

        let ours = self.language.as_ref().filter(|_| language.is_none());
        let late = u64::from(language.is_none() && ours.is_none()) + u64::from(prompt.is_none());
        let reserve = self.emitter.reserve(late, ours.map(|language| ("language", language.code())));
        let added = opening.len() as u64 + reserve;
        let length = self.length.map(|length| length.saturating_sub(*start).saturating_add(added));

        self.opened = Some(Opened { length, language: language.is_some(), prompt: prompt.is_some() });
        self.send(opening, out);
    }

    fn send(&mut self, piece: Bytes, out: &mut Vec<Bytes>) {
        self.sent = self.sent.saturating_add(piece.len() as u64);
        out.push(piece);
    }

    fn conclude(&mut self, out: &mut Vec<Bytes>) -> Result<Asked, Refusal> {
        self.upload.finish()?;
        if self.length.is_some_and(|length| length != self.upload.position()) {
            return Err(Refusal::Multipart("the body is shorter than its Content-Length"));
        }
        let (Some(file), Some(opened)) = (&self.file, &self.opened) else {
            return Err(Refusal::Missing(Field::File));
        };
        let container = file.audio.container().ok_or(Refusal::Missing(Field::File))?;
        let duration = file.audio.duration();
        let model = self.form.model()?.to_owned();
        let language = match self.form.language() {
            Some(asked) => asked.cloned(),
            None => self.language.clone(),
        };

        let mut fields = Vec::new();
        fields.extend(language.as_ref().filter(|_| !opened.language).map(|found| ("language", found.code())));
        fields.extend(self.form.prompt().filter(|_| !opened.prompt).map(|prompt| ("prompt", prompt)));
        let room = opened.length.map(|length| length.saturating_sub(self.sent));
        let closing = self.emitter.closing(&fields, room, &self.limits)?;
        self.send(closing, out);

        Ok(Asked {
            shape: self.shape,
            model,
            format: self.form.format(),
            stream: self.form.stream(),
            language,
            container,
            duration,
            ignored: self.form.take_ignored(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// A WAV of 100 ms: 8 kHz, mono, 8 bits.
    fn wav() -> Vec<u8> {
        let mut wav =
            b"RIFF\x44\x03\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0".to_vec();
        wav.extend(b"data\x20\x03\0\0");
        wav.extend([0x80; 800]);
        wav
    }

    fn terms(length: Option<u64>) -> Terms {
        Terms {
            length,
            seed: [0xab; 35],
            shape: Shape::OpenAi,
            models: Arc::new(Models::default()),
            model: None,
            language: None,
            limits: Limits::default(),
        }
    }

    const BOUNDARY: &str = "client-boundary-of-more-than-24";

    /// A body of these parts; `file` gets a file name.
    fn body(parts: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, value) in parts {
            let file = if *name == "file" { "; filename=\"speech.mp3\"" } else { "" };
            let head =
                format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
            body.extend([head.as_bytes(), value, b"\r\n"].concat());
        }
        body.extend(format!("--{BOUNDARY}--\r\n").as_bytes());
        body
    }

    /// Pushes the body whole; gives the upstream body and what was asked, and checks the declared length.
    fn translate_with(body: &[u8], terms: Terms) -> Result<(Vec<u8>, Asked), Refusal> {
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        let boundary = Boundary::from_content_type(content_type.as_bytes()).unwrap();
        let mut translator = Translator::new(&boundary, terms);
        let mut out = Vec::new();
        translator.push(Bytes::copy_from_slice(body), &mut out)?;
        let asked = translator.finish(&mut out)?;
        let upstream = out.concat();
        if let Some(length) = translator.begun().unwrap().length {
            assert_eq!(upstream.len() as u64, length);
        }
        Ok((upstream, asked))
    }

    fn translate(parts: &[(&str, &[u8])]) -> Result<(Vec<u8>, Asked), Refusal> {
        let body = body(parts);
        translate_with(&body, terms(Some(body.len() as u64)))
    }

    fn refusal(parts: &[(&str, &[u8])]) -> Refusal {
        translate(parts).err().unwrap()
    }

    /// What the upstream must see, for a client boundary as long as [`BOUNDARY`].
    fn upstream(before: &[(&str, &str)], file: &[u8], after: &[(&str, &str)], end: &str) -> Vec<u8> {
        let boundary = "ab".repeat(35)[..BOUNDARY.len()].to_owned();
        let field = |(name, value): &(&str, &str)| {
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let head = "Content-Disposition: form-data; name=\"file\"; filename=\"audio.wav\"\r\nContent-Type: audio/wav";
        let mut upstream = before.iter().map(field).collect::<String>().into_bytes();
        upstream.extend(format!("--{boundary}\r\n{head}\r\n\r\n").as_bytes());
        upstream.extend(file);
        upstream.extend(b"\r\n");
        upstream.extend(after.iter().map(field).collect::<String>().as_bytes());
        upstream.extend(format!("--{boundary}--{end}").as_bytes());
        upstream
    }

    #[test]
    fn fields_before_the_file_go_before_it_without_any_padding() {
        let (sent, asked) = translate(&[
            ("model", b"whisper-1"),
            ("language", b"en-US"),
            ("prompt", b"hi"),
            ("file", &wav()),
        ])
        .unwrap();
        assert_eq!(sent, upstream(&[("language", "en"), ("prompt", "hi")], &wav(), &[], "\r\n"));
        assert_eq!(
            asked,
            Asked {
                shape: Shape::OpenAi,
                model: "whisper-1".into(),
                format: Format::Json,
                stream: false,
                language: Some(Language("en".into())),
                container: Container::Wav,
                duration: Some(std::time::Duration::from_millis(100)),
                ignored: Vec::new(),
            }
        );
    }

    #[test]
    fn fields_behind_the_file_go_behind_it_and_dropped_ones_become_padding() {
        let (sent, asked) = translate(&[
            ("file", &wav()),
            ("model", b"whisper-1"),
            ("prompt", b"hi"),
            ("language", b"fr"),
            ("response_format", b"text"),
        ])
        .unwrap();
        let bare = upstream(&[], &wav(), &[("language", "fr"), ("prompt", "hi")], "\r\n");
        assert!(sent.starts_with(&bare));
        assert!(sent[bare.len()..].iter().all(|byte| *byte == b' '));
        assert_eq!(asked.format, Format::Text);
    }

    #[test]
    fn a_client_that_writes_as_little_as_allowed_still_pays_for_its_fields() {
        let terse = format!(
            "--{BOUNDARY}\r\nContent-Disposition:form-data;name=file\r\n\r\n{}\r\n\
             --{BOUNDARY}\r\nContent-Disposition:form-data;name=language\r\n\r\nen\r\n\
             --{BOUNDARY}\r\nContent-Disposition:form-data;name=prompt\r\n\r\nhi\r\n--{BOUNDARY}--",
            "OggS and some twenty bytes more"
        );
        for language in [None, Some(Language("zh-cn".into()))] {
            let terms = Terms { language, ..terms(Some(terse.len() as u64)) };
            assert!(translate_with(terse.as_bytes(), terms).is_ok());
        }
    }

    #[test]
    fn a_configured_language_goes_out_only_when_the_client_says_nothing() {
        for (given, expected) in
            [(None, Some("zh-cn")), (Some("en"), Some("en")), (Some("auto"), None), (Some(""), Some("zh-cn"))]
        {
            for file_first in [true, false] {
                let wav = wav();
                let mut parts = vec![("file", &wav[..])];
                parts.extend(given.map(|language| ("language", language.as_bytes())));
                if !file_first {
                    parts.reverse();
                }
                let body = body(&parts);
                let terms =
                    Terms { language: Some(Language("zh-cn".into())), ..terms(Some(body.len() as u64)) };
                let (sent, asked) = translate_with(&body, terms).unwrap();
                assert_eq!(asked.language.as_ref().map(Language::code), expected);
                let text = String::from_utf8_lossy(&sent).into_owned();
                assert_eq!(text.matches("name=\"language\"").count(), usize::from(expected.is_some()));
            }
        }
    }

    #[test]
    fn nothing_goes_out_before_the_container_is_known_or_closes_before_the_end() {
        let body = body(&[("file", &wav()), ("model", b"whisper-1")]);
        let boundary =
            Boundary::from_content_type(format!("multipart/form-data; boundary={BOUNDARY}").as_bytes());
        let mut translator = Translator::new(&boundary.unwrap(), terms(None));
        let mut out = Vec::new();
        let magic = body.windows(4).position(|window| window == b"RIFF").unwrap();
        translator.push(Bytes::copy_from_slice(&body[..magic + 11]), &mut out).unwrap();
        assert_eq!((translator.begun(), out.len()), (None, 0));
        translator.push(Bytes::copy_from_slice(&body[magic + 11..]), &mut out).unwrap();
        assert_eq!(translator.begun(), Some(Begun { length: None }));
        assert!(!String::from_utf8_lossy(&out.concat()).contains("abab--"));
        translator.finish(&mut out).unwrap();
        assert!(String::from_utf8_lossy(&out.concat()).ends_with("--\r\n"));
        assert!(translator.finish(&mut out).is_err());
    }

    #[test]
    fn the_file_must_come_once_and_be_audio() {
        let wav = wav();
        assert_eq!(refusal(&[("model", b"whisper-1")]), Refusal::Missing(Field::File));
        assert_eq!(refusal(&[("file", &wav), ("file", &wav)]), Refusal::Twice(Field::File));
        assert_eq!(refusal(&[("file", b"")]), Refusal::AudioTooShort);
        let empty = [&wav[..40], &[0; 4]].concat();
        assert_eq!(refusal(&[("file", &empty)]), Refusal::AudioTooShort);
        assert!(matches!(refusal(&[("file", b"a.wav")]), Refusal::AudioUnsupported(Some(_))));
        let encoded = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=file\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        );
        assert_eq!(translate_with(encoded.as_bytes(), terms(None)).err(), Some(Refusal::TransferEncoding));
    }

    #[test]
    fn a_model_that_must_come_or_is_unknown_is_refused() {
        let body = body(&[("file", &wav())]);
        let strict = Terms { models: Arc::new(Models::new(Vec::new(), true)), ..terms(None) };
        assert_eq!(translate_with(&body, strict).err(), Some(Refusal::Missing(Field::Model)));
        let path = Terms { model: Some("other".into()), ..terms(None) };
        assert_eq!(translate_with(&body, path).err(), Some(Refusal::UnknownModel("other".into())));
    }

    #[test]
    fn codex_clients_are_asked_for_nothing_but_the_file() {
        let body =
            body(&[("model", b"any"), ("response_format", b"srt"), ("language", b"en"), ("file", &wav())]);
        let strict = Arc::new(Models::new(Vec::new(), true));
        let (_, asked) =
            translate_with(&body, Terms { shape: Shape::Codex, models: strict, ..terms(None) }).unwrap();
        assert_eq!((asked.format, asked.model.as_str()), (Format::Json, "whisper-1"));
        assert_eq!(asked.language.as_ref().map(Language::code), Some("en"));
    }

    #[test]
    fn the_whole_body_is_bounded_and_must_be_as_long_as_declared() {
        let body = body(&[("file", &wav())]);
        let length = body.len() as u64;
        let limit = |upload| Terms { limits: Limits { upload, ..Limits::default() }, ..terms(None) };
        assert!(translate_with(&body, limit(length)).is_ok());
        let too_large = Refusal::TooLarge { limit: length - 1, read: length };
        assert_eq!(translate_with(&body, limit(length - 1)).err(), Some(too_large));
        for wrong in [length - 1, length + 1] {
            let refused = translate_with(&body, terms(Some(wrong))).err();
            assert!(matches!(refused, Some(Refusal::Multipart(_))), "{refused:?}");
        }
    }

    #[test]
    fn much_behind_the_file_that_goes_nowhere_is_refused_only_where_padding_would_stand_for_it() {
        let much = vec![b'x'; 70_000];
        let late = body(&[("file", &wav()), ("odd", &much)]);
        let epilogue = [body(&[("file", &wav())]), much.clone()].concat();
        for body in [late, epilogue] {
            let refused = translate_with(&body, terms(Some(body.len() as u64))).err();
            assert_eq!(refused, Some(Refusal::TooMuchIgnored(65_536)));
            assert!(translate_with(&body, terms(None)).is_ok());
        }
        assert!(translate(&[("odd", &much), ("file", &wav())]).is_ok());
    }

    #[test]
    fn a_refused_upload_stays_refused() {
        let boundary = Boundary::from_content_type(b"multipart/form-data; boundary=x").unwrap();
        let mut translator = Translator::new(&boundary, terms(None));
        let mut out = Vec::new();
        let first = translator.push(Bytes::from_static(b"--x: no"), &mut out);
        assert!(matches!(first, Err(Refusal::Multipart(_))));
        assert_eq!(translator.push(Bytes::from_static(b"\r\n"), &mut out), first);
        assert_eq!(translator.finish(&mut out).err(), first.err());
    }
}
