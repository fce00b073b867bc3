//! The parameters that requests share, as the documents show them. Their readers are in `criteria.rs`, `resources/mod.rs`,
//! `admin/mod.rs` and `once.rs`.
//!
//! An empty value counts as absent wherever the schema takes an empty text.

use serde_json::{Value, json};
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{RefOr, Required, Schema};

use super::super::history::{LIMIT, WAIT_SECONDS};
use super::super::parameters::{OFFSET_MOST, PAGE_MOST};
use super::schemas::filter_fields;
use crate::event::Kind;
use crate::resource::memories::MemoryType;
use crate::resource::memories::search::{LIMIT as MEMORIES, OFFSET as PASSED, QUERY_CHARS};

/// Types that handlers name for parameters that they have.
macro_rules! parameters {
    ($($(#[$says:meta])* $of:ident in $place:ident, $required:ident { $($name:literal: $schema:expr, $what:literal;)* })*) => {$(
        $(#[$says])*
        pub(in crate::http) struct $of;

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
    Page in Query, False {
        "limit": number(1, PAGE_MOST), "Rows at most; 50 if absent.";
        "cursor": page_cursor(), "`next_cursor` of the page before.";
        "offset": number(0, OFFSET_MOST), "Rows to pass over, for clients that count; not together with `cursor`.";
        "order": one_of(&["asc", "desc", ""]), "`asc`: oldest first.";
    }
    /// A page of a list of administration.
    AdminPage in Query, False {
        "limit": number(1, PAGE_MOST), "Rows at most; 50 if absent.";
        "cursor": any(), "`next_cursor` of the page before.";
        "offset": number(0, OFFSET_MOST), "Rows to pass over, for clients that count; not together with `cursor`.";
    }
    /// Which messages.
    OfMessages in Query, False {
        "agent_id": any(), "Of this agent.";
        "user_id": any(), "Of this user; without `read:all` of oneself alone.";
    }
    /// Which tools.
    OfTools in Query, False {
        "tags": text(&list_of("[^,]*[^,\\s][^,]*")), "Those with one of these tags, a comma list.";
        "match_all": flag(), "Those with all of them.";
    }
    /// Which organization.
    OfOrganization in Query, False {
        "org_id": any(), "The operator alone may name another than its own.";
    }
    /// Whose connections.
    OfConnections in Query, False {
        "user": any(), "Of this user. This or `key` must be given.";
        "key": any(), "Of the API key of this id.";
    }
    /// Which memories, for older clients.
    OfMemories in Query, False {
        "page": number(0, OFFSET_MOST), "The page by its number, from 0; not together with `cursor` or `offset`.";
        "sort_by": one_of(&["created_at", ""]), "Lists have no other order.";
    }
    /// What is looked for.
    MemoryWords in Query, True {
        "query": words(), "Words, any of which a memory holds; one with a `*` behind it stands for all that begin with it.";
    }
    /// Which memories are looked for.
    MemorySearch in Query, False {
        "prefix": flag(), "The last word stands for all that begin with it.";
        "agent_id": any(), "Only this agent's.";
        "user_id": any(), "Only this user's.";
        "memory_type": one_of_types(), "Only of this type.";
        "min_importance": fraction(), "Only of this importance or more.";
        "threshold": fraction(), "Only with this score or more.";
        "max_age_days": whole(0, u64::MAX), "Only those made in so many days.";
        "limit": whole(1, MEMORIES), "How many at most; 10 if absent.";
        "offset": whole(0, PASSED), "How many to pass over.";
    }
    /// About whom.
    OfUser in Query, False {
        "user_id": any(), "About this user; everybody if absent.";
    }
    /// About whom something is to be kept.
    ForUser in Query, False {
        "user_id": text(super::schemas::NO_CONTROLS), "About this user; everybody if absent.";
    }
    /// Who is asked about.
    OfPresence in Query, False {
        "limit": number(1, PAGE_MOST), "Rows at most; 50 if absent.";
        "cursor": page_cursor(), "`next_cursor` of the page before.";
        "user_id": any(), "These users alone, a comma list.";
    }
    /// How many events, and how long to wait.
    HistoryPage in Query, False {
        "limit": number(1, LIMIT as u64), "Events at most; 100 if absent.";
        "wait": number(0, WAIT_SECONDS), "Seconds to wait for the first event where there is none.";
    }
    /// When a publish is answered.
    Ack in Query, False {
        "ack": one_of(&["memory", "durable", ""]), "`memory`: before it is on disk.";
    }
    /// What a WebSocket may ask for besides.
    OfWebSocket in Query, False {
        "subscribe": one_of(&["none", ""]), "`none`: for publishing only.";
        "echo": one_of(&["true", "false", "1", "0", ""]), "`false`: not one's own publishes.";
    }
    /// What an event stream may ask for besides.
    OfSse in Query, False {
        "heartbeat": one_of(&["event", "comment", ""]), "`event`: a sign of life is always an event with the cursor.";
    }
    /// To do it once.
    IdempotencyKey in Header, False {
        "Idempotency-Key": key(), "Done once within 24 hours, however often it is sent: a repeat gets the first answer again.";
    }
    /// To do it to one version.
    IfMatch in Header, False {
        "If-Match": tag(), "Only where this is still its `ETag`.";
    }
    /// Where to go on.
    LastEventId in Header, False {
        "Last-Event-ID": any(), "Goes on after this cursor; stronger than the query's.";
    }
    /// To have it only where it is another.
    IfNoneMatch in Header, False {
        "If-None-Match": any(), "`ETag`s of what one has: 304 where it is still the same.";
    }
    /// The head of a WebSocket upgrade (RFC 6455).
    Upgrade in Header, True {
        "Upgrade": one_of(&["websocket"]), "To what.";
        "Connection": one_of(&["Upgrade"]), "Names `Upgrade`.";
        "Sec-WebSocket-Version": one_of(&["13"]), "Of RFC 6455.";
        "Sec-WebSocket-Key": text("^[A-Za-z0-9+/]{21}[AQgw]==$"), "16 bytes in base64.";
    }
}

/// A filter and a position.
pub(in crate::http) struct Subscription;

impl IntoParams for Subscription {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let list = |name: &str| match name {
            "types" => text(&list_of(&Kind::ALL.map(Kind::name).join("|"))),
            "channel" => {
                let level = "[^/*,\\u0000-\\u001f\\u007f-\\u009f]+";
                text(&list_of(&format!("{level}(/{level})*(/\\*)?")))
            }
            _ => any(),
        };
        let filter = filter_fields().map(|(name, says)| (name, says, list(name)));
        let position = [
            ("last_event_id", "Goes on after this cursor.", any()),
            ("after", "Another name of `last_event_id`.", any()),
            ("lastEventId", "Another name of `last_event_id`.", any()),
            ("since", "Goes on from this time.", since()),
            (
                "earliest",
                "Goes on from the oldest event that is kept.",
                one_of(&["true", "false", "1", "0", ""]),
            ),
        ];
        let position = position.into_iter().map(|(name, says, schema)| (name, says.to_owned(), schema));
        let one = |(name, says, schema)| parameter(ParameterIn::Query, Required::False, name, says, schema);
        filter.chain(position).map(one).collect()
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

/// A comma list of what `item` matches; empty items count as absent.
fn list_of(item: &str) -> String {
    format!("^({item})?(,({item})?)*$")
}

fn schema(value: Value) -> RefOr<Schema> {
    // Literals of this file and patterns joined from them; a test reads every document whole.
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

/// A whole number, or nothing.
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
/// Made by the daemon; which ones there are no pattern can tell.
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
