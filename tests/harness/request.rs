//! HTTP/1 requests, written header by header.

use super::{ENDPOINT, Form, KEY};

/// A request in the making.
#[derive(Clone)]
pub(crate) struct Request {
    method: String,
    target: String,
    version: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

/// A GET with the key.
pub(crate) fn get(target: &str) -> Request {
    Request::new("GET", target)
}

impl Request {
    /// With the key and without a body.
    pub(crate) fn new(method: &str, target: &str) -> Self {
        let request = Self {
            method: method.to_owned(),
            target: target.to_owned(),
            version: "HTTP/1.1".to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        request.header("Host", "asr.test").header("Authorization", format!("Bearer {KEY}"))
    }

    /// A transcription of this form.
    pub(crate) fn post(form: &Form) -> Self {
        Self::upload(&form.content_type(), form.closed())
    }

    /// A body of this type to the endpoint.
    pub(crate) fn upload(content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", ENDPOINT).header("Content-Type", content_type).body(body)
    }

    /// A body with its length.
    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.set("Content-Length", length)
    }

    /// The body in chunks of this many bytes instead of with a length.
    pub(crate) fn chunked(self, size: usize) -> Self {
        let mut body = Vec::new();
        for chunk in self.body.chunks(size) {
            body.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            body.extend(chunk);
            body.extend(b"\r\n");
        }
        body.extend(b"0\r\n\r\n");
        self.encoded(body)
    }

    /// The body already chunked.
    pub(crate) fn encoded(self, body: impl Into<Vec<u8>>) -> Self {
        let mut request = self.without("Content-Length").header("Transfer-Encoding", "chunked");
        request.body = body.into();
        request
    }

    /// One more header.
    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// A header in place of those of the same name.
    pub(crate) fn set(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).header(name, value)
    }

    /// Without this header.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
        self
    }

    /// To another target.
    pub(crate) fn target(mut self, target: &str) -> Self {
        target.clone_into(&mut self.target);
        self
    }

    /// By another method.
    pub(crate) fn method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    /// In another version.
    pub(crate) fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// The head alone.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} {}\r\n", self.method, self.target, self.version).into_bytes();
        for (name, value) in &self.headers {
            head.extend(name.as_bytes());
            head.extend(b": ");
            head.extend(value);
            head.extend(b"\r\n");
        }
        head.extend(b"\r\n");
        head
    }

    /// The body alone, as it goes out.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.body
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        [self.head().as_slice(), &self.body].concat()
    }

    /// Whether its answer has no body.
    pub(crate) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }
}
