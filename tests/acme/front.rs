//! The CA of `fake_ca` behind a real address: HTTPS on loopback, one thread for each connection.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, none of which uses all of it")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::TempDir;

use crate::fake_ca::FakeCa;

/// Lives until the test's process ends; its folder ends with this value.
pub struct Front {
    pub ca: Arc<FakeCa>,
    folder: TempDir,
    address: SocketAddr,
    heard: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Front {
    pub fn start() -> Self {
        let key = KeyPair::generate().unwrap();
        let identity = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("root.pem"), identity.pem()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let tls = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![identity.der().clone()], key)
            .unwrap();
        let (ca, tls) = (FakeCa::of_today(), Arc::new(tls));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Vec<_>>>::default();
        let this = Self { ca: Arc::clone(&ca), folder, address, heard: Arc::clone(&heard) };
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (ca, tls, heard) = (Arc::clone(&ca), Arc::clone(&tls), Arc::clone(&heard));
                thread::spawn(move || {
                    let stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), socket);
                    serve(stream, &ca, |path| {
                        heard.lock().unwrap().push((Instant::now(), path.to_owned()));
                    })
                });
            }
        });
        this
    }

    pub fn directory(&self) -> String {
        format!("https://{}/directory", self.address)
    }

    /// What vouches for the CA's own address.
    pub fn ca_root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// When it heard of this path, each time.
    pub fn heard(&self, path: &str) -> Vec<Instant> {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|(_, asked)| asked == path).map(|(at, _)| *at).collect()
    }

    /// How often it was asked anything.
    pub fn calls(&self) -> usize {
        self.heard.lock().unwrap().len()
    }
}

/// Answers one request after the other; leaves where the CA is down or hangs.
fn serve(
    mut stream: StreamOwned<ServerConnection, TcpStream>,
    ca: &FakeCa,
    hears: impl Fn(&str),
) -> Option<()> {
    let mut pending = Vec::new();
    loop {
        let (method, request) = read(&mut stream, &mut pending)?;
        hears(request.uri().path());
        let weather = ca.lock().weather.clone();
        thread::sleep(weather.delay);
        if weather.down {
            return None;
        }
        if weather.hangs {
            while ca.lock().weather.hangs {
                thread::sleep(Duration::from_millis(50));
            }
            return None;
        }
        let answer = ca.answer(&request, &weather);
        let mut head =
            format!("HTTP/1.1 {} x\r\ncontent-length: {}\r\n", answer.status().as_u16(), answer.body().len());
        for (name, value) in answer.headers() {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
        let body = if method == "HEAD" { &[][..] } else { answer.body() };
        stream.write_all(&[head.as_bytes(), b"\r\n", body].concat()).ok()?;
        stream.flush().ok()?;
    }
}

/// The next request; `None` at the end of the connection.
fn read(stream: &mut impl Read, pending: &mut Vec<u8>) -> Option<(String, Request<Bytes>)> {
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(start) = head.parse(pending).unwrap() {
            let text = |name: &str| {
                let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
                found.map_or("", |header| std::str::from_utf8(header.value).unwrap())
            };
            let end = start + text("content-length").parse().unwrap_or(0);
            if pending.len() >= end {
                let uri = format!("https://{}{}", text("host"), head.path.unwrap());
                let method = head.method.unwrap().to_owned();
                let body = Bytes::copy_from_slice(&pending[start..end]);
                pending.drain(..end);
                return Some((method, Request::post(uri).body(body).unwrap()));
            }
        }
        let mut buffer = [0; 8192];
        match stream.read(&mut buffer) {
            Ok(read @ 1..) => pending.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    }
}
