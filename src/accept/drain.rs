//! The end of the program as its connections see it. A listener may end long before: its connections go on.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pingora::server::ShutdownWatch;

/// Whether the program is ending, and how many connections are still of interest to it.
#[derive(Debug, Clone)]
pub struct Drain {
    shutdown: ShutdownWatch,
    open: Arc<AtomicUsize>,
}

/// Ends when the drain begins.
pub(super) type Begins = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// A connection that may still bring a request, or has an answer under way; counted until dropped.
pub(super) struct Open(Arc<AtomicUsize>);

impl Drain {
    /// Begins when `shutdown` turns true.
    pub fn new(shutdown: ShutdownWatch) -> Self {
        Self { shutdown, open: Arc::default() }
    }

    /// Whether it has begun: answers then say that they are the last ones.
    pub fn begun(&self) -> bool {
        *self.shutdown.borrow()
    }

    /// Connections, from the accept on; without those that linger after their last answer.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    pub(super) fn enter(&self) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.open))
    }

    pub(super) const fn watch(&self) -> &ShutdownWatch {
        &self.shutdown
    }

    pub(super) fn begins(&self) -> Begins {
        let mut shutdown = self.shutdown.clone();
        Box::pin(async move {
            let _ = shutdown.wait_for(|begun| *begun).await;
        })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Open")
    }
}
