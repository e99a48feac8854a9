//! The program with HTTPS on, started as its users start it, a small authority that signs for it, and clients.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

/// The key that callers send.
pub(crate) const KEY: &str = "sk-test-7a6b5c4d3e2f";
/// Longer than anything here takes on a busy machine.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// A certificate and its key, PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A folder with `c.pem` and `k.pem` for the program and `root.pem` for its clients.
pub(crate) struct Folder {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut root = CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = root.self_signed(&key).unwrap().pem();
        let this = Self { folder: TempDir::new().unwrap(), issuer: Issuer::new(root, key) };
        fs::write(this.path("root.pem"), pem).unwrap();
        this
    }

    /// A folder with a certificate for these names installed.
    pub(crate) fn with(names: &[&str]) -> Self {
        let this = Self::new();
        this.install(&this.issue(names));
        this
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A pair that is good for now.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_between(names, 2000, 4000)
    }

    /// A pair that is good from the first day of one year to that of another.
    pub(crate) fn issue_between(&self, names: &[&str], from: i32, to: i32) -> Pair {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut leaf = CertificateParams::new(names).unwrap();
        leaf.not_before = rcgen::date_time_ymd(from, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(to, 1, 1);
        leaf.use_authority_key_identifier_extension = true;
        let certificate = leaf.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    /// Puts a pair where the program looks for it, one file after the other as certbot does.
    pub(crate) fn install(&self, pair: &Pair) {
        for (name, text) in [("c.pem", &pair.certificate), ("k.pem", &pair.key)] {
            fs::write(self.path("new"), text).unwrap();
            fs::rename(self.path("new"), self.path(name)).unwrap();
        }
    }
}

/// A child that ends with its handle.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the program; what it prints goes into a file and comes back line by line until `lines` are there.
fn start(folder: &Folder, log: &str, arguments: &[&str], lines: usize) -> (Running, Vec<String>) {
    let log = File::create(folder.path(log)).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_asr-edge"))
        .args(arguments)
        .env_clear()
        .current_dir(folder.path("."))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let running = Running(child);
    (running, stdout.lines().take(lines).map(Result::unwrap).collect())
}

/// The program behind a certificate, before a stand-in upstream.
pub(crate) struct Edge {
    pub(crate) folder: Folder,
    pub(crate) https: SocketAddr,
    pub(crate) port80: SocketAddr,
    admin: SocketAddr,
    _processes: [Running; 2],
}

impl Edge {
    /// With the folder's certificate, on loopback; `server` and `more` go into the config.
    pub(crate) fn start(folder: Folder, server: &str, more: &str) -> Self {
        Self::start_on("127.0.0.1:0", folder, server, more)
    }

    pub(crate) fn start_on(https: &str, folder: Folder, server: &str, more: &str) -> Self {
        let (upstream, lines) = start(&folder, "stub.log", &["upstream-stub", "--listen", "127.0.0.1:0"], 1);
        let upstream_url = lines[0].strip_prefix("listening on ").unwrap();
        let config = format!(
            "[server]\nhttp = []\nhttps = [{https:?}]\nadmin = \"127.0.0.1:0\"\n{server}\n\
             [tls]\ncertificate = \"c.pem\"\nkey = \"k.pem\"\n[acme]\nhttp = [\"127.0.0.1:0\"]\n\
             [codex]\nendpoint = \"{upstream_url}/backend-api/transcribe\"\nbearer = \"t\"\naccount_id = \"a\"\n{more}"
        );
        fs::write(folder.path("edge.toml"), config).unwrap();
        let (edge, lines) =
            start(&folder, "edge.log", &["serve", "--config", "edge.toml", "--api-key", KEY], 3);
        let address = |start: &str| {
            let found = lines.iter().find_map(|line| line.strip_prefix(start));
            found.unwrap_or_else(|| panic!("{lines:?}")).parse().unwrap()
        };
        Self {
            https: address("listening on https://"),
            port80: address("redirecting to https on http://"),
            admin: address("admin on http://"),
            folder,
            _processes: [edge, upstream],
        }
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path("edge.log")).unwrap()
    }

    /// Status and body of a page on the admin address.
    pub(crate) fn admin(&self, path: &str) -> (u16, serde_json::Value) {
        let answer = ask(TcpStream::connect(self.admin).unwrap(), &get(path, "admin"));
        (answer.status, serde_json::from_str(&answer.body).unwrap())
    }

    /// A TLS connection that asks for this name, and trusts the folder's root.
    pub(crate) fn connect(&self, name: &str) -> io::Result<Tls> {
        connect(self.https, name, &self.folder.path("root.pem"))
    }

    /// The answer to one request over a new connection.
    pub(crate) fn ask(&self, name: &str, request: &str) -> Answer {
        ask(self.connect(name).unwrap(), request)
    }

    /// The certificate that a new connection gets, DER.
    pub(crate) fn served(&self, name: &str) -> Option<Vec<u8>> {
        let tls = self.connect(name).ok()?;
        tls.conn.peer_certificates()?.first().map(|leaf| leaf.to_vec())
    }
}

/// A TLS connection, shaken hands on.
pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A client that trusts the roots in this file.
pub(crate) fn client(root: &Path) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}

fn connect(address: SocketAddr, name: &str, root: &Path) -> io::Result<Tls> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(LONG))?;
    tcp.set_nodelay(true)?;
    let client = ClientConnection::new(Arc::new(client(root)), name.to_owned().try_into().unwrap()).unwrap();
    let mut tls = StreamOwned::new(client, tcp);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

/// A request that closes the connection.
pub(crate) fn get(path: &str, host: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
}

/// Sends a request and reads to the end.
pub(crate) fn ask(mut stream: impl Read + Write, request: &str) -> Answer {
    stream.write_all(request.as_bytes()).unwrap();
    stream.flush().unwrap();
    rest(stream)
}

/// Reads an answer to the end of its connection. How that ends is not looked at.
pub(crate) fn rest(mut stream: impl Read) -> Answer {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(read) = stream.read(&mut buffer) {
        if read == 0 {
            break;
        }
        bytes.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// Waits until it is so.
pub(crate) fn until(what: &str, so: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !so() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// What `openssl s_client` prints; `None`, visibly, where there is no openssl.
pub(crate) fn s_client(address: SocketAddr, arguments: &[&str]) -> Option<String> {
    let child = Command::new("openssl")
        .args(["s_client", "-connect", &address.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    match child {
        Ok(output) => Some(
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        ),
        Err(error) => {
            eprintln!("SKIPPED: openssl cannot be run: {error}");
            None
        }
    }
}
