//! JSON schemas of control frames: those that the daemon sends on one connection, and those that a WebSocket
//! client sends.
//!
//! * Frames are written field by field (`frame/control.rs`) and parsed field by field
//!   (`connection/client_frame.rs`). The tests in `frame_tests.rs` compare every schema with both.

use serde_json::{Map, Value, json};

use crate::connection::client_frame::{PUBLISH_EVENTS, TOKEN_BYTES};
use crate::filter::{FILTER_VALUES, Filter};
use crate::frame::control::{AFTER_BYTES, GapReason, REF_BYTES};
use crate::http::schemas::{CURSOR, PARTS, TIME, cursor, filter_fields, of, tagged};
use crate::tenant::streams::StreamState;
use crate::tenant::streams::state::CHUNKS_AT_ONCE;

/// A frame: the name of its schema, its `type`, and the schema.
pub(super) struct Frame {
    /// Name of the schema.
    pub(super) name: &'static str,
    /// Value of `type`.
    pub(super) kind: &'static str,
    /// The schema.
    pub(super) schema: Value,
}

fn fields<const N: usize>(of: [(&str, Value); N]) -> Map<String, Value> {
    of.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time", "description": "Time of sending."})
}

fn count(says: &str) -> Value {
    json!({"type": "integer", "format": "uint64", "minimum": 0, "maximum": u64::MAX, "description": says})
}

fn text(says: &str) -> Value {
    json!({"type": "string", "description": says})
}

/// The control frames that the daemon sends.
pub(super) fn of_daemon() -> Vec<Frame> {
    let frame = |name, kind, says, required, optional, example: Value| {
        let mut schema = tagged(kind, says, required, optional, true);
        schema["examples"] = json!([example]);
        Frame { name, kind, schema }
    };
    let reference = || fields([("ref", of("Ref"))]);
    let reasons = [GapReason::Trimmed, GapReason::Lagged, GapReason::UnknownCursor].map(GapReason::name);
    vec![
        frame(
            "ReadyFrame",
            "ready",
            "A subscription has started.",
            fields([
                ("connection_id", text("Id of the connection in `/api/v1/connections`.")),
                ("cursor", cursor("Position at which the subscription starts.")),
                (
                    "resumed",
                    json!({"type": "boolean", "description": "True if the cursor was accepted and no event is missing."}),
                ),
                ("replaying", count("Upper bound of the events before `caught_up`, without the filter.")),
                ("heartbeat_seconds", count("Seconds between heartbeats.")),
            ]),
            reference(),
            json!({"type": "ready", "connection_id": "conn-0000000000000001", "cursor": CURSOR, "resumed": false,
                "replaying": 0, "heartbeat_seconds": 30}),
        ),
        frame(
            "GapFrame",
            "gap",
            "Events are missing here. Fetch the state again.",
            fields([
                (
                    "after",
                    json!({"type": "string", "description":
                    format!("The cursor or time of the request, cut to {AFTER_BYTES} bytes.")}),
                ),
                ("resumes_at", cursor("Position at which delivery continues.")),
                (
                    "reason",
                    json!({"type": "string", "enum": reasons, "description":
                    "`trimmed`, `lagged`: continues from the oldest retained event; `unknown_cursor`: continues live."}),
                ),
            ]),
            Map::new(),
            json!({"type": "gap", "after": "nonsense", "resumes_at": CURSOR, "reason": "unknown_cursor"}),
        ),
        frame(
            "CaughtUpFrame",
            "caught_up",
            "The replay is complete. Sent once for each subscription with a position.",
            fields([("cursor", cursor("The position."))]),
            Map::new(),
            json!({"type": "caught_up", "cursor": CURSOR}),
        ),
        frame(
            "HeartbeatFrame",
            "heartbeat",
            "A heartbeat over SSE. Save its cursor.",
            fields([("timestamp", time()), ("cursor", cursor("The position."))]),
            Map::new(),
            json!({"type": "heartbeat", "timestamp": TIME, "cursor": CURSOR}),
        ),
        frame(
            "PingFrame",
            "ping",
            "A heartbeat over WebSocket. Save its cursor and answer with `pong`.",
            fields([("timestamp", time()), ("cursor", cursor("The position."))]),
            Map::new(),
            json!({"type": "ping", "timestamp": TIME, "cursor": CURSOR}),
        ),
        frame(
            "PongFrame",
            "pong",
            "The response to a client's `ping`.",
            fields([("timestamp", time())]),
            Map::new(),
            json!({"type": "pong", "timestamp": TIME}),
        ),
        frame(
            "AckFrame",
            "ack",
            "The frame was accepted. A publish is on disk, unless it requested `memory`.",
            fields([
                (
                    "ref",
                    json!({"oneOf": [of("Ref"), {"type": "null"}], "description": "`null` if the frame had none."}),
                ),
                (
                    "ids",
                    json!({"type": "array", "items": cursor("An event's id."),
                    "description": "Ids in the order of the events."}),
                ),
            ]),
            fields([(
                "next_index",
                json!({"type": "integer", "minimum": 0, "description": "For chunks of a stream: the index of its next chunk."}),
            )]),
            json!({"type": "ack", "ref": 7, "ids": [CURSOR]}),
        ),
        frame(
            "CancelFrame",
            "cancel",
            "A request to the producer of this stream to stop.",
            fields([("request_id", text("The stream."))]),
            Map::new(),
            json!({"type": "cancel", "request_id": "r-1"}),
        ),
        frame(
            "DoneFrame",
            "done",
            "A stream that was read from its start has ended, and all of it was sent.",
            fields([
                ("request_id", text("The stream.")),
                (
                    "state",
                    json!({"type": "string", "enum": StreamState::TERMINAL.map(StreamState::name),
                    "description": "How it ended."}),
                ),
            ]),
            fields([
                ("finish_reason", text("Why the model stopped.")),
                ("usage", json!({"type": "object", "description": "What the stream cost."})),
            ]),
            json!({"type": "done", "request_id": "r-1", "state": "completed", "finish_reason": "stop"}),
        ),
        frame(
            "ErrorFrame",
            "error",
            "A frame was refused. On SSE it is the last event, `event: closing`. Unlike an event of this type it has no `id`.",
            fields([("code", text("For programs.")), ("message", text("For people."))]),
            fields([
                ("details", json!({"type": "object", "description": "More information, if any."})),
                ("ref", of("Ref")),
            ]),
            json!({"type": "error", "code": "BAD_REQUEST", "message": "type: is required"}),
        ),
    ]
}

/// The frames that a WebSocket client sends.
pub(super) fn of_client() -> Vec<Frame> {
    let frame = |name, kind, says, required, optional: Map<String, Value>, example: Value| {
        let mut optional = optional;
        optional.insert("ref".into(), json!({"oneOf": [of("Ref"), {"type": "null"}]}));
        let mut schema = tagged(kind, says, required, optional, false);
        schema["examples"] = json!([example]);
        Frame { name, kind, schema }
    };
    let alive = || {
        let any = |says| json!({"description": says});
        fields([("timestamp", any("Ignored.")), ("cursor", any("Ignored."))])
    };
    let nullable = |says: &str| json!({"type": ["string", "null"], "description": says});
    let list = json!({"type": "array", "items": {"type": "string"}, "maxItems": FILTER_VALUES});
    let mut subscription: Map<String, Value> = filter_fields()
        .map(|(name, says)| {
            let schema = json!({"anyOf": [{"type": ["string", "null"]}, list],
                "description": format!("{says} Or an array, whose items may contain commas.")});
            (name.to_owned(), schema)
        })
        .collect();
    let [text_alone, all, empty] = PARTS.1;
    subscription.extend(fields([
        (
            Filter::PARTS,
            json!({"type": ["string", "null"], "enum": [text_alone, all, empty, null], "description": PARTS.0}),
        ),
        ("last_event_id", nullable("Continues after this cursor.")),
        (
            "since",
            json!({"type": ["string", "null"], "format": "date-time", "description": "Continues from this time."}),
        ),
        (
            "earliest",
            json!({"type": ["boolean", "null"], "description": "Continues from the oldest retained event."}),
        ),
        (
            "from_start",
            json!({"type": ["boolean", "null"], "description": "Sends the streams of `request_id` from their first chunk, then `done` for each."}),
        ),
    ]));
    let mut publish = frame(
        "PublishFrame",
        "publish",
        "Publishes one event or a batch; answered by `ack` or `error`.",
        Map::new(),
        fields([
            ("event", of("NewEvent")),
            (
                "events",
                json!({"type": "array", "items": of("NewEvent"), "minItems": 1, "maxItems": PUBLISH_EVENTS}),
            ),
            (
                "ack",
                json!({"enum": ["memory", "durable", "", null], "description": "`memory`: acknowledges before the event is on disk."}),
            ),
        ]),
        json!({"type": "publish", "ref": 7,
            "event": {"type": "agent_update", "agent_id": "planner", "status": "idle"}}),
    );
    let producer = || {
        fields([
            ("request_id", text("The stream.")),
            ("producer_token", text("The token from the answer that opened the stream.")),
        ])
    };
    let part = json!({"type": ["object", "null"], "description": "The part of the chunks. Without it they are text."});
    let mut append = frame(
        "AppendFrame",
        "append",
        "Appends one chunk or several to a stream; answered by `ack` or `error`. Further frames need not wait for it.",
        producer(),
        fields([
            (
                "index",
                json!({"type": ["integer", "null"], "minimum": 0, "description": "Number of the first chunk in the stream; the next one if left out."}),
            ),
            ("chunk", text("The text.")),
            (
                "chunks",
                json!({"type": "array", "minItems": 1, "maxItems": CHUNKS_AT_ONCE,
                "items": {"oneOf": [{"type": "string"}, {"type": "object", "required": ["chunk"],
                    "properties": {"chunk": {"type": "string"}, "part": part}}]},
                "description": "Texts, each with a part of its own if needed."}),
            ),
            ("part", part.clone()),
            (
                "is_final",
                json!({"type": ["boolean", "null"], "description": "The stream is complete after these chunks."}),
            ),
        ]),
        json!({"type": "append", "ref": 8, "request_id": "r-1", "producer_token": "nws_1_token", "chunk": "Your train "}),
    );
    append.schema["oneOf"] = json!([{"required": ["chunk"]}, {"required": ["chunks"]}]);
    publish.schema["oneOf"] = json!([{"required": ["event"]}, {"required": ["events"]}]);
    vec![
        frame(
            "SubscribeFrame",
            "subscribe",
            "Replaces the filter, and the position if one is given; answered by `ready`.",
            Map::new(),
            subscription,
            json!({"type": "subscribe", "ref": "a", "types": ["message"], "agent_id": "planner", "earliest": true}),
        ),
        publish,
        frame(
            "AuthFrame",
            "auth",
            "Renews the credential, for the same organization and `sub`; answered by `ack`.",
            fields([(
                "token",
                json!({"type": "string", "minLength": 1, "maxLength": TOKEN_BYTES, "description": "A JWT or an API key."}),
            )]),
            Map::new(),
            json!({"type": "auth", "token": "a.new.token"}),
        ),
        frame("ClientPingFrame", "ping", "Requests a `pong`.", Map::new(), alive(), json!({"type": "ping"})),
        frame(
            "ClientPongFrame",
            "pong",
            "Answers the daemon's `ping`.",
            Map::new(),
            alive(),
            json!({"type": "pong"}),
        ),
        frame(
            "ClientCancelFrame",
            "cancel",
            "Cancels a stream.",
            fields([("request_id", text("The stream."))]),
            fields([("reason", nullable("The reason for people, at most 1 KiB."))]),
            json!({"type": "cancel", "request_id": "r-1"}),
        ),
        append,
        frame(
            "FinishFrame",
            "finish",
            "Completes a stream; answered by `ack` or `error`.",
            producer(),
            fields([
                ("finish_reason", nullable("Why the model stopped.")),
                ("usage", json!({"type": ["object", "null"], "description": "What the stream cost."})),
            ]),
            json!({"type": "finish", "request_id": "r-1", "producer_token": "nws_1_token", "finish_reason": "stop"}),
        ),
        frame(
            "FailFrame",
            "fail",
            "Marks a stream as failed; answered by `ack` or `error`.",
            {
                let mut all = producer();
                all.extend(fields([("code", text("For programs.")), ("message", text("For people."))]));
                all
            },
            Map::new(),
            json!({"type": "fail", "request_id": "r-1", "producer_token": "nws_1_token", "code": "MODEL_FAILED", "message": "the model is overloaded"}),
        ),
    ]
}

/// The schemas of all frames, and one union for each direction.
pub(super) fn schemas() -> Map<String, Value> {
    let mut schemas = Map::new();
    schemas.insert(
        "Ref".into(),
        json!({"description": "The client's reference for a frame, repeated in the response.", "oneOf": [
            {"type": "integer", "format": "uint64", "minimum": 0, "maximum": u64::MAX},
            {"type": "string", "maxLength": REF_BYTES},
        ]}),
    );
    for (union, says, frames) in [
        (
            "ServerFrame",
            "A control frame of the daemon for one connection. It is not logged. `type` says which one it is.",
            of_daemon(),
        ),
        ("ClientFrame", "A frame that a WebSocket client sends. `type` says which one it is.", of_client()),
    ] {
        let one: Vec<Value> = frames.iter().map(|frame| of(frame.name)).collect();
        schemas.insert(union.into(), json!({"description": says, "oneOf": one}));
        schemas.extend(frames.into_iter().map(|frame| (frame.name.to_owned(), frame.schema)));
    }
    schemas
}
