//! What the configuration comes to, in lines for `asr-edge check`. No secrets.

use bytesize::ByteSize;
use humantime::format_duration;

use super::{AcmeSettings, Challenge, Config, Identifier, KeySource, LoginSource};

/// One line for each thing the operator may want to see confirmed.
pub fn explain(config: &Config) -> Vec<String> {
    let Config { server, tls, acme, keys, codex, limits, services, .. } = config;
    let mut lines = Vec::new();
    lines.extend(server.http.iter().map(|address| format!("listens on http://{address}")));
    lines.extend(server.https.iter().map(|address| format!("listens on https://{address}")));
    lines.extend(server.port80.iter().map(|address| format!("redirects to HTTPS on http://{address}")));
    lines.extend(
        tls.as_ref().map(|files| {
            format!("certificate: {}, key {}", files.certificate.display(), files.key.display())
        }),
    );
    lines.extend(acme.as_ref().map(ordered));
    lines.push(match server.admin {
        Some(address) => format!("admin on http://{address}: /live /ready /metrics /status"),
        None => "admin: nowhere".to_owned(),
    });
    lines.push(match keys {
        KeySource::Open => "keys: none needed, loopback only".to_owned(),
        KeySource::Single(_) => "keys: the one given by flag or variable".to_owned(),
        KeySource::File(path) => format!("keys: those in {}", path.display()),
    });
    lines.push(format!("upstream: {}", codex.endpoint.url()));
    lines.push(match &codex.login {
        LoginSource::Bearer(_) => "login: the access token given".to_owned(),
        LoginSource::File(path) => format!("login: {}", path.display()),
    });
    if let Some(proxy) = &codex.proxy {
        let with = if proxy.credentials.is_some() { ", with credentials" } else { "" };
        lines.push(format!("proxy: {}{with}", proxy.url()));
    }
    if !codex.ca_root.is_empty() {
        lines.push(format!("upstream roots: the system's and {} more", codex.ca_root.len()));
    }
    lines.push(format!(
        "upstream times: connect {}, first byte {}, in all {}",
        format_duration(codex.connect_timeout),
        format_duration(codex.first_byte_timeout),
        format_duration(codex.request_timeout),
    ));
    lines.push(format!(
        "limits: uploads up to {}, {} at once, {} more wait up to {}",
        ByteSize(limits.max_upload),
        limits.concurrency,
        limits.queue,
        format_duration(limits.queue_wait),
    ));
    if let Some(longest) = limits.max_duration {
        lines.push(format!("audio: up to {}", format_duration(longest)));
    }
    lines.push(match limits.spool_total {
        0 => "spool: none".to_owned(),
        total => format!("spool: up to {} in {}", ByteSize(total), limits.spool_dir.display()),
    });
    for service in services {
        let takes: Vec<&str> = service.models.iter().chain(&service.paths).map(String::as_str).collect();
        lines.push(format!("service {}: {} for {}", service.name, service.url.url(), takes.join(", ")));
    }
    lines
}

fn ordered(acme: &AcmeSettings) -> String {
    let names: Vec<String> = acme.domains.iter().map(Identifier::to_string).collect();
    let ways: Vec<&str> = acme.challenges.iter().copied().map(Challenge::name).collect();
    let profile = acme.profile.as_ref().map_or_else(String::new, |profile| format!(", profile {profile}"));
    format!(
        "certificate: ordered from {} for {} by {}{profile}, kept in {}",
        acme.directory,
        names.join(", "),
        ways.join(" or "),
        acme.state.display()
    )
}
