//! Codex's `auth.json` (contract/codex-upstream.md section 2).

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::claims::Claims;
use super::login::{Login, LoginFault};
use crate::base::secret::Secret;

/// What the file gives.
#[derive(Debug)]
struct AuthFile {
    /// The token to send.
    token: Secret<String>,
    /// The account: the one that the file names, else the one that a token in it does.
    account: Option<String>,
}

/// The login that the text of the file gives. A configured account wins over the file's.
pub(super) fn login(text: &[u8], account: Option<&str>) -> Result<Login, LoginFault> {
    let found = parse(text)?;
    let account = account.filter(|id| !id.is_empty());
    Login::new(&found.token, account.or(found.account.as_deref()))
}

/// Reads the text of the file. Keys in camel case are taken too: others write them so.
fn parse(text: &[u8]) -> Result<AuthFile, LoginFault> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err(LoginFault::Broken); // Serde would take an array for a struct.
    }
    let raw: Raw = serde_json::from_slice(text).map_err(|_| LoginFault::Broken)?;
    let tokens = raw.tokens.unwrap_or_default();
    let token = match raw.auth_mode.as_deref().map(mode).transpose()? {
        Some(Mode::ApiKey) => return Err(LoginFault::ApiKey),
        Some(Mode::ChatGpt) => tokens.access_token,
        Some(Mode::PersonalAccessToken) => raw.personal_access_token,
        // Files without a mode may hold an API key beside the ChatGPT login; the login is what serves here.
        None => tokens.access_token.or(raw.personal_access_token),
    };
    let token = token.filter(|token| !token.expose().trim().is_empty());
    let Some(token) = token else {
        let only_key = raw.auth_mode.is_none() && raw.openai_api_key.is_some();
        return Err(if only_key { LoginFault::ApiKey } else { LoginFault::NoToken });
    };
    let of_token = || Claims::of(token.expose())?.account;
    let of_id_token = || Claims::of(tokens.id_token.as_ref()?.expose())?.account;
    let account = tokens.account_id.filter(|id| !id.trim().is_empty()).or_else(of_token).or_else(of_id_token);
    Ok(AuthFile { token, account })
}

/// The kinds of login that we know what to do with.
enum Mode {
    ApiKey,
    ChatGpt,
    PersonalAccessToken,
}

/// Codex writes `chatgptAuthTokens`, others `chatgpt_auth_tokens`: case and underscores do not count.
fn mode(text: &str) -> Result<Mode, LoginFault> {
    let name = text.replace('_', "").to_ascii_lowercase();
    match name.as_str() {
        "apikey" => Ok(Mode::ApiKey),
        "chatgpt" | "chatgptauthtokens" => Ok(Mode::ChatGpt),
        "personalaccesstoken" => Ok(Mode::PersonalAccessToken),
        // Holds a key that signs every request anew.
        "agentidentity" => Err(LoginFault::Mode("agentIdentity".into())),
        // The name goes into a log: what is no plain name, or long enough to be a token, is not repeated.
        _ if text.len() <= 32 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => {
            Err(LoginFault::Mode(text.to_owned()))
        }
        _ => Err(LoginFault::Mode("unknown".into())),
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default, alias = "authMode")]
    auth_mode: Option<String>,
    #[serde(default, rename = "OPENAI_API_KEY", alias = "openaiApiKey")]
    openai_api_key: Option<IgnoredAny>,
    #[serde(default)]
    tokens: Option<Tokens>,
    #[serde(default, alias = "personalAccessToken", deserialize_with = "secret")]
    personal_access_token: Option<Secret<String>>,
}

#[derive(Deserialize, Default)]
struct Tokens {
    #[serde(default, alias = "accessToken", deserialize_with = "secret")]
    access_token: Option<Secret<String>>,
    #[serde(default, alias = "idToken", deserialize_with = "secret")]
    id_token: Option<Secret<String>>,
    #[serde(default, alias = "accountId")]
    account_id: Option<String>,
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret<String>>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(Secret::new))
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn jwt(account: &str) -> String {
        let claims = format!(r#"{{"https://api.openai.com/auth":{{"chatgpt_account_id":"{account}"}}}}"#);
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    /// Token and account of a file, or the fault.
    fn found(text: &str) -> Result<(String, Option<String>), LoginFault> {
        parse(text.as_bytes()).map(|file| (file.token.expose().clone(), file.account))
    }

    #[test]
    fn every_mode_gives_its_token_or_says_why_not() {
        let file = |mode: &str| {
            found(&format!(
                r#"{{{mode}"OPENAI_API_KEY":"sk-1","tokens":{{"access_token":"at","account_id":"a"}},
                    "personal_access_token":"at-2","agent_identity":"x","last_refresh":"2026-01-01T00:00:00Z"}}"#
            ))
        };
        let login = || Ok(("at".to_owned(), Some("a".to_owned())));
        assert_eq!(file(""), login());
        assert_eq!(file(r#""auth_mode":null,"#), login());
        assert_eq!(file(r#""auth_mode":"chatgpt","#), login());
        assert_eq!(file(r#""auth_mode":"chatgptAuthTokens","#), login());
        assert_eq!(file(r#""auth_mode":"chatgpt_auth_tokens","#), login());
        assert_eq!(file(r#""authMode":"chatgpt","#), login());
        assert_eq!(file(r#""auth_mode":"personalAccessToken","#).unwrap().0, "at-2");
        assert_eq!(file(r#""auth_mode":"apikey","#), Err(LoginFault::ApiKey));
        assert_eq!(file(r#""auth_mode":"agentIdentity","#), Err(LoginFault::Mode("agentIdentity".into())));
        assert_eq!(file(r#""auth_mode":"bedrockApiKey","#), Err(LoginFault::Mode("bedrockApiKey".into())));
        assert_eq!(file(r#""auth_mode":"eyJ.x\n","#), Err(LoginFault::Mode("unknown".into())));
    }

    #[test]
    fn camel_case_keys_and_a_byte_order_mark_are_read() {
        let text = "\u{feff}{\"tokens\":{\"accessToken\":\"at\",\"idToken\":\"i\",\"accountId\":\"a\"}}";
        assert_eq!(found(text), Ok(("at".into(), Some("a".into()))));
    }

    #[test]
    fn the_account_comes_from_the_file_then_the_access_token_then_the_id_token() {
        let (access, id) = (jwt("of-access"), jwt("of-id"));
        let file = |access: &str, account: &str| {
            let text = format!(
                r#"{{"tokens":{{"access_token":"{access}","id_token":"{id}","account_id":{account}}}}}"#
            );
            found(&text).unwrap().1
        };
        assert_eq!(file(&access, r#""of-file""#).as_deref(), Some("of-file"));
        assert_eq!(file(&access, "null").as_deref(), Some("of-access"));
        assert_eq!(file(&access, r#""""#).as_deref(), Some("of-access"));
        assert_eq!(file("opaque", "null").as_deref(), Some("of-id"));
    }

    #[test]
    fn a_file_with_nothing_to_send_says_so() {
        assert_eq!(found("{}"), Err(LoginFault::NoToken));
        assert_eq!(found(r#"{"OPENAI_API_KEY":null,"tokens":null}"#), Err(LoginFault::NoToken));
        assert_eq!(found(r#"{"OPENAI_API_KEY":"sk-1"}"#), Err(LoginFault::ApiKey));
        assert_eq!(
            found(r#"{"auth_mode":"chatgpt","tokens":{"access_token":" "}}"#),
            Err(LoginFault::NoToken)
        );
    }

    #[test]
    fn a_file_cut_anywhere_is_broken() {
        let whole = r#"{"tokens":{"access_token":"at","account_id":"a"}}"#;
        for end in 0..whole.len() {
            assert_eq!(found(&whole[..end]), Err(LoginFault::Broken), "{end}");
        }
        assert_eq!(found("[]"), Err(LoginFault::Broken));
        assert_eq!(found(r#"{"tokens":7}"#), Err(LoginFault::Broken));
    }
}
