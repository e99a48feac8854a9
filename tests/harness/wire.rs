//! A client that sends exact bytes and reads what comes back.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use super::LONG;

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    socket: TcpStream,
    pending: Vec<u8>,
    /// The start of what was last sent, to tell in a failure.
    sent: String,
    /// The informational answers that came before final ones.
    pub(crate) informational: Vec<u16>,
}

/// One answer.
#[derive(Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) version: u8,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything that was sent has been taken; the peer has said all.
    Closed,
    /// What was under way may be lost.
    Reset,
}

impl Wire {
    /// A plain connection; what is written leaves at once.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&address, LONG).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.set_write_timeout(Some(LONG)).unwrap();
        let stream = Box::new(socket.try_clone().unwrap());
        Self { stream, socket, pending: Vec::new(), sent: String::new(), informational: Vec::new() }
    }

    /// Over TLS, without ALPN.
    pub(crate) fn connect_tls(address: SocketAddr, root: &Path) -> Self {
        Self::secure(address, root, "localhost").unwrap().0
    }

    /// Over TLS for this name, hands shaken; and the certificate that was shown.
    pub(crate) fn secure(address: SocketAddr, root: &Path, name: &str) -> io::Result<(Self, Vec<u8>)> {
        Self::secure_after(b"", address, root, name)
    }

    /// The same with something else sent before.
    pub(crate) fn secure_after(
        before: &[u8],
        address: SocketAddr,
        root: &Path,
        name: &str,
    ) -> io::Result<(Self, Vec<u8>)> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(root).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let client = ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
        let mut wire = Self::connect(address);
        wire.send(before);
        let mut stream = StreamOwned::new(client, wire.socket.try_clone().unwrap());
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        let leaf = stream.conn.peer_certificates().unwrap()[0].to_vec();
        Ok((Self { stream: Box::new(stream), ..wire }, leaf))
    }

    /// Sends; it must be taken.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.offer(bytes).unwrap_or_else(|error| panic!("not sent: {error}"));
    }

    /// Sends, if the peer still takes it.
    pub(crate) fn offer(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let start = bytes.as_ref().iter().take(400).copied().collect::<Vec<u8>>();
        self.sent = String::from_utf8_lossy(&start).into_owned();
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// Closes its own side; answers can still come.
    pub(crate) fn finish(&self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Leaves without a word: everything under way is thrown away (RST).
    pub(crate) fn reset(self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _guard = runtime.enter();
        self.socket.set_nonblocking(true).unwrap();
        let socket = tokio::net::TcpStream::from_std(self.socket.try_clone().unwrap()).unwrap();
        socket.set_zero_linger().unwrap();
    }

    /// How long an answer may take.
    pub(crate) fn patience(&self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).unwrap();
    }

    /// Another hand on the same socket, to write while an answer is waited for.
    pub(crate) fn writer(&self) -> TcpStream {
        self.socket.try_clone().unwrap()
    }

    /// The next final answer, which must come.
    pub(crate) fn reply(&mut self) -> Reply {
        self.next(false).unwrap_or_else(|ending| panic!("no answer, but {ending:?}"))
    }

    /// The answer to a HEAD request.
    pub(crate) fn bodiless_reply(&mut self) -> Reply {
        self.next(true).unwrap_or_else(|ending| panic!("no answer, but {ending:?}"))
    }

    /// The next final answer, or the connection's end.
    pub(crate) fn reply_or_end(&mut self) -> Result<Reply, Ending> {
        self.next(false)
    }

    /// Waits for one informational answer, such as `100 Continue`; a final one in its place fails.
    pub(crate) fn informed(&mut self) -> u16 {
        loop {
            if let Some((status, _, _, length)) = head(&self.pending) {
                self.pending.drain(..length);
                assert!((100..200).contains(&status), "a final answer: {status}");
                return status;
            }
            if let Err(ending) = self.more() {
                panic!("no answer, but {ending:?}");
            }
        }
    }

    /// Whether an answer comes within this time. Takes nothing.
    pub(crate) fn hears_within(&mut self, time: Duration) -> bool {
        self.patience(time);
        let heard = !self.pending.is_empty() || {
            let mut buffer = [0; 1024];
            match self.stream.read(&mut buffer) {
                Ok(read) => {
                    self.pending.extend_from_slice(&buffer[..read]);
                    read > 0
                }
                Err(_) => false,
            }
        };
        self.patience(LONG);
        heard
    }

    /// Waits for the end of the connection; nothing more may come.
    pub(crate) fn ended(&mut self) -> Ending {
        loop {
            assert!(self.pending.is_empty(), "more came: {:?}", String::from_utf8_lossy(&self.pending));
            if let Err(ending) = self.more() {
                return ending;
            }
        }
    }

    /// All bytes until the connection's end, as they are.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, Ending) {
        loop {
            if let Err(ending) = self.more() {
                return (std::mem::take(&mut self.pending), ending);
            }
        }
    }

    /// At least `length` bytes, if they come before the end.
    pub(crate) fn take(&mut self, length: usize) -> Result<Vec<u8>, Ending> {
        while self.pending.len() < length {
            self.more()?;
        }
        Ok(self.pending.drain(..length).collect())
    }

    fn next(&mut self, bodiless: bool) -> Result<Reply, Ending> {
        loop {
            let Some((status, version, headers, length)) = head(&self.pending) else {
                self.more().inspect_err(|_| {
                    assert!(
                        self.pending.is_empty(),
                        "half an answer: {:?}",
                        String::from_utf8_lossy(&self.pending)
                    );
                })?;
                continue;
            };
            self.pending.drain(..length);
            if (100..200).contains(&status) {
                self.informational.push(status);
                continue;
            }
            let mut reply = Reply { status, version, headers, body: Vec::new() };
            if !bodiless && status != 204 {
                reply.body = self.body(&reply);
            }
            return Ok(reply);
        }
    }

    fn body(&mut self, reply: &Reply) -> Vec<u8> {
        assert!(reply.header("transfer-encoding").is_none(), "answers have a length: {reply:?}");
        match reply.header("content-length") {
            Some(length) => {
                let length = length.parse().unwrap();
                self.take(length)
                    .unwrap_or_else(|ending| panic!("half an answer, then {ending:?}: {reply:?}"))
            }
            None => self.rest().0,
        }
    }

    fn more(&mut self) -> Result<(), Ending> {
        let start = Instant::now();
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Ending::Closed),
            Ok(read) => {
                self.pending.extend_from_slice(&buffer[..read]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let pending = String::from_utf8_lossy(&self.pending).into_owned();
                panic!("nothing came for {:?} after {:?}; so far {pending:?}", start.elapsed(), self.sent);
            }
            // The stand-in ends TLS connections without a word.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(Ending::Closed),
            Err(_) => Err(Ending::Reset),
        }
    }
}

impl Reply {
    /// The value of a header; it must not come twice.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values =
            self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice: {self:?}");
        value
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON: {error}: {self:?}"))
    }

    /// The body as server-sent events, read as strictly as the format allows: one `data:` line each, closed by an empty
    /// line.
    pub(crate) fn events(&self) -> Vec<Value> {
        let events = self.text().strip_suffix("\n\n").unwrap_or_else(|| panic!("an open end: {self:?}"));
        let json = |event: &str| serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        events.split("\n\n").map(json).collect()
    }

    /// OpenAI's error envelope, whole; gives the error object.
    pub(crate) fn error(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        let mut body = self.json();
        let error = body["error"].take();
        let keys: Vec<&str> =
            error.as_object().unwrap_or_else(|| panic!("{self:?}")).keys().map(String::as_str).collect();
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, ["code", "message", "param", "type"], "{self:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        assert!(error["type"].is_string(), "{self:?}");
        assert!(error["param"].is_null() || error["param"].is_string(), "{self:?}");
        assert!(error["code"].is_null() || error["code"].is_string(), "{self:?}");
        error
    }

    /// An answer of our own that refuses: status, envelope, code, and the headers that all our answers carry.
    #[track_caller]
    pub(crate) fn refuses(&self, what: &str, status: u16, code: Option<&str>) -> Value {
        assert_eq!(self.status, status, "{what}: {self:?}");
        let error = self.error();
        assert_eq!(error["code"].as_str(), code, "{what}: {self:?}");
        self.is_ours(what);
        error
    }

    /// The headers that all our answers carry.
    #[track_caller]
    pub(crate) fn is_ours(&self, what: &str) {
        for name in ["x-request-id", "openai-processing-ms", "openai-version"] {
            assert!(self.header(name).is_some_and(|value| !value.is_empty()), "{what}: no {name}: {self:?}");
        }
        assert_eq!(self.header("cache-control"), Some("no-store"), "{what}: {self:?}");
    }
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = &self.body[..self.body.len().min(1000)];
        write!(f, "{} {:?} {:?}", self.status, self.headers, String::from_utf8_lossy(start))
    }
}

type Head = (u16, u8, Vec<(String, String)>, usize);

/// The head of an answer, when it is there whole.
fn head(bytes: &[u8]) -> Option<Head> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let status = response.parse(bytes);
    let status = status.unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(bytes)));
    let httparse::Status::Complete(length) = status else { return None };
    let headers = response.headers.iter();
    let headers =
        headers.map(|header| (header.name.to_owned(), String::from_utf8_lossy(header.value).into_owned()));
    Some((response.code.unwrap(), response.version.unwrap(), headers.collect(), length))
}
