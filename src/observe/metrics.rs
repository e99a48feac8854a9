//! What is counted over the life of the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::StatusCode;
use parking_lot::Mutex;

use super::exposition::{Page, Samples};

/// Upper ends of the histograms' buckets, in seconds.
const BUCKETS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Faults that say something of a key.
const KEY_FAULTS: [&str; 3] = ["no_key", "wrong_key", "several_keys"];

/// One request that has ended. The words are of our own closed lists.
#[derive(Debug, Clone, Default)]
pub struct Ended {
    /// Name of its route.
    pub route: &'static str,
    /// Status of the answer; 499 when nobody was left to have one.
    pub status: u16,
    /// Name of its fault.
    pub fault: Option<&'static str>,
    /// Bytes of body that came in.
    pub received: u64,
    /// Bytes of body that went out.
    pub sent: u64,
    /// Length of the audio, where it could be measured.
    pub audio: Option<Duration>,
    /// From the admission to the end of the client's body.
    pub upload: Option<Duration>,
    /// From there to the upstream's answer.
    pub upstream_wait: Option<Duration>,
    /// From the head to the end of the answer.
    pub total: Duration,
}

/// The counters.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<Requests>,
    connections: Arc<AtomicUsize>,
    turned_away: AtomicU64,
    reloads: [AtomicU64; 2],
}

#[derive(Debug, Default)]
struct Requests {
    ended: BTreeMap<(&'static str, Option<u16>, &'static str), u64>,
    received: u64,
    sent: u64,
    audio: Duration,
    upload: Histograms,
    upstream_wait: Histograms,
    total: Histograms,
}

type Histograms = BTreeMap<&'static str, Histogram>;

#[derive(Debug, Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    sum: Duration,
    count: u64,
}

/// Counts as an open connection until dropped.
#[derive(Debug)]
pub struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a request.
    pub fn ended(&self, request: &Ended) {
        let mut requests = self.requests.lock();
        let key = (request.route, known(request.status), request.fault.unwrap_or("none"));
        *requests.ended.entry(key).or_default() += 1;
        requests.received = requests.received.saturating_add(request.received);
        requests.sent = requests.sent.saturating_add(request.sent);
        requests.audio = requests.audio.saturating_add(request.audio.unwrap_or_default());
        let route = request.route;
        request.upload.into_iter().for_each(|took| observe(&mut requests.upload, route, took));
        request.upstream_wait.into_iter().for_each(|took| observe(&mut requests.upstream_wait, route, took));
        observe(&mut requests.total, route, request.total);
    }

    /// Counts a connection for as long as the returned value lives.
    pub fn connected(&self) -> Open {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.connections))
    }

    /// Counts a connection that there was no place for.
    pub fn turned_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a reload of the config: taken, or refused for its faults.
    pub fn reloaded(&self, taken: bool) {
        let [refused, taken_so_far] = &self.reloads;
        if taken { taken_so_far } else { refused }.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes all of it.
    pub fn write(&self, page: &mut Page) {
        self.write_requests(page);
        let connections = self.connections.load(Ordering::Relaxed);
        page.gauge("asr_edge_connections_open", "Connections of clients, TLS handshakes included.")
            .sample(&[], connections);
        let help = "Connections closed at once: too many, in all or from their address.";
        page.counter("asr_edge_connections_refused_total", help)
            .sample(&[], self.turned_away.load(Ordering::Relaxed));
        let [refused, taken] = &self.reloads;
        page.counter("asr_edge_reloads_total", "Reloads of the config, by what came of them.")
            .sample(&[("result", "taken")], taken.load(Ordering::Relaxed))
            .sample(&[("result", "refused")], refused.load(Ordering::Relaxed));
    }

    fn write_requests(&self, page: &mut Page) {
        let requests = self.requests.lock();
        let help = "Requests that have ended, by route, status of the answer and name of the fault.";
        let mut samples = page.counter("asr_edge_requests_total", help);
        for ((route, status, fault), count) in &requests.ended {
            let status = status.map_or_else(|| "other".to_owned(), |status| status.to_string());
            samples.sample(&[("route", *route), ("status", &status), ("fault", *fault)], count);
        }
        let mut samples = page.counter("asr_edge_key_faults_total", "Requests refused for their key.");
        for fault in KEY_FAULTS {
            let of_fault = requests.ended.iter().filter(|((_, _, name), _)| *name == fault);
            samples.sample(&[("fault", fault)], of_fault.map(|(_, count)| count).sum::<u64>());
        }
        page.counter("asr_edge_received_bytes_total", "Bytes of request bodies.")
            .sample(&[], requests.received);
        page.counter("asr_edge_sent_bytes_total", "Bytes of answers' bodies.").sample(&[], requests.sent);
        page.counter("asr_edge_audio_seconds_total", "Length of the audio whose container tells it.")
            .sample(&[], requests.audio.as_secs_f64());
        let help = "From the head to the end of the answer.";
        write_histograms(page.histogram("asr_edge_request_seconds", help), &requests.total);
        let help = "From the admission to the end of the client's body.";
        write_histograms(page.histogram("asr_edge_upload_seconds", help), &requests.upload);
        let help = "From the end of the client's body to the upstream's answer.";
        write_histograms(page.histogram("asr_edge_upstream_wait_seconds", help), &requests.upstream_wait);
    }
}

/// A service may answer with any number: only those that have a meaning become labels.
fn known(status: u16) -> Option<u16> {
    let known = StatusCode::from_u16(status).is_ok_and(|status| status.canonical_reason().is_some());
    (known || status == 499).then_some(status)
}

fn observe(histograms: &mut Histograms, route: &'static str, took: Duration) {
    let histogram = histograms.entry(route).or_default();
    let seconds = took.as_secs_f64();
    let within = histogram.buckets.iter_mut().zip(BUCKETS).filter(|(_, end)| seconds <= *end);
    within.for_each(|(count, _)| *count += 1);
    histogram.sum = histogram.sum.saturating_add(took);
    histogram.count += 1;
}

fn write_histograms(mut samples: Samples<'_>, histograms: &Histograms) {
    for (route, histogram) in histograms {
        let route = ("route", *route);
        for (count, end) in histogram.buckets.iter().zip(BUCKETS) {
            samples.part("_bucket", &[route, ("le", &end.to_string())], count);
        }
        samples.part("_bucket", &[route, ("le", "+Inf")], histogram.count);
        samples.part("_sum", &[route], histogram.sum.as_secs_f64());
        samples.part("_count", &[route], histogram.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(metrics: &Metrics) -> String {
        let mut page = Page::new();
        metrics.write(&mut page);
        page.into_text()
    }

    #[track_caller]
    fn assert_has(page: &str, line: &str) {
        assert!(page.lines().any(|found| found == line), "no {line} in\n{page}");
    }

    #[test]
    fn a_request_is_in_its_bucket_and_in_all_wider_ones() {
        let metrics = Metrics::default();
        let ended = Ended { route: "transcriptions", status: 200, received: 7, sent: 5, ..Ended::default() };
        for (millis, fault) in [(20, None), (400, None), (400_000, Some("upstream_timeout"))] {
            let total = Duration::from_millis(millis);
            metrics.ended(&Ended { total, fault, upload: Some(total), ..ended.clone() });
        }
        let page = page(&metrics);
        let of = |name: &str, le: &str, count: u64| {
            assert_has(&page, &format!("{name}_bucket{{route=\"transcriptions\",le=\"{le}\"}} {count}"));
        };
        for name in ["asr_edge_request_seconds", "asr_edge_upload_seconds"] {
            of(name, "0.01", 0);
            of(name, "0.025", 1);
            of(name, "0.5", 2);
            of(name, "300", 2);
            of(name, "+Inf", 3);
            assert_has(&page, &format!("{name}_count{{route=\"transcriptions\"}} 3"));
            assert_has(&page, &format!("{name}_sum{{route=\"transcriptions\"}} 400.42"));
        }
        assert!(!page.contains("asr_edge_upstream_wait_seconds_count"), "nothing waited");
        let requests = "asr_edge_requests_total{route=\"transcriptions\",status=\"200\",fault=";
        assert_has(&page, &format!("{requests}\"none\"}} 2"));
        assert_has(&page, &format!("{requests}\"upstream_timeout\"}} 1"));
        assert_has(&page, "asr_edge_received_bytes_total 21");
        assert_has(&page, "asr_edge_sent_bytes_total 15");
    }

    #[test]
    fn a_status_without_a_meaning_makes_no_label_of_its_own() {
        let metrics = Metrics::default();
        for status in [200, 499, 0, 299, 799, 999] {
            metrics.ended(&Ended { route: "service", status, ..Ended::default() });
        }
        let page = page(&metrics);
        for (word, count) in [("200", 1), ("499", 1), ("other", 4)] {
            let labels = format!("route=\"service\",status=\"{word}\",fault=\"none\"");
            assert_has(&page, &format!("asr_edge_requests_total{{{labels}}} {count}"));
        }
    }

    #[test]
    fn connections_count_while_they_last_and_key_faults_whatever_the_route() {
        let metrics = Metrics::default();
        let open = metrics.connected();
        assert_has(&page(&metrics), "asr_edge_connections_open 1");
        drop(open);
        assert_has(&page(&metrics), "asr_edge_connections_open 0");
        metrics.turned_away();
        assert_has(&page(&metrics), "asr_edge_connections_refused_total 1");
        for route in ["models", "transcriptions"] {
            metrics.ended(&Ended { route, status: 401, fault: Some("wrong_key"), ..Ended::default() });
        }
        metrics.reloaded(true);
        let page = page(&metrics);
        assert_has(&page, "asr_edge_key_faults_total{fault=\"wrong_key\"} 2");
        assert_has(&page, "asr_edge_key_faults_total{fault=\"no_key\"} 0");
        assert_has(&page, "asr_edge_reloads_total{result=\"taken\"} 1");
        assert_has(&page, "asr_edge_reloads_total{result=\"refused\"} 0");
    }
}
