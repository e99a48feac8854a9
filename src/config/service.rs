//! `[[service]]`: what exists already and is served beside Codex.

use super::check::Desk;
use super::codex::models_checked;
use super::raw::RawService;
use super::{Codex, Endpoint, Service, ServiceKind};

/// Paths that we answer ourselves. `/` and `/v1` are left out: a service may have all that is left below them.
const OWN: [&str; 11] = [
    "/v1/audio/transcriptions",
    "/audio/transcriptions",
    "/openai/v1/audio/transcriptions",
    "/openai/deployments",
    "/backend-api/transcribe",
    "/v1/audio/translations",
    "/audio/translations",
    "/openai/v1/audio/translations",
    "/v1/models",
    "/healthz",
    "/health",
];

/// Checks all services, each by itself and against the others and Codex.
pub(super) fn check(raw: Vec<RawService>, codex: &Codex, desk: &mut Desk<'_>) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for (n, raw) in raw.into_iter().enumerate() {
        let at = format!("service[{n}]");
        let name = name(raw.name, &at, &services, desk);
        let kind = raw.kind.unwrap_or_else(|| {
            if !told(desk, &format!("{at}.kind")) {
                desk.fault(format!("{at}.kind"), "is missing: \"openai\", \"codex\" or \"plain\"");
            }
            ServiceKind::Plain
        });
        let url = url(raw.url, &at, desk);
        models(&raw.models, &at, codex, &services, desk);
        paths(&raw.paths, &at, &services, desk);
        let faulty = desk.faults.iter().any(|fault| fault.path.starts_with(&at));
        match kind {
            _ if faulty => {}
            ServiceKind::Plain if !raw.models.is_empty() => {
                desk.fault(format!("{at}.models"), "a plain service takes paths, not models");
            }
            _ if raw.models.is_empty() && raw.paths.is_empty() => {
                desk.fault(at, "would never get a request: give it paths, or models (openai, codex)");
            }
            _ => {}
        }
        if let Some(url) = url {
            services.push(Service { name, url, kind, models: raw.models, paths: raw.paths });
        }
    }
    services
}

fn name(raw: Option<String>, at: &str, earlier: &[Service], desk: &mut Desk<'_>) -> String {
    let path = format!("{at}.name");
    let name = raw.unwrap_or_default();
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if earlier.iter().any(|other| other.name == name) {
        desk.fault(path, format!("`{name}` is there twice"));
    } else if name == "codex" {
        desk.fault(path, "`codex` is what metrics call Codex itself");
    } else if (name.is_empty() || name.len() > 63 || !plain) && !told(desk, &path) {
        desk.fault(path, "must be 1 to 63 lower-case letters, digits and hyphens");
    }
    name
}

fn url(raw: Option<String>, at: &str, desk: &mut Desk<'_>) -> Option<Endpoint> {
    let path = format!("{at}.url");
    let Some(text) = raw else {
        if !told(desk, &path) {
            desk.fault(path, "is missing: where the service is, such as http://127.0.0.1:8000");
        }
        return None;
    };
    match Endpoint::parse(text.trim()) {
        Ok(url) => Some(url),
        Err(why) => {
            desk.fault(path, why.to_string());
            None
        }
    }
}

fn models(models: &[String], at: &str, codex: &Codex, earlier: &[Service], desk: &mut Desk<'_>) {
    let path = format!("{at}.models");
    models_checked(&path, models, desk);
    for (n, name) in models.iter().enumerate() {
        if codex.models.contains(name) {
            desk.fault(format!("{path}[{n}]"), format!("`{name}` is in codex.models too"));
        } else if let Some(other) = earlier.iter().find(|other| other.models.contains(name)) {
            desk.fault(format!("{path}[{n}]"), format!("`{name}` goes to service `{}` already", other.name));
        }
    }
}

fn paths(paths: &[String], at: &str, earlier: &[Service], desk: &mut Desk<'_>) {
    for (n, given) in paths.iter().enumerate() {
        let path = format!("{at}.paths[{n}]");
        let bare = given.trim_end_matches('/');
        let same = |other: &String| other.trim_end_matches('/') == bare;
        let below = |own: &&&str| {
            bare.strip_prefix(**own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if !given.starts_with('/') {
            desk.fault(path, "must start with `/`");
        } else if given.contains("//")
            || !given.bytes().all(|b| b.is_ascii_graphic() && b != b'?' && b != b'#')
        {
            desk.fault(path, "must be a plain path: no `//`, `?`, `#`, space or control character");
        } else if let Some(own) = OWN.iter().find(below) {
            desk.fault(path, format!("{own} is answered by asr-edge itself"));
        } else if paths.iter().take(n).any(same) {
            desk.fault(path, format!("{given} is there twice"));
        } else if let Some(other) = earlier.iter().find(|other| other.paths.iter().any(same)) {
            desk.fault(path, format!("{given} goes to service `{}` already", other.name));
        }
    }
}

/// Whether this path has its fault already: a value of the wrong type is missing here.
fn told(desk: &Desk<'_>, path: &str) -> bool {
    desk.faults.iter().any(|fault| fault.path == path)
}
