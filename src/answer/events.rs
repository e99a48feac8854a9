//! A transcript as server-sent events, for `stream=true` (`contract: openai-audio.md` section 4).

use serde::Serialize;

use super::{Reply, to_json};

/// Renders the transcript as OpenAI streams it: a delta, unless the text is empty, then the one `done`. The upstream
/// tells the text all at once, so to cut it up would only pretend. No `event:` lines and no `[DONE]`: OpenAI sends
/// neither here. No `usage`: in `done` it counts tokens, and the upstream tells none.
pub(super) fn render(text: &str) -> Reply {
    let mut body = Vec::new();
    if !text.is_empty() {
        write(&mut body, &Event::Delta { delta: text });
    }
    write(&mut body, &Event::Done { text });
    Reply::new(200, "text/event-stream; charset=utf-8", body)
}

/// JSON escapes line ends, so that an event is one line; without the empty line behind it clients drop the event.
fn write(body: &mut Vec<u8>, event: &Event<'_>) {
    body.extend_from_slice(b"data: ");
    body.extend(to_json(event));
    body.extend_from_slice(b"\n\n");
}

#[derive(Serialize)]
#[serde(tag = "type")]
enum Event<'a> {
    #[serde(rename = "transcript.text.delta")]
    Delta { delta: &'a str },
    #[serde(rename = "transcript.text.done")]
    Done { text: &'a str },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// The events, read as strictly as the format allows: one `data:` line each, closed by an empty line.
    fn events(text: &str) -> Vec<Value> {
        let reply = render(text);
        assert_eq!((reply.status, reply.content_type), (200, "text/event-stream; charset=utf-8"));
        let body = String::from_utf8(reply.body.to_vec()).unwrap();
        let body = body.strip_suffix("\n\n").unwrap();
        body.split("\n\n")
            .map(|event| {
                assert!(!event.contains(['\n', '\r']), "{event}");
                serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap()
            })
            .collect()
    }

    #[test]
    fn the_stream_is_byte_for_byte_openais() {
        let body = render("Hi\nthere").body;
        assert_eq!(
            body,
            "data: {\"type\":\"transcript.text.delta\",\"delta\":\"Hi\\nthere\"}\n\n\
             data: {\"type\":\"transcript.text.done\",\"text\":\"Hi\\nthere\"}\n\n"
        );
    }

    #[test]
    fn silence_is_a_done_without_deltas() {
        let events = events("");
        assert_eq!(events, [serde_json::json!({"type": "transcript.text.done", "text": ""})]);
    }

    proptest! {
        #[test]
        fn deltas_join_to_the_text_and_one_done_ends_the_stream(text in any::<String>()) {
            let events = events(&text);
            let (done, deltas) = events.split_last().unwrap();
            prop_assert_eq!(&done["type"], "transcript.text.done");
            prop_assert_eq!(&done["text"], text.as_str());
            let mut joined = String::new();
            for event in deltas {
                prop_assert_eq!(&event["type"], "transcript.text.delta");
                joined.push_str(event["delta"].as_str().unwrap());
            }
            prop_assert_eq!(joined, text);
        }
    }
}
