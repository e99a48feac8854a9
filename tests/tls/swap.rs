//! Own certificate files that change while the program runs.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};

use asr_edge::demo::clip;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::edge::{Edge, Folder, KEY, Pair, get, rest, until};

const NAME: &str = "asr.example.com";

fn der(pair: &Pair) -> Vec<u8> {
    CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap().to_vec()
}

fn serves(edge: &Edge, pair: &Pair) -> bool {
    edge.served(NAME) == Some(der(pair))
}

#[test]
fn a_new_certificate_is_served_while_an_upload_and_an_idle_connection_run_on() {
    let edge = Edge::start(Folder::with(&[NAME]), "", "");
    let boundary = "a-boundary-that-is-long-enough";
    let mut body = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.flac\"\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(clip::AUDIO);
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    let (first, second) = body.split_at(body.len() / 2);

    let mut upload = edge.connect(NAME).unwrap();
    write!(
        upload,
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {NAME}\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: multipart/form-data; boundary={boundary}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .unwrap();
    upload.write_all(first).unwrap();
    upload.flush().unwrap();
    let mut idle = edge.connect(NAME).unwrap();
    assert_eq!(ask_and_keep(&mut idle), "HTTP/1.1 200 OK\r\n");

    let new = edge.folder.issue(&[NAME]);
    edge.folder.install(&new);
    until("the new certificate", || serves(&edge, &new));

    assert_eq!(ask_and_keep(&mut idle), "HTTP/1.1 200 OK\r\n", "the same connection");
    upload.write_all(second).unwrap();
    upload.flush().unwrap();
    let answer = rest(upload);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body.contains("\"text\""), "{answer:?}");
}

/// One request on a connection that stays open: its status line.
fn ask_and_keep(stream: &mut (impl Read + Write)) -> String {
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {NAME}\r\n\r\n").unwrap();
    stream.flush().unwrap();
    let mut reader = BufReader::with_capacity(1, stream);
    let (mut status, mut line, mut length) = (String::new(), String::new(), 0);
    reader.read_line(&mut status).unwrap();
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    status
}

#[test]
fn a_torn_mismatched_or_expired_pair_leaves_the_old_one_and_says_so() {
    let edge = Edge::start(Folder::with(&[NAME]), "", "");
    let old = edge.served(NAME).unwrap();
    let other = edge.folder.issue(&[NAME]);
    let half = |text: &str| text[..text.len() / 2].to_owned();
    let expired = edge.folder.issue_between(&[NAME], 2000, 2001);
    for (pair, why) in [
        (
            Pair { key: edge.folder.issue(&[NAME]).key, ..other.clone() },
            "does not belong to the first certificate",
        ),
        (Pair { certificate: half(&other.certificate), ..other.clone() }, "no whole PEM"),
        (Pair { key: half(&other.key), ..other.clone() }, "no private key"),
        (Pair { certificate: String::new(), key: String::new() }, "no certificate"),
        (expired, "has expired"),
    ] {
        edge.folder.install(&pair);
        until(why, || {
            edge.admin("/status").1["tls"]["files_fault"].as_str().is_some_and(|told| told.contains(why))
        });
        assert!(edge.log().contains(why), "{}", edge.log());
        assert_eq!(edge.served(NAME).unwrap(), old, "{why}");
        let (status, ready) = edge.admin("/ready");
        assert_eq!((status, &ready["warnings"][0]), (200, &"certificate_files_not_taken".into()), "{ready}");
    }
    fs::remove_file(edge.folder.path("k.pem")).unwrap();
    until("a key that is gone", || edge.log().contains("key file cannot be read"));
    assert_eq!(edge.served(NAME).unwrap(), old);
    edge.folder.install(&other);
    until("the good pair", || serves(&edge, &other));
    until("nothing to complain of", || edge.admin("/status").1["tls"]["files_fault"].is_null());
}

#[test]
fn an_expired_certificate_at_the_start_is_served_and_not_ready() {
    let folder = Folder::new();
    folder.install(&folder.issue_between(&[NAME], 2000, 2001));
    let edge = Edge::start(folder, "", "");
    let refused = edge.connect(NAME).unwrap_err().to_string();
    assert!(refused.contains("expired"), "the client is told why: {refused}");
    let (status, ready) = edge.admin("/ready");
    assert_eq!((status, &ready["reasons"][0]), (503, &"no_valid_certificate".into()), "{ready}");
    let good = edge.folder.issue(&[NAME]);
    edge.folder.install(&good);
    until("the good pair", || serves(&edge, &good));
    assert_eq!(edge.admin("/ready").0, 200);
}

#[test]
fn status_lists_every_certificate_with_names_issuer_and_end() {
    let edge = Edge::start(Folder::with(&[NAME, "127.0.0.1"]), "", "");
    let (_, status) = edge.admin("/status");
    let listed = &status["tls"]["certificates"][0];
    assert_eq!(listed["names"], serde_json::json!([NAME, "127.0.0.1"]));
    assert_eq!(listed["source"], "files");
    assert_eq!(listed["not_after"], "4000-01-01T00:00:01Z", "the last second is inclusive");
    assert!(listed["issuer"].is_string() && listed["expires_in_seconds"].as_u64() > Some(0), "{listed}");
}

#[test]
fn a_healthy_server_is_told_from_one_with_a_certificate_of_somebody_else() {
    let edge = Edge::start(Folder::with(&["127.0.0.1"]), "", "");
    let url = format!("https://{}/healthz", edge.https);
    let health = |root: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_asr-edge"));
        command.args(["health", &url, "--ca-root"]).arg(edge.folder.path(root)).output().unwrap()
    };
    assert!(health("root.pem").status.success());
    fs::copy(Folder::new().path("root.pem"), edge.folder.path("other.pem")).unwrap();
    let other = health("other.pem");
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&other.stderr).contains("invalid peer certificate"), "{other:?}");
    assert_eq!(edge.ask("127.0.0.1", &get("/healthz", "127.0.0.1")).status, 200);
}

#[test]
fn a_pair_that_cannot_be_served_at_the_start_is_named_by_its_key() {
    let folder = Folder::with(&[NAME]);
    let check = || {
        let config = "[server]\nhttps = [\"127.0.0.1:0\"]\n[tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n\
                      [codex]\nbearer = \"t\"\n";
        fs::write(folder.path("edge.toml"), config).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_asr-edge"));
        command.args(["serve", "--api-key", "k", "--config"]).arg(folder.path("edge.toml")).output().unwrap()
    };
    fs::write(folder.path("k.pem"), folder.issue(&[NAME]).key).unwrap();
    let other = check();
    let told = String::from_utf8_lossy(&other.stderr).into_owned();
    assert_eq!(other.status.code(), Some(64), "{told}");
    assert!(told.contains("tls.key: the private key does not belong"), "{told}");
    fs::write(folder.path("c.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    let torn = check();
    let told = String::from_utf8_lossy(&torn.stderr).into_owned();
    assert_eq!(torn.status.code(), Some(64), "{told}");
    assert!(told.contains("tls.certificate: the certificate file is no whole PEM"), "{told}");
}
