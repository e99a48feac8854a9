//! Pebble, the test CA of Let's Encrypt, on loopback, with a name server that leads every name to 127.0.0.1.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, none of which uses all of it")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use asr_edge::acme::Challenges;
use asr_edge::base::random;
use asr_edge::config::{AcmeSettings, Challenge, DirectoryUrl, Eab, Identifier};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

/// How a CA differs from the plain one.
#[derive(Clone, Default)]
pub struct Temper {
    /// Of a hundred nonces, how many are refused.
    pub bad_nonces: u8,
    /// Whether names that were proved once need not be proved again.
    pub reuse: bool,
    /// Whether accounts have to be bound to `kid-1`.
    pub external: bool,
    /// How long certificates last, in seconds.
    pub life: Option<u64>,
    /// Whether every challenge counts as answered.
    pub credulous: bool,
}

/// A running CA; it ends with this value.
pub struct Pebble {
    pub folder: TempDir,
    pub http: SocketAddr,
    pub tls: SocketAddr,
    /// Where it gives away the root that its certificates lead to, at `/roots/0`.
    pub admin: SocketAddr,
    pub directory: String,
    root: CertificateDer<'static>,
    log: PathBuf,
    children: Vec<Child>,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The secret behind `kid-1`.
pub const MAC_KEY: [u8; 32] = [7; 32];

impl Pebble {
    pub fn start(temper: &Temper) -> Self {
        let folder = TempDir::new().unwrap();
        let [api, admin, http, tls, dns, control] = free_ports();
        let root = identity(folder.path());
        let mac = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, MAC_KEY);
        let config = folder.path().join("pebble.json");
        let mut settings = json!({
            "listenAddress": format!("127.0.0.1:{api}"), "managementListenAddress": format!("127.0.0.1:{admin}"),
            "certificate": folder.path().join("cert.pem"), "privateKey": folder.path().join("key.pem"),
            "httpPort": http, "tlsPort": tls, "ocspResponderURL": "",
            "externalAccountBindingRequired": temper.external,
            "externalAccountMACKeys": {"kid-1": mac},
        });
        if let Some(life) = temper.life {
            settings["certificateValidityPeriod"] = json!(life);
        }
        fs::write(&config, json!({ "pebble": settings }).to_string()).unwrap();
        let log = folder.path().join("pebble.log");
        let file = fs::File::create(&log).unwrap();
        let names = Command::new("pebble-challtestsrv")
            .args(["-defaultIPv6", "", "-defaultIPv4", "127.0.0.1", "-http01", "", "-https01", ""])
            .args(["-tlsalpn01", "", "-dns01", &format!("127.0.0.1:{dns}")])
            .args(["-management", &format!("127.0.0.1:{control}")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("needs pebble-challtestsrv (Debian package pebble)");
        let mut ca = Command::new("pebble");
        if temper.credulous {
            ca.env("PEBBLE_VA_ALWAYS_VALID", "1");
        }
        let ca = ca
            .args(["-config", config.to_str().unwrap(), "-dnsserver", &format!("127.0.0.1:{dns}")])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", temper.bad_nonces.to_string())
            .env("PEBBLE_AUTHZREUSE", if temper.reuse { "100" } else { "0" })
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .expect("needs pebble (Debian package pebble)");
        let this = Self {
            folder,
            http: SocketAddr::from(([127, 0, 0, 1], http)),
            tls: SocketAddr::from(([127, 0, 0, 1], tls)),
            admin: SocketAddr::from(([127, 0, 0, 1], admin)),
            directory: format!("https://127.0.0.1:{api}/dir"),
            root,
            log,
            children: vec![names, ca],
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", api)).is_err() {
            assert!(Instant::now() < deadline, "pebble does not start: {}", this.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        this
    }

    pub fn settings(&self, names: &[&str], ways: &[Challenge]) -> AcmeSettings {
        AcmeSettings {
            domains: names.iter().map(|name| Identifier::parse(name).unwrap()).collect(),
            contact: vec!["mailto:ops@example.com".to_owned()],
            directory: DirectoryUrl::parse(&self.directory).unwrap(),
            challenges: ways.to_vec(),
            state: self.folder.path().join("state"),
            profile: None,
            ca_root: vec![self.root.clone()],
            eab: None,
        }
    }

    pub fn eab() -> Eab {
        let hmac_key = asr_edge::base::secret::Secret::new(MAC_KEY.to_vec());
        Eab { key_id: "kid-1".to_owned(), hmac_key }
    }

    /// The root that vouches for the CA's own address, PEM.
    pub fn ca_root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// Ends the CA; nothing answers at its address any more.
    pub fn kill(&mut self) {
        for child in &mut self.children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// What the CA has logged so far.
    pub fn said(&self) -> String {
        let mut text = String::new();
        fs::File::open(&self.log).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// How many orders were placed.
    pub fn orders(&self) -> usize {
        self.said().matches("Added order ").count()
    }

    /// How many accounts were made.
    pub fn accounts(&self) -> usize {
        self.said().matches("accounts in memory").count()
    }
}

/// Answers http-01 as port 80 does.
pub async fn answer_http01(at: SocketAddr, challenges: Arc<Challenges>) -> JoinHandle<()> {
    let listener = tokio::net::TcpListener::bind(at).await.unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let token = path.strip_prefix("/.well-known/acme-challenge/").unwrap_or_default();
            let answer = match challenges.http01(token) {
                Some(text) => format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
                    text.len()
                ),
                None => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
}

/// Answers tls-alpn-01 as the TLS listener does, with no certificate of the site.
pub async fn answer_tls_alpn01(at: SocketAddr, challenges: Arc<Challenges>) -> JoinHandle<()> {
    let listener = tokio::net::TcpListener::bind(at).await.unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(challenges.server_config().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let _ = stream.shutdown().await;
            }
        }
    })
}

/// Writes the certificate that Pebble itself serves; the root it is signed by.
fn identity(folder: &Path) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    fs::write(folder.join("root.pem"), root.pem()).unwrap();
    let root = root.der().clone();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let mut leaf = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    leaf.distinguished_name = rcgen::DistinguishedName::new();
    let leaf = leaf.signed_by(&key, &issuer).unwrap();
    fs::File::create(folder.join("cert.pem")).unwrap().write_all(leaf.pem().as_bytes()).unwrap();
    fs::File::create(folder.join("key.pem")).unwrap().write_all(key.serialize_pem().as_bytes()).unwrap();
    root
}

/// Ports that nobody listens on. They lie below those that the system gives to connections, so that they stay free.
fn free_ports<const N: usize>() -> [u16; N] {
    let begin = u16::from_be_bytes(random::fill()) % 10_000;
    let all = (0..10_000).map(|n| 20_000 + (begin + n) % 10_000);
    let mut free = all.filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    let held: [TcpListener; N] = std::array::from_fn(|_| free.next().unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}
