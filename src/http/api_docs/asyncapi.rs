//! The AsyncAPI 3 document: the WebSocket and SSE channels with every event and control frame that they
//! carry.
//!
//! `action` is from the daemon's point of view: it sends events and receives client frames.

use serde_json::{Map, Value, json};

use crate::close::CloseReason;
use crate::event::EventKind;
use crate::filter::Filter;
use crate::http::schemas::{self, PARTS, event_name, filter_fields};

use super::frames::{self, Frame};

/// The control frames that SSE carries, each as a named event. `closing` carries an `ErrorFrame`.
const OF_SSE: [(&str, &str); 6] = [
    ("ReadyFrame", "ready"),
    ("GapFrame", "gap"),
    ("CaughtUpFrame", "caught_up"),
    ("HeartbeatFrame", "heartbeat"),
    ("DoneFrame", "done"),
    ("ErrorFrame", "closing"),
];
/// The control frames that a WebSocket carries.
const OF_WEBSOCKET: [&str; 9] = [
    "ReadyFrame",
    "GapFrame",
    "CaughtUpFrame",
    "PingFrame",
    "PongFrame",
    "AckFrame",
    "CancelFrame",
    "DoneFrame",
    "ErrorFrame",
];

/// Builds the document.
pub(super) fn document() -> Value {
    let mut schemas = schemas::events();
    schemas.extend(frames::schemas());
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Nervewire",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Events of AI-agent platforms over WebSocket and SSE. The REST side is described by \
                `/api-docs/openapi.json`; docs/protocol.md describes terms and guarantees.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "websocket": {
                "host": "localhost:8080",
                "protocol": "ws",
                "description": "Public listener of a daemon.",
                "security": security(),
            },
            "sse": {
                "host": "localhost:8080",
                "protocol": "http",
                "description": "The same listener, for SSE.",
                "security": security(),
            },
        },
        "channels": channels(),
        "operations": operations(),
        "components": {
            "schemas": schemas,
            "messages": messages(),
            "securitySchemes": security_schemes(),
        },
    })
}

fn security() -> Value {
    let schemes = security_schemes();
    let names = schemes.as_object().into_iter().flatten().map(|(name, _)| name.clone());
    names.map(|name| json!({"$ref": format!("#/components/securitySchemes/{name}")})).collect()
}

fn security_schemes() -> Value {
    json!({
        "bearer": {"type": "http", "scheme": "bearer", "description": "A JWT or an API key in `Authorization`."},
        "apiKey": {"type": "httpApiKey", "name": "X-API-Key", "in": "header", "description": "An API key."},
        "ticket": {"type": "httpApiKey", "name": "ticket", "in": "query",
            "description": "A ticket from `POST /api/v1/tickets`, for browsers."},
        "token": {"type": "httpApiKey", "name": "token", "in": "query",
            "description": "A JWT or an API key, for clients that cannot send headers. The operator may disable it."},
        "cookie": {"type": "httpApiKey", "name": "nervewire_token", "in": "cookie",
            "description": "A JWT. Needs an allowed `Origin`."},
    })
}

fn messages() -> Map<String, Value> {
    let message = |name: &str, kind: &str| json!({"name": kind, "title": name, "contentType": "application/json", "payload": schemas::of(name)});
    let mut messages = Map::new();
    for kind in EventKind::ALL {
        messages.insert(event_name(kind).into(), message(event_name(kind), kind.name()));
    }
    for Frame { name, kind, .. } in frames::of_daemon().into_iter().chain(frames::of_client()) {
        messages.insert(name.into(), message(name, kind));
    }
    messages
}

/// The filter and the position, as query parameters of every channel. `more` are parameters of one channel.
fn query(more: &[(&str, Value)]) -> Value {
    let mut properties: Map<String, Value> = filter_fields()
        .map(|(name, says)| (name.to_owned(), json!({"type": "string", "description": says})))
        .collect();
    properties
        .insert(Filter::PARTS.into(), json!({"type": "string", "enum": PARTS.1, "description": PARTS.0}));
    properties.insert(
        "last_event_id".into(),
        json!({"type": "string", "description": "Continues after this cursor."}),
    );
    for name in ["after", "lastEventId"] {
        let alias = json!({"type": "string", "description": "Alias of `last_event_id`."});
        properties.insert(name.into(), alias);
    }
    properties.insert(
        "since".into(),
        json!({"type": "string", "format": "date-time", "description": "Continues from this time."}),
    );
    properties.insert(
        "earliest".into(),
        json!({"type": "boolean", "description": "Continues from the oldest retained event."}),
    );
    properties.extend(more.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())));
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// The messages of a channel, each under its own name.
fn message_refs<'a>(names: impl Iterator<Item = &'a str>) -> Map<String, Value> {
    names.map(|name| (name.to_owned(), json!({"$ref": format!("#/components/messages/{name}")}))).collect()
}

fn channels() -> Value {
    let events = || EventKind::ALL.into_iter().map(event_name);
    let of_client = frames::of_client();
    let socket = events().chain(OF_WEBSOCKET).chain(of_client.iter().map(|frame| frame.name));
    let stream = || OF_SSE.iter().map(|(name, _)| *name);
    let streams = [event_name(EventKind::StreamChunk), event_name(EventKind::Error)].into_iter();
    let codes = CloseReason::ALL
        .iter()
        .filter_map(|close| close.code().map(|code| (code.to_string(), close.words().1)));
    let codes: Map<String, Value> = codes.map(|(code, words)| (code, json!(words))).collect();
    let names: Map<String, Value> =
        OF_SSE.iter().map(|(frame, event)| ((*event).to_owned(), schemas::of(frame))).collect();
    let sse = |address: &str, says: &str, messages: Map<String, Value>| {
        json!({
            "address": address,
            "description": says,
            "servers": [{"$ref": "#/servers/sse"}],
            "messages": messages,
            "x-content-type": "text/event-stream",
            "x-named-events": names,
        })
    };
    let no = json!({"type": "string", "enum": ["none"], "description": "Opens the connection for publishing only."});
    let echo =
        json!({"type": "boolean", "description": "`false` hides events that this connection published."});
    json!({
        "websocket": {
            "address": "/api/v1/ws",
            "description": "Each text frame is one JSON object, in both directions. The daemon sends `ready`, then `gap` \
                if there is one, the replay, `caught_up`, and live events.",
            "servers": [{"$ref": "#/servers/websocket"}],
            "messages": message_refs(socket),
            "bindings": {"ws": {"method": "GET", "query": query(&[("subscribe", no), ("echo", echo)]),
                "bindingVersion": "0.1.0"}},
            "x-close-codes": codes,
        },
        "sse": sse(
            "/api/v1/sse",
            "`text/event-stream`: events are unnamed, with their cursor as `id:`; control frames are named events.",
            message_refs(events().chain(stream())),
        ),
        "sseLlm": sse(
            "/api/v1/sse/llm",
            "The same for LLM streams only: `stream_chunk`, and `error` with a `request_id`.",
            message_refs(streams.chain(stream())),
        ),
    })
}

fn operations() -> Value {
    let operation = |action: &str, channel: &str, says: &str, names: Vec<&str>| {
        let of = |name: &str| json!({"$ref": format!("#/channels/{channel}/messages/{name}")});
        let messages: Vec<Value> = names.into_iter().map(of).collect();
        json!({"action": action, "channel": {"$ref": format!("#/channels/{channel}")}, "summary": says,
            "messages": messages})
    };
    let events = || EventKind::ALL.into_iter().map(event_name);
    let answered = |client: &'static str, says: &str, answers: &[&str]| {
        let mut operation = operation("receive", "websocket", says, vec![client]);
        let of = |name: &&str| json!({"$ref": format!("#/channels/websocket/messages/{name}")});
        operation["reply"] = json!({"channel": {"$ref": "#/channels/websocket"},
            "messages": answers.iter().map(of).collect::<Vec<_>>()});
        operation
    };
    let stream = || OF_SSE.iter().map(|(name, _)| *name);
    let over_sse = |channel: &str, says: &str, names: Vec<&str>| {
        let heartbeat = json!({"type": "string", "enum": ["comment", "event"],
            "description": "`event`: every heartbeat is an event with the cursor."});
        let mut operation = operation("send", channel, says, names);
        operation["bindings"] = json!({"http": {"method": "GET", "query": query(&[("heartbeat", heartbeat)]),
            "bindingVersion": "0.3.0"}});
        operation
    };
    json!({
        "sendOverWebSocket": operation(
            "send", "websocket", "Events and control frames, in order.", events().chain(OF_WEBSOCKET).collect(),
        ),
        "subscribe": answered("SubscribeFrame", "Changes the subscription.", &["ReadyFrame", "ErrorFrame"]),
        "publish": answered("PublishFrame", "Publishes.", &["AckFrame", "ErrorFrame"]),
        "renew": answered("AuthFrame", "Renews the credential.", &["AckFrame", "ErrorFrame"]),
        "ping": answered("ClientPingFrame", "Requests a `pong`.", &["PongFrame"]),
        "pong": operation("receive", "websocket", "Answers the daemon's `ping`.", vec!["ClientPongFrame"]),
        "cancel": answered("ClientCancelFrame", "Cancels a stream.", &["AckFrame", "ErrorFrame"]),
        "append": answered("AppendFrame", "Appends to a stream.", &["AckFrame", "ErrorFrame"]),
        "finish": answered("FinishFrame", "Completes a stream.", &["AckFrame", "ErrorFrame"]),
        "fail": answered("FailFrame", "Marks a stream as failed.", &["AckFrame", "ErrorFrame"]),
        "sendOverSse": over_sse("sse", "Events and control frames, in order.", events().chain(stream()).collect()),
        "sendOverLlmSse": over_sse(
            "sseLlm",
            "Chunks of LLM streams, in order.",
            vec![event_name(EventKind::StreamChunk), event_name(EventKind::Error)].into_iter().chain(stream()).collect(),
        ),
    })
}
