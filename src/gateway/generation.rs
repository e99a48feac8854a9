//! Everything that hangs on the config, built whole: a reload builds the next one and puts it in this one's place.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora::apps::HttpServerOptions;
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::{HttpProxy, http_proxy};
use pingora::server::configuration::ServerConf;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::admin::{self, Admin};
use super::admission::HeadLimits;
use super::backend::Backend;
use super::linger::Lingering;
use super::port80::{self, Port80};
use super::ports::{Held, Ports};
use super::record::request_id;
use super::services::Services;
use super::site::Site;
use super::transcribe::Deadlines;
use super::{Front, Gateway};
use crate::accept::permits::{self, Permits};
use crate::accept::{Drain, Guard, Handshakes, Patience, Rules, listener};
use crate::answer::Fault;
use crate::authenticate::{Attempts, Keys, Sources};
use crate::base::file::Watching;
use crate::config::{Config, ConfigFault, KeySource};
use crate::observe::metrics::Metrics;
use crate::respond::message;
use crate::translate::{Language, Limits};

/// Flow control: enough for a fast upload on a stream, bounded for a connection.
const H2_STREAM_WINDOW: u32 = 512 * 1024;
const H2_CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// Requests at once on a connection. Clients that want more open another one, or wait.
const H2_STREAMS: u32 = 32;
/// Answers that one stream may hold back for a client that takes none, bytes.
const H2_SEND_BUFFER: usize = 64 * 1024;

/// What no reload touches.
#[derive(Clone)]
pub(super) struct Constant {
    pub(super) in_flight: Arc<AtomicUsize>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) drain: Drain,
}

/// One config at work.
pub(super) struct Generation {
    gateway: Arc<Gateway>,
    admin: Arc<Admin>,
    pub(super) site: Arc<Site>,
    pub(super) ports: Ports,
    /// How long requests in flight may take to end.
    pub(super) drain: Duration,
    rules: Rules,
}

/// What listeners lead to: the generation in use.
#[derive(Clone)]
pub(super) struct Current {
    gateway: Arc<ArcSwap<Gateway>>,
    admin: admin::Current,
}

/// What accepting needs, and could not be had for certain.
pub(super) struct Ready {
    ports: Ports,
    handshakes: Handshakes,
}

/// Listeners being accepted on, and files being followed, for one generation.
pub(super) struct Running {
    close: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
    _watching: Vec<Watching>,
}

impl Generation {
    /// Reads keys, login and certificates, then takes every port: those that are `held` stay as they are. Nothing that
    /// is in use changes before it has all succeeded. Needs a Tokio runtime.
    ///
    /// # Errors
    /// Every fault found, with its key path; no new port stays bound then.
    pub(super) fn build(
        config: &Config,
        constant: &Constant,
        held: Vec<Held>,
        before: Option<&Self>,
    ) -> Result<(Self, Ready), Vec<ConfigFault>> {
        let mut faults = Vec::new();
        let keys = keys(config).map_err(|fault| faults.push(fault));
        let language = language(config).map_err(|fault| faults.push(fault));
        let site = Site::open(config, None).map_err(|fault| faults.push(fault));
        let (Ok(keys), Ok(language), Ok(site)) = (keys, language, site) else { return Err(faults) };
        let ports = Ports::bind(&config.server, held)?;
        let fault = |why: String| vec![ConfigFault { path: "server".to_owned(), why }];
        let shared = ports.share().map_err(|error| fault(error.to_string()))?;
        let site = match before {
            None => site,
            Some(before) => Site::open(config, Some(&before.site)).map_err(|fault| vec![fault])?,
        };
        let handshakes = site.handshakes().map_err(|error| fault(error.to_string()))?;
        let ready = Ready { ports: shared, handshakes };
        Ok((Self::assemble(config, constant, keys, language, site, ports, before), ready))
    }

    fn assemble(
        config: &Config,
        constant: &Constant,
        keys: Keys,
        language: Option<Language>,
        site: Site,
        ports: Ports,
        before: Option<&Self>,
    ) -> Self {
        let Constant { in_flight, metrics, drain } = constant.clone();
        let (site, keys) = (Arc::new(site), Arc::new(keys));
        let old = before.map(|before| &*before.gateway);
        let services = Services::new(config, old.map(|old| &old.services));
        let codex = Backend::codex(config, old.map(|old| &old.codex), |models| {
            models.without(services.models().map(|(model, _)| model.to_owned()).collect())
        });
        let upstream = Arc::clone(&codex.upstream);
        let main = ("codex".into(), Arc::clone(&upstream));
        let upstreams = std::iter::once(main).chain(services.upstreams()).collect();
        let limits = &config.limits;
        let gateway = Arc::new(Gateway {
            keys: Arc::clone(&keys),
            codex,
            services,
            language,
            limits: self::limits(config),
            head_limits: HeadLimits { head: limits.max_head, uri: limits.max_uri },
            deadlines: Deadlines {
                body: limits.body_timeout,
                floor: limits.body_floor,
                request: config.codex.request_timeout,
                per_mib: config.codex.time_per_mib,
                client: None,
            },
            idle: limits.idle_timeout,
            attempts: attempts(limits.failed_keys_per_minute, old.map(|old| &old.attempts)),
            in_flight: Arc::clone(&in_flight),
            lingering: Lingering::new(),
            drain,
            site: Arc::clone(&site),
            metrics: Arc::clone(&metrics),
        });
        let admin = Arc::new(Admin {
            keys,
            upstream,
            upstreams,
            in_flight,
            services: !config.services.is_empty(),
            site: Arc::clone(&site),
            metrics,
        });
        Self {
            gateway,
            admin,
            site,
            ports,
            drain: config.server.drain,
            rules: rules(config, before.map(|before| &before.rules)),
        }
    }

    /// What listeners will lead to.
    pub(super) fn current(&self) -> Current {
        let gateway = Arc::new(ArcSwap::new(Arc::clone(&self.gateway)));
        Current { gateway, admin: Arc::new(ArcSwap::new(Arc::clone(&self.admin))) }
    }

    /// Puts this one in the place of another.
    pub(super) fn take_over(&self, current: &Current) {
        current.gateway.store(Arc::clone(&self.gateway));
        current.admin.store(Arc::clone(&self.admin));
    }

    /// Accepts, and follows files. The listeners' connections go on when they end.
    pub(super) fn run(&self, current: &Current, drain: &Drain, ready: Ready) -> Running {
        let Ready { ports: Ports { http, https, port80, admin }, handshakes } = ready;
        let (close, closed) = watch::channel(false);
        let port = https.first().map(|listener| listener.address).as_ref().map(SocketAddr::port);
        let metrics = &self.gateway.metrics;
        let redirect = Port80::new(Arc::clone(&self.site), port, metrics);
        let proxy = Arc::new(proxy(Front(Arc::clone(&current.gateway)), &self.rules));
        let plain = Guard::new(Arc::clone(&proxy), self.rules.clone(), drain.clone(), metrics);
        let secure = Guard::new(proxy, self.rules.clone(), drain.clone(), metrics).over_tls(handshakes);
        let port80 = port80::serve(port80, redirect, self.rules.clone(), drain.clone(), closed.clone());
        let listeners = vec![
            tokio::spawn(listener::serve(http, "http", plain, closed.clone())),
            tokio::spawn(listener::serve(https, "https", secure, closed.clone())),
            tokio::spawn(port80),
            tokio::spawn(admin::serve(admin, Arc::clone(&current.admin), closed)),
        ];
        let Gateway { keys, codex, .. } = &*self.gateway;
        let watching = [keys.watch(), codex.upstream.credential.watch()];
        Running { close, listeners, _watching: watching.into_iter().chain(self.site.watch()).collect() }
    }
}

impl Running {
    /// Accepts no more.
    pub(super) async fn close(self) {
        let _ = self.close.send(true);
        for listener in self.listeners {
            let _ = listener.await;
        }
    }
}

/// The language of requests that name none.
///
/// # Errors
/// It is none.
pub(super) fn language(config: &Config) -> Result<Option<Language>, ConfigFault> {
    config.codex.language.as_deref().map_or(Ok(None), Language::parse).map_err(|_| ConfigFault {
        path: "codex.language".into(),
        why: "no ISO 639 code and no language name".into(),
    })
}

/// How much of everything an upload may have.
pub(super) fn limits(config: &Config) -> Limits {
    let limits = &config.limits;
    Limits {
        upload: limits.max_upload,
        parts: limits.parts,
        part_head: limits.part_head,
        field: limits.field,
        duration: limits.max_duration,
        ..Limits::default()
    }
}

/// Where the callers' keys come from, read for the first time.
///
/// # Errors
/// The key file cannot be used.
pub(super) fn keys(config: &Config) -> Result<Keys, ConfigFault> {
    let sources = match &config.keys {
        KeySource::Open => return Ok(Keys::open()),
        KeySource::Single(key) => Sources { key: Some(key.clone()), file: None },
        KeySource::File(path) => Sources { key: None, file: Some(path.clone()) },
    };
    Keys::new(sources).map_err(|fault| ConfigFault { path: "keys.file".into(), why: fault.to_string() })
}

/// What each address has used up of its attempts stays used up.
fn attempts(per_minute: u32, before: Option<&Attempts>) -> Attempts {
    before.map_or_else(|| Attempts::new(per_minute), |before| before.limited(per_minute))
}

/// What holds of every connection. The places of connections that outlive a reload stay counted where their number
/// stays the same.
fn rules(config: &Config, before: Option<&Rules>) -> Rules {
    let limits = &config.limits;
    let files = permits::open_files();
    let connections = limits.connections.unwrap_or_else(|| permits::connections_for(files));
    if connections as u64 > files {
        tracing::warn!(
            connections,
            files,
            "limits.connections is more than the open files that the system allows"
        );
    }
    let per_address = limits.connections_per_address;
    let kept =
        before.map(|before| &before.permits).filter(|permits| permits.are_for(connections, per_address));
    Rules {
        patience: Patience {
            head: limits.head_timeout,
            idle: limits.idle_timeout,
            late: || message(&Fault::HeadTimeout.reply(), &request_id()),
            full: || message(&Fault::TooManyConnections.reply(), &request_id()),
        },
        permits: kept.map_or_else(|| Arc::new(Permits::new(connections, per_address)), Arc::clone),
        trust: Arc::new(config.server.trust.clone()),
        proxy_protocol: config.server.proxy_protocol,
        requests: limits.requests_per_connection,
    }
}

fn proxy(front: Front, rules: &Rules) -> HttpProxy<Front> {
    let mut proxy = http_proxy(&Arc::new(ServerConf::default()), front);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    // Pingora counts the requests after the first.
    options.keepalive_request_limit = Some(rules.requests.saturating_sub(1));
    options.h2_idle_timeout = Some(rules.patience.idle);
    proxy.server_options = Some(options);
    let mut h2 = default_h2_options();
    h2.initial_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_concurrent_streams(H2_STREAMS)
        .max_send_buffer_size(H2_SEND_BUFFER);
    proxy.h2_options = Some(h2);
    proxy
}
