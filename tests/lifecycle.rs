//! Ending and reloading while requests are under way.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(clippy::disallowed_methods)]

#[path = "acme/fake_ca.rs"]
mod fake_ca;
#[path = "acme/front.rs"]
mod front;
#[allow(dead_code, unused_imports)]
mod harness;

#[path = "lifecycle/acme.rs"]
mod acme;
#[path = "lifecycle/end.rs"]
mod end;
#[path = "lifecycle/reload.rs"]
mod reload;
#[path = "lifecycle/remembered.rs"]
mod remembered;
#[path = "lifecycle/tls.rs"]
mod tls;
#[path = "lifecycle/upgrade.rs"]
mod upgrade;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use harness::{Bench, Form, Request, Wire, wav};

fn upload() -> Request {
    Request::post(&Form::of(&wav(3000)))
}

/// An upload that the upstream has begun to hear, and the bytes that are still to come.
fn begun(bench: &Bench, request: &Request) -> (Wire, Vec<u8>) {
    begun_on(bench.edge.wire(), bench, request)
}

/// The same on a connection that is there.
fn begun_on(mut wire: Wire, bench: &Bench, request: &Request) -> (Wire, Vec<u8>) {
    let bytes = request.bytes();
    bench.stub.forget();
    let (first, rest) = bytes.split_at(bytes.len() - 20);
    wire.send(first);
    bench.stub.wait("the upload began", |seen| seen.iter().any(|seen| seen.audio_bytes() > 0));
    (wire, rest.to_vec())
}

/// An address that is free now.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Nobody listens there, or what is accepted is closed without a word.
fn refuses(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, Duration::from_secs(2)).is_err()
}
