//! The PROXY header at the start of a connection, under arbitrary cutting.

#![no_main]

use asr_edge_fuzz::proxy_protocol::{LONGEST, Preamble, read};
use core::net::IpAddr;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes);
    // Every beginning says the same, or that more is needed.
    let decided = (0..=bytes.len()).find(|end| read(&bytes[..*end]) != Preamble::More);
    match decided {
        Some(end) => {
            assert!(end <= LONGEST, "decided late");
            assert!(
                (end..=bytes.len()).all(|end| read(&bytes[..end]) == whole),
                "another outcome for another cut"
            );
        }
        None => assert!(bytes.len() < LONGEST, "{LONGEST} bytes decide nothing"),
    }
    let Preamble::Whole { length, client } = whole else { return };
    assert!(length <= bytes.len() && Some(length) == decided, "not the header's own length");
    // Behind a header everything is the client's own: the header alone, written anew, names the same.
    assert_eq!(read(&bytes[..length]), whole);
    if let Some(client) = client {
        let line = match client {
            IpAddr::V4(client) => format!("PROXY TCP4 {client} 192.0.2.1 1 2\r\n"),
            IpAddr::V6(client) => format!("PROXY TCP6 {client} 2001:db8::1 1 2\r\n"),
        };
        assert_eq!(read(line.as_bytes()), Preamble::Whole { length: line.len(), client: Some(client) });
    }
});
