//! What an operator sees: access lines, metrics, readiness, traces, levels, panics.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[allow(dead_code, unused_imports)]
mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use asr_edge::config::{Log, LogFormat};
use asr_edge::observe;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use harness::{
    ACCOUNT, Bench, END_HEADERS, Form, Http2, KEY, Kind, Outcome, Reply, Request, STATUS_200, TEXT, TOKEN,
    Wire, eventually, get, upload_block, wav,
};

const PROMPT: &str = "planted prompt";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn form() -> Form {
    // 0.1 s of audio.
    Form::of(&wav(3200)).field("prompt", PROMPT)
}

fn upload() -> Request {
    Request::post(&form())
}

fn start(more: &[&str]) -> Bench {
    let flags = [&["--admin", "127.0.0.1:0", "--log-format", "json"], more].concat();
    Bench::with(|launch| launch.flags(&flags))
}

fn admin(bench: &Bench, path: &str) -> Reply {
    let mut wire = Wire::connect(bench.edge.admin.unwrap());
    wire.send(get(path).bytes());
    wire.reply()
}

/// All access lines so far.
fn lines(bench: &Bench) -> Vec<Value> {
    let printed = bench.edge.printed();
    let records = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    records.filter(|record| record["target"] == "access").collect()
}

/// The access line of the request that got this answer.
fn line_of(bench: &Bench, reply: &Reply) -> Value {
    let id = reply.header("x-request-id").unwrap();
    eventually("its access line", || lines(bench).into_iter().find(|line| line["request_id"] == id))
}

/// The samples of `/metrics`, by name and labels as written. The page must be in order.
fn metrics(bench: &Bench) -> BTreeMap<String, f64> {
    let reply = admin(bench, "/metrics");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut family = String::new();
    let mut samples = BTreeMap::new();
    for line in reply.text().lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            help.split_once(' ').unwrap().0.clone_into(&mut family);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            let part = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} below {family}"));
            assert!(["", "_bucket", "_sum", "_count"].contains(&part), "{line}");
            let labels = sample[name.len()..].trim_matches(['{', '}']);
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let word = label.split_once("=\"").unwrap().1.trim_end_matches('"');
                assert!(
                    !word.is_empty()
                        && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.+-".contains(&b))
                );
            }
            assert!(samples.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{line} twice");
        }
    }
    samples
}

/// The sum of all samples that begin so.
fn sum(metrics: &BTreeMap<String, f64>, start: &str) -> f64 {
    metrics.iter().filter(|(name, _)| name.starts_with(start)).map(|(_, value)| value).sum()
}

#[test]
fn connections_without_a_place_are_counted() {
    let flags = ["--admin", "127.0.0.1:0"];
    let bench = Bench::with(|launch| launch.flags(&flags).config("[limits]\nconnections_per_address = 1\n"));
    let mut held = bench.edge.wire();
    held.send(get("/healthz").bytes());
    assert_eq!(held.reply().status, 200);
    for _ in 0..3 {
        assert_eq!(bench.edge.wire().reply().status, 503);
    }
    let counted = metrics(&bench);
    assert_eq!(counted["asr_edge_connections_refused_total"], 3.0);
    assert_eq!(counted["asr_edge_connections_open"], 1.0);
}

#[test]
fn counters_add_up_with_what_client_and_upstream_saw() {
    let bench = start(&[]);
    let mut requests = Vec::new();
    for _ in 0..3 {
        requests.push((upload(), 200));
    }
    requests.push((Request::post(&form().field("response_format", "verbose_json")), 200));
    requests.push((upload().chunked(700), 200));
    requests.push((upload().set("Authorization", "Bearer wrong"), 401));
    requests.push((upload().set("Authorization", "Bearer wrong"), 401));
    requests.push((get("/v1/models").without("Authorization"), 401));
    requests.push((get("/v1/models"), 200));
    requests.push((get("/v1/nothing"), 404));
    requests.push((Request::post(&form().field("response_format", "srt")), 400));
    let mut sent = 0;
    for (request, status) in &requests {
        let reply = bench.ask(request);
        assert_eq!(reply.status, *status, "{reply:?}");
        sent += reply.body.len();
    }
    bench.stub.script(json!({"status": 500, "body": {"detail": PROMPT}}));
    let failed = bench.ask(&upload());
    failed.refuses("500", 502, Some("upstream_unavailable"));
    sent += failed.body.len();

    let count = requests.len() as f64 + 1.0;
    let metrics = eventually("all of them", || {
        Some(metrics(&bench)).filter(|metrics| sum(metrics, "asr_edge_requests_total") == count)
    });
    let of = |sample: &str| *metrics.get(sample).unwrap_or_else(|| panic!("no {sample} in {metrics:#?}"));
    let requests_of = |route: &str, status: u16, fault: &str| {
        of(&format!("asr_edge_requests_total{{route=\"{route}\",status=\"{status}\",fault=\"{fault}\"}}"))
    };
    let seen = bench.stub.seen();
    let taken = seen.iter().filter(|seen| seen.is_complete()).count() as f64;
    let good = requests_of("transcriptions", 200, "none");
    assert_eq!(good, 5.0);
    let bad = requests_of("transcriptions", 502, "upstream_unavailable");
    let came = good + bad;
    assert_eq!(came + bad, taken, "the failure was asked about twice");
    assert_eq!(requests_of("transcriptions", 401, "wrong_key"), 2.0);
    assert_eq!(requests_of("models", 401, "no_key"), 1.0);
    assert_eq!(requests_of("models", 200, "none"), 1.0);
    assert_eq!(requests_of("unknown", 404, "unknown_url"), 1.0);
    assert_eq!(of("asr_edge_key_faults_total{fault=\"wrong_key\"}"), 2.0);
    assert_eq!(of("asr_edge_key_faults_total{fault=\"no_key\"}"), 1.0);
    assert_eq!(sum(&metrics, "asr_edge_request_seconds_count"), count);
    // Only where the whole body came and was fit to be sent on.
    assert_eq!(of("asr_edge_upload_seconds_count{route=\"transcriptions\"}"), came);
    assert_eq!(of("asr_edge_upstream_wait_seconds_count{route=\"transcriptions\"}"), came);
    assert_eq!(of("asr_edge_upload_seconds_bucket{route=\"transcriptions\",le=\"+Inf\"}"), came);
    assert!((of("asr_edge_audio_seconds_total") - came * 0.1).abs() < 1e-6, "{metrics:#?}");
    assert_eq!(of("asr_edge_sent_bytes_total"), sent as f64);
    let whole = |request: &Request| request.payload().len();
    let received = requests.iter().filter(|(_, status)| *status == 200).map(|(request, _)| whole(request));
    let least = received.sum::<usize>() as f64;
    assert!(of("asr_edge_received_bytes_total") >= least - 700.0, "framing of chunks is not counted");
    for zero in [
        "asr_edge_requests_in_flight",
        "asr_edge_panics_total",
        "asr_edge_queue_waiting{upstream=\"codex\"}",
        "asr_edge_spool_bytes{upstream=\"codex\"}",
        "asr_edge_key_file_fault",
        "asr_edge_reloads_total{result=\"taken\"}",
        "asr_edge_breaker_state{upstream=\"codex\",trouble=\"challenge\"}",
        "asr_edge_upstream_troubles_total{upstream=\"codex\",trouble=\"login\"}",
    ] {
        assert_eq!(of(zero), 0.0, "{zero}");
    }
    assert_eq!(of("asr_edge_ready"), 1.0);
    eventually("no connection", || (self::metrics(&bench)["asr_edge_connections_open"] == 0.0).then_some(()));
    let mut open = bench.edge.wire();
    open.send(get("/v1/models").bytes());
    assert_eq!(open.reply().status, 200);
    assert_eq!(self::metrics(&bench)["asr_edge_connections_open"], 1.0);
    // The sums of the access lines are the counters.
    let lines = lines(&bench);
    let bytes: u64 = lines.iter().filter_map(|line| line["bytes_in"].as_u64()).sum();
    assert_eq!(bytes as f64, self::metrics(&bench)["asr_edge_received_bytes_total"]);
}

#[test]
fn an_access_line_tells_all_but_secrets() {
    let bench = start(&[]);
    bench.stub.script(json!({"delay_ms": 1200, "headers": {"cf-ray": "8c1f0a2b3c4d5e6f-FRA"}, "text": TEXT}));
    let trace = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let request =
        Request::post(&form().field("response_format", "verbose_json")).header("traceparent", trace);
    let reply = bench.ask(&request);
    assert_eq!(reply.status, 200);
    let line = line_of(&bench, &reply);
    for (field, value) in [
        ("trace_id", json!(TRACE)),
        ("protocol", json!("h1")),
        ("key", json!("api-key")),
        ("route", json!("transcriptions")),
        ("model", json!("whisper-1")),
        ("format", json!("verbose_json")),
        ("status", json!(200)),
        ("slow", json!("upstream")),
        ("bytes_in", json!(request.payload().len())),
        ("bytes_out", json!(reply.body.len())),
        ("audio_seconds", json!(0.1)),
        ("upstream_status", json!(200)),
        ("cf_ray", json!("8c1f0a2b3c4d5e6f-FRA")),
        ("fault", Value::Null),
        ("blame", Value::Null),
        ("tls", Value::Null),
        ("service", Value::Null),
    ] {
        assert_eq!(line[field], value, "{field}: {line}");
    }
    assert_eq!(line["client"], "127.0.0.1", "{line}");
    let ms = |field: &str| line[field].as_u64().unwrap_or_else(|| panic!("no {field}: {line}"));
    assert!((1200..10_000).contains(&ms("upstream_wait_ms")), "{line}");
    let parts = ms("queue_ms") + ms("upload_ms") + ms("upstream_wait_ms") + ms("answer_ms");
    assert!((parts..=parts + 4).contains(&ms("total_ms")), "{line}");
    assert_eq!(bench.stub.seen()[0].header("traceparent"), None, "Codex is told nothing");
    let printed = bench.edge.printed();
    for word in [KEY, TOKEN, ACCOUNT, TEXT, PROMPT, "a.wav"] {
        assert!(!printed.contains(word), "{word}: {printed}");
    }
}

#[test]
fn a_fault_is_told_with_whose_it_is() {
    let bench = start(&[]);
    let ray = json!({"status": 503, "headers": {"cf-ray": "8c1f0a2b3c4d5e6f-AMS"}});
    for (script, request, expected) in [
        (
            json!({}),
            upload().set("Authorization", "Bearer x"),
            json!([401, "wrong_key", "client", null, null]),
        ),
        (ray, upload(), json!([502, "upstream_unavailable", "upstream", 503, "8c1f0a2b3c4d5e6f-AMS"])),
        (
            json!({"early": true, "early_after": 20_000, "status": 413}),
            Request::post(&Form::of(&wav(1 << 20))),
            json!([413, "upstream_too_large", "client", 413, null]),
        ),
        (json!({"status": 401}), upload(), json!([503, "upstream_auth", "us", 401, null])),
    ] {
        bench.stub.script(script);
        let mut wire = bench.edge.wire();
        let _ = wire.offer(request.bytes());
        let line = line_of(&bench, &wire.reply());
        let told = ["status", "fault", "blame", "upstream_status", "cf_ray"].map(|field| line[field].clone());
        assert_eq!(json!(told), expected, "{line}");
    }
}

#[test]
fn a_slow_client_is_told_from_a_slow_upstream() {
    let bench = start(&[]);
    let bytes = upload().bytes();
    let (first, rest) = bytes.split_at(bytes.len() - 1000);
    let mut wire = bench.edge.wire();
    wire.send(first);
    std::thread::sleep(Duration::from_millis(1300));
    wire.send(rest);
    let line = line_of(&bench, &wire.reply());
    assert_eq!((&line["status"], &line["slow"]), (&json!(200), &json!("client")), "{line}");
    assert!(line["upload_ms"].as_u64().unwrap() >= 1200, "{line}");
    assert!(line["upstream_wait_ms"].as_u64().unwrap() < 1000, "{line}");
    let line = line_of(&bench, &bench.ask(&upload()));
    assert_eq!(line["slow"], Value::Null, "{line}");
}

#[test]
fn a_client_that_leaves_is_499() {
    let bench = start(&[]);
    bench.stub.script(json!({"delay_ms": 5000}));
    let mut wire = bench.edge.wire();
    wire.send(upload().bytes());
    bench.stub.wait("the upload", |seen| seen.iter().any(harness::Seen::is_complete));
    wire.reset();
    let line = eventually("its access line", || lines(&bench).pop());
    assert_eq!(json!([line["status"], line["fault"], line["blame"]]), json!([499, "client_gone", "client"]));
    eventually("its count", || {
        let sample = "asr_edge_requests_total{route=\"transcriptions\",status=\"499\",fault=\"client_gone\"}";
        (metrics(&bench).get(sample) == Some(&1.0)).then_some(())
    });
    assert_eq!(metrics(&bench)["asr_edge_requests_in_flight"], 0.0);
}

#[test]
fn what_is_no_trace_is_not_logged() {
    let bench = start(&[]);
    for wrong in ["planted", "00-planted-00f067aa0ba902b7-01", &format!("ff-{TRACE}-00f067aa0ba902b7-01")] {
        let line = line_of(&bench, &bench.ask(&get("/v1/models").header("traceparent", wrong)));
        assert_eq!((&line["status"], &line["trace_id"]), (&json!(200), &Value::Null), "{line}");
    }
    let valid = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let twice = get("/v1/models").header("traceparent", &valid).header("traceparent", &valid);
    assert_eq!(line_of(&bench, &bench.ask(&twice))["trace_id"], Value::Null);
    assert!(!bench.edge.printed().contains("planted"));
}

#[test]
fn http2_and_the_version_of_tls_are_told() {
    let bench = start(&[]);
    let mut http2 = Http2::connect(bench.edge.address, &[]);
    http2.send(Kind::Headers, END_HEADERS, 1, &upload_block(&form().content_type(), &[]));
    http2.send_body(1, &form().closed());
    assert!(matches!(http2.outcome(1), Outcome::Answered(STATUS_200, _)));
    let line = eventually("its access line", || lines(&bench).pop());
    assert_eq!(
        (&line["protocol"], &line["bytes_in"]),
        (&json!("h2"), &json!(form().closed().len())),
        "{line}"
    );

    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap().pem();
    let bench = Bench::with(|launch| {
        let files = [("c.pem", &certificate), ("k.pem", &key.serialize_pem())];
        let [certificate, key] = files.map(|(name, text)| launch.file(name, text));
        launch
            .config(&format!(
                "[server]\nhttp = []\nhttps = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n\
                 [tls]\ncertificate = {certificate:?}\nkey = {key:?}\n"
            ))
            .flags(&["--log-format", "json"])
    });
    let root = bench.edge.path("c.pem");
    assert_eq!(fs::read_to_string(&root).unwrap(), certificate);
    let mut wire = Wire::connect_tls(bench.edge.address, &root);
    wire.send(upload().set("Host", "localhost").bytes());
    let reply = wire.reply();
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(line_of(&bench, &reply)["tls"], "TLSv1.3");
}

#[test]
fn readiness_and_metrics_say_when_the_login_has_run_out() {
    let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(json!({"exp": 1_600_000_000}).to_string()));
    let auth = json!({"tokens": {"access_token": token, "account_id": "a"}}).to_string();
    let bench = Bench::with(|launch| launch.auth_file(&auth).flags(&["--admin", "127.0.0.1:0"]));
    let ready = admin(&bench, "/ready");
    assert_eq!((ready.status, &ready.json()["ready"]), (503, &json!(false)));
    assert!(ready.json()["reasons"][0].as_str().unwrap().contains("login"), "{ready:?}");
    let metrics = metrics(&bench);
    assert_eq!(metrics["asr_edge_ready"], 0.0);
    assert!(metrics["asr_edge_login_expiry_seconds"] < -1e8, "{metrics:?}");
    for (method, path, status) in
        [("HEAD", "/metrics", 200), ("POST", "/metrics", 405), ("GET", "/nothing", 404)]
    {
        let mut wire = Wire::connect(bench.edge.admin.unwrap());
        wire.send(get(path).method(method).bytes());
        let reply = if method == "HEAD" { wire.bodiless_reply() } else { wire.reply() };
        assert_eq!(reply.status, status, "{method} {path}");
    }
}

/// In this process: nothing else here may start recording or look at panics.
#[test]
fn levels_change_while_running_and_libraries_stay_capped() {
    assert!(observe::set_level("debug").is_err(), "there is nothing to change yet");
    let hook = std::panic::take_hook();
    observe::start(&Log { format: LogFormat::Text, level: "info".to_owned() });
    macro_rules! heard {
        ($target:literal, $level:ident) => {
            tracing::enabled!(target: $target, tracing::Level::$level)
        };
    }
    let ours = || [heard!("asr_edge::upstream", DEBUG), heard!("access", INFO)];
    let libraries = || [heard!("h2::codec", DEBUG), heard!("hyper", TRACE), heard!("pingora_core", DEBUG)];
    assert_eq!((ours(), libraries()), ([false, true], [false; 3]));
    observe::set_level("trace").unwrap();
    assert_eq!((ours(), libraries()), ([true, true], [false; 3]));
    observe::set_level("trace,h2=trace,hyper=trace,pingora_core=trace").unwrap();
    assert_eq!(libraries(), [false; 3], "whatever the filter says");
    assert!(heard!("pingora_core", INFO) && heard!("some_library", INFO) && !heard!("some_library", DEBUG));
    assert!(observe::set_level("access=loud").is_err());
    assert_eq!(ours(), [true, true], "a wrong level changes nothing");
    observe::set_level("warn").unwrap();
    assert_eq!(ours(), [false, false]);

    let before = observe::panics();
    let panicked = std::thread::spawn(|| panic!("part of the test")).join();
    assert!(panicked.is_err());
    assert_eq!(observe::panics(), before + 1);
    std::panic::set_hook(hook);
}
