//! Plain HTTP beside HTTPS: challenges first, then browsers are sent on, and the API is refused so that a key sent in
//! clear fails loudly.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, LOCATION};
use http::{Method, Response};
use parking_lot::Mutex;
use pingora::apps::http_app::{HttpServer, ServeHttp};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use super::record::request_id;
use super::site::Site;
use crate::accept::listener::{self, Listener};
use crate::accept::{Connection, Drain, Guard, Peer, Rules};
use crate::answer::{Fault, Reply};
use crate::base::clock;
use crate::observe::metrics::{Ended, Metrics};
use crate::respond::response;
use crate::tls::Name;

/// RFC 8555 8.3.
const CHALLENGES: &str = "/.well-known/acme-challenge/";
/// Tokens have 43 characters at Let's Encrypt.
const LONGEST_TOKEN: usize = 256;
/// One warning about unknown tokens in this time.
const QUIET: Duration = Duration::from_secs(10);
/// What a refused upload still sends is read and forgotten, so that the answer arrives.
const LINGER: u64 = 1024 * 1024;

/// What port 80 answers with.
pub(super) struct Port80 {
    site: Arc<Site>,
    /// Where HTTPS is, for clients that came by an unusual port.
    https: u16,
    warned: Mutex<Warned>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Warned {
    last: Option<Instant>,
    kept_quiet: u64,
}

/// Serves port 80 until `shutdown` turns true.
pub(super) async fn serve(
    listeners: Vec<Listener>,
    app: Port80,
    rules: Rules,
    drain: Drain,
    shutdown: ShutdownWatch,
) {
    let metrics = Arc::clone(&app.metrics);
    let guard = Guard::new(Arc::new(HttpServer::new_app(app)), rules, drain, &metrics);
    listener::serve(listeners, "port80", guard, shutdown).await;
}

/// What a request gets.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// A key authorization.
    Proof(String),
    /// A URL with `https`.
    Redirect(String),
    Fault(Fault),
    /// No such token.
    UnknownToken,
}

impl Port80 {
    pub(super) fn new(site: Arc<Site>, https: Option<u16>, metrics: &Arc<Metrics>) -> Self {
        Self { site, https: https.unwrap_or(443), warned: Mutex::default(), metrics: Arc::clone(metrics) }
    }

    fn outcome(&self, request: &RequestHeader) -> Outcome {
        let read_only = matches!(request.method, Method::GET | Method::HEAD);
        if let Some(token) = request.uri.path().strip_prefix(CHALLENGES) {
            return match token {
                _ if !read_only => Outcome::Fault(Fault::WrongMethod { allow: "GET, HEAD" }),
                token if is_token(token) => {
                    self.site.challenges.http01(token).map_or(Outcome::UnknownToken, Outcome::Proof)
                }
                _ => Outcome::UnknownToken,
            };
        }
        // A client that follows a redirect would never tell its owner that the key went out in clear.
        let has_key = ["x-api-key", "api-key"].iter().any(|name| request.headers.contains_key(*name))
            || request.headers.contains_key(AUTHORIZATION);
        if !read_only || has_key {
            return Outcome::Fault(Fault::PlainHttp);
        }
        self.location(request).map_or(Outcome::Fault(Fault::Misdirected), Outcome::Redirect)
    }

    /// The same place with `https`, if its host is one of ours.
    fn location(&self, request: &RequestHeader) -> Option<String> {
        let mut hosts = request.headers.get_all(HOST).iter();
        let host = match (request.uri.authority(), hosts.next(), hosts.next()) {
            (Some(authority), ..) => authority.as_str(),
            (None, Some(host), None) => host.to_str().ok()?,
            _ => return None,
        };
        let name = Name::of_host(host).filter(|_| self.site.certificates.covers(host))?;
        let name = match name {
            Name::Ip(ip) if ip.is_ipv6() => format!("[{ip}]"),
            name => name.to_string(),
        };
        // Who came by port 80 finds HTTPS at its own port, whatever is mapped to what between here and there.
        let unusual = host.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']') && port != "80");
        let port = if unusual && self.https != 443 { format!(":{}", self.https) } else { String::new() };
        let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
        path.starts_with('/').then(|| format!("https://{name}{port}{path}"))
    }

    fn warn(&self, session: &ServerSession) {
        let mut warned = self.warned.lock();
        let now = clock::instant();
        if warned.last.is_some_and(|last| now.duration_since(last) < QUIET) {
            warned.kept_quiet += 1;
            return;
        }
        let kept_quiet = std::mem::take(&mut warned.kept_quiet);
        warned.last = Some(now);
        let client = client(session).map(|client| client.to_string());
        tracing::warn!(client, kept_quiet, "a challenge was asked for that is not ours");
    }
}

fn client(session: &ServerSession) -> Option<IpAddr> {
    Peer::of(session).and_then(|peer| peer.client(&session.req_header().headers))
}

/// base64url (RFC 8555 8.3): nothing else reaches the table, or the log.
fn is_token(token: &str) -> bool {
    (1..=LONGEST_TOKEN).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn text(status: u16, body: impl Into<Bytes>) -> Reply {
    Reply { status, content_type: "text/plain", headers: Vec::new(), body: body.into() }
}

#[async_trait]
impl ServeHttp for Port80 {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let begun = clock::instant();
        let turn = session.stream().and_then(Connection::turn_of);
        if let Some(turn) = &turn {
            turn.take();
            if !session.is_body_done() {
                turn.linger(LINGER);
            }
        }
        // One request a connection: nobody has a second one here.
        session.set_keepalive(None);
        let request = session.req_header();
        let (route, fault, mut reply) = match self.outcome(request) {
            Outcome::Proof(proof) => ("challenge", None, text(200, proof)),
            Outcome::UnknownToken => {
                self.warn(session);
                ("challenge", None, text(404, "no such challenge\n"))
            }
            Outcome::Redirect(url) => {
                let mut reply = text(308, format!("{url}\n"));
                reply.headers.push((LOCATION.as_str(), url));
                ("redirect", None, reply)
            }
            Outcome::Fault(fault) => ("refused", Some(fault.name()), fault.reply()),
        };
        if session.req_header().method == Method::HEAD {
            reply.body = Bytes::new();
        }
        let id = request_id();
        let client = client(session).map(tracing::field::display);
        tracing::info!(target: "access", request_id = %id, client, route, status = reply.status, fault, protocol = "port80");
        let (sent, total) = (reply.body.len() as u64, clock::instant().duration_since(begun));
        self.metrics.ended(&Ended { route, status: reply.status, fault, sent, total, ..Ended::default() });
        response(&reply, &id)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::base::secret::Secret;
    use crate::config::{CodexFlags, Config, ServeFlags};
    use crate::tls::{CertificateSource, Keypair};

    /// Port 80 of a site with a certificate for these names.
    fn port80(names: &[&str]) -> Port80 {
        let bearer = Some(Secret::new("t".to_owned()));
        let codex = CodexFlags { bearer, ..CodexFlags::default() };
        let flags = ServeFlags { no_api_key: true, codex, ..ServeFlags::default() };
        let site = Site::open(&Config::load(&flags, &|_| None).unwrap(), None).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap().pem();
        let pair = Keypair::from_pem(certificate.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        site.certificates.publish(CertificateSource::Acme, vec![pair]);
        Port80::new(Arc::new(site), Some(8443), &Arc::default())
    }

    fn request(method: &str, path: &str, host: &str) -> RequestHeader {
        let mut request = RequestHeader::build(method, path.as_bytes(), None).unwrap();
        request.insert_header(HOST, host).unwrap();
        request
    }

    #[test]
    fn a_challenge_is_answered_for_any_host_as_often_as_asked_and_only_while_it_is_pending() {
        let port80 = port80(&["asr.example.com"]);
        let offered = port80.site.challenges.offer_http01("tok-EN_1", "tok-EN_1.thumb").unwrap();
        let ask = |method, token: &str| {
            port80.outcome(&request(method, &format!("{CHALLENGES}{token}"), "anything.example"))
        };
        for method in ["GET", "HEAD", "GET"] {
            assert_eq!(ask(method, "tok-EN_1"), Outcome::Proof("tok-EN_1.thumb".to_owned()));
        }
        for token in ["", "tok-EN_", "TOK-EN_1", "tok-EN_1/", "tok-EN_1%20", "../tok-EN_1"] {
            assert_eq!(ask("GET", token), Outcome::UnknownToken, "{token}");
        }
        assert_eq!(ask("POST", "tok-EN_1"), Outcome::Fault(Fault::WrongMethod { allow: "GET, HEAD" }));
        drop(offered);
        assert_eq!(ask("GET", "tok-EN_1"), Outcome::UnknownToken);
    }

    #[test]
    fn the_port_of_https_is_named_only_to_those_who_came_by_an_unusual_one() {
        let port80 = port80(&["asr.example.com", "2001:db8::7"]);
        for (host, location) in [
            ("asr.example.com", "https://asr.example.com/x"),
            ("asr.example.com.", "https://asr.example.com/x"),
            ("asr.example.com:80", "https://asr.example.com/x"),
            ("asr.example.com:8080", "https://asr.example.com:8443/x"),
            ("[2001:db8::7]", "https://[2001:db8::7]/x"),
            ("[2001:db8::7]:8080", "https://[2001:db8::7]:8443/x"),
        ] {
            let outcome = port80.outcome(&request("GET", "/x", host));
            assert_eq!(outcome, Outcome::Redirect(location.to_owned()), "{host}");
        }
        let other = port80.outcome(&request("GET", "/x", "example.com"));
        assert_eq!(other, Outcome::Fault(Fault::Misdirected));
    }
}
