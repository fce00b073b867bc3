//! Whole numbers in JSON, as JSON Schema defines them: `368`, `368.0` and `3.68e2` are the same integer.
//!
//! * A number that has a fraction, is negative or does not fit into 64 bits is refused, never rounded.
//! * A number with a point or an exponent is read as a double: beyond 2^53 it is the nearest one that a
//!   double can hold.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

/// Doubles below this (2^64) fit into 64 bits.
const LIMIT: f64 = 18_446_744_073_709_551_616.0;

/// Returns the whole number of a JSON number; `None` if it is not whole.
#[must_use]
pub fn from_json(text: &str) -> Option<u64> {
    let double = || text.parse().ok().and_then(from_double);
    let is_number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    text.parse().ok().or_else(double).filter(|_| is_number)
}

/// Returns the whole number of a double; `None` if it is not whole or does not fit.
#[must_use]
pub fn from_double(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..LIMIT).contains(&number)).then_some(number as u64)
}

/// Reads a field that may be absent or `null`, for `#[serde(default, deserialize_with = "…")]`.
///
/// # Errors
/// The value is not a whole number, or does not fit into `T`.
pub fn optional<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let fits = |JsonInteger(number)| {
        T::try_from(number)
            .map_err(|_| D::Error::invalid_value(Unexpected::Unsigned(number), &JsonIntegerVisitor))
    };
    Option::<JsonInteger>::deserialize(deserializer)?.map(fits).transpose()
}

struct JsonInteger(u64);

impl<'de> Deserialize<'de> for JsonInteger {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_u64(JsonIntegerVisitor).map(JsonInteger)
    }
}

struct JsonIntegerVisitor;

impl Visitor<'_> for JsonIntegerVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("u64") // as serde's own numbers do; error messages are worded from it
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<u64, E> {
        from_double(number).ok_or_else(|| E::invalid_type(Unexpected::Float(number), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default, deserialize_with = "optional")]
        small: Option<u32>,
        #[serde(default, deserialize_with = "optional")]
        large: Option<u64>,
    }

    #[test]
    fn an_integer_may_be_written_as_any_number() {
        let wholes = [
            ("0", 0),
            ("-0.0", 0),
            ("368", 368),
            ("368.0", 368),
            ("3.68e2", 368),
            ("18446744073709551615", u64::MAX),
            ("1e18", 1_000_000_000_000_000_000),
        ];
        for (text, number) in wholes {
            assert_eq!(from_json(text), Some(number), "{text}");
            let body: Body = serde_json::from_str(&format!("{{\"large\":{text}}}")).expect(text);
            assert_eq!((body.large, body.small), (Some(number), None), "{text}");
        }
        for text in
            ["368.5", "-1", "-1.0", "18446744073709551616", "1.8446744073709552e19", "1e400", "\"1\"", "[1]"]
        {
            assert_eq!(from_json(text), None, "{text}");
            assert!(serde_json::from_str::<Body>(&format!("{{\"large\":{text}}}")).is_err(), "{text}");
        }
        for text in ["", "inf", "NaN", "+1", "true"] {
            assert_eq!(from_json(text), None, "{text}");
        }
        let small = |text: &str| serde_json::from_str::<Body>(text).map(|body| body.small);
        assert_eq!(small(r#"{"small":null}"#).ok(), Some(None));
        assert_eq!(small(r#"{"small":4294967295.0}"#).ok(), Some(Some(u32::MAX)));
        assert!(small(r#"{"small":4294967296.0}"#).is_err());
    }
}
