//! Reloads and upgrades with HTTPS on, by a certificate of the operator's own.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::reload::{reload, reloads};
use super::{begun_on, free, refuses, upload};
use crate::harness::{
    ACCOUNT, Bench, Ending, KEY, Launch, Process, Request, Stub, TEXT, TOKEN, Wire, eventually, get, wav,
};

const NAME: &str = "localhost";
const SOON: Duration = Duration::from_secs(15);

/// Certificates for [`NAME`], each of which vouches for itself.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let this = Self(TempDir::new().unwrap());
        ["one", "two"].iter().for_each(|pair| this.issue(pair));
        this
    }

    fn issue(&self, pair: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
        fs::write(self.certificate(pair), certificate.pem()).unwrap();
        fs::write(self.key(pair), key.serialize_pem()).unwrap();
    }

    fn certificate(&self, pair: &str) -> PathBuf {
        self.0.path().join(format!("{pair}.pem"))
    }

    fn key(&self, pair: &str) -> PathBuf {
        self.0.path().join(format!("{pair}.key"))
    }

    /// `[tls]` with the certificate of the one and the key of the other.
    fn section(&self, certificate: &str, key: &str) -> String {
        format!("[tls]\ncertificate = {:?}\nkey = {:?}\n", self.certificate(certificate), self.key(key))
    }

    /// A connection to who has this certificate.
    fn connect(&self, address: SocketAddr, pair: &str) -> std::io::Result<Wire> {
        Wire::secure(address, &self.certificate(pair), NAME).map(|(wire, _)| wire)
    }
}

const SERVER: &str = "[server]\nhttp = []\nhttps = [\"127.0.0.1:0\"]\nupgrade_socket = \"run/s\"\n";

/// The program with HTTPS alone, and its first certificate.
fn start(folder: &Folder) -> Bench {
    let stub = Stub::start(&["--text", TEXT]);
    let config = format!("{SERVER}{}", folder.section("one", "one"));
    let edge = Launch::to(&stub).config(&config).flags(&["--admin", "127.0.0.1:0"]).start();
    Bench { edge, stub }
}

fn over_tls(request: Request) -> Request {
    request.set("Host", NAME)
}

/// A status over this connection.
fn ask(wire: &mut Wire, request: Request) -> u16 {
    wire.send(over_tls(request).bytes());
    wire.reply().status
}

#[test]
fn another_certificate_is_shown_to_new_handshakes_and_no_connection_minds() {
    let folder = Folder::new();
    let bench = start(&folder);
    let mut kept = folder.connect(bench.edge.address, "one").unwrap();
    assert_eq!(ask(&mut kept, get("/healthz")), 200);
    let wire = folder.connect(bench.edge.address, "one").unwrap();
    let (mut slow, rest) = begun_on(wire, &bench, &over_tls(upload()));
    assert!(reload(&bench.edge, &format!("{SERVER}{}", folder.section("two", "two"))));
    assert!(folder.connect(bench.edge.address, "one").is_err());
    slow.send(rest);
    assert_eq!(slow.reply().status, 200, "begun before");
    bench.heard("begun before", &wav(3000));
    assert_eq!(ask(&mut kept, upload()), 200, "on the connection from before");
    let mut fresh = folder.connect(bench.edge.address, "two").unwrap();
    assert_eq!(ask(&mut fresh, upload()), 200);
    // The files that are followed are the new ones.
    folder.issue("one");
    folder.issue("two");
    eventually("the renewed one", || folder.connect(bench.edge.address, "two").ok());
    assert!(folder.connect(bench.edge.address, "one").is_err());
}

#[test]
fn a_certificate_at_fault_keeps_the_old_one_and_says_why() {
    let folder = Folder::new();
    let bench = start(&folder);
    let mut kept = folder.connect(bench.edge.address, "one").unwrap();
    fs::write(folder.certificate("torn"), "-----BEGIN CERTIFICATE-----\nMIIB").unwrap();
    for (section, why) in [
        (folder.section("torn", "two"), "tls.certificate"),
        (folder.section("two", "one"), "tls.key"),
        (folder.section("two", "missing"), "tls.key"),
        (format!("{}[limits]\nparts = 0\n", folder.section("two", "two")), "limits.parts"),
    ] {
        let (taken, refused) = reloads(&bench.edge);
        assert!(!reload(&bench.edge, &format!("{SERVER}{section}")), "{section}");
        assert_eq!(reloads(&bench.edge), (taken, refused + 1));
        eventually(why, || {
            let printed = bench.edge.printed();
            let says = |line: &str| line.contains("the old configuration stays") && line.contains(why);
            printed.lines().any(says).then_some(())
        });
        let mut fresh = folder.connect(bench.edge.address, "one").unwrap();
        assert_eq!(ask(&mut fresh, upload()), 200, "{section}");
    }
    assert_eq!(ask(&mut kept, upload()), 200);
    assert!(reload(&bench.edge, &format!("{SERVER}{}", folder.section("two", "two"))), "a good one is taken");
    assert!(folder.connect(bench.edge.address, "two").is_ok());
}

#[test]
fn https_comes_and_goes() {
    let folder = Folder::new();
    let stub = Stub::start(&["--text", TEXT]);
    let (plain, https) = (free(), free());
    let http = format!("[server]\nhttp = [\"{plain}\"]\n");
    let both = format!("{http}https = [\"{https}\"]\n{}", folder.section("one", "one"));
    let edge = Launch::to(&stub).config(&http).flags(&["--admin", "127.0.0.1:0"]).start();
    let bench = Bench { edge, stub };
    let mut old = bench.edge.wire();
    assert_eq!(ask(&mut old, get("/healthz")), 200);
    assert!(reload(&bench.edge, &both));
    let mut kept = folder.connect(https, "one").unwrap();
    assert_eq!(ask(&mut kept, upload()), 200);
    assert_eq!(ask(&mut old, upload()), 200);
    let wire = folder.connect(https, "one").unwrap();
    let (mut slow, rest) = begun_on(wire, &bench, &over_tls(upload()));
    assert!(reload(&bench.edge, &http));
    eventually("gone", || refuses(https).then_some(()));
    slow.send(rest);
    assert_eq!(slow.reply().status, 200, "begun before");
    assert_eq!(ask(&mut kept, upload()), 200, "connections stay, whatever becomes of their listener");
    assert_eq!(ask(&mut old, upload()), 200);
    assert!(reload(&bench.edge, &both), "and once more");
    assert_eq!(ask(&mut folder.connect(https, "one").unwrap(), upload()), 200);
}

/// The next program, once it listens.
fn upgrade(bench: &Bench) -> Process {
    let url = bench.stub.url();
    let login = ["--bearer", TOKEN, "--account-id", ACCOUNT];
    let next = bench.edge.upgrade(&[&["--endpoint", &url, "--api-key", KEY], &login[..]].concat());
    let address: SocketAddr = next.announced("listening on https://").parse().unwrap();
    assert_eq!(address, bench.edge.address, "the same socket, though any port was asked for");
    next
}

#[test]
fn an_upload_over_tls_is_finished_by_the_old_while_the_new_serves() {
    let folder = Folder::new();
    let mut bench = start(&folder);
    let connect = |bench: &Bench| folder.connect(bench.edge.address, "one").unwrap();
    let (mut slow, rest) = begun_on(connect(&bench), &bench, &over_tls(upload()));
    let mut idle = connect(&bench);
    assert_eq!(ask(&mut idle, get("/healthz")), 200);
    let mut next = upgrade(&bench);
    assert_eq!(idle.ended(), Ending::Closed, "idle connections may close");
    assert_eq!(ask(&mut connect(&bench), upload()), 200, "by the new one");
    assert!(bench.edge.runs(), "an upload is in flight");
    slow.send(rest);
    let reply = slow.reply();
    assert_eq!((reply.status, reply.header("connection")), (200, Some("close")), "{reply:?}");
    assert!(bench.edge.end_within(SOON).success());
    let mut fresh = connect(&bench);
    assert_eq!((ask(&mut fresh, upload()), ask(&mut fresh, upload())), (200, 200));
    next.terminate();
    assert!(next.end(SOON).success());
}

#[test]
fn no_handshake_fails_while_one_process_follows_the_other() {
    let folder = Folder::new();
    let mut bench = start(&folder);
    let (over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (address, folder) = (bench.edge.address, &folder);
    std::thread::scope(|scope| {
        let (over, asked) = (&over, &asked);
        let clients = [(); 4].map(|()| {
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) && asked.fetch_add(1, Ordering::Relaxed) < 4000 {
                    let connected = folder.connect(address, "one");
                    let mut wire = connected.unwrap_or_else(|error| panic!("no handshake: {error}"));
                    wire.send(over_tls(upload()).bytes());
                    match wire.reply_or_end() {
                        Ok(reply) => assert_eq!(reply.status, 200, "{reply:?}"),
                        Err(ending) => panic!("no answer, but {ending:?}"),
                    }
                }
            })
        });
        std::thread::sleep(Duration::from_millis(300));
        let next = upgrade(&bench);
        assert!(bench.edge.end().success());
        std::thread::sleep(Duration::from_millis(300));
        over.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        drop(next);
    });
    let complete = bench.stub.seen().iter().filter(|seen| seen.is_complete()).count();
    assert!(complete > 20, "{complete}");
}
