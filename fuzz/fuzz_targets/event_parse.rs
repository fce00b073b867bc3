//! Events: an accepted event is equal after a round trip through its own JSON and through a piece of the log,
//! and neither contains a line end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nervewire::cursor::CursorKey;
use nervewire::event::Event;
use nervewire::frame::{Frame, RoutingKey};
use nervewire::ids::{Sequence, TenantId};
use nervewire::store::{decode_piece, encode_pieces};
use nervewire::transport::WireFormat;

const KEY: CursorKey = CursorKey { store_id: *b"fuzz", key: [9; 16] };

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(event) = Event::parse(text) else { return };
    let mut frame = Frame::encode(&event, 1_700_000_000_000, 0);
    let cursor = KEY.encode(TenantId(1), Sequence(7));
    frame.seal(Sequence(7), 1_700_000_000_000, &cursor);

    let json = std::str::from_utf8(frame.json()).expect("UTF-8");
    assert!(!json.contains(['\r', '\n']));
    assert!(frame.encoded(WireFormat::Ws).to_vec().ends_with(frame.json()));
    let mut shown: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(json).expect("an object");
    assert_eq!(shown.remove("id").expect("an id"), cursor.as_str());
    assert_eq!(shown["type"], event.kind.name());
    for (key, name) in [
        (RoutingKey::User, "user_id"),
        (RoutingKey::Agent, "agent_id"),
        (RoutingKey::Request, "request_id"),
        (RoutingKey::Channel, "channel"),
    ] {
        assert_eq!(frame.key(key), shown.get(name).and_then(|value| value.as_str()));
    }
    let again = serde_json::to_string(&shown).expect("JSON");
    let again = Event::parse(&again).expect("what is shown is an event");
    for (a, b) in [
        (&event.content, &again.content),
        (&event.chunk, &again.chunk),
        (&event.message, &again.message),
        (&event.user_id, &again.user_id),
        (&event.agent_id, &again.agent_id),
        (&event.request_id, &again.request_id),
        (&event.channel, &again.channel),
    ] {
        assert_eq!(a, b);
    }

    let (first, piece) = encode_pieces(&[frame.clone()]).remove(0);
    let pages = decode_piece(&piece, first, TenantId(1), &KEY).expect("a piece");
    assert_eq!(pages[0].frames()[0].sse_chunked(), frame.sse_chunked());
});
