//! Examples: requests and responses as they were sent over the wire. `tests/openapi.rs` runs them against a
//! daemon, and compares or records them. Values that differ between runs (ids, times, secrets) are replaced
//! by placeholders.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Value, json};

/// One request and its response.
#[derive(Deserialize)]
struct RecordedExchange {
    method: String,
    path: String,
    #[serde(default)]
    request: Value,
    status: u16,
    #[serde(default)]
    response: Value,
}

/// The recorded examples. A test reads the same file.
static RECORDED: LazyLock<Vec<RecordedExchange>> =
    LazyLock::new(|| serde_json::from_str(include_str!("examples.json")).unwrap_or_default());

/// Adds the examples of an operation.
pub(super) fn add(path: &str, method: &str, operation: &mut Value) {
    let recorded = RECORDED
        .iter()
        .filter(|recorded| recorded.path == path && recorded.method.eq_ignore_ascii_case(method));
    for recorded in recorded {
        show(operation, "/requestBody/content/application~1json", &recorded.request);
        show(
            operation,
            &format!("/responses/{}/content/application~1json", recorded.status),
            &recorded.response,
        );
    }
    if let Some(streamed) = operation.pointer_mut("/responses/200/content/text~1event-stream") {
        streamed["example"] = json!(concat!(
            "retry: 2000\nevent: ready\nid: AAECAwQFBgcICQoLDA0ODw\n",
            "data: {\"type\":\"ready\",\"connection_id\":\"conn-0000000000000001\",\"cursor\":\"AAECAwQFBgcICQoLDA0ODw\",",
            "\"resumed\":false,\"replaying\":0,\"heartbeat_seconds\":15}\n\n"
        ));
    }
}

/// Adds the first example of a body.
fn show(operation: &mut Value, at: &str, example: &Value) {
    if let Some(body) =
        operation.pointer_mut(at).filter(|body| !example.is_null() && body["example"].is_null())
    {
        body["example"] = example.clone();
    }
}
