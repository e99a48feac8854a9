//! What `/metrics` shows: the counters, and how things stand at this moment.

use std::sync::atomic::Ordering;
use std::time::{Duration, UNIX_EPOCH};

use tokio::runtime::Handle;

use super::admin::Admin;
use crate::base::clock;
use crate::observe::exposition::Page;
use crate::observe::panics;
use crate::tls::{CertificateInfo, CertificateSource};
use crate::upstream::Upstream;
use crate::upstream::breaker::{Condition, State};

impl Admin {
    /// The page, in Prometheus' text format. Every label value is a word of ours or a service's name.
    pub(super) fn metrics(&self) -> String {
        let mut page = Page::new();
        page.gauge("asr_edge_build_info", "The running version.")
            .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        page.gauge("asr_edge_ready", "Whether a transcription can succeed now, as /ready tells.")
            .sample(&[], u8::from(self.ready().0));
        self.metrics.write(&mut page);
        page.counter("asr_edge_panics_total", "Faults of the program that were caught.")
            .sample(&[], panics());
        page.gauge("asr_edge_requests_in_flight", "Requests that have begun and not ended.")
            .sample(&[], self.in_flight.load(Ordering::Relaxed));
        if let Ok(runtime) = Handle::try_current() {
            page.gauge("asr_edge_tasks", "Tasks of the asynchronous runtime that have not ended.")
                .sample(&[], runtime.metrics().num_alive_tasks());
        }
        self.write_upstreams(&mut page);
        self.write_expiries(&mut page);
        page.gauge("asr_edge_key_file_fault", "1 while the key file's last change was not taken.")
            .sample(&[], u8::from(self.keys.fault().is_some()));
        page.into_text()
    }

    fn write_upstreams(&self, page: &mut Page) {
        let mut samples =
            page.gauge("asr_edge_queue_waiting", "Uploads waiting for a place at the upstream.");
        for (name, upstream) in &self.upstreams {
            samples.sample(&[("upstream", name)], upstream.queue.waiting());
        }
        let mut samples = page.gauge("asr_edge_spool_bytes", "Bytes of spooled bodies on disk.");
        for (name, upstream) in &self.upstreams {
            samples.sample(&[("upstream", name)], upstream.spool.used());
        }
        let conditions: Vec<_> = self
            .upstreams
            .iter()
            .flat_map(|(name, upstream)| conditions(upstream).map(move |condition| (&**name, condition)))
            .collect();
        let help = "Challenge pages, rejected logins and rate limits that the upstream answered with.";
        let mut samples = page.counter("asr_edge_upstream_troubles_total", help);
        for (name, condition) in &conditions {
            samples.sample(&[("upstream", name), ("trouble", condition.trouble.name())], condition.met);
        }
        let help =
            "0 closed: requests pass; 1 open: they are refused at once; 2 half open: one of them probes.";
        let mut samples = page.gauge("asr_edge_breaker_state", help);
        for (name, condition) in &conditions {
            let state = match condition.state {
                State::Closed => 0,
                State::Open => 1,
                State::HalfOpen => 2,
            };
            samples.sample(&[("upstream", name), ("trouble", condition.trouble.name())], state);
        }
    }

    /// Seconds until something ends; negative once it has.
    fn write_expiries(&self, page: &mut Page) {
        let now = clock::unix();
        let help = "Seconds until the first certificate from this source ends; negative once it has.";
        let mut samples = page.gauge("asr_edge_certificate_expiry_seconds", help);
        let certificates = self.site.certificates.list();
        for (word, source) in [("files", CertificateSource::Files), ("acme", CertificateSource::Acme)] {
            let of_source = |info: &&CertificateInfo| info.source == source;
            if let Some(first) = certificates.iter().filter(of_source).map(|info| info.not_after).min() {
                samples.sample(&[("source", word)], i128::from(first) - i128::from(now));
            }
        }
        let help = "Seconds until the login's token ends, where it says so; negative once it has.";
        let mut samples = page.gauge("asr_edge_login_expiry_seconds", help);
        if let Some(at) = self.upstream.credential.expires() {
            let at = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
            samples.sample(&[], i128::from(at) - i128::from(now));
        }
    }
}

/// How it stands with an upstream's breakers, for the login in use.
pub(super) fn conditions(upstream: &Upstream) -> impl Iterator<Item = Condition> {
    let login = upstream.credential.current().map_or(0, |login| login.generation);
    upstream.breakers.conditions(login, clock::instant())
}
