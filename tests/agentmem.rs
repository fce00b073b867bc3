//! The requests of AgentMem's UI and SDKs, exactly as they send them: the first table of `docs/agentmem.md`,
//! and the errors of AgentMem's own server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::rest::data;
use common::{Daemon, custom};
use serde_json::{Value, json};

/// Their SDKs send API keys as `Bearer`, other clients as `X-API-Key`. The two extra headers of the UI have
/// no effect.
#[tokio::test]
async fn an_api_key_is_accepted_in_either_header_and_the_uis_headers_grant_nothing() {
    let daemon = Daemon::start().await;
    let acme = daemon.create_org("acme").await;
    let made = daemon
        .post("/api/v1/agents")
        .anonymous()
        .header("authorization", format!("Bearer {acme}"))
        .header("x-user-id", "somebody")
        .header("x-organization-id", "default")
        .json(&json!({"name": "planner"}));
    let agent = data(&made.send().await, 201);
    assert_eq!(agent["organization_id"], "acme");
    let path = format!("/api/v1/agents/{}", agent["id"].as_str().unwrap());
    let seen = daemon.get(&path).anonymous().header("x-api-key", &acme).send().await;
    assert_eq!(data(&seen, 200), agent);
    let stranger = daemon.get(&path).header("x-organization-id", "acme").send().await;
    stranger.refused(404, "NOT_FOUND");
}

/// Their UI opens both streams with `?token=`, reads unnamed SSE events with `onmessage`, and sends pings
/// over the WebSocket.
#[tokio::test]
async fn the_ui_gets_its_events_over_both_streams_with_a_token_in_the_url() {
    let daemon = Daemon::start().await;
    let token = daemon.user_token("ann").await;
    let mut ws = daemon.ws(&format!("/api/v1/ws?token={token}")).without("x-api-key").open().await;
    assert_eq!(ws.next_json().await["type"], "ready");
    ws.send(&json!({"type": "ping", "timestamp": "2026-01-06T00:00:00Z"})).await;
    assert_eq!(ws.expect("pong").await["type"], "pong");

    let mut sse = daemon.sse(&format!("/api/v1/sse?token={token}")).without("x-api-key").open().await;
    let made = daemon.post("/api/v1/agents").json(&json!({"name": "planner"})).send().await;
    let agent = data(&made, 201)["id"].clone();
    // As in the UI's hooks: a named event does not reach `onmessage`.
    let update = loop {
        let block = sse.next().await;
        if block.name.is_none() {
            break block.json();
        }
    };
    assert_eq!(
        (&update["type"], &update["agent_id"], &update["status"]),
        (&json!("agent_update"), &agent, &json!("created"))
    );
    let same = ws.expect("agent_update").await;
    assert_eq!(same, update);

    // Its chat parser needs `data: ` with the space, and flat fields.
    let mut raw = daemon.sse(&format!("/api/v1/sse/llm?token={token}")).without("x-api-key").open().await;
    daemon
        .publish(json!({"type": "stream_chunk", "request_id": "r", "chunk": "Hel", "is_final": false}))
        .await;
    let line = loop {
        let block = raw.next_block().await.expect("more");
        if let Some(line) = block.lines.iter().find(|line| line.contains("stream_chunk")) {
            break line.clone();
        }
    };
    let flat: Value =
        serde_json::from_str(line.strip_prefix("data: ").expect("a space after the colon")).unwrap();
    assert_eq!(
        (&flat["request_id"], &flat["chunk"], &flat["is_final"]),
        (&json!("r"), &json!("Hel"), &json!(false))
    );
}

/// The platform as their dashboard loads it: envelopes, `limit` and `offset`, `null` details.
#[tokio::test]
async fn the_dashboard_pages_by_offset_and_reads_envelope_and_error_body() {
    let daemon = Daemon::start().await;
    for n in 0..5 {
        let made = daemon.post("/api/v1/agents").json(&json!({"name": format!("a{n}")})).send().await;
        assert_eq!(made.status, 201);
    }
    let page = daemon.get("/api/v1/agents?limit=2&offset=3").send().await;
    let names: Vec<Value> =
        data(&page, 200).as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(names, ["a1", "a0"]);

    let missing = daemon.get("/api/v1/agents/agent-0").send().await;
    let body = missing.json();
    assert_eq!(
        (missing.status.as_u16(), &body["code"], &body["details"]),
        (404, &json!("NOT_FOUND"), &Value::Null)
    );
    assert!(body["message"].is_string() && body["timestamp"].is_string(), "{body}");
}

/// Their server loses the metadata of a message, finds tools by any tag only, and publishes no events of
/// changes.
#[tokio::test]
async fn fields_dropped_by_agentmem_are_stored_found_and_published() {
    let daemon = Daemon::start().await;
    let mut live = daemon.live_ws("/api/v1/ws?types=message").await;
    let agent = data(&daemon.post("/api/v1/agents").json(&json!({})).send().await, 201)["id"].clone();
    let body = json!({"agent_id": agent, "user_id": "ann", "text": "hello", "metadata": {"thread": "t1"}});
    let message = data(&daemon.post("/api/v1/messages").json(&body).send().await, 201);
    assert_eq!((&message["content"], &message["metadata"]), (&json!("hello"), &json!({"thread": "t1"})));
    let event = live.expect("message").await;
    assert_eq!((&event["message_id"], &event["metadata"]), (&message["id"], &message["metadata"]));

    for tags in [json!(["web"]), json!(["web", "search"])] {
        let made = daemon.post("/api/v1/tools").json(&json!({"name": "t", "tags": tags})).send().await;
        assert_eq!(made.status, 201);
    }
    for (query, found) in [("", 2), ("&match_all=true", 1)] {
        let tools = daemon.get(&format!("/api/v1/tools?tags=web,search{query}")).send().await;
        assert_eq!(data(&tools, 200).as_array().unwrap().len(), found, "{query}");
    }
}

/// The names of an object's fields, sorted.
#[track_caller]
fn fields(object: &Value) -> Vec<&str> {
    let mut fields: Vec<&str> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    fields.sort_unstable();
    fields
}

/// Their SDKs send memory types in lower case and flat batches, page by number, and read the result of a
/// batch without an envelope.
#[tokio::test]
async fn agentmem_sdks_store_find_and_page_memories() {
    let daemon = Daemon::start().await;
    let agent = data(&daemon.post("/api/v1/agents").json(&json!({})).send().await, 201)["id"].clone();
    let body = json!({"agent_id": agent, "user_id": "ann", "content": "User likes pizza", "memory_type": "episodic",
        "importance": 0.8, "metadata": {"source": "sdk"}});
    let memory = data(&daemon.post("/api/v1/memories").json(&body).send().await, 201);
    assert_eq!((&memory["memory_type"], &memory["metadata"]), (&json!("Episodic"), &body["metadata"]));
    for field in ["id", "agent_id", "user_id", "content", "importance", "created_at", "updated_at"] {
        assert!(!memory[field].is_null(), "{field}: {memory}");
    }
    let found = daemon.post("/api/v1/memories/search").json(&json!({"query": "pizza", "user_id": "ann"}));
    let found = data(&found.send().await, 200);
    assert_eq!(fields(&found), ["has_more", "limit", "offset", "results", "total"]);
    assert!(found["results"][0]["score"].is_f64(), "{found}");
    let narrowed =
        json!({"query": "pizza", "agent_id": agent, "memory_type": "semantic", "limit": 5, "offset": 0});
    let none = data(&daemon.post("/api/v1/memories/search").json(&narrowed).send().await, 200);
    assert_eq!(none["results"], json!([]), "it is episodic");
    assert_eq!((&found["results"][0]["id"], &found["has_more"]), (&memory["id"], &json!(false)));
    let batch = json!({"memories": [{"content": "a", "memory_type": "factual"}, {"content": ""}]});
    let outcome = daemon.post("/api/v1/memories/batch").json(&batch).send().await.json();
    assert_eq!((&outcome["successful"], &outcome["failed"]), (&json!(1), &json!(1)));
    let expected = ["errors", "failed", "results", "successful"];
    assert_eq!(fields(&outcome), ["data", "errors", "failed", "results", "success", "successful"]);
    assert_eq!(fields(&outcome["data"]), expected);
    assert!(expected.iter().all(|field| outcome[field] == outcome["data"][field]), "{outcome}");
    let a = outcome["results"][0].as_str().unwrap();
    let history = data(&daemon.get(&format!("/api/v1/memories/{a}/history")).send().await, 200);
    assert_eq!(
        (&history[0]["operation"], &history[0]["memory_type"]),
        (&json!("created"), &json!("Factual"))
    );
    let page = daemon.get("/api/v1/memories?page=1&limit=1&sort_by=created_at&order=desc").send().await;
    assert_eq!(data(&page, 200)[0]["id"], memory["id"]);
    let gone = daemon.post("/api/v1/memories/batch/delete").json(&json!([a, "memory-0"])).send().await.json();
    assert_eq!((&gone["successful"], &gone["failed"], &gone["results"]), (&json!(1), &json!(1), &json!([a])));
}

/// The differences that `docs/agentmem.md` lists.
#[tokio::test]
async fn pages_hold_fifty_in_order_of_time_and_unserved_paths_are_404() {
    let daemon = Daemon::start().await;
    let batch: Vec<Value> = (0..60).map(|n| json!({"content": format!("memory {n}")})).collect();
    let made = daemon.post("/api/v1/memories/batch").json(&json!({"memories": batch})).send().await;
    assert_eq!(made.json()["successful"], 60);
    for (query, rows) in [("", 50), ("?page=0", 50), ("?page=1", 10), ("?page=1&limit=20", 20)] {
        let page = data(&daemon.get(&format!("/api/v1/memories{query}")).send().await, 200);
        assert_eq!(page.as_array().unwrap().len(), rows, "{query}");
    }
    daemon.get("/api/v1/memories?sort_by=importance").send().await.refused(400, "BAD_REQUEST");
    for path in ["/metrics", "/swagger-ui"] {
        daemon.get(path).send().await.refused(404, "NOT_FOUND");
    }
    assert_eq!(daemon.get("/docs").anonymous().send().await.status, 200);
    let traced = daemon.get("/health").header("x-trace-id", "t").header("x-request-id", "r").send().await;
    assert_eq!((traced.header("x-trace-id"), traced.header("x-request-id")), (None, Some("r")));
}

/// Events of one organization never reach clients of another, whatever filter they send.
#[tokio::test]
async fn events_of_other_organizations_are_filtered_out() {
    let daemon = Daemon::start().await;
    let acme = daemon.create_org("acme").await;
    let mut theirs = daemon.ws("/api/v1/ws?channel=news").key(&acme).open().await;
    assert_eq!(theirs.next_json().await["type"], "ready");
    daemon.publish(custom("news", json!("ours"))).await;
    daemon.publish_as(&acme, custom("news", json!("theirs"))).await;
    assert_eq!(theirs.expect("custom").await["data"], "theirs");
}

/// Their UI logs in with these three fields, reads `token` and `user` beside the envelope, and then sends the
/// token as Bearer and in the URL of its WebSocket.
#[tokio::test]
async fn a_login_like_the_uis_returns_a_usable_token() {
    let daemon = Daemon::start().await;
    let asked = json!({"email": "ann@example.org", "password": "12345678", "name": "Ann", "organization_id": "default"});
    let made = data(&daemon.post("/api/v1/users/register").json(&asked).send().await, 201);
    let asked = json!({"email": "ann@example.org", "password": "12345678", "organization_id": "default"});
    let entered = daemon.post("/api/v1/users/login").anonymous().json(&asked).send().await.json();
    assert_eq!((&entered["user"]["id"], &entered["user"]["email"]), (&made["id"], &json!("ann@example.org")));
    assert_eq!(fields(&entered), ["data", "expires_at", "success", "token", "user"]);
    assert_eq!((&entered["data"]["token"], &entered["data"]["user"]), (&entered["token"], &entered["user"]));
    let change = json!({"current_password": "12345678", "new_password": "87654321"});
    let change =
        daemon.call("PUT", "/api/v1/users/me/password").key(entered["token"].as_str().unwrap()).json(&change);
    let entered = change.send().await.json();
    assert_eq!(fields(&entered), ["data", "expires_at", "success", "token", "user"]);
    let organization = daemon.get("/api/v1/organizations/default").send().await;
    assert_eq!(fields(&organization.json()), ["data", "success"], "in the envelope alone");
    let token = entered["token"].as_str().unwrap();
    let me = data(&daemon.get("/api/v1/users/me").key(token).send().await, 200);
    assert_eq!((&me["id"], &me["email"]), (&made["id"], &made["email"]));
    let mut ws = daemon.ws(&format!("/api/v1/ws?token={token}")).without("authorization").open().await;
    ws.expect("ready").await;
}
