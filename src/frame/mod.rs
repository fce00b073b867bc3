//! A frame: one event, numbered, encoded once for every transport, shared by all who read it.
//!
//! * One slice of a buffer holds routing keys, the heads of all transports and one JSON body:
//!   `[keys][chunk head][id: <cursor>\ndata: ][WebSocket header][json][\n\n][chunk tail]`. A WebSocket message is one slice of it; an
//!   SSE event is the id line, the body and the blank line; over HTTP/1.1 the chunk's head and tail (RFC 9112 §7.1) enclose it.
//! * The JSON never holds a raw CR or LF, so no payload can forge an SSE field.
//! * The buffer may be shared: frames that were read together from the log are slices of one page. A frame that is kept while its
//!   page is let go of is copied out first ([`Frame::detached`]), or it would hold all of the page.
//! * A frame is immutable once sealed. It knows its sequence, not its tenant; who may see it is [`crate::filter`]'s.

pub mod chunked;
pub mod control;
pub mod merge;
pub mod record;
pub mod sse;
pub mod ws;
pub mod ws_decode;

use std::io::Write as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::cursor::{CURSOR_LEN, Cursor};
use crate::event::{Event, Kind, scan};
use crate::ids::Sequence;
use crate::time;

const SSE_ID: &[u8] = b"id: ";
const SSE_DATA: &[u8] = b"\ndata: ";
const SSE_END: &[u8] = b"\n\n";
const SSE_HEAD_LEN: usize = SSE_ID.len() + CURSOR_LEN + SSE_DATA.len();
/// What follows the JSON in a frame's buffer.
const TAIL_LEN: usize = SSE_END.len() + chunked::TAIL.len();
const JSON_ID: &[u8] = b"{\"id\":\"";
/// `2026-01-02T03:04:05.678Z`
const TIMESTAMP_LEN: usize = 24;

/// The fields an event is routed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Key {
    /// `user_id`
    User = 0,
    /// `agent_id`
    Agent = 1,
    /// `request_id`
    Request = 2,
    /// `channel`
    Channel = 3,
}

impl Key {
    /// Every routing key, in the order of their ordinals (which the log stores).
    pub const ALL: [Key; 4] = [Key::User, Key::Agent, Key::Request, Key::Channel];
}

/// How a connection carries events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Encoding {
    /// One WebSocket text message an event.
    Ws,
    /// `text/event-stream` in chunks, one an event: over HTTP/1.1.
    SseChunked,
    /// `text/event-stream` as it is: over HTTP/1.0, whose body ends with the connection, and in HTTP/2 data frames.
    Sse,
}

/// A numbered, encoded event.
#[derive(Clone)]
pub struct Frame {
    sequence: Sequence,
    /// Server's receive time, Unix milliseconds, never decreasing within a tenant.
    received_ms: u64,
    /// When it got its sequence, [`crate::time::Clock::monotonic_us`] of this process; 0: it was read from the log.
    published_us: u64,
    /// The connection that published it; 0: none. For `echo=false`.
    origin: u64,
    kind: Kind,
    /// Bit per [`Key`]: whether the event has that field (an id is never empty, yet absent is not empty).
    key_present: u8,
    /// End of each key in `buf`; the first starts at 0.
    key_ends: [u16; 4],
    /// Where the SSE id line starts in `buf`; the chunk's head ends there.
    sse_at: u16,
    /// Where the JSON starts in `buf`; the WebSocket header ends there.
    json_at: u32,
    /// Of a `stream_chunk`: what merging needs.
    chunk: Option<Chunk>,
    /// Nobody else holds a part of it until [`Frame::seal`].
    buf: Bytes,
}

/// What merging needs to know of a `stream_chunk`, offsets into the JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chunk {
    /// End of `"request_id":…,"agent_id":…,"user_id":…,"metadata":…,`, which starts at a fixed place.
    pub same_end: u32,
    /// Start of the chunk's escaped text, which ends 2 bytes before the JSON does.
    pub text_at: u32,
    pub index: Option<u64>,
    pub first_index: Option<u64>,
    pub is_final: bool,
}

impl Frame {
    /// Encodes `event`, still without a sequence: [`Frame::seal`] gives it one. `now_ms` is its timestamp if it has none.
    #[must_use]
    pub fn encode(event: &Event<'_>, now_ms: u64, origin: u64) -> Frame {
        let mut json = JsonObject::new(event);
        let mut chunk = None;
        match event.kind {
            Kind::StreamChunk => {
                let mut part = Chunk {
                    same_end: json.out.len() as u32,
                    text_at: 0,
                    index: event.index,
                    first_index: event.first_index,
                    is_final: event.is_final.unwrap_or_default(),
                };
                json.chunk_progress(&part);
                json.timestamp(event.timestamp_ms.unwrap_or(now_ms));
                json.out.extend_from_slice(b"\"chunk\":\"");
                part.text_at = json.out.len() as u32;
                json.out.pop(); // the quote, which the string writes itself
                json.string_value(event.chunk.as_deref().unwrap_or_default());
                json.out.push(b'}');
                chunk = Some(part);
            }
            _ => {
                json.timestamp(event.timestamp_ms.unwrap_or(now_ms));
                json.close();
            }
        }
        let keys =
            [&event.user_id, &event.agent_id, &event.request_id, &event.channel].map(|key| key.as_deref());
        Frame::assemble(event.kind, keys, &json.out, chunk, origin)
    }

    /// Lays the parts out in one buffer; the id places hold zeros until [`Frame::seal`].
    fn assemble(
        kind: Kind,
        keys: [Option<&str>; 4],
        json: &[u8],
        chunk: Option<Chunk>,
        origin: u64,
    ) -> Frame {
        let mut header = [0u8; ws::MAX_HEADER];
        let header = ws::text_header(json.len(), &mut header);
        let key_len: usize = keys.iter().flatten().map(|key| key.len()).sum();
        let sse_len = SSE_HEAD_LEN + json.len() + SSE_END.len();
        let len = key_len + chunked::head_len(sse_len) + SSE_HEAD_LEN + header.len() + json.len() + TAIL_LEN;
        let mut buf = Vec::with_capacity(len);
        let (mut key_ends, mut key_present) = ([0u16; 4], 0u8);
        for (at, key) in keys.iter().enumerate() {
            if let Some(key) = key {
                buf.extend_from_slice(key.as_bytes());
                key_present |= 1 << at;
            }
            key_ends[at] = buf.len() as u16; // event.rs bounds each key to 256 bytes
        }
        chunked::head(sse_len, &mut buf);
        let sse_at = buf.len() as u16; // four keys of 256 bytes and a head
        buf.extend_from_slice(SSE_ID);
        buf.extend_from_slice(&[0; CURSOR_LEN]);
        buf.extend_from_slice(SSE_DATA);
        buf.extend_from_slice(header);
        let json_at = buf.len() as u32;
        buf.extend_from_slice(json);
        buf.extend_from_slice(SSE_END);
        buf.extend_from_slice(chunked::TAIL);
        Frame {
            sequence: Sequence::ZERO,
            received_ms: 0,
            published_us: 0,
            origin,
            kind,
            key_present,
            key_ends,
            sse_at,
            json_at,
            chunk,
            buf: buf.into(), // of exactly its length, so it is neither copied nor does it need a counter of its own
        }
    }

    /// Numbers the frame and writes `cursor` into both encodings. Cheap: no allocation, for use under the tenant's lock.
    pub fn seal(&mut self, sequence: Sequence, received_ms: u64, cursor: &Cursor) {
        self.sequence = sequence;
        self.received_ms = received_ms;
        let mut buf = match std::mem::take(&mut self.buf).try_into_mut() {
            Ok(own) => own,
            Err(shared) => BytesMut::from(&shared[..]), // a frame that was cloned before it was sealed
        };
        let sse_id = self.sse_at() + SSE_ID.len();
        buf[sse_id..sse_id + CURSOR_LEN].copy_from_slice(&cursor.0);
        let json_id = self.json_at as usize + JSON_ID.len();
        buf[json_id..json_id + CURSOR_LEN].copy_from_slice(&cursor.0);
        self.buf = buf.freeze();
    }

    /// This frame without a hold on the bytes of others: itself where its buffer is its own, else a copy. For whatever keeps a
    /// frame longer than the page or batch that it came with.
    #[must_use]
    pub fn detached(self: &Arc<Frame>) -> Arc<Frame> {
        match self.buf.is_unique() {
            true => self.clone(),
            false => Arc::new(Frame { buf: Bytes::copy_from_slice(&self.buf), ..Frame::clone(self) }),
        }
    }

    /// The position in the tenant's order.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }
    /// Server's receive time, Unix milliseconds.
    #[must_use]
    pub fn received_ms(&self) -> u64 {
        self.received_ms
    }
    /// When it was published, [`crate::time::Clock::monotonic_us`]; 0 if this process did not publish it.
    #[must_use]
    pub fn published_us(&self) -> u64 {
        self.published_us
    }
    /// Says when it was published.
    pub fn stamp(&mut self, published_us: u64) {
        self.published_us = published_us;
    }
    /// The connection that published it; 0: none.
    #[must_use]
    pub fn origin(&self) -> u64 {
        self.origin
    }
    /// The event's kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }
    /// The value of a routing field, `None` where the event has none.
    #[must_use]
    pub fn key(&self, key: Key) -> Option<&str> {
        std::str::from_utf8(self.key_bytes(key)?).ok()
    }
    /// [`Frame::key`] for comparing: the bytes of the same text, which are not looked at.
    #[must_use]
    pub fn key_bytes(&self, key: Key) -> Option<&[u8]> {
        let at = key as usize;
        if self.key_present & (1 << at) == 0 {
            return None;
        }
        let start = if at == 0 { 0 } else { usize::from(self.key_ends[at - 1]) };
        Some(&self.buf[start..usize::from(self.key_ends[at])])
    }
    /// The event as JSON text, its `id` inside.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.buf[self.json_at as usize..self.buf.len() - TAIL_LEN]
    }
    /// The event as one whole WebSocket text message.
    #[must_use]
    pub fn ws(&self) -> &[u8] {
        &self.buf[self.sse_at() + SSE_HEAD_LEN..self.buf.len() - TAIL_LEN]
    }
    /// The event in `text/event-stream`, in two parts to be written one after the other.
    #[must_use]
    pub fn sse(&self) -> [&[u8]; 2] {
        let head = self.sse_at();
        let end = self.buf.len() - chunked::TAIL.len();
        [&self.buf[head..head + SSE_HEAD_LEN], &self.buf[self.json_at as usize..end]]
    }
    /// [`Frame::sse`] as one whole chunk of an HTTP/1.1 body.
    #[must_use]
    pub fn sse_chunked(&self) -> [&[u8]; 2] {
        [&self.buf[self.key_len()..self.sse_at() + SSE_HEAD_LEN], &self.buf[self.json_at as usize..]]
    }
    /// The event's bytes as `encoding` carries them, in up to two parts to be written one after the other.
    #[must_use]
    pub fn encoded(&self, encoding: Encoding) -> [&[u8]; 2] {
        match encoding {
            Encoding::Ws => [self.ws(), &[]],
            Encoding::SseChunked => self.sse_chunked(),
            Encoding::Sse => self.sse(),
        }
    }
    /// Bytes of memory this frame stands for: its slice of a buffer and its struct.
    #[must_use]
    pub fn size(&self) -> usize {
        self.buf.len() + size_of::<Frame>()
    }

    fn key_len(&self) -> usize {
        usize::from(self.key_ends[3])
    }

    /// Where the id line starts in `buf`: after the keys and the chunk's head.
    fn sse_at(&self) -> usize {
        self.sse_at as usize
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame")
            .field("sequence", &self.sequence)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// Writes an event's JSON in one canonical order: `id`, `type`, the fields, `timestamp` (and a chunk's text last).
struct JsonObject {
    out: Vec<u8>,
}

impl JsonObject {
    /// Starts the object with everything but the timestamp and a chunk's own fields; ends with a comma.
    fn new(event: &Event<'_>) -> JsonObject {
        let text = [&event.content, &event.chunk, &event.data, &event.metadata];
        let text_len: usize = text.into_iter().flatten().map(|t| t.len()).sum();
        let mut json = JsonObject { out: Vec::with_capacity(text_len + text_len / 8 + 320) };
        json.start(event.kind);
        let fields = [
            ("message_id", &event.message_id),
            ("memory_id", &event.memory_id),
            ("request_id", &event.request_id),
            ("channel", &event.channel),
            ("agent_id", &event.agent_id),
            ("user_id", &event.user_id),
            ("role", &event.role),
            ("content", &event.content),
            ("status", &event.status),
            ("error_message", &event.error_message),
            ("operation", &event.operation),
            ("code", &event.code),
            ("message", &event.message),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                json.name(name);
                json.string_value(value);
                json.out.push(b',');
            }
        }
        for (name, value) in [("data", &event.data), ("metadata", &event.metadata)] {
            if let Some(value) = value {
                json.name(name);
                json.out.extend_from_slice(value.as_bytes());
                json.out.push(b',');
            }
        }
        json
    }

    fn start(&mut self, kind: Kind) {
        self.out.extend_from_slice(JSON_ID);
        self.out.extend_from_slice(&[0; CURSOR_LEN]);
        self.out.extend_from_slice(b"\",\"type\":\"");
        self.out.extend_from_slice(kind.name().as_bytes());
        self.out.extend_from_slice(b"\",");
    }

    fn name(&mut self, name: &str) {
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
    }

    fn string_value(&mut self, value: &str) {
        if scan::is_ordinary(value) {
            self.out.push(b'"');
            self.out.extend_from_slice(value.as_bytes());
            self.out.push(b'"');
            return;
        }
        let _ = serde_json::to_writer(&mut self.out, value); // a Vec takes every write, a str is always JSON
    }

    fn chunk_progress(&mut self, chunk: &Chunk) {
        for (name, value) in [("first_index", chunk.first_index), ("index", chunk.index)] {
            if let Some(value) = value {
                let _ = write!(self.out, "\"{name}\":{value},"); // a Vec takes every write
            }
        }
        let _ = write!(self.out, "\"is_final\":{},", chunk.is_final);
    }

    fn timestamp(&mut self, ms: u64) {
        self.out.extend_from_slice(b"\"timestamp\":\"");
        self.out.extend_from_slice(&time::rfc3339_bytes(ms));
        self.out.extend_from_slice(b"\",");
    }

    /// Replaces the trailing comma by the closing brace.
    fn close(&mut self) {
        self.out.pop();
        self.out.push(b'}');
    }
}

/// Where a chunk's `"request_id"…` part starts: right after `{"id":"…","type":"stream_chunk",`.
const CHUNK_SAME_AT: usize = JSON_ID.len() + CURSOR_LEN + b"\",\"type\":\"stream_chunk\",".len();

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cursor::CursorKey;
    use crate::ids::TenantId;

    pub(crate) const KEY: CursorKey = CursorKey { store_id: *b"test", key: [3; 16] };

    /// A sealed frame of an event's JSON, of tenant 1.
    pub(crate) fn frame(json: &str, sequence: u64) -> Frame {
        let event = Event::parse(json).expect(json);
        let mut frame = Frame::encode(&event, 1_700_000_000_000, 0);
        let sequence = Sequence(sequence);
        frame.seal(sequence, 1_700_000_000_000, &KEY.encode(TenantId(1), sequence));
        frame
    }

    #[test]
    fn both_transports_carry_the_same_json() {
        let frame =
            frame(r#"{"type":"message","agent_id":"a","user_id":"ü","content":"x\ny\r\n\nid: 9"}"#, 5);
        let id = KEY.encode(TenantId(1), Sequence(5));
        let json = format!(
            r#"{{"id":"{id}","type":"message","agent_id":"a","user_id":"ü","content":"x\ny\r\n\nid: 9","timestamp":"2023-11-14T22:13:20.000Z"}}"#
        );
        assert_eq!(std::str::from_utf8(frame.json()).expect("text"), json);
        assert_eq!(frame.sse().concat(), format!("id: {id}\ndata: {json}\n\n").as_bytes());
        let sse_len = frame.sse().concat().len();
        assert_eq!(
            frame.sse_chunked().concat(),
            [format!("{sse_len:x}\r\n").as_bytes(), &frame.sse().concat(), b"\r\n"].concat()
        );
        assert_eq!(frame.ws()[..4], [0x81, 126, (json.len() >> 8) as u8, json.len() as u8]);
        assert_eq!(&frame.ws()[4..], json.as_bytes());
        assert_eq!(
            (frame.key(Key::User), frame.key(Key::Agent), frame.key(Key::Channel)),
            (Some("ü"), Some("a"), None)
        );
    }

    /// A page of the log is let go of while a slow connection still holds one frame of it: that frame is copied out.
    #[test]
    fn a_detached_frame_holds_no_part_of_a_shared_buffer() {
        let own = Arc::new(frame(r#"{"type":"message","agent_id":"a","content":"x"}"#, 5));
        assert!(Arc::ptr_eq(&own, &own.detached()), "nothing to copy");
        let page = Bytes::from([&own.buf[..], b"other frames"].concat());
        let shared = Arc::new(Frame { buf: page.slice(..own.buf.len()), ..Frame::clone(&own) });
        let detached = shared.detached();
        drop(shared);
        assert!(page.is_unique(), "only the page itself holds its bytes");
        assert_eq!((detached.ws(), detached.sse()), (own.ws(), own.sse()));
    }

    #[test]
    fn a_chunk_keeps_its_text_last() {
        let frame = frame(
            r#"{"type":"stream_chunk","request_id":"r","chunk":"a\"b","is_final":false,"index":4,"user_id":"u"}"#,
            1,
        );
        let json: serde_json::Value = serde_json::from_slice(frame.json()).expect("json");
        assert_eq!((json["chunk"].as_str(), json["index"].as_u64()), (Some("a\"b"), Some(4)));
        let chunk = frame.chunk.expect("a chunk");
        assert_eq!(
            &frame.json()[CHUNK_SAME_AT..chunk.same_end as usize],
            br#""request_id":"r","user_id":"u","#
        );
        assert_eq!(&frame.json()[chunk.text_at as usize..frame.json().len() - 2], br#"a\"b"#);
    }
}
