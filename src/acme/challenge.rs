//! What is being proved right now: looked up by port 80 and by the TLS listener, as often as the CA likes (it asks from
//! several places at once). An entry lives as long as its [`Guard`].

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::RwLock;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::Identifier;

/// The protocol that marks a validation (RFC 8737 section 6.2). A client that offers it offers nothing else.
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// The challenges being answered.
#[derive(Default)]
pub struct Challenges {
    http: RwLock<HashMap<String, String>>,
    alpn: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

/// Takes its challenge off the table when dropped, however that comes about.
#[must_use]
pub struct Guard {
    challenges: Arc<Challenges>,
    entry: Entry,
}

enum Entry {
    Http(String),
    Alpn(String),
}

impl Challenges {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What `/.well-known/acme-challenge/{token}` answers, byte for byte (RFC 8555 section 8.3).
    pub fn http01(&self, token: &str) -> Option<String> {
        self.http.read().get(token).cloned()
    }

    /// The certificate for a validation that asks for this server name; for an address that is its reverse name (RFC
    /// 8738 section 6).
    pub fn alpn(&self, server_name: &str) -> Option<Arc<CertifiedKey>> {
        self.alpn.read().get(&server_name.to_ascii_lowercase()).cloned()
    }

    /// Whether a TLS validation may come now: otherwise nobody needs to look at a handshake for one.
    pub fn is_pending(&self) -> bool {
        !self.alpn.read().is_empty()
    }

    /// How many challenges are being answered.
    pub fn len(&self) -> usize {
        self.http.read().len() + self.alpn.read().len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A TLS server that does nothing but answer validations: `acme-tls/1`, and a certificate by server name.
    ///
    /// # Errors
    /// Never with the provider that is built in.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, rustls::Error> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
        let mut config = builder.with_cert_resolver(Arc::new(ByName(Arc::clone(self))));
        config.alpn_protocols = vec![ACME_TLS.to_vec()];
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// Answers an http-01 challenge. `None`: the token holds what no token may (RFC 8555 section 8.3), and would be a
    /// path of its own.
    pub fn offer_http01(self: &Arc<Self>, token: &str, authorization: &str) -> Option<Guard> {
        let base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if token.is_empty() || !token.bytes().all(base64url) {
            return None;
        }
        self.http.write().insert(token.to_owned(), authorization.to_owned());
        Some(self.guard(Entry::Http(token.to_owned())))
    }

    /// Answers a tls-alpn-01 challenge with a certificate that holds the name alone and the digest (SHA-256) of the key
    /// authorization (RFC 8737 section 3).
    ///
    /// # Errors
    /// A name or digest that cannot be put into a certificate.
    pub fn offer_alpn(self: &Arc<Self>, name: &Identifier, digest: &[u8]) -> Result<Guard, rcgen::Error> {
        let key = challenge_key(name, digest)?;
        let name = server_name(name);
        self.alpn.write().insert(name.clone(), Arc::new(key));
        Ok(self.guard(Entry::Alpn(name)))
    }

    fn guard(self: &Arc<Self>, entry: Entry) -> Guard {
        Guard { challenges: Arc::clone(self), entry }
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenges").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        match &self.entry {
            Entry::Http(token) => drop(self.challenges.http.write().remove(token)),
            Entry::Alpn(name) => drop(self.challenges.alpn.write().remove(name)),
        }
    }
}

struct ByName(Arc<Challenges>);

impl fmt::Debug for ByName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByName")
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.alpn(hello.server_name()?)
    }
}

fn challenge_key(name: &Identifier, digest: &[u8]) -> Result<CertifiedKey, rcgen::Error> {
    if digest.len() != 32 {
        return Err(rcgen::Error::CouldNotParseCertificate);
    }
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_string()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key)?;
    let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signer = ring::sign::any_ecdsa_type(&der).map_err(|_| rcgen::Error::KeyGenerationUnavailable)?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signer))
}

/// What a validation sends as SNI (RFC 8737 section 3, RFC 8738 section 6).
fn server_name(name: &Identifier) -> String {
    match name {
        Identifier::Dns(name) => name.to_ascii_lowercase(),
        Identifier::Ip(IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Identifier::Ip(IpAddr::V6(ip)) => {
            let nibbles = ip.octets().into_iter().rev().flat_map(|byte| [byte & 0xf, byte >> 4]);
            let digits: String = nibbles.map(|nibble| format!("{nibble:x}.")).collect();
            digits + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, ServerConnection, SignatureScheme};
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

    use super::*;

    fn table() -> Arc<Challenges> {
        Arc::new(Challenges::new())
    }

    fn dns(name: &str) -> Identifier {
        Identifier::Dns(name.to_owned())
    }

    #[test]
    fn an_answer_can_be_read_again_and_again_until_its_guard_is_dropped() {
        let table = table();
        let guard = table.offer_http01("tok-EN_1", "tok-EN_1.thumb").unwrap();
        for _ in 0..5 {
            assert_eq!(table.http01("tok-EN_1").as_deref(), Some("tok-EN_1.thumb"));
        }
        for other in ["", "tok-EN_", "tok-EN_12", "TOK-EN_1", "tok-EN_1/"] {
            assert_eq!(table.http01(other), None, "{other}");
        }
        drop(guard);
        assert!(table.http01("tok-EN_1").is_none() && table.is_empty());
    }

    #[test]
    fn a_token_that_is_no_base64url_is_never_offered() {
        for token in ["", "../x", "a b", "a\r\nb", "a%2f", "ä"] {
            assert!(table().offer_http01(token, "x").is_none(), "{token}");
        }
    }

    #[tokio::test]
    async fn cancelling_and_panicking_leave_an_empty_table() {
        let table = table();
        let held = Arc::clone(&table);
        let cancelled = tokio::spawn(async move {
            let _a = held.offer_http01("a", "x").unwrap();
            let _b = held.offer_alpn(&dns("b.example"), &[7; 32]).unwrap();
            std::future::pending::<()>().await;
        });
        while table.len() < 2 {
            tokio::task::yield_now().await;
        }
        cancelled.abort();
        assert!(cancelled.await.unwrap_err().is_cancelled());
        assert!(table.is_empty());

        let held = Arc::clone(&table);
        let panicked = tokio::spawn(async move {
            let _guard = held.offer_http01("a", "x").unwrap();
            panic!("mid order");
        });
        assert!(panicked.await.unwrap_err().is_panic());
        assert!(table.is_empty() && !table.is_pending());
    }

    #[test]
    fn a_challenge_certificate_holds_one_name_no_subject_and_the_digest_as_critical() {
        let table = table();
        let guard = table.offer_alpn(&dns("asr.example.com"), &[9; 32]).unwrap();
        let key = table.alpn("ASR.example.com").unwrap();
        let (_, leaf) = X509Certificate::from_der(&key.cert[0]).unwrap();
        let names = leaf.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names, [GeneralName::DNSName("asr.example.com")]);
        assert_eq!(leaf.subject().iter().count(), 0, "no common name");
        let digest = leaf.iter_extensions().find(|e| e.oid.to_id_string() == "1.3.6.1.5.5.7.1.31").unwrap();
        assert!(digest.critical);
        assert_eq!(digest.value, [&[4, 32][..], &[9; 32][..]].concat());
        drop(guard);
        assert!(table.alpn("asr.example.com").is_none());
    }

    #[test]
    fn an_address_is_asked_for_by_its_reverse_name() {
        let table = table();
        let _four = table.offer_alpn(&Identifier::Ip("192.0.2.7".parse().unwrap()), &[1; 32]).unwrap();
        let _six = table.offer_alpn(&Identifier::Ip("2001:db8::1".parse().unwrap()), &[1; 32]).unwrap();
        assert!(table.alpn("7.2.0.192.in-addr.arpa").is_some());
        let six = "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa";
        assert!(table.alpn(six).is_some());
        assert!(table.offer_alpn(&dns("a.example"), &[1; 31]).is_err());
    }

    /// Trusts everyone, as a validating CA does.
    #[derive(Debug)]
    struct Anyone;

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ECDSA_NISTP256_SHA256]
        }
    }

    /// Shakes hands in memory; what the two agreed on.
    fn handshake(table: &Arc<Challenges>, name: &str, alpn: &[u8]) -> Result<Option<Vec<u8>>, rustls::Error> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config =
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone)).with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name)?;
        let mut server = ServerConnection::new(table.server_config()?)?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut wire = Vec::new();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(client.alpn_protocol().map(<[u8]>::to_vec))
    }

    #[test]
    fn a_validation_shakes_hands_and_nobody_else_does() {
        let table = table();
        let _guard = table.offer_alpn(&dns("asr.example.com"), &[9; 32]).unwrap();
        assert_eq!(handshake(&table, "asr.example.com", ACME_TLS), Ok(Some(ACME_TLS.to_vec())));
        assert!(handshake(&table, "other.example.com", ACME_TLS).is_err(), "an unknown name");
        assert!(handshake(&table, "asr.example.com", b"h2").is_err(), "another protocol");
    }
}
