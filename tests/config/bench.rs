//! A folder with a login, and flags, variables and a file over it.

use std::collections::HashMap;
use std::fs;

use asr_edge::config::{Config, ConfigFault, ServeFlags};
use clap::Parser;
use tempfile::TempDir;

#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    flags: ServeFlags,
}

/// A folder with a login in it, flags and variables over it, and no process environment.
pub(crate) struct Bench {
    pub(crate) folder: TempDir,
    variables: HashMap<&'static str, String>,
    arguments: Vec<String>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("codex")).unwrap();
        fs::write(folder.path().join("codex/auth.json"), "{}").unwrap();
        let home = folder.path().join("codex").display().to_string();
        Self { folder, variables: HashMap::from([("CODEX_HOME", home)]), arguments: Vec::new() }
    }

    pub(crate) fn file(mut self, text: &str) -> Self {
        let path = self.folder.path().join("edge.toml");
        fs::write(&path, text).unwrap();
        self.arguments.extend(["--config".to_owned(), path.display().to_string()]);
        self
    }

    pub(crate) fn flags(mut self, flags: &str) -> Self {
        self.arguments.extend(flags.split_whitespace().map(str::to_owned));
        self
    }

    pub(crate) fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.variables.insert(name, value.to_owned());
        self
    }

    pub(crate) fn without(mut self, name: &'static str) -> Self {
        self.variables.remove(name);
        self
    }

    pub(crate) fn load(&self) -> Result<Config, Vec<ConfigFault>> {
        let command = std::iter::once("serve").chain(self.arguments.iter().map(String::as_str));
        let flags = Serve::try_parse_from(command).unwrap_or_else(|error| panic!("{error}")).flags;
        Config::load(&flags, &|name| self.variables.get(name).cloned())
    }

    pub(crate) fn config(&self) -> Config {
        self.load().unwrap_or_else(|faults| panic!("{faults:#?}"))
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.load().expect_err("it loads").iter().map(ToString::to_string).collect()
    }
}

/// Exactly one fault, at this path, that says this.
pub(crate) fn assert_fault(bench: &Bench, path: &str, part: &str) {
    let faults = bench.faults();
    assert_eq!(faults.len(), 1, "expected one fault at {path}: {faults:#?}");
    assert!(
        faults[0].starts_with(&format!("{path}: ")) && faults[0].contains(part),
        "{path}, {part}: {faults:#?}"
    );
}
