//! Encodes an event into the bytes of its frame, in one pass, after whatever the buffer already holds.
//!
//! * The length of a frame whose texts need no escapes is known in advance ([`EncodedSize`]), so the JSON is written
//!   at its final position. If it turns out longer or shorter, and so the chunk's head too, it is moved by
//!   some bytes.
//! * Frames that are encoded one after the other leave no gap between them.
//! * The ids are zeros, because a frame is numbered later.

use std::borrow::Cow;
use std::io::Write as _;

use bytes::Bytes;

use super::{
    CURSOR_LEN, Chunk, Frame, JSON_ID, KeySpan, RoutingKey, SSE_DATA, SSE_END, SSE_HEAD_LEN, SSE_ID,
    TAIL_LEN, TIMESTAMP_LEN, chunked,
};
use crate::event::json_text::is_ordinary;
use crate::event::table::with_event_fields;
use crate::event::{Event, EventKind, is_text_part};
use crate::ids::Sequence;
use crate::time;

const TYPE: &[u8] = b"\",\"type\":\"";
const FIRST_INDEX: &[u8] = b"\"first_index\":";
const INDEX: &[u8] = b"\"index\":";
const IS_FINAL: &[u8] = b"\"is_final\":";
const CHUNK: &[u8] = b"\"chunk\":\"";
const TIMESTAMP: &[u8] = b"\"timestamp\":\"";
const COMMA: &[u8] = b"\",";
/// Bytes of every event's JSON besides its kind and its fields; the last comma becomes a brace.
const FIXED: usize =
    JSON_ID.len() + CURSOR_LEN + TYPE.len() + COMMA.len() + TIMESTAMP.len() + TIMESTAMP_LEN + COMMA.len();

impl Frame {
    /// Encodes `event` without a sequence; [`Frame::seal`] sets it. `now_ms` is the timestamp if the event
    /// has none.
    #[must_use]
    pub fn encode(event: &Event<'_>, now_ms: u64, origin: u64) -> Frame {
        let room = EncodedSize::of(event);
        let mut buf = Vec::with_capacity(room.frame());
        let mut frame = encode(event, room, &time::rfc3339_bytes(now_ms), origin, &mut buf);
        frame.buf = Bytes::from(buf);
        frame
    }
}

/// Takes the fields of an event's head in the order in which they are written. `name` is the field's start, up to
/// the value without quotes.
trait HeadFields {
    fn text(&mut self, name: &'static [u8], key: Option<RoutingKey>, value: &str);
    fn json(&mut self, name: &'static [u8], value: &str);
    fn count(&mut self, name: &'static [u8], value: u64);
    fn flag(&mut self, name: &'static [u8], value: bool);
}

/// Passes on one field, by the type of its values. A type that no head has yet is not here.
macro_rules! head_field {
    ($to:ident, $name:ident, $value:ident: json) => { $to.json(start_of!($name), $value) };
    ($to:ident, $name:ident, $value:ident: object) => { $to.json(start_of!($name), $value) };
    ($to:ident, $name:ident, $value:ident: composite) => { $to.json(start_of!($name), $value) };
    ($to:ident, $name:ident, $value:ident: count) => { $to.count(start_of!($name), *$value) };
    ($to:ident, $name:ident, $value:ident: flag) => { $to.flag(start_of!($name), *$value) };
    ($to:ident, $name:ident, $value:ident: $text:ident $($key:ident)?) => {
        $to.text(concat!("\"", stringify!($name), "\":\"").as_bytes(), routing_key!($($key)?), $value)
    };
}
macro_rules! start_of {
    ($name:ident) => {
        concat!("\"", stringify!($name), "\":").as_bytes()
    };
}
macro_rules! routing_key {
    () => {
        None
    };
    ($key:ident) => {
        Some(RoutingKey::$key)
    };
}

macro_rules! define_each_head_field {
    (
        head { $($name:ident: $type:ident($($limit:expr)?) $(routed $key:ident)?, $description:literal, $example:literal;)* }
        $($part:ident { $($others:tt)* })*
    ) => {
        /// Passes on the fields that the event has.
        #[inline]
        fn each_head_field(event: &Event<'_>, to: &mut impl HeadFields) {
            $(if let Some(value) = &event.$name {
                head_field!(to, $name, value: $type $($key)?);
            })*
        }

        impl RoutingKey {
            /// Returns the value of the field in `event`.
            fn of<'e, 'a>(self, event: &'e Event<'a>) -> &'e Option<Cow<'a, str>> {
                match self {
                    $($(RoutingKey::$key => &event.$name,)?)*
                }
            }
        }
    };
}
with_event_fields!(define_each_head_field);

/// The bytes that an event's JSON takes if no text in it needs an escape.
#[derive(Clone, Copy, Debug)]
pub(super) struct EncodedSize {
    json: usize,
}

impl HeadFields for EncodedSize {
    #[inline]
    fn text(&mut self, name: &'static [u8], _: Option<RoutingKey>, value: &str) {
        self.json += name.len() + value.len() + COMMA.len();
    }
    fn json(&mut self, name: &'static [u8], value: &str) {
        self.json += name.len() + value.len() + 1;
    }
    fn count(&mut self, name: &'static [u8], value: u64) {
        self.json += name.len() + 1 + value.checked_ilog10().unwrap_or(0) as usize + 1;
    }
    fn flag(&mut self, name: &'static [u8], value: bool) {
        self.json += name.len() + if value { 4 } else { 5 } + 1;
    }
}

impl EncodedSize {
    pub(super) fn of(event: &Event<'_>) -> EncodedSize {
        let mut size = EncodedSize { json: FIXED + event.kind.name().len() };
        each_head_field(event, &mut size);
        if event.kind == EventKind::StreamChunk {
            for (name, value) in [(FIRST_INDEX, event.first_index), (INDEX, event.index)] {
                if let Some(value) = value {
                    size.count(name, value);
                }
            }
            size.flag(IS_FINAL, event.is_final.unwrap_or_default());
            size.text(CHUNK, None, event.chunk.as_deref().unwrap_or_default());
        }
        size
    }

    /// Returns the bytes of the whole frame.
    pub(super) fn frame(self) -> usize {
        self.before() + self.json + TAIL_LEN
    }

    /// Returns about how many bytes the event takes as a publisher sends it in an array.
    pub(super) fn sent(self) -> usize {
        self.json - FIXED + "{\"type\":\"\",,".len()
    }

    /// Returns the bytes of the frames of such events, of which publishers send `sent` bytes, with some
    /// reserve.
    pub(super) fn frames(self, sent: usize) -> usize {
        let frames = sent.saturating_mul(self.frame()) / self.sent();
        frames.saturating_add(frames / 32).saturating_add(self.frame())
    }

    /// Returns the bytes before the JSON.
    fn before(self) -> usize {
        chunked::head_len(sse_len(self.json)) + SSE_HEAD_LEN
    }
}

/// Returns the bytes of an SSE event with `json` bytes of JSON.
fn sse_len(json: usize) -> usize {
    SSE_HEAD_LEN + json + SSE_END.len()
}

/// Appends the frame of `event` and returns it without its bytes, which are those appended to the buffer.
/// `now` is the timestamp if the event has none.
pub(super) fn encode(
    event: &Event<'_>,
    room: EncodedSize,
    now: &[u8; TIMESTAMP_LEN],
    origin: u64,
    buf: &mut Vec<u8>,
) -> Frame {
    let start = buf.len();
    let guess = start + room.before();
    buf.resize(guess, 0);
    let mut json = JsonObject::new(buf);
    let chunk = json.event(event, now);
    let (json_len, in_json) = (json.len() as usize, json.keys);

    let keys = RoutingKey::ALL.map(|key| key.of(event));
    // A key that was escaped in the JSON is also written before the heads, unescaped.
    let apart = |key: RoutingKey| keys[key as usize].as_deref().filter(|_| in_json[key as usize].is_none());
    let chunk_at = RoutingKey::ALL.into_iter().filter_map(apart).map(str::len).sum::<usize>();
    let mut head = [0; chunked::MAX_HEAD];
    let head = chunked::head(sse_len(json_len), &mut head);
    let sse_at = chunk_at + head.len();
    let json_at = sse_at + SSE_HEAD_LEN;
    move_end(buf, guess, start + json_at);
    buf.extend_from_slice(SSE_END);
    buf.extend_from_slice(chunked::TAIL);

    let mut before = FrameHead { bytes: &mut buf[start..start + json_at], at: 0 };
    let (mut places, mut key_present) = ([KeySpan::default(); 4], 0u8);
    for key in RoutingKey::ALL {
        let Some(text) = keys[key as usize].as_deref() else { continue };
        let at = match in_json[key as usize] {
            Some(at) => json_at + at,
            None => before.put(text.as_bytes()),
        };
        key_present |= 1 << key as usize;
        places[key as usize] = KeySpan { at: at as u16, len: text.len() as u16 }; // bounded, see `KeySpan`
    }
    before.put(head);
    before.put(SSE_ID);
    before.put(&[0; CURSOR_LEN]);
    before.put(SSE_DATA);
    Frame {
        sequence: Sequence::ZERO,
        received_ms: 0,
        published_us: 0,
        origin,
        kind: event.kind,
        key_present,
        keys: places,
        chunk_at: chunk_at as u16, // four keys of 256 bytes
        sse_at: sse_at as u16,     // and a head
        chunk,
        buf: Bytes::new(),
    }
}

/// Moves the bytes from `from` to the buffer's end, so that they begin at `to`.
fn move_end(buf: &mut Vec<u8>, from: usize, to: usize) {
    let end = buf.len();
    if to > from {
        buf.resize(end + to - from, 0);
    }
    if to != from {
        buf.copy_within(from..end, to);
        buf.truncate(end - from + to);
    }
}

/// The bytes before a frame's JSON, written from the front.
struct FrameHead<'b> {
    bytes: &'b mut [u8],
    at: usize,
}

impl FrameHead<'_> {
    /// Writes `part` and returns its start.
    fn put(&mut self, part: &[u8]) -> usize {
        let at = self.at;
        self.at += part.len();
        self.bytes[at..self.at].copy_from_slice(part);
        at
    }
}

/// Appends an event's JSON in one canonical order: `id`, `type`, the fields, `timestamp` (and last a chunk's
/// text).
pub(super) struct JsonObject<'b> {
    pub(super) out: &'b mut Vec<u8>,
    /// Start of the JSON in `out`.
    begin: usize,
    /// Start of each routing key's text in the JSON; `None` if the key is absent or was escaped.
    keys: [Option<usize>; 4],
}

impl HeadFields for JsonObject<'_> {
    fn text(&mut self, name: &'static [u8], key: Option<RoutingKey>, value: &str) {
        self.out.extend_from_slice(name);
        let at = self.len() as usize;
        let is_ordinary = self.string(value);
        if let Some(key) = key {
            self.keys[key as usize] = is_ordinary.then_some(at);
        }
        self.out.push(b',');
    }
    fn json(&mut self, name: &'static [u8], value: &str) {
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(value.as_bytes());
        self.out.push(b',');
    }
    fn count(&mut self, name: &'static [u8], value: u64) {
        self.out.extend_from_slice(name);
        let _ = write!(self.out, "{value},"); // a Vec takes every write
    }
    fn flag(&mut self, name: &'static [u8], value: bool) {
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(if value { b"true," } else { b"false," });
    }
}

impl JsonObject<'_> {
    /// Starts an object at the end of `out`.
    pub(super) fn new(out: &mut Vec<u8>) -> JsonObject<'_> {
        JsonObject { begin: out.len(), out, keys: [None; 4] }
    }

    /// Writes the whole event.
    fn event(&mut self, event: &Event<'_>, now: &[u8; TIMESTAMP_LEN]) -> Option<Chunk> {
        self.start(event.kind);
        each_head_field(event, self);
        let given = event.timestamp.map(time::rfc3339_bytes);
        let timestamp = given.as_ref().unwrap_or(now);
        if event.kind != EventKind::StreamChunk {
            self.timestamp(timestamp);
            self.close();
            return None;
        }
        let mut chunk = Chunk {
            same_end: self.len(),
            text_at: 0,
            index: event.index,
            first_index: event.first_index,
            is_final: event.is_final.unwrap_or_default(),
            is_text: event.part.as_deref().is_none_or(is_text_part),
        };
        self.chunk_progress(&chunk);
        self.timestamp(timestamp);
        self.out.extend_from_slice(CHUNK);
        chunk.text_at = self.len();
        self.string(event.chunk.as_deref().unwrap_or_default());
        self.out.push(b'}');
        Some(chunk)
    }

    /// Returns the bytes written so far.
    pub(super) fn len(&self) -> u32 {
        (self.out.len() - self.begin) as u32
    }

    pub(super) fn start(&mut self, kind: EventKind) {
        self.out.extend_from_slice(JSON_ID);
        self.out.extend_from_slice(&[0; CURSOR_LEN]);
        self.out.extend_from_slice(TYPE);
        self.out.extend_from_slice(kind.name().as_bytes());
        self.out.extend_from_slice(COMMA);
    }

    /// Writes the rest of a string after its first quote. Returns true if the text needed no escapes.
    fn string(&mut self, text: &str) -> bool {
        let ordinary = is_ordinary(text);
        if ordinary {
            self.out.extend_from_slice(text.as_bytes());
            self.out.push(b'"');
        } else {
            self.out.pop(); // serde_json writes the quote itself
            // A Vec takes every write, a str is always JSON.
            let _ = serde_json::to_writer(&mut *self.out, text);
        }
        ordinary
    }

    pub(super) fn chunk_progress(&mut self, chunk: &Chunk) {
        for (name, value) in [(FIRST_INDEX, chunk.first_index), (INDEX, chunk.index)] {
            if let Some(value) = value {
                self.count(name, value);
            }
        }
        self.flag(IS_FINAL, chunk.is_final);
    }

    fn timestamp(&mut self, text: &[u8; TIMESTAMP_LEN]) {
        self.out.extend_from_slice(TIMESTAMP);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(COMMA);
    }

    /// Replaces the trailing comma by the closing brace.
    fn close(&mut self) {
        self.out.pop();
        self.out.push(b'}');
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::frame;
    use super::*;
    use crate::cursor::Cursor;

    /// Returns both lengths of one event: the expected one and the real one.
    fn lengths(json: &str) -> (usize, usize) {
        let event = Event::parse(json).expect(json);
        let mut buf = b"what stands before".to_vec();
        let before = buf.len();
        let frame = encode(&event, EncodedSize::of(&event), &time::rfc3339_bytes(0), 0, &mut buf);
        assert_eq!(buf[..before], *b"what stands before");
        assert_eq!(buf[before..], Frame::encode(&event, 0, 0).buf[..], "{json}");
        assert!(buf[before + frame.json_at()..].starts_with(JSON_ID));
        (EncodedSize::of(&event).frame(), buf.len() - before)
    }

    #[test]
    fn a_frame_without_escapes_takes_what_is_expected() {
        for json in [
            r#"{"type":"message","message_id":"i","agent_id":"a","user_id":"ü","role":"user","content":"","metadata":{"a":1}}"#,
            r#"{"type":"agent_update","agent_id":"a","status":"idle","error_message":"x","timestamp":"2026-01-02T03:04:05Z"}"#,
            r#"{"type":"memory_update","memory_id":"m","agent_id":"a","operation":"created"}"#,
            r#"{"type":"stream_chunk","request_id":"r","chunk":"text","is_final":true}"#,
            r#"{"type":"stream_chunk","request_id":"r","chunk":"","is_final":false,"index":0,"first_index":10}"#,
            r#"{"type":"stream_chunk","request_id":"r","chunk":"","is_final":false,"index":18446744073709551615,"first_index":9}"#,
            r#"{"type":"error","code":"C","message":"m"}"#,
            r#"{"type":"custom","channel":"c/d","data":[1,"\n"]}"#,
        ] {
            let (expected, taken) = lengths(json);
            assert_eq!(expected, taken, "{json}");
        }
    }

    #[test]
    fn every_field_of_every_type_is_written() {
        for kind in EventKind::ALL {
            let whole = kind.whole_example();
            let (expected, taken) = lengths(&whole);
            assert_eq!(expected, taken, "{whole}");
            let frame = frame(&whole, 1);
            let written = |json: &[u8]| serde_json::from_slice::<serde_json::Value>(json).expect(&whole);
            let mut event = written(frame.json());
            event.as_object_mut().expect(&whole).remove("id");
            assert_eq!(event, written(whole.as_bytes()));
        }
    }

    /// The head of the chunk gets one digit more, keys are escaped, or both.
    #[test]
    fn a_frame_with_escapes_is_moved_to_where_it_belongs() {
        for agent in ["a", r"\n", r"\\\\"] {
            for len in (0..300).chain(3_900..4_000) {
                let content = "x".repeat(len);
                let json = format!(r#"{{"type":"message","agent_id":"{agent}","content":"{content}\n"}}"#);
                let event = Event::parse(&json);
                if agent == r"\n" {
                    assert!(event.is_err(), "no id holds a control character");
                    continue;
                }
                let mut frame = Frame::encode(&event.expect("valid"), 0, 0);
                frame.seal(Sequence(1), 0, &Cursor([b'i'; CURSOR_LEN]));
                let sse = frame.sse_chunked();
                let head = format!("{:x}\r\n", frame.sse().len());
                assert!(sse.starts_with(head.as_bytes()), "{len}");
                assert_eq!(sse.len(), head.len() + frame.sse().len() + chunked::TAIL.len());
                let shown: serde_json::Value = serde_json::from_slice(frame.json()).expect("JSON");
                assert_eq!(shown["content"], format!("{content}\n"));
                assert_eq!(shown["agent_id"].as_str(), frame.key(RoutingKey::Agent));
                lengths(&json);
            }
        }
    }
}
