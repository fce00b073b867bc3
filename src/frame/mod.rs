//! A frame: one numbered event, encoded once for every transport and shared by all of its readers.
//!
//! * One slice of a buffer holds the event as SSE carries it over HTTP/1.1, in one chunk (RFC 9112 §7.1):
//!   `[keys][chunk head][id: <cursor>\ndata: ][json][\n\n][chunk tail]`. Consecutive frames of a page of the
//!   log are one slice for one write. A WebSocket message is a header, which is created when it is sent, and
//!   the JSON.
//! * Routing keys point into the JSON. Only a key that had to be escaped there is also stored before the
//!   chunk's head.
//! * The JSON never holds a raw CR or LF, so no payload can forge an SSE field.
//! * The buffer may be shared: frames that were read together from the log are slices of one page. A frame
//!   that outlives its page is copied first ([`Frame::detached`]), or it would keep the whole page in memory.
//! * A frame is immutable once sealed. It knows its sequence but not its tenant; [`crate::filter`] decides
//!   who may see it.

pub mod batch;
pub mod chunked;
pub mod control;
mod encode;
mod encoded;
pub mod event_index;
pub mod frame_page;
pub mod json_page;
pub mod legacy_record;
pub mod merge;
pub mod page_writer;
pub mod record;
pub mod sse;
#[cfg(test)]
pub(crate) mod tests;
pub mod ws;
pub mod ws_decode;

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

pub use encoded::Encoded;

use crate::cursor::{CURSOR_LEN, Cursor};
use crate::event::EventKind;
use crate::ids::Sequence;
use crate::transport::WireFormat;

const SSE_ID: &[u8] = b"id: ";
const SSE_DATA: &[u8] = b"\ndata: ";
const SSE_END: &[u8] = b"\n\n";
const SSE_HEAD_LEN: usize = SSE_ID.len() + CURSOR_LEN + SSE_DATA.len();
/// Bytes after the JSON in a frame's buffer.
const TAIL_LEN: usize = SSE_END.len() + chunked::TAIL.len();
const JSON_ID: &[u8] = b"{\"id\":\"";
/// `2026-01-02T03:04:05.678Z`
const TIMESTAMP_LEN: usize = 24;

/// The fields by which an event is routed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum RoutingKey {
    /// `user_id`
    User = 0,
    /// `agent_id`
    Agent = 1,
    /// `request_id`
    Request = 2,
    /// `channel`
    Channel = 3,
}

impl RoutingKey {
    /// Every routing key, in the order of their ordinals (which the log stores).
    pub const ALL: [RoutingKey; 4] =
        [RoutingKey::User, RoutingKey::Agent, RoutingKey::Request, RoutingKey::Channel];
}

/// A numbered, encoded event.
#[derive(Clone)]
pub struct Frame {
    sequence: Sequence,
    /// The server's receive time in Unix milliseconds; never decreases within a tenant.
    received_ms: u64,
    /// When the event got its sequence ([`crate::time::Clock::monotonic_us`] of this process); 0 if it was
    /// read from the log.
    published_us: u64,
    /// The connection that published the event; 0 for none. Used for `echo=false`.
    origin: u64,
    kind: EventKind,
    /// One bit per [`RoutingKey`]: whether the event has that field.
    key_present: u8,
    /// The position of each key in `buf`; no meaning for an absent key.
    keys: [KeySpan; 4],
    /// Start of the chunk's head in `buf`; the keys that are not in the JSON end there.
    chunk_at: u16,
    /// Start of the SSE id line in `buf`; the chunk's head ends there.
    sse_at: u16,
    /// For a `stream_chunk`: what merging and filters need.
    chunk: Option<Chunk>,
    /// The encoded bytes. Until [`Frame::seal`] no other value shares them.
    buf: Bytes,
}

/// The position of a routing key in its frame's buffer, in bytes. [`crate::event`] limits each field, so 16
/// bits suffice.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct KeySpan {
    at: u16,
    len: u16,
}

/// The text of a routing key, for the layout of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum KeyText<'a> {
    /// The text is in the JSON without escapes: its offset from the JSON's start, and its length.
    InJson { at: usize, len: usize },
    /// The text is written before the heads.
    Apart(&'a str),
}

/// What merging and filters need to know of a `stream_chunk`; offsets are into the JSON.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Chunk {
    /// End of `"request_id":…,"agent_id":…,"user_id":…,"part":…,"metadata":…,`, which starts at a fixed offset.
    pub same_end: u32,
    /// Start of the chunk's escaped text, which ends 2 bytes before the JSON's end.
    pub text_at: u32,
    pub index: Option<u64>,
    pub first_index: Option<u64>,
    pub is_final: bool,
    /// False for a chunk of a part that is not of type `text`.
    pub is_text: bool,
}

impl Frame {
    /// Writes the parts into one buffer; the ids are zeros until [`Frame::seal`].
    fn assemble(
        kind: EventKind,
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
        let (mut places, mut key_present) = ([KeySpan::default(); 4], 0u8);
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
            places[index] = KeySpan { at: at as u16, len: len as u16 }; // bounded, see `KeySpan`
        }
        buf.extend_from_slice(chunked::head(sse_len, &mut [0; chunked::MAX_HEAD]));
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
            buf: buf.into(), // exactly full, so it is not copied and needs no counter of its own
        }
    }

    /// Numbers the frame and writes `cursor` into both encodings. It allocates nothing, for use under the
    /// tenant's lock.
    pub fn seal(&mut self, sequence: Sequence, received_ms: u64, cursor: &Cursor) {
        self.sequence = sequence;
        self.received_ms = received_ms;
        let mut buf = match std::mem::take(&mut self.buf).try_into_mut() {
            Ok(own) => own,
            Err(shared) => BytesMut::from(&shared[..]), // a frame that was cloned before it was sealed
        };
        self.write_id(&mut buf, cursor);
        self.buf = buf.freeze();
    }

    /// Writes `cursor` into both encodings of this frame, whose bytes are at the start of `buf`.
    fn write_id(&self, buf: &mut [u8], cursor: &Cursor) {
        for at in [self.sse_at() + SSE_ID.len(), self.json_at() + JSON_ID.len()] {
            buf[at..at + CURSOR_LEN].copy_from_slice(&cursor.0);
        }
    }

    /// Returns this frame in a buffer of its own: itself if it already has one, else a copy. For code that
    /// keeps a frame longer than its page or batch.
    #[must_use]
    pub fn detached(self: &Arc<Frame>) -> Arc<Frame> {
        match self.buf.is_unique() {
            true => self.clone(),
            false => Arc::new(Frame { buf: Bytes::copy_from_slice(&self.buf), ..Frame::clone(self) }),
        }
    }

    /// Returns the position in the tenant's order.
    #[must_use]
    pub fn sequence(&self) -> Sequence {
        self.sequence
    }
    /// Returns the server's receive time in Unix milliseconds.
    #[must_use]
    pub fn received_ms(&self) -> u64 {
        self.received_ms
    }
    /// Returns when the event was published ([`crate::time::Clock::monotonic_us`]); 0 if this process did not
    /// publish it.
    #[must_use]
    pub fn published_us(&self) -> u64 {
        self.published_us
    }
    /// Returns the connection that published the event; 0 for none.
    #[must_use]
    pub fn origin(&self) -> u64 {
        self.origin
    }
    /// Returns the event's kind.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        self.kind
    }
    /// Returns true for the last chunk of a stream.
    #[must_use]
    pub fn is_final_chunk(&self) -> bool {
        self.chunk.as_ref().is_some_and(|chunk| chunk.is_final)
    }
    /// Returns true for a `stream_chunk` of a part that is not of type `text`.
    #[must_use]
    pub fn is_of_other_part(&self) -> bool {
        self.chunk.as_ref().is_some_and(|chunk| !chunk.is_text)
    }
    /// Returns the value of a routing field, or `None` if the event does not have it.
    #[must_use]
    pub fn key(&self, key: RoutingKey) -> Option<&str> {
        std::str::from_utf8(self.key_bytes(key)?).ok()
    }
    /// Like [`Frame::key`], for comparisons: the same bytes, without a check that they are UTF-8.
    #[must_use]
    pub fn key_bytes(&self, key: RoutingKey) -> Option<&[u8]> {
        let at = key as usize;
        if self.key_present & (1 << at) == 0 {
            return None;
        }
        let KeySpan { at, len } = self.keys[at];
        Some(&self.buf[usize::from(at)..usize::from(at) + usize::from(len)])
    }
    /// Returns the event as JSON text, including its `id`.
    #[must_use]
    pub fn json(&self) -> &[u8] {
        &self.buf[self.json_at()..self.buf.len() - TAIL_LEN]
    }
    /// Returns the event in `text/event-stream`.
    #[must_use]
    pub fn sse(&self) -> &[u8] {
        &self.buf[self.sse_at()..self.buf.len() - chunked::TAIL.len()]
    }
    /// Returns [`Frame::sse`] as one complete chunk of an HTTP/1.1 body.
    #[must_use]
    pub fn sse_chunked(&self) -> &[u8] {
        &self.buf[usize::from(self.chunk_at)..]
    }
    /// Returns the event's bytes in `format`.
    #[must_use]
    pub fn encoded(&self, format: WireFormat) -> Encoded<'_> {
        match format {
            WireFormat::Ws => Encoded::ws(self.json()),
            WireFormat::SseChunked => Encoded::as_is(self.sse_chunked()),
            WireFormat::Sse => Encoded::as_is(self.sse()),
        }
    }
    /// Returns the bytes of memory that this frame takes: its slice of a buffer and its struct.
    #[must_use]
    pub fn size(&self) -> usize {
        self.buf.len() + size_of::<Frame>()
    }

    /// Returns the start of the id line in `buf`.
    fn sse_at(&self) -> usize {
        usize::from(self.sse_at)
    }

    /// Returns the start of the JSON in `buf`.
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

/// Start of a chunk's `"request_id"…` part, right after `{"id":"…","type":"stream_chunk",`.
const CHUNK_SAME_AT: usize = JSON_ID.len() + CURSOR_LEN + b"\",\"type\":\"stream_chunk\",".len();
