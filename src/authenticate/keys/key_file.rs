//! The text of a key file: TOML tables `[[key]]` with a name and the hash of a key, never the key.

use std::collections::HashMap;
use std::collections::hash_map;
use std::io;
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use toml::{Table, Value};

use super::entry::Entry;
use crate::base::secret::Secret;

/// Why a key file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileFault {
    /// It cannot be read, or is longer than 1 MiB.
    #[error("the key file cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    /// It cannot be written.
    #[error("the key file cannot be written: {0}")]
    Unwritable(io::ErrorKind),
    /// Every fault in it, each with its key path (`key[2].sha256: ...`, counted from 0) and without the value.
    #[error("{}", .0.join("; "))]
    Invalid(Vec<String>),
    /// The name is not one to 64 printable ASCII characters without quotes, backslashes or spaces at its ends.
    #[error(
        "a key's name is 1 to 64 printable ASCII characters without quotes, backslashes or spaces at the ends"
    )]
    Name,
    /// A key of this name is there.
    #[error("the file has a key of this name already")]
    NameTaken,
}

/// Whether a key may have this name: it stands in logs, metrics and the key file as it is.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
        && name.trim() == name
}

/// Reads the text of the file; all its faults at once.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Entry>, KeyFileFault> {
    let invalid = |fault: String| KeyFileFault::Invalid(vec![fault]);
    let text = std::str::from_utf8(text).map_err(|_| invalid("the file is not UTF-8".into()))?;
    // The parser's own display shows the line, in which someone may have put a key.
    let file: Table = text.parse().map_err(|error: toml::de::Error| {
        let line =
            error.span().and_then(|span| text.get(..span.start)).map_or(0, |head| head.matches('\n').count());
        invalid(format!("line {}: this is not TOML, or a key stands twice", line + 1))
    })?;
    let mut faults = Vec::new();
    let mut entries = Vec::new();
    for (field, value) in &file {
        match value {
            Value::Array(tables) if field == "key" => {
                for (index, table) in tables.iter().enumerate() {
                    entries.extend(entry(index, table, &mut faults).map(|entry| (index, entry)));
                }
            }
            _ if field == "key" => faults.push("key: write each key as a table, [[key]]".into()),
            _ => {
                let field = field.escape_debug();
                faults.push(format!("{field}: unknown; the file holds [[key]] tables only"));
            }
        }
    }
    let by_name = |entry: &Entry| entry.name.to_string();
    twice("name", entries.iter().map(|(index, entry)| (*index, by_name(entry))), &mut faults);
    twice("sha256", entries.iter().map(|(index, entry)| (*index, entry.sha256)), &mut faults);
    if faults.is_empty() {
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    } else {
        Err(KeyFileFault::Invalid(faults))
    }
}

/// The text with one more key at its end. What stands in it stays as it is, comments and all.
///
/// # Errors
/// The name cannot be used or is taken; the text has faults.
pub(super) fn with(
    text: &[u8],
    name: &str,
    key: &Secret<String>,
    created: &str,
) -> Result<Vec<u8>, KeyFileFault> {
    if !is_name(name) {
        return Err(KeyFileFault::Name);
    }
    if parse(text)?.iter().any(|entry| &*entry.name == name) {
        return Err(KeyFileFault::NameTaken);
    }
    let hash = hex::encode(Sha256::digest(key.expose()));
    let table = format!("[[key]]\nname = \"{name}\"\nsha256 = \"{hash}\"\ncreated = \"{created}\"\n");
    let gap: &[u8] = match text {
        [] => b"",
        [.., b'\n'] => b"\n",
        _ => b"\n\n",
    };
    let text = [text, gap, table.as_bytes()].concat();
    // A file that lists its keys in another TOML form (`key = []`) takes no table behind it.
    parse(&text)?;
    Ok(text)
}

/// Reads one table; `None` when it has a fault.
fn entry(index: usize, table: &Value, faults: &mut Vec<String>) -> Option<Entry> {
    let before = faults.len();
    let mut fault = |field: &str, what: &str| faults.push(format!("key[{index}].{field}: {what}"));
    let Some(table) = table.as_table() else {
        faults.push(format!("key[{index}]: write each key as a table, [[key]]"));
        return None;
    };
    let known = ["name", "sha256", "created", "expires", "disabled"];
    for field in table.keys().filter(|field| !known.contains(&field.as_str())) {
        // A name may hold anything, between quotes.
        fault(&field.escape_debug().to_string(), &format!("unknown; known are {}", known.join(", ")));
    }
    let name = table.get("name").and_then(Value::as_str).filter(|name| is_name(name));
    if name.is_none() {
        let what =
            "1 to 64 printable ASCII characters without quotes, backslashes or spaces at the ends are needed";
        fault("name", what);
    }
    let sha256 = table.get("sha256").and_then(Value::as_str);
    let hash = sha256.and_then(|text| hex::decode(text).ok()).and_then(|bytes| bytes.try_into().ok());
    if hash.is_none() {
        let is_key = sha256.is_some_and(|text| text.starts_with("sk-"));
        let key = "this is a key; its SHA-256 hash is needed (printf %s KEY | sha256sum)";
        fault("sha256", if is_key { key } else { "64 hexadecimal digits are needed" });
    }
    let mut moment = |field: &str| {
        let value = table.get(field)?;
        let time = time(value);
        if time.is_none() {
            fault(field, "a date (2027-01-01) or a time in UTC (2027-01-01T12:00:00Z) is needed");
        }
        time
    };
    moment("created");
    let expires = moment("expires");
    let disabled = table.get("disabled").map_or(Some(false), Value::as_bool);
    if disabled.is_none() {
        fault("disabled", "true or false is needed");
    }
    if faults.len() > before {
        return None;
    }
    Some(Entry { name: name?.into(), sha256: hash?, expires, disabled: disabled? })
}

/// A date, which means its first moment in UTC, or a time in UTC; as text or as TOML has it.
fn time(value: &Value) -> Option<SystemTime> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Datetime(at) => at.to_string(),
        _ => return None,
    };
    let text = if text.len() == 10 { text + "T00:00:00Z" } else { text };
    humantime::parse_rfc3339(&text).ok()
}

/// Adds a fault for every value that an earlier table has too.
fn twice<T: std::hash::Hash + Eq>(
    field: &str,
    values: impl Iterator<Item = (usize, T)>,
    faults: &mut Vec<String>,
) {
    let mut seen = HashMap::new();
    for (index, value) in values {
        match seen.entry(value) {
            hash_map::Entry::Occupied(first) => {
                faults.push(format!("key[{index}].{field}: the same as key[{}].{field}", first.get()));
            }
            hash_map::Entry::Vacant(place) => {
                place.insert(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const HASH: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

    fn faults(text: &str) -> Vec<String> {
        match parse(text.as_bytes()) {
            Err(KeyFileFault::Invalid(faults)) => faults,
            other => panic!("no faults: {other:?}"),
        }
    }

    fn one(rest: &str) -> Entry {
        let text = format!("[[key]]\nname = \"a\"\nsha256 = \"{HASH}\"\n{rest}");
        parse(text.as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn an_entry_may_be_dated_and_disabled() {
        let entry = one("created = \"2026-11-20\"\nexpires = \"1970-01-02\"\ndisabled = true");
        assert_eq!(entry.expires, UNIX_EPOCH.checked_add(Duration::from_secs(86400)));
        assert!(entry.disabled && !one("").disabled);
        assert_eq!(hex::encode(entry.sha256), HASH);
    }

    #[test]
    fn a_moment_may_be_a_date_or_a_time_and_toml_or_text() {
        for value in ["1970-01-02", "\"1970-01-02\"", "1970-01-02T00:00:00Z", "\"1970-01-02T00:00:00Z\""] {
            let end = one(&format!("expires = {value}")).expires;
            assert_eq!(end, UNIX_EPOCH.checked_add(Duration::from_secs(86400)), "{value}");
        }
    }

    #[test]
    fn a_key_is_taken_until_the_moment_it_expires() {
        let entry = one("expires = \"1970-01-02\"");
        let at = |seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap();
        assert!(entry.is_taken_at(at(86399)) && !entry.is_taken_at(at(86400)));
        assert!(!one("disabled = true").is_taken_at(at(0)));
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_path_and_without_the_value() {
        let text = format!(
            "version = 1\n\
             [[key]]\nname = \"a\"\nsha256 = \"{HASH}\"\n\
             [[key]]\nname = \" b\"\nsha256 = \"sk-planted\"\nexpires = \"planted\"\ndisabled = \"planted\"\nx = 1\n\
             [[key]]\nsha256 = \"planted\"\n\
             [[key]]\nname = \"a\"\nsha256 = \"{HASH}\"\n"
        );
        let faults = faults(&text);
        let paths: Vec<&str> = faults.iter().filter_map(|fault| fault.split(':').next()).collect();
        let expected = [
            "key[1].x",
            "key[1].name",
            "key[1].sha256",
            "key[1].expires",
            "key[1].disabled",
            "key[2].name",
            "key[2].sha256",
            "version",
            "key[3].name",
            "key[3].sha256",
        ];
        assert_eq!(paths, expected);
        assert!(!faults.iter().any(|fault| fault.contains("planted")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.contains("this is a key")), "{faults:?}");
    }

    #[test]
    fn a_fault_is_one_line_whatever_the_field_is_called() {
        let faults = faults("\"a\\nb\" = 1\n[[key]]\n\"\\u001b[2J\" = 1\n");
        assert!(faults.iter().any(|fault| fault.starts_with("a\\nb: unknown")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.starts_with("key[0].\\u{1b}[2J: unknown")), "{faults:?}");
    }

    #[test]
    fn what_is_not_toml_is_told_by_its_line_alone() {
        assert!(
            faults("[[key]]\nname = planted\n")
                .iter()
                .all(|f| f.starts_with("line 2") && !f.contains("planted"))
        );
        assert_eq!(faults("key = 1"), ["key: write each key as a table, [[key]]"]);
        assert_eq!(faults("key = [1]"), ["key[0]: write each key as a table, [[key]]"]);
    }

    #[test]
    fn names_are_plain() {
        for name in ["a", "Jane's phone", "a+b@c.de"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", " a", "a ", "a\"b", "a\\b", "a\nb", "ä", &"a".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
