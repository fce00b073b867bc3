//! JSON schemas of control frames: what the daemon tells one connection, and what a WebSocket client says.
//!
//! * Frames are written field by field (`frame/control.rs`) and read field by field (`connection/client.rs`); the tests below
//!   hold every schema to what those write and read.

use serde_json::{Map, Value, json};

use super::schemas::{CURSOR, TIME, cursor, filter_fields, of, tagged};
use crate::connection::client::{PUBLISH_EVENTS, TOKEN_BYTES};
use crate::filter::FILTER_VALUES;
use crate::frame::control::{AFTER_BYTES, GapReason, REF_BYTES};

/// A frame: its schema's name, its `type`, whether SSE names an event so, and its schema.
pub(super) struct Frame {
    /// The schema's name.
    pub(super) name: &'static str,
    /// The `type`.
    pub(super) kind: &'static str,
    /// Its schema.
    pub(super) schema: Value,
}

fn fields<const N: usize>(of: [(&str, Value); N]) -> Map<String, Value> {
    of.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect()
}

fn time() -> Value {
    json!({"type": "string", "format": "date-time", "description": "Now."})
}

fn count(says: &str) -> Value {
    json!({"type": "integer", "format": "uint64", "minimum": 0, "maximum": u64::MAX, "description": says})
}

fn text(says: &str) -> Value {
    json!({"type": "string", "description": says})
}

/// What the daemon says.
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
            "A subscription begins.",
            fields([
                ("connection_id", text("The connection's id, as `/api/v1/connections` lists it.")),
                ("cursor", cursor("Where it begins.")),
                (
                    "resumed",
                    json!({"type": "boolean", "description": "A cursor was accepted without a gap."}),
                ),
                ("replaying", count("At most so many events come before `caught_up`, before filters.")),
                ("heartbeat_seconds", count("Seconds between signs of life.")),
            ]),
            reference(),
            json!({"type": "ready", "connection_id": "conn-0000000000000001", "cursor": CURSOR, "resumed": false,
                "replaying": 0, "heartbeat_seconds": 30}),
        ),
        frame(
            "GapFrame",
            "gap",
            "Events are missing here: fetch the state anew.",
            fields([
                (
                    "after",
                    json!({"type": "string", "description":
                    format!("The cursor or time that was asked for, cut to {AFTER_BYTES} bytes.")}),
                ),
                ("resumes_at", cursor("Where it goes on.")),
                (
                    "reason",
                    json!({"type": "string", "enum": reasons, "description":
                    "`trimmed`, `lagged`: goes on from the oldest retained event; `unknown_cursor`: goes on live."}),
                ),
            ]),
            Map::new(),
            json!({"type": "gap", "after": "nonsense", "resumes_at": CURSOR, "reason": "unknown_cursor"}),
        ),
        frame(
            "CaughtUpFrame",
            "caught_up",
            "The replay is over; once for each subscription that asked for a position.",
            fields([("cursor", cursor("The position."))]),
            Map::new(),
            json!({"type": "caught_up", "cursor": CURSOR}),
        ),
        frame(
            "HeartbeatFrame",
            "heartbeat",
            "SSE: keep this cursor.",
            fields([("timestamp", time()), ("cursor", cursor("The position."))]),
            Map::new(),
            json!({"type": "heartbeat", "timestamp": TIME, "cursor": CURSOR}),
        ),
        frame(
            "PingFrame",
            "ping",
            "WebSocket: keep this cursor, and say something.",
            fields([("timestamp", time()), ("cursor", cursor("The position."))]),
            Map::new(),
            json!({"type": "ping", "timestamp": TIME, "cursor": CURSOR}),
        ),
        frame(
            "PongFrame",
            "pong",
            "The answer to a client's `ping`.",
            fields([("timestamp", time())]),
            Map::new(),
            json!({"type": "pong", "timestamp": TIME}),
        ),
        frame(
            "AckFrame",
            "ack",
            "Accepted, and on disk, or as far as was asked for.",
            fields([
                (
                    "ref",
                    json!({"oneOf": [of("Ref"), {"type": "null"}], "description": "`null` if none was given."}),
                ),
                (
                    "ids",
                    json!({"type": "array", "items": cursor("An event's id."),
                    "description": "In the order the events were given."}),
                ),
            ]),
            Map::new(),
            json!({"type": "ack", "ref": 7, "ids": [CURSOR]}),
        ),
        frame(
            "CancelFrame",
            "cancel",
            "The producer of this stream is to stop.",
            fields([("request_id", text("The stream."))]),
            Map::new(),
            json!({"type": "cancel", "request_id": "r-1"}),
        ),
        frame(
            "ErrorFrame",
            "error",
            "A frame was refused; on SSE, as `event: closing`, the last word. Unlike an event of this type it has no `id`.",
            fields([("code", text("For programs.")), ("message", text("For people."))]),
            fields([
                ("details", json!({"type": "object", "description": "More, if there is any."})),
                ("ref", of("Ref")),
            ]),
            json!({"type": "error", "code": "BAD_REQUEST", "message": "type: is required"}),
        ),
    ]
}

/// What a WebSocket client says.
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
        fields([("timestamp", any("Not looked at.")), ("cursor", any("Not looked at."))])
    };
    let nullable = |says: &str| json!({"type": ["string", "null"], "description": says});
    let list = json!({"type": "array", "items": {"type": "string"}, "maxItems": FILTER_VALUES});
    let mut subscription: Map<String, Value> = filter_fields()
        .map(|(name, says)| {
            let schema = json!({"anyOf": [{"type": ["string", "null"]}, list],
                "description": format!("{says} Or an array, whose items may hold commas.")});
            (name.to_owned(), schema)
        })
        .collect();
    subscription.extend(fields([
        ("last_event_id", nullable("Goes on after this cursor.")),
        (
            "since",
            json!({"type": ["string", "null"], "format": "date-time", "description": "Goes on from this time."}),
        ),
        (
            "earliest",
            json!({"type": ["boolean", "null"], "description": "Goes on from the oldest event that is kept."}),
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
                json!({"enum": ["memory", "durable", "", null], "description": "`memory`: the ack need not wait for the disk."}),
            ),
        ]),
        json!({"type": "publish", "ref": 7,
            "event": {"type": "agent_update", "agent_id": "planner", "status": "idle"}}),
    );
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
            "Renews the credential: the same organization and `sub`; answered by `ack`.",
            fields([(
                "token",
                json!({"type": "string", "minLength": 1, "maxLength": TOKEN_BYTES, "description": "A JWT or an API key."}),
            )]),
            Map::new(),
            json!({"type": "auth", "token": "a.new.token"}),
        ),
        frame("ClientPingFrame", "ping", "Answered by `pong`.", Map::new(), alive(), json!({"type": "ping"})),
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
            Map::new(),
            json!({"type": "cancel", "request_id": "r-1"}),
        ),
    ]
}

/// The schemas of all frames, and what is one of either side's.
pub(super) fn schemas() -> Map<String, Value> {
    let mut schemas = Map::new();
    schemas.insert(
        "Ref".into(),
        json!({"description": "A client's own name for a frame, echoed in its answer.", "oneOf": [
            {"type": "integer", "format": "uint64", "minimum": 0, "maximum": u64::MAX},
            {"type": "string", "maxLength": REF_BYTES},
        ]}),
    );
    for (union, says, frames) in [
        (
            "ServerFrame",
            "What the daemon tells one connection and does not log. Told apart by `type`.",
            of_daemon(),
        ),
        ("ClientFrame", "What a WebSocket client says. Told apart by `type`.", of_client()),
    ] {
        let one: Vec<Value> = frames.iter().map(|frame| of(frame.name)).collect();
        schemas.insert(union.into(), json!({"description": says, "oneOf": one}));
        schemas.extend(frames.into_iter().map(|frame| (frame.name.to_owned(), frame.schema)));
    }
    schemas
}
