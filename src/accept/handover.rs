//! Listening sockets from one process to the next, over a Unix socket in a folder of ours (SCM_RIGHTS, unix(7)). Whoever
//! can open that folder can have them: it is its owner's alone.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::net::UnixListener;
use tokio::task::spawn_blocking;

use super::listener::Listener;

/// Sockets that can be handed over.
const MOST: usize = 64;
/// What names them, bytes.
const LONGEST: usize = 16 * 1024;
/// How long the new process may take to begin to serve, and the old one to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The new process serves.
const READY: u8 = b'R';
/// The old process has stopped all that only one may do.
const YOURS: u8 = b'Y';

/// Where the next process may ask for the sockets. The file goes when this is dropped.
#[derive(Debug)]
pub struct Counter {
    path: PathBuf,
    listener: UnixListener,
}

/// The old process, as the new one sees it.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

/// The new process, which serves.
#[derive(Debug)]
pub struct Successor(UnixStream);

impl Counter {
    /// Listens at `path`, for the owner alone; makes the folder if need be. Needs a Tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::AddrInUse`] when a process answers there, [`ErrorKind::PermissionDenied`] when others can open the
    /// folder, and what else the system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.ok_or(ErrorKind::InvalidInput)?;
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let found = fs::symlink_metadata(folder)?;
        if !found.is_dir() || found.mode() & 0o077 != 0 {
            return Err(ErrorKind::PermissionDenied.into());
        }
        match UnixStream::connect(path) {
            Ok(_) => return Err(ErrorKind::AddrInUse.into()),
            // What a process left behind that did not end well.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        let counter = Self { path: path.to_path_buf(), listener };
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        // The folder was made by whom the file is.
        if fs::metadata(path)?.uid() == found.uid() {
            Ok(counter)
        } else {
            Err(ErrorKind::PermissionDenied.into())
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for somebody who wants the sockets. May be dropped and called again.
    pub async fn asked(&self) -> io::Result<UnixStream> {
        let stream = self.listener.accept().await?.0.into_std()?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _gone_already = fs::remove_file(&self.path);
    }
}

/// Gives the sockets, each with its key path, and waits until the other side serves on them. If it does not, nothing has
/// changed here.
///
/// # Errors
/// It went away, or took too long.
pub async fn give(mut stream: UnixStream, sockets: Vec<(String, Listener)>) -> io::Result<Successor> {
    let given = spawn_blocking(move || {
        let names: Vec<String> = sockets.iter().map(|(path, of)| format!("{path} {}\n", of.asked)).collect();
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, listener)| listener.as_fd()).collect();
        if fds.len() > MOST {
            return Err(ErrorKind::InvalidInput.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&stream, &[IoSlice::new(names.concat().as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
        expect(&mut stream, READY)?;
        Ok(Successor(stream))
    });
    given.await.map_err(io::Error::other)?
}

impl Successor {
    /// Tells it that it is alone now.
    pub fn leave(mut self) {
        let _it_goes_on_anyhow = self.0.write_all(&[YOURS]);
    }
}

impl Predecessor {
    /// Asks the process at `path` for its sockets.
    ///
    /// # Errors
    /// Nobody answers there, or not with sockets.
    pub fn ask(path: &Path) -> io::Result<(Self, Vec<(String, Listener)>)> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut names = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got =
            recvmsg(&stream, &mut [IoSliceMut::new(&mut names)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        names.truncate(got.bytes);
        let names = String::from_utf8(names).map_err(io::Error::other)?;
        if fds.is_empty() || names.lines().count() != fds.len() {
            return Err(ErrorKind::InvalidData.into());
        }
        let socket = |(name, fd): (&str, OwnedFd)| {
            let (path, asked) = name.split_once(' ').ok_or(ErrorKind::InvalidData)?;
            Ok((path.to_owned(), Listener::inherit(asked.parse().map_err(io::Error::other)?, fd)?))
        };
        let sockets = names.lines().zip(fds).map(socket).collect::<io::Result<_>>()?;
        Ok((Self(stream), sockets))
    }

    /// Tells it that we serve, and waits until it does no more of what only one may do. It drains by itself.
    ///
    /// # Errors
    /// It has ended without a word, which leaves us alone just as well.
    pub async fn relieve(mut self) -> io::Result<()> {
        let relieved = spawn_blocking(move || {
            self.0.write_all(&[READY])?;
            expect(&mut self.0, YOURS)
        });
        relieved.await.map_err(io::Error::other)?
    }
}

fn expect(stream: &mut UnixStream, word: u8) -> io::Result<()> {
    let mut said = [0];
    stream.read_exact(&mut said)?;
    if said == [word] { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_that_others_can_open_is_refused_and_a_fresh_one_is_the_owner_s_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (shared, own) = (folder.path().join("shared"), folder.path().join("own"));
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, Permissions::from_mode(0o755)).unwrap();
        let error = Counter::open(&shared.join("s")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let counter = Counter::open(&own.join("s")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&own), mode(&own.join("s"))), (0o700, 0o600));
        assert_eq!(Counter::open(&own.join("s")).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop(counter);
        assert!(!own.join("s").exists());
        drop(std::os::unix::net::UnixListener::bind(own.join("s")).unwrap());
        assert!(Counter::open(&own.join("s")).is_ok(), "what was left behind is no hindrance");
    }

    #[tokio::test]
    async fn sockets_arrive_with_their_names_and_an_old_process_whose_successor_fails_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own/s");
        let counter = Counter::open(&path).unwrap();
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address;
        for serves in [false, true] {
            let asks = path.clone();
            let new = spawn_blocking(move || Predecessor::ask(&asks).unwrap());
            let stream = counter.asked().await.unwrap();
            let given =
                tokio::spawn(give(stream, vec![("server.http".to_owned(), listener.share().unwrap())]));
            let (old, sockets) = new.await.unwrap();
            assert_eq!((sockets[0].0.as_str(), sockets[0].1.address), ("server.http", address));
            if !serves {
                drop(old);
                assert!(given.await.unwrap().is_err());
                continue;
            }
            let relieved = tokio::spawn(old.relieve());
            given.await.unwrap().unwrap().leave();
            relieved.await.unwrap().unwrap();
        }
    }
}
