//! The CA: whether its directory can be read, and what it says about terms, profiles and accounts; and our clock
//! against its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Finding;
use crate::acme::wire::{self, Directory};
use crate::acme::{Https, Transport};
use crate::base::clock;
use crate::config::AcmeSettings;

/// A clock that is off by more rejects fresh certificates, or is rejected; seconds.
const SKEW: u64 = 5 * 60;

/// Reads the directory once, the way orders do.
pub(super) async fn look(acme: &AcmeSettings, patience: Duration) -> Vec<Finding> {
    let subject = format!("directory {}", acme.directory);
    let https: Arc<dyn Transport> = match Https::new(&acme.ca_root) {
        Ok(https) => Arc::new(https),
        Err(error) => return vec![Finding::fail(subject, error.to_string())],
    };
    let directory = match timeout(patience, wire::directory(&https, acme.directory.as_str())).await {
        Ok(Ok(directory)) => directory,
        Ok(Err(failure)) => return vec![unusable(subject, &failure.to_string(), acme)],
        Err(_) => return vec![unusable(subject, "timed out", acme)],
    };
    let ari = if directory.renewal_info { "tells when to renew" } else { "does not tell when to renew" };
    let mut findings = vec![
        Finding::pass(subject, format!("can be reached and trusted; {ari}")),
        clock_of(directory.date, clock::unix()),
    ];
    findings.extend(offer(directory, acme));
    findings
}

fn unusable(subject: String, why: &str, acme: &AcmeSettings) -> Finding {
    // In rustls' words, which come as text.
    let todo = match (why.contains("invalid peer certificate"), acme.ca_root.is_empty()) {
        (true, true) => {
            "its certificate is not trusted: for a private CA give acme.ca_root; else look at this machine's clock and its \
             root certificates (package ca-certificates)"
        }
        (true, false) => "its certificate is not trusted: look at acme.ca_root and this machine's clock",
        (false, _) => "is acme.directory right, and may this machine connect out to it?",
    };
    Finding::fail(subject, format!("cannot be used ({why}); {todo}"))
}

fn clock_of(theirs: Option<u64>, ours: u64) -> Finding {
    let Some(theirs) = theirs else {
        return Finding::warn("clock", "the CA does not tell the time, so ours cannot be compared");
    };
    let side = if ours < theirs { "behind" } else { "ahead of" };
    let off = ours.abs_diff(theirs);
    let off_for_people = humantime::format_duration(Duration::from_secs(off));
    if off > SKEW {
        return Finding::fail(
            "clock",
            format!(
                "is {off_for_people} {side} the CA's: set it, and keep it right with an NTP service (timedatectl set-ntp true)"
            ),
        );
    }
    Finding::pass("clock", format!("is {off_for_people} {side} the CA's"))
}

/// What the CA asks and offers, against what the config says.
fn offer(directory: Directory, acme: &AcmeSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings
        .extend(directory.terms.map(|url| Finding::pass("terms", format!("agreed to by the config: {url}"))));
    if directory.external_account && acme.eab.is_none() {
        findings.push(Finding::fail(
            "account",
            "this CA ties accounts to its customers: give key_id and hmac_key in [acme.eab]",
        ));
    }
    let offered = directory.profiles;
    let list = offered.join(", ");
    findings.extend(match &acme.profile {
        Some(name) if offered.contains(name) => {
            Some(Finding::pass("profile", format!("{name} is offered, among {list}")))
        }
        Some(name) if offered.is_empty() => Some(Finding::fail(
            "profile",
            format!("this CA offers none, so {name} would be refused: drop acme.profile"),
        )),
        Some(name) => Some(Finding::fail(
            "profile",
            format!("{name} is not offered: acme.profile may be one of {list}"),
        )),
        None if offered.is_empty() => None,
        None => Some(Finding::pass("profile", format!("the CA's default; it offers {list}"))),
    });
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_be_five_minutes_off_in_either_direction() {
        let then = 784_111_777;
        let found = |now| clock_of(Some(then), now).to_string();
        assert_eq!(found(then + SKEW), "pass  clock: is 5m ahead of the CA's");
        assert_eq!(found(then - SKEW), "pass  clock: is 5m behind the CA's");
        assert!(found(then + SKEW + 1).starts_with("fail  clock: is 5m 1s ahead of"));
        assert!(found(then - SKEW - 1).starts_with("fail  clock: is 5m 1s behind"));
        assert!(clock_of(None, then).to_string().starts_with("warn  clock: "));
    }
}
