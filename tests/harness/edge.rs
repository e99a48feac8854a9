//! The program itself, as `asr-edge serve` starts it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use tempfile::TempDir;

use super::process::{self, Process};
use super::{ACCOUNT, KEY, LONG, Reply, Request, Stub, TOKEN, Wire};

/// What a command of the program left behind.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// How the program is started: key, login and endpoint by flags, everything else by its defaults.
pub(crate) struct Launch {
    folder: TempDir,
    config: String,
    flags: Vec<String>,
    key: Option<String>,
    login: Vec<String>,
    level: &'static str,
    variables: Vec<(String, String)>,
}

impl Launch {
    /// Before this stand-in; its root is trusted when it speaks TLS.
    pub(crate) fn to(stub: &Stub) -> Self {
        let launch = Self::at(&stub.url());
        match stub.root() {
            None => launch,
            Some(root) => launch.flags(&["--ca-root", root.to_str().unwrap()]),
        }
    }

    /// Before whatever is at this URL.
    pub(crate) fn at(endpoint: &str) -> Self {
        let login = ["--bearer", TOKEN, "--account-id", ACCOUNT].map(str::to_owned).to_vec();
        let folder = TempDir::new().unwrap();
        let flags = ["--endpoint", endpoint].map(str::to_owned).to_vec();
        Self {
            folder,
            config: String::new(),
            flags,
            key: Some(KEY.to_owned()),
            login,
            level: "info",
            variables: Vec::new(),
        }
    }

    /// More flags.
    pub(crate) fn flags(mut self, flags: &[&str]) -> Self {
        self.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
        self
    }

    /// A config file. It may name files by [`Launch::file`]'s path.
    pub(crate) fn config(mut self, text: &str) -> Self {
        self.config.push_str(text);
        self
    }

    /// An environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Records at this level.
    pub(crate) fn level(mut self, level: &'static str) -> Self {
        self.level = level;
        self
    }

    /// No key by flag.
    pub(crate) fn without_key(mut self) -> Self {
        self.key = None;
        self
    }

    /// The login in a file instead of by flag.
    pub(crate) fn auth_file(mut self, text: &str) -> Self {
        let path = self.file("auth.json", text);
        self.login = vec!["--auth-file".to_owned(), path.to_str().unwrap().to_owned()];
        self
    }

    /// No login by flag.
    pub(crate) fn without_login(mut self) -> Self {
        self.login.clear();
        self
    }

    /// Writes a file into the program's own folder.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        restrict(&path);
        path
    }

    /// The command, ready to start.
    pub(crate) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_asr-edge"));
        command.arg(name).env("HOME", self.folder.path()).env("CODEX_HOME", self.folder.path());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let config = format!("{}\n[log]\nlevel = \"{}\"\n", self.config, self.level);
        command.arg("--config").arg(self.file("edge.toml", &config));
        if !self.config.contains("[server]") {
            command.args(["--host", "127.0.0.1", "--port", "0"]);
        }
        if let Some(key) = &self.key {
            command.args(["--api-key", key]);
        }
        command.args(&self.login).args(&self.flags);
        command
    }

    /// Starts it and waits until it listens.
    pub(crate) fn start(self) -> Edge {
        let process = Process::start(&mut self.command("serve"));
        let address = address(&process.announced("listening on "));
        let admin = self.flags.iter().any(|flag| flag == "--admin");
        let admin = admin.then(|| address_of_admin(&process));
        Edge { process, address, admin, folder: self.folder }
    }

    /// Runs it to its end, which must come by itself.
    pub(crate) fn run(&self, name: &str) -> Output {
        let (code, stdout, stderr) = process::run(&mut self.command(name));
        Output { code, stdout, stderr }
    }
}

/// The program, listening.
pub(crate) struct Edge {
    process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    folder: TempDir,
}

impl Edge {
    /// A connection to it.
    pub(crate) fn wire(&self) -> Wire {
        Wire::connect(self.address)
    }

    /// One request on a connection of its own.
    pub(crate) fn ask(&self, request: &Request) -> Reply {
        let mut wire = self.wire();
        wire.send(request.bytes());
        if request.is_head() { wire.bodiless_reply() } else { wire.reply() }
    }

    /// All that it printed so far.
    pub(crate) fn printed(&self) -> String {
        self.process.printed()
    }

    /// A file in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Replaces a file in its folder in one step.
    pub(crate) fn replace(&self, name: &str, text: &str) {
        let fresh = self.path("fresh");
        fs::write(&fresh, text).unwrap();
        restrict(&fresh);
        fs::rename(fresh, self.path(name)).unwrap();
    }

    /// Asks it to end (SIGTERM).
    pub(crate) fn terminate(&self) {
        self.process.terminate();
    }

    /// Starts the program once more as its successor, with the config of this folder and these flags.
    pub(crate) fn upgrade(&self, flags: &[&str]) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_asr-edge"));
        command.args(["serve", "--upgrade", "--config"]).arg(self.path("edge.toml")).args(flags);
        command.env("HOME", self.folder.path()).env("CODEX_HOME", self.folder.path());
        Process::start(&mut command)
    }

    /// Sends it a signal, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        self.process.signal(name);
    }

    /// A page of the admin address.
    pub(crate) fn admin_page(&self, path: &str) -> Reply {
        let mut wire = Wire::connect(self.admin.unwrap());
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        wire.reply()
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> ExitStatus {
        self.process.end(LONG)
    }

    /// As [`Edge::end`], with another bound.
    pub(crate) fn end_within(&mut self, within: Duration) -> ExitStatus {
        self.process.end(within)
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.runs()
    }

    /// Open files, sockets among them.
    pub(crate) fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Resident memory, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

fn address_of_admin(process: &Process) -> SocketAddr {
    address(&process.announced("admin on "))
}

/// The address in `http://127.0.0.1:1234`.
pub(super) fn address(url: &str) -> SocketAddr {
    let (_, address) = url.trim().split_once("://").unwrap();
    address.trim_end_matches('/').parse().unwrap()
}

/// For the owner only: the program warns of logins and keys that others can read.
fn restrict(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
