//! What Codex said (`contract: codex-upstream.md` section 1).

use serde_json::Value;

/// The transcript in the body of a 200: an object's string `text`, whatever else is beside it. `None` for anything
/// else; an empty text is a transcript.
pub(super) fn text(body: &[u8]) -> Option<String> {
    let Ok(Value::Object(mut object)) = serde_json::from_slice(body) else {
        return None;
    };
    match object.remove("text") {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_read_and_other_keys_are_not() {
        for (body, expected) in [
            (r#"{"text":"Hello there."}"#, "Hello there."),
            (
                r#" { "assets": [{"pointer": 1}], "text": "a\nb \u00e9 \ud83d\ude00", "language": null } "#,
                "a\nb é 😀",
            ),
            (r#"{"text":""}"#, ""),
        ] {
            assert_eq!(text(body.as_bytes()).as_deref(), Some(expected), "{body}");
        }
    }

    #[test]
    fn anything_but_an_object_with_a_text_is_no_transcript() {
        for body in [
            "",
            "null",
            "\"Hello\"",
            "[\"Hello\"]",
            "{}",
            r#"{"text":null}"#,
            r#"{"text":7}"#,
            r#"{"text":["a"]}"#,
            r#"{"Text":"a"}"#,
            r#"{"error":{"message":"x"}}"#,
            r#"{"text":"cut o"#,
            r#"{"text":"a"} trailing"#,
            r#"{"text":"\ud800"}"#,
            "<!doctype html><title>text</title>",
        ] {
            assert_eq!(text(body.as_bytes()), None, "{body}");
        }
        assert_eq!(text(b"{\"text\":\"\xff\"}"), None, "not UTF-8");
        assert_eq!(text("[".repeat(100_000).as_bytes()), None, "nested beyond reason");
    }
}
