//! Memories over REST (protocol §9): their life and versions, lists and batches. A search finds what it
//! should, and nothing of other users.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::http::Call;
use common::rest::{agent, all, data, refused};
use common::{Daemon, is_timestamp};
use serde_json::{Value, json};

const MEMORIES: &str = "/api/v1/memories";

async fn remember(daemon: &Daemon, key: &str, body: Value) -> Value {
    data(&daemon.post(MEMORIES).key(key).json(&body).send().await, 201)
}

fn id_of(memory: &Value) -> &str {
    memory["id"].as_str().unwrap()
}

fn path_of(memory: &Value) -> String {
    format!("{MEMORIES}/{}", id_of(memory))
}

fn contents(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["content"].as_str().unwrap()).collect()
}

/// The result of a search with this body.
async fn search(daemon: &Daemon, key: &str, body: Value) -> Value {
    data(&daemon.post(&format!("{MEMORIES}/search")).key(key).json(&body).send().await, 200)
}

/// The texts that a search finds, best first.
async fn texts(daemon: &Daemon, key: &str, body: Value) -> Vec<String> {
    let found = search(daemon, key, body).await;
    let results = found["results"].as_array().unwrap();
    assert!(results.iter().all(|hit| (0.0..=1.0).contains(&hit["score"].as_f64().unwrap())), "{found}");
    assert!(results.is_sorted_by(|a, b| a["score"].as_f64() >= b["score"].as_f64()), "{found}");
    contents(results).into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn each_change_of_a_memory_is_an_event_and_a_version() {
    let daemon = Daemon::start().await;
    let bot = agent(&daemon, &daemon.key, "bot").await;
    let mut sse = daemon.live_sse("/api/v1/sse?types=memory_update").await;
    let asked = json!({"agent_id": bot, "user_id": "ann", "content": "likes green tea", "memory_type": "factual",
        "importance": 0.7, "scope": "User", "metadata": {"from": "chat", "n": 12345678901234567890u64}});
    let reply = daemon.post(MEMORIES).json(&asked).send().await;
    let made = data(&reply, 201);
    assert!(id_of(&made).starts_with("memory-"), "{made}");
    for field in ["agent_id", "user_id", "content", "importance", "metadata"] {
        assert_eq!(made[field], asked[field], "{field}");
    }
    assert_eq!(
        (&made["memory_type"], &made["scope"], &made["organization_id"]),
        (&json!("Factual"), &json!("user"), &json!("default"))
    );
    assert!(is_timestamp(made["created_at"].as_str().unwrap()) && made["created_at"] == made["updated_at"]);
    assert_eq!((reply.header("etag"), &made["version"]), (Some("\"1\""), &json!(1)));
    let path = path_of(&made);
    assert_eq!(data(&daemon.get(&path).send().await, 200), made);

    let change = json!({"content": "likes black tea", "importance": null});
    let reply = daemon.call("PUT", &path).header("if-match", "\"1\"").json(&change).send().await;
    let changed = data(&reply, 200);
    assert_eq!(
        (&changed["content"], &changed["importance"], &changed["memory_type"], &changed["metadata"]),
        (&change["content"], &json!(0.5), &made["memory_type"], &made["metadata"])
    );
    let late = daemon.call("PATCH", &path).header("if-match", "\"1\"").json(&change).send().await;
    assert_eq!((refused(&late), &late.json()["details"]["version"]), ((412, "CONFLICT".into()), &json!(2)));
    let moved = daemon.call("PUT", &path).json(&json!({"user_id": "eve"})).send().await;
    assert_eq!(refused(&moved), (400, "VALIDATION_ERROR".into()), "whose it is never changes");

    let history = format!("{path}/history");
    for limit in [1, 50] {
        let versions = all(&daemon, &daemon.key, &format!("{history}?limit={limit}")).await;
        assert_eq!(contents(&versions), ["likes black tea", "likes green tea"]);
        let summary = |version: &Value| (version["version"].clone(), version["operation"].clone());
        assert_eq!(
            versions.iter().map(summary).collect::<Vec<_>>(),
            [(json!(2), json!("updated")), (json!(1), json!("created"))]
        );
        assert_eq!(versions[1]["importance"], 0.7);
        assert_eq!(versions[1]["updated_at"], made["updated_at"]);
    }
    let ascending = all(&daemon, &daemon.key, &format!("{history}?order=asc&limit=1")).await;
    assert_eq!(ascending[0]["version"], 1);

    assert_eq!(daemon.call("DELETE", &path).send().await.status, 204);
    for gone in [daemon.get(&path), daemon.get(&history), daemon.call("DELETE", &path)] {
        assert_eq!(refused(&gone.send().await), (404, "NOT_FOUND".into()));
    }
    assert!(all(&daemon, &daemon.key, &format!("{MEMORIES}?")).await.is_empty());
    assert_eq!(search(&daemon, &daemon.key, json!({"query": "likes tea"})).await["total"], 0);

    for (event, operation) in sse.events(3).await.iter().zip(["created", "updated", "deleted"]) {
        for (field, wanted) in [
            ("type", "memory_update"),
            ("operation", operation),
            ("memory_id", id_of(&made)),
            ("agent_id", &bot),
            ("user_id", "ann"),
        ] {
            assert_eq!(event[field], wanted, "{event}");
        }
    }
}

#[tokio::test]
async fn old_versions_of_a_memory_are_removed_beyond_the_limit() {
    let daemon = Daemon::start().await;
    let memory = remember(&daemon, &daemon.key, json!({"content": "version 1"})).await;
    let most = nervewire::domain::memories::VERSIONS;
    for version in 2..=most + 2 {
        let change = json!({"content": format!("version {version}")});
        data(&daemon.call("PUT", &path_of(&memory)).json(&change).send().await, 200);
    }
    let path = format!("{}/history?limit=100", path_of(&memory));
    let versions = all(&daemon, &daemon.key, &path).await;
    assert_eq!(versions.len() as u64, most);
    assert_eq!(
        (&versions[0]["version"], &versions.last().unwrap()["version"]),
        (&json!(most + 2), &json!(3))
    );
    assert_eq!(search(&daemon, &daemon.key, json!({"query": "version"})).await["total"], 1);
    assert_eq!(
        texts(&daemon, &daemon.key, json!({"query": "50"})).await,
        [""; 0],
        "what it said once is not found"
    );
}

#[tokio::test]
async fn memories_are_listed_by_agent_and_user() {
    let daemon = Daemon::start().await;
    let (one, two) = (agent(&daemon, &daemon.key, "one").await, agent(&daemon, &daemon.key, "two").await);
    let ann = daemon.user_token("ann").await;
    let mut made = Vec::new();
    for n in 0..24 {
        let (agent, user) =
            ([Some(&one), Some(&two), None][n % 3], [Some("ann"), None, Some("eve"), None][n % 4]);
        let body = json!({"content": format!("m{n}"), "agent_id": agent, "user_id": user});
        made.insert(0, remember(&daemon, &daemon.key, body).await);
    }
    let of = |agent: Option<Value>, users: Option<&[Value]>| -> Vec<Value> {
        let is = |row: &&Value| {
            agent.as_ref().is_none_or(|agent| row["agent_id"] == *agent)
                && users.is_none_or(|users| users.contains(&row["user_id"]))
        };
        made.iter().filter(is).cloned().collect()
    };
    let (of_ann, anns) = ([json!("ann")], [json!("ann"), Value::Null]);
    for (key, query, expected) in [
        (&daemon.key, String::new(), of(None, None)),
        (&daemon.key, format!("agent_id={one}&"), of(Some(json!(one)), None)),
        (&daemon.key, "agent_id=none&".into(), of(Some(Value::Null), None)),
        (&daemon.key, "user_id=ann&".into(), of(None, Some(&of_ann))),
        (&daemon.key, format!("agent_id={two}&user_id=ann&"), of(Some(json!(two)), Some(&of_ann))),
        (&ann, String::new(), of(None, Some(&anns))),
        (&ann, format!("agent_id={one}&"), of(Some(json!(one)), Some(&anns))),
        (&ann, "user_id=ann&".into(), of(None, Some(&of_ann))),
        (&ann, "user_id=eve&".into(), Vec::new()),
    ] {
        for limit in [1, 5, 100] {
            let path = format!("{MEMORIES}?{query}limit={limit}");
            assert_eq!(all(&daemon, key, &path).await, expected, "{path}");
            let mut ascending = all(&daemon, key, &format!("{path}&order=asc")).await;
            ascending.reverse();
            assert_eq!(ascending, expected, "{path} ascending");
        }
    }
    let path = format!("/api/v1/agents/{one}/memories?limit=3");
    assert_eq!(all(&daemon, &ann, &path).await, of(Some(json!(one)), Some(&anns)));
    let page = daemon.get(&format!("{MEMORIES}?page=2&limit=5&sort_by=created_at")).send().await;
    assert_eq!(data(&page, 200), json!(made[10..15]));
    for (path, status) in [
        ("memories?sort_by=importance", 400),
        ("memories?page=1&offset=3", 400),
        ("memories?page=101&limit=100", 400),
        ("memories?who=me", 400),
        ("agents/agent-0/memories", 404),
    ] {
        assert_eq!(daemon.get(&format!("/api/v1/{path}")).send().await.status, status, "{path}");
    }
    // A deleted agent lists no memories and accepts no new ones. Its existing memories stay.
    assert_eq!(daemon.call("DELETE", &format!("/api/v1/agents/{one}")).send().await.status, 204);
    assert_eq!(daemon.get(&path).send().await.status, 404);
    let late = daemon.post(MEMORIES).json(&json!({"agent_id": one, "content": "late"})).send().await;
    assert_eq!((refused(&late).0, &late.json()["details"]["field"]), (400, &json!("agent_id")));
    assert_eq!(all(&daemon, &daemon.key, &format!("{MEMORIES}?agent_id={one}")).await.len(), 8);
}

#[tokio::test]
async fn a_batch_stores_valid_items_in_one_commit_and_reports_the_rest() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse?types=memory_update").await;
    let batch = json!({"memories": [
        {"content": "first", "memory_type": "WORKING"},
        {"content": ""},
        {"content": "second", "user_id": "ann"},
        {"content": "x", "colour": "red"},
        "no object",
        {"content": "x", "agent_id": "agent-0"},
        {"content": "third", "importance": 1},
    ]});
    let post = |path: &str, body: &Value| {
        daemon.post(&format!("{MEMORIES}/batch{path}")).header("idempotency-key", "b").json(body)
    };
    let reply = post("", &batch).send().await;
    let outcome = data(&reply, 200);
    assert_eq!((&outcome["successful"], &outcome["failed"]), (&json!(3), &json!(4)), "{outcome}");
    let failed: Vec<_> = outcome["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            (error["index"].as_u64().unwrap(), error["code"].clone(), error["details"]["field"].clone())
        })
        .collect();
    let invalid = |index, field: &str| (index, json!("VALIDATION_ERROR"), json!(field));
    assert_eq!(failed, [invalid(1, "content"), invalid(3, "colour"), invalid(4, ""), invalid(5, "agent_id")]);
    assert!(outcome["errors"][1]["message"].as_str().unwrap().contains("colour"), "{outcome}");
    let made: Vec<String> =
        outcome["results"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
    let events = sse.events(3).await;
    let published: Vec<&str> = events.iter().map(|event| event["memory_id"].as_str().unwrap()).collect();
    assert_eq!(published, made, "in order");
    assert_eq!((&events[0]["agent_id"], &events[0]["user_id"]), (&json!("none"), &Value::Null));
    assert_eq!(events[1]["user_id"], "ann");
    let listed = all(&daemon, &daemon.key, &format!("{MEMORIES}?order=asc")).await;
    assert_eq!(contents(&listed), ["first", "second", "third"]);
    assert_eq!(listed[0]["memory_type"], "Working");
    let again = post("", &batch).send().await;
    assert_eq!((again.json(), again.header("idempotent-replayed")), (reply.json(), Some("true")));

    let away = json!({"ids": [made[2], "memory-0", made[0], made[0]]});
    let reply = post("/delete", &away).send().await;
    let outcome = data(&reply, 200);
    assert_eq!(
        (&outcome["results"], &outcome["failed"]),
        (&json!([made[2], made[0]]), &json!(2)),
        "{outcome}"
    );
    let missing = |index: u64, id: &str| json!({"index": index, "id": id, "code": "NOT_FOUND", "message": "not found", "details": null});
    assert_eq!(outcome["errors"], json!([missing(1, "memory-0"), missing(3, &made[0])]));
    let events = sse.events(2).await;
    assert!(events.iter().all(|event| event["operation"] == "deleted"), "{events:?}");
    assert_eq!((&events[0]["memory_id"], &events[1]["memory_id"]), (&json!(made[2]), &json!(made[0])));
    let again = post("/delete", &away).send().await;
    assert_eq!((again.json(), again.header("idempotent-replayed")), (reply.json(), Some("true")));
    let bare = daemon.post(&format!("{MEMORIES}/batch/delete")).json(&json!([made[1]])).send().await;
    assert_eq!(data(&bare, 200)["successful"], 1);
    assert!(all(&daemon, &daemon.key, &format!("{MEMORIES}?")).await.is_empty());

    for (path, body) in [
        ("", json!({"memories": []})),
        ("", json!({"memories": vec![json!({"content": "x"}); 101]})),
        ("", json!([{"content": "x"}])),
        ("/delete", json!({"ids": []})),
        ("/delete", json!({"ids": [7]})),
        ("/delete", json!({"id": "x"})),
    ] {
        let reply = daemon.post(&format!("{MEMORIES}/batch{path}")).json(&body).send().await;
        assert_eq!(refused(&reply), (400, "VALIDATION_ERROR".into()), "{path}");
    }
    // One write is limited: items that do not fit are refused with advice to retry, and the others are
    // stored.
    let long = |n: usize| (0..950).map(|word| format!("{n}{word:x} ")).collect::<String>();
    let memories: Vec<Value> = (0..5).map(|n| json!({"content": long(n)})).collect();
    let reply = daemon.post(&format!("{MEMORIES}/batch")).json(&json!({"memories": memories})).send().await;
    let outcome = data(&reply, 200);
    assert_eq!((&outcome["successful"], &outcome["errors"][0]["index"]), (&json!(2), &json!(2)), "{outcome}");
    assert_eq!(outcome["errors"][0]["code"], "PAYLOAD_TOO_LARGE");
    assert_eq!(search(&daemon, &daemon.key, json!({"query": "13b5 20"})).await["total"], 1);
}

#[tokio::test]
async fn a_search_returns_matches_in_order_of_relevance() {
    let daemon = Daemon::start().await;
    let bot = agent(&daemon, &daemon.key, "bot").await;
    for (content, more) in [
        ("Green tea in the morning", json!({"importance": 0.9, "memory_type": "core"})),
        ("Black tea, green tea: any tea!", json!({"agent_id": bot})),
        ("A teacup of coffee", json!({"importance": 0.2})),
        ("Morning walks", json!({"user_id": "ann"})),
        ("我喜欢喝绿茶", json!({})),
    ] {
        let mut body = json!({"content": content});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        remember(&daemon, &daemon.key, body).await;
    }
    const MORNING: &str = "Green tea in the morning";
    const BLACK: &str = "Black tea, green tea: any tea!";
    const CUP: &str = "A teacup of coffee";
    const WALKS: &str = "Morning walks";
    for (query, wanted) in [
        (json!({"query": "TEA"}), vec![BLACK, MORNING]),
        (json!({"query": "tea morning"}), vec![MORNING, BLACK, WALKS]),
        (json!({"query": "morning tea green"}), vec![MORNING, BLACK, WALKS]),
        (json!({"query": "tea*", "limit": 2}), vec![BLACK, CUP]),
        (json!({"query": "te", "prefix": true, "offset": 2}), vec![MORNING]),
        (json!({"query": "te"}), vec![]),
        (json!({"query": "绿茶"}), vec!["我喜欢喝绿茶"]),
        (json!({"query": "喜"}), vec!["我喜欢喝绿茶"]),
        (json!({"query": "茶喜"}), vec![]),
        (json!({"query": "tea", "agent_id": bot}), vec![BLACK]),
        (json!({"query": "tea", "agent_id": "none"}), vec![MORNING]),
        (json!({"query": "morning", "user_id": "ann"}), vec![WALKS]),
        (json!({"query": "tea*", "min_importance": 0.5}), vec![BLACK, MORNING]),
        (json!({"query": "tea*", "min_importance": 0.9}), vec![MORNING]),
        (json!({"query": "tea", "memory_type": "Core"}), vec![MORNING]),
        (json!({"query": "tea", "max_age_days": 1}), vec![BLACK, MORNING]),
        (json!({"query": "tea morning", "threshold": 0.5}), vec![MORNING]),
    ] {
        assert_eq!(texts(&daemon, &daemon.key, query.clone()).await, wanted, "{query}");
        // The same search with a query string.
        let pairs: Vec<String> = query
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| {
                format!("{name}={}", value.as_str().map_or(value.to_string(), str::to_owned))
            })
            .collect();
        let path = format!("{MEMORIES}/search?{}", pairs.join("&").replace(' ', "+"));
        let path: String = path
            .bytes()
            .map(|b| if b.is_ascii() { (b as char).to_string() } else { format!("%{b:02x}") })
            .collect();
        let found = data(&daemon.get(&path).send().await, 200);
        assert_eq!(contents(found["results"].as_array().unwrap()), wanted, "{path}");
    }
    let found = search(&daemon, &daemon.key, json!({"query": "tea*", "limit": 2})).await;
    assert_eq!(
        (&found["total"], &found["offset"], &found["limit"], &found["has_more"]),
        (&json!(3), &json!(0), &json!(2), &json!(true))
    );
    let last = search(&daemon, &daemon.key, json!({"query": "tea*", "limit": 2, "offset": 1})).await;
    assert_eq!((&last["has_more"], last["results"].as_array().unwrap().len()), (&json!(false), 2));

    // A changed memory is found by its new text, type and importance.
    let found = search(&daemon, &daemon.key, json!({"query": "coffee"})).await;
    let path = path_of(&found["results"][0]);
    let change = json!({"content": "A teacup of milk", "importance": 1, "memory_type": "Working"});
    data(&daemon.call("PUT", &path).json(&change).send().await, 200);
    assert!(texts(&daemon, &daemon.key, json!({"query": "coffee"})).await.is_empty());
    let now = json!({"query": "teacup", "min_importance": 1, "memory_type": "working"});
    assert_eq!(texts(&daemon, &daemon.key, now).await, ["A teacup of milk"]);
    data(&daemon.call("PUT", &path).json(&json!({"importance": 0.1})).send().await, 200);
    assert!(
        texts(&daemon, &daemon.key, json!({"query": "teacup milk", "min_importance": 0.5})).await.is_empty()
    );

    for (body, field) in [
        (json!({}), "query"),
        (json!({"query": "?!"}), "query"),
        (json!({"query": "x".repeat(1_001)}), "query"),
        (json!({"query": "x", "limit": 101}), "limit"),
        (json!({"query": "x", "offset": 10_001}), "offset"),
        (json!({"query": "x", "threshold": 2}), "threshold"),
        (json!({"query": "x", "memory_type": "vague"}), "memory_type"),
        (json!({"query": "x", "colour": "red"}), "colour"),
    ] {
        let reply = daemon.post(&format!("{MEMORIES}/search")).json(&body).send().await;
        assert_eq!(
            (refused(&reply).0, &reply.json()["details"]["field"]),
            (400, &json!(field)),
            "{body:.80}"
        );
    }
    for query in
        ["query=x&limit=0", "query=x&min_importance=NaN", "query=x&prefix=maybe", "query=x&who=me", ""]
    {
        assert_eq!(daemon.get(&format!("{MEMORIES}/search?{query}")).send().await.status, 400, "{query}");
    }
}

#[tokio::test]
async fn another_users_memories_cannot_be_found_listed_or_written() {
    let daemon = Daemon::start().await;
    let acme = daemon.create_org("acme").await;
    let (ann, eve) = (daemon.user_token("ann").await, daemon.user_token("eve").await);
    let bot = agent(&daemon, &daemon.key, "bot").await;
    let own = remember(&daemon, &ann, json!({"content": "a secret of ann", "agent_id": bot})).await;
    assert_eq!(own["user_id"], "ann", "a user remembers for themselves");
    let other = daemon.post(MEMORIES).key(&ann).json(&json!({"content": "x", "user_id": "eve"})).send().await;
    assert_eq!(refused(&other), (403, "FORBIDDEN".into()));
    let shared = remember(&daemon, &daemon.key, json!({"content": "a secret of all"})).await;
    let mut alone = Vec::new();
    for n in 0..30 {
        alone.push(remember(&daemon, &eve, json!({"content": format!("secret {n} of eve")})).await);
    }

    let sought = json!({"query": "secret* ann eve all", "limit": 100});
    assert_eq!(texts(&daemon, &ann, sought.clone()).await, ["a secret of all", "a secret of ann"]);
    assert_eq!(search(&daemon, &eve, sought.clone()).await["total"], 31);
    assert_eq!(search(&daemon, &daemon.key, sought.clone()).await["total"], 32);
    assert_eq!(search(&daemon, &acme, sought.clone()).await["total"], 0);
    let anothers = json!({"query": "secret", "user_id": "eve"});
    assert_eq!(search(&daemon, &ann, anothers).await["total"], 0);
    assert_eq!(
        contents(&all(&daemon, &ann, &format!("{MEMORIES}?")).await),
        ["a secret of all", "a secret of ann"]
    );
    assert!(all(&daemon, &acme, &format!("{MEMORIES}?")).await.is_empty());

    // Memories that the reader cannot see do not change the scores.
    let score = |found: Value| found["results"][0]["score"].clone();
    let before = score(search(&daemon, &ann, json!({"query": "ann"})).await);
    for _ in 0..5 {
        remember(&daemon, &eve, json!({"content": "ann ann ann"})).await;
    }
    assert_eq!(score(search(&daemon, &ann, json!({"query": "ann"})).await), before);

    for (key, of, get, write) in [
        (&ann, &own, 200, 200),
        (&eve, &own, 404, 404),
        (&acme, &own, 404, 404),
        (&ann, &shared, 200, 403),
        (&daemon.key, &own, 200, 200),
    ] {
        let path = path_of(of);
        assert_eq!(daemon.get(&path).key(key).send().await.status, get, "{of}");
        assert_eq!(daemon.get(&format!("{path}/history")).key(key).send().await.status, get, "{of}");
        let change = daemon.call("PUT", &path).key(key).json(&json!({"importance": 0.4})).send().await;
        assert_eq!(change.status.as_u16(), write, "{of}");
        if write != 200 {
            assert_eq!(daemon.call("DELETE", &path).key(key).send().await.status.as_u16(), write, "{of}");
        }
    }
    let batch = daemon.post(&format!("{MEMORIES}/batch/delete")).key(&ann);
    let outcome = data(&batch.json(&json!([id_of(&alone[0]), id_of(&shared)])).send().await, 200);
    let codes: Vec<&Value> =
        outcome["errors"].as_array().unwrap().iter().map(|error| &error["code"]).collect();
    assert_eq!((codes, &outcome["successful"]), (vec![&json!("NOT_FOUND"), &json!("FORBIDDEN")], &json!(0)));
    let stranger =
        daemon.post(MEMORIES).key(&acme).json(&json!({"content": "x", "agent_id": bot})).send().await;
    assert_eq!(refused(&stranger), (400, "VALIDATION_ERROR".into()), "another's agent is none");

    // A reader may not write. A narrowed credential finds only what it is narrowed to.
    let viewer = daemon.mint_token(&daemon.key, "vic", json!({"roles": ["viewer"]})).await;
    let viewers = daemon.post(MEMORIES).key(&viewer).json(&json!({"content": "x"})).send().await;
    assert_eq!(refused(&viewers), (403, "FORBIDDEN".into()));
    assert_eq!(texts(&daemon, &viewer, json!({"query": "secret"})).await, ["a secret of all"]);
    let narrowed = daemon.create_key(json!({"scopes": ["*"], "agents": [bot]})).await;
    let of_bot = json!({"query": "secret", "agent_id": bot});
    assert_eq!(texts(&daemon, &narrowed, of_bot).await, ["a secret of ann"]);
    let of_none = json!({"query": "secret", "agent_id": "none"});
    assert!(texts(&daemon, &narrowed, of_none).await.is_empty());
    let of_all = daemon.post(&format!("{MEMORIES}/search")).key(&narrowed).json(&json!({"query": "secret"}));
    assert_eq!(refused(&of_all.send().await), (400, "VALIDATION_ERROR".into()));
    assert_eq!(daemon.get(&path_of(&shared)).key(&narrowed).send().await.status, 404);
}

#[tokio::test]
async fn invalid_memories_are_refused_by_field() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    for (body, field) in [
        (json!({}), "content"),
        (json!({"content": ""}), "content"),
        (json!({"content": "x".repeat(10_001)}), "content"),
        (json!({"content": "x", "importance": 1.5}), "importance"),
        (json!({"content": "x", "metadata": [1]}), "metadata"),
        (json!({"content": "x", "metadata": {"x": "y".repeat(9_000)}}), "metadata"),
        (json!({"content": "x", "user_id": "u".repeat(257)}), "user_id"),
        (json!({"content": "x", "user_id": "a\nb"}), "user_id"),
        (json!({"content": "x", "agent_id": "agent-0"}), "agent_id"),
        (json!({"content": "x", "agent_id": "none"}), "agent_id"),
        (json!({"content": "x", "importance": "high"}), "importance"),
        (json!({"content": 7}), "content"),
        (json!({"content": "x", "memory_type": "vague"}), "memory_type"),
        (json!({"content": "x", "scope": "galaxy"}), "scope"),
        (json!({"content": "x", "colour": "red"}), "colour"),
    ] {
        let reply = daemon.post(MEMORIES).json(&body).send().await;
        assert_eq!(refused(&reply), (400, "VALIDATION_ERROR".into()), "{field}: {reply:?}");
        assert_eq!(reply.json()["details"]["field"], field, "{reply:?}");
    }
    for (method, path, allow) in [
        ("PUT", "", "GET, HEAD, POST"),
        ("POST", "/x", "GET, HEAD, PUT, PATCH, DELETE"),
        ("POST", "/x/history", "GET, HEAD"),
        ("GET", "/batch", "POST"),
        ("DELETE", "/search", "GET, HEAD, POST"),
    ] {
        let reply = daemon.call(method, &format!("{MEMORIES}{path}")).send().await;
        let allow = (reply.status.as_u16(), reply.header("allow")) == (405, Some(allow));
        assert!(allow || (method, path) == ("GET", "/batch"), "{path}: {reply:?}");
    }
    daemon.publish(common::custom("end", json!(1))).await;
    assert_eq!(sse.next_event().await["channel"], "end", "none of it was published");

    // The longest allowed content, counted in characters. A repeat of it also fits the stored response of an
    // idempotency key.
    let mut daemon = daemon;
    let long = json!({"content": "\u{1}ü漢 ".repeat(2_500), "metadata": {"m": "x".repeat(8_000)}});
    let twice = |call: Call| {
        let call = call.header("idempotency-key", "long").json(&long);
        async move { (call.clone().send().await, call.send().await) }
    };
    let (once, again) = twice(daemon.post(MEMORIES)).await;
    assert_eq!(
        (once.status.as_u16(), again.json(), again.header("idempotent-replayed")),
        (201, once.json(), Some("true"))
    );
    daemon.restart().await;
    assert_eq!(all(&daemon, &daemon.key, &format!("{MEMORIES}?")).await.len(), 1);
}

/// Record, event, versions and index are one write: after `kill -9` at any moment they agree.
#[tokio::test]
async fn record_event_and_index_agree_after_kill_9() {
    let points: usize = std::env::var("NERVEWIRE_KILL9_POINTS").ok().map_or(5, |text| text.parse().unwrap());
    let mut daemon = Daemon::start().await;
    let mut answered = 0;
    for point in 0..points {
        let writers = futures_util::future::join_all((0..4).map(|writer| {
            let (addr, key) = (daemon.addr(), daemon.key.clone());
            tokio::spawn(async move { write_until_it_ends(addr, key, format!("{point}x{writer}")).await })
        }));
        let committed = daemon.metric("nervewire_published_total").await;
        common::until("some more", || async {
            (daemon.metric("nervewire_published_total").await >= committed + 20.0 + point as f64)
                .then_some(())
        })
        .await;
        daemon.kill9().await;
        answered += writers.await.into_iter().map(Result::unwrap).sum::<usize>();
        daemon.start_again().await;
    }
    // The memories according to the events, with their number of changes.
    let mut published = BTreeMap::<String, u64>::new();
    let mut path = "/api/v1/events?earliest=true&limit=1000".to_owned();
    loop {
        let page = daemon.get(&path).send().await.json();
        for event in page["data"].as_array().unwrap() {
            let id = event["memory_id"].as_str().unwrap().to_owned();
            match event["operation"].as_str().unwrap() {
                "created" => assert_eq!(published.insert(id, 1), None),
                "updated" => *published.get_mut(&id).unwrap() += 1,
                _ => assert!(published.remove(&id).is_some()),
            }
        }
        if page["caught_up"] == true {
            break;
        }
        path = format!("/api/v1/events?limit=1000&after={}", page["next_cursor"].as_str().unwrap());
    }
    let kept = all(&daemon, &daemon.key, &format!("{MEMORIES}?limit=100")).await;
    let versions = |row: &Value| (id_of(row).to_owned(), row["version"].as_u64().unwrap());
    assert_eq!(kept.iter().map(versions).collect::<BTreeMap<_, _>>(), published);
    assert!(answered >= 20 * points && !kept.is_empty(), "{answered} answered, {} kept", kept.len());
    let mut indexed = BTreeSet::new();
    for offset in (0..).step_by(100) {
        let found =
            search(&daemon, &daemon.key, json!({"query": "always", "limit": 100, "offset": offset})).await;
        indexed.extend(found["results"].as_array().unwrap().iter().map(|hit| id_of(hit).to_owned()));
        if found["has_more"] == false {
            assert_eq!(found["total"].as_u64().unwrap() as usize, kept.len());
            break;
        }
    }
    assert_eq!(indexed, published.into_keys().collect());
    for row in kept.iter().step_by(7) {
        let found = search(&daemon, &daemon.key, json!({"query": row["metadata"]["word"], "limit": 1})).await;
        assert_eq!(found["results"][0]["id"], row["id"], "by the word of its version");
        let history = daemon.get(&format!("{}/history", path_of(row))).send().await;
        assert_eq!(data(&history, 200).as_array().unwrap().len() as u64, row["version"].as_u64().unwrap());
    }
}

/// Creates, changes and deletes memories, one of four each, until the daemon ends. Returns how many responses
/// arrived.
async fn write_until_it_ends(addr: std::net::SocketAddr, key: String, name: String) -> usize {
    use nervewire_client::{Client, Request, Response, Timeouts};
    let wait = common::PATIENCE;
    let client = Client::builder(format!("http://{addr}").parse().unwrap())
        .credential(key)
        .timeouts(Timeouts { connect: wait, head: wait, body: wait })
        .build();
    for n in 0.. {
        let said = |what: &str| {
            let word = format!("{what}{name}x{n}");
            json!({"content": format!("always {word}"), "metadata": {"word": word}}).to_string()
        };
        let request = Request::new(http::Method::POST, MEMORIES).body("application/json", said("made"));
        let Ok(made) = client.send(&request).await.and_then(Response::json) else { return 2 * n };
        let path = format!("{MEMORIES}/{}", made["data"]["id"].as_str().unwrap());
        let request = match n % 4 {
            0 => Request::new(http::Method::DELETE, &path),
            _ => Request::new(http::Method::PUT, &path).body("application/json", said("changed")),
        };
        if client.send(&request).await.is_err() {
            return 2 * n + 1;
        }
    }
    0
}
