//! An upstream that speaks Codex's shape: how it is reached, and what has been learned of it. The latter outlives a
//! reload that says nothing else of it: an upstream that has had enough of us would only be made angrier.

use std::sync::Arc;

use super::exchange::Dialer;
use crate::config::{self, Codex, Config, LoginSource};
use crate::translate::Models;
use crate::upstream::Upstream;
use crate::upstream::address::Address;
use crate::upstream::credential::{Credential, Source};
use crate::upstream::queue::Queue;
use crate::upstream::spool::SpoolSpace;

/// The upstream, the way there, and the models that it is asked for.
pub(super) struct Backend {
    pub(super) upstream: Arc<Upstream>,
    pub(super) dialer: Dialer,
    pub(super) models: Arc<Models>,
    /// What it was made by.
    codex: Codex,
}

impl Backend {
    /// Codex itself, with `models` of those that are served there, in the place of the one `before`.
    pub(super) fn codex(
        config: &Config,
        before: Option<&Self>,
        models: impl FnOnce(Models) -> Models,
    ) -> Self {
        let codex = config.codex.clone();
        let models = models(Models::new(codex.models.clone(), codex.strict));
        let source = source(&codex);
        Self::new(codex, source, models, &config.limits, before)
    }

    /// In the place of the one `before`: at the same endpoint those who wait and what is spooled there count on, and
    /// where the upstream meets the same client by the same way, all that has been learned of it holds.
    pub(super) fn new(
        codex: Codex,
        source: Source,
        models: Models,
        limits: &config::Limits,
        before: Option<&Self>,
    ) -> Self {
        let before = before.filter(|before| before.codex.endpoint == codex.endpoint);
        let alike = before.filter(|before| before.is_met_as(&codex));
        let upstream =
            Arc::new(upstream(&codex, source, limits, [before, alike].map(|found| Some(&*found?.upstream))));
        Self {
            dialer: Dialer::new(Arc::clone(&upstream), &codex, alike.map(|alike| &alike.dialer)),
            upstream,
            models: Arc::new(models),
            codex,
        }
    }

    /// Whether an upstream would see no difference, but for the login: that one has a generation of its own.
    fn is_met_as(&self, codex: &Codex) -> bool {
        let Codex { proxy, user_agent, originator, ca_root, .. } = &self.codex;
        *proxy == codex.proxy
            && *user_agent == codex.user_agent
            && *originator == codex.originator
            && *ca_root == codex.ca_root
    }
}

fn source(codex: &Codex) -> Source {
    let account = codex.account.as_ref().and_then(|account| account.to_str().ok()).map(str::to_owned);
    match &codex.login {
        LoginSource::Bearer(token) => Source::Bearer { token: token.clone(), account },
        LoginSource::File(path) => Source::File { path: path.clone(), account },
    }
}

/// `before` is at the same endpoint; `alike` is met alike, too.
fn upstream(
    codex: &Codex,
    source: Source,
    limits: &config::Limits,
    [before, alike]: [Option<&Upstream>; 2],
) -> Upstream {
    let (places, waiting, wait) = (limits.concurrency, limits.queue, limits.queue_wait);
    let (directory, total) = (limits.spool_dir.clone(), limits.spool_total);
    Upstream {
        address: Address::new(&codex.endpoint.host, codex.endpoint.port),
        endpoint: codex.endpoint.clone(),
        credential: Arc::new(match before {
            None => Credential::new(source),
            Some(before) => before.credential.succeeded_by(source),
        }),
        queue: match before {
            None => Queue::new(places, waiting, wait),
            Some(before) => before.queue.resized(places, waiting, wait),
        },
        spool: Arc::new(match before {
            None => SpoolSpace::new(directory, total),
            Some(before) => before.spool.moved(directory, total),
        }),
        breakers: alike.map(|alike| Arc::clone(&alike.breakers)).unwrap_or_default(),
        lengthless: alike.map(|alike| Arc::clone(&alike.lengthless)).unwrap_or_default(),
        cookies: alike.map(|alike| Arc::clone(&alike.cookies)).unwrap_or_default(),
        user_agent: codex.user_agent.clone(),
        originator: codex.originator.clone(),
    }
}
