//! Publish bodies that arrive in parts: the result is the same wherever they are cut, nothing is published
//! before the whole body is valid, and an incomplete body leaves nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::http::Reply;
use common::raw::{answers, everything, raw};
use common::{Daemon, custom, until};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";

/// Two events. One needs more than the fast path of the array parser; both have white space, escapes and
/// multi-byte characters.
const ARRAY: &str = " [ {\"type\":\"custom\",\"channel\":\"s\",\"data\": {\"ü\": \"a\\\"]},\"}} ,\n{\"type\":\"custom\",\"channel\":\"\\u0073\",\"data\":\"😀\"}]\n";
const NDJSON: &str = "{\"type\":\"custom\",\"channel\":\"s\",\"data\":{\"ü\": \"a\\\"]},\"}}\r\n\n{\"type\":\"custom\",\"channel\":\"\\u0073\",\"data\":\"😀\"}";

fn head(daemon: &Daemon, content_type: &str, more: &str) -> String {
    let key = &daemon.key;
    format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ncontent-type: {content_type}\r\n{more}\r\n"
    )
}

/// A publish whose body has these parts as HTTP/1.1 chunks, which the daemon receives one by one.
fn in_chunks(daemon: &Daemon, content_type: &str, more: &str, parts: &[&[u8]]) -> Vec<u8> {
    let mut request =
        head(daemon, content_type, &format!("transfer-encoding: chunked\r\n{more}")).into_bytes();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        request.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        request.extend_from_slice(part);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

/// The only response on a connection of its own.
async fn answer(daemon: &Daemon, request: &[u8]) -> Reply {
    let mut answers = answers(&raw(daemon, request).await);
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers.remove(0)
}

async fn counted(daemon: &Daemon) -> f64 {
    daemon.metric("nervewire_published_total").await
}

#[tokio::test]
async fn a_body_has_the_same_result_however_it_is_split() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    for (content_type, body) in [(JSON, ARRAY), (LINES, NDJSON)] {
        for at in 0..=body.len() {
            let (first, second) = body.as_bytes().split_at(at);
            let reply = answer(&daemon, &in_chunks(&daemon, content_type, "", &[first, second])).await;
            assert_eq!(reply.status, 201, "cut at {at}: {reply:?}");
            let events = sse.events(2).await;
            let ids: Vec<String> =
                events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
            assert_eq!(reply.ids(), ids, "cut at {at}");
            assert_eq!((&events[0]["data"], &events[1]["data"]), (&json!({"ü": "a\"]},"}), &json!("😀")));
            assert_eq!((&events[0]["channel"], &events[1]["channel"]), (&json!("s"), &json!("s")));
        }
        let bytes: Vec<&[u8]> = body.as_bytes().chunks(1).collect();
        let reply = answer(&daemon, &in_chunks(&daemon, content_type, "", &bytes)).await;
        assert_eq!((reply.status.as_u16(), reply.ids().len()), (201, 2), "byte by byte: {reply:?}");
        sse.events(2).await;
    }
}

/// With a `content-length`, as clients send it: one connection for all requests, each body in two writes.
#[tokio::test]
async fn a_connection_stays_usable_after_split_bodies() {
    let daemon = Daemon::start().await;
    let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut count = 0;
    for (content_type, body) in [(JSON, ARRAY), (LINES, NDJSON)] {
        let head = head(&daemon, content_type, &format!("content-length: {}\r\n", body.len()));
        for at in 0..=body.len() {
            let (first, second) = body.as_bytes().split_at(at);
            stream.write_all(&[head.as_bytes(), first].concat()).await.unwrap();
            stream.write_all(second).await.unwrap();
            count += 1;
        }
    }
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let said = everything(&mut stream).await;
    let all = answers(&said);
    assert_eq!(all.len(), count + 1, "{said}");
    for reply in &all[..count] {
        assert_eq!((reply.status.as_u16(), reply.ids().len()), (201, 2), "{reply:?}");
    }
    assert_eq!(all[count].status, 200);
}

#[tokio::test]
async fn an_error_at_the_end_of_a_body_publishes_nothing() {
    let daemon = Daemon::start().await;
    let event = custom("s", json!("x".repeat(200))).to_string();
    let many = vec![event.as_str(); 400];
    let array = |end: &str| format!("[{},{end}", many.join(","));
    let lines = |end: &str| format!("{}\n{end}", many.join("\n"));
    let before = counted(&daemon).await;
    for (content_type, body, field, reason) in [
        (JSON, array(r#"{"type":"custom","channel":"s"}]"#), "[400].data", "is required"),
        (
            JSON,
            array("]"),
            "",
            &format!("is not a JSON array of events: trailing comma at line 1 column {}", array("]").len()),
        ),
        (
            JSON,
            array("7]"),
            "[400]",
            "is not a JSON event: invalid type: integer `7`, expected an event object at line 1 column 1",
        ),
        (
            JSON,
            array(&format!("{}]", vec![event.as_str(); 601].join(","))),
            "",
            "holds more than 1000 events",
        ),
        (LINES, lines("{\"type\":\"custom\",\"channel\":\"s\"}\n"), "[400].data", "is required"),
        (LINES, lines(&vec![event.as_str(); 601].join("\n")), "", "holds more than 1000 events"),
    ] {
        for size in [100, 1_000, 10_000] {
            let parts: Vec<&[u8]> = body.as_bytes().chunks(size).collect();
            let reply = answer(&daemon, &in_chunks(&daemon, content_type, "", &parts)).await;
            let details = reply.refused(400, "VALIDATION_ERROR")["details"].clone();
            assert_eq!(
                (&details["field"], &details["reason"]),
                (&json!(field), &json!(reason)),
                "in parts of {size}"
            );
        }
    }
    let mut binary = array("").into_bytes();
    binary.extend_from_slice(b"\xff]");
    let parts: Vec<&[u8]> = binary.chunks(1_000).collect();
    let reply = answer(&daemon, &in_chunks(&daemon, JSON, "", &parts)).await;
    assert_eq!(reply.refused(400, "VALIDATION_ERROR")["details"]["reason"], "is not UTF-8");
    assert_eq!(counted(&daemon).await, before);
}

/// The right to publish an event is checked while later events are still arriving. The refusal waits for
/// them, because an invalid event has priority.
#[tokio::test]
async fn invalid_events_are_reported_before_forbidden_ones() {
    let daemon = Daemon::start().await;
    let user = daemon.user_token("ann").await;
    let event = |user: &str| {
        let mut event = custom("s", json!("x".repeat(200)));
        event["user_id"] = user.into();
        event.to_string()
    };
    let request = |body: &str, parts: usize| {
        let parts: Vec<&[u8]> = body.as_bytes().chunks(parts).collect();
        let request = String::from_utf8(in_chunks(&daemon, JSON, "", &parts)).unwrap();
        request.replace(&daemon.key, &user).into_bytes()
    };
    let own = vec![event("ann"); 50].join(",");
    for size in [100, 10_000, 1_000_000] {
        let denied = format!("[{own},{},{own}]", event("bob"));
        let reply = answer(&daemon, &request(&denied, size)).await;
        assert_eq!(reply.refused(403, "FORBIDDEN")["details"], json!({"item": 50}), "in parts of {size}");
        let wrong = format!("[{own},{},{own},{{}}]", event("bob"));
        let reply = answer(&daemon, &request(&wrong, size)).await;
        assert_eq!(
            reply.refused(400, "VALIDATION_ERROR")["details"]["field"],
            "[101].type",
            "in parts of {size}"
        );
    }
    assert_eq!(counted(&daemon).await, 0.0);
}

/// An idempotency key covers the body, not the parts in which it arrived.
#[tokio::test]
async fn a_repeat_split_differently_is_the_same_request() {
    let daemon = Daemon::start().await;
    let key = "idempotency-key: k-1\r\n";
    let whole = answer(&daemon, &in_chunks(&daemon, JSON, key, &[ARRAY.as_bytes()])).await;
    assert_eq!(whole.status, 201);
    for size in [1, 7, 50] {
        let parts: Vec<&[u8]> = ARRAY.as_bytes().chunks(size).collect();
        let again = answer(&daemon, &in_chunks(&daemon, JSON, key, &parts)).await;
        assert_eq!((again.status.as_u16(), again.ids()), (201, whole.ids()));
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
    }
    let other = answer(&daemon, &in_chunks(&daemon, JSON, key, &[ARRAY.trim().as_bytes()])).await;
    other.refused(409, "CONFLICT");
}

/// A body that stalls or breaks off, or whose credential ends meanwhile: its events were read and encoded,
/// and none is published.
#[tokio::test]
async fn an_incomplete_body_publishes_nothing() {
    let daemon = Daemon::with().env("BODY_TIMEOUT_MS", 300).start().await;
    let event = custom("s", json!("x".repeat(1_000))).to_string();
    let body = format!("[{}]", vec![event.as_str(); 20].join(","));
    let most = &body.as_bytes()[..body.len() - 1];
    let length = format!("connection: close\r\ncontent-length: {}\r\n", body.len());

    let request = [head(&daemon, JSON, &length).as_bytes(), most].concat();
    answer(&daemon, &request).await.refused(408, "BAD_REQUEST");

    let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
    stream.write_all(&request).await.unwrap();
    drop(stream);

    let made =
        daemon.post("/api/v1/api-keys").json(&json!({"name": "short", "scopes": ["*"]})).send().await.json();
    let (id, key) = (made["data"]["key_id"].as_str().unwrap(), made["data"]["api_key"].as_str().unwrap());
    let request = String::from_utf8(request).unwrap().replace(&daemon.key, key);
    let mut stream = TcpStream::connect(daemon.addr()).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    until("the body is on its way", || async {
        (daemon.metric("nervewire_request_body_bytes").await as usize >= most.len()).then_some(())
    })
    .await;
    let gone = daemon.call("DELETE", &format!("/api/v1/api-keys/{id}")).send().await;
    assert!(gone.status.is_success(), "{gone:?}");
    stream.write_all(b"]").await.unwrap();
    let said = everything(&mut stream).await;
    answers(&said)[0].refused(401, "UNAUTHORIZED");

    until("nothing is kept of them", || async {
        (daemon.metric("nervewire_request_body_bytes").await == 0.0).then_some(())
    })
    .await;
    assert_eq!(counted(&daemon).await, 0.0);
    let history: Value = daemon.get("/api/v1/events?earliest=true").send().await.json();
    assert_eq!(history["data"], json!([]), "{history}");
}
