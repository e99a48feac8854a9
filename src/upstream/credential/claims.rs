//! What a token says about itself (RFC 7519). The signature is not checked: it is the upstream's to judge, and Codex
//! does not check it either.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use zeroize::Zeroizing;

/// The claims we use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claims {
    /// `https://api.openai.com/auth`.`chatgpt_account_id`.
    pub(super) account: Option<String>,
    /// `exp`.
    pub(super) expires: Option<SystemTime>,
}

impl Claims {
    /// Reads the claims; `None` when the token is no JWT, which is no fault: it may still be good.
    pub(super) fn of(token: &str) -> Option<Self> {
        let payload = Zeroizing::new(BASE64URL.decode(token.split('.').nth(1)?).ok()?);
        // Serde would take an array for a struct.
        let payload: Payload = payload.starts_with(b"{").then(|| serde_json::from_slice(&payload).ok())??;
        let account = payload.auth.get("chatgpt_account_id").and_then(serde_json::Value::as_str);
        Some(Self {
            account: account.map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned),
            expires: payload.exp.as_ref().and_then(time),
        })
    }
}

/// Base64url; padding, which RFC 7515 leaves out, is tolerated.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[derive(Deserialize)]
struct Payload {
    #[serde(default)]
    exp: Option<serde_json::Value>,
    #[serde(default, rename = "https://api.openai.com/auth")]
    auth: serde_json::Value,
}

/// A NumericDate: seconds since 1970, with or without a fraction (RFC 7519 section 2).
fn time(value: &serde_json::Value) -> Option<SystemTime> {
    let since = Duration::try_from_secs_f64(value.as_f64()?.trunc()).ok()?;
    UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{URL_SAFE as PADDED, URL_SAFE_NO_PAD};

    use super::*;

    fn jwt(payload: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn reads_expiry_and_account() {
        let token = jwt(r#"{"exp":1800000000,"https://api.openai.com/auth":{"chatgpt_account_id":"acc"}}"#);
        let expires = UNIX_EPOCH.checked_add(Duration::from_secs(1_800_000_000));
        assert_eq!(Claims::of(&token), Some(Claims { account: Some("acc".into()), expires }));
    }

    #[test]
    fn an_account_has_nothing_to_trim_and_a_blank_one_is_none() {
        let account = |id: &str| {
            let auth = format!(r#"{{"https://api.openai.com/auth":{{"chatgpt_account_id":"{id}"}}}}"#);
            Claims::of(&jwt(&auth)).unwrap().account
        };
        assert_eq!(account("  "), None);
        assert_eq!(account(" acc "), Some("acc".into()));
    }

    #[test]
    fn padding_and_fractions_are_tolerated() {
        let token = format!("e30.{}.c2ln", PADDED.encode(r#"{"exp":1.5}"#));
        assert_eq!(Claims::of(&token).unwrap().expires, UNIX_EPOCH.checked_add(Duration::from_secs(1)));
    }

    #[test]
    fn what_cannot_be_read_is_no_claim() {
        for token in ["", "opaque", "a.b", "a.!!.c", "e30.bm90IGpzb24.c", &jwt("[1]"), &jwt("7")] {
            assert!(Claims::of(token).unwrap_or_default() == Claims::default(), "{token}");
        }
        for payload in [
            "{}",
            r#"{"exp":"soon","https://api.openai.com/auth":7}"#,
            r#"{"exp":-1,"https://api.openai.com/auth":{"chatgpt_account_id":""}}"#,
            r#"{"exp":1e300,"https://api.openai.com/auth":{"chatgpt_account_id":null}}"#,
        ] {
            assert_eq!(Claims::of(&jwt(payload)), Some(Claims::default()), "{payload}");
        }
    }
}
