//! Tests that a body is parsed the same way wherever it is cut, and the same way as when it is complete.

#![allow(clippy::unwrap_used, clippy::expect_used)] // tests may

use proptest::prelude::*;

use super::*;

const EVENT: &str = r#"{"type":"custom","channel":"c","data":1}"#;
const SPACED: &str = "{ \"type\": \"message\",\n \"agent_id\" : \"ä\", \"content\": \"a\\nb \\u00e9 € 😀\", \"metadata\": {\"n\": [1.5, true]} }";

/// The result of parsing: each event, or the error.
type Outcome = Result<Vec<String>, EventError>;

/// Parses a body in these parts. Either the last part is marked as the last one, or an empty one follows.
fn read(format: BodyFormat, parts: &[&[u8]], end_is_known: bool) -> Outcome {
    let mut reader = BodyReader::new(format);
    let mut events = Vec::new();
    let mut each = |event: Event<'_>| events.push(format!("{event:?}"));
    for (at, part) in parts.iter().enumerate() {
        reader.read(part, end_is_known && at + 1 == parts.len(), &mut each);
    }
    if !end_is_known || parts.is_empty() {
        reader.read(b"", true, &mut each);
    }
    let count = reader.finish()?;
    assert_eq!(count, events.len());
    Ok(events)
}

/// The reference: parses the complete body with serde_json.
fn model(format: BodyFormat, body: &[u8]) -> Outcome {
    let text = std::str::from_utf8(body).map_err(|_| EventError::new("", "is not UTF-8"))?;
    let shown = |event: Event<'_>| format!("{event:?}");
    let one = |(at, item): (usize, &str)| Event::parse(item).map(shown).map_err(|error| error.at(at));
    if format == BodyFormat::Lines {
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim_ascii().is_empty()).collect();
        let most = lines.len().min(BATCH_EVENTS);
        let events: Vec<String> =
            lines[..most].iter().copied().enumerate().map(one).collect::<Result<_, _>>()?;
        return bounded(lines.len()).map(|()| events);
    }
    if !text.trim_ascii_start().starts_with('[') {
        return Ok(vec![shown(Event::parse(text)?)]);
    }
    let items: Vec<&RawValue> = serde_json::from_str(text)
        .map_err(|error| EventError::new("", format!("is not a JSON array of events: {error}")))?;
    bounded(items.len())?;
    items.iter().map(|item| item.get()).enumerate().map(one).collect()
}

/// Parses a body as a whole, in two parts cut at each position, and byte by byte. Each result must equal that
/// of the model.
fn read_every_way(format: BodyFormat, body: &[u8]) -> Outcome {
    let expected = model(format, body);
    for end_is_known in [false, true] {
        let text = String::from_utf8_lossy(body);
        assert_eq!(read(format, &[body], end_is_known), expected, "{text}");
        for at in 0..=body.len() {
            let (first, second) = body.split_at(at);
            assert_eq!(read(format, &[first, second], end_is_known), expected, "{text} cut at {at}");
        }
        let bytes: Vec<&[u8]> = body.chunks(1).collect();
        assert_eq!(read(format, &bytes, end_is_known), expected, "{text}, byte by byte");
    }
    expected
}

#[test]
fn one_several_and_lines_are_read_wherever_they_are_cut() {
    for (format, body, count) in [
        (BodyFormat::Json, EVENT.to_owned(), 1),
        (BodyFormat::Json, format!(" \n{SPACED}\n "), 1),
        (BodyFormat::Json, format!("[{EVENT}]"), 1),
        (BodyFormat::Json, format!(" [ {EVENT} ,\n{SPACED},{EVENT} ]\n "), 3),
        (BodyFormat::Lines, EVENT.to_owned(), 1),
        (BodyFormat::Lines, format!("\n{EVENT}\r\n  \r\n{EVENT}\n\n{EVENT}"), 3),
        (BodyFormat::Lines, format!("{EVENT}\n{EVENT}\r\n\r"), 2),
    ] {
        assert_eq!(read_every_way(format, body.as_bytes()).expect("valid").len(), count, "{body}");
    }
}

#[test]
fn what_is_wrong_is_worded_alike_wherever_it_is_cut() {
    let bad = r#"{"type":"custom","channel":"c"}"#;
    let escaped = r#"{"type":"custom","channel":"\u0063","data":1}"#;
    for body in [
        format!("[{EVENT},{bad}]"),
        format!("[{EVENT},{escaped},{bad},{EVENT}]"),
        format!("[{EVENT},\n {EVENT},\n  {EVENT} {EVENT}]"),
        format!("[{EVENT},\n{EVENT},\n]"),
        format!("[{EVENT},\n{escaped},7]"),
        format!("[{bad},\n{EVENT},\n\"tru]"),
        format!("[{EVENT},\n{EVENT}]\n]"),
        format!("[{EVENT}"),
        format!("[{EVENT},"),
        format!("[\n{EVENT}\n,{EVENT}\n\n, tru"),
        "[".to_owned(),
        "[]".to_owned(),
        "[,]".to_owned(),
        "\u{c}[1]".to_owned(),
        String::new(),
        "  ".to_owned(),
        bad.to_owned(),
        format!("{EVENT}{EVENT}"),
    ] {
        read_every_way(BodyFormat::Json, body.as_bytes()).expect_err(&body);
    }
    for body in [format!("{EVENT}\n{bad}\n{EVENT}"), format!("{EVENT}\n["), "\n \n".to_owned(), String::new()]
    {
        read_every_way(BodyFormat::Lines, body.as_bytes()).expect_err(&body);
    }
}

#[test]
fn what_is_no_text_is_refused_as_that_whatever_else_is_wrong() {
    for format in [BodyFormat::Json, BodyFormat::Lines] {
        for body in [
            [EVENT.as_bytes(), b"\n\xff"].concat(),
            [b"[7, \xc3".as_slice(), EVENT.as_bytes(), b"]"].concat(),
            [b"[".as_slice(), EVENT.as_bytes(), b",", EVENT.as_bytes(), b"]\xf0\x9f\x98"].concat(),
            [b"no\n".as_slice(), EVENT.as_bytes(), b"\xe2\x82"].concat(),
        ] {
            let error = read_every_way(format, &body).expect_err("no text");
            assert_eq!(error, EventError::new("", "is not UTF-8"));
        }
    }
}

#[test]
fn the_item_at_fault_is_named() {
    let bad = r#"{"type":"custom","channel":"c"}"#;
    let field = |format, body: String| read(format, &[body.as_bytes()], true).expect_err("bad").field;
    assert_eq!(field(BodyFormat::Json, format!("[{EVENT},{bad}]")), "[1].data");
    assert_eq!(field(BodyFormat::Lines, format!("{EVENT}\n{bad}")), "[1].data");
    assert_eq!(field(BodyFormat::Json, bad.to_owned()), "data");
}

#[test]
fn a_thousand_are_taken_and_one_more_is_refused() {
    let array = |events: &[&str]| format!("[{}]", events.join(","));
    let thousand = vec![EVENT; BATCH_EVENTS];
    let more = vec![EVENT; BATCH_EVENTS + 1];
    let bad = [&thousand[..], &["7", "8"]].concat();
    let broken = [&more[..], &["tru"]].concat();
    for (format, whole, over) in [
        (BodyFormat::Json, array(&thousand), vec![array(&more), array(&bad), array(&broken)]),
        (BodyFormat::Lines, thousand.join("\n"), vec![more.join("\n"), bad.join("\n"), broken.join("\n")]),
    ] {
        for size in [1, 1_000, 16_384, usize::MAX] {
            let parts = |body: &str| {
                let parts: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
                read(format, &parts, true)
            };
            assert_eq!(parts(&whole).expect("a thousand").len(), BATCH_EVENTS);
            for body in &over {
                assert_eq!(parts(body), model(format, body.as_bytes()));
                assert!(parts(body).is_err());
            }
        }
    }
}

/// An event that arrives in small parts is not parsed from its start for each of them.
#[test]
fn what_is_kept_is_read_again_only_when_it_has_doubled() {
    let long = format!(r#"[{{"type":"custom","channel":"c","data":"{}"}}]"#, "x".repeat(10_000));
    let mut reader = BodyReader::new(BodyFormat::Json);
    let (mut tries, mut before) = (0, reader.retry_at);
    for byte in long.as_bytes().chunks(1) {
        reader.read(byte, false, &mut |_| {});
        tries += u32::from(reader.retry_at != before);
        before = reader.retry_at;
    }
    assert!(tries < 20, "{tries}");
    reader.read(b"", true, &mut |_| {});
    assert_eq!(reader.finish(), Ok(1));
}

/// Parts of bodies in any order, so that most of the result is nearly valid.
fn soup() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        EVENT.as_bytes(),
        SPACED.as_bytes(),
        br#"{"type":"custom","channel":"c"}"#,
        br#"{"type":"custom","channel":"\u0063","data":"\ud800"}"#,
        b"[",
        b"]",
        b",",
        b"\n",
        b"\r\n",
        b" ",
        b"{",
        b"}",
        b"\"",
        b"1",
        b"tru",
        b"\xc3\xa9",
        b"\xc3",
        b"\xff",
    ]);
    prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat())
}

/// A nearly valid array.
fn array() -> impl Strategy<Value = Vec<u8>> {
    let events = prop::collection::vec(
        prop_oneof![8 => Just(EVENT.as_bytes().to_vec()), 4 => Just(SPACED.as_bytes().to_vec()), 1 => soup()],
        0..6,
    );
    (
        events,
        prop::sample::select(vec![",", ",\n", " , "]),
        prop::sample::select(vec!["]", "]\n", ",]", "]]", ""]),
    )
        .prop_map(|(events, between, end)| {
            [b"[", events.join(between.as_bytes()).as_slice(), end.as_bytes()].concat()
        })
}

proptest! {
    #[test]
    fn any_body_in_any_parts_is_read_as_the_model_reads_it(
        body in prop_oneof![soup(), array()],
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        end_is_known: bool,
    ) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
        cuts.sort_unstable();
        let mut parts = Vec::new();
        let mut from = 0;
        for cut in cuts {
            parts.push(&body[from..cut]);
            from = cut;
        }
        parts.push(&body[from..]);
        for format in [BodyFormat::Json, BodyFormat::Lines] {
            prop_assert_eq!(read(format, &parts, end_is_known), model(format, &body));
        }
    }
}
