//! A transcript in the shape that was asked for (`contract: openai-audio.md` section 4).

use serde::Serialize;

use super::Reply;
use crate::translate::{Asked, Format, Language, Shape};

/// Renders the transcript. Codex's own shape is the text alone.
pub(super) fn render(text: &str, asked: &Asked) -> Reply {
    match asked.format {
        Format::Json if asked.shape == Shape::Codex => Reply::json(200, &Json { text, usage: None }),
        Format::Json => measured(asked, &Json { text, usage: Usage::of(asked) }),
        Format::Text => {
            let line = format!("{}\n", text.trim_end_matches('\n'));
            Reply::new(200, "text/plain; charset=utf-8", line)
        }
        Format::Markdown => Reply::new(200, "text/markdown; charset=utf-8", text.to_owned()),
        Format::VerboseJson => {
            let language = asked.language.as_ref().and_then(Language::english_name).unwrap_or("unknown");
            let duration = asked.duration.map(|duration| duration.as_secs_f64());
            let (task, segments, usage) = ("transcribe", [], Usage::of(asked));
            measured(asked, &Verbose { task, language, duration, text, segments, usage })
        }
    }
}

/// Typed clients break on `null`, so a duration that could not be measured is left out, and a header says so: a
/// guess would be taken for the truth, and bills are made of it.
fn measured(asked: &Asked, body: &impl Serialize) -> Reply {
    let mut reply = Reply::json(200, body);
    if asked.duration.is_none() {
        reply.headers.push(("x-asr-unmeasured", "duration".to_owned()));
    }
    reply
}

#[derive(Serialize)]
struct Json<'a> {
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Verbose<'a> {
    task: &'static str,
    /// The English name: clients map it back to a code, and would lose a bare code.
    language: &'static str,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    text: &'a str,
    /// The upstream gives no times. Clients want the key all the same.
    segments: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// What was used, as OpenAI's `whisper-1` tells it; tokens are not ours to count.
#[derive(Serialize)]
#[serde(tag = "type", rename = "duration")]
struct Usage {
    /// Begun ones count whole, as OpenAI has it; some clients take no fractions.
    seconds: u64,
}

impl Usage {
    /// `None` where the audio could not be measured.
    fn of(asked: &Asked) -> Option<Self> {
        let duration = asked.duration?;
        Some(Self { seconds: duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0)) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;
    use crate::answer::tests::asked;

    fn rendered(text: &str, asked: &Asked) -> (&'static str, String) {
        let reply = render(text, asked);
        assert_eq!(reply.status, 200);
        (reply.content_type, String::from_utf8(reply.body.to_vec()).unwrap())
    }

    #[test]
    fn every_format_has_its_body_and_type() {
        let json = "application/json";
        let plain = "text/plain; charset=utf-8";
        let markdown = "text/markdown; charset=utf-8";
        for (format, text, content_type, body) in [
            (Format::Json, "Say \"hi\"\n", json, "{\"text\":\"Say \\\"hi\\\"\\n\"}"),
            (Format::Json, "", json, "{\"text\":\"\"}"),
            (Format::Text, "Hi", plain, "Hi\n"),
            (Format::Text, "Hi\n\n", plain, "Hi\n"),
            (Format::Text, "", plain, "\n"),
            (Format::Markdown, "# Hi\n\n", markdown, "# Hi\n\n"),
            (Format::Markdown, "", markdown, ""),
        ] {
            assert_eq!(
                rendered(text, &asked(format)),
                (content_type, body.to_owned()),
                "{format:?} {text:?}"
            );
        }
    }

    /// The required half of the response type of async-openai, which fails on a missing key or a `null`.
    #[derive(Deserialize)]
    struct Typed {
        language: String,
        duration: f64,
        text: String,
        segments: Option<Vec<serde_json::Value>>,
    }

    #[test]
    fn verbose_json_is_what_typed_clients_read() {
        let mut asked = asked(Format::VerboseJson);
        asked.language = Some(Language("en".to_owned()));
        asked.duration = Some(Duration::from_millis(8_470));
        let (content_type, body) = rendered("Hi", &asked);
        assert_eq!(content_type, "application/json");
        assert_eq!(
            body,
            r#"{"task":"transcribe","language":"english","duration":8.47,"text":"Hi","segments":[],"usage":{"type":"duration","seconds":9}}"#
        );
        let typed: Typed = serde_json::from_str(&body).unwrap();
        assert_eq!((typed.language.as_str(), typed.duration, typed.text.as_str()), ("english", 8.47, "Hi"));
        assert_eq!(typed.segments.unwrap().len(), 0);
        assert!(render("Hi", &asked).headers.is_empty());
    }

    #[test]
    fn a_language_without_a_name_is_unknown_and_never_null() {
        let mut asked = asked(Format::VerboseJson);
        for language in [None, Some(Language("zz".to_owned()))] {
            asked.language = language;
            let (_, body) = rendered("", &asked);
            assert!(body.contains(r#""language":"unknown""#), "{body}");
        }
    }

    #[test]
    fn seconds_that_have_begun_are_used_seconds() {
        let mut asked = asked(Format::Json);
        for (millis, seconds) in [(1, 1), (1000, 1), (1001, 2), (8_470, 9), (u64::MAX, u64::MAX / 1000 + 1)] {
            asked.duration = Some(Duration::from_millis(millis));
            let expected = format!(r#"{{"text":"Hi","usage":{{"type":"duration","seconds":{seconds}}}}}"#);
            assert_eq!(rendered("Hi", &asked).1, expected);
        }
        asked.duration = Some(Duration::MAX);
        assert!(rendered("", &asked).1.contains("18446744073709551615"));
    }

    #[test]
    fn what_was_not_measured_is_left_out_and_said_where_it_would_stand() {
        for format in Format::ALL {
            let reply = render("Hi", &asked(format));
            let body = String::from_utf8(reply.body.to_vec()).unwrap();
            assert!(!body.contains("duration") && !body.contains("usage"), "{body}");
            let unmeasured = [("x-asr-unmeasured", "duration".to_owned())];
            let stands = matches!(format, Format::Json | Format::VerboseJson);
            assert_eq!(reply.headers, if stands { &unmeasured[..] } else { &[] }, "{format:?}");
        }
    }

    #[test]
    fn codex_is_told_the_text_alone() {
        for duration in [None, Some(Duration::from_secs(1))] {
            let asked = Asked { shape: Shape::Codex, duration, ..asked(Format::Json) };
            let reply = render("Hi", &asked);
            assert_eq!((reply.body.as_ref(), reply.headers.len()), (&br#"{"text":"Hi"}"#[..], 0));
        }
    }

    #[test]
    fn a_whole_number_of_seconds_is_a_number() {
        let mut asked = asked(Format::VerboseJson);
        asked.duration = Some(Duration::from_secs(3));
        let (_, body) = rendered("", &asked);
        assert_eq!(serde_json::from_str::<Typed>(&body).unwrap().duration, 3.0);
    }
}
