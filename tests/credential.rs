//! The login follows Codex's auth file however it is written, and never loses a good one to a bad text.
#![expect(clippy::disallowed_methods, reason = "files are written here as Codex writes them")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail this way")]

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use asr_edge::base::secret::Secret;
use asr_edge::upstream::credential::{Credential, LoginFault, Source};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;
use tokio::time::sleep;

fn auth(token: &str) -> String {
    format!(
        r#"{{"auth_mode":"chatgpt","OPENAI_API_KEY":null,"tokens":{{"access_token":"{token}","account_id":"acc"}}}}"#
    )
}

fn jwt(exp: u64) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{exp}}}"#)))
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A folder with an auth file of mode 0600 that holds the token `one`.
fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.json");
    fs::write(&path, auth("one")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    (folder, path)
}

fn open(path: &Path) -> Arc<Credential> {
    Arc::new(Credential::new(Source::File { path: path.to_owned(), account: None }))
}

fn bearer(token: &str, account: Option<&str>) -> Credential {
    let token = Secret::new(token.to_owned());
    Credential::new(Source::Bearer { token, account: account.map(Into::into) })
}

/// The token in use, or why there is none.
fn token(credential: &Credential) -> Result<String, LoginFault> {
    credential.current().map(|login| {
        let value = login.authorization.as_ref().unwrap().to_str().unwrap();
        value.strip_prefix("Bearer ").unwrap().to_owned()
    })
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

async fn until_token(credential: &Credential, expected: &str) {
    until(expected, || token(credential).as_deref() == Ok(expected)).await;
}

#[tokio::test]
async fn a_successor_keeps_the_same_login_and_never_gives_another_one_its_generation() {
    let (_folder, path) = folder();
    let source = |path: &Path| Source::File { path: path.to_owned(), account: None };
    let generation = |credential: &Credential| credential.current().unwrap().generation;
    let first = open(&path);
    let second = first.succeeded_by(source(&path));
    assert_eq!((token(&second).unwrap().as_str(), generation(&second)), ("one", generation(&first)));
    fs::write(&path, "{\"tok").unwrap();
    let third = second.succeeded_by(source(&path));
    assert_eq!(token(&third).as_deref(), Ok("one"), "the last good login of that file");
    assert_eq!(third.fault(), Some(LoginFault::Broken));
    let (_other_folder, other) = folder();
    fs::remove_file(&other).unwrap();
    let fourth = third.succeeded_by(source(&other));
    assert_eq!(token(&fourth), Err(LoginFault::Missing), "not that of another file");
    fs::write(&other, auth("two")).unwrap();
    fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
    let fifth = fourth.succeeded_by(source(&other));
    assert_eq!(token(&fifth).as_deref(), Ok("two"));
    assert_ne!(generation(&fifth), generation(&first));
    assert_eq!(token(&first).as_deref(), Ok("one"), "who has been succeeded does not change");
}

#[tokio::test]
async fn follows_a_rename_over_the_file() {
    let (folder, path) = folder();
    let credential = open(&path);
    let _watching = credential.watch();
    let old = credential.current().unwrap();
    fs::write(folder.path().join("new"), auth("two")).unwrap();
    fs::rename(folder.path().join("new"), &path).unwrap();
    until_token(&credential, "two").await;
    assert_eq!(credential.current().unwrap().generation, old.generation + 1);
    assert_eq!(
        old.authorization.as_ref().unwrap(),
        "Bearer one",
        "a snapshot that was taken stays what it was"
    );
}

#[tokio::test]
async fn keeps_the_old_login_between_the_halves_of_a_write_in_place() {
    let (_folder, path) = folder();
    let credential = open(&path);
    let _watching = credential.watch();
    let text = auth("two");
    let (first, second) = text.split_at(text.len() / 2);
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(first.as_bytes()).unwrap();
    until("the half file is seen", || credential.fault() == Some(LoginFault::Broken)).await;
    assert_eq!(token(&credential).as_deref(), Ok("one"));
    file.write_all(second.as_bytes()).unwrap();
    until_token(&credential, "two").await;
    assert_eq!(credential.fault(), None);
}

#[tokio::test]
async fn follows_a_kubernetes_swap() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (version, token) in [("..2026_1", "one"), ("..2026_2", "two")] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("auth.json"), auth(token)).unwrap();
    }
    symlink("..2026_1", at("..data")).unwrap();
    symlink("..data/auth.json", at("auth.json")).unwrap();
    let credential = open(&at("auth.json"));
    let _watching = credential.watch();
    assert_eq!(token(&credential).as_deref(), Ok("one"));
    symlink("..2026_2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    fs::remove_dir_all(at("..2026_1")).unwrap();
    until_token(&credential, "two").await;
}

#[tokio::test]
async fn a_login_that_comes_after_the_start_is_seen_and_one_that_goes_is_kept() {
    let (_folder, path) = folder();
    fs::remove_file(&path).unwrap();
    let credential = open(&path);
    let _watching = credential.watch();
    assert_eq!(token(&credential), Err(LoginFault::Missing));
    fs::write(&path, auth("one")).unwrap();
    until_token(&credential, "one").await;
    fs::remove_file(&path).unwrap();
    until("the loss is seen", || credential.fault() == Some(LoginFault::Missing)).await;
    assert_eq!(token(&credential).as_deref(), Ok("one"));
}

#[tokio::test]
async fn a_dropped_watch_follows_no_more() {
    let (_folder, path) = folder();
    let credential = open(&path);
    drop(credential.watch());
    until("the task ends", || Arc::strong_count(&credential) == 1).await;
    fs::write(&path, auth("two")).unwrap();
    sleep(Duration::from_millis(300)).await;
    assert_eq!(token(&credential).as_deref(), Ok("one"));
}

#[tokio::test]
async fn a_reread_says_whether_the_login_is_another() {
    let (_folder, path) = folder();
    let credential = open(&path);
    let seen = credential.current().unwrap().generation;
    assert!(!credential.reread(seen).await);
    assert_eq!(credential.current().unwrap().generation, seen, "the same login keeps its generation");
    fs::write(&path, auth("two")).unwrap();
    assert!(credential.reread(seen).await);
    assert_eq!(token(&credential).as_deref(), Ok("two"));
    fs::write(&path, "").unwrap();
    let seen = credential.current().unwrap().generation;
    assert!(!credential.reread(seen).await);
    assert_eq!(token(&credential).as_deref(), Ok("two"));
}

#[tokio::test]
async fn a_reread_waits_for_a_write_that_is_under_way() {
    let (_folder, path) = folder();
    let credential = open(&path);
    let seen = credential.current().unwrap().generation;
    fs::write(&path, "{").unwrap();
    let (changed, ()) = tokio::join!(credential.reread(seen), async {
        sleep(Duration::from_millis(60)).await;
        fs::write(&path, auth("two")).unwrap();
    });
    assert!(changed);
}

/// A pipe shows each read: the next one would get the next text.
#[tokio::test]
async fn many_rereads_at_once_read_the_file_once() {
    let (_folder, path) = folder();
    let credential = open(&path);
    let seen = credential.current().unwrap().generation;
    fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    std::thread::spawn(move || {
        for text in ["two"].into_iter().chain(std::iter::repeat("later")) {
            fs::write(&path, auth(text)).unwrap();
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    let all = futures_util::future::join_all((0..16).map(|_| credential.reread(seen)));
    let changed = tokio::time::timeout(Duration::from_secs(20), all).await.expect("one read serves all");
    assert!(changed.iter().all(|changed| *changed));
    assert_eq!(token(&credential).as_deref(), Ok("two"));
}

#[test]
fn an_expired_login_is_refused_before_it_is_sent() {
    let past = bearer(&jwt(unix() - 1), None);
    assert_eq!(past.current().unwrap_err(), LoginFault::Expired);
    let ahead = unix() + 3600;
    let good = bearer(&jwt(ahead), None);
    assert!(good.current().is_ok());
    assert_eq!(good.expires(), UNIX_EPOCH.checked_add(Duration::from_secs(ahead)));
    assert_eq!(bearer("opaque", None).expires(), None);
}

#[test]
fn a_configured_account_wins_over_that_of_the_file() {
    let (_folder, path) = folder();
    let account = |account: Option<&str>| {
        let source = Source::File { path: path.clone(), account: account.map(Into::into) };
        Credential::new(source).current().unwrap().account.clone().unwrap()
    };
    assert_eq!(account(None), "acc");
    assert_eq!(account(Some("mine")), "mine");
    assert_eq!(bearer("t", Some("mine")).current().unwrap().account.as_ref().unwrap(), "mine");
}

#[test]
fn a_file_over_one_mebibyte_is_not_read() {
    let (_folder, path) = folder();
    fs::write(&path, format!("{}{}", auth("one"), " ".repeat(1 << 20))).unwrap();
    assert_eq!(token(&open(&path)), Err(LoginFault::Unreadable(io::ErrorKind::FileTooLarge)));
}

#[test]
fn a_missing_login_names_the_keyring_and_the_way_out() {
    let text = LoginFault::Missing.to_string();
    assert!(text.contains("cli_auth_credentials_store") && text.contains("codex login"), "{text}");
}

/// What is logged while `run` runs on this thread, at every level.
async fn logged(run: impl Future<Output = ()>) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    run.await;
    drop(guard);
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

#[tokio::test]
async fn warns_once_when_others_can_read_the_file() {
    let (_folder, path) = folder();
    let quiet = logged(async { drop(open(&path)) }).await;
    assert!(!quiet.contains("0600"), "{quiet}");
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let text = logged(async { assert!(!open(&path).reread(1).await) }).await;
    assert_eq!(text.matches("WARN").count(), 1, "{text}");
    assert!(text.contains("0600") && text.contains("codex.auth_file"), "{text}");
}

#[tokio::test]
async fn a_broken_file_is_told_once_and_without_its_content() {
    let (_folder, path) = folder();
    fs::write(&path, auth("planted-one")).unwrap();
    let text = logged(async {
        let credential = open(&path);
        fs::write(&path, r#"{"tokens":{"access_token":"planted-two""#).unwrap();
        assert!(!credential.reread(1).await);
        assert!(!credential.reread(1).await);
        fs::write(&path, auth("planted-three")).unwrap();
        assert!(credential.reread(1).await);
        tracing::info!("{credential:?}");
    })
    .await;
    assert_eq!(text.matches("WARN").count(), 1, "{text}");
    assert!(text.contains("a new login is in use") && !text.contains("planted"), "{text}");
}
