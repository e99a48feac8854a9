//! Where the body of a transcription comes from.

use std::io;

use bytes::{Bytes, BytesMut};
use pingora::proxy::Session;
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::answer::Fault;

/// What is read of a file at once, bytes.
const BLOCK: usize = 64 * 1024;

/// A client's connection, or a file on this machine.
pub(super) enum Body<'a> {
    Client(&'a mut Session),
    Form(FileForm),
}

/// The body does not come whole.
pub(super) struct BrokenOff;

impl From<BrokenOff> for Fault {
    fn from(_: BrokenOff) -> Self {
        Self::BodyBroken
    }
}

impl Body<'_> {
    /// The next piece; `None` at the end. May be dropped and called again.
    ///
    /// # Errors
    /// Broken chunks, a body that breaks off, a client that is gone: they look alike from here.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, BrokenOff> {
        match self {
            Self::Client(session) => {
                session.as_downstream_mut().read_request_body().await.map_err(|_| BrokenOff)
            }
            Self::Form(form) => form.read().await,
        }
    }

    /// Bytes that have come so far.
    pub(super) fn came(&self) -> u64 {
        match self {
            Self::Client(session) => session.as_downstream().body_bytes_read() as u64,
            Self::Form(form) => form.read,
        }
    }

    /// Whether the end is known to be here without another read.
    pub(super) fn is_done(&mut self) -> bool {
        match self {
            Self::Client(session) => session.as_downstream_mut().is_body_done(),
            Self::Form(form) => form.closing.is_none(),
        }
    }

    /// Ends when the client resets the stream or the connection. A half-close is no departure: clients may close their
    /// side once they have said everything (RFC 9112 9.6).
    pub(super) async fn departure(&mut self) {
        match self {
            Self::Client(session) => {
                while session.as_downstream_mut().read_body_or_idle(true).await.is_ok() {}
            }
            Self::Form(_) => std::future::pending().await,
        }
    }
}

/// A form around a file, as a client would send it.
pub(super) struct FileForm {
    opening: Option<Bytes>,
    file: File,
    /// What is behind the file; gone once it has been read.
    closing: Option<Bytes>,
    read: u64,
    /// Is told how many bytes of the file have been read, and at its end once more.
    progress: Box<dyn FnMut(u64, bool) + Send>,
    /// Why the file could not be read.
    pub(super) error: Option<io::Error>,
}

impl FileForm {
    /// `opening` and `closing` are what comes before and behind the file.
    pub(super) fn new(
        opening: Bytes,
        file: File,
        closing: Bytes,
        progress: Box<dyn FnMut(u64, bool) + Send>,
    ) -> Self {
        Self { opening: Some(opening), file, closing: Some(closing), read: 0, progress, error: None }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, BrokenOff> {
        if let Some(opening) = self.opening.take() {
            return Ok(Some(opening));
        }
        if self.closing.is_none() {
            return Ok(None);
        }
        let mut block = BytesMut::with_capacity(BLOCK);
        let read = self.file.read_buf(&mut block).await.map_err(|error| {
            self.error = Some(error);
            BrokenOff
        })?;
        self.read += read as u64;
        (self.progress)(self.read, read == 0);
        Ok(if read == 0 { self.closing.take() } else { Some(block.freeze()) })
    }
}
