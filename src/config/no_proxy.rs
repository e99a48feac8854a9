//! `NO_PROXY`: the endpoints that no proxy stands before, read as curl and Go read it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Endpoint;

/// Whether a list names the endpoint. Its entries stand between commas or blanks: `*`, a host name, an address or a
/// network (`10.0.0.0/8`). A name means the hosts below it too, with or without a dot or `*.` in front. Behind a
/// name or an address, `:443` means that port alone. Names are not looked up: addresses and networks mean endpoints
/// that are given by address.
pub(super) fn names(list: &str, endpoint: &Endpoint) -> bool {
    let entries = list.split(|char: char| char == ',' || char.is_whitespace());
    entries.filter(|entry| !entry.is_empty()).any(|entry| is_named(entry, endpoint))
}

fn is_named(entry: &str, endpoint: &Endpoint) -> bool {
    let address = endpoint.host.parse::<IpAddr>().ok().map(|address| address.to_canonical());
    if entry == "*" {
        return true;
    }
    if let Ok(network) = entry.parse::<IpNet>() {
        return address.is_some_and(|address| network.contains(&address));
    }
    let Some((host, port)) = split(entry) else { return false };
    let is_host = match (host.parse::<IpAddr>(), address) {
        (Ok(named), Some(address)) => named.to_canonical() == address,
        (Err(_), None) => is_below(&endpoint.host, host),
        _ => false,
    };
    is_host && port.is_none_or(|port| port == endpoint.port)
}

/// The host and the port of an entry; an IPv6 address has brackets before a port, and may have them without. `None`
/// for what has neither form.
fn split(entry: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = entry.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?.parse().ok()?) };
        return Some((host, port));
    }
    match entry.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host, Some(port.parse().ok()?))),
        _ => Some((entry, None)),
    }
}

/// Whether a host is this domain, or one below it.
fn is_below(host: &str, domain: &str) -> bool {
    let domain = domain.trim_start_matches('*').trim_matches('.').to_ascii_lowercase();
    let above = host.strip_suffix(&domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    !domain.is_empty() && above
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_exempt(list: &str, url: &str) -> bool {
        names(list, &Endpoint::parse(url).unwrap())
    }

    #[test]
    fn a_name_means_itself_and_what_is_below_it() {
        for list in [
            "*",
            "example.com",
            ".example.com",
            "*.example.com",
            "EXAMPLE.com.",
            "com",
            "a.b,example.com",
            "a.b, example.com",
            "a.b example.com",
            " ,,example.com,",
        ] {
            assert!(is_exempt(list, "https://asr.example.com/x"), "{list}");
        }
        assert!(is_exempt(".example.com", "https://example.com"));
        for list in
            ["", ",", "ample.com", "sr.example.com", "b.asr.example.com", "example.org", ".", "*.", "**"]
        {
            assert!(!is_exempt(list, "https://asr.example.com/x"), "{list}");
        }
    }

    #[test]
    fn a_port_means_that_port_alone() {
        for list in ["example.com:8443", ".example.com:8443", "a:1,asr.example.com:8443"] {
            assert!(is_exempt(list, "https://asr.example.com:8443"), "{list}");
            assert!(!is_exempt(list, "https://asr.example.com"), "{list}");
        }
        assert!(is_exempt("example.com:443", "https://example.com"));
        assert!(is_exempt("10.0.0.1:8443", "https://10.0.0.1:8443"));
        assert!(!is_exempt("10.0.0.1:8443", "https://10.0.0.1"));
        assert!(is_exempt("[2001:db8::1]:8443", "https://[2001:db8::1]:8443"));
        assert!(!is_exempt("[2001:db8::1]:8443", "https://[2001:db8::1]"));
        for broken in ["example.com:", "example.com:x", "example.com:70000", "[::1", "[::1]x", ":443"] {
            assert!(!is_exempt(broken, "https://example.com"), "{broken}");
            assert!(!is_exempt(broken, "https://[::1]"), "{broken}");
        }
    }

    #[test]
    fn an_address_means_itself_however_it_is_written() {
        for (list, url) in [
            ("10.0.0.1", "https://10.0.0.1"),
            ("2001:db8::1", "https://[2001:db8:0:0::1]"),
            ("[2001:DB8::1]", "https://[2001:db8::1]"),
            ("::ffff:10.0.0.1", "https://10.0.0.1"),
            ("10.0.0.1", "https://[::ffff:10.0.0.1]"),
        ] {
            assert!(is_exempt(list, url), "{list}");
        }
        for (list, url) in [
            ("0.0.1", "https://10.0.0.1"),
            ("10.0.0.1", "https://10.0.0.10"),
            ("10.0.0.1", "https://x.10.0.0.1.example.com"),
            ("2001:db8::1", "https://[2001:db8::2]"),
        ] {
            assert!(!is_exempt(list, url), "{list}");
        }
    }

    #[test]
    fn a_network_means_the_addresses_in_it() {
        for list in ["10.0.0.0/8", "10.1.2.3/8", "192.168.0.0/16,10.0.0.0/8", "10.200.0.1/32", "0.0.0.0/0"] {
            assert!(is_exempt(list, "https://10.200.0.1:9"), "{list}");
            assert!(!is_exempt(list, "https://[2001:db8::1]"), "{list}");
            assert!(!is_exempt(list, "https://asr.example.com"), "{list}");
        }
        assert!(is_exempt("2001:db8::/32", "https://[2001:db8:ff::1]"));
        assert!(!is_exempt("2001:db8::/32", "https://[2001:db9::1]"));
        for list in ["10.0.0.0/16", "10.200.0.0/33", "10.200.0.1/", "10.200/16", "10.0.0.0/8:9"] {
            assert!(!is_exempt(list, "https://10.200.0.1:9"), "{list}");
        }
    }
}
