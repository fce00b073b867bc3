//! The limits of body fields, with the constants that the code checks. The derives provide names, types and
//! texts; they cannot read these constants.

use serde_json::{Map, Value, json};

use crate::auth::{PASSWORD_BYTES, PASSWORD_CHARS};
use crate::domain::core_memory::BLOCK_CHARS_MOST;
use crate::domain::memories::CONTENT_CHARS;
use crate::domain::memories::batch::ITEMS;
use crate::domain::memories::search::{self, QUERY_CHARS};
use crate::domain::users::EMAIL_BYTES;
use crate::domain::{NAME_BYTES, TEXT_BYTES, messages, tools};
use crate::event::{CHANNEL_BYTES, EventKind, ID_BYTES};
use crate::filter::NARROWING_VALUES;
use crate::http::schemas::NO_CONTROLS;
use crate::tenant::streams::state::{
    CANCEL_REASON_BYTES, CHUNK_BYTES, LEASE_SECONDS, MESSAGE_BYTES, REASON_BYTES,
};

/// The values that a field may have.
#[derive(Clone, Copy)]
enum Constraint {
    /// A text of at most this many bytes.
    Text(usize),
    /// A text of at most this many characters.
    Characters(u32),
    /// A text of at most this many bytes that is not blank.
    Named(usize),
    /// A text of 1 to 256 bytes without control characters.
    Id,
    /// A text of at most this many bytes without control characters.
    Name(usize),
    /// A text of 1 to this many bytes without control characters.
    Code(usize),
    /// The part of a chunk, or `null`.
    Part,
    /// A text of 1 to this many characters.
    Content(usize),
    /// A number from 0 to 1.
    Fraction,
    /// An array of 1 to this many items.
    Items(usize),
    /// A text with at least two characters that are not blank.
    UserName,
    /// An email address.
    Email,
    /// A password of at least this many characters.
    Password(usize),
    /// A text that matches this pattern.
    Pattern(&'static str),
    /// Any JSON.
    Json,
    /// A JSON object.
    Object,
    /// A whole number within these bounds.
    Number(u64, u64),
    /// An array of these texts.
    Each(&'static [&'static str]),
    /// A non-empty array of these texts.
    Some(&'static [&'static str]),
    /// An array of at most this many texts, each of at most this many bytes, that match the pattern.
    Matching(usize, usize, &'static str),
    /// One of these texts.
    OneOf(&'static [&'static str]),
}

const SCOPES: &[&str] =
    &["subscribe", "publish", "write", "agents", "publish:org", "read:all", "mint", "manage", "*"];
const ROLES: &[&str] = &["admin", "user", "viewer", "readonly"];
/// The pattern of an organization's id.
const ORGANIZATION: &str = "^[A-Za-z0-9._-]{1,128}$";
/// The pattern that the code accepts as an email address.
const EMAIL: &str = "^[^@\\s\\u0000-\\u001f\\u007f-\\u009f]+@[^@\\s\\u0000-\\u001f\\u007f-\\u009f]+$";
const CHANNEL: &str = "^[^/*\\u0000-\\u001f\\u007f-\\u009f]+(/[^/*\\u0000-\\u001f\\u007f-\\u009f]+)*(/\\*)?$";
/// The limited fields of each schema.
const LIMITS: &[(&str, &[(&str, Constraint)])] = &[
    (
        "AgentChange",
        &[
            ("name", Constraint::Named(NAME_BYTES)),
            ("description", Constraint::Text(TEXT_BYTES)),
            ("system", Constraint::Text(TEXT_BYTES)),
            ("agent_type", Constraint::Named(NAME_BYTES)),
            ("owner", Constraint::Id),
        ],
    ),
    ("AgentStateChange", &[("error_message", Constraint::Text(TEXT_BYTES))]),
    (
        "NewAgentMessage",
        &[("message", Constraint::Text(messages::CONTENT_BYTES)), ("user_id", Constraint::Id)],
    ),
    (
        "NewMessage",
        &[
            ("agent_id", Constraint::Id),
            ("user_id", Constraint::Id),
            ("content", Constraint::Text(messages::CONTENT_BYTES)),
            ("text", Constraint::Text(messages::CONTENT_BYTES)),
            ("model", Constraint::Text(messages::MODEL_BYTES)),
        ],
    ),
    (
        "ToolChange",
        &[
            ("name", Constraint::Named(NAME_BYTES)),
            ("description", Constraint::Text(TEXT_BYTES)),
            ("source_type", Constraint::Named(NAME_BYTES)),
            ("source_code", Constraint::Text(tools::SOURCE_BYTES)),
            ("tags", Constraint::Matching(tools::TAGS, tools::TAG_BYTES, "^[^,]*[^,\\s][^,]*$")),
            ("owner", Constraint::Id),
        ],
    ),
    (
        "NewStream",
        &[
            ("request_id", Constraint::Id),
            ("agent_id", Constraint::Id),
            ("user_id", Constraint::Id),
            ("lease_seconds", Constraint::Number(LEASE_SECONDS.0 as u64, LEASE_SECONDS.1 as u64)),
        ],
    ),
    ("NewChunk", &[("chunk", Constraint::Text(CHUNK_BYTES)), ("part", Constraint::Part)]),
    ("StreamFinish", &[("finish_reason", Constraint::Code(REASON_BYTES)), ("usage", Constraint::Object)]),
    ("StreamFail", &[("code", Constraint::Code(REASON_BYTES)), ("message", Constraint::Text(MESSAGE_BYTES))]),
    ("StreamCancel", &[("reason", Constraint::Text(CANCEL_REASON_BYTES))]),
    (
        "NewOrganization",
        &[("id", Constraint::Pattern(ORGANIZATION)), ("name", Constraint::Name(ORG_NAME_BYTES))],
    ),
    ("OrganizationChange", &[("name", Constraint::Name(ORG_NAME_BYTES))]),
    (
        "NewApiKey",
        &[
            ("name", Constraint::Name(ORG_NAME_BYTES)),
            ("scopes", Constraint::Some(SCOPES)),
            ("expires_in_seconds", Constraint::Number(1, u64::MAX)),
            ("agents", Constraint::Matching(NARROWING_VALUES, ID_BYTES, "")),
            ("channels", Constraint::Matching(NARROWING_VALUES, CHANNEL_BYTES, CHANNEL)),
            ("types", Constraint::Each(&EventKind::NAMES)),
            ("org_id", Constraint::Pattern(ORGANIZATION)),
        ],
    ),
    (
        "NewToken",
        &[
            ("sub", Constraint::Id),
            ("roles", Constraint::Each(ROLES)),
            ("scopes", Constraint::Each(SCOPES)),
            ("expires_in_seconds", Constraint::Number(1, crate::auth::TOKEN_MAX_MS / 1_000)),
            ("agents", Constraint::Matching(NARROWING_VALUES, ID_BYTES, "")),
            ("channels", Constraint::Matching(NARROWING_VALUES, CHANNEL_BYTES, CHANNEL)),
            ("types", Constraint::Each(&EventKind::NAMES)),
            ("org_id", Constraint::Pattern(ORGANIZATION)),
        ],
    ),
    ("NewTicket", &[("sub", Constraint::Id)]),
    (
        "NewUser",
        &[
            ("email", Constraint::Email),
            ("password", Constraint::Password(PASSWORD_CHARS)),
            ("name", Constraint::UserName),
            ("timezone", Constraint::Named(NAME_BYTES)),
            ("organization_id", Constraint::Pattern(ORGANIZATION)),
        ],
    ),
    ("UserChange", &[("name", Constraint::UserName), ("timezone", Constraint::Named(NAME_BYTES))]),
    (
        "NewMemory",
        &[
            ("agent_id", Constraint::Id),
            ("user_id", Constraint::Id),
            ("content", Constraint::Content(CONTENT_CHARS)),
            ("importance", Constraint::Fraction),
        ],
    ),
    (
        "MemoryChange",
        &[("content", Constraint::Content(CONTENT_CHARS)), ("importance", Constraint::Fraction)],
    ),
    ("NewMemories", &[("memories", Constraint::Items(ITEMS))]),
    ("MemoryIds", &[("ids", Constraint::Items(ITEMS))]),
    (
        "MemoryQuery",
        &[
            ("query", Constraint::Content(QUERY_CHARS)),
            ("min_importance", Constraint::Fraction),
            ("threshold", Constraint::Fraction),
            ("limit", Constraint::Number(1, search::LIMIT)),
            ("offset", Constraint::Number(0, search::OFFSET)),
        ],
    ),
    ("Login", &[("password", Constraint::Password(0))]),
    (
        "PasswordChange",
        &[
            ("current_password", Constraint::Password(0)),
            ("new_password", Constraint::Password(PASSWORD_CHARS)),
        ],
    ),
    (
        "CoreMemoryChange",
        &[
            ("value", Constraint::Characters(BLOCK_CHARS_MOST)),
            ("limit", Constraint::Number(1, BLOCK_CHARS_MOST as u64)),
        ],
    ),
    ("Health", &[("status", Constraint::OneOf(&["healthy", "degraded", "stopping"]))]),
    ("HealthChecks", &[("store", Constraint::OneOf(&["ok", "no_space", "reopening", "read_only"]))]),
    ("Connection", &[("transport", Constraint::OneOf(&crate::transport::Transport::LABELS))]),
    ("Gap", &[("reason", Constraint::OneOf(&["trimmed", "lagged", "unknown_cursor"]))]),
];
/// Fields with free data, in every schema.
const FREE: &[(&str, Constraint)] = &[
    ("metadata", Constraint::Object),
    ("llm_config", Constraint::Json),
    ("embedding_config", Constraint::Json),
    ("tool_rules", Constraint::Json),
    ("tool_calls", Constraint::Json),
    ("json_schema", Constraint::Json),
];
const ORG_NAME_BYTES: usize = crate::auth::NAME_BYTES;

/// Writes the limits into the schemas.
pub(super) fn apply(schemas: &mut Map<String, Value>) {
    for (name, fields) in LIMITS {
        for (field, holds) in *fields {
            if let Some(schema) =
                schemas.get_mut(*name).and_then(|schema| schema.get_mut("properties")?.get_mut(*field))
            {
                limit(schema, *holds);
            }
        }
    }
    for schema in schemas.values_mut() {
        for (field, holds) in FREE {
            if let Some(schema) = schema.get_mut("properties").and_then(|schema| schema.get_mut(*field)) {
                limit(schema, *holds);
            }
        }
    }
}

fn limit(schema: &mut Value, holds: Constraint) {
    let bytes = |schema: &mut Value, most: usize| {
        schema["maxLength"] = json!(most);
        let says = schema["description"].as_str().unwrap_or_default();
        schema["description"] = json!(format!("{says} At most {most} bytes of UTF-8."));
    };
    match holds {
        Constraint::Text(most) => bytes(schema, most),
        Constraint::Characters(most) => schema["maxLength"] = json!(most),
        Constraint::Named(most) => {
            schema["minLength"] = json!(1);
            schema["pattern"] = json!("\\S");
            bytes(schema, most);
        }
        Constraint::Id => {
            schema["minLength"] = json!(1);
            schema["pattern"] = json!(NO_CONTROLS);
            bytes(schema, ID_BYTES);
        }
        Constraint::Name(most) => {
            schema["pattern"] = json!(NO_CONTROLS);
            bytes(schema, most);
        }
        Constraint::Code(most) => {
            schema["minLength"] = json!(1);
            schema["pattern"] = json!(NO_CONTROLS);
            bytes(schema, most);
        }
        Constraint::Part => {
            let event = crate::http::schemas::events();
            let part = &event["StreamChunkEvent"]["properties"]["part"];
            let fields = &part["properties"];
            *schema = json!({"type": ["object", "null"], "description": schema["description"],
                "required": part["required"], "properties": fields, "additionalProperties": false});
        }
        Constraint::Content(most) => {
            schema["minLength"] = json!(1);
            schema["maxLength"] = json!(most);
        }
        Constraint::Fraction => {
            schema["minimum"] = json!(0);
            schema["maximum"] = json!(1);
        }
        Constraint::Items(most) => {
            schema["minItems"] = json!(1);
            schema["maxItems"] = json!(most);
        }
        Constraint::UserName => {
            schema["pattern"] = json!("\\S[\\s\\S]*\\S");
            bytes(schema, NAME_BYTES);
        }
        Constraint::Email => {
            schema["pattern"] = json!(EMAIL);
            bytes(schema, EMAIL_BYTES);
        }
        Constraint::Password(least) => {
            schema["minLength"] = json!(least);
            bytes(schema, PASSWORD_BYTES);
        }
        Constraint::Pattern(pattern) => schema["pattern"] = json!(pattern),
        Constraint::Json => {
            *schema = json!({"description": schema["description"]});
        }
        Constraint::Object => {
            *schema = json!({"type": ["object", "null"], "description": schema["description"]});
        }
        Constraint::Number(least, most) => {
            schema["minimum"] = json!(least);
            schema["maximum"] = json!(most);
        }
        Constraint::Each(choices) => schema["items"] = json!({"type": "string", "enum": choices}),
        Constraint::Some(choices) => {
            schema["minItems"] = json!(1);
            schema["items"] = json!({"type": "string", "enum": choices});
        }
        Constraint::Matching(most, bytes, pattern) => {
            schema["maxItems"] = json!(most);
            schema["items"] = json!({"type": "string", "minLength": 1, "maxLength": bytes});
            if !pattern.is_empty() {
                schema["items"]["pattern"] = json!(pattern);
            }
        }
        Constraint::OneOf(choices) => schema["enum"] = json!(choices),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A limit of a field that does not exist any more would be in no document.
    #[test]
    fn every_field_with_a_limit_is_in_the_document() {
        let document: Value = serde_json::from_str(&super::super::OPENAPI).expect("JSON");
        for (name, fields) in LIMITS {
            for (field, _) in *fields {
                let schema = &document["components"]["schemas"][name]["properties"][field];
                assert!(schema.is_object(), "{name}.{field}");
            }
        }
    }
}
