//! One text field while it comes in.

use super::asked::Field;
use super::disposition::Head;
use super::limits::Limits;
use super::refusal::Refusal;

/// A field name taken apart: `timestamp_granularities[]` is the field, and an empty key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Name {
    /// Which field; `None` for one that we do not know or do not ask for.
    pub(super) field: Option<Field>,
    /// What stands between the brackets, if any do.
    pub(super) key: Option<String>,
    /// The name without brackets, if it is short and safe to be shown in a header.
    pub(super) shown: Option<String>,
}

/// A field's value so far.
pub(super) struct Text {
    name: Name,
    value: Vec<u8>,
    size: usize,
    limit: usize,
}

impl Name {
    /// Reads a name as sent. Arrays come as `x`, `x[]` and `x[0]`; only `chunking_strategy` has keys that mean
    /// something (`contract: openai-audio.md` section 2).
    pub(super) fn parse(raw: &[u8]) -> Self {
        let Ok(text) = std::str::from_utf8(raw) else { return Self { field: None, key: None, shown: None } };
        let split = text.split_once('[').and_then(|(base, rest)| Some((base, rest.strip_suffix(']')?)));
        let (base, key) = split.map_or((text, None), |(base, key)| (base, Some(key)));
        let field = Field::named(base).filter(|field| match key {
            None => true,
            Some(_) if *field == Field::ChunkingStrategy => true,
            Some(key) => field.is_array() && key.bytes().all(|byte| byte.is_ascii_digit()),
        });
        let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        let shown = (1..=64).contains(&base.len()) && base.bytes().all(safe);
        Self { field, key: key.map(str::to_owned), shown: shown.then(|| base.to_owned()) }
    }
}

impl Text {
    /// Begins a field; refuses one that we would have to decode first.
    pub(super) fn new(name: Name, head: &Head, limits: &Limits) -> Result<Self, Refusal> {
        if let Some(field) = name.field {
            if head.foreign_charset {
                return Err(Refusal::Invalid { field, why: "text must be UTF-8" });
            }
            if head.encoded {
                return Err(Refusal::Invalid { field, why: "a Content-Transfer-Encoding is not supported" });
            }
        }
        let limit = match name.field {
            Some(Field::KnownSpeakerReferences) => limits.references,
            _ => limits.field,
        };
        Ok(Self { name, value: Vec::new(), size: 0, limit })
    }

    /// Takes a piece of the value. Values that nobody will look at are counted and dropped.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        self.size = self.size.saturating_add(piece.len());
        if self.size > self.limit {
            return Err(Refusal::FieldTooLong(self.name.field, self.limit));
        }
        if !self.is_dropped() {
            self.value.extend_from_slice(piece);
        }
        Ok(())
    }

    /// How many bytes were dropped.
    pub(super) const fn dropped(&self) -> u64 {
        if self.is_dropped() { self.size as u64 } else { 0 }
    }

    /// The name and the value, if there is one: an empty value stands for an absent field. The value of a field
    /// that nobody looks at is an empty string.
    pub(super) fn end(self) -> Result<Option<(Name, String)>, Refusal> {
        if self.size == 0 {
            return Ok(None);
        }
        match (String::from_utf8(self.value), self.name.field) {
            (Ok(value), _) => Ok(Some((self.name, value))),
            (Err(_), Some(field)) => Err(Refusal::Invalid { field, why: "text must be UTF-8" }),
            (Err(_), None) => Ok(Some((self.name, String::new()))),
        }
    }

    const fn is_dropped(&self) -> bool {
        matches!(self.name.field, None | Some(Field::KnownSpeakerReferences))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Head = Head { name: Vec::new(), foreign_charset: false, encoded: false };

    fn text(name: &str) -> Text {
        Text::new(
            Name::parse(name.as_bytes()),
            &PLAIN,
            &Limits { field: 8, references: 16, ..Limits::default() },
        )
        .unwrap()
    }

    #[test]
    fn array_names_are_known_in_every_spelling() {
        for name in ["include", "include[]", "include[0]", "include[12]"] {
            assert_eq!(Name::parse(name.as_bytes()).field, Some(Field::Include), "{name}");
        }
        for name in ["include[x]", "include[", "model[]", "Include", "nested[a]", "chunking_strategy[type"] {
            assert_eq!(Name::parse(name.as_bytes()).field, None, "{name}");
        }
        let name = Name::parse(b"chunking_strategy[type]");
        assert_eq!((name.field, name.key.as_deref()), (Some(Field::ChunkingStrategy), Some("type")));
    }

    #[test]
    fn only_short_plain_names_are_shown() {
        assert_eq!(Name::parse(b"nested[a]").shown.as_deref(), Some("nested"));
        assert_eq!(Name::parse(b"vad_filter").shown.as_deref(), Some("vad_filter"));
        let long = [b'x'; 65];
        for name in [&b"na%22me\r\n"[..], b"a,b", "é".as_bytes(), b"\xff", b"[x]", &long] {
            assert_eq!(Name::parse(name).shown, None, "{name:?}");
        }
    }

    #[test]
    fn fields_are_bounded_and_references_are_larger() {
        for (name, field, limit) in [
            ("prompt", Some(Field::Prompt), 8),
            ("odd", None, 8),
            ("known_speaker_references[]", Some(Field::KnownSpeakerReferences), 16),
        ] {
            let mut field_text = text(name);
            assert_eq!(field_text.push(&vec![b'x'; limit]), Ok(()));
            assert_eq!(field_text.push(b"x"), Err(Refusal::FieldTooLong(field, limit)));
        }
    }

    #[test]
    fn an_empty_field_is_an_absent_one() {
        assert_eq!(text("prompt").end(), Ok(None));
        let mut odd = text("odd");
        odd.push(b"\xff").unwrap();
        assert_eq!(odd.end().unwrap().unwrap().1, "");
    }

    #[test]
    fn text_must_be_plain_utf8() {
        let mut prompt = text("prompt");
        prompt.push(b"\xc3").unwrap();
        assert!(matches!(prompt.end(), Err(Refusal::Invalid { field: Field::Prompt, .. })));
        for head in [Head { foreign_charset: true, ..PLAIN }, Head { encoded: true, ..PLAIN }] {
            assert!(Text::new(Name::parse(b"prompt"), &head, &Limits::default()).is_err());
            assert!(Text::new(Name::parse(b"odd"), &head, &Limits::default()).is_ok());
        }
    }
}
