//! Producing LLM streams over a WebSocket: frames that are sent without waiting, their order, their acks, the
//! ends of streams, and `cancel` in both directions.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::collections::HashSet;

use common::rest::data;
use common::ws::Ws;
use common::{Daemon, custom, until};
use serde_json::{Value, json};

const KIB: usize = 1024;
const PUBLISH_ONLY: &str = "/api/v1/ws?subscribe=none";

/// An open stream, with the token of its producer.
struct Opened {
    id: String,
    token: String,
}

impl Opened {
    /// Opens a stream for everyone in the organization of the bootstrap key.
    async fn new(daemon: &Daemon, id: &str) -> Opened {
        Opened::of(daemon, &daemon.key, json!({"request_id": id})).await
    }

    /// Opens a stream, or takes it over.
    async fn of(daemon: &Daemon, key: &str, body: Value) -> Opened {
        let status = if body["takeover"] == true { 200 } else { 201 };
        let reply = daemon.post("/api/v1/streams").key(key).json(&body).send().await;
        let opened = data(&reply, status);
        let text = |name: &str| opened[name].as_str().unwrap().to_owned();
        Opened { id: text("request_id"), token: text("producer_token") }
    }

    /// A frame of the producer with further fields.
    fn frame(&self, kind: &str, reference: usize, more: Value) -> Value {
        let mut frame =
            json!({"type": kind, "request_id": self.id, "producer_token": self.token, "ref": reference});
        frame.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        frame
    }

    fn append(&self, reference: usize, text: &str) -> Value {
        self.frame("append", reference, json!({"chunk": text}))
    }

    fn finish(&self, reference: usize) -> Value {
        self.frame("finish", reference, json!({}))
    }

    /// The stream as the bootstrap key sees it.
    async fn get(&self, daemon: &Daemon) -> Value {
        self.get_with(daemon, "").await
    }

    async fn get_with(&self, daemon: &Daemon, query: &str) -> Value {
        data(&daemon.get(&format!("/api/v1/streams/{}{query}", self.id)).send().await, 200)
    }

    /// Cancels the stream over HTTP.
    async fn cancel(&self, daemon: &Daemon) {
        let path = format!("/api/v1/streams/{}/cancel", self.id);
        data(&daemon.post(&path).json(&json!({})).send().await, 200);
    }
}

fn cancel(id: &str, reference: usize) -> Value {
    json!({"type": "cancel", "request_id": id, "ref": reference})
}

/// The id of the one event that an ack is for.
#[track_caller]
fn only_id(ack: &Value) -> String {
    let ids = ack["ids"].as_array().unwrap();
    assert_eq!(ids.len(), 1, "{ack}");
    ids[0].as_str().unwrap().to_owned()
}

/// The code of an `error` with this `ref`.
#[track_caller]
fn code(error: &Value, reference: usize) -> &str {
    assert_eq!((&error["type"], &error["ref"]), (&json!("error"), &json!(reference)), "{error}");
    error["code"].as_str().unwrap()
}

/// Checks that nothing is on its way to the socket: a ping that follows is answered next.
async fn expect_silence(ws: &mut Ws) {
    let pong = ws.ask(&json!({"type": "ping"})).await;
    assert_eq!(pong["type"], "pong", "{pong}");
}

/// Every event of the organization, oldest first.
async fn log(daemon: &Daemon) -> Vec<Value> {
    let reply = daemon.get("/api/v1/events?earliest=true&limit=1000").send().await;
    data(&reply, 200).as_array().unwrap().clone()
}

#[tokio::test]
async fn appends_sent_without_waiting_are_acknowledged_in_order_and_their_text_is_exact() {
    let daemon = Daemon::start().await;
    let stream = Opened::new(&daemon, "r").await;
    let mut ws = daemon.live_ws(PUBLISH_ONLY).await;
    // More than may be in progress at once.
    let texts: Vec<String> = (0..1_500).map(|at| format!("{at} \u{e4}\u{1f600}\"\n")).collect();
    let mut ids = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        ws.send(&stream.append(at, text)).await;
    }
    for at in 0..texts.len() {
        let ack = ws.expect("ack").await;
        assert_eq!((&ack["ref"], &ack["next_index"]), (&json!(at), &json!(at + 1)), "{ack}");
        ids.push(only_id(&ack));
    }
    let shown = stream.get(&daemon).await;
    assert_eq!((&shown["text"], &shown["next_index"]), (&json!(texts.concat()), &json!(texts.len())));
    assert_eq!(shown["state"], "open");

    // The ids are those of the events: after each comes the next one.
    for at in [1, 700, texts.len() - 1] {
        let path = format!("/api/v1/events?request_id=r&limit=1&after={}", ids[at - 1]);
        let next = data(&daemon.get(&path).send().await, 200);
        assert_eq!(next[0]["index"].as_u64().or(next[0]["first_index"].as_u64()), Some(at as u64), "{next}");
    }
    let last = format!("/api/v1/events?request_id=r&after={}", ids[texts.len() - 2]);
    let last = data(&daemon.get(&last).send().await, 200);
    assert_eq!((&last[0]["id"], &last[0]["chunk"]), (&json!(ids.last()), &json!(texts.last())));
}

/// An append that would make the tail too long waits for the checkpoint that is being committed. It is not
/// refused, and the appends behind it do not overtake it.
#[tokio::test]
async fn large_appends_wait_for_the_disk_and_keep_their_order() {
    let daemon = Daemon::start().await;
    let stream = Opened::new(&daemon, "r").await;
    let mut ws = daemon.live_ws(PUBLISH_ONLY).await;
    let mut text = String::new();
    for at in 0..20 {
        let letter = char::from(b'a' + at as u8).to_string();
        let chunks = match at % 2 {
            0 => vec![letter.repeat(60 * KIB); 5],
            _ => vec![letter],
        };
        text.extend(chunks.iter().map(String::as_str));
        ws.send(&stream.frame("append", at, json!({"chunks": chunks}))).await;
    }
    for at in 0..20 {
        let ack = ws.expect("ack").await;
        assert_eq!(
            (&ack["ref"], &ack["ids"].as_array().unwrap().len()),
            (&json!(at), &[5, 1][at % 2]),
            "{ack}"
        );
    }
    assert_eq!(ws.ask(&stream.finish(99)).await["next_index"], 60);
    let shown = stream.get(&daemon).await;
    assert_eq!((&shown["state"], &shown["text_bytes"]), (&json!("completed"), &json!(text.len())));
    assert!(shown["text"] == text, "the text is not what was sent");
}

#[tokio::test]
async fn several_chunks_in_one_frame_have_parts_of_their_own_or_that_of_the_frame() {
    let daemon = Daemon::start().await;
    let stream = Opened::new(&daemon, "r").await;
    let mut ws = daemon.live_ws(PUBLISH_ONLY).await;
    let part = |kind: &str, id: &str| json!({"type": kind, "id": id});
    let strings = stream.frame("append", 1, json!({"chunks": ["a", "", "b"]}));
    let ack = ws.ask(&strings).await;
    assert_eq!((&ack["next_index"], ack["ids"].as_array().unwrap().len()), (&json!(3), 3), "{ack}");
    let mixed = stream.frame(
        "append",
        2,
        json!({
            "part": part("reasoning", "1"),
            "chunks": ["think", {"chunk": "ing"}, {"chunk": "{}", "part": part("tool_input", "2")}],
        }),
    );
    assert_eq!(ws.ask(&mixed).await["next_index"], 6);
    let text = part("text", "3");
    let one = stream.frame("append", 3, json!({"chunk": "c", "part": text, "is_final": true}));
    assert_eq!(ws.ask(&one).await["next_index"], 7);

    let shown = stream.get_with(&daemon, "?parts=all").await;
    assert_eq!((&shown["text"], &shown["state"]), (&json!("abc"), &json!("completed")));
    let expected = json!([
        {"part": null, "text": "ab"},
        {"part": part("reasoning", "1"), "text": "thinking"},
        {"part": part("tool_input", "2"), "text": "{}"},
        {"part": text, "text": "c"},
    ]);
    assert_eq!(shown["parts"], expected);
}

#[tokio::test]
async fn nothing_overtakes_an_end() {
    let daemon = Daemon::start().await;
    let mut ws = daemon.live_ws(PUBLISH_ONLY).await;
    let cases = [
        ("final", json!({"type": "append", "chunk": "last", "is_final": true}), 2),
        ("finish", json!({"type": "finish"}), 1),
        ("fail", json!({"type": "fail", "code": "X", "message": "y"}), 1),
    ];
    for (id, end, chunks) in cases {
        let (stream, other) =
            (Opened::new(&daemon, id).await, Opened::new(&daemon, &format!("{id}-b")).await);
        let kind = end["type"].as_str().unwrap();
        ws.send(&stream.append(1, "first ")).await;
        ws.send(&stream.frame(kind, 2, end.clone())).await;
        ws.send(&stream.append(3, "too late")).await;
        ws.send(&other.append(4, "of another stream")).await;
        ws.send(&json!({"type": "publish", "ref": 5, "event": custom("c", json!(id))})).await;
        let mut answers = Vec::new();
        for _ in 0..5 {
            answers.push(ws.next_json().await);
        }
        let answer = |reference: usize| answers.iter().find(|answer| answer["ref"] == reference).unwrap();
        assert_eq!(answer(1)["next_index"], 1, "{answers:?}");
        assert_eq!((&answer(2)["type"], &answer(2)["next_index"]), (&json!("ack"), &json!(chunks)), "{id}");
        assert_eq!(code(answer(3), 3), "STREAM_ENDED", "{id}");
        let text = if chunks == 2 { "first last" } else { "first " };
        let shown = stream.get(&daemon).await;
        assert_eq!((&shown["text"], &shown["next_index"]), (&json!(text), &json!(chunks)), "{id}");

        // In the log the end precedes what was sent after it, also to others.
        let log = log(&daemon).await;
        let place = |is: &dyn Fn(&Value) -> bool| log.iter().position(is).unwrap();
        let end = place(&|event| event["request_id"] == id && event["is_final"] == true);
        let append = place(&|event| event["request_id"] == other.id.as_str());
        let publish = place(&|event| event["data"] == id);
        assert!(end < append && append < publish, "{id}: {end} {append} {publish}");
    }
}

#[tokio::test]
async fn a_retry_by_index_is_ignored_and_a_gap_is_refused() {
    let daemon = Daemon::start().await;
    let stream = Opened::new(&daemon, "r").await;
    let mut ws = daemon.live_ws(PUBLISH_ONLY).await;
    let at = |reference: usize, index: u64, chunks: Value| {
        stream.frame("append", reference, json!({"index": index, "chunks": chunks}))
    };
    let ack = ws.ask(&at(1, 0, json!(["a", "b"]))).await;
    assert_eq!((&ack["next_index"], ack["ids"].as_array().unwrap().len()), (&json!(2), 2), "{ack}");
    let ack = ws.ask(&at(2, 0, json!(["a", "b"]))).await;
    assert_eq!(
        (&ack["type"], &ack["ids"], &ack["next_index"]),
        (&json!("ack"), &json!([]), &json!(2)),
        "{ack}"
    );
    let ack = ws.ask(&at(3, 1, json!(["b", "c"]))).await;
    assert_eq!((ack["next_index"].as_u64(), only_id(&ack).is_empty()), (Some(3), false), "{ack}");
    let gap = ws.ask(&at(4, 4, json!(["e"]))).await;
    assert_eq!((code(&gap, 4), &gap["details"]["expected_index"]), ("CONFLICT", &json!(3)));
    // A retry that waits, and what follows it.
    ws.send(&at(5, 2, json!(["c"]))).await;
    ws.send(&at(6, 3, json!(["d"]))).await;
    for (reference, next) in [(5, 3), (6, 4)] {
        let ack = ws.expect("ack").await;
        assert_eq!((&ack["ref"], &ack["next_index"]), (&json!(reference), &json!(next)), "{ack}");
    }
    assert_eq!(stream.get(&daemon).await["text"], "abcd");
}

#[tokio::test]
async fn acknowledged_chunks_survive_a_crash_and_retries_by_index_add_the_rest() {
    let mut daemon = Daemon::start().await;
    let stream = Opened::new(&daemon, "r").await;
    let texts: Vec<String> = (0..400).map(|at| format!("{at};")).collect();
    let at = |index: usize| stream.frame("append", index, json!({"index": index, "chunk": texts[index]}));
    let mut ws = daemon.live_ws(PUBLISH_ONLY).await;
    for index in 0..texts.len() {
        ws.send(&at(index)).await;
    }
    let mut acknowledged = 0;
    while acknowledged < 50 {
        acknowledged = ws.expect("ack").await["next_index"].as_u64().unwrap() as usize;
    }
    daemon.restart().await;
    let kept = stream.get(&daemon).await;
    let next = kept["next_index"].as_u64().unwrap() as usize;
    assert!(next >= acknowledged, "{next} of {acknowledged} acknowledged chunks");
    assert_eq!(kept["text"], texts[..next].concat());

    let mut ws = daemon.live_ws(PUBLISH_ONLY).await;
    for index in acknowledged..texts.len() {
        ws.send(&at(index)).await;
    }
    for index in acknowledged..texts.len() {
        let ack = ws.expect("ack").await;
        assert_eq!((&ack["ref"], ack["ids"] == json!([])), (&json!(index), index < next), "{ack}");
    }
    assert_eq!(ws.ask(&stream.finish(1)).await["next_index"], texts.len());
    assert_eq!(stream.get(&daemon).await["text"], texts.concat());
}

#[tokio::test]
async fn a_producer_that_was_replaced_is_fenced_in_every_frame() {
    let daemon = Daemon::start().await;
    let old = Opened::new(&daemon, "r").await;
    let mut old_ws = daemon.live_ws(PUBLISH_ONLY).await;
    old_ws.ask(&old.append(1, "old ")).await;
    let new = Opened::of(&daemon, &daemon.key, json!({"request_id": "r", "takeover": true})).await;
    let mut new_ws = daemon.live_ws(PUBLISH_ONLY).await;
    assert_eq!(new_ws.ask(&new.append(1, "new")).await["next_index"], 2);

    let fail = old.frame("fail", 5, json!({"code": "X", "message": "y"}));
    let last = old.frame("append", 6, json!({"chunk": "x", "is_final": true}));
    for (reference, frame) in [(3, old.append(3, "x")), (4, old.finish(4)), (5, fail), (6, last)] {
        let refused = old_ws.ask(&frame).await;
        assert_eq!(code(&refused, reference), "STREAM_FENCED", "{frame}");
        assert!(refused.get("details").is_none(), "{refused}");
    }
    for (reference, token) in [(7, ""), (8, "nws_2_x"), (9, "x")] {
        let wrong = Opened { id: "r".into(), token: token.into() };
        assert_eq!(code(&old_ws.ask(&wrong.append(reference, "x")).await, reference), "UNAUTHORIZED");
    }
    let unknown = Opened { id: "unknown".into(), token: new.token.clone() };
    assert_eq!(code(&old_ws.ask(&unknown.append(10, "x")).await, 10), "NOT_FOUND");
    assert_eq!(code(&old_ws.ask(&unknown.finish(11)).await, 11), "NOT_FOUND");
    let shown = new.get(&daemon).await;
    assert_eq!((&shown["text"], &shown["state"]), (&json!("old new"), &json!("open")));
}

#[tokio::test]
async fn cancelling_reaches_the_socket_that_appended_last() {
    let daemon = Daemon::start().await;
    let before = Opened::new(&daemon, "r").await;
    let mut replaced = daemon.live_ws(PUBLISH_ONLY).await;
    replaced.ask(&before.append(1, "a")).await;
    let stream = Opened::of(&daemon, &daemon.key, json!({"request_id": "r", "takeover": true})).await;
    let other = Opened::new(&daemon, "other").await;
    let mut ws = daemon.live_ws(PUBLISH_ONLY).await;
    ws.ask(&stream.append(1, "b")).await;
    ws.ask(&other.append(2, "c")).await;

    stream.cancel(&daemon).await;
    assert_eq!(ws.next_json().await, json!({"type": "cancel", "request_id": "r"}));
    for (reference, frame) in [(3, stream.append(3, "x")), (4, stream.finish(4))] {
        assert_eq!(code(&ws.ask(&frame).await, reference), "STREAM_CANCELLED");
    }
    // Its other stream goes on, and a second `cancel` changes nothing.
    assert_eq!(ws.ask(&other.append(5, "d")).await["next_index"], 2);
    stream.cancel(&daemon).await;
    expect_silence(&mut ws).await;
    expect_silence(&mut replaced).await;
    let shown = stream.get(&daemon).await;
    assert_eq!((&shown["state"], &shown["text"]), (&json!("cancelled"), &json!("ab")));
}

#[tokio::test]
async fn a_stream_that_ends_otherwise_sends_no_cancel() {
    let daemon = Daemon::start().await;
    let stream = Opened::new(&daemon, "r").await;
    let mut ws = daemon.live_ws(PUBLISH_ONLY).await;
    ws.ask(&stream.append(1, "a")).await;
    let call = daemon.post("/api/v1/streams/r/finish").header("x-producer-token", stream.token.as_str());
    data(&call.json(&json!({})).send().await, 200);
    stream.cancel(&daemon).await; // it has ended
    expect_silence(&mut ws).await;
    assert_eq!(code(&ws.ask(&stream.append(2, "x")).await, 2), "STREAM_ENDED");
}

#[tokio::test]
async fn a_stream_is_cancelled_by_frame_by_who_may_and_nobody_else() {
    let daemon = Daemon::start().await;
    let (ann, bob) = (daemon.user_token("ann").await, daemon.user_token("bob").await);
    let of_ann = Opened::of(&daemon, &daemon.key, json!({"request_id": "ann", "user_id": "ann"})).await;
    let of_all = Opened::new(&daemon, "all").await;
    let mut producer = daemon.live_ws(PUBLISH_ONLY).await;
    producer.ask(&of_ann.append(1, "a")).await;
    let mut bobs = daemon.ws(PUBLISH_ONLY).key(&bob).open().await;
    bobs.expect("ready").await;
    let mut anns = daemon.ws(PUBLISH_ONLY).key(&ann).open().await;
    anns.expect("ready").await;

    assert_eq!(code(&bobs.ask(&cancel("ann", 1)).await, 1), "NOT_FOUND");
    assert_eq!(code(&bobs.ask(&cancel("unknown", 2)).await, 2), "NOT_FOUND");
    assert_eq!(code(&bobs.ask(&cancel("all", 3)).await, 3), "FORBIDDEN");
    assert_eq!(of_ann.get(&daemon).await["state"], "open");

    let mut reader = daemon.live_sse("/api/v1/sse?request_id=ann").await;
    let mut frame = cancel("ann", 4);
    frame["reason"] = json!("that is enough");
    let acknowledged = json!({"type": "ack", "ref": 4, "ids": []});
    assert_eq!(anns.ask(&frame).await, acknowledged);
    assert_eq!(producer.next_json().await, json!({"type": "cancel", "request_id": "ann"}));
    let error = reader.next_event().await;
    let expected = ["error", "CANCELLED", "that is enough", "ann"];
    assert_eq!(["type", "code", "message", "request_id"].map(|name| error[name].as_str().unwrap()), expected);
    let last = reader.next_event().await;
    assert_eq!((&last["is_final"], &last["index"], &last["chunk"]), (&json!(true), &json!(1), &json!("")));
    // Once more, and of a stream that was completed: both are done, and change nothing.
    assert_eq!(anns.ask(&frame).await, acknowledged);
    assert_eq!(of_ann.get(&daemon).await["error"]["message"], "that is enough");
    producer.ask(&of_all.finish(2)).await;
    assert_eq!(producer.ask(&cancel("all", 3)).await, json!({"type": "ack", "ref": 3, "ids": []}));
    assert_eq!(of_all.get(&daemon).await["state"], "completed");
}

#[tokio::test]
async fn a_producer_that_cancels_its_own_stream_gets_both_frames() {
    let daemon = Daemon::start().await;
    let stream = Opened::new(&daemon, "r").await;
    let mut ws = daemon.live_ws(PUBLISH_ONLY).await;
    ws.send(&stream.append(1, "a")).await;
    ws.send(&cancel("r", 2)).await;
    ws.send(&stream.append(3, "too late")).await;
    let mut frames = Vec::new();
    for _ in 0..4 {
        frames.push(ws.next_json().await);
    }
    for (kind, reference) in
        [("ack", json!(1)), ("ack", json!(2)), ("cancel", Value::Null), ("error", json!(3))]
    {
        let found = frames.iter().any(|frame| frame["type"] == kind && frame["ref"] == reference);
        assert!(found, "{kind} {reference}: {frames:?}");
    }
    assert_eq!(stream.get(&daemon).await["text"], "a");
}

#[tokio::test]
async fn finish_and_fail_say_how_the_stream_ended_and_may_be_repeated() {
    let daemon = Daemon::start().await;
    let mut ws = daemon.live_ws(PUBLISH_ONLY).await;
    let finished = Opened::new(&daemon, "finished").await;
    ws.ask(&finished.append(1, "a")).await;
    let more = json!({"finish_reason": "stop", "usage": {"output_tokens": 1}});
    let finish = finished.frame("finish", 2, more);
    for _ in 0..2 {
        assert_eq!(ws.ask(&finish).await, json!({"type": "ack", "ref": 2, "ids": [], "next_index": 1}));
    }
    assert_eq!(code(&ws.ask(&finished.finish(3)).await, 3), "STREAM_ENDED");
    let shown = finished.get(&daemon).await;
    assert_eq!(
        (&shown["state"], &shown["finish_reason"], &shown["usage"]),
        (&json!("completed"), &json!("stop"), &json!({"output_tokens": 1})),
    );

    // A stream without any chunk.
    let failed = Opened::new(&daemon, "failed").await;
    let fail = failed.frame("fail", 4, json!({"code": "MODEL_ERROR", "message": "it broke"}));
    for _ in 0..2 {
        assert_eq!(ws.ask(&fail).await, json!({"type": "ack", "ref": 4, "ids": [], "next_index": 0}));
    }
    let shown = failed.get(&daemon).await;
    assert_eq!(
        (&shown["state"], &shown["error"]),
        (&json!("failed"), &json!({"code": "MODEL_ERROR", "message": "it broke"})),
    );

    // The last chunk may be repeated by its index.
    let last = Opened::new(&daemon, "last").await;
    let chunk = last.frame("append", 5, json!({"index": 0, "chunk": "a", "is_final": true}));
    assert!(!only_id(&ws.ask(&chunk).await).is_empty());
    assert_eq!(ws.ask(&chunk).await, json!({"type": "ack", "ref": 5, "ids": [], "next_index": 1}));
}

#[tokio::test]
async fn a_bad_frame_names_the_field_and_changes_nothing() {
    let daemon = Daemon::start().await;
    let stream = Opened::new(&daemon, "r").await;
    let mut ws = daemon.live_ws(PUBLISH_ONLY).await;
    let many: Vec<&str> = vec!["x"; 1_001];
    let part = |part: Value| json!({"chunk": "a", "part": part});
    let cases = [
        ("append", json!({}), "takes either chunk or chunks"),
        ("append", json!({"chunk": "a", "chunks": ["b"]}), "takes either chunk or chunks"),
        ("append", json!({"chunk": 7}), "chunk: must be"),
        ("append", json!({"chunk": null}), "chunk: must be"),
        ("append", json!({"chunks": "a"}), "chunks: must be"),
        ("append", json!({"chunks": []}), "chunks: must be"),
        ("append", json!({"chunks": many}), "chunks: must be"),
        ("append", json!({"chunks": ["a", 7]}), "chunks: must be"),
        ("append", json!({"chunks": ["a", {}]}), "chunk"),
        ("append", json!({"chunks": [{"chunk": "a", "index": 1}]}), "index"),
        ("append", json!({"chunk": "a", "index": -1}), "index: must be"),
        ("append", json!({"chunk": "a", "index": 1.5}), "index: must be"),
        ("append", json!({"chunk": "a", "index": "0"}), "index: must be"),
        ("append", json!({"chunk": "a", "is_final": "yes"}), "is_final: must be"),
        ("append", json!({"chunk": "a", "colour": 1}), "colour: is not a field of append"),
        ("append", part(json!({"type": "nonsense", "id": "1"})), "part"),
        ("append", part(json!({"type": "text", "id": ""})), "part"),
        ("append", part(json!("text")), "part"),
        ("append", json!({"chunk": "a", "request_id": 7}), "request_id: must be"),
        ("append", json!({"chunk": "a", "producer_token": null}), "producer_token: must be"),
        ("finish", json!({"finish_reason": 7}), "finish_reason: must be"),
        ("finish", json!({"reason": "stop"}), "reason: is not a field of finish"),
        ("fail", json!({}), "code: is required"),
        ("fail", json!({"code": "X"}), "message: is required"),
        ("cancel", json!({}), "producer_token: is not a field of cancel"),
        ("subscribe", json!({"from_start": true}), "producer_token: is not a field of subscribe"),
    ];
    for (at, (kind, more, named)) in cases.into_iter().enumerate() {
        let frame = stream.frame(kind, at, more);
        let refused = ws.ask(&frame).await;
        assert_eq!(code(&refused, at), "BAD_REQUEST", "{frame}");
        assert!(refused["message"].as_str().unwrap().contains(named), "{refused} for {frame}");
        expect_silence(&mut ws).await; // it also ends the row of bad frames
    }
    // A lone surrogate is no text.
    let escaped = stream.append(50, "SURROGATE").to_string().replace("SURROGATE", "\\ud800");
    ws.send_text(&escaped).await;
    assert_eq!(code(&ws.next_json().await, 50), "BAD_REQUEST");

    // Fields of the right type whose values are not allowed.
    let (code_of, text) = ("c".repeat(65), "m".repeat(8 * KIB + 1));
    let invalid = [
        ("append", json!({"chunk": "x".repeat(64 * KIB + 1)}), "chunk"),
        ("append", json!({"chunks": ["a", "x".repeat(64 * KIB + 1)]}), "[1].chunk"),
        ("finish", json!({"finish_reason": code_of}), "finish_reason"),
        ("finish", json!({"usage": 7}), "usage"),
        ("finish", json!({"usage": {"a": text}}), "usage"),
        ("fail", json!({"code": code_of, "message": "m"}), "code"),
        ("fail", json!({"code": "", "message": "m"}), "code"),
        ("fail", json!({"code": "X", "message": text}), "message"),
    ];
    for (at, (kind, more, named)) in invalid.into_iter().enumerate() {
        let refused = ws.ask(&stream.frame(kind, at, more)).await;
        assert_eq!(code(&refused, at), "VALIDATION_ERROR", "{named}");
        assert!(refused["message"].as_str().unwrap().contains(named), "{refused}");
    }
    let reason = json!({"type": "cancel", "request_id": "r", "reason": "r".repeat(KIB + 1), "ref": 60});
    assert_eq!(code(&ws.ask(&reason).await, 60), "VALIDATION_ERROR");

    let shown = stream.get(&daemon).await;
    assert_eq!((&shown["state"], &shown["next_index"]), (&json!("open"), &json!(0)));
    for _ in 0..10 {
        ws.send(&stream.frame("append", 1, json!({}))).await;
    }
    assert_eq!(ws.closed().await.0, 1008);
}

#[tokio::test]
async fn who_may_not_publish_may_not_produce() {
    let daemon = Daemon::start().await;
    let stream = Opened::new(&daemon, "r").await;
    let key = daemon.create_org("other").await;
    let viewer = daemon.mint_token(&daemon.key, "v", json!({"roles": ["viewer"]})).await;
    let ticket = data(&daemon.post("/api/v1/tickets").json(&json!({})).send().await, 201);
    let ticket = format!("/api/v1/ws?ticket={}", ticket["ticket"].as_str().unwrap());
    let sockets = [
        // The token is known, but not in this organization.
        (daemon.ws("/api/v1/ws").key(&key), "NOT_FOUND", "NOT_FOUND"),
        (daemon.ws("/api/v1/ws").key(&viewer), "FORBIDDEN", "FORBIDDEN"),
        (daemon.ws(&ticket).without("authorization"), "FORBIDDEN", "FORBIDDEN"),
    ];
    for (request, words, cancels) in sockets {
        let mut ws = request.clone().open().await;
        ws.expect("ready").await;
        let fail = stream.frame("fail", 3, json!({"code": "X", "message": "y"}));
        for (reference, frame) in [(1, stream.append(1, "x")), (2, stream.finish(2)), (3, fail)] {
            assert_eq!(code(&ws.ask(&frame).await, reference), words, "{request:?} {frame}");
        }
        assert_eq!(code(&ws.ask(&cancel("r", 4)).await, 4), cancels, "{request:?}");
    }
    let shown = stream.get(&daemon).await;
    assert_eq!((&shown["state"], &shown["next_index"]), (&json!("open"), &json!(0)));
}

#[tokio::test]
async fn a_producer_without_echo_does_not_get_its_own_chunks_nor_its_end() {
    let daemon = Daemon::start().await;
    let mut ws = daemon.live_ws("/api/v1/ws?echo=false").await;
    let mut reader = daemon.live_ws("/api/v1/ws").await;
    let stream = Opened::new(&daemon, "r").await;
    ws.ask(&stream.append(1, "a")).await;
    ws.ask(&stream.finish(2)).await;
    let last = Opened::new(&daemon, "last").await;
    ws.ask(&last.frame("append", 3, json!({"chunk": "b", "is_final": true}))).await;
    for (id, chunk, is_final) in
        [("r", "a", false), ("r", "", true), ("last", "b", false), ("last", "", true)]
    {
        let event = reader.next_json().await;
        let expected = (&json!(id), &json!(chunk), &json!(is_final));
        assert_eq!((&event["request_id"], &event["chunk"], &event["is_final"]), expected, "{event}");
    }
    let published = daemon.publish(custom("c", json!(1))).await;
    assert_eq!(ws.next_json().await["id"], published[0].as_str(), "the first event that is not its own");
}

#[tokio::test]
async fn chunks_over_the_rate_are_refused_and_a_hundred_refusals_end_the_connection() {
    let daemon = Daemon::with().env("LIMITS__PUBLISH_PER_SECOND", 1).start().await;
    let ann = daemon.user_token("ann").await;
    let stream = Opened::of(&daemon, &daemon.key, json!({"request_id": "r", "user_id": "ann"})).await;
    let frames: [(&str, Value); 2] = [
        ("append", json!({"chunks": ["a", "b"]})),
        ("append", json!({"chunks": ["a", "b"], "is_final": true})),
    ];
    // Twice the rate at once, and nothing more until it has recovered.
    let mut ws = daemon.ws(PUBLISH_ONLY).key(&ann).open().await;
    ws.expect("ready").await;
    ws.send(&stream.frame("append", 0, json!({"chunks": ["a", "b"]}))).await;
    ws.expect("ack").await;
    for at in 1..=100 {
        // Half of them have an end, so they are refused later.
        let (kind, more) = &frames[at % 2];
        ws.try_send(&stream.frame(kind, at, more.clone())).await;
    }
    for at in 1..=100 {
        let error = ws.expect("error").await;
        assert_eq!(code(&error, at), "QUOTA_EXCEEDED");
        assert!((1..=2).contains(&error["details"]["retry_after"].as_u64().unwrap()), "{error}");
    }
    assert_eq!(ws.closed().await.0, 1013);
    assert_eq!(stream.get(&daemon).await["text"], "ab");
}

/// The producer's own chunks block its socket while it continues to append. Every ack arrives later, once, and
/// so does the `cancel` of that time.
#[tokio::test]
async fn a_producer_that_reads_late_gets_all_its_acks_and_the_cancel() {
    let daemon = Daemon::start().await;
    let stream = Opened::new(&daemon, "r").await;
    let mut ws = daemon.ws("/api/v1/ws").ask_on(daemon.small_buffer_connection().await).await.ok().unwrap();
    ws.expect("ready").await;
    let texts: Vec<String> = (0..800).map(|at| format!("{at}{}", "x".repeat(3_000))).collect();
    for (at, text) in texts.iter().enumerate() {
        ws.send(&stream.append(at, text)).await;
    }
    let written = || async { (stream.get(&daemon).await["next_index"] == texts.len()).then_some(()) };
    until("the last chunk", written).await;
    stream.cancel(&daemon).await;
    let (mut acks, mut cancels, mut text, mut is_over) = (0, 0, String::new(), false);
    let mut acknowledged = HashSet::new();
    while acks < texts.len() || cancels == 0 || !is_over {
        let frame = ws.next_json().await;
        match frame["type"].as_str().unwrap() {
            "ack" => {
                // On a blocked socket, the ack of an append that had to wait may precede earlier ones.
                let at = frame["ref"].as_u64().unwrap();
                assert_eq!(frame["next_index"], at + 1, "{frame}");
                assert!(acknowledged.insert(at), "{frame} came twice");
                acks += 1;
            }
            "cancel" => cancels += 1,
            "stream_chunk" => {
                text += frame["chunk"].as_str().unwrap();
                is_over = frame["is_final"] == true;
            }
            "error" => assert_eq!(frame["code"], "CANCELLED", "{frame}"),
            other => panic!("{other}"),
        }
    }
    expect_silence(&mut ws).await;
    assert_eq!((acks, cancels), (texts.len(), 1));
    assert!(text == texts.concat(), "the text is not what was sent");
}

#[tokio::test]
async fn a_stream_that_is_full_is_refused_by_name_and_stays_open() {
    let daemon = Daemon::with().env("STREAMS__BYTES", KIB).start().await;
    let stream = Opened::new(&daemon, "r").await;
    let mut ws = daemon.live_ws(PUBLISH_ONLY).await;
    let most = "x".repeat(KIB - 2);
    assert_eq!(ws.ask(&stream.append(1, &most)).await["next_index"], 1);
    let refused = ws.ask(&stream.append(2, "901")).await;
    assert_eq!(code(&refused, 2), "PAYLOAD_TOO_LARGE");
    assert_eq!(refused["details"], json!({"limit": "streams.bytes", "max": KIB}));
    assert_eq!(ws.ask(&stream.append(3, "90")).await["next_index"], 2);
    assert_eq!(ws.ask(&stream.finish(4)).await["type"], "ack");
    assert_eq!(stream.get(&daemon).await["text"], most + "90");
}
