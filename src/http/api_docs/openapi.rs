//! The OpenAPI 3.1 document: what utoipa collects from the handlers, completed by rules that hold for all of
//! them.
//!
//! A handler declares its path, parameters, body and responses. The rules add what no handler decides: the
//! envelope, the errors that follow from its parameters and body, headers, credentials, operation ids,
//! limits, and examples that were recorded from a daemon.

use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use crate::auth::ScopeSet;
use crate::domain::core_memory::Label;
use crate::domain::memories::batch::ITEMS;
use crate::http::admin::{api_keys, connections, organizations, stats, tokens};
use crate::http::events::{history, publish, subscribe};
use crate::http::health;
use crate::http::resources::{agents, core_memory, memories, messages, presence, streams, tools, users};
use crate::http::routes::{ROUTES, with_routes};
use crate::http::schemas;

use super::{examples, field_limits, responses, serve};

/// Description of the API as a whole.
const DESCRIPTION: &str = "Delivers the events of AI-agent platforms to many subscribers over WebSocket and SSE.\n\n\
    `/api-docs/asyncapi.json` describes the streams; docs/protocol.md describes the guarantees. An unknown parameter or \
    field is refused (400). Whole numbers have no fraction. `HEAD` works wherever `GET` does, except for streams. \
    A method that a path does not support is answered with 405 and `Allow`, an unknown path with 404.";

macro_rules! collected {
    ($(
        $($method:ident $id:ident)|+ $path:literal: $access:ty,
        $($handler:ident)::+ ($($name:ident),*) $($flag:ident)?;
    )*) => {
        #[derive(OpenApi)]
        #[openapi(
            info(title = "Nervewire", description = DESCRIPTION),
            paths($($($handler)::+),*),
            tags(
                (name = "events", description = "Publish events, read history, long-poll."),
                (name = "subscriptions", description = "Subscribe to events over WebSocket and SSE."),
                (name = "LLM streams", description = "Open, append, end, cancel and read the text of models."),
                (name = "agents", description = "Agents and their states."),
                (name = "messages", description = "Messages to and from agents."),
                (name = "memories", description = "Memories of agents, with version history and search."),
                (name = "tools", description = "Tools that agents can call. The daemon does not run them."),
                (name = "credentials", description = "API keys, tokens and tickets."),
                (name = "users", description = "Users, their roles and logins."),
                (name = "organizations", description = "Organizations. Data of one is not visible to another."),
                (name = "connections", description = "Open connections."),
                (name = "core memory", description = "Labelled text blocks that an agent always has in its prompt."),
                (name = "presence", description = "Users who are connected."),
                (name = "health", description = "Liveness and readiness of the daemon."),
                (name = "documents", description = "This document, the AsyncAPI document, and the page that shows both."),
            ),
        )]
        struct Collected;
    };
}
with_routes!(collected);

/// Builds the document.
pub(super) fn document() -> Value {
    let mut document = serde_json::to_value(Collected::openapi()).unwrap_or_default(); // texts and numbers: this cannot fail
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    document["info"]["license"] = json!({"name": "MIT OR Apache-2.0"});
    document["info"].as_object_mut().map(|info| info.remove("contact"));
    document["servers"] = json!([{"url": "/"}]);
    document["security"] = security();
    let components = &mut document["components"];
    components["securitySchemes"] = security_schemes();
    components["headers"] = responses::headers();
    components["responses"] = responses::error_responses();
    components["parameters"] = common_parameters();
    if let Some(all) = components["schemas"].as_object_mut() {
        field_limits::apply(all);
        all.extend(schemas::events());
        let either = [schemas::of("NewEvent"), schemas::of("NewEvents")];
        all.insert(
            "NewEventOrBatch".into(),
            json!({"description": "An event or a batch of events.", "oneOf": either}),
        );
        all.insert("Error".into(), responses::error_body());
        special(all);
        for schema in all.values_mut() {
            let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
            for field in fields.into_iter().flatten().filter_map(|(_, field)| field.as_object_mut()) {
                // the default of a field that may be absent is null, which tells the reader nothing
                field.remove("default");
            }
        }
    }
    let answered = responses::only_answered(&document);
    for name in answered {
        let schema = &mut document["components"]["schemas"][&name];
        // Handlers leave no field out: a missing value is null.
        let all: Vec<Value> =
            schema["properties"].as_object().into_iter().flatten().map(|(name, _)| json!(name)).collect();
        let left_out = |field: &Value| name == "BatchItemError" && field == "id";
        if !all.is_empty() && schema["allOf"].is_null() {
            schema["required"] = all.into_iter().filter(|field| !left_out(field)).collect();
        }
    }
    let mut paths = document["paths"].take();
    for (path, item) in paths.as_object_mut().into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            complete(path, method, operation, &document);
            if let Some(body) = operation.get_mut("requestBody") {
                body["required"] = json!(is_required(body, &document));
            }
        }
    }
    document["paths"] = paths;
    document
}

/// Returns true if a body must be sent. An absent body counts as `{}`.
fn is_required(body: &Value, document: &Value) -> bool {
    let schema = &body["content"]["application/json"]["schema"];
    let named = schema["$ref"].as_str().and_then(|to| document.pointer(to.strip_prefix('#')?));
    let schema = named.unwrap_or(schema);
    schema["required"].as_array().is_some_and(|names| !names.is_empty()) || schema["properties"].is_null()
}

/// Changes schemas where the derives cannot express what holds.
fn special(all: &mut Map<String, Value>) {
    if let Some(page) = all.get_mut("EventPage") {
        page["properties"]["data"] = json!({"type": "array", "items": schemas::of("Event"), "description": "Events in the order of their sequences."});
    }
    for (whole, part) in [("SessionAnswer", "Session"), ("BatchAnswer", "Batch")] {
        // The fields of the envelope's `data` are repeated beside it, where the clients of AgentMem read
        // them.
        let fields = all.get(part).map(|part| part["properties"].clone()).unwrap_or_default();
        if let (Some(answer), Value::Object(fields)) = (all.get_mut(whole), fields) {
            fields.into_iter().for_each(|(name, field)| answer["properties"][name] = field);
        }
    }
    let bare = all.get_mut("OldMemories").and_then(|either| either.pointer_mut("/oneOf/0"));
    if let Some(bare) = bare {
        bare["minItems"] = json!(1);
        bare["maxItems"] = json!(ITEMS);
    }
    for (schema, name) in [("NewMemory", "content"), ("MemoryQuery", "query")] {
        if let Some(schema) = all.get_mut(schema) {
            schema["required"] = json!([name]);
            schema["properties"][name]["type"] = json!("string");
        }
    }
    for schema in all.values_mut() {
        if let Some(success) = schema.pointer_mut("/properties/success") {
            *success = json!({"const": true});
        }
    }
    if let Some(published) = all.get_mut("Published") {
        published["properties"]["ids"]["items"] = schemas::cursor("An event's id.");
    }
    if let Some(message) = all.get_mut("NewMessage") {
        message["oneOf"] = json!([{"required": ["content"]}, {"required": ["text"]}]);
        message["required"] = json!(["agent_id"]);
        for name in ["agent_id", "content", "text"] {
            message["properties"][name]["type"] = json!("string");
        }
    }
    all.insert(
        "NewTool".into(),
        json!({"description": "A tool to create.", "allOf": [
            schemas::of("ToolChange"),
            {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
        ]}),
    );
}

/// Adds to one operation what follows from rules.
fn complete(path: &str, method: &str, operation: &mut Value, document: &Value) {
    let mut routes = ROUTES.iter().filter(|route| route.path == path);
    if let Some((route, id)) = routes.find_map(|route| Some((route, route.operation_id(method)?))) {
        operation["operationId"] = json!(id);
        match route.scopes.map(ScopeSet::names).as_deref() {
            None => operation["security"] = json!([]),
            Some([]) => {}
            Some(scopes) => operation["x-scopes"] = json!(scopes),
        }
    }
    if path == "/api/v1/tools" && method == "post" {
        operation["requestBody"]["content"]["application/json"]["schema"] = schemas::of("NewTool");
    }
    // The section `# Errors` of a handler's comment is left out: the document lists the errors with the
    // responses.
    let says = operation["description"]
        .as_str()
        .map(|text| text.split("# Errors").next().unwrap_or_default().trim());
    match says.filter(|text| !text.is_empty()).map(str::to_owned) {
        Some(says) => operation["description"] = json!(says),
        None => drop(operation.as_object_mut().map(|operation| operation.remove("description"))),
    }
    let mut parameters: Vec<Value> = path_names(path).map(path_parameter).collect();
    if let Some(own) = operation["parameters"].as_array_mut() {
        own.retain(|parameter| parameter["in"] != "path");
        parameters.append(own);
    }
    for name in ["x-request-id", "traceparent"] {
        parameters.push(json!({"$ref": format!("#/components/parameters/{name}")}));
    }
    operation["parameters"] = json!(parameters);
    responses::complete(path, method, operation, document);
    examples::add(path, method, operation);
}

fn path_names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn path_parameter(name: &str) -> Value {
    let says = match name {
        "sub" => "The user's `sub`.",
        "jti" => "The token's `jti`.",
        "name" => "The file.",
        "label" => "Label of the block.",
        _ => "Id of the resource.",
    };
    let mut schema = json!({"type": "string", "minLength": 1});
    if name == "label" {
        schema["enum"] = json!(Label::ALL.map(Label::name));
    }
    if name == "name" {
        schema["enum"] = json!(serve::FILES.iter().map(|file| file.name).collect::<Vec<_>>());
    }
    if matches!(name, "sub" | "jti") {
        schema["maxLength"] = json!(crate::event::ID_BYTES);
        schema["pattern"] = json!(schemas::NO_CONTROLS);
    }
    json!({"name": name, "in": "path", "required": true, "description": says, "schema": schema})
}

fn security() -> Value {
    json!([{"bearer": []}, {"apiKey": []}, {"ticket": []}, {"token": []}, {"cookie": []}])
}

fn security_schemes() -> Value {
    json!({
        "bearer": {"type": "http", "scheme": "bearer", "description": "A JWT or an API key. The strongest credential that is \
            sent decides: this, `X-API-Key`, `ticket`, `token`, the cookie."},
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key."},
        "ticket": {"type": "apiKey", "in": "query", "name": "ticket",
            "description": "A ticket from `POST /api/v1/tickets`, for browsers."},
        "token": {"type": "apiKey", "in": "query", "name": "token",
            "description": "A JWT or an API key, for clients that cannot send headers. The operator may disable it."},
        "cookie": {"type": "apiKey", "in": "cookie", "name": "nervewire_token",
            "description": "A JWT. Requests other than GET and HEAD need an allowed `Origin`."},
    })
}

fn common_parameters() -> Value {
    json!({
        "x-request-id": {"name": "x-request-id", "in": "header", "schema": {"type": "string"},
            "description": "Id of the request, 1 to 128 visible ASCII characters, returned in the response. Generated otherwise."},
        "traceparent": {"name": "traceparent", "in": "header", "schema": {"type": "string"},
            "description": "Returned unchanged (W3C Trace Context)."},
    })
}
