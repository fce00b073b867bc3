//! JSON schemas of events, for both documents. They are built from the tables that
//! [`Event::parse`](crate::event::Event::parse) and the filter use, so the documents always match the code.
//!
//! `parameters` describes the parameters that requests share.

pub(crate) mod parameters;

use serde_json::{Map, Value, json};
use utoipa::openapi::schema::OneOfBuilder;
use utoipa::openapi::{Ref, RefOr, Schema};

use crate::connection::client_frame::PUBLISH_EVENTS;
use crate::event::EventKind;
use crate::event::field::{Field, FieldType, Requirement};
use crate::filter::{FILTER_VALUES, Filter};

/// Placeholder for an event, or an array of events, in a handler's description. Its schema is built below.
pub(crate) struct NewEventOrBatch;

impl utoipa::PartialSchema for NewEventOrBatch {
    fn schema() -> RefOr<Schema> {
        OneOfBuilder::new()
            .item(Ref::from_schema_name("NewEvent"))
            .item(Ref::from_schema_name("NewEvents"))
            .into()
    }
}

impl utoipa::ToSchema for NewEventOrBatch {}

/// Where a document keeps its schemas.
const SCHEMAS: &str = "#/components/schemas/";
/// The pattern of a text without control characters.
pub(super) const NO_CONTROLS: &str = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$";
/// A cursor for examples, with the length and alphabet that every cursor has.
pub(super) const CURSOR: &str = "AAECAwQFBgcICQoLDA0ODw";
/// A time for examples.
pub(super) const TIME: &str = "2026-01-02T03:04:05.678Z";

/// A reference to a schema of the same document.
pub(super) fn of(name: &str) -> Value {
    json!({"$ref": format!("{SCHEMAS}{name}")})
}

/// The schema of a cursor: a position in an organization's order.
pub(super) fn cursor(says: &str) -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{22}$", "description": says})
}

/// The schema of an object with a fixed `type`. `open` means that later versions may add fields.
pub(super) fn tagged(
    kind: &str,
    says: &str,
    required: Map<String, Value>,
    optional: Map<String, Value>,
    open: bool,
) -> Value {
    let mut names = vec!["type".to_owned()];
    names.extend(required.keys().cloned());
    let mut properties = Map::new();
    properties.insert("type".into(), json!({"const": kind}));
    properties.extend(required);
    properties.extend(optional);
    let mut schema =
        json!({"type": "object", "description": says, "required": names, "properties": properties});
    if !open {
        schema["additionalProperties"] = json!(false);
    }
    schema
}

/// The schema's name of an event as subscribers receive it. The schema for publishers is called `New…`.
pub(super) const fn event_name(kind: EventKind) -> &'static str {
    kind.schema_name()
}

/// The schema of a field's values. `open` means that later versions may add fields to objects.
fn shape(field: &Field, open: bool) -> Value {
    let mut schema = match field.field_type {
        FieldType::Id(bytes) => {
            json!({"type": "string", "minLength": 1, "maxLength": bytes, "pattern": NO_CONTROLS})
        }
        FieldType::Text => json!({"type": "string"}),
        FieldType::Choice(choices) => json!({"type": "string", "enum": choices.texts()}),
        FieldType::Time => json!({"type": "string", "format": "date-time"}),
        FieldType::Flag => json!({"type": "boolean"}),
        FieldType::Count => json!({"type": "integer", "format": "uint64", "minimum": 0, "maximum": u64::MAX}),
        FieldType::Channel(bytes) => {
            let level = "[^/*\\u0000-\\u001f\\u007f-\\u009f]+";
            let pattern = format!("^{level}(/{level})*$");
            json!({"type": "string", "minLength": 1, "maxLength": bytes, "pattern": pattern})
        }
        FieldType::Json => json!({}),
        FieldType::Object(_) => json!({"type": "object"}),
        FieldType::Composite(composite) => {
            let required = composite.fields.iter().filter(|field| field.requirement == Requirement::Required);
            let required: Vec<&str> = required.map(|field| field.name).collect();
            let properties: Map<String, Value> =
                composite.fields.iter().map(|field| (field.name.into(), shape(field, open))).collect();
            let mut object = json!({"type": "object", "required": required, "properties": properties});
            if !open {
                object["additionalProperties"] = json!(false);
            }
            object
        }
    };
    let limit = match field.field_type {
        FieldType::Object(bytes) => format!(" At most {bytes} bytes."),
        FieldType::Id(bytes) | FieldType::Channel(bytes) => format!(" At most {bytes} bytes of UTF-8."),
        _ => String::new(),
    };
    schema["description"] = json!(format!("{}{limit}", field.description));
    schema
}

fn event(kind: EventKind, published: bool) -> Value {
    let (mut required, mut optional) = (Map::new(), Map::new());
    if !published {
        required.insert("id".into(), cursor("The event's cursor."));
    }
    for field in kind.fields() {
        let sure = match field.requirement {
            Requirement::Required => true,
            Requirement::Generated => !published,
            Requirement::Optional => false,
        };
        let into = if sure { &mut required } else { &mut optional };
        into.insert(field.name.into(), shape(field, !published));
    }
    let mut schema = tagged(kind.name(), kind.description(), required, optional, !published);
    schema["examples"] = json!([example(kind, published)]);
    schema
}

/// An example event, as a publisher sends it or a subscriber receives it.
pub(super) fn example(kind: EventKind, published: bool) -> Value {
    let mut event: Value = serde_json::from_str(kind.example()).unwrap_or_default();
    if !published {
        event["id"] = json!(CURSOR);
        event["timestamp"] = json!(TIME);
        if kind == EventKind::Message {
            event["message_id"] = json!("msg-0198c5f0-7a1b-7c3d-8e4f-5a6b7c8d9e0f");
        }
    }
    event
}

/// The schemas of all events, as subscribers receive them and as publishers send them, with a union of each.
pub(super) fn events() -> Map<String, Value> {
    let mut schemas = Map::new();
    for kind in EventKind::ALL {
        schemas.insert(event_name(kind).into(), event(kind, false));
        schemas.insert(format!("New{}", event_name(kind)), event(kind, true));
    }
    let all = |prefix: &str| EventKind::ALL.map(|kind| of(&format!("{prefix}{}", event_name(kind))));
    schemas.insert(
        "Event".into(),
        json!({"description": "An event as subscribers receive it. `type` says which one it is.", "oneOf": all("")}),
    );
    schemas.insert(
        "NewEvent".into(),
        json!({"description": "An event as publishers send it. `type` says which one it is.", "oneOf": all("New")}),
    );
    schemas.insert(
        "NewEvents".into(),
        json!({"description": "A batch. Either all of its events are accepted or none.", "type": "array", "items": of("NewEvent"),
            "minItems": 1, "maxItems": PUBLISH_EVENTS}),
    );
    schemas
}

/// The description of [`Filter::PARTS`], and its values.
pub(super) const PARTS: (&str, [&str; 3]) = (
    "Which parts of streams: `text`, the default, or `all`. With `text`, chunks whose `part` is of another type are left out.",
    ["text", "all", ""],
);

/// The lists of a filter with their descriptions. Each is comma-separated.
pub(super) fn filter_fields() -> impl Iterator<Item = (&'static str, String)> {
    Filter::PARAMETERS.into_iter().map(|name| {
        let what = match name {
            "types" => "Event types",
            "agent_id" => "Agents",
            "user_id" => "Users",
            "request_id" => "Streams",
            _ => "Channels; `a/*` means every channel below `a/`",
        };
        let says = format!("{what}, comma-separated, at most {FILTER_VALUES}. Selects events with one of them. Empty counts as absent.");
        (name, says)
    })
}
