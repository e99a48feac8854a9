//! The way to the upstream through an HTTP proxy (CONNECT, RFC 9110 9.3.6), which may itself be spoken to over TLS.

use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::{Error, ErrorType};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::base::secret::Secret;
use crate::config::{Codex, Proxy};

/// The proxy is not there: a Pingora error of this kind.
pub(super) const UNREACHABLE: &str = "proxy_unreachable";
/// The proxy said no, with a status: a Pingora error of this kind.
pub(super) const REFUSED: &str = "proxy_refused";

/// The longest answer to a CONNECT that is read, bytes.
const LONGEST_ANSWER: usize = 16 * 1024;

/// Connects by way of a proxy.
pub(super) struct Tunnel {
    proxy: (String, u16),
    tls: Option<io::Result<(TlsConnector, ServerName<'static>)>>,
    /// The CONNECT request; holds the proxy's password.
    request: Secret<String>,
    /// For name, connection, TLS and CONNECT together.
    patience: Duration,
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("{0}")]
    Unreachable(#[from] io::Error),
    #[error("the proxy answered {0}")]
    Refused(u16),
}

impl Tunnel {
    /// A tunnel through `proxy` to the endpoint. Over TLS the proxy is believed by the roots that the endpoint is
    /// believed by.
    pub(super) fn new(proxy: &Proxy, codex: &Codex) -> Self {
        let endpoint = &codex.endpoint;
        let host =
            if endpoint.host.contains(':') { format!("[{}]", endpoint.host) } else { endpoint.host.clone() };
        let target = format!("{host}:{}", endpoint.port);
        let authorization = proxy.credentials.as_ref().map_or_else(String::new, |credentials| {
            format!("Proxy-Authorization: Basic {}\r\n", STANDARD.encode(credentials.expose()))
        });
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
        Self {
            proxy: (proxy.host.clone(), proxy.port),
            tls: proxy.tls.then(|| tls(&proxy.host, &codex.ca_root)),
            request: Secret::new(request),
            patience: codex.connect_timeout,
        }
    }

    async fn open(&self) -> Result<Stream, Closed> {
        let mut socket = TcpStream::connect((self.proxy.0.as_str(), self.proxy.1)).await?;
        socket.set_nodelay(true)?;
        match &self.tls {
            None => {
                self.ask(&mut socket).await?;
                Ok(socket.into())
            }
            Some(Err(error)) => Err(io::Error::new(error.kind(), error.to_string()).into()),
            Some(Ok((connector, name))) => {
                let mut stream = connector.connect(name.clone(), socket).await?;
                self.ask(&mut stream).await?;
                // Pingora pools nothing but sockets, and TLS in TLS is none.
                let (ours, theirs) = UnixStream::pair()?;
                tokio::spawn(relay(theirs, stream));
                Ok(ours.into())
            }
        }
    }

    async fn ask(&self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> Result<(), Closed> {
        stream.write_all(self.request.expose().as_bytes()).await?;
        stream.flush().await?;
        // Byte by byte: what follows the head belongs to the upstream.
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() == LONGEST_ANSWER {
                return Err(io::Error::from(io::ErrorKind::InvalidData).into());
            }
            answer.push(stream.read_u8().await?);
        }
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        head.parse(&answer).map_err(io::Error::other)?;
        match head.code {
            Some(200..=299) => Ok(()),
            code => Err(Closed::Refused(code.unwrap_or_default())),
        }
    }
}

/// Carries bytes until either side ends: then the other is closed too, so that a request that is given up is given up
/// upstream.
async fn relay(local: UnixStream, remote: impl AsyncRead + AsyncWrite) {
    let (mut from_us, mut to_us) = local.into_split();
    let (mut from_proxy, mut to_proxy) = split(remote);
    tokio::select! {
        _ = copy(&mut from_us, &mut to_proxy) => {
            let _ = to_proxy.shutdown().await;
        }
        _ = copy(&mut from_proxy, &mut to_us) => {}
    }
}

/// The system's roots and those of the config.
fn tls(host: &str, own: &[CertificateDer<'static>]) -> io::Result<(TlsConnector, ServerName<'static>)> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs().certs;
    roots.add_parsable_certificates(system.into_iter().chain(own.iter().cloned()));
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

#[async_trait]
impl L4Connect for Tunnel {
    async fn connect(&self, _: &SocketAddr) -> pingora::Result<Stream> {
        let opened = timeout(self.patience, self.open()).await;
        opened.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())).map_err(|closed| {
            tracing::warn!(error = %closed, "proxy did not connect");
            match closed {
                Closed::Unreachable(error) => Error::because(ErrorType::new(UNREACHABLE), "proxy", error),
                Closed::Refused(status) => Error::new(ErrorType::new_code(REFUSED, status)),
            }
        })
    }
}

/// Without the password.
impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel").field("proxy", &self.proxy).field("tls", &self.tls.is_some()).finish()
    }
}
