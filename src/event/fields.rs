//! The fields of each kind of event: their names, which are required, and the values that they take.
//!
//! * [`super::Event::parse`] checks events against this table, and the API documents are generated from it.
//! * The quick reader (`scan`) has the same table as bits; a property test compares the two.

use super::{CHANNEL_BYTES, CODE_BYTES, ID_BYTES, Kind, METADATA_BYTES, OPERATIONS, ROLES, STATUSES};

/// The values that a field takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
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
pub enum Given {
    /// The publisher must give the field.
    Always,
    /// The publisher may give the field; otherwise the daemon sets it. A subscriber always receives it.
    OrMade,
    /// The publisher may give the field.
    IfLiked,
}

/// A field of an event, besides `type` and `id`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// The name on the wire.
    pub name: &'static str,
    /// The values that it takes.
    pub shape: Shape,
    /// Whether it is required.
    pub given: Given,
    /// The description in the API documents.
    pub says: &'static str,
}

const fn must(name: &'static str, shape: Shape, says: &'static str) -> Field {
    Field { name, shape, given: Given::Always, says }
}
const fn may(name: &'static str, shape: Shape, says: &'static str) -> Field {
    Field { name, shape, given: Given::IfLiked, says }
}
const fn made(name: &'static str, shape: Shape, says: &'static str) -> Field {
    Field { name, shape, given: Given::OrMade, says }
}

const ID: Shape = Shape::Id(ID_BYTES);
const TIMESTAMP: Field = made("timestamp", Shape::Time, "When it happened. Defaults to the time of receipt.");
const USER: Field =
    may("user_id", ID, "The user who may see the event. If absent, everyone in the organization may.");
const AGENT: Field = may("agent_id", ID, "The agent that the event is about.");
const OF_AGENT: Field = must("agent_id", ID, "The agent that the event is about.");
const METADATA: Field = may("metadata", Shape::Object(METADATA_BYTES), "Any JSON object.");

const MESSAGE: &[Field] = &[
    made(
        "message_id",
        ID,
        "The message's id. If you set it, the message is published only once within 24 hours.",
    ),
    OF_AGENT,
    USER,
    must("content", Shape::Text, "The text of the message."),
    may("role", Shape::Choice(&ROLES), "The author's role."),
    METADATA,
    TIMESTAMP,
];
const AGENT_UPDATE: &[Field] = &[
    OF_AGENT,
    must("status", Shape::Choice(&STATUSES), "The agent's status."),
    may("error_message", Shape::Text, "Why the agent failed."),
    METADATA,
    TIMESTAMP,
];
const MEMORY_UPDATE: &[Field] = &[
    must("memory_id", ID, "The memory."),
    OF_AGENT,
    must("operation", Shape::Choice(&OPERATIONS), "What happened to the memory."),
    USER,
    METADATA,
    TIMESTAMP,
];
const STREAM_CHUNK: &[Field] = &[
    must("request_id", ID, "The stream."),
    must("chunk", Shape::Text, "The next piece of text. May be empty."),
    must("is_final", Shape::Flag, "True for the last chunk of the stream."),
    may("index", Shape::Count, "The chunk's position in the stream."),
    may(
        "first_index",
        Shape::Count,
        "The index of the first of several merged chunks; `index` is that of the last.",
    ),
    AGENT,
    USER,
    METADATA,
    TIMESTAMP,
];
const ERROR: &[Field] = &[
    must("code", Shape::Id(CODE_BYTES), "A code for programs."),
    must("message", Shape::Text, "A message for people."),
    AGENT,
    USER,
    may("request_id", ID, "The stream that failed."),
    TIMESTAMP,
];
const CUSTOM: &[Field] = &[
    must("channel", Shape::Channel(CHANNEL_BYTES), "Names separated by single slashes, without `*`."),
    must("data", Shape::Json, "Any JSON."),
    USER,
    AGENT,
    TIMESTAMP,
];

impl Kind {
    /// Returns the fields of this kind, besides `type` and `id`.
    #[must_use]
    pub const fn fields(self) -> &'static [Field] {
        match self {
            Kind::Message => MESSAGE,
            Kind::AgentUpdate => AGENT_UPDATE,
            Kind::MemoryUpdate => MEMORY_UPDATE,
            Kind::StreamChunk => STREAM_CHUNK,
            Kind::Error => ERROR,
            Kind::Custom => CUSTOM,
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
    fn sample(shape: Shape) -> Value {
        match shape {
            Shape::Choice(choices) => json!(choices[0]),
            Shape::Time => json!("2026-01-02T03:04:05.678Z"),
            Shape::Flag => json!(true),
            Shape::Count => json!(7),
            Shape::Object(_) | Shape::Json => json!({}),
            Shape::Id(_) | Shape::Text | Shape::Channel(_) => json!("x"),
        }
    }

    fn with(kind: Kind, wanted: impl Fn(&Field) -> bool) -> Map<String, Value> {
        let fields = kind.fields().iter().filter(|field| wanted(field));
        let mut event: Map<String, Value> =
            fields.map(|field| (field.name.to_owned(), sample(field.shape))).collect();
        event.insert("type".into(), json!(kind.name()));
        event
    }

    fn both_readers(event: &Map<String, Value>) -> Result<(), String> {
        let text = Value::from(event.clone()).to_string();
        let quick = super::super::scan::event(&text).is_some();
        let careful = Event::parse_carefully(&text).map(drop).map_err(|error| error.to_string());
        assert_eq!(quick, careful.is_ok(), "{text}: {careful:?}");
        careful
    }

    #[test]
    fn every_field_of_the_table_is_read_and_no_other() {
        for kind in Kind::ALL {
            both_readers(&with(kind, |_| true)).expect("all of its fields");
            let least = with(kind, |field| field.given == Given::Always);
            both_readers(&least).expect("what is required alone");
            for field in kind.fields().iter().filter(|field| field.given == Given::Always) {
                let mut without = least.clone();
                without.remove(field.name);
                assert_eq!(both_readers(&without), Err(format!("{}: is required", field.name)));
            }
            for field in Kind::ALL.iter().flat_map(|other| other.fields()) {
                if kind.field(field.name).is_none() {
                    let mut more = least.clone();
                    more.insert(field.name.into(), sample(field.shape));
                    let refused = format!("{}: is not a field of a {} event", field.name, kind.name());
                    assert_eq!(both_readers(&more), Err(refused));
                }
            }
        }
    }
}
