//! `asr-edge upstream-stub`: the stand-in upstream, told what to do and asked what it saw over HTTP.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::edge::address;
use super::process::Process;
use super::{LONG, Reply, Wire};

/// A running stand-in.
pub(crate) struct Stub {
    _process: Process,
    address: SocketAddr,
    root: Option<PathBuf>,
    _folder: TempDir,
}

/// One request as the stand-in saw it.
#[derive(Debug)]
pub(crate) struct Seen(Value);

impl Stub {
    /// Starts it with these flags. `--tls` brings its root along.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_asr-edge"));
        command.args(["upstream-stub", "--listen", "127.0.0.1:0"]).args(flags);
        let root = flags.contains(&"--tls").then(|| folder.path().join("root.pem"));
        if let Some(root) = &root {
            command.arg("--root").arg(root);
        }
        let process = Process::start(&mut command);
        let address = address(&process.announced("listening on "));
        Self { _process: process, address, root, _folder: folder }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What `--endpoint` is told.
    pub(crate) fn url(&self) -> String {
        match self.root {
            None => format!("http://{}/backend-api/transcribe", self.address),
            Some(_) => format!("https://localhost:{}/backend-api/transcribe", self.address.port()),
        }
    }

    /// The root to trust, when it speaks TLS.
    pub(crate) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// How it behaves from now on.
    #[allow(clippy::needless_pass_by_value)]
    pub(crate) fn script(&self, script: Value) {
        let reply = self.control("POST", "/script", &script.to_string());
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    /// Forgets what it saw.
    pub(crate) fn forget(&self) {
        self.control("DELETE", "/seen", "");
    }

    /// What it saw, from the first head on.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let seen = self.state();
        seen["requests"].as_array().unwrap().iter().cloned().map(Seen).collect()
    }

    /// Connections since its start, less the one that asks.
    pub(crate) fn connections(&self) -> u64 {
        self.state()["connections"].as_u64().unwrap()
    }

    /// Waits until it has seen what is looked for.
    pub(crate) fn wait(&self, what: &str, look: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        super::eventually(what, || Some(self.seen()).filter(|seen| look(seen)))
    }

    /// Nothing whole came. What was given up on may still be on its way: it gets some time.
    pub(crate) fn assert_nothing_whole(&self, what: &str) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(150) {
            let seen = self.seen();
            assert!(!seen.iter().any(Seen::is_complete), "{what}: {seen:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn state(&self) -> Value {
        self.control("GET", "/seen", "").json()
    }

    fn control(&self, method: &str, path: &str, body: &str) -> Reply {
        let mut wire = match &self.root {
            None => Wire::connect(self.address),
            Some(root) => Wire::connect_tls(self.address, root),
        };
        let length = body.len();
        wire.send(format!(
            "{method} {path} HTTP/1.1\r\nhost: stub\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
        ));
        wire.patience(LONG);
        wire.reply()
    }
}

impl Seen {
    /// The whole body came, with its closing boundary.
    pub(crate) fn is_complete(&self) -> bool {
        self.0["complete"].as_bool().unwrap()
    }

    /// Where it broke the contract.
    pub(crate) fn breach(&self) -> Option<&str> {
        self.0["breach"].as_str()
    }

    /// A request header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.0["headers"][name].as_str()
    }

    /// A text field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.part(name)?["value"].as_str()
    }

    /// The names of all parts, in order.
    pub(crate) fn parts(&self) -> Vec<&str> {
        self.0["parts"].as_array().unwrap().iter().map(|part| part["name"].as_str().unwrap_or("?")).collect()
    }

    /// The hash of the file part; empty when it did not come whole.
    pub(crate) fn audio_hash(&self) -> &str {
        self.part("file").and_then(|file| file["sha256"].as_str()).unwrap_or_default()
    }

    /// Bytes of the file part so far.
    pub(crate) fn audio_bytes(&self) -> u64 {
        self.part("file").and_then(|file| file["bytes"].as_u64()).unwrap_or_default()
    }

    /// Name and type of the file part.
    pub(crate) fn audio_name(&self) -> (&str, &str) {
        let of = |key| self.part("file").and_then(|file| file[key].as_str()).unwrap_or_default();
        (of("filename"), of("content_type"))
    }

    /// `Content-Length`.
    pub(crate) fn declared(&self) -> Option<u64> {
        self.0["declared"].as_u64()
    }

    /// Body bytes so far.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.0["body_bytes"].as_u64().unwrap()
    }

    /// Bytes behind the closing boundary's line.
    pub(crate) fn padding(&self) -> u64 {
        self.0["padding"].as_u64().unwrap()
    }

    /// `HTTP/1.1` or `HTTP/2`.
    pub(crate) fn protocol(&self) -> &str {
        self.0["protocol"].as_str().unwrap()
    }

    /// The number of its connection.
    pub(crate) fn connection(&self) -> u64 {
        self.0["connection"].as_u64().unwrap()
    }

    fn part(&self, name: &str) -> Option<&Value> {
        self.0["parts"].as_array()?.iter().find(|part| part["name"] == name)
    }
}
