//! A value as a source gave it, before its key has checked it: the common form of TOML, JSON, variables and
//! flags.

use toml::de::{DeArray, DeTable, DeValue};

/// An untyped value. Integers are wide enough that an error can show every number that is out of range.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum RawValue {
    Int(i128),
    Bool(bool),
    Str(String),
    List(Vec<RawValue>),
    /// Fields in the order given.
    Table(Vec<(String, RawValue)>),
    /// A type that no key has; the text names it.
    Other(&'static str),
}

impl RawValue {
    /// The type with its article, for error texts: "expects …, got …".
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Int(_) => "an integer",
            Self::Bool(_) => "a boolean",
            Self::Str(_) => "a string",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }

    pub(super) fn from_toml(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Str(text.to_string()),
            DeValue::Integer(digits) => {
                i128::from_str_radix(&digits.as_str().replace('_', ""), digits.radix())
                    .map_or(Self::Other("an integer of that size"), Self::Int)
            }
            DeValue::Boolean(value) => Self::Bool(*value),
            DeValue::Array(items) => Self::from_array(items),
            DeValue::Table(table) => Self::from_table(table),
            DeValue::Float(_) => Self::Other("a fraction"),
            DeValue::Datetime(_) => Self::Other("a date"),
        }
    }

    fn from_array(items: &DeArray<'_>) -> Self {
        Self::List(items.iter().map(|item| Self::from_toml(item.get_ref())).collect())
    }

    fn from_table(table: &DeTable<'_>) -> Self {
        Self::Table(
            table.iter().map(|(k, v)| (k.get_ref().to_string(), Self::from_toml(v.get_ref()))).collect(),
        )
    }

    pub(super) fn from_json(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Other("null"),
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => {
                number.as_i128().map_or(Self::Other("a fraction"), Self::Int)
            }
            serde_json::Value::String(text) => Self::Str(text),
            serde_json::Value::Array(items) => Self::List(items.into_iter().map(Self::from_json).collect()),
            serde_json::Value::Object(map) => {
                Self::Table(map.into_iter().map(|(k, v)| (k, Self::from_json(v))).collect())
            }
        }
    }
}

/// `expects X, got Y`, where Y is a short value or the type of a long one.
pub(super) fn expects(what: &str, got: &RawValue) -> String {
    /// Longer texts are not repeated in the error; their type is named instead.
    const SHOWN: usize = 64;
    match got {
        RawValue::Int(number) => format!("expects {what}, got {number}"),
        RawValue::Bool(flag) => format!("expects {what}, got {flag}"),
        RawValue::Str(text) if text.len() <= SHOWN => format!("expects {what}, got {text:?}"),
        other => format!("expects {what}, got {}", other.type_name()),
    }
}
