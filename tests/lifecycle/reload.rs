//! SIGHUP: the config whole, or the old one as it was.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{begun, free, refuses, upload};
use crate::harness::{Bench, Edge, Ending, Form, Launch, Request, Stub, TEXT, Wire, eventually, get, wav};

pub(super) const SERVER: &str = "[server]\nhttp = [\"127.0.0.1:0\"]\nadmin = \"127.0.0.1:0\"\n";

/// Before a stand-in, with this config behind `[server]`.
pub(super) fn start(more: &str) -> Bench {
    let stub = Stub::start(&["--text", TEXT]);
    // The flag makes the harness look for the admin address; it stays in force over the config.
    let flags = ["--admin", "127.0.0.1:0"];
    let edge = Launch::to(&stub).config(&format!("{SERVER}{more}")).flags(&flags).start();
    Bench { edge, stub }
}

/// How many configs have been taken, and refused.
pub(super) fn reloads(edge: &Edge) -> (u64, u64) {
    let page = edge.admin_page("/metrics");
    let count = |result: &str| {
        let start = format!("asr_edge_reloads_total{{result=\"{result}\"}} ");
        page.text().lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap()
    };
    (count("taken"), count("refused"))
}

/// Replaces the config and waits until it has been looked at. Whether it was taken.
pub(super) fn reload(edge: &Edge, config: &str) -> bool {
    let before = reloads(edge);
    edge.replace("edge.toml", config);
    edge.signal("HUP");
    eventually("the reload", || match reloads(edge) {
        (taken, _) if taken > before.0 => Some(true),
        (_, refused) if refused > before.1 => Some(false),
        _ => None,
    })
}

#[test]
fn a_model_is_added_and_a_request_keeps_the_config_that_it_began_with() {
    let bench = start("[limits]\nmax_upload = \"1MiB\"\n");
    let ask = |wire: &mut Wire, request: &Request| {
        wire.send(request.bytes());
        wire.reply().status
    };
    let form = Form::new().field("model", "house-model").file(&wav(3000));
    let mut wire = bench.edge.wire();
    assert_eq!(ask(&mut wire, &Request::post(&form)), 404);
    let (mut slow, rest) = begun(&bench, &upload());
    assert!(reload(
        &bench.edge,
        &format!("{SERVER}[codex]\nmodels = [\"house-model\"]\n[limits]\nmax_upload = \"2KiB\"\n")
    ));
    let small = Form::new().field("model", "house-model").file(&wav(500));
    assert_eq!(ask(&mut wire, &Request::post(&small)), 200, "on the same connection");
    assert_eq!(ask(&mut bench.edge.wire(), &upload()), 413);
    assert!(bench.ask(&get("/v1/models")).text().contains("house-model"));
    slow.send(rest);
    assert_eq!(slow.reply().status, 200, "begun before");
    assert_eq!(ask(&mut slow, &upload()), 413, "and the next on its connection is not");
}

#[test]
fn listeners_come_stay_and_go() {
    let (first, second, third) = (free(), free(), free());
    let server = |a, b| format!("[server]\nhttp = [\"{a}\", \"{b}\"]\nadmin = \"127.0.0.1:0\"\n");
    let stub = Stub::start(&["--text", TEXT]);
    let flags = ["--admin", "127.0.0.1:0"];
    let edge = Launch::to(&stub).config(&server(first, second)).flags(&flags).start();
    let mut kept = Wire::connect(second);
    let mut gone = Wire::connect(first);
    for wire in [&mut kept, &mut gone] {
        wire.send(get("/healthz").bytes());
        assert_eq!(wire.reply().status, 200);
    }
    assert!(reload(&edge, &server(third, second)));
    eventually("gone", || refuses(first).then_some(()));
    for wire in [&mut Wire::connect(second), &mut Wire::connect(third), &mut kept, &mut gone] {
        wire.send(upload().bytes());
        assert_eq!(wire.reply().status, 200, "connections stay, whatever becomes of their listener");
    }
}

#[test]
fn a_config_at_fault_keeps_the_old_one_and_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().to_string();
    let (new, key_file) = (free(), "/nonexistent/keys.toml");
    let bench = start("");
    for (config, why) in [
        ("[limits\n".to_owned(), "edge.toml"),
        (format!("{SERVER}[limits]\nconcurrency = 0\nparts = 0\n"), "limits.concurrency"),
        (format!("[server]\nhttp = [\"{new}\", \"{busy}\"]\n[limits]\nmax_upload = \"1KiB\"\n"), &busy),
        (format!("{SERVER}[tls]\ncertificate = \"no.pem\"\nkey = \"no.pem\"\n"), "tls.certificate"),
        (
            format!("{SERVER}[keys]\nfile = \"{key_file}\"\n[codex]\nlanguage = \"klingonish\"\n"),
            "codex.language",
        ),
    ] {
        assert!(!reload(&bench.edge, &config), "{config}");
        eventually(why, || {
            let printed = bench.edge.printed();
            printed
                .lines()
                .any(|line| line.contains("the old configuration stays") && line.contains(why))
                .then_some(())
        });
        assert_eq!(bench.ask(&upload()).status, 200, "{config}");
        assert!(refuses(new), "{config}: nothing new is listened on");
    }
    assert!(
        reload(&bench.edge, &format!("{SERVER}[limits]\nmax_upload = \"1KiB\"\n")),
        "and a good one is taken"
    );
    assert_eq!(bench.ask(&upload()).status, 413);
}

#[test]
fn the_log_level_follows() {
    let bench = start("");
    let lines = || {
        bench
            .edge
            .printed()
            .lines()
            .filter(|line| line.contains("/models") || line.contains("route=\"models"))
            .count()
    };
    assert_eq!(bench.ask(&get("/v1/models")).status, 200);
    eventually("an access line", || (lines() == 1).then_some(()));
    assert!(reload(&bench.edge, &format!("{SERVER}[log]\nlevel = \"error\"\n")));
    assert_eq!(bench.ask(&get("/v1/models")).status, 200);
    assert!(reload(&bench.edge, &format!("{SERVER}[log]\nlevel = \"info\"\n")));
    assert_eq!(bench.ask(&get("/v1/models")).status, 200);
    eventually("another", || (lines() > 1).then_some(()));
    assert_eq!(lines(), 2);
}

#[test]
fn flags_and_variables_given_at_start_stay() {
    let stub = Stub::start(&["--text", TEXT]);
    let launch = Launch::to(&stub).config(SERVER).env("CODEX_ASR_MAX_UPLOAD_MB", "7");
    let edge = launch.flags(&["--admin", "127.0.0.1:0", "--language", "de"]).start();
    assert!(reload(&edge, &format!("{SERVER}[codex]\nlanguage = \"fr\"\n[limits]\nmax_upload = \"1KiB\"\n")));
    assert_eq!(edge.ask(&upload()).status, 200);
    assert_eq!(stub.seen()[0].field("language"), Some("de"));
}

#[test]
fn the_last_place_in_the_queue_is_not_given_twice() {
    let bench = start("[limits]\nconcurrency = 1\nqueue = 0\n");
    let (mut slow, rest) = begun(&bench, &upload());
    assert_eq!(bench.ask(&upload()).status, 429);
    assert!(reload(&bench.edge, &format!("{SERVER}[limits]\nconcurrency = 1\nqueue = 0\nparts = 9\n")));
    assert_eq!(bench.ask(&upload()).status, 429, "the same place");
    assert!(reload(&bench.edge, &format!("{SERVER}[limits]\nconcurrency = 2\nqueue = 0\n")));
    assert_eq!(bench.ask(&upload()).status, 200, "one more");
    slow.send(rest);
    assert_eq!(slow.reply().status, 200);
}

#[test]
fn no_request_fails_however_often_it_is_reloaded() {
    let bench = start("");
    let over = AtomicBool::new(false);
    let asked: usize = std::thread::scope(|scope| {
        let client = |keep: bool| {
            let (address, over) = (bench.edge.address, &over);
            move || {
                let (mut asked, mut wire) = (0, Wire::connect(address));
                while !over.load(Ordering::Relaxed) {
                    if !keep {
                        wire = Wire::connect(address);
                    }
                    wire.send(upload().bytes());
                    match wire.reply_or_end() {
                        Ok(reply) => {
                            assert_eq!(reply.status, 200, "{reply:?}");
                            // The thousandth request of a connection is its last.
                            if reply.header("connection") == Some("close") {
                                wire = Wire::connect(address);
                            }
                        }
                        Err(ending) => panic!("no answer, but {ending:?}"),
                    }
                    asked += 1;
                }
                asked
            }
        };
        let clients = [true, true, false, false].map(|keep| scope.spawn(client(keep)));
        for parts in 10..30 {
            assert!(reload(&bench.edge, &format!("{SERVER}[limits]\nparts = {parts}\n")));
            std::thread::sleep(Duration::from_millis(50));
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(asked > 50, "{asked}");
}

#[test]
fn the_end_comes_as_well_after_a_reload() {
    let mut bench = start("");
    let mut idle = bench.edge.wire();
    idle.send(get("/healthz").bytes());
    assert_eq!(idle.reply().status, 200);
    let (mut slow, rest) = begun(&bench, &upload());
    assert!(reload(&bench.edge, SERVER));
    bench.edge.terminate();
    assert_eq!(idle.ended(), Ending::Closed);
    slow.send(rest);
    assert_eq!(slow.reply().status, 200);
    assert!(bench.edge.end_within(Duration::from_secs(15)).success());
}
