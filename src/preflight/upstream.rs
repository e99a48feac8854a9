//! The way to the upstream: connected and trusted, nothing asked.

use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::{self, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::{Finding, client};
use crate::config::{Codex, Endpoint, Proxy};

/// Connects, through the proxy if there is one, and hangs up.
pub(super) async fn look(codex: &Codex, patience: Duration) -> Finding {
    let endpoint = &codex.endpoint;
    let subject = format!("upstream {}", endpoint.url());
    let reached = async {
        match &codex.proxy {
            Some(proxy) => reach(tunnel(proxy, endpoint).await?, codex).await,
            None => reach(client::connect(&endpoint.host, endpoint.port).await?, codex).await,
        }
    };
    match timeout(patience, reached).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(()) if endpoint.tls => Finding::pass(subject, "can be reached and trusted"),
        Ok(()) => Finding::pass(subject, "can be reached"),
        Err(error) => Finding::fail(
            subject,
            format!(
                "cannot be reached ({error}): look at codex.endpoint, codex.proxy and codex.ca_root, and at what may connect out"
            ),
        ),
    }
}

async fn reach<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    stream: S,
    codex: &Codex,
) -> io::Result<()> {
    if codex.endpoint.tls {
        client::tls(stream, &codex.endpoint.host, &codex.ca_root).await?;
    }
    Ok(())
}

/// CONNECT, RFC 9110 section 9.3.6.
async fn tunnel(proxy: &Proxy, endpoint: &Endpoint) -> io::Result<TokioIo<Upgraded>> {
    let stream = client::connect(&proxy.host, proxy.port).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    tokio::spawn(connection.with_upgrades());
    let host =
        if endpoint.host.contains(':') { format!("[{}]", endpoint.host) } else { endpoint.host.clone() };
    let target = format!("{host}:{}", endpoint.port);
    let mut request = Request::connect(&target)
        .header(header::HOST, &target)
        .body(Empty::<Bytes>::new())
        .map_err(io::Error::other)?;
    if let Some(credentials) = &proxy.credentials {
        let basic = format!("Basic {}", STANDARD.encode(credentials.expose()));
        let mut value = HeaderValue::from_str(&basic).map_err(io::Error::other)?;
        value.set_sensitive(true);
        request.headers_mut().insert(header::PROXY_AUTHORIZATION, value);
    }
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    match response.status() {
        status if status.is_success() => {
            Ok(TokioIo::new(upgrade::on(response).await.map_err(io::Error::other)?))
        }
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            Err(io::Error::other("the proxy wants other credentials"))
        }
        status => Err(io::Error::other(format!("the proxy answered {status}"))),
    }
}
