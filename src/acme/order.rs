//! One issuance: order, prove the names one by one, finalize, fetch.

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, CertificateIdentifier, ChallengeType, Error, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::challenge::{Challenges, Guard};
use super::failure::{Failure, Unproved};
use crate::config::{Challenge, Identifier};

/// How long the CA may take over one name, and over the certificate.
const PATIENCE: Duration = Duration::from_secs(60);
/// The first look at what the CA has found; then at growing distance.
const FIRST_LOOK: Duration = Duration::from_millis(250);
const LONGEST_LOOK: Duration = Duration::from_secs(5);
const POLLS: RetryPolicy = RetryPolicy::new().initial_delay(FIRST_LOOK).backoff(1.5).timeout(PATIENCE);
/// The only profile under which Let's Encrypt certifies addresses.
const SHORT_LIVED: &str = "shortlived";

/// What is ordered.
pub(super) struct Wanted<'a> {
    /// At least one.
    pub(super) names: &'a [Identifier],
    /// The CA's profile; for addresses `shortlived` is taken where the CA has it.
    pub(super) profile: Option<&'a str>,
    /// The certificate that this one replaces (RFC 9773 section 5).
    pub(super) replaces: Option<&'a CertificateIdentifier<'static>>,
    /// The ways to prove a name, the preferred one first.
    pub(super) ways: &'a [Challenge],
}

/// A call that is made again when the CA took none of the nonces. instant-acme signs three times by itself.
macro_rules! steady {
    ($call:expr) => {
        match $call.await.map_err(Failure::from) {
            Err(failure) if failure.is_bad_nonce() => $call.await.map_err(Failure::from),
            outcome => outcome,
        }
    };
}

/// Orders a certificate with a key of its own; key and chain as PEM. Challenges are on the table only while they are
/// needed.
///
/// # Errors
/// [`Failure`]. Every name is tried even when one has failed, so that all that fail are known.
pub(super) async fn issue(
    account: &Account,
    wanted: &Wanted<'_>,
    challenges: &Arc<Challenges>,
) -> Result<Zeroizing<String>, Failure> {
    let mut order = place(account, wanted).await?;
    let mut unproved = Vec::new();
    for at in 0..order.state().authorizations.len() {
        match offer(&mut order, at, wanted, challenges).await? {
            Offer::Valid => {}
            Offer::Failed(failed) => unproved.push(failed),
            Offer::Pending(name, guard) => {
                unproved.extend(verdict(&mut order, at, name).await?);
                drop(guard);
            }
        }
    }
    if !unproved.is_empty() {
        return Err(Failure::Unproved(unproved));
    }
    if order.state().status != OrderStatus::Ready {
        let status = steady!(order.poll_ready(&POLLS))?;
        if status != OrderStatus::Ready {
            return Err(Failure::Unreached(format!("the order is {status:?}, all names proved")));
        }
    }
    let key = KeyPair::generate().map_err(unusable)?;
    let mut params = CertificateParams::new(wanted.names.iter().map(ToString::to_string).collect::<Vec<_>>())
        .map_err(unusable)?;
    // No common name: it is capped at 64 bytes and nobody reads it.
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).map_err(unusable)?;
    steady!(order.finalize_csr(request.der()))?;
    let chain = steady!(order.poll_certificate(&POLLS))?;
    let mut pem = Zeroizing::new(key.serialize_pem());
    pem.push_str(&chain);
    Ok(pem)
}

async fn place(account: &Account, wanted: &Wanted<'_>) -> Result<Order, Failure> {
    let names: Vec<_> = wanted.names.iter().map(identifier).collect();
    let addresses = wanted.names.iter().any(|name| matches!(name, Identifier::Ip(_)));
    let short_lived = || account.profiles().any(|profile| profile.name == SHORT_LIVED).then_some(SHORT_LIVED);
    let mut order = NewOrder::new(&names);
    if let Some(profile) = wanted.profile.or_else(|| addresses.then(short_lived).flatten()) {
        order = order.profile(profile);
    }
    let Some(replaces) = wanted.replaces else {
        return steady!(account.new_order(&order));
    };
    let order = order.replaces(replaces.clone());
    match account.new_order(&order).await {
        // The CA has no renewal information, or has overlooked the field: instant-acme tells both as errors of its own.
        Err(error @ Error::Unsupported(_)) => Err(Failure::Replaces(error.to_string())),
        Err(error) => {
            let overlooked =
                matches!(&error, Error::Other(_)) && error.to_string().starts_with("replaces field");
            let failure = Failure::from(error);
            if overlooked || failure.may_be_about_replaces() {
                return Err(Failure::Replaces(failure.to_string()));
            }
            Err(failure)
        }
        Ok(order) => Ok(order),
    }
}

/// How it stands with one name of an order.
enum Offer {
    Valid,
    Pending(String, Guard),
    Failed(Unproved),
}

/// Puts the challenge of one name on the table, then tells the CA.
async fn offer(
    order: &mut Order,
    at: usize,
    wanted: &Wanted<'_>,
    challenges: &Arc<Challenges>,
) -> Result<Offer, Failure> {
    // instant-acme keeps what it has fetched: skipping the names before costs no calls.
    let mut authorizations = order.authorizations();
    for _ in 0..at {
        authorizations.next().await.transpose()?;
    }
    let Some(next) = authorizations.next().await else { return Ok(Offer::Valid) };
    let mut authorization = next?;
    let name = authorization.identifier().to_string();
    match authorization.status {
        AuthorizationStatus::Valid => return Ok(Offer::Valid),
        AuthorizationStatus::Pending => {}
        _ => {
            let problem = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
            return Ok(Offer::Failed(Unproved::of_problem(name, problem)));
        }
    }
    let offered = |way: &&Challenge| authorization.challenges.iter().any(|c| c.r#type == kind(**way));
    let Some(way) = wanted.ways.iter().find(offered).copied() else {
        return Err(Failure::NoChallenge(name));
    };
    let Some(mut challenge) = authorization.challenge(kind(way)) else {
        return Err(Failure::NoChallenge(name));
    };
    let answer = challenge.key_authorization();
    let guard = match way {
        Challenge::Http01 => challenges
            .offer_http01(&challenge.token, answer.as_str())
            .ok_or_else(|| Failure::Unreached("a token that is no token".to_owned()))?,
        Challenge::TlsAlpn01 => {
            let ours = wanted.names.iter().find(|ours| ours.to_string() == name);
            let ours = ours.ok_or_else(|| Failure::Unusable(format!("{name} was not ordered")))?;
            challenges.offer_alpn(ours, answer.digest().as_ref()).map_err(unusable)?
        }
    };
    match steady!(challenge.set_ready()) {
        Ok(()) => Ok(Offer::Pending(name, guard)),
        // A problem within the challenge itself has no status of its own.
        Err(Failure::Refused { kind, detail, status: 0, .. }) => {
            Ok(Offer::Failed(Unproved { name, kind, detail }))
        }
        Err(failure) => Err(failure),
    }
}

/// Waits for what the CA finds about one name.
async fn verdict(order: &mut Order, at: usize, name: String) -> Result<Option<Unproved>, Failure> {
    let begun = Instant::now();
    let mut wait = FIRST_LOOK;
    loop {
        sleep(wait).await;
        wait = wait.saturating_mul(2).min(LONGEST_LOOK);
        let mut authorizations = order.authorizations();
        for _ in 0..at {
            authorizations.next().await.transpose()?;
        }
        let Some(next) = authorizations.next().await else { return Ok(None) };
        let mut authorization = next?;
        steady!(authorization.refresh())?;
        match authorization.status {
            AuthorizationStatus::Valid => return Ok(None),
            AuthorizationStatus::Pending if begun.elapsed() < PATIENCE => {}
            AuthorizationStatus::Pending => {
                let detail = format!("no verdict within {} s", PATIENCE.as_secs());
                return Ok(Some(Unproved { name, kind: String::new(), detail }));
            }
            _ => {
                let problem = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
                return Ok(Some(Unproved::of_problem(name, problem)));
            }
        }
    }
}

fn kind(way: Challenge) -> ChallengeType {
    match way {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

fn identifier(name: &Identifier) -> instant_acme::Identifier {
    match name {
        Identifier::Dns(name) => instant_acme::Identifier::Dns(name.clone()),
        Identifier::Ip(ip) => instant_acme::Identifier::Ip(*ip),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unusable(error: rcgen::Error) -> Failure {
    Failure::Unusable(error.to_string())
}
