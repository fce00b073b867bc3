//! Control frames: what the server sends to one connection and never logs.
//!
//! * Each is one JSON object. WebSocket carries it as a text message, [`super::sse`] as a named event.
//! * Every text goes through the JSON encoder, so no value can end a string, a line or an event.
//! * It knows values, not connections: the worker decides which frame is sent when.

use std::io::Write as _;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::ws;
use crate::cursor::Cursor;
use crate::{json_integer, time};

/// The most bytes of a client's `ref`, which is echoed.
pub const REF_BYTES: usize = 64;
/// The most bytes of a presented cursor that `gap.after` shows.
pub const AFTER_BYTES: usize = 64;

/// A client's reference to a request, echoed in the response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ref {
    /// A whole number.
    Number(u64),
    /// A text of at most [`REF_BYTES`] bytes.
    Text(Box<str>),
}

impl Serialize for Ref {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Ref::Number(number) => serializer.serialize_u64(*number),
            Ref::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Ref {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ref, D::Error> {
        deserializer.deserialize_any(RefVisitor)
    }
}

struct RefVisitor;

impl Visitor<'_> for RefVisitor {
    type Value = Ref;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a whole number or a string of at most {REF_BYTES} bytes")
    }
    fn visit_u64<E>(self, number: u64) -> Result<Ref, E> {
        Ok(Ref::Number(number))
    }
    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Ref, E> {
        let whole = json_integer::from_double(number).map(Ref::Number);
        whole.ok_or_else(|| E::invalid_type(serde::de::Unexpected::Float(number), &self))
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Ref, E> {
        match text.len() > REF_BYTES {
            true => Err(E::invalid_length(text.len(), &self)),
            false => Ok(Ref::Text(text.into())),
        }
    }
}

/// Why a subscription does not continue where it asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// Retention has removed the events asked for, or they are damaged in the log; the subscription continues
    /// from the next event that can be read.
    Trimmed,
    /// As `Trimmed`, while connected: the client read more slowly than retention removed.
    Lagged,
    /// The cursor is not of this organization and store; the subscription continues live.
    UnknownCursor,
}

impl GapReason {
    /// Returns the name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            GapReason::Trimmed => "trimmed",
            GapReason::Lagged => "lagged",
            GapReason::UnknownCursor => "unknown_cursor",
        }
    }
}

/// A control frame. Times are Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub enum Control<'a> {
    /// Asks a WebSocket client for a response, and gives it a recent cursor.
    Ping {
        /// The present time.
        timestamp_ms: u64,
        /// The connection's position.
        cursor: Cursor,
    },
    /// Answers a client's `ping`.
    Pong {
        /// The present time.
        timestamp_ms: u64,
    },
    /// Gives an SSE client a recent cursor.
    Heartbeat {
        /// The present time.
        timestamp_ms: u64,
        /// The connection's position.
        cursor: Cursor,
    },
    /// A subscription begins.
    Ready {
        /// The connection's public id.
        connection_id: &'a str,
        /// The starting position.
        cursor: Cursor,
        /// True if a cursor was accepted without a gap.
        resumed: bool,
        /// The most events that may come before `caught_up`.
        replaying: u64,
        /// Seconds between heartbeats.
        heartbeat_seconds: u64,
        /// The `ref` of the `subscribe` that this answers.
        reference: Option<&'a Ref>,
    },
    /// All events before `cursor` were sent.
    CaughtUp {
        /// The connection's position.
        cursor: Cursor,
    },
    /// Events were skipped.
    Gap {
        /// The presented position, as presented, cut to [`AFTER_BYTES`].
        after: &'a str,
        /// Where the subscription continues.
        resumes_at: Cursor,
        /// The reason for the gap.
        reason: GapReason,
    },
    /// The events are accepted, and durable unless the client asked for less.
    Ack {
        /// The `ref` of the frame that this answers; `null` if that had none.
        reference: Option<&'a Ref>,
        /// Ids of the events, in the order they were given.
        ids: &'a [Cursor],
        /// For chunks of a stream: the index of its next chunk.
        next_index: Option<u64>,
    },
    /// Asks the producer of this stream to stop.
    Cancel {
        /// The stream.
        request_id: &'a str,
    },
    /// A stream that was read from its start has ended, and all of it was sent.
    Done {
        /// The stream.
        request_id: &'a str,
        /// Its terminal state.
        state: &'a str,
        /// Why the model stopped, if that is known.
        finish_reason: Option<&'a str>,
        /// What it cost, if that is known.
        usage: Option<&'a RawValue>,
    },
    /// An error, or the last message before the end (`event: closing`).
    Error {
        /// The error code, for programs.
        code: &'a str,
        /// The message, for people.
        message: &'a str,
        /// Further details, if there are any.
        details: Option<&'a serde_json::Value>,
        /// The `ref` of the frame that this answers.
        reference: Option<&'a Ref>,
    },
}

impl<'a> Control<'a> {
    /// Returns the `type`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Control::Ping { .. } => "ping",
            Control::Pong { .. } => "pong",
            Control::Heartbeat { .. } => "heartbeat",
            Control::Ready { .. } => "ready",
            Control::CaughtUp { .. } => "caught_up",
            Control::Gap { .. } => "gap",
            Control::Ack { .. } => "ack",
            Control::Cancel { .. } => "cancel",
            Control::Done { .. } => "done",
            Control::Error { .. } => "error",
        }
    }

    /// Returns the client's position after this frame, for frames that carry one.
    #[must_use]
    pub const fn position(&self) -> Option<Cursor> {
        match self {
            Control::Ping { cursor, .. }
            | Control::Heartbeat { cursor, .. }
            | Control::Ready { cursor, .. }
            | Control::CaughtUp { cursor }
            | Control::Gap { resumes_at: cursor, .. } => Some(*cursor),
            _ => None,
        }
    }

    /// Appends the frame as one JSON object.
    pub fn json(&self, out: &mut Vec<u8>) {
        let mut object = Object::new(self.name(), out);
        match *self {
            Control::Ping { timestamp_ms, cursor } | Control::Heartbeat { timestamp_ms, cursor } => {
                object.text("timestamp", &time::rfc3339(timestamp_ms));
                object.text("cursor", cursor.as_str());
            }
            Control::Pong { timestamp_ms } => object.text("timestamp", &time::rfc3339(timestamp_ms)),
            Control::Ready { connection_id, cursor, resumed, replaying, heartbeat_seconds, reference } => {
                object.text("connection_id", connection_id);
                object.text("cursor", cursor.as_str());
                object.value("resumed", &resumed);
                object.value("replaying", &replaying);
                object.value("heartbeat_seconds", &heartbeat_seconds);
                object.reference(reference);
            }
            Control::CaughtUp { cursor } => object.text("cursor", cursor.as_str()),
            Control::Gap { after, resumes_at, reason } => {
                object.text("after", &after[..after.floor_char_boundary(AFTER_BYTES)]);
                object.text("resumes_at", resumes_at.as_str());
                object.text("reason", reason.name());
            }
            Control::Ack { reference, ids, next_index } => {
                object.value("ref", &reference);
                object.name("ids");
                object.ids(ids);
                if let Some(next_index) = next_index {
                    object.value("next_index", &next_index);
                }
            }
            Control::Cancel { request_id } => object.text("request_id", request_id),
            Control::Done { request_id, state, finish_reason, usage } => {
                object.text("request_id", request_id);
                object.text("state", state);
                if let Some(reason) = finish_reason {
                    object.text("finish_reason", reason);
                }
                if let Some(usage) = usage {
                    object.value("usage", usage);
                }
            }
            Control::Error { code, message, details, reference } => {
                object.text("code", code);
                object.text("message", message);
                if let Some(details) = details {
                    object.value("details", details);
                }
                object.reference(reference);
            }
        }
        object.close();
    }

    /// Appends the frame as one WebSocket text message.
    pub fn ws(&self, out: &mut Vec<u8>) {
        let from = out.len();
        out.extend_from_slice(&[0; ws::MAX_HEADER]);
        self.json(out);
        let mut head = [0; ws::MAX_HEADER];
        let head = ws::text_header(out.len() - from - ws::MAX_HEADER, &mut head);
        out.splice(from..from + ws::MAX_HEADER, head.iter().copied());
    }
}

/// Writes an object whose first field is `type`.
struct Object<'o> {
    out: &'o mut Vec<u8>,
}

// Results are ignored here: a `Vec` takes every write, and all values written here can be serialised.
impl<'o> Object<'o> {
    fn new(name: &str, out: &'o mut Vec<u8>) -> Object<'o> {
        let _ = write!(out, "{{\"type\":\"{name}\"");
        Object { out }
    }
    fn name(&mut self, name: &str) {
        let _ = write!(self.out, ",\"{name}\":");
    }
    fn text(&mut self, name: &str, text: &str) {
        self.value(name, text);
    }
    fn value<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) {
        self.name(name);
        let _ = serde_json::to_writer(&mut *self.out, value);
    }
    fn reference(&mut self, reference: Option<&Ref>) {
        if let Some(reference) = reference {
            self.value("ref", reference);
        }
    }
    fn ids(&mut self, ids: &[Cursor]) {
        self.out.push(b'[');
        for (at, id) in ids.iter().enumerate() {
            self.out.extend_from_slice(if at == 0 { b"\"" } else { b",\"" });
            self.out.extend_from_slice(&id.0);
            self.out.push(b'"');
        }
        self.out.push(b']');
    }
    fn close(self) {
        self.out.push(b'}');
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(crate) const CURSOR: Cursor = Cursor(*b"AAECAwQFBgcICQoLDA0ODw");

    fn shown(control: &Control<'_>) -> Value {
        let mut ws = Vec::new();
        control.ws(&mut ws);
        let mut text = Vec::new();
        control.json(&mut text);
        assert!(ws.ends_with(&text) && ws[0] == 0x81);
        let announced = match ws[1] {
            126 => 256 * usize::from(ws[2]) + usize::from(ws[3]),
            short => usize::from(short),
        };
        assert_eq!(announced, text.len());
        serde_json::from_slice(&text).expect("json")
    }

    #[test]
    fn each_frame_has_the_shape_of_the_contract() {
        let id = CURSOR.as_str();
        let reference = Ref::Text("r\"\n".into());
        for (control, expected) in [
            (
                Control::Ping { timestamp_ms: 0, cursor: CURSOR },
                json!({"type":"ping","timestamp":"1970-01-01T00:00:00.000Z","cursor":id}),
            ),
            (
                Control::Pong { timestamp_ms: 1 },
                json!({"type":"pong","timestamp":"1970-01-01T00:00:00.001Z"}),
            ),
            (
                Control::Ready {
                    connection_id: "c-1",
                    cursor: CURSOR,
                    resumed: true,
                    replaying: u64::MAX,
                    heartbeat_seconds: 30,
                    reference: Some(&reference),
                },
                json!({"type":"ready","connection_id":"c-1","cursor":id,"resumed":true,
                       "replaying":u64::MAX,"heartbeat_seconds":30,"ref":"r\"\n"}),
            ),
            (Control::CaughtUp { cursor: CURSOR }, json!({"type":"caught_up","cursor":id})),
            (
                Control::Ack { reference: Some(&Ref::Number(7)), ids: &[CURSOR, CURSOR], next_index: None },
                json!({"type":"ack","ref":7,"ids":[id,id]}),
            ),
            (
                Control::Ack { reference: None, ids: &[], next_index: Some(3) },
                json!({"type":"ack","ref":null,"ids":[],"next_index":3}),
            ),
            (Control::Cancel { request_id: "r" }, json!({"type":"cancel","request_id":"r"})),
            (
                Control::Error {
                    code: "X",
                    message: "m\r\n",
                    details: Some(&json!({"a":"\n"})),
                    reference: None,
                },
                json!({"type":"error","code":"X","message":"m\r\n","details":{"a":"\n"}}),
            ),
        ] {
            assert_eq!(shown(&control), expected);
        }
    }

    #[test]
    fn a_presented_cursor_is_cut_between_characters() {
        let after = format!("{}ü\n", "x".repeat(AFTER_BYTES - 1));
        let gap = Control::Gap { after: &after, resumes_at: CURSOR, reason: GapReason::UnknownCursor };
        let shown = shown(&gap);
        assert_eq!(shown["after"].as_str(), Some("x".repeat(AFTER_BYTES - 1).as_str()));
        assert_eq!(shown["reason"], "unknown_cursor");
    }

    #[test]
    fn a_ref_is_a_whole_number_or_a_short_text() {
        let read = |json: &str| serde_json::from_str::<Ref>(json);
        assert_eq!(read("18446744073709551615").expect("u64"), Ref::Number(u64::MAX));
        assert_eq!(read("\"a\"").expect("text"), Ref::Text("a".into()));
        for bad in ["-1", "1.5", "null", "[]", "{}", "true", &format!("\"{}\"", "x".repeat(65))] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
