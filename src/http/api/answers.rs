//! What answers have in common: the envelope, the body of every refusal, headers, and which refusals an operation's own
//! parameters and body bring with them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::schemas::{self, TIME};

/// Each status that is no success, its codes, and when.
const REFUSALS: &[(u16, &[&str], &str)] = &[
    (
        400,
        &["BAD_REQUEST", "VALIDATION_ERROR"],
        "A parameter, header or field is wrong; of a field `details` has `field` and `reason`.",
    ),
    (401, &["UNAUTHORIZED"], "No credential, or one that does not hold."),
    (
        403,
        &["FORBIDDEN"],
        "The credential holds and does not reach so far, or comes from an origin that is not allowed.",
    ),
    (404, &["NOT_FOUND"], "There is no such thing in your organization."),
    (405, &["METHOD_NOT_ALLOWED"], "The path is not served by this method."),
    (406, &["BAD_REQUEST"], "`Accept` excludes `text/event-stream`."),
    (408, &["BAD_REQUEST"], "The body stopped coming."),
    (
        409,
        &["CONFLICT"],
        "The present state does not allow it, or the `Idempotency-Key` was used for something else.",
    ),
    (412, &["CONFLICT"], "It is of another version than `If-Match` names; `details` has `version`."),
    (413, &["PAYLOAD_TOO_LARGE"], "The body or an event is over its limit."),
    (415, &["BAD_REQUEST"], "A content type that is not read here."),
    (426, &["BAD_REQUEST"], "No WebSocket upgrade of version 13 over HTTP/1.1."),
    (429, &["QUOTA_EXCEEDED"], "A limit of the organization, user, address or connection."),
    (431, &["BAD_REQUEST"], "The request's head is too large."),
    (500, &["INTERNAL_ERROR"], "A fault of the daemon."),
    (501, &["NOT_IMPLEMENTED"], "It is not built."),
    (
        503,
        &["UNAVAILABLE"],
        "The daemon stops, is full, or cannot write now. Nothing happened, unless `details.outcome` is `unknown`.",
    ),
];

fn header(name: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{name}")})
}

/// The headers of answers.
pub(super) fn headers() -> Value {
    let text = |says: &str| json!({"description": says, "schema": {"type": "string"}});
    json!({
        "x-request-id": {"description": "Names this request; the client's own, if it sent one.", "required": true,
            "schema": {"type": "string"}},
        "traceparent": text("As it came."),
        "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
        "Allow": text("The methods of this path."),
        "WWW-Authenticate": text("How to authenticate."),
        "Sec-WebSocket-Version": text("The version that is spoken."),
        "Idempotent-Replayed": {"description": "This is an earlier answer.", "schema": {"const": "true"}},
    })
}

/// The body of a refusal.
pub(super) fn error_body() -> Value {
    let codes: BTreeSet<&str> = REFUSALS.iter().flat_map(|(_, codes, _)| *codes).copied().collect();
    json!({
        "type": "object",
        "description": "What every answer that is no success says.",
        "required": ["code", "message", "details", "timestamp"],
        "properties": {
            "code": {"type": "string", "enum": codes, "description": "For programs."},
            "message": {"type": "string", "description": "For people; may change."},
            "details": {"type": ["object", "null"], "description": "More for a program; `null` unless said."},
            "timestamp": {"type": "string", "format": "date-time", "description": "Now."},
        },
    })
}

/// The name of a refusal among the document's responses.
fn name_of(status: u16) -> String {
    format!("Status{status}")
}

/// All refusals, for operations to refer to.
pub(super) fn refusals() -> Value {
    let refusal = |status: u16, codes: &[&str], says: &str| {
        let mut headers = Map::new();
        headers.insert("x-request-id".into(), header("x-request-id"));
        let own: &[&str] = match status {
            401 => &["WWW-Authenticate"],
            405 => &["Allow"],
            426 => &["Sec-WebSocket-Version"],
            429 | 503 => &["Retry-After"],
            _ => &[],
        };
        headers.extend(own.iter().map(|name| ((*name).to_owned(), header(name))));
        let example = json!({"code": codes[0], "message": says, "details": null, "timestamp": TIME});
        json!({"description": says, "headers": headers,
            "content": {"application/json": {"schema": schemas::of("Error"), "example": example}}})
    };
    let all: Map<String, Value> = REFUSALS
        .iter()
        .map(|(status, codes, says)| (name_of(*status), refusal(*status, codes, says)))
        .collect();
    json!(all)
}

/// Completes the answers of one operation.
pub(super) fn complete(path: &str, method: &str, operation: &mut Value, document: &Value) {
    let open = operation["security"].as_array().is_some_and(Vec::is_empty);
    let has = |name: &str| {
        let parameters = operation["parameters"].as_array();
        parameters.into_iter().flatten().any(|parameter| parameter["name"] == name)
    };
    let mut refused = BTreeSet::from([400, 431, 500]);
    if !open {
        refused.extend([401, 403, 429, 503]);
    }
    let has_body = operation["requestBody"].is_object();
    if has_body {
        refused.extend([408, 413, 415]);
    }
    if path.contains('{') {
        refused.insert(404);
    }
    if has("If-Match") {
        refused.insert(412);
    }
    let keyed = has("Idempotency-Key");
    if keyed {
        refused.insert(409);
    }
    if path.starts_with("/api/v1/") && has("org_id") {
        refused.insert(404);
    }
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    let declared: Vec<u16> = responses.keys().filter_map(|status| status.parse().ok()).collect();
    for (status, answer) in responses.iter_mut().filter(|(status, _)| status.starts_with(['1', '2', '3'])) {
        answer["headers"]["x-request-id"] = header("x-request-id");
        if keyed && status == "201" {
            answer["headers"]["Idempotent-Replayed"] = header("Idempotent-Replayed");
        }
        if let Some(answer) = answer.as_object_mut().filter(|_| method == "head") {
            answer.remove("content");
        }
        if let Some(schema) =
            answer.pointer_mut("/content/application~1json/schema").filter(|_| path.starts_with("/api/v1/"))
        {
            envelop(schema, document);
        }
    }
    // A refusal that is declared without a body of its own is the common one.
    refused.extend(declared.iter().filter(|status| **status >= 400));
    for status in refused {
        let own = responses.get(&status.to_string()).is_some_and(|answer| answer["content"].is_object());
        if !own {
            responses.insert(
                status.to_string(),
                json!({"$ref": format!("#/components/responses/{}", name_of(status))}),
            );
        }
    }
}

/// `{data, success}` around what a handler answers, with `next_cursor` around a list.
fn envelop(schema: &mut Value, document: &Value) {
    let named = schema["$ref"].as_str().and_then(|to| document.pointer(to.strip_prefix('#')?));
    if named.is_some_and(|it| it["properties"]["success"].is_object()) {
        return; // it brings its own
    }
    let data = schema.take();
    let mut properties = json!({"success": {"const": true}});
    let mut required = vec!["data", "success"];
    if data["type"] == "array" {
        properties["next_cursor"] = json!({"type": ["string", "null"],
            "description": "Where the next page begins; `null`: this is the last."});
        required.push("next_cursor");
    }
    properties["data"] = data;
    *schema = json!({"type": "object", "required": required, "properties": properties});
}

/// The schemas that only answers refer to.
pub(super) fn only_answered(document: &Value) -> BTreeSet<String> {
    let mut asked = BTreeSet::new();
    let mut answered = BTreeSet::new();
    let operations = document["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, item)| item.as_object())
        .flatten();
    for (_, operation) in operations {
        reached(document, &operation["requestBody"], &mut asked);
        reached(document, &operation["responses"], &mut answered);
    }
    let events = schemas::events();
    answered.retain(|name| !asked.contains(name) && !events.contains_key(name) && name != "Error");
    answered
}

fn reached(document: &Value, from: &Value, found: &mut BTreeSet<String>) {
    match from {
        Value::Object(fields) => {
            for value in fields.values() {
                if let Some(name) = value.as_str().and_then(|to| to.strip_prefix("#/components/schemas/"))
                    && found.insert(name.to_owned())
                {
                    reached(document, &document["components"]["schemas"][name], found);
                }
                reached(document, value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| reached(document, item, found)),
        _ => {}
    }
}
