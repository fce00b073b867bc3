//! Agents and messages over REST (protocol §9): requests and responses, visibility, and that a change and its
//! event are one write.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::rest::{agent, all, data, refused};
use common::{Daemon, is_timestamp};
use serde_json::{Value, json};

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|row| row["id"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn each_change_of_an_agent_publishes_an_event() {
    let daemon = Daemon::start().await;
    let mut sse = daemon.live_sse("/api/v1/sse?types=agent_update").await;
    let asked = json!({"name": "planner", "system": "Plan.", "llm_config": {"model": "m", "big": 12345678901234567890u64},
        "metadata": {"team": "a"}});
    let reply = daemon.post("/api/v1/agents").json(&asked).send().await;
    let made = data(&reply, 201);
    let id = made["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("agent-"), "{made}");
    assert_eq!(
        (&made["name"], &made["llm_config"], &made["state"]),
        (&asked["name"], &asked["llm_config"], &json!("idle"))
    );
    assert_eq!((&made["organization_id"], &made["description"]), (&json!("default"), &Value::Null));
    assert!(is_timestamp(made["created_at"].as_str().unwrap()) && made["created_at"] == made["updated_at"]);
    assert_eq!(reply.header("etag"), Some("\"1\""));

    let path = format!("/api/v1/agents/{id}");
    assert_eq!(data(&daemon.get(&path).send().await, 200), made);

    let change = json!({"name": "planner 2", "system": null});
    let reply = daemon.call("PUT", &path).header("if-match", "\"1\"").json(&change).send().await;
    let changed = data(&reply, 200);
    assert_eq!(
        (&changed["name"], &changed["system"], &changed["metadata"]),
        (&change["name"], &Value::Null, &made["metadata"])
    );
    let late = daemon.call("PUT", &path).header("if-match", "\"1\"").json(&change).send().await;
    assert_eq!(refused(&late), (412, "CONFLICT".into()));
    assert_eq!(late.json()["details"]["version"], 2);

    let state = format!("{path}/state");
    let late = daemon.call("PUT", &state).header("if-match", "\"1\"").json(&json!({"state": "thinking"}));
    assert_eq!(refused(&late.send().await), (412, "CONFLICT".into()));
    for (to, status) in
        [("thinking", 200), ("waiting", 409), ("executing", 200), ("executing", 200), ("error", 200)]
    {
        let body = json!({"state": to, "error_message": "out of tea"});
        let reply = daemon.call("PUT", &state).json(&body).send().await;
        assert_eq!(reply.status.as_u16(), status, "{to}: {reply:?}");
    }
    let agent_state = data(&daemon.get(&state).send().await, 200);
    assert_eq!(
        (&agent_state["state"], &agent_state["error_message"]),
        (&json!("error"), &json!("out of tea"))
    );
    assert!(is_timestamp(agent_state["last_active_at"].as_str().unwrap()));

    assert_eq!(daemon.call("DELETE", &path).send().await.status, 204);
    for gone in [daemon.get(&path), daemon.get(&state), daemon.call("DELETE", &path)] {
        assert_eq!(refused(&gone.send().await), (404, "NOT_FOUND".into()));
    }
    assert!(all(&daemon, &daemon.key, "/api/v1/agents?").await.is_empty());

    let mut statuses = Vec::new();
    for event in sse.events(7).await {
        assert_eq!((&event["type"], &event["agent_id"]), (&json!("agent_update"), &json!(id)));
        statuses.push((event["status"].as_str().unwrap().to_owned(), event["error_message"].clone()));
    }
    let plain = |status: &str| (status.to_owned(), Value::Null);
    let failed = ("error".to_owned(), json!("out of tea"));
    assert_eq!(statuses[..5], ["created", "idle", "thinking", "executing", "executing"].map(plain));
    assert_eq!(statuses[5..], [failed, plain("deleted")]);
}

#[tokio::test]
async fn messages_are_stored_published_and_listed_by_agent_and_user() {
    let daemon = Daemon::start().await;
    let (ada, bob) = (agent(&daemon, &daemon.key, "ada").await, agent(&daemon, &daemon.key, "bob").await);
    let mut sse = daemon.live_sse("/api/v1/sse?types=message").await;
    let mut made = Vec::new();
    for n in 0..12 {
        let (agent, user) = ([&ada, &bob][n % 2], ["u1", "u2", "u3"][n % 3]);
        let body = json!({"agent_id": agent, "user_id": user, "role": "assistant", "content": format!("m{n}"),
            "model": "x", "tool_calls": [{"name": "t", "args": {}}], "metadata": {"n": n, "of": {"a": [1, 2]}}});
        let message = data(&daemon.post("/api/v1/messages").json(&body).send().await, 201);
        for field in ["agent_id", "user_id", "role", "content", "model", "tool_calls", "metadata"] {
            assert_eq!(message[field], body[field], "{field}");
        }
        let event = sse.next_event().await;
        for (field, of) in
            [("message_id", "id"), ("content", "content"), ("user_id", "user_id"), ("metadata", "metadata")]
        {
            assert_eq!(event[field], message[of], "{field}");
        }
        made.push(message);
    }
    let newest_first: Vec<Value> = made.iter().rev().cloned().collect();
    let of = |agent: Option<&str>, user: Option<&str>| -> Vec<Value> {
        let is =
            |row: &Value, field: &str, wanted: Option<&str>| wanted.is_none_or(|wanted| row[field] == wanted);
        newest_first
            .iter()
            .filter(|row| is(row, "agent_id", agent) && is(row, "user_id", user))
            .cloned()
            .collect()
    };
    for (query, expected) in [
        (String::new(), of(None, None)),
        (format!("agent_id={ada}&"), of(Some(&ada), None)),
        ("user_id=u2&".into(), of(None, Some("u2"))),
        (format!("agent_id={bob}&user_id=u1&"), of(Some(&bob), Some("u1"))),
    ] {
        for limit in [1, 2, 5, 100] {
            let path = format!("/api/v1/messages?{query}limit={limit}");
            assert_eq!(all(&daemon, &daemon.key, &path).await, expected, "{path}");
            let mut ascending = all(&daemon, &daemon.key, &format!("{path}&order=asc")).await;
            ascending.reverse();
            assert_eq!(ascending, expected, "{path} ascending");
        }
    }
    let page = daemon.get("/api/v1/messages?limit=5&offset=4").send().await;
    assert_eq!(data(&page, 200), json!(newest_first[4..9]));

    // A message posted to an agent's path is a message like any other.
    let said = daemon
        .post(&format!("/api/v1/agents/{ada}/messages"))
        .json(&json!({"message": "hi", "user_id": "u9", "memorizing": true, "image_uris": ["file:a.png"],
            "metadata": {"big": 12345678901234567890u64}}));
    let said = data(&said.send().await, 201);
    let path = format!("/api/v1/messages/{}", said["message_id"].as_str().unwrap());
    let message = data(&daemon.get(&path).send().await, 200);
    assert_eq!(
        (&message["content"], &message["user_id"], &message["role"]),
        (&json!("hi"), &json!("u9"), &json!("user"))
    );
    let noted = json!({"big": 12345678901234567890u64, "memorizing": true, "image_uris": ["file:a.png"]});
    assert_eq!(message["metadata"], noted);
    let event = sse.next_event().await;
    assert_eq!((&event["content"], &event["metadata"]), (&json!("hi"), &noted));
    let twice = daemon
        .post(&format!("/api/v1/agents/{ada}/messages"))
        .json(&json!({"message": "hi", "user_id": "u9", "voice_files": [], "metadata": {"voice_files": 1}}));
    assert_eq!(refused(&twice.send().await), (400, "VALIDATION_ERROR".into()));
    assert_eq!(daemon.call("DELETE", &path).send().await.status, 204);
    assert_eq!(daemon.get(&path).send().await.status, 404);
    assert!(all(&daemon, &daemon.key, "/api/v1/messages?user_id=u9").await.is_empty());

    // A deleted agent accepts no messages, however many it got before. Its existing messages stay.
    assert_eq!(daemon.call("DELETE", &format!("/api/v1/agents/{ada}")).send().await.status, 204);
    let late = json!({"agent_id": ada, "user_id": "u1", "content": "late"});
    let late = daemon.post("/api/v1/messages").json(&late).send().await;
    assert_eq!(
        (refused(&late), late.json()["details"]["field"].clone()),
        ((400, "VALIDATION_ERROR".into()), json!("agent_id"))
    );
    let late = daemon
        .post(&format!("/api/v1/agents/{ada}/messages"))
        .json(&json!({"message": "late", "user_id": "u1"}));
    assert_eq!(refused(&late.send().await), (404, "NOT_FOUND".into()));
    assert_eq!(
        all(&daemon, &daemon.key, &format!("/api/v1/messages?agent_id={ada}")).await,
        of(Some(&ada), None)
    );
}

/// Messages created in one batch are stored together. Half of them are deleted in one batch, and the daemon
/// is killed in between.
#[tokio::test]
async fn concurrently_deleted_messages_are_in_all_their_lists_or_none() {
    let mut daemon = Daemon::start().await;
    let agents = [agent(&daemon, &daemon.key, "a").await, agent(&daemon, &daemon.key, "b").await];
    let made = futures_util::future::join_all((0..120).map(|n| {
        let body =
            json!({"agent_id": agents[n % 2], "user_id": format!("u{}", n % 3), "content": n.to_string()});
        daemon.post("/api/v1/messages").json(&body).send()
    }));
    let mut made: Vec<Value> = made.await.iter().map(|reply| data(reply, 201)).collect();
    daemon.restart().await;
    let gone: Vec<Value> = made
        .extract_if(.., |message| message["content"].as_str().unwrap().ends_with(['1', '4', '8', '9']))
        .collect();
    let deleted = futures_util::future::join_all(gone.iter().map(|message| {
        daemon.call("DELETE", &format!("/api/v1/messages/{}", message["id"].as_str().unwrap())).send()
    }));
    assert!(deleted.await.iter().all(|reply| reply.status == 204));
    daemon.restart().await;

    let sorted = |rows: &[Value]| {
        let mut ids: Vec<String> = ids(rows).into_iter().map(str::to_owned).collect();
        ids.sort();
        ids
    };
    let lists = [
        ("", None, None),
        ("agent_id", Some(0), None),
        ("user_id", None, Some(1)),
        ("both", Some(1), Some(2)),
    ];
    for (name, agent, user) in lists {
        let agent = agent.map(|which: usize| agents[which].clone());
        let user = user.map(|which: usize| format!("u{which}"));
        let is = |message: &&Value| {
            agent.as_ref().is_none_or(|agent| message["agent_id"] == **agent)
                && user.as_ref().is_none_or(|user| message["user_id"] == **user)
        };
        let query: String = [("agent_id", &agent), ("user_id", &user)]
            .iter()
            .filter_map(|(field, value)| value.as_ref().map(|value| format!("{field}={value}&")))
            .collect();
        let expected: Vec<Value> = made.iter().filter(is).cloned().collect();
        for limit in [7, 100] {
            let path = format!("/api/v1/messages?{query}limit={limit}");
            let descending = all(&daemon, &daemon.key, &path).await;
            assert_eq!(sorted(&descending), sorted(&expected), "{name} {path}");
            let mut ascending = all(&daemon, &daemon.key, &format!("{path}&order=asc")).await;
            ascending.reverse();
            assert_eq!(ids(&ascending), ids(&descending), "{path}");
        }
    }
}

#[tokio::test]
async fn users_see_and_send_only_their_own_messages() {
    let daemon = Daemon::start().await;
    let acme = daemon.create_org("acme").await;
    let (ann, eve) = (daemon.user_token("ann").await, daemon.user_token("eve").await);
    let bot = agent(&daemon, &daemon.key, "bot").await;
    let send = |key: &str, more: Value| {
        let mut body = json!({"agent_id": bot, "content": "x"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        daemon.post("/api/v1/messages").key(key).json(&body).send()
    };
    let own = data(&send(&ann, json!({})).await, 201);
    assert_eq!(own["user_id"], "ann");
    assert_eq!(refused(&send(&ann, json!({"user_id": "eve"})).await), (403, "FORBIDDEN".into()));
    let speechless = daemon.create_key(json!({"scopes": ["publish", "write"]})).await;
    assert_eq!(refused(&send(&speechless, json!({})).await), (403, "FORBIDDEN".into()));
    let for_eve = data(&send(&daemon.key, json!({"user_id": "eve"})).await, 201);

    let list = "/api/v1/messages?";
    assert_eq!(all(&daemon, &ann, list).await, std::slice::from_ref(&own));
    assert_eq!(all(&daemon, &eve, list).await, std::slice::from_ref(&for_eve));
    assert_eq!(all(&daemon, &ann, "/api/v1/messages?user_id=eve").await, Vec::<Value>::new());
    assert_eq!(ids(&all(&daemon, &daemon.key, list).await).len(), 2);
    let path = |of: &Value| format!("/api/v1/messages/{}", of["id"].as_str().unwrap());
    for (key, found) in [(&ann, 404), (&eve, 200), (&daemon.key, 200), (&acme, 404)] {
        assert_eq!(daemon.get(&path(&for_eve)).key(key).send().await.status.as_u16(), found);
    }
    assert_eq!(daemon.call("DELETE", &path(&for_eve)).key(&ann).send().await.status, 404);

    // From another organization neither agent nor message is visible, and no message may name the agent.
    let agent_path = format!("/api/v1/agents/{bot}");
    for call in [daemon.get(&agent_path), daemon.call("DELETE", &agent_path), daemon.call("PUT", &agent_path)]
    {
        assert_eq!(refused(&call.key(&acme).send().await), (404, "NOT_FOUND".into()));
    }
    assert_eq!(refused(&send(&acme, json!({"user_id": "ann"})).await), (400, "VALIDATION_ERROR".into()));
    assert!(
        all(&daemon, &acme, "/api/v1/agents?").await.is_empty() && all(&daemon, &acme, list).await.is_empty()
    );

    // A reader may not write, and a narrowed credential sees only what it is narrowed to.
    let viewer = daemon.mint_token(&daemon.key, "vic", json!({"roles": ["viewer"]})).await;
    assert_eq!(refused(&send(&viewer, json!({})).await), (403, "FORBIDDEN".into()));
    assert_eq!(daemon.get(&agent_path).key(&viewer).send().await.status, 200);
    let narrowed = daemon.create_key(json!({"scopes": ["*"], "agents": ["another"]})).await;
    assert_eq!(daemon.get(&agent_path).key(&narrowed).send().await.status, 404);
    assert!(all(&daemon, &narrowed, "/api/v1/agents?").await.is_empty());
    assert!(all(&daemon, &narrowed, &format!("/api/v1/messages?agent_id={bot}")).await.is_empty());
    assert_eq!(daemon.get(&path(&own)).key(&narrowed).send().await.status, 404);
}

#[tokio::test]
async fn invalid_resources_are_refused_by_field_and_change_nothing() {
    let daemon = Daemon::start().await;
    let id = agent(&daemon, &daemon.key, "a").await;
    let mut sse = daemon.live_sse("/api/v1/sse").await;
    let post = |path: &str, body: Value| daemon.post(path).json(&body);
    for (call, field) in [
        (post("/api/v1/agents", json!({"name": " "})), "name"),
        (post("/api/v1/agents", json!({"name": "x".repeat(256)})), "name"),
        (post("/api/v1/agents", json!({"metadata": []})), "metadata"),
        (post("/api/v1/agents", json!({"llm_config": "x".repeat(9_000)})), "llm_config"),
        (post("/api/v1/agents", json!({"nmae": "x"})), "nmae"),
        (post("/api/v1/messages", json!({"agent_id": id, "user_id": "u"})), "content"),
        (post("/api/v1/messages", json!({"content": "x", "user_id": "u"})), "agent_id"),
        (
            post("/api/v1/messages", json!({"agent_id": "agent-0", "content": "x", "user_id": "u"})),
            "agent_id",
        ),
        (
            post("/api/v1/messages", json!({"agent_id": id, "content": "x", "text": "y", "user_id": "u"})),
            "text",
        ),
        (
            post("/api/v1/messages", json!({"agent_id": id, "content": "x".repeat(60_000), "user_id": "u"})),
            "content",
        ),
        (
            post("/api/v1/messages", json!({"agent_id": id, "content": "x", "user_id": "u".repeat(257)})),
            "user_id",
        ),
        (
            daemon.call("PUT", &format!("/api/v1/agents/{id}/state")).json(&json!({"state": "asleep"})),
            "state",
        ),
    ] {
        let reply = call.send().await;
        assert_eq!(refused(&reply), (400, "VALIDATION_ERROR".into()), "{field}: {reply:?}");
        assert_eq!(reply.json()["details"]["field"], field, "{reply:?}");
    }
    for path in [
        "agents?limit=101",
        "agents?limit=0",
        "agents?order=up",
        "agents?cursor=%21",
        "agents?offset=10001",
        "agents?who=me",
        "messages?offset=1&cursor=AAAAAAAAAAFh",
        "messages?agent=x",
    ] {
        assert_eq!(
            refused(&daemon.get(&format!("/api/v1/{path}")).send().await),
            (400, "BAD_REQUEST".into()),
            "{path}"
        );
    }
    let tagged =
        daemon.call("DELETE", &format!("/api/v1/agents/{id}")).header("if-match", "W/\"1\"").send().await;
    assert_eq!(refused(&tagged), (400, "BAD_REQUEST".into()));
    for (method, path, allow) in [
        ("PUT", "agents", "GET, HEAD, POST"),
        ("PATCH", "messages/x", "GET, HEAD, DELETE"),
        ("POST", "agents/x/state", "GET, HEAD, PUT"),
    ] {
        let reply = daemon.call(method, &format!("/api/v1/{path}")).send().await;
        assert_eq!((reply.status.as_u16(), reply.header("allow")), (405, Some(allow)), "{path}");
    }
    // None of these changes was published: the next event is this one.
    daemon.publish(common::custom("end", json!(1))).await;
    assert_eq!(sse.next_event().await["channel"], "end");
    assert_eq!(ids(&all(&daemon, &daemon.key, "/api/v1/agents?").await), [id.as_str()]);
}

#[tokio::test]
async fn an_idempotency_key_creates_one_resource_even_across_kill_9() {
    let mut daemon = Daemon::start().await;
    let make = |daemon: &Daemon, path: &str, body: &Value| {
        daemon.post(path).header("idempotency-key", "k").json(body)
    };
    let asked = json!({"name": "once"});
    let first = make(&daemon, "/api/v1/agents", &asked).send().await;
    let agent_id = data(&first, 201)["id"].clone();
    let said = json!({"agent_id": agent_id, "user_id": "u", "content": "once"});
    let message = make(&daemon, "/api/v1/messages", &said).send().await;
    daemon.restart().await;
    for (earlier, path, body) in [(&first, "/api/v1/agents", &asked), (&message, "/api/v1/messages", &said)] {
        let again = make(&daemon, path, body).send().await;
        assert_eq!((again.json(), again.header("idempotent-replayed")), (earlier.json(), Some("true")));
    }
    let other = make(&daemon, "/api/v1/agents", &json!({"name": "other"})).send().await;
    // The same for the longest accepted body. A request whose response could not be stored is not done at
    // all.
    let long = |text: &str| {
        json!({"agent_id": agent_id, "user_id": "u", "content": text.repeat(48 * 1024 / text.len()),
        "metadata": {"m": "x".repeat(8_000)}, "tool_calls": "x".repeat(8_000)})
    };
    let twice = |body: Value| {
        let call = daemon.post("/api/v1/messages").header("idempotency-key", "long").json(&body);
        async move { (call.clone().send().await, call.send().await) }
    };
    let (once, again) = twice(long("xy")).await;
    assert_eq!(
        (once.status.as_u16(), again.json(), again.header("idempotent-replayed")),
        (201, once.json(), Some("true"))
    );
    let escaped = daemon.post("/api/v1/messages").json(&long("\n")).send().await;
    assert_eq!(refused(&escaped), (413, "PAYLOAD_TOO_LARGE".into()));
    assert_eq!(refused(&other), (409, "CONFLICT".into()));
    assert_eq!(all(&daemon, &daemon.key, "/api/v1/agents?").await.len(), 1);
    let page = daemon.get("/api/v1/events?earliest=true").send().await.json();
    assert_eq!(page["data"].as_array().unwrap().len(), 3, "one event each: {page}");
}

#[tokio::test]
async fn one_of_two_changes_of_the_same_version_is_refused() {
    let daemon = Daemon::start().await;
    let id = agent(&daemon, &daemon.key, "contended").await;
    for version in 1..=10 {
        let change = |name: String| {
            let call = daemon.call("PUT", &format!("/api/v1/agents/{id}"));
            call.header("if-match", format!("\"{version}\"")).json(&json!({"name": name})).send()
        };
        let replies = futures_util::future::join_all((0..4).map(|n| change(format!("{version}.{n}")))).await;
        let mut statuses: Vec<u16> = replies.iter().map(|reply| reply.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412, 412, 412]);
    }
}

/// Rows are cached in memory. A replaced row must not come back from the cache, by id or in a list, even with
/// concurrent readers.
#[tokio::test]
async fn a_published_change_can_be_read() {
    const CHANGES: u64 = 150;
    let daemon = Daemon::with().env("STORE__ROW_CACHE_BYTES", 1_048_576).start().await;
    let id = agent(&daemon, &daemon.key, "0").await;
    let path = format!("/api/v1/agents/{id}");
    let published_change = std::cell::Cell::new(0);
    let reader = async |list: bool| {
        let mut reads = 0;
        while published_change.get() < CHANGES {
            let (before, asked) =
                (published_change.get(), if list { "/api/v1/agents" } else { path.as_str() });
            let read = data(&daemon.get(asked).send().await, 200);
            let name = if list { &read[0]["name"] } else { &read["name"] };
            let name: u64 = name.as_str().unwrap().parse().unwrap();
            assert!(name >= before, "{name} was read after {before} was acknowledged, from {asked}");
            reads += 1;
        }
        reads
    };
    let writer = async {
        for change in 1..=CHANGES {
            let body = json!({"name": change.to_string()});
            data(&daemon.call("PUT", &path).json(&body).send().await, 200);
            published_change.set(change);
        }
    };
    let (reads, of_lists, ()) = tokio::join!(reader(false), reader(true), writer);
    assert!(reads > 10 && of_lists > 10, "{reads} and {of_lists}");
    assert!(daemon.metric("nervewire_row_cache_hits_total").await > 10.0);
    assert_eq!(daemon.call("DELETE", &path).send().await.status, 204);
    assert_eq!(refused(&daemon.get(&path).send().await), (404, "NOT_FOUND".into()));
    assert_eq!(data(&daemon.get("/api/v1/agents").send().await, 200), json!([]));
}

#[tokio::test]
async fn tools_are_filtered_by_any_or_all_tags() {
    let daemon = Daemon::start().await;
    let mut made = Vec::new();
    for n in 0..24 {
        let tags: Vec<&str> = [(2, "even"), (3, "three"), (5, "five")]
            .iter()
            .filter(|(by, _)| n % by == 0)
            .map(|(_, tag)| *tag)
            .collect();
        let body = json!({"name": format!("t{n}"), "tags": tags, "json_schema": {"type": "object"}, "source_code": "x"});
        made.insert(0, data(&daemon.post("/api/v1/tools").json(&body).send().await, 201));
    }
    assert_eq!(made[0]["tags"], json!([]));
    let has = |row: &Value, tag: &str| row["tags"].as_array().unwrap().contains(&json!(tag));
    for (query, wanted) in [
        ("", made.clone()),
        ("tags=even&", made.iter().filter(|row| has(row, "even")).cloned().collect()),
        (
            "tags=even,three&",
            made.iter().filter(|row| has(row, "even") || has(row, "three")).cloned().collect(),
        ),
        (
            "tags=three,even&match_all=true&",
            made.iter().filter(|row| has(row, "even") && has(row, "three")).cloned().collect(),
        ),
        (
            "tags=five,three,even&match_all=true&",
            made.iter()
                .filter(|row| ["five", "three", "even"].iter().all(|tag| has(row, tag)))
                .cloned()
                .collect(),
        ),
        ("tags=even,none&match_all=true&", Vec::<Value>::new()),
    ] {
        for limit in [1, 3, 100] {
            let path = format!("/api/v1/tools?{query}limit={limit}");
            assert_eq!(all(&daemon, &daemon.key, &path).await, wanted, "{path}");
            let mut ascending = all(&daemon, &daemon.key, &format!("{path}&order=asc")).await;
            ascending.reverse();
            assert_eq!(ascending, wanted, "{path} ascending");
        }
    }
    // A removed tag no longer finds the tool.
    let path = format!("/api/v1/tools/{}", made[0]["id"].as_str().unwrap());
    let change = daemon
        .call("PATCH", &path)
        .header("if-match", "\"1\"")
        .json(&json!({"tags": ["five"], "source_code": null}));
    let changed = data(&change.send().await, 200);
    assert_eq!(
        (&changed["tags"], &changed["source_code"], &changed["name"]),
        (&json!(["five"]), &Value::Null, &json!("t23"))
    );
    assert_eq!(all(&daemon, &daemon.key, "/api/v1/tools?tags=five").await[0], changed);
    let cleared = daemon.call("PUT", &path).json(&json!({"tags": null})).send().await;
    assert_eq!(data(&cleared, 200)["tags"], json!([]));
    assert!(
        !ids(&all(&daemon, &daemon.key, "/api/v1/tools?tags=five").await)
            .contains(&changed["id"].as_str().unwrap())
    );
    assert_eq!(
        refused(&daemon.post(&format!("{path}/execute")).send().await),
        (501, "NOT_IMPLEMENTED".into())
    );
    for (body, field) in [
        (json!({}), "name"),
        (json!({"name": "x", "tags": ["a,b"]}), "tags"),
        (json!({"name": "x", "tags": vec!["t"; 33]}), "tags"),
    ] {
        let reply = daemon.post("/api/v1/tools").json(&body).send().await;
        assert_eq!((refused(&reply).0, &reply.json()["details"]["field"]), (400, &json!(field)));
    }
    let acme = daemon.create_org("acme").await;
    assert_eq!(daemon.get(&path).key(&acme).send().await.status, 404);
    assert!(all(&daemon, &acme, "/api/v1/tools?tags=even").await.is_empty());
    assert_eq!(daemon.call("DELETE", &path).send().await.status, 204);
    assert_eq!(daemon.get(&path).send().await.status, 404);
}

/// Rights to publish decide what a credential may write, whatever it may see. Rights to read decide which
/// data a response shows.
#[tokio::test]
async fn read_and_write_rights_are_separate() {
    let daemon = Daemon::start().await;
    let acme = daemon.create_org("acme").await;
    let open = json!({"visibility": "org"});
    assert_eq!(daemon.call("PUT", "/api/v1/organizations/acme").json(&open).send().await.status, 200);
    let user = async |sub: &str| daemon.mint_token(&acme, sub, json!({"roles": ["user"]})).await;
    let (ann, bob) = (user("ann").await, user("bob").await);
    let bot = agent(&daemon, &acme, "bot").await;
    let body = json!({"agent_id": bot, "content": "hello"});
    let hers = data(&daemon.post("/api/v1/messages").key(&ann).json(&body).send().await, 201);
    let path = format!("/api/v1/messages/{}", hers["id"].as_str().unwrap());
    assert_eq!(data(&daemon.get(&path).key(&bob).send().await, 200), hers, "all is seen by all");
    assert_eq!(refused(&daemon.call("DELETE", &path).key(&bob).send().await), (403, "FORBIDDEN".into()));
    assert_eq!(daemon.call("DELETE", &path).key(&ann).send().await.status, 204);

    // A principal that may publish for the organization may send a message to everybody.
    let mut sse = daemon.sse("/api/v1/sse?types=message").key(&bob).open().await;
    assert_eq!(sse.next().await.name.as_deref(), Some("ready"));
    let all_s = data(&daemon.post("/api/v1/messages").key(&acme).json(&body).send().await, 201);
    assert_eq!(all_s["user_id"], Value::Null);
    let event = sse.next_event().await;
    assert_eq!((&event["message_id"], event.get("user_id")), (&all_s["id"], None));
    let private = json!({"visibility": "private"});
    assert_eq!(daemon.call("PUT", "/api/v1/organizations/acme").json(&private).send().await.status, 200);
    data(&daemon.post("/api/v1/messages").key(&ann).json(&body).send().await, 201);
    for list in ["/api/v1/messages?".to_owned(), format!("/api/v1/messages?agent_id={bot}")] {
        assert_eq!(all(&daemon, &bob, &list).await, std::slice::from_ref(&all_s), "{list}");
        assert_eq!(all(&daemon, &ann, &list).await.len(), 2, "{list}");
    }
    let path = format!("/api/v1/messages/{}", all_s["id"].as_str().unwrap());
    assert_eq!(refused(&daemon.call("DELETE", &path).key(&bob).send().await), (403, "FORBIDDEN".into()));
    let odd = json!({"agent_id": bot, "content": "x", "user_id": "a\u{0}b"});
    assert_eq!(refused(&daemon.post("/api/v1/messages").key(&acme).json(&odd).send().await).0, 400);

    // A key that only publishes does not see the resource that it changes.
    let key = async |more: Value| {
        let mut body = json!({"org_id": "acme", "name": "k", "scopes": ["*"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        daemon.create_key(body).await
    };
    let mute = key(json!({"scopes": ["write", "agents", "publish:org"]})).await;
    let bots = format!("/api/v1/agents/{bot}");
    assert_eq!(refused(&daemon.call("PATCH", &bots).key(&mute).json(&json!({})).send().await).0, 403);

    // Narrowed to messages it sends some; narrowed to an agent it cannot see another.
    let messages = key(json!({"types": ["message"]})).await;
    data(&daemon.post("/api/v1/messages").key(&messages).json(&body).send().await, 201);
    let mut own = Vec::new();
    for name in ["a", "b", "c", "d"] {
        own.push(agent(&daemon, &acme, name).await);
    }
    let few = key(json!({"agents": [own[0], own[2], "agent-nobody", own[3]]})).await;
    let seen = all(&daemon, &few, "/api/v1/agents?limit=1").await;
    assert_eq!(ids(&seen), [&own[3], &own[2], &own[0]]);
    let counted = data(&daemon.get("/api/v1/agents?order=asc&offset=1&limit=1").key(&few).send().await, 200);
    assert_eq!(counted, json!([seen[1]]));
}
