//! The index against the rule it speeds up: who it answers is whom the selection matches, whatever came and went.

use proptest::prelude::*;

use super::*;
use crate::filter::{Filter, Narrowing, Rights};
use crate::frame::tests::frame;

fn selection(query: &str, sub: Option<&str>, sees_all_users: bool, narrowing: &str) -> Selection {
    Selection {
        filter: Filter::from_query(&crate::query::pairs(query).expect(query)).expect(query),
        rights: Rights {
            sub: sub.map(Into::into),
            sees_all_users,
            narrowing: serde_json::from_str::<Narrowing>(narrowing).expect(narrowing),
        },
    }
}

fn plain(query: &str, sub: &str) -> Selection {
    selection(query, Some(sub), false, "{}")
}

fn index() -> Index<u32> {
    Index::new()
}

/// Who gets `frame`, in order; nobody twice.
fn found(index: &mut Index<u32>, frame: &Frame) -> Vec<u32> {
    let mut found = Vec::new();
    index.for_each_match(frame, |members| found.extend_from_slice(members));
    found.sort_unstable();
    assert!(found.windows(2).all(|pair| pair[0] != pair[1]), "reported twice: {found:?}");
    found
}

fn chunk(request: usize, user: &str) -> Frame {
    frame(
        &format!(
            r#"{{"type":"stream_chunk","request_id":"r{request}","chunk":"x","is_final":false,"user_id":"{user}"}}"#
        ),
        1,
    )
}

#[test]
fn a_chunk_of_one_stream_of_ten_thousand_costs_one_comparison() {
    let mut index = index();
    for n in 0..10_000 {
        index.insert(plain(&format!("request_id=r{n}"), &format!("u{}", n % 100)), n).expect("room");
    }
    assert_eq!(found(&mut index, &chunk(1234, "u34")), [1234]);
    assert_eq!(index.compared, 1);
    assert!(found(&mut index, &chunk(1234, "u35")).is_empty(), "another user's chunk");
    assert!(found(&mut index, &chunk(10_000, "u1")).is_empty());
    assert_eq!(index.compared, 1);
}

#[test]
fn an_event_for_one_principal_of_ten_thousand_costs_one_comparison() {
    for query in ["", "agent_id=a", "types=message", "channel=a/*&agent_id=a"] {
        let mut index = index();
        for n in 0..10_000 {
            index.insert(plain(query, &format!("u{n}")), n).expect("room");
        }
        let event = frame(r#"{"type":"message","agent_id":"a","user_id":"u77","content":"x"}"#, 1);
        let expected: &[u32] = if query.contains("channel") { &[] } else { &[77] };
        assert_eq!(found(&mut index, &event), expected, "{query}");
        assert_eq!(index.compared, 1, "{query}");
    }
}

#[test]
fn equal_selections_are_compared_once() {
    let mut index = index();
    for n in 0..1_000 {
        index.insert(selection("agent_id=a,b", None, false, "{}"), n).expect("room");
        let sub = format!("admin{n}");
        index.insert(selection("", Some(&sub), true, "{}"), 1_000 + n).expect("room");
    }
    let event = frame(r#"{"type":"message","agent_id":"b","content":"x"}"#, 1);
    assert_eq!(found(&mut index, &event).len(), 2_000);
    assert_eq!((index.audiences(), index.compared), (2, 2));
}

#[test]
fn a_channel_asked_for_twice_is_reported_once() {
    let mut index = index();
    index.insert(plain("channel=a/*,a/b/*,a/b/c,a/b", "u"), 1).expect("room");
    let event = |channel: &str| frame(&format!(r#"{{"type":"custom","channel":"{channel}","data":1}}"#), 1);
    for (channel, hits) in [("a/b/c", 1), ("a/b", 1), ("a", 0), ("a/x/y/z", 1), ("ab/c", 0)] {
        assert_eq!(found(&mut index, &event(channel)).len(), hits, "{channel}");
    }
}

#[test]
fn an_emptied_index_owns_nothing() {
    let mut index = index();
    let rows: Vec<_> = (0..1_000)
        .map(|n| index.insert(plain("channel=a/*,b&agent_id=x", &format!("u{n}")), n).expect("room"))
        .collect();
    for row in rows {
        index.remove(row).expect("there");
    }
    assert!(index.is_empty() && !index.leads.iter().any(|entries| entries.any()));
    assert_eq!(
        (index.audiences.capacity(), index.candidates.capacity(), index.by_selection.capacity()),
        (0, 0, 0)
    );
}

#[test]
fn a_row_is_eight_bytes() {
    assert_eq!(size_of::<Option<RowId>>(), 8);
    assert_eq!(size_of::<Audience<u32>>(), 88, "one per different selection");
}

fn selections() -> impl Strategy<Value = Selection> {
    let one = |name: &'static str, values: &'static [&'static str]| {
        prop::collection::vec(prop::sample::select(values), 0..3)
            .prop_map(move |picked| (name, picked.join(",")))
    };
    let query = (
        one("types", &["custom", "message", "stream_chunk"]),
        one("agent_id", &["a", "b"]),
        one("user_id", &["u", "v"]),
        one("request_id", &["r", "s"]),
        one("channel", &["c", "c/d", "c/*", "c/d/*", "x"]),
    );
    let keep = prop::collection::vec(prop::bool::weighted(0.3), 5);
    let sub = prop::option::of(prop::sample::select(vec!["u", "v", "w"]));
    let narrowing = prop::sample::select(vec![
        "{}",
        "{}",
        "{}",
        r#"{"agents":["a"]}"#,
        r#"{"agents":[]}"#,
        r#"{"channels":["c/*","x"]}"#,
        r#"{"channels":[]}"#,
        r#"{"types":["custom"],"channels":["c"]}"#,
    ]);
    (query, keep, sub, prop::bool::weighted(0.3), narrowing).prop_map(
        |(fields, keep, sub, all, narrowing)| {
            let fields: [(&str, String); 5] = fields.into();
            let query: Vec<String> = std::iter::zip(fields, keep)
                .filter(|(_, keep)| *keep)
                .map(|((name, values), _)| format!("{name}={values}"))
                .collect();
            selection(&query.join("&"), sub, all, narrowing)
        },
    )
}

fn frames() -> impl Strategy<Value = Frame> {
    let id = |name: &'static str, values: &'static [&'static str]| {
        prop::option::of(prop::sample::select(values))
            .prop_map(move |value| value.map_or(String::new(), |value| format!(r#","{name}":"{value}""#)))
    };
    let head = prop::sample::select(vec![
        r#""type":"custom","data":1,"channel":"c""#,
        r#""type":"custom","data":1,"channel":"c/d""#,
        r#""type":"custom","data":1,"channel":"c/d/e""#,
        r#""type":"custom","data":1,"channel":"x""#,
        r#""type":"stream_chunk","chunk":"","is_final":true,"request_id":"r""#,
        r#""type":"stream_chunk","chunk":"","is_final":true,"request_id":"s""#,
        r#""type":"error","code":"X","message":"""#,
    ]);
    (head, id("agent_id", &["a", "b"]), id("user_id", &["u", "v", "w"]))
        .prop_map(|(head, agent, user)| frame(&format!("{{{head}{agent}{user}}}"), 1))
}

#[derive(Debug, Clone)]
enum Step {
    Insert(Selection),
    Remove(prop::sample::Index),
    Publish(Frame),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            4 => selections().prop_map(Step::Insert),
            2 => any::<prop::sample::Index>().prop_map(Step::Remove),
            3 => frames().prop_map(Step::Publish),
        ],
        1..120,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The model: a list of (selection, id), scanned.
    #[test]
    fn it_finds_what_a_scan_finds(steps in steps()) {
        let mut index = index();
        let mut model: Vec<(Selection, u32, RowId)> = Vec::new();
        for (id, step) in (0u32..).zip(steps) {
            match step {
                Step::Insert(selection) => {
                    let row = index.insert(selection.clone(), id).expect("room");
                    model.push((selection, id, row));
                }
                Step::Remove(pick) if !model.is_empty() => {
                    let (_, gone, row) = model.swap_remove(pick.index(model.len()));
                    let removed = index.remove(row).expect("there");
                    prop_assert_eq!(removed.id, gone);
                    for (_, id, their_row) in &mut model {
                        if removed.moved == Some(*id) {
                            *their_row = row;
                        }
                    }
                }
                Step::Remove(_) => {}
                Step::Publish(frame) => {
                    let mut expected: Vec<u32> =
                        model.iter().filter(|(s, ..)| s.matches(&frame)).map(|(_, id, _)| *id).collect();
                    expected.sort_unstable();
                    prop_assert_eq!(found(&mut index, &frame), expected);
                }
            }
            prop_assert_eq!(index.len(), model.len());
        }
        for (_, id, row) in &model {
            let audience = &index.audiences[row.audience() as usize];
            prop_assert_eq!(audience.members.as_slice()[row.place() as usize], *id);
        }
    }
}
