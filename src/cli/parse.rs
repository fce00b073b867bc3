//! Values of flags that need more than a string: durations, JSON, parts of streams.

use nervewire_client::event::Metadata;
use nervewire_client::{PartType, StreamPart};

use crate::store::Until;
use crate::time::parse_rfc3339;

/// Parses seconds from `90`, `90s`, `15m`, `8h` or `7d`. The minimum is one second.
pub(super) fn seconds(text: &str) -> Result<u64, String> {
    let refuse = || "expected seconds, or a number with s, m, h or d, such as 30m or 7d".to_owned();
    let (digits, factor) = match text.as_bytes().last() {
        Some(b's') => (text.trim_end_matches('s'), 1),
        Some(b'm') => (text.trim_end_matches('m'), 60),
        Some(b'h') => (text.trim_end_matches('h'), 3_600),
        Some(b'd') => (text.trim_end_matches('d'), 86_400),
        _ => (text, 1),
    };
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refuse());
    }
    let number: u64 = digits.parse().map_err(|_| refuse())?;
    number.checked_mul(factor).filter(|seconds| *seconds > 0).ok_or_else(refuse)
}

/// Parses a position of the journal, or a time.
pub(super) fn until(text: &str) -> Result<Until, String> {
    match text.parse() {
        Ok(position) => Ok(Until::Position(position)),
        Err(_) => parse_rfc3339(text).map(Until::Time).ok_or_else(|| {
            "expected a position (a number) or a time such as 2026-11-30T12:00:00Z".to_owned()
        }),
    }
}

/// Parses the acknowledgement mode of a publish: a value of `?ack=`.
pub(super) fn ack(text: &str) -> Result<String, String> {
    match text {
        "durable" | "memory" => Ok(text.to_owned()),
        "fsync" => Err("use `durable` instead of `fsync`".to_owned()),
        _ => Err("expected durable or memory".to_owned()),
    }
}

/// Parses any JSON value.
pub(super) fn json_value(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text)
        .map_err(|error| format!("not valid JSON: {error} (a string needs its own quotes: '\"text\"')"))
}

/// Parses a JSON object.
pub(super) fn json_object(text: &str) -> Result<Metadata, String> {
    match json_value(text)? {
        serde_json::Value::Object(object) => Ok(object),
        _ => Err("expected a JSON object, such as '{\"session\":\"s1\"}'".to_owned()),
    }
}

/// Parses the lease of a stream, within the bounds of protocol §8.1.
pub(super) fn lease_seconds(text: &str) -> Result<u64, String> {
    seconds(text)
        .ok()
        .filter(|seconds| (5..=600).contains(seconds))
        .ok_or_else(|| "expected 5 to 600 seconds".to_owned())
}

/// Parses a part of a stream from `TYPE:ID`.
pub(super) fn part(text: &str) -> Result<StreamPart, String> {
    let (kind, id) = text.split_once(':').filter(|(_, id)| !id.is_empty()).ok_or("expected TYPE:ID")?;
    match serde_json::from_value(kind.into()) {
        Ok(PartType::Other(_)) | Err(_) => {
            Err("the type must be text, reasoning, tool_input, tool_output, source or data".to_owned())
        }
        Ok(kind) => Ok(StreamPart::new(kind, id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [("90", 90), ("90s", 90), ("15m", 900), ("8h", 28_800), ("7d", 604_800)] {
            assert_eq!(seconds(text), Ok(expected));
        }
        for text in [
            "",
            "s",
            "0",
            "0d",
            "-1",
            "+1",
            "1.5h",
            "1w",
            "1hh h",
            "99999999999999999999",
            "999999999999999999d",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parts_of_streams() {
        assert_eq!(part("reasoning:r:1"), Ok(StreamPart::new(PartType::Reasoning, "r:1")));
        assert_eq!(part("tool_input:t"), Ok(StreamPart::new(PartType::ToolInput, "t")));
        for text in ["", "reasoning", "reasoning:", ":r", "thoughts:r"] {
            assert!(part(text).is_err(), "{text}");
        }
    }

    #[test]
    fn leases_are_5_to_600_seconds() {
        assert_eq!((lease_seconds("5"), lease_seconds("10m")), (Ok(5), Ok(600)));
        assert!(lease_seconds("4").is_err() && lease_seconds("601").is_err() && lease_seconds("x").is_err());
    }

    #[test]
    fn json_or_a_hint() {
        assert!(json_object("{\"a\":1}").is_ok_and(|object| object.len() == 1));
        assert!(json_object("[1]").unwrap_err().contains("object"));
        assert_eq!(json_value("{\"a\":1}"), Ok(serde_json::json!({"a": 1})));
        assert!(json_value("hello").unwrap_err().contains("quotes"));
    }
}
