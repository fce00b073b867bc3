//! Connections as their owners and administrators manage them: list, count, limit, close.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing helper fails its test")]

mod common;

use common::http::Call;
use common::{Daemon, custom, until, within};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};

async fn list(daemon: &Daemon, key: &str) -> Vec<Value> {
    let reply = daemon.get("/api/v1/connections").key(key).send().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    reply.json()["data"].as_array().unwrap().clone()
}

fn id_of(ready: &Value) -> String {
    ready["connection_id"].as_str().unwrap().to_owned()
}

/// The entry of a connection shows its owner, its filter and its position.
#[tokio::test]
async fn a_listing_describes_each_connection() {
    let daemon = Daemon::start().await;
    let key_id = daemon.key.split('_').nth(1).unwrap().to_owned();
    let ann = daemon.user_token("ann").await;
    let mut ws = daemon.ws("/api/v1/ws?types=custom&channel=c").open().await;
    let ws_id = id_of(&ws.next_json().await);
    let mut sse = daemon.sse("/api/v1/sse").key(&ann).open().await;
    let sse_id = id_of(&sse.next().await.named("ready"));
    let mut silent = daemon.ws("/api/v1/ws?subscribe=none").open().await;
    let silent_id = id_of(&silent.next_json().await);
    daemon.publish(json!([custom("c", json!(1)), custom("d", json!(1))])).await;
    ws.next_json().await;
    sse.events(2).await;
    let rows = list(&daemon, &daemon.key).await;
    assert_eq!(rows.len(), 3);
    let row = |id: &str| {
        rows.iter().find(|row| row["id"] == id).unwrap_or_else(|| panic!("{id} in {rows:?}")).clone()
    };
    let (a, b, c) = (row(&ws_id), row(&sse_id), row(&silent_id));
    assert_eq!((&a["transport"], &a["key_id"], &a["user"]), (&json!("ws"), &json!(key_id), &json!(null)));
    assert_eq!((&b["transport"], &b["key_id"], &b["user"]), (&json!("sse"), &json!(null), &json!("ann")));
    assert!(a["filter"].as_str().unwrap().contains("channel=c"), "{a}");
    assert_eq!((&a["sent_events"], &b["sent_events"], &c["sent_events"]), (&json!(1), &json!(2), &json!(0)));
    assert_eq!((&a["publish_only"], &c["publish_only"]), (&json!(false), &json!(true)));
    assert_eq!((&a["cursor_lag"], &b["cursor_lag"]), (&json!(0), &json!(0)));
    for row in &rows {
        assert_eq!(row["peer"], "127.0.0.1");
        assert!(common::is_timestamp(row["since"].as_str().unwrap()));
        assert!(row["sent_bytes"].as_u64().unwrap() > 0 || row["publish_only"] == true, "{row}");
        assert!(!row.to_string().contains(&daemon.key) && !row.to_string().contains(&ann));
    }
    // Without `manage`, a principal lists only its own connections.
    let own = list(&daemon, &ann).await;
    assert_eq!(own.iter().map(|row| row["id"].as_str().unwrap()).collect::<Vec<_>>(), [sse_id.as_str()]);
    // Page by page.
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = daemon.get(&format!("/api/v1/connections?limit=1&cursor={cursor}")).send().await.json();
        found.extend(page["data"].as_array().unwrap().iter().map(|row| row["id"].clone()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    let mut all: Vec<Value> = rows.iter().map(|row| row["id"].clone()).collect();
    all.sort_by_key(ToString::to_string);
    assert_eq!(found, all);
    let ids = |page: &Value| -> Vec<Value> {
        page["data"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect()
    };
    let all = ids(&daemon.get("/api/v1/connections").send().await.json());
    let counted = daemon.get("/api/v1/connections?limit=1&offset=1").send().await.json();
    assert_eq!((ids(&counted), &counted["next_cursor"]), (all[1..2].to_vec(), &all[1]));
    assert_eq!(ids(&daemon.get("/api/v1/connections?offset=9").send().await.json()), Vec::<Value>::new());
    daemon.get("/api/v1/connections?offset=1&cursor=x").send().await.refused(400, "BAD_REQUEST");
    daemon.get("/api/v1/connections?limit=0").send().await.refused(400, "BAD_REQUEST");
    daemon.get("/api/v1/connections?limit=101").send().await.refused(400, "BAD_REQUEST");
    daemon.post("/api/v1/connections").send().await.refused(405, "METHOD_NOT_ALLOWED");
}

/// Connections are closed by id, user and key. No others are closed, and the close code says not to
/// reconnect.
#[tokio::test]
async fn connections_are_kicked_by_id_user_and_key() {
    let daemon = Daemon::start().await;
    let (ann, bob) = (daemon.user_token("ann").await, daemon.user_token("bob").await);
    let second = daemon.create_key(json!({"scopes": ["subscribe"]})).await;
    let second_id = second.split('_').nth(1).unwrap().to_owned();
    let kick = async |how: &str, key: &str| {
        daemon.call("DELETE", &format!("/api/v1/connections{how}")).key(key).send().await
    };
    let mut stays = daemon.live_ws("/api/v1/ws").await;

    let mut ws = daemon.ws("/api/v1/ws").key(&ann).open().await;
    let id = id_of(&ws.next_json().await);
    assert_eq!(kick(&format!("/{id}"), &bob).await.refused(404, "NOT_FOUND")["details"], json!(null));
    assert_eq!(kick(&format!("/{id}"), &daemon.key).await.status, 204);
    assert_eq!(ws.closed().await.0, 4403);
    kick(&format!("/{id}"), &daemon.key).await.refused(404, "NOT_FOUND");
    kick("/nonsense", &daemon.key).await.refused(404, "NOT_FOUND");

    let mut ws = daemon.ws("/api/v1/ws").key(&ann).open().await;
    ws.expect("ready").await;
    let mut sse = daemon.sse("/api/v1/sse").key(&ann).open().await;
    sse.next().await.named("ready");
    let mut bobs = daemon.ws("/api/v1/ws").key(&bob).open().await;
    bobs.expect("ready").await;
    assert_eq!(kick("?user=ann", &bob).await.json()["data"]["closed"], 0);
    assert_eq!(kick("?user=ann", &daemon.key).await.json()["data"]["closed"], 2);
    assert_eq!(ws.closed().await.0, 4403);
    assert_eq!(sse.next().await.named("closing")["code"], "FORBIDDEN");
    assert_eq!(sse.next_block().await, None);

    let mut keyed = daemon.ws("/api/v1/ws").key(&second).open().await;
    keyed.expect("ready").await;
    assert_eq!(kick(&format!("?key={second_id}"), &daemon.key).await.json()["data"]["closed"], 1);
    assert_eq!(keyed.closed().await.0, 4403);

    // A principal without `manage` closes its own connection.
    let mut own = daemon.ws("/api/v1/ws").key(&bob).open().await;
    let id = id_of(&own.next_json().await);
    assert_eq!(kick(&format!("/{id}"), &bob).await.status, 204);
    assert_eq!(own.closed().await.0, 4403);
    assert_eq!(kick("?user=bob", &bob).await.json()["data"]["closed"], 1);
    assert_eq!(bobs.closed().await.0, 4403);

    kick("", &daemon.key).await.refused(400, "BAD_REQUEST");
    kick("?agent=a", &daemon.key).await.refused(400, "BAD_REQUEST");
    let published = daemon.publish(custom("c", json!(1))).await;
    assert_eq!(stays.next_json().await["id"], published[0].as_str(), "nobody else was closed");
    // The users may reconnect: closing a connection revokes nothing.
    daemon.ws("/api/v1/ws").key(&ann).open().await.expect("ready").await;
}

async fn connections(daemon: &Daemon, key: &str) -> u64 {
    let stats = daemon.get("/api/v1/stats").key(key).send().await;
    assert_eq!(stats.status, 200, "{stats:?}");
    stats.json()["data"]["connections"].as_u64().unwrap()
}

/// The counts are right again after every way in which a connection can end, and after every refusal.
#[tokio::test]
async fn connection_counts_return_to_zero() {
    let daemon = Daemon::with().env("LIMITS__CONNECTIONS_PER_USER", 2).start().await;
    let ann = daemon.user_token("ann").await;
    for round in 0..4 {
        let mut ws = daemon.ws("/api/v1/ws").key(&ann).open().await;
        ws.expect("ready").await;
        let mut sse = daemon.sse("/api/v1/sse").key(&ann).open().await;
        sse.next().await.named("ready");
        assert_eq!(connections(&daemon, &daemon.key).await, 2);
        for _ in 0..3 {
            daemon.ws("/api/v1/ws").key(&ann).refused().await.refused(429, "QUOTA_EXCEEDED");
        }
        match round {
            0 => drop((ws, sse)),
            1 => {
                ws.send_message(tokio_tungstenite::tungstenite::Message::Close(None)).await;
                drop(sse);
            }
            2 => {
                for stream in [ws.socket() as &TcpStream, &sse.into_stream()] {
                    socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
                }
                drop(ws);
            }
            _ => {
                let kicked = daemon.call("DELETE", "/api/v1/connections?user=ann").send().await;
                assert_eq!(kicked.json()["data"]["closed"], 2);
            }
        }
        until("the count to return", async || (connections(&daemon, &daemon.key).await == 0).then_some(()))
            .await;
        assert_eq!(list(&daemon, &daemon.key).await, Vec::<Value>::new());
    }
    let stats = daemon.get("/api/v1/stats").send().await.json();
    assert_eq!(stats["data"]["org_id"], "default");
    for name in ["stored_events", "stored_bytes", "uncommitted_events"] {
        assert!(stats["data"][name].is_u64(), "{stats}");
    }
}

/// Each limit refuses before the upgrade with its own error: 429 for an organization, a user or an address,
/// 503 if the process is full. `EventSource` would give up for ever, so it gets an event instead.
#[tokio::test]
async fn each_limit_has_its_error() {
    for (limit, user, status, code, word) in [
        ("CONNECTIONS", false, 503, "UNAVAILABLE", "server"),
        ("CONNECTIONS_PER_ORGANIZATION", false, 429, "QUOTA_EXCEEDED", "organization"),
        ("CONNECTIONS_PER_USER", true, 429, "QUOTA_EXCEEDED", "user"),
    ] {
        let daemon = Daemon::with().env(&format!("LIMITS__{limit}"), 3).start().await;
        let key = if user { daemon.user_token("ann").await } else { daemon.key.clone() };
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut ws = daemon.ws("/api/v1/ws").key(&key).open().await;
            ws.expect("ready").await;
            held.push(ws);
        }
        let mut third = daemon.sse("/api/v1/sse").key(&key).open().await;
        third.next().await.named("ready");
        let full = daemon.ws("/api/v1/ws").key(&key).refused().await;
        let body = full.refused(status, code);
        assert!(body["message"].as_str().unwrap().contains(word), "{body}");
        assert!(full.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
        // EventSource.
        let mut refusal = daemon.sse("/api/v1/sse").key(&key).ask().await;
        assert_eq!((refusal.status, refusal.header("content-type")), (200, Some("text/event-stream")));
        let text = refusal.rest().await;
        let wait = text.strip_prefix("retry: ").unwrap_or_else(|| panic!("{text:?}"));
        let wait: u64 = wait.lines().next().unwrap().parse().unwrap();
        assert!((1_000..=120_000).contains(&wait), "{text}");
        assert!(
            text.contains("event: closing\n") && text.contains(&format!("\"code\":\"{code}\"")),
            "{text}"
        );
        // A client that does not accept an event stream gets the status.
        let plain = daemon.sse("/api/v1/sse").key(&key).header("accept", "*/*").ask().await;
        assert_eq!(plain.status, status);
        let polled = daemon.get("/api/v1/events?wait=5").key(&key).send().await;
        polled.refused(status, code);
        // Others are not affected, unless the limit is shared by all.
        let other = daemon.create_org("other").await;
        let theirs = daemon.ws("/api/v1/ws").key(&other).ask().await;
        assert_eq!(theirs.is_ok(), limit != "CONNECTIONS");
        // REST is still served, and a released permit can be acquired again.
        assert_eq!(daemon.get("/api/v1/events").key(&key).send().await.status, 200);
        drop(third);
        drop(theirs);
        within("a free place", async {
            while daemon.ws("/api/v1/ws").key(&key).ask().await.is_err() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// One address cannot acquire every permit. Loopback is exempt, because proxies and load tests use it.
#[tokio::test]
async fn addresses_other_than_loopback_are_limited() {
    let daemon = Daemon::with().env("LIMITS__CONNECTIONS_PER_ADDRESS", 2).start().await;
    let mut held = Vec::new();
    for n in 0..5 {
        // Every address of 127/8 is loopback.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("127.0.0.{}:0", 1 + n % 2).parse().unwrap()).unwrap();
        let stream = socket.connect(daemon.addr()).await.unwrap();
        held.push(daemon.ws("/api/v1/ws").ask_on(stream).await.unwrap());
    }
    assert_eq!(connections(&daemon, &daemon.key).await, 5);
}

/// The same from an address that is not loopback, if this machine has one.
#[tokio::test]
async fn an_address_is_limited() {
    // This sends no packet; it only asks the kernel which source address it would use.
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if probe.connect("192.0.2.1:9").is_err() {
        return;
    }
    let own = probe.local_addr().unwrap().ip();
    if own.is_loopback() || own.is_unspecified() {
        return;
    }
    let daemon = Daemon::with()
        .env("LIMITS__CONNECTIONS_PER_ADDRESS", 2)
        .flags(&["--listen", &format!("{own}:0")])
        .start()
        .await;
    let log = until("both listeners in the log", async || {
        let log = daemon.log();
        log.contains("\"serving\"").then_some(log)
    })
    .await;
    let at = log.find(&format!("{own}:")).expect("the second listener") + own.to_string().len() + 1;
    let port: u16 = log[at..].split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    let mut held = Vec::new();
    for n in 0..3 {
        let stream = TcpStream::connect((own, port)).await.unwrap();
        match daemon.ws("/api/v1/ws").ask_on(stream).await {
            Ok(ws) => held.push(ws),
            Err(reply) => {
                assert_eq!(n, 2);
                let body = reply.refused(429, "QUOTA_EXCEEDED");
                assert!(body["message"].as_str().unwrap().contains("address"), "{body}");
            }
        }
    }
    assert_eq!(held.len(), 2);
    // Plain requests do not count as connections.
    let reply = Call::new((own, port).into(), "GET", "/api/v1/events").key(&daemon.key).send().await;
    assert_eq!(reply.status, 200);
}

/// A WebSocket that exceeds its publish rate gets the time to wait. Others publish unaffected.
#[tokio::test]
async fn publishing_over_the_rate_is_refused_then_closed() {
    let daemon = Daemon::with().env("LIMITS__PUBLISH_PER_SECOND", 5).start().await;
    // A principal that may publish for the whole organization is a service and has no such limit.
    let ann = daemon.user_token("ann").await;
    let mut fast = daemon.ws("/api/v1/ws?subscribe=none").key(&ann).open().await;
    fast.expect("ready").await;
    let mut refused = 0;
    let mut acked = 0;
    let mut n = 0;
    let end = loop {
        n += 1;
        assert!(n < 1_000, "{acked} published, none refused for good");
        fast.send(&json!({"type": "publish", "ref": n, "event": custom("c", json!(n))})).await;
        match fast.try_next_json().await {
            Ok(frame) if frame["type"] == "ack" => acked += 1,
            Ok(frame) => {
                assert_eq!(
                    (&frame["type"], &frame["code"], &frame["ref"]),
                    (&json!("error"), &json!("QUOTA_EXCEEDED"), &json!(n))
                );
                assert!(frame["details"]["retry_after"].as_f64().unwrap() > 0.0, "{frame}");
                refused += 1;
                assert!(refused <= 200, "it is never closed");
            }
            Err(end) => break end,
        }
    };
    assert_eq!(end.map(|it| it.0), Some(1013));
    assert!(acked >= 5 && refused >= 99, "{acked} {refused}");
    let page = daemon.get("/api/v1/events?earliest=true&limit=1000").send().await.json();
    assert_eq!(page["data"].as_array().unwrap().len(), acked, "refused is not published");
    let mut other = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    let answer = other.ask(&json!({"type": "publish", "ref": 1, "event": custom("c", json!(1))})).await;
    assert_eq!(answer["type"], "ack");
}
