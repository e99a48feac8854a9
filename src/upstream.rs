//! The Codex `/transcribe` endpoint as this process knows it: address, login, queue, what it has been seen to take.

pub mod address;
pub mod breaker;
pub mod cookies;
pub mod credential;
pub mod queue;
pub mod spool;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, request};

use self::address::Address;
use self::breaker::Breakers;
use self::cookies::Cookies;
use self::credential::{Credential, Login};
use self::queue::Queue;
use self::spool::SpoolSpace;
use crate::base::clock;
use crate::config::Endpoint;

const ACCOUNT: HeaderName = HeaderName::from_static("chatgpt-account-id");
const ORIGINATOR: HeaderName = HeaderName::from_static("originator");

/// Everything about the upstream that outlives a request.
pub struct Upstream {
    /// URL, in parts.
    pub endpoint: Endpoint,
    /// The addresses behind the endpoint's host.
    pub address: Address,
    /// The login that requests go out with.
    pub credential: Arc<Credential>,
    /// Whether it is worth asking.
    pub breakers: Arc<Breakers>,
    /// Places in flight.
    pub queue: Queue,
    /// Room for bodies whose length must be known first.
    pub spool: Arc<SpoolSpace>,
    /// What it does with bodies that declare no length.
    pub lengthless: Arc<Lengthless>,
    /// What Cloudflare wants to be sent again.
    pub cookies: Arc<Cookies>,
    /// `User-Agent`, the owner's choice.
    pub user_agent: HeaderValue,
    /// `originator`, the owner's choice.
    pub originator: HeaderValue,
}

impl Upstream {
    /// The head of one request: these headers and no others, none of the client's (the upstream's edge refuses
    /// requests with extra headers: `contract: codex-upstream.md` section 1).
    ///
    /// # Errors
    /// A part that HTTP cannot carry; the config has been checked for that.
    pub fn head(
        &self,
        login: &Login,
        content_type: &str,
        length: Option<u64>,
    ) -> Result<request::Parts, http::Error> {
        let mut head = Request::builder()
            .method(Method::POST)
            .uri(self.endpoint.path.as_str())
            .header(HOST, self.endpoint.authority())
            .header(ORIGINATOR, self.originator.clone())
            .header(USER_AGENT, self.user_agent.clone())
            .header(CONTENT_TYPE, content_type)
            .header(ACCEPT_ENCODING, "identity");
        if let Some(authorization) = &login.authorization {
            head = head.header(AUTHORIZATION, authorization.clone());
        }
        if let Some(account) = &login.account {
            head = head.header(ACCOUNT, account.clone());
        }
        if let Some(cookies) = self.cookies.to_send(login.account.as_ref(), &self.endpoint, clock::now()) {
            head = head.header(COOKIE, cookies);
        }
        if let Some(length) = length {
            head = head.header(CONTENT_LENGTH, length);
        }
        Ok(head.body(())?.into_parts().0)
    }

    /// Takes what an answer says for requests to come, whatever its status.
    pub fn answered(&self, login: &Login, headers: &HeaderMap) {
        self.cookies.keep(login.account.as_ref(), &self.endpoint, headers, clock::now());
    }
}

/// Whether the upstream takes bodies without `Content-Length`. No client of it is known to send them, so it is
/// believed only after a 200, and a refusal before that counts as a no.
#[derive(Debug, Default)]
pub struct Lengthless(AtomicU8);

impl Lengthless {
    const ACCEPTED: u8 = 1;
    const REFUSED: u8 = 2;
    const HTTP_1: u8 = 3;

    /// Whether to try to stream one.
    pub fn worth_trying(&self) -> bool {
        self.0.load(Ordering::Relaxed) < Self::REFUSED
    }

    /// One got its 200.
    pub fn accepted(&self) {
        self.0.store(Self::ACCEPTED, Ordering::Relaxed);
    }

    /// One was refused. True if that settles it: none was ever accepted.
    pub fn refused(&self) -> bool {
        self.0.compare_exchange(0, Self::REFUSED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            || !self.worth_trying()
    }

    /// The upstream speaks HTTP/1.1, where a body without length is chunked.
    pub fn speaks_http_1(&self) {
        let _ = self.0.compare_exchange(0, Self::HTTP_1, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_refusal_before_any_success_settles_it() {
        let lengthless = Lengthless::default();
        assert!(lengthless.worth_trying());
        assert!(lengthless.refused());
        assert!(!lengthless.worth_trying());
    }

    #[test]
    fn a_success_is_never_forgotten() {
        let lengthless = Lengthless::default();
        lengthless.accepted();
        assert!(!lengthless.refused(), "the refusal had another cause");
        assert!(lengthless.worth_trying());
    }
}
