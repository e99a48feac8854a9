//! Writes a [`Reply`] to the client.

use std::borrow::Cow;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::Response;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use crate::answer::Reply;

/// The API version that OpenAI's answers name.
const OPENAI_VERSION: &str = "2020-10-01";

/// Sends the reply, with the headers that every answer of ours carries. `processing`: since the head was complete.
///
/// # Errors
/// Pingora's, when the client is gone.
pub async fn respond(
    session: &mut Session,
    reply: &Reply,
    request_id: &str,
    processing: Duration,
) -> pingora::Result<()> {
    let mut head = ResponseHeader::build(reply.status, Some(10 + reply.headers.len()))?;
    for (name, value) in common(reply, request_id, processing) {
        head.insert_header(name, &*value)?;
    }
    for (name, value) in &reply.headers {
        head.append_header(*name, value.as_str())?;
    }
    let downstream = session.as_downstream_mut();
    let bodiless = reply.body.is_empty() || downstream.req_header().method == http::Method::HEAD;
    downstream.write_response_header(Box::new(head)).await?;
    let body = if bodiless { Bytes::new() } else { reply.body.clone() };
    downstream.write_response_body(body, true).await
}

/// The same as a response for Pingora's small HTTP server. A body that HEAD must not have is taken out beforehand.
pub fn response(reply: &Reply, request_id: &str) -> Response<Vec<u8>> {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in common(reply, request_id, Duration::ZERO) {
        response = response.header(name, &*value);
    }
    for (name, value) in &reply.headers {
        response = response.header(*name, value.as_str());
    }
    response.body(reply.body.to_vec()).unwrap_or_else(|_| Response::new(Vec::new()))
}

/// A reply as a whole HTTP/1.1 message that closes the connection, for where there is no session yet.
pub fn message(reply: &Reply, request_id: &str) -> Bytes {
    let mut message = BytesMut::new();
    let reason = http::StatusCode::from_u16(reply.status).ok().and_then(|status| status.canonical_reason());
    message.put_slice(format!("HTTP/1.1 {} {}\r\n", reply.status, reason.unwrap_or_default()).as_bytes());
    let mut header = |name: &str, value: &str| message.put_slice(format!("{name}: {value}\r\n").as_bytes());
    for (name, value) in common(reply, request_id, Duration::ZERO) {
        header(name, &value);
    }
    header("connection", "close");
    for (name, value) in &reply.headers {
        header(name, value);
    }
    message.put_slice(b"\r\n");
    message.put_slice(&reply.body);
    message.freeze()
}

/// What every answer of ours carries, beside the reply's own.
fn common<'a>(reply: &Reply, request_id: &'a str, processing: Duration) -> [(&'static str, Cow<'a, str>); 7] {
    [
        ("content-type", reply.content_type.into()),
        ("content-length", reply.body.len().to_string().into()),
        ("cache-control", "no-store".into()),
        ("x-content-type-options", "nosniff".into()),
        ("x-request-id", request_id.into()),
        ("openai-processing-ms", processing.as_millis().to_string().into()),
        ("openai-version", OPENAI_VERSION.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_a_whole_http_answer() {
        let reply = Reply {
            status: 408,
            content_type: "application/json",
            headers: vec![("x-should-retry", "false".to_owned())],
            body: Bytes::from_static(b"{}"),
        };
        assert_eq!(
            message(&reply, "req_1"),
            "HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
             cache-control: no-store\r\nx-content-type-options: nosniff\r\nx-request-id: req_1\r\n\
             openai-processing-ms: 0\r\nopenai-version: 2020-10-01\r\nconnection: close\r\n\
             x-should-retry: false\r\n\r\n{}"
        );
    }
}
