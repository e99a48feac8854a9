//! Cloudflare's own cookies: kept in memory for the account and host they were set for, and sent back (RFC 6265). No
//! other cookie is ever kept.

use std::fmt;
use std::time::{Duration, SystemTime};

use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::base::secret::Secret;
use crate::config::Endpoint;

/// The cookies that are kept, in the order they are sent in (`contract: codex-upstream.md` section 1).
const NAMES: [&str; 3] = ["__cf_bm", "_cfuvid", "cf_clearance"];
/// The longest value that is kept, bytes.
const LONGEST: usize = 4096;
/// Accounts whose cookies are kept; the one that has heard nothing for longest makes room.
const ACCOUNTS: usize = 16;
/// The longest time that a cookie is believed: Cloudflare's own ends after a year.
const LONGEST_LIFE: Duration = Duration::from_secs(400 * 86_400);

/// The jars of all accounts. The one that was last set something is the last.
#[derive(Default)]
pub struct Cookies(Mutex<Vec<Jar>>);

struct Jar {
    account: Option<HeaderValue>,
    host: String,
    held: [Option<Cookie>; NAMES.len()],
}

struct Cookie {
    value: Secret<String>,
    expires: Option<SystemTime>,
    /// Where it is sent: a path on the host.
    path: String,
    secure: bool,
}

impl Cookies {
    /// The `Cookie` header for a request to `endpoint`, marked sensitive; `None` when there is nothing to send.
    pub fn to_send(
        &self,
        account: Option<&HeaderValue>,
        endpoint: &Endpoint,
        now: SystemTime,
    ) -> Option<HeaderValue> {
        let mut jars = self.0.lock();
        let jar = jars.iter_mut().find(|jar| jar.is_of(account, endpoint))?;
        let mut header = Zeroizing::new(String::new());
        for (name, held) in NAMES.iter().zip(&mut jar.held) {
            held.take_if(|cookie| cookie.expires.is_some_and(|at| at <= now));
            let Some(cookie) = held.as_ref().filter(|cookie| cookie.is_for(endpoint)) else { continue };
            if !header.is_empty() {
                header.push_str("; ");
            }
            for part in [name, "=", cookie.value.expose()] {
                header.push_str(part);
            }
        }
        let mut header = HeaderValue::from_str(&header).ok().filter(|header| !header.is_empty())?;
        header.set_sensitive(true);
        Some(header)
    }

    /// Takes over what an answer sets for its own host.
    pub fn keep(
        &self,
        account: Option<&HeaderValue>,
        endpoint: &Endpoint,
        headers: &HeaderMap,
        now: SystemTime,
    ) {
        for set in headers.get_all(SET_COOKIE) {
            let Some((slot, cookie)) = set.to_str().ok().and_then(|set| parse(set, endpoint, now)) else {
                continue;
            };
            let mut jars = self.0.lock();
            let jar = match jars.iter().position(|jar| jar.is_of(account, endpoint)) {
                Some(at) => jars.remove(at),
                None => {
                    Jar { account: account.cloned(), host: endpoint.host.clone(), held: Default::default() }
                }
            };
            if jars.len() == ACCOUNTS {
                jars.remove(0);
            }
            jars.push(jar);
            if let Some(held) = jars.last_mut().and_then(|jar| jar.held.get_mut(slot)) {
                *held = cookie.expires.is_none_or(|at| at > now).then_some(cookie);
            }
        }
    }
}

impl Jar {
    fn is_of(&self, account: Option<&HeaderValue>, endpoint: &Endpoint) -> bool {
        self.account.as_ref() == account && self.host == endpoint.host
    }
}

impl Cookie {
    /// RFC 6265 5.1.4 and 5.4.
    fn is_for(&self, endpoint: &Endpoint) -> bool {
        let below = endpoint.path.strip_prefix(&self.path);
        let path =
            below.is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'));
        path && (!self.secure || endpoint.tls || endpoint.is_loopback())
    }
}

/// One `Set-Cookie`: which of the names, and the cookie; with an end in the past it deletes. `None` for any other name,
/// another host's, or what no `Cookie` header can carry.
fn parse(set: &str, endpoint: &Endpoint, now: SystemTime) -> Option<(usize, Cookie)> {
    let mut parts = set.split(';');
    let (name, value) = parts.next()?.split_once('=')?;
    let slot = NAMES.iter().position(|known| *known == name.trim())?;
    let value = value.trim();
    let octet = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b'\\');
    if value.len() > LONGEST || !value.bytes().all(octet) {
        return None;
    }
    let mut cookie = Cookie {
        value: Secret::new(value.to_owned()),
        expires: None,
        path: default_path(&endpoint.path).to_owned(),
        secure: false,
    };
    let mut age = None;
    for part in parts {
        let (attribute, value) = part.split_once('=').unwrap_or((part, ""));
        let value = value.trim();
        match attribute.trim().to_ascii_lowercase().as_str() {
            "domain" if !is_host_or_above(value, &endpoint.host) => return None,
            "path" if value.starts_with('/') => value.clone_into(&mut cookie.path),
            "secure" => cookie.secure = true,
            "max-age" => age = value.parse::<i64>().ok(),
            "expires" => cookie.expires = httpdate::parse_http_date(value).ok().or_else(|| dashed(value)),
            _ => {}
        }
    }
    if let Some(seconds) = age {
        cookie.expires =
            Some(u64::try_from(seconds).map_or(SystemTime::UNIX_EPOCH, |seconds| {
                now + Duration::from_secs(seconds).min(LONGEST_LIFE)
            }));
    }
    cookie.expires = cookie.expires.map(|at| at.min(now + LONGEST_LIFE));
    Some((slot, cookie))
}

/// `Wed, 13-Jan-2021 22:23:01 GMT`, as Cloudflare has written it, is an HTTP date but for the hyphens.
fn dashed(date: &str) -> Option<SystemTime> {
    let plain = date.replacen('-', " ", 2);
    httpdate::parse_http_date(&plain).ok()
}

/// The folder of the request's path (RFC 6265 5.1.4).
fn default_path(path: &str) -> &str {
    match path.rsplit_once('/') {
        Some((folder, _)) if !folder.is_empty() => folder,
        _ => "/",
    }
}

/// RFC 6265 5.1.3. A bare top-level domain is nobody's.
fn is_host_or_above(domain: &str, host: &str) -> bool {
    let domain = domain.trim_start_matches('.').to_ascii_lowercase();
    if domain.is_empty() || domain == host {
        return true;
    }
    let is_name = host.parse::<std::net::IpAddr>().is_err();
    is_name && domain.contains('.') && host.strip_suffix(&domain).is_some_and(|rest| rest.ends_with('.'))
}

/// How many jars there are, and nothing of what is in them.
impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies").field("jars", &self.0.lock().len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + NOW + Duration::from_secs(seconds)
    }

    fn codex() -> Endpoint {
        Endpoint::parse("https://chatgpt.com/backend-api/transcribe").unwrap()
    }

    fn set(cookies: &Cookies, account: &str, lines: &[&str]) {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(SET_COOKIE, line.parse().unwrap());
        }
        cookies.keep(Some(&account.parse().unwrap()), &codex(), &headers, at(0));
    }

    fn sent(cookies: &Cookies, account: &str, seconds: u64) -> Option<String> {
        let header = cookies.to_send(Some(&account.parse().unwrap()), &codex(), at(seconds))?;
        assert!(header.is_sensitive());
        Some(header.to_str().unwrap().to_owned())
    }

    fn after(line: &str, seconds: u64) -> Option<String> {
        let cookies = Cookies::default();
        set(&cookies, "a", &[line]);
        sent(&cookies, "a", seconds)
    }

    #[test]
    fn cloudflare_s_own_are_sent_back_and_no_others() {
        let cookies = Cookies::default();
        set(
            &cookies,
            "a",
            &[
                "_cfuvid=u.1-2_3; path=/; domain=.chatgpt.com; HttpOnly; Secure; SameSite=None",
                "session=planted; Path=/",
                "__Secure-next-auth.session-token=planted",
                "__CF_BM=other; path=/",
                "__cf_bm=b=c==; path=/; Max-Age=1800",
                "cf_clearance=x y; path=/",
                "__cflb=planted",
            ],
        );
        assert_eq!(sent(&cookies, "a", 0).unwrap(), "__cf_bm=b=c==; _cfuvid=u.1-2_3");
        assert_eq!(sent(&cookies, "b", 0), None, "another account");
        let other = Endpoint::parse("https://chat.openai.com/backend-api/transcribe").unwrap();
        assert_eq!(cookies.to_send(Some(&"a".parse().unwrap()), &other, at(0)), None, "another host");
        assert_eq!(cookies.to_send(None, &codex(), at(0)), None, "no account");
        assert!(!format!("{cookies:?}").contains("u.1"));
    }

    #[test]
    fn a_cookie_ends_when_it_says_so() {
        for (line, last) in [
            ("__cf_bm=1; path=/; max-age=60", Some(59)),
            ("__cf_bm=1; path=/; Expires=Tue, 14 Nov 2023 22:14:20 GMT", Some(59)),
            ("__cf_bm=1; path=/; expires=Tue, 14-Nov-2023 22:14:20 GMT", Some(59)),
            ("__cf_bm=1; path=/; expires=Thu, 01 Jan 1970 00:00:00 GMT; max-age=60", Some(59)),
            ("__cf_bm=1; path=/; max-age=9223372036854775807", Some(399 * 86_400)),
        ] {
            let last = last.unwrap();
            assert_eq!(after(line, last).as_deref(), Some("__cf_bm=1"), "{line}");
            assert_eq!(after(line, if last == 59 { 60 } else { 401 * 86_400 }), None, "{line}");
        }
        assert!(after("__cf_bm=1; path=/; max-age=soon", 1 << 30).is_some(), "until this process ends");
    }

    #[test]
    fn a_new_value_replaces_the_old_one_and_an_end_in_the_past_deletes_it() {
        let cookies = Cookies::default();
        set(&cookies, "a", &["__cf_bm=1; path=/"]);
        set(&cookies, "a", &["__cf_bm=2; path=/"]);
        assert_eq!(sent(&cookies, "a", 0).unwrap(), "__cf_bm=2");
        set(&cookies, "a", &["__cf_bm=; path=/; max-age=0"]);
        assert_eq!(sent(&cookies, "a", 0), None);
        set(&cookies, "a", &["__cf_bm=3; path=/", "__cf_bm=; max-age=-1"]);
        assert_eq!(sent(&cookies, "a", 0), None);
    }

    #[test]
    fn a_cookie_stays_on_its_host_and_path() {
        for (line, kept) in [
            ("__cf_bm=1; domain=chatgpt.com; path=/", true),
            ("__cf_bm=1; domain=.ChatGPT.com; path=/", true),
            ("__cf_bm=1; domain=openai.com; path=/", false),
            ("__cf_bm=1; domain=tgpt.com; path=/", false),
            ("__cf_bm=1; domain=com; path=/", false),
            ("__cf_bm=1; path=/backend-api", true),
            ("__cf_bm=1; path=/backend-api/transcribe", true),
            ("__cf_bm=1; path=/backend", false),
            ("__cf_bm=1; path=/other", false),
            ("__cf_bm=1", true),
        ] {
            assert_eq!(after(line, 0).is_some(), kept, "{line}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        assert_eq!(after(&format!("__cf_bm={}; path=/", "x".repeat(LONGEST + 1)), 0), None);
        let cookies = Cookies::default();
        for account in 0..ACCOUNTS + 3 {
            set(&cookies, &account.to_string(), &["__cf_bm=1; path=/"]);
        }
        assert_eq!(cookies.0.lock().len(), ACCOUNTS);
        assert_eq!(sent(&cookies, "0", 0), None, "the oldest has made room");
        assert!(sent(&cookies, "18", 0).is_some());
    }

    #[test]
    fn a_secure_one_needs_tls_or_this_very_machine() {
        for (url, sent) in
            [("http://stub.example/t", false), ("https://stub.example/t", true), ("http://127.0.0.1/t", true)]
        {
            let (cookies, endpoint) = (Cookies::default(), Endpoint::parse(url).unwrap());
            let headers = [(SET_COOKIE, HeaderValue::from_static("__cf_bm=1; path=/; secure"))];
            cookies.keep(None, &endpoint, &headers.into_iter().collect(), at(0));
            assert_eq!(cookies.to_send(None, &endpoint, at(0)).is_some(), sent, "{url}");
        }
    }
}
