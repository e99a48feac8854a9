//! Every address that is listened on, bound before anything runs.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use crate::accept::listener::Listener;
use crate::config::{ConfigFault, Server};

/// Bound sockets by what is served on them.
#[derive(Debug, Default)]
pub(super) struct Ports {
    pub(super) http: Vec<Listener>,
    pub(super) https: Vec<Listener>,
    pub(super) port80: Vec<Listener>,
    pub(super) admin: Vec<Listener>,
}

/// A socket that is bound already, and the key that it was bound for.
pub(super) type Held = (String, Listener);

impl Ports {
    /// Binds them all, but for those that are held already.
    ///
    /// # Errors
    /// Every address that could not be had, with what to do about it; none stays bound then.
    pub(super) fn bind(server: &Server, mut held: Vec<Held>) -> Result<Self, Vec<ConfigFault>> {
        let mut faults = Vec::new();
        let mut bind = |path: &str, addresses: &[SocketAddr]| {
            let mut listeners = Vec::new();
            for address in addresses {
                match take(&mut held, path, *address).map_or_else(|| Listener::bind(*address), Ok) {
                    Ok(listener) => listeners.push(listener),
                    Err(error) => {
                        faults.push(ConfigFault { path: path.into(), why: why(*address, &error) });
                    }
                }
            }
            listeners
        };
        let ports = Self {
            http: bind("server.http", &server.http),
            https: bind("server.https", &server.https),
            port80: bind("acme.http", &server.port80),
            admin: bind("server.admin", server.admin.as_slice()),
        };
        if faults.is_empty() { Ok(ports) } else { Err(faults) }
    }

    /// The same sockets once more.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub(super) fn share(&self) -> io::Result<Self> {
        let share = |listeners: &[Listener]| listeners.iter().map(Listener::share).collect::<Result<_, _>>();
        Ok(Self {
            http: share(&self.http)?,
            https: share(&self.https)?,
            port80: share(&self.port80)?,
            admin: share(&self.admin)?,
        })
    }

    /// All of them, each with the key that it was bound for.
    pub(super) fn into_held(self) -> Vec<Held> {
        [
            ("server.http", self.http),
            ("server.https", self.https),
            ("acme.http", self.port80),
            ("server.admin", self.admin),
        ]
        .into_iter()
        .flat_map(|(path, listeners)| listeners.into_iter().map(move |listener| (path.to_owned(), listener)))
        .collect()
    }

    /// One line for each listener, with the ports that the system picked.
    pub(super) fn lines(&self) -> Vec<String> {
        [
            ("listening on http", &self.http),
            ("listening on https", &self.https),
            ("redirecting to https on http", &self.port80),
            ("admin on http", &self.admin),
        ]
        .into_iter()
        .flat_map(|(what, listeners)| {
            listeners.iter().map(move |listener| format!("{what}://{}", listener.address))
        })
        .collect()
    }
}

/// The socket for this address, if it is there. What is served on it may have changed; but port 0 is a port of its own
/// wherever it is asked for.
fn take(held: &mut Vec<Held>, path: &str, address: SocketAddr) -> Option<Listener> {
    let fits =
        |(for_path, listener): &Held| listener.asked == address && (for_path == path || address.port() != 0);
    let found = held.iter().position(fits)?;
    Some(held.remove(found).1)
}

fn why(address: SocketAddr, error: &io::Error) -> String {
    let remedy = match error.kind() {
        ErrorKind::AddrInUse => {
            "; another program (or this one, by an overlapping address) listens there, `ss -ltnp` names it"
        }
        ErrorKind::PermissionDenied => {
            "; ports below 1024 need root or CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE)"
        }
        ErrorKind::AddrNotAvailable => "; this machine has no such address",
        _ => "",
    };
    format!("{address}: {error}{remedy}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::accept::forwarded::Trust;

    fn server(http: &str, https: &[SocketAddr]) -> Server {
        Server {
            http: vec![http.parse().unwrap()],
            https: https.to_vec(),
            port80: Vec::new(),
            hsts: None,
            admin: None,
            trust: Trust::default(),
            proxy_protocol: false,
            drain: Duration::ZERO,
            upgrade_socket: None,
        }
    }

    #[test]
    fn an_address_that_cannot_be_had_is_named_by_its_key_with_what_to_do() {
        let taken = Ports::bind(&server("127.0.0.1:0", &[]), Vec::new()).unwrap();
        let address = taken.http[0].address;
        let faults = Ports::bind(&server("127.0.0.1:0", &[address]), Vec::new()).err().unwrap();
        assert_eq!(faults.len(), 1);
        assert_eq!(faults[0].path, "server.https");
        assert!(faults[0].why.contains("another program"), "{}", faults[0].why);
        assert_eq!(taken.lines(), [format!("listening on http://{address}")]);
    }

    #[test]
    fn a_socket_that_is_held_is_kept_and_one_that_is_not_wanted_is_closed() {
        let before = Ports::bind(&server("127.0.0.1:0", &[]), Vec::new()).unwrap();
        let address = before.http[0].address;
        let kept = Ports::bind(&server("127.0.0.1:0", &[]), before.into_held()).unwrap();
        assert_eq!(kept.http[0].address, address);
        let moved = Ports::bind(&server("127.0.0.1:0", &[address]), kept.into_held());
        assert_eq!(moved.err().unwrap()[0].path, "server.https", "port 0 took it");
        assert!(std::net::TcpListener::bind(address).is_ok(), "closed");
    }
}
