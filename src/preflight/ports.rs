//! Whether every address can be listened on; if not, who is in the way.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};

use super::{Finding, owner};
use crate::config::Server;

/// A port that was free, held until the names have been looked at.
pub(super) struct BoundPort {
    /// Where the internet knocks: what is forwarded to the listener comes in there.
    pub(super) public: u16,
    /// Non-blocking.
    pub(super) listener: TcpListener,
}

/// Binds each address for a moment. The ports a CA would knock at are handed out, still bound.
pub(super) fn look(server: &Server) -> (Vec<Finding>, Vec<BoundPort>) {
    let mut findings = Vec::new();
    let mut bound = Vec::new();
    let public = [(&server.https, "https", 443), (&server.port80, "http", 80)];
    for (addresses, scheme, port) in public {
        for address in addresses {
            match bind(*address) {
                Ok(listener) => {
                    findings.push(free(*address, scheme, port));
                    bound.push(BoundPort { public: port, listener });
                }
                Err(error) => findings.push(taken(*address, &error)),
            }
        }
    }
    for address in server.http.iter().chain(&server.admin) {
        findings.push(match bind(*address) {
            Ok(_) => Finding::pass(subject(*address), "can be listened on"),
            Err(error) => taken(*address, &error),
        });
    }
    (findings, bound)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn subject(address: SocketAddr) -> String {
    format!("port {address}")
}

fn free(address: SocketAddr, scheme: &str, public: u16) -> Finding {
    if address.port() == public {
        return Finding::pass(subject(address), "can be listened on");
    }
    Finding::warn(
        subject(address),
        format!(
            "can be listened on; {scheme} comes in at port {public} from outside, so something must forward it here"
        ),
    )
}

fn taken(address: SocketAddr, error: &io::Error) -> Finding {
    let subject = subject(address);
    match error.kind() {
        ErrorKind::AddrInUse => match owner::of(address.port()) {
            Some(owner) if owner.is_ours() => Finding::pass(
                subject,
                format!("held by the asr-edge that is running (process {})", owner.pid),
            ),
            Some(owner) => Finding::fail(
                subject,
                format!(
                    "is taken by {} (process {}): stop it, or choose another port",
                    owner.name, owner.pid
                ),
            ),
            None => Finding::fail(
                subject,
                "is taken by a program that this user may not see: find it with `ss -ltnp` as root",
            ),
        },
        ErrorKind::PermissionDenied => Finding::fail(
            subject,
            "this user may not listen below 1024: run as the systemd unit does (AmbientCapabilities=\
             CAP_NET_BIND_SERVICE), or lower net.ipv4.ip_unprivileged_port_start",
        ),
        ErrorKind::AddrNotAvailable => {
            Finding::fail(subject, "is no address of this machine: see `ip address`, or listen on [::]")
        }
        _ => Finding::fail(subject, error.to_string()),
    }
}
