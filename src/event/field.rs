//! A field of an event: its name, the values that it takes, and whether it is required.
//!
//! The fields themselves are in [`super::table`].

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

/// The values that a field takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FieldType {
    /// A text without control characters, of 1 byte to this many.
    Id(usize),
    /// Any text.
    Text,
    /// One of these texts.
    Choice(&'static Choices),
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
    /// A JSON object with fields of its own.
    Composite(&'static Composite),
}

/// The texts of which a field takes one.
#[derive(PartialEq, Eq, Debug)]
pub struct Choices {
    /// The name of the type in the Rust client.
    pub name: &'static str,
    /// What is chosen.
    pub description: &'static str,
    /// Each text with its meaning.
    pub texts: &'static [(&'static str, &'static str)],
}

impl Choices {
    /// Returns the texts.
    #[must_use]
    pub fn texts(&self) -> Vec<&'static str> {
        self.texts.iter().map(|(text, _)| *text).collect()
    }

    /// Returns true if `text` is one of the texts.
    pub(super) fn contains(&self, text: &str) -> bool {
        self.texts.iter().any(|(known, _)| *known == text)
    }
}

/// An object with fields of its own, all of which are texts. An event has it as compact JSON with the fields in
/// this order, so that equal objects have equal bytes.
#[derive(PartialEq, Eq, Debug)]
pub struct Composite {
    /// The name of the type in the Rust client.
    pub name: &'static str,
    /// What the object is.
    pub description: &'static str,
    /// The fields, at most [`COMPOSITE_FIELDS`].
    pub fields: &'static [Field],
}

/// The most fields of a [`Composite`].
pub const COMPOSITE_FIELDS: usize = 4;

/// The values of a composite's fields, in their order.
pub(super) type CompositeValues<'a> = [Option<Cow<'a, str>>; COMPOSITE_FIELDS];

impl Composite {
    /// Returns the position of the field `name`.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    /// Returns the first required field that has no value.
    pub(super) fn missing(&self, values: &CompositeValues<'_>) -> Option<&'static Field> {
        let is_missing = |(field, value): &(&'static Field, &Option<_>)| {
            field.requirement == Requirement::Required && value.is_none()
        };
        self.fields.iter().zip(values).find(is_missing).map(|(field, _)| field)
    }

    /// Returns the object as compact JSON.
    pub(super) fn to_json(&self, values: &CompositeValues<'_>) -> String {
        let mut json = String::from("{");
        for (field, value) in self.fields.iter().zip(values) {
            let Some(value) = value else { continue };
            if json.len() > 1 {
                json.push(',');
            }
            let _ = write!(json, "\"{}\":{}", field.name, Value::from(value.as_ref())); // a String takes every write
        }
        json.push('}');
        json
    }
}

/// Whether a field is required.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Requirement {
    /// The publisher must give the field.
    Required,
    /// The publisher may give the field; otherwise the daemon sets it. A subscriber always receives it.
    Generated,
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
    /// The description in the documents.
    pub description: &'static str,
    /// An example of a value, as JSON.
    pub example: &'static str,
}

impl Field {
    pub(super) const fn required(self) -> Field {
        Field { requirement: Requirement::Required, ..self }
    }
    pub(super) const fn generated(self) -> Field {
        Field { requirement: Requirement::Generated, ..self }
    }
    pub(super) const fn optional(self) -> Field {
        Field { requirement: Requirement::Optional, ..self }
    }
    pub(super) const fn described(self, description: &'static str) -> Field {
        Field { description, ..self }
    }
}
