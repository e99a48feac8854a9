//! Who is calling: an API key in, a [`Caller`] out. Keys are compared as SHA-256 hashes, every entry in constant time.

pub mod attempts;
pub mod keys;

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};
use zeroize::Zeroizing;

pub use attempts::Attempts;
pub use keys::{KeyFileFault, Keys, Sources};

/// Who is calling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The key's name in the key file, `api-key` for the one from the command line, `anonymous` without keys.
    pub name: Arc<str>,
}

/// Why a request has no caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// No header carries a key.
    #[error("no API key")]
    Missing,
    /// The key is not known, disabled or expired.
    #[error("wrong API key")]
    Wrong,
    /// One header came twice: which of them counts would be a guess.
    #[error("several API keys")]
    Several,
}

const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// The headers that a key may come in. They are ours, and no service's.
pub const fn key_headers() -> [HeaderName; 3] {
    [AUTHORIZATION, X_API_KEY, API_KEY]
}

/// The key that a request presents: `Authorization: Bearer KEY` or `Basic` with the key as password (RFC 9110 section
/// 11.6.2, RFC 7617), else `X-API-Key`, else Azure's `api-key`. The first of these that holds a key counts, whatever
/// the others say. Never longer than the header it came in; held in memory that is zeroed.
fn presented(headers: &HeaderMap) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
    let mut found = None;
    for (name, key_of) in [
        (AUTHORIZATION, of_authorization as fn(&[u8]) -> Option<Cow<'_, [u8]>>),
        (X_API_KEY, |value| Some(Cow::Borrowed(value))),
        (API_KEY, |value| Some(Cow::Borrowed(value))),
    ] {
        let mut values = headers.get_all(name).iter();
        let value = values.next();
        if values.next().is_some() {
            return Err(KeyFault::Several);
        }
        let key = value.and_then(|value| key_of(value.as_bytes().trim_ascii())).filter(|key| !key.is_empty());
        found = found.or_else(|| key.map(|key| Zeroizing::new(key.into_owned())));
    }
    found.ok_or(KeyFault::Missing)
}

/// The key in an `Authorization` value; `None` for schemes that carry none. Schemes have no case, and any number of
/// spaces follows (RFC 9110 section 11.4).
fn of_authorization(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let space = value.iter().position(|byte| *byte == b' ')?;
    let (scheme, rest) = value.split_at_checked(space)?;
    let credentials = rest.trim_ascii_start();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(Cow::Borrowed(credentials));
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(credentials).ok()?);
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(Cow::Owned(pair.iter().skip(colon + 1).copied().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(headers: &[(HeaderName, &str)]) -> Result<String, KeyFault> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().unwrap());
        }
        presented(&map).map(|key| String::from_utf8(key.to_vec()).unwrap())
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn every_form_carries_the_key() {
        for value in ["Bearer k", "bearer k", "BEARER   k", &basic(":k"), &basic("user:k"), "bAsIc  dTpr"] {
            assert_eq!(key(&[(AUTHORIZATION, value)]).as_deref(), Ok("k"), "{value}");
        }
        assert_eq!(key(&[(X_API_KEY, "k")]).as_deref(), Ok("k"));
        assert_eq!(key(&[(API_KEY, "k")]).as_deref(), Ok("k"));
    }

    #[test]
    fn a_password_may_hold_colons() {
        assert_eq!(key(&[(AUTHORIZATION, &basic("u:a:b"))]).as_deref(), Ok("a:b"));
    }

    #[test]
    fn what_holds_no_key_is_missing() {
        for value in ["", "k", "Bearer", "Bearer  ", "Digest k", "Basic !", &basic("nocolon"), &basic("u:")] {
            assert_eq!(key(&[(AUTHORIZATION, value)]), Err(KeyFault::Missing), "{value:?}");
        }
        assert_eq!(key(&[]), Err(KeyFault::Missing));
        assert_eq!(key(&[(X_API_KEY, ""), (API_KEY, " ")]), Err(KeyFault::Missing));
    }

    #[test]
    fn authorization_wins_over_the_other_headers_in_any_order() {
        let (a, x, z) = ((AUTHORIZATION, "Bearer a"), (X_API_KEY, "x"), (API_KEY, "z"));
        assert_eq!(key(&[a.clone(), x.clone(), z.clone()]).as_deref(), Ok("a"));
        assert_eq!(key(&[z.clone(), x.clone(), a]).as_deref(), Ok("a"));
        assert_eq!(key(&[z.clone(), x]).as_deref(), Ok("x"));
        assert_eq!(key(&[(AUTHORIZATION, "Negotiate t"), z]).as_deref(), Ok("z"));
    }

    #[test]
    fn one_header_twice_is_several_even_when_both_agree() {
        for name in [AUTHORIZATION, X_API_KEY, API_KEY] {
            let twice = [(name.clone(), "Bearer k"), (name, "Bearer k")];
            assert_eq!(key(&twice), Err(KeyFault::Several));
        }
        let behind = [(AUTHORIZATION, "Bearer k"), (API_KEY, "k"), (API_KEY, "l")];
        assert_eq!(key(&behind), Err(KeyFault::Several));
    }
}
