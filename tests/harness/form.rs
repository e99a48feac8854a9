//! Multipart bodies, written byte for byte, and audio to put into them.

use std::path::Path;

/// A `multipart/form-data` body in the making.
#[derive(Clone)]
pub(crate) struct Form {
    boundary: String,
    body: Vec<u8>,
}

impl Form {
    /// With a boundary such as clients make.
    pub(crate) fn new() -> Self {
        Self::with_boundary("------------------------7f3c9e2b51d84a06")
    }

    /// With this boundary.
    pub(crate) fn with_boundary(boundary: &str) -> Self {
        Self { boundary: boundary.to_owned(), body: Vec::new() }
    }

    /// What `curl -F model=whisper-1 -F file=@a.wav` makes.
    pub(crate) fn of(audio: &[u8]) -> Self {
        Self::new().field("model", "whisper-1").file(audio)
    }

    /// A text field.
    pub(crate) fn field(self, name: &str, value: &str) -> Self {
        self.part(format!("Content-Disposition: form-data; name=\"{name}\""), value)
    }

    /// The file, as curl labels it.
    pub(crate) fn file(self, audio: &[u8]) -> Self {
        let head = "Content-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
                    Content-Type: application/octet-stream";
        self.part(head, audio)
    }

    /// A part with these header lines.
    pub(crate) fn part(mut self, head: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        self.body.extend(format!("--{}\r\n", self.boundary).into_bytes());
        self.body.extend(head.as_ref());
        self.body.extend(b"\r\n\r\n");
        self.body.extend(content.as_ref());
        self.body.extend(b"\r\n");
        self
    }

    /// Bytes as they are.
    pub(crate) fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.body.extend(bytes.as_ref());
        self
    }

    /// The body so far, without an end.
    pub(crate) fn open(&self) -> Vec<u8> {
        self.body.clone()
    }

    /// The body with its closing boundary and CRLF.
    pub(crate) fn closed(&self) -> Vec<u8> {
        self.closed_with("\r\n")
    }

    /// The body with its closing boundary and this behind it.
    pub(crate) fn closed_with(&self, epilogue: &str) -> Vec<u8> {
        [self.body.as_slice(), format!("--{}--{epilogue}", self.boundary).as_bytes()].concat()
    }

    /// The `Content-Type` that goes with it, unquoted.
    pub(crate) fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={}", self.boundary)
    }
}

/// A WAV file: 16 kHz, 16 bits, mono, and `length` bytes of something that compresses badly.
pub(crate) fn wav(length: usize) -> Vec<u8> {
    let mut wav = b"RIFF....WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
    wav.extend(16_000_u32.to_le_bytes());
    wav.extend(32_000_u32.to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend(u32::try_from(length).unwrap().to_le_bytes());
    let size = u32::try_from(wav.len() + length - 8).unwrap();
    wav[4..8].copy_from_slice(&size.to_le_bytes());
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    wav.extend((0..length).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    }));
    wav
}

/// The FLAC file that the program brings along.
pub(crate) fn clip() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/demo/clip.flac")).unwrap()
}
