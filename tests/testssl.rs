//! What testssl.sh (Debian package `testssl.sh`) finds wrong with the TLS of the program: nothing but what is listed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::print_stderr, clippy::disallowed_methods)]

#[path = "tls/edge.rs"]
#[allow(dead_code, reason = "shared with the tests of TLS")]
mod edge;

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use edge::{Edge, Folder};

/// Ids that are known to fail, one a line; `#` begins a comment.
const EXPECTED: &str = include_str!("fixtures/testssl.expected");

#[test]
fn testssl_finds_nothing_but_what_is_listed() {
    let edge = Edge::start(Folder::with(&["localhost", "127.0.0.1"]), "", "");
    let report = edge.folder.path("report.json");
    let run = Command::new("testssl")
        .args(["-p", "-s", "-f", "-U", "--quiet", "--warnings", "off", "--color", "0", "--ip", "127.0.0.1"])
        .arg("--add-ca")
        .arg(edge.folder.path("root.pem"))
        .arg("--jsonfile")
        .arg(&report)
        .arg(format!("localhost:{}", edge.https.port()))
        .stdin(Stdio::null())
        .output();
    let output = match run {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => {
            eprintln!("SKIPPED: testssl cannot be run (apt-get install testssl.sh): {error}");
            return;
        }
    };
    let found: Vec<serde_json::Value> = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let is = |finding: &serde_json::Value, severities: &[&str]| {
        finding["severity"].as_str().is_some_and(|severity| severities.contains(&severity))
    };
    let failing: BTreeSet<_> = found
        .iter()
        .filter(|finding| is(finding, &["LOW", "MEDIUM", "HIGH", "CRITICAL"]))
        .map(|finding| finding["id"].as_str().unwrap())
        .collect();
    let expected: BTreeSet<_> = EXPECTED
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|id| !id.is_empty())
        .collect();
    assert_eq!(failing, expected, "{output}");
    let fine = |id: &str| found.iter().any(|finding| finding["id"] == id && is(finding, &["OK"]));
    for id in ["TLS1_2", "TLS1_3", "ALPN_HTTP2", "heartbleed", "ROBOT"] {
        assert!(fine(id), "{id} was looked at: {output}");
    }
}
