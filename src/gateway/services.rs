//! The services beside Codex: which requests are theirs, and how each is reached.

use std::sync::Arc;
use std::time::Duration;

use pingora::upstreams::peer::PeerOptions;

use super::backend::Backend;
use super::exchange::roots;
use super::upgrade::Upgrade;
use crate::config::{Codex, Config, Endpoint, Service as Configured, ServiceKind};
use crate::route::{self, Prefix};
use crate::translate::Models;
use crate::upstream::Upstream;
use crate::upstream::address::Address;
use crate::upstream::credential::Source;

/// A service that requests pass through to.
pub(super) struct Service {
    /// Its name, for logs.
    pub(super) name: Arc<str>,
    /// Where it is; the path is put before a request's own.
    pub(super) url: Endpoint,
    /// The addresses behind its host.
    pub(super) address: Address,
    /// Timeouts and roots.
    pub(super) options: PeerOptions,
    /// Connects for requests that switch protocols.
    pub(super) upgrade: Arc<Upgrade>,
    /// An application behind a plain connection is told the host that its visitors see; whatever has a certificate
    /// or an API of its own is called by its own name.
    pub(super) keeps_host: bool,
    models: Vec<String>,
    /// For one that speaks Codex's shape: its models are translated for, not passed through.
    pub(super) codex: Option<Backend>,
}

/// All of them.
pub(super) struct Services {
    all: Vec<Arc<Service>>,
    prefixes: Vec<Prefix>,
}

/// Idle connections are kept for less than the 5 s after which Node and uvicorn close theirs: a request sent into a
/// close cannot be sent again.
const POOL_IDLE: Duration = Duration::from_secs(4);
/// Requests that may share one HTTP/2 connection.
const H2_STREAMS: usize = 64;

impl Services {
    /// Those that the config names, in the place of those `before`.
    pub(super) fn new(config: &Config, before: Option<&Self>) -> Self {
        let paths = config
            .services
            .iter()
            .enumerate()
            .flat_map(|(number, service)| service.paths.iter().map(move |path| (path.as_str(), number)));
        let service = |configured| Arc::new(service(config, configured, before));
        Self { prefixes: route::prefixes(paths), all: config.services.iter().map(service).collect() }
    }

    /// The table for [`route::find`].
    pub(super) fn prefixes(&self) -> &[Prefix] {
        &self.prefixes
    }

    /// The service with that number in the table.
    pub(super) fn get(&self, number: usize) -> Option<Arc<Service>> {
        self.all.get(number).map(Arc::clone)
    }

    /// The service that has this model.
    pub(super) fn of_model(&self, model: &str) -> Option<Arc<Service>> {
        self.all.iter().find(|service| service.models.iter().any(|name| name == model)).map(Arc::clone)
    }

    /// The backend of the service with this name, if it speaks Codex's shape.
    fn backend(&self, name: &str) -> Option<&Backend> {
        self.all.iter().find(|service| &*service.name == name)?.codex.as_ref()
    }

    /// All models of services, with the name of theirs.
    pub(super) fn models(&self) -> impl Iterator<Item = (&str, &str)> {
        self.all
            .iter()
            .flat_map(|service| service.models.iter().map(|model| (model.as_str(), &*service.name)))
    }

    /// The upstreams of those that speak Codex's shape, by name.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = (Arc<str>, Arc<Upstream>)> {
        let upstream = |service: &Arc<Service>| {
            let backend = service.codex.as_ref()?;
            Some((Arc::clone(&service.name), Arc::clone(&backend.upstream)))
        };
        self.all.iter().filter_map(upstream)
    }

    /// Whether the model in a form decides where it goes.
    pub(super) fn have_models(&self) -> bool {
        self.models().next().is_some()
    }
}

fn service(config: &Config, configured: &Configured, before: Option<&Services>) -> Service {
    let Configured { name, url, kind, models, .. } = configured;
    let codex = (*kind == ServiceKind::Codex && !models.is_empty()).then(|| {
        // The way to Codex says nothing about the way to a service of the operator's own.
        let codex = Codex { endpoint: url.clone(), proxy: None, ..config.codex.clone() };
        let before = before.and_then(|before| before.backend(name));
        Backend::new(codex, Source::None, Models::new(models.clone(), false), &config.limits, before)
    });
    Service {
        name: name.as_str().into(),
        address: Address::new(&url.host, url.port),
        options: options(&config.codex),
        upgrade: Arc::new(Upgrade { patience: config.codex.connect_timeout }),
        keeps_host: *kind == ServiceKind::Plain && !url.tls,
        url: url.clone(),
        models: models.clone(),
        codex,
    }
}

/// The times and roots of `[codex]` hold for services too.
fn options(codex: &Codex) -> PeerOptions {
    let mut options = PeerOptions::new();
    options.connection_timeout = Some(codex.connect_timeout);
    options.total_connection_timeout = Some(codex.connect_timeout);
    options.read_timeout = Some(codex.first_byte_timeout);
    options.write_timeout = Some(codex.request_timeout);
    options.idle_timeout = Some(POOL_IDLE);
    options.max_h2_streams = H2_STREAMS;
    if !codex.ca_root.is_empty() {
        options.ca = Some(roots(&codex.ca_root));
    }
    options
}
