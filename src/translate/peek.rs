//! Reads an upload no further than to its model: where there are several upstreams, it decides between them.

use bytes::Bytes;

use super::asked::Field;
use super::boundary::Boundary;
use super::limits::Limits;
use super::text::{Name, Text};
use super::upload::{Event, Upload};

/// A look at the beginning of an upload.
pub struct Peek {
    upload: Upload,
    limits: Limits,
    /// The `model` field, while it comes in.
    model: Option<Text>,
}

/// What the look has shown so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peeked {
    /// The model may still come.
    More,
    /// This model is asked for.
    Model(String),
    /// The file has begun, or the form is broken: no model is known before it.
    Nothing,
}

impl Peek {
    /// A look at a body with that boundary.
    pub fn new(client: &Boundary, limits: &Limits) -> Self {
        Self { upload: Upload::new(client, limits), limits: limits.clone(), model: None }
    }

    /// Takes the next bytes of the body. After an answer other than [`Peeked::More`] it has seen enough. What is wrong
    /// with a form is left to whoever translates it.
    pub fn push(&mut self, chunk: Bytes) -> Peeked {
        self.upload.push(chunk);
        loop {
            let seen = match self.upload.event() {
                Ok(Some(event)) => self.take(event),
                Ok(None) => return Peeked::More,
                Err(_) => Peeked::Nothing,
            };
            if seen != Peeked::More {
                return seen;
            }
        }
    }

    fn take(&mut self, event: Event) -> Peeked {
        match event {
            Event::Part(head) => {
                let name = Name::parse(&head.name);
                match name.field {
                    Some(Field::File) => return Peeked::Nothing,
                    Some(Field::Model) => match Text::new(name, &head, &self.limits) {
                        Ok(text) => self.model = Some(text),
                        Err(_) => return Peeked::Nothing,
                    },
                    _ => {}
                }
            }
            Event::Data(data) => {
                if self.model.as_mut().is_some_and(|text| text.push(&data).is_err()) {
                    return Peeked::Nothing;
                }
            }
            Event::End => match self.model.take().map(Text::end) {
                Some(Ok(Some((_, model)))) => return Peeked::Model(model),
                Some(Err(_)) => return Peeked::Nothing,
                // An empty value stands for an absent field.
                Some(Ok(None)) | None => {}
            },
        }
        Peeked::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(parts: &[(&str, &str)]) -> String {
        let part = |(name, value): &(&str, &str)| {
            format!("--bound\r\nContent-Disposition: form-data; name={name}\r\n\r\n{value}\r\n")
        };
        parts.iter().map(part).collect::<String>() + "--bound--\r\n"
    }

    /// The same for every cutting.
    fn peek(body: &str) -> Peeked {
        let boundary = Boundary::from_content_type(b"multipart/form-data; boundary=bound").unwrap();
        let cut = |step: usize| {
            let mut peek = Peek::new(&boundary, &Limits::default());
            let mut chunks = body.as_bytes().chunks(step).map(Bytes::copy_from_slice);
            chunks.by_ref().map(|chunk| peek.push(chunk)).find(|seen| *seen != Peeked::More)
        };
        let whole = cut(body.len());
        for step in 1..body.len() {
            assert_eq!(cut(step), whole, "in steps of {step}");
        }
        whole.unwrap_or(Peeked::More)
    }

    #[test]
    fn the_model_is_found_wherever_it_stands_before_the_file() {
        let model = Peeked::Model("m".to_owned());
        assert_eq!(peek(&form(&[("model", "m"), ("file", "x")])), model);
        assert_eq!(peek(&form(&[("prompt", "p"), ("model", ""), ("model", "m"), ("file", "x")])), model);
    }

    #[test]
    fn behind_the_file_nobody_looks() {
        assert_eq!(peek(&form(&[("file", "x"), ("model", "m")])), Peeked::Nothing);
    }

    #[test]
    fn a_broken_form_has_no_model() {
        assert_eq!(peek("--bound\r\nno header\r\n\r\nx\r\n--bound--"), Peeked::Nothing);
        assert_eq!(peek(&form(&[("prompt", "p\r\n--boundx"), ("model", "m")])), Peeked::Nothing);
        assert_eq!(peek(&form(&[("prompt", "p")])), Peeked::More);
    }
}
