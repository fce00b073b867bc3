//! Hostile values in events and control frames: a reader gets exactly one event for each, with those values.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nervewire::cursor::{Cursor, CursorKey};
use nervewire::event::Event;
use nervewire::frame::control::{Control, GapReason, Ref};
use nervewire::frame::{Frame, sse};
use nervewire::ids::{Sequence, TenantId};
use serde_json::{Value, json};

const KEY: CursorKey = CursorKey { store_id: *b"fuzz", key: [9; 16] };

/// One dispatched event: name, data, last event id.
type Dispatched = (Vec<u8>, Vec<u8>, Vec<u8>);

/// A byte-wise parser of WHATWG HTML §9.2.6 that shares no code with the encoder.
fn read(stream: &[u8]) -> Vec<Dispatched> {
    let (mut out, mut name, mut data, mut id) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut at = 0;
    while at < stream.len() {
        let len = stream[at..].iter().position(|b| matches!(b, b'\r' | b'\n')).expect("a complete line");
        let line = &stream[at..at + len];
        at += len + if stream[at + len..].starts_with(b"\r\n") { 2 } else { 1 };
        if line.is_empty() {
            if !data.is_empty() {
                data.pop();
                out.push((std::mem::take(&mut name), std::mem::take(&mut data), id.clone()));
            }
            name.clear();
            continue;
        }
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"event" => name = value.to_vec(),
            b"id" if !value.contains(&0) => id = value.to_vec(),
            b"data" => {
                data.extend_from_slice(value);
                data.push(b'\n');
            }
            _ => {}
        }
    }
    out
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut fields = text.splitn(3, '\u{1}');
    let [a, b, c] = [0; 3].map(|_| fields.next().unwrap_or_default());
    let cursor = KEY.encode(TenantId(1), Sequence(3));
    let reference = Ref::Text(a.chars().take(16).collect::<String>().into());
    let details = json!({ a: b });

    let mut out = Vec::new();
    let mut expected: Vec<(&str, Value, Option<Cursor>)> = Vec::new();
    sse::retry(2000, &mut out);
    let after = &a[..a.floor_char_boundary(64)];
    for (control, value) in [
        (
            Control::Gap { after: a, resumes_at: cursor, reason: GapReason::Trimmed },
            json!({"type":"gap","after":after,"resumes_at":cursor.as_str(),"reason":"trimmed"}),
        ),
        (
            Control::Error { code: b, message: c, details: Some(&details), reference: Some(&reference) },
            json!({"type":"error","code":b,"message":c,"details":details,"ref":reference}),
        ),
        (Control::Cancel { request_id: c }, json!({"type":"cancel","request_id":c})),
    ] {
        control.sse(&mut out);
        out.extend_from_slice(sse::KEEP_ALIVE);
        let name = if matches!(control, Control::Error { .. }) { "closing" } else { control.name() };
        expected.push((name, value, control.position()));
    }
    for event in [
        json!({"type":"message","agent_id":"a","content":c,"timestamp":"2026-01-02T03:04:05.678Z"}),
        json!({"type":"custom","channel":"c","data":{a: [b, c]},"timestamp":"2026-01-02T03:04:05.678Z"}),
        json!({"type":"stream_chunk","request_id":"r","chunk":b,"is_final":false,"timestamp":"2026-01-02T03:04:05.678Z"}),
    ] {
        let text = event.to_string();
        let mut frame = Frame::encode(&Event::parse(&text).expect("valid"), 0, 0);
        frame.seal(Sequence(3), 0, &cursor);
        out.extend(frame.sse());
        let mut event = event;
        event["id"] = cursor.as_str().into();
        expected.push(("", event, Some(cursor)));
    }

    let events = read(&out);
    assert_eq!(events.len(), expected.len());
    let mut last = Vec::new();
    for ((name, data, id), (their_name, value, position)) in events.iter().zip(&expected) {
        assert_eq!(name, their_name.as_bytes());
        assert_eq!(&serde_json::from_slice::<Value>(data).expect("JSON"), value);
        if let Some(position) = position {
            last = position.0.to_vec();
        }
        assert_eq!(id, &last);
    }

    // Data that was never JSON keeps its text too, with line ends unified as the standard says.
    let mut out = Vec::new();
    sse::named("x", None, text.as_bytes(), &mut out);
    let unified = text.replace("\r\n", "\n").replace('\r', "\n");
    match &read(&out)[..] {
        [(name, data, id)] => {
            assert_eq!((&name[..], &data[..], id.len()), (&b"x"[..], unified.as_bytes(), 0))
        }
        other => panic!("{other:?}"),
    }
});
