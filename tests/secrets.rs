//! A whole run at the most talkative level, with planted words: whatever is printed or answered, none of them shows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, unused_imports)]
mod harness;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use harness::{
    ACCOUNT, Bench, END_HEADERS, Form, Http2, KEY, Kind, Launch, Outcome, Request, STATUS_200, Stub, TEXT,
    TOKEN, Wire, get, sha256, upload_block, wav,
};

const WRONG_KEY: &str = "sk-planted-wrong-77aa";
const PROMPT: &str = "planted prompt of Zwölfaxing";
const FILE_NAME: &str = "planted-recording-Meier.wav";
const AUDIO: &str = "PLANTED-AUDIO-BYTES";
const UPSTREAM: &str = "planted words of the upstream";
const REFRESH: &str = "planted-refresh-token";
const NEW_TOKEN: &str = "planted-second-token";
const FIELD: &str = "planted value of another field";
const QUERY: &str = "planted-in-the-query";

/// Everything planted, in every form that it could show in.
fn planted() -> Vec<String> {
    let words = [
        KEY, TOKEN, ACCOUNT, WRONG_KEY, PROMPT, FILE_NAME, AUDIO, TEXT, UPSTREAM, REFRESH, NEW_TOKEN, FIELD,
        QUERY,
    ];
    let mut planted: Vec<String> = words.map(str::to_owned).to_vec();
    planted.extend(words.map(|word| STANDARD.encode(word).trim_end_matches('=').to_owned()));
    planted.extend(words.map(hex::encode));
    planted.push(STANDARD.encode(format!("user:{KEY}")));
    // As Debug prints bytes that are no ASCII.
    planted.push(PROMPT.escape_default().to_string());
    planted.push(TEXT.escape_default().to_string());
    planted.push(KEY[8..].to_owned());
    planted
}

fn audio() -> Vec<u8> {
    let mut audio = wav(6000);
    for at in [100, 3000, 5900] {
        audio[at..at + AUDIO.len()].copy_from_slice(AUDIO.as_bytes());
    }
    audio
}

fn form() -> Form {
    let head = format!(
        "Content-Disposition: form-data; name=\"file\"; filename=\"{FILE_NAME}\"\r\nContent-Type: audio/wav"
    );
    Form::new().field("model", "whisper-1").field("prompt", PROMPT).part(head, audio()).field("user", FIELD)
}

fn auth(token: &str) -> String {
    let tokens =
        json!({"access_token": token, "refresh_token": REFRESH, "id_token": REFRESH, "account_id": ACCOUNT});
    json!({"auth_mode": "chatgpt", "tokens": tokens}).to_string()
}

/// What answers said; successes hold the transcript by right.
#[derive(Default)]
struct Said(Vec<String>);

impl Said {
    fn ask(&mut self, bench: &Bench, what: &str, request: &Request) {
        self.send(bench, what, &request.bytes());
    }

    fn send(&mut self, bench: &Bench, what: &str, bytes: &[u8]) {
        let mut wire = bench.edge.wire();
        let _ = wire.offer(bytes);
        wire.finish();
        if let Ok(reply) = wire.reply_or_end() {
            let body = if reply.status == 200 { "" } else { reply.text() };
            self.0.push(format!("{what}: {} {:?} {body}", reply.status, reply.headers));
        }
    }
}

/// All that can be asked of the program, rightly and wrongly.
fn everything(bench: &Bench, said: &mut Said) {
    let upload = || Request::post(&form());
    for fields in [
        &[][..],
        &[("response_format", "verbose_json")],
        &[("stream", "true")],
        &[("response_format", "text")],
    ] {
        let form = fields.iter().fold(form(), |form, (name, value)| form.field(name, value));
        said.ask(bench, "a success", &Request::post(&form));
        said.ask(bench, "chunks", &Request::post(&form).chunked(999));
    }
    said.ask(bench, "a query", &upload().target(&format!("/v1/audio/transcriptions?api_key={QUERY}")));
    said.ask(bench, "an unknown path", &get(&format!("/v1/nothing?key={QUERY}")));

    let bare = || upload().without("Authorization");
    let basic = STANDARD.encode(format!("user:{KEY}"));
    for (name, value) in [
        ("Authorization", format!("Bearer {WRONG_KEY}")),
        ("Authorization", format!("Basic {basic}x")),
        ("Authorization", format!("Digest {KEY}")),
        ("X-API-Key", WRONG_KEY.to_owned()),
        ("api-key", format!("{KEY}x")),
    ] {
        said.ask(bench, "a wrong key", &bare().header(name, value));
    }
    said.ask(bench, "two keys", &upload().header("Authorization", format!("Bearer {WRONG_KEY}")));

    for (name, value) in
        [("response_format", "srt"), ("stream", FIELD), ("language", FIELD), ("temperature", FIELD)]
    {
        said.ask(bench, "a wrong field", &Request::post(&form().field(name, value)));
    }
    said.ask(bench, "another prompt", &Request::post(&form().field("prompt", FIELD)));
    said.ask(
        bench,
        "no UTF-8",
        &Request::post(&form().part("Content-Disposition: form-data; name=\"keywords\"", b"\xff")),
    );
    said.ask(bench, "an unclosed form", &Request::upload(&form().content_type(), form().open()));
    said.ask(bench, "not audio", &Request::post(&Form::new().file(format!("{AUDIO} {AUDIO}").as_bytes())));
    said.ask(
        bench,
        "a broken part head",
        &Request::post(&Form::new().part(format!("X-{AUDIO} {FILE_NAME}"), audio())),
    );

    let head = String::from_utf8(upload().head()).unwrap();
    for (what, bytes) in [
        ("a broken line", head.replace("Host:", &format!("Bad Header {WRONG_KEY}\r\nHost:"))),
        ("a control character", head.replace("Host:", &format!("X-Key: {WRONG_KEY}\u{1}\r\nHost:"))),
        ("a broken version", head.replace("HTTP/1.1", "HTTP/9.9")),
        ("a broken method", head.replace("POST ", &format!("PO{{ST}} {QUERY}"))),
        ("two lengths", head.replace("Host:", "Content-Length: 3\r\nHost:")),
        ("a long head", head.replace("Host:", &format!("X-Long: {}{KEY}\r\nHost:", "x".repeat(80_000)))),
        ("a cut head", head.trim_end().to_owned()),
        ("a cut body", format!("{head}--")),
    ] {
        said.send(bench, what, bytes.as_bytes());
    }
    said.send(bench, "no HTTP", format!("\x16\x03\x01{KEY}\r\n\r\n").as_bytes());
    let chunked = upload().chunked(500).bytes();
    said.send(bench, "broken chunks", &[&chunked[..chunked.len() - 400], b"zz\r\n"].concat());
}

/// HTTP/2, rightly and wrongly.
fn over_http2(bench: &Bench) {
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    http2.send(Kind::Headers, END_HEADERS, 1, &upload_block(&form().content_type(), &[]));
    http2.send_body(1, &form().closed());
    assert!(matches!(http2.outcome(1), Outcome::Answered(STATUS_200, _)));
    for field in [("connection", WRONG_KEY.as_bytes()), ("x-break", b"sk-planted-wrong-77aa\r\n")] {
        let mut http2 = Http2::connect(bench.edge.address, &[]);
        http2.send(Kind::Headers, END_HEADERS, 1, &upload_block(&form().content_type(), &[field]));
        let _ = http2.offer(Kind::Data, 1, 1, &form().closed());
        http2.outcome(1);
    }
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    http2.send(Kind::Headers, END_HEADERS, 1, &upload_block(&form().content_type(), &[]));
    let _ = http2.offer(Kind::Data, 0, 1, &form().open());
    let _ = http2.offer(Kind::Reset, 0, 1, &[0, 0, 0, 8]);
}

/// Every way in which the upstream can fail, talking about it.
fn faults(bench: &Bench, said: &mut Said) {
    let error =
        |status: u16| json!({"status": status, "body": {"detail": UPSTREAM, "error": {"message": UPSTREAM}}});
    let mut scripts: Vec<Value> = [400, 403, 413, 422, 500, 503].map(error).to_vec();
    scripts.push(json!({"body": format!("<html>{UPSTREAM}")}));
    scripts.push(json!({"body": {"text": [UPSTREAM]}}));
    scripts.push(json!({"headers": {"x-upstream": UPSTREAM}, "set_cookie": [format!("__cf_bm={QUERY}")]}));
    scripts.push(json!({"headers": {"cf-ray": UPSTREAM}, "status": 500}));
    for point in ["after_head", "mid_body_after:3000", "before_answer", "mid_answer"] {
        scripts.push(json!({"drop": point, "text": UPSTREAM}));
    }
    for script in scripts {
        bench.stub.script(script.clone());
        said.ask(
            bench,
            &script.to_string().replace(UPSTREAM, "*").replace(QUERY, "*"),
            &Request::post(&form()),
        );
    }
    bench.stub.script(json!({}));
}

fn check(bench: &Bench, said: &Said) {
    let printed = bench.edge.printed();
    assert!(printed.lines().count() > 40, "it says too little to prove anything:\n{printed}");
    assert_nothing_planted(&printed, said);
}

fn assert_nothing_planted(printed: &str, said: &Said) {
    for word in planted() {
        if let Some(line) = printed.lines().find(|line| line.contains(&word)) {
            panic!("printed {word:?}: {line}");
        }
        if let Some(answer) = said.0.iter().find(|answer| answer.contains(&word)) {
            panic!("answered {word:?}: {answer}");
        }
    }
}

#[test]
fn nothing_planted_shows_while_the_upstream_is_not_asked() {
    let refusal = json!({"detail": UPSTREAM, "error": {"message": UPSTREAM}});
    for script in [
        json!({"status": 401, "body": refusal}),
        json!({"status": 429, "body": refusal}),
        json!({"early": true, "early_after": 500, "status": 429, "body": UPSTREAM}),
        json!({"challenge": true}),
    ] {
        let bench = Bench::before(Stub::start(&[]), |launch| {
            launch.auth_file(&auth(TOKEN)).level("trace").flags(&["--admin", "127.0.0.1:0"])
        });
        bench.stub.script(script);
        let mut said = Said::default();
        let trace = format!("00-{}-00f067aa0ba902b7-01", hex::encode(WRONG_KEY));
        for what in ["the first", "refused at once"] {
            said.ask(&bench, what, &Request::post(&form()).header("traceparent", &trace));
        }
        assert_eq!(bench.stub.seen().len(), 1);
        for path in ["/metrics", "/status", "/ready"] {
            let mut wire = Wire::connect(bench.edge.admin.unwrap());
            wire.send(get(path).bytes());
            said.0.push(wire.reply().text().to_owned());
        }
        assert_nothing_planted(&bench.edge.printed(), &said);
    }
}

fn run(stub: Stub, format: &str) -> Bench {
    let bench = Bench::before(stub, |launch: Launch| {
        let keys = launch
            .file("keys.toml", &format!("[[key]]\nname = \"k\"\nsha256 = \"{}\"\n", sha256(KEY.as_bytes())));
        let config = format!("[keys]\nfile = {keys:?}\n[limits]\nbody_timeout = \"2s\"\n");
        launch
            .without_key()
            .auth_file(&auth(TOKEN))
            .config(&config)
            .level("trace")
            .flags(&["--log-format", format])
    });
    let mut said = Said::default();
    everything(&bench, &mut said);
    over_http2(&bench);
    faults(&bench, &mut said);
    bench.edge.replace("auth.json", &format!("{{\"tokens\": {{\"access_token\": \"{NEW_TOKEN}"));
    std::thread::sleep(std::time::Duration::from_millis(600));
    bench.edge.replace("auth.json", &auth(NEW_TOKEN));
    bench.edge.replace("keys.toml", &format!("[[key]]\nname = \"{WRONG_KEY}\nsha256 = \"{KEY}\"\n"));
    std::thread::sleep(std::time::Duration::from_millis(1800));
    said.ask(&bench, "after the swap", &Request::post(&form()));
    check(&bench, &said);
    bench
}

#[test]
fn nothing_planted_is_printed_or_answered_as_text() {
    let mut bench = run(Stub::start(&["--text", TEXT]), "text");
    bench.edge.terminate();
    assert!(bench.edge.end().success());
    check(&bench, &Said::default());
}

#[test]
fn nothing_planted_is_printed_or_answered_as_json_before_a_tls_upstream() {
    let bench = run(Stub::start(&["--tls", "--text", TEXT]), "json");
    let printed = bench.edge.printed();
    let records = printed.lines().filter(|line| line.starts_with('{'));
    let parsed = records
        .map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    assert!(parsed.count() > 40, "{printed}");
}
