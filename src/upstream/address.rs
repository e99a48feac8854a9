//! Where the upstream is: its name looked up off the request path's fast lane, the last good answer kept.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::time::Instant;

/// How long an answer of the resolver is taken as it is.
const FRESH: Duration = Duration::from_secs(60);

struct Found {
    addresses: Vec<SocketAddr>,
    at: Instant,
}

/// A host name and port, with the addresses they last had.
pub struct Address {
    host: String,
    port: u16,
    found: ArcSwapOption<Found>,
}

impl Address {
    /// A host name or a literal IP address (IPv6 without brackets).
    pub fn new(host: &str, port: u16) -> Self {
        Self { host: host.to_owned(), port, found: ArcSwapOption::empty() }
    }

    /// All addresses, the resolver's order kept. Asked again once a minute; where the resolver fails, the last good
    /// answer stands.
    ///
    /// # Errors
    /// The resolver's, if it never answered.
    pub async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if let Ok(literal) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(literal, self.port)]);
        }
        let known = self.found.load_full();
        if let Some(found) = &known
            && found.at.elapsed() < FRESH
        {
            return Ok(found.addresses.clone());
        }
        let asked = tokio::net::lookup_host((self.host.as_str(), self.port)).await.map(Vec::from_iter);
        match (asked, known) {
            (Ok(addresses), _) if !addresses.is_empty() => {
                self.found.store(Some(Arc::new(Found { addresses: addresses.clone(), at: Instant::now() })));
                Ok(addresses)
            }
            (_, Some(found)) => Ok(found.addresses.clone()),
            (Ok(_), None) => Err(io::Error::new(io::ErrorKind::NotFound, "name has no address")),
            (Err(error), None) => Err(error),
        }
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_literal_address_needs_no_resolver() {
        let addresses = Address::new("::1", 443).resolve().await.unwrap();
        assert_eq!(addresses, ["[::1]:443".parse().unwrap()]);
    }

    #[tokio::test]
    async fn a_name_is_looked_up() {
        let addresses = Address::new("localhost", 80).resolve().await.unwrap();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{addresses:?}");
    }
}
