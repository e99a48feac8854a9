//! Every fault is told at its place, with what would be right.

use std::fs;

use asr_edge::config::LoginSource;

use crate::bench::{Bench, assert_fault};

#[test]
fn a_wrong_value_is_told_where_it_was_given() {
    for (file, path, part) in [
        ("[server]\nhttp = []", "server.http", "names no address"),
        ("[server]\nhttp = [\"example.com:1\"]", "server.http[0]", "must be an IP address and a port"),
        ("[server]\nhttp = [\"127.0.0.1\"]", "server.http[0]", "must be an IP address and a port"),
        (
            "[server]\nhttp = [\"127.0.0.1:1\", \"localhost:1\"]",
            "server.http[1]",
            "is taken by server.http[0]",
        ),
        ("[server]\nadmin = \"127.0.0.1:8788\"", "server.admin", "is taken by server.http"),
        ("[server]\nadmin = \"0.0.0.0:8788\"", "server.admin", "is taken by server.http"),
        ("[server]\nadmin = \"8790\"", "server.admin", "must be an IP address and a port"),
        ("[server]\ndrain_seconds = \"2d\"", "server.drain_seconds", "24h at most"),
        ("[codex]\nendpoint = \"chatgpt.com\"", "codex.endpoint", "is no URL"),
        ("[codex]\nendpoint = \"ftp://chatgpt.com\"", "codex.endpoint", "http:// or https://"),
        ("[codex]\nendpoint = \"https://PLANTED@chatgpt.com\"", "codex.endpoint", "user name"),
        ("[codex]\nendpoint = \"https://chatgpt.com/?a\"", "codex.endpoint", "query"),
        ("[codex]\nendpoint = \"http://chatgpt.com\"", "codex.endpoint", "in the clear"),
        ("[codex]\nbearer = \"a b\"", "codex.bearer", "no access token"),
        ("[codex]\nbearer = \"Bearer \"", "codex.bearer", "no access token"),
        ("[codex]\nbearer = \"t\"\nauth_file = \"codex/auth.json\"", "codex.bearer", "drop one"),
        ("[codex]\nauth_file = \"nowhere.json\"", "codex.auth_file", "codex login"),
        ("[codex]\nauth_file = \"codex\"", "codex.auth_file", "it is a folder"),
        ("[codex]\naccount_id = \"a\\nb\"", "codex.account_id", "printable ASCII"),
        ("[codex]\nuser_agent = \"a\\u0007\"", "codex.user_agent", "printable ASCII"),
        ("[codex]\noriginator = \"\"", "codex.originator", "not empty"),
        ("[codex]\nproxy = \"socks5://PLANTED@h\"", "codex.proxy", "http:// or https://"),
        ("[codex]\nca_root = \"nowhere.pem\"", "codex.ca_root", "cannot read"),
        ("[codex]\nca_root = \"edge.toml\"", "codex.ca_root", "holds no certificate"),
        ("[codex]\nconnect_timeout = 0", "codex.connect_timeout", "longer than nothing"),
        ("[codex]\nrequest_timeout = \"25h\"", "codex.request_timeout", "24h at most"),
        ("[codex]\nlanguage = \"en1\"", "codex.language", "must be a language"),
        ("[codex]\nmodels = [\"a\", \"a\"]", "codex.models[1]", "twice"),
        ("[codex]\nmodels = [\"\"]", "codex.models[0]", "1 to 128"),
        ("[limits]\nconcurrency = 0", "limits.concurrency", "between 1 and"),
        ("[limits]\nmax_upload = 0", "limits.max_upload", "between"),
        ("[limits]\nmax_upload = \"2GiB\"\nspool_total = \"1GiB\"", "limits.spool_total", "never be kept"),
        ("[limits]\nspool_dir = \"nowhere\"", "limits.spool_dir", "cannot keep files"),
        ("[limits]\nspool_dir = \"edge.toml\"", "limits.spool_dir", "cannot keep files"),
        ("[limits]\nmax_uri = \"128KiB\"", "limits.max_uri", "larger than limits.max_head"),
        ("[limits]\nqueue_wait = \"soon\"", "limits.queue_wait", "is no time"),
        ("[log]\nformat = \"xml\"", "log.format", "unknown variant"),
        ("[log]\nlevel = \"inof\"", "log.level", "must be off, error"),
        ("[log]\nlevel = \"a=b=c\"", "log.level", "must be off, error"),
    ] {
        let bench = Bench::new().file(file).variable("CODEX_ASR_SERVER_KEY", "k");
        assert_fault(&bench, path, part);
        assert!(!bench.faults().concat().contains("PLANTED"), "{path}");
    }
}

#[test]
fn a_wrong_flag_or_variable_is_told_by_its_name() {
    for (flags, path, part) in [
        ("--host example.com", "--host", "must be an IP address"),
        ("--port 65536", "--port", "65535 at most"),
        ("--admin 127.0.0.1:8788", "--admin", "is taken by server.http"),
        ("--concurrency 0", "--concurrency", "1 or more"),
        ("--concurrency 1e3", "--concurrency", "whole number"),
        ("--max-upload-mb 99999999999999", "--max-upload-mb", "between"),
        ("--request-timeout-seconds 0", "--request-timeout-seconds", "1 or more"),
        ("--connect-timeout-seconds 90000", "--connect-timeout-seconds", "24h at most"),
        ("--endpoint http://192.0.2.1/", "--endpoint", "in the clear"),
        ("--auth-file nowhere.json", "--auth-file", "cannot read nowhere.json"),
        ("--ca-root nowhere.pem", "--ca-root", "cannot read nowhere.pem"),
        ("--proxy http://PLANTED@h/path", "--proxy", "may not hold a path"),
        ("--api-key PLANTEDé", "--api-key", "printable ASCII"),
        ("--api-key k --no-api-key", "--no-api-key", "contradicts"),
        ("--language e!", "--language", "must be a language"),
    ] {
        let bench = Bench::new().variable("CODEX_ASR_SERVER_KEY", "k").flags(flags);
        assert_fault(&bench, path, part);
        assert!(!bench.faults().concat().contains("PLANTED"), "{path}");
    }
    for name in
        ["CODEX_ASR_REQUEST_TIMEOUT_SECONDS", "CODEX_ASR_CONNECT_TIMEOUT_SECONDS", "CODEX_ASR_MAX_UPLOAD_MB"]
    {
        assert_fault(&Bench::new().flags("--no-api-key").variable(name, "many"), name, "whole number");
    }
}

#[test]
fn a_missing_key_or_login_says_what_to_do() {
    assert_fault(&Bench::new(), "--api-key", "or say --no-api-key");
    assert_fault(
        &Bench::new().file("[keys]\nfile = \"keys.toml\""),
        "keys.file",
        "asr-edge key new --name NAME",
    );
    let both = "[keys]\nfile = \"keys.toml\"\nrequired = false";
    assert_fault(&Bench::new().file(both), "keys.required", "drop one of them");

    let nobody = Bench::new().without("CODEX_HOME").flags("--no-api-key");
    assert_fault(&nobody, "codex.auth_file", ".codex/auth.json: No such file");
    let home = nobody.folder.path().display().to_string();
    fs::rename(nobody.folder.path().join("codex"), nobody.folder.path().join(".codex")).unwrap();
    let config = nobody.variable("HOME", &home).config();
    assert!(matches!(config.codex.login, LoginSource::File(path) if path.ends_with(".codex/auth.json")));
}

#[test]
fn a_key_or_login_that_is_misspelt_is_the_only_fault() {
    let nobody = Bench::new().without("CODEX_HOME").flags("--no-api-key");
    assert_fault(&nobody.file("[codex]\nauth_fil = \"a\""), "codex.auth_fil", "did you mean `auth_file`?");
    assert_fault(&Bench::new().file("[keys]\nfiel = \"keys.toml\""), "keys.fiel", "did you mean `file`?");
}

#[test]
fn all_faults_of_all_layers_come_at_once() {
    let file = "[server]\nadmin = 7\n[codex]\nendpoint = \"ftp://x\"\nmodel = []\nconnect_timeout = \"x\"\n\
                [limits]\nconcurrency = 0\n[[service]]\nname = \"A\"\nkind = \"plain\"\n";
    let bench = Bench::new()
        .file(file)
        .flags("--host 0.0.0.0 --no-api-key --max-upload-mb 0")
        .variable("CODEX_ASR_REQUEST_TIMEOUT_SECONDS", "-1");
    let faults = bench.load().unwrap_err();
    let mut paths: Vec<_> = faults.iter().map(|fault| fault.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "--max-upload-mb",
            "--no-api-key",
            "CODEX_ASR_REQUEST_TIMEOUT_SECONDS",
            "codex.connect_timeout",
            "codex.endpoint",
            "codex.model",
            "limits.concurrency",
            "server.admin",
            "service[0].name",
            "service[0].url",
        ]
    );
}

#[test]
fn a_file_that_is_no_toml_is_told_with_line_and_column() {
    let bench = Bench::new().file("[server]\nhttp = \"127.0.0.1:1\n").flags("--no-api-key");
    let faults = bench.faults();
    assert!(faults[0].contains("edge.toml: line 2, column "), "{faults:?}");
    let gone = Bench::new().flags("--config nowhere.toml --no-api-key");
    assert_fault(&gone, "nowhere.toml", "cannot be read");
}

#[test]
fn a_fault_is_one_line_whatever_the_file_holds() {
    for (file, path, part) in [
        ("\"a\\n\\u001b[2J\" = 1\n", "a\\n\\u{1b}[2J", "unknown key"),
        ("[codex]\nca_root = \"b\\nc\"\n", "codex.ca_root", "b\\nc: "),
    ] {
        let bench = Bench::new().file(file).flags("--no-api-key");
        assert_fault(&bench, path, part);
        assert!(!bench.faults().concat().contains(char::is_control), "{path}");
    }
}

#[test]
fn services_are_held_against_each_other_and_our_own_routes() {
    let good = "[[service]]\nname = \"a\"\nurl = \"http://a:1\"\nkind = \"openai\"\nmodels = [\"m\"]\npaths = [\"/a\"]\n";
    for (more, path, part) in [
        ("name = \"a\"\nkind = \"plain\"\npaths = [\"/b\"]", "service[1].name", "twice"),
        ("name = \"B\"\nkind = \"plain\"\npaths = [\"/b\"]", "service[1].name", "lower-case"),
        ("name = \"codex\"\nkind = \"plain\"\npaths = [\"/b\"]", "service[1].name", "Codex itself"),
        ("name = \"b\"\nkind = \"plain\"", "service[1]", "would never get a request"),
        ("name = \"b\"\npaths = [\"/b\"]", "service[1].kind", "is missing"),
        ("name = \"b\"\nkind = \"plain\"\nmodels = [\"x\"]", "service[1].models", "takes paths"),
        ("name = \"b\"\nkind = \"openai\"\nmodels = [\"m\"]", "service[1].models[0]", "service `a` already"),
        ("name = \"b\"\nkind = \"openai\"\nmodels = [\"c\"]", "service[1].models[0]", "codex.models too"),
        ("name = \"b\"\nkind = \"plain\"\npaths = [\"b\"]", "service[1].paths[0]", "start with `/`"),
        ("name = \"b\"\nkind = \"plain\"\npaths = [\"/b?c\"]", "service[1].paths[0]", "plain path"),
        ("name = \"b\"\nkind = \"plain\"\npaths = [\"/b\", \"/b/\"]", "service[1].paths[1]", "twice"),
        ("name = \"b\"\nkind = \"plain\"\npaths = [\"/a/\"]", "service[1].paths[0]", "service `a` already"),
        ("name = \"b\"\nkind = \"plain\"\npaths = [\"/healthz\"]", "service[1].paths[0]", "asr-edge itself"),
        (
            "name = \"b\"\nkind = \"plain\"\npaths = [\"/v1/models/x\"]",
            "service[1].paths[0]",
            "asr-edge itself",
        ),
    ] {
        let file = format!("[codex]\nmodels = [\"c\"]\n{good}[[service]]\nurl = \"http://b:1\"\n{more}\n");
        assert_fault(&Bench::new().file(&file).flags("--no-api-key"), path, part);
    }
    for path in ["/", "/v1", "/v1/embeddings", "/healthzz"] {
        let file = format!(
            "{good}[[service]]\nname = \"b\"\nurl = \"http://b:1\"\nkind = \"plain\"\npaths = [\"{path}\"]\n"
        );
        // Where others are served, a missing login keeps nothing from starting.
        let config = Bench::new().without("CODEX_HOME").file(&file).flags("--no-api-key").config();
        assert_eq!(config.services[1].paths, [path]);
    }
}
