//! A certificate for this machine's own names, signed by itself.

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};
use zeroize::Zeroizing;

/// A certificate that vouches for itself, and its key; PEM.
pub(super) struct SelfSigned {
    pub(super) certificate: String,
    pub(super) key: Zeroizing<String>,
}

impl SelfSigned {
    /// For `localhost` and the loopback addresses.
    ///
    /// # Errors
    /// rcgen's.
    pub(super) fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(["localhost", "127.0.0.1", "::1"].map(str::to_owned))?;
        params.distinguished_name.push(DnType::CommonName, "asr-edge demo");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { certificate, key: Zeroizing::new(key.serialize_pem()) })
    }
}
