//! Tests of the parser: each kind is read, each error is named, and the quick reader agrees with the careful
//! one.

#![allow(clippy::unwrap_used, clippy::expect_used)] // tests may

use super::*;

fn refused(json: &str) -> EventError {
    Event::parse(json).expect_err(json)
}

#[test]
fn each_kind_is_read() {
    for json in [
        r#"{"type":"message","agent_id":"a","user_id":"u","content":"hi","role":"user","metadata":{"a": 1}}"#,
        r#"{"type":"agent_update","agent_id":"a","status":"thinking"}"#,
        r#"{"type":"memory_update","memory_id":"m","agent_id":"a","operation":"created","user_id":"u"}"#,
        r#"{"type":"stream_chunk","request_id":"r","chunk":"","is_final":false,"index":3}"#,
        r#"{"type":"error","code":"X","message":"","request_id":"r"}"#,
        r#"{"type":"custom","channel":"a/b","data":[1, 2,{"x": "a \" b"}]}"#,
    ] {
        Event::parse(json).expect(json);
    }
}

#[test]
fn free_json_loses_space_but_no_digit() {
    let event = Event::parse("{\"type\":\"custom\",\"channel\":\"c\",\"data\":{ \"n\" :\n 12345678901234567890123, \"s\": \"a \\\\\" }}")
        .expect("valid");
    assert_eq!(event.data.as_deref(), Some(r#"{"n":12345678901234567890123,"s":"a \\"}"#));
}

#[test]
fn what_is_wrong_is_named() {
    let field = |json| refused(json).field;
    assert_eq!(field(r#"{"type":"message","agent_id":"a","user_id":"u"}"#), "content");
    assert_eq!(field(r#"{"type":"message","agent_id":"a","content":"x","colour":1}"#), "colour");
    assert_eq!(field(r#"{"type":"message","agent_id":"a","content":"x","id":"1"}"#), "id");
    assert_eq!(field(r#"{"type":"message","agent_id":"a","agent_id":"b","content":"x"}"#), "agent_id");
    assert_eq!(field(r#"{"type":"message","agent_id":7,"content":"x"}"#), "agent_id");
    assert_eq!(field(r#"{"type":"agent_update","agent_id":"a","status":"dancing"}"#), "status");
    assert_eq!(field(r#"{"type":"stream_chunk","request_id":"r","chunk":"","is_final":"no"}"#), "is_final");
    assert_eq!(
        field(r#"{"type":"stream_chunk","request_id":"r","chunk":"","is_final":true,"index":-1}"#),
        "index"
    );
    assert_eq!(field(r#"{"type":"custom","channel":"a//b","data":1}"#), "channel");
    assert_eq!(field(r#"{"type":"custom","channel":"a","data":"\ud800"}"#), "data");
    assert_eq!(field(r#"{"type":"message","agent_id":"a","content":"\ud800"}"#), "content");
    assert_eq!(field(r#"{"type":"nope"}"#), "type");
    assert_eq!(field(r#"{}"#), "type");
    assert_eq!(field("[]"), "");
    assert_eq!(refused("{").at(3).field, "[3]");
}

fn with_part(part: &str) -> String {
    format!(r#"{{"type":"stream_chunk","request_id":"r","chunk":"","is_final":false,"part":{part}}}"#)
}

/// Chunks are merged only if their parts have equal bytes.
#[test]
fn equal_parts_have_equal_bytes() {
    let named = r#"{"type":"tool_input","id":"ü-1","name":"a b"}"#;
    let quoted = r#"{"type":"text","id":"a\"\\"}"#;
    for (given, kept) in [
        (named, named),
        (r#"{"name":"a b","type":"tool_input","id":"ü-1"}"#, named),
        (r#" { "type" : "tool_input" , "id" : "ü-1" , "name" : "a b" } "#, named),
        (r#"{"type":"tool\u005finput","id":"\u00fc-1","name":"a\u0020b"}"#, named),
        (r#"{"\u0069d":"a\u0022\u005c","type":"text"}"#, quoted),
        (quoted, quoted),
    ] {
        let json = with_part(given);
        let event = Event::parse(&json).expect(given);
        assert_eq!(event.part.as_deref(), Some(kept), "{given}");
        assert_eq!(is_text_part(kept), kept == quoted);
        let raw: &RawValue = serde_json::from_str(given).expect(given);
        assert_eq!(parse_part(raw).expect(given), kept);
    }
    assert!(matches!(
        Event::parse(&with_part(named)).expect("valid").part,
        Some(std::borrow::Cow::Borrowed(_))
    ));
}

#[test]
fn what_is_wrong_with_a_part_is_named() {
    let id = |len: usize| format!(r#"{{"type":"data","id":"{}"}}"#, "x".repeat(len));
    let name = |len: usize| format!(r#"{{"type":"data","id":"i","name":"{}"}}"#, "x".repeat(len));
    for (part, error) in [
        ("7", "part: must be an object"),
        ("null", "part: must be an object"),
        (r#"["text"]"#, "part: must be an object"),
        ("{}", "part.type: is required"),
        (r#"{"id":"i"}"#, "part.type: is required"),
        (r#"{"type":"text"}"#, "part.id: is required"),
        (r#"{"type":"text","id":"i","colour":1}"#, "part.colour: is not a field of part"),
        (r#"{"type":"text","id":"i","id":"i"}"#, "part.id: is given twice"),
        (
            r#"{"type":"image","id":"i"}"#,
            "part.type: must be one of text, reasoning, tool_input, tool_output, source, data",
        ),
        (r#"{"type":"text","id":7}"#, "part.id: must be a string"),
        (r#"{"type":"text","id":"a\nb"}"#, "part.id: must not hold control characters"),
        (r#"{"type":"text","id":"i","name":null}"#, "part.name: must be a string"),
        (&id(0), "part.id: must be 1 to 64 bytes"),
        (&id(65), "part.id: must be 1 to 64 bytes"),
        (&name(257), "part.name: must be 1 to 256 bytes"),
    ] {
        assert_eq!(refused(&with_part(part)).to_string(), error, "{part}");
    }
    Event::parse(&with_part(&id(64))).expect("the longest id");
    Event::parse(&with_part(&name(256))).expect("the longest name");
}

#[test]
fn deep_json_is_an_error_not_a_stack_overflow() {
    let deep =
        format!(r#"{{"type":"custom","channel":"c","data":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(refused(&deep).field, "data");
}

/// Checks that what the quick reader accepts, the careful reader accepts too, with the same result.
fn agree(json: &str) -> bool {
    let Some(quick) = fast_parse::event(json) else { return false };
    let careful = careful_parse::event(json).unwrap_or_else(|error| panic!("{error} in {json}"));
    assert_eq!(format!("{quick:?}"), format!("{careful:?}"), "{json}");
    true
}

#[test]
fn what_publishers_send_is_read_quickly() {
    for json in [
        r#"{"type":"message","agent_id":"a","user_id":"ü","content":"x\ny \u00e9 ü","role":"user","metadata":{"a": 1}}"#,
        r#" {"agent_id":"a","status":"thinking","type":"agent_update", "timestamp":"2026-01-02T03:04:05.678Z"} "#,
        r#"{"type":"memory_update","memory_id":"m","agent_id":"a","operation":"created","user_id":"u"}"#,
        r#"{"type":"stream_chunk","request_id":"r","chunk":"","is_final":false,"index":3,"first_index":0}"#,
        r#"{"type":"stream_chunk","request_id":"r","chunk":"","is_final":false,"part":{"id" : "ü","type":"data"}}"#,
        r#"{"type":"error","code":"X","message":"","request_id":"r"}"#,
        r#"{"type":"custom","channel":"a/b","data":[1, -2.50,{"x": "a \" b", "ü":[]},null,true,false,{}, 1234567890123456789012]}"#,
    ] {
        assert!(agree(json), "{json}");
    }
}

#[test]
fn what_needs_judgement_is_left_to_the_careful_reader_or_refused_by_both() {
    let custom = |data: &str| format!(r#"{{"type":"custom","channel":"c","data":{data}}}"#);
    let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
    for data in [
        r#""\ud800""#,
        r#""\u00e9""#,
        r#"{"\ud800":1}"#,
        r#""\x""#,
        "1e5",
        "1e999",
        "01",
        "-",
        "-01",
        "1.",
        ".5",
        "+1",
        "tru",
        "[1,]",
        "[,1]",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{1:1}"#,
        "\"\u{1}\"",
        "\"\u{7f}\"",
        "nul",
        "[1 2]",
        "[}",
        "{]",
        &"9".repeat(400),
        &format!("0.{}", "9".repeat(400)),
        &deep(63),
        &deep(64),
        &deep(65),
        &deep(128),
        &deep(1_000),
    ] {
        agree(&custom(data));
    }
    for json in [
        r#"{"type":"custom","channel":"a","data":1}x"#,
        r#"{"type":"custom","channel":"a*","data":1}"#,
        r#"{"type":"custom","channel":"a","channel":"a","data":1}"#,
        r#"{"type":"message","agent_id":"","content":""}"#,
        "{\"type\":\"message\",\"agent_id\":\"\u{85}\",\"content\":\"\"}",
        "{\"type\":\"message\",\"agent_id\":\"\u{7f}\",\"content\":\"\"}",
        r#"{"type":"stream_chunk","request_id":"r","chunk":"","is_final":true,"index":00}"#,
        r#"{"type":"stream_chunk","request_id":"r","chunk":"","is_final":true,"index":18446744073709551615}"#,
        r#"{"type":"agent_update","agent_id":"a","status":"idle","user_id":"u"}"#,
        "",
        "{",
        "{}",
        r#"{"type":"custom""#,
    ] {
        agree(json);
    }
}

mod quick_reader {
    use proptest::prelude::*;

    use crate::event::fast_parse::NextItem;

    /// Pieces of JSON in any order: most of it is nearly valid.
    fn soup() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"",
            "\\",
            "\\u",
            "\\n",
            "\\ud83d",
            "\\ude00",
            "\\\"",
            "0",
            "12",
            "-",
            ".",
            "e",
            "E+",
            "true",
            "null",
            " ",
            "\n",
            "\u{1}",
            "\u{7f}",
            "ü",
            "x",
            "\"a\"",
            "\"type\":",
            "\"custom\"",
            "\"data\":",
            "\"channel\":\"c\"",
            "{}",
            "[]",
            "\"metadata\":{}",
            "\"content\":\"\"",
            "\"agent_id\":\"a\"",
            "\"index\":1",
            "\"message\"",
            "\"id\":",
            "\"name\":",
            "\"text\"",
        ]);
        prop::collection::vec(pieces, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn takes_no_more_than_the_careful_one(soup in soup()) {
            super::agree(&soup);
            super::agree(&format!(r#"{{"type":"custom","channel":"c","data":{soup}}}"#));
            super::agree(&format!(r#"{{"type":"message","agent_id":"a",{soup},"content":"b"}}"#));
            super::agree(&format!(r#"{{"type":"message","agent_id":"a","content":"{soup}"}}"#));
            super::agree(&super::with_part(&soup));
            super::agree(&super::with_part(&format!(r#"{{"type":"text",{soup}"id":"a"}}"#)));
        }

        #[test]
        fn arrays_are_their_events(soups in prop::collection::vec(soup(), 0..4)) {
            let body = format!("[{}]", soups.iter().map(|s| format!(r#"{{"type":"custom","channel":"c","data":"{s}"}}"#)).collect::<Vec<_>>().join(","));
            let items: Option<Vec<&serde_json::value::RawValue>> = serde_json::from_str(&body).ok();
            let mut quick = super::fast_parse::Items::new(&body, false);
            let mut before = 0;
            for at in 0.. {
                let mut event = super::Event::empty(super::EventKind::Custom);
                match quick.next(&mut event) {
                    NextItem::Event => {
                        let text = body[before..quick.end()].trim_start_matches(['[', ',']);
                        let careful = super::careful_parse::event(text).unwrap();
                        prop_assert_eq!(format!("{careful:?}"), format!("{event:?}"));
                        before = quick.end();
                    }
                    NextItem::End => {
                        prop_assert_eq!(items.as_ref().map(Vec::len), Some(at));
                        break;
                    }
                    NextItem::Cut | NextItem::Ambiguous => break,
                }
            }
        }
    }
}
