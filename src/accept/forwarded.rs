//! Who is behind a proxy: read from what it adds to the request, and believed only of proxies that the operator trusts.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use http::header::FORWARDED;
use ipnet::IpNet;

/// Which header the trusted proxies write. The other one is whatever a client put in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientHeader {
    /// `X-Forwarded-For`: addresses, the nearest last.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239), the nearest last.
    Forwarded,
}

/// The proxies that are believed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trust {
    /// Their networks; none by default.
    pub proxies: Vec<IpNet>,
    /// The header that they write.
    pub header: ClientHeader,
}

impl Trust {
    /// Whether this is the address of a trusted proxy.
    pub fn covers(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.proxies.iter().any(|network| network.contains(&address))
    }

    /// Who sent a request that came from `peer`: `peer` itself, unless it is trusted. Then the last address in its header
    /// that is not a trusted proxy's, since each proxy vouches for the one before it and for nobody farther away. Where
    /// the way back ends (no header, no address, `unknown`), the last proxy on it.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.covers(client) {
            return client;
        }
        let said = match self.header {
            ClientHeader::XForwardedFor => addresses(headers),
            ClientHeader::Forwarded => elements(headers).unwrap_or_default(),
        };
        for address in said.into_iter().rev() {
            let Some(address) = address else { break };
            client = address;
            if !self.covers(client) {
                break;
            }
        }
        client
    }
}

/// Whom a limit per address is kept for: one IPv4 address, or one IPv6 network of 64 bits, which one subscriber has
/// whole (RFC 6177).
pub fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address @ IpAddr::V4(_) => address,
    }
}

/// The addresses of `X-Forwarded-For`, all lines as one list; `None` for what is no address.
fn addresses(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let lines = headers.get_all("x-forwarded-for").iter();
    let words = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    words.map(|word| core::str::from_utf8(word).ok().and_then(address)).collect()
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()));
    address.map(|address| address.to_canonical())
}

/// The `for` of every element of `Forwarded` (RFC 7239 section 4); `None` where there is none with an address. A list
/// with a fault in it counts for nothing as a whole: who sees a quote begin elsewhere than the proxy did would take a
/// client's word for the proxy's.
fn elements(headers: &HeaderMap) -> Option<Vec<Option<IpAddr>>> {
    let mut found = Vec::new();
    for line in headers.get_all(FORWARDED) {
        let mut rest = line.to_str().ok()?;
        loop {
            let element;
            (element, rest) = self::element(rest)?;
            found.push(element);
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None if rest.is_empty() => break,
                None => return None,
            }
        }
    }
    Some(found)
}

/// One element up to its comma: `[ pair ] *( ";" [ pair ] )`.
fn element(text: &str) -> Option<(Option<IpAddr>, &str)> {
    let (mut named, mut rest, mut seen) = (None, text, false);
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if !rest.starts_with([',', ';']) && !rest.is_empty() {
            let (name, after) = rest.split_once('=')?;
            if name.is_empty() || !name.chars().all(is_token) {
                return None;
            }
            let value;
            (value, rest) = self::value(after)?;
            if name.eq_ignore_ascii_case("for") {
                // Each name once (RFC 7239 section 4).
                if core::mem::replace(&mut seen, true) {
                    return None;
                }
                named = address(&value);
            }
            rest = rest.trim_start_matches([' ', '\t']);
        }
        match rest.strip_prefix(';') {
            Some(more) => rest = more,
            None => return Some((named, rest)),
        }
    }
}

/// A token, or a quoted string without its quotes (RFC 9110 section 5.6.4).
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(|character| !is_token(character)).unwrap_or(text.len());
        let (token, rest) = text.split_at_checked(end)?;
        return (!token.is_empty()).then(|| (token.to_owned(), rest));
    };
    let (mut value, mut characters) = (String::new(), quoted.chars());
    loop {
        match characters.next()? {
            '"' => return Some((value, characters.as_str())),
            '\\' => value.push(characters.next()?),
            character => value.push(character),
        }
    }
}

/// RFC 9110 section 5.6.2, with the colon that some proxies forget to quote.
fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(header: ClientHeader) -> Trust {
        let proxies = ["10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap()).to_vec();
        Trust { proxies, header }
    }

    fn client(peer: &str, header: ClientHeader, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append("x-forwarded-for", line.parse().unwrap());
            headers.append(FORWARDED, line.parse().unwrap());
        }
        trust(header).client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn nobody_is_believed_unless_trusted() {
        for header in [ClientHeader::XForwardedFor, ClientHeader::Forwarded] {
            assert_eq!(client("192.0.2.1", header, &["198.51.100.1"]), "192.0.2.1");
            assert_eq!(client("192.0.2.1", header, &["for=198.51.100.1"]), "192.0.2.1");
        }
        let nobody = Trust::default();
        let headers =
            HeaderMap::from_iter([("x-forwarded-for".parse().unwrap(), "6.6.6.6".parse().unwrap())]);
        assert_eq!(nobody.client("::ffff:127.0.0.1".parse().unwrap(), &headers).to_string(), "127.0.0.1");
    }

    #[test]
    fn the_last_address_that_is_no_proxys_counts() {
        let client = |lines: &[&str]| client("10.1.1.1", ClientHeader::XForwardedFor, lines);
        assert_eq!(client(&["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client(&["6.6.6.6, 198.51.100.1"]), "198.51.100.1");
        assert_eq!(client(&["6.6.6.6", "198.51.100.1", "10.0.0.2,::1"]), "198.51.100.1");
        assert_eq!(client(&["10.0.0.3, 10.0.0.2"]), "10.0.0.3", "all of them proxies: the farthest");
        assert_eq!(client(&["198.51.100.1:4711"]), "198.51.100.1");
        assert_eq!(client(&["[2001:db8::7]:4711"]), "2001:db8::7");
        assert_eq!(client(&["[2001:db8::7]"]), "2001:db8::7");
        assert_eq!(client(&["::ffff:198.51.100.1"]), "198.51.100.1");
    }

    #[test]
    fn where_the_way_back_ends_the_last_proxy_counts() {
        for header in [ClientHeader::XForwardedFor, ClientHeader::Forwarded] {
            for lines in
                [&[][..], &[""], &["unknown"], &["6.6.6.6, unknown"], &["6.6.6.6,"], &["for=6.6.6.6, for=_x"]]
            {
                assert_eq!(client("10.1.1.1", header, lines), "10.1.1.1", "{lines:?}");
            }
        }
        assert_eq!(client("10.1.1.1", ClientHeader::XForwardedFor, &["6.6.6.6, x, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn forwarded_is_read_by_its_grammar() {
        let client = |lines: &[&str]| client("10.1.1.1", ClientHeader::Forwarded, lines);
        assert_eq!(client(&["for=198.51.100.1;proto=http;by=203.0.113.43"]), "198.51.100.1");
        assert_eq!(client(&["For=\"[2001:db8::7]:4711\""]), "2001:db8::7");
        assert_eq!(
            client(&["for=6.6.6.6, proto=https; FOR=\"198.51.100.1:80\" , for=10.0.0.2"]),
            "198.51.100.1"
        );
        assert_eq!(client(&["for=6.6.6.6", "for=198.51.100.1"]), "198.51.100.1");
        assert_eq!(client(&["for=198.51.100.1;secret=\"a, for=6.6.6.6\""]), "198.51.100.1");
        assert_eq!(client(&["proto=https"]), "10.1.1.1");
    }

    #[test]
    fn a_quote_that_a_client_leaves_open_spoils_the_list_and_forges_nothing() {
        let client = |lines: &[&str]| client("10.1.1.1", ClientHeader::Forwarded, lines);
        for forged in [
            "for=6.6.6.6;x=\"",
            "for=6.6.6.6;x=\"\\",
            "for=6.6.6.6;for",
            "for=6.6.6.6 x",
            "for==",
            "for=1.1.1.1;for=6.6.6.6",
        ] {
            assert_eq!(client(&[&format!("{forged}, for=198.51.100.1")]), "10.1.1.1", "{forged}");
            assert_eq!(client(&[&format!("{forged}, for=\"[2001:db8::7]\"")]), "10.1.1.1", "{forged}");
        }
    }

    #[test]
    fn a_subscriber_is_one_address_or_one_network() {
        let subscriber = |text: &str| subscriber(text.parse().unwrap()).to_string();
        assert_eq!(subscriber("192.0.2.7"), "192.0.2.7");
        assert_eq!(subscriber("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(subscriber("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }
}
