//! Publishing for clients (protocol §2, §3, §8 first bullet): every kind of event, every way to publish,
//! every refusal with its code, and repeated requests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::{Daemon, chunk, custom, message, within};
use nervewire::event::EventKind;
use serde_json::{Value, json};
use tokio::process::Command;

/// One event of each kind, with every optional field. Some values are at an edge.
fn all_kinds() -> Vec<Value> {
    let edges = json!({
        "content": "grüße\n\"😀\"", "metadata": {"model": "x", "n": [1, 2.5, null], "a": {"b": {}}}, "chunk": "",
        "index": u64::MAX, "channel": "a/b/c", "data": [null, {"x": "y"}],
    });
    let whole = |kind: EventKind| {
        let mut event: Value = serde_json::from_str(&kind.whole_example()).unwrap();
        for (name, edge) in edges.as_object().unwrap() {
            if let Some(value) = event.get_mut(name) {
                *value = edge.clone();
            }
        }
        event
    };
    EventKind::ALL.map(whole).into()
}

/// The event without its id.
fn without_id(mut event: Value) -> Value {
    event.as_object_mut().unwrap().remove("id").expect("an id");
    event
}

#[tokio::test]
async fn every_event_type_arrives_as_published_over_every_transport() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    let mut ws = daemon.live_ws("/api/v1/ws?echo=false").await;
    let kinds = all_kinds();

    for event in &kinds {
        let ids = daemon.publish(event.clone()).await;
        assert_eq!(ids.len(), 1);
        let got = sse.next_event().await;
        assert_eq!(got["id"], ids[0].as_str());
        assert_eq!(without_id(got.clone()), *event);
        assert_eq!(ws.next_json().await, got);
    }
    // A message_id deduplicates, so the array, the lines and the socket need different ones.
    let renamed = |name: &str| {
        let mut events = kinds.clone();
        events[0]["message_id"] = name.into();
        events
    };

    let events = renamed("m-array");
    let ids = daemon.publish(events.clone().into()).await;
    let got = sse.events(kinds.len()).await;
    assert_eq!(got.iter().map(|event| event["id"].clone()).collect::<Vec<_>>(), ids);
    assert_eq!(got.into_iter().map(without_id).collect::<Vec<_>>(), events);

    let events = renamed("m-lines");
    let lines: String = events.iter().map(|event| format!("{event}\n\r\n  \n")).collect();
    let reply = daemon.post("/api/v1/events").body("application/x-ndjson", lines).send().await;
    assert_eq!((reply.status.as_u16(), reply.ids().len()), (201, kinds.len()), "{reply:?}");
    assert_eq!(sse.events(kinds.len()).await.into_iter().map(without_id).collect::<Vec<_>>(), events);
    for _ in 0..2 * kinds.len() {
        ws.next_json().await;
    }

    let events = renamed("m-ws");
    ws.send(&json!({"type": "publish", "ref": "all", "events": events})).await;
    let ack = ws.expect("ack").await;
    assert_eq!((&ack["ref"], ack["ids"].as_array().unwrap().len()), (&json!("all"), kinds.len()));
    assert_eq!(sse.events(kinds.len()).await.into_iter().map(without_id).collect::<Vec<_>>(), events);

    for (at, event) in renamed("m-cli").iter().enumerate() {
        let done = daemon.cli(&["publish", &event.to_string()]).await;
        assert!(done.status.success(), "{at}: {done:?}");
        assert_eq!(without_id(sse.next_event().await), *event);
    }
}

#[tokio::test]
async fn the_command_line_publishes_from_flags_and_from_lines() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    for (flags, part) in [
        (
            &["--channel", "chat", "--data", "{\"n\":1}"][..],
            json!({"type": "custom", "channel": "chat", "data": {"n": 1}}),
        ),
        (
            &["--agent", "a", "--user", "u", "--content", "hi", "--role", "user"],
            json!({"type": "message", "agent_id": "a", "user_id": "u", "content": "hi", "role": "user"}),
        ),
        (&["--agent", "a", "--status", "thinking"], json!({"type": "agent_update", "status": "thinking"})),
        (
            &["--request", "r", "--chunk", "", "--final"],
            json!({"type": "stream_chunk", "chunk": "", "is_final": true}),
        ),
    ] {
        let done = daemon.cli(&[&["publish"], flags].concat()).await;
        assert!(done.status.success(), "{flags:?}: {done:?}");
        let event = sse.next_event().await;
        for (name, value) in part.as_object().unwrap() {
            assert_eq!(event[name], *value, "{flags:?}");
        }
    }
    let mut command = Command::new("sh");
    command.args(["-c", r#"for n in 1 2 3; do echo "{\"type\":\"custom\",\"channel\":\"n\",\"data\":$n}"; done | "$0" publish -"#]);
    command
        .arg(env!("CARGO_BIN_EXE_nervewire"))
        .env("NERVEWIRE_URL", daemon.url())
        .env("NERVEWIRE_KEY", &daemon.key);
    let done = within("publish -", command.kill_on_drop(true).output()).await.unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(
        sse.events(3).await.iter().map(|event| event["data"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 3]
    );
}

#[tokio::test]
async fn the_server_sets_timestamp_and_message_id_where_they_are_absent() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    let before = jiff::Timestamp::now();
    daemon.publish(message("a")).await;
    let event = sse.next_event().await;
    let stamp = event["timestamp"].as_str().unwrap();
    assert!(common::is_timestamp(stamp), "{stamp}");
    let stamp: jiff::Timestamp = stamp.parse().unwrap();
    assert!(stamp.as_millisecond() >= before.as_millisecond() && stamp <= jiff::Timestamp::now(), "{stamp}");
    assert!(event["message_id"].as_str().unwrap().starts_with("msg-"), "{event}");
    daemon
        .publish(
            json!({"type": "custom", "channel": "c", "data": 1, "timestamp": "2026-01-02T04:04:05+01:00"}),
        )
        .await;
    assert_eq!(sse.next_event().await["timestamp"], "2026-01-02T03:04:05.000Z", "UTC with milliseconds");
}

#[tokio::test]
async fn errors_name_what_is_wrong_with_an_event() {
    let daemon = Daemon::start().await;
    let long = "x".repeat(201);
    let big = json!({"k": "x".repeat(8 * 1024)});
    let cases = [
        (json!({"agent_id": "a"}), "type"),
        (json!({"type": "nope"}), "type"),
        (json!({"type": "ping"}), "type"),
        (json!({"type": "message", "user_id": "u", "content": "x"}), "agent_id"),
        (json!({"type": "message", "agent_id": "a", "user_id": "u"}), "content"),
        (json!({"type": "message", "agent_id": "a", "user_id": "u", "content": 7}), "content"),
        (
            json!({"type": "message", "agent_id": "a", "user_id": "u", "content": "x", "role": "robot"}),
            "role",
        ),
        (json!({"type": "message", "agent_id": "a", "user_id": "u", "content": "x", "colour": 1}), "colour"),
        (json!({"type": "message", "agent_id": "a", "user_id": "u", "content": "x", "id": "C"}), "id"),
        (
            json!({"type": "message", "agent_id": "a", "user_id": "u", "content": "x", "status": "idle"}),
            "status",
        ),
        (
            json!({"type": "message", "agent_id": "a", "user_id": "u", "content": "x", "metadata": []}),
            "metadata",
        ),
        (
            json!({"type": "message", "agent_id": "a", "user_id": "u", "content": "x", "metadata": big}),
            "metadata",
        ),
        (
            json!({"type": "message", "agent_id": "a", "user_id": "u", "content": "x", "timestamp": "noon"}),
            "timestamp",
        ),
        (json!({"type": "agent_update", "agent_id": "a"}), "status"),
        (json!({"type": "agent_update", "agent_id": "a", "status": "dancing"}), "status"),
        (json!({"type": "agent_update", "agent_id": "a", "status": "idle", "user_id": "u"}), "user_id"),
        (json!({"type": "memory_update", "agent_id": "a", "operation": "created"}), "memory_id"),
        (
            json!({"type": "memory_update", "memory_id": "m", "agent_id": "a", "operation": "eaten"}),
            "operation",
        ),
        (json!({"type": "stream_chunk", "chunk": "", "is_final": false}), "request_id"),
        (json!({"type": "stream_chunk", "request_id": "r", "is_final": false}), "chunk"),
        (json!({"type": "stream_chunk", "request_id": "r", "chunk": ""}), "is_final"),
        (json!({"type": "stream_chunk", "request_id": "r", "chunk": "", "is_final": "no"}), "is_final"),
        (
            json!({"type": "stream_chunk", "request_id": "r", "chunk": "", "is_final": true, "index": -1}),
            "index",
        ),
        (json!({"type": "error", "message": "m"}), "code"),
        (json!({"type": "error", "code": "C"}), "message"),
        (json!({"type": "custom", "data": 1}), "channel"),
        (json!({"type": "custom", "channel": "c"}), "data"),
        (json!({"type": "custom", "channel": long, "data": 1}), "channel"),
        (json!({"type": "custom", "channel": "a//b", "data": 1}), "channel"),
    ];
    for (event, field) in &cases {
        let reply = daemon.post("/api/v1/events").json(event).send().await;
        let body = reply.refused(400, "VALIDATION_ERROR");
        assert_eq!(body["details"]["field"], *field, "{event}");
        assert!(body["details"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()));
    }
    // The same over a WebSocket, and as the fourth event of a batch, where the error names the item too.
    let good = message("fine");
    let mut ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    for (at, (event, field)) in cases.iter().enumerate() {
        let error = ws.ask(&json!({"type": "publish", "ref": at, "event": event})).await;
        assert_eq!(
            (&error["type"], &error["code"], &error["ref"], &error["details"]["field"]),
            (&json!("error"), &json!("VALIDATION_ERROR"), &json!(at), &json!(field)),
            "{event} {error}"
        );
        let batch = json!([good, good, good, event]);
        let reply = daemon.post("/api/v1/events").json(&batch).send().await;
        assert_eq!(reply.refused(400, "VALIDATION_ERROR")["details"]["field"], format!("[3].{field}"));
        let error = ws.ask(&json!({"type": "publish", "ref": "b", "events": batch})).await;
        assert_eq!(error["details"]["field"], format!("[3].{field}"), "{error}");
    }
    for (body, field) in [("[]", ""), ("", ""), ("17", ""), ("[7]", "[0]"), ("{\"type\":\"message\"", "")] {
        let reply = daemon.post("/api/v1/events").body("application/json", body).send().await;
        assert_eq!(reply.refused(400, "VALIDATION_ERROR")["details"]["field"], field, "{body}");
    }
    let twice = r#"{"type":"custom","channel":"a","channel":"b","data":1}"#;
    let reply = daemon.post("/api/v1/events").body("application/json", twice).send().await;
    assert_eq!(reply.refused(400, "VALIDATION_ERROR")["details"]["field"], "channel");
    // None of these events was published.
    let page = daemon.get("/api/v1/events?earliest=true").send().await.json();
    assert_eq!(page["data"], json!([]));
}

#[tokio::test]
async fn a_batch_is_accepted_or_refused_as_a_whole() {
    let daemon = Daemon::start().await;
    let mut lines = vec![custom("c", json!(0)).to_string(); 1_000];
    lines[999] = json!({"type": "custom", "channel": "c"}).to_string();
    let reply = daemon.post("/api/v1/events").body("application/x-ndjson", lines.join("\n")).send().await;
    assert_eq!(reply.refused(400, "VALIDATION_ERROR")["details"]["field"], "[999].data");
    // Only the last check finds an unpaired surrogate.
    let bad = r#"[{"type":"custom","channel":"c","data":1},{"type":"custom","channel":"c","data":"\ud800"}]"#;
    let reply = daemon.post("/api/v1/events").body("application/json", bad).send().await;
    assert_eq!(reply.refused(400, "VALIDATION_ERROR")["details"]["field"], "[1].data");

    let user = daemon.user_token("ann").await;
    let batch = json!([custom("c", json!(1)), message("for somebody else")]);
    let reply = daemon.post("/api/v1/events").key(&user).json(&batch).send().await;
    reply.refused(403, "FORBIDDEN");
    let page = daemon.get("/api/v1/events?earliest=true").send().await.json();
    assert_eq!(page["data"], json!([]));
}

#[tokio::test]
async fn a_batch_has_at_most_a_thousand_events() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    let most: Vec<Value> = (0..1_000).map(|n| custom("c", json!(n))).collect();
    let ids = daemon.publish(most.clone().into()).await;
    assert_eq!(ids.len(), 1_000);
    let got = sse.events(1_000).await;
    assert!(got.iter().enumerate().all(|(n, event)| event["data"] == n && event["id"] == ids[n].as_str()));

    let mut more = most;
    more.push(custom("c", json!(1_000)));
    daemon.post("/api/v1/events").json(&more.clone().into()).send().await.refused(400, "VALIDATION_ERROR");
    let lines: String = more.iter().map(|event| format!("{event}\n\n")).collect();
    let reply = daemon.post("/api/v1/events").body("application/x-ndjson", lines).send().await;
    reply.refused(400, "VALIDATION_ERROR");
    let mut ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    let error = ws.ask(&json!({"type": "publish", "ref": 1, "events": more})).await;
    assert_eq!((&error["type"], &error["ref"]), (&json!("error"), &json!(1)), "{error}");
    assert_eq!(daemon.metric("nervewire_published_total").await, 1_000.0);
}

#[tokio::test]
async fn values_just_under_each_size_limit_are_accepted() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    let fits = "x".repeat(65_000);
    daemon.publish(custom("c", json!(fits))).await;
    assert_eq!(sse.next_event().await["data"], fits.as_str());
    let over = custom("c", json!("x".repeat(66_000)));
    daemon.post("/api/v1/events").json(&over).send().await.refused(413, "PAYLOAD_TOO_LARGE");
    let batch = json!([message("ok"), over]);
    let body = daemon.post("/api/v1/events").json(&batch).send().await.refused(413, "PAYLOAD_TOO_LARGE");
    assert_eq!(body["details"]["field"], "[1]", "{body}");
    let mut ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    let error = ws.ask(&json!({"type": "publish", "ref": 1, "event": over})).await;
    assert_eq!((&error["code"], &error["ref"]), (&json!("PAYLOAD_TOO_LARGE"), &json!(1)), "{error}");

    // 8 KiB of metadata, white space not counted.
    let metadata = json!({"k": "x".repeat(8 * 1024 - 8)});
    let mut event = message("with metadata");
    event["metadata"] = metadata.clone();
    daemon.publish(event).await;
    assert_eq!(sse.next_event().await["metadata"], metadata);

    let body = "x".repeat((4 << 20) + 1);
    let reply = daemon.post("/api/v1/events").body("application/json", body).send().await;
    reply.refused(413, "PAYLOAD_TOO_LARGE");
}

#[tokio::test]
async fn bodies_are_json_or_ndjson_only() {
    let daemon = Daemon::start().await;
    let event = custom("c", json!(1)).to_string();
    for good in
        ["application/json", "Application/JSON; charset=utf-8", "application/x-ndjson", "application/ndjson"]
    {
        let reply = daemon.post("/api/v1/events").body(good, event.clone()).send().await;
        assert_eq!(reply.status, 201, "{good}: {reply:?}");
    }
    for bad in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"] {
        let reply = daemon.post("/api/v1/events").body(bad, event.clone()).send().await;
        assert_eq!(reply.status, 415, "{bad}");
        assert!(reply.json()["code"].is_string() && reply.json()["details"].is_null());
    }
    let reply = daemon.post("/api/v1/events").body("application/json", &b"\"\xff\""[..]).send().await;
    reply.refused(400, "VALIDATION_ERROR");
    daemon
        .post("/api/v1/events?colour=red")
        .json(&custom("c", json!(1)))
        .send()
        .await
        .refused(400, "BAD_REQUEST");
    daemon
        .post("/api/v1/events?ack=never")
        .json(&custom("c", json!(1)))
        .send()
        .await
        .refused(400, "BAD_REQUEST");
    let reply = daemon.call("DELETE", "/api/v1/events").send().await;
    assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some("GET, HEAD, POST")));
    daemon
        .post("/api/v1/events")
        .anonymous()
        .json(&custom("c", json!(1)))
        .send()
        .await
        .refused(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn ack_memory_answers_201() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    let reply = daemon.post("/api/v1/events?ack=memory").json(&message("quick")).send().await;
    assert_eq!(reply.status, 201);
    assert_eq!(sse.next_event().await["id"], reply.ids()[0].as_str());
    let mut ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    let ack = ws.ask(&json!({"type": "publish", "event": message("quick"), "ack": "memory"})).await;
    assert_eq!(sse.next_event().await["id"], ack["ids"][0], "{ack}");
}

#[tokio::test]
async fn a_user_publishes_only_in_their_own_name() {
    let daemon = Daemon::start().await;
    let ann = daemon.user_token("ann").await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    let mut ws = daemon.ws("/api/v1/ws?subscribe=none").key(&ann).open().await;
    ws.expect("ready").await;
    let nobodys = [
        json!({"type": "message", "agent_id": "a", "content": "x"}),
        json!({"type": "memory_update", "memory_id": "m", "agent_id": "a", "operation": "created"}),
        chunk("r", "x", 0),
        json!({"type": "error", "code": "C", "message": "m"}),
        custom("c", json!(1)),
    ];
    for event in &nobodys {
        daemon.publish_as(&ann, event.clone()).await;
        assert_eq!(sse.next_event().await["user_id"], "ann", "{event}");
        ws.send(&json!({"type": "publish", "event": event})).await;
        ws.expect("ack").await;
        assert_eq!(sse.next_event().await["user_id"], "ann", "{event}");
        let mut named = event.clone();
        named["user_id"] = "ann".into();
        daemon.publish_as(&ann, named.clone()).await;
        assert_eq!(sse.next_event().await["user_id"], "ann", "{event}");
        named["user_id"] = "bob".into();
        daemon.post("/api/v1/events").key(&ann).json(&named).send().await.refused(403, "FORBIDDEN");
        let error = ws.ask(&json!({"type": "publish", "ref": 7, "event": named})).await;
        assert_eq!((&error["code"], &error["ref"]), (&json!("FORBIDDEN"), &json!(7)), "{error}");
    }
    // An event kind without a user is visible to all, so a user may not publish it.
    let update = json!({"type": "agent_update", "agent_id": "a", "status": "idle"});
    daemon.post("/api/v1/events").key(&ann).json(&update).send().await.refused(403, "FORBIDDEN");
    assert_eq!(daemon.metric("nervewire_published_total").await, 15.0);
}

#[tokio::test]
async fn a_key_without_a_user_publishes_only_with_publish_org() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    let own = daemon.create_key(json!({"scopes": ["publish", "read:all"]})).await;
    for event in [
        message("x"),
        custom("c", json!(1)),
        json!({"type": "agent_update", "agent_id": "a", "status": "idle"}),
    ] {
        daemon.post("/api/v1/events").key(&own).json(&event).send().await.refused(403, "FORBIDDEN");
    }
    let reader = daemon.create_key(json!({"scopes": ["subscribe", "read:all"]})).await;
    daemon
        .post("/api/v1/events")
        .key(&reader)
        .json(&custom("c", json!(1)))
        .send()
        .await
        .refused(403, "FORBIDDEN");
    let org = daemon.create_key(json!({"scopes": ["publish:org"]})).await;
    for event in all_kinds() {
        daemon.publish_as(&org, event.clone()).await;
        assert_eq!(without_id(sse.next_event().await), event);
    }
    daemon.publish_as(&org, json!({"type": "message", "agent_id": "a", "content": "to all"})).await;
    assert!(sse.next_event().await.get("user_id").is_none());

    let narrow = daemon
        .create_key(json!({"scopes": ["publish:org"], "channels": ["in/*"], "types": ["custom"]}))
        .await;
    daemon.publish_as(&narrow, custom("in/side", json!(1))).await;
    for event in [custom("in", json!(1)), custom("out", json!(1)), message("x")] {
        daemon.post("/api/v1/events").key(&narrow).json(&event).send().await.refused(403, "FORBIDDEN");
    }
}

#[tokio::test]
async fn a_repeat_with_the_same_idempotency_key_gets_the_first_response() {
    let mut daemon = Daemon::start().await;
    let body = json!([custom("c", json!(1)), message("two")]);
    let post = |daemon: &Daemon, key: &str, body: &Value| {
        daemon.post("/api/v1/events").header("idempotency-key", key).json(body)
    };
    let first = post(&daemon, "k-1", &body).send().await;
    assert_eq!((first.status.as_u16(), first.header("idempotent-replayed")), (201, None));
    let again = post(&daemon, "k-1", &body).send().await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(again.body, first.body);
    post(&daemon, "k-1", &json!([custom("c", json!(2))])).send().await.refused(409, "CONFLICT");
    // A refusal is not stored: the same key may be used for the corrected body.
    post(&daemon, "k-2", &json!({"type": "custom"})).send().await.refused(400, "VALIDATION_ERROR");
    let corrected = post(&daemon, "k-2", &custom("c", json!(3))).send().await;
    assert_eq!((corrected.status.as_u16(), corrected.header("idempotent-replayed")), (201, None));

    daemon.restart().await;
    let again = post(&daemon, "k-1", &body).send().await;
    assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &first.body));
    post(&daemon, "k-1", &json!([custom("c", json!(2))])).send().await.refused(409, "CONFLICT");
    let page = daemon.get("/api/v1/events?earliest=true").send().await.json();
    assert_eq!(page["data"].as_array().unwrap().len(), 3, "{page}");
    for bad in ["", &"k".repeat(256)] {
        post(&daemon, bad, &body).send().await.refused(400, "BAD_REQUEST");
    }
}

#[tokio::test]
async fn an_idempotency_key_belongs_to_one_subject_of_one_organization() {
    let daemon = Daemon::start().await;
    let other = daemon.create_org("other").await;
    let (ann, bob) = (daemon.user_token("ann").await, daemon.user_token("bob").await);
    let ann_again = daemon.user_token("ann").await;
    let second_key = daemon.create_key(json!({"scopes": ["*"]})).await;
    let body = custom("c", json!(1));
    let post = |key: &str| {
        daemon.post("/api/v1/events").key(key).header("idempotency-key", "same").json(&body).send()
    };
    for credential in [&daemon.key, &other, &ann, &bob, &second_key] {
        assert_eq!(post(credential).await.header("idempotent-replayed"), None);
    }
    for credential in [&daemon.key, &other, &ann, &bob, &second_key, &ann_again] {
        assert_eq!(post(credential).await.header("idempotent-replayed"), Some("true"));
    }
    assert_eq!(daemon.metric("nervewire_published_total").await, 5.0);
}

#[tokio::test]
async fn concurrent_repeats_wait_for_the_first_and_get_its_response() {
    let daemon = Daemon::start().await;
    let body: Value = (0..200).map(|n| custom("c", json!(n))).collect();
    let posts = (0..16).map(|_| {
        let call = daemon.post("/api/v1/events").header("idempotency-key", "race").json(&body);
        tokio::spawn(call.send())
    });
    let mut answers = Vec::new();
    for post in posts.collect::<Vec<_>>() {
        answers.push(post.await.unwrap());
    }
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.body == answers[0].body));
    let replayed = answers.iter().filter(|answer| answer.header("idempotent-replayed").is_some()).count();
    assert_eq!(replayed, 15);
    assert_eq!(daemon.metric("nervewire_published_total").await, 200.0);
}

#[tokio::test]
async fn a_message_id_given_twice_is_published_once() {
    let mut daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    let named = |content: &str, user: &str| json!({"type": "message", "message_id": "m-1", "agent_id": "a", "user_id": user, "content": content});
    let first = daemon.publish(named("hi", "ann")).await;
    assert_eq!(daemon.publish(named("hi", "ann")).await, first);
    assert_eq!(sse.next_event().await["id"], first[0].as_str());
    daemon.post("/api/v1/events").json(&named("ho", "ann")).send().await.refused(409, "CONFLICT");
    // Another user's message with the same id is a different message.
    let bobs = daemon.publish(named("hi", "bob")).await;
    assert_ne!(bobs, first);
    assert_eq!(sse.next_event().await["user_id"], "bob", "nothing in between");

    let mut ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    let ack = ws.ask(&json!({"type": "publish", "ref": 1, "event": named("hi", "ann")})).await;
    assert_eq!((&ack["type"], &ack["ids"]), (&json!("ack"), &json!(first)), "{ack}");
    let error = ws.ask(&json!({"type": "publish", "ref": 2, "event": named("ho", "ann")})).await;
    assert_eq!((&error["code"], &error["ref"]), (&json!("CONFLICT"), &json!(2)), "{error}");

    // In a batch a known message keeps its id and new ones get their own.
    let batch =
        daemon.publish(json!([custom("c", json!(1)), named("hi", "ann"), custom("c", json!(2))])).await;
    assert_eq!(batch[1], first[0]);
    let got = sse.events(2).await;
    assert_eq!((&got[0]["id"], &got[1]["id"]), (&json!(batch[0]), &json!(batch[2])));

    daemon.restart().await;
    assert_eq!(daemon.publish(named("hi", "ann")).await, first);
    daemon.post("/api/v1/events").json(&named("ho", "ann")).send().await.refused(409, "CONFLICT");
    let page = daemon.get("/api/v1/events?earliest=true").send().await.json();
    assert_eq!(page["data"].as_array().unwrap().len(), 4, "{page}");
}

#[tokio::test]
async fn concurrent_messages_with_one_message_id_become_one_event() {
    let daemon = Daemon::start().await;
    let event =
        json!({"type": "message", "message_id": "m", "agent_id": "a", "user_id": "u", "content": "once"});
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(daemon.live_ws("/api/v1/ws?subscribe=none").await);
    }
    for ws in &mut sockets {
        ws.send(&json!({"type": "publish", "event": event})).await;
    }
    let id = daemon.publish(event.clone()).await;
    for ws in &mut sockets {
        assert_eq!(ws.expect("ack").await["ids"], json!(id));
    }
    assert_eq!(daemon.metric("nervewire_published_total").await, 1.0);
}
