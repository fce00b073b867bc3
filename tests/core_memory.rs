//! Core memory over REST: text blocks that are always in an agent's prompt, for everybody or for one user,
//! and their events.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::http::Call;
use common::rest::{agent, data};
use common::{Daemon, is_timestamp};
use serde_json::{Value, json};

fn put(daemon: &Daemon, agent: &str, label: &str, body: Value) -> Call {
    daemon.call("PUT", &format!("/api/v1/agents/{agent}/core-memory/{label}")).json(&body)
}

#[tokio::test]
async fn creating_replacing_and_deleting_a_block_publish_events() {
    let daemon = Daemon::start().await;
    let agent = agent(&daemon, &daemon.key, "a").await;
    let path = format!("/api/v1/agents/{agent}/core-memory");
    let mut sse = daemon.live_sse("/api/v1/sse?types=memory_update").await;

    let persona = json!({"value": "You are a planner.", "limit": 30});
    let made = put(&daemon, &agent, "persona", persona.clone()).send().await;
    assert_eq!(made.header("etag"), Some("\"1\""));
    let block = data(&made, 201);
    assert!(block["id"].as_str().unwrap().starts_with("block-"), "{block}");
    for (field, value) in [
        ("agent_id", json!(agent)),
        ("user_id", Value::Null),
        ("label", json!("persona")),
        ("value", persona["value"].clone()),
        ("limit", json!(30)),
        ("organization_id", json!("default")),
    ] {
        assert_eq!(block[field], value, "{field}");
    }
    assert!(is_timestamp(block["created_at"].as_str().unwrap()));
    let got = daemon.get(&format!("{path}/persona")).send().await;
    assert_eq!((data(&got, 200), got.header("etag")), (block.clone(), Some("\"1\"")));

    // The limit stays until another is set. It counts characters.
    put(&daemon, &agent, "persona", json!({"value": "x".repeat(31)}))
        .send()
        .await
        .refused(400, "VALIDATION_ERROR");
    let replaced = put(&daemon, &agent, "persona", json!({"value": "ä".repeat(30)}))
        .header("if-match", "\"1\"")
        .send()
        .await;
    assert_eq!(
        (data(&replaced, 200)["id"].clone(), replaced.header("etag")),
        (block["id"].clone(), Some("\"2\""))
    );
    let late =
        put(&daemon, &agent, "persona", json!({"value": "late"})).header("if-match", "\"1\"").send().await;
    late.refused(412, "CONFLICT");
    let unmade =
        put(&daemon, &agent, "human", json!({"value": "late"})).header("if-match", "\"1\"").send().await;
    unmade.refused(412, "CONFLICT");

    let human = data(&put(&daemon, &agent, "human", json!({"value": ""})).send().await, 201);
    assert_eq!(human["limit"], 2_000);
    let listed = data(&daemon.get(&format!("{path}?order=asc")).send().await, 200);
    let labels: Vec<_> = listed.as_array().unwrap().iter().map(|block| block["label"].clone()).collect();
    assert_eq!(labels, ["persona", "human"]);

    let gone = daemon.call("DELETE", &format!("{path}/persona"));
    gone.clone().header("if-match", "\"1\"").send().await.refused(412, "CONFLICT");
    assert_eq!(gone.clone().send().await.status, 204);
    gone.send().await.refused(404, "NOT_FOUND");
    daemon.get(&format!("{path}/persona")).send().await.refused(404, "NOT_FOUND");

    let events: Vec<_> = sse.events(4).await;
    for (event, (id, operation, label)) in events.iter().zip([
        (&block["id"], "created", "persona"),
        (&block["id"], "updated", "persona"),
        (&human["id"], "created", "human"),
        (&block["id"], "deleted", "persona"),
    ]) {
        assert_eq!((&event["memory_id"], &event["agent_id"]), (id, &json!(agent)), "{event}");
        assert_eq!(
            (&event["operation"], &event["metadata"]),
            (&json!(operation), &json!({"core_memory": label}))
        );
        assert_eq!(event.get("user_id"), None);
    }
}

#[tokio::test]
async fn invalid_blocks_are_refused() {
    let daemon = Daemon::start().await;
    let agent = agent(&daemon, &daemon.key, "a").await;
    for body in [
        json!({}),
        json!({"value": 1}),
        json!({"value": "x", "limit": 0}),
        json!({"value": "x", "limit": 10_001}),
        json!({"value": "x".repeat(2_001)}),
        json!({"value": "x".repeat(10_001), "limit": 10_000}),
        json!({"value": "x", "colour": "red"}),
    ] {
        put(&daemon, &agent, "system", body).send().await.refused(400, "VALIDATION_ERROR");
    }
    put(&daemon, &agent, "mood", json!({"value": "x"})).send().await.refused(400, "VALIDATION_ERROR");
    put(&daemon, "agent-nobody", "system", json!({"value": "x"})).send().await.refused(404, "NOT_FOUND");
    let path = format!("/api/v1/agents/{agent}/core-memory");
    daemon.get(&format!("{path}?colour=red")).send().await.refused(400, "BAD_REQUEST");
    daemon.get(&format!("{path}/system?colour=red")).send().await.refused(400, "BAD_REQUEST");
    data(
        &put(&daemon, &agent, "system", json!({"value": "x".repeat(10_000), "limit": 10_000})).send().await,
        201,
    );

    assert_eq!(daemon.call("DELETE", &format!("/api/v1/agents/{agent}")).send().await.status, 204);
    daemon.get(&path).send().await.refused(404, "NOT_FOUND");
    daemon.get(&format!("{path}/system")).send().await.refused(404, "NOT_FOUND");
}

/// A user's blocks are private: another user sees neither the blocks nor their events, and no other
/// organization sees anything.
#[tokio::test]
async fn a_users_blocks_are_seen_by_that_user_and_with_read_all() {
    let daemon = Daemon::start().await;
    let agent = agent(&daemon, &daemon.key, "a").await;
    let (ann, bob) = (daemon.user_token("ann").await, daemon.user_token("bob").await);
    let path = format!("/api/v1/agents/{agent}/core-memory");
    let mut bobs = daemon.sse("/api/v1/sse").key(&bob).open().await;
    assert_eq!(bobs.next().await.name.as_deref(), Some("ready"));

    data(&put(&daemon, &agent, "human", json!({"value": "everybody"})).send().await, 201);
    let mine = format!("human?user_id={}", "ann");
    let made =
        data(&put(&daemon, &agent, &mine, json!({"value": "Ann likes tea"})).key(&ann).send().await, 201);
    assert_eq!(made["user_id"], "ann");
    let bobs_own = format!("human?user_id={}", "bob");
    data(&put(&daemon, &agent, &bobs_own, json!({"value": "Bob"})).key(&bob).send().await, 201);

    let value = async |key: &str, what: &str| {
        let reply = daemon.get(&format!("{path}/{what}")).key(key).send().await;
        (reply.status.as_u16(), reply.json()["data"]["value"].as_str().unwrap_or_default().to_owned())
    };
    for (key, what, found) in [
        (&ann, "human", (200, "everybody")),
        (&ann, mine.as_str(), (200, "Ann likes tea")),
        (&daemon.key, mine.as_str(), (200, "Ann likes tea")),
        (&bob, mine.as_str(), (404, "")),
        (&bob, bobs_own.as_str(), (200, "Bob")),
    ] {
        assert_eq!(value(key, what).await, (found.0, found.1.to_owned()), "{what}");
    }
    for (key, query, count) in [
        (&bob, "?user_id=ann", 0),
        (&ann, "?user_id=ann", 1),
        (&bob, "", 1),
        (&daemon.key, "?user_id=ann", 1),
    ] {
        let listed = data(&daemon.get(&format!("{path}{query}")).key(key).send().await, 200);
        assert_eq!(listed.as_array().unwrap().len(), count, "{query}");
    }

    // A principal with rights on its own data changes its own blocks, but no shared ones and no other user's.
    for (what, status) in [("human", 403), (mine.as_str(), 403), (bobs_own.as_str(), 200)] {
        let reply = put(&daemon, &agent, what, json!({"value": "changed"})).key(&bob).send().await;
        assert_eq!(reply.status, status, "{what}: {reply:?}");
    }
    let gone = daemon.call("DELETE", &format!("{path}/{mine}"));
    gone.clone().key(&bob).send().await.refused(403, "FORBIDDEN");
    let viewer = daemon.mint_token(&daemon.key, "ann", json!({"roles": ["viewer"]})).await;
    gone.clone().key(&viewer).send().await.refused(403, "FORBIDDEN");
    assert_eq!(gone.key(&ann).send().await.status, 204);

    let events = bobs.events(3).await;
    assert_eq!(
        events.iter().map(|event| event.get("user_id").cloned()).collect::<Vec<_>>(),
        [None, Some(json!("bob")), Some(json!("bob"))]
    );

    let acme = daemon.create_org("acme").await;
    daemon.get(&path).key(&acme).send().await.refused(404, "NOT_FOUND");
    put(&daemon, &agent, "human", json!({"value": "x"})).key(&acme).send().await.refused(404, "NOT_FOUND");
}
