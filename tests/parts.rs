//! Parts of streams for clients: who does not ask for all parts gets text alone, on every transport, live and
//! from ring and log. Chunks of different parts are never merged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::{Daemon, chunk, message};
use serde_json::{Value, json};

/// A chunk of the stream `r`; `part` is its type and id.
fn of_part(index: u64, text: &str, part: Option<(&str, &str)>) -> Value {
    let mut chunk = chunk("r", text, index);
    if let Some((kind, id)) = part {
        chunk["part"] = json!({"id": id, "type": kind});
    }
    chunk
}

/// An answer with parts of several types; the last chunk is final.
fn answer() -> Value {
    let mut last = of_part(7, "!", None);
    last["is_final"] = true.into();
    json!([
        of_part(0, "Hm", Some(("reasoning", "p"))),
        of_part(1, ", so", Some(("reasoning", "p"))),
        of_part(2, "Hel", None),
        of_part(3, "lo", None),
        of_part(4, "{}", Some(("tool_input", "p"))),
        of_part(5, " wor", Some(("text", "t"))),
        of_part(6, "ld", Some(("text", "t"))),
        last,
    ])
}

/// The type of the part, `-` if there is none, and the text.
fn shown(event: &Value) -> String {
    format!("{}:{}", event["part"]["type"].as_str().unwrap_or("-"), event["chunk"].as_str().unwrap())
}

/// The chunks as they were published.
const ALL: [&str; 8] =
    ["reasoning:Hm", "reasoning:, so", "-:Hel", "-:lo", "tool_input:{}", "text: wor", "text:ld", "-:!"];
const TEXT: [&str; 5] = ["-:Hel", "-:lo", "text: wor", "text:ld", "-:!"];
/// The chunks as a reader of the log gets them.
const ALL_MERGED: [&str; 5] = ["reasoning:Hm, so", "-:Hello", "tool_input:{}", "text: world", "-:!"];
const TEXT_MERGED: [&str; 3] = ["-:Hello", "text: world", "-:!"];

/// Reads events up to the final chunk.
async fn up_to_the_end(mut next: impl AsyncFnMut() -> Value) -> Vec<String> {
    let mut chunks = Vec::new();
    loop {
        let event = next().await;
        if event["type"] == "stream_chunk" {
            chunks.push(shown(&event));
            if event["is_final"] == true {
                return chunks;
            }
        }
    }
}

/// Reads the chunks of the history in pages of `limit` events.
async fn history(daemon: &Daemon, key: Option<&str>, parts: &str, limit: usize) -> Vec<String> {
    let (mut chunks, mut from) = (Vec::new(), "earliest=true".to_owned());
    loop {
        let mut call = daemon.get(&format!("/api/v1/events?{from}&limit={limit}&{parts}"));
        if let Some(key) = key {
            call = call.key(key);
        }
        let page = call.send().await.json();
        let events = page["data"].as_array().unwrap();
        assert!(events.len() <= limit);
        chunks.extend(events.iter().filter(|event| event["type"] == "stream_chunk").map(shown));
        if page["caught_up"] == true {
            return chunks;
        }
        from = format!("after={}", page["next_cursor"].as_str().unwrap());
    }
}

#[tokio::test]
async fn a_live_subscriber_gets_other_parts_than_text_only_if_it_asks() {
    let daemon = Daemon::start().await;
    let queries = [("", &TEXT[..]), ("?parts=text", &TEXT), ("?parts=", &TEXT), ("?parts=all", &ALL)];
    let (mut streams, mut sockets) = (Vec::new(), Vec::new());
    for (query, wanted) in queries {
        for path in ["/api/v1/sse", "/api/v1/sse/llm"] {
            streams.push((daemon.live_sse(&format!("{path}{query}")).await, wanted));
        }
        sockets.push((daemon.live_ws(&format!("/api/v1/ws{query}")).await, wanted));
    }
    // The filter of `subscribe` replaces that of the query.
    for (frame, wanted) in [
        (json!({"type": "subscribe", "parts": "all"}), &ALL[..]),
        (json!({"type": "subscribe", "parts": "text"}), &TEXT),
        (json!({"type": "subscribe", "parts": null}), &TEXT),
        (json!({"type": "subscribe"}), &TEXT),
    ] {
        let query = if wanted == ALL { "" } else { "?parts=all" };
        let mut ws = daemon.live_ws(&format!("/api/v1/ws{query}")).await;
        assert_eq!(ws.ask(&frame).await["type"], "ready");
        sockets.push((ws, wanted));
    }
    daemon.publish(answer()).await;
    for (mut sse, wanted) in streams {
        assert_eq!(up_to_the_end(async || sse.next_event().await).await, wanted);
    }
    for (mut ws, wanted) in sockets {
        assert_eq!(up_to_the_end(async || ws.next_json().await).await, wanted);
    }
}

#[tokio::test]
async fn a_late_reader_gets_other_parts_than_text_only_if_it_asks_and_no_two_parts_are_merged() {
    let mut daemon = Daemon::start().await;
    let user = daemon.user_token("user-1").await;
    daemon.publish(message("before")).await; // for one user, so events are checked one by one for `user`
    daemon.publish(answer()).await;
    // First from the ring, then from the log.
    for restarted in [false, true] {
        if restarted {
            daemon.restart().await;
        }
        for (parts, merged, all) in [
            ("parts=text", &TEXT_MERGED[..], &TEXT[..]),
            ("", &TEXT_MERGED, &TEXT),
            ("parts=all", &ALL_MERGED, &ALL),
        ] {
            for key in [None, Some(user.as_str())] {
                for path in ["/api/v1/sse", "/api/v1/sse/llm"] {
                    let mut request = daemon.sse(&format!("{path}?earliest=true&{parts}"));
                    if let Some(key) = key {
                        request = request.key(key);
                    }
                    let mut sse = request.open().await;
                    sse.next().await.named("ready");
                    assert_eq!(
                        up_to_the_end(async || sse.next_event().await).await,
                        merged,
                        "{path} {parts}"
                    );
                }
                let mut request = daemon.ws(&format!("/api/v1/ws?earliest=true&{parts}"));
                if let Some(key) = key {
                    request = request.key(key);
                }
                let mut ws = request.open().await;
                assert_eq!(up_to_the_end(async || ws.next_json().await).await, merged, "{parts}");
                for limit in [1, 2, 3, 100] {
                    assert_eq!(history(&daemon, key, parts, limit).await, all, "{parts}, {limit}");
                }
            }
        }
    }
}

/// A text reader does not get the chunk between two others, so their joined text would lack an index.
#[tokio::test]
async fn chunks_before_and_after_another_part_are_not_merged() {
    let daemon = Daemon::start().await;
    let tool = Some(("tool_output", "p"));
    let mut last = of_part(3, "d", None);
    last["is_final"] = true.into();
    daemon.publish(json!([of_part(0, "a", None), of_part(1, "b", tool), of_part(2, "c", None), last])).await;
    let mut sse = daemon.sse("/api/v1/sse?earliest=true").open().await;
    sse.next().await.named("ready");
    assert_eq!(up_to_the_end(async || sse.next_event().await).await, ["-:a", "-:cd"]);
}

#[tokio::test]
async fn an_unknown_choice_of_parts_is_refused_by_name() {
    let daemon = Daemon::start().await;
    let refused = "parts: must be text or all";
    for path in ["/api/v1/events", "/api/v1/sse", "/api/v1/sse/llm"] {
        let reply = daemon.get(&format!("{path}?parts=reasoning")).send().await;
        assert_eq!((reply.status.as_u16(), &reply.json()["message"]), (400, &json!(refused)), "{path}");
    }
    let reply = daemon.ws("/api/v1/ws?parts=text,all").refused().await;
    assert_eq!((reply.status.as_u16(), &reply.json()["message"]), (400, &json!(refused)));
    let mut ws = daemon.live_ws("/api/v1/ws").await;
    let error = ws.ask(&json!({"type": "subscribe", "parts": "none", "ref": 1})).await;
    assert_eq!(
        (&error["type"], &error["message"], &error["ref"]),
        (&json!("error"), &json!(refused), &json!(1))
    );
    // A part is checked like every other field of an event.
    let mut event = of_part(0, "x", Some(("text", "p")));
    event["part"]["colour"] = 1.into();
    let reply = daemon.post("/api/v1/events").json(&event).send().await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["details"]["field"]),
        (400, &json!("part.colour")),
        "{reply:?}"
    );
}

/// Opens the stream `r`, appends the answer and finishes it.
async fn produce(daemon: &Daemon) {
    let opened = daemon.post("/api/v1/streams").json(&json!({"request_id": "r"})).send().await;
    assert_eq!(opened.status, 201, "{opened:?}");
    let opened = opened.json();
    let token = opened["data"]["producer_token"].as_str().unwrap();
    let answer = answer();
    let chunks = answer.as_array().unwrap().iter().map(|chunk| {
        let mut chunk = chunk.clone();
        chunk
            .as_object_mut()
            .unwrap()
            .retain(|name, _| ["chunk", "part", "index", "is_final"].contains(&name.as_str()));
        chunk
    });
    let mut chunks: Vec<Value> = chunks.collect();
    let bad = json!({"chunk": "x", "part": {"type": "text", "id": "p", "colour": 1}});
    let append = |body: Value| {
        daemon.post("/api/v1/streams/r/chunks").header("x-producer-token", token).json(&body).send()
    };
    let reply = append(bad).await;
    assert_eq!(
        (reply.status.as_u16(), &reply.json()["details"]["field"]),
        (400, &json!("part.colour")),
        "{reply:?}"
    );
    // `null` is no part.
    chunks[2]["part"] = Value::Null;
    let reply = append(chunks.into()).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["data"]["next_index"]), (200, &json!(8)), "{reply:?}");
}

#[tokio::test]
async fn a_reader_of_an_opened_stream_gets_other_parts_than_text_only_if_it_asks() {
    let mut daemon = Daemon::start().await;
    let mut live = Vec::new();
    for (query, wanted) in [("", &TEXT[..]), ("?parts=all", &ALL)] {
        live.push((daemon.live_sse(&format!("/api/v1/sse{query}")).await, wanted));
    }
    produce(&daemon).await;
    for (mut sse, wanted) in live {
        let mut got = up_to_the_end(async || sse.next_event().await).await;
        assert_eq!(got.pop().unwrap(), "-:", "the end");
        assert_eq!(got, wanted);
    }
    for restarted in [false, true] {
        if restarted {
            daemon.restart().await;
        }
        for (parts, wanted) in [("", TEXT_MERGED.concat()), ("&parts=all", ALL_MERGED.concat())] {
            let mut sse = daemon.sse(&format!("/api/v1/sse/llm?request_id=r{parts}")).open().await;
            sse.next().await.named("ready");
            let got = up_to_the_end(async || sse.next_event().await).await;
            // The empty final chunk may be merged into the last one.
            assert_eq!(got.concat().trim_end_matches("-:"), wanted, "{parts}");
        }
        let shown = daemon.get("/api/v1/streams/r?parts=all").send().await.json();
        assert_eq!(shown["data"]["text"], "Hello world!");
        let parts = shown["data"]["parts"].as_array().unwrap();
        let ids =
            |part: &Value| (part["part"]["type"].clone(), part["part"]["id"].clone(), part["text"].clone());
        let part = |kind: &str, id: &str, text: &str| (json!(kind), json!(id), json!(text));
        let plain = |text: &str| (Value::Null, Value::Null, json!(text));
        assert_eq!(
            parts.iter().map(ids).collect::<Vec<_>>(),
            [
                part("reasoning", "p", "Hm, so"),
                plain("Hello"),
                part("tool_input", "p", "{}"),
                part("text", "t", " world"),
                plain("!"),
            ]
        );
    }
}
