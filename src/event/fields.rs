//! The fields of each kind of event: their names, which are required, and the values that they take.
//!
//! * [`super::Event::parse`] checks events against this table, and the API documents are generated from it.
//! * The quick reader (`fast_parse`) has the same table as bits; a property test compares the two.

use super::{CHANNEL_BYTES, CODE_BYTES, EventKind, ID_BYTES, METADATA_BYTES, OPERATIONS, ROLES, STATUSES};

/// The values that a field takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldType {
    /// A text without control characters, of 1 byte to this many.
    Id(usize),
    /// Any text.
    Text,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// RFC 3339.
    Time,
    /// A boolean.
    Flag,
    /// A whole number from 0 to 2^64 - 1.
    Count,
    /// Names separated by single slashes, at most this many bytes.
    Channel(usize),
    /// Any JSON.
    Json,
    /// A JSON object of at most this many bytes.
    Object(usize),
}

/// Whether a field is required.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Requirement {
    /// The publisher must give the field.
    Required,
    /// The publisher may give the field; otherwise the daemon sets it. A subscriber always receives it.
    RequiredOrGenerated,
    /// The publisher may give the field.
    Optional,
}

/// A field of an event, besides `type` and `id`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// The name on the wire.
    pub name: &'static str,
    /// The values that it takes.
    pub field_type: FieldType,
    /// Whether it is required.
    pub requirement: Requirement,
    /// The description in the API documents.
    pub description: &'static str,
}

const fn required(name: &'static str, shape: FieldType, says: &'static str) -> Field {
    Field { name, field_type: shape, requirement: Requirement::Required, description: says }
}
const fn optional(name: &'static str, shape: FieldType, says: &'static str) -> Field {
    Field { name, field_type: shape, requirement: Requirement::Optional, description: says }
}
const fn generated(name: &'static str, shape: FieldType, says: &'static str) -> Field {
    Field { name, field_type: shape, requirement: Requirement::RequiredOrGenerated, description: says }
}

const ID: FieldType = FieldType::Id(ID_BYTES);
const TIMESTAMP: Field =
    generated("timestamp", FieldType::Time, "When it happened. Defaults to the time of receipt.");
const USER: Field =
    optional("user_id", ID, "The user who may see the event. If absent, everyone in the organization may.");
const AGENT: Field = optional("agent_id", ID, "The agent that the event is about.");
const OF_AGENT: Field = required("agent_id", ID, "The agent that the event is about.");
const METADATA: Field = optional("metadata", FieldType::Object(METADATA_BYTES), "Any JSON object.");

const MESSAGE: &[Field] = &[
    generated(
        "message_id",
        ID,
        "The message's id. If you set it, the message is published only once within 24 hours.",
    ),
    OF_AGENT,
    USER,
    required("content", FieldType::Text, "The text of the message."),
    optional("role", FieldType::Choice(&ROLES), "The author's role."),
    METADATA,
    TIMESTAMP,
];
const AGENT_UPDATE: &[Field] = &[
    OF_AGENT,
    required("status", FieldType::Choice(&STATUSES), "The agent's status."),
    optional("error_message", FieldType::Text, "Why the agent failed."),
    METADATA,
    TIMESTAMP,
];
const MEMORY_UPDATE: &[Field] = &[
    required("memory_id", ID, "The memory."),
    OF_AGENT,
    required("operation", FieldType::Choice(&OPERATIONS), "What happened to the memory."),
    USER,
    METADATA,
    TIMESTAMP,
];
const STREAM_CHUNK: &[Field] = &[
    required("request_id", ID, "The stream."),
    required("chunk", FieldType::Text, "The next piece of text. May be empty."),
    required("is_final", FieldType::Flag, "True for the last chunk of the stream."),
    optional("index", FieldType::Count, "The chunk's position in the stream."),
    optional(
        "first_index",
        FieldType::Count,
        "The index of the first of several merged chunks; `index` is that of the last.",
    ),
    AGENT,
    USER,
    METADATA,
    TIMESTAMP,
];
const ERROR: &[Field] = &[
    required("code", FieldType::Id(CODE_BYTES), "A code for programs."),
    required("message", FieldType::Text, "A message for people."),
    AGENT,
    USER,
    optional("request_id", ID, "The stream that failed."),
    TIMESTAMP,
];
const CUSTOM: &[Field] = &[
    required("channel", FieldType::Channel(CHANNEL_BYTES), "Names separated by single slashes, without `*`."),
    required("data", FieldType::Json, "Any JSON."),
    USER,
    AGENT,
    TIMESTAMP,
];

impl EventKind {
    /// Returns the fields of this kind, besides `type` and `id`.
    #[must_use]
    pub const fn fields(self) -> &'static [Field] {
        match self {
            EventKind::Message => MESSAGE,
            EventKind::AgentUpdate => AGENT_UPDATE,
            EventKind::MemoryUpdate => MEMORY_UPDATE,
            EventKind::StreamChunk => STREAM_CHUNK,
            EventKind::Error => ERROR,
            EventKind::Custom => CUSTOM,
        }
    }

    /// Returns the field of this name.
    #[must_use]
    pub fn field(self, name: &str) -> Option<&'static Field> {
        self.fields().iter().find(|field| field.name == name)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::super::Event;
    use super::*;

    /// Returns a value that a field of this shape takes.
    fn sample(shape: FieldType) -> Value {
        match shape {
            FieldType::Choice(choices) => json!(choices[0]),
            FieldType::Time => json!("2026-01-02T03:04:05.678Z"),
            FieldType::Flag => json!(true),
            FieldType::Count => json!(7),
            FieldType::Object(_) | FieldType::Json => json!({}),
            FieldType::Id(_) | FieldType::Text | FieldType::Channel(_) => json!("x"),
        }
    }

    fn with(kind: EventKind, wanted: impl Fn(&Field) -> bool) -> Map<String, Value> {
        let fields = kind.fields().iter().filter(|field| wanted(field));
        let mut event: Map<String, Value> =
            fields.map(|field| (field.name.to_owned(), sample(field.field_type))).collect();
        event.insert("type".into(), json!(kind.name()));
        event
    }

    fn both_readers(event: &Map<String, Value>) -> Result<(), String> {
        let text = Value::from(event.clone()).to_string();
        let quick = super::super::fast_parse::event(&text).is_some();
        let careful = Event::parse_carefully(&text).map(drop).map_err(|error| error.to_string());
        assert_eq!(quick, careful.is_ok(), "{text}: {careful:?}");
        careful
    }

    #[test]
    fn every_field_of_the_table_is_read_and_no_other() {
        for kind in EventKind::ALL {
            both_readers(&with(kind, |_| true)).expect("all of its fields");
            let least = with(kind, |field| field.requirement == Requirement::Required);
            both_readers(&least).expect("what is required alone");
            for field in kind.fields().iter().filter(|field| field.requirement == Requirement::Required) {
                let mut without = least.clone();
                without.remove(field.name);
                assert_eq!(both_readers(&without), Err(format!("{}: is required", field.name)));
            }
            for field in EventKind::ALL.iter().flat_map(|other| other.fields()) {
                if kind.field(field.name).is_none() {
                    let mut more = least.clone();
                    more.insert(field.name.into(), sample(field.field_type));
                    let refused = format!("{}: is not a field of a {} event", field.name, kind.name());
                    assert_eq!(both_readers(&more), Err(refused));
                }
            }
        }
    }
}
