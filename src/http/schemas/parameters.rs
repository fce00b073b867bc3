//! The parameters that requests share, as the documents show them. Their parsers are in
//! `events/stream_query.rs`, `request/` and the handlers.
//!
//! An empty value counts as absent wherever the schema accepts an empty text.

use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{RefOr, Required, Schema};

use crate::domain::memories::MemoryType;
use crate::domain::memories::search::{LIMIT as MEMORIES, OFFSET as PASSED, QUERY_CHARS};
use crate::event::EventKind;
use crate::filter::Filter;
use crate::http::request::parameters::{HISTORY_EVENTS, HISTORY_WAIT_SECONDS, OFFSET_MOST, PAGE_MOST};

use super::{PARTS, filter_fields};

/// Defines types that handlers name for the parameters they accept.
macro_rules! parameters {
    ($($(#[$says:meta])* $of:ident in $place:ident, $required:ident { $($name:literal: $schema:expr, $what:literal;)* })*) => {$(
        $(#[$says])*
        pub(crate) struct $of;

        impl IntoParams for $of {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                let parameters = [$(($name, $what, $schema)),*];
                let one = |(name, what, schema)| parameter(ParameterIn::$place, Required::$required, name, what, schema);
                parameters.into_iter().map(one).collect()
            }
        }
    )*};
}

parameters! {
    /// A page of a list.
    PageParameters in Query, False {
        "limit": number(1, PAGE_MOST), "Maximum of rows; 50 if absent.";
        "cursor": page_cursor(), "`next_cursor` of the previous page.";
        "offset": number(0, OFFSET_MOST), "Rows to skip. Cannot be combined with `cursor`.";
        "order": one_of(&["asc", "desc", ""]), "`asc`: oldest first; `desc`, the default: newest first.";
    }
    /// A page of a list of the administration.
    AdminPageParameters in Query, False {
        "limit": number(1, PAGE_MOST), "Maximum of rows; 50 if absent.";
        "cursor": any(), "`next_cursor` of the previous page.";
        "offset": number(0, OFFSET_MOST), "Rows to skip. Cannot be combined with `cursor`.";
    }
    /// Selects messages.
    MessageParameters in Query, False {
        "agent_id": any(), "Only messages of this agent.";
        "user_id": any(), "Only messages of this user. Without `read:all` only your own are visible.";
    }
    /// The token of a stream's producer.
    ProducerToken in Header, False {
        "X-Producer-Token": any(), "`producer_token` from the answer that opened the stream.";
    }
    /// Selects streams.
    StreamListParameters in Query, False {
        "state": one_of(&["open", "completed", "failed", "cancelled", "abandoned", ""]), "Only streams in this state.";
        "agent_id": any(), "Only streams of this agent.";
        "user_id": any(), "Only streams of this user. Without `read:all` only your own are visible.";
    }
    /// What of a stream is read.
    StreamReadParameters in Query, False {
        "text": flag(), "`false`: without the text.";
        "parts": one_of(&["text", "all", ""]), "`all`: also the text of every other part.";
        "offset": number(0, u64::MAX), "Byte of the text to begin with.";
        "known": number(0, u64::MAX), "`next_index` of the text that you have.";
        "wait": number(0, HISTORY_WAIT_SECONDS), "Seconds to wait for text after `known`, or for the end.";
    }
    /// Selects tools.
    ToolParameters in Query, False {
        "tags": text(&list_of("[^,]*[^,\\s][^,]*")), "Comma-separated tags: only tools with one of them.";
        "match_all": flag(), "Only tools with all of the tags.";
    }
    /// Selects an organization.
    OrganizationParameter in Query, False {
        "org_id": any(), "Organization. Only the operator may name another than its own.";
    }
    /// Selects connections.
    ConnectionParameters in Query, False {
        "user": any(), "Connections of this user. Give this or `key`.";
        "key": any(), "Connections of the API key with this id.";
    }
    /// Paging and order of memories, for older clients.
    MemoryPageParameters in Query, False {
        "page": number(0, OFFSET_MOST), "Number of the page, from 0. Cannot be combined with `cursor` or `offset`.";
        "sort_by": one_of(&["created_at", ""]), "Only `created_at` is supported.";
    }
    /// The words of a search.
    MemoryWordsParameter in Query, True {
        "query": words(), "Words, at least one of which a memory contains. A word that ends with `*` matches every word that begins with it.";
    }
    /// Selects memories in a search.
    MemorySearchParameters in Query, False {
        "prefix": flag(), "The last word matches every word that begins with it.";
        "agent_id": any(), "Only memories of this agent.";
        "user_id": any(), "Only memories of this user.";
        "memory_type": one_of_types(), "Only memories of this type.";
        "min_importance": fraction(), "Only memories of at least this importance.";
        "threshold": fraction(), "Only memories with at least this score.";
        "max_age_days": whole(0, u64::MAX), "Only memories created in the last so many days.";
        "limit": whole(1, MEMORIES), "Maximum of results; 10 if absent.";
        "offset": whole(0, PASSED), "Results to skip.";
    }
    /// Selects blocks by user.
    UserParameter in Query, False {
        "user_id": any(), "The blocks about this user; about all users if absent.";
    }
    /// Names the user of a block.
    BlockUserParameter in Query, False {
        "user_id": text(super::NO_CONTROLS), "The block is about this user; about all users if absent.";
    }
    /// Selects users in the presence list.
    PresenceParameters in Query, False {
        "limit": number(1, PAGE_MOST), "Maximum of rows; 50 if absent.";
        "cursor": page_cursor(), "`next_cursor` of the previous page.";
        "user_id": any(), "Comma-separated users: only these.";
    }
    /// Size of a page of history, and how long to wait for it.
    HistoryParameters in Query, False {
        "limit": number(1, HISTORY_EVENTS as u64), "Maximum of events; 100 if absent.";
        "wait": number(0, HISTORY_WAIT_SECONDS), "Seconds to wait for the first event if there is none.";
    }
    /// When a publish is acknowledged.
    AckParameter in Query, False {
        "ack": one_of(&["memory", "durable", ""]), "`memory`: acknowledge before the events are on disk; `durable`, the default: after.";
    }
    /// Options of a WebSocket.
    WebSocketParameters in Query, False {
        "subscribe": one_of(&["none", ""]), "`none`: open the connection for publishing only.";
        "echo": one_of(&["true", "false", "1", "0", ""]), "`false`: do not deliver events that this connection published.";
    }
    /// Options of an event stream.
    SseParameters in Query, False {
        "heartbeat": one_of(&["event", "comment", ""]), "`event`: every heartbeat is an event with the cursor.";
    }
    /// Makes a request safe to repeat.
    IdempotencyKey in Header, False {
        "Idempotency-Key": key(), "Within 24 hours the request is done only once; a repeat gets the first response again.";
    }
    /// Makes a change conditional on the version.
    IfMatch in Header, False {
        "If-Match": tag(), "Change the resource only if this is still its `ETag`.";
    }
    /// The position to continue from.
    LastEventId in Header, False {
        "Last-Event-ID": any(), "Continue after this cursor. Overrides the query.";
    }
    /// Makes a read conditional on the version.
    IfNoneMatch in Header, False {
        "If-None-Match": any(), "`ETag`s of the copies you have. The response is 304 if one is still current.";
    }
    /// The headers of a WebSocket upgrade (RFC 6455).
    Upgrade in Header, True {
        "Upgrade": one_of(&["websocket"]), "The new protocol.";
        "Connection": one_of(&["Upgrade"]), "Must name `Upgrade`.";
        "Sec-WebSocket-Version": one_of(&["13"]), "Of RFC 6455.";
        "Sec-WebSocket-Key": text("^[A-Za-z0-9+/]{21}[AQgw]==$"), "16 random bytes in base64.";
    }
}

/// A filter and a position.
pub(crate) struct SubscriptionParameters;

impl IntoParams for SubscriptionParameters {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let list = |name: &str| match name {
            "types" => text(&list_of(&EventKind::NAMES.join("|"))),
            "channel" => {
                let level = "[^/*,\\u0000-\\u001f\\u007f-\\u009f]+";
                text(&list_of(&format!("{level}(/{level})*(/\\*)?")))
            }
            _ => any(),
        };
        let filter = filter_fields().map(|(name, says)| (name, says, list(name)));
        let parts = (Filter::PARTS, PARTS.0.to_owned(), one_of(&PARTS.1));
        let position = [
            ("last_event_id", "Continue after this cursor.", any()),
            ("after", "Alias of `last_event_id`.", any()),
            ("lastEventId", "Alias of `last_event_id`.", any()),
            ("since", "Continue from this time.", since()),
            (
                "earliest",
                "Continue from the oldest retained event.",
                one_of(&["true", "false", "1", "0", ""]),
            ),
        ];
        let position = position.into_iter().map(|(name, says, schema)| (name, says.to_owned(), schema));
        let one = |(name, says, schema)| parameter(ParameterIn::Query, Required::False, name, says, schema);
        filter.chain([parts]).chain(position).map(one).collect()
    }
}

fn parameter(
    place: ParameterIn,
    required: Required,
    name: &str,
    says: impl Into<String>,
    schema: RefOr<Schema>,
) -> Parameter {
    let parameter = ParameterBuilder::new().name(name).parameter_in(place).required(required);
    parameter.description(Some(says.into())).schema(Some(schema)).build()
}

/// The pattern of a comma-separated list of what `item` matches. Empty items count as absent.
fn list_of(item: &str) -> String {
    format!("^({item})?(,({item})?)*$")
}

fn schema(value: Value) -> RefOr<Schema> {
    // The values are literals of this file and patterns joined from them. A test checks every document
    // completely.
    serde_json::from_value(value).unwrap_or_else(|_| Schema::default().into())
}

fn any() -> RefOr<Schema> {
    schema(json!({"type": "string"}))
}

fn text(pattern: &str) -> RefOr<Schema> {
    schema(json!({"type": "string", "pattern": pattern}))
}

fn one_of(choices: &[&str]) -> RefOr<Schema> {
    schema(json!({"type": "string", "enum": choices}))
}

/// A whole number, or an empty text.
fn number(least: u64, most: u64) -> RefOr<Schema> {
    schema(json!({"oneOf": [
        {"type": "integer", "minimum": least, "maximum": most},
        {"type": "string", "maxLength": 0},
    ]}))
}

fn words() -> RefOr<Schema> {
    schema(json!({"type": "string", "minLength": 1, "maxLength": QUERY_CHARS}))
}
/// A whole number.
fn whole(least: u64, most: u64) -> RefOr<Schema> {
    schema(json!({"type": "integer", "minimum": least, "maximum": most}))
}
/// A number from 0 to 1.
fn fraction() -> RefOr<Schema> {
    schema(json!({"type": "number", "minimum": 0, "maximum": 1}))
}
fn one_of_types() -> RefOr<Schema> {
    schema(serde_json::to_value(<MemoryType as utoipa::PartialSchema>::schema()).unwrap_or_default())
}
fn flag() -> RefOr<Schema> {
    one_of(&["true", "false", "1", "0"])
}
/// The daemon makes page cursors; no pattern can say which of them are valid.
fn page_cursor() -> RefOr<Schema> {
    schema(json!({"type": "string", "format": "page-cursor", "pattern": "^[A-Za-z0-9_-]*$"}))
}
fn tag() -> RefOr<Schema> {
    schema(json!({"type": "string", "minLength": 1, "pattern": "^(\\*|\"[0-9]{1,19}\")$"}))
}
fn since() -> RefOr<Schema> {
    schema(json!({"oneOf": [{"type": "string", "format": "date-time"}, {"type": "string", "maxLength": 0}]}))
}
fn key() -> RefOr<Schema> {
    schema(json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]([ -~]*[!-~])?$"}))
}
