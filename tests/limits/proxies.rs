//! Behind proxies: who they say is there is believed of those that are trusted, and of nobody else.

use rcgen::KeyPair;

use super::{HEALTH, MODELS};
use crate::harness::{Bench, Ending, Request, Wire, eventually, get};

/// A program on loopback with more in its `[server]`.
fn behind(server: &str) -> Bench {
    Bench::with(|launch| launch.config(&format!("[server]\nhttp = [\"127.0.0.1:0\"]\n{server}\n")))
}

/// Waits for an access line of this client.
fn seen(bench: &Bench, client: &str) {
    let word = format!("client={client} ");
    eventually(&word, || bench.edge.printed().lines().any(|line| line.contains(&word)).then_some(()));
}

fn via(header: &str, value: &str) -> Request {
    get(HEALTH).header(header, value)
}

#[test]
fn without_trusted_proxies_nobody_is_believed() {
    let bench = behind("");
    assert_eq!(bench.ask(&via("X-Forwarded-For", "198.51.100.7")).status, 200);
    assert_eq!(bench.ask(&via("Forwarded", "for=198.51.100.7")).status, 200);
    seen(&bench, "127.0.0.1");
    assert!(!bench.edge.printed().contains("198.51.100.7"));
}

#[test]
fn a_trusted_proxy_names_the_client_in_its_header_alone() {
    let bench = behind("trusted_proxies = [\"127.0.0.0/8\"]");
    bench.ask(&via("X-Forwarded-For", "6.6.6.6, 198.51.100.7").header("Forwarded", "for=7.7.7.7"));
    seen(&bench, "198.51.100.7");
    let bench = behind("trusted_proxies = [\"127.0.0.1\"]\nclient_header = \"forwarded\"");
    bench
        .ask(&via("Forwarded", "for=6.6.6.6, for=\"[2001:db8::7]:80\"").header("X-Forwarded-For", "7.7.7.7"));
    seen(&bench, "2001:db8::7");
    assert!(
        !bench.edge.printed().contains("client=6.6.6.6") && !bench.edge.printed().contains("client=7.7.7.7")
    );
}

#[test]
fn limits_are_kept_for_the_client_behind_the_proxy() {
    let bench = Bench::with(|launch| {
        launch.config(
            "[server]\nhttp = [\"127.0.0.1:0\"]\ntrusted_proxies = [\"127.0.0.1\"]\n\
             [limits]\nconnections_per_address = 1\nfailed_keys_per_minute = 1\n",
        )
    });
    let ask = |client: &str, key: &str| {
        bench.ask(&get(MODELS).set("Authorization", key).header("X-Forwarded-For", client)).status
    };
    for expected in [401, 401, 429] {
        assert_eq!(ask("198.51.100.7", "Bearer sk-guess"), expected);
    }
    let good = format!("Bearer {}", crate::harness::KEY);
    assert_eq!(ask("198.51.100.7", &good), 429);
    assert_eq!(ask("198.51.100.8", &good), 200);
    // The proxy's own connections are not counted per address.
    let _held: Vec<Wire> = (0..3).map(|_| bench.edge.wire()).collect();
    assert_eq!(ask("198.51.100.8", &good), 200);
}

#[test]
fn a_proxy_header_names_the_client_of_the_connection() {
    let bench = behind("trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true");
    for (header, client) in [
        (b"PROXY TCP4 198.51.100.7 203.0.113.9 4711 443\r\n".to_vec(), "198.51.100.7"),
        (binary(&[198, 51, 100, 8, 203, 0, 113, 9, 0, 1, 0, 2]), "198.51.100.8"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
    ] {
        let mut wire = bench.edge.wire();
        // In one piece with what follows, and byte by byte.
        wire.send([&header[..], &get(HEALTH).bytes()].concat());
        assert_eq!(wire.reply().status, 200);
        seen(&bench, client);
        let mut wire = bench.edge.wire();
        for byte in &header {
            wire.send([*byte]);
        }
        for _ in 0..2 {
            wire.send(via("X-Forwarded-For", "6.6.6.6").bytes());
            assert_eq!(wire.reply().status, 200);
        }
    }
    // Named by the balancer, a client is no proxy: what it says of others counts for nothing. What the balancer itself
    // forwards does.
    let lines = |client: &str| {
        bench.edge.printed().lines().filter(|line| line.contains(&format!("client={client} "))).count()
    };
    eventually("what the balancer forwards for itself", || (lines("6.6.6.6") == 2).then_some(()));
    assert_eq!((lines("198.51.100.7"), lines("198.51.100.8"), lines("127.0.0.1")), (3, 3, 1));
}

#[test]
fn connections_are_counted_for_whom_the_proxy_header_names() {
    let bench = Bench::with(|launch| {
        launch.config(
            "[server]\nhttp = [\"127.0.0.1:0\"]\ntrusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\n\
             [limits]\nconnections_per_address = 1\n",
        )
    });
    let connect = |client: &str| {
        let mut wire = bench.edge.wire();
        wire.send(format!("PROXY TCP4 {client} 203.0.113.9 4711 443\r\n"));
        let _ = wire.offer(get(HEALTH).bytes());
        (wire.reply().status, wire)
    };
    let (status, _held) = connect("198.51.100.7");
    assert_eq!(status, 200);
    assert_eq!(connect("198.51.100.7").0, 503);
    assert_eq!(connect("198.51.100.8").0, 200);
}

#[test]
fn a_trusted_proxy_must_send_its_header_and_others_must_not() {
    let bench = behind("trusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true");
    let mut wire = bench.edge.wire();
    wire.send(get(HEALTH).bytes());
    assert!(wire.reply_or_end().is_err(), "no header");
    let bench = behind("trusted_proxies = [\"192.0.2.1\"]\nproxy_protocol = true");
    assert_eq!(bench.ask(&get(HEALTH)).status, 200, "who is not trusted needs none");
    let mut wire = bench.edge.wire();
    wire.send(b"PROXY TCP4 198.51.100.7 203.0.113.9 4711 443\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(wire.reply_or_end().is_ok_and(|reply| reply.status == 400) || wire.ended() == Ending::Closed);
    assert!(!bench.edge.printed().contains("198.51.100.7"));
}

#[test]
fn a_proxy_header_comes_before_tls() {
    let key = KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let bench = Bench::with(|launch| {
        let (pem, key) =
            (launch.file("c.pem", &certificate.pem()), launch.file("k.pem", &key.serialize_pem()));
        launch.config(&format!(
            "[server]\nhttp = []\nhttps = [\"127.0.0.1:0\"]\ntrusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\n\
             [tls]\ncertificate = {pem:?}\nkey = {key:?}\n"
        ))
    });
    for header in
        [b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n".to_vec(), binary(&[198, 51, 100, 8, 1, 1, 1, 1, 0, 1, 0, 2])]
    {
        let root = bench.edge.path("c.pem");
        let (mut wire, _) = Wire::secure_after(&header, bench.edge.address, &root, "localhost").unwrap();
        wire.send(get(HEALTH).set("Host", "localhost").bytes());
        assert_eq!(wire.reply().status, 200);
    }
    seen(&bench, "2001:db8::7");
    seen(&bench, "198.51.100.8");
    let without = Wire::secure(bench.edge.address, &bench.edge.path("c.pem"), "localhost");
    assert!(without.is_err(), "no header");
}

/// Version 2, TCP over IPv4.
fn binary(addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11".as_slice(), &length, addresses].concat()
}
