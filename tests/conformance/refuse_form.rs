//! Hostile and broken forms: each gets its status and OpenAI's envelope, and the upstream never sees a whole request.

use serde_json::json;

use crate::harness::{Bench, Form, Reply, Request, clip, wav};

/// What a refusal says: status, `code`, `param`.
type Says = (u16, Option<&'static str>, Option<&'static str>);

/// A form and what it is answered.
struct Case {
    what: &'static str,
    request: Request,
    says: Says,
}

fn case(what: &'static str, form: &Form, says: Says) -> Case {
    Case { what, request: Request::post(form), says }
}

const UNPARSABLE: Says = (400, None, None);

/// Each case is refused as it says, and nothing whole goes upstream.
fn refuses(bench: &Bench, cases: &[Case]) -> Vec<Reply> {
    let replies = cases.iter().map(|Case { what, request, says: (status, code, param) }| {
        let reply = bench.ask(request);
        let error = reply.refuses(what, *status, *code);
        assert_eq!(error["param"].as_str(), *param, "{what}: {reply:?}");
        assert_eq!(error["type"], "invalid_request_error", "{what}: {reply:?}");
        assert_eq!(reply.header("x-should-retry"), Some("false"), "{what}: {reply:?}");
        reply
    });
    let replies = replies.collect();
    bench.assert_nothing_whole("all of them");
    replies
}

fn file_head(more: &str) -> String {
    format!("Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"{more}")
}

#[test]
fn r15_a_body_that_is_no_form_at_all() {
    let bench = Bench::start();
    let audio = wav(3000);
    let says = (400, Some("unsupported_content_type"), None);
    let json = json!({"model": "whisper-1", "file": "data:audio/wav;base64,UklGRg=="}).to_string();
    let mut cases = vec![
        Case { what: "JSON", request: Request::upload("application/json", json), says },
        Case { what: "raw audio", request: Request::upload("audio/wav", audio.clone()), says },
        Case { what: "no type", request: Request::upload("", audio.clone()).without("Content-Type"), says },
        Case { what: "mixed", request: Request::upload("multipart/mixed; boundary=x", audio), says },
    ];
    let urlencoded = Request::upload("application/x-www-form-urlencoded", "model=whisper-1&file=a.wav");
    cases.push(Case { what: "urlencoded", request: urlencoded, says });
    let replies = refuses(&bench, &cases);
    assert!(replies[0].error()["message"].as_str().unwrap().contains("'application/json'"));
}

#[test]
fn r16_boundaries_that_are_missing_or_illegal() {
    let bench = Bench::start();
    let audio = wav(3000);
    let long = "b".repeat(71);
    let types = [
        "multipart/form-data".to_owned(),
        "multipart/form-data; boundary=".to_owned(),
        "multipart/form-data; boundary=\"\"".to_owned(),
        format!("multipart/form-data; boundary={long}"),
        "multipart/form-data; boundary=\"ends in space \"".to_owned(),
        "multipart/form-data; boundary=\"a*b\"".to_owned(),
        "multipart/form-data; boundary=\"a\\\"b\"".to_owned(),
        "multipart/form-data; boundary=x; boundary=x".to_owned(),
        "multipart/form-data; boundary=x; boundary=y".to_owned(),
    ];
    let body = Form::with_boundary("x").field("model", "whisper-1").file(&audio).closed();
    let cases: Vec<Case> = types
        .iter()
        .map(|name| Case {
            what: "a boundary",
            request: Request::upload(name, body.clone()),
            says: UNPARSABLE,
        })
        .collect();
    for (reply, name) in refuses(&bench, &cases).iter().zip(&types) {
        let message = reply.error()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("Could not parse multipart form"), "{name}: {message}");
    }
}

#[test]
fn r17_forms_without_a_beginning_or_an_end() {
    let bench = Bench::start();
    let audio = wav(3000);
    let form = Form::of(&audio);
    let upload = |body: Vec<u8>| Request::upload(&form.content_type(), body);
    let whole = form.closed();
    let cases = [
        ("empty", Vec::new()),
        ("no delimiter", audio.clone()),
        ("another boundary", Form::with_boundary("other").field("model", "whisper-1").file(&audio).closed()),
        ("no closing delimiter", form.open()),
        ("half a closing delimiter", whole[..whole.len() - 4].to_vec()),
        ("one dash behind the last delimiter", whole[..whole.len() - 3].to_vec()),
        ("a part header without its end", Form::of(&audio).raw(&whole[..44]).raw("Content-Disp").open()),
        ("a part header with bare line feeds", {
            let text = String::from_utf8_lossy(&Form::new().field("model", "whisper-1").closed())
                .replace("\r\n\r\n", "\n\n");
            text.into_bytes()
        }),
        ("text behind a delimiter", Form::of(&audio).raw(&whole[..42]).raw("x\r\n").closed()),
    ];
    let cases: Vec<Case> = cases
        .into_iter()
        .map(|(what, body)| Case { what, request: upload(body), says: UNPARSABLE })
        .collect();
    refuses(&bench, &cases);
}

#[test]
fn r18_parts_that_do_not_say_once_what_they_are() {
    let bench = Bench::start();
    let audio = wav(3000);
    let good = Form::new().field("model", "whisper-1");
    let heads = [
        "Content-Type: audio/wav",
        "Content-Disposition: attachment; name=\"file\"; filename=\"a.wav\"",
        "Content-Disposition: form-data; filename=\"a.wav\"",
        "Content-Disposition: form-data; name=\"\"; filename=\"a.wav\"",
        "Content-Disposition: form-data; name=\"file\"\r\nContent-Disposition: form-data; name=\"file\"",
        "Content-Disposition: form-data; name=\"file\"; name=\"prompt\"",
        "Content-Disposition: form-data; name=\"file",
        "Content-Disposition : form-data; name=\"file\"",
    ];
    let cases: Vec<Case> =
        heads.iter().map(|head| case("a head", &good.clone().part(head, &audio), UNPARSABLE)).collect();
    refuses(&bench, &cases);
}

#[test]
fn r19_fields_given_twice_with_different_values() {
    let bench = Bench::start();
    let audio = wav(3000);
    let says = |field| (400, Some("invalid_value"), Some(field));
    let twice = |name: &str, a: &str, b: &str| Form::new().field(name, a).file(&audio).field(name, b);
    let text_and_file = Form::new()
        .field("model", "whisper-1")
        .part("Content-Disposition: form-data; name=\"file\"", &audio)
        .file(&wav(3000));
    refuses(
        &bench,
        &[
            case("two files", &Form::of(&audio).file(&audio), says("file")),
            case("a file without a name and one with", &text_and_file, says("file")),
            case("model", &twice("model", "whisper-1", "gpt-4o-transcribe"), says("model")),
            case("format", &twice("response_format", "json", "text"), says("response_format")),
            case("language", &twice("language", "en", "fr"), says("language")),
            case("prompt", &twice("prompt", "a", "b"), says("prompt")),
        ],
    );
}

#[test]
fn r20_forms_with_too_many_or_too_large_parts() {
    let bench = Bench::start();
    let audio = wav(3000);
    let many = (0..64).fold(Form::of(&audio), |form, n| form.field(&format!("f{n}"), "x"));
    let long_head = file_head(&format!("\r\nX-Long: {}", "x".repeat(9000)));
    let long_prompt = Form::new().field("prompt", &"p".repeat(257 * 1024)).file(&audio);
    let long_unknown = Form::new().field("notes", &"n".repeat(257 * 1024)).file(&audio);
    let nested = Form::new().field("model", "whisper-1").part(
        "Content-Disposition: form-data; name=\"file\"\r\nContent-Type: multipart/mixed; boundary=y",
        "--y\r\nContent-Disposition: file; filename=\"a.wav\"\r\n\r\nRIFF\r\n--y--",
    );
    refuses(
        &bench,
        &[
            case("66 parts", &many, UNPARSABLE),
            case("a long part head", &Form::new().part(long_head, &audio), (413, None, None)),
            case("a long prompt", &long_prompt, (413, Some("string_above_max_length"), Some("prompt"))),
            case("a long unknown field", &long_unknown, (413, Some("string_above_max_length"), None)),
            case("nested", &nested, UNPARSABLE),
        ],
    );
    let speaker = "r".repeat(600 * 1024);
    let references = Form::new().field("known_speaker_references[]", &speaker).file(&audio);
    bench.accepts("a long speaker reference", &Request::post(&references), &audio);
}

#[test]
fn r21_a_file_in_a_transfer_encoding() {
    let bench = Bench::start();
    let says = (400, Some("invalid_value"), Some("file"));
    let encoded = |encoding: &str| {
        let head = file_head(&format!("\r\nContent-Transfer-Encoding: {encoding}"));
        Form::new().field("model", "whisper-1").part(head, "UklGRiQAAABXQVZFZm10IA==")
    };
    refuses(
        &bench,
        &[
            case("base64", &encoded("base64"), says),
            case("BASE64", &encoded("BASE64"), says),
            case("quoted-printable", &encoded("quoted-printable"), says),
        ],
    );
}

#[test]
fn r22_forms_without_audio_in_them() {
    let bench = Bench::start();
    let model = || Form::new().field("model", "whisper-1");
    let short = (400, Some("audio_too_short"), Some("file"));
    let invalid = (400, Some("invalid_value"), Some("file"));
    let unsupported = (400, Some("unsupported_format"), Some("file"));
    let mut header = wav(2);
    header.truncate(44);
    let zero = wav(0);
    let silk = [b"\x02#!SILK_V3".as_slice(), &[0; 400]].concat();
    let adts = [[0xff, 0xf1, 0x50, 0x80].as_slice(), &[0; 400]].concat();
    let replies = refuses(
        &bench,
        &[
            case("no file", &model(), (400, None, Some("file"))),
            case("the name of a file", &model().field("file", "a.wav"), invalid),
            case("an empty file", &model().file(b""), short),
            case("a WAV header alone", &model().file(&header), short),
            case("a WAV without samples", &model().file(&zero), short),
            case("text in place of audio", &model().file(&b"hello ".repeat(90)), invalid),
            case("SILK", &model().file(&silk), unsupported),
            case("ADTS", &model().file(&adts), unsupported),
            case("random bytes", &model().file(&[7; 5000]), invalid),
        ],
    );
    assert!(replies[0].error()["message"].as_str().unwrap().contains("no `file` part"), "{:?}", replies[0]);
    bench.accepts("FLAC", &Request::post(&model().file(&clip())), &clip());
}

#[test]
fn r23_values_out_of_range_and_values_that_smuggle() {
    let bench = Bench::with(|launch| launch.config("[codex]\nmodels = [\"mine\"]\n"));
    let audio = wav(3000);
    let of = |name: &str, value: &str| Form::new().file(&audio).field(name, value);
    let invalid = |field| (400, Some("invalid_value"), Some(field));
    let unsupported = |field| (400, Some("unsupported_value"), Some(field));
    let language = (400, Some("invalid_language_format"), Some("language"));
    let unknown = (404, Some("model_not_found"), None);
    let raw = |name: &str, value: &[u8]| {
        Form::new().file(&audio).part(format!("Content-Disposition: form-data; name=\"{name}\""), value)
    };
    let words = of("timestamp_granularities[]", "word").field("response_format", "verbose_json");
    let latin =
        "Content-Disposition: form-data; name=\"prompt\"\r\nContent-Type: text/plain; charset=iso-8859-1";
    refuses(
        &bench,
        &[
            case("an unknown model", &of("model", "gpt-5"), unknown),
            case("a model with a line break", &of("model", "whisper-1\r\nX-Evil: 1"), invalid("model")),
            case("a model with NUL", &of("model", "whisper-1\0"), invalid("model")),
            case("xml", &of("response_format", "xml"), invalid("response_format")),
            case("srt", &of("response_format", "srt"), unsupported("response_format")),
            case("vtt", &of("response_format", "vtt"), unsupported("response_format")),
            case("diarized_json", &of("response_format", "diarized_json"), unsupported("response_format")),
            case("words", &words, unsupported("timestamp_granularities")),
            case("temperature 2", &of("temperature", "2"), invalid("temperature")),
            case("temperature NaN", &of("temperature", "NaN"), invalid("temperature")),
            case("temperature abc", &of("temperature", "abc"), invalid("temperature")),
            case("stream maybe", &of("stream", "maybe"), invalid("stream")),
            case("language xx!", &of("language", "xx!"), language),
            case("a language with a line break", &of("language", "en\r\nX-Evil: 1"), language),
            case("a language with NUL", &of("language", "en\0"), language),
            case("a prompt that is not UTF-8", &raw("prompt", b"gr\xfc\xdfe"), invalid("prompt")),
            case("a model that is not UTF-8", &raw("model", b"whisper\xff"), invalid("model")),
            case("another charset", &Form::new().file(&audio).part(latin, "x"), invalid("prompt")),
            case("include", &of("include[]", "everything"), invalid("include")),
            case(
                "five speakers",
                &of("known_speaker_names", "[\"a\",\"b\",\"c\",\"d\",\"e\"]"),
                invalid("known_speaker_names"),
            ),
        ],
    );
    bench.accepts("a model of ours", &Request::post(&of("model", "mine")), &audio);
    bench.accepts("no model", &Request::post(&Form::new().file(&audio)), &audio);
}

#[test]
fn r23_a_missing_model_is_refused_when_one_must_come() {
    let bench = Bench::with(|launch| launch.config("[codex]\nstrict = true\n"));
    let audio = wav(3000);
    refuses(&bench, &[case("no model", &Form::new().file(&audio), (400, None, Some("model")))]);
    bench.accepts("a model", &Request::post(&Form::of(&audio)), &audio);
}

#[test]
fn more_ignored_bytes_behind_the_file_than_padding_may_stand_for() {
    let bench = Bench::start();
    let audio = wav(3000);
    let form = |bytes: usize| Form::of(&audio).field("notes", &"n".repeat(bytes));
    refuses(&bench, &[case("70 KiB", &form(70 * 1024), (400, None, None))]);
    let (_, seen) = bench.accepts("50 KiB", &Request::post(&form(50 * 1024)), &audio);
    assert!(seen.padding() > 50 * 1024, "{seen:?}");
    assert_eq!(seen.declared(), Some(seen.body_bytes()));
}
