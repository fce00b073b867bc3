//! `text/event-stream` (WHATWG HTML §9.2) for everything but logged events, which carry their own encoding
//! ([`super::Frame::sse`]).
//!
//! * Control frames are named events. The names `error`, `open` and `message` have a meaning in browsers and
//!   are never used.
//! * No value can forge a field: data is split at every line end, and ids are cursors.

use super::chunked;
use super::control::Control;
use crate::cursor::Cursor;
use crate::transport::WireFormat;

/// A comment that keeps the connection alive. It has no blank line: after an id, a blank line makes several
/// client libraries emit an empty message.
pub const KEEP_ALIVE: &[u8] = b": heartbeat\n";
/// [`KEEP_ALIVE`] as a chunk of an HTTP/1.1 body.
pub const KEEP_ALIVE_CHUNKED: &[u8] = b"c\r\n: heartbeat\n\r\n";
/// The last event of `/sse/llm`.
pub const DONE: &[u8] = b"event: done\ndata: {}\n\n";

/// Appends the time that a client waits before it reconnects. It belongs to the event that follows.
pub fn retry(ms: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(b"retry: ");
    out.extend_from_slice(ms.to_string().as_bytes());
    out.push(b'\n');
}

/// Appends an event named `name`; data may hold any text.
pub fn named(name: &'static str, id: Option<&Cursor>, data: &[u8], out: &mut Vec<u8>) {
    out.reserve(data.len() + 64);
    for part in [b"event: ".as_slice(), name.as_bytes(), b"\n"] {
        out.extend_from_slice(part);
    }
    if let Some(id) = id {
        for part in [b"id: ".as_slice(), &id.0, b"\n"] {
            out.extend_from_slice(part);
        }
    }
    let mut rest = data;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
        out.push(b'\n');
        let Some(end) = end else { break };
        let line_end = if rest[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = &rest[end + line_end..];
    }
    out.push(b'\n');
}

impl Control<'_> {
    /// Appends the frame as a named event. An error is named `closing`; frames with a position carry it as
    /// `id`.
    pub fn sse(&self, out: &mut Vec<u8>) {
        let name = match self {
            Control::Error { .. } => "closing",
            other => other.name(),
        };
        let mut json = Vec::with_capacity(160);
        self.json(&mut json);
        named(name, self.position().as_ref(), &json, out);
    }

    /// Appends the frame in this format.
    pub fn encode(&self, format: WireFormat, out: &mut Vec<u8>) {
        match format {
            WireFormat::Ws => self.ws(out),
            WireFormat::Sse => self.sse(out),
            WireFormat::SseChunked => {
                let mut plain = Vec::with_capacity(256);
                self.sse(&mut plain);
                chunked::chunk(&plain, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::frame::control::tests::CURSOR;
    use crate::frame::control::{GapReason, Ref};
    use crate::frame::tests::frame;

    #[derive(Debug, PartialEq, Default, Clone)]
    struct Dispatched {
        name: String,
        data: String,
        last_id: String,
    }

    /// An independent reader by the rules of WHATWG HTML §9.2.5 and §9.2.6. Returns the events and the
    /// reconnection time.
    fn read(stream: &str) -> (Vec<Dispatched>, Option<u64>) {
        let (mut events, mut retry) = (Vec::new(), None);
        let (mut name, mut data, mut id, mut last_id) =
            (String::new(), String::new(), String::new(), String::new());
        let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
        let unified = stream.replace("\r\n", "\n").replace('\r', "\n");
        let Some((lines, _incomplete)) = unified.rsplit_once('\n') else { return (events, retry) };
        for line in lines.split('\n') {
            if line.is_empty() {
                last_id.clone_from(&id);
                if data.is_empty() {
                    name.clear();
                    continue;
                }
                let data = std::mem::take(&mut data);
                let data = data.strip_suffix('\n').unwrap_or(&data).to_owned();
                events.push(Dispatched { name: std::mem::take(&mut name), data, last_id: last_id.clone() });
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => name = value.into(),
                "data" => {
                    data += value;
                    data.push('\n');
                }
                "id" if !value.contains('\0') => id = value.into(),
                "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                    retry = value.parse().ok();
                }
                _ => {}
            }
        }
        (events, retry)
    }

    fn text(out: Vec<u8>) -> String {
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn a_head_is_a_retry_and_a_ready() {
        let mut out = Vec::new();
        retry(2000, &mut out);
        let ready = Control::Ready {
            connection_id: "c",
            cursor: CURSOR,
            resumed: false,
            replaying: 0,
            heartbeat_seconds: 15,
            reference: None,
        };
        ready.sse(&mut out);
        out.extend_from_slice(KEEP_ALIVE);
        out.extend_from_slice(DONE);
        let mut keep_alive = Vec::new();
        chunked::chunk(KEEP_ALIVE, &mut keep_alive);
        assert_eq!(keep_alive, KEEP_ALIVE_CHUNKED);
        let out = text(out);
        assert!(
            out.starts_with(&format!("retry: 2000\nevent: ready\nid: {CURSOR}\ndata: {{\"type\":\"ready\""))
        );
        let (events, wait) = read(&out);
        assert_eq!(wait, Some(2000));
        assert_eq!(events.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["ready", "done"]);
        assert_eq!(events[0].last_id, CURSOR.as_str());
    }

    #[test]
    fn raw_line_ends_in_data_stay_in_data() {
        let mut out = Vec::new();
        named("x", None, b"a\r\n\r\nid: 9\rb\n", &mut out);
        let (events, _) = read(&text(out));
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].data.as_str(), events[0].last_id.as_str()), ("a\n\nid: 9\nb\n", ""));
    }

    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "\r",
            "\n",
            "\r\n",
            "\n\n",
            "id: 9",
            "data: x",
            "event: message",
            "retry: 1",
            ":",
            " ",
            "\0",
            "\u{feff}",
            "\u{2028}",
            "\u{85}",
            "\"",
            "\\",
            "é",
            "😀",
            "{",
            "}",
            "a",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        /// Whatever a client or a log puts into a field, a reader gets one event with that value.
        #[test]
        fn no_field_can_be_forged(a in hostile(), b in hostile(), c in hostile()) {
            let short: String = a.chars().take(12).collect();
            let reference = Ref::Text(short.as_str().into());
            let details = json!({ a.as_str(): b });
            let all = [
                Control::Gap { after: &short, resumes_at: CURSOR, reason: GapReason::Lagged },
                Control::Error { code: &b, message: &c, details: Some(&details), reference: Some(&reference) },
                Control::Ready {
                    connection_id: &c, cursor: CURSOR, resumed: true, replaying: 1, heartbeat_seconds: 1,
                    reference: Some(&reference),
                },
                Control::Heartbeat { timestamp_ms: 1, cursor: CURSOR },
            ];
            let mut out = Vec::new();
            let event = json!({"type":"custom","channel":"c","data":{ a.as_str(): b.as_str() }}).to_string();
            let message = json!({"type":"message","agent_id":"a","content":c.as_str()}).to_string();
            for control in &all {
                control.sse(&mut out);
            }
            out.extend(frame(&event, 1).sse());
            out.extend(frame(&message, 2).sse());
            let (events, wait) = read(&text(out));
            prop_assert_eq!(wait, None);
            let names: Vec<&str> = events.iter().map(|e| e.name.as_str()).collect();
            prop_assert_eq!(names, ["gap", "closing", "ready", "heartbeat", "", ""]);
            let data: Vec<Value> = events.iter().map(|e| serde_json::from_str(&e.data).expect("json")).collect();
            prop_assert_eq!(data[0]["after"].as_str(), Some(short.as_str()));
            prop_assert_eq!((data[1]["code"].as_str(), data[1]["message"].as_str()), (Some(b.as_str()), Some(c.as_str())));
            prop_assert_eq!(&data[1]["details"], &details);
            prop_assert_eq!(data[1]["ref"].as_str(), Some(short.as_str()));
            prop_assert_eq!(data[2]["connection_id"].as_str(), Some(c.as_str()));
            prop_assert_eq!(&data[4]["data"], &json!({ a.as_str(): b.as_str() }));
            prop_assert_eq!(data[5]["content"].as_str(), Some(c.as_str()));
            for (event, id) in events.iter().zip([CURSOR.as_str(); 4]) {
                prop_assert_eq!(event.last_id.as_str(), id, "closing keeps the last one");
            }
            prop_assert_eq!(Some(events[5].last_id.as_str()), data[5]["id"].as_str());
        }
    }
}
