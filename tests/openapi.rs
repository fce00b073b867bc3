//! Compares the API documents with a running daemon: every documented request works, and every response
//! matches the document.
//!
//! * One story calls every operation once and checks each response strictly against its schema: an
//!   undocumented field is a failure too.
//! * The examples of the document come from the same story (`src/http/api_docs/examples.json`; `UPDATE_DOCS=1`
//!   writes them).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failing helper fails its test")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::http::Reply;
use common::{Daemon, is_timestamp};
use serde_json::{Map, Value, json};

/// A document with closed schemas: undocumented fields are refused.
struct Document(Value);

impl Document {
    async fn of(daemon: &Daemon, path: &str) -> Document {
        let reply = daemon.get(path).anonymous().send().await;
        assert_eq!((reply.status.as_u16(), reply.header("content-type")), (200, Some("application/json")));
        let mut document = reply.json();
        let schemas = document["components"]["schemas"].as_object_mut().unwrap();
        let parts = schemas.values().filter_map(|schema| schema["allOf"].as_array()).flatten();
        let parts = parts.filter_map(|part| Some(part["$ref"].as_str()?.rsplit('/').next()?.to_owned()));
        let parts: BTreeSet<String> = parts.collect();
        schemas.iter_mut().filter(|(name, _)| !parts.contains(*name)).for_each(|(_, schema)| close(schema));
        close(&mut document["paths"]);
        Document(document)
    }

    fn validate(&self, schema: &Value, value: &Value, at: &str) {
        let mut root = schema.clone();
        root["components"] = self.0["components"].clone();
        let validator = jsonschema::draft202012::options().build(&root).unwrap();
        validator.validate(value).unwrap_or_else(|error| panic!("{at}: {error}\nin {value:#}"));
    }

    /// The documented response of an operation and status, with references resolved.
    fn answer(&self, method: &str, path: &str, status: u16) -> &Value {
        // `HEAD` is answered as `GET` is, and described once for all paths.
        let described = if method == "HEAD" { "get".to_owned() } else { method.to_lowercase() };
        let operation = &self.0["paths"][path][described];
        assert!(operation.is_object(), "{method} {path} is not described");
        let answer = &operation["responses"][status.to_string()];
        match answer["$ref"].as_str() {
            Some(to) => self.0.pointer(to.strip_prefix('#').unwrap()).unwrap(),
            None => {
                assert!(answer.is_object(), "{method} {path}: {status} is not described");
                answer
            }
        }
    }

    /// Checks one response: status, content type, headers, body.
    fn check(&self, method: &str, path: &str, reply: &Reply) {
        let at = format!("{method} {path}: {reply:?}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{at}");
        let documents = path.starts_with("/docs") || path.starts_with("/api-docs");
        let cached = documents && reply.status != 404;
        assert_eq!(reply.header("cache-control"), Some(if cached { "no-cache" } else { "no-store" }), "{at}");
        let documented = self.answer(method, path, reply.status.as_u16());
        for (name, header) in documented["headers"].as_object().into_iter().flatten() {
            let header = match header["$ref"].as_str() {
                Some(to) => self.0.pointer(to.strip_prefix('#').unwrap()).unwrap(),
                None => header,
            };
            let required = header["required"] == true || name == "ETag";
            assert!(!required || reply.headers.contains_key(name.as_str()), "no {name}: {at}");
        }
        let Some(content) = documented["content"].as_object().filter(|_| method != "HEAD") else {
            return assert!(reply.body.is_empty(), "{at}");
        };
        let kind = reply.header("content-type").unwrap_or_default().split(';').next().unwrap();
        let schema = &content.get(kind).unwrap_or_else(|| panic!("{kind} is not described: {at}"))["schema"];
        if kind == "application/json" {
            self.validate(schema, &reply.json(), &at);
        }
    }
}

/// Closes every object that lists its fields. An `allOf` is closed as a whole, because its parts would refuse
/// each other's fields.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(parts) = fields.get("allOf").cloned() {
                fields.insert("unevaluatedProperties".into(), json!(false));
                fields.insert("allOf".into(), parts);
                return;
            }
            if fields.contains_key("properties") && fields.get("type") == Some(&json!("object")) {
                fields.entry("unevaluatedProperties").or_insert(json!(false));
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// Requests and responses for the document's examples. Values that differ between runs are replaced by fixed
/// ones.
#[derive(Default)]
struct Record {
    exchanges: Vec<Value>,
    /// Each id, secret and time so far, and its replacement.
    names: BTreeMap<String, String>,
}

impl Record {
    fn add(&mut self, method: &str, path: &str, request: &Value, reply: &Reply) {
        let is_json = reply.header("content-type") == Some("application/json") && !reply.body.is_empty();
        if !reply.status.is_success() || path.starts_with("/api-docs") || !(is_json || request.is_object()) {
            return;
        }
        let mut exchange = Map::new();
        exchange.insert("method".into(), json!(method));
        exchange.insert("path".into(), json!(path));
        exchange.insert("status".into(), json!(reply.status.as_u16()));
        if !request.is_null() {
            exchange.insert("request".into(), self.stable(request));
        }
        if is_json {
            exchange.insert("response".into(), self.stable(&reply.json()));
        }
        self.exchanges.push(Value::Object(exchange));
    }

    fn stable(&mut self, value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let stable = |(name, value): (&String, &Value)| {
                    let numbers = [
                        "processing_time_ms",
                        "sent_bytes",
                        "sent_events",
                        "stored_bytes",
                        "row_bytes",
                        "cursor_lag",
                    ];
                    match numbers.contains(&name.as_str()) || name.ends_with("_us") {
                        true => (name.clone(), json!(1)),
                        false if name == "peer" => (name.clone(), json!("127.0.0.1")),
                        false if name == "uncommitted_events" => (name.clone(), json!(0)),
                        false if name == "key_id" && value.is_string() => {
                            let stands = "AAECAwQFBgcI".to_owned();
                            self.names.insert(value.as_str().unwrap().to_owned(), stands.clone());
                            (name.clone(), json!(stands))
                        }
                        false => (name.clone(), self.stable(value)),
                    }
                };
                Value::Object(fields.iter().map(stable).collect())
            }
            Value::Array(items) => items.iter().map(|item| self.stable(item)).collect(),
            Value::String(text) => json!(self.word(text)),
            other => other.clone(),
        }
    }

    fn word(&mut self, text: &str) -> String {
        if let Some(known) = self.names.get(text) {
            return known.clone();
        }
        let count = |kind: &str, names: &BTreeMap<String, String>| {
            names.values().filter(|name| name.starts_with(kind)).count() + 1
        };
        let prefix = text.split('-').next().unwrap_or_default();
        let ours = matches!(prefix, "agent" | "msg" | "tool" | "org" | "conn" | "memory" | "user" | "block");
        let stands = if is_timestamp(text) {
            "2026-01-02T03:04:05.678Z".to_owned()
        } else if ours
            && text.len() >= 20
            && text[prefix.len()..].bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
        {
            let n = count(prefix, &self.names);
            match prefix {
                "conn" => format!("conn-{n:016x}"),
                _ => format!("{prefix}-0198c5f0-7a1b-7c3d-8e4f-{n:012x}"),
            }
        } else if text.starts_with("nwk_") {
            "nwk_AAECAwQFBgcI_a-secret-that-is-shown-once".to_owned()
        } else if text.starts_with("nwt2_") {
            "nwt2_a-ticket-that-ends-soon".to_owned()
        } else if text.starts_with("nws_") {
            "nws_1_a-token-that-is-shown-once".to_owned()
        } else if text.starts_with("eyJ") {
            "a.json.web-token".to_owned()
        } else if text.starts_with("tok-") {
            "tok-6957e5a5AAECAwQFBgcICQ".to_owned()
        } else if text.len() == 22 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) {
            format!("AAECAwQFBgcICQoLDA00{:02}", count("AAECAwQFBgcICQoLDA00", &self.names))
        } else {
            return text.to_owned();
        };
        self.names.insert(text.to_owned(), stands.clone());
        stands
    }
}

/// A daemon, its document, and the operations called so far.
struct Story {
    daemon: Daemon,
    document: Document,
    record: Record,
    asked: BTreeSet<(String, String)>,
    /// The token to use instead of the operator's key.
    token: Option<String>,
    /// The token of a stream's producer.
    producer: Option<String>,
}

impl Story {
    /// Calls an operation, expects a status, and checks the response. `names` fill the braces of the path; a
    /// name with `?…` is its query.
    async fn ask(&mut self, method: &str, path: &str, names: &[&str], body: Value, status: u16) -> Value {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let mut filled = path.to_owned();
        for name in names {
            let (from, to) = (filled.find('{').unwrap(), filled.find('}').unwrap());
            filled.replace_range(from..=to, name);
        }
        if !query.is_empty() {
            filled = format!("{filled}?{query}");
        }
        let mut call = self.daemon.call(method, &filled);
        if let Some(token) = &self.token {
            call = call.key(token);
        }
        if let Some(token) = &self.producer {
            call = call.header("x-producer-token", token);
        }
        if !body.is_null() {
            call = call.json(&body);
        }
        let reply = call.send().await;
        assert_eq!(reply.status.as_u16(), status, "{method} {filled}: {reply:?}");
        self.document.check(method, path, &reply);
        if !body.is_null() {
            let content = &self.document.0["paths"][path][method.to_lowercase()]["requestBody"]["content"];
            self.document.validate(&content["application/json"]["schema"], &body, path);
        }
        self.record.add(method, path, &body, &reply);
        self.asked.insert((method.to_owned(), path.to_owned()));
        if reply.body.is_empty() || reply.header("content-type") != Some("application/json") {
            return Value::Null;
        }
        reply.json()
    }
}

fn id(answer: &Value) -> String {
    answer["data"]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn every_operation_responds_as_documented() {
    let daemon = Daemon::start().await;
    let document = Document::of(&daemon, "/api-docs/openapi.json").await;
    let mut story = Story {
        daemon,
        document,
        record: Record::default(),
        asked: BTreeSet::new(),
        token: None,
        producer: None,
    };
    probes_and_documents(&mut story).await;
    agents(&mut story).await;
    tools(&mut story).await;
    streams(&mut story).await;
    events(&mut story).await;
    users(&mut story).await;
    administration(&mut story).await;

    let paths = story.document.0["paths"].as_object().unwrap();
    let documented = paths.iter().flat_map(|(path, item)| {
        item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
    });
    // The streams have a story of their own below.
    let subscriptions = ["/api/v1/ws", "/api/v1/sse", "/api/v1/sse/llm"];
    let missed: Vec<_> = documented
        .filter(|one| !story.asked.contains(one) && !subscriptions.contains(&one.1.as_str()))
        .collect();
    assert!(missed.is_empty(), "described and not asked here: {missed:?}");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/api_docs/examples.json");
    let recorded = format!("{:#}\n", Value::Array(story.record.exchanges));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return std::fs::write(path, recorded).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap() == recorded,
        "the examples are not what the daemon answers: run `UPDATE_DOCS=1 cargo test --test openapi`, then \
         `UPDATE_DOCS=1 cargo test --lib http::api_docs`, and look at the difference"
    );
}

async fn probes_and_documents(story: &mut Story) {
    for path in [
        "/health",
        "/health/live",
        "/health/ready",
        "/api-docs/openapi.json",
        "/api-docs/asyncapi.json",
        "/docs",
    ] {
        story.ask("GET", path, &[], Value::Null, 200).await;
        story.ask("HEAD", path, &[], Value::Null, 200).await;
        let known = story.daemon.get(path).send().await;
        if let Some(tag) = known.header("etag") {
            let again =
                story.daemon.get(path).header("if-none-match", format!("\"x\", W/{tag}")).send().await;
            assert_eq!(again.status, 304, "{path}");
            story.document.check("GET", path, &again);
        }
    }
    for name in ["page.js", "page.css", "swagger-ui.css", "swagger-ui-bundle.js"] {
        story.ask("GET", "/docs/{name}", &[name], Value::Null, 200).await;
        story.ask("HEAD", "/docs/{name}", &[name], Value::Null, 200).await;
    }
    story.ask("GET", "/docs/{name}", &["other.js"], Value::Null, 404).await;
    let page = story.daemon.get("/docs").anonymous().send().await;
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let text = page.text();
    for inline in ["<style", " style=", " onload=", "<script>", "http:", "https:"] {
        assert!(!text.contains(inline), "{inline}");
    }
}

async fn agents(story: &mut Story) {
    let new = json!({"name": "planner", "description": "Plans journeys", "system": "You plan journeys.",
        "llm_config": {"model": "large"}, "metadata": {"team": "a"}});
    let made = story.ask("POST", "/api/v1/agents", &[], new, 201).await;
    let agent = id(&made);
    let at = "/api/v1/agents/{id}";
    story.ask("GET", "/api/v1/agents?limit=10&order=asc", &[], Value::Null, 200).await;
    story.ask("GET", at, &[&agent], Value::Null, 200).await;
    story.ask("PUT", at, &[&agent], json!({"description": "Plans journeys by rail"}), 200).await;
    story.ask("PATCH", at, &[&agent], json!({"system": null}), 200).await;
    // An array is not an object, although serde would accept its items as the fields in their order.
    let array = story
        .daemon
        .call("PATCH", &format!("/api/v1/agents/{agent}"))
        .json(&json!([null, null]))
        .send()
        .await;
    array.refused(400, "VALIDATION_ERROR");
    story.ask("PUT", "/api/v1/agents/{id}/state", &[&agent], json!({"state": "thinking"}), 200).await;
    story.ask("GET", "/api/v1/agents/{id}/state", &[&agent], Value::Null, 200).await;
    story.ask("PUT", "/api/v1/agents/{id}/state", &[&agent], json!({"state": "waiting"}), 409).await;
    let said = json!({"message": "Book me a train", "user_id": "alice", "metadata": {"lang": "en"}});
    story.ask("POST", "/api/v1/agents/{id}/messages", &[&agent], said, 201).await;
    let new = json!({"agent_id": agent, "user_id": "alice", "role": "assistant", "content": "It leaves at 9.",
        "model": "large", "metadata": {"tokens": 5}});
    let message = id(&story.ask("POST", "/api/v1/messages", &[], new, 201).await);
    story
        .ask("GET", &format!("/api/v1/messages?agent_id={agent}&user_id=alice"), &[], Value::Null, 200)
        .await;
    story.ask("GET", "/api/v1/messages/{id}", &[&message], Value::Null, 200).await;
    story.ask("DELETE", "/api/v1/messages/{id}", &[&message], Value::Null, 204).await;
    core_memory(story, &agent).await;
    memories(story, &agent).await;
    story.ask("DELETE", at, &[&agent], Value::Null, 204).await;
    story.ask("GET", at, &[&agent], Value::Null, 404).await;
}

async fn users(story: &mut Story) {
    let password = "correct horse battery";
    let new =
        json!({"email": "ann@example.org", "password": password, "name": "Ann", "timezone": "Europe/Vienna"});
    let ann = id(&story.ask("POST", "/api/v1/users/register", &[], new, 201).await);
    let wrong = json!({"email": "ann@example.org", "password": "another one", "organization_id": "default"});
    story.ask("POST", "/api/v1/users/login", &[], wrong, 401).await;
    let right = json!({"email": "ann@example.org", "password": password, "organization_id": "default"});
    let session = story.ask("POST", "/api/v1/users/login", &[], right, 200).await;
    story.token = Some(session["token"].as_str().unwrap().to_owned());
    story.ask("GET", "/api/v1/users/me", &[], Value::Null, 200).await;
    story.ask("PUT", "/api/v1/users/me", &[], json!({"name": "Ann Other"}), 200).await;
    story.ask("PATCH", "/api/v1/users/me", &[], json!({"timezone": null}), 200).await;
    let change = json!({"current_password": password, "new_password": "staple after staple"});
    story.ask("PUT", "/api/v1/users/me/password", &[], change, 200).await;
    story.token = None;
    story.ask("GET", "/api/v1/users", &[], Value::Null, 200).await;
    story.ask("GET", "/api/v1/users/{sub}", &[&ann], Value::Null, 200).await;
    story.ask("DELETE", "/api/v1/users/{sub}", &[&ann], Value::Null, 204).await;
    let members = "/api/v1/organizations/{id}/members";
    let member = "/api/v1/organizations/{id}/members/{sub}";
    let new = json!({"email": "bob@example.org", "password": password, "name": "Bob", "role": "viewer"});
    let bob = id(&story.ask("POST", members, &["default"], new, 201).await);
    story.ask("GET", members, &["default"], Value::Null, 200).await;
    story.ask("PUT", member, &["default", &bob], json!({"role": "admin"}), 200).await;
    story.ask("DELETE", member, &["default", &bob], Value::Null, 204).await;
}

async fn memories(story: &mut Story, agent: &str) {
    let all = "/api/v1/memories";
    let new = json!({"agent_id": agent, "user_id": "alice", "content": "Alice likes window seats", "importance": 0.8,
        "memory_type": "Factual", "metadata": {"source": "chat"}});
    let memory = id(&story.ask("POST", all, &[], new, 201).await);
    let at = "/api/v1/memories/{id}";
    story.ask("GET", at, &[&memory], Value::Null, 200).await;
    story
        .ask("PUT", at, &[&memory], json!({"content": "Alice likes window seats, facing forward"}), 200)
        .await;
    story.ask("PATCH", at, &[&memory], json!({"importance": 0.9}), 200).await;
    story.ask("GET", "/api/v1/memories/{id}/history", &[&memory], Value::Null, 200).await;
    story.ask("GET", &format!("{all}?agent_id={agent}&limit=10"), &[], Value::Null, 200).await;
    story.ask("GET", "/api/v1/agents/{id}/memories", &[agent], Value::Null, 200).await;
    story.ask("POST", "/api/v1/memories/search", &[], json!({"query": "window sea*", "limit": 5}), 200).await;
    story.ask("GET", "/api/v1/memories/search?query=forward&threshold=0.1", &[], Value::Null, 200).await;
    let new = json!({"memories": [{"agent_id": agent, "user_id": "alice", "content": "Travels on Mondays"}]});
    let made = story.ask("POST", "/api/v1/memories/batch", &[], new, 200).await;
    let made = made["data"]["results"][0].as_str().unwrap().to_owned();
    let ids = json!({"ids": [made, "memory-of-nobody"]});
    story.ask("POST", "/api/v1/memories/batch/delete", &[], ids, 200).await;
    story.ask("POST", "/api/v1/memories/batch/delete", &[], json!([memory]), 200).await;
    story.ask("DELETE", at, &[&memory], Value::Null, 404).await;
}

async fn core_memory(story: &mut Story, agent: &str) {
    let block = "/api/v1/agents/{id}/core-memory/{label}";
    let human = "/api/v1/agents/{id}/core-memory/{label}?user_id=alice";
    story
        .ask("PUT", block, &[agent, "persona"], json!({"value": "You are patient.", "limit": 500}), 201)
        .await;
    story.ask("PUT", block, &[agent, "persona"], json!({"value": "You are very patient."}), 200).await;
    story.ask("PUT", human, &[agent, "human"], json!({"value": "Travels by rail."}), 201).await;
    story.ask("GET", human, &[agent, "human"], Value::Null, 200).await;
    story.ask("GET", "/api/v1/agents/{id}/core-memory", &[agent], Value::Null, 200).await;
    story.ask("DELETE", block, &[agent, "persona"], Value::Null, 204).await;
}

async fn tools(story: &mut Story) {
    let new = json!({"name": "timetable", "description": "Looks up trains", "tags": ["rail", "search"],
        "json_schema": {"type": "object", "properties": {"from": {"type": "string"}, "to": {"type": "string"}}},
        "source_type": "python", "source_code": "def timetable(origin, to): ..."});
    let tool = id(&story.ask("POST", "/api/v1/tools", &[], new, 201).await);
    let at = "/api/v1/tools/{id}";
    story.ask("GET", "/api/v1/tools?tags=rail,search&match_all=true", &[], Value::Null, 200).await;
    story.ask("GET", at, &[&tool], Value::Null, 200).await;
    story.ask("PUT", at, &[&tool], json!({"tags": ["rail"]}), 200).await;
    story.ask("PATCH", at, &[&tool], json!({"description": null}), 200).await;
    story.ask("POST", "/api/v1/tools/{id}/execute", &[&tool], Value::Null, 501).await;
    story.ask("DELETE", at, &[&tool], Value::Null, 204).await;
}

async fn streams(story: &mut Story) {
    let (streams, at) = ("/api/v1/streams", "/api/v1/streams/{id}");
    let open = async |story: &mut Story, id: &str| {
        let new = json!({"request_id": id, "agent_id": "planner", "metadata": {"lang": "en"}, "lease_seconds": 600});
        let opened = story.ask("POST", streams, &[], new, 201).await;
        story.producer = Some(opened["data"]["producer_token"].as_str().unwrap().to_owned());
    };
    open(story, "answer-1").await;
    let chunks = "/api/v1/streams/{id}/chunks";
    story.ask("POST", chunks, &["answer-1"], json!({"index": 0, "chunk": "Your train "}), 200).await;
    story.ask("POST", "/api/v1/streams/{id}/renew", &["answer-1"], Value::Null, 200).await;
    story.ask("POST", chunks, &["answer-1"], json!({"index": 7, "chunk": "x"}), 409).await;
    story.ask("GET", at, &["answer-1"], Value::Null, 200).await;
    let finish = json!({"finish_reason": "stop", "usage": {"output_tokens": 3}});
    story.ask("POST", "/api/v1/streams/{id}/finish", &["answer-1"], finish, 200).await;
    story.ask("GET", "/api/v1/streams?state=completed&agent_id=planner", &[], Value::Null, 200).await;
    open(story, "answer-2").await;
    let fail = json!({"code": "MODEL_FAILED", "message": "the model is overloaded"});
    story.ask("POST", "/api/v1/streams/{id}/fail", &["answer-2"], fail, 200).await;
    open(story, "answer-3").await;
    story.producer = None;
    story.ask("POST", chunks, &["answer-3"], json!({"chunk": "x"}), 401).await;
    let cancel = json!({"reason": "the user pressed stop"});
    story.ask("POST", "/api/v1/streams/{id}/cancel", &["answer-3"], cancel, 200).await;
    story.ask("GET", "/api/v1/streams/{id}?parts=all", &["answer-1"], Value::Null, 200).await;
    story.ask("DELETE", at, &["answer-1"], Value::Null, 204).await;
    story.ask("GET", at, &["answer-1"], Value::Null, 200).await;
    story.ask("GET", at, &["unknown"], Value::Null, 404).await;
}

async fn events(story: &mut Story) {
    let event = json!({"type": "custom", "channel": "orders/eu", "data": {"n": 17, "of": [1, 2, 3]}});
    story.ask("POST", "/api/v1/events", &[], event, 201).await;
    let batch = json!([{"type": "custom", "channel": "orders/eu", "data": 18},
        {"type": "message", "agent_id": "planner", "user_id": "alice", "content": "hi"}]);
    story.ask("POST", "/api/v1/events?ack=memory", &[], batch, 201).await;
    story.ask("GET", "/api/v1/events?channel=orders/*&earliest=true&limit=10", &[], Value::Null, 200).await;
    story.ask("GET", "/api/v1/events?after=nonsense", &[], Value::Null, 200).await;
    story.ask("GET", "/api/v1/events?colour=red", &[], Value::Null, 400).await;
    let lines = "{\"type\":\"custom\",\"channel\":\"a\",\"data\":1}\n\n{\"type\":\"custom\",\"channel\":\"a\",\"data\":2}\n";
    let reply = story.daemon.post("/api/v1/events").body("application/x-ndjson", lines).send().await;
    assert_eq!(reply.status, 201, "{reply:?}");
    story.document.check("POST", "/api/v1/events", &reply);
    let refused = story.daemon.post("/api/v1/events").body("text/plain", "x").send().await;
    assert_eq!(refused.status, 415);
    story.document.check("POST", "/api/v1/events", &refused);
}

async fn administration(story: &mut Story) {
    story.ask("POST", "/api/v1/organizations", &[], json!({"id": "acme", "name": "Acme"}), 201).await;
    let at = "/api/v1/organizations/{id}";
    story.ask("GET", "/api/v1/organizations", &[], Value::Null, 200).await;
    story.ask("GET", at, &["acme"], Value::Null, 200).await;
    story.ask("PUT", at, &["acme"], json!({"visibility": "org"}), 200).await;
    story.ask("PATCH", at, &["acme"], json!({"name": "Acme Ltd"}), 200).await;
    let new = json!({"org_id": "acme", "name": "backend", "scopes": ["publish", "subscribe"],
        "expires_in_seconds": 86_400, "channels": ["orders/*"]});
    let key = story.ask("POST", "/api/v1/api-keys", &[], new, 201).await;
    let key = key["data"]["key_id"].as_str().unwrap().to_owned();
    story.ask("GET", "/api/v1/api-keys?org_id=acme", &[], Value::Null, 200).await;
    story.ask("DELETE", "/api/v1/api-keys/{id}?org_id=acme", &[&key], Value::Null, 204).await;
    let new = json!({"sub": "alice", "roles": ["user"], "expires_in_seconds": 3_600});
    let token = story.ask("POST", "/api/v1/tokens", &[], new, 201).await;
    let jti = token["data"]["jti"].as_str().unwrap().to_owned();
    story.ask("DELETE", "/api/v1/tokens/{jti}", &[&jti], Value::Null, 204).await;
    story.ask("PUT", "/api/v1/users/{sub}/disabled", &["mallory"], json!({"disabled": true}), 200).await;
    story.ask("POST", "/api/v1/tickets", &[], json!({"reconnect": true}), 201).await;
    story.ask("DELETE", at, &["acme"], Value::Null, 204).await;

    let sse = story.daemon.live_sse("/api/v1/sse?types=message").await;
    let open = story.ask("GET", "/api/v1/connections", &[], Value::Null, 200).await;
    let connection = open["data"][0]["id"].as_str().unwrap().to_owned();
    story.ask("GET", "/api/v1/presence", &[], Value::Null, 200).await;
    story.ask("GET", "/api/v1/stats", &[], Value::Null, 200).await;
    story.ask("DELETE", "/api/v1/connections/{id}", &[&connection], Value::Null, 204).await;
    story.ask("DELETE", "/api/v1/connections?user=alice", &[], Value::Null, 200).await;
    drop(sse);
}

/// JSON Schema counts `368.0` as an integer and `""` as too short for an id; the pattern of a key excludes a
/// tab.
#[tokio::test]
async fn values_are_accepted_and_refused_as_documented() {
    let daemon = Daemon::start().await;
    let key = |seconds: &str| {
        let body = format!(r#"{{"scopes":["publish"],"expires_in_seconds":{seconds}}}"#);
        daemon.post("/api/v1/api-keys").body("application/json", body).send()
    };
    for good in ["368", "368.0", "3.68e2"] {
        assert_eq!(key(good).await.status, 201, "{good}");
    }
    for bad in ["368.5", "-1.0", "1e30", "18446744073709551616"] {
        key(bad).await.refused(400, "VALIDATION_ERROR");
    }
    let chunk = |index: &str| {
        let body = format!(
            r#"{{"type":"stream_chunk","request_id":"r","chunk":"","is_final":false,"index":{index}}}"#
        );
        daemon.post("/api/v1/events").body("application/json", body).send()
    };
    assert_eq!(chunk("7.0").await.status, 201);
    assert_eq!(daemon.get("/api/v1/events?earliest=true").send().await.json()["data"][0]["index"], 7);
    chunk("7.5").await.refused(400, "VALIDATION_ERROR");
    let search =
        daemon.post("/api/v1/memories/search").json(&json!({"query": "x", "limit": 3.0})).send().await;
    assert_eq!(search.status, 200);

    for field in ["agent_id", "user_id"] {
        let memory = json!({"content": "x", field: ""});
        let error =
            daemon.post("/api/v1/memories").json(&memory).send().await.refused(400, "VALIDATION_ERROR");
        assert_eq!(error["details"]["field"], field);
    }
    let tab = daemon.post("/api/v1/tools").json(&json!({"name": "t"})).header("idempotency-key", "a\tb");
    tab.send().await.refused(400, "BAD_REQUEST");
}

#[tokio::test]
async fn operations_require_a_credential_where_documented() {
    let daemon = Daemon::with().env("AUTH__FAILURES_PER_MINUTE", 0).start().await;
    let document = Document::of(&daemon, "/api-docs/openapi.json").await;
    for (path, item) in document.0["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method = method.to_uppercase();
            let filled = path.replace(['{', '}'], "");
            let mut call = daemon.call(&method, &filled).anonymous();
            if path == "/api/v1/ws" {
                for (name, value) in [
                    ("upgrade", "websocket"),
                    ("connection", "upgrade"),
                    ("sec-websocket-version", "13"),
                    ("sec-websocket-key", "AAECAwQFBgcICQoLDA0ODw=="),
                ] {
                    call = call.header(name, value);
                }
            }
            let reply = call.send().await;
            let open = operation["security"] == json!([]);
            assert_eq!(reply.status == 401, !open, "{method} {path}: {reply:?}");
            assert!(reply.status != 405 && (open || reply.status != 404), "{method} {path}: {reply:?}");
            document.check(&method, path, &reply);
        }
    }
}

/// Every kind of event in the AsyncAPI document can be published as shown and arrives over both transports as
/// documented. The same holds for the control frames.
#[tokio::test]
async fn frames_match_the_asyncapi_document() {
    let daemon = Daemon::start().await;
    let document = Document::of(&daemon, "/api-docs/asyncapi.json").await;
    let schema = |name: &str| json!({"$ref": format!("#/components/schemas/{name}")});
    let mut ws = daemon.ws("/api/v1/ws?last_event_id=nonsense").open().await;
    let mut sse = daemon.sse("/api/v1/sse?last_event_id=nonsense&heartbeat=event").open().await;
    let mut frames = Vec::new();
    for name in ["ReadyFrame", "GapFrame", "CaughtUpFrame"] {
        let frame = ws.next_json().await;
        document.validate(&schema(name), &frame, "WebSocket");
        let event = sse.next().await;
        document.validate(&schema(name), &event.json(), "SSE");
        assert_eq!(event.name.as_deref(), frame["type"].as_str());
        let documented = &document.0["channels"]["sse"]["x-named-events"][event.name.as_deref().unwrap()];
        assert_eq!(documented, &schema(name));
        frames.push(name);
    }

    let new: Vec<&Value> =
        document.0["components"]["schemas"]["NewEvent"]["oneOf"].as_array().unwrap().iter().collect();
    assert_eq!(new.len(), nervewire::event::EventKind::ALL.len());
    for reference in new {
        let name = reference["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let example = &document.0["components"]["schemas"][name]["examples"][0];
        ws.send(&json!({"type": "publish", "ref": name, "event": example})).await;
        // The event and its ack come in either order.
        let mut seen = BTreeSet::new();
        while seen.len() < 2 {
            let frame = ws.next_json().await;
            let of = if frame["type"] == "ack" { "AckFrame" } else { name.strip_prefix("New").unwrap() };
            document.validate(&schema(of), &frame, "WebSocket");
            seen.insert(of.to_owned());
        }
        let event = sse.next().await;
        document.validate(&schema(name.strip_prefix("New").unwrap()), &event.json(), "SSE");
        assert_eq!(event.name, None);
    }

    for (said, answer) in [
        (json!({"type": "ping"}), "PongFrame"),
        (json!({"type": "subscribe", "ref": 7, "types": ["message"]}), "ReadyFrame"),
        (json!({"type": "auth", "token": daemon.key, "ref": "a"}), "AckFrame"),
        (json!({"type": "cancel", "request_id": "r", "ref": 1}), "ErrorFrame"),
        (json!({"type": "dance"}), "ErrorFrame"),
    ] {
        ws.send(&said).await;
        document.validate(&schema(answer), &ws.next_json().await, answer);
        if answer != "ErrorFrame" {
            document.validate(&schema("ClientFrame"), &said, "said");
        }
    }
}
