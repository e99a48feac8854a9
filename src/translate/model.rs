//! The model names that clients may ask for. The upstream has one model and takes no name.

/// OpenAI's names (`contract: openai-audio.md` section 2).
const KNOWN: [&str; 6] = [
    Models::DEFAULT,
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
];

/// The set of models that are served.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Models {
    extra: Vec<String>,
    strict: bool,
    elsewhere: Vec<String>,
}

impl Models {
    /// What a request that names no model is taken to ask for.
    pub const DEFAULT: &'static str = "whisper-1";

    /// OpenAI's names and `extra` ones. `strict`: a request must name its model.
    pub fn new(mut extra: Vec<String>, strict: bool) -> Self {
        extra.retain(|name| !KNOWN.contains(&name.as_str()));
        Self { extra, strict, elsewhere: Vec::new() }
    }

    /// Leaves `names` to services beside this one, even where they are OpenAI's.
    pub fn without(self, elsewhere: Vec<String>) -> Self {
        Self { elsewhere, ..self }
    }

    /// Whether a service beside this one has that model.
    pub fn is_elsewhere(&self, name: &str) -> bool {
        self.elsewhere.iter().any(|other| other == name)
    }

    /// Whether a request may ask for this model.
    pub fn knows(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    /// All names, OpenAI's first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let known = KNOWN.into_iter().chain(self.extra.iter().map(String::as_str));
        known.filter(|name| !self.is_elsewhere(name))
    }

    /// The model of a request that names none; `None` where it must.
    pub fn default_name(&self) -> Option<&'static str> {
        (!self.strict).then_some(Self::DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openai_names_and_extra_ones_are_known_once() {
        let models = Models::new(vec!["whisper-large-v3".into(), "whisper-1".into()], false);
        assert!(models.knows("gpt-4o-transcribe") && models.knows("whisper-large-v3"));
        assert!(!models.knows("gpt-5") && !models.knows(""));
        assert_eq!(models.names().count(), KNOWN.len() + 1);
    }

    #[test]
    fn a_model_that_is_elsewhere_is_not_known_here() {
        let models = Models::new(vec!["a".into()], false).without(vec!["whisper-1".into(), "b".into()]);
        assert!(!models.knows("whisper-1") && !models.knows("b") && models.knows("a"));
        assert!(models.is_elsewhere("whisper-1") && !models.is_elsewhere("a"));
    }

    #[test]
    fn only_lenient_sets_have_a_default() {
        assert_eq!(Models::new(Vec::new(), false).default_name(), Some("whisper-1"));
        assert_eq!(Models::new(Vec::new(), true).default_name(), None);
    }
}
