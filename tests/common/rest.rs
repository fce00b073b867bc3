//! Helpers for tests of resources: common requests, and parsing of responses.

use serde_json::{Value, json};

use super::Daemon;
use super::http::Reply;

/// `data` of a response with this status.
#[track_caller]
pub(crate) fn data(reply: &Reply, status: u16) -> Value {
    assert_eq!(reply.status.as_u16(), status, "{reply:?}");
    let body = reply.json();
    assert_eq!(body["success"], true, "{reply:?}");
    body["data"].clone()
}

/// Status and error code of a refusal.
#[track_caller]
pub(crate) fn refused(reply: &Reply) -> (u16, String) {
    (reply.status.as_u16(), reply.json()["code"].as_str().unwrap().to_owned())
}

/// Every row of a list, page by page. `path` already has a query.
pub(crate) async fn all(daemon: &Daemon, key: &str, path: &str) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = daemon.get(&format!("{path}&cursor={cursor}")).key(key).send().await;
        rows.extend(data(&page, 200).as_array().unwrap().clone());
        match page.json()["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return rows,
        }
    }
}

/// Creates an agent. Returns its id.
pub(crate) async fn agent(daemon: &Daemon, key: &str, name: &str) -> String {
    let reply = daemon.post("/api/v1/agents").key(key).json(&json!({"name": name})).send().await;
    data(&reply, 201)["id"].as_str().unwrap().to_owned()
}
