//! `[server]` and `acme.http`: where to listen, no address twice.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::check::{Desk, Given};
use super::raw::{Period, RawServer};
use super::{ServeFlags, Server};
use crate::accept::forwarded::{ClientHeader, Trust};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PORT: u16 = 8788;
/// All addresses of the machine, of both families.
const EVERYWHERE: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
const DRAIN: Duration = Duration::from_secs(30);
/// What browsers' preload lists ask for; longer helps nobody.
const LONGEST_HSTS: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);

const ADDRESS: &str = "must be an IP address and a port, such as 127.0.0.1:8788 or [::1]:8788";

/// What the rest of the configuration means for the listeners.
pub(super) struct Public {
    /// The domain came by variable: HTTPS listens although no address is given.
    pub(super) by_variable: bool,
    /// Certificates are ordered: port 80 is listened on unless told otherwise.
    pub(super) acme: bool,
}

/// Checks `[server]` together with `acme.http`.
pub(super) fn check(
    raw: RawServer,
    port80: Option<Vec<String>>,
    public: &Public,
    flags: &ServeFlags,
    desk: &mut Desk<'_>,
) -> Server {
    let mut taken = Vec::new();
    let http = plain(raw.http, raw.https.is_some() || public.by_variable, flags, &mut taken, desk);
    let https = match raw.https {
        None if public.by_variable => default("server.https", 443, &mut taken, desk),
        given => listed("server.https", &given.unwrap_or_default(), &mut taken, desk),
    };
    let port80 = match port80 {
        None if public.acme => default("acme.http", 80, &mut taken, desk),
        given => listed("acme.http", &given.unwrap_or_default(), &mut taken, desk),
    };
    let admin = match (&flags.admin, raw.admin) {
        (Some(text), _) => Some(Given { from: "--admin", value: text.clone() }),
        (None, Some(value)) => Some(Given { from: "server.admin", value }),
        (None, None) => None,
    };
    let admin = admin.and_then(|given| one(given.from.to_owned(), &given.value, &mut taken, desk));

    let hsts = raw.hsts.map(|Period(time)| time);
    if hsts.is_some_and(|time| time > LONGEST_HSTS) {
        desk.fault("server.hsts", "must be 730 days at most");
    }
    if hsts.is_some() && https.is_empty() && !desk.told("server.https") {
        desk.fault("server.hsts", "is sent over HTTPS alone, and server.https names no address");
    }
    // Unlike the timeouts, 0 is fine here: leave at once.
    let drain = match raw.drain_seconds {
        Some(Period(time)) if time.is_zero() => time,
        given => desk.period("server.drain_seconds", given, DRAIN),
    };
    let trust = trust(raw.trusted_proxies, raw.client_header.as_deref(), desk);
    let proxy_protocol = raw.proxy_protocol.unwrap_or_default();
    if proxy_protocol && trust.proxies.is_empty() && !desk.told("server.trusted_proxies") {
        desk.fault("server.proxy_protocol", "is spoken with nobody: server.trusted_proxies names no proxy");
    }
    let upgrade_socket = raw.upgrade_socket.map(|path| desk.path(&path));
    if flags.upgrade && upgrade_socket.is_none() {
        desk.fault("server.upgrade_socket", "is where --upgrade asks for the sockets; it is not set");
    }
    let hsts = hsts.map(|time| time.as_secs());
    Server { http, https, port80, hsts, admin, trust, proxy_protocol, drain, upgrade_socket }
}

/// `server.trusted_proxies` and `server.client_header`.
fn trust(proxies: Option<Vec<String>>, header: Option<&str>, desk: &mut Desk<'_>) -> Trust {
    let network = |(n, text): (usize, String)| {
        let text = text.trim();
        let network: Option<IpNet> =
            text.parse().ok().or_else(|| text.parse().ok().map(|ip: IpAddr| ip.to_canonical().into()));
        if network.is_none() {
            let path = format!("server.trusted_proxies[{n}]");
            desk.fault(path, "must be an IP address or a network, such as 10.0.0.0/8 or ::1");
        }
        network
    };
    let proxies = proxies.unwrap_or_default().into_iter().enumerate().filter_map(network).collect();
    let header = match header {
        None | Some("x-forwarded-for") => ClientHeader::XForwardedFor,
        Some("forwarded") => ClientHeader::Forwarded,
        Some(_) => {
            desk.fault("server.client_header", "must be \"x-forwarded-for\" or \"forwarded\"");
            ClientHeader::XForwardedFor
        }
    };
    Trust { proxies, header }
}

/// An address in use, and where it was given.
type Taken = Vec<(String, SocketAddr)>;

/// `server.http`, or the flags in its place.
fn plain(
    given: Option<Vec<String>>,
    https: bool,
    flags: &ServeFlags,
    taken: &mut Taken,
    desk: &mut Desk<'_>,
) -> Vec<SocketAddr> {
    if flags.host.is_some() || flags.port.is_some() {
        let host = flags.host.as_deref().map_or(Some(HOST), host);
        let port = flags.port.as_deref().map_or(Some(PORT), |text| text.trim().parse().ok());
        if host.is_none() {
            desk.fault("--host", "must be an IP address, or `localhost`");
        }
        if port.is_none() {
            desk.fault("--port", "must be a number, 65535 at most");
        }
        let address = host.zip(port).map(SocketAddr::from);
        taken.extend(address.map(|address| ("--port".to_owned(), address)));
        return address.into_iter().collect();
    }
    let Some(given) = given else {
        let address = SocketAddr::new(HOST, PORT);
        taken.push(("server.http".to_owned(), address));
        return vec![address];
    };
    if given.is_empty() && !https {
        desk.fault("server.http", "names no address");
    }
    listed("server.http", &given, taken, desk)
}

fn default(path: &str, port: u16, taken: &mut Taken, desk: &mut Desk<'_>) -> Vec<SocketAddr> {
    let address = SocketAddr::new(EVERYWHERE, port);
    free(path.to_owned(), address, taken, desk);
    vec![address]
}

fn listed(path: &str, given: &[String], taken: &mut Taken, desk: &mut Desk<'_>) -> Vec<SocketAddr> {
    given.iter().enumerate().filter_map(|(n, text)| one(format!("{path}[{n}]"), text, taken, desk)).collect()
}

fn one(path: String, text: &str, taken: &mut Taken, desk: &mut Desk<'_>) -> Option<SocketAddr> {
    let address = address(text);
    match address {
        Some(address) => free(path, address, taken, desk),
        None => desk.fault(path, ADDRESS),
    }
    address
}

/// Takes an address, unless it is taken.
fn free(path: String, address: SocketAddr, taken: &mut Taken, desk: &mut Desk<'_>) {
    match taken.iter().find(|(_, other)| collide(*other, address)) {
        Some((other, _)) => {
            desk.fault(path, format!("{address} is taken by {other} already; choose another port"));
        }
        None => taken.push((path, address)),
    }
}

fn address(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (name, port) = text.rsplit_once(':')?;
    Some(SocketAddr::new(host(name)?, port.parse().ok()?))
}

fn host(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("localhost") {
        return Some(HOST);
    }
    match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok(),
    }
}

/// Whether binding one keeps the other from being bound. Port 0 is a fresh port each time.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let wild = a.is_ipv4() == b.is_ipv4() && (a.ip().is_unspecified() || b.ip().is_unspecified());
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || wild)
}
