//! The table of events: every field and every type, declared once.
//!
//! * [`with_event_fields!`] has a row for each field, [`with_event_types!`] one for each type of event with its
//!   fields. From them follow [`Event`](super::Event), both parsers, the encoder, the JSON schemas of the API
//!   documents, the table of `docs/protocol.md`, the events of the Rust client, and data of tests.
//! * A field has one name, one type of value and one position in the encoded event, whichever events have it.
//! * The log stores the ordinal of a type. An ordinal is never used again for another type.

use super::field::{COMPOSITE_FIELDS, Choices, Composite, Field, FieldType, Requirement};

/// The most bytes of an id field (`agent_id`, `user_id`, `request_id`, `message_id`, `memory_id`). Ids are
/// index keys.
pub const ID_BYTES: usize = 256;
/// The most bytes of a channel name.
pub const CHANNEL_BYTES: usize = 200;
/// The most bytes of `metadata`, not counting white space.
pub const METADATA_BYTES: usize = 8 * 1024;
/// The most bytes of an `error` event's `code`.
pub const CODE_BYTES: usize = 64;
/// The most bytes of the `id` of a chunk's `part`.
pub const PART_ID_BYTES: usize = 64;
/// The most bytes of the `name` of a chunk's `part`.
pub const PART_NAME_BYTES: usize = 256;

pub(super) const ROLES: Choices = Choices {
    name: "MessageRole",
    description: "The role of a message's author.",
    texts: &[
        ("user", "A person."),
        ("assistant", "The agent."),
        ("system", "The party that configured the agent."),
        ("tool", "A tool that the agent used."),
    ],
};
pub(super) const STATUSES: Choices = Choices {
    name: "AgentUpdateStatus",
    description: "The status of an agent.",
    texts: &[
        ("idle", "It is idle."),
        ("thinking", "It is thinking."),
        ("executing", "It is using a tool."),
        ("waiting", "It is waiting for somebody."),
        ("error", "It has failed."),
        ("created", "It was created."),
        ("deleted", "It was deleted."),
    ],
};
pub(super) const OPERATIONS: Choices = Choices {
    name: "MemoryOperation",
    description: "What happened to a memory.",
    texts: &[("created", "It was created."), ("updated", "It was changed."), ("deleted", "It was deleted.")],
};

pub(super) const PART_TYPES: Choices = Choices {
    name: "PartType",
    description: "The type of a part of an answer.",
    texts: &[
        ("text", "The answer."),
        ("reasoning", "The model's reasoning."),
        ("tool_input", "The arguments of a tool call, usually pieces of JSON."),
        ("tool_output", "The result of a tool call."),
        ("source", "A source that the answer cites."),
        ("data", "Any other data."),
    ],
};
pub(super) const PART: Composite = Composite {
    name: "StreamPart",
    description: "The part of an answer that a chunk belongs to. A chunk without a part is text.",
    fields: &[
        Field {
            name: "type",
            field_type: FieldType::Choice(&PART_TYPES),
            requirement: Requirement::Required,
            description: "The type of the part.",
            example: r#""text""#,
        },
        Field {
            name: "id",
            field_type: FieldType::Id(PART_ID_BYTES),
            requirement: Requirement::Required,
            description: "The id within the stream. Chunks with the same id belong together.",
            example: r#""answer""#,
        },
        Field {
            name: "name",
            field_type: FieldType::Id(PART_NAME_BYTES),
            requirement: Requirement::Optional,
            description: "A name, such as that of a tool.",
            example: r#""timetable""#,
        },
    ],
};
const _: () = assert!(PART.fields.len() <= COMPOSITE_FIELDS);

/// Calls `$callback!` with the fields, in the order in which the encoder writes them.
///
/// A row has the name, the type of the values with its limit, the routing key if events are routed by the field,
/// the description, and an example as JSON. The types of values are in [`field_type!`](field_type).
///
/// `head` has most fields. Two neighbouring chunks of a stream are merged only if their heads are equal. The
/// encoder treats the others one by one: `progress` is rewritten when chunks are merged, `tail` ends the event.
macro_rules! with_event_fields {
    ($callback:ident) => {
        $callback! {
            head {
                message_id: id(ID_BYTES), "The message's id. If you set it, the message is published only once within 24 hours.", r#""m-1""#;
                memory_id: id(ID_BYTES), "The memory.", r#""mem-7""#;
                request_id: id(ID_BYTES) routed Request, "The stream.", r#""r-1""#;
                channel: channel(CHANNEL_BYTES) routed Channel, "Names separated by single slashes, without `*`.", r#""orders/eu""#;
                agent_id: id(ID_BYTES) routed Agent, "The agent that the event is about.", r#""planner""#;
                user_id: id(ID_BYTES) routed User, "The user who may see the event. If absent, everyone in the organization may.", r#""alice""#;
                role: choice(&ROLES), "The author's role.", r#""user""#;
                content: text(), "The text of the message.", r#""Book me a train""#;
                status: choice(&STATUSES), "The agent's status.", r#""error""#;
                error_message: text(), "Why the agent failed.", r#""out of tea""#;
                operation: choice(&OPERATIONS), "What happened to the memory.", r#""updated""#;
                code: id(CODE_BYTES), "A code for programs.", r#""TOOL_FAILED""#;
                message: text(), "A message for people.", r#""the timetable does not answer""#;
                data: json(), "Any JSON.", r#"{"n":17,"of":[1,2,3]}"#;
                part: composite(&PART), "The part of the answer that the chunk belongs to. A chunk without it is text.", r#"{"type":"text","id":"answer","name":"timetable"}"#;
                metadata: object(METADATA_BYTES), "Any JSON object.", r#"{"lang":"en"}"#;
            }
            progress {
                first_index: count(), "The index of the first of several merged chunks; `index` is that of the last.", "0";
                index: count(), "The chunk's position in the stream.", "3";
                is_final: flag(), "True for the last chunk of the stream.", "true";
            }
            tail {
                timestamp: time(), "When it happened. Defaults to the time of receipt.", r#""2026-01-02T03:04:05.678Z""#;
                chunk: text(), "The next piece of text. May be empty.", r#""Your train ""#;
            }
        }
    };
}
pub(crate) use with_event_fields;

/// Calls `$callback!` with the types of events in the order of their ordinals.
///
/// A row has the ordinal, the Rust name, the name on the wire, the description, an example as publishers send it,
/// and the fields besides `type` and `id`. The publisher must give a `required` field and may give an `optional`
/// one. The daemon sets a `generated` one if the publisher does not. A field may have another description here.
macro_rules! with_event_types {
    ($callback:ident) => {
        $callback! {
            0 Message "message": "A chat message.",
                r#"{"type":"message","agent_id":"planner","user_id":"alice","role":"user","content":"Book me a train","metadata":{"lang":"en"}}"#
            {
                generated message_id;
                required agent_id;
                optional user_id;
                required content;
                optional role;
                optional metadata;
                generated timestamp;
            }
            1 AgentUpdate "agent_update": "An agent was created, changed or deleted, or has a new status.",
                r#"{"type":"agent_update","agent_id":"planner","status":"thinking"}"#
            {
                required agent_id;
                required status;
                optional error_message;
                optional metadata;
                generated timestamp;
            }
            2 MemoryUpdate "memory_update": "A memory was created, changed or deleted.",
                r#"{"type":"memory_update","memory_id":"mem-7","agent_id":"planner","operation":"updated","user_id":"alice"}"#
            {
                required memory_id;
                required agent_id;
                required operation;
                optional user_id;
                optional metadata;
                generated timestamp;
            }
            3 StreamChunk "stream_chunk": "A chunk of an LLM's output.",
                r#"{"type":"stream_chunk","request_id":"r-1","agent_id":"planner","user_id":"alice","index":0,"chunk":"Your train ","is_final":false}"#
            {
                required request_id;
                required chunk;
                required is_final;
                optional index;
                optional first_index;
                optional agent_id;
                optional user_id;
                optional part;
                optional metadata;
                generated timestamp;
            }
            4 Error "error": "Something failed.",
                r#"{"type":"error","code":"TOOL_FAILED","message":"the timetable does not answer","agent_id":"planner","request_id":"r-2"}"#
            {
                required code;
                required message;
                optional agent_id;
                optional user_id;
                optional request_id "The stream that failed.";
                generated timestamp;
            }
            5 Custom "custom": "Anything else, on a named channel.",
                r#"{"type":"custom","channel":"orders/eu","data":{"n":17,"of":[1,2,3]}}"#
            {
                required channel;
                required data;
                optional user_id;
                optional agent_id;
                generated timestamp;
            }
        }
    };
}
pub(super) use with_event_types;

/// The [`FieldType`] of a row. A type of values is also a function of both parsers (`fast_parse.rs`,
/// `careful_parse.rs`) and has a Rust type ([`field_value!`](field_value)).
macro_rules! field_type {
    (id($most:expr)) => {
        FieldType::Id($most)
    };
    (text()) => {
        FieldType::Text
    };
    (choice($choices:expr)) => {
        FieldType::Choice($choices)
    };
    (time()) => {
        FieldType::Time
    };
    (flag()) => {
        FieldType::Flag
    };
    (count()) => {
        FieldType::Count
    };
    (channel($most:expr)) => {
        FieldType::Channel($most)
    };
    (json()) => {
        FieldType::Json
    };
    (object($most:expr)) => {
        FieldType::Object($most)
    };
    (composite($composite:expr)) => {
        FieldType::Composite($composite)
    };
}

/// The Rust type of a field in [`Event`](super::Event): Unix milliseconds for a time, compact JSON for JSON.
macro_rules! field_value {
    ($lifetime:lifetime time) => { u64 };
    ($lifetime:lifetime count) => { u64 };
    ($lifetime:lifetime flag) => { bool };
    ($lifetime:lifetime $text:ident) => { std::borrow::Cow<$lifetime, str> };
}
pub(super) use field_value;

macro_rules! define_fields {
    ($($part:ident { $($name:ident: $type:ident($($limit:expr)?) $(routed $key:ident)?, $description:literal, $example:literal;)* })*) => {
        /// The fields by name. An event that has one says whether it is required.
        #[allow(non_upper_case_globals, reason = "named like the fields on the wire")]
        mod field {
            use super::*;
            $($(pub(super) const $name: Field = Field {
                name: stringify!($name),
                field_type: field_type!($type($($limit)?)),
                requirement: Requirement::Optional,
                description: $description,
                example: $example,
            };)*)*
        }

        /// The names of all fields.
        const NAMES: &[&str] = &[$($(stringify!($name),)*)*];
    };
}
with_event_fields!(define_fields);

/// The bit of the field `type`. [`bit`] has those of the other fields.
pub(super) const TYPE_BIT: u32 = 1;

/// Returns a field's bit in a set of fields. It is for constants: an unknown name does not compile.
pub(super) const fn bit(name: &str) -> u32 {
    let mut at = 0;
    while !is_same(NAMES[at], name) {
        at += 1;
    }
    TYPE_BIT << 1 << at
}

const fn is_same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut at = 0;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at == a.len() && at == b.len()
}

macro_rules! define_types {
    ($($ordinal:literal $kind:ident $name:literal: $description:literal, $example:literal {
        $($requirement:ident $field:ident $($says:literal)?;)*
    })*) => {
        /// The fields of the types, in the order of their ordinals.
        pub(super) const TYPES: &[&[Field]] = &[$(&[$(field::$field$(.described($says))?.$requirement(),)*],)*];
    };
}
with_event_types!(define_types);

/// The required fields of a type, and all fields that it may have, as bits.
#[derive(Clone, Copy)]
pub(super) struct FieldSets {
    pub(super) required: u32,
    pub(super) allowed: u32,
}

/// The sets of each type, in the order of their ordinals.
pub(super) const SETS: [FieldSets; TYPES.len()] = {
    let mut sets = [FieldSets { required: TYPE_BIT, allowed: TYPE_BIT }; TYPES.len()];
    let mut kind = 0;
    while kind < TYPES.len() {
        let mut at = 0;
        while at < TYPES[kind].len() {
            let field = &TYPES[kind][at];
            let bit = bit(field.name);
            assert!(sets[kind].allowed & bit == 0, "the type has a field twice");
            sets[kind].allowed |= bit;
            if matches!(field.requirement, Requirement::Required) {
                sets[kind].required |= bit;
            }
            at += 1;
        }
        kind += 1;
    }
    sets
};

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::super::{Event, EventKind, careful_parse, fast_parse};
    use super::*;

    /// Returns an event with the examples of the wanted fields.
    fn with(kind: EventKind, wanted: impl Fn(&Field) -> bool) -> Map<String, Value> {
        let mut event: Map<String, Value> = serde_json::from_str(&kind.whole_example()).expect("JSON");
        event.retain(|name, _| kind.field(name).is_none_or(&wanted));
        event
    }

    fn both_readers(event: &Map<String, Value>) -> Result<(), String> {
        let text = Value::from(event.clone()).to_string();
        let quick = fast_parse::event(&text);
        let careful = careful_parse::event(&text).map_err(|error| error.to_string());
        assert_eq!(
            format!("{:?}", quick.ok_or(())),
            format!("{:?}", careful.as_ref().map_err(|_| ())),
            "{text}"
        );
        careful.map(drop)
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
            for field in TYPES.iter().copied().flatten() {
                if kind.field(field.name).is_none() {
                    let mut more = least.clone();
                    more.insert(field.name.into(), serde_json::from_str(field.example).expect("JSON"));
                    let refused = format!("{}: is not a field of a {} event", field.name, kind.name());
                    assert_eq!(both_readers(&more), Err(refused));
                }
            }
        }
    }

    #[test]
    fn the_example_of_each_type_is_an_event_of_it() {
        for kind in EventKind::ALL {
            assert_eq!(Event::parse(kind.example()).expect("an event").kind, kind);
        }
    }

    #[test]
    fn every_field_belongs_to_a_type() {
        for name in NAMES {
            assert!(EventKind::ALL.iter().any(|kind| kind.field(name).is_some()), "{name}");
        }
    }

    /// The table in a guide of the storage format is written by hand.
    #[test]
    fn the_ordinals_of_the_storage_guide_are_those_of_the_table() {
        let ordinals: Vec<String> =
            EventKind::ALL.iter().map(|kind| format!("{} `{}`", *kind as u8, kind.name())).collect();
        let list = format!("the event's type ({})", ordinals.join(", "));
        assert!(include_str!("../../docs/storage.md").contains(&list), "docs/storage.md has no {list:?}");
    }
}
