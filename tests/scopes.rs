//! Permissions, tested on the daemon: every operation of the API document with every kind of caller.
//!
//! * Each operation has one class, and each class has one row of verdicts ([`VERDICTS`]). An operation
//!   without a class fails the test, so a new one cannot be forgotten.
//! * A refused request leaves no trace: everything that an administrator can see is the same afterwards.
//! * The requested resources belong to the user `ann`. Each request that succeeds has its own resources.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "tests"
)]

mod common;

use std::collections::BTreeMap;

use common::Daemon;
use common::http::Reply;
use common::rest::{all, data};
use serde_json::{Value, json};

/// The callers, in the order of the columns of [`VERDICTS`].
const CALLERS: [&str; 10] = [
    "viewer",
    "user",
    "owner",
    "narrowed",
    "write key",
    "agents key",
    "publish key",
    "mint key",
    "admin",
    "ticket",
];

/// The classes of operations. One rule decides about all operations of a class.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Class {
    /// Needs no credential, or is covered by other tests: probes, documents, login, open streams.
    Open,
    ReadEvents,
    PublishEvents,
    ListOfAgents,
    ReadAgent,
    CreateAgent,
    /// Responds with the agent, so it needs `subscribe` too.
    ChangeAgent,
    DeleteAgent,
    ReadOfAgent,
    SendToAgent,
    ListOfUsers,
    ReadOfUser,
    CreateOfUser,
    ChangeOfUser,
    DeleteOfUser,
    Batch,
    ListTools,
    ReadTool,
    CreateTool,
    ChangeTool,
    DeleteTool,
    ExecuteTool,
    WriteCoreMemory,
    Presence,
    Connections,
    Kick,
    KickOne,
    Me,
    ChangeMe,
    Password,
    Manage,
    Operate,
    Mint,
    Ticket,
    /// Without the producer's token.
    ProduceStream,
    CancelStream,
    /// Of a stream that is open.
    DeleteStream,
}

/// Verdicts of each class: a status, `ok` (2xx), `empty` (200 without rows), `none` (200 without any change),
/// `no` (401 or 403).
const VERDICTS: &[(Class, [&str; 10])] = {
    use Class::*;
    &[
        // class           viewer  user     owner    narrowed write k. agents k. publish k. mint k. admin    ticket
        (ReadEvents, ["ok", "ok", "ok", "ok", "403", "ok", "403", "403", "ok", "ok"]),
        (PublishEvents, ["403", "ok", "ok", "403", "403", "403", "403", "403", "ok", "no"]),
        (ListOfAgents, ["ok", "ok", "ok", "empty", "403", "ok", "403", "403", "ok", "no"]),
        (ReadAgent, ["ok", "ok", "ok", "404", "403", "ok", "403", "403", "ok", "no"]),
        (CreateAgent, ["403", "ok", "ok", "403", "403", "ok", "403", "403", "ok", "no"]),
        (ChangeAgent, ["403", "403", "ok", "404", "403", "ok", "403", "403", "ok", "no"]),
        (DeleteAgent, ["403", "403", "ok", "404", "403", "ok", "403", "403", "ok", "no"]),
        (ReadOfAgent, ["ok", "ok", "ok", "404", "403", "ok", "403", "403", "ok", "no"]),
        (SendToAgent, ["403", "ok", "ok", "404", "403", "403", "403", "403", "ok", "no"]),
        (ListOfUsers, ["empty", "empty", "ok", "empty", "403", "empty", "403", "403", "ok", "no"]),
        (ReadOfUser, ["404", "404", "ok", "404", "403", "404", "403", "403", "ok", "no"]),
        (CreateOfUser, ["403", "ok", "ok", "400", "403", "403", "403", "403", "ok", "no"]),
        (ChangeOfUser, ["403", "404", "ok", "404", "403", "403", "403", "403", "ok", "no"]),
        (DeleteOfUser, ["403", "404", "ok", "404", "404", "403", "403", "403", "ok", "no"]),
        (Batch, ["403", "none", "ok", "none", "none", "403", "403", "403", "ok", "no"]),
        (ListTools, ["ok", "ok", "ok", "empty", "403", "ok", "403", "403", "ok", "no"]),
        (ReadTool, ["ok", "ok", "ok", "404", "403", "ok", "403", "403", "ok", "no"]),
        (CreateTool, ["403", "ok", "ok", "403", "403", "ok", "403", "403", "ok", "no"]),
        (ChangeTool, ["403", "403", "ok", "404", "403", "ok", "403", "403", "ok", "no"]),
        (DeleteTool, ["403", "403", "ok", "404", "403", "ok", "403", "403", "ok", "no"]),
        (ExecuteTool, ["403", "501", "501", "404", "403", "501", "403", "403", "501", "no"]),
        (WriteCoreMemory, ["403", "403", "ok", "404", "403", "ok", "403", "403", "ok", "no"]),
        (Presence, ["ok", "ok", "ok", "empty", "403", "ok", "403", "403", "ok", "no"]),
        (Connections, ["ok", "ok", "ok", "ok", "403", "ok", "403", "403", "ok", "no"]),
        (Kick, ["none", "none", "none", "none", "none", "none", "none", "none", "none", "no"]),
        (KickOne, ["404", "404", "404", "404", "404", "404", "404", "404", "404", "no"]),
        (Me, ["404", "404", "404", "404", "404", "404", "404", "404", "404", "no"]),
        (ChangeMe, ["403", "404", "404", "404", "404", "403", "403", "403", "404", "no"]),
        (Password, ["404", "404", "404", "404", "404", "404", "404", "404", "404", "no"]),
        (Manage, ["403", "403", "403", "403", "403", "403", "403", "403", "ok", "no"]),
        (Operate, ["403", "403", "403", "403", "403", "403", "403", "403", "403", "no"]),
        (Mint, ["403", "403", "403", "403", "403", "403", "403", "ok", "ok", "no"]),
        (Ticket, ["ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "ok", "no"]),
        (ProduceStream, ["403", "401", "401", "no", "403", "403", "401", "403", "401", "no"]),
        (CancelStream, ["404", "404", "ok", "404", "404", "404", "404", "404", "ok", "no"]),
        (DeleteStream, ["404", "404", "409", "404", "404", "404", "404", "404", "409", "no"]),
    ]
};

/// The request of an operation: its class, its body, and its query if it has one.
fn asked(method: &str, path: &str, seed: &Seed) -> Option<(Class, Value, String)> {
    use Class::*;
    let (agent, none) = (seed.agent.as_str(), Value::Null);
    let of_agent = format!("?agent_id={agent}");
    let plain = |class, body: Value| Some((class, body, String::new()));
    let user =
        || json!({"email": format!("{}@example.org", seed.number), "password": "long enough", "name": "Zed"});
    match (method, path.strip_prefix("/api/v1/").unwrap_or(path)) {
        (_, "/health" | "/health/live" | "/health/ready" | "/docs" | "/docs/{name}") => plain(Open, none),
        (_, "/api-docs/openapi.json" | "/api-docs/asyncapi.json") => plain(Open, none),
        (_, "ws" | "sse" | "sse/llm" | "users/login") => plain(Open, none),
        ("get", "events") => Some((ReadEvents, none, "?earliest=true".into())),
        ("post", "events") => plain(PublishEvents, json!({"type": "custom", "channel": "c", "data": 1})),
        ("get", "agents") => plain(ListOfAgents, none),
        ("post", "agents") => plain(CreateAgent, json!({"name": "new", "system": "new"})),
        ("get", "agents/{id}" | "agents/{id}/state") => plain(ReadAgent, none),
        ("put" | "patch", "agents/{id}") => plain(ChangeAgent, json!({"system": "other", "llm_config": {}})),
        ("delete", "agents/{id}") => plain(DeleteAgent, none),
        ("put", "agents/{id}/state") => plain(DeleteAgent, json!({"state": "thinking"})),
        ("post", "agents/{id}/messages") => plain(SendToAgent, json!({"message": "x"})),
        ("get", "agents/{id}/memories") => plain(ReadOfAgent, none),
        ("get", "agents/{id}/core-memory" | "agents/{id}/core-memory/{label}") => plain(ReadOfAgent, none),
        ("put", "agents/{id}/core-memory/{label}") => plain(WriteCoreMemory, json!({"value": "other"})),
        ("delete", "agents/{id}/core-memory/{label}") => plain(WriteCoreMemory, none),
        ("get", "messages" | "memories") => Some((ListOfUsers, none, of_agent)),
        ("get", "memories/search") => Some((ListOfUsers, none, format!("{of_agent}&query=remember"))),
        ("post", "memories/search") => plain(ListOfUsers, json!({"query": "remember", "agent_id": agent})),
        ("get", "messages/{id}" | "memories/{id}" | "memories/{id}/history") => plain(ReadOfUser, none),
        ("post", "messages" | "memories") => plain(CreateOfUser, json!({"agent_id": agent, "content": "x"})),
        ("put" | "patch", "memories/{id}") => plain(ChangeOfUser, json!({"content": "other"})),
        ("delete", "messages/{id}" | "memories/{id}") => plain(DeleteOfUser, none),
        // Only Ann may write in her own name.
        ("post", "memories/batch") => {
            plain(Batch, json!({"memories": [{"agent_id": agent, "user_id": "ann", "content": "x"}]}))
        }
        ("post", "memories/batch/delete") => plain(Batch, json!({"ids": [seed.memory]})),
        ("get", "streams") => Some((ListOfUsers, none, of_agent)),
        ("get", "streams/{id}") => plain(ReadOfUser, none),
        ("post", "streams") => plain(PublishEvents, json!({})),
        ("post", "streams/{id}/chunks") => plain(ProduceStream, json!({"chunk": "x"})),
        ("post", "streams/{id}/finish") => plain(ProduceStream, json!({})),
        ("post", "streams/{id}/fail") => plain(ProduceStream, json!({"code": "X", "message": "x"})),
        ("post", "streams/{id}/renew") => plain(ProduceStream, none),
        ("post", "streams/{id}/cancel") => plain(CancelStream, json!({})),
        ("delete", "streams/{id}") => plain(DeleteStream, none),
        ("get", "tools") => plain(ListTools, none),
        ("post", "tools") => plain(CreateTool, json!({"name": "new", "source_code": "new"})),
        ("get", "tools/{id}") => plain(ReadTool, none),
        ("put" | "patch", "tools/{id}") => plain(ChangeTool, json!({"source_code": "other"})),
        ("delete", "tools/{id}") => plain(DeleteTool, none),
        ("post", "tools/{id}/execute") => plain(ExecuteTool, none),
        ("get", "presence") => plain(Presence, none),
        ("get", "connections") => plain(Connections, none),
        ("delete", "connections") => Some((Kick, none, "?user=nobody".into())),
        ("delete", "connections/{id}") => plain(KickOne, none),
        ("get", "users/me") => plain(Me, none),
        ("put" | "patch", "users/me") => plain(ChangeMe, json!({"name": "Other"})),
        ("put", "users/me/password") => {
            plain(Password, json!({"current_password": "long enough", "new_password": "longer yet"}))
        }
        ("get", "api-keys" | "users" | "users/{sub}" | "stats") => plain(Manage, none),
        ("get", "organizations/{id}" | "organizations/{id}/members") => plain(Manage, none),
        ("put" | "patch", "organizations/{id}") => plain(Manage, json!({"name": "Other"})),
        ("post", "api-keys") => plain(Manage, json!({"scopes": ["subscribe"]})),
        ("delete", "api-keys/{id}" | "tokens/{jti}" | "users/{sub}") => plain(Manage, none),
        ("delete", "organizations/{id}/members/{sub}") => plain(Manage, none),
        ("put", "users/{sub}/disabled") => plain(Manage, json!({"disabled": true})),
        ("put", "organizations/{id}/members/{sub}") => plain(Manage, json!({"role": "viewer"})),
        ("post", "users/register" | "organizations/{id}/members") => plain(Manage, user()),
        ("get", "organizations") => plain(Operate, none),
        ("post", "organizations") => plain(Operate, json!({"id": format!("new-{}", seed.number)})),
        ("delete", "organizations/{id}") => plain(Operate, none),
        ("post", "tokens") => plain(Mint, json!({"sub": "zed"})),
        ("post", "tickets") => plain(Ticket, json!({})),
        _ => None,
    }
}

/// The resources of one request. Those that belong to a user are Ann's.
#[derive(Default)]
struct Seed {
    number: usize,
    agent: String,
    message: String,
    memory: String,
    tool: String,
    stream: String,
    user: String,
    key: String,
}

impl Seed {
    /// The values for the names in a path.
    fn path(&self, path: &str) -> String {
        let id = match path {
            path if path.contains("/messages/{id}") => &self.message,
            path if path.contains("/memories/{id}") => &self.memory,
            path if path.contains("/tools/") => &self.tool,
            path if path.contains("/streams/") => &self.stream,
            path if path.contains("/api-keys/") => &self.key,
            path if path.contains("/organizations/") => "acme",
            path if path.contains("/connections/") => "conn-0123456789abcdef",
            _ => &self.agent,
        };
        let names = [("{id}", id), ("{label}", "persona"), ("{sub}", &self.user), ("{jti}", "tok-none")];
        names.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value))
    }
}

/// A daemon with an organization and one caller of each kind.
struct World {
    daemon: Daemon,
    /// The organization's `*` key, which can see and create everything.
    star: String,
    /// The credentials of [`CALLERS`], except for the ticket, which is new for each request.
    keys: Vec<String>,
    seeds: usize,
}

impl World {
    async fn start() -> World {
        let daemon = Daemon::start().await;
        let star = daemon.create_org("acme").await;
        let token = async |sub: &str, more: Value| daemon.mint_token(&star, sub, more).await;
        let key = async |scopes: Value| daemon.create_key(json!({"org_id": "acme", "scopes": scopes})).await;
        let keys = vec![
            token("vic", json!({"roles": ["viewer"]})).await,
            token("eve", json!({"roles": ["user"]})).await,
            token("ann", json!({"roles": ["user"]})).await,
            token("ann", json!({"roles": ["user"], "agents": ["agent-elsewhere"]})).await,
            key(json!(["write"])).await,
            key(json!(["agents", "subscribe"])).await,
            key(json!(["publish"])).await,
            key(json!(["mint"])).await,
            key(json!(["*"])).await, // not a token: a token expires, so it could not register a user
        ];
        World { daemon, star, keys, seeds: 0 }
    }

    /// Creates the resources that a request to `path` needs.
    async fn seed(&mut self, path: &str) -> Seed {
        self.seeds += 1;
        let (daemon, star, ann) = (&self.daemon, &self.star, &self.keys[2]);
        let made = async |key: &str, path: &str, body: Value, name: &str| {
            let reply = daemon.post(&format!("/api/v1/{path}")).key(key).json(&body).send().await;
            data(&reply, 201)[name].as_str().unwrap().to_owned()
        };
        let mut seed = Seed { number: self.seeds, ..Seed::default() };
        let needs = |word: &str| path.contains(word);
        if needs("agents") || needs("messages") || needs("memories") {
            seed.agent = made(ann, "agents", json!({"name": "a", "system": "old"}), "id").await;
            let of_agent = json!({"agent_id": seed.agent, "content": "remember"});
            seed.message = made(ann, "messages", of_agent.clone(), "id").await;
            seed.memory = made(ann, "memories", of_agent, "id").await;
            let block = format!("/api/v1/agents/{}/core-memory/persona", seed.agent);
            let put = daemon.call("PUT", &block).key(ann).json(&json!({"value": "old"})).send().await;
            data(&put, 201);
        }
        if needs("streams") {
            seed.agent = made(ann, "agents", json!({"name": "a"}), "id").await;
            let new = json!({"agent_id": seed.agent, "lease_seconds": 600});
            seed.stream = made(ann, "streams", new, "request_id").await;
        }
        if needs("tools") {
            seed.tool = made(ann, "tools", json!({"name": "t", "source_code": "old"}), "id").await;
        }
        if needs("api-keys") {
            seed.key = made(star, "api-keys", json!({"scopes": ["subscribe"]}), "key_id").await;
        }
        if needs("{sub}") {
            let number = self.seeds;
            let user = json!({"email": format!("u{number}@y"), "password": "long enough", "name": "Uma"});
            seed.user = made(star, "users/register", user, "id").await;
        }
        seed
    }

    async fn ask(&self, caller: usize, method: &str, path: &str, seed: &Seed) -> Reply {
        let (_, body, query) = asked(method, path, seed).unwrap();
        let mut url = seed.path(path) + &query;
        let ticket = match self.keys.get(caller) {
            Some(_) => String::new(),
            None => {
                let admin = self.keys.last().unwrap();
                let made = self.daemon.post("/api/v1/tickets").key(admin).json(&json!({})).send().await;
                data(&made, 201)["ticket"].as_str().unwrap().to_owned()
            }
        };
        if !ticket.is_empty() {
            url += if url.contains('?') { "&ticket=" } else { "?ticket=" };
            url += &ticket;
        }
        let call = self.daemon.call(&method.to_uppercase(), &url);
        let call = match self.keys.get(caller) {
            Some(key) => call.key(key),
            None => call.anonymous(),
        };
        match body {
            Value::Null => call.send().await,
            body => call.json(&body).send().await,
        }
    }

    /// Everything that an administrator sees of the organization.
    async fn everything(&self, seed: &Seed) -> BTreeMap<String, Value> {
        let mut seen = BTreeMap::new();
        for list in
            ["agents?", "tools?", "streams?", "messages?", "memories?", "users?", "api-keys?limit=100"]
        {
            let mut rows = all(&self.daemon, &self.star, &format!("/api/v1/{list}&limit=100")).await;
            for row in &mut rows {
                row.as_object_mut().unwrap().remove("last_used_at");
            }
            seen.insert(list.to_owned(), Value::Array(rows));
        }
        let mut one = vec!["organizations/acme".to_owned()];
        if !seed.agent.is_empty() {
            one.push(format!("agents/{}/core-memory", seed.agent));
            one.push(format!("agents/{}/state", seed.agent));
        }
        for path in one {
            let reply = self.daemon.get(&format!("/api/v1/{path}")).key(&self.star).send().await;
            let body = reply.json();
            seen.insert(path, json!([reply.status.as_u16(), body["data"]]));
        }
        let stats = self.daemon.get("/api/v1/stats").key(&self.star).send().await;
        seen.insert("newest event".into(), data(&stats, 200)["newest_cursor"].clone());
        seen
    }
}

fn is_refusal(verdict: &str) -> bool {
    !matches!(verdict, "ok" | "501")
}

/// The number of rows in a response. A search counts its results, a batch its changes.
fn rows(reply: &Reply) -> usize {
    let data = &reply.json()["data"];
    let rows = data.as_array().or_else(|| data["results"].as_array());
    let counted = || data["closed"].as_u64().or_else(|| data["successful"].as_u64());
    rows.map(Vec::len).or_else(|| counted().map(|count| count as usize)).unwrap_or(usize::MAX)
}

fn keeps(reply: &Reply, verdict: &str) -> bool {
    let status = reply.status.as_u16();
    match verdict {
        "ok" => {
            reply.status.is_success()
                && (status != 200 || rows(reply) > 0 || reply.json()["data"] == json!([]))
        }
        "empty" | "none" => status == 200 && rows(reply) == 0,
        "no" => matches!(status, 401 | 403),
        verdict => status.to_string() == verdict,
    }
}

/// Tests the whole matrix.
#[tokio::test]
async fn every_operation_checks_its_right_and_refusals_change_nothing() {
    let document: Value = serde_json::from_str(include_str!("../docs/api/openapi.json")).unwrap();
    let mut world = World::start().await;
    let mut wrong = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            if method == "parameters" {
                continue;
            }
            let Some((class, ..)) = asked(method, path, &Seed::default()) else {
                panic!("{method} {path} has no class: say in `asked` who may do that");
            };
            if class == Class::Open {
                continue;
            }
            let (_, verdicts) = VERDICTS.iter().find(|(of, _)| *of == class).expect("a row for each class");
            let seed = world.seed(path).await;
            let before = world.everything(&seed).await;
            for (caller, verdict) in verdicts.iter().enumerate().filter(|(_, verdict)| is_refusal(verdict)) {
                let reply = world.ask(caller, method, path, &seed).await;
                if !keeps(&reply, verdict) {
                    wrong.push(format!("{} {method} {path}: {verdict}, got {reply:?}", CALLERS[caller]));
                }
            }
            let after = world.everything(&seed).await;
            for (what, was) in &before {
                if after[what] != *was {
                    wrong.push(format!("{method} {path}: a refused caller changed {what}: {}", after[what]));
                }
            }
            for (caller, verdict) in verdicts.iter().enumerate().filter(|(_, verdict)| !is_refusal(verdict)) {
                let seed = world.seed(path).await;
                let reply = world.ask(caller, method, path, &seed).await;
                if !keeps(&reply, verdict) {
                    wrong.push(format!("{} {method} {path}: {verdict}, got {reply:?}", CALLERS[caller]));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The response to a request for another user's agent does not reveal whether the agent exists.
#[tokio::test]
async fn an_agent_outside_the_narrowing_is_answered_like_an_unknown_one() {
    let mut world = World::start().await;
    let seed = world.seed("/api/v1/agents").await;
    let narrowings = [
        json!({"agents": ["agent-elsewhere"]}),
        json!({"agents": []}),
        json!({"types": ["custom"]}),
        json!({"types": []}),
        json!({"channels": ["c"]}),
    ];
    for narrowing in narrowings {
        let mut more = narrowing.clone();
        more["roles"] = json!(["admin"]);
        let narrow = world.daemon.mint_token(&world.star, "ann", more).await;
        let ask = async |method: &str, path: &str, body: &Value, agent: &str| {
            let path = path.replace("{}", agent);
            let body = body.to_string().replace("{}", agent);
            let call = world.daemon.call(method, &format!("/api/v1/{path}")).key(&narrow);
            let call = call.header("if-match", "\"7\"");
            let reply = match body.as_str() {
                "null" => call.send().await,
                body => call.body("application/json", body.to_owned()).send().await,
            };
            let text = reply.text();
            let cut = text.find(",\"timestamp\"").unwrap_or(text.len());
            (reply.status.as_u16(), text[..cut].to_owned(), reply.header("etag").map(str::to_owned))
        };
        for (method, path, body) in [
            ("GET", "agents/{}", json!(null)),
            ("PATCH", "agents/{}", json!({"name": "x"})),
            ("PATCH", "agents/{}", json!({"owner": null})),
            ("DELETE", "agents/{}", json!(null)),
            ("GET", "agents/{}/state", json!(null)),
            ("PUT", "agents/{}/state", json!({"state": "waiting"})),
            ("GET", "agents/{}/memories", json!(null)),
            ("POST", "agents/{}/messages", json!({"message": "x"})),
            ("GET", "agents/{}/core-memory", json!(null)),
            ("GET", "agents/{}/core-memory/persona", json!(null)),
            ("PUT", "agents/{}/core-memory/persona", json!({"value": "x"})),
            ("PUT", "agents/{}/core-memory/persona?user_id=ann", json!({"value": "x"})),
            ("DELETE", "agents/{}/core-memory/persona", json!(null)),
            ("POST", "messages", json!({"agent_id": "{}", "content": "x"})),
            ("POST", "memories", json!({"agent_id": "{}", "content": "x"})),
            ("GET", "messages?agent_id={}", json!(null)),
            ("GET", "memories?agent_id={}", json!(null)),
            ("GET", "memories/search?query=remember&agent_id={}", json!(null)),
            ("GET", "events?earliest=true&agent_id={}", json!(null)),
        ] {
            let there = ask(method, path, &body, &seed.agent).await;
            let nowhere = ask(method, path, &body, "agent-0198c5f0-7a1b-7c3d-8e4f-000000000001").await;
            assert_eq!(there, nowhere, "{narrowing} {method} {path}");
            assert!(
                there.0 != 500 && there.0 != 201 && there.0 != 204,
                "{narrowing} {method} {path} {there:?}"
            );
        }
    }
    let agent = world.daemon.get(&format!("/api/v1/agents/{}", seed.agent)).key(&world.star).send().await;
    assert_eq!((&data(&agent, 200)["owner"], agent.header("etag")), (&json!("ann"), Some("\"1\"")));
}

/// The owner is the creator, or nobody for a service. Only `agents` may set it.
#[tokio::test]
async fn owners_are_set_only_by_agents() {
    let world = World::start().await;
    let [_, eve, ann, _, _, service, ..] = world.keys.as_slice() else { panic!("nine keys") };
    let admin = &world.daemon.mint_token(&world.star, "root", json!({"roles": ["admin"]})).await;
    for path in ["/api/v1/agents", "/api/v1/tools"] {
        let make = async |key: &str, more: Value| {
            let mut body = json!({"name": "x"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            world.daemon.post(path).key(key).json(&body).send().await
        };
        let change = async |key: &str, of: &Value, body: Value| {
            let path = format!("{path}/{}", of["id"].as_str().unwrap());
            world.daemon.call("PATCH", &path).key(key).json(&body).send().await
        };
        for (who, more, owner) in [
            (ann, json!({}), json!("ann")),
            (ann, json!({"owner": "ann"}), json!("ann")),
            (admin, json!({}), json!("root")),
            (admin, json!({"owner": null}), json!(null)),
            (admin, json!({"owner": "bob"}), json!("bob")),
            (service, json!({}), json!(null)),
            (service, json!({"owner": "ann"}), json!("ann")),
        ] {
            assert_eq!(data(&make(who, more).await, 201)["owner"], owner, "{path}");
        }
        for more in [json!({"owner": "eve"}), json!({"owner": null})] {
            make(ann, more).await.refused(403, "FORBIDDEN");
        }
        make(admin, json!({"owner": ""})).await.refused(400, "VALIDATION_ERROR");
        make(admin, json!({"owner": "x".repeat(257)})).await.refused(400, "VALIDATION_ERROR");

        let anns = data(&make(ann, json!({})).await, 201);
        for who in [eve, ann] {
            change(who, &anns, json!({"owner": "eve"})).await.refused(403, "FORBIDDEN");
            change(who, &anns, json!({"owner": null})).await.refused(403, "FORBIDDEN");
        }
        let same = data(&change(ann, &anns, json!({"owner": "ann", "name": "y"})).await, 200);
        assert_eq!((&same["owner"], &same["name"]), (&json!("ann"), &json!("y")));
        let given = data(&change(admin, &anns, json!({"owner": "eve"})).await, 200);
        assert_eq!((&given["owner"], &given["name"]), (&json!("eve"), &json!("y")));
        change(ann, &anns, json!({"name": "mine"})).await.refused(403, "FORBIDDEN");
        assert_eq!(data(&change(eve, &anns, json!({"name": "z"})).await, 200)["name"], "z");
        let nobodys = data(&change(service, &anns, json!({"owner": null})).await, 200);
        assert_eq!(nobodys["owner"], json!(null));
        change(eve, &anns, json!({"name": "mine"})).await.refused(403, "FORBIDDEN");
    }
}

/// A key without scopes is refused with a list of the scopes, over REST and on the command line.
#[tokio::test]
async fn a_key_with_no_scopes_is_refused_with_the_list_of_scopes() {
    let daemon = Daemon::start().await;
    let named = "subscribe, publish, write, agents, publish:org, read:all, mint, manage";
    for body in [json!({}), json!({"name": "n"}), json!({"scopes": []})] {
        let refused = daemon.post("/api/v1/api-keys").json(&body).send().await;
        let error = refused.refused(400, "VALIDATION_ERROR");
        assert_eq!(error["details"]["field"], "scopes", "{error}");
        assert!(error["details"]["reason"].as_str().unwrap().contains(named), "{error}");
    }
    let done = daemon.cli(&["key", "create", "--name", "n"]).await;
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(64), &b""[..]), "{stderr}");
    assert!(stderr.contains("--scope") && stderr.contains(named), "{stderr}");
    assert_eq!(all(&daemon, &daemon.key, "/api/v1/api-keys?").await.len(), 1, "the first key alone");
}

/// A backend with `mint` can create tokens for its users, and for nothing but users.
#[tokio::test]
async fn a_mint_key_only_mints_user_tokens() {
    let world = World::start().await;
    let (daemon, mint) = (&world.daemon, world.keys[7].as_str());
    let post = async |key: &str, path: &str, body: Value| {
        daemon.post(&format!("/api/v1/{path}")).key(key).json(&body).send().await
    };
    let zed = daemon.mint_token(mint, "zed", json!({})).await;
    data(&post(&zed, "agents", json!({"name": "zed's"})).await, 201);
    for body in [
        json!({"sub": "zed", "roles": ["admin"]}),
        json!({"sub": "zed", "scopes": ["agents"]}),
        json!({"sub": "zed", "scopes": ["read:all"]}),
        json!({"sub": "zed", "org_id": "default"}),
    ] {
        let reply = post(mint, "tokens", body).await;
        assert!(matches!(reply.status.as_u16(), 403 | 404), "{reply:?}");
    }
    let ticket = data(&post(mint, "tickets", json!({"sub": "zed"})).await, 201);
    let path = format!("/api/v1/sse?ticket={}", ticket["ticket"].as_str().unwrap());
    let mut sse = daemon.sse(&path).without("authorization").open().await;
    assert_eq!(sse.next().await.name.as_deref(), Some("ready"));
    let event = |user: &str| json!({"type": "message", "agent_id": "a", "user_id": user, "content": user});
    daemon.publish_as(&world.star, json!([event("ann"), event("zed")])).await;
    assert_eq!(sse.next_event().await["content"], "zed");
    let eve = world.keys[1].as_str();
    post(eve, "tickets", json!({"sub": "ann"})).await.refused(403, "FORBIDDEN");
}

/// Keys that an older daemon stored: the daemon converts them and reports it once, in one log line.
#[tokio::test]
async fn keys_of_an_older_store_keep_their_rights_after_migration() {
    use nervewire::store::{ApiKey, Organization, Rows, Store, StoreOptions, Visibility};
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    std::fs::create_dir(&data_dir).unwrap();
    let mut options = StoreOptions::new(&data_dir);
    options.reserve_bytes = 0;
    let store = Store::open(options).unwrap();
    let tenant = store.new_tenant();
    let mut rows = Rows::new();
    let organization = Organization {
        tenant,
        org_id: "default".into(),
        name: String::new(),
        visibility: Visibility::Private,
        presence: false,
        created_ms: 5,
        deleted: false,
    };
    rows.put_organization(&organization).unwrap();
    let secret = "s".repeat(43);
    let digest = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes()).as_ref().try_into().unwrap();
    let star = ["publish", "publish:org", "subscribe", "read:all", "manage"];
    for (key_id, scopes) in [("old1", &star[..1]), ("old2", &star[2..3]), ("old3", &star[..])] {
        let key = ApiKey {
            tenant,
            key_id: key_id.into(),
            digest,
            scopes: scopes.iter().map(ToString::to_string).collect(),
            narrowing: Default::default(),
            name: String::new(),
            created_ms: 5,
            expires_ms: None,
            last_used_ms: None,
        };
        rows.put_api_key(&key).unwrap();
    }
    store.write(rows).await.unwrap();
    store.close().await;
    drop(store);
    // No first key is created, so the harness must not wait for one.
    std::fs::write(data_dir.join(".known"), "").unwrap();

    let mut daemon = Daemon::with().data_dir(&data_dir).start().await;
    let old = |id: &str| format!("nwk_{id}_{secret}");
    let line = "stored API keys keep what they could do";
    let log = daemon.log();
    assert_eq!(log.matches(line).count(), 1, "{log}");
    assert!(log.lines().any(|text| text.contains(line) && text.contains("\"keys\":2")), "{log}");
    for life in 0..2 {
        let keys = daemon.get("/api/v1/api-keys").key(&old("old3")).send().await.json();
        let scopes: Vec<_> =
            keys["data"].as_array().unwrap().iter().map(|key| key["scopes"].clone()).collect();
        let all = ["subscribe", "publish", "write", "agents", "publish:org", "read:all", "mint", "manage"];
        assert_eq!(
            scopes,
            [json!(["publish", "write", "agents"]), json!(["subscribe"]), json!(all)],
            "{life}"
        );
        let make = daemon.post("/api/v1/agents").key(&old("old1")).json(&json!({"name": "as ever"}));
        data(&make.send().await, 201);
        if life == 0 {
            daemon.restart().await;
            assert!(!daemon.log().contains(line), "once: {}", daemon.log());
        }
    }
}

/// A stored response is not repeated for the same user with another narrowing, because that is a different
/// request.
#[tokio::test]
async fn an_idempotent_response_is_repeated_only_to_an_equally_narrowed_credential() {
    let world = World::start().await;
    let ann = &world.keys[2];
    let agent =
        data(&world.daemon.post("/api/v1/agents").key(ann).json(&json!({"name": "a"})).send().await, 201);
    let body = json!({"agent_id": agent["id"], "content": "secret"});
    let say = |key: &str| {
        world.daemon.post("/api/v1/messages").key(key).header("idempotency-key", "k").json(&body).send()
    };
    let first = say(ann).await;
    assert_eq!(data(&first, 201)["content"], "secret");
    let again = say(ann).await;
    assert_eq!((again.header("idempotent-replayed"), &again.body), (Some("true"), &first.body));
    for more in
        [json!({"agents": ["agent-elsewhere"]}), json!({"types": ["custom"]}), json!({"channels": []})]
    {
        let narrow = world.daemon.mint_token(&world.star, "ann", more).await;
        let reply = say(&narrow).await;
        assert!(matches!(reply.status.as_u16(), 400 | 403), "{reply:?}");
        assert!(!reply.text().contains(data(&first, 201)["id"].as_str().unwrap()), "{reply:?}");
    }
    // A renewed token with the same narrowing gets its stored response.
    let narrow = async || world.daemon.mint_token(&world.star, "ann", json!({"agents": [agent["id"]]})).await;
    let own = say(&narrow().await).await;
    assert_eq!(data(&own, 201)["content"], "secret");
    assert_eq!(own.header("idempotent-replayed"), None);
    let renewed = say(&narrow().await).await;
    assert_eq!((renewed.header("idempotent-replayed"), &renewed.body), (Some("true"), &own.body));
}

/// A narrowed credential administers only what is narrowed at least as much, and sees nothing else.
#[tokio::test]
async fn a_narrowed_credential_administers_within_its_narrowing() {
    let world = World::start().await;
    let daemon = &world.daemon;
    let key = async |more: Value| {
        let mut body = json!({"org_id": "acme", "scopes": ["*"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        daemon.create_key(body).await
    };
    let narrow = key(json!({"agents": ["a"]})).await;
    let inner = key(json!({"agents": ["a"], "types": ["message"]})).await;
    let other = key(json!({"agents": ["b"]})).await;
    let id = |key: &str| key.split('_').nth(1).unwrap().to_owned();
    let mut listed: Vec<String> = all(daemon, &narrow, "/api/v1/api-keys?limit=1")
        .await
        .iter()
        .map(|key| key["key_id"].as_str().unwrap().to_owned())
        .collect();
    let mut expected = vec![id(&narrow), id(&inner)];
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
    for hidden in [&id(&other), &id(&world.star), "nobody"] {
        let deleted = daemon.call("DELETE", &format!("/api/v1/api-keys/{hidden}")).key(&narrow).send().await;
        deleted.refused(404, "NOT_FOUND");
    }
    for path in ["users", "users/nobody", "organizations/acme", "organizations/acme/members", "stats"] {
        daemon.get(&format!("/api/v1/{path}")).key(&narrow).send().await.refused(403, "FORBIDDEN");
    }

    let open = async |key: &str| {
        let mut ws = daemon.ws("/api/v1/ws?agent_id=a").key(key).open().await;
        (ws.next_json().await["connection_id"].as_str().unwrap().to_owned(), ws)
    };
    let (of_inner, mut closing) = open(&inner).await;
    let (of_star, _open) = open(&world.star).await;
    let (of_other, _open_too) = open(&other).await;
    let seen = daemon.get("/api/v1/connections").key(&narrow).send().await.json();
    let ids: Vec<_> = seen["data"].as_array().unwrap().iter().map(|row| row["id"].clone()).collect();
    assert_eq!(ids, [json!(of_inner)]);
    let kick = |how: &str| daemon.call("DELETE", &format!("/api/v1/connections{how}")).key(&narrow).send();
    for hidden in [&of_star, &of_other] {
        kick(&format!("/{hidden}")).await.refused(404, "NOT_FOUND");
    }
    assert_eq!(data(&kick(&format!("?key={}", id(&other))).await, 200)["closed"], 0);
    assert_eq!(kick(&format!("/{of_inner}")).await.status, 204);
    assert_eq!(closing.closed().await.0, 4403);

    // A user's narrowed token does not see the filters of their other tokens' connections.
    let ann = daemon.mint_token(&world.star, "ann", json!({"agents": ["a"]})).await;
    let (_, _whole) = open(&world.keys[2]).await;
    let seen = daemon.get("/api/v1/connections").key(&ann).send().await.json();
    assert_eq!(seen["data"], json!([]));
}

/// A list without an agent is empty for callers that no such event could reach. Callers narrowed to agents
/// get an error that says which parameter to set.
#[tokio::test]
async fn lists_show_nothing_that_the_credential_gets_no_events_of() {
    let mut world = World::start().await;
    let seed = world.seed("/api/v1/messages").await;
    let narrow = async |more: Value| world.daemon.mint_token(&world.star, "ann", more).await;
    for more in [json!({"types": ["custom"]}), json!({"channels": ["c"]}), json!({"types": []})] {
        let key = narrow(more).await;
        for path in ["agents?", "tools?", "messages?", "memories?"] {
            assert!(all(&world.daemon, &key, &format!("/api/v1/{path}")).await.is_empty(), "{path}");
        }
    }
    let few = narrow(json!({"agents": [seed.agent]})).await;
    for path in ["messages", "memories", "memories/search?query=remember"] {
        let refused = world.daemon.get(&format!("/api/v1/{path}")).key(&few).send().await;
        assert_eq!(refused.refused(400, "VALIDATION_ERROR")["details"]["field"], "agent_id");
    }
    assert_eq!(all(&world.daemon, &few, "/api/v1/agents?").await.len(), 1);
}
