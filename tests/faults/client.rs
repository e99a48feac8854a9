//! One request by each protocol, with every byte known beforehand.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::harness::{
    END_HEADERS, END_STREAM, Form, Kind, LONG, Request, STATUS_200, frame, upload_block, wav,
};

/// Small records, so that a request has many.
const RECORD: usize = 96;

/// The way between a client and the program.
pub(super) enum Leg {
    Http1,
    Http2,
    Http1Tls(Option<Arc<ClientConfig>>),
    Http2Tls(Option<Arc<ClientConfig>>),
}

/// What became of a request.
pub(super) struct Exchange {
    /// The status, if the answer came whole.
    pub(super) status: Option<u16>,
    /// Bytes on the wire up to the request's end, the handshake's among them.
    pub(super) request: usize,
}

impl Leg {
    pub(super) const fn is_tls(&self) -> bool {
        matches!(self, Self::Http1Tls(_) | Self::Http2Tls(_))
    }

    /// The same, where the program has this certificate.
    pub(super) fn trusting(self, certificate: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        // Every handshake is a whole one, of the same length.
        config.resumption = Resumption::disabled();
        config.max_fragment_size = Some(RECORD);
        if matches!(self, Self::Http2Tls(_)) {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        let config = Some(Arc::new(config));
        match self {
            Self::Http1 | Self::Http1Tls(_) => Self::Http1Tls(config),
            Self::Http2 | Self::Http2Tls(_) => Self::Http2Tls(config),
        }
    }

    /// Sends the request of this number, and reads until the answer is whole or there can be none.
    pub(super) fn exchange(&self, address: SocketAddr, number: u32) -> Exchange {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        socket.set_nodelay(true).unwrap();
        let counted = Counted { socket: socket.try_clone().unwrap(), written: 0 };
        let start = Instant::now();
        let exchange = match self {
            Self::Http1 => http1(counted, number, |socket| socket.written),
            Self::Http2 => http2(counted, number, |socket| socket.written),
            Self::Http1Tls(config) => http1(tls(config, counted), number, |tls| tls.sock.written),
            Self::Http2Tls(config) => http2(tls(config, counted), number, |tls| tls.sock.written),
        };
        assert!(start.elapsed() < LONG, "no end after {:?}", start.elapsed());
        let _ = socket.shutdown(Shutdown::Both);
        exchange
    }
}

/// The audio of one request, unlike that of any other.
pub(super) fn audio(number: u32) -> Vec<u8> {
    [&wav(40)[..80], &number.to_be_bytes()].concat()
}

/// The number of the request that these bytes are, if they are one by HTTP/1.1 in clear, and whole.
pub(super) fn whole_upload(bytes: &[u8]) -> Option<u32> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    let body = &bytes[length..];
    if body.len() < content_length(head.headers)? {
        return None;
    }
    let start = memchr::memmem::find(body, &wav(40)[..80])? + 80;
    Some(u32::from_be_bytes(body.get(start..start + 4)?.try_into().ok()?))
}

fn content_length(headers: &[httparse::Header<'_>]) -> Option<usize> {
    let length = headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"))?;
    std::str::from_utf8(length.value).ok()?.parse().ok()
}

fn form(number: u32) -> Form {
    Form::of(&audio(number))
}

/// Its length is that of the others.
pub(super) fn request(number: u32) -> Vec<u8> {
    Request::post(&form(number)).header("Connection", "close").bytes()
}

fn http1<S: Read + Write>(mut stream: S, number: u32, written: impl Fn(&S) -> usize) -> Exchange {
    let request = request(number);
    // The closing boundary's line break in a record of its own: without it the form is there, and the body is not whole.
    let (form, end) = request.split_at(request.len() - 2);
    for piece in [form, end] {
        let _ = stream.write_all(piece).and_then(|()| stream.flush());
    }
    let request = written(&stream);
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    // How it ends is of no interest: a TLS connection may do so without a word.
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        answer.extend_from_slice(&buffer[..read]);
    }
    Exchange { status: status(&answer), request }
}

/// The status of an answer that is there whole.
fn status(answer: &[u8]) -> Option<u16> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(answer).ok()? else { return None };
    let body = content_length(head.headers)?;
    (answer.len() >= length + body).then_some(head.code?)
}

/// A status that is not 200 is given as 400: which one is nothing that is looked for by this protocol.
fn http2<S: Read + Write>(mut stream: S, number: u32, written: impl Fn(&S) -> usize) -> Exchange {
    let form = form(number);
    let body = form.closed();
    let length = body.len().to_string();
    let block = upload_block(&form.content_type(), &[("content-length", length.as_bytes())]);
    let pieces = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(Kind::Settings, 0, 0, &[]),
        frame(Kind::Headers, END_HEADERS, 1, &block),
        frame(Kind::Data, 0, 1, &body[..200]),
        frame(Kind::Data, 0, 1, &body[200..]),
        // The end in a frame and a record of its own: without it the form is there, and the body is not whole.
        frame(Kind::Data, END_STREAM, 1, &[]),
    ];
    for piece in pieces {
        let _ = stream.write_all(&piece).and_then(|()| stream.flush());
    }
    let request = written(&stream);
    Exchange { status: answer(&mut stream), request }
}

/// The status of the answer on the first stream.
fn answer(stream: &mut (impl Read + Write)) -> Option<u16> {
    let mut status = None;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).ok()?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).ok()?;
        let (kind, flags) = (head[3], head[4]);
        let is = |wanted: Kind| kind == wanted as u8;
        if is(Kind::Settings) && flags & 1 == 0 {
            let _ = stream.write_all(&frame(Kind::Settings, 1, 0, &[])).and_then(|()| stream.flush());
        }
        if is(Kind::Reset) {
            return None;
        }
        if is(Kind::Headers) {
            status = Some(if payload.first() == Some(&STATUS_200) { 200 } else { 400 });
        }
        if (is(Kind::Headers) || is(Kind::Data)) && flags & END_STREAM != 0 {
            return status;
        }
    }
}

fn tls(config: &Option<Arc<ClientConfig>>, socket: Counted) -> StreamOwned<ClientConnection, Counted> {
    let config = Arc::clone(config.as_ref().unwrap());
    let client = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(client, socket)
}

/// A socket that counts what is sent.
struct Counted {
    socket: TcpStream,
    written: usize,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.socket.write(bytes)?;
        self.written += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}
