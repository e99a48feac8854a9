//! HTTP/2 frames by hand (RFC 9113 section 4), for what no decent client sends.

use std::net::SocketAddr;

use super::wire::{Ending, Wire};
use super::{ENDPOINT, KEY};

/// Frame types (RFC 9113 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Data = 0,
    Headers = 1,
    Reset = 3,
    Settings = 4,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
    Continuation = 9,
    Other = 255,
}

/// One frame.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// One connection by prior knowledge.
pub(crate) struct Http2 {
    wire: Wire,
    /// Acknowledgements of settings that were sent before any came.
    acknowledged: usize,
}

impl Http2 {
    /// Preface and settings sent.
    pub(crate) fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut wire = Wire::connect(address);
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut http2 = Self { wire, acknowledged: 0 };
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend(name.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        http2.send(Kind::Settings, 0, 0, &payload);
        http2
    }

    /// A captured connection, which ends with the acknowledgement of the other side's settings.
    pub(crate) fn replay(address: SocketAddr, bytes: &[u8]) -> Self {
        let mut wire = Wire::connect(address);
        wire.send(bytes);
        Self { wire, acknowledged: 1 }
    }

    /// Sends one frame; the peer must take it.
    pub(crate) fn send(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        self.offer(kind, flags, stream, payload).unwrap_or_else(|error| panic!("not sent: {error}"));
    }

    /// Sends one frame, if the peer still takes it.
    pub(crate) fn offer(
        &mut self,
        kind: Kind,
        flags: u8,
        stream: u32,
        payload: &[u8],
    ) -> std::io::Result<()> {
        self.wire.offer(frame(kind, flags, stream, payload))
    }

    /// Sends bytes as they are, if the peer still takes them.
    pub(crate) fn offer_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.wire.offer(bytes)
    }

    /// Sends a body in frames of the size that every peer takes.
    pub(crate) fn send_body(&mut self, stream: u32, body: &[u8]) {
        let last = body.len().div_ceil(16_384).saturating_sub(1);
        for (n, piece) in body.chunks(16_384).enumerate() {
            self.send(Kind::Data, if n == last { END_STREAM } else { 0 }, stream, piece);
        }
    }

    /// The next frame; settings and pings are answered on the way.
    pub(crate) fn frame(&mut self) -> Result<Frame, Ending> {
        loop {
            let head = self.wire.take(9)?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            let frame =
                Frame { kind: kind(head[3]), flags: head[4], stream, payload: self.wire.take(length)? };
            match frame.kind {
                Kind::Settings if frame.flags & 1 == 0 && self.acknowledged > 0 => self.acknowledged -= 1,
                Kind::Settings if frame.flags & 1 == 0 => {
                    let _ = self.offer(Kind::Settings, 1, 0, &[]);
                }
                Kind::Ping if frame.flags & 1 == 0 => {
                    let _ = self.offer(Kind::Ping, 1, 0, &frame.payload);
                }
                Kind::Settings | Kind::Ping | Kind::WindowUpdate | Kind::Other => {}
                _ => return Ok(frame),
            }
        }
    }

    /// How a stream ends: the status' byte in HPACK and the body, or a reset, or the connection's end.
    pub(crate) fn outcome(&mut self, stream: u32) -> Outcome {
        let (mut status, mut body) = (None, Vec::new());
        loop {
            let Ok(frame) = self.frame() else { return Outcome::Ended };
            match frame.kind {
                Kind::GoAway if code(&frame.payload[4..]) != 0 => return Outcome::Ended,
                Kind::Reset if frame.stream == stream => return Outcome::Reset(code(&frame.payload)),
                Kind::Headers if frame.stream == stream => status = frame.payload.first().copied(),
                Kind::Data if frame.stream == stream => {
                    body.extend(&frame.payload);
                    let more = u32::try_from(frame.payload.len()).unwrap();
                    if more > 0 {
                        let _ = self.offer(Kind::WindowUpdate, 0, 0, &more.to_be_bytes());
                    }
                }
                _ => continue,
            }
            if matches!(frame.kind, Kind::Headers | Kind::Data) && frame.flags & END_STREAM != 0 {
                return Outcome::Answered(status.unwrap_or_default(), body);
            }
        }
    }
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The first byte of the header block, which tells the commonest statuses, and the body.
    Answered(u8, Vec<u8>),
    /// RST_STREAM with this code.
    Reset(u32),
    /// GOAWAY with an error, or the connection is gone.
    Ended,
}

/// `:status: 200` and `:status: 400` as the first byte of a header block (RFC 7541 appendix A).
pub(crate) const STATUS_200: u8 = 0x88;
pub(crate) const STATUS_400: u8 = 0x8c;

/// The bytes of a frame.
pub(crate) fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind as u8, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header block: every field literal, nothing indexed, no Huffman code (RFC 7541 section 6.2.2).
pub(crate) fn header_block(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(&mut block, name.as_bytes());
        string(&mut block, value);
    }
    block
}

/// The header block of a transcription, with more fields behind.
pub(crate) fn upload_block(content_type: &str, more: &[(&str, &[u8])]) -> Vec<u8> {
    let key = format!("Bearer {KEY}");
    let mut fields: Vec<(&str, &[u8])> = vec![
        (":method", b"POST"),
        (":scheme", b"http"),
        (":authority", b"asr.test"),
        (":path", ENDPOINT.as_bytes()),
        ("authorization", key.as_bytes()),
        ("content-type", content_type.as_bytes()),
    ];
    fields.extend(more);
    header_block(&fields)
}

fn string(block: &mut Vec<u8>, bytes: &[u8]) {
    // An integer with a prefix of 7 bits (RFC 7541 section 5.1).
    let mut left = bytes.len();
    if left < 127 {
        block.push(u8::try_from(left).unwrap());
    } else {
        block.push(127);
        left -= 127;
        while left >= 128 {
            block.push(u8::try_from(left % 128 + 128).unwrap());
            left /= 128;
        }
        block.push(u8::try_from(left).unwrap());
    }
    block.extend(bytes);
}

fn kind(byte: u8) -> Kind {
    let known = [
        Kind::Data,
        Kind::Headers,
        Kind::Reset,
        Kind::Settings,
        Kind::Ping,
        Kind::GoAway,
        Kind::WindowUpdate,
        Kind::Continuation,
    ];
    known.into_iter().find(|kind| *kind as u8 == byte).unwrap_or(Kind::Other)
}

fn code(bytes: &[u8]) -> u32 {
    bytes.get(..4).map_or(0, |code| u32::from_be_bytes(code.try_into().unwrap()))
}
