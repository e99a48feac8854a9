//! `asr-edge check --online`: what a public server will need from its surroundings, looked at before anything is spent.
//!
//! Nothing is ordered, no account is made and no transcription is asked for. Ports are bound for a moment, a probe file
//! comes and goes.

mod authority;
mod client;
mod ground;
mod names;
mod owner;
mod ports;
mod upstream;

use std::fmt;
use std::time::Duration;

use crate::config::Config;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it turned out.
    pub verdict: Verdict,
    /// What was looked at, such as `port 0.0.0.0:80`.
    pub subject: String,
    /// What was seen, and what to do about it. No secrets.
    pub detail: String,
}

/// How a look turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// May be right: it cannot be told from here.
    Warn,
    /// The server would not work.
    Fail,
}

impl Finding {
    fn pass(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Pass, subject: subject.into(), detail: detail.into() }
    }

    fn warn(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warn, subject: subject.into(), detail: detail.into() }
    }

    fn fail(subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fail, subject: subject.into(), detail: detail.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Pass => "pass",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        };
        write!(f, "{verdict}  {}: {}", self.subject, self.detail)
    }
}

/// Looks at everything the config needs from outside: names, ports, the CA and its clock, storage, the upstream, login
/// and keys. One that hangs is given up after `patience`, so the whole takes a few times that at most. Needs a tokio
/// runtime.
pub async fn run(config: &Config, patience: Duration) -> Vec<Finding> {
    let (mut findings, bound) = ports::look(&config.server);
    let names = async {
        match &config.acme {
            Some(acme) => names::look(acme, &bound, patience).await,
            None => Vec::new(),
        }
    };
    let authority = async {
        match &config.acme {
            Some(acme) => authority::look(acme, patience).await,
            None => Vec::new(),
        }
    };
    let (names, authority, upstream) =
        tokio::join!(names, authority, upstream::look(&config.codex, patience));
    findings.extend(names);
    findings.extend(authority);
    findings.extend(config.acme.iter().map(ground::storage));
    findings.push(upstream);
    findings.push(ground::login(config));
    findings.push(ground::keys(&config.keys));
    findings
}
