//! What a new connection begins with, before TLS: a ClientHello's name and protocols, or something else.
//!
//! A push machine without I/O. Only whole TLS records are looked at, so that the outcome does not depend on how the
//! bytes were cut.

use std::fmt;

use rustls::server::{Accepted, Acceptor};

/// Records with a ClientHello in them have some 500 to 2000 bytes.
pub const LONGEST: usize = 16 * 1024;
/// RFC 8737 6.2.
const ACME_TLS: &[u8] = b"acme-tls/1";
/// Type, version, length (RFC 8446 5.1).
const RECORD_HEAD: usize = 5;
const HANDSHAKE: u8 = 22;
/// A fatal alert as a plain TLS record, but for its description (RFC 8446 6).
const ALERT: [u8; 6] = [21, 3, 3, 0, 2, 2];
const DECODE_ERROR: u8 = 50;
const HANDSHAKE_FAILURE: u8 = 40;
const UNRECOGNIZED_NAME: u8 = 112;

/// Reads a ClientHello piece by piece.
pub struct Peek {
    acceptor: Acceptor,
    seen: Vec<u8>,
    /// How much of `seen` has been looked at, in whole records.
    read: usize,
}

/// What there is to see.
#[derive(Debug)]
pub enum Sight {
    /// Not enough yet.
    More,
    /// A ClientHello.
    Hello(Box<Hello>),
    /// TLS, but nothing to go on with. The alert to send, which may be none.
    Broken(Vec<u8>),
    /// It begins as an HTTP request does.
    PlainText,
    /// Neither.
    Unknown,
}

/// A client's first message.
pub struct Hello {
    /// The name it asks for (SNI), lower case.
    pub name: Option<String>,
    /// It offers `acme-tls/1` and nothing else: a CA at work (RFC 8737 3).
    pub challenge: bool,
    /// The handshake so far.
    pub accepted: Accepted,
}

impl Peek {
    /// Nothing seen.
    pub fn new() -> Self {
        Self { acceptor: Acceptor::default(), seen: Vec::new(), read: 0 }
    }

    /// Takes the next bytes of the connection. Once it has said anything but [`Sight::More`], it is done.
    pub fn push(&mut self, bytes: &[u8]) -> Sight {
        self.seen.extend_from_slice(bytes);
        match self.seen.first() {
            None => return Sight::More,
            Some(&HANDSHAKE) => {}
            Some(b'A'..=b'Z') => return Sight::PlainText,
            Some(_) => return Sight::Unknown,
        }
        loop {
            let Some((head, rest)) = self.seen.get(self.read..).and_then(<[u8]>::split_first_chunk) else {
                return Sight::More;
            };
            let &[kind, _, _, high, low]: &[u8; RECORD_HEAD] = head;
            let length = usize::from(u16::from_be_bytes([high, low]));
            let end = self.read + RECORD_HEAD + length;
            if kind != HANDSHAKE || end > LONGEST {
                return Sight::Broken(alert(DECODE_ERROR));
            }
            if rest.len() < length {
                return Sight::More;
            }
            let mut record = self.seen.get(self.read..end).unwrap_or_default();
            self.read = end;
            while !record.is_empty() {
                if !matches!(self.acceptor.read_tls(&mut record), Ok(read) if read > 0) {
                    return Sight::Broken(alert(DECODE_ERROR));
                }
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Sight::Hello(Box::new(Hello::new(accepted))),
                Err((_, mut alert)) => {
                    let mut bytes = Vec::new();
                    let _into_memory = alert.write_all(&mut bytes);
                    return Sight::Broken(bytes);
                }
            }
        }
    }

    /// All bytes taken so far, for whoever goes on with the connection.
    pub fn into_seen(self) -> Vec<u8> {
        self.seen
    }
}

impl Default for Peek {
    fn default() -> Self {
        Self::new()
    }
}

impl Hello {
    fn new(accepted: Accepted) -> Self {
        let hello = accepted.client_hello();
        let name = hello.server_name().map(str::to_ascii_lowercase);
        let challenge = hello
            .alpn()
            .is_some_and(|mut offered| offered.next() == Some(ACME_TLS) && offered.next().is_none());
        Self { name, challenge, accepted }
    }

    /// The alert for a client that asks for what there is no certificate for (RFC 6066 3).
    pub fn refusal(&self) -> Vec<u8> {
        alert(if self.name.is_some() { UNRECOGNIZED_NAME } else { HANDSHAKE_FAILURE })
    }
}

/// As much as decides what happens next.
impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("name", &self.name)
            .field("challenge", &self.challenge)
            .finish_non_exhaustive()
    }
}

fn alert(description: u8) -> Vec<u8> {
    [&ALERT[..], &[description]].concat()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// A real ClientHello.
    fn hello(name: &str, protocols: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let mut client =
            ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The outcome of pushing the pieces, as text.
    fn outcome<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut peek = Peek::new();
        for piece in pieces {
            match peek.push(piece) {
                Sight::More => {}
                sight => return format!("{sight:?}"),
            }
        }
        "More".to_owned()
    }

    #[test]
    fn name_and_protocols_are_seen_whole_or_byte_by_byte() {
        let bytes = hello("ASR.example.com", &[b"h2", b"http/1.1"]);
        let expected = "Hello(Hello { name: Some(\"asr.example.com\"), challenge: false, .. })";
        assert_eq!(outcome([&bytes[..]]), expected);
        assert_eq!(outcome(bytes.chunks(1)), expected);
        assert_eq!(outcome([&bytes[..bytes.len() - 1]]), "More");
    }

    #[test]
    fn a_challenge_is_acme_and_nothing_beside_it() {
        for (protocols, challenge) in [
            (&[ACME_TLS][..], true),
            (&[ACME_TLS, b"h2"], false),
            (&[b"h2", ACME_TLS], false),
            (&[ACME_TLS, ACME_TLS], false),
            (&[b"acme-tls/2"], false),
            (&[], false),
        ] {
            let seen = outcome([&hello("a.example", protocols)[..]]);
            assert_eq!(
                seen,
                format!("Hello(Hello {{ name: Some(\"a.example\"), challenge: {challenge}, .. }})")
            );
        }
    }

    #[test]
    fn an_address_is_no_name_and_each_gets_its_own_alert() {
        let sight = |name| match Peek::new().push(&hello(name, &[])) {
            Sight::Hello(hello) => (hello.name.clone(), hello.refusal()),
            other => panic!("{other:?}"),
        };
        assert_eq!(sight("127.0.0.1"), (None, vec![21, 3, 3, 0, 2, 2, 40]));
        assert_eq!(sight("a.example"), (Some("a.example".to_owned()), vec![21, 3, 3, 0, 2, 2, 112]));
    }

    #[test]
    fn what_is_no_client_hello_is_told_apart() {
        assert_eq!(outcome([&b"GET / HTTP/1.1\r\n"[..]]), "PlainText");
        assert_eq!(outcome([&b"\x80\x2e\x01\x00\x02"[..]]), "Unknown");
        assert_eq!(outcome([&b"\0"[..]]), "Unknown");
        assert!(outcome([&[22, 3, 1, 0xff, 0xff][..]]).starts_with("Broken"), "too long by its own word");
        assert!(outcome([&[22, 3, 1, 0, 4, 2, 0, 0, 0][..]]).starts_with("Broken"), "a ServerHello");
    }

    #[test]
    fn a_hello_in_many_records_is_bounded() {
        // The first of a 64 KiB message, one byte a record.
        let bytes =
            [22, 3, 1, 0, 4, 1, 0, 255, 255].into_iter().chain([22, 3, 1, 0, 1, 0].into_iter().cycle());
        let mut peek = Peek::new();
        let pushed =
            bytes.take(2 * LONGEST).take_while(|byte| matches!(peek.push(&[*byte]), Sight::More)).count();
        assert!(pushed <= LONGEST + RECORD_HEAD, "{pushed}");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_have_one_outcome(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..600),
                (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| {
                    let mut bytes = hello("a.example", &[b"h2"]);
                    let at = at % bytes.len();
                    bytes[at] = byte;
                    bytes
                }),
            ],
            cuts in proptest::collection::vec(1..200_usize, 1..20),
        ) {
            let mut pieces = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = left;
            }
            prop_assert_eq!(outcome([&bytes[..]]), outcome(pieces));
        }
    }
}
