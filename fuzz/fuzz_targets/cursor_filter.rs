//! Cursors, query strings, filters and narrowing claims: only signed cursors verify, and nothing ever widens
//! a filter.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nervewire::cursor::CursorKey;
use nervewire::event::Event;
use nervewire::filter::{Filter, Narrowing, Rights, Selection};
use nervewire::frame::Frame;
use nervewire::ids::TenantId;
use nervewire::index::Index;
use nervewire::query;

const KEY: CursorKey = CursorKey { store_id: *b"fuzz", key: [9; 16] };
const EVENTS: [&str; 5] = [
    r#"{"type":"custom","channel":"a/b","data":1,"user_id":"u","agent_id":"a"}"#,
    r#"{"type":"stream_chunk","request_id":"r","chunk":"","is_final":true}"#,
    r#"{"type":"stream_chunk","request_id":"r","chunk":"","is_final":false,"part":{"type":"data","id":"p"}}"#,
    r#"{"type":"message","agent_id":"a","user_id":"v","content":""}"#,
    r#"{"type":"agent_update","agent_id":"b","status":"idle"}"#,
];

fuzz_target!(|data: &[u8]| {
    if let Some(sequence) = KEY.decode(TenantId(1), data) {
        assert_eq!(KEY.encode(TenantId(1), sequence).0, data, "one text per position");
        assert_eq!(KEY.decode(TenantId(2), data), None);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, claims) = text.split_once('\n').unwrap_or((text, "{}"));
    let Ok(pairs) = query::pairs(text) else { return };
    let Ok(filter) = Filter::from_query(&pairs) else { return };
    let narrowing = serde_json::from_str::<Narrowing>(claims).unwrap_or_default();
    let round: Narrowing = serde_json::from_str(&serde_json::to_string(&narrowing).expect("JSON"))
        .expect("what is shown is read");
    assert_eq!(narrowing, round);
    assert!(narrowing.within(&narrowing) && narrowing.within(&Narrowing::default()));

    for rights in [
        Rights::default(),
        Rights { sub: Some("u".into()), ..Rights::default() },
        Rights { sees_all_users: true, ..Rights::default() },
    ] {
        let everything = Filter::from_query(&[(Filter::PARTS, "all")]).expect("a filter");
        let bare = Selection { filter: everything, rights: rights.clone() };
        let narrowed =
            Selection { filter: filter.clone(), rights: Rights { narrowing: narrowing.clone(), ..rights } };
        let mut index = Index::new();
        let row = index.insert(narrowed.clone(), 7u32).expect("room");
        for event in EVENTS {
            let frame = Frame::encode(&Event::parse(event).expect("valid"), 0, 0);
            let (wide, narrow) = (bare.matches(&frame), narrowed.matches(&frame));
            assert!(wide || !narrow, "a filter widened");
            let mut found = 0;
            index.for_each_match(&frame, |members| found += members.len());
            assert_eq!(found, usize::from(narrow), "the index differs from the predicate");
        }
        index.remove(row).expect("there");
        assert!(index.is_empty());
    }
});
