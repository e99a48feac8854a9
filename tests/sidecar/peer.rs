//! The other sides: a service that tells what it got, processes of ours, and a client.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use asr_edge::demo::clip;
use serde_json::Value;
use tempfile::TempDir;

pub(super) const LONG: Duration = Duration::from_secs(20);
pub(super) const KEY: &str = "Authorization: Bearer k\r\n";

/// What a service got.
#[derive(Clone)]
pub(super) struct Got {
    /// Request line and headers, in lower case but for the first line.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    pub(super) bytes: usize,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> Option<String> {
        header(&self.head, name)
    }
}

pub(super) fn header(head: &str, name: &str) -> Option<String> {
    let start = format!("{name}: ");
    head.lines().find_map(|line| line.strip_prefix(&start)).map(str::to_owned)
}

/// A service over HTTP/1.1. What it does goes by the end of the path.
pub(super) struct Service {
    pub(super) address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    /// Lets a stream go on.
    pub(super) go_on: Sender<()>,
}

pub(super) fn service() -> Service {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (go_on, gate) = channel();
    let service = Service { address: listener.local_addr().unwrap(), got: Arc::default(), go_on };
    let (got, gate) = (Arc::clone(&service.got), Arc::new(Mutex::new(gate)));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (got, gate) = (Arc::clone(&got), Arc::clone(&gate));
            thread::spawn(move || serve(stream.unwrap(), &got, &gate));
        }
    });
    service
}

pub(super) fn serve(stream: TcpStream, got: &Mutex<Vec<Got>>, gate: &Mutex<Receiver<()>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let head = read_head(&mut reader)?;
        let line = head.lines().next().unwrap().to_owned();
        let path = line.split(' ').nth(1).unwrap().to_owned();
        if path.ends_with("/socket") {
            let upgrade =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
            writer.write_all(upgrade.as_bytes()).ok()?;
            got.lock().unwrap().push(Got { head, body: Vec::new(), bytes: 0 });
            let mut byte = [0];
            while reader.read(&mut byte).ok()? == 1 {
                writer.write_all(&byte.map(|byte| byte.to_ascii_uppercase())).ok()?;
            }
            return None;
        }
        let mut body = Vec::new();
        let bytes = read_body(&mut reader, &head, &mut body)?;
        got.lock().unwrap().push(Got { head, body, bytes });
        if path.ends_with("/mute") {
            thread::sleep(LONG);
            return None;
        }
        if path.ends_with("/stream") {
            let begin =
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            writer.write_all(format!("{begin}6\r\nfirst\n\r\n").as_bytes()).ok()?;
            gate.lock().unwrap().recv_timeout(LONG).ok()?;
            writer.write_all(b"7\r\nsecond\n\r\n0\r\n\r\n").ok()?;
            continue;
        }
        let answer = "{\"text\":\"from the service\"}";
        let length = answer.len();
        let head = format!(
            "HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nX-Own: yes\r\nX-Request-Id: theirs\r\n\
             Content-Length: {length}\r\n\r\n"
        );
        let head = if path.ends_with("/codex") { head.replace("201 Created", "200 OK") } else { head };
        writer.write_all(format!("{head}{answer}").as_bytes()).ok()?;
    }
}

pub(super) fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            return Some(head);
        }
        let (name, value) = line.split_once(": ").unwrap_or((&line, ""));
        let lower = if head.is_empty() { line.clone() } else { format!("{}: {value}", name.to_lowercase()) };
        head.push_str(&lower.replace("\r\n", "\n"));
    }
}

/// Reads a body; keeps its first MiB.
pub(super) fn read_body(reader: &mut impl BufRead, head: &str, kept: &mut Vec<u8>) -> Option<usize> {
    let mut all = 0;
    let mut take = |reader: &mut dyn Read, mut left: usize, kept: &mut Vec<u8>| {
        let mut block = vec![0; 64 * 1024];
        while left > 0 {
            let most = left.min(block.len());
            let read = reader.read(&mut block[..most]).ok()?;
            if read == 0 {
                return None;
            }
            left -= read;
            all += read;
            if kept.len() < 1024 * 1024 {
                kept.extend_from_slice(&block[..read]);
            }
        }
        Some(())
    };
    if header(head, "transfer-encoding").is_some() {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            take(reader, size, kept)?;
            reader.read_line(&mut String::new()).ok()?;
            if size == 0 {
                return Some(all);
            }
        }
    }
    let length = header(head, "content-length").map_or(0, |length| length.parse().unwrap());
    take(reader, length, kept)?;
    Some(all)
}

impl Service {
    pub(super) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub(super) fn last(&self) -> Got {
        self.got().last().expect("a request came").clone()
    }
}

/// A running process of ours.
pub(super) struct Process {
    pub(super) child: Child,
    pub(super) address: String,
    pub(super) log: Arc<Mutex<String>>,
    _folder: TempDir,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn start(arguments: &[&str], config: Option<&str>) -> Process {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_asr-edge"));
    command.args(arguments).env_clear().env("HOME", folder.path()).current_dir(folder.path());
    if let Some(config) = config {
        fs::write(folder.path().join("edge.toml"), config).unwrap();
        command.args(["--config", "edge.toml"]);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let log: Arc<Mutex<String>> = Arc::default();
    let (mut errors, lines) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
    thread::spawn(move || {
        let mut line = String::new();
        while errors.read_line(&mut line).unwrap_or(0) > 0 {
            lines.lock().unwrap().push_str(&line);
            line.clear();
        }
    });
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("listening on ") {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "no start: {}", log.lock().unwrap());
    }
    thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    let address = line.trim().split("://").nth(1).unwrap().to_owned();
    Process { child, address, log, _folder: folder }
}

/// An answer: its head with names in lower case, and its body.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Reply {
    pub(super) fn error(&self) -> Value {
        let body: Value = serde_json::from_str(&self.body).expect("an envelope");
        body["error"].clone()
    }
}

pub(super) fn connect(edge: &Process) -> TcpStream {
    let stream = TcpStream::connect(&edge.address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

pub(super) fn reply(stream: &TcpStream) -> Reply {
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader).expect("an answer");
    let status = head.get(9..12).unwrap().parse().unwrap();
    let mut body = Vec::new();
    if status != 100 {
        read_body(&mut reader, &head, &mut body).expect("a whole answer");
    }
    Reply { status, head, body: String::from_utf8(body).unwrap() }
}

pub(super) fn ask(edge: &Process, request: &[u8]) -> Reply {
    let mut stream = connect(edge);
    stream.write_all(request).unwrap();
    reply(&stream)
}

pub(super) fn get(edge: &Process, path: &str, headers: &str) -> Reply {
    ask(edge, format!("GET {path} HTTP/1.1\r\nHost: edge.test\r\n{headers}\r\n").as_bytes())
}

/// A form of these parts, in order; the value of `file` comes behind the clip.
pub(super) fn form(parts: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in parts {
        let file = if *name == "file" { "; filename=\"a.flac\"" } else { "" };
        let head = format!("--bound\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend(head.into_bytes());
        body.extend(if *name == "file" { clip::AUDIO } else { &[] });
        body.extend(value.as_bytes());
        body.extend(b"\r\n");
    }
    body.extend(b"--bound--\r\n");
    body
}

pub(super) fn head(path: &str, more: &str, body: &[u8]) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: edge.test\r\n{KEY}{more}Content-Type: multipart/form-data; boundary=bound\r\n\
         Content-Length: {length}\r\n\r\n"
    )
}

pub(super) fn upload(edge: &Process, path: &str, body: &[u8]) -> Reply {
    ask(edge, &[head(path, "", body).as_bytes(), body].concat())
}
