//! One issuance by a CA that was written by others than Pebble's authors: Caddy's `acme_server`. It comes by port 80
//! and no other: where that cannot be had, or there is no Caddy, this is skipped, visibly.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, tells the time and writes its own files"
)]

#[allow(dead_code, unused_imports, reason = "shared by all tests of the program")]
mod harness;
#[path = "acme/site.rs"]
mod site;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use harness::{Stub, TEXT, eventually};
use site::Site;
use tempfile::TempDir;

/// A name that needs no name server.
const NAME: &str = "localhost";
const PORT80: &str = "127.0.0.1:80";

/// A running Caddy; it ends with this value.
struct Caddy {
    child: Child,
    folder: TempDir,
    port: u16,
}

impl Drop for Caddy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Caddy {
    /// Waits until it has made its root and listens.
    fn start() -> std::io::Result<Self> {
        let folder = TempDir::new()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let text = format!(
            "{{\n admin off\n skip_install_trust\n auto_https disable_redirects\n storage file_system {store:?}\n}}\n\
             https://127.0.0.1:{port} {{\n bind 127.0.0.1\n tls internal\n acme_server\n}}\n",
            store = folder.path().join("store"),
        );
        fs::write(folder.path().join("Caddyfile"), text)?;
        let child = Command::new("caddy")
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(folder.path().join("Caddyfile"))
            .env("HOME", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log"))?)
            .spawn()?;
        let this = Self { child, folder, port };
        eventually("Caddy", || {
            (this.said().contains("serving initial configuration") && this.root().is_file()).then_some(())
        });
        Ok(this)
    }

    /// The root of its own address and of what it issues.
    fn root(&self) -> std::path::PathBuf {
        self.folder.path().join("store/pki/authorities/local/root.crt")
    }

    fn said(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

/// Past the test runner, which keeps what passing tests print to itself.
fn skipped(why: &str) {
    std::io::stderr().write_all(format!("SKIPPED: no issuance by Caddy: {why}\n").as_bytes()).unwrap();
}

#[test]
fn caddy_issues_by_http_01() {
    if let Err(error) = TcpListener::bind(PORT80) {
        return skipped(&format!("{PORT80} cannot be bound: {error}"));
    }
    let caddy = match Caddy::start() {
        Ok(caddy) => caddy,
        Err(error) => return skipped(&format!("caddy (Debian package caddy) cannot be run: {error}")),
    };
    let stub = Stub::start(&["--text", TEXT]);
    let directory = format!("https://127.0.0.1:{}/acme/local/directory", caddy.port);
    let site = Site::new(&stub, &[NAME], &directory, &caddy.root())
        .set("acme", "challenges", "[\"http-01\"]")
        .set("acme", "http", &format!("[{PORT80:?}]"));
    site.trust(fs::read(caddy.root()).unwrap());
    let running = site.start();
    running.until("a certificate, or a reason why not", |running| {
        running.is_ready() || running.status()["last_error"].is_string()
    });
    assert!(running.is_ready(), "{}\n{}", running.status(), caddy.said());
    running.transcribes(NAME);
    let issuer = running.status()["issuer"].as_str().unwrap().to_owned();
    assert!(issuer.contains("Caddy Local Authority"), "{issuer}");
}
