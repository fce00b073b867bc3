//! WebSockets for clients (protocol §5): the order of frames, every client frame and its response,
//! heartbeats, every close code, and refusals before the upgrade.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::time::Duration;

use common::http::Call;
use common::sse::Sse;
use common::ws::Ws;
use common::{Daemon, custom, is_timestamp, message, until, within};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

const SAMPLE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// An upgrade request with these headers changed. An empty value removes the header.
fn upgrade(daemon: &Daemon, path: &str, changes: &[(&str, &str)]) -> Call {
    let mut headers = vec![
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", SAMPLE_KEY),
    ];
    for (name, value) in changes {
        headers.retain(|(other, _)| other != name);
        if !value.is_empty() {
            headers.push((name, value));
        }
    }
    headers.into_iter().fold(daemon.get(path), |call, (name, value)| call.header(name, value))
}

/// A client frame, masked with a key of zeros.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

/// Reads until the peer ends. Returns the code and reason of its last close frame.
async fn raw_close(stream: &mut TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    let _ = within("the end", stream.read_to_end(&mut bytes)).await;
    let mut rest = bytes.as_slice();
    let mut found = None;
    while let [first, len, tail @ ..] = rest {
        let (len, tail) = match len {
            126 => (usize::from(u16::from_be_bytes([tail[0], tail[1]])), &tail[2..]),
            len => (usize::from(*len), tail),
        };
        if *first == 0x88 {
            let reason = String::from_utf8(tail[2..len].to_vec()).unwrap();
            found = Some((u16::from_be_bytes([tail[0], tail[1]]), reason));
        }
        rest = &tail[len..];
    }
    found.expect("a close frame")
}

#[tokio::test]
async fn the_handshake_answers_the_websocket_key() {
    let daemon = Daemon::start().await;
    let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
    let head = format!(
        "GET /api/v1/ws HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: {SAMPLE_KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
         Authorization: Bearer {}\r\n\r\n",
        daemon.key
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = Sse::read_head(stream, Vec::new()).await;
    assert_eq!(answer.status, 101, "{}", answer.head);
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert!(answer.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    assert_eq!(answer.header("sec-websocket-extensions"), None, "permessage-deflate is not offered");
    assert!(answer.header("x-request-id").is_some(), "{}", answer.head);
}

#[tokio::test]
async fn errors_are_answered_before_the_upgrade_in_this_order() {
    let daemon = Daemon::with().env("LIMITS__CONNECTIONS_PER_USER", 1).start().await;
    let writer = daemon.mint_token(&daemon.key, "ann", json!({"scopes": ["publish"]})).await;
    let reader = daemon.mint_token(&daemon.key, "ann", json!({"scopes": ["subscribe"]})).await;
    let mut only = daemon.ws("/api/v1/ws").key(&reader).open().await;
    only.expect("ready").await;

    // Each request also has every fault of the next one.
    for wrong in [
        ("upgrade", ""),
        ("connection", "close"),
        ("sec-websocket-version", "8"),
        ("sec-websocket-version", ""),
    ] {
        let reply = upgrade(&daemon, "/api/v1/ws?colour=red", &[wrong, ("sec-websocket-key", "x")])
            .anonymous()
            .send()
            .await;
        reply.refused(426, "BAD_REQUEST");
        assert_eq!(reply.header("sec-websocket-version"), Some("13"), "{wrong:?}");
    }
    for key in ["", "x", "dGhlIHNhbXBsZSBub25jZQ", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAA="] {
        let reply = upgrade(&daemon, "/api/v1/ws", &[("sec-websocket-key", key)]).anonymous().send().await;
        reply.refused(400, "BAD_REQUEST");
    }
    let reply = upgrade(&daemon, "/api/v1/ws", &[]).anonymous().send().await;
    reply.refused(401, "UNAUTHORIZED");
    assert!(reply.header("www-authenticate").is_some());
    upgrade(&daemon, "/api/v1/ws", &[]).key("nwk_x_y").send().await.refused(401, "UNAUTHORIZED");
    upgrade(&daemon, "/api/v1/ws", &[]).key(&writer).send().await.refused(403, "FORBIDDEN");
    let reply = upgrade(&daemon, "/api/v1/ws", &[]).key(&reader).send().await;
    reply.refused(429, "QUOTA_EXCEEDED");
    assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);

    for bad in [
        "types=nope",
        "colour=red",
        "since=noon",
        "earliest=maybe",
        "subscribe=some",
        "echo=loud",
        "channel=a//b",
    ] {
        let reply = upgrade(&daemon, &format!("/api/v1/ws?{bad}"), &[]).send().await;
        reply.refused(400, "BAD_REQUEST");
    }
    let reply = daemon.post("/api/v1/ws").send().await;
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some("GET")));
    // When the connection has ended, its permit is free again.
    only.send_message(Message::Close(None)).await;
    until("a free place", async || daemon.ws("/api/v1/ws").key(&reader).ask().await.ok()).await;
}

#[tokio::test]
async fn ready_gap_replay_caught_up_live_come_in_this_order() {
    let daemon = Daemon::with().env("HEARTBEAT_SECONDS", 17).start().await;
    let ids = daemon.publish_messages(&["a", "b", "c"]).await;

    let mut ws = daemon.ws("/api/v1/ws").open().await;
    let ready = ws.expect("ready").await;
    assert_eq!(
        (&ready["cursor"], &ready["resumed"], &ready["replaying"]),
        (&json!(ids[2]), &json!(false), &json!(0))
    );
    assert_eq!(ready["heartbeat_seconds"], 17);
    assert!(
        ready["connection_id"].as_str().is_some_and(|id| !id.is_empty()) && ready.get("ref").is_none(),
        "{ready}"
    );
    let mut live = vec![ws];

    let mut ws = daemon.ws(&format!("/api/v1/ws?last_event_id={}", ids[0])).open().await;
    let ready = ws.expect("ready").await;
    assert_eq!((&ready["cursor"], &ready["resumed"]), (&json!(ids[0]), &json!(true)));
    assert!(ready["replaying"].as_u64().unwrap() >= 2, "{ready}");
    assert_eq!(ws.expect("message").await["content"], "b");
    assert_eq!(ws.expect("message").await["content"], "c");
    assert_eq!(ws.expect("caught_up").await["cursor"], ids[2].as_str());
    live.push(ws);

    let mut ws = daemon.ws(&format!("/api/v1/ws?after={}", ids[2])).open().await;
    let ready = ws.expect("ready").await;
    assert_eq!((&ready["resumed"], &ready["replaying"]), (&json!(true), &json!(0)), "nothing is to come");
    assert_eq!(ws.expect("caught_up").await["cursor"], ids[2].as_str());
    live.push(ws);

    let mut ws = daemon.ws("/api/v1/ws?last_event_id=nonsense").open().await;
    let ready = ws.expect("ready").await;
    assert_eq!((&ready["resumed"], &ready["replaying"]), (&json!(false), &json!(0)));
    let gap = ws.expect("gap").await;
    assert_eq!(
        (&gap["after"], &gap["reason"], &gap["resumes_at"]),
        (&json!("nonsense"), &json!("unknown_cursor"), &ready["cursor"])
    );
    ws.expect("caught_up").await;
    live.push(ws);

    daemon.publish_messages(&["d"]).await;
    for ws in &mut live {
        assert_eq!(ws.expect("message").await["content"], "d");
    }
}

#[tokio::test]
async fn a_new_filter_applies_exactly_from_its_ready_frame() {
    let daemon = Daemon::start().await;
    let mut ws = daemon.live_ws("/api/v1/ws?channel=a").await;
    let batch: Value = (0..40).map(|n| custom(if n % 2 == 0 { "a" } else { "b" }, json!(n))).collect();
    let publishing = {
        let call = daemon.post("/api/v1/events").json(&batch);
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in 0..25 {
                ids.extend(call.clone().send().await.ids());
            }
            ids
        })
    };
    // During the flood: b, then a again, and so on.
    let (mut got, mut cuts) = (Vec::new(), Vec::new());
    let mut channel = "a";
    for turn in 0..10 {
        got.push(ws.expect("custom").await);
        let next = if channel == "a" { "b" } else { "a" };
        ws.send(&json!({"type": "subscribe", "ref": turn, "channel": next})).await;
        loop {
            let frame = ws.next_json().await;
            if frame["type"] == "ready" {
                assert_eq!((&frame["ref"], &frame["resumed"]), (&json!(turn), &json!(false)), "{frame}");
                cuts.push(frame["cursor"].as_str().unwrap().to_owned());
                break;
            }
            assert_eq!(frame["channel"], channel, "before the ready of {turn}");
            got.push(frame);
        }
        channel = next;
        let seen = ws.expect("custom").await;
        assert_eq!(seen["channel"], channel, "after the ready of {turn}");
        got.push(seen);
    }
    let ids = publishing.await.unwrap();
    daemon.publish(custom(channel, json!("end"))).await;
    loop {
        let frame = ws.expect("custom").await;
        assert_eq!(frame["channel"], channel);
        if frame["data"] == "end" {
            break;
        }
        got.push(frame);
    }
    // Position by position: each filter saw exactly its own events between its `ready` and the next one.
    let mut expected = Vec::new();
    let mut cut = 0;
    for (at, id) in ids.iter().enumerate() {
        let wanted = cut % 2; // even cuts: channel a (even positions)
        if at % 2 == wanted {
            expected.push(id.as_str());
        }
        while cut < cuts.len() && cuts[cut] == *id {
            cut += 1;
        }
    }
    assert_eq!(cut, cuts.len(), "every position given is an event's");
    assert_eq!(got.iter().map(|event| event["id"].as_str().unwrap()).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_subscribe_during_catch_up_keeps_the_position() {
    let daemon = Daemon::start().await;
    let text = "x".repeat(1_000);
    let mut ids = Vec::new();
    for _ in 0..10 {
        let batch: Value =
            (0..1_000).map(|n| custom(if n % 2 == 0 { "a" } else { "b" }, json!(text))).collect();
        ids.extend(daemon.publish(batch).await);
    }
    let mut ws = daemon.ws("/api/v1/ws?earliest=true&channel=a").open().await;
    ws.expect("ready").await;
    ws.send(&json!({"type": "subscribe", "ref": "b", "channel": ["b"]})).await;
    let mut got = Vec::new();
    let cut = loop {
        let frame = ws.next_json().await;
        match frame["type"].as_str().unwrap() {
            "custom" => {
                assert_eq!(frame["channel"], "a");
                got.push(frame["id"].clone());
            }
            "ready" => break frame,
            other => panic!("{other} before the ready"),
        }
    };
    assert!(cut["replaying"].as_u64().unwrap() > 0, "it was still behind: {cut}");
    loop {
        let frame = ws.next_json().await;
        match frame["type"].as_str().unwrap() {
            "custom" => {
                assert_eq!(frame["channel"], "b");
                got.push(frame["id"].clone());
            }
            "caught_up" => break, // the response to `earliest`
            other => panic!("{other} in the replay"),
        }
    }
    let at = ids.iter().position(|id| *id == cut["cursor"]).map_or(0, |at| at + 1);
    let expected = (0..at).filter(|n| n % 2 == 0).chain((at..ids.len()).filter(|n| n % 2 == 1));
    assert_eq!(got, expected.map(|n| json!(ids[n])).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_subscribe_with_a_position_starts_there() {
    let daemon = Daemon::start().await;
    let ids = daemon.publish_messages(&["a", "b", "c"]).await;
    let mut ws = daemon.live_ws("/api/v1/ws").await;
    for (position, first) in [
        (json!({"earliest": true}), 0),
        (json!({"last_event_id": ids[0]}), 1),
        (json!({"since": "2020-01-01T00:00:00Z"}), 0),
        (json!({"last_event_id": ids[1], "since": "2020-01-01T00:00:00Z", "earliest": true}), 2),
        (json!({"last_event_id": "", "earliest": true}), 0),
        (json!({"since": "2090-01-01T00:00:00Z"}), 3),
    ] {
        let mut subscribe = json!({"type": "subscribe", "ref": 1});
        subscribe.as_object_mut().unwrap().extend(position.as_object().unwrap().clone());
        ws.send(&subscribe).await;
        let ready = ws.expect("ready").await;
        assert_eq!(
            ready["resumed"],
            position.get("last_event_id").is_some_and(|id| id != ""),
            "{position} {ready}"
        );
        for content in &["a", "b", "c"][first..] {
            assert_eq!(ws.expect("message").await["content"], *content, "{position}");
        }
        assert_eq!(ws.expect("caught_up").await["cursor"], ids[2].as_str(), "{position}");
    }
    ws.send(&json!({"type": "subscribe", "ref": "f", "types": "custom,error", "last_event_id": "forged"}))
        .await;
    assert_eq!(ws.expect("ready").await["ref"], "f");
    assert_eq!(ws.expect("gap").await["reason"], "unknown_cursor");
    ws.expect("caught_up").await;
    daemon.publish(json!([message("filtered out"), custom("c", json!(1))])).await;
    ws.expect("custom").await;

    for (bad, named) in [
        (json!({"types": ["nope"]}), "nope"),
        (json!({"colour": "red"}), "colour"),
        (json!({"since": "noon"}), "since"),
        (json!({"earliest": "yes"}), "earliest"),
        (json!({"agent_id": 7}), "agent_id"),
    ] {
        let mut subscribe = json!({"type": "subscribe", "ref": 9});
        subscribe.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
        let error = ws.ask(&subscribe).await;
        assert_eq!(
            (&error["type"], &error["code"], &error["ref"]),
            (&json!("error"), &json!("BAD_REQUEST"), &json!(9))
        );
        assert!(error["message"].as_str().unwrap().contains(named), "{error}");
    }
    daemon.publish(custom("c", json!("still"))).await;
    assert_eq!(ws.expect("custom").await["data"], "still", "a refused subscribe changes nothing");
}

#[tokio::test]
async fn a_socket_for_publishing_only_gets_no_event_until_it_subscribes() {
    let daemon = Daemon::start().await;
    let writer = daemon.create_key(json!({"scopes": ["publish:org"]})).await;
    let mut ws = daemon.ws("/api/v1/ws?subscribe=none").key(&writer).open().await;
    assert_eq!(ws.expect("ready").await["replaying"], 0);
    let ack = ws.ask(&json!({"type": "publish", "ref": 1, "event": message("a")})).await;
    assert_eq!((&ack["type"], &ack["ref"]), (&json!("ack"), &json!(1)));
    let error = ws.ask(&json!({"type": "subscribe", "ref": 2})).await;
    assert_eq!((&error["code"], &error["ref"]), (&json!("FORBIDDEN"), &json!(2)));

    let mut ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    daemon.publish_messages(&["unseen"]).await;
    ws.send(&json!({"type": "subscribe", "ref": 3})).await;
    assert_eq!(ws.expect("ready").await["ref"], 3);
    daemon.publish_messages(&["seen"]).await;
    assert_eq!(ws.expect("message").await["content"], "seen");
}

#[tokio::test]
async fn echo_false_hides_the_connections_own_publishes() {
    let daemon = Daemon::start().await;
    let mut loud = daemon.live_ws("/api/v1/ws").await;
    let mut quiet = daemon.live_ws("/api/v1/ws?echo=false").await;
    let ack = quiet.ask(&json!({"type": "publish", "ref": "q", "event": message("from quiet")})).await;
    assert_eq!(ack["type"], "ack", "its own event is not its answer: {ack}");
    let own = loud.expect("message").await;
    assert_eq!((&own["content"], &own["id"]), (&json!("from quiet"), &ack["ids"][0]));

    // With echo, ack and event come in either order.
    loud.send(&json!({"type": "publish", "ref": "l", "event": message("from loud")})).await;
    let (one, other) = (loud.next_json().await, loud.next_json().await);
    let (ack, event) = if one["type"] == "ack" { (one, other) } else { (other, one) };
    assert_eq!((&ack["type"], &ack["ref"], &ack["ids"][0]), (&json!("ack"), &json!("l"), &event["id"]));
    assert_eq!(quiet.expect("message").await["content"], "from loud");

    // Hidden in replay too, as long as the connection is the same.
    quiet.send(&json!({"type": "subscribe", "earliest": true})).await;
    quiet.expect("ready").await;
    assert_eq!(quiet.expect("message").await["content"], "from loud");
    quiet.expect("caught_up").await;
}

#[tokio::test]
async fn each_client_frame_gets_its_answer() {
    let daemon = Daemon::start().await;
    let mut ws = daemon.live_ws("/api/v1/ws").await;
    let pong = ws.ask(&json!({"type": "ping"})).await;
    assert!(pong["type"] == "pong" && is_timestamp(pong["timestamp"].as_str().unwrap()), "{pong}");
    ws.send(&json!({"type": "pong"})).await;
    ws.send_message(Message::Ping("payload".into())).await;
    assert_eq!(ws.next_message().await, Some(Message::Pong("payload".into())));

    for reference in [json!(0), json!(u64::MAX), json!("r"), json!("x".repeat(64))] {
        let error = ws.ask(&json!({"type": "cancel", "request_id": "r", "ref": reference})).await;
        assert_eq!((&error["code"], &error["ref"]), (&json!("NOT_FOUND"), &reference), "{error}");
    }
    let mut writer = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    let ack = writer.ask(&json!({"type": "publish", "events": [message("a"), message("b")]})).await;
    assert_eq!((&ack["type"], ack["ids"].as_array().unwrap().len()), (&json!("ack"), 2));
    assert!(ack.get("ref").is_none_or(Value::is_null), "{ack}");
    assert_eq!(ws.expect("message").await["id"], ack["ids"][0]);
    assert_eq!(ws.expect("message").await["id"], ack["ids"][1]);

    // Many at once: each ref is acknowledged once, with ids in the order of publishing.
    for n in 0..500 {
        writer.send(&json!({"type": "publish", "ref": n, "event": custom("n", json!(n))})).await;
    }
    let mut acked = Vec::new();
    for _ in 0..500 {
        let ack = writer.expect("ack").await;
        acked.push((ack["ref"].as_u64().unwrap(), ack["ids"][0].clone()));
    }
    for (n, (reference, id)) in acked.into_iter().enumerate() {
        assert_eq!(reference, n as u64);
        let event = ws.expect("custom").await;
        assert_eq!((&event["id"], &event["data"]), (&id, &json!(n)));
    }
}

#[tokio::test]
async fn a_bad_frame_gets_an_error_and_ten_in_a_row_end_the_connection() {
    let daemon = Daemon::start().await;
    let mut ws = daemon.live_ws("/api/v1/ws").await;
    let bad = [
        "",
        "{",
        "[]",
        "\"ping\"",
        "{}",
        r#"{"type":"dance","ref":5}"#,
        r#"{"type":"ping","colour":1,"ref":5}"#,
        r#"{"type":"ping","ref":-1}"#,
        r#"{"type":"publish","ref":5}"#,
    ];
    for _ in 0..2 {
        for text in bad {
            ws.send_text(text).await;
            let error = ws.expect("error").await;
            assert_eq!(error["code"], "BAD_REQUEST", "{text}");
            assert_eq!(error.get("ref"), text.contains("\"ref\":5").then_some(&json!(5)), "{text} {error}");
        }
        assert_eq!(ws.ask(&json!({"type": "ping"})).await["type"], "pong", "a good one ends the row");
    }
    for _ in 0..10 {
        ws.send_text("nonsense").await;
        ws.expect("error").await;
    }
    assert_eq!(ws.closed().await.0, 1008);
}

#[tokio::test]
async fn exceeding_the_publish_rate_is_an_error_and_a_hundred_times_ends_the_connection() {
    let daemon = Daemon::with().env("LIMITS__PUBLISH_PER_SECOND", 1).start().await;
    let ann = daemon.user_token("ann").await;
    let mut ws = daemon.ws("/api/v1/ws?subscribe=none").key(&ann).open().await;
    ws.expect("ready").await;
    // Twice the rate at once, and nothing more until it has recovered.
    let publish = |n: u64| json!({"type": "publish", "ref": n, "events": [custom("c", json!(n)), custom("c", json!(n))]});
    ws.send(&publish(0)).await;
    ws.expect("ack").await;
    for n in 1..=100 {
        ws.try_send(&publish(n)).await;
    }
    for n in 1..=100 {
        let error = ws.expect("error").await;
        assert_eq!((&error["code"], &error["ref"]), (&json!("QUOTA_EXCEEDED"), &json!(n)), "{error}");
        assert!((1..=2).contains(&error["details"]["retry_after"].as_u64().unwrap()), "{error}");
    }
    assert_eq!(ws.closed().await.0, 1013);

    // A service that may publish for the organization has no rate limit.
    let mut ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    for n in 0..200 {
        ws.send(&publish(n)).await;
    }
    for n in 0..200 {
        assert_eq!(ws.expect("ack").await["ref"], n);
    }
}

#[tokio::test]
async fn a_heartbeat_is_a_ping_and_a_json_ping_with_the_cursor_in_one_write() {
    let daemon = Daemon::with().env("HEARTBEAT_SECONDS", 1).start().await;
    let mut ws = daemon.live_ws("/api/v1/ws?channel=never").await;
    let ids = daemon.publish_messages(&["not for it"]).await;
    let mut bytes = vec![0; 4_096];
    let read = within("a heartbeat", ws.socket().read(&mut bytes)).await.unwrap();
    assert_eq!(bytes[..2], [0x89, 0], "a Ping first");
    assert_eq!(bytes[2], 0x81, "a text frame right behind it, in one read");
    let ping: Value = serde_json::from_slice(&bytes[4..read]).unwrap();
    assert!(ping["type"] == "ping" && is_timestamp(ping["timestamp"].as_str().unwrap()), "{ping}");
    assert_eq!(ping["cursor"], ids[0].as_str(), "young although nothing was for it");

    // A peer that responds with a protocol Pong or a JSON pong stays connected.
    for _ in 0..4 {
        assert_eq!(ws.next_frame().await["type"], "ping");
        ws.send(&json!({"type": "pong"})).await;
    }
    assert_eq!(ws.ask(&json!({"type": "ping"})).await["type"], "pong");
}

#[tokio::test]
async fn a_silent_peer_is_closed_even_while_it_is_written_to() {
    let daemon = Daemon::with().env("HEARTBEAT_SECONDS", 1).start().await;
    let mut silent = daemon.live_ws("/api/v1/ws").await;
    let key = daemon.key.clone();
    let call = daemon.post("/api/v1/events").key(&key).json(&message("ours does not count"));
    let writing = tokio::spawn(async move {
        loop {
            call.clone().send().await;
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    });
    assert_eq!(raw_close(silent.socket()).await.0, 4440);
    writing.abort();
    let reason = "nervewire_closed_total{reason=\"heartbeat_missed\"}";
    until("the reason in the metrics", async || (daemon.metric(reason).await == 1.0).then_some(())).await;
}

#[tokio::test]
async fn the_peers_close_code_is_echoed() {
    let daemon = Daemon::start().await;
    for code in [1000, 1001, 1011, 3000, 4999] {
        let mut ws = daemon.live_ws("/api/v1/ws").await;
        let frame = CloseFrame { code: code.into(), reason: "bye".into() };
        ws.send_message(Message::Close(Some(frame))).await;
        assert_eq!(ws.closed().await.0, code);
    }
    let mut ws = daemon.live_ws("/api/v1/ws").await;
    ws.socket().write_all(&masked(0x88, b"")).await.unwrap();
    let mut bytes = Vec::new();
    within("the end", ws.socket().read_to_end(&mut bytes)).await.unwrap();
    assert_eq!(bytes, [0x88, 0], "an empty close for an empty close, then the end of the connection");
}

#[tokio::test]
async fn violations_have_their_close_codes() {
    let daemon =
        Daemon::with().env("LIMITS__WS_FRAME_BYTES", 1_024).env("LIMITS__EVENT_BYTES", 1_024).start().await;
    let unmasked = b"\x81\x0f{\"type\":\"ping\"}".to_vec();
    let too_large = masked(0x81, &vec![b' '; 1_025]);
    let fragments = [masked(0x01, &[b' '; 1_000]), masked(0x80, &[b' '; 100])].concat();
    let cases: [(&str, Vec<u8>, u16); 9] = [
        ("unmasked", unmasked, 1002),
        ("reserved bit", masked(0xC1, b"{}"), 1002),
        ("unknown opcode", masked(0x83, b""), 1002),
        ("a continuation of nothing", masked(0x80, b""), 1002),
        ("a fragmented ping", masked(0x09, b""), 1002),
        ("binary", masked(0x82, b"{}"), 1003),
        ("no UTF-8", masked(0x81, b"\xff"), 1007),
        ("too large", too_large, 1009),
        ("too large in fragments", fragments, 1009),
    ];
    for (what, bytes, code) in cases {
        let mut ws = daemon.live_ws("/api/v1/ws").await;
        ws.socket().write_all(&bytes).await.unwrap();
        assert_eq!(raw_close(ws.socket()).await.0, code, "{what}");
    }
    // A message in many fragments with a ping between them is accepted.
    let mut ws = daemon.live_ws("/api/v1/ws").await;
    let mut bytes = masked(0x01, b"{\"type\"");
    bytes.extend(masked(0x89, b"x"));
    bytes.extend(masked(0x00, b":\"pi"));
    bytes.extend(masked(0x80, b"ng\"}"));
    ws.socket().write_all(&bytes).await.unwrap();
    assert_eq!(ws.next_message().await, Some(Message::Pong("x".into())));
    ws.expect("pong").await;
}

/// If a socket with unread input is closed, the kernel sends a reset: a client that is writing fails there
/// and never reads the close frame.
#[tokio::test]
async fn a_violation_followed_by_data_ends_with_a_close_frame() {
    let daemon = Daemon::start().await;
    let mut ws = daemon.live_ws("/api/v1/ws").await;
    let mut bytes = masked(0x82, b"{}");
    bytes.resize(512 * 1024, 0);
    ws.socket().write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    within("the end", ws.socket().read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer[..1], [0x88], "a close frame");
    assert_eq!(answer[2..4], 1003_u16.to_be_bytes());
    ws.socket().write_all(&bytes).await.expect("what is still written is thrown away, not reset");
}

#[tokio::test]
async fn a_kick_and_a_stop_have_their_close_codes() {
    let mut daemon = Daemon::with().env("DRAIN_SECONDS", 0).start().await;
    let mut ws = daemon.ws("/api/v1/ws").open().await;
    let id = ws.expect("ready").await["connection_id"].as_str().unwrap().to_owned();
    let reply = daemon.call("DELETE", &format!("/api/v1/connections/{id}")).send().await;
    assert_eq!(reply.status, 204, "{reply:?}");
    assert_eq!(ws.closed().await.0, 4403);

    let mut ws = daemon.live_ws("/api/v1/ws").await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    daemon.signal(Signal::TERM);
    assert_eq!(ws.closed().await.0, 1012);
    let closing = sse.next().await.named("closing");
    assert_eq!((&closing["type"], &closing["code"]), (&json!("error"), &json!("UNAVAILABLE")));
    assert_eq!(sse.next_block().await, None);
    assert_eq!(daemon.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_peer_that_reads_nothing_until_the_write_timeout_is_reset() {
    let daemon = Daemon::with().env("WRITE_TIMEOUT_MS", 2_000).start().await;
    let mut ws = daemon.live_ws("/api/v1/ws").await;
    let text = "x".repeat(60_000);
    let batch: Value = (0..60).map(|_| custom("c", json!(text))).collect();
    daemon.publish(batch).await; // far more than a socket's buffers hold
    // Frames that the peer sends meanwhile, and our responses to them, are not write progress. Either the
    // daemon or the kernel (`TCP_USER_TIMEOUT`) may notice first.
    let ping = masked(0x81, b"{\"type\":\"ping\"}");
    for pings in 0.. {
        let stalled = daemon.metric("nervewire_closed_total{reason=\"stalled\"}").await;
        let peer = daemon.metric("nervewire_closed_total{reason=\"peer\"}").await;
        if stalled + peer >= 1.0 {
            break;
        }
        assert!(pings < 60, "its pings keep a peer that reads nothing");
        let _ = ws.socket().write_all(&ping).await; // may meet the reset
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut rest = Vec::new();
    let end = within("the reset", ws.socket().read_to_end(&mut rest)).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

async fn renew(ws: &mut Ws, token: &str, reference: Value) {
    ws.send(&json!({"type": "auth", "token": token, "ref": reference})).await;
}

#[tokio::test]
async fn a_credential_is_renewed_in_place_for_the_same_subject_only() {
    let daemon = Daemon::with().env("HEARTBEAT_SECONDS", 3).start().await;
    let mint = |sub: &'static str, more: Value| daemon.mint_token(&daemon.key, sub, more);
    let user = json!({"roles": ["user"]});
    let short = mint("ann", json!({"roles": ["user"], "expires_in_seconds": 3})).await;
    let doomed = mint("ann", json!({"roles": ["user"], "expires_in_seconds": 3})).await;
    let mut ws = daemon.ws("/api/v1/ws").key(&short).open().await;
    ws.expect("ready").await;
    let mut left = daemon.ws("/api/v1/ws").key(&doomed).open().await;
    left.expect("ready").await;

    renew(&mut ws, "nonsense", json!(1)).await;
    let error = ws.expect("error").await;
    assert_eq!((&error["code"], &error["ref"]), (&json!("UNAUTHORIZED"), &json!(1)));
    renew(&mut ws, &mint("ann", user.clone()).await, json!("two")).await;
    assert_eq!(ws.expect("ack").await, json!({"type": "ack", "ref": "two", "ids": []}));
    // The connection that was not renewed ends; the other one outlives its first credential.
    assert_eq!(left.closed().await.0, 4401);
    ws.next_frame().await;
    daemon.publish(custom("c", json!("alive"))).await;
    assert_eq!(ws.expect("custom").await["data"], "alive");

    // The narrowing applies to the very next frame.
    let narrow = mint("ann", json!({"scopes": ["subscribe"], "channels": ["only"]})).await;
    renew(&mut ws, &narrow, json!(3)).await;
    ws.expect("ack").await;
    daemon.publish(json!([custom("c", json!(1)), custom("only", json!(2))])).await;
    assert_eq!(ws.expect("custom").await["data"], 2);
    let error = ws.ask(&json!({"type": "publish", "ref": 4, "event": custom("only", json!(1))})).await;
    assert_eq!((&error["code"], &error["ref"]), (&json!("FORBIDDEN"), &json!(4)));

    renew(&mut ws, &mint("bob", user.clone()).await, json!(5)).await;
    assert_eq!(ws.closed().await.0, 4403);
    let other = daemon.create_org("other").await;
    let abroad = daemon.mint_token(&other, "ann", user.clone()).await;
    let mut ws = daemon.ws("/api/v1/ws").key(&mint("ann", user).await).open().await;
    ws.expect("ready").await;
    renew(&mut ws, &abroad, json!(6)).await;
    assert_eq!(ws.closed().await.0, 4403);
}

/// Some frames need a read from the log or the store. Frames sent after them wait and are not lost.
#[tokio::test]
async fn frames_sent_together_are_answered_in_order() {
    let daemon = Daemon::start().await;
    daemon.publish_messages(&["old"]).await;
    let mut ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    let named = |id: u64| {
        let mut event = message("named");
        event["message_id"] = format!("m-{id}").into();
        event
    };
    let mut bytes = Vec::new();
    for n in 0..50 {
        let frames = [
            json!({"type": "publish", "ref": format!("p{n}"), "event": named(n / 2)}),
            json!({"type": "cancel", "ref": format!("c{n}"), "request_id": "r"}),
            json!({"type": "subscribe", "ref": format!("s{n}"), "channel": "none", "since": "2020-01-01T00:00:00Z"}),
        ];
        for frame in frames {
            bytes.extend(masked(0x81, frame.to_string().as_bytes()));
        }
    }
    ws.socket().write_all(&bytes).await.unwrap();
    let mut answers = Vec::new();
    let mut ids = Vec::new();
    while answers.len() < 150 {
        let frame = ws.next_json().await;
        match frame["type"].as_str().unwrap() {
            "caught_up" => continue,
            "ack" => ids.push(frame["ids"][0].clone()),
            "error" => assert_eq!(frame["code"], "NOT_FOUND"),
            "ready" => {}
            other => panic!("{other}"),
        }
        answers.push(frame["ref"].as_str().unwrap().to_owned());
    }
    let expected = (0..50).flat_map(|n| [format!("p{n}"), format!("c{n}"), format!("s{n}")]);
    assert!(answers.iter().cloned().eq(expected), "{answers:?}");
    assert!(ids.chunks(2).all(|twins| twins[0] == twins[1]), "the second of each pair was a repeat");
}

/// The publisher's own events block its socket while it continues to publish. Every ack arrives later, once.
#[tokio::test]
async fn a_publisher_that_reads_late_gets_all_its_acks() {
    let daemon = Daemon::start().await;
    let mut ws = daemon.ws("/api/v1/ws").ask_on(daemon.small_buffer_connection().await).await.ok().unwrap();
    ws.expect("ready").await;
    let text = "x".repeat(3_000);
    for n in 0..800 {
        ws.send(&json!({"type": "publish", "ref": n, "event": custom("c", json!([n, text]))})).await;
    }
    let (mut acks, mut events) = (Vec::new(), Vec::new());
    while acks.len() < 800 || events.len() < 800 {
        let frame = ws.next_json().await;
        match frame["type"].as_str().unwrap() {
            "ack" => {
                assert_eq!(frame["ref"], acks.len(), "acks in the order of publishing");
                acks.push(frame["ids"][0].clone());
            }
            "custom" => {
                assert_eq!(frame["data"][0], events.len());
                events.push(frame["id"].clone());
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(acks, events);
}
