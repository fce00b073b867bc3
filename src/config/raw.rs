//! A value as a source gave it, before its key has checked it: the common form of TOML, JSON, variables and
//! flags.

use toml::de::{DeArray, DeTable, DeValue};

use super::key::KeyType;

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

    fn from_json(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Other("null"),
            serde_json::Value::Bool(value) => Self::Bool(value),
            serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(n), _) => Self::Int(i128::from(n)),
                (None, Some(n)) => Self::Int(i128::from(n)),
                (None, None) => Self::Other("a fraction"),
            },
            serde_json::Value::String(text) => Self::Str(text),
            serde_json::Value::Array(items) => Self::List(items.into_iter().map(Self::from_json).collect()),
            serde_json::Value::Object(map) => {
                Self::Table(map.into_iter().map(|(k, v)| (k, Self::from_json(v))).collect())
            }
        }
    }

    /// Parses the text of a variable or flag for a key of this kind. Text that does not fit stays text, so
    /// that the error of the key says what it expects.
    pub(super) fn from_text(kind: &KeyType, text: &str) -> Self {
        let text = text.trim();
        let json = || serde_json::from_str(text).map_or_else(|_| Self::Str(text.to_owned()), Self::from_json);
        match kind {
            KeyType::Int { .. } | KeyType::Size { .. } => {
                text.replace('_', "").parse().map_or_else(|_| Self::Str(text.to_owned()), Self::Int)
            }
            KeyType::Bool { .. } => text.parse().map_or_else(|_| Self::Str(text.to_owned()), Self::Bool),
            KeyType::Listens { .. } | KeyType::WebOrigins { .. } | KeyType::Proxies { .. }
                if text.starts_with('[') && json_list(text) =>
            {
                json()
            }
            KeyType::Listens { .. } | KeyType::WebOrigins { .. } | KeyType::Proxies { .. } => Self::List(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Self::Str(item.to_owned()))
                    .collect(),
            ),
            KeyType::JwtKeys => json(),
            KeyType::Listen { .. } | KeyType::Path { .. } | KeyType::Word { .. } => {
                Self::Str(text.to_owned())
            }
        }
    }
}

/// Whether the text is a JSON list. `[::1]:8080` starts like one, but is not.
fn json_list(text: &str) -> bool {
    serde_json::from_str::<Vec<serde_json::Value>>(text).is_ok()
}
