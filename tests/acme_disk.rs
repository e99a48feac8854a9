//! Disks that fail and files that are not whole: nothing is ordered that could not be kept, what is kept stays whole,
//! and what is not whole is not served.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, tells the time and writes its own files"
)]

#[path = "acme/fake_ca.rs"]
mod fake_ca;
#[path = "acme/front.rs"]
mod front;
#[allow(dead_code, unused_imports, reason = "shared by all tests of the program")]
mod harness;
#[path = "acme/pebble.rs"]
mod pebble;
#[path = "acme/site.rs"]
mod site;

use std::fs;
use std::path::{Path, PathBuf};

use asr_edge::base::clock;
use front::Front;
use harness::{Stub, TEXT, eventually};
use pebble::{Pebble, Temper};
use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use site::{Running, Site, files};

const NAME: &str = "asr.example.com";
/// 12 KiB in blocks of 512 bytes: more than is written to prove the disk, less than a certificate with much ballast.
const LIMIT: u32 = 24;
/// So many more certificates.
const BALLAST: usize = 30;

/// A CA on a socket, and a server of it that has not been started.
struct Bench {
    front: Front,
    site: Site,
    _stub: Stub,
}

impl Bench {
    fn new() -> Self {
        let (stub, front) = (Stub::start(&["--text", TEXT]), Front::start());
        let site = Site::new(&stub, &[NAME], &front.directory(), &front.ca_root()).set(
            "acme",
            "challenges",
            "[\"http-01\"]",
        );
        site.trust(&front.ca.root);
        Self { front, site, _stub: stub }
    }

    fn start(&self) -> Running {
        self.known(self.site.start())
    }

    fn start_with_file_limit(&self, blocks: u32) -> Running {
        self.known(self.site.start_with_file_limit(blocks))
    }

    /// The CA knows where its port 80 is.
    fn known(&self, running: Running) -> Running {
        self.front.ca.lock().port80 = running.port80;
        running
    }

    /// Has a certificate on disk that the CA wants renewed as soon as the server runs again; as it was kept.
    fn has_one_to_renew(&self) -> String {
        let mut ca = self.front.ca.lock();
        (ca.life, ca.backdate) = (86_400, 1);
        drop(ca);
        let running = self.start();
        running.until_ready();
        running.until("the schedule on disk", |_| self.front.ca.lock().ari_asked > 0);
        drop(running);
        let now = clock::unix();
        let schedule = self.site.kept("renewal.json");
        let mut renewal: serde_json::Value = serde_json::from_slice(&fs::read(&schedule).unwrap()).unwrap();
        (renewal["next"], renewal["ari_at"]) = (0.into(), (now + 3_600).into());
        renewal["window"] =
            serde_json::json!({"start": now - 9, "end": now - 1, "point": now - 5, "suggested": true});
        fs::write(schedule, renewal.to_string()).unwrap();
        fs::read_to_string(self.site.kept("certificate.pem")).unwrap()
    }

    fn orders(&self) -> usize {
        self.front.ca.orders().len()
    }
}

/// The first certificate of a PEM file.
fn leaf(pem: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

#[test]
fn a_state_folder_below_a_regular_file_is_refused_at_the_start_and_nothing_is_ordered() {
    let pebble = Pebble::start(&Temper::default());
    let stub = Stub::start(&[]);
    let site = Site::new(&stub, &[NAME], &pebble.directory, &pebble.ca_root()).keep_at("file/acme");
    fs::write(site.path("file"), "a regular file").unwrap();
    let output = site.launch().run("serve");
    assert_eq!(output.code, 64, "{output:?}");
    let file = site.path("file").display().to_string();
    let told = format!("acme.state: cannot be a folder: {file} is a file");
    assert!(output.stderr.contains(&told), "{output:?}");
    assert_eq!(fs::read_to_string(site.path("file")).unwrap(), "a regular file");
    assert_eq!((pebble.orders(), pebble.accounts()), (0, 0), "{}", pebble.said());
}

#[test]
fn where_nothing_can_be_written_the_ca_hears_nothing() {
    // Nothing at all, and half of what is written to prove the disk.
    for blocks in [0, 10] {
        let bench = Bench::new();
        let running = bench.start_with_file_limit(blocks);
        let why = running.until_failed();
        assert!(why.starts_with("nothing was ordered, the state folder cannot be used: "), "{why}");
        assert!(why.contains("File too large"), "{why}");
        assert!(running.reason().contains("nothing was ordered"), "{}", running.reason());
        assert_eq!(bench.front.calls(), 0);
        assert_left_clean(&bench.site.path("state"));
    }
}

/// No temporary file is left behind; one that is being written goes away.
fn assert_left_clean(state: &Path) {
    let ours = ["account.json", "certificate.pem", "renewal.json", "lock"];
    let is_ours = |path: &PathBuf| ours.iter().any(|name| path.ends_with(name));
    eventually("no temporary files", || files(state).iter().all(is_ours).then_some(()));
}

#[test]
fn a_write_limit_hit_during_the_save_leaves_the_old_file_whole_and_the_new_certificate_served() {
    let bench = Bench::new();
    let old = bench.has_one_to_renew();
    bench.front.ca.weather(|weather| weather.ballast = BALLAST);
    let running = bench.start_with_file_limit(LIMIT);
    running.until("a renewal", |running| running.status()["unsaved"] == true);
    assert_ne!(running.shows(NAME), leaf(&old), "from memory");
    running.transcribes(NAME);
    assert!(running.is_ready() && running.process.printed().contains("in memory alone"));
    assert_eq!(fs::read_to_string(bench.site.kept("certificate.pem")).unwrap(), old);
    assert_left_clean(&bench.site.path("state"));
    drop(running);
    let running = bench.start();
    running.until_ready();
    assert_eq!(running.shows(NAME), leaf(&old), "what is on disk is good");
    assert_eq!(bench.orders(), 2, "and no other one is ordered for it at once");
}

#[test]
fn a_write_limit_hit_before_a_renewal_orders_nothing_and_leaves_the_old_certificate_served() {
    let bench = Bench::new();
    let old = bench.has_one_to_renew();
    let calls = bench.front.calls();
    let running = bench.start_with_file_limit(0);
    let why = running.until_failed();
    assert!(why.starts_with("nothing was ordered"), "{why}");
    assert_eq!(running.shows(NAME), leaf(&old));
    assert!(running.is_ready());
    assert_eq!((bench.front.calls(), bench.orders()), (calls, 1));
    assert_eq!(fs::read_to_string(bench.site.kept("certificate.pem")).unwrap(), old);
    assert_left_clean(&bench.site.path("state"));
}

#[test]
fn torn_files_count_as_absent_and_are_replaced() {
    for torn in
        [&["certificate.pem"][..], &["renewal.json"], &["certificate.pem", "renewal.json", "account.json"]]
    {
        for left in [0, 2] {
            let bench = Bench::new();
            let running = bench.start();
            running.until_ready();
            let first = running.shows(NAME);
            drop(running);
            for name in torn {
                let path = bench.site.kept(name);
                let whole = fs::read(&path).unwrap();
                fs::write(&path, &whole[..whole.len() * left / 3]).unwrap();
            }
            let running = bench.start();
            running.until_ready();
            running.transcribes(NAME);
            assert!(
                running.process.printed().contains("counts as absent"),
                "{torn:?}: {}",
                running.process.printed()
            );
            let lost = torn.contains(&"certificate.pem");
            assert_eq!(running.shows(NAME) != first, lost, "{torn:?}");
            assert_eq!(bench.orders(), if lost { 2 } else { 1 }, "{torn:?}");
            let accounts = if torn.contains(&"account.json") { 2 } else { 1 };
            assert_eq!(bench.front.ca.lock().accounts.len(), accounts, "{torn:?}");
        }
    }
}

#[test]
fn a_key_that_does_not_belong_to_the_certificate_is_not_served() {
    let bench = Bench::new();
    let running = bench.start();
    running.until_ready();
    let first = running.shows(NAME);
    drop(running);
    let path = bench.site.kept("certificate.pem");
    let kept = fs::read_to_string(&path).unwrap();
    let certificates = kept.find("-----BEGIN CERTIFICATE-----").unwrap();
    let other = format!("{}{}", KeyPair::generate().unwrap().serialize_pem(), &kept[certificates..]);
    fs::write(&path, other).unwrap();
    // Time to look before there is another one.
    bench.front.ca.weather(|weather| weather.delay = std::time::Duration::from_millis(100));
    let running = bench.start();
    let refused = running.connect(NAME).err().unwrap().to_string();
    assert!(refused.contains("UnrecognisedName"), "{refused}");
    assert!(running.process.printed().contains("counts as absent"), "{}", running.process.printed());
    running.until_ready();
    assert_ne!(running.shows(NAME), first);
    assert_eq!(bench.orders(), 2);
}
