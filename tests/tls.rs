//! HTTPS, as clients and operators see it: real processes, real sockets, `openssl s_client`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, clippy::disallowed_methods)]

#[path = "tls/challenge.rs"]
mod challenge;
#[path = "tls/edge.rs"]
#[allow(dead_code, reason = "shared with the tests of port 80")]
mod edge;
#[path = "tls/garbage.rs"]
mod garbage;
#[path = "tls/swap.rs"]
mod swap;

use std::net::TcpListener;
use std::sync::Arc;

use edge::{Edge, Folder, client, get, s_client};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};

const HEALTH: &str = "/healthz";

#[test]
fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let edge = Edge::start(Folder::with(&["asr.example.com"]), "", "");
    let name = ["-servername", "asr.example.com"];
    let Some(new) = s_client(edge.https, &[&name[..], &["-tls1_3"]].concat()) else { return };
    assert!(new.contains("TLSv1.3, Cipher is TLS_"), "{new}");
    let old = s_client(edge.https, &[&name[..], &["-tls1_2"]].concat()).unwrap();
    assert!(old.contains("TLSv1.2, Cipher is ECDHE-"), "{old}");
    let older =
        s_client(edge.https, &[&name[..], &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]].concat()).unwrap();
    assert!(older.contains("alert handshake failure") && older.contains("Cipher is (NONE)"), "{older}");
}

#[test]
fn http_2_and_http_1_1_are_picked_by_alpn() {
    let edge = Edge::start(Folder::with(&["asr.example.com"]), "", "");
    let alpn = |protocols| s_client(edge.https, &["-servername", "asr.example.com", "-alpn", protocols]);
    let Some(both) = alpn("http/1.1,h2") else { return };
    assert!(both.contains("ALPN protocol: h2"), "{both}");
    assert!(alpn("http/1.1").unwrap().contains("ALPN protocol: http/1.1"));
    assert!(alpn("smtp").unwrap().contains("alert no application protocol"));
    assert!(alpn("acme-tls/1").unwrap().contains("alert no application protocol"), "no challenge is pending");
    let none = s_client(edge.https, &["-servername", "asr.example.com"]).unwrap();
    assert!(none.contains("No ALPN negotiated"), "{none}");
}

#[test]
fn every_name_of_the_certificate_is_served_and_an_unknown_one_refused_by_name() {
    let edge = Edge::start(Folder::with(&["asr.example.com", "*.example.org", "127.0.0.1"]), "", "");
    for name in ["asr.example.com", "ASR.example.com", "any.example.org", "127.0.0.1"] {
        assert_eq!(edge.ask(name, &get(HEALTH, name)).status, 200, "{name}");
    }
    for name in ["example.com", "a.b.example.org", "localhost"] {
        let refused = edge.connect(name).unwrap_err().to_string();
        assert!(refused.contains("UnrecognisedName"), "{name}: {refused}");
    }
    let Some(nameless) = s_client(edge.https, &["-noservername", "-alpn", "h2"]) else { return };
    assert!(nameless.contains("ALPN protocol: h2"), "{nameless}");
    assert!(!edge.log().contains("ERROR"), "{}", edge.log());
}

#[test]
fn a_host_outside_the_certificate_is_misdirected_over_both_protocols() {
    let edge = Edge::start(Folder::with(&["asr.example.com"]), "", "");
    for host in ["other.example.com", "127.0.0.1", "asr.example.com.evil.example"] {
        let answer = edge.ask("asr.example.com", &get("/v1/models", host));
        assert_eq!(answer.status, 421, "{host}: {answer:?}");
        assert!(answer.body.contains("misdirected_request"), "{answer:?}");
    }
    assert_eq!(edge.ask("asr.example.com", &get(HEALTH, "Asr.Example.COM:8443")).status, 200);
    assert_eq!(h2_status(&edge, "asr.example.com"), 200);
    assert_eq!(h2_status(&edge, "other.example.com"), 421);
}

/// The status of `GET /healthz` for an authority, over HTTP/2.
fn h2_status(edge: &Edge, authority: &str) -> u16 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut config = client(&edge.folder.path("root.pem"));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = tokio::net::TcpStream::connect(edge.https).await.unwrap();
        let name = "asr.example.com".try_into().unwrap();
        let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get(format!("https://{authority}{HEALTH}")).body(Empty::<Bytes>::new());
        let answer = sender.send_request(request.unwrap()).await.unwrap();
        let status = answer.status().as_u16();
        answer.into_body().collect().await.unwrap();
        status
    })
}

#[test]
fn ipv6_is_served_like_ipv4() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("SKIPPED: no IPv6 on loopback");
        return;
    }
    let edge = Edge::start_on("[::1]:0", Folder::with(&["::1"]), "", "");
    assert_eq!(edge.ask("::1", &get(HEALTH, &edge.https.to_string())).status, 200);
    assert_eq!(edge.ask("::1", &get(HEALTH, "[::2]")).status, 421);
}

#[test]
fn strict_transport_security_is_sent_when_asked_for_and_over_tls_alone() {
    let with = Edge::start(Folder::with(&["asr.example.com"]), "hsts = \"180d\"", "");
    for path in [HEALTH, "/v1/models", "/nowhere"] {
        let answer = with.ask("asr.example.com", &get(path, "asr.example.com"));
        assert_eq!(answer.header("strict-transport-security"), Some("max-age=15552000"), "{answer:?}");
    }
    let plain = edge::ask(std::net::TcpStream::connect(with.port80).unwrap(), &get("/", "asr.example.com"));
    assert_eq!(plain.header("strict-transport-security"), None);
    let without = Edge::start(Folder::with(&["asr.example.com"]), "", "");
    let answer = without.ask("asr.example.com", &get(HEALTH, "asr.example.com"));
    assert_eq!(answer.header("strict-transport-security"), None);
}

#[test]
fn the_access_line_tells_the_tls_version() {
    let edge = Edge::start(Folder::with(&["asr.example.com"]), "", "");
    edge.ask("asr.example.com", &get(HEALTH, "asr.example.com"));
    edge::until("the access line", || edge.log().contains("tls=\"TLSv1.3\""));
}
