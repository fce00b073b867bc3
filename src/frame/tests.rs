//! Tests of a frame's content, and frames for other tests.

use super::*;
use crate::cursor::CursorKey;
use crate::event::Event;
use crate::ids::TenantId;

pub(crate) const KEY: CursorKey = CursorKey { store_id: *b"test", key: [3; 16] };

/// Returns a sealed frame of an event's JSON, of tenant 1.
pub(crate) fn frame(json: &str, sequence: u64) -> Frame {
    let event = Event::parse(json).expect(json);
    let mut frame = Frame::encode(&event, 1_700_000_000_000, 0);
    let sequence = Sequence(sequence);
    frame.seal(sequence, 1_700_000_000_000, &KEY.encode(TenantId(1), sequence));
    frame
}

#[test]
fn both_transports_carry_the_same_json() {
    let frame = frame(r#"{"type":"message","agent_id":"a","user_id":"ü","content":"x\ny\r\n\nid: 9"}"#, 5);
    let id = KEY.encode(TenantId(1), Sequence(5));
    let json = format!(
        r#"{{"id":"{id}","type":"message","agent_id":"a","user_id":"ü","content":"x\ny\r\n\nid: 9","timestamp":"2023-11-14T22:13:20.000Z"}}"#
    );
    assert_eq!(std::str::from_utf8(frame.json()).expect("text"), json);
    assert_eq!(frame.sse(), format!("id: {id}\ndata: {json}\n\n").as_bytes());
    let head = format!("{:x}\r\n", frame.sse().len());
    assert_eq!(frame.sse_chunked(), [head.as_bytes(), frame.sse(), b"\r\n"].concat());
    let ws = frame.encoded(WireFormat::Ws).to_vec();
    assert_eq!(ws[..4], [0x81, 126, (json.len() >> 8) as u8, json.len() as u8]);
    assert_eq!(&ws[4..], json.as_bytes());
    assert_eq!(
        (frame.key(RoutingKey::User), frame.key(RoutingKey::Agent), frame.key(RoutingKey::Channel)),
        (Some("ü"), Some("a"), None)
    );
}

/// A page of the log is dropped while a slow connection still has one frame of it: that frame is copied.
#[test]
fn a_detached_frame_holds_no_part_of_a_shared_buffer() {
    let own = Arc::new(frame(r#"{"type":"message","agent_id":"a","content":"x"}"#, 5));
    assert!(Arc::ptr_eq(&own, &own.detached()), "nothing to copy");
    let page = Bytes::from([&own.buf[..], b"other frames"].concat());
    let shared = Arc::new(Frame { buf: page.slice(..own.buf.len()), ..Frame::clone(&own) });
    let detached = shared.detached();
    drop(shared);
    assert!(page.is_unique(), "only the page itself holds its bytes");
    assert_eq!(detached.sse_chunked(), own.sse_chunked());
}

/// An escaped key is compared as its publisher wrote it, and no transport sends the bytes before the JSON.
#[test]
fn a_key_that_had_to_be_escaped_is_kept_apart() {
    let plain = frame(r#"{"type":"message","agent_id":"a","user_id":"b","content":"x"}"#, 5);
    assert_eq!(plain.chunk_at, 0);
    let frame = frame(
        r#"{"type":"stream_chunk","agent_id":"a\"","request_id":"r","user_id":"\\","chunk":"x","is_final":false}"#,
        5,
    );
    assert_eq!(RoutingKey::ALL.map(|key| frame.key(key)), [Some("\\"), Some("a\""), Some("r"), None]);
    assert_eq!(usize::from(frame.chunk_at), 3);
    assert!(frame.sse_chunked().ends_with(&[frame.sse(), b"\r\n"].concat()));
}

#[test]
fn a_chunk_keeps_its_text_last() {
    let frame = frame(
        r#"{"type":"stream_chunk","request_id":"r","chunk":"a\"b","is_final":false,"index":4,"user_id":"u"}"#,
        1,
    );
    let json: serde_json::Value = serde_json::from_slice(frame.json()).expect("json");
    assert_eq!((json["chunk"].as_str(), json["index"].as_u64()), (Some("a\"b"), Some(4)));
    let chunk = frame.chunk.expect("a chunk");
    assert_eq!(&frame.json()[CHUNK_SAME_AT..chunk.same_end as usize], br#""request_id":"r","user_id":"u","#);
    assert_eq!(&frame.json()[chunk.text_at as usize..frame.json().len() - 2], br#"a\"b"#);
}
