//! An event as a publisher sends it: parsed, checked field by field, not yet numbered.
//!
//! * [`Event::parse`] is the only way to an [`Event`], so whoever holds one holds valid data.
//! * Unknown, repeated and ill-typed fields are refused by name; nothing is silently dropped.
//! * Free JSON (`metadata`, `data`) is kept as its own text without insignificant white space, so it carries no
//!   raw line break and no number loses digits.
//! * An event knows no tenant, sequence, time of receipt or transport.

mod compact;
pub mod fields;
mod presence;
pub(crate) mod scan;
pub(crate) mod text;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::{time, whole};
pub(crate) use compact::compact;
pub use presence::presence_channel;

/// Most bytes of an id field (`agent_id`, `user_id`, `request_id`, `message_id`, `memory_id`): they are index keys.
pub const ID_BYTES: usize = 256;
/// Most bytes of a channel name.
pub const CHANNEL_BYTES: usize = 200;
/// Most bytes of `metadata`, white space not counted.
pub const METADATA_BYTES: usize = 8 * 1024;
/// Most bytes of an `error` event's `code`.
pub const CODE_BYTES: usize = 64;

const ROLES: [&str; 4] = ["user", "assistant", "system", "tool"];
const STATUSES: [&str; 7] = ["idle", "thinking", "executing", "waiting", "error", "created", "deleted"];
const OPERATIONS: [&str; 3] = ["created", "updated", "deleted"];

/// The kinds of event, in the order of their ordinals (which the log stores).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A chat message.
    Message = 0,
    /// An agent's status.
    AgentUpdate = 1,
    /// A memory was created, changed or deleted.
    MemoryUpdate = 2,
    /// A piece of an LLM's output.
    StreamChunk = 3,
    /// Something failed.
    Error = 4,
    /// Anything else, on a named channel.
    Custom = 5,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 6] =
        [Kind::Message, Kind::AgentUpdate, Kind::MemoryUpdate, Kind::StreamChunk, Kind::Error, Kind::Custom];

    /// The name on the wire (`type`).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Message => "message",
            Kind::AgentUpdate => "agent_update",
            Kind::MemoryUpdate => "memory_update",
            Kind::StreamChunk => "stream_chunk",
            Kind::Error => "error",
            Kind::Custom => "custom",
        }
    }
    /// The kind a `type` names.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Kind> {
        Some(match name {
            "message" => Kind::Message,
            "agent_update" => Kind::AgentUpdate,
            "memory_update" => Kind::MemoryUpdate,
            "stream_chunk" => Kind::StreamChunk,
            "error" => Kind::Error,
            "custom" => Kind::Custom,
            _ => return None,
        })
    }
    /// The kind of a stored ordinal.
    #[must_use]
    pub fn from_ordinal(ordinal: u8) -> Option<Kind> {
        Kind::ALL.get(usize::from(ordinal)).copied()
    }
    /// Whether events of this kind may carry a `user_id`.
    #[must_use]
    pub const fn has_user(self) -> bool {
        !matches!(self, Kind::AgentUpdate)
    }
}

/// Why an event was refused: which field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct EventError {
    /// The field's name; empty for the event as a whole. In a batch `[3].content`.
    pub field: String,
    /// What is wrong, for a person.
    pub reason: String,
}

impl EventError {
    /// An error of `field`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        EventError { field: field.into(), reason: reason.into() }
    }
    /// The same error, of item `index` of a batch.
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        self.field = match self.field.is_empty() {
            true => format!("[{index}]"),
            false => format!("[{index}].{}", self.field),
        };
        self
    }
}

/// A valid event. Which fields are present depends on `kind`; texts are unescaped, `metadata` and `data` are compact
/// JSON. Fields are read freely; only `user_id`, `message_id` and `timestamp` are set later, by the publish path.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The kind (`type`).
    pub kind: Kind,
    /// `message`: made by the server if absent.
    pub message_id: Option<Cow<'a, str>>,
    /// The agent concerned.
    pub agent_id: Option<Cow<'a, str>>,
    /// The user who may see it; absent: everyone of the organization.
    pub user_id: Option<Cow<'a, str>>,
    /// `stream_chunk` and `error`: the stream.
    pub request_id: Option<Cow<'a, str>>,
    /// `memory_update`.
    pub memory_id: Option<Cow<'a, str>>,
    /// `custom`: the channel, `/`-separated.
    pub channel: Option<Cow<'a, str>>,
    /// `message`.
    pub content: Option<Cow<'a, str>>,
    /// `message`: user, assistant, system or tool.
    pub role: Option<Cow<'a, str>>,
    /// `agent_update`.
    pub status: Option<Cow<'a, str>>,
    /// `agent_update`.
    pub error_message: Option<Cow<'a, str>>,
    /// `memory_update`.
    pub operation: Option<Cow<'a, str>>,
    /// `error`.
    pub code: Option<Cow<'a, str>>,
    /// `error`.
    pub message: Option<Cow<'a, str>>,
    /// `stream_chunk`: may be empty.
    pub chunk: Option<Cow<'a, str>>,
    /// `stream_chunk`.
    pub is_final: Option<bool>,
    /// `stream_chunk`.
    pub index: Option<u64>,
    /// `stream_chunk`: set where several were merged.
    pub first_index: Option<u64>,
    /// `custom`: compact JSON.
    pub data: Option<Cow<'a, str>>,
    /// A compact JSON object.
    pub metadata: Option<Cow<'a, str>>,
    /// Unix milliseconds; absent: set at receipt.
    pub timestamp_ms: Option<u64>,
}

impl<'a> Event<'a> {
    /// Reads one event from a JSON object.
    ///
    /// # Errors
    /// [`EventError`] names the first field that is unknown, repeated, missing, of a wrong type or out of range.
    pub fn parse(json: &'a str) -> Result<Event<'a>, EventError> {
        match scan::event(json) {
            Some(event) => Ok(event),
            None => Event::parse_carefully(json),
        }
    }

    /// [`Event::parse`] for whatever the quick reader leaves: it knows every way to be valid, and words what is wrong.
    fn parse_carefully(json: &'a str) -> Result<Event<'a>, EventError> {
        let mut reader = serde_json::Deserializer::from_str(json);
        let given =
            reader.deserialize_map(FieldsVisitor).and_then(|f| reader.end().map(|()| f)).map_err(not_json)?;
        let kind = match given.find("type") {
            None => return Err(EventError::new("type", "is required")),
            Some(raw) => {
                let name = string("type", raw)?;
                Kind::from_name(&name)
                    .ok_or_else(|| EventError::new("type", one_of(&Kind::ALL.map(Kind::name))))?
            }
        };
        let mut event = Event::empty(kind);
        for (at, (name, raw)) in given.0.iter().enumerate() {
            if given.0[..at].iter().any(|(earlier, _)| earlier == name) {
                return Err(EventError::new(name.as_ref(), "is given twice"));
            }
            event.set(name, raw)?;
        }
        let required = kind.fields().iter().filter(|field| field.given == fields::Given::Always);
        for field in required {
            if given.find(field.name).is_none() {
                return Err(EventError::new(field.name, "is required"));
            }
        }
        Ok(event)
    }

    pub(crate) fn empty(kind: Kind) -> Event<'a> {
        Event {
            kind,
            message_id: None,
            agent_id: None,
            user_id: None,
            request_id: None,
            memory_id: None,
            channel: None,
            content: None,
            role: None,
            status: None,
            error_message: None,
            operation: None,
            code: None,
            message: None,
            chunk: None,
            is_final: None,
            index: None,
            first_index: None,
            data: None,
            metadata: None,
            timestamp_ms: None,
        }
    }

    /// Reads one field; the table of [`fields`] says whose it may be.
    fn set(&mut self, name: &str, raw: &'a RawValue) -> Result<(), EventError> {
        let foreign = || EventError::new(name, format!("is not a field of a {} event", self.kind.name()));
        match name {
            "type" => {}
            "id" => return Err(EventError::new(name, "is given by the server")),
            _ if self.kind.field(name).is_none() => return Err(foreign()),
            "timestamp" => {
                let ms = time::parse_rfc3339(&string(name, raw)?);
                let reason = "must be RFC 3339, such as 2026-01-02T03:04:05.678Z";
                self.timestamp_ms = Some(ms.ok_or_else(|| EventError::new(name, reason))?);
            }
            "agent_id" => self.agent_id = Some(id(name, raw)?),
            "user_id" => self.user_id = Some(id(name, raw)?),
            "message_id" => self.message_id = Some(id(name, raw)?),
            "content" => self.content = Some(string(name, raw)?),
            "role" => self.role = Some(choice(name, raw, &ROLES)?),
            "status" => self.status = Some(choice(name, raw, &STATUSES)?),
            "error_message" => self.error_message = Some(string(name, raw)?),
            "memory_id" => self.memory_id = Some(id(name, raw)?),
            "operation" => self.operation = Some(choice(name, raw, &OPERATIONS)?),
            "request_id" => self.request_id = Some(id(name, raw)?),
            "chunk" => self.chunk = Some(string(name, raw)?),
            "is_final" => {
                let value = serde_json::from_str(raw.get());
                self.is_final = Some(value.map_err(|_| EventError::new(name, "must be true or false"))?);
            }
            "index" => self.index = Some(count(name, raw)?),
            "first_index" => self.first_index = Some(count(name, raw)?),
            "code" => self.code = Some(code(name, raw)?),
            "message" => self.message = Some(string(name, raw)?),
            "channel" => {
                let channel = string(name, raw)?;
                check_channel(&channel).map_err(|reason| EventError::new(name, reason))?;
                self.channel = Some(channel);
            }
            "data" => self.data = Some(free_json(name, raw.get())?),
            "metadata" => self.metadata = Some(metadata(name, raw)?),
            _ => return Err(foreign()),
        }
        Ok(())
    }
}

/// Whether `text` may be an id: 1 to [`ID_BYTES`] bytes, no control character.
///
/// # Errors
/// What is wrong with it.
pub fn check_id(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > ID_BYTES {
        return Err(format!("must be 1 to {ID_BYTES} bytes"));
    }
    match text.chars().any(char::is_control) {
        true => Err("must not hold control characters".to_owned()),
        false => Ok(()),
    }
}

/// Whether `channel` may name a channel: 1 to [`CHANNEL_BYTES`] bytes, `/`-separated, no empty level, no `*`, no control character.
///
/// # Errors
/// What is wrong, for a person.
pub fn check_channel(channel: &str) -> Result<(), String> {
    if channel.len() > CHANNEL_BYTES {
        return Err(format!("must be at most {CHANNEL_BYTES} bytes"));
    }
    let bytes = channel.as_bytes();
    let mut after_slash = true;
    let are_names = bytes.iter().all(|&byte| {
        let is_empty = byte == b'/' && after_slash;
        after_slash = byte == b'/';
        !is_empty
    });
    if !are_names || after_slash {
        return Err("must be names separated by single slashes".into());
    }
    // Control characters above ASCII are two bytes, the first of them 0xc2.
    let suspicious = |byte: &u8| matches!(byte, 0..0x20 | b'*' | 0x7f..);
    if bytes.iter().any(suspicious) && channel.chars().any(|c| c == '*' || c.is_control()) {
        return Err("must not hold '*' or control characters".into());
    }
    Ok(())
}

/// The fields of an object in their order, each value as its own text. An event has at most 16 fields.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    fn find(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, raw)| *raw)
    }
}

/// More fields than this cannot be an event; stops a body of a million keys.
const MAX_FIELDS: usize = 32;

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::with_capacity(10);
        while let Some(CowStr(name)) = map.next_key()? {
            if fields.len() == MAX_FIELDS {
                return Err(serde::de::Error::custom(format_args!("more than {MAX_FIELDS} fields")));
            }
            fields.push((name, map.next_value()?));
        }
        Ok(Fields(fields))
    }
}

#[derive(serde::Deserialize)]
struct CowStr<'a>(#[serde(borrow)] Cow<'a, str>);

fn not_json(error: serde_json::Error) -> EventError {
    EventError::new("", format!("is not a JSON event: {error}"))
}

fn one_of(choices: &[&str]) -> String {
    format!("must be one of {}", choices.join(", "))
}

fn string<'a>(name: &str, raw: &'a RawValue) -> Result<Cow<'a, str>, EventError> {
    text_value(raw.get()).ok_or_else(|| EventError::new(name, "must be a string"))
}

/// A JSON string's text.
fn text_value(raw: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<CowStr<'_>>(raw).ok().map(|text| text.0)
}

fn id<'a>(name: &str, raw: &'a RawValue) -> Result<Cow<'a, str>, EventError> {
    let text = string(name, raw)?;
    check_id(&text).map_err(|reason| EventError::new(name, reason))?;
    Ok(text)
}

fn code<'a>(name: &str, raw: &'a RawValue) -> Result<Cow<'a, str>, EventError> {
    let code = id(name, raw)?;
    match code.len() > CODE_BYTES {
        true => Err(EventError::new(name, format!("must be at most {CODE_BYTES} bytes"))),
        false => Ok(code),
    }
}

fn choice<'a>(name: &str, raw: &'a RawValue, choices: &[&str]) -> Result<Cow<'a, str>, EventError> {
    let text = string(name, raw)?;
    match choices.contains(&text.as_ref()) {
        true => Ok(text),
        false => Err(EventError::new(name, one_of(choices))),
    }
}

fn count(name: &str, raw: &RawValue) -> Result<u64, EventError> {
    let reason = "must be a whole number from 0 to 2^64 - 1";
    whole::from_json(raw.get()).ok_or_else(|| EventError::new(name, reason))
}

fn metadata<'a>(name: &str, raw: &'a RawValue) -> Result<Cow<'a, str>, EventError> {
    let metadata = free_json(name, raw.get())?;
    if !metadata.starts_with('{') {
        return Err(EventError::new(name, "must be an object"));
    }
    if metadata.len() > METADATA_BYTES {
        return Err(EventError::new(name, format!("must be at most {METADATA_BYTES} bytes")));
    }
    Ok(metadata)
}

/// Checks free JSON whole (escapes, numbers, depth by serde_json's limit of 128) and strips white space between tokens.
fn free_json<'a>(name: &str, text: &'a str) -> Result<Cow<'a, str>, EventError> {
    serde_json::from_str::<serde_json::Value>(text)
        .map_err(|error| EventError::new(name, format!("is not valid JSON: {error}")))?;
    Ok(compact(text))
}

#[cfg(test)]
mod tests;
