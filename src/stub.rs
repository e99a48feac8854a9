//! `asr-edge upstream-stub`: the stand-in for Codex's `POST /backend-api/transcribe`.
//!
//! It holds a request to the contract (`contract: codex-upstream.md` section 1) to the letter, reports what it saw on
//! `GET /seen` (headers, credentials and texts included: it is for tests, with made-up ones), and misbehaves as told.
//! hyper and multer do its reading, so that it shares no code with the proxy it judges. Bodies of any size stream
//! through it.

mod arguments;
mod certificate;
mod contract;
mod hear;
mod intake;
mod line;
mod script;
mod seen;
mod serve;
mod speech;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use arguments::StubArgs;
pub use script::{Drop, Script};

use line::{Ending, Line};
use seen::Log;
use serve::House;

/// Whether HTTP/2 is spoken: by ALPN on TLS, by prior knowledge in the clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Http2 {
    /// Beside HTTP/1.1.
    #[default]
    Offered,
    /// And nothing else.
    Only,
    /// HTTP/1.1 alone.
    Never,
}

/// How a stand-in is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Speak TLS, with a certificate made for the occasion.
    pub tls: bool,
    /// How to behave until told otherwise.
    pub script: Script,
    /// Which protocols to speak.
    pub http2: Http2,
    /// Refuse requests without `Content-Length` on HTTP/2 too (on HTTP/1.1 they always are).
    pub require_length: bool,
    /// Hash what is heard.
    pub hash: bool,
    /// Size of the sockets' receive buffers, in bytes; the system's choice when absent.
    pub receive_buffer: Option<u32>,
}

impl Options {
    /// Plain, well-behaved, both protocols.
    pub fn new(listen: SocketAddr) -> Self {
        Self {
            listen,
            tls: false,
            script: Script::default(),
            http2: Http2::default(),
            require_length: false,
            hash: true,
            receive_buffer: None,
        }
    }
}

/// A stand-in that listens.
pub struct Stub {
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<(TlsAcceptor, String)>,
    http2: Http2,
    house: Arc<House>,
}

/// Room for one HTTP/2 upload on its way, and for many at once: small windows would measure the stand-in.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Starts to listen; connections wait until [`Stub::run`].
///
/// # Errors
/// When the address cannot be had, or the certificate cannot be made.
pub async fn bind(options: Options) -> io::Result<Stub> {
    let socket = if options.listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    if let Some(size) = options.receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    socket.bind(options.listen)?;
    let listener = socket.listen(1024)?;
    let tls = if options.tls {
        let (config, root): (Arc<ServerConfig>, String) = certificate::make(options.http2)?;
        Some((TlsAcceptor::from(config), root))
    } else {
        None
    };
    Ok(Stub {
        address: listener.local_addr()?,
        listener,
        tls,
        http2: options.http2,
        house: Arc::new(House {
            stage: script::Stage::new(options.script),
            log: Arc::new(Log::default()),
            require_length: options.require_length,
            hash: options.hash,
        }),
    })
}

impl Stub {
    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// With TLS: the root that clients must trust, as PEM.
    pub fn root_pem(&self) -> Option<&str> {
        self.tls.as_ref().map(|(_, root)| root.as_str())
    }

    /// Serves until cancelled; then all its connections are closed.
    pub async fn run(self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((socket, _)) => {
                        let (house, http2) = (Arc::clone(&self.house), self.http2);
                        let tls = self.tls.as_ref().map(|(acceptor, _)| acceptor.clone());
                        connections.spawn(connect(socket, tls, http2, house));
                    }
                    // Out of file descriptors, most likely: some will come back.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

async fn connect(socket: TcpStream, tls: Option<TlsAcceptor>, http2: Http2, house: Arc<House>) {
    let open = house.log.connected();
    let _ = socket.set_nodelay(true);
    match tls {
        None => converse(socket, open.number, http2, house).await,
        Some(acceptor) => {
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await {
                converse(stream, open.number, http2, house).await;
            }
        }
    }
}

/// Speaks HTTP until the client leaves or a request ends the connection.
async fn converse<S>(socket: S, number: u64, http2: Http2, house: Arc<House>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (line, mut told) = Line::new(number);
    let socket = TokioIo::new(line.wrap(socket));
    let service = service_fn(move |request| serve::serve(Arc::clone(&house), line.clone(), request));
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http2()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let builder = match http2 {
        Http2::Offered => builder,
        Http2::Only => builder.http2_only(),
        Http2::Never => builder.http1_only(),
    };
    let mut connection = std::pin::pin!(builder.serve_connection(socket, service));
    loop {
        tokio::select! {
            _ = connection.as_mut() => return,
            Ok(()) = told.changed() => match *told.borrow_and_update() {
                Ending::NotYet => {}
                Ending::Gently => connection.as_mut().graceful_shutdown(),
                Ending::Now => return,
            },
        }
    }
}
