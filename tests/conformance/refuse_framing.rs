//! Broken and contradictory framing of the request body: refused, the connection closed, nothing whole upstream, and
//! no byte of the body ever taken for a request.

use crate::harness::{Bench, Ending, Form, Reply, Request, get, wav};

/// Sends raw bytes and a probe behind them. Whatever is answered is one of `statuses`, and it is the last answer.
fn refused_for_good(bench: &Bench, what: &str, request: &[u8], statuses: &[u16]) -> Reply {
    let mut wire = bench.edge.wire();
    let _ = wire.offer([request, &get("/v1/models").bytes()].concat());
    let reply = wire.reply_or_end().unwrap_or_else(|ending| panic!("{what}: no answer, but {ending:?}"));
    assert!(statuses.contains(&reply.status), "{what}: {reply:?}");
    if !reply.body.is_empty() {
        reply.error();
    }
    // What came behind is no request: no second answer.
    let (rest, _) = wire.rest();
    assert!(rest.is_empty(), "{what}: {:?}", String::from_utf8_lossy(&rest));
    reply
}

fn upload() -> Request {
    Request::post(&Form::of(&wav(3000)))
}

#[test]
fn r2_a_length_and_chunks_at_once_never_hide_a_request() {
    let bench = Bench::start();
    let form = Form::of(&wav(3000));
    let smuggled = get("/v1/models/whisper-1").bytes();
    for (what, length) in
        [("short", "5".to_owned()), ("long", "999999".to_owned()), ("right", form.closed().len().to_string())]
    {
        bench.stub.forget();
        let request = Request::post(&form).chunked(800).header("Content-Length", &length);
        let mut wire = bench.edge.wire();
        let _ = wire.offer([request.bytes(), smuggled.clone()].concat());
        let reply = wire.reply();
        assert!([200, 400].contains(&reply.status), "{what}: {reply:?}");
        let (rest, _) = wire.rest();
        assert!(rest.is_empty(), "{what}: {:?}", String::from_utf8_lossy(&rest));
        if reply.status == 200 {
            bench.heard(what, &wav(3000));
        }
    }
}

#[test]
fn r3_lengths_that_differ_or_are_no_number() {
    let bench = Bench::start();
    let length = upload().payload().len();
    let two = upload().header("Content-Length", (length + 1).to_string());
    refused_for_good(&bench, "two lengths", &two.bytes(), &[400]);
    for value in [
        format!("+{length}"),
        format!("{length} {length}"),
        format!("{length}, {}", length + 1),
        format!("-{length}"),
        format!("0x{length:x}"),
        format!("{length}.0"),
        "18446744073709551616".to_owned(),
        "99999999999999999999999999".to_owned(),
        String::new(),
    ] {
        refused_for_good(&bench, &value, &upload().set("Content-Length", &value).bytes(), &[400]);
    }
    bench.assert_nothing_whole("lengths");
}

#[test]
fn r4_transfer_encodings_other_than_chunked() {
    let bench = Bench::start();
    for value in [
        b"chunked, identity".as_slice(),
        b"xchunked",
        b"gzip, chunked",
        b"chunked, chunked",
        b"identity",
        b"chun\tked",
        b"chunked\xff",
        b"\x0bchunked",
        b"",
    ] {
        let what = String::from_utf8_lossy(value);
        let request = upload().chunked(800).set("Transfer-Encoding", value);
        refused_for_good(&bench, &what, &request.bytes(), &[400, 501]);
    }
    let twice = upload().chunked(800).header("Transfer-Encoding", "identity");
    refused_for_good(&bench, "two headers", &twice.bytes(), &[400, 501]);
    bench.assert_nothing_whole("transfer encodings");
}

#[test]
fn r5_chunks_over_http_1_0() {
    let bench = Bench::start();
    refused_for_good(&bench, "1.0", &upload().chunked(800).version("HTTP/1.0").bytes(), &[400]);
    bench.assert_nothing_whole("1.0");
}

#[test]
fn r6_chunks_with_broken_sizes_or_line_ends() {
    let bench = Bench::start();
    let body = Form::of(&wav(3000)).closed();
    let (start, end) = body.split_at(1000);
    let first = [b"3e8\r\n", start, b"\r\n"].concat();
    let rest = |size: &str| [first.as_slice(), size.as_bytes(), end, b"\r\n0\r\n\r\n"].concat();
    let size = format!("{:x}", end.len());
    for (what, encoded) in [
        ("a size that is no number", rest("xyz\r\n")),
        ("a size with a sign", rest(&format!("+{size}\r\n"))),
        ("a size with 0x", rest(&format!("0x{size}\r\n"))),
        ("a size beyond 2^63", rest("ffffffffffffffff\r\n")),
        ("a size beyond 2^64", rest("10000000000000000\r\n")),
        ("a bare line feed", rest(&format!("{size}\n"))),
        (
            "no line end behind the data",
            [first.as_slice(), format!("{size}\r\n").as_bytes(), end, b"0\r\n\r\n"].concat(),
        ),
        ("a size that is too small", [first.as_slice(), b"3e8\r\n", end, b"\r\n0\r\n\r\n"].concat()),
        (
            "a bare line feed behind the data",
            [first.as_slice(), format!("{size}\r\n").as_bytes(), end, b"\n0\r\n\r\n"].concat(),
        ),
    ] {
        refused_for_good(&bench, what, &upload().encoded(encoded).bytes(), &[400]);
    }
    bench.assert_nothing_whole("chunks");
}

/// Pingora reads an empty size as the last chunk's, and what follows as trailers without an end.
#[test]
fn r6_a_chunk_without_a_size_ends_in_a_refusal_too() {
    let bench = Bench::with(|launch| launch.config("[limits]\nbody_timeout = \"1s\"\n"));
    let body = Form::of(&wav(3000)).closed();
    let encoded = [b"3e8\r\n", &body[..1000], b"\r\n\r\n", &body[1000..], b"\r\n0\r\n\r\n"].concat();
    refused_for_good(&bench, "an empty size", &upload().encoded(encoded).bytes(), &[400, 408]);
    bench.assert_nothing_whole("an empty size");
}

#[test]
fn r7_bodies_that_end_before_their_end() {
    let bench = Bench::start();
    let whole = upload();
    let chunked = upload().chunked(800);
    for (what, request, missing) in [
        ("a length", &whole, 1),
        ("a length, cut in the audio", &whole, 1500),
        ("chunks without the last one", &chunked, 5),
        ("chunks, cut in the last line", &chunked, 2),
        ("chunks, cut in the audio", &chunked, 1500),
    ] {
        let bytes = request.bytes();
        let mut wire = bench.edge.wire();
        wire.send(&bytes[..bytes.len() - missing]);
        wire.finish();
        match wire.reply_or_end() {
            Ok(reply) => drop(reply.refuses(what, 400, None)),
            Err(Ending::Closed | Ending::Reset) => {}
        }
    }
    bench.assert_nothing_whole("cut bodies");
}

#[test]
fn r11_a_declared_length_over_the_limit_is_refused_before_the_body() {
    let bench = Bench::with(|launch| launch.flags(&["--max-upload-mb", "1"]));
    let limit = 1 << 20;
    for expectation in [None, Some("100-continue")] {
        let mut request = upload().set("Content-Length", (limit + 1).to_string());
        if let Some(expectation) = expectation {
            request = request.header("Expect", expectation);
        }
        let mut wire = bench.edge.wire();
        wire.send(request.head());
        let reply = wire.reply();
        let error = reply.refuses("declared", 413, None);
        assert_eq!(error["type"], "server_error");
        let message = format!("Maximum content size limit ({limit}) exceeded ({} bytes read)", limit + 1);
        assert_eq!(error["message"], message);
        assert_eq!(reply.header("x-should-retry"), Some("false"));
        assert!(wire.informational.is_empty(), "no 100 Continue before a refusal");
    }
    let fits = Form::of(&wav(limit - 600));
    bench.accepts("just below", &Request::post(&fits), &wav(limit - 600));
}

#[test]
fn r11_chunks_that_pass_the_limit_are_refused_where_they_pass_it() {
    let bench = Bench::with(|launch| launch.flags(&["--max-upload-mb", "1"]));
    let request = Request::post(&Form::of(&wav(3 << 20))).chunked(60_000);
    let mut wire = bench.edge.wire();
    let mut writer = wire.writer();
    let bytes = request.bytes();
    let sending = std::thread::spawn(move || std::io::Write::write_all(&mut writer, &bytes));
    let reply = wire.reply();
    let error = reply.refuses("passing", 413, None);
    assert_eq!(error["type"], "server_error");
    assert_eq!(wire.ended(), Ending::Closed, "the client is still writing: a reset would hide the answer");
    sending.join().unwrap().unwrap();
    bench.assert_nothing_whole("too large");
}
