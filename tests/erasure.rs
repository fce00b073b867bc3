//! Deletes users and an organization while all clients go on writing, over a restart. Nothing of the deleted
//! ones is left in the store, and nothing of the others is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::http::Call;
use common::rest::{agent, data};
use common::{Daemon, until};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery";

async fn register(daemon: &Daemon, email: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD, "name": "Somebody"});
    let user = data(&daemon.post("/api/v1/users/register").json(&body).send().await, 201);
    user["id"].as_str().unwrap().to_owned()
}

async fn login(daemon: &Daemon, email: &str) -> String {
    let body = json!({"email": email, "password": PASSWORD, "organization_id": "default"});
    let reply = daemon.post("/api/v1/users/login").anonymous().json(&body).send().await;
    data(&reply, 200)["token"].as_str().unwrap().to_owned()
}

/// Everything that one writer may write: method, path and body with `content`.
fn writes(user: &str, agent: &str, content: &str) -> [(&'static str, String, Value); 5] {
    let event = json!({"type": "message", "agent_id": agent, "user_id": user, "content": content});
    let block = format!("/api/v1/agents/{agent}/core-memory/human?user_id={user}");
    [
        ("POST", "/api/v1/events".into(), event.clone()),
        ("POST", "/api/v1/events?ack=memory".into(), event),
        ("POST", "/api/v1/messages".into(), json!({"agent_id": agent, "user_id": user, "content": content})),
        ("POST", "/api/v1/memories".into(), json!({"user_id": user, "content": content})),
        ("PUT", block, json!({"value": content})),
    ]
}

/// Whether any row of the stopped daemon's store contains `content`. After a compaction the file contains
/// only rows.
fn is_stored(store: &[u8], content: &str) -> bool {
    memchr::memmem::find(store, content.as_bytes()).is_some()
}

#[tokio::test]
async fn deletion_during_writes_removes_everything_of_the_deleted_and_nothing_else() {
    const USERS: usize = 6;
    // Deleted users go on sending requests, which would count as failed credentials.
    let mut daemon = Daemon::with().env("AUTH__FAILURES_PER_MINUTE", 0).start().await;
    let key = daemon.key.clone();
    let bot = agent(&daemon, &key, "bot").await;
    let mut users = Vec::new();
    for n in 0..USERS {
        let id = register(&daemon, &format!("u{n}@x")).await;
        users.push((id, login(&daemon, &format!("u{n}@x")).await));
    }
    let acme = daemon.create_org("acme").await;
    let theirs = agent(&daemon, &acme, "bot").await;

    // Each user writes, a service writes in each user's name, and so does a key of the organization, until
    // `stop` is set.
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    let writer = |user: &str, credential: &str, agent: &str, name: String| {
        let (user, credential, agent) = (user.to_owned(), credential.to_owned(), agent.to_owned());
        let (stop, to) = (stop.clone(), daemon.addr());
        async move {
            let mut kept = Vec::new();
            for n in 0.. {
                for (at, (method, path, body)) in
                    writes(&user, &agent, &format!("content {name} {n} ")).into_iter().enumerate()
                {
                    let reply = Call::new(to, method, &path).key(&credential).json(&body).send().await;
                    match reply.status.as_u16() {
                        200 | 201 if at < 4 => kept.push(format!("content {name} {n} ")),
                        200 | 201 | 401 | 403 | 404 => {}
                        _ => panic!("{method} {path}: {reply:?}"),
                    }
                }
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            (user, kept)
        }
    };
    for (n, (id, token)) in users.iter().enumerate() {
        writers.push(tokio::spawn(writer(id, token, &bot, format!("own-{n}"))));
        writers.push(tokio::spawn(writer(id, &key, &bot, format!("service-{n}"))));
    }
    let of_acme = tokio::spawn(writer("user-of-acme", &acme, &theirs, "acme".into()));

    // Half of the users are deleted one after the other, and the organization is replaced by one with the
    // same id.
    for (id, _) in &users[..USERS / 2] {
        let deleted = daemon.call("DELETE", &format!("/api/v1/users/{id}")).send().await;
        assert_eq!(deleted.status, 204, "{deleted:?}");
        let body = json!({"type": "message", "agent_id": "a", "user_id": id, "content": "too late"});
        let late = daemon.post("/api/v1/events?ack=memory").json(&body).send().await;
        let refused = late.refused(404, "NOT_FOUND");
        assert!(refused["message"].as_str().unwrap().contains("was deleted"), "{refused}");
    }
    assert_eq!(daemon.call("DELETE", "/api/v1/organizations/acme").send().await.status, 204);
    let acme = daemon.create_org("acme").await;
    let content =
        json!({"type": "message", "agent_id": "a", "user_id": "user-of-acme", "content": "new acme"});
    daemon.publish_as(&acme, content).await;
    let again = register(&daemon, "u0@x").await;
    assert!(users.iter().all(|(id, _)| *id != again), "an id is not given again");
    for (method, path, body) in writes(&again, &bot, "content again ") {
        let reply = daemon.call(method, &path).json(&body).send().await;
        assert!(reply.status.is_success(), "{reply:?}");
    }
    stop.store(true, Ordering::Relaxed);
    let mut kept = Vec::new();
    for writer in writers {
        kept.push(writer.await.unwrap());
    }
    let (_, of_acme) = of_acme.await.unwrap();

    daemon.restart().await;
    for (id, _) in &users[..USERS / 2] {
        for list in ["events?earliest=true&limit=1000", "messages?limit=100", "memories?limit=100"] {
            until("the end of a deleted user's", async || {
                let found = daemon.get(&format!("/api/v1/{list}&user_id={id}")).send().await;
                data(&found, 200).as_array().unwrap().is_empty().then_some(())
            })
            .await;
        }
    }
    until("the end of all erasures", async || {
        (daemon.metric("nervewire_store_erasures").await == 0.0).then_some(())
    })
    .await;
    daemon.terminate().await;
    nervewire::store::compact(daemon.data_dir()).unwrap();
    let mut store = std::fs::read(daemon.data_dir().join("log/db")).unwrap();
    for segment in std::fs::read_dir(daemon.data_dir().join("journal")).unwrap() {
        store.extend(std::fs::read(segment.unwrap().path()).unwrap());
    }
    for (user, contents) in kept {
        let is_deleted = users[..USERS / 2].iter().any(|(id, _)| *id == user);
        assert!(is_deleted || !contents.is_empty());
        for content in contents {
            assert_eq!(is_stored(&store, &content), !is_deleted, "{content} of {user}");
        }
    }
    assert!(!of_acme.is_empty());
    for content in of_acme {
        assert!(!is_stored(&store, &content), "{content} of the deleted organization");
    }
    assert!(is_stored(&store, "content again ") && is_stored(&store, "new acme"));
}
