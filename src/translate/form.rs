//! What the form's text fields mean: every one is checked, and what the answer depends on is kept.

use std::sync::Arc;

use super::asked::{Field, Format, Language};
use super::model::Models;
use super::refusal::Refusal;
use super::text::Name;
use super::value;

/// Names kept of fields without effect.
const MAX_IGNORED: usize = 16;

/// Speakers that OpenAI takes, by name or by reference.
const MAX_SPEAKERS: usize = 4;

/// The form so far. A single-valued field may come again with the same value only, so that no two parsers can
/// disagree on which one counts.
pub(super) struct Form {
    models: Arc<Models>,
    /// The model that the path names, which wins over the field.
    path_model: Option<String>,
    model: Option<String>,
    /// `Some(None)`: the client asked for detection (`auto`), which also overrides a configured language.
    language: Option<Option<Language>>,
    prompt: Option<String>,
    format: Option<Format>,
    stream: Option<bool>,
    temperature: Option<f64>,
    /// Word times are asked for.
    words: bool,
    speaker_names: usize,
    speaker_references: usize,
    ignored: Vec<String>,
}

impl Form {
    pub(super) const fn new(models: Arc<Models>, path_model: Option<String>) -> Self {
        Self {
            models,
            path_model,
            model: None,
            language: None,
            prompt: None,
            format: None,
            stream: None,
            temperature: None,
            words: false,
            speaker_names: 0,
            speaker_references: 0,
            ignored: Vec::new(),
        }
    }

    /// Takes a field that is not empty.
    pub(super) fn take(&mut self, name: Name, value: String) -> Result<(), Refusal> {
        let Some(field) = name.field else {
            self.ignore(name.shown);
            return Ok(());
        };
        match field {
            Field::File => {}
            Field::Model => self.take_model(value)?,
            Field::Language => once(&mut self.language, value::language(field, &value)?, field)?,
            Field::Prompt => once(&mut self.prompt, value, field)?,
            Field::ResponseFormat => once(&mut self.format, value::format(&value)?, field)?,
            Field::Stream => once(&mut self.stream, value::boolean(field, &value)?, field)?,
            Field::Temperature => once(&mut self.temperature, value::unit(field, &value)?, field)?,
            Field::Include => value::include(&value)?,
            Field::TimestampGranularities => self.words |= value::granularities(&value)?,
            Field::ChunkingStrategy => value::chunking(name.key.as_deref(), &value)?,
            Field::Languages => {
                for item in value::items(&value) {
                    value::language(field, &item)?;
                }
            }
            Field::KnownSpeakerNames => {
                let names = value::items(&value).len();
                count(&mut self.speaker_names, names, field)?;
            }
            Field::KnownSpeakerReferences => count(&mut self.speaker_references, 1, field)?,
            Field::Keywords => {}
        }
        if !field.has_effect() {
            self.ignore(Some(field.name().to_owned()));
        }
        self.check_words()
    }

    /// Word times would stand in `verbose_json`, and only there: clients ask for them with other formats too, where
    /// nobody misses them.
    fn check_words(&self) -> Result<(), Refusal> {
        if self.words && self.format == Some(Format::VerboseJson) {
            return Err(Refusal::Unsupported {
                field: Field::TimestampGranularities,
                value: "word",
                why: "this upstream gives no word timestamps",
            });
        }
        Ok(())
    }

    /// Notes a field that has no effect.
    pub(super) fn ignore(&mut self, name: Option<String>) {
        if let Some(name) = name
            && self.ignored.len() < MAX_IGNORED
            && !self.ignored.contains(&name)
        {
            self.ignored.push(name);
        }
    }

    /// The language asked for: `None` when the client said nothing, `Some(None)` when it wants it detected.
    pub(super) const fn language(&self) -> Option<Option<&Language>> {
        match &self.language {
            Some(language) => Some(language.as_ref()),
            None => None,
        }
    }

    pub(super) fn prompt(&self) -> Option<&str> {
        self.prompt.as_deref()
    }

    /// The model that the path names must be one that is served.
    pub(super) fn check_path(&self) -> Result<(), Refusal> {
        self.path_model.as_ref().map_or(Ok(()), |model| self.check_model(model))
    }

    /// The model that counts: the path's, the form's, the default. `strict` asks for one of the former.
    pub(super) fn model(&self) -> Result<&str, Refusal> {
        let named = self.path_model.as_deref().or(self.model.as_deref());
        named.or_else(|| self.models.default_name()).ok_or(Refusal::Missing(Field::Model))
    }

    pub(super) fn format(&self) -> Format {
        self.format.unwrap_or_default()
    }

    pub(super) fn stream(&self) -> bool {
        self.stream.unwrap_or_default()
    }

    /// The names of the fields without effect, once.
    pub(super) fn take_ignored(&mut self) -> Vec<String> {
        std::mem::take(&mut self.ignored)
    }

    fn take_model(&mut self, model: String) -> Result<(), Refusal> {
        if model.contains(['\r', '\n', '\0']) {
            return Err(Refusal::Invalid {
                field: Field::Model,
                why: "a model name has no control characters",
            });
        }
        if self.path_model.is_none() {
            self.check_model(&model)?;
        }
        once(&mut self.model, model, Field::Model)
    }

    fn check_model(&self, model: &str) -> Result<(), Refusal> {
        if self.models.knows(model) {
            return Ok(());
        }
        if self.models.is_elsewhere(model) {
            return Err(Refusal::ModelTooLate);
        }
        let mut shown: String = model.chars().filter(|character| !character.is_control()).take(128).collect();
        while shown.len() > 128 {
            shown.pop();
        }
        Err(Refusal::UnknownModel(shown))
    }
}

/// Sets a single-valued field.
fn once<T: PartialEq>(slot: &mut Option<T>, value: T, field: Field) -> Result<(), Refusal> {
    match slot {
        Some(before) if *before != value => Err(Refusal::Twice(field)),
        _ => {
            *slot = Some(value);
            Ok(())
        }
    }
}

fn count(speakers: &mut usize, more: usize, field: Field) -> Result<(), Refusal> {
    *speakers = speakers.saturating_add(more);
    if *speakers > MAX_SPEAKERS {
        return Err(Refusal::Invalid { field, why: "at most 4 speakers" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form_of(fields: &[(&str, &str)]) -> Result<Form, Refusal> {
        let mut form = Form::new(Arc::new(Models::default()), None);
        for (name, value) in fields {
            form.take(Name::parse(name.as_bytes()), (*value).to_owned())?;
        }
        Ok(form)
    }

    fn refusal(fields: &[(&str, &str)]) -> Refusal {
        form_of(fields).err().unwrap()
    }

    #[test]
    fn the_answer_depends_on_what_was_asked() {
        let mut form = form_of(&[
            ("model", "gpt-4o-transcribe"),
            ("language", "en-US"),
            ("prompt", "“hi”\r\nnew line"),
            ("response_format", "verbose_json"),
            ("stream", "True"),
        ])
        .unwrap();
        assert_eq!(form.model(), Ok("gpt-4o-transcribe"));
        assert_eq!(form.language().flatten().map(Language::code), Some("en"));
        assert_eq!(form.prompt(), Some("“hi”\r\nnew line"));
        assert_eq!((form.format(), form.stream()), (Format::VerboseJson, true));
        assert!(form.take_ignored().is_empty());
    }

    #[test]
    fn fields_without_effect_are_named_once() {
        let mut form = form_of(&[
            ("temperature", "0.2"),
            ("timestamp_granularities[]", "segment"),
            ("include[0]", "logprobs"),
            ("include[1]", "logprobs"),
            ("keywords[]", "beta, gamma"),
            ("languages", "[\"en\", \"fr\"]"),
            ("chunking_strategy[type]", "server_vad"),
            ("vad_filter", ""),
            ("na%22me", ""),
        ])
        .unwrap();
        let expected = [
            "temperature",
            "timestamp_granularities",
            "include",
            "keywords",
            "languages",
            "chunking_strategy",
            "vad_filter",
        ];
        assert_eq!(form.take_ignored(), expected);
    }

    #[test]
    fn word_times_are_refused_where_they_would_stand_and_ignored_elsewhere() {
        let (word, verbose) = (("timestamp_granularities[]", "word"), ("response_format", "verbose_json"));
        for fields in [[word, verbose], [verbose, word]] {
            assert!(matches!(refusal(&fields), Refusal::Unsupported { value: "word", .. }));
        }
        let mut form = form_of(&[("response_format", "json"), word]).unwrap();
        assert_eq!(form.take_ignored(), ["timestamp_granularities"]);
        assert!(form_of(&[word]).is_ok());
    }

    #[test]
    fn at_most_sixteen_ignored_names_are_kept() {
        let names: Vec<String> = (0..40).map(|number| format!("field{number}")).collect();
        let fields: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(form_of(&fields).unwrap().take_ignored().len(), 16);
    }

    #[test]
    fn the_same_value_may_come_twice_and_two_values_may_not() {
        assert!(
            form_of(&[("language", "en"), ("language", "english"), ("stream", "1"), ("stream", "true")])
                .is_ok()
        );
        for (field, name, values) in [
            (Field::Model, "model", ["whisper-1", "gpt-transcribe"]),
            (Field::Language, "language", ["en", "fr"]),
            (Field::Language, "language", ["auto", "fr"]),
            (Field::Prompt, "prompt", ["a", "b"]),
            (Field::ResponseFormat, "response_format", ["json", "text"]),
            (Field::Temperature, "temperature", ["0", "0.5"]),
            (Field::Stream, "stream", ["true", "false"]),
        ] {
            assert_eq!(refusal(&values.map(|value| (name, value))), Refusal::Twice(field));
        }
    }

    #[test]
    fn models_must_be_known_and_clean() {
        assert_eq!(refusal(&[("model", "gpt-5")]), Refusal::UnknownModel("gpt-5".into()));
        assert_eq!(refusal(&[("model", "a\u{7}b")]), Refusal::UnknownModel("ab".into()));
        assert_eq!(refusal(&[("model", &"é".repeat(500))]), Refusal::UnknownModel("é".repeat(64)));
        for model in ["whisper-1\r\nx: y", "whisper\0"] {
            assert!(matches!(refusal(&[("model", model)]), Refusal::Invalid { field: Field::Model, .. }));
        }
    }

    #[test]
    fn a_missing_model_is_the_default_unless_it_must_come() {
        assert_eq!(form_of(&[]).unwrap().model(), Ok("whisper-1"));
        let strict = Form::new(Arc::new(Models::new(Vec::new(), true)), None);
        assert_eq!(strict.model(), Err(Refusal::Missing(Field::Model)));
    }

    #[test]
    fn the_model_in_the_path_wins_over_the_field() {
        let models = Arc::new(Models::new(vec!["deployed".into()], true));
        let mut form = Form::new(models.clone(), Some("deployed".into()));
        form.take(Name::parse(b"model"), "whatever".into()).unwrap();
        assert_eq!((form.check_path(), form.model()), (Ok(()), Ok("deployed")));
        let form = Form::new(models, Some("other".into()));
        assert_eq!(form.check_path(), Err(Refusal::UnknownModel("other".into())));
    }

    #[test]
    fn at_most_four_speakers_are_taken() {
        let four = [("known_speaker_names[]", "a"); 4];
        assert!(form_of(&four).is_ok());
        assert!(form_of(&[&four[..], &[("known_speaker_references[]", "data:")]].concat()).is_ok());
        assert!(form_of(&[("known_speaker_names", "[\"a\",\"b\",\"c\",\"d\",\"e\"]")]).is_err());
        assert!(form_of(&[("known_speaker_references[]", ""); 5]).is_err());
    }
}
