//! An event as a publisher sends it: parsed and checked field by field, not yet numbered.
//!
//! * [`Event::parse`] creates what a publisher sends. The daemon's own events are built by its own code, from
//!   values that it has checked.
//! * Unknown, repeated and ill-typed fields are refused by name; nothing is silently dropped.
//! * Free JSON (`metadata`, `data`) is kept as its own text without insignificant white space, so it has no
//!   raw line break and no number loses digits.
//! * An event does not know its tenant, sequence, time of receipt or transport.

mod careful_parse;
mod compact;
pub(crate) mod fast_parse;
pub mod field;
pub(crate) mod json_text;
mod kind;
mod presence;
pub(crate) mod table;

pub(crate) use compact::compact;
pub use kind::EventKind;
pub use presence::presence_channel;
pub use table::{CHANNEL_BYTES, CODE_BYTES, ID_BYTES, METADATA_BYTES, PART_ID_BYTES, PART_NAME_BYTES};

use std::borrow::Cow;

use serde_json::value::RawValue;

use table::{PART, field_value, with_event_fields};

/// Why an event was refused: which field, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct EventError {
    /// The field's name; empty for the event as a whole. In a batch it is like `[3].content`.
    pub field: String,
    /// What is wrong, in words.
    pub reason: String,
}

impl EventError {
    /// Creates an error of `field`.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        EventError { field: field.into(), reason: reason.into() }
    }
    /// Returns the same error for item `index` of a batch.
    #[must_use]
    pub fn at(mut self, index: usize) -> Self {
        self.field = match self.field.is_empty() {
            true => format!("[{index}]"),
            false => format!("[{index}].{}", self.field),
        };
        self
    }
}

macro_rules! define_event {
    ($($part:ident { $($name:ident: $type:ident($($limit:expr)?) $(routed $key:ident)?, $description:literal, $example:literal;)* })*) => {
        /// A valid event. The kind decides which fields are present. Texts are unescaped, `metadata`, `data` and `part`
        /// are compact JSON, `timestamp` is in Unix milliseconds. All fields may be read; the publish path later sets
        /// only `user_id`, `message_id` and `timestamp`.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub struct Event<'a> {
            /// The kind (`type`).
            pub kind: EventKind,
            $($(#[doc = $description] pub $name: Option<field_value!('a $type)>,)*)*
        }

        impl<'a> Event<'a> {
            pub(crate) fn empty(kind: EventKind) -> Event<'a> {
                Event { kind, $($($name: None,)*)* }
            }
        }
    };
}
with_event_fields!(define_event);

impl<'a> Event<'a> {
    /// Parses one event from a JSON object.
    ///
    /// # Errors
    /// [`EventError`] names the first field that is unknown, repeated, missing, of a wrong type or out of
    /// range.
    pub fn parse(json: &'a str) -> Result<Event<'a>, EventError> {
        match fast_parse::event(json) {
            Some(event) => Ok(event),
            None => careful_parse::event(json),
        }
    }
}

/// Parses the part of a chunk (`{type, id, name?}`) and returns it as [`Event::part`] has it.
///
/// # Errors
/// [`EventError`] names the first field that is unknown, repeated, missing, of a wrong type or out of range.
pub fn parse_part(json: &RawValue) -> Result<Cow<'_, str>, EventError> {
    careful_parse::composite("part", json, &PART)
}

/// Returns true if a part, as [`Event::part`] has it, is of type `text`.
#[must_use]
pub fn is_text_part(part: &str) -> bool {
    part.starts_with(r#"{"type":"text","#)
}

/// Checks an id: 1 to [`ID_BYTES`] bytes, no control character.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_id(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > ID_BYTES {
        return Err(format!("must be 1 to {ID_BYTES} bytes"));
    }
    match text.chars().any(char::is_control) {
        true => Err("must not hold control characters".to_owned()),
        false => Ok(()),
    }
}

/// Checks a channel name: 1 to [`CHANNEL_BYTES`] bytes, `/`-separated, no empty level, no `*`, no control
/// character.
///
/// # Errors
/// Says what is wrong with it.
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
    // Control characters above ASCII are two bytes, of which the first is 0xc2.
    let suspicious = |byte: &u8| matches!(byte, 0..0x20 | b'*' | 0x7f..);
    if bytes.iter().any(suspicious) && channel.chars().any(|c| c == '*' || c.is_control()) {
        return Err("must not hold '*' or control characters".into());
    }
    Ok(())
}

#[cfg(test)]
mod generate;
#[cfg(test)]
mod tests;
