//! Why an attempt failed, and what that means for the next one.

use instant_acme::{Error, Identifier, Problem};

/// The longest text of a CA that we keep.
const MAX_DETAIL: usize = 300;
/// Let's Encrypt counts by the hour where it names no time.
const RATE_LIMITED: u64 = 3_600;

/// What went wrong on the way to a certificate. The texts hold no secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The CA was not reached, did not answer in time, or answered what is no ACME.
    #[error("the certificate authority was not reached: {0}")]
    Unreached(String),
    /// The CA has refused a request (RFC 8555 section 6.7).
    #[error("refused by the certificate authority: {kind} (status {status}): {detail}")]
    Refused {
        /// The last part of the problem type, such as `rateLimited`; empty when there was none.
        kind: String,
        /// What the CA says about it.
        detail: String,
        /// The HTTP status; 0 when the problem was part of an order.
        status: u16,
        /// Seconds, as the CA has asked.
        retry_after: Option<u64>,
        /// The names that it is about, if it says so.
        names: Vec<String>,
    },
    /// Names that could not be proved to be ours.
    #[error("not proved: {}", .0.iter().map(Unproved::to_string).collect::<Vec<_>>().join("; "))]
    Unproved(Vec<Unproved>),
    /// The CA offers no way to prove a name that the settings allow.
    #[error("the certificate authority offers none of the configured challenges for {0}")]
    NoChallenge(String),
    /// The certificate that came is not the one that was ordered.
    #[error("the certificate that came cannot be used: {0}")]
    Unusable(String),
    /// The CA does not take the order as the replacement of the certificate that is held.
    #[error("not taken as a replacement: {0}")]
    Replaces(String),
    /// The order was rehearsed, and would have failed.
    #[error("rehearsed at the staging directory: {0}")]
    Rehearsal(Box<Self>),
    /// Nothing was ordered: what comes could not be kept.
    #[error("nothing was ordered, the state folder cannot be used: {0}")]
    Storage(String),
}

/// One name, and why it was not proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unproved {
    /// The name.
    pub name: String,
    /// The last part of the problem type.
    pub kind: String,
    /// What the CA says about it.
    pub detail: String,
}

impl std::fmt::Display for Unproved {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}: {}", self.name, self.kind, self.detail)
    }
}

/// What is to be done about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Try again up the ladder, after this many seconds at the earliest.
    Later {
        /// Seconds, when the CA has named them.
        retry_after: Option<u64>,
    },
    /// The same order will be refused again: the settings, or what they are about, have to change.
    Final,
    /// Mend it and go on at once, one time.
    FixNow(Fix),
}

/// What mends an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fix {
    /// The CA does not know the account: make a new one.
    NewAccount,
    /// Order without naming the certificate that is replaced.
    WithoutReplaces,
}

impl Failure {
    /// What is to be done.
    pub fn class(&self) -> Class {
        match self {
            Self::Refused { kind, retry_after, .. } => match kind.as_str() {
                "accountDoesNotExist" => Class::FixNow(Fix::NewAccount),
                "rateLimited" => Class::Later { retry_after: Some(retry_after.unwrap_or(RATE_LIMITED)) },
                kind if is_final(kind) => Class::Final,
                _ => Class::Later { retry_after: *retry_after },
            },
            Self::Unproved(names) if !names.is_empty() && names.iter().all(|name| is_final(&name.kind)) => {
                Class::Final
            }
            Self::NoChallenge(_) => Class::Final,
            Self::Replaces(_) => Class::FixNow(Fix::WithoutReplaces),
            Self::Rehearsal(failure) => match failure.class() {
                Class::FixNow(_) => Class::Later { retry_after: None },
                class => class,
            },
            Self::Unreached(_) | Self::Unproved(_) | Self::Unusable(_) | Self::Storage(_) => {
                Class::Later { retry_after: None }
            }
        }
    }

    /// Whether the CA has judged the order itself: then the next one is rehearsed first. What the network, the CA's
    /// health or its limits did tells nothing about it.
    pub fn is_about_the_order(&self) -> bool {
        match self {
            Self::Refused { kind, status, .. } => {
                *status < 500 && *status != 429 && kind != "rateLimited" && kind != "serverInternal"
            }
            Self::Unproved(_) | Self::NoChallenge(_) | Self::Rehearsal(_) => true,
            Self::Unreached(_) | Self::Unusable(_) | Self::Replaces(_) | Self::Storage(_) => false,
        }
    }

    /// Whether the order may have been refused for the certificate that it was to replace (RFC 9773 section 5).
    pub fn may_be_about_replaces(&self) -> bool {
        match self {
            Self::Refused { kind, status, .. } => {
                matches!(kind.as_str(), "alreadyReplaced" | "malformed" | "unauthorized" | "conflict")
                    || matches!(status, 404 | 409)
            }
            _ => false,
        }
    }

    /// Whether it is a nonce that the CA did not take, again and again (RFC 8555 section 6.5).
    pub fn is_bad_nonce(&self) -> bool {
        matches!(self, Self::Refused { kind, .. } if kind == "badNonce")
    }

    /// The names that it failed for, where others of the same order might do.
    pub fn blamed(&self) -> Vec<String> {
        match self {
            Self::Unproved(names) => names.iter().map(|name| name.name.clone()).collect(),
            Self::NoChallenge(name) => vec![name.clone()],
            Self::Refused { names, .. } => names.clone(),
            Self::Rehearsal(failure) => failure.blamed(),
            Self::Unreached(_) | Self::Unusable(_) | Self::Replaces(_) | Self::Storage(_) => Vec::new(),
        }
    }

    /// What the CA has said in a problem document.
    pub(super) fn of_problem(problem: &Problem, status: u16, retry_after: Option<u64>) -> Self {
        let name = |identifier: &Identifier| identifier.authorized(false).to_string();
        let subproblems = problem.subproblems.iter();
        Self::Refused {
            kind: kind_of(problem),
            detail: detail_of(problem),
            status,
            retry_after,
            names: subproblems.filter_map(|sub| sub.identifier.as_ref().map(name)).collect(),
        }
    }
}

impl Unproved {
    /// One name, and the problem the CA had with it.
    pub(super) fn of_problem(name: String, problem: Option<&Problem>) -> Self {
        match problem {
            Some(problem) => Self { name, kind: kind_of(problem), detail: detail_of(problem) },
            None => Self { name, kind: String::new(), detail: "no reason given".to_owned() },
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Api(problem) => Self::of_problem(&problem, problem.status.unwrap_or(0), None),
            Error::Other(error) => match error.downcast::<Self>() {
                Ok(failure) => *failure,
                Err(error) => Self::Unreached(short(&error.to_string())),
            },
            error => Self::Unreached(short(&error.to_string())),
        }
    }
}

/// Asking again is of no use (RFC 8555 section 6.7).
fn is_final(kind: &str) -> bool {
    matches!(
        kind,
        "badCSR"
            | "badPublicKey"
            | "badSignatureAlgorithm"
            | "caa"
            | "externalAccountRequired"
            | "invalidContact"
            | "invalidProfile"
            | "malformed"
            | "rejectedIdentifier"
            | "unsupportedContact"
            | "unsupportedIdentifier"
            | "userActionRequired"
    )
}

fn kind_of(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    short(kind.rsplit(':').next().unwrap_or_default())
}

fn detail_of(problem: &Problem) -> String {
    let sub = problem.subproblems.iter().filter_map(|sub| sub.detail.as_deref());
    let all: Vec<&str> = problem.detail.as_deref().into_iter().chain(sub).collect();
    short(&all.join("; "))
}

/// One line that fits a log.
pub(super) fn short(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_DETAIL).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: &str, status: u16) -> Failure {
        let text = format!(r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"x"}}"#);
        Failure::of_problem(&serde_json::from_str(&text).unwrap(), status, None)
    }

    #[test]
    fn what_the_settings_cause_is_final() {
        for kind in [
            "badCSR",
            "caa",
            "rejectedIdentifier",
            "unsupportedIdentifier",
            "invalidProfile",
            "malformed",
            "externalAccountRequired",
            "userActionRequired",
            "unsupportedContact",
        ] {
            assert_eq!(refused(kind, 400).class(), Class::Final, "{kind}");
        }
        assert_eq!(Failure::NoChallenge("a.example".into()).class(), Class::Final);
    }

    #[test]
    fn what_may_pass_is_tried_later() {
        for kind in [
            "serverInternal",
            "connection",
            "dns",
            "tls",
            "incorrectResponse",
            "unauthorized",
            "orderNotReady",
            "",
        ] {
            assert_eq!(refused(kind, 403).class(), Class::Later { retry_after: None }, "{kind}");
        }
        assert_eq!(Failure::Unreached(String::new()).class(), Class::Later { retry_after: None });
        assert_eq!(Failure::Unusable(String::new()).class(), Class::Later { retry_after: None });
    }

    #[test]
    fn a_rate_limit_waits_as_long_as_it_says_and_an_hour_otherwise() {
        assert_eq!(refused("rateLimited", 429).class(), Class::Later { retry_after: Some(3600) });
        let problem = serde_json::from_str(r#"{"type":"urn:ietf:params:acme:error:rateLimited"}"#).unwrap();
        let failure = Failure::of_problem(&problem, 429, Some(7 * 86_400));
        assert_eq!(failure.class(), Class::Later { retry_after: Some(7 * 86_400) });
    }

    #[test]
    fn an_unknown_account_is_made_anew_at_once() {
        assert_eq!(refused("accountDoesNotExist", 400).class(), Class::FixNow(Fix::NewAccount));
    }

    #[test]
    fn only_what_replaces_could_explain_is_tried_without_it() {
        assert!(refused("alreadyReplaced", 409).may_be_about_replaces());
        assert!(refused("malformed", 400).may_be_about_replaces());
        assert!(refused("", 404).may_be_about_replaces());
        assert!(!refused("rateLimited", 429).may_be_about_replaces());
        assert!(!refused("serverInternal", 500).may_be_about_replaces());
        assert!(!refused("rejectedIdentifier", 400).may_be_about_replaces());
    }

    #[test]
    fn a_rehearsal_follows_what_the_ca_said_of_the_order_and_nothing_else() {
        assert!(refused("unauthorized", 403).is_about_the_order());
        for failure in
            [refused("rateLimited", 429), refused("serverInternal", 500), Failure::Unreached(String::new())]
        {
            assert!(!failure.is_about_the_order(), "{failure}");
        }
    }

    #[test]
    fn one_name_is_blamed_where_the_ca_says_which() {
        let text = r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","subproblems":[
            {"type":"urn:ietf:params:acme:error:rejectedIdentifier","detail":"no","identifier":{"type":"dns","value":"b.example"}}]}"#;
        let failure = Failure::of_problem(&serde_json::from_str(text).unwrap(), 403, None);
        assert_eq!(failure.blamed(), ["b.example"]);
    }

    #[test]
    fn what_a_ca_says_fits_one_line() {
        let text = format!(r#"{{"detail":"a\nb{}"}}"#, "x".repeat(1000));
        let failure = Failure::of_problem(&serde_json::from_str(&text).unwrap(), 400, None);
        let said = failure.to_string();
        assert!(said.len() < 450 && !said.contains('\n'), "{said}");
    }
}
