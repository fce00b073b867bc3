//! From a body to events: one, an array, or NDJSON, all of them valid or none taken.

use serde_json::value::RawValue;

use crate::event::{Event, EventError, scan};

/// Most events of one request or frame.
pub const BATCH_EVENTS: usize = 1_000;

/// One event, or an array of them (then errors name the item: `[3].content`).
///
/// # Errors
/// The first event that is not valid, or too many.
pub fn parse_json(body: &str) -> Result<Vec<Event<'_>>, EventError> {
    if !body.trim_ascii_start().starts_with('[') {
        return Ok(vec![Event::parse(body)?]);
    }
    if let Some(events) = scan::events(body, BATCH_EVENTS) {
        return Ok(events);
    }
    let items: Vec<&RawValue> = serde_json::from_str(body)
        .map_err(|error| EventError::new("", format!("is not a JSON array of events: {error}")))?;
    parse_items(&items)
}

/// Events given one by one.
///
/// # Errors
/// The first event that is not valid, or too many, or none.
pub fn parse_items<'a>(items: &[&'a RawValue]) -> Result<Vec<Event<'a>>, EventError> {
    bounded(items.len())?;
    items
        .iter()
        .enumerate()
        .map(|(at, item)| Event::parse(item.get()).map_err(|error| error.at(at)))
        .collect()
}

/// One event a line; blank lines are skipped. Errors name the line by its place among the events.
///
/// # Errors
/// The first event that is not valid, or too many, or none.
pub fn parse_ndjson(body: &str) -> Result<Vec<Event<'_>>, EventError> {
    let mut events = Vec::new();
    for line in body.lines().filter(|line| !line.trim_ascii().is_empty()) {
        bounded(events.len() + 1)?;
        events.push(Event::parse(line).map_err(|error| error.at(events.len()))?);
    }
    bounded(events.len())?;
    Ok(events)
}

fn bounded(events: usize) -> Result<(), EventError> {
    match events {
        0 => Err(EventError::new("", "holds no event")),
        1..=BATCH_EVENTS => Ok(()),
        _ => Err(EventError::new("", format!("holds more than {BATCH_EVENTS} events"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"type":"custom","channel":"c","data":1}"#;

    #[test]
    fn one_several_and_lines_are_read() {
        assert_eq!(parse_json(EVENT).expect("one").len(), 1);
        assert_eq!(parse_json(&format!(" [{EVENT},{EVENT}]")).expect("array").len(), 2);
        assert_eq!(parse_ndjson(&format!("{EVENT}\n\n{EVENT}\r\n")).expect("lines").len(), 2);
    }

    #[test]
    fn the_item_at_fault_is_named() {
        let bad = r#"{"type":"custom","channel":"c"}"#;
        assert_eq!(parse_json(&format!("[{EVENT},{bad}]")).expect_err("bad").field, "[1].data");
        assert_eq!(parse_ndjson(&format!("{EVENT}\n{bad}")).expect_err("bad").field, "[1].data");
        assert_eq!(parse_json(bad).expect_err("bad").field, "data");
    }

    #[test]
    fn none_and_too_many_are_refused() {
        assert!(parse_json("[]").is_err() && parse_ndjson("\n").is_err() && parse_json("").is_err());
        let many = vec![EVENT; BATCH_EVENTS + 1].join("\n");
        assert!(parse_ndjson(&many).is_err());
    }
}
