//! The careful reader: parses input that the quick reader (`fast_parse`) does not take. It accepts every valid
//! event and words the errors.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::field::{Choices, Composite, CompositeValues, FieldType, Requirement};
use super::table::*; // what the rows of the table name
use super::{Event, EventError, EventKind, check_channel, check_id, compact};
use crate::{json_integer, time};

/// Reads one event and nothing after it.
pub(super) fn event(json: &str) -> Result<Event<'_>, EventError> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let given =
        reader.deserialize_map(FieldsVisitor).and_then(|f| reader.end().map(|()| f)).map_err(not_json)?;
    let kind = match given.find("type") {
        None => return Err(EventError::new("type", "is required")),
        Some(raw) => {
            let name = text("type", raw)?;
            EventKind::from_name(&name).ok_or_else(|| EventError::new("type", one_of(&EventKind::NAMES)))?
        }
    };
    let mut event = Event::empty(kind);
    for (at, (name, raw)) in given.0.iter().enumerate() {
        if given.0[..at].iter().any(|(earlier, _)| earlier == name) {
            return Err(EventError::new(name.as_ref(), "is given twice"));
        }
        event.set(name, raw)?;
    }
    for field in kind.fields().iter().filter(|field| field.requirement == Requirement::Required) {
        if given.find(field.name).is_none() {
            return Err(EventError::new(field.name, "is required"));
        }
    }
    Ok(event)
}

macro_rules! define_set {
    ($($part:ident { $($field:ident: $type:ident($($limit:expr)?) $(routed $key:ident)?, $description:literal, $example:literal;)* })*) => {
        impl<'a> Event<'a> {
            /// Reads one field.
            fn set(&mut self, name: &str, raw: &'a RawValue) -> Result<(), EventError> {
                let foreign = || EventError::new(name, format!("is not a field of a {} event", self.kind.name()));
                match name {
                    "type" => {}
                    "id" => return Err(EventError::new(name, "is given by the server")),
                    _ if self.kind.field(name).is_none() => return Err(foreign()),
                    $($(stringify!($field) => self.$field = Some($type(name, raw $(, $limit)?)?),)*)*
                    _ => return Err(foreign()),
                }
                Ok(())
            }
        }
    };
}
with_event_fields!(define_set);

/// The fields of an object in order, each value as its own text.
struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    fn find(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, raw)| *raw)
    }
}

/// The most fields that are read of an event; this stops a body with a million keys.
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

/// Returns the text of a JSON string.
pub(super) fn text_value(raw: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<CowStr<'_>>(raw).ok().map(|text| text.0)
}

fn text<'a>(name: &str, raw: &'a RawValue) -> Result<Cow<'a, str>, EventError> {
    text_value(raw.get()).ok_or_else(|| EventError::new(name, "must be a string"))
}

fn id<'a>(name: &str, raw: &'a RawValue, most: usize) -> Result<Cow<'a, str>, EventError> {
    let id = text(name, raw)?;
    if id.is_empty() || id.len() > most {
        return Err(EventError::new(name, format!("must be 1 to {most} bytes")));
    }
    check_id(&id).map_err(|reason| EventError::new(name, reason))?;
    Ok(id)
}

fn at_most<'a>(most: usize, name: &str, value: Cow<'a, str>) -> Result<Cow<'a, str>, EventError> {
    match value.len() > most {
        true => Err(EventError::new(name, format!("must be at most {most} bytes"))),
        false => Ok(value),
    }
}

fn choice<'a>(name: &str, raw: &'a RawValue, choices: &Choices) -> Result<Cow<'a, str>, EventError> {
    let text = text(name, raw)?;
    match choices.contains(&text) {
        true => Ok(text),
        false => Err(EventError::new(name, one_of(&choices.texts()))),
    }
}

fn channel<'a>(name: &str, raw: &'a RawValue, most: usize) -> Result<Cow<'a, str>, EventError> {
    let channel = text(name, raw)?;
    check_channel(&channel).map_err(|reason| EventError::new(name, reason))?;
    at_most(most, name, channel)
}

fn time(name: &str, raw: &RawValue) -> Result<u64, EventError> {
    let reason = "must be RFC 3339, such as 2026-01-02T03:04:05.678Z";
    time::parse_rfc3339(&text(name, raw)?).ok_or_else(|| EventError::new(name, reason))
}

fn flag(name: &str, raw: &RawValue) -> Result<bool, EventError> {
    serde_json::from_str(raw.get()).map_err(|_| EventError::new(name, "must be true or false"))
}

fn count(name: &str, raw: &RawValue) -> Result<u64, EventError> {
    let reason = "must be a whole number from 0 to 2^64 - 1";
    json_integer::from_json(raw.get()).ok_or_else(|| EventError::new(name, reason))
}

fn json<'a>(name: &str, raw: &'a RawValue) -> Result<Cow<'a, str>, EventError> {
    free_json(raw.get()).map_err(|error| EventError::new(name, format!("is not valid JSON: {error}")))
}

fn object<'a>(name: &str, raw: &'a RawValue, most: usize) -> Result<Cow<'a, str>, EventError> {
    let object = json(name, raw)?;
    match object.starts_with('{') {
        true => at_most(most, name, object),
        false => Err(EventError::new(name, "must be an object")),
    }
}

/// Reads an object with the fields of `composite`. An error names the field as `name.field`.
pub(super) fn composite<'a>(
    name: &str,
    raw: &'a RawValue,
    composite: &Composite,
) -> Result<Cow<'a, str>, EventError> {
    let mut reader = serde_json::Deserializer::from_str(raw.get());
    let given =
        reader.deserialize_map(FieldsVisitor).map_err(|_| EventError::new(name, "must be an object"))?;
    let mut values = CompositeValues::default();
    for (field, raw) in given.0 {
        let inner = format!("{name}.{field}");
        let Some(place) = composite.place(&field) else {
            return Err(EventError::new(inner, format!("is not a field of {name}")));
        };
        if values[place].is_some() {
            return Err(EventError::new(inner, "is given twice"));
        }
        values[place] = Some(match composite.fields[place].field_type {
            FieldType::Choice(choices) => choice(&inner, raw, choices)?,
            FieldType::Id(most) => id(&inner, raw, most)?,
            _ => text(&inner, raw)?,
        });
    }
    match composite.missing(&values) {
        Some(field) => Err(EventError::new(format!("{name}.{}", field.name), "is required")),
        None => Ok(composite.to_json(&values).into()),
    }
}

/// Checks free JSON completely (escapes, numbers, depth by serde_json's limit of 128) and removes white space
/// between tokens.
pub(super) fn free_json(text: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    serde_json::from_str::<serde_json::Value>(text)?;
    Ok(compact(text))
}
