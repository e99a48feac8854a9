//! The PROXY protocol, versions 1 and 2: how a balancer that passes bytes on tells whom it speaks for, in a header before
//! anything else (HAProxy's `proxy-protocol.txt`, sections 2.1 and 2.2).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest header that is read, bytes: 16 of version 2, addresses, and room for what clouds add (TLVs).
pub const LONGEST: usize = 4096;

/// What begins version 2; no other protocol begins so.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const WORD: &[u8; 6] = b"PROXY ";
/// A version 1 line with its CRLF.
const LONGEST_LINE: usize = 107;
/// Signature, version and command, family, length.
const HEAD: usize = 16;

/// What the first bytes of a connection come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preamble {
    /// The header is not all here yet.
    More,
    /// A whole header.
    Whole {
        /// Its length; what follows is the client's own.
        length: usize,
        /// Whom it speaks for; `None` when for itself (a health check), or for somebody without an address.
        client: Option<IpAddr>,
    },
    /// No header, or a broken one.
    Broken,
}

/// Reads the header at the start of `bytes`. Decides within [`LONGEST`] bytes, and says the same however many follow.
pub fn read(bytes: &[u8]) -> Preamble {
    if begins(bytes, SIGNATURE) {
        version_2(bytes).unwrap_or(Preamble::More)
    } else if begins(bytes, WORD) {
        version_1(bytes)
    } else {
        Preamble::Broken
    }
}

/// Whether one is the other's beginning.
fn begins(bytes: &[u8], word: &[u8]) -> bool {
    bytes.iter().zip(word).all(|(a, b)| a == b)
}

fn version_1(bytes: &[u8]) -> Preamble {
    let line = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if line.len() < LONGEST_LINE { Preamble::More } else { Preamble::Broken };
    };
    let text = line.get(WORD.len()..end).and_then(|line| core::str::from_utf8(line).ok());
    let client = text.and_then(|text| {
        let mut words = text.split(' ');
        match words.next()? {
            // What follows is to be ignored.
            "UNKNOWN" => Some(None),
            family @ ("TCP4" | "TCP6") => {
                let (source, target): (IpAddr, IpAddr) =
                    (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                let ports = words.by_ref().take(2).filter(|port| is_port(port)).count();
                let right = [source, target].iter().all(|ip| ip.is_ipv4() == (family == "TCP4"));
                (right && ports == 2 && words.next().is_none()).then_some(Some(source))
            }
            _ => None,
        }
    });
    client.map_or(Preamble::Broken, |client| Preamble::Whole { length: end + 2, client })
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// `None`: not all here yet.
fn version_2(bytes: &[u8]) -> Option<Preamble> {
    let [version, family, high, low] = *bytes.get(SIGNATURE.len()..)?.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if HEAD + length > LONGEST {
        return Some(Preamble::Broken);
    }
    let addresses = bytes.get(HEAD..HEAD + length)?;
    let client = match (version, family) {
        // LOCAL: the balancer itself.
        (0x20, _) => Some(None),
        // TCP and UDP over IPv4: two addresses, two ports.
        (0x21, 0x11 | 0x12) => addresses
            .get(..12)
            .and_then(<[u8]>::first_chunk)
            .map(|ip: &[u8; 4]| Some(Ipv4Addr::from(*ip).into())),
        (0x21, 0x21 | 0x22) => addresses
            .get(..36)
            .and_then(<[u8]>::first_chunk)
            .map(|ip: &[u8; 16]| Some(Ipv6Addr::from(*ip).into())),
        // Unspecified, or a Unix socket.
        (0x21, 0x00 | 0x31 | 0x32) => Some(None),
        _ => None,
    };
    Some(client.map_or(Preamble::Broken, |client| Preamble::Whole { length: HEAD + length, client }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Preamble {
        let bytes = text.as_bytes();
        let whole = read(bytes);
        for cut in 0..bytes.len() {
            let part = read(&bytes[..cut]);
            assert!(part == Preamble::More || part == whole, "{text:?} cut at {cut}: {part:?}");
        }
        whole
    }

    fn whole(length: usize, client: &str) -> Preamble {
        Preamble::Whole { length, client: (!client.is_empty()).then(|| client.parse().unwrap()) }
    }

    fn binary(version: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version, family], &length, addresses].concat()
    }

    #[test]
    fn a_line_names_the_client() {
        let line = "PROXY TCP4 192.0.2.7 203.0.113.9 56324 443\r\n";
        assert_eq!(client(line), whole(line.len(), "192.0.2.7"));
        assert_eq!(client(&format!("{line}GET / HTTP/1.1\r\n")), whole(line.len(), "192.0.2.7"));
        assert_eq!(client("PROXY TCP6 2001:db8::7 ::1 1 2\r\n"), whole(32, "2001:db8::7"));
        assert_eq!(client("PROXY UNKNOWN\r\n"), whole(15, ""));
        assert_eq!(client("PROXY UNKNOWN ffff:f...f 1 2\r\n"), whole(30, ""));
    }

    #[test]
    fn what_is_no_line_is_broken() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "PROXY\r\n",
            "PROXY TCP4 192.0.2.7 203.0.113.9 56324\r\n",
            "PROXY TCP4 192.0.2.7 203.0.113.9 56324 443 1\r\n",
            "PROXY TCP4 192.0.2.7 203.0.113.9 +1 443\r\n",
            "PROXY TCP4 192.0.2.7 203.0.113.9 1 65536\r\n",
            "PROXY TCP4  192.0.2.7 203.0.113.9 1 2\r\n",
            "PROXY TCP4 ::1 203.0.113.9 1 2\r\n",
            "PROXY TCP6 192.0.2.7 203.0.113.9 1 2\r\n",
            "PROXY UDP4 192.0.2.7 203.0.113.9 1 2\r\n",
            "proxy tcp4 192.0.2.7 203.0.113.9 1 2\r\n",
        ] {
            assert_eq!(read(line.as_bytes()), Preamble::Broken, "{line}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert_eq!(read(endless.as_bytes()), Preamble::Broken);
        assert_eq!(read(&endless.as_bytes()[..LONGEST_LINE - 1]), Preamble::More);
    }

    #[test]
    fn the_binary_header_names_the_client_too() {
        let ip4 = [192, 0, 2, 7, 203, 0, 113, 9, 0, 1, 0, 2];
        assert_eq!(read(&binary(0x21, 0x11, &ip4)), whole(28, "192.0.2.7"));
        let tlv = [&ip4[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
        assert_eq!(read(&[binary(0x21, 0x11, &tlv), b"GET".to_vec()].concat()), whole(35, "192.0.2.7"));
        let mut ip6 = [0; 36];
        ip6[15] = 1;
        assert_eq!(read(&binary(0x21, 0x21, &ip6)), whole(52, "::1"));
        assert_eq!(read(&binary(0x20, 0x00, &[])), whole(16, ""));
        assert_eq!(read(&binary(0x20, 0x11, &ip4)), whole(28, ""), "a health check of the balancer's own");
        assert_eq!(read(&binary(0x21, 0x31, &[0; 216])), whole(232, ""));
    }

    #[test]
    fn a_binary_header_that_lies_is_broken() {
        assert_eq!(read(&binary(0x21, 0x11, &[0; 11])), Preamble::Broken);
        assert_eq!(read(&binary(0x21, 0x21, &[0; 35])), Preamble::Broken);
        assert_eq!(read(&binary(0x11, 0x11, &[0; 12])), Preamble::Broken, "another version");
        assert_eq!(read(&binary(0x22, 0x11, &[0; 12])), Preamble::Broken, "another command");
        assert_eq!(read(&binary(0x21, 0x13, &[0; 12])), Preamble::Broken, "another protocol");
        assert_eq!(read(&binary(0x21, 0x11, &[0; LONGEST])), Preamble::Broken, "too long");
        assert_eq!(read(&SIGNATURE[..7]), Preamble::More);
        assert_eq!(read(&binary(0x21, 0x11, &[0; 12])[..27]), Preamble::More);
    }
}
