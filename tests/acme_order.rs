//! Real issuances by Pebble: every challenge, every kind of name, account and lock.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test may panic, and writes its own files"
)]

#[path = "acme/pebble.rs"]
mod pebble;

use std::sync::Arc;
use std::time::{Duration, Instant};

use asr_edge::acme::{Acme, Challenges, World, wire};
use asr_edge::config::{AcmeSettings, Challenge};
use asr_edge::tls::Certificates;
use pebble::{Pebble, Temper, answer_http01, answer_tls_alpn01};

struct Server {
    acme: Acme,
    certificates: Arc<Certificates>,
}

fn start(settings: &AcmeSettings, challenges: &Arc<Challenges>) -> Server {
    let certificates = Arc::new(Certificates::new());
    let world = World::real(settings).unwrap();
    let acme = Acme::start(settings.clone(), Arc::clone(&certificates), Arc::clone(challenges), world);
    Server { acme, certificates }
}

/// Waits for something to become true.
async fn until(what: &str, pebble: &Pebble, server: &Server, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: {:?}\n{}", server.acme, pebble.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ready(pebble: &Pebble, server: &Server) {
    until("no certificate", pebble, server, || server.acme.problem().is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn issues_by_http_01_for_two_names() {
    let pebble = Pebble::start(&Temper::default());
    let challenges = Arc::new(Challenges::new());
    let _port80 = answer_http01(pebble.http, Arc::clone(&challenges)).await;
    let settings = pebble.settings(&["asr.example.com", "b.example.com"], &[Challenge::Http01]);
    let server = start(&settings, &challenges);
    ready(&pebble, &server).await;
    assert!(server.certificates.covers("asr.example.com") && server.certificates.covers("b.example.com"));
    assert!(challenges.is_empty());
    let status = server.acme.status();
    assert!(status[0].issuer.as_ref().unwrap().contains("Pebble") && status[0].last_error.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn issues_by_tls_alpn_01_without_any_certificate() {
    let pebble = Pebble::start(&Temper::default());
    let challenges = Arc::new(Challenges::new());
    let _port443 = answer_tls_alpn01(pebble.tls, Arc::clone(&challenges)).await;
    let settings = pebble.settings(&["asr.example.com", "b.example.com"], &[Challenge::TlsAlpn01]);
    let server = start(&settings, &challenges);
    ready(&pebble, &server).await;
    assert!(challenges.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn issues_for_an_address_by_either_challenge() {
    for way in [Challenge::Http01, Challenge::TlsAlpn01] {
        let pebble = Pebble::start(&Temper::default());
        let challenges = Arc::new(Challenges::new());
        let _port80 = answer_http01(pebble.http, Arc::clone(&challenges)).await;
        let _port443 = answer_tls_alpn01(pebble.tls, Arc::clone(&challenges)).await;
        let server = start(&pebble.settings(&["127.0.0.1"], &[way]), &challenges);
        ready(&pebble, &server).await;
        assert!(
            server.certificates.covers("127.0.0.1") && server.certificates.pick(None).is_some(),
            "{way:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nonces_that_are_refused_are_replaced() {
    // Some thirty calls: without a second try one of them would fail but for one run in five hundred.
    let pebble = Pebble::start(&Temper { bad_nonces: 18, ..Temper::default() });
    let challenges = Arc::new(Challenges::new());
    let _port80 = answer_http01(pebble.http, Arc::clone(&challenges)).await;
    let names: Vec<_> = (0..8).map(|n| format!("n{n}.example.com")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let server = start(&pebble.settings(&names, &[Challenge::Http01]), &challenges);
    ready(&pebble, &server).await;
    assert_eq!((server.acme.status()[0].last_error.as_deref(), pebble.orders()), (None, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_account_is_bound_to_an_external_one() {
    let pebble = Pebble::start(&Temper { external: true, ..Temper::default() });
    let challenges = Arc::new(Challenges::new());
    let _port80 = answer_http01(pebble.http, Arc::clone(&challenges)).await;
    let mut settings = pebble.settings(&["asr.example.com"], &[Challenge::Http01]);
    let server = start(&settings, &challenges);
    until("no refusal", &pebble, &server, || server.acme.status()[0].last_error.is_some()).await;
    let status = server.acme.status().remove(0);
    assert!(status.last_error.as_ref().unwrap().contains("externalAccountRequired"), "{status:?}");
    assert!(status.stopped);
    drop(server);
    settings.eab = Some(Pebble::eab());
    let server = start(&settings, &challenges);
    ready(&pebble, &server).await;
    assert_eq!(pebble.orders(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_loops_on_one_folder_place_one_order_and_make_one_account_and_restarts_none() {
    let pebble = Pebble::start(&Temper::default());
    let challenges = Arc::new(Challenges::new());
    let _port80 = answer_http01(pebble.http, Arc::clone(&challenges)).await;
    let settings = pebble.settings(&["asr.example.com"], &[Challenge::Http01]);
    let (one, other) = (start(&settings, &challenges), start(&settings, &challenges));
    ready(&pebble, &one).await;
    ready(&pebble, &other).await;
    assert_eq!(one.certificates.list(), other.certificates.list());
    drop((one, other));
    for _ in 0..10 {
        let again = start(&settings, &challenges);
        assert_eq!(again.acme.problem(), None, "served at once from the folder");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((pebble.orders(), pebble.accounts()), (1, 1), "{}", pebble.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn renews_by_itself_and_skips_what_is_proved_already() {
    let pebble = Pebble::start(&Temper { life: Some(40), reuse: true, ..Temper::default() });
    let challenges = Arc::new(Challenges::new());
    let port80 = answer_http01(pebble.http, Arc::clone(&challenges)).await;
    let server = start(&pebble.settings(&["asr.example.com"], &[Challenge::Http01]), &challenges);
    ready(&pebble, &server).await;
    port80.abort();
    let first = server.certificates.list();
    until("no renewal", &pebble, &server, || server.certificates.list() != first).await;
    assert!(server.certificates.list()[0].not_after > first[0].not_after);
    assert_eq!((pebble.orders(), pebble.accounts()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_proved_is_named_with_the_reason() {
    let pebble = Pebble::start(&Temper::default());
    let challenges = Arc::new(Challenges::new());
    let server = start(&pebble.settings(&["asr.example.com"], &[Challenge::Http01]), &challenges);
    until("no failure", &pebble, &server, || server.acme.status()[0].last_error.is_some()).await;
    let status = server.acme.status().remove(0);
    let error = status.last_error.unwrap();
    assert!(error.starts_with("not proved: asr.example.com: connection"), "{error}");
    assert!(status.fails == 1 && challenges.is_empty());
    assert!(server.acme.problem().unwrap().starts_with("there is no certificate yet: not proved"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_tells_its_time_before_anything_is_ordered() {
    let pebble = Pebble::start(&Temper::default());
    let settings = pebble.settings(&["asr.example.com"], &[Challenge::Http01]);
    let transport = World::real(&settings).unwrap().transport;
    let seen = wire::directory(&transport, settings.directory.as_str()).await.unwrap();
    assert!(seen.date.is_some() && seen.terms.is_some() && !seen.external_account);
    let stranger = AcmeSettings { ca_root: Vec::new(), ..settings };
    let transport = World::real(&stranger).unwrap().transport;
    let refused = wire::directory(&transport, stranger.directory.as_str()).await.unwrap_err();
    assert!(refused.to_string().contains("certificate"), "{refused}");
}
