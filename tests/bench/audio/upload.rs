//! What a whole upload of the same size costs the server: the measure that the scanners are held against.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::files::{SIZE, all};

/// Uploads that are counted; the kernel counts in hundredths of a second.
const UPLOADS: u32 = 60;

/// A program that is ended with its handle.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Program {
    /// Starts ours; gives the last word of its first line too, which is its address.
    fn start(arguments: &[&str]) -> (Self, String) {
        let mut program = Command::new(env!("CARGO_BIN_EXE_asr-edge"));
        program.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = program.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (Self(child), line.split_whitespace().last().unwrap().to_owned())
    }

    /// User and system time so far (proc(5)).
    fn cpu(&self) -> Duration {
        #[allow(clippy::disallowed_methods, reason = "no file of a user's")]
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10)
    }
}

/// CPU time of the server for one upload of 25 MiB of WAV that comes over plain HTTP, and goes on to a stand-in that
/// hashes nothing: in plain HTTP too, or as to Codex, with HTTP/2 over TLS.
pub(crate) fn cpu(tls: bool) -> Duration {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    let root = root.to_str().unwrap();
    let (stub, trust) =
        if tls { (&["--tls", "--root", root][..], &["--ca-root", root][..]) } else { (&[][..], &[][..]) };
    let flags = ["upstream-stub", "--listen", "127.0.0.1:0", "--no-hash"];
    let (_stub, upstream) = Program::start(&[&flags[..], stub].concat());
    let endpoint = format!("{}/backend-api/transcribe", upstream.replace("127.0.0.1", "localhost"));
    let flags = ["serve", "--port", "0", "--api-key", "k", "--bearer", "t", "--log-level", "warn"];
    let (server, url) = Program::start(&[&flags[..], &["--endpoint", &endpoint], trust].concat());

    let head = "--bound\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--bound\r\n\
                Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n";
    let (_, wav) = all().into_iter().next().unwrap();
    let body = [head.as_bytes(), &wav.pieces().concat(), b"\r\n--bound--\r\n"].concat();
    let head = format!(
        "POST /v1/audio/transcriptions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: {}\r\n\
         Content-Type: multipart/form-data; boundary=bound\r\n\r\n",
        body.len()
    );
    let mut stream = BufReader::new(TcpStream::connect(url.trim_start_matches("http://")).unwrap());
    let mut upload = || {
        stream.get_mut().write_all(head.as_bytes()).unwrap();
        stream.get_mut().write_all(&body).unwrap();
        answer(&mut stream);
    };
    (0..5).for_each(|_| upload());
    let before = server.cpu();
    (0..UPLOADS).for_each(|_| upload());
    assert!(body.len() > SIZE * 9 / 10);
    (server.cpu() - before) / UPLOADS
}

fn answer(stream: &mut BufReader<TcpStream>) {
    let (mut line, mut length) = (String::new(), 0);
    stream.read_line(&mut line).unwrap();
    assert!(line.contains(" 200 "), "{line}");
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).unwrap();
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    stream.read_exact(&mut vec![0; length]).unwrap();
}
