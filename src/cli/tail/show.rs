//! How `tail` prints an event: as one line of text, or as JSON.

use serde_json::Value;

use super::super::output::plain;

/// Returns the event as one line of JSON. The daemon's text is normally one line already; otherwise it is
/// rewritten.
pub(super) fn json(text: &str, event: &Value) -> String {
    if text.contains(['\n', '\r']) { event.to_string() } else { text.to_owned() }
}

/// Formats the event for people: time, type, agent or user, content. Control characters are escaped.
pub(super) fn pretty(event: &Value) -> String {
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
    // `2026-11-22T10:00:00.123Z` → `10:00:00.123`
    let time = text("timestamp").split_once('T').map_or("", |(_, time)| time.trim_end_matches('Z'));
    let user = match text("user_id") {
        "" => String::new(),
        user => format!(" for {user}"),
    };
    let by = |agent: &str| if agent.is_empty() { String::new() } else { format!(" {agent}") };
    let kind = text("type");
    let summary = match kind {
        "message" => format!("{}{user}: {}", by(text("agent_id")), text("content")),
        "agent_update" => {
            let why = text("error_message");
            let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
            format!("{}: {}{why}", by(text("agent_id")), text("status"))
        }
        "memory_update" => {
            format!("{}{user}: {} {}", by(text("agent_id")), text("memory_id"), text("operation"))
        }
        "stream_chunk" => {
            let end = event.get("is_final").and_then(Value::as_bool).unwrap_or_default();
            format!(" {}{user}: {:?}{}", text("request_id"), text("chunk"), if end { " (final)" } else { "" })
        }
        "error" => format!("{}{user}: {}: {}", by(text("request_id")), text("code"), text("message")),
        "custom" => format!(" {}{user}: {}", text("channel"), event.get("data").unwrap_or(&Value::Null)),
        _ => format!(": {event}"),
    };
    plain(&format!("{time} {kind}{summary}")).replace('\n', "\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_line_a_type() {
        let at = "2026-11-22T10:00:00.123Z";
        for (event, line) in [
            (
                json!({"type": "message", "timestamp": at, "agent_id": "a", "user_id": "u", "content": "x\ny\u{1b}[2J"}),
                "10:00:00.123 message a for u: x\n    y\\u{1b}[2J",
            ),
            (
                json!({"type": "agent_update", "timestamp": at, "agent_id": "a", "status": "error", "error_message": "oh"}),
                "10:00:00.123 agent_update a: error (oh)",
            ),
            (
                json!({"type": "memory_update", "timestamp": at, "agent_id": "a", "memory_id": "m", "operation": "created"}),
                "10:00:00.123 memory_update a: m created",
            ),
            (
                json!({"type": "stream_chunk", "timestamp": at, "request_id": "r", "chunk": "a\nb", "is_final": true}),
                "10:00:00.123 stream_chunk r: \"a\\nb\" (final)",
            ),
            (
                json!({"type": "error", "timestamp": at, "code": "C", "message": "m", "request_id": "r"}),
                "10:00:00.123 error r: C: m",
            ),
            (
                json!({"type": "custom", "timestamp": at, "channel": "c/d", "data": {"k": [1]}}),
                "10:00:00.123 custom c/d: {\"k\":[1]}",
            ),
            (json!({"type": "new"}), " new: {\"type\":\"new\"}"),
        ] {
            assert_eq!(pretty(&event), line);
        }
    }

    #[test]
    fn json_is_always_one_line() {
        let event = json!({"a": 1});
        assert_eq!(json("{\"a\": 1}", &event), "{\"a\": 1}");
        assert_eq!(json("{\n\"a\": 1}", &event), "{\"a\":1}");
    }
}
