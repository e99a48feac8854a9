//! Why the upstream gave no transcript (`contract: codex-upstream.md` section 1).

use std::time::{Duration, UNIX_EPOCH};

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName};
use serde_json::Value;

use super::{Answer, Fault};

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// No wait is believed beyond this many seconds: 30 days.
const LONGEST_WAIT: f64 = 30.0 * 86_400.0;
/// What is spent or final without naming a time, seconds: long enough that no SDK uploads again by itself.
const SPENT: f64 = 120.0;

/// Names the fault of an answer that is no transcript: any status but 200, a 200 without a text, or whatever came
/// before the upload was complete (when even a 2xx is a fault: it cannot be about the whole audio).
///
/// `now` is the time in seconds since the Unix epoch: a rate limit may name the moment of its end.
pub fn fault_of(answer: &Answer, now: u64) -> Fault {
    if is_challenge(answer) {
        return Fault::UpstreamChallenge { retry_after: None };
    }
    match answer.status {
        // Our token: never the client's 401.
        401 | 403 => Fault::UpstreamAuth { retry_after: None },
        413 => Fault::UpstreamTooLarge,
        429 => Fault::UpstreamRateLimited { retry_after: rate_limit(answer, now) },
        500 if is_asr_error(&answer.body) => Fault::UpstreamAsr,
        408 | 425 | 500..=599 if is_final(&answer.headers) => Fault::UpstreamRefused(answer.status),
        408 | 425 | 500..=599 => Fault::UpstreamUnavailable { retry_after: wait(answer, now) },
        300..=499 => Fault::UpstreamRefused(answer.status),
        _ => Fault::UpstreamBroken,
    }
}

/// Whether the same request may well succeed on a second try made at once, and how long the upstream wants to be left
/// alone before it: 408, 425 and 5xx, but for those that say otherwise, a challenge, and audio that cannot be read.
pub fn passes_by_itself(answer: &Answer, now: u64) -> Option<Duration> {
    match fault_of(answer, now) {
        Fault::UpstreamUnavailable { retry_after } => Some(retry_after.unwrap_or_default()),
        _ => None,
    }
}

/// Cloudflare stopped the request before it reached the origin. It says so in a header; where that is missing, a 403
/// in HTML is its, since the origin speaks JSON.
fn is_challenge(answer: &Answer) -> bool {
    let mitigated = answer.headers.get("cf-mitigated").map(http::HeaderValue::as_bytes);
    mitigated.is_some_and(|value| value.eq_ignore_ascii_case(b"challenge"))
        || (answer.status == 403 && is_html(answer))
}

fn is_html(answer: &Answer) -> bool {
    let media_type = answer.headers.get(CONTENT_TYPE).map_or(&b""[..], http::HeaderValue::as_bytes);
    let html = b"text/html";
    media_type.get(..html.len()).is_some_and(|start| start.eq_ignore_ascii_case(html))
        || answer.body.trim_ascii_start().starts_with(b"<")
}

/// The catch-all for audio that the recogniser cannot read.
fn is_asr_error(body: &[u8]) -> bool {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    body.get("detail").and_then(Value::as_str).is_some_and(|detail| detail.starts_with("Error in ASR API"))
}

/// How long a rate limit lasts. A quota that is spent passes too, but not within what an SDK waits.
fn rate_limit(answer: &Answer, now: u64) -> Option<Duration> {
    let hint = wait(answer, now);
    let spent = || {
        let body = body(answer);
        let limit = body.get("error").unwrap_or(&body);
        let names = ["type", "code"].map(|key| limit.get(key).and_then(Value::as_str));
        names.iter().flatten().any(|name| ["insufficient_quota", "usage_limit_reached"].contains(name))
    };
    let least = Duration::from_secs_f64(SPENT);
    match hint {
        _ if is_final(&answer.headers) => Some(hint.unwrap_or(least).max(least)),
        None if spent() => Some(least),
        _ => hint,
    }
}

/// How long the upstream wants to be left alone. Of several hints the longest counts: to come back before any one of
/// them has passed is in vain. Its message is read where nothing else tells.
fn wait(answer: &Answer, now: u64) -> Option<Duration> {
    let body = body(answer);
    let limit = body.get("error").unwrap_or(&body);
    let number = |key| limit.get(key).and_then(Value::as_f64);
    let hints = [
        retry_after(&answer.headers, now),
        number("resets_in_seconds"),
        number("resets_at").map(|moment| moment - now as f64),
    ];
    let clamped = |seconds: f64| Duration::try_from_secs_f64(seconds.clamp(0.0, LONGEST_WAIT)).ok();
    let longest = hints.into_iter().flatten().filter_map(clamped).max();
    longest.or_else(|| {
        let said = ["message", "detail"].map(|key| limit.get(key).and_then(Value::as_str));
        said.into_iter().chain([limit.as_str()]).flatten().find_map(spoken).and_then(clamped)
    })
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap_or_default()
}

/// The upstream rules a second try out.
fn is_final(headers: &HeaderMap) -> bool {
    headers.get("x-should-retry").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"false"))
}

/// `Retry-After-Ms`, or `Retry-After` as seconds from now; that comes as a number or as a date (RFC 9110 section
/// 10.2.3).
fn retry_after(headers: &HeaderMap, now: u64) -> Option<f64> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(millis) = text(RETRY_AFTER_MS).and_then(|value| value.parse::<f64>().ok()) {
        return Some(millis / 1000.0);
    }
    let value = text(RETRY_AFTER)?;
    if let Ok(seconds) = value.parse() {
        return Some(seconds);
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let moment = date.duration_since(UNIX_EPOCH).ok()?;
    Some(moment.as_secs_f64() - now as f64)
}

/// The seconds in `Please try again in 1m30s.`, `... in 2 hours and 5 minutes`, `... retry after 20`.
fn spoken(message: &str) -> Option<f64> {
    let message = message.to_ascii_lowercase();
    let said = ["again in ", "retry in ", "retry after "].iter().find_map(|cue| message.split_once(cue))?.1;
    let mut rest = said;
    let mut seconds = None;
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        rest = rest.strip_prefix("and ").unwrap_or(rest);
        let (number, behind) = split_while(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, behind) = split_while(behind.trim_start(), |c| c.is_ascii_alphabetic());
        let Ok(number) = number.trim_end_matches('.').parse::<f64>() else { return seconds };
        let factor = match unit {
            "ms" | "millisecond" | "milliseconds" => 0.001,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3_600.0,
            "d" | "day" | "days" => 86_400.0,
            "w" | "week" | "weeks" => 604_800.0,
            // A bare number is one of seconds, as in the header.
            _ => return seconds.or(Some(number)),
        };
        seconds = Some(seconds.unwrap_or(0.0) + number * factor);
        rest = behind;
    }
}

fn split_while(text: &str, wanted: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at_checked(text.find(|c| !wanted(c)).unwrap_or(text.len())).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer::tests::answer;

    const NOW: u64 = 1_700_000_000;

    fn limited(seconds: Option<u64>) -> Fault {
        Fault::UpstreamRateLimited { retry_after: seconds.map(Duration::from_secs) }
    }

    #[test]
    fn every_status_has_its_fault() {
        let unavailable = Fault::UpstreamUnavailable { retry_after: None };
        for (status, body, fault) in [
            (401, r#"{"error":{"code":"token_expired"}}"#, Fault::UpstreamAuth { retry_after: None }),
            (403, r#"{"detail":"forbidden"}"#, Fault::UpstreamAuth { retry_after: None }),
            (413, "", Fault::UpstreamTooLarge),
            (429, "", limited(None)),
            (500, r#"{"detail":"Error in ASR API"}"#, Fault::UpstreamAsr),
            (500, r#"{"detail":"Something else"}"#, unavailable.clone()),
            (500, "Error in ASR API", unavailable.clone()),
            (502, "<html>bad gateway</html>", unavailable.clone()),
            (503, "", unavailable.clone()),
            (599, "", unavailable.clone()),
            (408, "", unavailable.clone()),
            (425, "", unavailable),
            (302, "", Fault::UpstreamRefused(302)),
            (400, r#"{"detail":"x"}"#, Fault::UpstreamRefused(400)),
            (404, "", Fault::UpstreamRefused(404)),
            (422, "", Fault::UpstreamRefused(422)),
            (200, r#"{"text":"early"}"#, Fault::UpstreamBroken),
            (204, "", Fault::UpstreamBroken),
            (0, "", Fault::UpstreamBroken),
            (101, "", Fault::UpstreamBroken),
            (999, "", Fault::UpstreamBroken),
        ] {
            assert_eq!(fault_of(&answer(status, &[], body), NOW), fault, "{status} {body}");
        }
    }

    #[test]
    fn a_challenge_is_told_from_a_rejected_login() {
        let challenge = [("cf-mitigated", "challenge")];
        let html = [("content-type", "Text/HTML; charset=UTF-8")];
        for answer in [
            answer(403, &challenge, ""),
            answer(503, &challenge, "<html>"),
            answer(200, &challenge, "<html>"),
            answer(403, &html, ""),
            answer(403, &[], "\n <!DOCTYPE html>"),
        ] {
            assert_eq!(fault_of(&answer, NOW), Fault::UpstreamChallenge { retry_after: None }, "{answer:?}");
        }
        let json = [("content-type", "application/json"), ("cf-ray", "1"), ("server", "cloudflare")];
        assert_eq!(fault_of(&answer(403, &json, "{}"), NOW), Fault::UpstreamAuth { retry_after: None });
    }

    #[test]
    fn a_rate_limit_tells_how_long_it_lasts() {
        for (header, body, seconds) in [
            (None, r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":90}}"#, Some(90)),
            (None, r#"{"error":{"resets_at":1700000120}}"#, Some(120)),
            (None, r#"{"resets_in_seconds":5}"#, Some(5)),
            (None, r#"{"error":{"resets_at":1600000000}}"#, Some(0)),
            (None, r#"{"error":{"resets_in_seconds":1e300}}"#, Some(30 * 86_400)),
            (None, r#"{"error":{"resets_in_seconds":"90"}}"#, None),
            (None, r#"{"error":"slow down"}"#, None),
            (Some("7"), "", Some(7)),
            (Some(" 7 "), "not json", Some(7)),
            (Some("7"), r#"{"error":{"resets_in_seconds":90}}"#, Some(90)),
            (Some("100"), r#"{"error":{"resets_in_seconds":90}}"#, Some(100)),
            (Some("Tue, 14 Nov 2023 22:13:50 GMT"), "", Some(30)),
            (Some("Mon, 14 Nov 2022 22:13:50 GMT"), "", Some(0)),
            (Some("-3"), "", Some(0)),
            (Some("inf"), "", Some(30 * 86_400)),
            (Some("NaN"), "", None),
            (Some("soon"), "", None),
        ] {
            let headers: Vec<_> = header.map(|value| ("retry-after", value)).into_iter().collect();
            assert_eq!(fault_of(&answer(429, &headers, body), NOW), limited(seconds), "{header:?} {body}");
        }
    }

    #[test]
    fn a_rate_limit_that_only_speaks_of_its_time_is_understood() {
        let hour = 3_600.0;
        for (said, seconds) in [
            ("Rate limit reached. Please try again in 1m30s.", Some(90.0)),
            ("Please try again in 20s. Visit https://example.com to learn more.", Some(20.0)),
            ("try again in 24ms", Some(0.024)),
            ("Try Again In 1h2m3.5s", Some(hour + 123.5)),
            ("Try again in 2 hours and 5 minutes", Some(2.0 * hour + 300.0)),
            ("try again in 3 days, 1 hour", Some(73.0 * hour)),
            ("Retry after 7 seconds.", Some(7.0)),
            ("retry after 30", Some(30.0)),
            ("try again in 5 parsecs", Some(5.0)),
            ("Please try again later", None),
            ("try again in a moment", None),
            ("try again in \u{e9}", None),
            ("try again in ..5s", None),
            ("", None),
        ] {
            assert_eq!(spoken(said), seconds, "{said}");
        }
    }

    #[test]
    fn a_message_counts_only_where_nothing_else_tells() {
        for (body, seconds) in [
            (r#"{"error":{"message":"try again in 1m30s"}}"#, Some(90)),
            (r#"{"detail":"try again in 5s"}"#, Some(5)),
            (r#"{"error":"try again in 6s"}"#, Some(6)),
            (r#"{"error":{"message":"try again in 1m30s","resets_in_seconds":4}}"#, Some(4)),
        ] {
            assert_eq!(fault_of(&answer(429, &[], body), NOW), limited(seconds), "{body}");
        }
    }

    #[test]
    fn milliseconds_win_over_seconds() {
        let headers = [("retry-after", "9"), ("retry-after-ms", "1500.0")];
        let fault = Fault::UpstreamRateLimited { retry_after: Some(Duration::from_millis(1500)) };
        assert_eq!(fault_of(&answer(429, &headers, ""), NOW), fault);
        let headers = [("retry-after", "9"), ("retry-after-ms", "soon")];
        assert_eq!(fault_of(&answer(429, &headers, ""), NOW), limited(Some(9)));
    }

    #[test]
    fn what_is_spent_or_final_is_not_for_an_sdk_to_try_again() {
        let stop = [("x-should-retry", "False"), ("retry-after", "1")];
        for (headers, body, seconds) in [
            (&[][..], r#"{"error":{"code":"insufficient_quota"}}"#, 120),
            (&[], r#"{"error":{"type":"usage_limit_reached"}}"#, 120),
            (&[], r#"{"error":{"type":"usage_limit_reached","resets_in_seconds":9}}"#, 9),
            (&stop, "", 120),
            (&stop, r#"{"resets_in_seconds":900}"#, 900),
        ] {
            assert_eq!(fault_of(&answer(429, headers, body), NOW), limited(Some(seconds)), "{body}");
        }
        assert_eq!(fault_of(&answer(503, &stop, ""), NOW), Fault::UpstreamRefused(503));
    }

    #[test]
    fn only_what_passes_by_itself_is_worth_a_second_try() {
        let wait = Duration::from_secs(1);
        let stop = [("x-should-retry", "false")];
        for (status, headers, body, expected) in [
            (503, &[][..], "", Some(Duration::ZERO)),
            (502, &[("retry-after", "1")], "<html>", Some(wait)),
            (408, &[], "", Some(Duration::ZERO)),
            (425, &[], "", Some(Duration::ZERO)),
            (500, &[], r#"{"detail":"Error in ASR API"}"#, None),
            (503, &stop, "", None),
            (503, &[("cf-mitigated", "challenge")], "", None),
            (403, &[], "<html>", None),
            (429, &[("retry-after", "1")], "", None),
            (401, &[], "", None),
            (422, &[], "", None),
            (200, &[], "{}", None),
        ] {
            assert_eq!(passes_by_itself(&answer(status, headers, body), NOW), expected, "{status} {body}");
        }
    }

    #[test]
    fn an_overloaded_upstream_may_name_its_wait_too() {
        let fault = fault_of(&answer(503, &[("retry-after", "3")], ""), NOW);
        assert_eq!(fault, Fault::UpstreamUnavailable { retry_after: Some(Duration::from_secs(3)) });
    }
}
