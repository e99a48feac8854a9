//! Who sent a request, by what proxies said of it.
//!
//! Input: a byte of flags, then what a client put into the header before the last trusted proxy added its word.

#![no_main]

use asr_edge_fuzz::forwarded::{ClientHeader, Trust, subscriber};
use core::net::IpAddr;
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((flags, said)) = input.split_first() else { return Corpus::Reject };
    let Ok(forged) = HeaderValue::from_bytes(said) else { return Corpus::Reject };
    let header = if flags & 1 == 0 { ClientHeader::XForwardedFor } else { ClientHeader::Forwarded };
    let name = if flags & 1 == 0 { "x-forwarded-for" } else { "forwarded" };
    let trust = Trust { proxies: vec!["10.0.0.0/8".parse().unwrap()], header };
    let (proxy, stranger): (IpAddr, IpAddr) = ("10.1.1.1".parse().unwrap(), "192.0.2.1".parse().unwrap());

    // A stranger is a stranger, whatever it says.
    let mut alone = HeaderMap::new();
    alone.append(name, forged.clone());
    assert_eq!(trust.client(stranger, &alone), stranger, "an untrusted word was taken");
    assert_eq!(Trust::default().client(proxy, &alone), proxy, "nobody is trusted");

    // The proxy adds whom it saw, behind on the same line or on a line of its own. It can hide whom it speaks for, but
    // nobody else can be put in their place.
    let real = if flags & 2 == 0 { "198.51.100.7" } else { "2001:db8::7" };
    let word = match (flags & 1, flags & 2) {
        (0, _) => real.to_owned(),
        (_, 0) => format!("for={real};proto=https"),
        _ => format!("for=\"[{real}]:4711\""),
    };
    let mut headers = HeaderMap::new();
    if flags & 4 == 0 {
        headers.append(name, HeaderValue::from_bytes(&[said, b", ", word.as_bytes()].concat()).unwrap());
    } else {
        headers.append(name, forged);
        headers.append(name, HeaderValue::from_str(&word).unwrap());
    }
    let real: IpAddr = real.parse().unwrap();
    let seen = trust.client(proxy, &headers);
    if header == ClientHeader::XForwardedFor {
        assert_eq!(seen, real, "somebody else's address");
    } else {
        assert!(seen == real || seen == proxy, "{seen} is somebody else's address");
    }
    assert_eq!(subscriber(subscriber(seen)), subscriber(seen));
    Corpus::Keep
});
