//! Legal oddities of the form: boundaries, part headers, fields.

use crate::harness::{Bench, Capture, Form, Request, TEXT, wav};

/// Every form must be taken, whatever is odd about it.
fn accepts(cases: Vec<(&str, String, Vec<u8>)>, audio: &[u8]) {
    let bench = Bench::start();
    for (what, content_type, body) in cases {
        let (reply, seen) = bench.accepts(what, &Request::upload(&content_type, body), audio);
        assert_eq!(reply.json()["text"], TEXT, "{what}");
        assert!(
            seen.parts().iter().all(|part| ["file", "language", "prompt"].contains(part)),
            "{what}: {seen:?}"
        );
    }
}

/// The plain form of whisper-1 with its part heads replaced.
fn labelled(file: impl AsRef<[u8]>, audio: &[u8]) -> Form {
    Form::new().field("model", "whisper-1").part(file, audio)
}

#[test]
fn a1_a_quoted_boundary_of_seventy_characters() {
    let audio = wav(3000);
    let boundary = format!("{}=_{}", "a".repeat(34), "Z".repeat(34));
    let form = Form::with_boundary(&boundary).field("model", "whisper-1").file(&audio);
    accepts(vec![("70", format!("multipart/form-data; boundary=\"{boundary}\""), form.closed())], &audio);
}

#[test]
fn a2_a_boundary_of_every_legal_character_and_an_inner_space() {
    let audio = wav(3000);
    let boundary = "a'()+_,-./:=? b";
    let form = Form::with_boundary(boundary).field("model", "whisper-1").file(&audio);
    accepts(vec![("all", format!("multipart/form-data; boundary=\"{boundary}\""), form.closed())], &audio);
}

#[test]
fn a3_boundaries_of_one_and_three_characters() {
    let audio = Capture::fixture();
    let of = |boundary| Form::with_boundary(boundary).field("model", "whisper-1").file(&audio);
    // The fixture holds a delimiter of no characters and one of `notaboundary`.
    accepts(
        vec![
            ("1", of("x").content_type(), of("x").closed()),
            ("3", of("abc").content_type(), of("abc").closed()),
        ],
        &audio,
    );
}

#[test]
fn a4_a_content_type_in_any_case_with_other_parameters_and_spaces() {
    let audio = wav(300);
    let body = Form::with_boundary("x").field("model", "whisper-1").file(&audio).closed();
    let types = [
        "Multipart/Form-Data; charset=utf-8; BOUNDARY=x",
        "multipart/form-data;boundary=x",
        "multipart/form-data ;  boundary=x ; other=\"a;b=c\"",
        "multipart/form-data; boundary=\"x\"; charset=\"utf-8\"",
        "MULTIPART/FORM-DATA;\tBoundary=x",
    ];
    accepts(types.iter().map(|name| (*name, (*name).to_owned(), body.clone())).collect(), &audio);
}

#[test]
fn a5_parameters_without_quotes() {
    let audio = wav(300);
    let form = Form::new().part("Content-Disposition: form-data; name=model", "whisper-1").part(
        "Content-Type: audio/wav\r\nContent-Disposition: form-data; name=file; filename=a.wav; filename*=utf-8''a.wav",
        &audio,
    );
    accepts(vec![("unquoted", form.content_type(), form.closed())], &audio);
}

#[test]
fn a6_a7_a8_file_names_in_every_escape_and_in_no_charset() {
    let audio = wav(300);
    let names: [&[u8]; 7] = [
        br#"say \"hi\" \\ there.wav"#,
        br"C:\temp\new.wav",
        b"r%22a%0D%0A%41\\b.wav",
        "réunion “été” 録音.wav".as_bytes(),
        b"\xff\xfe\x80.wav",
        b"",
        b"semi;colon=\"",
    ];
    let form = |name: &[u8]| {
        let head = [b"Content-Disposition: form-data; name=\"file\"; filename=\"", name, b"\""].concat();
        labelled(head, &audio)
    };
    // The last one is cut by its own quote: it ends in a parameter without a value, so it is left out.
    let cases = names[..6].iter().map(|name| {
        let form = form(name);
        ("a file name", form.content_type(), form.closed())
    });
    accepts(cases.collect(), &audio);
}

#[test]
fn a9_part_headers_in_any_order_unknown_ones_and_a_wrong_length() {
    let audio = wav(300);
    let disposition = "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"";
    let heads = [
        format!("Content-Type: audio/wav\r\n{disposition}"),
        format!("{disposition}\r\nContent-Length: 7"),
        format!("Content-Length: 99999999\r\n{disposition}\r\nContent-Type: audio/wav"),
        format!("X-Odd: 1\r\nContent-Location: /etc/passwd\r\n{disposition}\r\nMIME-Version: 1.0"),
    ];
    let forms = heads.iter().map(|head| (head.as_str(), labelled(head, &audio)));
    accepts(forms.map(|(head, form)| (head, form.content_type(), form.closed())).collect(), &audio);
}

#[test]
fn a10_part_headers_in_any_case_and_with_any_white_space() {
    let audio = wav(300);
    let heads = [
        "content-disposition:form-data;name=\"file\";filename=\"a.wav\"",
        "CONTENT-DISPOSITION:    form-data;    name=\"file\"",
        "Content-Disposition:\tForm-Data; NAME=\"file\"; FileName=\"a.wav\"\r\ncontent-type:audio/wav",
    ];
    let forms = heads.iter().map(|head| (*head, labelled(head, &audio)));
    accepts(forms.map(|(head, form)| (head, form.content_type(), form.closed())).collect(), &audio);
}

#[test]
fn a11_a12_text_around_the_form_and_any_end_of_it() {
    let audio = wav(300);
    let form = Form::new().field("model", "whisper-1").file(&audio);
    let preamble = Form::new().raw("This is a message with multiple parts.\r\n\r\n");
    let preamble = preamble.field("model", "whisper-1").file(&audio);
    let content_type = form.content_type();
    let cases = vec![
        ("a preamble and an epilogue", preamble.closed_with("\r\nThat was it.\r\n")),
        ("a line break before the first delimiter", [b"\r\n".as_slice(), &form.closed()].concat()),
        ("nothing behind", form.closed_with("")),
        ("two line breaks behind", form.closed_with("\r\n\r\n")),
        (
            "a delimiter in the epilogue",
            form.closed_with(&format!("\r\n--{}\r\nnot a part", &content_type[30..])),
        ),
    ];
    accepts(cases.into_iter().map(|(what, body)| (what, content_type.clone(), body)).collect(), &audio);
}

#[test]
fn a13_white_space_behind_a_delimiter() {
    let audio = wav(300);
    let form = Form::of(&audio);
    let content_type = form.content_type();
    let boundary = &content_type["multipart/form-data; boundary=".len()..];
    let head = "Content-Disposition: form-data; name=\"file\"";
    let mut body = format!("--{boundary} \t \r\n{head}\r\n\r\n").into_bytes();
    body.extend(&audio);
    body.extend(
        format!("\r\n--{boundary}\t\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n")
            .bytes(),
    );
    body.extend(format!("--{boundary}--  \r\n").bytes());
    accepts(vec![("padding", content_type.clone(), body)], &audio);
}

#[test]
fn a14_audio_that_looks_almost_like_a_delimiter() {
    let content_type = Form::new().content_type();
    let boundary = &content_type["multipart/form-data; boundary=".len()..];
    let mut audio = wav(64);
    for almost in [
        format!("\r\n--{}", &boundary[..boundary.len() - 1]),
        format!("\n--{boundary}\n"),
        format!("\r--{boundary}\r"),
        format!("\r\n\r\n-{boundary}--"),
        format!("\r\r\n--{}\r\n", boundary.to_ascii_uppercase()),
        "\r\n--\r\n----\r\n".to_owned(),
    ] {
        audio.extend(almost.into_bytes());
        audio.extend([0, 255]);
    }
    audio.extend(format!("\r\n--{}", &boundary[..boundary.len() - 1]).into_bytes());
    accepts(vec![("almost", content_type.clone(), Form::of(&audio).closed())], &audio);
}

#[test]
fn a17_the_file_first_and_every_option_behind_it() {
    let bench = Bench::start();
    let audio = wav(40_000);
    let form = Form::new()
        .file(&audio)
        .field("vad_filter", "true")
        .field("language", "de-AT")
        .field("nested[a]", "1")
        .field("prompt", "Grüß Gott")
        .field("model", "gpt-4o-transcribe");
    let (_, seen) = bench.accepts("file first", &Request::post(&form), &audio);
    assert_eq!((seen.field("language"), seen.field("prompt")), (Some("de"), Some("Grüß Gott")));
    assert_eq!(seen.declared(), Some(seen.body_bytes()));
}

#[test]
fn a18_text_fields_with_a_content_type_and_the_charset_field() {
    let bench = Bench::start();
    let audio = wav(300);
    let typed = |name: &str| {
        format!("Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=\"{name}\"")
    };
    let form = Form::new()
        .part(typed("model"), "whisper-1")
        .part(typed("prompt"), "Ärger")
        .part(
            "Content-Disposition: form-data; name=\"language\"\r\nContent-Type: text/plain;charset=US-ASCII",
            "fr",
        )
        .field("_charset_", "iso-8859-1")
        .file(&audio);
    let (_, seen) = bench.accepts("typed", &Request::post(&form), &audio);
    assert_eq!((seen.field("language"), seen.field("prompt")), (Some("fr"), Some("Ärger")));
}

#[test]
fn a19_arrays_and_objects_in_every_spelling() {
    let audio = wav(300);
    let spellings: [&[(&str, &str)]; 8] = [
        &[("keywords[]", "a"), ("keywords[]", "b, c")],
        &[("keywords", "a"), ("keywords", "b")],
        &[("keywords[0]", "a"), ("keywords[1]", "b")],
        &[("keywords", "[\"a\",\"b\"]")],
        &[("timestamp_granularities[]", "segment"), ("timestamp_granularities[]", "segment")],
        &[("chunking_strategy[type]", "server_vad"), ("chunking_strategy[threshold]", "0.5")],
        &[("chunking_strategy", "{\"type\":\"server_vad\",\"prefix_padding_ms\":300}")],
        &[("chunking_strategy", "auto"), ("include[]", "logprobs")],
    ];
    let form = |fields: &[(&str, &str)]| {
        fields
            .iter()
            .fold(Form::new().field("model", "whisper-1"), |form, (name, value)| form.field(name, value))
    };
    let cases = spellings.iter().map(|fields| {
        let form = form(fields).file(&audio);
        (fields[0].1, form.content_type(), form.closed())
    });
    accepts(cases.collect(), &audio);
}

#[test]
fn a20_empty_fields_count_as_absent_and_false_has_three_spellings() {
    let audio = wav(300);
    let bench = Bench::start();
    let empty = ["prompt", "language", "response_format", "temperature"];
    let form = empty.iter().fold(Form::of(&audio), |form, name| form.field(name, ""));
    let (reply, seen) = bench.accepts("empty", &Request::post(&form), &audio);
    assert_eq!(seen.parts(), ["file"]);
    assert_eq!(reply.json()["text"], TEXT);
    for value in ["false", "False", "0"] {
        let form = Form::of(&audio).field("stream", value);
        let (reply, _) = bench.accepts(value, &Request::post(&form), &audio);
        assert_eq!(reply.header("content-type"), Some("application/json"), "{value}");
    }
}

#[test]
fn a25_a_file_with_a_useless_name_or_type_or_none() {
    let audio = wav(300);
    let heads = [
        "Content-Disposition: form-data; name=\"file\"",
        "Content-Disposition: form-data; name=\"file\"; filename=\"upload\"\r\nContent-Type: application/octet-stream",
        "Content-Disposition: form-data; name=\"file\"; filename=\"blob\"\r\nContent-Type: video/webm",
        "Content-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg",
        "Content-Disposition: form-data; name=\"file\"; filename=\"a.webm\"\r\nContent-Type: audio/webm; codecs=opus",
        "Content-Disposition: form-data; name=\"file\"\r\nContent-Type: text/plain",
        "Content-Disposition: form-data; name=\"file\"\r\nContent-Transfer-Encoding: binary",
        "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: application/json",
    ];
    let bench = Bench::start();
    for head in heads {
        let (_, seen) = bench.accepts(head, &Request::post(&labelled(head, &audio)), &audio);
        assert_eq!(seen.audio_name(), ("audio.wav", "audio/wav"), "{head}");
    }
}
