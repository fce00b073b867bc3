//! The data that one organization stores, publishes and requests is limited, and no other organization is
//! affected.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use common::http::{Call, Reply};
use common::rest::{agent, all, data};
use common::{Daemon, custom, until, within};
use nervewire::store::{Store, StoreOptions};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

/// `details` of a 429 that names `limit` and the time to wait.
#[track_caller]
fn over(reply: &Reply, limit: &str) -> Value {
    let body = reply.refused(429, "QUOTA_EXCEEDED");
    assert_eq!(body["details"]["limit"], limit, "{reply:?}");
    assert!(body["message"].as_str().unwrap().contains(limit), "{reply:?}");
    assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1, "{reply:?}");
    body["details"].clone()
}

async fn say(daemon: &Daemon, key: &str, agent: &str, bytes: usize) -> Reply {
    let body = json!({"agent_id": agent, "content": "x".repeat(bytes)});
    daemon.post("/api/v1/messages").key(key).json(&body).send().await
}

/// Creates messages until one is refused. Returns their ids and the refusal.
async fn fill(daemon: &Daemon, key: &str, agent: &str, bytes: usize) -> (Vec<String>, Reply) {
    let mut ids = Vec::new();
    loop {
        let reply = say(daemon, key, agent, bytes).await;
        if reply.status != 201 {
            return (ids, reply);
        }
        ids.push(data(&reply, 201)["id"].as_str().unwrap().to_owned());
        assert!(ids.len() < 1_000, "nothing is ever refused");
    }
}

async fn delete(daemon: &Daemon, key: &str, path: &str) {
    let reply = daemon.call("DELETE", path).key(key).send().await;
    assert!(reply.status.is_success(), "{reply:?}");
}

async fn stats(daemon: &Daemon, org: &str) -> Value {
    data(&daemon.get(&format!("/api/v1/stats?org_id={org}")).send().await, 200)
}

/// Ids of all events that `key` may read, oldest first.
async fn history(daemon: &Daemon, key: &str) -> Vec<String> {
    let (mut ids, mut path) = (Vec::new(), "/api/v1/events?earliest=true&limit=1000".to_owned());
    loop {
        let page = daemon.get(&path).key(key).send().await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        ids.extend(
            page["data"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()),
        );
        if page["caught_up"] == true {
            return ids;
        }
        path = format!("/api/v1/events?limit=1000&after={}", page["next_cursor"].as_str().unwrap());
    }
}

#[tokio::test]
async fn a_flood_fills_only_its_share_and_deleting_frees_it() {
    let daemon = Daemon::with().env("LIMITS__BYTES_PER_ORGANIZATION", MIB).start().await;
    let (loud, quiet) = (daemon.create_org("loud").await, daemon.create_org("quiet").await);
    let (bot, own) = (agent(&daemon, &loud, "bot").await, agent(&daemon, &quiet, "own").await);
    let mut published = history(&daemon, &quiet).await;
    published.extend(daemon.publish_as(&quiet, (0..50).map(|n| custom("c", json!(n))).collect()).await);
    let tool = json!({"name": "tool", "description": "d".repeat(1_000)});
    let tool = data(&daemon.post("/api/v1/tools").key(&loud).json(&tool).send().await, 201);
    let tool = format!("/api/v1/tools/{}", tool["id"].as_str().unwrap());

    let (ids, refusal) = fill(&daemon, &loud, &bot, 40_000).await;
    let details = over(&refusal, "limits.bytes_per_organization");
    assert_eq!(details["max"], MIB);
    assert!(details["used"].as_u64().unwrap() + 41_000 > MIB, "{details}");
    assert!((24..=26).contains(&ids.len()), "{} messages of 40 kB in 1 MiB", ids.len());
    let kept = stats(&daemon, "loud").await;
    assert!(kept["row_bytes"].as_u64().unwrap() <= MIB, "{kept}");
    assert_eq!(kept["stored_rows"].as_u64().unwrap(), 2 + ids.len() as u64, "{kept}");
    assert!(daemon.metric("nervewire_quota_refused_total").await >= 1.0);

    // The same for the other ways to add resources.
    let many: Vec<Value> =
        (0..20).map(|_| json!({"agent_id": bot, "content": "word ".repeat(900)})).collect();
    let many = daemon.post("/api/v1/memories/batch").key(&loud).json(&json!({"memories": many})).send().await;
    assert!(many.status == 429 || many.json()["data"]["succeeded"] == 0, "{many:?}");

    // No other organization is affected.
    published.extend(daemon.publish_as(&quiet, json!([custom("c", json!("later"))])).await);
    assert_eq!(say(&daemon, &quiet, &own, 40_000).await.status, 201);
    let read = history(&daemon, &quiet).await;
    assert_eq!(read[..published.len()], published, "the whole history of the other");
    assert_eq!(read.len(), published.len() + 1);

    // Changes that shrink data are accepted, events are accepted, and deleted bytes are free at once.
    let shorter = daemon.call("PUT", &tool).key(&loud).json(&json!({"description": "d"})).send().await;
    assert_eq!(shorter.status, 200, "{shorter:?}");
    daemon.publish_as(&loud, json!([custom("c", json!("still"))])).await;
    over(&say(&daemon, &loud, &bot, 40_000).await, "limits.bytes_per_organization");
    delete(&daemon, &loud, &format!("/api/v1/messages/{}", ids[0])).await;
    assert_eq!(say(&daemon, &loud, &bot, 39_000).await.status, 201);
    for message in all(&daemon, &loud, "/api/v1/messages?limit=100").await {
        delete(&daemon, &loud, &format!("/api/v1/messages/{}", message["id"].as_str().unwrap())).await;
    }
    delete(&daemon, &loud, &tool).await;
    delete(&daemon, &loud, &format!("/api/v1/agents/{bot}")).await;
    let left = stats(&daemon, "loud").await;
    assert_eq!(left["stored_rows"], 0, "{left}");
}

/// Credentials and their stored idempotency keys count like everything else. Removing rights is always
/// accepted.
#[tokio::test]
async fn a_full_organization_can_revoke_but_not_create_credentials() {
    let daemon = Daemon::with().env("LIMITS__BYTES_PER_ORGANIZATION", MIB).start().await;
    let key = daemon.create_org("full").await;
    let bot = agent(&daemon, &key, "bot").await;
    let spare = json!({"name": "spare", "scopes": ["subscribe"]});
    let made = data(&daemon.post("/api/v1/api-keys").key(&key).json(&spare).send().await, 201);
    for bytes in [40_000, 1_000, 1] {
        fill(&daemon, &key, &bot, bytes).await;
    }
    let credentials = [
        ("/api/v1/api-keys", spare),
        ("/api/v1/tokens", json!({"sub": "ann"})),
        ("/api/v1/tickets", json!({})),
    ];
    for (path, body) in credentials {
        let call = |name: &str| daemon.post(path).key(&key).header("idempotency-key", name).json(&body);
        let mut refused = None;
        for n in 0..50 {
            let reply = call(&n.to_string()).send().await;
            if reply.status != 201 {
                refused = Some(reply);
                break;
            }
        }
        over(&refused.expect("a refusal"), "limits.bytes_per_organization");
        let is_kept = path == "/api/v1/api-keys";
        let unnamed = daemon.post(path).key(&key).json(&body).send().await;
        assert_eq!(
            unnamed.status,
            if is_kept { 429 } else { 201 },
            "{path}: what is kept nowhere takes no room"
        );
    }
    let disabled =
        daemon.call("PUT", "/api/v1/users/ann/disabled").key(&key).json(&json!({"disabled": true}));
    assert_eq!(disabled.send().await.status, 200);
    delete(&daemon, &key, &format!("/api/v1/api-keys/{}", made["key_id"].as_str().unwrap())).await;
}

#[tokio::test]
async fn an_exceeded_quota_is_an_error_frame_over_a_websocket() {
    let daemon = Daemon::with().env("LIMITS__BYTES_PER_ORGANIZATION", MIB).start().await;
    let bot = agent(&daemon, &daemon.key, "bot").await;
    for bytes in [40_000, 1_000, 1] {
        fill(&daemon, &daemon.key, &bot, bytes).await;
    }
    let mut ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
    let named = |id: usize| {
        let event =
            json!({"type": "message", "message_id": format!("m-{id}"), "agent_id": bot, "content": "x"});
        json!({"type": "publish", "ref": "r", "events": [event]})
    };
    let mut error = Value::Null;
    for id in 0..1_000 {
        error = ws.ask(&named(id)).await;
        if error["type"] == "error" {
            break;
        }
    }
    assert_eq!(error["code"], "QUOTA_EXCEEDED", "{error}");
    assert_eq!(error["details"]["limit"], "limits.bytes_per_organization", "{error}");
    // Events without an id that is remembered add no rows.
    ws.send(&json!({"type": "publish", "ref": "s", "events": [custom("c", json!(1))]})).await;
    assert_eq!(ws.expect("ack").await["ref"], "s");
}

/// Without a limit of its own an organization may use half of the total, as long as others leave it.
#[tokio::test]
async fn a_flood_takes_at_most_half_and_does_not_trim_other_organizations() {
    let daemon = Daemon::with().env("STORE__MAX_LIVE_BYTES", 2 * MIB).start().await;
    let (loud, quiet) = (daemon.create_org("loud").await, daemon.create_org("quiet").await);
    let (bot, own) = (agent(&daemon, &loud, "bot").await, agent(&daemon, &quiet, "own").await);
    let text = "x".repeat(2_000);
    let mut published = history(&daemon, &quiet).await;
    published.extend(daemon.publish_as(&quiet, (0..100).map(|_| custom("c", json!(text))).collect()).await);

    let (ids, refusal) = fill(&daemon, &loud, &bot, 40_000).await;
    over(&refusal, "store.max_live_bytes");
    assert!((24..=26).contains(&ids.len()), "{} messages of 40 kB in 1 MiB", ids.len());
    for _ in 0..100 {
        daemon.publish_as(&loud, json!([custom("c", json!("y".repeat(60_000)))])).await;
    }
    until("the flood's own events are trimmed", || async {
        let kept = stats(&daemon, "loud").await;
        (kept["stored_bytes"].as_u64().unwrap() + kept["row_bytes"].as_u64().unwrap() <= 2 * MIB)
            .then_some(())
    })
    .await;

    assert_eq!(say(&daemon, &quiet, &own, 40_000).await.status, 201);
    let read = history(&daemon, &quiet).await;
    assert_eq!(read[..published.len()], published, "the whole history of the other");
    assert_eq!(daemon.get("/health/ready").send().await.status, 200);
}

#[tokio::test]
async fn concurrent_creations_stop_exactly_at_the_quota() {
    let daemon = Daemon::with().env("LIMITS__ROWS_PER_ORGANIZATION", 5).start().await;
    let other = daemon.create_org("other").await;
    let make =
        |name: usize| daemon.post("/api/v1/agents").json(&json!({"name": format!("agent {name}")})).send();
    let replies = futures_util::future::join_all((0..20).map(make)).await;
    let made: Vec<&Reply> = replies.iter().filter(|reply| reply.status == 201).collect();
    for reply in replies.iter().filter(|reply| reply.status != 201) {
        assert_eq!(over(reply, "limits.rows_per_organization")["max"], 5);
    }
    // Room is released at the end of a commit, so a request may be refused that would fit a moment later. One
    // too many is never accepted.
    assert!((1..=5).contains(&made.len()), "{}", made.len());
    for name in made.len()..5 {
        assert_eq!(make(100 + name).await.status, 201);
    }
    agent(&daemon, &other, "elsewhere").await;
    let id = data(made[0], 201)["id"].as_str().unwrap().to_owned();
    let path = format!("/api/v1/agents/{id}");
    let changed = daemon.call("PUT", &path).json(&json!({"description": "changed"})).send().await;
    assert_eq!(changed.status, 200, "a change makes no resource: {changed:?}");
    delete(&daemon, &daemon.key, &path).await;
    assert_eq!(make(21).await.status, 201);
    over(&make(22).await, "limits.rows_per_organization");
    // A user counts as a resource and takes two rows: itself and its email.
    let user = json!({"email": "ann@example.org", "name": "Ann", "password": "a long enough one"});
    over(&daemon.post("/api/v1/users/register").json(&user).send().await, "limits.rows_per_organization");
}

/// The daemon is killed during changes of every kind. Then the test opens the store and counts its rows.
#[tokio::test]
async fn usage_counters_are_exact_after_kill_9() {
    let mut daemon = Daemon::start().await;
    let bot = agent(&daemon, &daemon.key, "bot").await;
    for point in 0..4 {
        let before = daemon.metric("nervewire_published_total").await;
        let writers = (0..6).map(|n| {
            let (addr, key, bot) = (daemon.addr(), daemon.key.clone(), bot.clone());
            tokio::spawn(async move {
                for round in 0.. {
                    let call = |method: &str, path: &str| Call::new(addr, method, path).key(&key);
                    let made = match n % 3 {
                        0 => call("POST", "/api/v1/messages")
                            .json(&json!({"agent_id": bot, "content": "said"})),
                        1 => call("POST", "/api/v1/memories")
                            .json(&json!({"agent_id": bot, "content": "some words of a memory"})),
                        _ => call("POST", "/api/v1/agents").json(&json!({"name": "another"})),
                    };
                    let made = made.header("idempotency-key", format!("{point}-{n}-{round}"));
                    let Ok(reply) = made.try_send().await else { return };
                    let path = ["messages", "memories", "agents"][n % 3];
                    let id = data(&reply, 201)["id"].as_str().unwrap().to_owned();
                    let path = format!("/api/v1/{path}/{id}");
                    if round % 2 == 0 && call("DELETE", &path).try_send().await.is_err() {
                        return;
                    }
                }
            })
        });
        let writers = futures_util::future::join_all(writers.collect::<Vec<_>>());
        let enough = before + 20.0 + f64::from(point);
        until("some more events", || async {
            (daemon.metric("nervewire_published_total").await >= enough).then_some(())
        })
        .await;
        daemon.kill9().await;
        writers.await.into_iter().for_each(|writer| writer.unwrap());
        {
            let store =
                within("the store", async { Store::open(StoreOptions::new(daemon.data_dir())).unwrap() });
            let store = store.await;
            let counted = store.counted_usage_blocking().unwrap();
            assert!(counted.values().map(|usage| usage.rows).sum::<u64>() >= 10);
            for (tenant, usage) in counted {
                assert_eq!(store.usage(tenant), usage, "point {point}");
            }
            store.close().await;
        }
        daemon.start_again().await;
    }
    let before = stats(&daemon, "default").await;
    assert_eq!(daemon.terminate().await, 0);
    daemon.start_again().await;
    let after = stats(&daemon, "default").await;
    // The bytes match too, except for the time of a key's last use, which is written late.
    for name in ["stored_rows", "idempotency_rows"] {
        assert_eq!(after[name], before[name], "{name}");
        assert!(after[name].as_u64().unwrap() > 0, "{name}");
    }
}

/// Every call has a connection of its own: more connections give no more tokens.
#[tokio::test]
async fn an_organization_has_one_request_rate_over_all_connections() {
    let daemon = Daemon::with().env("LIMITS__REQUESTS_PER_SECOND_PER_ORGANIZATION", 2).start().await;
    let setting_up = |call: Call| async move {
        until("a request that passes", || async {
            let reply = call.clone().send().await;
            (reply.status != 429).then_some(reply)
        })
        .await
    };
    let call = daemon.post("/api/v1/organizations").json(&json!({"id": "quiet"}));
    data(&setting_up(call).await, 201);
    let call =
        daemon.post("/api/v1/api-keys").json(&json!({"org_id": "quiet", "name": "test", "scopes": ["*"]}));
    let quiet = data(&setting_up(call).await, 201)["api_key"].as_str().unwrap().to_owned();
    for path in ["/api/v1/agents", "/api/v1/memories/search?query=x", "/api/v1/events", "/api/v1/messages"] {
        let refusal = until("a refusal", || async {
            let reply = daemon.get(path).send().await;
            (reply.status == 429).then_some(reply)
        })
        .await;
        let details = over(&refusal, "limits.requests_per_second_per_organization");
        assert_eq!((&details["max"], &details["retry_after"]), (&json!(2), &json!(1)), "{details}");
    }
    assert_eq!(daemon.get("/api/v1/agents").key(&quiet).send().await.status, 200);
    assert_eq!(daemon.get("/health").send().await.status, 200, "probes are nobody's");
    assert!(daemon.metric("nervewire_rate_refused_total").await >= 4.0);
}

#[tokio::test]
async fn an_organization_has_one_publish_rate_over_all_connections() {
    let daemon = Daemon::with().env("LIMITS__PUBLISH_PER_SECOND_PER_ORGANIZATION", 1).start().await;
    let quiet = daemon.create_org("quiet").await;
    let event = json!([custom("c", json!(1))]);
    let refusal = until("a refusal", || async {
        let reply = daemon.post("/api/v1/events").json(&event).send().await;
        (reply.status == 429).then_some(reply)
    })
    .await;
    over(&refusal, "limits.publish_per_second_per_organization");
    let mut error = Value::Null;
    for n in 0..50 {
        let mut ws = daemon.live_ws("/api/v1/ws?subscribe=none").await;
        error = ws.ask(&json!({"type": "publish", "ref": n, "events": event})).await;
        if error["type"] == "error" {
            break;
        }
    }
    assert_eq!(error["code"], "QUOTA_EXCEEDED", "{error}");
    assert_eq!(error["details"]["limit"], "limits.publish_per_second_per_organization", "{error}");
    assert!(error["details"]["retry_after"].as_u64().unwrap() >= 1, "{error}");
    let refused = until("a refusal", || async {
        let reply = daemon.post("/api/v1/agents").json(&json!({"name": "one more"})).send().await;
        (reply.status == 429).then_some(reply)
    })
    .await;
    over(&refused, "limits.publish_per_second_per_organization");
    daemon.publish_as(&quiet, json!([custom("c", json!(1))])).await;
}

#[tokio::test]
async fn each_user_has_one_rate_over_all_connections() {
    let daemon = Daemon::with().env("LIMITS__PUBLISH_PER_SECOND", 1).start().await;
    let (ann, bob) = (daemon.user_token("ann").await, daemon.user_token("bob").await);
    let event = json!({"type": "message", "agent_id": "a", "content": "x"});
    let refusal = until("a refusal", || async {
        let reply = daemon.post("/api/v1/events").key(&ann).json(&event).send().await;
        (reply.status == 429).then_some(reply)
    })
    .await;
    over(&refusal, "limits.publish_per_second");
    daemon.publish_as(&bob, event.clone()).await;
    daemon.publish(event).await;
}

/// With sixteen connections in total, one organization opens as many as it can, and another still gets its
/// share.
#[tokio::test]
async fn one_organization_cannot_take_all_connections() {
    let daemon = Daemon::with().env("LIMITS__CONNECTIONS", 16).start().await;
    let quiet = daemon.create_org("quiet").await;
    let first = daemon.ws("/api/v1/ws").key(&quiet).open().await;
    let mut loud = Vec::new();
    let refusal = loop {
        let probe = daemon.get("/api/v1/events?wait=0").send().await;
        assert_eq!(probe.status, 200, "{probe:?}");
        let call = daemon.get("/api/v1/ws").header("connection", "upgrade").header("upgrade", "websocket");
        let call = call
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        if loud.len() >= 13 {
            break call.send().await;
        }
        loud.push(daemon.live_ws("/api/v1/ws").await);
    };
    let details = refusal.refused(429, "QUOTA_EXCEEDED")["details"].clone();
    assert_eq!(details, json!({"limit": "limits.connections_per_organization", "max": 8}));
    let mut second = daemon.ws("/api/v1/ws").key(&quiet).open().await;
    second.expect("ready").await;
    drop((first, loud));
}
