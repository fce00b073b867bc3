//! Long responses of `GET /api/v1/events` are produced while they are read. These tests check the memory use,
//! the rights of the reader meanwhile, and how a response ends that cannot be completed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::h2::{DATA, END_STREAM, H2, HEADERS, RST_STREAM, window_update};
use common::{Daemon, until, within};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const EVENTS: usize = 120;
/// All of them together are nearly the size limit of one response.
const CONTENT: usize = 30_000;
const ALL: &str = "/api/v1/events?earliest=true&limit=1000";

/// A daemon whose ring is empty and whose log has events of two users alternately.
async fn with_a_long_log(users: [&str; 2], daemon: Daemon) -> Daemon {
    let mut daemon = daemon;
    let text = "x".repeat(CONTENT);
    for half in 0..2 {
        let event = |n: usize| json!({"type": "message", "agent_id": "a", "user_id": users[n % 2], "content": format!("{n} {text}")});
        let events = half * EVENTS / 2..(half + 1) * EVENTS / 2;
        daemon.publish(events.map(event).collect()).await;
    }
    daemon.restart().await;
    daemon
}

/// A request whose response is only read as far as the test reads it. Its first byte has arrived.
async fn narrow(daemon: &Daemon, version: &str, key: &str) -> TcpStream {
    let mut stream = daemon.small_buffer_connection().await;
    let head = format!("GET {ALL} {version}\r\nhost: a\r\nauthorization: Bearer {key}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(within("the first byte", stream.read_u8()).await.unwrap(), b'H');
    stream
}

/// Reads until a chunked response is complete or its connection ends. Returns the body, and whether it is
/// complete.
async fn read_chunked(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    loop {
        if all.ends_with(b"\r\n0\r\n\r\n") {
            break;
        }
        match within("bytes", stream.read_buf(&mut all)).await {
            Ok(1..) => {}
            _ => break,
        }
    }
    let at = memchr::memmem::find(&all, b"\r\n\r\n").expect("a head");
    let head = String::from_utf8_lossy(&all[..at]).to_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let (mut rest, mut body) = (&all[at + 4..], Vec::new());
    loop {
        let Some(line) = memchr::memmem::find(rest, b"\r\n") else { return (body, false) };
        let len = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        if len == 0 {
            return (body, rest[line..].starts_with(b"\r\n\r\n"));
        }
        let Some(chunk) = rest[line + 2..].get(..len + 2) else { return (body, false) };
        body.extend_from_slice(&chunk[..len]);
        rest = &rest[line + 2 + len + 2..];
    }
}

/// The users of a response's events, with the number at the start of each event's content.
fn users(body: &[u8]) -> Vec<(usize, String)> {
    let page: Value = serde_json::from_slice(body).expect("a whole JSON text");
    assert_eq!((&page["success"], &page["caught_up"]), (&json!(true), &json!(true)));
    let of = |event: &Value| {
        let n = event["content"].as_str().unwrap().split(' ').next().unwrap().parse().unwrap();
        (n, event["user_id"].as_str().unwrap().to_owned())
    };
    page["data"].as_array().unwrap().iter().map(of).collect()
}

/// Polls until the daemon reads no more of its log. Returns the number of reads.
async fn scans_at_rest(daemon: &Daemon) -> f64 {
    let (mut scans, mut same) = (-1.0, 0);
    while same < 50 {
        let now = daemon.metric("nervewire_log_scans_total").await;
        same = if now == scans { same + 1 } else { 0 };
        scans = now;
    }
    scans
}

/// If the reader stops, the daemon stops reading too: it holds a part of the response, not all of it.
#[tokio::test]
async fn history_is_read_from_the_log_as_the_client_reads() {
    let daemon = with_a_long_log(["ann", "bob"], Daemon::start().await).await;
    let mut slow = narrow(&daemon, "HTTP/1.1", &daemon.key).await;
    let at_rest = scans_at_rest(&daemon).await;
    assert!((1.0..=6.0).contains(&at_rest), "{at_rest} reads for one that reads nothing");
    let held = daemon.metric("nervewire_unread_bytes").await;
    assert!(held > 0.0 && held < 512.0 * 1024.0, "{held} bytes are counted as held");
    let (body, is_whole) = read_chunked(&mut slow).await;
    assert!(is_whole);
    assert_eq!(users(&body).into_iter().map(|(n, _)| n).collect::<Vec<_>>(), (0..EVENTS).collect::<Vec<_>>());
    let after = daemon.metric("nervewire_log_scans_total").await;
    assert!(after >= at_rest + 6.0, "{after} reads for all of it");
    until("nothing is held", || async {
        (daemon.metric("nervewire_unread_bytes").await == 0.0).then_some(())
    })
    .await;
}

/// The bytes are the same over HTTP/1.0, whose body ends with its connection, over HTTP/1.1 in chunks, and
/// over HTTP/2. A short response still has a `content-length`.
#[tokio::test]
async fn a_long_history_is_the_same_over_http_1_0_1_1_and_2() {
    let daemon = with_a_long_log(["ann", "bob"], Daemon::start().await).await;
    let chunked = daemon.get(ALL).send().await;
    assert_eq!((chunked.status.as_u16(), chunked.header("content-length")), (200, None));
    assert_eq!(users(&chunked.body).len(), EVENTS);

    let mut old = TcpStream::connect(daemon.addr()).await.unwrap();
    let head = format!("GET {ALL} HTTP/1.0\r\nauthorization: Bearer {}\r\n\r\n", daemon.key);
    old.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    within("the end", old.read_to_end(&mut bytes)).await.unwrap();
    let at = memchr::memmem::find(&bytes, b"\r\n\r\n").expect("a head");
    assert!(!String::from_utf8_lossy(&bytes[..at]).to_lowercase().contains("chunked"));
    assert_eq!(bytes[at + 4..], chunked.body);

    let mut h2 = H2::open(&daemon, 1 << 30).await;
    h2.send(&window_update(0, 1 << 30)).await;
    h2.get(ALL, &daemon.key).await;
    h2.next_of(HEADERS).await;
    let mut body = Vec::new();
    loop {
        let data = h2.next_of(DATA).await;
        body.extend_from_slice(&data.payload);
        if data.flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(body, chunked.body);

    let short = daemon.get("/api/v1/events?earliest=true&limit=1").send().await;
    assert_eq!(short.header("content-length"), Some(short.body.len().to_string().as_str()));
}

/// A key is deleted while its owner reads: nothing more is sent, and the response is visibly incomplete.
#[tokio::test]
async fn a_history_response_ends_when_the_readers_right_ends() {
    let daemon = with_a_long_log(["ann", "bob"], Daemon::start().await).await;
    let body = json!({"org_id": "default", "name": "short-lived", "scopes": ["*"]});
    let made = daemon.post("/api/v1/api-keys").json(&body).send().await.json();
    let key = made["data"]["api_key"].as_str().unwrap();
    let mut slow = narrow(&daemon, "HTTP/1.1", key).await;
    let mut old = narrow(&daemon, "HTTP/1.0", key).await;
    let mut h2 = H2::over(daemon.small_buffer_connection().await, 65_535).await;
    let stream = h2.get(ALL, key).await;
    h2.next_of(DATA).await;
    let id = made["data"]["key_id"].as_str().unwrap();
    let deleted = daemon.call("DELETE", &format!("/api/v1/api-keys/{id}")).send().await;
    assert_eq!(deleted.status, 204, "{deleted:?}");

    let (body, is_whole) = read_chunked(&mut slow).await;
    assert!(!is_whole && body.len() < EVENTS / 2 * CONTENT, "{} bytes", body.len());
    assert!(serde_json::from_slice::<Value>(&body).is_err());
    let mut bytes = Vec::new();
    let _ = within("the end", old.read_to_end(&mut bytes)).await; // an end or a reset
    let at = memchr::memmem::find(&bytes, b"\r\n\r\n").expect("a head");
    assert!(bytes.len() < EVENTS / 2 * CONTENT, "{} bytes", bytes.len());
    assert!(serde_json::from_slice::<Value>(&bytes[at + 4..]).is_err(), "it is not a whole answer");
    h2.send(&[window_update(stream, 1 << 30), window_update(0, 1 << 30)].concat()).await;
    assert_eq!(h2.next_of(RST_STREAM).await.stream, stream);
}

/// A user is deleted while another client reads the log: the rest of the response has none of the user's
/// events, and all of the others'.
#[tokio::test]
async fn events_erased_during_a_history_response_are_not_in_its_rest() {
    let daemon = Daemon::start().await;
    let body = json!({"email": "ann@x", "password": "correct horse battery", "name": "Ann"});
    let ann = daemon.post("/api/v1/users/register").json(&body).send().await;
    let ann = ann.json()["data"]["id"].as_str().unwrap().to_owned();
    let daemon = with_a_long_log([&ann, "bob"], daemon).await;
    let mut slow = narrow(&daemon, "HTTP/1.1", &daemon.key).await;
    scans_at_rest(&daemon).await;
    let deleted = daemon.call("DELETE", &format!("/api/v1/users/{ann}")).send().await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    until("ann's events are erased", || async {
        (daemon.metric("nervewire_store_erasures").await == 0.0).then_some(())
    })
    .await;
    let (body, is_whole) = read_chunked(&mut slow).await;
    assert!(is_whole);
    let seen = users(&body);
    let of = |user: &str| seen.iter().filter(|(_, of)| of == user).map(|(n, _)| *n).collect::<Vec<_>>();
    assert_eq!(of("bob"), (0..EVENTS).filter(|n| n % 2 == 1).collect::<Vec<_>>());
    let anns = of(&ann);
    assert!(anns.iter().all(|n| *n < EVENTS / 2), "what was on its way already: {anns:?}");
}

/// The whole log is cached as JSON when a user is deleted: a later request gets none of the user's events,
/// and all of the others'.
#[tokio::test]
async fn cached_pages_do_not_show_erased_events() {
    let daemon = Daemon::start().await;
    let body = json!({"email": "ann@x", "password": "correct horse battery", "name": "Ann"});
    let ann = daemon.post("/api/v1/users/register").json(&body).send().await;
    let ann = ann.json()["data"]["id"].as_str().unwrap().to_owned();
    let daemon = with_a_long_log([&ann, "bob"], daemon).await;
    assert_eq!(users(&daemon.get(ALL).send().await.body).len(), EVENTS);
    let scans = scans_at_rest(&daemon).await;
    assert_eq!(users(&daemon.get(ALL).send().await.body).len(), EVENTS);
    assert_eq!(scans_at_rest(&daemon).await, scans, "the second answer comes from memory");
    let deleted = daemon.call("DELETE", &format!("/api/v1/users/{ann}")).send().await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    until("ann's events are erased", || async {
        (daemon.metric("nervewire_store_erasures").await == 0.0).then_some(())
    })
    .await;
    let seen = users(&daemon.get(ALL).send().await.body);
    assert!(seen.iter().all(|(_, user)| user == "bob"), "{seen:?}");
    assert_eq!(seen.len(), EVENTS / 2);
}
