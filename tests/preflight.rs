//! `asr-edge check --online` against a CA, an upstream and ports on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, tells the time and writes its own files"
)]

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use asr_edge::config::{Config, ServeFlags};
use asr_edge::preflight::{self, Finding, Verdict};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const PATIENCE: Duration = Duration::from_secs(5);
const DIRECTORY: &str = r#"{
    "newNonce": "https://ca/nonce", "newAccount": "https://ca/account", "newOrder": "https://ca/order",
    "renewalInfo": "https://ca/ari", "keyChange": null, "unknown": {"a": 1},
    "meta": {"termsOfService": "https://ca/terms", "profiles": {"classic": "long", "shortlived": "short"}}
}"#;

/// A TLS server that gives everyone the same bytes, and the root that vouches for it.
struct Fake {
    address: SocketAddr,
    root: String,
}

impl Fake {
    /// An answer of `status` with `headers` (each ending in CRLF) and `body`, to any request.
    async fn answering(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        Self::saying(Some(format!(
            "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )))
        .await
    }

    /// A directory whose clock is `off` seconds ahead of ours.
    async fn directory(off: i64, body: &str) -> Self {
        let now = SystemTime::now();
        let then = match u64::try_from(off) {
            Ok(ahead) => now + Duration::from_secs(ahead),
            Err(_) => now - Duration::from_secs(off.unsigned_abs()),
        };
        Self::answering("200 OK", &format!("Date: {}\r\n", httpdate::fmt_http_date(then)), body).await
    }

    /// `None` says nothing at all.
    async fn saying(answer: Option<String>) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answer) = (acceptor.clone(), answer.clone());
                tokio::spawn(async move {
                    let mut stream = acceptor.accept(stream).await.ok()?;
                    let mut asked = [0; 2048];
                    let asked = stream.read(&mut asked).await.ok()?;
                    assert!(asked > 0);
                    match answer {
                        Some(answer) => stream.write_all(answer.as_bytes()).await.ok()?,
                        None => std::future::pending().await,
                    }
                    stream.shutdown().await.ok()
                });
            }
        });
        Self { address, root: certificate.pem() }
    }
}

/// An HTTP proxy for one tunnel, and what was asked of it.
async fn proxy() -> (SocketAddr, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(client.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let mut server = TcpStream::connect(target).await.unwrap();
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        head
    });
    (address, asked)
}

/// A public server's folder: key, login, roots, and what `edge.toml` says unless a test changes it.
struct Bench {
    folder: TempDir,
    domains: &'static str,
    https: String,
    port80: String,
    acme: String,
    codex: String,
}

impl Bench {
    fn new(directory: &Fake, upstream: &Fake) -> Self {
        let folder = TempDir::new().unwrap();
        for (name, text) in
            [("ca.pem", &directory.root), ("upstream.pem", &upstream.root), ("auth.json", &login(9))]
        {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let made = Command::new(env!("CARGO_BIN_EXE_asr-edge"))
            .args(["key", "new", "--name", "me", "--file"])
            .arg(folder.path().join("keys.toml"))
            .output()
            .unwrap();
        assert!(made.status.success());
        Command::new("chmod").arg("600").arg(folder.path().join("auth.json")).status().unwrap();
        Self {
            folder,
            domains: "\"localhost\"",
            https: "127.0.0.1:0".to_owned(),
            port80: "127.0.0.1:0".to_owned(),
            acme: format!("directory = \"https://{}/dir\"\nca_root = \"ca.pem\"\n", directory.address),
            codex: format!("endpoint = \"https://{}/x\"\nca_root = \"upstream.pem\"\n", upstream.address),
        }
    }

    fn arguments(&self) -> ServeFlags {
        let Self { domains, https, port80, acme, codex, .. } = self;
        let text = format!(
            "[server]\nhttp = []\nhttps = [\"{https}\"]\n[keys]\nfile = \"keys.toml\"\n\
             [codex]\nauth_file = \"auth.json\"\n{codex}\
             [acme]\ndomains = [{domains}]\nhttp = [\"{port80}\"]\nstate = \"state\"\naccept_terms = true\n{acme}"
        );
        let path = self.folder.path().join("edge.toml");
        fs::write(&path, text).unwrap();
        ServeFlags { config: Some(path), ..ServeFlags::default() }
    }

    async fn findings(&self) -> Vec<Finding> {
        self.findings_within(PATIENCE).await
    }

    async fn findings_within(&self, patience: Duration) -> Vec<Finding> {
        let config =
            Config::load(&self.arguments(), &|_| None).unwrap_or_else(|faults| panic!("{faults:#?}"));
        preflight::run(&config, patience).await
    }
}

/// An `auth.json` whose token ends in so many days.
fn login(days: i64) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let end = i64::try_from(now).unwrap() + days * 86_400 + 3600;
    let claims = URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{end}}}"));
    format!("{{\"tokens\":{{\"access_token\":\"e30.{claims}.PLANTED\",\"account_id\":\"a\"}}}}")
}

/// The one finding about this subject.
fn one<'a>(findings: &'a [Finding], subject: &str) -> &'a Finding {
    let mut about = findings.iter().filter(|finding| finding.subject.starts_with(subject));
    about.next().unwrap_or_else(|| panic!("nothing about {subject}: {findings:#?}"))
}

fn assert_found(findings: &[Finding], verdict: Verdict, subject: &str, part: &str) {
    let finding = one(findings, subject);
    assert!(finding.verdict == verdict && finding.detail.contains(part), "{verdict:?} {part}: {findings:#?}");
}

async fn well() -> (Fake, Fake) {
    (Fake::directory(0, DIRECTORY).await, Fake::saying(None).await)
}

#[tokio::test]
async fn a_server_with_all_it_needs_passes() {
    let (ca, upstream) = well().await;
    let bench = Bench::new(&ca, &upstream);
    let findings = bench.findings().await;
    for (subject, part) in [
        ("name localhost", "is an address of this machine"),
        ("directory https://127.0.0.1:", "can be reached and trusted; tells when to renew"),
        ("clock", "the CA's"),
        ("terms", "https://ca/terms"),
        ("profile", "it offers classic, shortlived"),
        ("storage ", "will be made"),
        ("upstream https://127.0.0.1:", "can be reached and trusted"),
        ("login", "ends in 9 days"),
        ("keys", "1 is taken"),
    ] {
        assert_found(&findings, Verdict::Pass, subject, part);
    }
    assert!(!findings.iter().any(|finding| finding.verdict == Verdict::Fail), "{findings:#?}");
    assert!(!bench.folder.path().join("state").exists(), "the folder would belong to whoever checks");
    assert!(!format!("{findings:?}").contains("PLANTED"));
}

#[tokio::test]
async fn the_command_prints_a_line_each_and_exits_with_1_when_one_fails() {
    for (off, code, line) in [(0, 0, "pass  clock: "), (-600, 1, "fail  clock: is 10m ")] {
        let (ca, upstream) = (Fake::directory(off, DIRECTORY).await, Fake::saying(None).await);
        let bench = Bench::new(&ca, &upstream);
        let config = bench.arguments().config.unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_asr-edge"));
        command.args(["check", "--online", "--config"]).arg(config).env_clear();
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let shown = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{shown}");
        assert!(shown.lines().any(|shown| shown.starts_with(line)), "{shown}");
    }
}

#[tokio::test]
async fn a_clock_more_than_five_minutes_off_fails() {
    for (off, side) in [(400, "behind the CA's"), (-400, "ahead of the CA's")] {
        let (ca, upstream) = (Fake::directory(off, DIRECTORY).await, Fake::saying(None).await);
        assert_found(&Bench::new(&ca, &upstream).findings().await, Verdict::Fail, "clock", side);
    }
}

#[tokio::test]
async fn an_authority_that_cannot_be_used_says_why() {
    let upstream = Fake::saying(None).await;
    let cut = DIRECTORY.replace("newOrder", "oldOrder");
    for (ca, part) in [
        (Fake::answering("404 Not Found", "", "").await, "status 404"),
        (Fake::answering("301 Moved", "Location: http://ca/dir\r\n", "").await, "cannot be used"),
        (Fake::answering("200 OK", "", "<html>").await, "is no JSON"),
        (Fake::answering("200 OK", "", &cut).await, "no newOrder"),
        (Fake::answering("200 OK", "", &"x".repeat(2 << 20)).await, "cannot be used"),
    ] {
        let findings = Bench::new(&ca, &upstream).findings().await;
        assert_found(&findings, Verdict::Fail, "directory", part);
    }
    let silent = Bench::new(&upstream, &upstream);
    let findings = silent.findings_within(Duration::from_millis(500)).await;
    assert_found(&findings, Verdict::Fail, "directory", "timed out");
    let (ca, _) = well().await;
    let mut bench = Bench::new(&ca, &upstream);
    bench.acme = bench.acme.replace("ca_root", "# ca_root");
    assert_found(&bench.findings().await, Verdict::Fail, "directory", "is not trusted: for a private CA");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    bench.acme = format!("directory = \"https://{closed}/dir\"\n");
    assert_found(&bench.findings().await, Verdict::Fail, "directory", "cannot be used");
}

#[tokio::test]
async fn a_directory_that_has_moved_is_followed() {
    let (ca, upstream) = well().await;
    let moved = format!("Location: https://{}/dir\r\n", ca.address);
    let moved = Fake::answering("301 Moved Permanently", &moved, "").await;
    let bench = Bench::new(&moved, &upstream);
    fs::write(bench.folder.path().join("ca.pem"), moved.root + &ca.root).unwrap();
    assert_found(&bench.findings().await, Verdict::Pass, "directory", "can be reached and trusted");
}

#[tokio::test]
async fn what_the_authority_does_not_offer_is_told_before_it_refuses() {
    let upstream = Fake::saying(None).await;
    let ca = Fake::directory(0, DIRECTORY).await;
    let mut bench = Bench::new(&ca, &upstream);
    bench.acme.push_str("profile = \"shortlived\"\n");
    assert_found(&bench.findings().await, Verdict::Pass, "profile", "is offered");
    bench.acme = bench.acme.replace("shortlived", "tlsserver");
    assert_found(&bench.findings().await, Verdict::Fail, "profile", "may be one of classic, shortlived");

    let bound = DIRECTORY.replace("\"meta\": {", "\"meta\": {\"externalAccountRequired\": true,");
    let bound = Fake::directory(0, &bound.replace("profiles", "others")).await;
    let mut bench = Bench::new(&bound, &upstream);
    bench.acme.push_str("profile = \"shortlived\"\n");
    let findings = bench.findings().await;
    assert_found(&findings, Verdict::Fail, "profile", "offers none");
    assert_found(&findings, Verdict::Fail, "account", "[acme.eab]");
    bench.acme.push_str("[acme.eab]\nkey_id = \"k\"\nhmac_key = \"PLANTED0\"\n");
    let findings = bench.findings().await;
    assert!(!findings.iter().any(|finding| finding.subject == "account"), "{findings:#?}");
    assert!(!format!("{findings:?}").contains("PLANTED"));
}

#[tokio::test]
async fn a_taken_port_is_told_with_who_has_it() {
    let (ca, upstream) = well().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut bench = Bench::new(&ca, &upstream);
    bench.port80 = taken.local_addr().unwrap().to_string();
    let who = format!("(process {})", std::process::id());
    assert_found(&bench.findings().await, Verdict::Fail, &format!("port {}", bench.port80), &who);
    bench.port80 = "192.0.2.1:80".to_owned();
    assert_found(&bench.findings().await, Verdict::Fail, "port 192.0.2.1:80", "no address of this machine");
}

#[tokio::test]
async fn a_port_held_by_the_running_server_passes() {
    use std::io::BufRead as _;

    let (ca, upstream) = well().await;
    let mut running = Command::new(env!("CARGO_BIN_EXE_asr-edge"))
        .args(["serve", "--port", "0", "--no-api-key", "--bearer", "t"])
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(running.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let mut bench = Bench::new(&ca, &upstream);
    bench.https = line.trim().trim_start_matches("listening on http://").to_owned();
    let findings = bench.findings().await;
    running.kill().unwrap();
    running.wait().unwrap();
    let detail = format!("held by the asr-edge that is running (process {})", running.id());
    assert_found(&findings, Verdict::Pass, &format!("port {}", bench.https), &detail);
}

#[tokio::test]
async fn a_port_other_than_the_public_one_needs_something_that_forwards() {
    let (ca, upstream) = well().await;
    let findings = Bench::new(&ca, &upstream).findings().await;
    assert_found(&findings, Verdict::Warn, "port 127.0.0.1:0", "comes in at port 443 from outside");
}

#[tokio::test]
async fn a_name_that_leads_nowhere_or_elsewhere_is_told_apart() {
    let (ca, upstream) = well().await;
    let mut bench = Bench::new(&ca, &upstream);
    bench.domains = "\"nowhere.invalid\", \"192.0.2.1\", \"127.0.0.1\"";
    let findings = bench.findings_within(Duration::from_secs(1)).await;
    assert_found(&findings, Verdict::Fail, "name nowhere.invalid", "has no A or AAAA record");
    assert_found(&findings, Verdict::Warn, "name 192.0.2.1", "is no address of this machine");
    assert_found(&findings, Verdict::Pass, "name 127.0.0.1", "is an address of this machine");
}

#[tokio::test]
async fn the_upstream_is_reached_through_the_proxy_and_must_be_trusted() {
    let (ca, upstream) = well().await;
    let (address, asked) = proxy().await;
    let mut bench = Bench::new(&ca, &upstream);
    bench.codex.push_str(&format!("proxy = \"http://user:PLANTED@{address}\"\n"));
    let findings = bench.findings().await;
    assert_found(&findings, Verdict::Pass, "upstream", "can be reached and trusted");
    assert!(!format!("{findings:?}").contains("PLANTED"));
    let head = asked.await.unwrap();
    assert!(head.starts_with(&format!("CONNECT {} HTTP/1.1\r\n", upstream.address)), "{head}");
    assert!(head.to_lowercase().contains("proxy-authorization: basic "), "{head}");

    let mut bench = Bench::new(&ca, &upstream);
    bench.codex = bench.codex.replace("upstream.pem", "ca.pem");
    assert_found(&bench.findings().await, Verdict::Fail, "upstream", "cannot be reached");
    bench.codex = format!("endpoint = \"https://192.0.2.1:{}/x\"\n", upstream.address.port());
    let findings = bench.findings_within(Duration::from_millis(300)).await;
    assert_found(&findings, Verdict::Fail, "upstream", "cannot be reached");
}

#[tokio::test]
async fn a_login_near_its_end_warns_and_one_past_it_fails() {
    let (ca, upstream) = well().await;
    let bench = Bench::new(&ca, &upstream);
    for (days, verdict, part) in [
        (1, Verdict::Warn, "ends in 24 hours"),
        (-1, Verdict::Fail, "has expired"),
        (30, Verdict::Pass, "ends in 30 days"),
    ] {
        fs::write(bench.folder.path().join("auth.json"), login(days)).unwrap();
        assert_found(&bench.findings().await, verdict, "login", part);
    }
    fs::write(bench.folder.path().join("auth.json"), "{}").unwrap();
    assert_found(&bench.findings().await, Verdict::Fail, "login", "codex login");
}

#[tokio::test]
async fn a_key_file_that_lets_nobody_in_fails() {
    let (ca, upstream) = well().await;
    let bench = Bench::new(&ca, &upstream);
    fs::write(bench.folder.path().join("keys.toml"), "").unwrap();
    assert_found(&bench.findings().await, Verdict::Fail, "keys", "none is taken");
}

#[tokio::test]
async fn a_state_folder_that_others_may_read_warns() {
    use std::os::unix::fs::PermissionsExt as _;

    let (ca, upstream) = well().await;
    let bench = Bench::new(&ca, &upstream);
    let state = bench.folder.path().join("state");
    fs::create_dir(&state).unwrap();
    for (mode, verdict, part) in [(0o755, Verdict::Warn, "chmod 700"), (0o700, Verdict::Pass, "by this user")]
    {
        fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
        assert_found(&bench.findings().await, verdict, "storage", part);
    }
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "the probe is gone");
}
