//! One request to ourselves, over HTTP or HTTPS: for `asr-edge health` and the demo.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::base::file;

/// An answer of ours is never longer.
const LONGEST: usize = 1024 * 1024;
/// The longest file of roots that is read, bytes.
const LONGEST_ROOTS: u64 = 1024 * 1024;

/// Whom to believe over HTTPS.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    own: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// The system's roots, and those in a PEM file.
    ///
    /// # Errors
    /// The file cannot be read, or holds no certificate.
    pub fn with_file(path: &Path) -> io::Result<Self> {
        Self::with_pem(&file::read(path, LONGEST_ROOTS)?)
    }

    /// The system's roots, and those in a PEM text.
    ///
    /// # Errors
    /// There is no certificate in it.
    pub fn with_pem(pem: &[u8]) -> io::Result<Self> {
        let own: Vec<_> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(io::Error::other)?;
        if own.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no certificate in PEM"));
        }
        Ok(Self { own })
    }

    fn connector(&self) -> io::Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        let (_added, _unfit) =
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        for root in &self.own {
            roots.add(root.clone()).map_err(io::Error::other)?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// Sends a request to `http(s)://host:port/path` and returns status and body.
///
/// # Errors
/// Another scheme, no connection, a certificate that `trust` does not vouch for, no answer within `patience`.
pub async fn send(
    url: &Uri,
    request: Request<Full<Bytes>>,
    trust: &Trust,
    patience: Duration,
) -> io::Result<(u16, Bytes)> {
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let connect = |port| TcpStream::connect((host, url.port_u16().unwrap_or(port)));
    let exchanged = async {
        match url.scheme_str() {
            Some("http") => exchange(connect(80).await?, request).await,
            Some("https") => {
                let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                exchange(trust.connector()?.connect(name, connect(443).await?).await?, request).await
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "only http:// and https:// are asked")),
        }
    };
    timeout(patience, exchanged).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> io::Result<(u16, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(io::Error::other)?;
    driver.abort();
    Ok((status, body.to_bytes()))
}

/// Whether `url` answers a GET with a 2xx.
///
/// # Errors
/// As [`send`]; other statuses too.
pub async fn health(url: &Uri, trust: &Trust, patience: Duration) -> io::Result<()> {
    let authority = url.authority().map(ToString::to_string).unwrap_or_default();
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(http::header::HOST, authority).body(Full::default());
    match send(url, request.map_err(io::Error::other)?, trust, patience).await? {
        (200..=299, _) => Ok(()),
        (status, _) => Err(io::Error::other(format!("status {status}"))),
    }
}
