//! HTTP to the CA. Every call is bounded in time and size; what the CA says with a refusal is kept, `Retry-After` above
//! all; documents are read liberally.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient, Problem};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use super::due::ARI_DEFAULT;
use super::failure::{Failure, short};
use crate::base::clock;

/// One call, from connecting to the last byte.
const CALL: Duration = Duration::from_secs(30);
/// Connecting, all addresses of the CA together; half of it is left for the second family when the first is silent.
const CONNECT: Duration = Duration::from_secs(10);
/// No document of a CA is longer, in bytes.
const MAX_BODY: usize = 1 << 20;
/// How often a broken connection is tried again within one call, and how long after.
const QUICK: (usize, Duration) = (3, Duration::from_secs(1));
/// A `Retry-After` of this or less is waited for within the call.
const SHORT_WAIT: u64 = 60;
const MOST_REDIRECTS: usize = 3;
const AGENT: &str = concat!("asr-edge/", env!("CARGO_PKG_VERSION"), " instant-acme");

/// What carries one request to the CA and the answer back.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Sends it.
    ///
    /// # Errors
    /// What went wrong, in a line without secrets.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String>;
}

/// HTTPS over TCP, by both address families (RFC 8305).
pub struct Https(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Https {
    /// Trusts the system's roots and these.
    ///
    /// # Errors
    /// Never with the provider that is built in.
    pub fn new(roots: &[CertificateDer<'static>]) -> Result<Self, rustls::Error> {
        let mut trusted = RootCertStore::empty();
        // A broken file among the system's roots must not keep the others away.
        trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        trusted.add_parsable_certificates(roots.iter().cloned());
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_happy_eyeballs_timeout(Some(Duration::from_millis(300)));
        tcp.set_nodelay(true);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp);
        let pool = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(15))
            .pool_timer(hyper_util::rt::TokioTimer::new())
            .build(connector);
        Ok(Self(pool))
    }
}

#[async_trait]
impl Transport for Https {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let answer = self.0.request(request.map(Full::new)).await.map_err(|error| chain(&error))?;
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MAX_BODY).collect().await.map_err(|error| error.to_string())?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}

/// What a directory says before anything is ordered (RFC 8555 section 7.1.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directory {
    /// The CA's clock, Unix seconds.
    pub date: Option<u64>,
    /// Where its terms of service are.
    pub terms: Option<String>,
    /// Whether it wants an account bound to an external one.
    pub external_account: bool,
    /// The names of its profiles.
    pub profiles: Vec<String>,
    /// Whether it suggests when to renew (RFC 9773).
    pub renewal_info: bool,
}

/// Reads the directory, which costs nothing at any CA.
///
/// # Errors
/// [`Failure::Unreached`], or what the CA answered instead.
pub async fn directory(transport: &Arc<dyn Transport>, url: &str) -> Result<Directory, Failure> {
    let uri: Uri = url.parse().map_err(|_| Failure::Unreached("the directory is no URL".to_owned()))?;
    let request = request(Method::GET, uri, HeaderMap::new(), Bytes::new());
    let answer = exchange(transport.as_ref(), request).await?;
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
    let body: Value = serde_json::from_slice(answer.body())
        .map_err(|_| Failure::Unreached("the directory is no JSON".to_owned()))?;
    if body.get("newOrder").and_then(Value::as_str).is_none() {
        return Err(Failure::Unreached("this is no ACME directory (it has no newOrder)".to_owned()));
    }
    let meta = body.get("meta").unwrap_or(&Value::Null);
    let profiles = meta.get("profiles").and_then(Value::as_object);
    Ok(Directory {
        date: date
            .and_then(|date| date.duration_since(SystemTime::UNIX_EPOCH).ok())
            .map(|date| date.as_secs()),
        terms: meta.get("termsOfService").and_then(Value::as_str).map(short),
        external_account: meta.get("externalAccountRequired").and_then(Value::as_bool).unwrap_or(false),
        profiles: profiles.map(|profiles| profiles.keys().cloned().collect()).unwrap_or_default(),
        renewal_info: body.get("renewalInfo").and_then(Value::as_str).is_some(),
    })
}

/// instant-acme's view of a [`Transport`].
#[derive(Clone)]
pub(super) struct Wire(pub(super) Arc<dyn Transport>);

impl HttpClient for Wire {
    fn request(
        &self,
        given: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let transport = Arc::clone(&self.0);
        Box::pin(async move {
            let (parts, body) = given.into_parts();
            let body = match body.collect().await {
                Ok(body) => body.to_bytes(),
                Err(never) => match never {},
            };
            let request = request(parts.method, parts.uri, parts.headers, body);
            let answer = exchange(transport.as_ref(), request).await;
            Ok(BytesResponse::from(answer.map_err(|failure| Error::Other(Box::new(failure)))?.map(Full::new)))
        })
    }
}

fn request(method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
    request
}

/// One call: quick retries, short waits, redirects. Success, or a nonce that was not taken (instant-acme has the fresh
/// one from that answer and signs anew); any other refusal is an error with all it says.
async fn exchange(
    transport: &dyn Transport,
    mut request: Request<Bytes>,
) -> Result<Response<Bytes>, Failure> {
    let (mut breaks, mut waits, mut redirects) = (0, 0, 0);
    loop {
        let answer = match timeout(CALL, transport.send(request.clone())).await {
            Err(_) => return Err(Failure::Unreached(format!("no answer within {} s", CALL.as_secs()))),
            Ok(Err(_)) if breaks < QUICK.0 => {
                breaks += 1;
                sleep(QUICK.1).await;
                continue;
            }
            Ok(Err(why)) => return Err(Failure::Unreached(short(&why))),
            Ok(Ok(answer)) => answer,
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(liberal(request.method(), answer));
        }
        if status.is_redirection() && request.method() != Method::POST && redirects < MOST_REDIRECTS {
            redirects += 1;
            *request.uri_mut() = target(request.uri(), answer.headers())
                .ok_or_else(|| Failure::Unreached("a redirect that leads nowhere".to_owned()))?;
            continue;
        }
        let after = retry_after(answer.headers());
        if let Some(seconds) = after.filter(|after| *after <= SHORT_WAIT && waits < 2)
            && matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        {
            waits += 1;
            sleep(Duration::from_secs(seconds.max(1))).await;
            continue;
        }
        return match serde_json::from_slice::<Problem>(answer.body()) {
            Ok(problem) => match Failure::of_problem(&problem, status.as_u16(), after) {
                failure if failure.is_bad_nonce() && status == StatusCode::BAD_REQUEST => Ok(answer),
                failure => Err(failure),
            },
            Err(_) => Err(Failure::Refused {
                kind: String::new(),
                detail: "the answer explains nothing".to_owned(),
                status: status.as_u16(),
                retry_after: after,
                names: Vec::new(),
            }),
        };
    }
}

/// Mends what CAs are known to send and instant-acme does not read: nulls, an order without authorizations, renewal
/// information without a time to come back.
fn liberal(method: &Method, mut answer: Response<Bytes>) -> Response<Bytes> {
    if *method == Method::GET && !answer.headers().contains_key(RETRY_AFTER) {
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(ARI_DEFAULT));
    }
    let json = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if !json.is_some_and(|kind| kind.contains("json")) {
        return answer;
    }
    let Ok(mut document) = serde_json::from_slice::<Value>(answer.body()) else { return answer };
    without_nulls(&mut document);
    if let Value::Object(members) = &mut document
        && members.contains_key("finalize")
        && members.contains_key("status")
    {
        members.entry("authorizations").or_insert_with(|| Value::Array(Vec::new()));
    }
    answer.map(|_| document.to_string().into())
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Seconds from now (RFC 9110 section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(seconds);
    }
    let date = httpdate::parse_http_date(text).ok()?;
    // A date is as good as the CA's clock, so it is read by that one where it tells the time.
    let now = headers.get(DATE).and_then(|now| now.to_str().ok());
    let now = now.and_then(|now| httpdate::parse_http_date(now).ok()).unwrap_or_else(clock::now);
    Some(date.duration_since(now).map_or(0, |wait| wait.as_secs()))
}

fn target(from: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    let to: Uri = location.parse().ok()?;
    if to.scheme().is_some() {
        return (to.scheme() == from.scheme()).then_some(to);
    }
    let mut parts = from.clone().into_parts();
    parts.path_and_query = Some(location.parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// An error and what it is caused by, on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use parking_lot::Mutex;

    use super::*;

    /// Plays back answers, and notes what it was asked.
    struct Script {
        answers: Mutex<VecDeque<Option<Response<Bytes>>>>,
        seen: Mutex<Vec<Uri>>,
    }

    #[async_trait]
    impl Transport for Script {
        async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
            assert_eq!(request.headers()[USER_AGENT], AGENT);
            self.seen.lock().push(request.uri().clone());
            let next = self.answers.lock().pop_front();
            match next {
                Some(Some(answer)) => Ok(answer),
                Some(None) => Err("connection reset".to_owned()),
                None => std::future::pending().await,
            }
        }
    }

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Option<Response<Bytes>> {
        let mut builder = Response::builder().status(status);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        Some(builder.body(Bytes::copy_from_slice(body.as_bytes())).unwrap())
    }

    fn script<const N: usize>(answers: [Option<Response<Bytes>>; N]) -> Arc<Script> {
        Arc::new(Script { answers: Mutex::new(answers.into()), seen: Mutex::default() })
    }

    async fn get(script: &Arc<Script>) -> Result<Response<Bytes>, Failure> {
        let url = "https://ca.example/directory".parse().unwrap();
        exchange(script.as_ref(), request(Method::GET, url, HeaderMap::new(), Bytes::new())).await
    }

    const LIMITED: &str = r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many"}"#;

    #[tokio::test(start_paused = true)]
    async fn a_ca_that_hangs_costs_half_a_minute() {
        let begun = tokio::time::Instant::now();
        assert!(matches!(get(&script([])).await, Err(Failure::Unreached(_))));
        assert_eq!(begun.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn a_broken_connection_is_tried_three_times_more() {
        let mended = script([None, None, None, answer(200, &[], "{}")]);
        assert!(get(&mended).await.is_ok());
        let broken = script([None, None, None, None, answer(200, &[], "{}")]);
        assert_eq!(get(&broken).await.unwrap_err(), Failure::Unreached("connection reset".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_retry_after_comes_with_the_refusal_and_a_short_one_is_waited_for() {
        let long = get(&script([answer(429, &[("retry-after", "604800")], LIMITED)])).await.unwrap_err();
        assert!(matches!(&long, Failure::Refused { retry_after: Some(604_800), status: 429, .. }), "{long}");
        let begun = tokio::time::Instant::now();
        let short = [answer(429, &[("retry-after", "20")], LIMITED), answer(200, &[], "{}")];
        assert!(get(&script(short)).await.is_ok());
        assert_eq!(begun.elapsed().as_secs(), 20);
        let date =
            [("date", "Fri, 20 Nov 2026 09:00:00 GMT"), ("retry-after", "Fri, 20 Nov 2026 11:00:00 GMT")];
        let dated = get(&script([answer(503, &date, "<html>")])).await.unwrap_err();
        assert!(matches!(dated, Failure::Refused { retry_after: Some(7200), status: 503, .. }));
    }

    #[tokio::test]
    async fn a_directory_may_move_but_not_to_plain_http() {
        let moved = script([answer(302, &[("location", "/v2/directory")], ""), answer(200, &[], "{}")]);
        assert!(get(&moved).await.is_ok());
        assert_eq!(moved.seen.lock()[1], "https://ca.example/v2/directory");
        let plain = script([answer(301, &[("location", "http://ca.example/directory")], "")]);
        assert!(get(&plain).await.is_err());
        let circle = std::array::from_fn(|_| answer(302, &[("location", "/a")], ""));
        assert!(get(&script::<9>(circle)).await.is_err());
    }

    #[tokio::test]
    async fn nulls_unknown_members_and_absent_authorizations_are_read() {
        let json = [("content-type", "application/json; charset=utf-8")];
        let directory = r#"{"newNonce":"a","newAccount":"b","newOrder":"c","renewalInfo":null,
            "meta":{"profiles":null,"x":[{"y":null}]},"rnd0m":"https://x"}"#;
        let read = get(&script([answer(200, &json, directory)])).await.unwrap();
        assert_eq!(read.headers()[RETRY_AFTER], "43200");
        let read: Value = serde_json::from_slice(read.body()).unwrap();
        assert_eq!(read["meta"], serde_json::json!({"x": [{}]}));
        let order = r#"{"status":"processing","finalize":"f","authorizations":null}"#;
        let read = get(&script([answer(200, &json, order)])).await.unwrap();
        let order: instant_acme::OrderState = serde_json::from_slice(read.body()).unwrap();
        assert!(order.authorizations.is_empty());
    }

    #[test]
    fn a_challenge_without_a_token_does_not_spoil_an_authorization() {
        let text = r#"{"status":"pending","identifier":{"type":"dns","value":"a.example"},"expires":"x","challenges":[
            {"type":"dns-persist-01","url":"u","status":"pending","issuer-domain-names":["ca.example"]},
            {"type":"http-01","url":"u","status":"pending","token":"t"}]}"#;
        let read: instant_acme::AuthorizationState = serde_json::from_str(text).unwrap();
        assert_eq!(read.challenges.len(), 2);
        assert_eq!(read.challenges[0].token, "");
    }

    #[tokio::test]
    async fn a_bad_nonce_is_left_to_whoever_signs() {
        let body = r#"{"type":"urn:ietf:params:acme:error:badNonce"}"#;
        let read = get(&script([answer(400, &[("replay-nonce", "n")], body)])).await.unwrap();
        assert_eq!((read.status().as_u16(), &read.headers()["replay-nonce"]), (400, &"n".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_directory_tells_its_terms_and_its_time() {
        let headers = [("date", "Fri, 20 Nov 2026 09:00:00 GMT"), ("content-type", "application/json")];
        let body = r#"{"newOrder":"c","renewalInfo":"r","meta":{"termsOfService":"https://ca.example/t",
            "externalAccountRequired":true,"profiles":{"classic":"x","shortlived":"y"}}}"#;
        let transport: Arc<dyn Transport> = script([answer(200, &headers, body), answer(200, &[], "{}")]);
        let seen = directory(&transport, "https://ca.example/directory").await.unwrap();
        assert_eq!(seen.date, Some(1_795_165_200));
        assert_eq!(seen.terms.as_deref(), Some("https://ca.example/t"));
        assert!(seen.external_account && seen.renewal_info);
        assert_eq!(seen.profiles, ["classic", "shortlived"]);
        assert!(directory(&transport, "https://ca.example/directory").await.is_err(), "no directory");
    }
}
