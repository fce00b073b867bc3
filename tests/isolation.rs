//! Organizations are isolated (protocol §1, §3): a credential of one tries everything with resources of
//! another and learns nothing, not even that they exist. Inside an organization: which users see which
//! events.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::http::Reply;
use common::{Daemon, until};
use serde_json::{Value, json};

/// Two organizations. `globex` has one resource of every kind.
struct Two {
    daemon: Daemon,
    /// A `*` key in `acme`.
    acme: String,
    /// An administrator's token in `acme`.
    acme_admin: String,
    /// A `*` key in `globex`.
    globex: String,
    globex_key_id: String,
    /// A user's token in `globex`, and its `jti`.
    bob: String,
    bob_jti: String,
    /// Cursors of `globex`.
    ids: Vec<String>,
}

fn secrets_of_globex() -> Value {
    json!([
        {"type": "message", "agent_id": "g-agent", "user_id": "bob", "content": "s3cret"},
        {"type": "agent_update", "agent_id": "g-agent", "status": "idle"},
        {"type": "memory_update", "memory_id": "g-mem", "agent_id": "g-agent", "operation": "created"},
        {"type": "stream_chunk", "request_id": "g-req", "chunk": "s3cret", "is_final": false},
        {"type": "error", "code": "X", "message": "s3cret", "request_id": "g-req"},
        {"type": "custom", "channel": "g/chan", "data": "s3cret"},
    ])
}

impl Two {
    async fn start() -> Two {
        let daemon = Daemon::start().await;
        let (acme, globex) = (daemon.create_org("acme").await, daemon.create_org("globex").await);
        let acme_admin = daemon.mint_token(&acme, "ann", json!({"roles": ["admin"]})).await;
        let minted = daemon.post("/api/v1/tokens").key(&globex).json(&json!({"sub": "bob"})).send().await;
        let minted = minted.json();
        let text = |name: &str| minted["data"][name].as_str().unwrap().to_owned();
        let (bob, bob_jti) = (text("token"), text("jti"));
        let ids = daemon.publish_as(&globex, secrets_of_globex()).await;
        let globex_key_id = globex.split('_').nth(1).unwrap().to_owned();
        Two { daemon, acme, acme_admin, globex, globex_key_id, bob, bob_jti, ids }
    }
}

/// A response without the parts that differ between requests, and with the words of the request removed.
fn seen(reply: &Reply, words: &[&str]) -> String {
    let mut headers: Vec<String> = reply
        .headers
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "date" | "x-request-id"))
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    headers.sort();
    let mut body = reply.text();
    if let Ok(mut json) = serde_json::from_str::<Value>(&body) {
        if let Some(timestamp) = json.get_mut("timestamp") {
            *timestamp = "T".into();
        }
        body = json.to_string();
    }
    for word in words {
        body = body.replace(word, "W");
    }
    format!("{} {headers:?} {body}", reply.status)
}

/// Every request that names a resource of another organization gets exactly the response for a resource that
/// does not exist, whatever rights the caller has in its own.
#[tokio::test]
async fn another_organizations_ids_are_answered_like_unknown_ones() {
    let two = Two::start().await;
    let daemon = &two.daemon;
    let mut watched = daemon.ws("/api/v1/ws").key(&two.globex).open().await;
    let connection = watched.next_json().await["connection_id"].as_str().unwrap().to_owned();
    let ticket = daemon.post("/api/v1/tickets").key(&two.globex).json(&json!({})).send().await;
    let ticket = ticket.json()["data"]["ticket"].as_str().unwrap().to_owned();
    let user = daemon.mint_token(&two.acme, "cat", json!({"roles": ["user"]})).await;

    // (method, path with {}, body with {}, the foreign name, an unknown name of the same form)
    let key_id = two.globex_key_id.as_str();
    // The neighbour of that id: as a cursor it names the same position among the caller's own keys.
    let no_key = format!("{}{}", &key_id[..key_id.len() - 1], if key_id.ends_with('x') { 'y' } else { 'x' });
    let no_connection = "conn-0123456789abcdef";
    let no_ticket: String = ticket.chars().rev().collect();
    let (cursor, forged) = (two.ids[0].as_str(), "AAAAAAAAAAAAAAAAAAAAAA");
    let jti = two.bob_jti.as_str();
    let tries: &[(&str, &str, Option<&str>, &str, &str)] = &[
        ("GET", "organizations/{}", None, "globex", "nobody"),
        ("PUT", "organizations/{}", Some(r#"{"name":"x"}"#), "globex", "nobody"),
        ("PATCH", "organizations/{}", Some(r#"{"visibility":"org"}"#), "globex", "nobody"),
        ("DELETE", "organizations/{}", None, "globex", "nobody"),
        ("POST", "organizations", Some(r#"{"id":"{}"}"#), "globex", "nobody"),
        ("GET", "organizations?cursor={}", None, "globex", "nobody"),
        ("GET", "api-keys?org_id={}", None, "globex", "nobody"),
        ("GET", "api-keys?cursor={}", None, key_id, &no_key),
        ("POST", "api-keys", Some(r#"{"org_id":"{}","scopes":["*"]}"#), "globex", "nobody"),
        ("DELETE", "api-keys/{}", None, key_id, &no_key),
        ("DELETE", "api-keys/{}?org_id=globex", None, key_id, &no_key),
        ("DELETE", &format!("api-keys/{key_id}?org_id={{}}"), None, "globex", "nobody"),
        ("POST", "tokens", Some(r#"{"sub":"bob","org_id":"{}"}"#), "globex", "nobody"),
        ("DELETE", "tokens/{}", None, jti, "tok-unknown"),
        ("DELETE", &format!("tokens/{jti}?org_id={{}}"), None, "globex", "nobody"),
        ("PUT", "users/{}/disabled", Some(r#"{"disabled":true}"#), "bob", "nob"),
        ("DELETE", "connections/{}", None, &connection, no_connection),
        ("DELETE", "connections?user={}", None, "bob", "nob"),
        ("DELETE", "connections?key={}", None, key_id, &no_key),
        ("GET", "connections?cursor={}", None, "conn-", "conn."),
        ("GET", "stats?org_id={}", None, "globex", "nobody"),
        ("GET", "events?after={}", None, cursor, forged),
        ("GET", "events?last_event_id={}&wait=0", None, cursor, forged),
        ("GET", "events?earliest=true&user_id={}", None, "bob", "nob"),
        ("GET", "events?earliest=true&agent_id={}", None, "g-agent", "n-agent"),
        ("GET", "events?earliest=true&request_id={}", None, "g-req", "n-req"),
        ("GET", "events?earliest=true&channel={}", None, "g/chan", "n/chan"),
        ("GET", "events?earliest=true&channel={}", None, "g/*", "n/*"),
        (
            "POST",
            "events",
            Some(r#"{"type":"memory_update","memory_id":"{}","agent_id":"x","operation":"created"}"#),
            "g-mem",
            "n-mem",
        ),
    ];
    for caller in [&two.acme, &two.acme_admin, &user] {
        for (method, path, body, foreign, unknown) in tries {
            let ask = async |name: &str| {
                let path = format!("/api/v1/{}", path.replace("{}", name));
                let mut call = daemon.call(method, &path).key(caller);
                if let Some(body) = body {
                    call = call.body("application/json", body.replace("{}", name));
                }
                call.send().await
            };
            let (theirs, nobodys) = (ask(foreign).await, ask(unknown).await);
            assert!(!theirs.text().contains("s3cret"), "{method} {path}: {theirs:?}");
            let made = |reply: &Reply| {
                let ids = reply.json()["data"]["ids"].as_array().cloned().unwrap_or_default();
                ids.iter().map(|id| id.as_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            let alike = |reply: &Reply, name: &str| {
                let own = if *path == "events" && reply.status == 201 { made(reply) } else { Vec::new() };
                let mut words = vec![name];
                words.extend(own.iter().map(String::as_str));
                // The response may repeat the name, whose length can differ.
                seen(reply, &words)
                    .replace(&format!("content-length: {}", reply.body.len()), "content-length: N")
            };
            assert_eq!(alike(&theirs, foreign), alike(&nobodys, unknown), "{method} {path}");
        }
        let refused = daemon.get(&format!("/api/v1/events?ticket={no_ticket}")).anonymous().send().await;
        refused.refused(401, "UNAUTHORIZED");
    }

    // Nothing of globex has changed.
    assert_eq!(daemon.get("/api/v1/events").key(&two.bob).send().await.status, 200);
    let reply = daemon.get("/api/v1/api-keys").key(&two.globex).send().await;
    assert_eq!(reply.json()["data"].as_array().unwrap().len(), 1);
    let reply = daemon.get("/api/v1/organizations/globex").key(&two.globex).send().await;
    assert_eq!(
        (&reply.json()["data"]["name"], &reply.json()["data"]["visibility"]),
        (&json!(""), &json!("private"))
    );
    let sent = daemon.publish_as(&two.globex, json!({"type": "custom", "channel": "c", "data": 1})).await;
    assert_eq!(watched.next_json().await["id"], sent[0].as_str(), "the connection lives");
}

/// No list, statistic or metric label shows an event, connection or key of another organization.
#[tokio::test]
async fn lists_and_statistics_show_only_the_callers_organization() {
    let two = Two::start().await;
    let daemon = &two.daemon;
    let before = daemon.get("/api/v1/stats").key(&two.acme).send().await.json();
    let _live = daemon.ws("/api/v1/ws").key(&two.globex).open().await;
    let _user = daemon.ws("/api/v1/ws").key(&two.bob).open().await;
    daemon.publish_as(&two.globex, secrets_of_globex()).await;
    for key in [&two.acme, &two.acme_admin] {
        assert_eq!(daemon.get("/api/v1/stats").key(key).send().await.json(), before);
        let listed = daemon.get("/api/v1/connections").key(key).send().await.json();
        assert_eq!(listed, json!({"data": [], "next_cursor": null, "success": true}));
        let keys = daemon.get("/api/v1/api-keys").key(key).send().await;
        assert!(!keys.text().contains(&two.globex_key_id));
        assert_eq!(keys.json()["data"].as_array().unwrap().len(), 1);
        daemon.get("/api/v1/organizations").key(key).send().await.refused(403, "FORBIDDEN");
        let history = daemon.get("/api/v1/events?earliest=true").key(key).send().await.json();
        assert_eq!(history["data"], json!([]));
    }
    let page = common::http::Call::new(daemon.admin_addr(), "GET", "/metrics").send().await.text();
    for word in ["globex", "acme", "bob", "g-agent", "g-req", "g/chan", two.globex_key_id.as_str()] {
        assert!(!page.contains(word), "{word} in the metrics");
    }
}

/// A connection id must not reveal the number of connections of others.
#[tokio::test]
async fn a_connection_id_reveals_nothing_of_other_connections() {
    let daemon = Daemon::start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let mut ws = daemon.ws("/api/v1/ws").open().await;
        let ready = ws.next_json().await;
        let id = ready["connection_id"].as_str().unwrap().strip_prefix("conn-").unwrap().to_owned();
        ids.push(u64::from_str_radix(&id, 16).unwrap());
    }
    assert!(ids[0].abs_diff(ids[1]) > 1 << 24 && ids[1].abs_diff(ids[2]) > 1 << 24, "{ids:x?}");
}

/// A cursor of another organization is treated as unknown, on every transport, with the same response.
#[tokio::test]
async fn another_organizations_cursor_is_an_unknown_cursor() {
    let two = Two::start().await;
    let daemon = &two.daemon;
    daemon.publish_as(&two.acme, json!({"type": "custom", "channel": "own", "data": 0})).await;
    let mut responses = Vec::new();
    for cursor in [two.ids[0].as_str(), "AAAAAAAAAAAAAAAAAAAAAA"] {
        let reply = daemon.get(&format!("/api/v1/events?after={cursor}")).key(&two.acme).send().await;
        assert_eq!(reply.json()["gap"]["reason"], "unknown_cursor");
        assert_eq!(reply.json()["data"], json!([]));
        let mut ws = daemon.ws(&format!("/api/v1/ws?last_event_id={cursor}")).key(&two.acme).open().await;
        let mut frames = vec![ws.next_json().await, ws.next_json().await, ws.next_json().await];
        frames[0]["connection_id"] = "C".into();
        assert_eq!(frames[0]["resumed"], false);
        assert_eq!((&frames[1]["type"], &frames[1]["reason"]), (&json!("gap"), &json!("unknown_cursor")));
        assert_eq!(frames[2]["type"], "caught_up");
        let asked = json!({"type": "subscribe", "ref": 1, "last_event_id": cursor});
        let mut answer = ws.ask(&asked).await;
        answer["connection_id"] = "C".into();
        frames.extend([answer, ws.next_json().await, ws.next_json().await]);
        let mut sse = daemon.sse("/api/v1/sse").key(&two.acme).last_event_id(cursor).open().await;
        for _ in 0..3 {
            let block = sse.next().await;
            let mut frame = block.json();
            frame.as_object_mut().unwrap().remove("connection_id");
            frames.push(json!([block.name, block.id, frame]));
        }
        responses.push(json!([reply.json(), frames]).to_string().replace(cursor, "CURSOR"));
    }
    assert_eq!(responses[0], responses[1]);
}

/// Subscribers of every kind, filtered by names of the other organization or unfiltered, only receive events
/// of their own.
#[tokio::test]
async fn live_events_stay_in_their_organization() {
    let two = Two::start().await;
    let daemon = &two.daemon;
    let filters =
        ["", "user_id=bob", "agent_id=g-agent", "request_id=g-req", "channel=g/chan,g/*", "types=message"];
    let mut sockets = Vec::new();
    let mut streams = Vec::new();
    for filter in filters {
        let ws = daemon.ws(&format!("/api/v1/ws?{filter}")).key(&two.acme).open().await;
        let sse = daemon.sse(&format!("/api/v1/sse?{filter}")).key(&two.acme_admin).open().await;
        sockets.push(ws);
        streams.push(sse);
    }
    for ws in &mut sockets {
        ws.expect("ready").await;
    }
    for sse in &mut streams {
        sse.next().await.named("ready");
    }
    let poll = daemon.get("/api/v1/events?wait=30").key(&two.acme);
    let poll = tokio::spawn(poll.send());
    until("the poll to wait", async || {
        let stats = daemon.get("/api/v1/stats").key(&two.acme).send().await.json();
        (stats["data"]["connections"] == 2 * filters.len() + 1).then_some(())
    })
    .await;
    daemon.publish_as(&two.globex, secrets_of_globex()).await;
    // The same names in acme itself: these events must arrive, and arrive first.
    let mut own = secrets_of_globex();
    for event in own.as_array_mut().unwrap() {
        event["metadata"] = json!({"whose": "acme"});
        let kind = event["type"].as_str().unwrap();
        if matches!(kind, "error" | "custom") {
            event.as_object_mut().unwrap().remove("metadata");
        }
    }
    let ids = daemon.publish_as(&two.acme, own).await;
    for (at, filter) in filters.iter().enumerate() {
        let first = sockets[at].next_json().await;
        assert!(ids.contains(&first["id"].as_str().unwrap().to_owned()), "{filter}: {first}");
        let first = streams[at].next_event().await;
        assert!(ids.contains(&first["id"].as_str().unwrap().to_owned()), "{filter}: {first}");
    }
    let polled = poll.await.unwrap().json();
    assert!(ids.contains(&polled["data"][0]["id"].as_str().unwrap().to_owned()), "{polled}");
}

/// Idempotency keys and message ids belong to one organization.
#[tokio::test]
async fn idempotency_keys_and_message_ids_are_separate_between_organizations() {
    let two = Two::start().await;
    let daemon = &two.daemon;
    let publish = async |key: &str, text: &str| {
        let body =
            json!({"type": "message", "message_id": "m-1", "agent_id": "a", "user_id": "u", "content": text});
        daemon.post("/api/v1/events").key(key).header("idempotency-key", "k-1").json(&body).send().await
    };
    let (theirs, ours) = (publish(&two.globex, "one").await, publish(&two.acme, "two").await);
    assert_eq!((theirs.status.as_u16(), ours.status.as_u16()), (201, 201), "{ours:?}");
    assert_eq!(ours.header("idempotent-replayed"), None);
    assert_ne!(theirs.ids(), ours.ids());
    let again = publish(&two.acme, "two").await;
    assert_eq!((again.ids(), again.header("idempotent-replayed")), (ours.ids(), Some("true")));
}

/// A ticket belongs to the organization of its creator and opens nothing else.
#[tokio::test]
async fn a_ticket_opens_only_its_creators_organization() {
    let two = Two::start().await;
    let daemon = &two.daemon;
    let mut published = Vec::new();
    for reconnect in [false, true] {
        let made =
            daemon.post("/api/v1/tickets").key(&two.acme).json(&json!({"reconnect": reconnect})).send().await;
        let ticket = made.json()["data"]["ticket"].as_str().unwrap().to_owned();
        published
            .extend(daemon.publish_as(&two.acme, json!({"type": "custom", "channel": "c", "data": 1})).await);
        let path = format!("/api/v1/sse?earliest=true&ticket={ticket}");
        let mut sse = daemon.sse(&path).without("authorization").open().await;
        sse.next().await.named("ready");
        for id in &published {
            assert_eq!(sse.next_event().await["id"], id.as_str());
        }
        sse.next().await.named("caught_up");
    }
}

/// Which users of an organization see which event, on every transport.
#[tokio::test]
async fn users_see_their_own_events_and_those_for_everybody() {
    let daemon = Daemon::start().await;
    let key = daemon.create_org("acme").await;
    let token =
        async |sub: &str, scopes: Value| daemon.mint_token(&key, sub, json!({"scopes": scopes})).await;
    let ann = token("ann", json!(["subscribe"])).await;
    let bob = token("bob", json!(["subscribe"])).await;
    let all = token("cat", json!(["subscribe", "read:all"])).await;
    let plain_key = {
        let body = json!({"scopes": ["subscribe"]});
        let made = daemon.post("/api/v1/api-keys").key(&key).json(&body).send().await;
        made.json()["data"]["api_key"].as_str().unwrap().to_owned()
    };
    let batch = json!([
        {"type": "message", "agent_id": "a", "user_id": "ann", "content": "to-ann"},
        {"type": "message", "agent_id": "a", "user_id": "bob", "content": "to-bob"},
        {"type": "stream_chunk", "request_id": "r", "user_id": "bob", "chunk": "chunk-to-bob", "is_final": true},
        {"type": "custom", "channel": "c", "data": "to-all"},
    ]);
    let said = |event: &Value| {
        ["content", "chunk", "data"].iter().find_map(|name| event[*name].as_str()).unwrap().to_owned()
    };
    let check = async |who: &str, expected: &[&str]| {
        let history = daemon.get("/api/v1/events?earliest=true").key(who).send().await.json();
        let seen: Vec<_> = history["data"].as_array().unwrap().iter().map(said).collect();
        assert_eq!(seen, expected, "history");
        let mut ws = daemon.ws("/api/v1/ws?earliest=true").key(who).open().await;
        ws.expect("ready").await;
        for one in expected {
            assert_eq!(said(&ws.next_json().await), *one, "ws");
        }
        ws.expect("caught_up").await;
        let mut sse = daemon.sse("/api/v1/sse?earliest=true").key(who).open().await;
        sse.next().await.named("ready");
        for one in expected {
            assert_eq!(said(&sse.next_event().await), *one, "sse");
        }
        sse.next().await.named("caught_up");
    };
    // First live.
    let mut live = Vec::new();
    for (who, expected) in [
        (&ann, &["to-ann", "to-all"][..]),
        (&bob, &["to-bob", "chunk-to-bob", "to-all"]),
        (&all, &["to-ann", "to-bob", "chunk-to-bob", "to-all"]),
        (&plain_key, &["to-all"]),
    ] {
        let mut ws = daemon.ws("/api/v1/ws").key(who).open().await;
        ws.expect("ready").await;
        live.push((who, expected, ws));
    }
    // A filter for another user's events matches nothing and is not an error.
    let mut asks = daemon.ws("/api/v1/ws?user_id=bob").key(&ann).open().await;
    asks.expect("ready").await;
    daemon.publish_as(&key, batch).await;
    for (who, expected, ws) in &mut live {
        for one in *expected {
            assert_eq!(said(&ws.next_json().await), *one, "live");
        }
        check(who, expected).await;
    }
    let silent = daemon.get("/api/v1/events?earliest=true&user_id=bob").key(&ann).send().await;
    assert_eq!((silent.status.as_u16(), &silent.json()["data"]), (200, &json!([])));
    let mine = daemon.get("/api/v1/events?earliest=true&user_id=ann,bob").key(&ann).send().await.json();
    assert_eq!(mine["data"].as_array().unwrap().len(), 1);

    // With visibility `org` everyone sees everything, also in replay. Then it is set back.
    let visibility = async |visibility: &str| {
        let body = json!({"visibility": visibility});
        let changed = daemon.call("PATCH", "/api/v1/organizations/acme").key(&key).json(&body).send().await;
        assert_eq!(changed.status, 200, "{changed:?}");
    };
    visibility("org").await;
    check(&ann, &["to-ann", "to-bob", "chunk-to-bob", "to-all"]).await;
    check(&plain_key, &["to-ann", "to-bob", "chunk-to-bob", "to-all"]).await;
    visibility("private").await;
    check(&ann, &["to-ann", "to-all"]).await;
}
