//! The layer table of the design, held: which room may name which.
//!
//! Reads every path that the sources name, by `use` or in place, and fails on one that the room's layer forbids.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up; a room may name rooms of its own layer and below.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Base,
    Pure,
    State,
    Glue,
    /// Commands and what stands beside the flow: the binary, the demonstration, the stand-in upstream.
    Top,
}

/// Rooms by their path, the longest match counts.
const ROOMS: [(&str, Layer); 19] = [
    ("base", Layer::Base),
    ("route", Layer::Pure),
    ("translate", Layer::Pure),
    ("answer", Layer::Pure),
    ("acme::due", Layer::Pure),
    ("accept::forwarded", Layer::Pure),
    ("accept::proxy_protocol", Layer::Pure),
    ("tls::keypair", Layer::Pure),
    ("config", Layer::State),
    ("tls", Layer::State),
    ("acme", Layer::State),
    ("authenticate", Layer::State),
    ("upstream", Layer::State),
    ("observe", Layer::State),
    ("preflight", Layer::State),
    ("accept", Layer::Glue),
    ("respond", Layer::Glue),
    ("gateway", Layer::Glue),
    ("", Layer::Top),
];

/// What a pure room may not name: no clock, no randomness, no file, no socket, no runtime, no log.
const IMPURE: [&str; 13] = [
    "tokio",
    "tokio_rustls",
    "tracing",
    "std::fs",
    "std::net",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::*",
    "std::env",
    "std::process",
    "crate::base::clock",
    "crate::base::file",
    "crate::base::random",
];

#[test]
fn no_room_names_what_its_layer_forbids() {
    let sources = sources();
    assert!(sources.len() > 40, "only {} files found", sources.len());
    let mut all = Vec::new();
    for (module, text) in &sources {
        all.extend(breaches(module, text).into_iter().map(|breach| format!("{module} names {breach}")));
    }
    assert!(all.is_empty(), "{all:#?}");
}

#[test]
fn every_file_is_in_a_room_that_the_table_knows() {
    let beside = ["main", "", "stub", "demo", "probe", "bench", "transcribe", "capture"];
    for (module, _) in sources() {
        let room = module.split("::").next().unwrap();
        let known =
            ROOMS.iter().any(|(name, _)| name.split("::").next() == Some(room)) || beside.contains(&room);
        assert!(known, "{module}: give its room a place in the table");
    }
}

#[test]
fn the_check_finds_every_kind_of_breach() {
    for (module, text) in [
        ("translate::form", "use tokio::io::AsyncRead;"),
        ("translate", "use std::{fmt, fs};"),
        ("answer", "fn f() { std::time::SystemTime::now(); }"),
        ("answer", "use std::time::{Duration, Instant};"),
        ("answer", "use std::time::{self as t, Duration}; fn f() { let x = std::net::IpAddr; }"),
        ("answer", "use std::time::*;"),
        ("route", "use crate::base::{clock, secret::Secret};"),
        ("route", "use super::config::Config;"),
        ("translate::form", "fn f() { tracing::info!(\"x\"); }"),
        ("translate::form", "use super::super::upstream::Queue;"),
        ("upstream::queue", "use pingora::proxy::Session;"),
        ("upstream::queue", "fn f(x: &pingora_core::Error) {}"),
        ("config", "use crate::gateway::Gateway;"),
        ("authenticate", "use crate::{answer::Fault, respond};"),
        ("base::file", "use crate::config::Config;"),
        ("base", "use pingora::Error;"),
        ("stub::serve", "use pingora::Error;"),
        ("gateway", "use crate::stub::Stub;"),
        ("accept::forwarded", "use tokio::net::TcpStream;"),
        ("translate", "use base::clock;\nuse crate::base;"),
    ] {
        assert!(!breaches(module, text).is_empty(), "{module}: {text}");
    }
    for (module, text) in [
        ("translate", "use std::time::Duration;\nuse std::collections::HashMap;"),
        ("answer", "use std::time::{Duration, UNIX_EPOCH};"),
        (
            "answer",
            "// use tokio::io;\n/* std::fs */ const X: &str = \"std::fs::read\"; const Y: &str = r#\"tokio::\"#;",
        ),
        ("answer", "fn f<'a>(x: &'a str) -> char { '\"' } // std::fs"),
        ("translate", "pub fn f() {}\n#[cfg(test)]\nmod tests {\n    use tokio::io;\n}\n"),
        ("translate::form", "use super::asked::Asked;\nuse crate::base::secret::Secret;"),
        ("upstream", "use tokio::sync::Semaphore;\nuse crate::answer::Fault;"),
        ("gateway::serve", "use pingora::server::Server;\nuse crate::upstream::Upstream;"),
        ("base::clock", "use std::time::SystemTime;"),
    ] {
        assert_eq!(breaches(module, text), Vec::<String>::new(), "{module}: {text}");
    }
}

/// The paths that a module's source names and its layer forbids.
fn breaches(module: &str, source: &str) -> Vec<String> {
    let layer = layer(module);
    let paths = paths(&code(source)).into_iter().map(|path| resolve(module, &path));
    let mut found: Vec<String> = paths.filter(|path| forbidden(layer, path)).collect();
    found.sort();
    found.dedup();
    found
}

fn forbidden(layer: Layer, path: &str) -> bool {
    let first = path.split("::").next().unwrap_or_default();
    let is_pingora = first == "pingora" || first.starts_with("pingora_");
    // Its parent imported whole hides which part is used.
    let hides = layer == Layer::Pure && ["std::time", "crate::base"].contains(&path);
    is_pingora && layer != Layer::Glue
        || hides
        || layer == Layer::Pure && IMPURE.iter().any(|impure| is_below(path, impure))
        || path.strip_prefix("crate::").is_some_and(|room| layer < self::layer(room))
}

fn layer(module: &str) -> Layer {
    ROOMS.iter().find(|(room, _)| room.is_empty() || is_below(module, room)).unwrap().1
}

fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The path from the crate's root on, where it is one of ours.
fn resolve(module: &str, path: &str) -> String {
    let mut at: Vec<&str> = module.split("::").filter(|part| !part.is_empty()).collect();
    let mut relative = false;
    let mut rest = path;
    loop {
        rest = match rest.split_once("::") {
            Some(("self", rest)) => rest,
            Some(("super", rest)) => {
                at.pop();
                rest
            }
            _ => break,
        };
        relative = true;
    }
    if !relative {
        return path.to_owned();
    }
    at.push(rest);
    format!("crate::{}", at.join("::"))
}

/// Every path of two or more parts, and every part of a `use` tree.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(at) = find_word(rest, "use") {
        let (before, declaration) = rest.split_at(at);
        inline(before, &mut found);
        let end = declaration.find(';').unwrap_or(declaration.len());
        expand("", declaration["use".len()..end].trim(), &mut found);
        rest = &declaration[end..];
    }
    inline(rest, &mut found);
    found
}

/// A `use` tree, leaf by leaf.
fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let tree = tree.trim();
    if let Some((head, group)) = tree.split_once('{') {
        let group = group.trim_end().strip_suffix('}').unwrap_or(group);
        let prefix = format!("{prefix}{}", head.trim());
        let (mut depth, mut start) = (0_usize, 0);
        for (at, character) in group.char_indices().chain([(group.len(), ',')]) {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !group[start..at].trim().is_empty() {
                        expand(&prefix, &group[start..at], found);
                    }
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let name = tree.split_whitespace().next().unwrap_or_default();
    let path = format!("{prefix}{name}");
    found.push(path.strip_suffix("::self").unwrap_or(&path).trim_start_matches("::").to_owned());
}

/// Paths outside `use`: words joined by `::`.
fn inline(code: &str, found: &mut Vec<String>) {
    let is_part = |character: char| character.is_alphanumeric() || character == '_' || character == ':';
    let words = code.split(|character| !is_part(character));
    found.extend(
        words.map(|word| word.trim_matches(':')).filter(|word| word.contains("::")).map(str::to_owned),
    );
}

fn find_word(code: &str, word: &str) -> Option<usize> {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = code.as_bytes();
    code.match_indices(word).map(|(at, _)| at).find(|at| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        !is_word(before) && !is_word(bytes.get(at + word.len()))
    })
}

/// The source without comments, literals and tests.
fn code(source: &str) -> String {
    let mut code = String::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = skip(rest);
        if skipped > 0 {
            code.push(' ');
            rest = &rest[skipped..];
            continue;
        }
        code.push(first);
        rest = &rest[first.len_utf8()..];
    }
    without_tests(&code)
}

/// How long the comment or literal is that begins here.
fn skip(text: &str) -> usize {
    let to = |end: &str, from: usize| text[from..].find(end).map_or(text.len(), |at| from + at + end.len());
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return to("*/", 2);
    }
    if let Some(hashes) = text.strip_prefix('r').map(|rest| rest.len() - rest.trim_start_matches('#').len())
        && text[1 + hashes..].starts_with('"')
    {
        return to(&format!("\"{}", "#".repeat(hashes)), hashes + 2);
    }
    if text.starts_with('"') {
        let mut escaped = false;
        for (at, character) in text.char_indices().skip(1) {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => return at + 1,
                _ => {}
            }
        }
        return text.len();
    }
    // A character, not a lifetime.
    let mut characters = text.char_indices();
    match (characters.next(), characters.next(), characters.next()) {
        (Some((_, '\'')), Some((_, '\\')), Some(_)) => to("'", 3),
        (Some((_, '\'')), Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// Test modules stand at the foot of their file.
fn without_tests(code: &str) -> String {
    let mut kept = String::new();
    let mut lines = code.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.contains("mod ")) {
            if lines.peek().is_some_and(|next| next.trim_end().ends_with(';')) {
                lines.next();
                continue;
            }
            break;
        }
        kept.push_str(line);
        kept.push('\n');
    }
    kept
}

/// Every source file, by its module's path.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    let module = |path: &PathBuf| {
        let parts = path.strip_prefix(&root).unwrap().with_extension("");
        let parts: Vec<String> = parts.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        parts.join("::")
    };
    let files = files.into_iter().map(|path| (module(&path), fs::read_to_string(&path).unwrap()));
    files.filter(|(module, _)| module != "lib" && !module.split("::").any(|part| part == "tests")).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
