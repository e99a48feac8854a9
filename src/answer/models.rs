//! The models pages (`contract: openai-audio.md` section 4).

use serde::Serialize;

use super::Reply;
use crate::translate::Format;

/// When every model was `created`, in Unix seconds: a constant, since clients want a number and nobody reads it.
/// It is the one OpenAI gives for `whisper-1`.
const CREATED: u64 = 1_677_532_384;

/// A model as these pages name it: its name, and whose it is.
pub type Listed<'a> = (&'a str, &'a str);

/// `GET /v1/models`
pub fn list<'a>(models: impl Iterator<Item = Listed<'a>>) -> Reply {
    Reply::json(200, &List { object: "list", data: models.map(Model::new).collect() })
}

/// `GET /v1/models/{name}`, for a name that is served; any other is `Fault::ModelNotFound`.
pub fn one(model: Listed<'_>) -> Reply {
    Reply::json(200, &Model::new(model))
}

/// `GET /v1/models/metadata`: the same list, and what this endpoint supports for each model. `max_upload` is the
/// limit on the whole request body in bytes.
pub fn metadata<'a>(models: impl Iterator<Item = Listed<'a>>, max_upload: u64) -> Reply {
    let data = models
        .map(|model| Metadata {
            model: Model::new(model),
            endpoints: ["/v1/audio/transcriptions"],
            // They do not depend on the model's name.
            response_formats: Format::ALL.map(Format::name),
            stream: true,
            max_upload_bytes: max_upload,
        })
        .collect();
    Reply::json(200, &List { object: "list", data })
}

#[derive(Serialize)]
struct List<T> {
    object: &'static str,
    data: Vec<T>,
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'a str,
}

impl<'a> Model<'a> {
    const fn new((id, owned_by): Listed<'a>) -> Self {
        Self { id, object: "model", created: CREATED, owned_by }
    }
}

#[derive(Serialize)]
struct Metadata<'a> {
    #[serde(flatten)]
    model: Model<'a>,
    endpoints: [&'static str; 1],
    response_formats: [&'static str; 4],
    stream: bool,
    max_upload_bytes: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn body(reply: &Reply) -> Value {
        assert_eq!((reply.status, reply.content_type), (200, "application/json"));
        serde_json::from_slice(&reply.body).unwrap()
    }

    fn whisper() -> Value {
        json!({"id": "whisper-1", "object": "model", "created": 1_677_532_384, "owned_by": "openai"})
    }

    #[test]
    fn the_list_has_openais_shape_and_keeps_the_order() {
        let list = body(&list([("whisper-1", "openai"), ("large-v3", "local")].into_iter()));
        assert_eq!(list["object"], "list");
        assert_eq!(list["data"][0], whisper());
        assert_eq!(
            (&list["data"][1]["id"], &list["data"][1]["owned_by"]),
            (&json!("large-v3"), &json!("local"))
        );
        assert_eq!(list["data"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn one_model_is_one_item_of_the_list() {
        assert_eq!(body(&one(("whisper-1", "openai"))), whisper());
    }

    #[test]
    fn a_name_from_the_config_is_escaped() {
        assert_eq!(body(&one(("a\"b\\c", "openai")))["id"], "a\"b\\c");
    }

    #[test]
    fn metadata_says_what_the_endpoint_can_do() {
        let list = body(&metadata([("whisper-1", "openai")].into_iter(), 50 << 20));
        let mut expected = whisper();
        expected["endpoints"] = json!(["/v1/audio/transcriptions"]);
        expected["response_formats"] = json!(["json", "text", "markdown", "verbose_json"]);
        expected["stream"] = json!(true);
        expected["max_upload_bytes"] = json!(52_428_800);
        assert_eq!(list, json!({"object": "list", "data": [expected]}));
    }
}
