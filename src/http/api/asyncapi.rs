//! The AsyncAPI 3 document: the WebSocket and the SSE channels with every event and control frame that goes over them.
//!
//! `action` is the daemon's own: it sends events and receives what clients say.

use serde_json::{Map, Value, json};

use super::frames::{self, Frame};
use super::schemas::{self, event_name, filter_fields};
use crate::close::Close;
use crate::event::Kind;

/// The control frames that SSE carries, each as a named event; `closing` is an `ErrorFrame`.
const OF_SSE: [(&str, &str); 5] = [
    ("ReadyFrame", "ready"),
    ("GapFrame", "gap"),
    ("CaughtUpFrame", "caught_up"),
    ("HeartbeatFrame", "heartbeat"),
    ("ErrorFrame", "closing"),
];
/// The control frames that a WebSocket carries.
const OF_WEBSOCKET: [&str; 8] = [
    "ReadyFrame",
    "GapFrame",
    "CaughtUpFrame",
    "PingFrame",
    "PongFrame",
    "AckFrame",
    "CancelFrame",
    "ErrorFrame",
];

/// The document.
pub(super) fn document() -> Value {
    let mut schemas = schemas::events();
    schemas.extend(frames::schemas());
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Nervewire",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Events of AI-agent platforms over WebSocket and SSE. The REST side is described by \
                `/api-docs/openapi.json`; what the words mean and what is promised stands in docs/protocol.md.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "websocket": {
                "host": "localhost:8080",
                "protocol": "ws",
                "description": "A daemon's public listener.",
                "security": security(),
            },
            "sse": {
                "host": "localhost:8080",
                "protocol": "http",
                "description": "The same listener.",
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
            "description": "From `POST /api/v1/tickets`, for browsers."},
        "token": {"type": "httpApiKey", "name": "token", "in": "query",
            "description": "A JWT or an API key, for clients that can send nothing else; may be switched off."},
        "cookie": {"type": "httpApiKey", "name": "nervewire_token", "in": "cookie",
            "description": "A JWT; with an allowed `Origin`."},
    })
}

fn messages() -> Map<String, Value> {
    let message = |name: &str, kind: &str| json!({"name": kind, "title": name, "contentType": "application/json", "payload": schemas::of(name)});
    let mut messages = Map::new();
    for kind in Kind::ALL {
        messages.insert(event_name(kind).into(), message(event_name(kind), kind.name()));
    }
    for Frame { name, kind, .. } in frames::of_daemon().into_iter().chain(frames::of_client()) {
        messages.insert(name.into(), message(name, kind));
    }
    messages
}

/// The filter and the position, as query parameters of every channel; `more` are a channel's own.
fn query(more: &[(&str, Value)]) -> Value {
    let mut properties: Map<String, Value> = filter_fields()
        .map(|(name, says)| (name.to_owned(), json!({"type": "string", "description": says})))
        .collect();
    properties.insert(
        "last_event_id".into(),
        json!({"type": "string", "description": "Goes on after this cursor."}),
    );
    for name in ["after", "lastEventId"] {
        let alias = json!({"type": "string", "description": "Another name of `last_event_id`."});
        properties.insert(name.into(), alias);
    }
    properties.insert(
        "since".into(),
        json!({"type": "string", "format": "date-time", "description": "Goes on from this time."}),
    );
    properties.insert(
        "earliest".into(),
        json!({"type": "boolean", "description": "Goes on from the oldest event that is kept."}),
    );
    properties.extend(more.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())));
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// A channel's messages, each under its own name.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Map<String, Value> {
    names.map(|name| (name.to_owned(), json!({"$ref": format!("#/components/messages/{name}")}))).collect()
}

fn channels() -> Value {
    let events = || Kind::ALL.into_iter().map(event_name);
    let of_client = frames::of_client();
    let socket = events().chain(OF_WEBSOCKET).chain(of_client.iter().map(|frame| frame.name));
    let stream = || OF_SSE.iter().map(|(name, _)| *name);
    let streams = [event_name(Kind::StreamChunk), event_name(Kind::Error)].into_iter();
    let codes =
        Close::ALL.iter().filter_map(|close| close.code().map(|code| (code.to_string(), close.words().1)));
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
    let no = json!({"type": "string", "enum": ["none"], "description": "Opens it for publishing only."});
    let echo = json!({"type": "boolean", "description": "`false` hides one's own publishes."});
    json!({
        "websocket": {
            "address": "/api/v1/ws",
            "description": "One JSON object a text frame, both ways. First `ready`, then `gap` if there is one, the replay, \
                `caught_up`, and what comes live.",
            "servers": [{"$ref": "#/servers/websocket"}],
            "messages": listed(socket),
            "bindings": {"ws": {"method": "GET", "query": query(&[("subscribe", no), ("echo", echo)]),
                "bindingVersion": "0.1.0"}},
            "x-close-codes": codes,
        },
        "sse": sse(
            "/api/v1/sse",
            "`text/event-stream`: events are unnamed, with their cursor as `id:`; control frames are named events.",
            listed(events().chain(stream())),
        ),
        "sseLlm": sse(
            "/api/v1/sse/llm",
            "The same of LLM streams alone: `stream_chunk`, and `error` with a `request_id`.",
            listed(streams.chain(stream())),
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
    let events = || Kind::ALL.into_iter().map(event_name);
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
            "description": "`event`: a sign of life is always an event with the cursor."});
        let mut operation = operation("send", channel, says, names);
        operation["bindings"] = json!({"http": {"method": "GET", "query": query(&[("heartbeat", heartbeat)]),
            "bindingVersion": "0.3.0"}});
        operation
    };
    json!({
        "sendOverWebSocket": operation(
            "send", "websocket", "Events and control frames, in order.", events().chain(OF_WEBSOCKET).collect(),
        ),
        "subscribe": answered("SubscribeFrame", "Changes what comes.", &["ReadyFrame", "ErrorFrame"]),
        "publish": answered("PublishFrame", "Publishes.", &["AckFrame", "ErrorFrame"]),
        "renew": answered("AuthFrame", "Renews the credential.", &["AckFrame", "ErrorFrame"]),
        "ping": answered("ClientPingFrame", "Asks for a sign of life.", &["PongFrame"]),
        "pong": operation("receive", "websocket", "Answers the daemon's `ping`.", vec!["ClientPongFrame"]),
        "cancel": answered("ClientCancelFrame", "Cancels a stream.", &["AckFrame", "ErrorFrame"]),
        "sendOverSse": over_sse("sse", "Events and control frames, in order.", events().chain(stream()).collect()),
        "sendOverLlmSse": over_sse(
            "sseLlm",
            "Pieces of LLM streams, in order.",
            vec![event_name(Kind::StreamChunk), event_name(Kind::Error)].into_iter().chain(stream()).collect(),
        ),
    })
}
