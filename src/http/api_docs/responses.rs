//! What all responses have in common: the envelope, the error body, the headers, and the error statuses that
//! follow from an operation's parameters and body.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::http::schemas::{self, TIME};

/// Each error status with its codes and its description.
const REFUSALS: &[(u16, &[&str], &str)] = &[
    (
        400,
        &["BAD_REQUEST", "VALIDATION_ERROR"],
        "A parameter, header or field is invalid. For a field, `details` has `field` and `reason`.",
    ),
    (401, &["UNAUTHORIZED"], "The credential is missing or not valid."),
    (403, &["FORBIDDEN"], "The credential does not grant this, or the request's origin is not allowed."),
    (404, &["NOT_FOUND"], "Your organization has no such resource."),
    (405, &["METHOD_NOT_ALLOWED"], "The path does not support this method."),
    (406, &["BAD_REQUEST"], "`Accept` excludes `text/event-stream`."),
    (408, &["BAD_REQUEST"], "The body was not received in time."),
    (
        409,
        &["CONFLICT"],
        "The current state does not allow this, or the `Idempotency-Key` was used for another request.",
    ),
    (412, &["CONFLICT"], "The resource has another version than `If-Match` names. `details` has `version`."),
    (413, &["PAYLOAD_TOO_LARGE"], "The body or an event is larger than its limit."),
    (415, &["BAD_REQUEST"], "The content type is not supported."),
    (426, &["BAD_REQUEST"], "The request is not a WebSocket upgrade of version 13 over HTTP/1.1."),
    (429, &["QUOTA_EXCEEDED"], "A limit of the organization, user, address or connection is reached."),
    (431, &["BAD_REQUEST"], "The header section is too large."),
    (500, &["INTERNAL_ERROR"], "The daemon failed."),
    (501, &["NOT_IMPLEMENTED"], "This is not implemented."),
    (
        503,
        &["UNAVAILABLE"],
        "The daemon is stopping, is full, or cannot write now. Nothing was changed, unless `details.outcome` is `unknown`.",
    ),
];

fn header(name: &str) -> Value {
    json!({"$ref": format!("#/components/headers/{name}")})
}

/// The response headers.
pub(super) fn headers() -> Value {
    let text = |says: &str| json!({"description": says, "schema": {"type": "string"}});
    json!({
        "x-request-id": {"description": "Id of this request: the client's own if it sent one.", "required": true,
            "schema": {"type": "string"}},
        "traceparent": text("As it came."),
        "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}},
        "Allow": text("Methods of this path."),
        "WWW-Authenticate": text("How to authenticate."),
        "Sec-WebSocket-Version": text("Supported WebSocket version."),
        "Idempotent-Replayed": {"description": "This response repeats an earlier one.", "schema": {"const": "true"}},
    })
}

/// The schema of an error body.
pub(super) fn error_body() -> Value {
    let codes: BTreeSet<&str> = REFUSALS.iter().flat_map(|(_, codes, _)| *codes).copied().collect();
    json!({
        "type": "object",
        "description": "Body of every error response.",
        "required": ["code", "message", "details", "timestamp"],
        "properties": {
            "code": {"type": "string", "enum": codes, "description": "Error code, for programs."},
            "message": {"type": "string", "description": "Text for people. It may change."},
            "details": {"type": ["object", "null"], "description": "More information for programs, or `null`."},
            "timestamp": {"type": "string", "format": "date-time", "description": "Time of the response."},
        },
    })
}

/// The name of an error status among the document's responses.
fn name_of(status: u16) -> String {
    format!("Status{status}")
}

/// All error responses, for operations to refer to.
pub(super) fn error_responses() -> Value {
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

/// Completes the responses of one operation.
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
    // An error status that is declared without a body of its own has the common one.
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

/// Wraps what a handler returns in `{data, success}`, with `next_cursor` for a list.
fn envelop(schema: &mut Value, document: &Value) {
    let named = schema["$ref"].as_str().and_then(|to| document.pointer(to.strip_prefix('#')?));
    if named.is_some_and(|schema| schema["properties"]["success"].is_object()) {
        return; // it has its own envelope
    }
    let data = schema.take();
    let mut properties = json!({"success": {"const": true}});
    let mut required = vec!["data", "success"];
    if data["type"] == "array" {
        properties["next_cursor"] = json!({"type": ["string", "null"],
            "description": "Cursor of the next page; `null` on the last page."});
        required.push("next_cursor");
    }
    properties["data"] = data;
    *schema = json!({"type": "object", "required": required, "properties": properties});
}

/// The schemas that only responses refer to.
pub(super) fn only_answered(document: &Value) -> BTreeSet<String> {
    let mut requested = BTreeSet::new();
    let mut answered = BTreeSet::new();
    let operations = document["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(_, item)| item.as_object())
        .flatten();
    for (_, operation) in operations {
        reached(document, &operation["requestBody"], &mut requested);
        reached(document, &operation["responses"], &mut answered);
    }
    let events = schemas::events();
    answered.retain(|name| !requested.contains(name) && !events.contains_key(name) && name != "Error");
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
