//! The bytes that the bench sends: requests that open streams, and publishes over HTTP keep-alive and
//! WebSocket.
//!
//! Everything is appended to a buffer of the caller, so that a running publisher allocates nothing.
//! [`super::message`] reads the responses.

use std::io::Write as _;

use super::Access;
use super::Wire;

/// The mask of every frame. Zero leaves the payload unchanged, and the server unmasks it anyway.
const MASK: [u8; 4] = [0; 4];

/// Returns the request that opens a subscription with `query`: empty, or starting with `?`, or with the rest of
/// the path.
pub(crate) fn subscribe(access: &Access, wire: Wire, query: &str) -> Vec<u8> {
    let (path, more) = match wire {
        Wire::Sse | Wire::Http => ("sse", "Accept: text/event-stream\r\n"),
        Wire::Ws => (
            "ws",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        ),
    };
    let (host, credential) = (&access.host, &access.credential);
    format!("GET /api/v1/{path}{query} HTTP/1.1\r\nHost: {host}\r\n{credential}{more}\r\n").into_bytes()
}

/// The constant part of a publish over HTTP keep-alive.
#[derive(Clone, Debug)]
pub(crate) struct HttpPublish {
    head: Vec<u8>,
}

impl HttpPublish {
    /// Creates publishes with `access`. Without `durable`, they are acknowledged before the fsync.
    pub(crate) fn new(access: &Access, durable: bool) -> HttpPublish {
        let path = if durable { "/api/v1/events" } else { "/api/v1/events?ack=memory" };
        HttpPublish::to(access, path, "application/json")
    }

    /// Creates POST requests to `path` with the content type `content`.
    pub(crate) fn to(access: &Access, path: &str, content: &str) -> HttpPublish {
        let (host, credential) = (&access.host, &access.credential);
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\n{credential}Content-Type: {content}\r\nContent-Length: "
        );
        HttpPublish { head: head.into_bytes() }
    }

    /// Returns the part of a request that is the same for every body. [`HttpPublish::rest`] follows it.
    pub(crate) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Appends the rest after the head: the length of the body and the body.
    pub(crate) fn rest(body: &[u8], out: &mut Vec<u8>) {
        let _ = write!(out, "{}\r\n\r\n", body.len()); // writing to a Vec never fails
        out.extend_from_slice(body);
    }

    /// Appends a request with this body: one event, or an array.
    pub(crate) fn request(&self, body: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        HttpPublish::rest(body, out);
    }
}

/// Appends a `publish` frame: `{"type":"publish","ref":…,"event":…}`, or with `events` if `array` is set.
pub(crate) fn ws_publish(reference: u64, body: &[u8], array: bool, durable: bool, out: &mut Vec<u8>) {
    let name = if array { "events" } else { "event" };
    let ack = if durable { "" } else { ",\"ack\":\"memory\"" };
    let (mut start, mut start_len) = ([0u8; 96], 0);
    let mut left = &mut start[..];
    let room = left.len();
    // 96 bytes are enough for the longest reference (20 digits) and the longest names.
    if write!(left, "{{\"type\":\"publish\",\"ref\":{reference}{ack},\"{name}\":").is_ok() {
        start_len = room - left.len();
    }
    frame_header(0x81, start_len + body.len() + 1, out);
    out.extend_from_slice(&start[..start_len]);
    out.extend_from_slice(body);
    out.push(b'}');
}

/// Appends one masked text frame (RFC 6455 §5.2).
pub(crate) fn ws_text(payload: &[u8], out: &mut Vec<u8>) {
    frame_header(0x81, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a Pong.
pub(crate) fn ws_pong(payload: &[u8], out: &mut Vec<u8>) {
    frame_header(0x8a, payload.len(), out);
    out.extend_from_slice(payload);
}

fn frame_header(first: u8, length: usize, out: &mut Vec<u8>) {
    out.push(first);
    match length {
        0..=125 => out.push(0x80 | length as u8),
        126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tungstenite::protocol::{Message, Role, WebSocket};

    use super::*;

    #[test]
    fn frames_are_what_the_server_reads() {
        let mut out = Vec::new();
        ws_publish(7, br#"{"type":"custom"}"#, false, false, &mut out);
        ws_publish(8, &[b"[", "1".repeat(70_000).as_bytes(), b"]"].concat(), true, true, &mut out);
        ws_pong(b"x", &mut out);
        let mut server = WebSocket::from_raw_socket(Cursor::new(out), Role::Server, None);
        let single = r#"{"type":"publish","ref":7,"ack":"memory","event":{"type":"custom"}}"#;
        assert_eq!(server.read().unwrap(), Message::text(single));
        let array = format!(r#"{{"type":"publish","ref":8,"events":[{}]}}"#, "1".repeat(70_000));
        assert_eq!(server.read().unwrap(), Message::text(array));
        assert_eq!(server.read().unwrap(), Message::Pong(b"x".as_slice().into()));
    }
}
