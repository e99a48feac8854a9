//! Sees that a file has changed, however it was done.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::folder_of;

/// How long a burst of events may last before we look.
const SETTLE: Duration = Duration::from_millis(50);
/// How often we look without any event: network file systems send none, and watches can run out.
const POLL: Duration = Duration::from_secs(2);
/// When to call again for a reload that failed, though nothing has changed (out of descriptors, a network gone).
const AGAIN: Duration = Duration::from_secs(5);

/// Watches one path: rename over it, writing in place, and Kubernetes' swap of a link on the way to it. The file need
/// not be there yet.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    seen: Option<Stamp>,
    folders: BTreeSet<(PathBuf, u64, u64)>,
    bell: Arc<Bell>,
    watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches from now on: read the file after this, not before.
    pub fn new(path: PathBuf) -> Self {
        let mut watch =
            Self { path, seen: None, folders: BTreeSet::new(), bell: Arc::default(), watcher: None };
        watch.arm();
        watch.seen = Stamp::of(&watch.path);
        watch
    }

    /// Waits for the next change. May be dropped and called again without losing one.
    pub async fn changed(&mut self) {
        loop {
            if timeout(POLL, self.bell.rung.notified()).await.is_ok() {
                sleep(SETTLE).await;
            }
            self.arm();
            let stamp = Stamp::of(&self.path);
            // Two writes within one tick of the file system's clock look the same: an event that names the file counts
            // even so.
            if self.bell.named.swap(false, Ordering::AcqRel) || stamp != self.seen {
                self.seen = stamp;
                return;
            }
        }
    }

    /// Watches the folders of the path and of the file behind its links; anew when these have become others. What
    /// cannot be watched is left to polling.
    fn arm(&mut self) {
        let target = fs::canonicalize(&self.path).ok();
        let folders = [Some(self.path.as_path()), target.as_deref()]
            .into_iter()
            .flatten()
            .map(folder_of)
            .filter_map(|folder| {
                fs::metadata(folder).ok().map(|at| (folder.to_path_buf(), at.dev(), at.ino()))
            })
            .collect();
        if folders == self.folders {
            return;
        }
        self.folders = folders;
        let names: Vec<OsString> = [self.path.file_name(), target.as_deref().and_then(Path::file_name)]
            .into_iter()
            .flatten()
            .map(Into::into)
            .collect();
        let bell = Arc::clone(&self.bell);
        self.watcher = notify::recommended_watcher(move |event| bell.ring(event, &names)).ok();
        if let Some(watcher) = &mut self.watcher {
            for (folder, ..) in &self.folders {
                let _polled_instead = watcher.watch(folder, RecursiveMode::NonRecursive);
            }
        }
    }
}

/// A task that calls a reload whenever a file has changed. It ends when this is dropped.
#[derive(Debug)]
#[must_use = "watching ends when this is dropped"]
pub struct Watching(Option<JoinHandle<()>>);

impl Watching {
    /// Calls `reload` at once, then after every change of the file; `reload` says whether the file was good. A bad one
    /// is tried again after 5 s even when nothing changes. Must be called within a Tokio runtime.
    pub fn start<F, R>(path: PathBuf, reload: F) -> Self
    where
        F: Fn() -> R + Send + 'static,
        R: Future<Output = bool> + Send,
    {
        Self(Some(tokio::spawn(async move {
            let mut watch = Watch::new(path);
            loop {
                if reload().await {
                    watch.changed().await;
                } else {
                    let _either = timeout(AGAIN, watch.changed()).await;
                }
            }
        })))
    }

    /// There is no file to watch.
    pub const fn nothing() -> Self {
        Self(None)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// How the watcher's thread tells us.
#[derive(Debug, Default)]
struct Bell {
    rung: Notify,
    named: AtomicBool,
}

impl Bell {
    fn ring(&self, event: notify::Result<Event>, names: &[OsString]) {
        if let Ok(event) = event {
            // Reading the file is an event too: our own would wake us for ever.
            if matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write)) {
                return;
            }
            if event
                .paths
                .iter()
                .filter_map(|path| path.file_name())
                .any(|name| names.iter().any(|n| n == name))
            {
                self.named.store(true, Ordering::Release);
            }
        }
        self.rung.notify_one();
    }
}

/// What differs when a file has changed.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    target: PathBuf,
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    /// Mode and owner: a file that could not be read may become readable.
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let target = fs::canonicalize(path).ok()?;
        let file = fs::metadata(&target).ok()?;
        Some(Self {
            target,
            inode: (file.dev(), file.ino()),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "files are written here as others write them")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Whether the watch sees a change, given time enough on a busy machine.
    async fn sees(watch: &mut Watch) -> bool {
        timeout(Duration::from_secs(20), watch.changed()).await.is_ok()
    }

    /// Whether the watch is quiet once what was under way has come in.
    async fn is_quiet(watch: &mut Watch) -> bool {
        timeout(Duration::from_millis(300), watch.changed()).await.is_err()
    }

    #[tokio::test]
    async fn sees_a_file_that_appears_is_written_in_place_renamed_over_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mut watch = Watch::new(path.clone());
        fs::write(&path, "1").unwrap();
        assert!(sees(&mut watch).await, "appears");
        fs::write(&path, "2").unwrap();
        assert!(sees(&mut watch).await, "in place, same size");
        fs::write(folder.path().join("b"), "3").unwrap();
        fs::rename(folder.path().join("b"), &path).unwrap();
        assert!(sees(&mut watch).await, "renamed over");
        fs::remove_file(&path).unwrap();
        assert!(sees(&mut watch).await, "removed");
    }

    #[tokio::test]
    async fn sees_a_kubernetes_swap() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("a"), "x").unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/a", at("a")).unwrap();
        let mut watch = Watch::new(at("a"));
        symlink("..2", at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        assert!(sees(&mut watch).await);
        fs::write(at("..2").join("a"), "y").unwrap();
        assert!(sees(&mut watch).await, "the new folder is watched too");
    }

    #[tokio::test]
    async fn sees_the_file_in_a_folder_that_comes_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("later/a");
        let mut watch = Watch::new(path.clone());
        fs::create_dir(folder.path().join("later")).unwrap();
        fs::write(&path, "x").unwrap();
        assert!(sees(&mut watch).await);
    }

    #[tokio::test]
    async fn reading_it_and_writing_its_neighbours_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "x").unwrap();
        let mut watch = Watch::new(path.clone());
        while !is_quiet(&mut watch).await {}
        fs::write(folder.path().join("b"), "y").unwrap();
        super::super::read(&path, 9).unwrap();
        assert!(is_quiet(&mut watch).await);
    }

    #[tokio::test]
    async fn watching_ends_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let calls = Arc::new(());
        let held = Arc::clone(&calls);
        let watching = Watching::start(folder.path().join("a"), move || {
            let held = Arc::clone(&held);
            async move { Arc::strong_count(&held) > 0 }
        });
        drop(watching);
        timeout(Duration::from_secs(20), async {
            while Arc::strong_count(&calls) > 1 {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .expect("the task lets go of what it held");
    }
}
