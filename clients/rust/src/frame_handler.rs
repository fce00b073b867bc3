//! Handles the frames of a subscription: they become items, a cursor to reconnect with, or a pong to send. It
//! has no socket or clock.
//!
//! * Every event and every control frame with a cursor moves the cursor, so the cursor of a quiet stream
//!   stays recent.
//! * The requested position is used until the first cursor arrives; after that, the cursor is used.

use std::time::Duration;

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::filter::{self, Filter, Position};
use crate::item::{Gap, Item, ReceivedEvent, Status, StreamDone};
use crate::read_timeout::READ_TIMEOUT_BEFORE_READY;
use crate::sse_parser::SseEvent;
use crate::stream_end::StreamEnd;
use crate::{ClientError, Event};

/// The longest heartbeat interval that is accepted: the maximum that a daemon can be configured to.
const HEARTBEAT_SECONDS_MAX: u64 = 3_600;
/// Number of missed heartbeats after which a peer counts as gone.
const HEARTBEATS_MISSED: u32 = 2;
/// Allowance for a late heartbeat, because both sides may be busy.
const HEARTBEAT_SLACK: Duration = Duration::from_secs(5);

/// The effect of one frame.
#[derive(Debug)]
pub(crate) enum FrameEffect {
    Nothing,
    Item(Item),
    /// A pong to send.
    Pong(String),
    /// The `ready` frame, and how long the stream may be silent from now on.
    Ready(Item, Duration),
    End(ClientError),
}

/// What a subscriber knows between two frames, and between two streams.
#[derive(Debug)]
pub(crate) struct FrameHandler {
    pub(crate) filter: Filter,
    /// The requested start. After the first cursor it is no longer used.
    pub(crate) position: Position,
    /// Empty until the first cursor arrives.
    pub(crate) cursor: String,
    /// Whether a stream ever sent `ready`.
    pub(crate) ready_received: bool,
    /// Streams lost in a row without an event.
    pub(crate) failures: u32,
}

impl FrameHandler {
    pub(crate) fn new(filter: Filter) -> Self {
        Self { filter, position: Position::Now, cursor: String::new(), ready_received: false, failures: 0 }
    }

    /// Returns the path with filter and position.
    pub(crate) fn path(&self, endpoint: &str) -> String {
        if self.cursor.is_empty() {
            return filter::path(endpoint, &self.filter, &self.position);
        }
        filter::path(endpoint, &self.filter, &Position::After(self.cursor.clone()))
    }

    /// Handles an event of an SSE stream.
    pub(crate) fn handle_sse(&mut self, event: SseEvent) -> Result<FrameEffect, ClientError> {
        if !event.id.is_empty() {
            self.cursor.clone_from(&event.id);
        }
        let frame = parse(&event.data)?;
        match event.event.as_str() {
            "message" => self.event(event.id, frame, event.data),
            "closing" => {
                let (code, message) = (text(&frame, "code"), text(&frame, "message"));
                Ok(FrameEffect::End(ClientError::Closing { code, message }))
            }
            name => Ok(self.control(name, &frame)),
        }
    }

    /// Handles a text frame of a WebSocket.
    pub(crate) fn handle_ws(&mut self, json: String) -> Result<FrameEffect, ClientError> {
        let frame = parse(&json)?;
        // Events have an id. Control frames have none; the control frame `error` has the same name as an
        // event.
        if let Some(id) = frame.get("id").and_then(Value::as_str).map(str::to_owned) {
            self.cursor.clone_from(&id);
            return self.event(id, frame, json);
        }
        let kind = text(&frame, "type");
        let effect = self.control(&kind, &frame);
        if kind == "ping" {
            let pong = json!({ "type": "pong", "timestamp": frame.get("timestamp") });
            return Ok(FrameEffect::Pong(pong.to_string()));
        }
        Ok(effect)
    }

    fn event(&mut self, id: String, frame: Value, json: String) -> Result<FrameEffect, ClientError> {
        self.failures = 0;
        let event = Event::deserialize(frame).map_err(|error| {
            ClientError::UnexpectedResponse(format!("an event that is not an object: {error}"))
        })?;
        Ok(FrameEffect::Item(Item::Event(ReceivedEvent { id, event, json })))
    }

    fn control(&mut self, kind: &str, frame: &Value) -> FrameEffect {
        let cursor = text(frame, if kind == "gap" { "resumes_at" } else { "cursor" });
        if !cursor.is_empty() {
            self.cursor.clone_from(&cursor);
        }
        match kind {
            "ready" => {
                let number = |name: &str| frame.get(name).and_then(Value::as_u64).unwrap_or(0);
                let heartbeat = Duration::from_secs(number("heartbeat_seconds").min(HEARTBEAT_SECONDS_MAX));
                let connected = Status::Connected {
                    connection_id: text(frame, "connection_id"),
                    resumed: frame.get("resumed").and_then(Value::as_bool).unwrap_or_default(),
                    replaying: number("replaying"),
                    reconnected: std::mem::replace(&mut self.ready_received, true),
                };
                let read_timeout = match heartbeat {
                    Duration::ZERO => READ_TIMEOUT_BEFORE_READY,
                    heartbeat => heartbeat * HEARTBEATS_MISSED + HEARTBEAT_SLACK,
                };
                FrameEffect::Ready(Item::Status(connected), read_timeout)
            }
            "caught_up" => FrameEffect::Item(Item::Status(Status::CaughtUp)),
            "gap" => {
                let (after, reason) = (text(frame, "after"), text(frame, "reason"));
                FrameEffect::Item(Item::Gap(Gap { after, resumes_at: cursor, reason }))
            }
            // `control` has no way to refuse a frame. A `done` with another shape is as good as none: the
            // stream's reader asks for its state.
            "done" => StreamEnd::deserialize(frame).map_or(FrameEffect::Nothing, |end| {
                FrameEffect::Item(Item::Done(StreamDone { request_id: text(frame, "request_id"), end }))
            }),
            "error" => {
                let (code, message) = (text(frame, "code"), text(frame, "message"));
                FrameEffect::Item(Item::Status(Status::ServerError { code, message }))
            }
            _ => FrameEffect::Nothing,
        }
    }
}

fn text(frame: &Value, name: &str) -> String {
    frame.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn parse(json: &str) -> Result<Value, ClientError> {
    serde_json::from_str(json)
        .map_err(|error| ClientError::UnexpectedResponse(format!("an event that is not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler() -> FrameHandler {
        FrameHandler { failures: 3, ..FrameHandler::new(Filter::new().types(["custom"])) }
    }

    fn sse(event: &str, id: &str, data: &str) -> SseEvent {
        SseEvent { event: event.into(), data: data.into(), id: id.into() }
    }

    #[test]
    fn a_received_cursor_replaces_the_requested_position() {
        let mut handler = handler();
        handler.position = Position::Earliest;
        assert_eq!(handler.path("ws"), "/api/v1/ws?types=custom&earliest=true");
        handler.cursor = "Ab_-".into();
        assert_eq!(handler.path("sse"), "/api/v1/sse?types=custom&last_event_id=Ab_-");
    }

    #[test]
    fn control_frames_move_the_cursor() {
        let mut handler = handler();
        let ready = r#"{"type":"ready","connection_id":"c","cursor":"A","resumed":true,"replaying":4,"heartbeat_seconds":30}"#;
        let effect = handler.handle_ws(ready.into()).unwrap();
        let FrameEffect::Ready(
            Item::Status(Status::Connected { connection_id, resumed, replaying, reconnected }),
            read_timeout,
        ) = effect
        else {
            panic!("{effect:?}")
        };
        assert_eq!((connection_id.as_str(), resumed, replaying, reconnected), ("c", true, 4, false));
        assert_eq!(read_timeout, Duration::from_secs(65));
        // `ready` alone does not reset the failures: if streams fail after `ready`, each wait is longer than
        // the last.
        assert_eq!((handler.cursor.as_str(), handler.ready_received, handler.failures), ("A", true, 3));
        let effect = handler.handle_sse(sse("ready", "A", r#"{"heartbeat_seconds":99999999}"#)).unwrap();
        let FrameEffect::Ready(Item::Status(Status::Connected { reconnected, .. }), read_timeout) = effect
        else {
            panic!("{effect:?}")
        };
        assert_eq!((reconnected, read_timeout), (true, Duration::from_secs(2 * HEARTBEAT_SECONDS_MAX + 5)));

        let gap = r#"{"type":"gap","after":"A","resumes_at":"B","reason":"trimmed"}"#;
        let effect = handler.handle_ws(gap.into()).unwrap();
        let FrameEffect::Item(Item::Gap(gap)) = effect else { panic!("{effect:?}") };
        assert_eq!((gap.after.as_str(), gap.resumes_at.as_str(), gap.reason.as_str()), ("A", "B", "trimmed"));
        assert_eq!(handler.cursor, "B");
        assert!(matches!(
            handler.handle_sse(sse("heartbeat", "C", r#"{"cursor":"C"}"#)).unwrap(),
            FrameEffect::Nothing
        ));
        assert_eq!(handler.cursor, "C");
        let effect = handler.handle_ws(r#"{"type":"ping","timestamp":"t","cursor":"D"}"#.into()).unwrap();
        assert!(matches!(effect, FrameEffect::Pong(pong) if pong == r#"{"timestamp":"t","type":"pong"}"#));
        assert_eq!(handler.cursor, "D");
        for nothing in [r#"{"type":"ack","ids":[]}"#, r#"{"type":"new","cursor":7}"#, "{}"] {
            assert!(matches!(handler.handle_ws(nothing.into()).unwrap(), FrameEffect::Nothing));
        }
        assert_eq!((handler.cursor.as_str(), handler.failures), ("D", 3));
    }

    #[test]
    fn an_error_frame_is_a_status_and_an_error_event_is_an_event() {
        let mut handler = handler();
        let effect =
            handler.handle_ws(r#"{"type":"error","code":"BAD_REQUEST","message":"what?"}"#.into()).unwrap();
        assert!(matches!(effect, FrameEffect::Item(Item::Status(Status::ServerError { .. }))), "{effect:?}");
        let json = r#"{"type":"error","id":"E","code":"C","message":"m"}"#;
        let effect = handler.handle_ws(json.into()).unwrap();
        let FrameEffect::Item(Item::Event(received)) = effect else { panic!("{effect:?}") };
        assert_eq!((received.id.as_str(), received.json.as_str()), ("E", json));
        assert!(matches!(received.event, Event::Error(_)));
        assert_eq!((handler.cursor.as_str(), handler.failures), ("E", 0));
    }

    #[test]
    fn a_closing_event_keeps_the_cursor() {
        let mut handler = handler();
        let effect =
            handler.handle_sse(sse("closing", "A", r#"{"code":"UNAVAILABLE","message":"m"}"#)).unwrap();
        assert!(
            matches!(effect, FrameEffect::End(ClientError::Closing { code, .. }) if code == "UNAVAILABLE")
        );
        assert_eq!(handler.cursor, "A");
        assert!(matches!(
            handler.handle_sse(sse("message", "B", "{")),
            Err(ClientError::UnexpectedResponse(_))
        ));
        assert!(matches!(handler.handle_ws("[]".into()).unwrap(), FrameEffect::Nothing));
    }
}
