//! Where a body waits whose length must be known before it is sent: in memory first, then in an unlinked temp file.

use std::io::{self, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

/// Bodies up to this many bytes never touch the disk.
const IN_MEMORY: u64 = 1024 * 1024;
/// What is read back from disk at once, bytes.
const BLOCK: usize = 64 * 1024;

/// Why a body could not be spooled.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// All spooled bodies together would pass `limits.spool_total`.
    #[error("spool is full")]
    Full,
    /// The disk said no.
    #[error("spool: {0}")]
    Disk(#[from] io::Error),
}

/// The directory and the bytes that all spooled bodies share.
#[derive(Debug)]
pub struct SpoolSpace {
    directory: PathBuf,
    total: u64,
    used: Arc<AtomicU64>,
}

impl SpoolSpace {
    /// At most `total` bytes on disk below `directory`.
    pub fn new(directory: PathBuf, total: u64) -> Self {
        Self { directory, total, used: Arc::default() }
    }

    /// The same with other bounds, for those who come from now on: what is on disk counts on.
    pub fn moved(&self, directory: PathBuf, total: u64) -> Self {
        Self { directory, total, used: Arc::clone(&self.used) }
    }

    /// Bytes on disk now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> Result<(), SpoolError> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.total)
            })
            .map(|_| ())
            .map_err(|_| SpoolError::Full)
    }
}

/// One body being spooled.
#[derive(Debug)]
pub struct Spool {
    space: Arc<SpoolSpace>,
    memory: Vec<Bytes>,
    file: Option<File>,
    on_disk: u64,
    bytes: u64,
}

impl Spool {
    /// An empty body.
    pub const fn new(space: Arc<SpoolSpace>) -> Self {
        Self { space, memory: Vec::new(), file: None, on_disk: 0, bytes: 0 }
    }

    /// Bytes so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a piece. Past the first MiB all of the body is on disk.
    ///
    /// # Errors
    /// [`SpoolError`]; the body is then of no more use.
    pub async fn push(&mut self, piece: Bytes) -> Result<(), SpoolError> {
        self.bytes += piece.len() as u64;
        self.memory.push(piece);
        if self.bytes <= IN_MEMORY {
            return Ok(());
        }
        let mut file = match self.file.take() {
            Some(file) => file,
            None => self.create().await?,
        };
        for piece in std::mem::take(&mut self.memory) {
            self.space.take(piece.len() as u64)?;
            self.on_disk += piece.len() as u64;
            file.write_all(&piece).await?;
        }
        self.file = Some(file);
        Ok(())
    }

    async fn create(&self) -> io::Result<File> {
        let directory = self.space.directory.clone();
        let made = tokio::task::spawn_blocking(move || tempfile::tempfile_in(directory)).await;
        Ok(File::from_std(made.map_err(io::Error::other)??))
    }

    /// Starts reading at the beginning.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn rewind(&mut self) -> Result<SpoolReader<'_>, SpoolError> {
        if let Some(file) = &mut self.file {
            file.flush().await?;
            file.seek(SeekFrom::Start(0)).await?;
        }
        Ok(SpoolReader { file: self.file.as_mut(), memory: self.memory.iter() })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.space.used.fetch_sub(self.on_disk, Ordering::Relaxed);
    }
}

/// Reads a spooled body once, front to back.
#[derive(Debug)]
pub struct SpoolReader<'a> {
    file: Option<&'a mut File>,
    memory: std::slice::Iter<'a, Bytes>,
}

impl SpoolReader<'_> {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn next(&mut self) -> Result<Option<Bytes>, SpoolError> {
        let Some(file) = &mut self.file else { return Ok(self.memory.next().cloned()) };
        let mut block = BytesMut::with_capacity(BLOCK);
        let read = file.read_buf(&mut block).await?;
        Ok((read > 0).then(|| block.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read_all(spool: &mut Spool) -> Vec<u8> {
        let mut reader = spool.rewind().await.unwrap();
        let mut all = Vec::new();
        while let Some(piece) = reader.next().await.unwrap() {
            all.extend_from_slice(&piece);
        }
        all
    }

    fn piece(seed: u8, len: usize) -> Bytes {
        (0..len).map(|i| seed.wrapping_add((i % 251) as u8)).collect::<Vec<_>>().into()
    }

    #[tokio::test]
    async fn a_large_body_comes_back_whole_and_twice() {
        let directory = tempfile::tempdir().unwrap();
        let space = Arc::new(SpoolSpace::new(directory.path().to_path_buf(), 8 << 20));
        let mut spool = Spool::new(Arc::clone(&space));
        let pieces: Vec<_> = (0..5).map(|seed| piece(seed, 700_000)).collect();
        for piece in &pieces {
            spool.push(piece.clone()).await.unwrap();
        }
        assert_eq!(read_all(&mut spool).await, pieces.concat());
        assert_eq!(read_all(&mut spool).await, pieces.concat(), "a replay reads it again");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "the file has no name");
        assert_eq!(space.used(), 3_500_000);
        drop(spool);
        assert_eq!(space.used(), 0);
    }

    #[tokio::test]
    async fn a_small_body_never_touches_the_disk() {
        let space = Arc::new(SpoolSpace::new("/nonexistent".into(), 0));
        let mut spool = Spool::new(space);
        spool.push(piece(1, 1000)).await.unwrap();
        assert_eq!(read_all(&mut spool).await, piece(1, 1000));
    }

    #[tokio::test]
    async fn all_bodies_share_one_bound() {
        let directory = tempfile::tempdir().unwrap();
        let space = Arc::new(SpoolSpace::new(directory.path().to_path_buf(), 3 << 20));
        let mut first = Spool::new(Arc::clone(&space));
        first.push(piece(1, 2 << 20)).await.unwrap();
        let mut second = Spool::new(Arc::clone(&space));
        assert!(matches!(second.push(piece(2, 2 << 20)).await, Err(SpoolError::Full)));
        drop(second);
        assert_eq!(space.used(), 2 << 20);
    }
}
