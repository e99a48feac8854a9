//! Child processes: what they print is kept, and they end with their handle.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use super::LONG;

/// A running child.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<String>,
    printed: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts it, without this process' environment: a login or a proxy of the machine's own must not matter.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = bare(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let printed = Arc::new(Mutex::new(Vec::new()));
        let (sender, lines) = channel();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (out, err) = (Arc::clone(&printed), Arc::clone(&printed));
        let readers = vec![
            spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    out.lock().unwrap().extend(format!("{line}\n").into_bytes());
                    let _ = sender.send(line);
                }
            }),
            spawn(move || collect(stderr, &err)),
        ];
        Self { child, lines, printed, readers }
    }

    /// The rest of the first line on standard output that begins so.
    pub(crate) fn announced(&self, start: &str) -> String {
        let deadline = Instant::now() + LONG;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(rest) = line.strip_prefix(start) {
                        return rest.to_owned();
                    }
                }
                Err(_) => panic!("it never said `{start}`, but:\n{}", self.printed()),
            }
        }
    }

    /// Standard output and standard error so far.
    pub(crate) fn printed(&self) -> String {
        String::from_utf8_lossy(&self.printed.lock().unwrap()).into_owned()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal, such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.id());
        assert!(Command::new("sh").arg("-c").arg(kill).status().unwrap().success());
    }

    /// Waits for its end, and for all that it printed.
    pub(crate) fn end(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                for reader in self.readers.drain(..) {
                    reader.join().unwrap();
                }
                return status;
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.printed());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command of the program to its end: exit code, standard output, standard error.
pub(crate) fn run(command: &mut Command) -> (i32, String, String) {
    let mut child = bare(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (out, err) = (Arc::default(), Arc::default());
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let readers = [
        spawn({
            let out = Arc::clone(&out);
            move || collect(stdout, &out)
        }),
        spawn({
            let err = Arc::clone(&err);
            move || collect(stderr, &err)
        }),
    ];
    let deadline = Instant::now() + LONG;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("it does not end: {command:?}\n{}", text(&err));
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    for reader in readers {
        reader.join().unwrap();
    }
    (status.code().unwrap_or(-1), text(&out), text(&err))
}

fn bare(command: &mut Command) -> &mut Command {
    let mut kept: Vec<(String, String)> = Vec::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            kept.push((name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()));
        }
    }
    command.stdin(Stdio::null()).env_clear();
    for name in ["PATH", "TMPDIR", "LLVM_PROFILE_FILE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.envs(kept)
}

fn collect(mut from: impl Read, into: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 8192];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        into.lock().unwrap().extend_from_slice(&buffer[..read]);
    }
}

fn text(bytes: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.lock().unwrap()).into_owned()
}
