//! What the stand-in saw, for `GET /seen`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use http::request;
use serde::Serialize;

use crate::base::clock;

/// Older requests are forgotten.
const KEPT: usize = 10_000;

/// One request, recorded from its head on.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Record {
    pub(super) id: u64,
    pub(super) protocol: &'static str,
    pub(super) connection: u64,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) authority: Option<String>,
    pub(super) headers: BTreeMap<String, String>,
    /// The whole body came, with its closing boundary.
    pub(super) complete: bool,
    pub(super) declared: Option<u64>,
    pub(super) body_bytes: u64,
    /// Bytes after the closing boundary's CRLF.
    pub(super) padding: u64,
    pub(super) parts: Vec<Part>,
    pub(super) breach: Option<String>,
    pub(super) status: Option<u16>,
    pub(super) first_file_byte_unix_ns: Option<u64>,
    pub(super) last_byte_unix_ns: Option<u64>,
}

/// One part of the form, as far as it came.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Part {
    pub(super) name: Option<String>,
    pub(super) filename: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) bytes: u64,
    /// Only of parts that ended.
    pub(super) sha256: Option<String>,
    /// Only of text parts that ended.
    pub(super) value: Option<String>,
}

/// A record that is still being written.
#[derive(Clone)]
pub(super) struct Entry(Arc<Mutex<Record>>);

impl Entry {
    /// The record, for a short while.
    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        lock(&self.0)
    }
}

/// Everything seen, bounded.
#[derive(Default)]
pub(super) struct Log {
    requests: Mutex<VecDeque<Entry>>,
    ids: AtomicU64,
    connections: AtomicU64,
    open: AtomicU64,
}

#[derive(Serialize)]
struct Seen {
    requests: Vec<Record>,
    connections: u64,
    open: u64,
}

/// Counts as an open connection until dropped.
pub(super) struct Open {
    log: Arc<Log>,
    pub(super) number: u64,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.log.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Log {
    /// Counts a connection.
    pub(super) fn connected(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open { log: Arc::clone(self), number: self.connections.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// Opens a record with what the head says.
    pub(super) fn enter(&self, connection: u64, head: &request::Parts) -> Entry {
        let mut headers = BTreeMap::<String, String>::new();
        for (name, value) in &head.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers
                .entry(name.to_string())
                .and_modify(|joined| {
                    joined.push_str(", ");
                    joined.push_str(&value);
                })
                .or_insert_with(|| value.to_string());
        }
        let declared = headers.get("content-length").and_then(|length| length.parse().ok());
        let entry = Entry(Arc::new(Mutex::new(Record {
            id: self.ids.fetch_add(1, Ordering::Relaxed) + 1,
            protocol: if head.version == http::Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" },
            connection,
            method: head.method.to_string(),
            path: head.uri.path_and_query().map_or_else(|| head.uri.path().to_owned(), ToString::to_string),
            authority: head.uri.authority().map(ToString::to_string),
            headers,
            declared,
            ..Record::default()
        })));
        let mut requests = lock(&self.requests);
        if requests.len() >= KEPT {
            requests.pop_front();
        }
        requests.push_back(entry.clone());
        entry
    }

    /// Forgets the requests; the count of connections goes on.
    pub(super) fn forget(&self) {
        lock(&self.requests).clear();
    }

    /// All of it as JSON.
    pub(super) fn json(&self) -> Vec<u8> {
        let requests = lock(&self.requests).iter().map(|entry| entry.record().clone()).collect();
        let seen = Seen {
            requests,
            connections: self.connections.load(Ordering::Relaxed),
            open: self.open.load(Ordering::Relaxed),
        };
        serde_json::to_vec(&seen).unwrap_or_default()
    }
}

/// Nanoseconds since 1970.
pub(super) fn now() -> u64 {
    let since = clock::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_last_ten_thousand_requests_are_kept() {
        let log = Log::default();
        let (head, ()) = http::Request::new(()).into_parts();
        for _ in 0..KEPT + 5 {
            log.enter(1, &head);
        }
        let requests = lock(&log.requests);
        assert_eq!(requests.len(), KEPT);
        assert_eq!(requests.front().unwrap().record().id, 6);
    }
}
