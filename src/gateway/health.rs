//! What an upload's outcome says of its upstream's health, and what clients are told while it is bad.

use std::time::Instant;

use super::record::Said;
use super::transcribe::Ended;
use crate::answer::Fault;
use crate::upstream::breaker::{Pass, Refused, Trouble};

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        let retry_after = Some(refused.retry_after);
        match refused.trouble {
            Trouble::Challenge => Self::UpstreamChallenge { retry_after },
            Trouble::Login => Self::UpstreamAuth { retry_after },
            Trouble::RateLimit => Self::UpstreamRateLimited { retry_after },
        }
    }
}

/// Tells the breakers how a request went. Says nothing where the request says nothing: the client broke off or sent
/// something wrong, or the upstream failed on its own.
pub(super) fn settle<T>(pass: Pass<'_>, outcome: &mut Result<T, Ended>, said: &Said, now: Instant) {
    let fault = match outcome {
        Ok(_) => return pass.succeeded(),
        Err(Ended::Gone) => return,
        Err(Ended::Fault(fault)) => fault,
    };
    match fault {
        Fault::UpstreamChallenge { .. } => {
            pass.failed(Trouble::Challenge, None, said.login, now);
        }
        // A 403 can be about this request alone.
        Fault::UpstreamAuth { .. } if said.status == Some(401) => {
            pass.failed(Trouble::Login, None, said.login, now);
        }
        Fault::UpstreamRateLimited { retry_after } => {
            let wait = pass.failed(Trouble::RateLimit, *retry_after, said.login, now);
            // Sooner the client would only meet the closed door.
            retry_after.get_or_insert(wait);
        }
        Fault::UpstreamAsr | Fault::UpstreamTooLarge | Fault::UpstreamRefused(_) => pass.succeeded(),
        _ => {}
    }
}
