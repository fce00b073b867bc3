//! Every acknowledged change is stored, and every stored change has its event: after `kill -9` at any moment
//! of any change, records, their events and search results agree. `NERVEWIRE_KILL9_POINTS` sets how often the
//! daemon is killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failing helper fails its test

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use common::Daemon;
use common::http::Call;
use serde_json::{Value, json};

/// The state of a resource, as far as its writer got responses.
#[derive(Clone, Debug, Default)]
struct Answered {
    /// Acknowledged changes, including the creation.
    changes: u64,
    deleted: bool,
}

/// A client that creates, changes and deletes until the daemon is gone.
struct Writer {
    addr: SocketAddr,
    key: String,
    bot: String,
    /// How often the daemon was killed before. It marks what was written in this run.
    point: usize,
    answered: BTreeMap<String, Answered>,
}

/// The daemon is gone, or ended during the response.
struct Gone;

impl Writer {
    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Result<Value, Gone> {
        let call = Call::new(self.addr, method, path).key(&self.key);
        let call = match &body {
            Some(body) => call.json(body),
            None => call,
        };
        let reply = call.try_send().await.map_err(|_| Gone)?;
        assert!(reply.status.is_success(), "{method} {path}: {reply:?}");
        Ok(if reply.body.is_empty() { Value::Null } else { reply.json()["data"].clone() })
    }

    async fn make(&mut self, path: &str, body: Value) -> Result<String, Gone> {
        let made = self.call("POST", path, Some(body)).await?;
        let id = made["id"].as_str().unwrap().to_owned();
        self.answered.insert(id.clone(), Answered { changes: 1, deleted: false });
        Ok(id)
    }

    async fn change(&mut self, path: &str, id: &str, body: Value) -> Result<(), Gone> {
        self.call("PUT", path, Some(body)).await?;
        self.answered.entry(id.to_owned()).or_default().changes += 1;
        Ok(())
    }

    async fn delete(&mut self, path: &str, id: &str) -> Result<(), Gone> {
        self.call("DELETE", path, None).await?;
        self.answered.entry(id.to_owned()).or_default().deleted = true;
        Ok(())
    }

    /// Creates an agent and changes it; every other agent is deleted again.
    async fn agents(&mut self, round: u64) -> Result<(), Gone> {
        let id = self.make("/api/v1/agents", json!({"name": format!("agent {}", self.point)})).await?;
        let path = format!("/api/v1/agents/{id}");
        self.change(&format!("{path}/state"), &id, json!({"state": "thinking"})).await?;
        self.change(&path, &id, json!({"description": "busy"})).await?;
        if round.is_multiple_of(2) { self.delete(&path, &id).await } else { Ok(()) }
    }

    async fn messages(&mut self) -> Result<(), Gone> {
        let body = json!({"agent_id": self.bot, "user_id": "u", "content": format!("said {}", self.point)});
        self.make("/api/v1/messages", body).await.map(drop)
    }

    /// Creates a memory and changes it; every other memory is deleted. Two are created and deleted in one
    /// batch.
    async fn memories(&mut self, round: u64) -> Result<(), Gone> {
        let path = "/api/v1/memories";
        let id =
            self.make(path, json!({"agent_id": self.bot, "content": format!("green{}", self.point)})).await?;
        let one = format!("{path}/{id}");
        self.change(&one, &id, json!({"content": format!("blue{}", self.point), "importance": 0.9})).await?;
        if round.is_multiple_of(2) {
            self.delete(&one, &id).await?;
        }
        let both = json!({"memories": [
            {"agent_id": self.bot, "content": format!("left{}", self.point)},
            {"agent_id": self.bot, "content": format!("right{}", self.point)}]});
        let made = self.call("POST", "/api/v1/memories/batch", Some(both)).await?;
        let ids: Vec<String> = serde_json::from_value(made["results"].clone()).unwrap();
        assert_eq!(ids.len(), 2, "{made}");
        for id in &ids {
            self.answered.insert(id.clone(), Answered { changes: 1, deleted: false });
        }
        if round.is_multiple_of(3) {
            self.call("POST", "/api/v1/memories/batch/delete", Some(json!({"ids": ids}))).await?;
            for id in ids {
                self.answered.entry(id).or_default().deleted = true;
            }
        }
        Ok(())
    }

    async fn work(mut self, kind: usize) -> BTreeMap<String, Answered> {
        for round in 0.. {
            let done = match kind {
                0 => self.agents(round).await,
                1 => self.messages().await,
                _ => self.memories(round).await,
            };
            if done.is_err() {
                break;
            }
        }
        self.answered
    }
}

/// Every row of a list, by id.
async fn rows(daemon: &Daemon, path: &str) -> BTreeMap<String, Value> {
    let (mut rows, mut cursor) = (BTreeMap::new(), String::new());
    loop {
        let page = daemon.get(&format!("{path}?limit=100&cursor={cursor}")).send().await;
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        for row in page["data"].as_array().unwrap() {
            rows.insert(row["id"].as_str().unwrap().to_owned(), row.clone());
        }
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return rows,
        }
    }
}

/// The events of each resource, in order.
async fn published_changes(daemon: &Daemon) -> BTreeMap<String, Vec<String>> {
    let mut published = BTreeMap::<String, Vec<String>>::new();
    let mut path = "/api/v1/events?earliest=true&limit=1000".to_owned();
    loop {
        let page = daemon.get(&path).send().await.json();
        for event in page["data"].as_array().unwrap() {
            let (id, what) = match event["type"].as_str().unwrap() {
                "message" => ("message_id", "created"),
                "agent_update" => ("agent_id", event["status"].as_str().unwrap()),
                "memory_update" => ("memory_id", event["operation"].as_str().unwrap()),
                other => panic!("nobody published {other}: {event}"),
            };
            published.entry(event[id].as_str().unwrap().to_owned()).or_default().push(what.to_owned());
        }
        if page["caught_up"] == true {
            return published;
        }
        path = format!("/api/v1/events?limit=1000&after={}", page["next_cursor"].as_str().unwrap());
    }
}

/// The ids of all search results.
async fn found(daemon: &Daemon, query: &str) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let path = format!("/api/v1/memories/search?query={query}&limit=100&offset={}", ids.len());
        let page = daemon.get(&path).send().await.json();
        let results = page["data"]["results"].as_array().unwrap_or_else(|| panic!("{page}")).clone();
        ids.extend(results.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        if page["data"]["has_more"] != true {
            ids.sort_unstable();
            return ids;
        }
    }
}

#[tokio::test]
async fn records_events_and_search_agree_after_kill_9_during_changes() {
    let points: usize = std::env::var("NERVEWIRE_KILL9_POINTS").ok().map_or(20, |text| text.parse().unwrap());
    let mut daemon = Daemon::start().await;
    let made = daemon.post("/api/v1/agents").json(&json!({"name": "bot"})).send().await;
    let bot = made.json()["data"]["id"].as_str().unwrap().to_owned();
    let mut answered = BTreeMap::from([(bot.clone(), Answered { changes: 1, deleted: false })]);
    for point in 0..points {
        let before = daemon.metric("nervewire_published_total").await;
        let writers = (0..8).map(|n| {
            let writer = Writer {
                addr: daemon.addr(),
                key: daemon.key.clone(),
                bot: bot.clone(),
                point,
                answered: BTreeMap::new(),
            };
            tokio::spawn(writer.work(n % 3))
        });
        let writers = futures_util::future::join_all(writers.collect::<Vec<_>>());
        // The daemon is killed after this many events, at a random moment of a commit.
        let enough = before + 20.0 + (point % 50) as f64;
        common::until("some more events", || async {
            (daemon.metric("nervewire_published_total").await >= enough).then_some(())
        })
        .await;
        daemon.kill9().await;
        for writer in writers.await {
            answered.extend(writer.unwrap());
        }
        daemon.start_again().await;
    }

    let published = published_changes(&daemon).await;
    let (agents, messages) = (rows(&daemon, "/api/v1/agents").await, rows(&daemon, "/api/v1/messages").await);
    let memories = rows(&daemon, "/api/v1/memories").await;
    assert!(answered.len() >= 10 * points, "{} at {points} points: too little was going on", answered.len());
    for (id, events) in &published {
        let known = answered.get(id).cloned().unwrap_or_default();
        let is_deleted = events.last().is_some_and(|last| last == "deleted");
        let changes = events.iter().filter(|event| *event != "deleted").count() as u64;
        assert_eq!(events[0], "created", "{id}: {events:?}");
        assert!(!events[..events.len() - 1].contains(&"deleted".to_owned()), "{id} lives on: {events:?}");
        assert!(
            changes >= known.changes,
            "{id}: of {} answered changes {events:?} are published",
            known.changes
        );
        assert!(is_deleted || !known.deleted, "{id} was deleted, and {events:?} does not tell");
        let row = agents.get(id).or_else(|| messages.get(id)).or_else(|| memories.get(id));
        assert_eq!(row.is_none(), is_deleted, "{id}: published {events:?}, kept {row:?}");
        let Some(row) = row else { continue };
        if let Some(version) = row["version"].as_u64() {
            assert_eq!(version, changes, "{id}: {events:?}");
        }
        if agents.contains_key(id) {
            // The second change sets the agent's state, the third its description.
            assert_eq!(row["state"] == "thinking", changes >= 2, "{id}: {events:?} {row}");
            assert_eq!(row["description"] == "busy", changes >= 3, "{id}: {events:?} {row}");
        }
    }
    for id in answered.keys().chain(agents.keys()).chain(messages.keys()).chain(memories.keys()) {
        assert!(published.contains_key(id), "no event about {id}");
    }
    for word in
        (0..points).flat_map(|point| ["green", "blue", "left", "right"].map(|word| format!("{word}{point}")))
    {
        let kept = memories.iter().filter(|(_, row)| row["content"] == word);
        let kept: Vec<String> = kept.map(|(id, _)| id.clone()).collect();
        assert_eq!(found(&daemon, &word).await, kept, "what a search for {word} finds");
    }
}
