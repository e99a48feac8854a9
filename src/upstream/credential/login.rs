//! One login, and why there is none.

use std::io;
use std::time::SystemTime;

use http::HeaderValue;
use zeroize::Zeroizing;

use super::claims::Claims;
use crate::base::secret::Secret;

/// A login: header values ready to send. Both are marked sensitive, so that `Debug` hides them.
#[derive(Debug, Clone)]
pub struct Login {
    /// `Authorization`; `None` where no login is asked for.
    pub authorization: Option<HeaderValue>,
    /// `ChatGPT-Account-Id`, where an account is known.
    pub account: Option<HeaderValue>,
    /// When the token ends (JWT `exp`); `None` when it does not say.
    pub expires: Option<SystemTime>,
    /// 1 for the first login; counts up when another one takes its place.
    pub generation: u64,
}

/// Why there is no login to send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginFault {
    /// There is no file.
    #[error(
        "there is no login file: run `codex login`; Codex may keep the login in the keyring of the operating system \
         instead, then set `cli_auth_credentials_store = \"file\"` in its config.toml first"
    )]
    Missing,
    /// The file cannot be read, or is longer than 1 MiB.
    #[error("the login file cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    /// The file is no JSON object of the known shape: half-written, or something else.
    #[error("the login file is not valid JSON, or not a Codex login")]
    Broken,
    /// The login is an API key, which the endpoint does not take.
    #[error(
        "the login is an API key, which the Codex endpoint refuses: run `codex login` and sign in with ChatGPT"
    )]
    ApiKey,
    /// The login is of a kind that gives no token to send.
    #[error(
        "the login file has auth_mode `{0}`, which gives no token to send: run `codex login` and sign in with ChatGPT"
    )]
    Mode(String),
    /// The file holds no token.
    #[error("the login file holds no access token: run `codex login`")]
    NoToken,
    /// The token or the account id cannot be sent as a header.
    #[error("the {0} holds characters that no HTTP header can carry")]
    Malformed(&'static str),
    /// The token has expired.
    #[error(
        "the login has expired: use Codex once on the machine that keeps the login, or run `codex login`"
    )]
    Expired,
}

impl Login {
    /// The login at a service that asks for none.
    pub(super) const fn none() -> Self {
        Self { authorization: None, account: None, expires: None, generation: 1 }
    }

    /// Makes a login of a token, with or without `Bearer ` before it. Without `account` the token's own claim counts.
    pub(super) fn new(token: &Secret<String>, account: Option<&str>) -> Result<Self, LoginFault> {
        let token = bare(token.expose());
        if token.is_empty() {
            return Err(LoginFault::NoToken);
        }
        if token.starts_with("sk-") {
            return Err(LoginFault::ApiKey);
        }
        let claims = Claims::of(token).unwrap_or_default();
        let authorization = Some(header(&Zeroizing::new(format!("Bearer {token}")), "token")?);
        let account = account.map(str::trim).filter(|id| !id.is_empty()).or(claims.account.as_deref());
        let account = account.map(|id| header(id, "account id")).transpose()?;
        Ok(Self { authorization, account, expires: claims.expires, generation: 1 })
    }

    /// Whether the upstream would see the same login.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.authorization == other.authorization && self.account == other.account
    }
}

impl LoginFault {
    /// Whether a second look, some milliseconds later, may find the file whole.
    pub(super) const fn may_be_half_written(&self) -> bool {
        matches!(self, Self::Broken | Self::Missing)
    }
}

impl From<io::Error> for LoginFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            kind => Self::Unreadable(kind),
        }
    }
}

/// The token without the scheme that people copy along with it.
fn bare(text: &str) -> &str {
    let text = text.trim();
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
        _ => text,
    }
}

fn header(text: &str, what: &'static str) -> Result<HeaderValue, LoginFault> {
    if !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(LoginFault::Malformed(what));
    }
    let mut value = HeaderValue::from_str(text).map_err(|_| LoginFault::Malformed(what))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(token: &str, account: Option<&str>) -> Result<Login, LoginFault> {
        Login::new(&Secret::new(token.to_owned()), account)
    }

    #[test]
    fn a_bearer_prefix_and_white_space_around_the_token_do_not_matter() {
        for token in ["abc", " abc\n", "Bearer abc", "bearer  abc "] {
            assert_eq!(login(token, None).unwrap().authorization.unwrap(), "Bearer abc", "{token:?}");
        }
    }

    #[test]
    fn an_api_key_is_refused() {
        assert_eq!(login("sk-proj-1", None).unwrap_err(), LoginFault::ApiKey);
        assert_eq!(login("Bearer sk-1", None).unwrap_err(), LoginFault::ApiKey);
    }

    #[test]
    fn what_no_header_can_carry_is_refused() {
        assert_eq!(login("a\nb", None).unwrap_err(), LoginFault::Malformed("token"));
        assert_eq!(login("abc", Some("ä")).unwrap_err(), LoginFault::Malformed("account id"));
        assert_eq!(login(" ", None).unwrap_err(), LoginFault::NoToken);
    }

    #[test]
    fn debug_shows_neither_token_nor_account() {
        let text = format!("{:?}", login("planted-token", Some("planted-account")).unwrap());
        assert!(!text.contains("planted"), "{text}");
    }
}
