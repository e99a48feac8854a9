//! tls-alpn-01 on the HTTPS port.

use std::sync::Arc;
use std::time::Duration;

use asr_edge::accept::listener::{self, Listener};
use asr_edge::accept::permits::Permits;
use asr_edge::accept::{Drain, Guard, Handshakes, Patience, Rules};
use asr_edge::acme::challenge::Challenges;
use asr_edge::config::Identifier;
use asr_edge::tls::Certificates;
use async_trait::async_trait;
use http::Response;
use hyper::body::Bytes;
use pingora::apps::http_app::{HttpServer, ServeHttp};
use pingora::protocols::http::ServerSession;
use tokio::sync::watch;

use crate::edge::s_client;

struct Nothing;

#[async_trait]
impl ServeHttp for Nothing {
    async fn response(&self, _: &mut ServerSession) -> Response<Vec<u8>> {
        Response::new(Vec::new())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validation_is_answered_before_there_is_any_certificate() {
    let challenges = Arc::new(Challenges::new());
    let wait = Duration::from_secs(5);
    let rules = Rules {
        patience: Patience { head: wait, idle: wait, late: Bytes::new, full: Bytes::new },
        permits: Arc::new(Permits::new(64, 64)),
        trust: Arc::default(),
        proxy_protocol: false,
        requests: 1,
    };
    let handshakes =
        Handshakes::new(Arc::new(Certificates::new()), Arc::clone(&challenges), Bytes::new).unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address;
    let (_stop, stopped) = watch::channel(false);
    let drain = Drain::new(stopped.clone());
    let guard = Guard::new(Arc::new(HttpServer::new_app(Nothing)), rules, drain, &Arc::default())
        .over_tls(handshakes);
    tokio::spawn(listener::serve(vec![listener], "test", guard, stopped));

    let ask = |name: &'static str, alpn: &'static str| async move {
        let arguments = ["-servername", name, "-alpn", alpn];
        tokio::task::spawn_blocking(move || s_client(address, &arguments)).await.unwrap()
    };
    let Some(early) = ask("asr.example.com", "acme-tls/1").await else { return };
    assert!(early.contains("SSL alert number 112"), "nothing is being proved yet: {early}");

    let offered = challenges.offer_alpn(&Identifier::Dns("asr.example.com".to_owned()), &[7; 32]).unwrap();
    for _ in 0..3 {
        let proved = ask("asr.example.com", "acme-tls/1").await.unwrap();
        assert!(proved.contains("ALPN protocol: acme-tls/1"), "as often as asked: {proved}");
        assert!(proved.contains("BEGIN CERTIFICATE"), "{proved}");
    }
    for (name, alpn) in [("other.example.com", "acme-tls/1"), ("asr.example.com", "h2,acme-tls/1")] {
        let refused = ask(name, alpn).await.unwrap();
        assert!(refused.contains("SSL alert number 112"), "{name} {alpn}: {refused}");
    }
    drop(offered);
    assert!(ask("asr.example.com", "acme-tls/1").await.unwrap().contains("SSL alert number 112"));
}
