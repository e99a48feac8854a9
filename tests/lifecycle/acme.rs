//! Reloads and upgrades with ordered certificates.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use tempfile::TempDir;

use super::reload::reload;
use super::{begun_on, upload};
use crate::front::Front;
use crate::harness::{
    ACCOUNT, Bench, Ending, KEY, Launch, Request, Stub, TEXT, TOKEN, Wire, eventually, get,
};

const NAME: &str = "asr.example.com";
const OTHER: &str = "speech.example.com";
const SOON: Duration = Duration::from_secs(15);

/// A server that has its first certificate, and the CA that it is from.
struct Site {
    bench: Bench,
    front: Front,
    https: SocketAddr,
    port80: SocketAddr,
    folder: TempDir,
}

impl Site {
    fn start() -> Self {
        let (front, folder) = (Front::start(), TempDir::new().unwrap());
        fs::write(folder.path().join("trust.pem"), &front.ca.root).unwrap();
        let stub = Stub::start(&["--text", TEXT]);
        let flags = ["--admin", "127.0.0.1:0"];
        let edge = Launch::to(&stub).config(&config(&front, &folder, &[NAME])).flags(&flags).start();
        let address = |start: &str| -> SocketAddr {
            let printed = || edge.printed().lines().find_map(|line| line.strip_prefix(start)?.parse().ok());
            eventually(start, printed)
        };
        let (https, port80) = (address("listening on https://"), address("redirecting to https on http://"));
        front.ca.lock().port80 = Some(port80);
        let site = Self { bench: Bench { edge, stub }, front, https, port80, folder };
        eventually("a certificate", || site.connect(NAME).ok());
        site
    }

    fn config(&self, names: &[&str]) -> String {
        config(&self.front, &self.folder, names)
    }

    fn trust(&self) -> PathBuf {
        self.folder.path().join("trust.pem")
    }

    /// A connection for this name, verified, and the certificate that was shown.
    fn connect(&self, name: &str) -> std::io::Result<(Wire, Vec<u8>)> {
        Wire::secure(self.https, &self.trust(), name)
    }

    /// The names of each order.
    fn orders(&self) -> Vec<Vec<String>> {
        self.front.ca.orders().into_iter().map(|order| order.names).collect()
    }

    /// `/status` of each set of names.
    fn status(&self) -> Value {
        self.bench.edge.admin_page("/status").json()["tls"]["acme"].take()
    }

    /// What port 80 says.
    fn redirects(&self) -> bool {
        let mut wire = Wire::connect(self.port80);
        wire.send(Request::new("GET", "/x").without("Authorization").set("Host", NAME).bytes());
        let reply = wire.reply();
        (reply.status, reply.header("location")) == (308, Some(&*format!("https://{NAME}/x")))
    }
}

fn config(front: &Front, folder: &TempDir, names: &[&str]) -> String {
    format!(
        "[server]\nhttp = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\nupgrade_socket = \"run/s\"\n\
         [acme]\ndomains = {names:?}\naccept_terms = true\nchallenges = [\"http-01\"]\n\
         http = [\"127.0.0.1:0\"]\ndirectory = {:?}\nca_root = {:?}\nstate = {:?}\n",
        front.directory(),
        front.ca_root(),
        folder.path().join("state"),
    )
}

fn transcribes(wire: &mut Wire, name: &str) {
    wire.send(upload().set("Host", name).bytes());
    let reply = wire.reply();
    assert_eq!(reply.status, 200, "{reply:?}");
}

#[test]
fn a_name_that_is_added_is_ordered_and_nothing_served_fails_meanwhile() {
    let site = Site::start();
    let first = site.connect(NAME).unwrap().1;
    let mut kept = site.connect(NAME).unwrap().0;
    let request = upload().set("Host", NAME);
    let (mut slow, rest) = begun_on(site.connect(NAME).unwrap().0, &site.bench, &request);
    // An order takes its time.
    site.front.ca.weather(|weather| weather.delay = Duration::from_millis(200));
    let (over, https, trust) = (AtomicBool::new(false), site.https, site.trust());
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            // A bounded number, well below what a connection is good for.
            for _ in 0..500 {
                transcribes(&mut Wire::secure(https, &trust, NAME).unwrap().0, NAME);
                transcribes(&mut kept, NAME);
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        assert!(reload(&site.bench.edge, &site.config(&[NAME, OTHER])));
        assert_eq!(site.connect(NAME).unwrap().1, first, "until there is another one");
        assert!(site.connect(OTHER).is_err());
        eventually("the other name", || site.connect(OTHER).ok());
        over.store(true, Ordering::Relaxed);
        client.join().unwrap();
    });
    let both = site.connect(OTHER).unwrap().1;
    assert_eq!(site.connect(NAME).unwrap().1, both, "one certificate for both");
    transcribes(&mut site.connect(OTHER).unwrap().0, OTHER);
    slow.send(rest);
    assert_eq!(slow.reply().status, 200, "begun before");
    assert_eq!(site.orders(), [vec![NAME], vec![NAME, OTHER]]);
    assert_eq!(site.front.ca.lock().accounts.len(), 1);
    assert!(site.redirects());
}

#[test]
fn a_reload_that_leaves_the_orders_alone_places_none() {
    let site = Site::start();
    let (first, status) = (site.connect(NAME).unwrap().1, site.status());
    let calls = site.front.calls();
    for parts in 10..15 {
        assert!(reload(&site.bench.edge, &format!("{}[limits]\nparts = {parts}\n", site.config(&[NAME]))));
    }
    assert_eq!(site.connect(NAME).unwrap().1, first);
    assert_eq!((site.status(), site.front.calls()), (status, calls));
    assert_eq!(site.orders(), [[NAME]]);
}

#[test]
fn orders_at_fault_keep_the_old_ones_and_say_why() {
    let site = Site::start();
    let (first, good) = (site.connect(NAME).unwrap().1, site.config(&[NAME, OTHER]));
    for (config, why) in [
        (good.replace("accept_terms = true", "accept_terms = false"), "acme.accept_terms"),
        (good.replace(OTHER, "*.example.com"), "acme.domains[1]"),
        (good.replace("\"http-01\"", "\"dns-01\""), "acme.challenges[0]"),
    ] {
        assert!(!reload(&site.bench.edge, &config), "{config}");
        eventually(why, || {
            let printed = site.bench.edge.printed();
            let says = |line: &str| line.contains("the old configuration stays") && line.contains(why);
            printed.lines().any(says).then_some(())
        });
        assert_eq!(site.connect(NAME).unwrap().1, first, "{config}");
    }
    assert_eq!(site.orders(), [[NAME]]);
}

#[test]
fn own_files_take_the_place_of_orders_and_back() {
    let site = Site::start();
    let first = site.connect(NAME).unwrap().1;
    let mut kept = site.connect(NAME).unwrap().0;
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new([NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    let [own_pem, own_key] =
        [("own.pem", own.pem()), ("own.key", key.serialize_pem())].map(|(name, text)| {
            let path = site.folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        });
    let ordered = site.config(&[NAME]);
    let (server, _) = ordered.split_once("[acme]").unwrap();
    let files = format!("{server}[tls]\ncertificate = {own_pem:?}\nkey = {own_key:?}\n");
    assert!(reload(&site.bench.edge, &files));
    assert_eq!(Wire::secure(site.https, &own_pem, NAME).unwrap().1, own.der().to_vec());
    transcribes(&mut kept, NAME);
    assert!(Wire::secure(site.https, &site.trust(), NAME).is_err());
    assert!(reload(&site.bench.edge, &ordered));
    assert_eq!(site.connect(NAME).unwrap().1, first, "what was kept");
    transcribes(&mut kept, NAME);
    assert_eq!(site.orders(), [[NAME]], "none was needed");
}

#[test]
fn the_next_process_serves_the_same_certificate_and_orders_none() {
    let mut site = Site::start();
    let first = site.connect(NAME).unwrap().1;
    let request = upload().set("Host", NAME);
    let (mut slow, rest) = begun_on(site.connect(NAME).unwrap().0, &site.bench, &request);
    let mut idle = site.connect(NAME).unwrap().0;
    let url = site.bench.stub.url();
    let flags = ["--endpoint", &url, "--api-key", KEY, "--bearer", TOKEN, "--account-id", ACCOUNT];
    let next = site.bench.edge.upgrade(&flags);
    let address = |start: &str| -> SocketAddr { next.announced(start).parse().unwrap() };
    assert_eq!(address("listening on https://"), site.https);
    assert_eq!(address("redirecting to https on http://"), site.port80);
    assert_eq!(site.connect(NAME).unwrap().1, first, "at once, from the folder");
    idle.send(get("/healthz").set("Host", NAME).bytes());
    assert_eq!(idle.reply().status, 200);
    assert_eq!(idle.ended(), Ending::Closed);
    transcribes(&mut site.connect(NAME).unwrap().0, NAME);
    slow.send(rest);
    assert_eq!(slow.reply().status, 200, "finished by the old");
    assert!(site.bench.edge.end_within(SOON).success());
    let (mut fresh, shown) = site.connect(NAME).unwrap();
    assert_eq!(shown, first);
    transcribes(&mut fresh, NAME);
    assert!(site.redirects(), "port 80 is the new one's");
    assert_eq!(site.orders(), [[NAME]]);
    assert_eq!(site.front.ca.lock().accounts.len(), 1);
}
