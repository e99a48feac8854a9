//! Sockets bound by ourselves, before anything runs: a taken port is a named error and exit 64, where Pingora's own
//! listeners retry and then panic; port 0 shows which port the system picked; and a socket stays open while those who
//! accept on it change.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::server::{Fds, ListenFds, ShutdownWatch};
use pingora::services::Service as _;
use pingora::services::listening::Service;

/// A bound socket.
#[derive(Debug)]
pub struct Listener {
    /// What was asked for, perhaps with port 0.
    pub asked: SocketAddr,
    /// Where it listens.
    pub address: SocketAddr,
    socket: TcpListener,
}

impl Listener {
    /// Binds; port 0 lets the system pick.
    ///
    /// # Errors
    /// What the system says: in use, not permitted, not an address of this machine.
    pub fn bind(asked: SocketAddr) -> io::Result<Self> {
        Self::new(asked, TcpListener::bind(asked)?)
    }

    /// A listening socket that another process has bound.
    ///
    /// # Errors
    /// It is no TCP socket.
    pub fn inherit(asked: SocketAddr, socket: OwnedFd) -> io::Result<Self> {
        Self::new(asked, socket.into())
    }

    /// Another hand on the same socket: it is closed with the last one.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn share(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()?, ..*self })
    }

    fn new(asked: SocketAddr, socket: TcpListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { asked, address: socket.local_addr()?, socket })
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Accepts on all of `listeners` for `app`, until `shutdown` turns true. Does nothing where there are none.
pub async fn serve<A: ServerApp + Send + Sync + 'static>(
    listeners: Vec<Listener>,
    name: &str,
    app: A,
    shutdown: ShutdownWatch,
) {
    if listeners.is_empty() {
        return;
    }
    let mut service = Service::new(name.to_owned(), app);
    let mut fds = Fds::new();
    for listener in listeners {
        let address = listener.address.to_string();
        service.add_tcp(&address);
        fds.add(address, listener.socket.into_raw_fd());
    }
    let fds: ListenFds = Arc::new(Mutex::new(fds));
    service.start_service(Some(fds), shutdown, 1).await;
}
