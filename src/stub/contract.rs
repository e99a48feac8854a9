//! What the upstream demands of a request (`contract: codex-upstream.md` section 1), as strict as a test can be.
//!
//! Written apart from the proxy's own reading of the contract, so that one can find the other's mistakes.

use http::{HeaderMap, StatusCode, Version, header, request};

/// Something that the contract does not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Breach {
    pub(super) status: StatusCode,
    pub(super) what: String,
}

impl Breach {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, what: what.into() }
    }

    /// The upstream's own word for audio that it cannot read.
    fn unreadable(what: &str) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, what: what.to_owned() }
    }

    /// The answer's body.
    pub(super) fn body(&self) -> String {
        let detail = if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            "Error in ASR API".to_owned()
        } else {
            format!("contract: {}", self.what)
        };
        serde_json::json!({ "detail": detail }).to_string()
    }
}

const ONCE: [&str; 8] = [
    "authorization",
    "chatgpt-account-id",
    "originator",
    "user-agent",
    "content-type",
    "content-length",
    "accept-encoding",
    "host",
];
const COOKIES: [&str; 3] = ["__cf_bm", "_cfuvid", "cf_clearance"];
const SHORTEST_BOUNDARY: usize = 24;

/// The first thing wrong with a head.
pub(super) fn head(head: &request::Parts, require_length: bool) -> Result<(), Breach> {
    let headers = &head.headers;
    let http2 = head.version == Version::HTTP_2;
    if !headers.contains_key(header::CONTENT_LENGTH) && (!http2 || require_length) {
        return Err(Breach { status: StatusCode::LENGTH_REQUIRED, what: "no Content-Length".to_owned() });
    }
    if head.uri.query().is_some() {
        return Err(Breach::new("a query"));
    }
    for name in headers.keys() {
        let name = name.as_str();
        if name != "cookie" && !ONCE.contains(&name) {
            return Err(Breach::new(format!("unexpected header {name}")));
        }
        if name != "cookie" && headers.get_all(name).iter().count() > 1 {
            return Err(Breach::new(format!("header {name} twice")));
        }
    }
    let authorization = required(headers, "authorization")?;
    if authorization.strip_prefix("Bearer ").is_none_or(|token| token.trim().is_empty()) {
        return Err(Breach::new("authorization is not a bearer token"));
    }
    for name in ["originator", "user-agent", "content-type"] {
        required(headers, name)?;
    }
    if headers.contains_key("chatgpt-account-id") {
        required(headers, "chatgpt-account-id")?;
    }
    if required(headers, "accept-encoding")? != "identity" {
        return Err(Breach::new("accept-encoding is not identity"));
    }
    if http2 {
        let authority = head.uri.authority().map(http::uri::Authority::as_str);
        if headers.get(header::HOST).is_some_and(|host| Some(host.as_bytes()) != authority.map(str::as_bytes))
        {
            return Err(Breach::new("host differs from :authority"));
        }
    } else {
        required(headers, "host")?;
    }
    cookies(headers)?;
    if boundary(headers).is_none_or(|boundary| boundary.len() < SHORTEST_BOUNDARY) {
        return Err(Breach::new("content-type is not multipart/form-data with a boundary of 24 or more"));
    }
    Ok(())
}

/// The form's boundary, when the content type has one.
pub(super) fn boundary(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    multer::parse_boundary(value).ok()
}

fn required<'a>(headers: &'a HeaderMap, name: &str) -> Result<&'a str, Breach> {
    match headers.get(name).map(|value| value.to_str().unwrap_or_default()) {
        None => Err(Breach::new(format!("no header {name}"))),
        Some(value) if value.trim().is_empty() => Err(Breach::new(format!("header {name} is empty"))),
        Some(value) => Ok(value),
    }
}

fn cookies(headers: &HeaderMap) -> Result<(), Breach> {
    for line in headers.get_all(header::COOKIE) {
        for pair in line.to_str().unwrap_or("?").split(';') {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name).trim();
            if !COOKIES.contains(&name) {
                return Err(Breach::new(format!("unexpected cookie {name}")));
            }
        }
    }
    Ok(())
}

/// Checks a text field's value.
pub(super) fn text(name: &str, value: &str) -> Result<(), Breach> {
    if name == "language" && (value.trim().is_empty() || value.eq_ignore_ascii_case("auto")) {
        return Err(Breach::new("language is empty or auto"));
    }
    Ok(())
}

/// How many bytes of a file [`file`] needs to see.
pub(super) const MAGIC: usize = 16;

/// Checks the file part: name, type and first bytes must tell the same container. Gives the extension.
pub(super) fn file(
    name: Option<&str>,
    content_type: Option<&str>,
    start: &[u8],
) -> Result<&'static str, Breach> {
    let extension = name
        .and_then(|name| name.strip_prefix("audio."))
        .and_then(|extension| TYPES.iter().find(|(known, _)| *known == extension));
    let Some((extension, types)) = extension else {
        return Err(Breach::new("the file's name is not audio.<wav|mp3|m4a|mp4|flac|ogg|webm>"));
    };
    if !content_type.is_some_and(|given| types.contains(&given.to_ascii_lowercase().as_str())) {
        return Err(Breach::new(format!("the file's content type does not fit .{extension}")));
    }
    if let Some(what) = unreadable(start) {
        return Err(Breach::unreadable(what));
    }
    if !has_magic(extension, start) {
        return Err(Breach::new(format!("the file's first bytes do not fit .{extension}")));
    }
    Ok(extension)
}

const TYPES: [(&str, &[&str]); 7] = [
    ("wav", &["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"]),
    ("mp3", &["audio/mpeg", "audio/mp3"]),
    ("m4a", &["audio/mp4", "audio/m4a", "audio/x-m4a"]),
    ("mp4", &["audio/mp4", "video/mp4"]),
    ("flac", &["audio/flac", "audio/x-flac"]),
    ("ogg", &["audio/ogg", "application/ogg"]),
    ("webm", &["audio/webm", "video/webm"]),
];

/// What the live endpoint is reported to answer with 500.
fn unreadable(start: &[u8]) -> Option<&'static str> {
    let adts = matches!(start, [0xFF, second, ..] if second & 0xF6 == 0xF0);
    let aiff = start.starts_with(b"FORM") && start.get(8..11) == Some(b"AIF");
    match start {
        [] => Some("the file is empty"),
        _ if start.starts_with(b"#!SILK") || start.starts_with(b"\x02#!SILK") => Some("the file is SILK"),
        _ if adts => Some("the file is ADTS"),
        _ if aiff => Some("the file is AIFF"),
        _ if start.starts_with(b"caff") => Some("the file is CAF"),
        _ => None,
    }
}

fn has_magic(extension: &str, start: &[u8]) -> bool {
    match extension {
        "wav" => start.starts_with(b"RIFF") && start.get(8..12) == Some(b"WAVE"),
        "mp3" => {
            // A frame's sync word with a layer that is not the reserved one, or a tag before the first frame.
            start.starts_with(b"ID3")
                || matches!(start, [0xFF, second, ..] if second & 0xE0 == 0xE0 && second & 0x06 != 0)
        }
        "m4a" | "mp4" => start.get(4..8) == Some(b"ftyp"),
        "flac" => start.starts_with(b"fLaC"),
        "ogg" => start.starts_with(b"OggS"),
        "webm" => start.starts_with(&[0x1A, 0x45, 0xDF, 0xA3]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(change: impl FnOnce(&mut HeaderMap)) -> request::Parts {
        let (mut parts, ()) = http::Request::post("/backend-api/transcribe").body(()).unwrap().into_parts();
        for (name, value) in [
            ("host", "localhost"),
            ("authorization", "Bearer t"),
            ("originator", "Codex Desktop"),
            ("user-agent", "Codex Desktop/26"),
            ("accept-encoding", "identity"),
            ("content-length", "10"),
            ("content-type", "multipart/form-data; boundary=0123456789abcdef01234567"),
            ("cookie", "__cf_bm=1; cf_clearance=2"),
        ] {
            parts.headers.insert(name, value.parse().unwrap());
        }
        change(&mut parts.headers);
        parts
    }

    #[test]
    fn a_head_with_exactly_the_known_headers_is_taken() {
        assert_eq!(head(&request(|_| ()), true), Ok(()));
    }

    #[test]
    fn a_head_with_one_header_more_or_less_or_other_is_refused() {
        for (name, value, status) in [
            ("accept", Some("*/*"), 400),
            ("x-request-id", Some("1"), 400),
            ("connection", Some("close"), 400),
            ("authorization", None, 400),
            ("authorization", Some("Basic abc"), 400),
            ("authorization", Some("Bearer "), 400),
            ("originator", None, 400),
            ("user-agent", Some(""), 400),
            ("chatgpt-account-id", Some(""), 400),
            ("accept-encoding", Some("gzip"), 400),
            ("accept-encoding", None, 400),
            ("host", None, 400),
            ("cookie", Some("session=1"), 400),
            ("cookie", Some("__cf_bm=1; session=1"), 400),
            ("content-type", Some("application/json"), 400),
            ("content-type", Some("multipart/form-data; boundary=short"), 400),
            ("content-length", None, 411),
        ] {
            let parts = request(|headers| {
                headers.remove(name);
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            });
            let breach = head(&parts, false).expect_err(name);
            assert_eq!(breach.status, status, "{name}: {value:?}");
        }
        let twice = request(|headers| {
            headers.append("authorization", "Bearer u".parse().unwrap());
        });
        assert!(head(&twice, false).is_err());
    }

    #[test]
    fn a_file_s_name_type_and_first_bytes_must_agree() {
        let wav = b"RIFF\0\0\0\0WAVEfmt ";
        assert_eq!(file(Some("audio.wav"), Some("audio/wav"), wav), Ok("wav"));
        assert_eq!(file(Some("audio.mp3"), Some("audio/mpeg"), b"\xFF\xFB\x90\x00"), Ok("mp3"));
        assert_eq!(file(Some("audio.m4a"), Some("audio/mp4"), b"\0\0\0\x20ftypM4A "), Ok("m4a"));
        for (name, content_type, start) in [
            (Some("voice.wav"), Some("audio/wav"), wav.as_slice()),
            (Some("audio"), Some("audio/wav"), wav),
            (Some("audio.WAV"), Some("audio/wav"), wav),
            (None, Some("audio/wav"), wav),
            (Some("audio.wav"), Some("audio/mpeg"), wav),
            (Some("audio.wav"), None, wav),
            (Some("audio.flac"), Some("audio/flac"), wav),
        ] {
            let breach = file(name, content_type, start).expect_err("a misfit");
            assert_eq!(breach.status, 400, "{name:?} {content_type:?}");
        }
    }

    #[test]
    fn audio_that_the_live_endpoint_cannot_read_gets_its_500() {
        for start in [
            b"".as_slice(),
            b"#!SILK_V3",
            b"\x02#!SILK_V3",
            b"\xFF\xF1\x50\x80",
            b"FORM\0\0\0\0AIFF",
            b"caff\0\x01\0\0",
        ] {
            let breach = file(Some("audio.mp3"), Some("audio/mpeg"), start).expect_err("unreadable");
            assert_eq!(breach.body(), r#"{"detail":"Error in ASR API"}"#, "{start:?}");
        }
    }
}
