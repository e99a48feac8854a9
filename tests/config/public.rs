//! HTTPS, certificates and what a public server may not do without.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use asr_edge::config::{Challenge, Identifier, KeySource, explain};

use crate::bench::{Bench, assert_fault};
use crate::{example, uncommented};

/// A public server in few lines; tests put more behind it.
const PUBLIC: &str = "[keys]\nfile = \"keys.toml\"\n[server]\nhttps = [\"[::]:443\"]\n";
const ACME: &str = "[acme]\nstate = \"state\"\naccept_terms = true\n";
const NAME: &str = "domains = [\"asr.example.com\"]\n";

fn bench(file: &str) -> Bench {
    let bench = Bench::new();
    for name in ["keys.toml", "chain.pem", "key.pem"] {
        fs::write(bench.folder.path().join(name), "").unwrap();
    }
    bench.file(file)
}

fn public(more: &str) -> Bench {
    bench(&format!("{PUBLIC}{more}"))
}

fn acme(more: &str) -> Bench {
    public(&format!("{ACME}{more}"))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[test]
fn the_public_example_loads_and_its_comments_show_the_defaults() {
    // Where the state is kept by default only root may write.
    let text = example("public.toml").replace("# state = \"/var/lib/asr-edge/acme\"", "state = \"state\"");
    let load = |text: &str| bench(text).config();
    let plain = load(&text);
    assert_eq!(plain.server.https, [address("[::]:443")]);
    assert_eq!(plain.server.port80, [address("[::]:80")]);
    assert_eq!(plain.notices, [""; 0]);
    let acme = plain.acme.unwrap();
    assert_eq!(acme.domains, [Identifier::Dns("asr.example.com".to_owned())]);
    assert_eq!(acme.profile, None);

    let shows = ["directory", "challenges", "http"];
    let is_shown = |line: &str| {
        shows.iter().any(|key| line.strip_prefix("# ").is_some_and(|l| l.starts_with(&format!("{key} = "))))
    };
    let shown: String =
        text.lines().flat_map(|line| [if is_shown(line) { &line[2..] } else { line }, "\n"]).collect();
    assert_eq!(shown.matches("\nhttp = [").count(), 2, "both addresses are shown");
    let shown = load(&shown);
    assert_eq!(shown.server.port80, plain.server.port80);
    let other = shown.acme.unwrap();
    assert_eq!((other.directory, other.challenges), (acme.directory, acme.challenges));
}

#[test]
fn the_public_example_shows_every_key_the_program_knows() {
    let text = uncommented(&example("public.toml"));
    for section in ["server", "tls", "acme", "acme.eab", "keys", "codex", "limits", "log"] {
        let asked = format!("[{section}]\nzzzzzzzzzzzzzzzzzzzzzzzz = 1\n");
        let faults = Bench::new().file(&asked).flags("--api-key k").faults();
        let known = faults.iter().find_map(|fault| fault.split_once("known here: "));
        let (_, known) = known.unwrap_or_else(|| panic!("{section}: {faults:?}"));
        let own = text.split_once(&format!("\n[{section}]\n")).unwrap_or_else(|| panic!("no [{section}]")).1;
        let own = own.split("\n[").next().unwrap();
        for key in known.split(", ").filter(|key| *key != "eab") {
            assert!(own.lines().any(|line| line.starts_with(&format!("{key} = "))), "{section}.{key}");
        }
    }
}

#[test]
fn the_domain_in_the_environment_alone_makes_it_public() {
    let bench = Bench::new();
    let state = bench.folder.path().display().to_string();
    let bench = bench
        .variable("CODEX_ASR_DOMAIN", "ASR.example.com")
        .variable("CODEX_ASR_SERVER_KEY", "k")
        .variable("STATE_DIRECTORY", &format!("{state}:/elsewhere"));
    let config = bench.config();
    assert_eq!(config.server.https, [address("[::]:443")]);
    assert_eq!(config.server.port80, [address("[::]:80")]);
    assert_eq!(config.server.http, [address("127.0.0.1:8788")]);
    assert!(matches!(config.keys, KeySource::Single(_)));
    let acme = config.acme.unwrap();
    assert_eq!(acme.domains, [Identifier::Dns("asr.example.com".to_owned())]);
    assert_eq!(acme.directory.as_str(), "https://acme-v02.api.letsencrypt.org/directory");
    assert_eq!(acme.challenges, [Challenge::TlsAlpn01, Challenge::Http01]);
    assert_eq!(acme.state, Path::new(&state).join("acme"));
    assert_eq!((acme.profile, acme.contact), (None, vec![]));
    assert_eq!(config.notices.len(), 1, "{:?}", config.notices);
    assert!(config.notices[0].contains("you agree to the terms of service"), "{:?}", config.notices);

    let bench = bench
        .variable("CODEX_ASR_DOMAIN", "a.example.com, 203.0.113.7")
        .variable("CODEX_ASR_ACME_EMAIL", "you@example.com")
        .variable("CODEX_ASR_ACME_DIRECTORY", "letsencrypt-staging");
    let acme = bench.config().acme.unwrap();
    assert_eq!(acme.domains.len(), 2);
    assert_eq!(acme.contact, ["mailto:you@example.com"]);
    assert_eq!(acme.directory.as_str(), "https://acme-staging-v02.api.letsencrypt.org/directory");
    assert_eq!(acme.profile.as_deref(), Some("shortlived"), "the only one with IP addresses");

    assert_fault(
        &bench.variable("CODEX_ASR_ACME_EMAIL", "nobody"),
        "CODEX_ASR_ACME_EMAIL",
        "one e-mail address",
    );
}

#[test]
fn the_domain_in_the_environment_wins_over_the_file_and_leaves_the_rest_of_it() {
    let file = format!(
        "[keys]\nfile = \"keys.toml\"\n[server]\nhttps = [\"192.0.2.1:8443\"]\n{ACME}{NAME}http = [\"192.0.2.1:8080\"]\n"
    );
    let config = bench(&file).variable("CODEX_ASR_DOMAIN", "other.example.com").config();
    assert_eq!(config.server.https, [address("192.0.2.1:8443")]);
    assert_eq!(config.server.port80, [address("192.0.2.1:8080")]);
    assert_eq!(config.acme.unwrap().domains, [Identifier::Dns("other.example.com".to_owned())]);
    assert_eq!(config.notices, ["CODEX_ASR_DOMAIN replaces acme.domains"]);
}

#[test]
fn consent_that_is_refused_in_the_file_is_not_implied_by_the_variable() {
    let bench = public("[acme]\naccept_terms = false\nstate = \"state\"\n");
    assert_fault(&bench.variable("CODEX_ASR_DOMAIN", "a.example.com"), "acme.accept_terms", "must be true");
}

#[test]
fn a_public_server_needs_keys() {
    let open = Bench::new().variable("CODEX_ASR_DOMAIN", "a.example.com").flags("--no-api-key");
    let faults = open.faults();
    assert!(faults.iter().any(|f| f.starts_with("--no-api-key: refused: [::]:443")), "{faults:?}");
    let file = "[server]\nhttp = []\nhttps = [\"[::]:443\"]\n[keys]\nrequired = false\n[tls]\n\
                certificate = \"edge.toml\"\nkey = \"edge.toml\"\n";
    assert_fault(&Bench::new().file(file), "keys.required", "[::]:443 is not a loopback");
    let local = file.replace("[::]:443", "127.0.0.1:8443");
    assert_eq!(Bench::new().file(&local).config().server.http, []);
}

#[test]
fn own_files_are_enough_and_port_80_is_opened_on_request_alone() {
    let files = "[tls]\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n";
    let config = public(files).config();
    let folder = config.tls.clone().unwrap();
    assert!(folder.certificate.ends_with("chain.pem") && folder.certificate.is_absolute());
    assert!(config.acme.is_none() && config.server.port80.is_empty());
    assert!(config.notices.iter().any(|line| line.contains("tls.key") && line.contains("chmod 600")));

    let config = public(&format!("{files}[acme]\nhttp = [\"[::]:80\"]\n")).config();
    assert!(config.acme.is_none());
    assert_eq!(config.server.port80, [address("[::]:80")]);

    let config = public(&format!("{files}{ACME}{NAME}")).config();
    assert!(config.acme.is_some() && config.tls.is_some(), "side by side");
}

#[test]
fn strict_transport_security_is_sent_on_request_alone() {
    assert_eq!(acme(NAME).config().server.hsts, None);
    for (given, seconds) in [("\"180d\"", 15_552_000), ("31536000", 31_536_000), ("0", 0)] {
        let config = bench(&format!("{PUBLIC}hsts = {given}\n{ACME}{NAME}")).config();
        assert_eq!(config.server.hsts, Some(seconds));
    }
}

#[test]
fn without_port_80_only_the_handshake_proves_a_name() {
    let config = acme(&format!("{NAME}http = []\n")).config();
    assert_eq!(config.acme.unwrap().challenges, [Challenge::TlsAlpn01]);
    let bench = acme(&format!("{NAME}http = []\nchallenges = [\"http-01\"]\n"));
    assert_fault(&bench, "acme.challenges[0]", "acme.http names no address");
}

#[test]
fn a_private_authority_may_certify_private_names() {
    let private = "directory = \"https://127.0.0.1:14000/dir\"\ndomains = [\"localhost\", \"127.0.0.1\"]\n";
    let config = acme(&format!("{private}profile = \"long.lived-1\"\n")).config();
    let acme = config.acme.unwrap();
    assert_eq!(acme.profile.as_deref(), Some("long.lived-1"));
    assert_eq!(acme.directory.as_str(), "https://127.0.0.1:14000/dir");
    assert_eq!(acme.directory.staging(), None);
}

#[test]
fn external_account_binding_is_decoded_and_never_shown() {
    for padded in ["UExBTlRFRC1obWFj_-8", "UExBTlRFRC1obWFj_-8="] {
        let config = acme(&format!("{NAME}[acme.eab]\nkey_id = \"kid\"\nhmac_key = \"{padded}\"\n")).config();
        assert!(!format!("{config:?}{:?}", explain(&config)).contains("UExB"));
        let eab = config.acme.unwrap().eab.unwrap();
        assert_eq!(
            (eab.key_id.as_str(), eab.hmac_key.expose().as_slice()),
            ("kid", &b"PLANTED-hmac\xff\xef"[..])
        );
    }
}

#[test]
fn what_is_wrong_with_certificates_is_told_at_its_place() {
    for (more, path, part) in [
        ("", "server.https", "no certificate to show"),
        ("[tls]\ncertificate = \"chain.pem\"\n", "tls.key", "is missing"),
        ("[tls]\nkey = \"key.pem\"\n", "tls.certificate", "is missing"),
        ("[tls]\ncertificate = \"none.pem\"\nkey = \"key.pem\"\n", "tls.certificate", "cannot read"),
        ("[tls]\ncertificate = \"chain.pem\"\nkey = \"codex\"\n", "tls.key", "it is a folder"),
        (
            "[acme]\nhttp = [\"[::]:80\"]\naccept_terms = true\nstate = \"s\"\n",
            "acme.domains",
            "nothing to certify",
        ),
        ("[acme]\nstate = \"s\"\ndomains = [\"asr.example.com\"]\n", "acme.accept_terms", "must be true"),
    ] {
        assert_fault(&public(more), path, part);
    }
    assert_eq!(public("[tls]\n").faults().len(), 2, "both files are missing");
}

#[test]
fn what_is_wrong_with_an_order_is_told_at_its_place() {
    for (more, path, part) in [
        ("domains = []\n", "acme.domains", "nothing to certify"),
        ("domains = [\"*.example.com\"]\n", "acme.domains[0]", "not supported: it needs dns-01"),
        ("domains = [\"https://a.example.com\"]\n", "acme.domains[0]", "bare name"),
        ("domains = [\"a.example.com\", \"a b\"]\n", "acme.domains[1]", "neither a host name"),
        ("domains = [\"a.example.com\", \"A.example.com.\"]\n", "acme.domains[1]", "twice"),
        ("domains = [\"localhost\"]\n", "acme.domains[0]", "is private"),
        ("domains = [\"192.168.0.1\"]\n", "acme.domains[0]", "is private"),
        ("domains = [7]\n", "acme.domains[0]", "expected a string"),
        (
            "domains = [\"a.example.com\"]\ndirectory = \"zerossl\"\n",
            "acme.directory",
            "must be \"letsencrypt\"",
        ),
        (
            "domains = [\"a.example.com\"]\ndirectory = \"http://ca.example.com/\"\n",
            "acme.directory",
            "https://",
        ),
        (
            "domains = [\"a.example.com\"]\ncontact = [\"you@example.com\"]\n",
            "acme.contact[0]",
            "must be mailto:",
        ),
        (
            "domains = [\"a.example.com\"]\ncontact = [\"mailto:a@b?subject=x\"]\n",
            "acme.contact[0]",
            "one address",
        ),
        ("domains = [\"a.example.com\"]\nchallenges = []\n", "acme.challenges", "is empty"),
        ("domains = [\"a.example.com\"]\nchallenges = [\"dns-01\"]\n", "acme.challenges[0]", "not supported"),
        (
            "domains = [\"a.example.com\"]\nchallenges = [\"http\"]\n",
            "acme.challenges[0]",
            "must be \"tls-alpn-01\"",
        ),
        (
            "domains = [\"a.example.com\"]\nchallenges = [\"http-01\", \"http-01\"]\n",
            "acme.challenges[1]",
            "twice",
        ),
        ("domains = [\"a.example.com\"]\nprofile = \"a b\"\n", "acme.profile", "printable ASCII"),
        ("domains = [\"203.0.113.7\"]\nprofile = \"classic\"\n", "acme.profile", "must be \"shortlived\""),
        ("domains = [\"a.example.com\"]\nca_root = \"none.pem\"\n", "acme.ca_root", "cannot read"),
        ("domains = [\"a.example.com\"]\nca_root = \"key.pem\"\n", "acme.ca_root", "holds no certificate"),
        (
            "domains = [\"a.example.com\"]\nhttp = [\"80\"]\n",
            "acme.http[0]",
            "must be an IP address and a port",
        ),
        ("domains = [\"a.example.com\"]\n[acme.eab]\nkey_id = \"k\"\n", "acme.eab.hmac_key", "is missing"),
        ("domains = [\"a.example.com\"]\n[acme.eab]\nhmac_key = \"PLAN\"\n", "acme.eab.key_id", "is missing"),
        (
            "domains = [\"a.example.com\"]\n[acme.eab]\nkey_id = \"k\"\nhmac_key = \"PLANTED+/\"\n",
            "acme.eab.hmac_key",
            "not base64url",
        ),
        (
            "domains = [\"a.example.com\"]\n[acme.eab]\nkey_id = \"k\"\nhmac_key = 5\n",
            "acme.eab.hmac_key",
            "a string",
        ),
        ("domains = [\"a.example.com\"]\nemail = \"a@b\"\n", "acme.email", "unknown key"),
    ] {
        let bench = acme(more);
        assert_fault(&bench, path, part);
        assert!(!bench.faults().concat().contains("PLANTED"), "{path}");
    }
}

#[test]
fn a_state_folder_that_cannot_be_is_told_before_anything_is_ordered() {
    for state in ["key.pem", "key.pem/acme", "key.pem/deep/acme"] {
        let bench = public(&format!("[acme]\naccept_terms = true\n{NAME}state = \"{state}\"\n"));
        assert_fault(&bench, "acme.state", "key.pem is a file");
    }
    let bench = public(&format!("[acme]\naccept_terms = true\n{NAME}state = \"/proc/none/acme\"\n"));
    assert_fault(&bench, "acme.state", "cannot make a folder in /proc");
    let bench = acme(NAME);
    bench.config();
    assert!(!bench.folder.path().join("state").exists(), "nothing is made by looking");
}

#[test]
fn no_two_listeners_share_an_address() {
    let server = |lines: &str, port80: &str| {
        let file =
            format!("[keys]\nfile = \"keys.toml\"\n[server]\n{lines}\n{ACME}{NAME}http = [\"{port80}\"]\n");
        bench(&file)
    };
    for (lines, port80, path, part) in [
        ("https = [\"[::]:443\", \"[::1]:443\"]", "[::]:80", "server.https[1]", "taken by server.https[0]"),
        ("https = [\"127.0.0.1:8788\"]", "[::]:80", "server.https[0]", "taken by server.http already"),
        ("https = [\"[::]:443\"]", "[::]:443", "acme.http[0]", "taken by server.https[0]"),
        ("https = [\"[::]:443\"]", "127.0.0.1:8788", "acme.http[0]", "taken by server.http already"),
        ("https = [\"[::]:443\"]\nadmin = \"[::1]:80\"", "[::]:80", "server.admin", "taken by acme.http[0]"),
    ] {
        assert_fault(&server(lines, port80), path, part);
    }
    server("https = [\"[::]:0\", \"[::]:0\"]", "[::]:0").config();
}

#[test]
fn certificates_and_the_header_without_https_are_for_nobody() {
    let local = |file: &str| bench(file).flags("--api-key k");
    assert_fault(&local(&format!("{ACME}{NAME}")), "acme.domains", "server.https names no address");
    let files = "[tls]\ncertificate = \"chain.pem\"\nkey = \"key.pem\"\n";
    assert_fault(&local(files), "tls.certificate", "server.https names no address");
    assert_fault(&local("[server]\nhsts = 1\n"), "server.hsts", "server.https names no address");
    let long = format!("[server]\nhttps = [\"[::]:443\"]\nhsts = \"3y\"\n{files}");
    assert_fault(&local(&long), "server.hsts", "730 days");
}

#[test]
fn the_explanation_names_certificate_and_redirect() {
    let lines = explain(&acme("domains = [\"a.example.com\", \"203.0.113.7\"]\n").config());
    for part in [
        "listens on https://[::]:443",
        "redirects to HTTPS on http://[::]:80",
        "certificate: ordered from https://acme-v02.api.letsencrypt.org/directory for a.example.com, 203.0.113.7 \
         by tls-alpn-01 or http-01, profile shortlived, kept in ",
    ] {
        assert!(lines.iter().any(|line| line.starts_with(part)), "{part}: {lines:#?}");
    }
}
