//! The protocol of the baselines: only as much HTTP/1.1, WebSocket and SSE as the bench needs to measure them
//! like the daemon.
//!
//! * An event is sent with the daemon's envelope (an id of 22 characters, a timestamp of 24), so both send
//!   the same number of bytes. The id is only a counter and the timestamp is constant, which is cheaper than
//!   what any real server does.
//! * Only the bench's own requests are understood: one request line, `Content-Length`, `Sec-WebSocket-Key`,
//!   compact JSON.
//! * This file handles bytes, not sockets.

#![allow(dead_code, reason = "each baseline uses what it needs")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::digest;

/// Maximum bytes of one request. A longer one ends the connection.
pub(crate) const MAX_REQUEST: usize = 16 << 20;
/// The response to a publish.
pub(crate) const PUBLISHED: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 16\r\n\r\n{\"success\":true}";
/// The first message of a subscription, with the daemon's format and size.
const READY: &str = r#"{"type":"ready","connection_id":"0190c5f0-0000-7000-8000-000000000000","cursor":"0000000000000000000000","resumed":false,"replaying":0,"heartbeat_seconds":30}"#;
const TIMESTAMP: &[u8] = b",\"timestamp\":\"2026-01-02T03:04:05.678Z\"}";
/// The GUID of RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The requested resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    Ws,
    Sse,
    Publish,
    Stats,
    Other,
}

/// One whole request at the start of a buffer.
pub(crate) struct Request<'a> {
    pub(crate) target: Target,
    /// `Sec-WebSocket-Key`; empty if there is none.
    pub(crate) key: &'a [u8],
    /// The requested stream, if only one is requested.
    pub(crate) stream: Option<usize>,
    pub(crate) body: &'a [u8],
    /// Length of the request in the buffer, in bytes.
    pub(crate) used: usize,
}

/// Parses the request at the start of `buf`. Returns `Ok(None)` if it is incomplete.
///
/// # Errors
/// It is not a request, or it is longer than [`MAX_REQUEST`].
pub(crate) fn request(buf: &[u8]) -> Result<Option<Request<'_>>, &'static str> {
    let mut lines = buf.split_inclusive(|&b| b == b'\n');
    let Some(first) = lines.next().filter(|line| line.ends_with(b"\n")) else { return partial(buf) };
    let mut head = first.len();
    let (mut body, mut key) = (0usize, &[][..]);
    loop {
        let Some(line) = lines.next().filter(|line| line.ends_with(b"\n")) else { return partial(buf) };
        head += line.len();
        if line == b"\r\n" {
            break;
        }
        let Some(colon) = line.iter().position(|&b| b == b':') else {
            return Err("a header without a colon");
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let text = std::str::from_utf8(value).map_err(|_| "content-length")?;
            body = text.parse().map_err(|_| "content-length")?;
        } else if name.eq_ignore_ascii_case(b"sec-websocket-key") {
            key = value;
        }
    }
    let used = head.checked_add(body).filter(|used| *used <= MAX_REQUEST).ok_or("too long")?;
    let Some(body) = buf.get(head..used) else { return Ok(None) };
    let target = match first {
        line if line.starts_with(b"GET /api/v1/ws") => Target::Ws,
        line if line.starts_with(b"GET /api/v1/sse") => Target::Sse,
        line if line.starts_with(b"POST /api/v1/events") => Target::Publish,
        line if line.starts_with(b"GET /stats") => Target::Stats,
        _ => Target::Other,
    };
    let stream = stream(first, b"?request_id=");
    Ok(Some(Request { target, key, stream, body, used }))
}

/// Returns the stream of an event.
pub(crate) fn stream_of(event: &[u8]) -> Option<usize> {
    stream(event, b"\"request_id\":\"")
}

/// Returns the number of the stream named after `mark`, in the bench's format: `bench-000042`.
fn stream(text: &[u8], mark: &[u8]) -> Option<usize> {
    let at = memchr::memmem::find(text, mark)? + mark.len();
    let digits = text.get(at..)?.strip_prefix(b"bench-")?.get(..6)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn partial(buf: &[u8]) -> Result<Option<Request<'_>>, &'static str> {
    if buf.len() > MAX_REQUEST { Err("too long") } else { Ok(None) }
}

/// Returns the events of a publish: the elements of an array, or the single object.
pub(crate) fn events(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = body.trim_ascii();
    rest = rest.strip_prefix(b"[").unwrap_or(rest);
    std::iter::from_fn(move || {
        let from = rest.iter().position(|&b| b == b'{')?;
        let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
        for (at, &byte) in rest.iter().enumerate().skip(from) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                _ if in_string => {}
                b'{' => depth += 1,
                b'}' if depth == 1 => {
                    let event = &rest[from..=at];
                    rest = &rest[at + 1..];
                    return Some(event);
                }
                b'}' => depth -= 1,
                _ => {}
            }
        }
        None
    })
}

fn id(sequence: u64) -> [u8; 22] {
    let (mut text, mut rest) = ([b'0'; 22], sequence);
    for digit in text.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    text
}

/// Returns the number of bytes of the JSON that contains `event`.
fn enveloped(event: &[u8]) -> usize {
    b"{\"id\":\"\",".len() + 22 + event.len() - 2 + TIMESTAMP.len()
}

fn envelope(event: &[u8], id: &[u8; 22], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":\"");
    out.extend_from_slice(id);
    out.extend_from_slice(b"\",");
    out.extend_from_slice(&event[1..event.len() - 1]);
    out.extend_from_slice(TIMESTAMP);
}

/// Appends the header of an unmasked text message (RFC 6455 §5.2).
fn text_header(len: usize, out: &mut Vec<u8>) {
    out.push(0x81);
    match len {
        0..=125 => out.push(len as u8),
        126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

/// Appends `event` (a compact JSON object) as one WebSocket message.
pub(crate) fn ws_event(event: &[u8], sequence: u64, out: &mut Vec<u8>) {
    text_header(enveloped(event), out);
    envelope(event, &id(sequence), out);
}

/// Appends `event` as JSON only, for a library that does the framing.
pub(crate) fn json_event(event: &[u8], sequence: u64, out: &mut Vec<u8>) {
    envelope(event, &id(sequence), out);
}

/// Appends `event` as one SSE event.
pub(crate) fn sse_event(event: &[u8], sequence: u64, out: &mut Vec<u8>) {
    let id = id(sequence);
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(&id);
    out.extend_from_slice(b"\ndata: ");
    envelope(event, &id, out);
    out.extend_from_slice(b"\n\n");
}

/// Returns `Sec-WebSocket-Accept` for a key.
pub(crate) fn accept_key(key: &[u8]) -> String {
    let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    sha1.update(key);
    sha1.update(GUID);
    BASE64.encode(sha1.finish())
}

/// Appends the response to an upgrade, and `ready`.
pub(crate) fn ws_opening(key: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
    );
    out.extend_from_slice(b"Sec-WebSocket-Accept: ");
    out.extend_from_slice(accept_key(key).as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    text_header(READY.len(), out);
    out.extend_from_slice(READY.as_bytes());
}

/// Appends the response to an SSE request, and `ready`.
pub(crate) fn sse_opening(out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n\r\n",
    );
    out.extend_from_slice(b"retry: 2000\nevent: ready\ndata: ");
    out.extend_from_slice(READY.as_bytes());
    out.extend_from_slice(b"\n\n");
}

/// Returns `ready` only, for a library that does the framing.
pub(crate) const fn ready() -> &'static str {
    READY
}

/// Returns a short response, not for a publish.
pub(crate) fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
