//! Key files, whatever they hold.
//!
//! Any text is a list of keys or a list of faults, each one line, with the path of a key or a line, and none with a
//! value of the file's. A file that is accepted says the same with one more key behind it, whatever comments and
//! spelling it has, and that key is found, while the same with one bit changed is not. A file that is refused takes
//! no key. A key that the file has by its hash, in any case of its digits, is found by the text of the key, unless it
//! is disabled or has expired.
//!
//! Input: the file, in which `PLANTED` stands for a key and `HASHED` for its hash; with `#!` and a line before it,
//! that line is the name of the new key.

#![no_main]

use std::cmp::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use asr_edge_fuzz::base::secret::Secret;
use asr_edge_fuzz::choices::{line, plant};
use asr_edge_fuzz::keys::{KeyFileFault, Keys, with};
use libfuzzer_sys::{Corpus, fuzz_target};
use sha2::{Digest, Sha256};
use toml::{Table, Value};

const KEY: &str = "sk-asr-0c1f5ad8e2b34976";
const FRESH: &str = "sk-asr-fresh7d2e9b60";
/// The moment at which keys are looked up, in Unix seconds, and its day.
const NOW: Duration = Duration::from_secs(1_790_000_000);
const TODAY: &str = "2026-09-21";

fuzz_target!(|input: &[u8]| -> Corpus {
    let (name, text) = match input.strip_prefix(b"#!") {
        Some(rest) => line(rest),
        None => (&b"fresh"[..], input),
    };
    let hash = hex::encode(Sha256::digest(KEY));
    let text = String::from_utf8_lossy(&plant(text, KEY.as_bytes())).replace("HASHED", &hash);
    let now = UNIX_EPOCH + NOW;
    let parsed = Keys::parse(text.as_bytes());
    let name = std::str::from_utf8(name).unwrap_or_default();
    let added = with(text.as_bytes(), name, &Secret::new(FRESH.to_owned()), TODAY);
    match parsed {
        Ok(keys) => {
            found(&keys, &text, now);
            grown(keys, &text, name, added, now);
        }
        Err(fault) => {
            shown(&fault, &text, &hash);
            let bad_name = added.as_ref().err() == Some(&KeyFileFault::Name);
            assert!(bad_name || added.as_ref().err() == Some(&fault), "a key was added to what is refused");
        }
    }
    Corpus::Keep
});

/// Every key of the file, judged by the file's own tables.
fn found(keys: &Keys, text: &str, now: SystemTime) {
    let table: Table = text.parse().expect("TOML");
    let tables = table.get("key").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let each: Vec<_> = keys.each(now).collect();
    assert_eq!(each.len(), tables.len());
    for ((name, sha256, taken), table) in each.into_iter().zip(tables) {
        let text = |field: &str| table[field].as_str().expect("a string");
        assert_eq!((name, hex::encode(sha256)), (text("name"), text("sha256").to_ascii_lowercase()));
        assert!(
            (1..=64).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "{name:?}"
        );
        let disabled = table.get("disabled").is_some_and(|value| value.as_bool() == Some(true));
        let end = table.get("expires").map(|end| end.as_str().map_or_else(|| end.to_string(), str::to_owned));
        match end.as_deref().and_then(|end| end.get(..10)).map_or(Ordering::Less, |end| TODAY.cmp(end)) {
            Ordering::Less => assert_eq!(taken, !disabled, "{name}: until {end:?}"),
            Ordering::Greater => assert!(!taken, "{name}: until {end:?}"),
            Ordering::Equal => assert!(!(taken && disabled), "{name}: disabled"),
        }
        let is_planted = *sha256 == <[u8; 32]>::from(Sha256::digest(KEY));
        assert_eq!(is_planted && taken, keys.whose(KEY.as_bytes(), now) == Some(name), "{name}");
    }
    assert_eq!(keys.whose(FRESH.as_bytes(), now), None);
    assert_eq!(keys.whose(b"", now), None);
}

/// What the file is with a key more.
fn grown(keys: Keys, text: &str, name: &str, added: Result<Vec<u8>, KeyFileFault>, now: SystemTime) {
    let printable = |byte: u8| matches!(byte, b' '..=b'~') && !b"\"\\".contains(&byte);
    let good = (1..=64).contains(&name.len()) && name.bytes().all(printable) && name.trim() == name;
    let taken = keys.each(now).any(|(other, ..)| other == name);
    match added {
        Ok(longer) => {
            assert!(good && !taken && longer.starts_with(text.as_bytes()), "{name:?}");
            let parsed = Keys::parse(&longer).expect("a key file");
            assert_eq!(parsed, keys.and(name, FRESH.as_bytes()));
            assert_eq!(parsed.whose(FRESH.as_bytes(), now), Some(name));
            for bit in 0..FRESH.len() * 8 {
                let mut other = FRESH.as_bytes().to_vec();
                other[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(parsed.whose(&other, now), None);
            }
            let again = with(&longer, name, &Secret::new("other".to_owned()), TODAY);
            assert_eq!(again, Err(KeyFileFault::NameTaken));
        }
        Err(KeyFileFault::Name) => assert!(!good, "{name:?}"),
        Err(KeyFileFault::NameTaken) => assert!(taken, "{name:?}"),
        // Its keys, or none, stand in a list of another form, which takes no table behind it.
        Err(KeyFileFault::Invalid(_)) => {
            assert!(good && !taken && format!("{text}\n[[key]]\n").parse::<Table>().is_err(), "{text}");
        }
        Err(other) => panic!("{other}: of a text?"),
    }
}

/// How a fault is told.
fn shown(fault: &KeyFileFault, text: &str, hash: &str) {
    let KeyFileFault::Invalid(faults) = fault else { panic!("{fault}: of a text?") };
    assert!(!faults.is_empty());
    let table = text.parse::<Table>().ok();
    for fault in faults {
        assert!(!fault.contains(char::is_control), "{fault:?} is not one line");
        let (path, _) = fault.split_once(": ").expect("a path");
        match &table {
            None => {
                let line = path.strip_prefix("line ").and_then(|number| number.parse::<usize>().ok());
                assert!(
                    line.is_some_and(|line| (1..=text.matches('\n').count() + 1).contains(&line)),
                    "{fault}"
                );
            }
            Some(table) => {
                let known = table.keys().any(|field| path.starts_with(&*field.escape_debug().to_string()));
                assert!(known, "{fault}: not in the file");
            }
        }
    }
    // Names are told, and so a key in the place of one.
    let mut names = Vec::new();
    table.iter().for_each(|table| self::names(table, &mut names));
    for secret in [KEY, hash] {
        let leaks = secret.as_bytes().windows(12).any(|part| {
            let part = std::str::from_utf8(part).expect("ASCII");
            faults.iter().any(|fault| fault.contains(part)) && !names.iter().any(|name| name.contains(part))
        });
        assert!(!leaks, "{faults:?}");
    }
}

/// The names of all fields.
fn names<'a>(table: &'a Table, found: &mut Vec<&'a str>) {
    for (name, value) in table {
        found.push(name);
        let items = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        items.iter().filter_map(Value::as_table).for_each(|table| names(table, found));
    }
}
