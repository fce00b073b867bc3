//! Presence (protocol §9): which users of an organization are connected, over real sockets.
//!
//! * One task publishes all presence events in order. Events of earlier changes come before the `online` of a
//!   new user, so that event proves that nothing else was published before it.
//! * Expiry of the grace time, and retries, are tested with a simulated clock beside the code.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::ws::Ws;
use common::{Daemon, custom, is_timestamp, until, within};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

/// Longer than any test.
const LONG: u64 = 3_600;

/// A daemon whose organization `default` has presence switched on.
async fn watched(grace_seconds: u64) -> Daemon {
    let daemon = Daemon::with().env("PRESENCE_GRACE_SECONDS", grace_seconds).start().await;
    switch(&daemon, "default", true).await;
    daemon
}

async fn switch(daemon: &Daemon, org: &str, on: bool) {
    let call = daemon.call("PATCH", &format!("/api/v1/organizations/{org}")).json(&json!({"presence": on}));
    let reply = call.send().await;
    assert_eq!((reply.status.as_u16(), &reply.json()["data"]["presence"]), (200, &json!(on)), "{reply:?}");
}

/// The response of `GET /presence` with this query.
async fn list(daemon: &Daemon, key: &str, query: &str) -> Value {
    let reply = daemon.get(&format!("/api/v1/presence{query}")).key(key).send().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let body = reply.json();
    assert_eq!(body["success"], true, "{reply:?}");
    body
}

/// The listed users, with their number of connections.
async fn present(daemon: &Daemon) -> Vec<(String, u64)> {
    let listed = list(daemon, &daemon.key, "").await;
    let row = |row: &Value| {
        assert_eq!(row["status"], "online", "{row}");
        assert!(is_timestamp(row["since"].as_str().unwrap()), "{row}");
        (row["sub"].as_str().unwrap().to_owned(), row["connections"].as_u64().unwrap())
    };
    listed["data"].as_array().unwrap().iter().map(row).collect()
}

/// Waits until `sub` is listed with this number of connections; `None`: not listed.
async fn counted(daemon: &Daemon, sub: &str, connections: Option<u64>) {
    until("a count of connections", async || {
        let found = present(daemon).await.into_iter().find(|(name, _)| name == sub).map(|(_, n)| n);
        (found == connections).then_some(())
    })
    .await;
}

/// A WebSocket that receives the presence events of all users.
async fn watcher(daemon: &Daemon) -> Ws {
    daemon.live_ws("/api/v1/ws?channel=presence/*").await
}

async fn connect(daemon: &Daemon, token: &str) -> Ws {
    let mut ws = daemon.ws("/api/v1/ws?types=message").key(token).open().await;
    ws.expect("ready").await;
    ws
}

/// The next presence event: channel, sub, status.
async fn published(watcher: &mut Ws) -> (String, String, String) {
    let event = watcher.expect("custom").await;
    assert_eq!((event.get("user_id"), event.get("agent_id")), (None, None), "{event}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&event["channel"]), text(&event["data"]["sub"]), text(&event["data"]["status"]))
}

async fn expect(watcher: &mut Ws, sub: &str, status: &str) {
    assert_eq!(published(watcher).await, (format!("presence/{sub}"), sub.to_owned(), status.to_owned()));
}

/// Checks that nothing was published up to now: the next event is that a new user is online. The user stays
/// online as long as the returned connection.
async fn nothing_published(daemon: &Daemon, watcher: &mut Ws, newcomer: &str) -> Ws {
    let ws = connect(daemon, &daemon.user_token(newcomer).await).await;
    expect(watcher, newcomer, "online").await;
    ws
}

#[tokio::test]
async fn the_first_connection_and_the_end_of_the_last_are_published() {
    let daemon = watched(0).await;
    let ann = daemon.user_token("ann").await;
    let mut watcher = watcher(&daemon).await;

    // Her own connection receives it too, and so does another user's.
    let mut first = daemon.ws("/api/v1/ws").key(&ann).open().await;
    first.expect("ready").await;
    expect(&mut watcher, "ann", "online").await;
    expect(&mut first, "ann", "online").await;
    assert_eq!(present(&daemon).await, [("ann".to_owned(), 1)]);

    // Publish-only WebSockets and streams over HTTP/1.1 and HTTP/2 count alike.
    let silent = daemon.ws("/api/v1/ws?subscribe=none").key(&ann).open().await;
    let mut sse = daemon.sse("/api/v1/sse").key(&ann).open().await;
    sse.next().await.named("ready");
    let h2 = H2Stream::open(&daemon, &ann).await;
    counted(&daemon, "ann", Some(4)).await;
    let _mark = nothing_published(&daemon, &mut watcher, "mark-1").await;

    drop((first, silent, h2));
    counted(&daemon, "ann", Some(1)).await;
    let _mark = nothing_published(&daemon, &mut watcher, "mark-2").await;

    drop(sse);
    expect(&mut watcher, "ann", "offline").await;
    counted(&daemon, "ann", None).await;

    let h2 = H2Stream::open(&daemon, &ann).await;
    expect(&mut watcher, "ann", "online").await;
    drop(h2);
    expect(&mut watcher, "ann", "offline").await;
}

#[tokio::test]
async fn a_user_who_reconnects_within_the_grace_time_stays_online() {
    let daemon = watched(LONG).await;
    let ann = daemon.user_token("ann").await;
    let mut watcher = watcher(&daemon).await;
    let mut since = Vec::new();
    for n in 0..3 {
        let ws = connect(&daemon, &ann).await;
        if n == 0 {
            expect(&mut watcher, "ann", "online").await;
        }
        counted(&daemon, "ann", Some(1)).await;
        since.push(list(&daemon, &daemon.key, "").await["data"][0]["since"].clone());
        drop(ws);
        counted(&daemon, "ann", Some(0)).await;
    }
    assert!(since.iter().all(|at| *at == since[0]), "{since:?}");
    let _mark = nothing_published(&daemon, &mut watcher, "mark").await;
}

#[tokio::test]
async fn api_keys_and_waiting_polls_do_not_count_as_presence() {
    let daemon = watched(LONG).await;
    let ann = daemon.user_token("ann").await;
    let mut watcher = watcher(&daemon).await; // with an API key
    let poll = daemon.get("/api/v1/events?wait=1").key(&ann).send().await;
    assert_eq!((poll.status.as_u16(), &poll.json()["data"]), (200, &json!([])));
    let refused = daemon.ws("/api/v1/ws?no_such=1").key(&ann).refused().await;
    assert_eq!(refused.status, 400);
    let _mark = nothing_published(&daemon, &mut watcher, "mark").await;
    assert_eq!(present(&daemon).await, [("mark".to_owned(), 1)]);
}

/// Presence is off by default. When it is switched on, the connected users are listed, and an event follows
/// when they go offline.
#[tokio::test]
async fn presence_is_enabled_per_organization() {
    let daemon = Daemon::with().env("PRESENCE_GRACE_SECONDS", 0).start().await;
    let shown = daemon.get("/api/v1/organizations/default").send().await;
    assert_eq!(shown.json()["data"]["presence"], false, "{shown:?}");
    let mut watcher = daemon.live_ws("/api/v1/ws?types=custom").await;
    let early = connect(&daemon, &daemon.user_token("early").await).await;
    let off = list(&daemon, &daemon.key, "").await;
    assert_eq!(off, json!({"data": [], "next_cursor": null, "enabled": false, "success": true}));

    switch(&daemon, "default", true).await;
    counted(&daemon, "early", Some(1)).await;
    let mark = nothing_published(&daemon, &mut watcher, "mark").await;
    drop(early);
    expect(&mut watcher, "early", "offline").await;

    switch(&daemon, "default", false).await;
    assert_eq!(list(&daemon, &daemon.key, "").await["enabled"], false);
    drop(mark);
    let _unseen = connect(&daemon, &daemon.user_token("unseen").await).await;
    daemon.publish(custom("mark", json!(1))).await;
    assert_eq!(watcher.expect("custom").await["channel"], "mark");

    let made = json!({"id": "acme", "presence": true});
    let made = daemon.post("/api/v1/organizations").json(&made).send().await;
    assert_eq!((made.status.as_u16(), &made.json()["data"]["presence"]), (201, &json!(true)));
    let key = daemon.create_key(json!({"org_id": "acme", "scopes": ["*"]})).await;
    assert_eq!(list(&daemon, &key, "").await["enabled"], true);
}

#[tokio::test]
async fn presence_does_not_cross_organizations() {
    let daemon = watched(0).await;
    let acme = daemon.create_org("acme").await;
    switch(&daemon, "acme", true).await;
    let mut ours = watcher(&daemon).await;
    let mut theirs = daemon.ws("/api/v1/ws?types=custom").key(&acme).open().await;
    theirs.expect("ready").await;

    let ann = connect(&daemon, &daemon.mint_token(&acme, "ann", json!({})).await).await;
    expect(&mut theirs, "ann", "online").await;
    let mark = nothing_published(&daemon, &mut ours, "mark").await;
    assert_eq!(present(&daemon).await, [("mark".to_owned(), 1)]);
    let listed = list(&daemon, &acme, "?user_id=ann,mark").await;
    assert_eq!((listed["data"].as_array().unwrap().len(), &listed["data"][0]["sub"]), (1, &json!("ann")));

    // Users with the same name in two organizations are different users.
    let same = connect(&daemon, &daemon.user_token("ann").await).await;
    expect(&mut ours, "ann", "online").await;
    drop(ann);
    expect(&mut theirs, "ann", "offline").await;
    counted(&daemon, "ann", Some(1)).await;

    // With the organization its users are deleted, and no event is published about it, even if nobody reads.
    let bob = connect(&daemon, &daemon.mint_token(&acme, "bob", json!({})).await).await;
    expect(&mut theirs, "bob", "online").await;
    let published = daemon.metric("nervewire_published_total").await;
    assert_eq!(daemon.call("DELETE", "/api/v1/organizations/acme").send().await.status, 204);
    for mut ws in [theirs, bob] {
        assert_eq!(ws.closed().await.0, 4403);
    }
    until("the end of their connections", async || {
        let connections = daemon.metric("nervewire_connections").await;
        (connections == 3.0).then_some(()) // this one, the new user's and ann's
    })
    .await;
    let last = nothing_published(&daemon, &mut ours, "last").await;
    assert_eq!(daemon.metric("nervewire_published_total").await, published + 1.0);
    drop((same, mark, last));
}

/// A credential that may not read the presence events of a user does not see that user in the list either.
#[tokio::test]
async fn a_narrow_credential_sees_the_users_of_its_channels() {
    let daemon = watched(LONG).await;
    let mut all = watcher(&daemon).await;
    let narrow = async |claims: Value| daemon.mint_token(&daemon.key, "eye", claims).await;
    let of_bob = narrow(json!({"channels": ["presence/bob"]})).await;
    let of_messages = narrow(json!({"types": ["message"]})).await;
    let mut eye = daemon.ws("/api/v1/ws").key(&of_bob).open().await;
    eye.expect("ready").await;
    expect(&mut all, "eye", "online").await;
    let mut held = Vec::new();
    for sub in ["ann", "bob"] {
        held.push(connect(&daemon, &daemon.user_token(sub).await).await);
        expect(&mut all, sub, "online").await;
    }
    expect(&mut eye, "bob", "online").await;
    let subs = |listed: Value| -> Vec<String> {
        let rows = listed["data"].as_array().unwrap().iter();
        rows.map(|row| row["sub"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(subs(list(&daemon, &of_bob, "").await), ["bob"]);
    assert!(subs(list(&daemon, &of_messages, "").await).is_empty());
    assert_eq!(subs(list(&daemon, &daemon.key, "").await), ["ann", "bob", "eye"]);
    let deaf = daemon.mint_token(&daemon.key, "deaf", json!({"scopes": ["publish"]})).await;
    daemon.get("/api/v1/presence").key(&deaf).send().await.refused(403, "FORBIDDEN");
    daemon.get("/api/v1/presence").anonymous().send().await.refused(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn the_presence_list_has_pages_and_a_name_filter() {
    let daemon = watched(LONG).await;
    let subs = ["a/b", "ann", "bob", "cy@example.com", "zoë"];
    let mut held = Vec::new();
    for sub in subs {
        held.push(connect(&daemon, &daemon.user_token(sub).await).await);
        counted(&daemon, sub, Some(1)).await;
    }
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = list(&daemon, &daemon.key, &format!("?limit=2&cursor={cursor}")).await;
        let rows = page["data"].as_array().unwrap();
        assert!(rows.len() <= 2);
        found.extend(rows.iter().map(|row| row["sub"].as_str().unwrap().to_owned()));
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(found, subs);
    let named = list(&daemon, &daemon.key, "?user_id=bob,a%2Fb,nobody").await;
    let rows = named["data"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["sub"], &rows[1]["sub"]), (2, &json!("a/b"), &json!("bob")));
    assert_eq!(named["next_cursor"], Value::Null);
    let numbers = (0..101).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    for bad in ["?limit=0", "?limit=101", "?cursor=%25", "?order=asc", &format!("?user_id={numbers}")] {
        let reply = daemon.get(&format!("/api/v1/presence{bad}")).send().await;
        reply.refused(400, "BAD_REQUEST");
    }
    daemon.post("/api/v1/presence").json(&json!({})).send().await.refused(405, "METHOD_NOT_ALLOWED");
}

/// A `sub` may have any characters, but its channel has one segment.
#[tokio::test]
async fn a_user_name_with_special_characters_has_its_own_channel() {
    let daemon = watched(LONG).await;
    let mut watcher = watcher(&daemon).await;
    let long = "x".repeat(256);
    let mut held = Vec::new();
    for (sub, channel) in [("a/b*", "presence/a%2Fb%2A"), (long.as_str(), "presence/sha256:")] {
        held.push(connect(&daemon, &daemon.user_token(sub).await).await);
        let (on, of, status) = published(&mut watcher).await;
        assert_eq!((of.as_str(), status.as_str()), (sub, "online"));
        assert!(on == channel || (on.starts_with(channel) && of == long && on.len() == 59), "{on}");
    }
}

/// A daemon that stops publishes no `offline` events. After a restart the list is correct.
#[tokio::test]
async fn stopping_the_daemon_publishes_no_offline() {
    let mut daemon = watched(0).await;
    let token = daemon.user_token("ann").await;
    let mut watcher = watcher(&daemon).await;
    let mut ann = connect(&daemon, &token).await;
    expect(&mut watcher, "ann", "online").await;
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(ann.closed().await.0, 1012);
    drop((ann, watcher));
    assert!(daemon.ended().await.success());
    daemon.start_again().await;

    let listed = list(&daemon, &daemon.key, "").await;
    assert_eq!((&listed["enabled"], &listed["data"]), (&json!(true), &json!([])));
    let _ann = connect(&daemon, &token).await;
    counted(&daemon, "ann", Some(1)).await;
    let log = until("the second coming", async || {
        let log = daemon.get("/api/v1/events?earliest=true").send().await.json();
        (log["data"].as_array().unwrap().len() >= 2).then_some(log)
    })
    .await;
    let statuses: Vec<&Value> =
        log["data"].as_array().unwrap().iter().map(|event| &event["data"]["status"]).collect();
    assert_eq!(statuses, ["online", "online"]);
}

/// A stream over HTTP/2 whose head has arrived. It ends when this is dropped.
struct H2Stream {
    _sender: hyper::client::conn::http2::SendRequest<http_body_util::Empty<&'static [u8]>>,
    _body: hyper::body::Incoming,
}

impl H2Stream {
    async fn open(daemon: &Daemon, token: &str) -> H2Stream {
        let stream = tokio::net::TcpStream::connect(daemon.addr()).await.unwrap();
        let io = TokioIo::new(stream);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::builder()
            .uri(format!("http://{}/api/v1/sse", daemon.addr()))
            .header("authorization", format!("Bearer {token}"))
            .body(http_body_util::Empty::new())
            .unwrap();
        let reply = within("a stream over HTTP/2", sender.send_request(request)).await.unwrap();
        assert_eq!((reply.status().as_u16(), reply.version()), (200, http::Version::HTTP_2));
        H2Stream { _sender: sender, _body: reply.into_body() }
    }
}
