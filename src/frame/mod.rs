//! A frame: one event, numbered, encoded once for every transport, shared by all who read it.
//!
//! * One slice of a buffer holds the event as SSE carries it over HTTP/1.1, in one chunk (RFC 9112 §7.1):
//!   `[keys][chunk head][id: <cursor>\ndata: ][json][\n\n][chunk tail]`. Frames that stand one behind the other in a page of the log are one
//!   slice for one write. A WebSocket message is a header, which is made when it is sent, and the JSON.
//! * Routing keys are pointed at inside the JSON. Only a key that had to be escaped there stands before the chunk's head.
//! * The JSON never holds a raw CR or LF, so no payload can forge an SSE field.
//! * The buffer may be shared: frames that were read together from the log are slices of one page. A frame that is kept while its
//!   page is let go of is copied out first ([`Frame::detached`]), or it would hold all of the page.
//! * A frame is immutable once sealed. It knows its sequence, not its tenant; who may see it is [`crate::filter`]'s.

pub mod chunked;
pub mod control;
mod encoded;
pub mod merge;
pub mod old_record;
pub mod page;
pub mod record;
pub mod sse;
#[cfg(test)]
pub(crate) mod tests;
pub mod ws;
pub mod ws_decode;

use std::io::Write as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

pub use encoded::Encoded;

use crate::cursor::{CURSOR_LEN, Cursor};
use crate::event::{Event, Kind, text};
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

    /// The key that an event's field is.
    fn of_field(name: &str) -> Option<Key> {
        Some(match name {
            "user_id" => Key::User,
            "agent_id" => Key::Agent,
            "request_id" => Key::Request,
            "channel" => Key::Channel,
            _ => return None,
        })
    }
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
    /// Where each key lies in `buf`; meaningless for an absent one.
    keys: [KeyPlace; 4],
    /// Where the chunk's head starts in `buf`; keys that are not in the JSON end there.
    chunk_at: u16,
    /// Where the SSE id line starts in `buf`; the chunk's head ends there.
    sse_at: u16,
    /// Of a `stream_chunk`: what merging needs.
    chunk: Option<Chunk>,
    /// Nobody else holds a part of it until [`Frame::seal`].
    buf: Bytes,
}

/// Where a routing key lies in its frame's buffer, bytes. [`crate::event`] bounds each field, so that 16 bits suffice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct KeyPlace {
    at: u16,
    len: u16,
}

/// The text of a routing key, for laying a frame out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KeyText<'a> {
    /// It stands in the JSON as it is: its offset from the JSON's start, and its length.
    InJson { at: usize, len: usize },
    /// It is written before the heads.
    Apart(&'a str),
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
        let keys = [&event.user_id, &event.agent_id, &event.request_id, &event.channel];
        let text = |key: Key| {
            let text = keys[key as usize].as_deref()?;
            let in_json = |at| KeyText::InJson { at, len: text.len() };
            Some(json.keys[key as usize].map_or(KeyText::Apart(text), in_json))
        };
        Frame::assemble(event.kind, Key::ALL.map(text), &json.out, chunk, origin)
    }

    /// Lays the parts out in one buffer; the id places hold zeros until [`Frame::seal`].
    fn assemble(
        kind: Kind,
        keys: [Option<KeyText<'_>>; 4],
        json: &[u8],
        chunk: Option<Chunk>,
        origin: u64,
    ) -> Frame {
        let apart = keys.iter().flatten().map(|key| match key {
            KeyText::Apart(text) => text.len(),
            KeyText::InJson { .. } => 0,
        });
        let sse_len = SSE_HEAD_LEN + json.len() + SSE_END.len();
        let chunk_at = apart.sum::<usize>();
        let sse_at = chunk_at + chunked::head_len(sse_len);
        let json_at = sse_at + SSE_HEAD_LEN;
        let mut buf = Vec::with_capacity(json_at + json.len() + TAIL_LEN);
        let (mut places, mut key_present) = ([KeyPlace::default(); 4], 0u8);
        for (index, key) in keys.iter().enumerate() {
            let (at, len) = match *key {
                None => continue,
                Some(KeyText::InJson { at, len }) => (json_at + at, len),
                Some(KeyText::Apart(text)) => {
                    buf.extend_from_slice(text.as_bytes());
                    (buf.len() - text.len(), text.len())
                }
            };
            key_present |= 1 << index;
            places[index] = KeyPlace { at: at as u16, len: len as u16 }; // bounded, see `KeyPlace`
        }
        chunked::head(sse_len, &mut buf);
        buf.extend_from_slice(SSE_ID);
        buf.extend_from_slice(&[0; CURSOR_LEN]);
        buf.extend_from_slice(SSE_DATA);
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
            keys: places,
            chunk_at: chunk_at as u16, // four keys of 256 bytes
            sse_at: sse_at as u16,     // and a head
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
        let json_id = self.json_at() + JSON_ID.len();
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
        let KeyPlace { at, len } = self.keys[at];
        Some(&self.buf[usize::from(at)..usize::from(at) + usize::from(len)])
    }
    /// The event as JSON text, its `id` inside.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.buf[self.json_at()..self.buf.len() - TAIL_LEN]
    }
    /// The event in `text/event-stream`.
    #[must_use]
    pub fn sse(&self) -> &[u8] {
        &self.buf[self.sse_at()..self.buf.len() - chunked::TAIL.len()]
    }
    /// [`Frame::sse`] as one whole chunk of an HTTP/1.1 body.
    #[must_use]
    pub fn sse_chunked(&self) -> &[u8] {
        &self.buf[usize::from(self.chunk_at)..]
    }
    /// The event's bytes as `encoding` carries them.
    #[must_use]
    pub fn encoded(&self, encoding: Encoding) -> Encoded<'_> {
        match encoding {
            Encoding::Ws => Encoded::ws(self.json()),
            Encoding::SseChunked => Encoded::as_is(self.sse_chunked()),
            Encoding::Sse => Encoded::as_is(self.sse()),
        }
    }
    /// Bytes of memory this frame stands for: its slice of a buffer and its struct.
    #[must_use]
    pub fn size(&self) -> usize {
        self.buf.len() + size_of::<Frame>()
    }

    /// Where the id line starts in `buf`.
    fn sse_at(&self) -> usize {
        usize::from(self.sse_at)
    }

    /// Where the JSON starts in `buf`.
    fn json_at(&self) -> usize {
        self.sse_at() + SSE_HEAD_LEN
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
    /// Where the text of each routing key starts in `out`; `None`: it is absent, or was escaped.
    keys: [Option<usize>; 4],
}

impl JsonObject {
    /// Starts the object with everything but the timestamp and a chunk's own fields; ends with a comma.
    fn new(event: &Event<'_>) -> JsonObject {
        let text = [&event.content, &event.chunk, &event.data, &event.metadata];
        let text_len: usize = text.into_iter().flatten().map(|t| t.len()).sum();
        let mut json = JsonObject { out: Vec::with_capacity(text_len + text_len / 8 + 320), keys: [None; 4] };
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
                let at = json.out.len() + 1;
                let as_it_is = json.string_value(value);
                if let Some(key) = Key::of_field(name) {
                    json.keys[key as usize] = as_it_is.then_some(at);
                }
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

    /// Returns true if the value stands there as it is, without escapes.
    fn string_value(&mut self, value: &str) -> bool {
        let ordinary = text::is_ordinary(value);
        if ordinary {
            self.out.push(b'"');
            self.out.extend_from_slice(value.as_bytes());
            self.out.push(b'"');
        } else {
            let _ = serde_json::to_writer(&mut self.out, value); // a Vec takes every write, a str is always JSON
        }
        ordinary
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
