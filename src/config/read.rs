//! From the file on disk to its plain shape, with every fault of grammar, name and type in it.
//!
//! serde stops at the first thing it does not like. To report all, what it stumbled over is taken out of the parsed
//! table and the rest is tried again, until nothing is left to complain about.

use std::io;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use serde::de::IntoDeserializer;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

use super::ConfigFault;
use super::raw::Raw;
use crate::base::file;

/// Longest file that is read, bytes: config, certificates.
const MAX_FILE: u64 = 1 << 20;

/// Reads and parses the config file. Faults beside a `Raw` are of names and types: the rest of the file holds.
pub(super) fn file(path: &Path) -> Result<(Raw, Vec<ConfigFault>), Vec<ConfigFault>> {
    let at_file = |why: String| vec![ConfigFault { path: path.display().to_string(), why }];
    let bytes = bounded(path).map_err(|error| at_file(format!("cannot be read: {error}")))?;
    let text = str::from_utf8(&bytes).map_err(|_| at_file("is not UTF-8".to_owned()))?;
    parse(text).map_err(|faults| {
        faults.into_iter().map(|why| ConfigFault { path: path.display().to_string(), why }).collect()
    })
}

/// Reads a file of at most 1 MiB.
pub(super) fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    file::read(path, MAX_FILE).map_err(|error| match error.kind() {
        kind @ io::ErrorKind::FileTooLarge => io::Error::new(kind, "it is longer than 1 MiB"),
        _ => error,
    })
}

/// `Err`: no TOML, one line each. Values are never quoted from the text: they may be secrets.
fn parse(text: &str) -> Result<(Raw, Vec<ConfigFault>), Vec<String>> {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors
            .iter()
            .map(|error| format!("{}{}", place(text, error.span()), error.message()))
            .collect());
    }
    let mut faults = sections(table.get_mut(), text);
    loop {
        let error = match Raw::deserialize(Deserializer::from(table.clone()).into_deserializer()) {
            Ok(raw) => return Ok((raw, faults)),
            Err(error) => error,
        };
        let path = error.span().and_then(|span| take_out(table.get_mut(), &span, ""));
        let why = format!("{}{}", place(text, error.span()), plain_words(error.message(), path.as_deref()));
        let Some(path) = path else {
            // Nothing to take out, so nothing more can be learnt.
            return Err(vec![why]);
        };
        faults.push(ConfigFault { path, why });
    }
}

/// Takes out whatever is no table where a section belongs. serde would take a list for one, its items for the section's
/// keys in order, and quote what it does not like although it may be a secret.
fn sections(table: &mut DeTable<'_>, text: &str) -> Vec<ConfigFault> {
    let mut faults = Vec::new();
    let mut fault = |path: String, at: Range<usize>, form: &str| {
        let why = format!("{}must be a table: write {form}", place(text, Some(at)));
        faults.push(ConfigFault { path, why });
    };
    for name in ["server", "tls", "acme", "keys", "codex", "limits", "log"] {
        if let Some(at) = no_table(table, name) {
            fault(name.to_owned(), at, &format!("[{name}]"));
        }
    }
    if let Some(DeValue::Table(acme)) = table.get_mut("acme").map(Spanned::get_mut)
        && let Some(at) = no_table(acme, "eab")
    {
        fault("acme.eab".to_owned(), at, "[acme.eab]");
    }
    let wrong = match table.get("service").map(|value| (value.get_ref(), value.span())) {
        Some((DeValue::Array(items), _)) => {
            let mut items = items.iter().enumerate();
            items
                .find(|(_, item)| !item.get_ref().is_table())
                .map(|(n, item)| (format!("service[{n}]"), item.span()))
        }
        Some((_, at)) => Some(("service".to_owned(), at)),
        None => None,
    };
    if let Some((path, at)) = wrong {
        table.remove("service");
        fault(path, at, "[[service]]");
    }
    faults
}

/// Takes a value out that is no table, and says where it stood.
fn no_table(table: &mut DeTable<'_>, name: &str) -> Option<Range<usize>> {
    let at = table.get(name).filter(|value| !value.get_ref().is_table())?.span();
    table.remove(name);
    Some(at)
}

/// Takes what stands at `at` out of the table and gives its key path.
fn take_out(table: &mut DeTable<'_>, at: &Range<usize>, above: &str) -> Option<String> {
    let mut doomed = None;
    for (key, value) in table.iter_mut() {
        let name = key.get_ref().to_string();
        let shown = if name.is_empty() { "\"\"" } else { &name };
        let path = if above.is_empty() { shown.to_owned() } else { format!("{above}.{shown}") };
        let mut hit = key.span() == *at;
        let mut item_hit = None;
        match value.get_mut() {
            _ if hit => {}
            DeValue::Table(inner) => {
                if let Some(path) = take_out(inner, at, &path) {
                    return Some(path);
                }
            }
            DeValue::Array(items) => {
                for (n, item) in items.iter_mut().enumerate() {
                    let path = format!("{path}[{n}]");
                    if let DeValue::Table(inner) = item.get_mut()
                        && let Some(path) = take_out(inner, at, &path)
                    {
                        return Some(path);
                    }
                    if item.span() == *at {
                        item_hit = Some(path);
                        break;
                    }
                }
            }
            _ => {}
        }
        hit |= value.span() == *at;
        if hit || item_hit.is_some() {
            // With an item the whole list goes: the others would be numbered anew.
            doomed = Some((name, item_hit.unwrap_or(path)));
            break;
        }
    }
    let (name, path) = doomed?;
    table.remove(name.as_str());
    Some(path)
}

/// serde's words, with a guess for a name that is unknown and without the value where that may be a secret.
fn plain_words(message: &str, path: Option<&str>) -> String {
    if matches!(path, Some("codex.bearer" | "codex.proxy" | "acme.eab.hmac_key")) {
        return "must be a string".to_owned();
    }
    let Some(rest) = message.strip_prefix("unknown field ") else {
        return message.to_owned();
    };
    let mut names = rest.split('`').skip(1).step_by(2);
    let unknown = names.next().unwrap_or_default();
    let known: Vec<&str> = names.collect();
    let near = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(unknown, name), name))
        .filter(|(distance, name)| *distance <= 2 || (unknown.len() > 2 && name.contains(unknown)))
        .min();
    match near {
        Some((_, name)) => format!("unknown key; did you mean `{name}`?"),
        None => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// `line 3, column 5: `, counted from one, columns in characters.
fn place(text: &str, span: Option<Range<usize>>) -> String {
    let Some((before, _)) = span.and_then(|span| text.split_at_checked(span.start)) else {
        return String::new();
    };
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let (_, faults) = parse(text).unwrap_or_else(|why| panic!("{why:?}"));
        faults.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_wrong_name_and_type_is_reported_at_once_with_its_place() {
        let found = faults(
            "[server]\nhttp = \"127.0.0.1:1\"\n\n[codex]\nendpont = \"x\"\nmodels = [\"a\", 2]\nstrict = \"yes\"\n\
             [limits]\nmax_upload = -1\n[[service]]\nname = \"a\"\n[[service]]\nname = 5\nkind = \"grpc\"\n[proxy]\n",
        );
        assert_eq!(
            found,
            [
                "codex.endpont: line 5, column 1: unknown key; did you mean `endpoint`?",
                "codex.models[1]: line 6, column 16: invalid type: integer `2`, expected a string",
                "codex.strict: line 7, column 10: invalid type: string \"yes\", expected a boolean",
                "limits.max_upload: line 9, column 14: a size cannot be negative",
                "proxy: line 15, column 2: unknown key; known here: server, tls, acme, keys, codex, limits, log, service",
                "server.http: line 2, column 8: invalid type: string \"127.0.0.1:1\", expected a sequence",
                "service[1].kind: line 14, column 8: unknown variant `grpc`, expected one of `openai`, `codex`, `plain`",
                "service[1].name: line 13, column 8: invalid type: integer `5`, expected a string",
            ]
        );
    }

    #[test]
    fn every_fault_of_grammar_is_reported_and_no_value_is_quoted() {
        let why = parse("[codex]\nbearer = eyPLANTED.x\nmodels = [\n\n[log\n").err().unwrap();
        assert!(why.len() >= 2, "{why:?}");
        assert!(why.iter().any(|line| line.starts_with("line 2, column")), "{why:?}");
        assert!(!why.concat().contains("PLANTED"), "{why:?}");
    }

    #[test]
    fn a_secret_of_the_wrong_type_is_not_quoted() {
        assert_eq!(
            faults("[codex]\nbearer = 998877\nproxy = 665544\n[acme.eab]\nhmac_key = 1\n"),
            [
                "acme.eab.hmac_key: line 5, column 12: must be a string",
                "codex.bearer: line 2, column 10: must be a string",
                "codex.proxy: line 3, column 9: must be a string"
            ]
        );
    }

    #[test]
    fn a_section_that_is_no_table_is_told_with_its_right_form_and_not_quoted() {
        let known = faults("x = 1\n").concat();
        let (_, known) = known.split_once("known here: ").unwrap();
        for section in known.split(", ").filter(|section| *section != "service") {
            for text in [
                format!("{section} = []\n"),
                format!("[[{section}]]\n"),
                format!("{section} = \"PLANTED\"\n"),
            ] {
                let found = faults(&text);
                assert_eq!(found.len(), 1, "{found:?}");
                let form = format!("must be a table: write [{section}]");
                assert!(
                    found[0].starts_with(&format!("{section}: line 1")) && found[0].ends_with(&form),
                    "{found:?}"
                );
            }
        }
        assert_eq!(
            faults(
                "service = [[\"PLANTED\"]]\nacme.eab = [\"k\", 998877]\ncodex = [\"x\", true, \"f\", 998877]\n"
            ),
            [
                "codex: line 3, column 9: must be a table: write [codex]",
                "acme.eab: line 2, column 12: must be a table: write [acme.eab]",
                "service[0]: line 1, column 12: must be a table: write [[service]]",
            ]
        );
        assert_eq!(
            faults("[service]\nname = \"a\"\n"),
            ["service: line 1, column 1: must be a table: write [[service]]"]
        );
    }

    #[test]
    fn a_key_without_a_name_has_a_path_too() {
        let found = faults("'' = 1\n[limits]\n'' = 1\n");
        assert!(found[0].starts_with("\"\": line 1"), "{found:?}");
        assert!(found[1].starts_with("limits.\"\": line 3"), "{found:?}");
    }

    #[test]
    fn a_table_where_a_value_belongs_and_the_other_way_round_are_told() {
        assert_eq!(faults("limits = 3\n").len(), 1);
        let found = faults("[keys.file]\nname = 1\n[log]\nlevel = \"info\"\n");
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("keys.file: line 1"), "{found:?}");
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(MAX_FILE + 1).unwrap();
        assert!(bounded(file.path()).unwrap_err().to_string().contains("1 MiB"));
        file.as_file().set_len(MAX_FILE).unwrap();
        assert_eq!(bounded(file.path()).unwrap().len() as u64, MAX_FILE);
    }
}
