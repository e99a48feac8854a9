//! API keys: made, kept as hashes in a file, and followed while others edit it.
#![expect(clippy::disallowed_methods, reason = "files are written here as people write them")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail this way")]

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use asr_edge::authenticate::keys::add;
use asr_edge::authenticate::{KeyFault, KeyFileFault, Keys, Sources};
use asr_edge::base::secret::Secret;
use http::HeaderMap;
use tempfile::TempDir;
use tokio::time::sleep;

/// A folder for a key file that is not there yet.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    (folder, path)
}

fn open(path: &Path) -> Arc<Keys> {
    Arc::new(Keys::new(Sources { key: None, file: Some(path.to_owned()) }).unwrap())
}

/// The name of the caller with this key.
fn caller(keys: &Keys, key: &str) -> Result<String, KeyFault> {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
    keys.caller(&headers).map(|caller| caller.name.to_string())
}

fn make(path: &Path, name: &str) -> String {
    add(path, name).unwrap().expose().clone()
}

/// Waits for a condition, with time enough for a busy machine.
async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("never happened: {what}");
}

#[test]
fn a_made_key_is_taken_and_only_its_hash_is_stored() {
    let (_folder, path) = folder();
    let (ann, ben) = (make(&path, "ann"), make(&path, "ben"));
    let digits = ann.strip_prefix("sk-asr-").unwrap();
    assert!(digits.len() == 48 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(digits), "{text}");
    let keys = open(&path);
    assert_eq!(caller(&keys, &ann).as_deref(), Ok("ann"));
    assert_eq!(caller(&keys, &ben).as_deref(), Ok("ben"));
    assert_eq!(caller(&keys, "sk-asr-0"), Err(KeyFault::Wrong));
    assert_eq!(keys.caller(&HeaderMap::new()), Err(KeyFault::Missing));
}

#[test]
fn making_a_key_keeps_the_text_and_the_mode_of_the_file() {
    let (_folder, path) = folder();
    for text in ["# ours", "# ours\n", "", "\u{feff}# ours\r\n"] {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let key = make(&path, "ann");
        assert!(fs::read_to_string(&path).unwrap().starts_with(text));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(caller(&open(&path), &key).as_deref(), Ok("ann"));
    }
}

#[test]
fn no_key_is_made_where_it_could_not_be_used() {
    let (folder, path) = folder();
    make(&path, "ann");
    let before = fs::read_to_string(&path).unwrap();
    assert_eq!(add(&path, "ann").unwrap_err(), KeyFileFault::NameTaken);
    assert_eq!(add(&path, "a\"b").unwrap_err(), KeyFileFault::Name);
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    for text in ["[[key]]\nname = 1\n", "key = []\n", "x"] {
        fs::write(&path, text).unwrap();
        assert!(matches!(add(&path, "ben"), Err(KeyFileFault::Invalid(_))), "{text}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    let nowhere = folder.path().join("none/keys.toml");
    assert_eq!(add(&nowhere, "ann").unwrap_err(), KeyFileFault::Unwritable(io::ErrorKind::NotFound));
}

#[test]
fn disabled_and_expired_keys_are_wrong() {
    let (_folder, path) = folder();
    let ann = make(&path, "ann");
    let text = fs::read_to_string(&path).unwrap();
    for (line, expected) in [
        ("expires = \"2000-01-01\"", Err(KeyFault::Wrong)),
        ("disabled = true", Err(KeyFault::Wrong)),
        ("disabled = false\nexpires = 9999-01-01", Ok("ann".to_owned())),
    ] {
        fs::write(&path, format!("{text}{line}\n")).unwrap();
        assert_eq!(caller(&open(&path), &ann), expected, "{line}");
    }
}

#[test]
fn the_key_of_the_command_line_and_those_of_the_file_are_both_taken() {
    let (_folder, path) = folder();
    let ann = make(&path, "ann");
    let keys = Keys::new(Sources { key: Some(Secret::new("planted".into())), file: Some(path) }).unwrap();
    assert_eq!(caller(&keys, "planted").as_deref(), Ok("api-key"));
    assert_eq!(caller(&keys, &ann).as_deref(), Ok("ann"));
    assert!(!keys.is_open() && !format!("{keys:?}").contains("planted"));
}

#[test]
fn without_keys_everything_passes_and_with_an_empty_set_nothing() {
    let open = Keys::open();
    assert_eq!(&*open.caller(&HeaderMap::new()).unwrap().name, "anonymous");
    assert_eq!(caller(&open, "x").as_deref(), Ok("anonymous"));
    let none = Keys::new(Sources { key: Some(Secret::new(String::new())), file: None }).unwrap();
    assert_eq!(caller(&none, "x"), Err(KeyFault::Wrong));
    assert_eq!(caller(&none, ""), Err(KeyFault::Missing));
}

#[test]
fn a_missing_file_at_the_start_is_a_fault() {
    let (_folder, path) = folder();
    let sources = Sources { key: None, file: Some(path) };
    assert_eq!(Keys::new(sources).unwrap_err(), KeyFileFault::Unreadable(io::ErrorKind::NotFound));
}

#[tokio::test]
async fn a_new_key_is_taken_and_a_removed_one_refused_while_running() {
    let (_folder, path) = folder();
    let ann = make(&path, "ann");
    let keys = open(&path);
    let _watching = keys.watch();
    let ben = make(&path, "ben");
    until("ben comes", || caller(&keys, &ben).is_ok()).await;
    assert_eq!(caller(&keys, &ann).as_deref(), Ok("ann"));
    fs::write(&path, "# nobody\n").unwrap();
    until("both go", || caller(&keys, &ben).is_err() && caller(&keys, &ann).is_err()).await;
}

#[tokio::test]
async fn keeps_the_old_keys_while_the_file_is_broken_and_says_why() {
    let (_folder, path) = folder();
    let ann = make(&path, "ann");
    let good = fs::read_to_string(&path).unwrap();
    let keys = open(&path);
    let _watching = keys.watch();
    fs::write(&path, good.replace("sha256", "sha265")).unwrap();
    until("the fault is seen", || keys.fault().is_some()).await;
    let fault = keys.fault().unwrap().to_string();
    assert!(fault.contains("key[0].sha265: unknown") && fault.contains("key[0].sha256: "), "{fault}");
    assert_eq!(caller(&keys, &ann).as_deref(), Ok("ann"));
    fs::write(&path, good.replace("ann", "eve")).unwrap();
    until("the mended file is taken", || caller(&keys, &ann).as_deref() == Ok("eve")).await;
    assert_eq!(keys.fault(), None);
}

#[tokio::test]
async fn keeps_the_old_keys_between_truncating_and_writing() {
    let (_folder, path) = folder();
    let ann = make(&path, "ann");
    let good = fs::read_to_string(&path).unwrap();
    let keys = open(&path);
    let _watching = keys.watch();
    fs::write(&path, "").unwrap();
    for _ in 0..15 {
        assert_eq!(caller(&keys, &ann).as_deref(), Ok("ann"));
        sleep(Duration::from_millis(10)).await;
    }
    fs::write(&path, good.replace("ann", "eve")).unwrap();
    until("the whole file is taken", || caller(&keys, &ann).as_deref() == Ok("eve")).await;
}

#[tokio::test]
async fn follows_a_rename_and_a_kubernetes_swap() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("..1")).unwrap();
    fs::create_dir(at("..2")).unwrap();
    let ann = make(&at("..1/keys.toml"), "ann");
    let ben = make(&at("..2/keys.toml"), "ben");
    symlink("..1", at("..data")).unwrap();
    symlink("..data/keys.toml", at("keys.toml")).unwrap();
    let keys = open(&at("keys.toml"));
    let _watching = keys.watch();
    assert!(caller(&keys, &ann).is_ok());
    symlink("..2", at("..tmp")).unwrap();
    fs::rename(at("..tmp"), at("..data")).unwrap();
    until("the swap is seen", || caller(&keys, &ben).is_ok() && caller(&keys, &ann).is_err()).await;
    fs::rename(at("..1/keys.toml"), at("keys.toml")).unwrap();
    until("the rename is seen", || caller(&keys, &ann).is_ok() && caller(&keys, &ben).is_err()).await;
}
