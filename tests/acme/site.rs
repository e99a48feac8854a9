//! A public server as the shipped `conf/public.toml` describes it, but for its name, its ports, its state folder and
//! its CA, which is on loopback.
#![allow(dead_code, reason = "shared by tests, none of which uses all of it")]

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Form, Launch, Process, Reply, Request, Stub, TEXT, Wire, get, wav};

/// An issuance takes seconds; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(40);

/// A server's folder and config, and where it listens.
pub(crate) struct Site {
    text: String,
    folder: TempDir,
    endpoint: String,
}

/// The server, running. It dies with this value, as if by `kill -9`.
pub(crate) struct Running {
    pub(crate) process: Process,
    /// Plain HTTP for this machine itself.
    pub(crate) plain: SocketAddr,
    pub(crate) https: SocketAddr,
    /// Where http-01 is answered, if it is.
    pub(crate) port80: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    trust: PathBuf,
}

impl Site {
    /// For these names, with certificates from this directory, whose own address that root vouches for.
    pub(crate) fn new(stub: &Stub, names: &[&str], directory: &str, ca_root: &Path) -> Self {
        let text =
            fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/public.toml")).unwrap();
        // The harness has its own.
        let text = text.replace("\n[log]\n", "\n");
        Self { text, folder: TempDir::new().unwrap(), endpoint: stub.url() }
            .set("server", "http", "[\"127.0.0.1:0\"]")
            .set("server", "https", "[\"127.0.0.1:0\"]")
            .set("server", "admin", "\"127.0.0.1:0\"")
            .set("acme", "http", "[\"127.0.0.1:0\"]")
            .set("acme", "domains", &format!("{names:?}"))
            .set("acme", "directory", &format!("{directory:?}"))
            .set("acme", "ca_root", &format!("{ca_root:?}"))
            .keep_at("state")
    }

    /// With this value for a key that the shipped file shows.
    pub(crate) fn set(mut self, section: &str, key: &str, value: &str) -> Self {
        let start = self.text.find(&format!("\n[{section}]\n")).unwrap() + 1;
        let (before, after) = self.text.split_at(start);
        let line = after.lines().find(|line| line.trim_start_matches("# ").starts_with(&format!("{key} =")));
        let line = line.unwrap_or_else(|| panic!("conf/public.toml does not show {section}.{key}"));
        self.text =
            format!("{before}{}", after.replacen(&format!("\n{line}\n"), &format!("\n{key} = {value}\n"), 1));
        self
    }

    /// With its state folder at this path, below its own folder unless it is absolute.
    pub(crate) fn keep_at(self, state: impl AsRef<Path>) -> Self {
        let state = self.folder.path().join(state);
        self.set("acme", "state", &format!("{state:?}"))
    }

    /// Where its certificates, keys and schedule are.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The one file of this name below the state folder.
    pub(crate) fn kept(&self, name: &str) -> PathBuf {
        let mut found = files(&self.path("state"));
        found.retain(|path| path.file_name().is_some_and(|found| found == name));
        assert_eq!(found.len(), 1, "{name}: {found:?}");
        found.remove(0)
    }

    /// What the clients of this server trust.
    pub(crate) fn trust(&self, pem: impl AsRef<[u8]>) {
        fs::write(self.path("trust.pem"), pem).unwrap();
    }

    /// As [`Site::trust`], with the root that Pebble gives away at its other address.
    pub(crate) fn trust_pebble(&self, admin: SocketAddr, ca_root: &Path) {
        let mut wire = Wire::connect_tls(admin, ca_root);
        wire.send("GET /roots/0 HTTP/1.1\r\nhost: pebble\r\n\r\n");
        self.trust(wire.reply().body);
    }

    /// How it is started.
    pub(crate) fn launch(&self) -> Launch {
        Launch::at(&self.endpoint).config(&self.text)
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(&self) -> Running {
        self.run(&mut self.launch().command("serve"))
    }

    /// Starts it with no file allowed to grow beyond so many blocks of 512 bytes.
    pub(crate) fn start_with_file_limit(&self, blocks: u32) -> Running {
        let launch = self.launch();
        let served = launch.command("serve");
        let mut limited = Command::new("sh");
        limited.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
        limited.arg(served.get_program()).args(served.get_args());
        limited.envs(served.get_envs().filter_map(|(name, value)| Some((name, value?))));
        self.run(&mut limited)
    }

    fn uses_port80(&self) -> bool {
        !self.text.contains("\nhttp = []\n")
    }

    fn run(&self, command: &mut Command) -> Running {
        let process = Process::start(command);
        let address = |start: &str| process.announced(start).parse().unwrap();
        Running {
            plain: address("listening on http://"),
            https: address("listening on https://"),
            port80: self.uses_port80().then(|| address("redirecting to https on http://")),
            admin: address("admin on http://"),
            process,
            trust: self.path("trust.pem"),
        }
    }
}

impl Running {
    /// A connection over HTTPS, verified, and the certificate that was shown.
    pub(crate) fn connect(&self, name: &str) -> io::Result<(Wire, Vec<u8>)> {
        Wire::secure(self.https, &self.trust, name)
    }

    /// The certificate that a new connection is shown.
    pub(crate) fn shows(&self, name: &str) -> Vec<u8> {
        self.connect(name).unwrap_or_else(|error| panic!("{error}\n{}", self.process.printed())).1
    }

    /// A transcription over verified HTTPS, which must succeed.
    #[track_caller]
    pub(crate) fn transcribes(&self, name: &str) {
        let (mut wire, _) = self.connect(name).unwrap();
        wire.send(Request::post(&Form::of(&wav(2_000))).set("Host", name).bytes());
        let reply = wire.reply();
        assert_eq!((reply.status, reply.json()["text"].as_str()), (200, Some(TEXT)), "{reply:?}");
    }

    /// An answer of the admin address.
    pub(crate) fn admin(&self, path: &str) -> Reply {
        let mut wire = Wire::connect(self.admin);
        wire.send(get(path).bytes());
        wire.reply()
    }

    /// `/status` of the first set of names; null before there is any.
    pub(crate) fn status(&self) -> Value {
        self.admin("/status").json().pointer_mut("/tls/acme/0").map(Value::take).unwrap_or_default()
    }

    /// Whether `/ready` says so.
    pub(crate) fn is_ready(&self) -> bool {
        self.admin("/ready").status == 200
    }

    /// Why it is not ready.
    pub(crate) fn reason(&self) -> String {
        let reply = self.admin("/ready");
        assert_eq!(reply.status, 503, "{reply:?}");
        reply.json()["reasons"][0].as_str().unwrap().to_owned()
    }

    /// Waits until it has a certificate that is good.
    pub(crate) fn until_ready(&self) {
        self.until("ready", |this| this.is_ready());
    }

    /// Waits until an attempt to order has failed; why.
    pub(crate) fn until_failed(&self) -> String {
        self.until("a failure", |this| this.status()["last_error"].is_string());
        self.status()["last_error"].as_str().unwrap().to_owned()
    }

    /// Waits until it is so.
    pub(crate) fn until(&self, what: &str, so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so(self) {
            let told = || format!("{}\n{}", self.status(), self.process.printed());
            assert!(Instant::now() < deadline, "never: {what}\n{}", told());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// All files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
