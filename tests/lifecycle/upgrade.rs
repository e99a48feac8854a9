//! `serve --upgrade`: one process after the other on the same sockets.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::{begun, upload};
use crate::harness::{
    ACCOUNT, Bench, Ending, KEY, Launch, Process, Request, Stub, TEXT, TOKEN, Wire, eventually, get,
};

/// A program that can be upgraded; its upgrade socket is `run/s` beside its config.
fn start(more: &str) -> Bench {
    let stub = Stub::start(&["--text", TEXT]);
    let config = format!("[server]\nhttp = [\"127.0.0.1:0\"]\nupgrade_socket = \"run/s\"\n{more}");
    Bench { edge: Launch::to(&stub).config(&config).start(), stub }
}

/// The next program, once it listens.
fn upgrade(bench: &Bench) -> Process {
    let (url, login) = (bench.stub.url(), ["--bearer", TOKEN, "--account-id", ACCOUNT]);
    let next = bench.edge.upgrade(&[&["--endpoint", &url, "--api-key", KEY], &login[..]].concat());
    let address: SocketAddr = next.announced("listening on http://").parse().unwrap();
    assert_eq!(address, bench.edge.address, "the same socket, though any port was asked for");
    next
}

#[test]
fn an_upload_in_flight_is_finished_by_the_old_while_the_new_serves() {
    let mut bench = start("");
    let (mut slow, rest) = begun(&bench, &upload());
    let mut idle = bench.edge.wire();
    idle.send(get("/healthz").bytes());
    assert_eq!(idle.reply().status, 200);
    let mut next = upgrade(&bench);
    assert_eq!(idle.ended(), Ending::Closed, "idle connections may close");
    assert_eq!(bench.ask(&upload()).status, 200, "by the new one");
    assert!(bench.edge.runs(), "an upload is in flight");
    slow.send(rest);
    assert_eq!(slow.reply().status, 200);
    assert!(bench.edge.end_within(Duration::from_secs(15)).success());
    assert_eq!(bench.ask(&upload()).status, 200);
    next.terminate();
    assert!(next.end(Duration::from_secs(15)).success());
}

#[test]
fn nothing_fails_under_load_and_it_can_be_done_again_and_again() {
    let mut bench = start("");
    let over = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    let address = bench.edge.address;
    std::thread::scope(|scope| {
        let (over, asked) = (&over, &asked);
        let clients = [(); 4].map(|()| {
            scope.spawn(move || {
                // A bounded number: the stand-in remembers no more.
                while !over.load(Ordering::Relaxed) && asked.fetch_add(1, Ordering::Relaxed) < 4000 {
                    let mut wire = Wire::connect(address);
                    wire.send(Request::bytes(&upload()));
                    match wire.reply_or_end() {
                        Ok(reply) => assert_eq!(reply.status, 200, "{reply:?}"),
                        Err(ending) => panic!("no answer, but {ending:?}"),
                    }
                }
            })
        });
        std::thread::sleep(Duration::from_millis(300));
        let mut second = upgrade(&bench);
        assert!(bench.edge.end().success());
        std::thread::sleep(Duration::from_millis(300));
        eventually("the next upgrade socket", || bench.edge.path("run/s").exists().then_some(()));
        let third = upgrade(&bench);
        assert!(second.end(Duration::from_secs(20)).success());
        std::thread::sleep(Duration::from_millis(300));
        over.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        drop(third);
    });
    let complete = bench.stub.seen().iter().filter(|seen| seen.is_complete()).count();
    assert!(complete > 50, "{complete}");
}

#[test]
fn a_new_program_that_cannot_serve_changes_nothing() {
    let mut bench = start("");
    let mut failed = bench.edge.upgrade(&["--endpoint", "ftp://nowhere"]);
    assert_eq!(failed.end(Duration::from_secs(20)).code(), Some(64));
    // This one has the sockets already when it fails.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (url, busy) = (bench.stub.url(), taken.local_addr().unwrap().to_string());
    let mut late =
        bench.edge.upgrade(&["--endpoint", &url, "--api-key", KEY, "--bearer", TOKEN, "--admin", &busy]);
    assert_eq!(late.end(Duration::from_secs(20)).code(), Some(64));
    assert!(late.printed().contains("server.admin"), "{}", late.printed());
    assert_eq!(bench.ask(&upload()).status, 200);
    assert!(bench.edge.runs());
    let _next = upgrade(&bench);
    assert!(bench.edge.end().success());
}

#[test]
fn a_second_program_without_the_flag_and_an_upgrade_of_nothing_are_told_so() {
    let bench = start("");
    let again = Launch::at("http://127.0.0.1:9/x").config(&format!(
        "[server]\nhttp = [\"127.0.0.1:0\"]\nupgrade_socket = {:?}\n",
        bench.edge.path("run/s")
    ));
    let output = again.run("serve");
    assert!(output.code == 64 && output.stderr.contains("--upgrade"), "{output:?}");
    let nothing = Launch::at("http://127.0.0.1:9/x")
        .config("[server]\nhttp = [\"127.0.0.1:0\"]\nupgrade_socket = \"run/s\"\n")
        .flags(&["--upgrade"]);
    let output = nothing.run("serve");
    assert!(output.code == 64 && output.stderr.contains("no sockets"), "{output:?}");
    assert_eq!(bench.ask(&upload()).status, 200);
}
