//! Addresses on the other side: an upstream's URL, a proxy's URL.

use std::net::IpAddr;

use http::Uri;
use rustls::pki_types::ServerName;

use crate::base::secret::Secret;

/// Where requests are sent. The host is never empty, and fit for SNI and certificate checks: an empty name would
/// switch verification off in the connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// A DNS name in lower case without a final dot, or an IP address without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
    /// Starts with `/`; as written, still percent-encoded.
    pub path: String,
}

/// An HTTP proxy that is asked to `CONNECT`.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// Whether the proxy itself is spoken to over TLS.
    pub tls: bool,
    /// As in [`Endpoint`].
    pub host: String,
    /// Never 0.
    pub port: u16,
    /// `user:password`, percent-decoded: what goes base64-encoded into `Proxy-Authorization: Basic`.
    pub credentials: Option<Secret<String>>,
}

impl PartialEq for Proxy {
    /// Compares the operator's settings with each other, never with what somebody sent: time tells nobody anything.
    fn eq(&self, other: &Self) -> bool {
        fn parts(proxy: &Proxy) -> (bool, &str, u16, Option<&String>) {
            (proxy.tls, &proxy.host, proxy.port, proxy.credentials.as_ref().map(Secret::expose))
        }
        parts(self) == parts(other)
    }
}

/// What is wrong with a URL. Never quotes it: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlFault {
    /// Not a URL with a host (RFC 3986 section 3).
    #[error("is no URL; write for example https://chatgpt.com/backend-api/transcribe")]
    Grammar,
    /// Another scheme.
    #[error("must begin with http:// or https://")]
    Scheme,
    /// The host is neither a DNS name nor an IP address.
    #[error("has no host that is a DNS name or an IP address")]
    Host,
    /// The port is 0, over 65535 or no number.
    #[error("has a port that is not between 1 and 65535")]
    Port,
    /// `user:password@` before the host.
    #[error("may not hold a user name or password")]
    Userinfo,
    /// `?query` behind the path.
    #[error("may not hold a query (`?`)")]
    Query,
    /// `#fragment` at the end.
    #[error("may not hold a fragment (`#`)")]
    Fragment,
    /// A path on a proxy.
    #[error("may not hold a path: a proxy is a host and a port")]
    Path,
    /// Percent-encoding in a proxy's credentials that does not decode to UTF-8.
    #[error("has badly percent-encoded credentials")]
    Credentials,
}

impl Endpoint {
    /// Parses an absolute `http` or `https` URL without userinfo, query and fragment.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn parse(url: &str) -> Result<Self, UrlFault> {
        let Parts { tls, host, port, userinfo, path } = Parts::parse(url)?;
        match userinfo {
            Some(_) => Err(UrlFault::Userinfo),
            None => Ok(Self { tls, host, port, path }),
        }
    }

    /// The value of `Host` and `:authority`: brackets around IPv6, the port where it is not the scheme's own.
    pub fn authority(&self) -> String {
        authority(self.tls, &self.host, self.port)
    }

    /// The whole URL.
    pub fn url(&self) -> String {
        format!("{}://{}{}", scheme(self.tls), self.authority(), self.path)
    }

    /// Whether it is this very machine: `localhost`, a name below it (RFC 6761 section 6.3), or a loopback address.
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => self.host == "localhost" || self.host.ends_with(".localhost"),
        }
    }
}

impl Proxy {
    /// Parses `http://[user[:password]@]host[:port]`, or `https://`; without a scheme it is `http`, as curl and
    /// reqwest have it.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn parse(url: &str) -> Result<Self, UrlFault> {
        let with_scheme;
        let url = if url.contains("://") {
            url
        } else {
            with_scheme = format!("http://{url}");
            &with_scheme
        };
        let Parts { tls, host, port, userinfo, path } = Parts::parse(url)?;
        if path != "/" {
            return Err(UrlFault::Path);
        }
        let credentials = match userinfo {
            Some(text) => {
                let mut plain = percent_decoded(&text).ok_or(UrlFault::Credentials)?;
                if !plain.contains(':') {
                    plain.push(':');
                }
                Some(Secret::new(plain))
            }
            None => None,
        };
        Ok(Self { tls, host, port, credentials })
    }

    /// The URL without the credentials.
    pub fn url(&self) -> String {
        format!("{}://{}", scheme(self.tls), authority(self.tls, &self.host, self.port))
    }
}

struct Parts {
    tls: bool,
    host: String,
    port: u16,
    userinfo: Option<String>,
    path: String,
}

impl Parts {
    fn parse(url: &str) -> Result<Self, UrlFault> {
        // `http::Uri` drops a fragment without a word.
        if url.contains('#') {
            return Err(UrlFault::Fragment);
        }
        let uri: Uri = url.parse().map_err(|_| UrlFault::Grammar)?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(_) => return Err(UrlFault::Scheme),
            None => return Err(UrlFault::Grammar),
        };
        if uri.query().is_some() {
            return Err(UrlFault::Query);
        }
        let authority = uri.authority().ok_or(UrlFault::Grammar)?.as_str();
        let (userinfo, host_and_port) = match authority.rsplit_once('@') {
            Some((userinfo, rest)) => (Some(userinfo.to_owned()), rest),
            None => (None, authority),
        };
        // By hand, since `Uri::port` says `None` of a port that is out of range.
        let (host, port) = match host_and_port.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (host_and_port, None),
        };
        let port = match port {
            None | Some("") => default_port(tls),
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|port| *port != 0).ok_or(UrlFault::Port)?
            }
            Some(_) => return Err(UrlFault::Port),
        };
        Ok(Self { tls, host: checked_host(host)?, port, userinfo, path: uri.path().to_owned() })
    }
}

fn checked_host(host: &str) -> Result<String, UrlFault> {
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return match inner.parse::<IpAddr>() {
            Ok(IpAddr::V6(ip)) => Ok(ip.to_string()),
            _ => Err(UrlFault::Host),
        };
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    match ServerName::try_from(host.as_str()) {
        Ok(_) => Ok(host),
        Err(_) => Err(UrlFault::Host),
    }
}

fn authority(tls: bool, host: &str, port: u16) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    if port == default_port(tls) { host } else { format!("{host}:{port}") }
}

const fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

const fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

/// RFC 3986 section 2.1; `None` on a broken escape, on what is not UTF-8, or on a control character.
fn percent_decoded(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_and_put_together_again() {
        for (url, tls, host, port, path, authority) in [
            ("https://chatgpt.com/a/b", true, "chatgpt.com", 443, "/a/b", "chatgpt.com"),
            ("HTTP://LocalHost:8080", false, "localhost", 8080, "/", "localhost:8080"),
            ("https://example.com.:443/", true, "example.com", 443, "/", "example.com"),
            ("https://[2001:DB8::1]:8443/x", true, "2001:db8::1", 8443, "/x", "[2001:db8::1]:8443"),
            ("http://127.0.0.1:80/%20", false, "127.0.0.1", 80, "/%20", "127.0.0.1"),
        ] {
            let endpoint = Endpoint::parse(url).unwrap();
            let expected = Endpoint { tls, host: host.to_owned(), port, path: path.to_owned() };
            assert_eq!(endpoint, expected, "{url}");
            assert_eq!(endpoint.authority(), authority);
            assert_eq!(Endpoint::parse(&endpoint.url()), Ok(endpoint));
        }
    }

    #[test]
    fn what_is_no_plain_http_url_is_refused_with_the_reason() {
        for (url, why) in [
            ("", UrlFault::Grammar),
            ("chatgpt.com/backend-api", UrlFault::Grammar),
            ("/backend-api", UrlFault::Grammar),
            ("https://", UrlFault::Grammar),
            ("https:///transcribe", UrlFault::Grammar),
            ("https://a b/", UrlFault::Grammar),
            ("ftp://example.com/", UrlFault::Scheme),
            ("https://user:secret@example.com/", UrlFault::Userinfo),
            ("https://example.com/?a=1", UrlFault::Query),
            ("https://example.com/#a", UrlFault::Fragment),
            ("https://example.com:0/", UrlFault::Port),
            ("https://example.com:65536/", UrlFault::Port),
            ("https://-/", UrlFault::Host),
            ("https://.../", UrlFault::Host),
            ("https://[v1.a]/", UrlFault::Host),
        ] {
            assert_eq!(Endpoint::parse(url), Err(why), "{url}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for (url, loopback) in [
            ("http://localhost/", true),
            ("http://a.localhost/", true),
            ("http://127.8.9.1/", true),
            ("http://[::1]/", true),
            ("http://[::ffff:127.0.0.1]/", true),
            ("http://0.0.0.0/", false),
            ("http://localhost.example.com/", false),
            ("http://127.0.0.1.example.com/", false),
        ] {
            assert_eq!(Endpoint::parse(url).unwrap().is_loopback(), loopback, "{url}");
        }
    }

    #[test]
    fn a_proxy_keeps_its_credentials_to_itself() {
        let proxy = Proxy::parse("http://me:p%40ss%3A@proxy.example.com:3128").unwrap();
        assert_eq!(proxy.credentials.as_ref().unwrap().expose(), "me:p@ss:");
        assert_eq!(proxy.url(), "http://proxy.example.com:3128");
        assert!(!format!("{proxy:?}").contains("p@ss"), "{proxy:?}");
        assert_eq!(Proxy::parse("me@p:1").unwrap().credentials.unwrap().expose(), "me:");
    }

    #[test]
    fn a_proxy_is_a_host_and_a_port() {
        let proxy = Proxy::parse("127.0.0.1:7890").unwrap();
        assert_eq!((proxy.tls, proxy.host.as_str(), proxy.port), (false, "127.0.0.1", 7890));
        assert_eq!(Proxy::parse("https://p.example.com/").unwrap().port, 443);
        for (url, why) in [
            ("socks5://127.0.0.1:1080", UrlFault::Scheme),
            ("http://p.example.com/path", UrlFault::Path),
            ("http://u:%zz@p.example.com", UrlFault::Credentials),
            ("http://u:%+1@p.example.com", UrlFault::Credentials),
            ("http://u:a%0d%0a@p.example.com", UrlFault::Credentials),
        ] {
            assert_eq!(Proxy::parse(url).err(), Some(why), "{url}");
        }
    }
}
