//! A producer's NDJSON body that stays open: each line is stored and shown as it arrives, and the producer hears at
//! once when its stream ends without its doing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::h2::{self, DATA, END_STREAM, H2, HEADERS};
use common::rest::data;
use common::streams::{Producer, cancel, get, path};
use common::{Daemon, within};
use serde_json::{Value, json};

const KIB: usize = 1024;

/// Waits until the stream has `count` chunks. Returns it.
async fn chunks(daemon: &Daemon, id: &str, count: u64) -> Value {
    let known = count - 1;
    let shown = data(&daemon.get(&format!("{}?wait=60&known={known}", path(id))).send().await, 200);
    assert!(shown["next_index"].as_u64().unwrap() >= count, "{shown}");
    shown
}

#[tokio::test]
async fn each_line_is_seen_before_the_body_ends() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let mut sse = daemon.live_sse("/api/v1/sse?request_id=r").await;
    let mut lines = producer.lines(&daemon).await;
    for (index, text) in ["Hello", ", ", "world", ""].iter().enumerate() {
        lines.line(&json!({"chunk": text, "index": index})).await;
        let event = sse.next_event().await;
        assert_eq!((&event["chunk"], &event["index"]), (&json!(text), &json!(index)));
        assert_eq!((&event["is_final"], &event["type"]), (&json!(false), &json!("stream_chunk")));
        let seen = chunks(&daemon, "r", index as u64 + 1).await;
        assert_eq!((&seen["state"], &seen["next_index"]), (&json!("open"), &json!(index + 1)));
    }
    let last_id = sse.last_event_id.clone();
    let answer = data(&lines.end().await, 200);
    assert_eq!(answer, json!({"next_index": 4, "count": 4, "last_id": last_id, "durable": true}));
    // The body's end is not the stream's: the producer may open another one.
    let mut lines = producer.lines(&daemon).await;
    lines.line(&json!({"chunk": "!", "is_final": true})).await;
    // The response does not wait for the end of the body either.
    assert_eq!(data(&lines.answer().await, 200)["next_index"], 5);
    let shown = producer.get(&daemon).await;
    assert_eq!((&shown["text"], &shown["state"]), (&json!("Hello, world!"), &json!("completed")));
}

#[tokio::test]
async fn an_empty_body_appends_nothing_and_renews_the_lease() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let answer = data(&producer.lines(&daemon).await.end().await, 200);
    assert_eq!(answer, json!({"next_index": 0, "count": 0, "last_id": null, "durable": true}));
    let blank = producer.call(&daemon, "chunks").body("application/ndjson", "\n \r\n\n").send().await;
    assert_eq!(data(&blank, 200)["count"], 0);
}

/// Blank lines, which some producers send while they have nothing to say, are counted and forgotten.
#[tokio::test]
async fn blank_lines_are_counted_and_not_kept() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let mut lines = producer.lines(&daemon).await;
    for _ in 0..100 {
        assert!(lines.bytes(&b"\n".repeat(64 * KIB)).await);
    }
    lines.bytes(b"{\"chunk\":").await;
    lines.bytes(b"\"a\"}\n\nbad\n").await;
    let refused = lines.answer().await.refused(400, "VALIDATION_ERROR");
    let line = 100 * 64 * KIB + 2;
    assert_eq!(refused["details"]["field"], format!("[{line}]"), "{refused}");
    assert_eq!(producer.get(&daemon).await["text"], "a");
}

/// Reports liter-llm#152 and plano#980: the network cuts text anywhere, also inside a character.
#[tokio::test]
async fn lines_may_be_cut_at_every_byte() {
    let daemon = Daemon::start().await;
    let texts = ["a€", "😀", "ü\n\u{2028}", "\"\\"];
    let body: String = texts.iter().map(|text| format!("{}\r\n\n", json!({"chunk": text}))).collect();
    // One write per byte.
    let producer = Producer::open(&daemon, "bytes").await;
    let mut lines = producer.lines(&daemon).await;
    for byte in body.as_bytes() {
        lines.bytes(&[*byte]).await;
    }
    assert_eq!(data(&lines.end().await, 200)["count"], 4);
    assert_eq!(producer.get(&daemon).await["text"], texts.concat());
    // Two writes, for every place of the cut; the last line has no line end.
    let body = body.trim_end().as_bytes();
    let producer = Producer::open(&daemon, "cuts").await;
    for cut in 1..body.len() {
        let mut lines = producer.lines(&daemon).await;
        lines.bytes(&body[..cut]).await;
        lines.bytes(&body[cut..]).await;
        assert_eq!(data(&lines.end().await, 200)["count"], 4, "cut at {cut}");
    }
    assert_eq!(producer.get(&daemon).await["text"], texts.concat().repeat(body.len() - 1));
}

/// What a producer was told of is what it can rely on: the lines before a bad one are stored, whatever is wrong with
/// it and however they arrived.
#[tokio::test]
async fn the_lines_before_a_bad_one_are_kept() {
    let daemon = Daemon::start().await;
    let long = json!({"chunk": "x".repeat(64 * KIB)}).to_string();
    let bad: [(&[u8], u16, &str); 8] = [
        (b"{\"chunk\":", 400, "[3]"),
        (b"[{\"chunk\":\"x\"}]", 400, "[3]"),
        (b"{\"chunk\":\"x\",\"extra\":1}", 400, "[3].extra"),
        (b"{\"chunk\":\"\\ud83d\"}", 400, "[3]"),
        (b"{\"chunk\":\"\xff\"}", 400, "[3]"),
        (b"{\"chunk\":\"x\",\"index\":9}", 409, ""),
        (long.as_bytes(), 413, ""),
        // Too long, though its end has not come.
        (&long.as_bytes()[..64 * KIB + 1], 413, ""),
    ];
    for (number, (line, status, field)) in bad.into_iter().enumerate() {
        for is_one_write in [true, false] {
            let producer = Producer::open(&daemon, &format!("{number}-{is_one_write}")).await;
            let good = b"\n{\"chunk\":\"a\"}\n{\"chunk\":\"b\"}\n";
            let is_cut = status == 413 && number == 7;
            let line = [line, if is_cut { b"" } else { b"\n{\"chunk\":\"never\"}\n" }].concat();
            let mut lines = producer.lines(&daemon).await;
            if is_one_write {
                lines.bytes(&[good, &line[..]].concat()).await;
            } else {
                lines.bytes(good).await;
                chunks(&daemon, &producer.id, 2).await;
                lines.bytes(&line).await;
            }
            // The answer comes while the body is still open.
            let reply = lines.answer().await;
            assert_eq!(reply.status, status, "{reply:?}");
            match status {
                400 => assert_eq!(reply.json()["details"]["field"], field, "{reply:?}"),
                409 => assert_eq!(reply.json()["details"]["expected_index"], 2, "{reply:?}"),
                _ => drop(reply.refused(413, "PAYLOAD_TOO_LARGE")),
            }
            let shown = producer.get(&daemon).await;
            let known = (&shown["text"], &shown["state"], &shown["next_index"]);
            assert_eq!(known, (&json!("ab"), &json!("open"), &json!(2)), "line {number}");
        }
    }
    // The longest line fits.
    let producer = Producer::open(&daemon, "longest").await;
    let text = "x".repeat(64 * KIB - r#"{"chunk":""}"#.len());
    let mut lines = producer.lines(&daemon).await;
    lines.chunk(&text).await;
    lines.chunk(&text).await;
    assert_eq!(data(&lines.end().await, 200)["count"], 2);
}

#[tokio::test]
async fn retried_lines_are_ignored_and_a_body_may_be_longer_than_any_other() {
    let daemon = Daemon::with().env("LIMITS__BODY_BYTES", 65_536).start().await;
    let producer = Producer::open(&daemon, "r").await;
    let line = |index: usize| format!("{}\n", json!({"chunk": format!("{index:04}"), "index": index}));
    let text = |range: std::ops::Range<usize>| range.map(line).collect::<String>();
    let first = producer.call(&daemon, "chunks").body("application/x-ndjson", text(0..2_000));
    let answer = data(&first.send().await, 200);
    assert_eq!((&answer["count"], &answer["next_index"]), (&json!(2_000), &json!(2_000)));
    let again = producer.call(&daemon, "chunks").body("application/x-ndjson", text(1_000..3_000));
    let answer = data(&again.send().await, 200);
    assert_eq!((&answer["count"], &answer["next_index"]), (&json!(1_000), &json!(3_000)));
    let whole: String = (0..3_000).map(|index| format!("{index:04}")).collect();
    assert_eq!(producer.get(&daemon).await["text"], whole);
}

/// Report open-webui#14384: who stops an answer before its first word expects that the model stops too.
#[tokio::test]
async fn a_cancel_before_the_first_line_reaches_the_producer() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let lines = producer.lines(&daemon).await;
    // A later request of the same producer does not hide the earlier one.
    for _ in 0..5 {
        assert_eq!(producer.lines(&daemon).await.end().await.status, 200);
    }
    data(&cancel(&daemon, &daemon.key, "r").await, 200);
    lines.answer().await.refused(409, "STREAM_CANCELLED");
}

#[tokio::test]
async fn a_producer_that_still_writes_hears_of_the_end_at_once() {
    let daemon = Daemon::start().await;
    for (way, code) in
        [("cancel", "STREAM_CANCELLED"), ("take over", "STREAM_FENCED"), ("finish", "STREAM_ENDED")]
    {
        let producer = Producer::open(&daemon, way).await;
        let mut lines = producer.lines(&daemon).await;
        lines.chunk("a").await;
        chunks(&daemon, way, 1).await;
        match way {
            "cancel" => drop(data(&cancel(&daemon, &daemon.key, way).await, 200)),
            "take over" => drop(Producer::take_over(&daemon, &daemon.key, way).await),
            // By the same producer over another connection.
            _ => drop(producer.finish(&daemon).await),
        }
        lines.answer().await.refused(409, code);
        assert_eq!(producer.get(&daemon).await["text"], "a");
    }
}

/// A client that writes without reading must still be able to read the answer when it looks.
#[tokio::test]
async fn the_early_answer_survives_a_client_that_writes_on() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let mut lines = producer.lines(&daemon).await;
    lines.chunk("a").await;
    chunks(&daemon, "r", 1).await;
    data(&cancel(&daemon, &daemon.key, "r").await, 200);
    for _ in 0..20 {
        lines.chunk("b").await;
    }
    lines.answer().await.refused(409, "STREAM_CANCELLED");
    assert_eq!(producer.get(&daemon).await["text"], "a");
}

#[tokio::test]
async fn a_silent_producer_is_answered_when_its_lease_ends() {
    let daemon = Daemon::start().await;
    let body = json!({"request_id": "r", "lease_seconds": 5});
    let producer = Producer::open_as(&daemon, &daemon.key, body).await;
    let mut lines = producer.lines(&daemon).await;
    lines.chunk("a").await;
    let shown = chunks(&daemon, "r", 1).await;
    assert_eq!(shown["state"], "open");
    let refused = lines.answer().await.refused(409, "STREAM_ABANDONED");
    assert_eq!(refused["details"], Value::Null);
    // The end is shown when it is on disk.
    let shown = daemon.get(&format!("{}?wait=60&known={}", path("r"), u64::MAX)).send().await;
    let shown = data(&shown, 200);
    assert_eq!(shown["error"], json!({"code": "ABANDONED", "message": "the producer fell silent"}));
    assert_eq!((&shown["state"], &shown["text"]), (&json!("abandoned"), &json!("a")));
}

/// Report ably/docs#3109: an append fails in the middle. The producer comes back, asks what is known, and goes on.
#[tokio::test]
async fn a_body_that_breaks_off_leaves_the_stream_open_with_all_whole_lines() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let mut lines = producer.lines(&daemon).await;
    lines.bytes(b"{\"chunk\":\"a\"}\n{\"chunk\":\"b\"}\n{\"chunk\":\"half").await;
    chunks(&daemon, "r", 2).await;
    drop(lines.into_stream());
    let again = Producer::take_over(&daemon, &daemon.key, "r").await;
    assert_eq!(again.next_index, 2);
    again.say(&daemon, &["c"]).await;
    again.finish(&daemon).await;
    assert_eq!(again.get(&daemon).await["text"], "abc");
}

/// Report vercel/ai#13863: two requests of one producer overlap. By index, the text is that of one.
#[tokio::test]
async fn two_bodies_of_one_producer_append_each_index_once() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let body = |from: usize| -> String {
        (from..300)
            .map(|index| format!("{}\n", json!({"chunk": format!("{index}."), "index": index})))
            .collect()
    };
    let send = |from: usize| {
        tokio::spawn(producer.call(&daemon, "chunks").body("application/x-ndjson", body(from)).send())
    };
    let both = [send(0), send(0)];
    let mut count = 0;
    for reply in both {
        let answer = data(&reply.await.unwrap(), 200);
        assert_eq!(answer["next_index"], 300);
        count += answer["count"].as_u64().unwrap();
    }
    assert_eq!(count, 300);
    let whole: String = (0..300).map(|index| format!("{index}.")).collect();
    assert_eq!(producer.get(&daemon).await["text"], whole);
}

#[tokio::test]
async fn a_revoked_credential_appends_no_further_line() {
    let daemon = Daemon::start().await;
    let made = daemon.post("/api/v1/api-keys").json(&json!({"name": "p", "scopes": ["publish:org"]}));
    let made = data(&made.send().await, 201);
    let (key, id) = (made["api_key"].as_str().unwrap(), made["key_id"].as_str().unwrap());
    let producer = Producer::open_as(&daemon, key, json!({"request_id": "r"})).await;
    let mut lines = producer.lines(&daemon).await;
    lines.chunk("a").await;
    chunks(&daemon, "r", 1).await;
    let revoked = daemon.call("DELETE", &format!("/api/v1/api-keys/{id}")).send().await;
    assert!(revoked.status.is_success(), "{revoked:?}");
    lines.chunk("b").await;
    lines.answer().await.refused(401, "UNAUTHORIZED");
    assert_eq!(data(&get(&daemon, &daemon.key, "r").await, 200)["text"], "a");
}

/// Two hundred producers that have said nothing for long hold no other request up.
#[tokio::test]
async fn open_bodies_block_nobody() {
    let daemon = Daemon::start().await;
    let mut held = Vec::new();
    for number in 0..200 {
        let producer = Producer::open(&daemon, &format!("r{number}")).await;
        let mut lines = producer.lines(&daemon).await;
        lines.bytes(b"{\"chunk\":\"a\"}\n{\"chunk\":").await;
        held.push((producer, lines));
    }
    for number in 0..200 {
        chunks(&daemon, &format!("r{number}"), 1).await;
    }
    daemon.publish_messages(&["x"]).await;
    let cancels = held.iter().map(|(producer, _)| cancel(&daemon, &daemon.key, &producer.id));
    for reply in futures_util::future::join_all(cancels).await {
        data(&reply, 200);
    }
    for (_, lines) in held {
        lines.answer().await.refused(409, "STREAM_CANCELLED");
    }
}

#[tokio::test]
async fn an_open_body_over_http2_is_answered_early_too() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let mut client = H2::open(&daemon, 65_535).await;
    let credential = format!("Bearer {}", daemon.key);
    let fields = [
        ("authorization", credential.as_str()),
        ("x-producer-token", producer.token.as_str()),
        ("content-type", "application/x-ndjson"),
    ];
    let target = format!("{}/chunks", path("r"));
    let stream = client.request("POST", &target, &fields, false).await;
    client.send(&h2::frame(DATA, 0, stream, b"{\"chunk\":\"a\"}\n")).await;
    chunks(&daemon, "r", 1).await;
    data(&cancel(&daemon, &daemon.key, "r").await, 200);
    client.next_of(HEADERS).await;
    let body = client.next_of(DATA).await;
    let body: Value = serde_json::from_slice(&body.payload).unwrap();
    assert_eq!(body["code"], "STREAM_CANCELLED");

    // The connection goes on.
    let producer = Producer::open(&daemon, "r2").await;
    let fields = [fields[0], ("x-producer-token", producer.token.as_str()), fields[2]];
    let target = format!("{}/chunks", path("r2"));
    let stream = client.request("POST", &target, &fields, false).await;
    client.send(&h2::frame(DATA, END_STREAM, stream, b"{\"chunk\":\"b\"}")).await;
    loop {
        let frame = client.next_of(DATA).await;
        if frame.stream == stream {
            let body: Value = serde_json::from_slice(&frame.payload).unwrap();
            assert_eq!(body["data"]["next_index"], 1);
            break;
        }
    }
}

/// Who may not write learns it before the body.
#[tokio::test]
async fn a_body_is_refused_before_its_first_line() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let nobody = Producer { key: "nwk_none_x".into(), ..producer.clone() };
    nobody.lines(&daemon).await.answer().await.refused(401, "UNAUTHORIZED");
    let unknown = Producer { id: "unknown".into(), ..producer.clone() };
    unknown.lines(&daemon).await.answer().await.refused(404, "NOT_FOUND");
    producer.finish(&daemon).await;
    producer.lines(&daemon).await.answer().await.refused(409, "STREAM_ENDED");
    let other = producer.call(&daemon, "chunks").body("text/plain", "x").send().await;
    assert_eq!(other.status, 415, "{other:?}");
}

/// A slow disk, or a reader of the answer that never comes, does not let a body fill the daemon's memory: a producer
/// that sends more than is stored is held up, and all of it is stored in the end.
#[tokio::test]
async fn a_fast_producer_loses_nothing() {
    let daemon = Daemon::start().await;
    let producer = Producer::open(&daemon, "r").await;
    let mut lines = producer.lines(&daemon).await;
    let text = "0123456789abcdef".repeat(256);
    let many: String = (0..16).map(|_| format!("{}\n", json!({"chunk": text}))).collect();
    for _ in 0..64 {
        assert!(lines.bytes(many.as_bytes()).await);
    }
    let answer = data(&within("the answer", lines.end()).await, 200);
    assert_eq!(answer["count"], 1_024);
    let shown = producer.get(&daemon).await;
    assert_eq!(shown["text_bytes"], 1_024 * text.len());
    assert_eq!(shown["text"].as_str().unwrap(), text.repeat(1_024));
}
