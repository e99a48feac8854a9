//! The way upstream through a real proxy: tinyproxy (Debian package `tinyproxy-bin`), with TLS before it where the proxy
//! is an `https` one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, clippy::disallowed_methods)]

#[allow(dead_code, unused_imports)]
mod harness;

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use harness::{
    Bench, Edge, Form, Launch, Process, Puppet, Request, Seen, Stub, TEXT, eventually, sha256, transcript,
    wav,
};

/// A running tinyproxy.
struct Proxy {
    _process: Process,
    address: SocketAddr,
    folder: TempDir,
}

impl Proxy {
    /// With these lines in its config too. `None`, and a word on it, where there is no tinyproxy.
    fn start(lines: &str) -> Option<Self> {
        if let Err(error) = Command::new("tinyproxy").arg("-v").output() {
            eprintln!("SKIPPED: tinyproxy cannot be run (apt-get install tinyproxy-bin): {error}");
            return None;
        }
        let folder = TempDir::new().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = format!(
            "Port {}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nLogLevel Connect\nLogFile \"{}\"\n{lines}\n",
            address.port(),
            folder.path().join("log").display()
        );
        let path = folder.path().join("tinyproxy.conf");
        fs::write(&path, config).unwrap();
        let process = Process::start(Command::new("tinyproxy").arg("-d").arg("-c").arg(path));
        eventually("tinyproxy", || TcpStream::connect(address).ok());
        Some(Self { _process: process, address, folder })
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many tunnels it was asked for.
    fn asked(&self) -> usize {
        fs::read_to_string(self.folder.path().join("log")).unwrap().matches("): CONNECT ").count()
    }

    /// The same proxy over TLS: its URL, and the root to trust.
    fn over_tls(&self) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config =
            config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let behind = self.address;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                while let Ok((socket, _)) = listener.accept().await {
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        let Ok(mut front) = acceptor.accept(socket).await else { return };
                        let mut back = tokio::net::TcpStream::connect(behind).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut front, &mut back).await;
                    });
                }
            });
        });
        (format!("https://localhost:{port}"), made.cert.pem())
    }
}

fn upload() -> Request {
    Request::post(&Form::of(&wav(3000)))
}

/// A program that trusts the stand-in's root and this one.
fn before(stub: &Stub, proxy: &str, root: &str) -> Edge {
    let launch = Launch::at(&stub.url()).flags(&["--proxy", proxy]);
    let stub_s = stub.root().map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default();
    match format!("{stub_s}\n{root}") {
        roots if roots.trim().is_empty() => launch.start(),
        roots => {
            let path: PathBuf = launch.file("roots.pem", &roots);
            launch.flags(&["--ca-root", path.to_str().unwrap()]).start()
        }
    }
}

#[test]
fn an_upload_goes_through_the_proxy_over_http_2_and_1_1() {
    let Some(proxy) = Proxy::start("") else { return };
    for (flags, protocol) in
        [(&["--tls"][..], "HTTP/2"), (&["--tls", "--no-h2"], "HTTP/1.1"), (&["--no-h2"], "HTTP/1.1")]
    {
        let stub = Stub::start(&[&["--text", TEXT], flags].concat());
        let tunnels = proxy.asked();
        let edge = before(&stub, &proxy.url(), "");
        let audio = wav(3 << 20);
        let reply = edge.ask(&Request::post(&Form::of(&audio)));
        assert_eq!((reply.status, reply.json()), (200, transcript(TEXT, 99)), "{flags:?}: {reply:?}");
        let seen = stub.seen();
        assert_eq!(seen[0].protocol(), protocol, "{seen:?}");
        assert_eq!(seen[0].audio_hash(), sha256(&audio));
        assert_eq!(proxy.asked(), tunnels + 1, "{flags:?}: it went that way");
        assert_eq!(seen[0].header("proxy-authorization"), None);
    }
}

#[test]
fn a_proxy_is_spoken_to_over_tls_and_its_tunnels_are_reused() {
    let Some(proxy) = Proxy::start("BasicAuth edge pass-w0rd") else { return };
    let (url, root) = proxy.over_tls();
    let url = url.replace("https://", "https://edge:pass%2Dw0rd@");
    for flags in [&["--tls"][..], &["--tls", "--no-h2"], &["--no-h2"]] {
        let stub = Stub::start(&[&["--text", TEXT], flags].concat());
        let edge = before(&stub, &url, &root);
        for _ in 0..3 {
            let reply = edge.ask(&upload());
            assert_eq!(reply.status, 200, "{flags:?}: {reply:?}\n{}", edge.printed());
            std::thread::sleep(Duration::from_millis(100));
        }
        let seen = stub.seen();
        let first = seen[0].connection();
        assert!(seen.iter().all(|seen| seen.connection() == first), "{flags:?}: {seen:?}");
        let audio = wav(9 << 20);
        assert_eq!(edge.ask(&Request::post(&Form::of(&audio))).status, 200);
        assert_eq!(stub.seen()[3].audio_hash(), sha256(&audio), "{flags:?}");
        assert!(!edge.printed().contains("w0rd"));
    }
}

#[test]
fn a_client_that_leaves_ends_the_upload_behind_the_proxy_too() {
    let Some(proxy) = Proxy::start("") else { return };
    let (url, root) = proxy.over_tls();
    for url in [proxy.url(), url] {
        let stub = Stub::start(&["--text", TEXT, "--tls", "--no-h2"]);
        let edge = before(&stub, &url, &root);
        let bytes = Request::post(&Form::of(&wav(300_000))).bytes();
        let mut wire = edge.wire();
        wire.send(&bytes[..bytes.len() - 50]);
        stub.wait("the upload", |seen| seen.iter().any(|seen| seen.audio_bytes() > 100_000));
        drop(wire);
        stub.assert_nothing_whole(&url);
        assert_eq!(edge.ask(&upload()).status, 200);
        assert_eq!(stub.seen().iter().filter(|seen| Seen::is_complete(seen)).count(), 1);
    }
}

#[test]
fn a_proxy_that_is_not_there_or_not_to_be_believed_is_named() {
    let stub = Stub::start(&["--text", TEXT, "--tls"]);
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for proxy in
        [format!("http://{gone}"), format!("https://{gone}"), "http://no-such-proxy.invalid:1".into()]
    {
        let reply = before(&stub, &proxy, "").ask(&upload());
        reply.refuses(&proxy, 502, Some("proxy_unreachable"));
        assert_eq!(reply.header("x-should-retry"), None);
    }
    if let Some(proxy) = Proxy::start("") {
        // Its root is not trusted here.
        let (url, _) = proxy.over_tls();
        before(&stub, &url, "").ask(&upload()).refuses("an unknown root", 502, Some("proxy_unreachable"));
    }
    assert!(stub.seen().is_empty());
}

#[test]
fn a_proxy_that_says_no_is_named_with_its_status() {
    let stub = Stub::start(&["--text", TEXT]);
    for (answer, status, again) in [
        ("HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n", "407", false),
        ("HTTP/1.0 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", "403", false),
        ("HTTP/1.1 503 Service Unavailable\r\n\r\n", "503", true),
    ] {
        let puppet = Puppet::start(move |mut socket, _| {
            if Puppet::read_request(&mut socket) {
                let _ = std::io::Write::write_all(&mut socket, answer.as_bytes());
            }
        });
        let proxy = puppet.url().replace("/backend-api/transcribe", "");
        let reply = before(&stub, &proxy, "").ask(&upload());
        let error = reply.refuses(status, 502, Some("proxy_refused"));
        assert!(error["message"].as_str().unwrap().contains(status), "{error}");
        assert_eq!(reply.header("x-should-retry"), (!again).then_some("false"), "{status}");
    }
    if let Some(proxy) = Proxy::start("BasicAuth edge secret-word") {
        before(&stub, &proxy.url(), "").ask(&upload()).refuses("no password", 502, Some("proxy_refused"));
        let wrong = proxy.url().replace("//", "//edge:planted-wrong@");
        let edge = before(&stub, &wrong, "");
        edge.ask(&upload()).refuses("a wrong password", 502, Some("proxy_refused"));
        assert!(!edge.printed().contains("planted-wrong"));
    }
    assert!(stub.seen().is_empty());
}

#[test]
fn a_proxy_that_says_nothing_has_a_time_of_its_own() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let stub = Stub::start(&["--text", TEXT]);
    for scheme in ["http", "https"] {
        let proxy = format!("{scheme}://{}", silent.local_addr().unwrap());
        let flags = ["--proxy", &proxy, "--connect-timeout-seconds", "1"];
        let edge = Launch::at(&stub.url()).flags(&flags).start();
        let start = Instant::now();
        edge.ask(&upload()).refuses(scheme, 502, Some("proxy_unreachable"));
        assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    }
}

#[test]
fn a_proxy_that_babbles_is_cut_off() {
    let stub = Stub::start(&["--text", TEXT]);
    let puppet =
        Puppet::start(|mut socket, _| while std::io::Write::write_all(&mut socket, &[b'x'; 8192]).is_ok() {});
    let proxy = puppet.url().replace("/backend-api/transcribe", "");
    before(&stub, &proxy, "").ask(&upload()).refuses("babble", 502, Some("proxy_unreachable"));
}

#[test]
fn the_proxy_is_taken_from_variables_that_mean_this_way() {
    let Some(proxy) = Proxy::start("") else { return };
    let stub = Stub::start(&["--text", TEXT]);
    let bench = Bench::before(stub, |launch| launch.env("CODEX_ASR_PROXY", &proxy.url()));
    assert_eq!(bench.ask(&upload()).status, 200);
    assert_eq!(proxy.asked(), 1);
    // The system's own variables do not speak of this machine.
    let bench = Bench::before(Stub::start(&["--text", TEXT]), |launch| launch.env("ALL_PROXY", &proxy.url()));
    assert_eq!(bench.ask(&upload()).status, 200);
    assert_eq!(proxy.asked(), 1);
}
