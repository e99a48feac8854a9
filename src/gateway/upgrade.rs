//! Connections for requests that switch protocols.
//!
//! Pingora 0.9.1 ends a tunnel at once when it hears the 101 before its own half has handed over the end of the request
//! (`proxy_h1.rs`, `proxy_handle_upstream`): what is looked at first is drawn by chance when both are there, as they are
//! when the service is quick or this thread was not. So what is read after a write waits for one more turn.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::ext::set_tcp_keepalive;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Makes them.
#[derive(Debug)]
pub(super) struct Upgrade {
    /// For the connection alone.
    pub(super) patience: Duration,
}

#[async_trait]
impl L4Connect for Upgrade {
    async fn connect(&self, address: &SocketAddr) -> pingora::Result<Stream> {
        let address = address.as_inet().ok_or_else(|| Error::new_up(ErrorType::ConnectNoRoute))?;
        let socket = timeout(self.patience, TcpStream::connect(address))
            .await
            .map_err(|_| Error::new_up(ErrorType::ConnectTimedout))?
            .map_err(|error| Error::because(ErrorType::ConnectError, "service", error).into_up())?;
        Ok(VirtualSocketStream::new(Box::new(InTurn { socket, wrote: false })).into())
    }
}

/// A socket that lets others go first between a write and the read that follows.
#[derive(Debug)]
struct InTurn {
    socket: TcpStream,
    wrote: bool,
}

impl AsyncRead for InTurn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.wrote) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for InTurn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl VirtualSocket for InTurn {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.socket.set_nodelay(true),
            VirtualSockOpt::KeepAlive(keepalive) => {
                set_tcp_keepalive(&self.socket, &keepalive).map_err(io::Error::other)
            }
            _ => Ok(()),
        }
    }
}
