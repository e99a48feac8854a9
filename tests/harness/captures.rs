//! Real requests of real clients, byte for byte, and what each of them must parse to.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// One captured request.
pub(crate) struct Capture {
    pub(crate) name: String,
    /// The connection's bytes as they came.
    pub(crate) bytes: Vec<u8>,
    /// What an independent reading says about it.
    pub(crate) oracle: Value,
}

/// All captures.
pub(crate) fn captures() -> Vec<Capture> {
    let index: Value = serde_json::from_slice(&fs::read(folder().join("index.json")).unwrap()).unwrap();
    let index = index.as_object().unwrap();
    let load = |(name, oracle): (&String, &Value)| Capture {
        name: name.clone(),
        bytes: fs::read(folder().join(name)).unwrap(),
        oracle: oracle.clone(),
    };
    index.iter().map(load).collect()
}

impl Capture {
    /// A raw HTTP/2 connection with the same request as this one, if there is any.
    pub(crate) fn is_http2(&self) -> bool {
        has_extension(&self.name, "h2")
    }

    /// The values of a text field.
    pub(crate) fn values(&self, name: &str) -> Vec<&str> {
        let parts = self.oracle["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
        parts.iter().filter(|part| part["name"] == name).filter_map(|part| part["value"].as_str()).collect()
    }

    /// The hash of the file's bytes.
    pub(crate) fn audio_hash(&self) -> Option<&str> {
        let parts = self.oracle["parts"].as_array()?;
        parts.iter().find(|part| part["name"] == "file")?["sha256"].as_str()
    }

    /// Raw HTTP/2 connections; the index lists HTTP/1 alone.
    pub(crate) fn http2() -> Vec<(String, Vec<u8>)> {
        let names = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<(String, Vec<u8>)> = names
            .filter(|path| has_extension(&path.to_string_lossy(), "h2"))
            .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
            .collect();
        found.sort();
        found
    }

    /// The audio that almost all of them carry.
    pub(crate) fn fixture() -> Vec<u8> {
        fs::read(folder().join("fixture-2000-bytes.wav")).unwrap()
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/captures")
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name).extension().is_some_and(|found| found == extension)
}
