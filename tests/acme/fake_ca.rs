//! A CA in memory, for what no CA that can be installed does: renewal windows, `replaces`, profiles, limits, hanging,
//! refusing. It reads real requests and signs real certificates; time is Tokio's, which the tests hold still.
#![allow(dead_code, unreachable_pub, reason = "shared by tests, none of which uses all of it")]

use std::collections::{BTreeMap, HashSet};
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use asr_edge::acme::{Acme, Challenges, Clock, Transport, World};
use asr_edge::base::clock;
use asr_edge::config::{AcmeSettings, Challenge, DirectoryUrl, Identifier};
use asr_edge::tls::Certificates;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair, SerialNumber,
};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const DAY: u64 = 86_400;
pub const HOUR: u64 = 3_600;
/// When every test begins: 2027-01-15T08:00:00Z.
pub const EPOCH: u64 = 1_800_000_000;
const STAGING: &str = "acme-staging-v02.api.letsencrypt.org";

/// What the CA does just now.
#[derive(Clone, Debug, Default)]
pub struct Weather {
    /// Connections break.
    pub down: bool,
    /// No answer ever comes.
    pub hangs: bool,
    /// New orders are refused: problem type, status, Retry-After.
    pub refuses: Option<(&'static str, u16, Option<u64>)>,
    /// Names that cannot be proved.
    pub unproved: HashSet<String>,
    /// Orders that name what they replace are refused.
    pub no_replaces: bool,
    /// Accounts made so far are unknown from now on.
    pub forgets_accounts: bool,
    /// The window suggested for every certificate: start and end.
    pub window: Option<(u64, u64)>,
    /// The order is never worked on.
    pub slow: bool,
    /// How many more certificates come with each.
    pub ballast: usize,
    /// How long each answer takes.
    pub delay: Duration,
}

#[derive(Clone, Debug)]
pub struct Placed {
    pub at: u64,
    pub staging: bool,
    pub names: Vec<String>,
    pub replaces: Option<String>,
    pub profile: Option<String>,
    pub issued: bool,
    proved: HashSet<usize>,
    failed: HashSet<usize>,
    chain: Option<String>,
}

pub struct FakeCa {
    inner: Mutex<Inner>,
    pub challenges: Arc<Challenges>,
    pub time: Arc<SimClock>,
    /// What its certificates lead to, PEM.
    pub root: String,
}

pub struct Inner {
    pub weather: Weather,
    /// Where http-01 is answered, when the server is another process.
    pub port80: Option<SocketAddr>,
    pub life: u64,
    pub backdate: i64,
    pub orders: Vec<Placed>,
    pub accounts: BTreeMap<String, bool>,
    pub ari_asked: usize,
    pub calls: usize,
    pub on_issue: Option<Box<dyn Fn() + Send>>,
    nonce: u64,
    serial: u64,
    issuer: Issuer<'static, KeyPair>,
}

/// Wall time: Tokio's, which the test moves, and a fault of the clock.
pub struct SimClock {
    begun: tokio::time::Instant,
    epoch: u64,
    pub off_by: AtomicI64,
}

impl SimClock {
    pub fn truth(&self) -> u64 {
        self.epoch + self.begun.elapsed().as_secs()
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> u64 {
        self.truth().saturating_add_signed(self.off_by.load(Ordering::Relaxed))
    }

    async fn sleep_until(&self, at: u64) {
        let mut before = 0;
        loop {
            let now = self.now();
            if now >= at || now < before {
                return;
            }
            before = now;
            // The real one looks every minute; a step is noticed a little later here.
            tokio::time::sleep(Duration::from_secs((at - now).min(1_800))).await;
        }
    }
}

impl FakeCa {
    pub fn new() -> Arc<Self> {
        Self::since(EPOCH)
    }

    /// By the clock of this machine.
    pub fn of_today() -> Arc<Self> {
        Self::since(clock::unix())
    }

    fn since(epoch: u64) -> Arc<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let time = SimClock { begun: tokio::time::Instant::now(), epoch, off_by: AtomicI64::new(0) };
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        Arc::new(Self {
            root,
            inner: Mutex::new(Inner {
                weather: Weather::default(),
                port80: None,
                life: 90 * DAY,
                backdate: 3_600,
                orders: Vec::new(),
                accounts: BTreeMap::new(),
                ari_asked: 0,
                calls: 0,
                on_issue: None,
                nonce: 0,
                serial: 1,
                issuer: Issuer::new(params, key),
            }),
            challenges: Arc::new(Challenges::new()),
            time: Arc::new(time),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn weather(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.lock().weather);
    }

    /// Orders at the production directory.
    pub fn orders(&self) -> Vec<Placed> {
        self.lock().orders.iter().filter(|order| !order.staging).cloned().collect()
    }

    pub fn world(self: &Arc<Self>, chance: impl Fn() -> f64 + Send + Sync + 'static) -> World {
        World {
            clock: Arc::clone(&self.time) as Arc<dyn Clock>,
            chance: Arc::new(chance),
            transport: Arc::clone(self) as Arc<dyn Transport>,
        }
    }
}

/// A server's state folder, its certificates, and the CA it talks to.
pub struct Bench {
    pub ca: Arc<FakeCa>,
    pub folder: TempDir,
    pub certificates: Arc<Certificates>,
    pub settings: AcmeSettings,
}

impl Bench {
    pub fn new(names: &[&str]) -> Self {
        // A year is thousands of writes that reach the disk: in memory, where there is such a place.
        let folder = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
        let settings = AcmeSettings {
            domains: names.iter().map(|name| Identifier::parse(name).unwrap()).collect(),
            contact: vec!["mailto:ops@a.example".to_owned()],
            directory: DirectoryUrl::parse("letsencrypt").unwrap(),
            challenges: vec![Challenge::TlsAlpn01, Challenge::Http01],
            state: folder.path().join("acme"),
            profile: None,
            ca_root: Vec::new(),
            eab: None,
        };
        Self { ca: FakeCa::new(), folder, certificates: Arc::new(Certificates::new()), settings }
    }

    pub fn start(&self) -> Acme {
        self.start_with(|| 0.5)
    }

    pub fn start_with(&self, chance: impl Fn() -> f64 + Send + Sync + 'static) -> Acme {
        Acme::start(
            self.settings.clone(),
            Arc::clone(&self.certificates),
            Arc::clone(&self.ca.challenges),
            self.ca.world(chance),
        )
    }

    /// Another process on the same folder.
    pub fn start_beside(&self) -> (Acme, Arc<Certificates>) {
        let certificates = Arc::new(Certificates::new());
        let world = self.ca.world(|| 0.5);
        let acme = Acme::start(
            self.settings.clone(),
            Arc::clone(&certificates),
            Arc::clone(&self.ca.challenges),
            world,
        );
        (acme, certificates)
    }

    /// When the certificate that is served for this name ends; 0 when there is none.
    pub fn served_until(&self, name: &str) -> u64 {
        let listed = self.certificates.list();
        let ours = listed.iter().filter(|info| info.names.iter().any(|have| have == name));
        ours.map(|info| info.not_after).max().unwrap_or(0)
    }

    pub fn state(&self) -> &Path {
        &self.settings.state
    }
}

pub async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[async_trait]
impl Transport for FakeCa {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let weather = {
            let mut inner = self.lock();
            inner.calls += 1;
            inner.weather.clone()
        };
        tokio::time::sleep(weather.delay).await;
        if weather.hangs {
            std::future::pending::<()>().await;
        }
        if weather.down {
            return Err("connection refused".to_owned());
        }
        Ok(self.answer(&request, &weather))
    }
}

impl FakeCa {
    pub fn answer(&self, request: &Request<Bytes>, weather: &Weather) -> Response<Bytes> {
        let staging = request.uri().host() == Some(STAGING);
        let root = format!("https://{}", request.uri().authority().unwrap());
        let path: Vec<&str> = request.uri().path().split('/').skip(1).collect();
        let jws: Value = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
        let part = |name: &str| -> Value {
            let bytes = URL_SAFE_NO_PAD.decode(jws[name].as_str().unwrap_or("")).unwrap();
            serde_json::from_slice(&bytes).unwrap_or(Value::Null)
        };
        let (head, payload) = (part("protected"), part("payload"));
        let mut inner = self.lock();
        if let Some(kid) = head["kid"].as_str()
            && inner.accounts.get(kid) != Some(&true)
        {
            return inner.problem("accountDoesNotExist", 400, None);
        }
        let now = self.time.truth();
        match path.as_slice() {
            ["directory"] => inner.json(
                200,
                None,
                &json!({
                    "newNonce": format!("{root}/nonce"), "newAccount": format!("{root}/account"),
                    "newOrder": format!("{root}/order"), "renewalInfo": format!("{root}/ari"),
                    "keyChange": null, "meta": {"profiles": {"classic": "x", "shortlived": "y"}},
                }),
            ),
            ["nonce"] => inner.json(200, None, &json!({})),
            ["account"] => {
                let id = format!("{root}/account/{}", head["jwk"]["x"].as_str().unwrap());
                inner.accounts.insert(id.clone(), true);
                inner.json(201, Some(&id), &json!({"status": "valid"}))
            }
            ["account", _] => inner.json(200, None, &json!({"status": "valid"})),
            ["ari", _] => {
                inner.ari_asked += 1;
                match weather.window {
                    Some((start, end)) => {
                        let time = |at: u64| humantime::format_rfc3339_seconds(epoch(at)).to_string();
                        inner.json(
                            200,
                            None,
                            &json!({"suggestedWindow": {"start": time(start), "end": time(end)}}),
                        )
                    }
                    None => inner.problem("", 404, None),
                }
            }
            ["order"] => {
                if let Some((kind, status, after)) = weather.refuses.filter(|_| !staging) {
                    return inner.problem(kind, status, after);
                }
                if weather.forgets_accounts {
                    inner.weather.forgets_accounts = false;
                    inner.accounts.values_mut().for_each(|known| *known = false);
                    return inner.problem("accountDoesNotExist", 400, None);
                }
                let text = |value: &Value| value.as_str().map(str::to_owned);
                let replaces = text(&payload["replaces"]);
                let names = payload["identifiers"].as_array().unwrap();
                let placed = Placed {
                    at: now,
                    staging,
                    names: names.iter().map(|name| text(&name["value"]).unwrap()).collect(),
                    replaces: replaces.clone(),
                    profile: text(&payload["profile"]),
                    issued: false,
                    proved: HashSet::new(),
                    failed: HashSet::new(),
                    chain: None,
                };
                inner.orders.push(placed);
                if weather.no_replaces && replaces.is_some() {
                    return inner.problem("alreadyReplaced", 409, None);
                }
                let at = inner.orders.len() - 1;
                let id = format!("{root}/order/{at}");
                let body = inner.order(&root, at);
                inner.json(201, Some(&id), &body)
            }
            ["order", at] => {
                let body = inner.order(&root, at.parse().unwrap());
                inner.json(200, None, &body)
            }
            ["authz", at, n] => {
                let (at, n): (usize, usize) = (at.parse().unwrap(), n.parse().unwrap());
                let order = &inner.orders[at];
                let status = match () {
                    () if order.proved.contains(&n) => "valid",
                    () if order.failed.contains(&n) => "invalid",
                    () => "pending",
                };
                let name = &order.names[n];
                let error = json!({"type": "urn:ietf:params:acme:error:unauthorized", "detail": "not found"});
                let challenge = |kind: &str| {
                    let mut challenge = json!({"type": kind, "status": status, "token": format!("t-{at}-{n}"),
                        "url": format!("{root}/challenge/{at}/{n}/{kind}")});
                    if status == "invalid" {
                        challenge["error"] = error.clone();
                    }
                    challenge
                };
                let kind = if name.parse::<IpAddr>().is_ok() { "ip" } else { "dns" };
                let body = json!({"status": status, "identifier": {"type": kind, "value": name},
                    "challenges": [{"type": "dns-persist-01", "status": status, "url": "u"},
                        challenge("http-01"), challenge("tls-alpn-01")]});
                inner.json(200, None, &body)
            }
            ["challenge", at, n, kind] => {
                let (at, n): (usize, usize) = (at.parse().unwrap(), n.parse().unwrap());
                let name = inner.orders[at].names[n].clone();
                let token = format!("t-{at}-{n}");
                let answered = match *kind {
                    "http-01" if inner.port80.is_some() => proved(inner.port80.unwrap(), &name, &token),
                    "http-01" => self.challenges.http01(&token).is_some_and(|text| text.starts_with(&token)),
                    _ => self.challenges.alpn(&name).is_some() || name.parse::<IpAddr>().is_ok(),
                };
                assert!(answered, "the CA is told only when the challenge can be answered");
                if !weather.slow {
                    let order = &mut inner.orders[at];
                    if weather.unproved.contains(&name) { &mut order.failed } else { &mut order.proved }
                        .insert(n);
                }
                inner.json(200, None, &json!({"type": kind, "status": "pending", "token": token, "url": "u"}))
            }
            ["finalize", at] => {
                let at: usize = at.parse().unwrap();
                let csr = URL_SAFE_NO_PAD.decode(payload["csr"].as_str().unwrap()).unwrap();
                inner.sign(at, &csr, now);
                if let Some(chain) = &mut inner.orders[at].chain {
                    chain.push_str(&self.root.repeat(weather.ballast));
                }
                if let Some(hook) = &inner.on_issue {
                    hook();
                }
                let body = inner.order(&root, at);
                inner.json(200, None, &body)
            }
            ["cert", at] => {
                let chain = inner.orders[at.parse::<usize>().unwrap()].chain.clone().unwrap();
                inner.reply(200, None, "application/pem-certificate-chain", chain)
            }
            other => panic!("no such place: {other:?}"),
        }
    }
}

impl Inner {
    fn order(&self, root: &str, at: usize) -> Value {
        let order = &self.orders[at];
        let status = match () {
            () if order.chain.is_some() => "valid",
            () if !order.failed.is_empty() => "invalid",
            () if order.proved.len() == order.names.len() => "ready",
            () => "pending",
        };
        let authorizations: Vec<_> =
            (0..order.names.len()).map(|n| format!("{root}/authz/{at}/{n}")).collect();
        let mut body = json!({"status": status, "authorizations": authorizations,
            "finalize": format!("{root}/finalize/{at}"), "certificate": format!("{root}/cert/{at}")});
        if let Some(replaces) = &order.replaces {
            body["replaces"] = json!(replaces);
        }
        body
    }

    fn sign(&mut self, at: usize, csr: &[u8], now: u64) {
        let mut csr = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        assert_eq!(csr.params.distinguished_name.iter().count(), 0, "no common name");
        self.serial += 1;
        csr.params.serial_number = Some(SerialNumber::from(self.serial));
        csr.params.use_authority_key_identifier_extension = true;
        let from = now.saturating_add_signed(-self.backdate);
        csr.params.not_before = epoch(from).into();
        // The last second belongs to it.
        csr.params.not_after = epoch(from + self.life - 1).into();
        let chain = csr.signed_by(&self.issuer).unwrap().pem();
        let order = &mut self.orders[at];
        order.chain = Some(chain);
        order.issued = true;
    }

    fn problem(&mut self, kind: &str, status: u16, after: Option<u64>) -> Response<Bytes> {
        let body =
            json!({"type": format!("urn:ietf:params:acme:error:{kind}"), "detail": "no", "status": status});
        let mut reply = self.reply(status, None, "application/problem+json", body.to_string());
        if let Some(after) = after {
            reply.headers_mut().insert("retry-after", after.into());
        }
        reply
    }

    fn json(&mut self, status: u16, location: Option<&str>, body: &Value) -> Response<Bytes> {
        self.reply(status, location, "application/json", body.to_string())
    }

    fn reply(&mut self, status: u16, location: Option<&str>, kind: &str, body: String) -> Response<Bytes> {
        self.nonce += 1;
        let mut builder = Response::builder().status(status).header("content-type", kind);
        builder = builder.header("replay-nonce", format!("n{}", self.nonce));
        if let Some(location) = location {
            builder = builder.header("location", location);
        }
        builder.body(body.into()).unwrap()
    }
}

/// Asks port 80 as a CA does.
fn proved(port80: SocketAddr, name: &str, token: &str) -> bool {
    let mut stream = TcpStream::connect(port80).unwrap();
    let path = format!("/.well-known/acme-challenge/{token}");
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.starts_with("HTTP/1.1 200") && answer.contains(&format!("\r\n\r\n{token}."))
}

fn epoch(at: u64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + Duration::from_secs(at)
}
