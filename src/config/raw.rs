//! The file as it is written: names and types, nothing judged yet.
//!
//! Every key is optional, so that a missing one never hides another fault.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use crate::base::secret::Secret;

/// The whole file.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) server: RawServer,
    pub(super) tls: Option<RawTls>,
    pub(super) acme: RawAcme,
    pub(super) keys: RawKeys,
    pub(super) codex: RawCodex,
    pub(super) limits: RawLimits,
    pub(super) log: RawLog,
    pub(super) service: Vec<RawService>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawServer {
    pub(super) http: Option<Vec<String>>,
    pub(super) https: Option<Vec<String>>,
    pub(super) hsts: Option<Period>,
    pub(super) admin: Option<String>,
    pub(super) trusted_proxies: Option<Vec<String>>,
    pub(super) client_header: Option<String>,
    pub(super) proxy_protocol: Option<bool>,
    pub(super) drain_seconds: Option<Period>,
    pub(super) upgrade_socket: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawTls {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawAcme {
    pub(super) domains: Option<Vec<String>>,
    pub(super) contact: Option<Vec<String>>,
    pub(super) directory: Option<String>,
    pub(super) challenges: Option<Vec<String>>,
    pub(super) http: Option<Vec<String>>,
    pub(super) state: Option<PathBuf>,
    pub(super) profile: Option<String>,
    pub(super) accept_terms: Option<bool>,
    pub(super) ca_root: Option<PathBuf>,
    pub(super) eab: Option<RawEab>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawEab {
    pub(super) key_id: Option<String>,
    #[serde(deserialize_with = "secret")]
    pub(super) hmac_key: Option<Secret<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawKeys {
    pub(super) file: Option<PathBuf>,
    pub(super) required: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawCodex {
    pub(super) endpoint: Option<String>,
    pub(super) allow_plain_http: Option<bool>,
    pub(super) auth_file: Option<PathBuf>,
    #[serde(deserialize_with = "secret")]
    pub(super) bearer: Option<Secret<String>>,
    pub(super) account_id: Option<String>,
    #[serde(deserialize_with = "secret")]
    pub(super) proxy: Option<Secret<String>>,
    pub(super) user_agent: Option<String>,
    pub(super) originator: Option<String>,
    pub(super) ca_root: Option<PathBuf>,
    pub(super) connect_timeout: Option<Period>,
    pub(super) request_timeout: Option<Period>,
    pub(super) first_byte_timeout: Option<Period>,
    pub(super) time_per_mib: Option<Period>,
    pub(super) language: Option<String>,
    pub(super) models: Option<Vec<String>>,
    pub(super) strict: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) max_upload: Option<Size>,
    pub(super) max_duration: Option<Period>,
    pub(super) concurrency: Option<u64>,
    pub(super) queue: Option<u64>,
    pub(super) queue_wait: Option<Period>,
    pub(super) spool_dir: Option<PathBuf>,
    pub(super) spool_total: Option<Size>,
    pub(super) head_timeout: Option<Period>,
    pub(super) body_timeout: Option<Period>,
    pub(super) body_floor: Option<Size>,
    pub(super) idle_timeout: Option<Period>,
    pub(super) requests_per_connection: Option<u64>,
    pub(super) connections: Option<u64>,
    pub(super) connections_per_address: Option<u64>,
    pub(super) failed_keys_per_minute: Option<u64>,
    pub(super) max_head: Option<Size>,
    pub(super) max_uri: Option<Size>,
    pub(super) parts: Option<u64>,
    pub(super) part_head: Option<Size>,
    pub(super) field: Option<Size>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) format: LogFormat,
    pub(super) level: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawService {
    pub(super) name: Option<String>,
    pub(super) url: Option<String>,
    pub(super) kind: Option<ServiceKind>,
    pub(super) models: Vec<String>,
    pub(super) paths: Vec<String>,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What a service beside Codex speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceKind {
    /// OpenAI's transcription API.
    Openai,
    /// Codex's `/transcribe`.
    Codex,
    /// Anything: requests pass unchanged.
    Plain,
}

/// A number of bytes: an integer, or a string such as `"50MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub(super) u64);

/// A span of time: an integer of seconds, or a string such as `"5m"` or `"300s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Period(pub(super) Duration);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(SizeVisitor)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(PeriodVisitor)
    }
}

struct SizeVisitor;

impl Visitor<'_> for SizeVisitor {
    type Value = Size;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a size such as \"50MiB\", or a number of bytes")
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Size, E> {
        u64::try_from(bytes).map(Size).map_err(|_| E::custom("a size cannot be negative"))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
        match text.trim().parse::<ByteSize>() {
            Ok(size) => Ok(Size(size.as_u64())),
            Err(_) => Err(E::custom(format!("{text:?} is no size; write for example \"50MiB\""))),
        }
    }
}

struct PeriodVisitor;

impl Visitor<'_> for PeriodVisitor {
    type Value = Period;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time such as \"300s\" or \"5m\", or a number of seconds")
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Period, E> {
        match u64::try_from(seconds) {
            Ok(seconds) => Ok(Period(Duration::from_secs(seconds))),
            Err(_) => Err(E::custom("a time cannot be negative")),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Period, E> {
        let text = text.trim();
        if let Ok(seconds) = text.parse() {
            return Ok(Period(Duration::from_secs(seconds)));
        }
        match humantime::parse_duration(text) {
            Ok(time) => Ok(Period(time)),
            Err(_) => Err(E::custom(format!("{text:?} is no time; write for example \"300s\" or \"5m\""))),
        }
    }
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret<String>>, D::Error> {
    Option::<String>::deserialize(from).map(|text| text.map(Secret::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Pair {
        size: Size,
        period: Period,
    }

    fn pair(size: &str, period: &str) -> Result<(u64, Duration), String> {
        let pair: Pair = toml::from_str(&format!("size = {size}\nperiod = {period}\n"))
            .map_err(|error: toml::de::Error| error.message().to_owned())?;
        Ok((pair.size.0, pair.period.0))
    }

    #[test]
    fn sizes_and_times_are_numbers_or_strings_with_a_unit() {
        assert_eq!(pair("\"50MiB\"", "\"5m\""), Ok((50 << 20, Duration::from_secs(300))));
        assert_eq!(pair("1024", "300"), Ok((1024, Duration::from_secs(300))));
        assert_eq!(pair("\"8 KiB\"", "\"300\""), Ok((8192, Duration::from_secs(300))));
        assert_eq!(pair("0", "\"250ms\""), Ok((0, Duration::from_millis(250))));
    }

    #[test]
    fn what_is_no_size_or_time_is_told_with_an_example() {
        for (size, period, part) in [
            ("-1", "1", "cannot be negative"),
            ("1", "-1", "cannot be negative"),
            ("\"much\"", "1", "\"much\" is no size"),
            ("1", "\"5 parsecs\"", "is no time"),
            ("true", "1", "expected a size such as"),
            ("1", "[]", "expected a time such as"),
        ] {
            let why = pair(size, period).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
