//! Everything that the head alone decides, before a byte of body is read and before `100 Continue`.

use std::time::Duration;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderMap, Version};
use pingora::http::RequestHeader;

use crate::answer::Fault;
use crate::translate::{Boundary, Limits, Refusal};

/// The longest head that is looked at; Pingora's own limit is 1 MiB.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLimits {
    /// Request line and header fields, bytes.
    pub(super) head: usize,
    /// Request target, bytes.
    pub(super) uri: usize,
}

/// What must hold of any request, whatever its route.
///
/// # Errors
/// 414, 431, 505, 417, 400 as the fault table has them.
pub(super) fn check_head(request: &RequestHeader, limits: HeadLimits) -> Result<(), Fault> {
    if !matches!(request.version, Version::HTTP_10 | Version::HTTP_11 | Version::HTTP_2) {
        return Err(Fault::HttpVersion);
    }
    if request.raw_path().len() > limits.uri {
        return Err(Fault::UriTooLong);
    }
    let fields: usize =
        request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if request.raw_path().len() + fields > limits.head {
        return Err(Fault::HeadTooLarge);
    }
    if !names_one_host(request) {
        return Err(Fault::HostBad);
    }
    if !is_plainly_framed(&request.headers) {
        return Err(Fault::LengthBad);
    }
    match request.headers.get(EXPECT) {
        Some(expected) if !is_continue(expected.as_bytes()) => Err(Fault::Expectation),
        _ => Ok(()),
    }
}

/// One well-formed `Host`, which only HTTP/1.1 must have (RFC 9112 3.2): HTTP/2 has `:authority`.
fn names_one_host(request: &RequestHeader) -> bool {
    let mut hosts = request.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => request.version != Version::HTTP_11,
        (Some(host), None) => is_host(host.as_bytes()),
        (Some(_), Some(_)) => false,
    }
}

/// `uri-host [ ":" port ]` (RFC 9110 7.2): no user before it, no name for a port.
fn is_host(value: &[u8]) -> bool {
    let Ok(authority) = Authority::try_from(value.trim_ascii()) else { return false };
    let port = authority.as_str().strip_prefix(authority.host());
    port.is_some_and(|port| {
        port.is_empty()
            || port.strip_prefix(':').is_some_and(|port| port.is_empty() || port.parse::<u16>().is_ok())
    })
}

/// No transfer coding but a single `chunked`: Pingora looks at the last one alone, and would pass on what the others
/// have done to the body (RFC 9112 6.1).
fn is_plainly_framed(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    }
}

/// Whether the client waits for a `100 Continue` (RFC 9110 10.1.1, in any case).
pub(super) fn wants_continue(request: &RequestHeader) -> bool {
    request.version != Version::HTTP_10
        && request.headers.get(EXPECT).is_some_and(|expected| is_continue(expected.as_bytes()))
}

fn is_continue(expected: &[u8]) -> bool {
    expected.trim_ascii().eq_ignore_ascii_case(b"100-continue")
}

/// What the head says of an upload.
pub(super) struct Announced {
    /// The client's multipart boundary.
    pub(super) boundary: Boundary,
    /// `Content-Length`, if there is one.
    pub(super) length: Option<u64>,
}

/// What must hold of an upload.
///
/// # Errors
/// 415 for an encoded body, 400 for another media type or a broken boundary, 413 for a declared length over the limit.
pub(super) fn check_upload(headers: &HeaderMap, limits: &Limits) -> Result<Announced, Fault> {
    let encoded =
        |value: &http::HeaderValue| !value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity");
    if headers.get_all(CONTENT_ENCODING).iter().any(encoded) {
        return Err(Fault::ContentEncoding);
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let media_type = types.next().map_or(&b""[..], |value| value.as_bytes());
    if types.next().is_some() {
        return Err(Fault::Upload(Refusal::Multipart("two Content-Type headers")));
    }
    let boundary = Boundary::from_content_type(media_type).map_err(Fault::Upload)?;
    let length = declared_length(headers)?;
    if let Some(read) = length.filter(|length| *length > limits.upload) {
        return Err(Fault::Upload(Refusal::TooLarge { limit: limits.upload, read }));
    }
    Ok(Announced { boundary, length })
}

/// How long the client will wait for the answer, if it says so: OpenAI's SDKs tell their timeouts in seconds (`contract:
/// openai-audio.md` section 6). A little less, so that the client is told instead of left to its own clock.
pub(super) fn client_patience(headers: &HeaderMap) -> Option<Duration> {
    let seconds = |name| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let told = ["x-stainless-read-timeout", "x-stainless-timeout"].into_iter().filter_map(seconds);
    let told =
        told.filter(|seconds| *seconds > 0.0).filter_map(|seconds| Duration::try_from_secs_f64(seconds).ok());
    told.min().map(|told| told - (told / 10).min(Duration::from_millis(500)))
}

/// `Content-Length`; Pingora has refused conflicting and unparsable ones over HTTP/1 and lets lists of the same
/// value pass (RFC 9110 8.6).
///
/// # Errors
/// 400 where it is no number.
pub(super) fn declared_length(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let Some(value) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let first = value.to_str().ok().and_then(|value| value.split(',').next());
    first.and_then(|first| first.trim().parse().ok()).map(Some).ok_or(Fault::LengthBad)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_client_s_timeout_is_taken_a_little_shorter_and_nonsense_not_at_all() {
        for (headers, millis) in [
            (&[("x-stainless-read-timeout", "600")][..], Some(599_500)),
            (&[("x-stainless-timeout", "2")], Some(1_800)),
            (&[("x-stainless-timeout", "0.5")], Some(450)),
            (&[("x-stainless-read-timeout", "600.0"), ("x-stainless-timeout", "60")], Some(59_500)),
            (&[("x-stainless-timeout", "0")], None),
            (&[("x-stainless-timeout", "-5")], None),
            (&[("x-stainless-timeout", "None")], None),
            (&[("x-stainless-timeout", "NaN")], None),
            (&[("x-stainless-timeout", "inf")], None),
            (&[("x-stainless-timeout", "1e300")], None),
            (&[], None),
        ] {
            let header = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
            let headers: HeaderMap = headers.iter().map(header).collect();
            assert_eq!(client_patience(&headers), millis.map(Duration::from_millis), "{headers:?}");
        }
    }
}
