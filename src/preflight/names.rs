//! Whether the names to be certified lead to this machine, as a CA would follow them: A and AAAA alike.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::time::timeout;

use super::Finding;
use super::ports::BoundPort;
use crate::base::random;
use crate::config::{AcmeSettings, Identifier};

/// How long a knock at one port may go unheard.
const KNOCK: Duration = Duration::from_secs(3);

/// Looks at each name in turn.
pub(super) async fn look(acme: &AcmeSettings, bound: &[BoundPort], patience: Duration) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in &acme.domains {
        match name {
            Identifier::Ip(ip) => findings.push(address(name, *ip, bound, patience).await),
            Identifier::Dns(host) => match resolved(host, patience).await {
                Ok(addresses) if !addresses.is_empty() => {
                    for ip in addresses {
                        findings.push(
                            if acme.directory.is_lets_encrypt() && !Identifier::Ip(ip).is_public() {
                                hidden(name, ip)
                            } else {
                                address(name, ip, bound, patience).await
                            },
                        );
                    }
                }
                found => findings.push(unresolved(name, found.err())),
            },
        }
    }
    findings
}

fn subject(name: &Identifier) -> String {
    format!("name {name}")
}

/// All addresses, each once, IPv4 first.
async fn resolved(host: &str, patience: Duration) -> std::io::Result<BTreeSet<IpAddr>> {
    let asked = timeout(patience, lookup_host((host, 0))).await;
    let found = asked.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
    Ok(found.map(|address| address.ip()).collect())
}

fn unresolved(name: &Identifier, error: Option<std::io::Error>) -> Finding {
    let why = error.map_or_else(|| "no address".to_owned(), |error| error.to_string());
    Finding::fail(
        subject(name),
        format!(
            "has no A or AAAA record ({why}): add one that points to this machine, then wait until it is seen"
        ),
    )
}

/// `/etc/hosts` often gives a machine's own name a private address; the CA asks the public DNS.
fn hidden(name: &Identifier, ip: IpAddr) -> Finding {
    Finding::warn(
        subject(name),
        format!(
            "is {ip} as seen from here, which the CA cannot reach: if /etc/hosts says so, look at the public records with \
             `dig {name}`"
        ),
    )
}

async fn address(name: &Identifier, ip: IpAddr, bound: &[BoundPort], patience: Duration) -> Finding {
    let subject = subject(name);
    if is_ours(ip) {
        return Finding::pass(subject, format!("{ip} is an address of this machine"));
    }
    for port in bound {
        if leads_here(SocketAddr::new(ip, port.public), port, patience.min(KNOCK)).await {
            let public = port.public;
            return Finding::pass(subject, format!("{ip} port {public} is forwarded to this machine"));
        }
    }
    let dead =
        if ip.is_ipv6() { "; the CA tries IPv6 first, so remove the AAAA record if it is stale" } else { "" };
    Finding::warn(
        subject,
        format!(
            "{ip} is no address of this machine: right if a router or load balancer forwards ports 80 and 443 of it to \
             here (not to be told from inside), else change the record{dead}"
        ),
    )
}

/// Only an address of this machine can be bound.
fn is_ours(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Knocks from inside and listens who answers the door. Many routers do not let one knock at one's own outer address:
/// silence proves nothing.
async fn leads_here(target: SocketAddr, port: &BoundPort, patience: Duration) -> bool {
    let Ok(Ok(listener)) = port.listener.try_clone().map(TcpListener::from_std) else { return false };
    let word = random::fill::<32>();
    let knock = async {
        let mut stream = TcpStream::connect(target).await.ok()?;
        stream.write_all(&word).await.ok()?;
        // Open until it has been heard.
        let _ = stream.read_u8().await;
        Some(())
    };
    let hear = async {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return false };
            let mut heard = [0; 32];
            let read = timeout(patience, stream.read_exact(&mut heard)).await;
            if matches!(read, Ok(Ok(_))) && heard == word {
                return true;
            }
        }
    };
    let both = async {
        tokio::select! {
            heard = hear => heard,
            None = knock => false,
        }
    };
    timeout(patience, both).await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn bound() -> (SocketAddr, BoundPort) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        (listener.local_addr().unwrap(), BoundPort { public: 80, listener })
    }

    #[test]
    fn own_addresses_are_known_from_others() {
        assert!(is_ours("127.0.0.1".parse().unwrap()));
        assert!(!is_ours("192.0.2.1".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_knock_is_heard_at_our_own_door_alone() {
        let ((address, here), (elsewhere, _there)) = (bound(), bound());
        assert!(leads_here(address, &here, PATIENCE).await);
        assert!(!leads_here(elsewhere, &here, PATIENCE).await);
        let (closed, port) = bound();
        drop(port);
        assert!(!leads_here(closed, &here, PATIENCE).await);
    }

    #[tokio::test]
    async fn a_stray_caller_is_not_taken_for_the_knock() {
        let (address, here) = bound();
        let mut stray = TcpStream::connect(address).await.unwrap();
        stray.write_all(&[7; 32]).await.unwrap();
        assert!(leads_here(address, &here, PATIENCE).await);
    }
}
