//! Codex's `auth.json`, whatever it holds.
//!
//! Any bytes are a login or a named fault. What a login sends is a header value of printable ASCII with nothing to
//! trim, marked sensitive, and the token is one of those that the file holds. Neither a fault nor a `Debug` shows
//! twelve bytes of a token, wherever in the file it stands. A file cut short is broken. A file as Codex and others
//! write it, of every `auth_mode`, gives back its token, account and expiry, or says why not.
//!
//! Input: a byte of flags (see `written`) and the file. With the highest flag: a token, a claimed account, an expiry
//! and an account, a line each, of which a file is made.

#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use asr_edge_fuzz::base::secret::Secret;
use asr_edge_fuzz::choices::{line, plant};
use asr_edge_fuzz::credential::{Login, LoginFault, of_file, of_token};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use libfuzzer_sys::{Corpus, fuzz_target};
use serde_json::{Value, json};

/// Without a plain word of twelve bytes: such a mode is named in the fault.
const TOKEN: &str = "eyJhPLNTD.eyJzdWIi.c2lnbmF0";

fuzz_target!(|input: &[u8]| -> Corpus {
    let Some((flags, rest)) = input.split_first() else { return Corpus::Reject };
    if flags & 0x80 != 0 {
        return written(*flags, rest);
    }
    let text = plant(rest, TOKEN.as_bytes());
    let configured = (flags & 1 == 1).then_some("acc-configured");
    let found = of_file(&text, configured);
    let value: Option<Value> =
        serde_json::from_slice(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text)).ok();
    match &found {
        Ok(login) => {
            check(login);
            let sent = login.authorization.as_ref().expect("a token").to_str().expect("ASCII");
            // Fields that are none of ours may hold what is no text.
            if let Some(value) = value {
                let mut tokens = Vec::new();
                strings(&value, &mut tokens);
                let token = sent.strip_prefix("Bearer ").expect("a token");
                assert!(
                    tokens.iter().any(|text| text.trim().ends_with(token)),
                    "another token than the file's"
                );
            }
            assert!(configured.is_none_or(|account| login.account.as_ref().expect("an account") == account));
        }
        Err(LoginFault::Missing | LoginFault::Unreadable(_) | LoginFault::Expired) => panic!("of a text?"),
        Err(LoginFault::Broken) => {}
        Err(_) => assert!(value.is_none_or(|value| value.is_object()), "no login, and not broken"),
    }
    let shown = match &found {
        Ok(login) => format!("{login:?}"),
        Err(fault) => format!("{fault} {fault:?}"),
    };
    let leaks =
        TOKEN.as_bytes().windows(12).any(|part| shown.as_bytes().windows(12).any(|seen| seen == part));
    assert!(!leaks, "{shown}");
    Corpus::Keep
});

fn check(login: &Login) {
    let sent = |value: &HeaderValue| {
        let bytes = value.as_bytes();
        assert!(value.is_sensitive() && bytes.trim_ascii() == bytes && !bytes.is_empty(), "{bytes:?}");
        assert!(bytes.iter().all(|byte| matches!(byte, b' '..=b'~')), "{bytes:?}");
    };
    let authorization = login.authorization.as_ref().expect("a token");
    sent(authorization);
    assert!(authorization.as_bytes().starts_with(b"Bearer ") && authorization.len() > "Bearer ".len());
    login.account.iter().for_each(sent);
    assert_eq!(login.generation, 1);
}

/// All strings in a value.
fn strings<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => found.push(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| strings(field, found)),
        _ => {}
    }
}

/// Low bits: the mode (3), keys in camel case, a byte order mark, the file names the account, the token is a JWT.
fn written(flags: u8, rest: &[u8]) -> Corpus {
    let bit = |bit: u8| flags >> bit & 1 == 1;
    let word = |bytes: &[u8]| {
        let plain = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_graphic);
        plain.then(|| String::from_utf8_lossy(bytes).into_owned())
    };
    let (token, rest) = line(rest);
    let (claimed, rest) = line(rest);
    let (expires, account) = line(rest);
    let Some(token) = word(token) else { return Corpus::Reject };
    let text = |bytes: &[u8]| Some(String::from_utf8_lossy(bytes).into_owned());
    let (claimed, account) = (text(claimed), text(account).filter(|_| bit(5)));
    let expires = std::str::from_utf8(expires).ok().and_then(|text| text.parse::<u32>().ok());
    let jwt = bit(6);
    let token = if jwt {
        let payload =
            json!({ "exp": expires, "https://api.openai.com/auth": { "chatgpt_account_id": claimed } });
        format!("e30.{}.{token}", URL_SAFE_NO_PAD.encode(payload.to_string()))
    } else {
        token.replace('.', "-")
    };
    let (expires, claimed) = (expires.filter(|_| jwt), claimed.filter(|_| jwt));

    let mode = [
        None,
        Some("chatgpt"),
        Some("chatgptAuthTokens"),
        Some("chatgpt_auth_tokens"),
        Some("personalAccessToken"),
        Some("apikey"),
        Some("agentIdentity"),
        Some("bedrockApiKey"),
    ][usize::from(flags & 7)];
    let personal = mode == Some("personalAccessToken");
    let keys = if bit(3) {
        ["accessToken", "accountId", "personalAccessToken", "authMode"]
    } else {
        ["access_token", "account_id", "personal_access_token", "auth_mode"]
    };
    // The other kind of token stands beside it and does not count.
    let mut file = json!({
        "tokens": {
            "id_token": "i",
            "refresh_token": "r",
            keys[0]: if personal { "other" } else { &token },
            keys[1]: account,
        },
        keys[2]: if personal { &token } else { "other" },
        keys[3]: mode,
        "OPENAI_API_KEY": "sk-other",
    });
    if mode.is_none() && bit(4) {
        file.as_object_mut().expect("an object").remove(keys[3]);
    }
    let mut text = if bit(4) { b"\xef\xbb\xbf".to_vec() } else { Vec::new() };
    text.extend(file.to_string().bytes());

    let found = of_file(&text, None);
    match mode {
        Some("apikey") => assert_eq!(found.err(), Some(LoginFault::ApiKey)),
        Some(name @ ("agentIdentity" | "bedrockApiKey")) => {
            assert_eq!(found.err(), Some(LoginFault::Mode(name.to_owned())));
        }
        _ if token.starts_with("sk-") => {
            assert_eq!(found.err(), Some(LoginFault::ApiKey));
        }
        _ => {
            // Blank is none, and the next one counts.
            let trimmed = |id: Option<String>| id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
            let account = trimmed(account).or(trimmed(claimed));
            if account.as_ref().is_some_and(|id| id.chars().any(|c| !matches!(c, ' '..='~'))) {
                assert_eq!(found.err(), Some(LoginFault::Malformed("account id")));
                return Corpus::Keep;
            }
            let login = found.expect("a login");
            check(&login);
            assert_eq!(login.authorization.expect("a token"), format!("Bearer {token}"));
            assert_eq!(login.account.map(|id| id.to_str().expect("ASCII").to_owned()), account);
            let moment = expires.map(|at| UNIX_EPOCH + Duration::from_secs(at.into()));
            assert_eq!(login.expires, moment);
        }
    }
    // By hand, with the scheme that people copy along with it, it is the same.
    let by_hand = of_token(&Secret::new(format!("Bearer {token}\n")), Some("acc"));
    match by_hand {
        Ok(login) => assert_eq!(login.authorization.expect("a token"), format!("Bearer {token}")),
        Err(fault) => assert!(fault == LoginFault::ApiKey && token.starts_with("sk-"), "{fault}"),
    }
    // Codex truncates the file and writes it anew in place.
    let cut = usize::from(flags & 0x7f) * text.len() / 0x80;
    assert_eq!(of_file(&text[..cut], None).err(), Some(LoginFault::Broken), "cut at {cut}");
    Corpus::Keep
}
