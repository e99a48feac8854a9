//! What the caller asked for, as far as the answer depends on it.

use std::time::Duration;

/// Whose form comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// OpenAI's: every field of theirs is checked.
    #[default]
    OpenAi,
    /// Codex's own: `file`, `language` and `prompt` count, everything else is ignored; the answer is JSON.
    Codex,
}

/// A form field of OpenAI's transcription request (`contract: openai-audio.md` section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    /// `file`
    File,
    /// `model`
    Model,
    /// `language`
    Language,
    /// `languages[]`
    Languages,
    /// `keywords[]`
    Keywords,
    /// `prompt`
    Prompt,
    /// `response_format`
    ResponseFormat,
    /// `temperature`
    Temperature,
    /// `include[]`
    Include,
    /// `timestamp_granularities[]`
    TimestampGranularities,
    /// `stream`
    Stream,
    /// `chunking_strategy`
    ChunkingStrategy,
    /// `known_speaker_names[]`
    KnownSpeakerNames,
    /// `known_speaker_references[]`
    KnownSpeakerReferences,
}

impl Field {
    const ALL: [Self; 14] = [
        Self::File,
        Self::Model,
        Self::Language,
        Self::Languages,
        Self::Keywords,
        Self::Prompt,
        Self::ResponseFormat,
        Self::Temperature,
        Self::Include,
        Self::TimestampGranularities,
        Self::Stream,
        Self::ChunkingStrategy,
        Self::KnownSpeakerNames,
        Self::KnownSpeakerReferences,
    ];

    /// The name on the wire, without array brackets: what an error's `param` says.
    pub const fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Model => "model",
            Self::Language => "language",
            Self::Languages => "languages",
            Self::Keywords => "keywords",
            Self::Prompt => "prompt",
            Self::ResponseFormat => "response_format",
            Self::Temperature => "temperature",
            Self::Include => "include",
            Self::TimestampGranularities => "timestamp_granularities",
            Self::Stream => "stream",
            Self::ChunkingStrategy => "chunking_strategy",
            Self::KnownSpeakerNames => "known_speaker_names",
            Self::KnownSpeakerReferences => "known_speaker_references",
        }
    }

    /// The field of that name, written without array brackets.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// Whether the field may come several times, with brackets behind its name or without.
    pub const fn is_array(self) -> bool {
        matches!(
            self,
            Self::Languages
                | Self::Keywords
                | Self::Include
                | Self::TimestampGranularities
                | Self::KnownSpeakerNames
                | Self::KnownSpeakerReferences
        )
    }

    /// Whether anything comes of the field on this upstream; the others are checked and named as ignored.
    pub const fn has_effect(self) -> bool {
        matches!(
            self,
            Self::File | Self::Model | Self::Language | Self::Prompt | Self::ResponseFormat | Self::Stream
        )
    }
}

/// The shape of the answer. Formats that this upstream cannot feed (`srt`, `vtt`, `diarized_json`) are refused
/// before they get here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `json`: `{"text": ...}`
    #[default]
    Json,
    /// `text`: the bare text
    Text,
    /// `markdown`: the text as it is
    Markdown,
    /// `verbose_json`: task, language, duration, text, segments
    VerboseJson,
}

impl Format {
    /// All that are served.
    pub const ALL: [Self; 4] = [Self::Json, Self::Text, Self::Markdown, Self::VerboseJson];

    /// The value on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text => "text",
            Self::Markdown => "markdown",
            Self::VerboseJson => "verbose_json",
        }
    }
}

/// An audio container that the upstream takes, known by its magic bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Container {
    /// RIFF WAVE
    Wav,
    /// MPEG audio layer III
    Mp3,
    /// MP4 / M4A
    M4a,
    /// FLAC
    Flac,
    /// Ogg (Opus or Vorbis)
    Ogg,
    /// WebM / Matroska
    Webm,
}

/// A spoken language as the upstream takes it: a lower-case ISO 639 code, or `zh-cn`, `zh-tw`, `zh-hk`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Language(pub(crate) String);

/// All of the request that the answer depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Whose request it was, and whose shape the answer has.
    pub shape: Shape,
    /// The model name, as sent or the default.
    pub model: String,
    /// The shape of the answer.
    pub format: Format,
    /// Whether the answer is a stream of server-sent events.
    pub stream: bool,
    /// The language that went upstream.
    pub language: Option<Language>,
    /// What the magic bytes said.
    pub container: Container,
    /// How long the audio plays, measured as it passed; `None` where it cannot be known.
    pub duration: Option<Duration>,
    /// Names of the fields that had no effect, in order of appearance, safe for a header value.
    pub ignored: Vec<String>,
}
