//! What a text field's value may be, field by field (`contract: openai-audio.md` section 2).

use serde_json::Value;

use super::asked::{Field, Format, Language};
use super::refusal::Refusal;

/// An array's items in one part: a JSON array of strings, or the text itself. A comma does not separate: OpenAI
/// does not split there, and keywords may hold one.
pub(super) fn items(text: &str) -> Vec<String> {
    if text.starts_with('[')
        && let Ok(items) = serde_json::from_str(text)
    {
        return items;
    }
    vec![text.to_owned()]
}

pub(super) fn language(field: Field, text: &str) -> Result<Option<Language>, Refusal> {
    Language::parse(text).map_err(|_| Refusal::Invalid { field, why: "not a language code of ISO 639-1" })
}

pub(super) fn boolean(field: Field, text: &str) -> Result<bool, Refusal> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" => Ok(true),
        "false" | "0" | "null" | "none" => Ok(false),
        _ => Err(Refusal::Invalid { field, why: "must be true or false" }),
    }
}

/// A number from 0 to 1.
pub(super) fn unit(field: Field, text: &str) -> Result<f64, Refusal> {
    let number = text.parse::<f64>().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or(Refusal::Invalid { field, why: "must be a number from 0 to 1" })
}

pub(super) fn format(text: &str) -> Result<Format, Refusal> {
    const NO_TIMES: &str = "this upstream gives no timestamps; use json, text or verbose_json";
    let field = Field::ResponseFormat;
    if let Some(format) = Format::ALL.into_iter().find(|format| format.name() == text) {
        return Ok(format);
    }
    match text {
        "srt" => Err(Refusal::Unsupported { field, value: "srt", why: NO_TIMES }),
        "vtt" => Err(Refusal::Unsupported { field, value: "vtt", why: NO_TIMES }),
        "diarized_json" => Err(Refusal::Unsupported {
            field,
            value: "diarized_json",
            why: "this upstream does not tell speakers apart; use json, text or verbose_json",
        }),
        _ => Err(Refusal::Invalid { field, why: "must be json, text, markdown or verbose_json" }),
    }
}

pub(super) fn include(text: &str) -> Result<(), Refusal> {
    if items(text).iter().all(|item| item == "logprobs") {
        return Ok(());
    }
    Err(Refusal::Invalid { field: Field::Include, why: "must be logprobs" })
}

/// Whether the times of words are asked for.
pub(super) fn granularities(text: &str) -> Result<bool, Refusal> {
    items(text).iter().try_fold(false, |words, item| match item.as_str() {
        "segment" => Ok(words),
        "word" => Ok(true),
        _ => Err(Refusal::Invalid { field: Field::TimestampGranularities, why: "must be segment or word" }),
    })
}

/// `auto`, an object in JSON, or one key of it in brackets.
pub(super) fn chunking(key: Option<&str>, text: &str) -> Result<(), Refusal> {
    const WHY: &str = "must be auto or an object with type server_vad, threshold, prefix_padding_ms and silence_duration_ms";
    let invalid = Refusal::Invalid { field: Field::ChunkingStrategy, why: WHY };
    let fits = match key {
        Some(key) => chunking_key(key, text),
        None if text == "auto" => true,
        None => match serde_json::from_str(text) {
            Ok(Value::Object(object)) => object.iter().all(|(key, value)| match value {
                Value::String(text) => key == "type" && chunking_key(key, text),
                Value::Number(number) => chunking_key(key, &number.to_string()),
                _ => false,
            }),
            Ok(Value::Null) => true,
            Ok(Value::String(text)) => text == "auto",
            _ => false,
        },
    };
    if fits { Ok(()) } else { Err(invalid) }
}

fn chunking_key(key: &str, text: &str) -> bool {
    match key {
        "type" => text == "server_vad",
        "threshold" => unit(Field::ChunkingStrategy, text).is_ok(),
        "prefix_padding_ms" | "silence_duration_ms" => text.parse::<u32>().is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_in_one_part_are_json_and_never_split_at_commas() {
        assert_eq!(items("[\"a\", \"b\"]"), ["a", "b"]);
        assert_eq!(items("beta, gamma"), ["beta, gamma"]);
        assert_eq!(items("[not json"), ["[not json"]);
    }

    #[test]
    fn booleans_come_in_the_spellings_of_several_languages() {
        for (text, expected) in
            [("true", true), ("True", true), ("1", true), ("false", false), ("0", false), ("None", false)]
        {
            assert_eq!(boolean(Field::Stream, text), Ok(expected));
        }
        for text in ["maybe", "yes", "2", " true"] {
            assert!(boolean(Field::Stream, text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_temperature_is_a_number_from_0_to_1() {
        for text in ["0", "1", "0.2", "1e-3", "0.0"] {
            assert!(unit(Field::Temperature, text).is_ok(), "{text}");
        }
        for text in ["2", "-0.1", "NaN", "inf", "abc", "1.0001", "0,5"] {
            assert!(unit(Field::Temperature, text).is_err(), "{text}");
        }
    }

    #[test]
    fn formats_that_need_times_or_speakers_are_unsupported() {
        assert_eq!(format("verbose_json"), Ok(Format::VerboseJson));
        for text in ["srt", "vtt", "diarized_json"] {
            let refused = format(text);
            assert!(matches!(refused, Err(Refusal::Unsupported { value, .. }) if value == text));
        }
        for text in ["xml", "JSON", "json "] {
            assert!(matches!(format(text), Err(Refusal::Invalid { .. })), "{text}");
        }
    }

    #[test]
    fn granularities_are_segments_or_words() {
        assert_eq!(granularities("segment"), Ok(false));
        assert_eq!(granularities("[\"segment\"]"), Ok(false));
        assert_eq!(granularities("[\"segment\",\"word\"]"), Ok(true));
        assert!(matches!(granularities("sentence"), Err(Refusal::Invalid { .. })));
    }

    #[test]
    fn chunking_comes_in_three_encodings() {
        for (key, text) in [
            (None, "auto"),
            (None, r#"{"type":"server_vad","threshold":0.5,"prefix_padding_ms":300}"#),
            (Some("type"), "server_vad"),
            (Some("threshold"), "0.5"),
            (Some("silence_duration_ms"), "200"),
        ] {
            assert_eq!(chunking(key, text), Ok(()), "{key:?} {text}");
        }
        for (key, text) in [
            (None, "manual"),
            (None, r#"{"type":"server_vad","extra":1}"#),
            (None, r#"{"threshold":"0.5"}"#),
            (None, "[]"),
            (Some("type"), "auto"),
            (Some("threshold"), "2"),
            (Some("prefix_padding_ms"), "-1"),
            (Some(""), "auto"),
        ] {
            assert!(chunking(key, text).is_err(), "{key:?} {text}");
        }
    }

    #[test]
    fn only_logprobs_can_be_included() {
        assert_eq!(include("logprobs"), Ok(()));
        assert_eq!(include("[\"logprobs\"]"), Ok(()));
        assert!(include("usage").is_err());
    }
}
