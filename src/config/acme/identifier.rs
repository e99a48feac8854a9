//! What a certificate can be ordered for: a DNS name or an IP address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One name of a certificate (RFC 8555 section 9.7.7, RFC 8738).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identifier {
    /// A host name in lower case: letters, digits and hyphens, without a final dot, no wildcard.
    Dns(String),
    /// An IP address without a zone.
    Ip(IpAddr),
}

/// Why a text is no name that a certificate can be ordered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameFault {
    /// `*.example.com`.
    #[error("is a wildcard, which is not supported: it needs dns-01; list the names one by one")]
    Wildcard,
    /// A scheme, path or port.
    #[error("must be a bare name such as asr.example.com: no https://, no port, no path")]
    NotBare,
    /// Characters outside ASCII.
    #[error("must be written in ASCII, as its xn-- form")]
    NotAscii,
    /// Not a host name (RFC 1123 section 2.1).
    #[error("is neither a host name (letters, digits, hyphens and dots) nor an IP address")]
    Grammar,
    /// A label over 63 bytes, or more than 253 in all.
    #[error("is too long: 63 characters between two dots, 253 in all")]
    Length,
}

/// Names that mean nothing outside a network or a machine (RFC 6761, RFC 6762, ICANN's `internal`).
const PRIVATE: [&str; 6] = ["localhost", "local", "internal", "test", "invalid", "onion"];

impl Identifier {
    /// A host name in any case, with or without a final dot, or an IP address, IPv6 with or without brackets.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, NameFault> {
        let text = text.trim();
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self::Ip(ip.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.contains(['/', ':']) {
            return Err(NameFault::NotBare);
        }
        if name.contains('*') {
            return Err(NameFault::Wildcard);
        }
        if !name.is_ascii() {
            return Err(NameFault::NotAscii);
        }
        let mut labels = name.split('.');
        if !labels.clone().all(label) || labels.next_back().is_some_and(numeric) {
            return Err(NameFault::Grammar);
        }
        if name.len() > 253 || name.split('.').any(|label| label.len() > 63) {
            return Err(NameFault::Length);
        }
        Ok(Self::Dns(name))
    }

    /// Whether a CA on the internet could ever prove it: a name below a public top-level domain, or an address that is
    /// not kept for private use.
    pub fn is_public(&self) -> bool {
        match self {
            Self::Dns(name) => name.rsplit_once('.').is_some_and(|(_, last)| !PRIVATE.contains(&last)),
            Self::Ip(IpAddr::V4(ip)) => is_public_v4(*ip),
            Self::Ip(IpAddr::V6(ip)) => is_public_v6(*ip),
        }
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(ip) => write!(f, "{ip}"),
        }
    }
}

fn label(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// A last label of digits is an IPv4 address gone wrong.
fn numeric(label: &str) -> bool {
    label.bytes().all(|b| b.is_ascii_digit())
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    // 100.64.0.0/10 is shared by carriers (RFC 6598).
    let shared = matches!(ip.octets(), [100, 64..=127, ..]);
    !(shared
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_unspecified()
        || ip.is_broadcast()
        || ip.is_multicast())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    !(ip.is_loopback()
        || ip.is_unspecified()
        || ip.is_multicast()
        || ip.is_unique_local()
        || ip.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, NameFault> {
        Identifier::parse(text).map(|name| name.to_string())
    }

    #[test]
    fn names_and_addresses_come_out_in_one_spelling() {
        for (given, meant) in [
            ("ASR.Example.COM.", "asr.example.com"),
            (" xn--bcher-kva.example ", "xn--bcher-kva.example"),
            ("pebble", "pebble"),
            ("203.0.113.7", "203.0.113.7"),
            ("[2001:DB8:0::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
        ] {
            assert_eq!(parsed(given).as_deref(), Ok(meant), "{given}");
        }
    }

    #[test]
    fn what_no_ca_certifies_is_told_apart() {
        for (given, why) in [
            ("*.example.com", NameFault::Wildcard),
            ("https://asr.example.com", NameFault::NotBare),
            ("asr.example.com:443", NameFault::NotBare),
            ("asr.example.com/v1", NameFault::NotBare),
            ("fe80::1%eth0", NameFault::NotBare),
            ("bücher.example", NameFault::NotAscii),
            ("", NameFault::Grammar),
            (".", NameFault::Grammar),
            ("a..b", NameFault::Grammar),
            ("-a.b", NameFault::Grammar),
            ("a-.b", NameFault::Grammar),
            ("a_b.example.com", NameFault::Grammar),
            ("1.2.3.400", NameFault::Grammar),
            ("a b.example.com", NameFault::Grammar),
        ] {
            assert_eq!(parsed(given), Err(why), "{given}");
        }
        let label = "a".repeat(63);
        assert!(parsed(&format!("{label}.example")).is_ok());
        assert_eq!(parsed(&format!("a{label}.example")), Err(NameFault::Length));
        assert_eq!(parsed(&format!("{label}.{label}.{label}.{label}")), Err(NameFault::Length));
    }

    #[test]
    fn private_names_and_addresses_are_known() {
        let public = |text: &str| Identifier::parse(text).unwrap().is_public();
        for text in ["asr.example.com", "203.0.113.7", "2001:db8::1", "100.128.0.1"] {
            assert!(public(text), "{text}");
        }
        for text in [
            "pebble",
            "localhost",
            "a.localhost",
            "printer.local",
            "a.internal",
            "10.0.0.1",
            "127.0.0.1",
            "100.64.0.1",
            "169.254.1.1",
            "::1",
            "fe80::1",
            "fd00::1",
        ] {
            assert!(!public(text), "{text}");
        }
    }
}
