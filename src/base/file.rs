//! Files: bounded reads, atomic writes, and [`Watching`] for what others write.

mod watch;

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use tempfile::NamedTempFile;

pub use watch::{Watch, Watching};

/// Reads a file whole. Links are followed: Kubernetes swaps mounted secrets by them.
///
/// # Errors
/// [`io::ErrorKind::FileTooLarge`] when there are more than `max_bytes`; whatever the system says otherwise.
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(path)?.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if read as u64 > max_bytes {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// Writes a file so that a reader, or a power cut, finds the old bytes or the new ones and nothing between. A new file
/// is for its owner alone (0600); one that is there keeps its owner and mode, and a link stays a link.
///
/// # Errors
/// Whatever the system says; the old file is untouched then and no temporary file is left.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_path_buf(),
        target => target?,
    };
    let folder = folder_of(&target);
    let mut new = NamedTempFile::new_in(folder)?;
    new.write_all(bytes)?;
    if let Ok(old) = fs::metadata(&target) {
        take_over(new.as_file(), &old)?;
    }
    new.as_file().sync_all()?;
    new.persist(&target)?;
    File::open(folder)?.sync_all()
}

/// Whether anyone but the owner may read, write or run the file. `false` when it cannot be seen.
pub fn open_to_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.mode() & 0o077 != 0)
}

/// The folder that holds the file, `.` for a bare name.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Gives a new file the owner and mode of the one it replaces. The mode follows only when the owner could: the group's
/// bits of another group would open the file to the wrong people.
fn take_over(new: &File, old: &fs::Metadata) -> io::Result<()> {
    let now = new.metadata()?;
    let same = now.uid() == old.uid() && now.gid() == old.gid();
    if same || fchown(new, Some(old.uid()), Some(old.gid())).is_ok() {
        new.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn reads_up_to_the_limit_and_refuses_one_byte_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace(&path, b"12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert_eq!(read(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_new_file_is_for_its_owner_alone_and_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace(&path, b"x").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert!(!open_to_others(&path));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace(&path, b"x").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        replace(&path, b"y").unwrap();
        assert_eq!((mode(&path), read(&path, 9).unwrap()), (0o640, b"y".to_vec()));
        assert!(open_to_others(&path));
    }

    #[test]
    fn a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (link, path) = (folder.path().join("link"), folder.path().join("a"));
        replace(&path, b"x").unwrap();
        symlink("a", &link).unwrap();
        replace(&link, b"y").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&path, 9).unwrap(), b"y");
    }

    #[test]
    fn a_failed_write_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"x").is_err(), "a folder cannot be replaced by a file");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
