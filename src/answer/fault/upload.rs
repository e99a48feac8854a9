//! The part of the table for refused uploads.

use super::{Row, model_not_found, printable};
use crate::translate::refusal::{Found, Kind};
use crate::translate::{Field, Refusal};

/// What the client sees of a refusal. `param` is the field at fault, where there is one.
pub(super) fn row(refusal: &Refusal) -> Row {
    match refusal {
        Refusal::ContentType(media_type) => {
            Row::client("content_type", 400, unsupported_content_type(media_type))
                .code("unsupported_content_type")
        }
        Refusal::Multipart(why) => unparsable("multipart", 400, why),
        Refusal::TooManyParts(limit) => {
            unparsable("too_many_parts", 400, &format!("it has more than {limit} parts"))
        }
        Refusal::PartHeadTooLong(limit) => {
            unparsable("part_head_too_long", 413, &format!("a part's headers are longer than {limit} bytes"))
        }
        Refusal::FieldTooLong(field, limit) => {
            let name = field.map_or("A form field", Field::name);
            let row = Row::client("field_too_long", 413, format!("{name} is longer than {limit} bytes."))
                .code("string_above_max_length");
            field.map(Field::name).into_iter().fold(row, Row::param)
        }
        Refusal::TooMuchIgnored(limit) => {
            let message = format!(
                "More than {limit} bytes behind the `file` part are of no use here. \
                 Leave them out, or put the `file` part last."
            );
            Row::client("too_much_ignored", 400, message)
        }
        Refusal::TooLarge { limit, read } => {
            let message = format!("Maximum content size limit ({limit}) exceeded ({read} bytes read)");
            Row::client("too_large", 413, message).kind("server_error")
        }
        Refusal::Missing(Field::File) => Row::client(
            "missing_file",
            400,
            "There is no `file` part in the form: send the audio as a part named `file` \
             (with curl: -F file=@audio.mp3).",
        )
        .param("file"),
        Refusal::Missing(Field::Model) => {
            Row::client("missing_model", 400, "you must provide a model parameter").param("model")
        }
        Refusal::Missing(field) => {
            let name = field.name();
            Row::client("missing_field", 400, format!("Missing required parameter: '{name}'.")).param(name)
        }
        Refusal::Twice(field) => {
            let name = field.name();
            Row::client("field_twice", 400, format!("'{name}' is given more than once."))
                .param(name)
                .code("invalid_value")
        }
        Refusal::Invalid { field: field @ Field::Language, why } => {
            let message =
                format!("Invalid language: {why}. Language parameter must be specified in ISO-639-1 format.");
            Row::client("invalid_language", 400, message).param(field.name()).code("invalid_language_format")
        }
        Refusal::Invalid { field, why } => {
            let name = field.name();
            Row::client("invalid_field", 400, format!("Invalid '{name}': {why}."))
                .param(name)
                .code("invalid_value")
        }
        Refusal::Unsupported { field, value, why } => {
            let name = field.name();
            Row::client("unsupported_value", 400, format!("{name} '{value}' is not supported here: {why}."))
                .param(name)
                .code("unsupported_value")
        }
        Refusal::UnknownModel(model) => model_not_found(model),
        Refusal::ModelTooLate => {
            let message =
                "For this model, 'model' must come before 'file': make it the first field of the form.";
            Row::client("model_too_late", 400, message).param("model").code("invalid_value")
        }
        Refusal::TransferEncoding => {
            let message =
                "The `file` part has a Content-Transfer-Encoding. Send the audio's bytes as they are.";
            Row::client("transfer_encoding", 400, message).param("file").code("invalid_value")
        }
        Refusal::AudioTooShort => {
            let message = "Audio file is too short. Minimum audio length is 0.1 seconds.";
            Row::client("audio_too_short", 400, message).param("file").code("audio_too_short")
        }
        Refusal::AudioUnsupported(found) => {
            let code = match found {
                Some(Found { kind: Kind::Foreign, .. }) => "unsupported_format",
                _ => "invalid_value",
            };
            Row::client("audio_unsupported", 400, invalid_file_format(*found)).param("file").code(code)
        }
        Refusal::AudioTooLong { limit, duration } => {
            let limit = limit.as_secs_f64();
            let plays = duration
                .map_or_else(|| format!("over {limit}"), |duration| duration.as_secs_f64().to_string());
            let message = format!(
                "audio duration {plays} seconds is longer than {limit} seconds which is the maximum for this model"
            );
            Row::client("audio_too_long", 400, message).param("file").code("invalid_value")
        }
    }
}

fn unparsable(name: &'static str, status: u16, why: &str) -> Row {
    Row::client(name, status, format!("Could not parse multipart form: {why}"))
}

fn unsupported_content_type(media_type: &str) -> String {
    let only = "This API method only accepts 'multipart/form-data' requests";
    if media_type.is_empty() {
        return format!("Missing content type. {only}.");
    }
    let media_type = printable(media_type, 100);
    format!(
        "Unsupported content type: '{media_type}'. {only}, but you specified the header \
         'Content-Type: {media_type}'. Please try again with a supported content type."
    )
}

fn invalid_file_format(found: Option<Found>) -> String {
    let formats =
        "Supported formats: ['flac', 'm4a', 'mp3', 'mp4', 'mpeg', 'mpga', 'oga', 'ogg', 'wav', 'webm']";
    let Some(Found { name, kind }) = found else {
        return format!("Invalid file format. Raw samples need a header, such as WAV's. {formats}");
    };
    let instead = match kind {
        Kind::Foreign => "Convert it first, for example with `ffmpeg -i FILE -vn audio.mp3`.",
        Kind::Silent => "Send a file with an audio track.",
        Kind::Text => "Send the audio file's own bytes; with curl, write -F file=@NAME, with the @.",
        Kind::Packed => "Unpack it and send the audio file in it.",
        Kind::Encrypted => "Decrypt it first.",
        Kind::Other => "Send an audio file.",
    };
    format!("Invalid file format: this looks like {name}. {instead} {formats}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use crate::answer::tests::assert_envelope;
    use crate::answer::{Blame, Fault};
    use crate::translate::refusal::{Found, Kind};
    use crate::translate::{Field, Refusal};

    /// A refusal, its status, `type`, `param` and `code`, and how its message starts.
    type Case = (Refusal, u16, &'static str, Option<&'static str>, Option<&'static str>, &'static str);

    const MAXIMUM: Duration = Duration::from_secs(1400);
    const REQUEST: &str = "invalid_request_error";

    fn parsing() -> Vec<Case> {
        let unsupported = Some("unsupported_content_type");
        let too_long = Some("string_above_max_length");
        vec![
            (
                Refusal::ContentType("application/json".into()),
                400,
                REQUEST,
                None,
                unsupported,
                "Unsupported content type: 'application/json'. This API method only accepts \
                 'multipart/form-data' requests, but you specified the header \
                 'Content-Type: application/json'. Please try again with a supported content type.",
            ),
            (
                Refusal::ContentType(String::new()),
                400,
                REQUEST,
                None,
                unsupported,
                "Missing content type. This",
            ),
            (
                Refusal::Multipart("no boundary"),
                400,
                REQUEST,
                None,
                None,
                "Could not parse multipart form: no boundary",
            ),
            (
                Refusal::TooManyParts(64),
                400,
                REQUEST,
                None,
                None,
                "Could not parse multipart form: it has more",
            ),
            (
                Refusal::PartHeadTooLong(8192),
                413,
                REQUEST,
                None,
                None,
                "Could not parse multipart form: a part's",
            ),
            (
                Refusal::FieldTooLong(Some(Field::Prompt), 9),
                413,
                REQUEST,
                Some("prompt"),
                too_long,
                "prompt is longer than 9 bytes.",
            ),
            (Refusal::FieldTooLong(None, 9), 413, REQUEST, None, too_long, "A form field is longer than 9"),
            (Refusal::TooMuchIgnored(65536), 400, REQUEST, None, None, "More than 65536 bytes behind"),
            (
                Refusal::TooLarge { limit: 26_214_400, read: 26_306_794 },
                413,
                "server_error",
                None,
                None,
                "Maximum content size limit (26214400) exceeded (26306794 bytes read)",
            ),
        ]
    }

    fn fields() -> Vec<Case> {
        let invalid = Some("invalid_value");
        vec![
            (Refusal::Missing(Field::File), 400, REQUEST, Some("file"), None, "There is no `file` part"),
            (
                Refusal::Missing(Field::Model),
                400,
                REQUEST,
                Some("model"),
                None,
                "you must provide a model parameter",
            ),
            (
                Refusal::Missing(Field::Prompt),
                400,
                REQUEST,
                Some("prompt"),
                None,
                "Missing required parameter: 'pro",
            ),
            (
                Refusal::Twice(Field::File),
                400,
                REQUEST,
                Some("file"),
                invalid,
                "'file' is given more than once.",
            ),
            (
                Refusal::Twice(Field::Model),
                400,
                REQUEST,
                Some("model"),
                invalid,
                "'model' is given more than",
            ),
            (
                Refusal::Invalid { field: Field::Temperature, why: "it must be a number from 0 to 1" },
                400,
                REQUEST,
                Some("temperature"),
                invalid,
                "Invalid 'temperature': it must be a number from 0 to 1.",
            ),
            (
                Refusal::Invalid { field: Field::Language, why: "it is no language code" },
                400,
                REQUEST,
                Some("language"),
                Some("invalid_language_format"),
                "Invalid language: it is no language code. Language parameter must be specified in ISO-639-1",
            ),
            (
                Refusal::Unsupported {
                    field: Field::ResponseFormat,
                    value: "srt",
                    why: "no times are known",
                },
                400,
                REQUEST,
                Some("response_format"),
                Some("unsupported_value"),
                "response_format 'srt' is not supported here: no times are known.",
            ),
            (
                Refusal::UnknownModel("whisper-9".into()),
                404,
                REQUEST,
                None,
                Some("model_not_found"),
                "The model 'whisper-9' does not exist or you do not have access to it.",
            ),
        ]
    }

    fn audio() -> Vec<Case> {
        let (file, invalid) = (Some("file"), Some("invalid_value"));
        vec![
            (
                Refusal::TransferEncoding,
                400,
                REQUEST,
                file,
                invalid,
                "The `file` part has a Content-Transfer",
            ),
            (
                Refusal::AudioTooShort,
                400,
                REQUEST,
                file,
                Some("audio_too_short"),
                "Audio file is too short. Minimum audio length is 0.1 seconds.",
            ),
            (
                Refusal::AudioUnsupported(None),
                400,
                REQUEST,
                file,
                invalid,
                "Invalid file format. Raw samples need a header, such as WAV's. Supported formats: ['flac', \
                 'm4a', 'mp3', 'mp4', 'mpeg', 'mpga', 'oga', 'ogg', 'wav', 'webm']",
            ),
            (
                Refusal::AudioUnsupported(Some(Found { name: "AIFF", kind: Kind::Foreign })),
                400,
                REQUEST,
                file,
                Some("unsupported_format"),
                "Invalid file format: this looks like AIFF. Convert it first, for example with `ffmpeg -i",
            ),
            (
                Refusal::AudioUnsupported(Some(Found { name: "JSON", kind: Kind::Text })),
                400,
                REQUEST,
                file,
                invalid,
                "Invalid file format: this looks like JSON. Send the audio file's own bytes; with curl",
            ),
            (
                Refusal::AudioTooLong {
                    limit: MAXIMUM,
                    duration: Some(Duration::from_nanos(1_830_530_612_000)),
                },
                400,
                REQUEST,
                file,
                invalid,
                "audio duration 1830.530612 seconds is longer than 1400 seconds which is the maximum for this model",
            ),
            (
                Refusal::AudioTooLong { limit: MAXIMUM, duration: None },
                400,
                REQUEST,
                file,
                invalid,
                "audio duration over 1400 seconds is longer than 1400 seconds which is the maximum for this model",
            ),
        ]
    }

    #[test]
    fn every_refusal_is_the_row_that_openais_contract_has_for_it() {
        for (refusal, status, kind, param, code, start) in [parsing(), fields(), audio()].concat() {
            let fault = Fault::Upload(refusal);
            let reply = fault.reply();
            assert_envelope(&reply);
            assert_eq!((reply.status, fault.blame()), (status, Blame::Client), "{fault:?}");
            let body: Value = serde_json::from_slice(&reply.body).unwrap();
            let mut error = body["error"].clone();
            let message = error["message"].take();
            assert!(message.as_str().unwrap().starts_with(start), "{message}");
            assert_eq!(
                error,
                json!({"message": null, "type": kind, "param": param, "code": code}),
                "{fault:?}"
            );
        }
    }

    #[test]
    fn the_model_in_the_form_and_in_the_path_are_answered_alike() {
        let form = Fault::Upload(Refusal::UnknownModel("x".into()));
        let path = Fault::ModelNotFound("x".into());
        assert_eq!((form.reply(), form.name()), (path.reply(), path.name()));
    }

    #[test]
    fn a_media_type_is_echoed_printable() {
        let reply = Fault::Upload(Refusal::ContentType("text/\u{1b}[2J".repeat(99))).reply();
        let body = String::from_utf8(reply.body.to_vec()).unwrap();
        assert!(body.len() < 600 && body.contains("'text/?[2Jtext/"), "{body}");
    }
}
