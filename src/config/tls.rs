//! `[tls]`: certificate and key in files of one's own.

use super::check::{Desk, unreadable};
use super::raw::RawTls;
use super::{Server, TlsFiles};
use crate::base::file;

/// Checks that there are two files and that they can be opened; what is in them, the TLS room judges.
pub(super) fn check(raw: RawTls, server: &Server, desk: &mut Desk<'_>) -> TlsFiles {
    if server.https.is_empty() && !desk.told("server.https") {
        desk.fault("tls.certificate", "is for nobody: server.https names no address");
    }
    let mut found = |path: &'static str, given: Option<std::path::PathBuf>, what: &str| {
        let Some(given) = given.filter(|given| !given.as_os_str().is_empty()) else {
            if !desk.told(path) {
                desk.fault(path, format!("is missing: the PEM file with {what}"));
            }
            return Default::default();
        };
        let file = desk.path(&given);
        if let Some(why) = unreadable(&file) {
            desk.fault(path, why);
        }
        file
    };
    let certificate = found("tls.certificate", raw.certificate, "the certificate and what it was issued by");
    let key = found("tls.key", raw.key, "the certificate's private key");
    if file::open_to_others(&key) {
        desk.notice(format!("tls.key: others may read {}; chmod 600 it", key.display()));
    }
    TlsFiles { certificate, key }
}
