//! What HTTPS needs and tells: certificates and where they come from, challenges, what holds for requests over TLS.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, UNIX_EPOCH};

use http::header::HOST;
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use serde_json::{Value, json};

use super::record::request_id;
use crate::accept::Handshakes;
use crate::acme::{Acme, Challenges, World};
use crate::answer::Fault;
use crate::base::file::Watching;
use crate::config::{AcmeSettings, Config, ConfigFault};
use crate::respond::message;
use crate::tls::{
    CertificateFiles, CertificateInfo, CertificateSource, Certificates, FilesFault, KeypairFault,
};

/// Own certificates that end within this time are worth a warning: nobody renews them but their owner.
const SOON: u64 = 7 * 24 * 60 * 60;

/// The HTTPS side of the program; there is one even where nothing listens on HTTPS.
pub(super) struct Site {
    pub(super) certificates: Arc<Certificates>,
    pub(super) challenges: Arc<Challenges>,
    files: Option<Arc<CertificateFiles>>,
    /// What to order, and the loop that does it once it runs.
    order: Option<AcmeSettings>,
    acme: Arc<OnceLock<Acme>>,
    https: bool,
    hsts: Option<String>,
}

impl Site {
    /// Reads the operator's own certificate, if there is one. What the site `before` this one serves is served until
    /// there is something in its place; orders under the same settings go on.
    ///
    /// # Errors
    /// There is one, and it cannot be served.
    pub(super) fn open(config: &Config, before: Option<&Self>) -> Result<Self, ConfigFault> {
        let certificates =
            before.map_or_else(|| Arc::new(Certificates::new()), |before| Arc::clone(&before.certificates));
        let challenges =
            before.map_or_else(|| Arc::new(Challenges::new()), |before| Arc::clone(&before.challenges));
        let same = before.filter(|before| before.order == config.acme);
        let files = config.tls.as_ref().map(|tls| {
            CertificateFiles::load(tls.certificate.clone(), tls.key.clone(), Arc::clone(&certificates))
        });
        Ok(Self {
            files: files.transpose().map_err(config_fault)?,
            certificates,
            challenges,
            order: config.acme.clone(),
            acme: same.map_or_else(Arc::default, |before| Arc::clone(&before.acme)),
            https: !config.server.https.is_empty(),
            hsts: config.server.hsts.map(|seconds| format!("max-age={seconds}")),
        })
    }

    /// How connections become TLS ones.
    ///
    /// # Errors
    /// rustls', which there is no cause for.
    pub(super) fn handshakes(&self) -> Result<Handshakes, rustls::Error> {
        let plain = || message(&Fault::PlainHttp.reply(), &request_id());
        Handshakes::new(Arc::clone(&self.certificates), Arc::clone(&self.challenges), plain)
    }

    /// Takes the place of another site.
    pub(super) fn succeed(&self, before: &Self) {
        if !Arc::ptr_eq(&self.acme, &before.acme) {
            before.stop();
        }
        for (gone, source) in [
            (self.files.is_none(), CertificateSource::Files),
            (self.order.is_none(), CertificateSource::Acme),
        ] {
            if gone {
                self.certificates.publish(source, Vec::new());
            }
        }
        self.certify();
    }

    /// Publishes the certificate that is stored, and keeps ordering new ones. Must be called within a Tokio runtime, with
    /// the ports bound where challenges are answered.
    pub(super) fn certify(&self) {
        let Some(settings) = &self.order else { return };
        match World::real(settings) {
            Ok(world) => {
                let (certificates, challenges) =
                    (Arc::clone(&self.certificates), Arc::clone(&self.challenges));
                self.acme.get_or_init(|| Acme::start(settings.clone(), certificates, challenges, world));
            }
            Err(error) => tracing::error!(%error, "no certificate is ordered"),
        }
    }

    /// Orders no more: another process may be about to.
    pub(super) fn stop(&self) {
        self.acme.get().into_iter().for_each(Acme::stop);
    }

    /// Follows the certificate files until the returned values are dropped.
    pub(super) fn watch(&self) -> Vec<Watching> {
        self.files.iter().flat_map(CertificateFiles::watch).collect()
    }

    /// A request over TLS must be for a name that we have a certificate for (RFC 9110 7.4): a client may have come to
    /// the wrong server by a shared address, or by a name that somebody else points here. Where there is none any more,
    /// the connection is from before a reload that took HTTPS away, and good to its end.
    ///
    /// # Errors
    /// [`Fault::Misdirected`].
    pub(super) fn check_host(&self, request: &RequestHeader) -> Result<(), Fault> {
        let authority = request.uri.authority().map(|authority| Some(authority.as_str()));
        let mut hosts = request.headers.get_all(HOST).iter().map(|host| host.to_str().ok()).chain(authority);
        let ours = |host: Option<&str>| host.is_some_and(|host| self.certificates.covers(host));
        if self.certificates.is_empty() || hosts.all(ours) { Ok(()) } else { Err(Fault::Misdirected) }
    }

    /// The value of `Strict-Transport-Security`, if it is to be sent.
    pub(super) fn hsts(&self) -> Option<&str> {
        self.hsts.as_deref()
    }

    /// Why no HTTPS client can be served now.
    pub(super) fn fault(&self, now: u64) -> Option<String> {
        let none = self.https && !self.certificates.any_valid_at(now);
        let why =
            || self.acme.get().and_then(Acme::problem).unwrap_or_else(|| "no_valid_certificate".to_owned());
        none.then(why)
    }

    /// What will go wrong unless somebody acts.
    pub(super) fn warnings(&self, now: u64) -> impl Iterator<Item = &'static str> {
        let own = |info: &CertificateInfo| info.source == CertificateSource::Files;
        let ends = self.certificates.list().into_iter().filter(own).any(|info| info.not_after < now + SOON);
        let not_taken = self.files.as_ref().is_some_and(|files| files.fault().is_some());
        [(ends, "certificate_expires_soon"), (not_taken, "certificate_files_not_taken")]
            .into_iter()
            .filter_map(|(so, warning)| so.then_some(warning))
    }

    /// For `/status`: every certificate.
    pub(super) fn status(&self, now: u64) -> Value {
        let date = |at: u64| {
            // Beyond the year 9999 there is no such text.
            let at = Duration::from_secs(at.min(253_402_300_799));
            humantime::format_rfc3339_seconds(UNIX_EPOCH + at).to_string()
        };
        let certificate = |info: CertificateInfo| {
            json!({
                "names": info.names,
                "issuer": info.issuer,
                "source": info.source,
                "not_before": date(info.not_before),
                "not_after": date(info.not_after),
                "expires_in_seconds": info.not_after.saturating_sub(now),
            })
        };
        let fault = self.files.as_ref().and_then(|files| files.fault()).map(|fault| fault.to_string());
        json!({
            "certificates": self.certificates.list().into_iter().map(certificate).collect::<Vec<_>>(),
            "files_fault": fault,
            "acme": self.acme.get().map(Acme::status),
        })
    }
}

/// The TLS version of the connection that a request came by, such as `TLSv1.3`; `None` without TLS.
pub(super) fn tls_version(session: &Session) -> Option<Cow<'static, str>> {
    let version = &session.as_downstream().digest()?.ssl_digest.as_ref()?.version;
    Some(match &**version {
        "TLSv1_3" => "TLSv1.3".into(),
        "TLSv1_2" => "TLSv1.2".into(),
        _ => version.clone(),
    })
}

fn config_fault(fault: FilesFault) -> ConfigFault {
    let path = match fault {
        FilesFault::Key(_)
        | FilesFault::Pair(KeypairFault::NoKey | KeypairFault::KeyKind | KeypairFault::Mismatch) => "tls.key",
        _ => "tls.certificate",
    };
    ConfigFault { path: path.into(), why: fault.to_string() }
}
