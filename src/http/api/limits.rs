//! The limits of body fields, with the constants that the code checks. The derives provide names, types and
//! texts; they cannot read these constants.

use serde_json::{Map, Value, json};

use super::schemas::NO_CONTROLS;
use crate::auth::{PASSWORD_BYTES, PASSWORD_CHARS};
use crate::event::{CHANNEL_BYTES, ID_BYTES, Kind};
use crate::filter::NARROWING_VALUES;
use crate::resource::blocks::BLOCK_CHARS_MOST;
use crate::resource::memories::CONTENT_CHARS;
use crate::resource::memories::batch::ITEMS;
use crate::resource::memories::search::{self, QUERY_CHARS};
use crate::resource::users::EMAIL_BYTES;
use crate::resource::{NAME_BYTES, TEXT_BYTES, messages, tools};

/// The values that a field may have.
#[derive(Clone, Copy)]
enum Holds {
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
const TYPES: [&str; 6] = [
    Kind::Message.name(),
    Kind::AgentUpdate.name(),
    Kind::MemoryUpdate.name(),
    Kind::StreamChunk.name(),
    Kind::Error.name(),
    Kind::Custom.name(),
];
/// The pattern of an organization's id.
const ORGANIZATION: &str = "^[A-Za-z0-9._-]{1,128}$";
/// The pattern that the code accepts as an email address.
const EMAIL: &str = "^[^@\\s\\u0000-\\u001f\\u007f-\\u009f]+@[^@\\s\\u0000-\\u001f\\u007f-\\u009f]+$";
const CHANNEL: &str = "^[^/*\\u0000-\\u001f\\u007f-\\u009f]+(/[^/*\\u0000-\\u001f\\u007f-\\u009f]+)*(/\\*)?$";
/// The limited fields of each schema.
const LIMITS: &[(&str, &[(&str, Holds)])] = &[
    (
        "AgentChange",
        &[
            ("name", Holds::Named(NAME_BYTES)),
            ("description", Holds::Text(TEXT_BYTES)),
            ("system", Holds::Text(TEXT_BYTES)),
            ("agent_type", Holds::Named(NAME_BYTES)),
            ("owner", Holds::Id),
        ],
    ),
    ("AgentStateChange", &[("error_message", Holds::Text(TEXT_BYTES))]),
    ("NewAgentMessage", &[("message", Holds::Text(messages::CONTENT_BYTES)), ("user_id", Holds::Id)]),
    (
        "NewMessage",
        &[
            ("agent_id", Holds::Id),
            ("user_id", Holds::Id),
            ("content", Holds::Text(messages::CONTENT_BYTES)),
            ("text", Holds::Text(messages::CONTENT_BYTES)),
            ("model", Holds::Text(messages::MODEL_BYTES)),
        ],
    ),
    (
        "ToolChange",
        &[
            ("name", Holds::Named(NAME_BYTES)),
            ("description", Holds::Text(TEXT_BYTES)),
            ("source_type", Holds::Named(NAME_BYTES)),
            ("source_code", Holds::Text(tools::SOURCE_BYTES)),
            ("tags", Holds::Matching(tools::TAGS, tools::TAG_BYTES, "^[^,]*[^,\\s][^,]*$")),
            ("owner", Holds::Id),
        ],
    ),
    ("NewOrganization", &[("id", Holds::Pattern(ORGANIZATION)), ("name", Holds::Name(ORG_NAME_BYTES))]),
    ("OrganizationChange", &[("name", Holds::Name(ORG_NAME_BYTES))]),
    (
        "NewApiKey",
        &[
            ("name", Holds::Name(ORG_NAME_BYTES)),
            ("scopes", Holds::Some(SCOPES)),
            ("expires_in_seconds", Holds::Number(1, u64::MAX)),
            ("agents", Holds::Matching(NARROWING_VALUES, ID_BYTES, "")),
            ("channels", Holds::Matching(NARROWING_VALUES, CHANNEL_BYTES, CHANNEL)),
            ("types", Holds::Each(&TYPES)),
            ("org_id", Holds::Pattern(ORGANIZATION)),
        ],
    ),
    (
        "NewToken",
        &[
            ("sub", Holds::Id),
            ("roles", Holds::Each(ROLES)),
            ("scopes", Holds::Each(SCOPES)),
            ("expires_in_seconds", Holds::Number(1, crate::auth::TOKEN_MAX_MS / 1_000)),
            ("agents", Holds::Matching(NARROWING_VALUES, ID_BYTES, "")),
            ("channels", Holds::Matching(NARROWING_VALUES, CHANNEL_BYTES, CHANNEL)),
            ("types", Holds::Each(&TYPES)),
            ("org_id", Holds::Pattern(ORGANIZATION)),
        ],
    ),
    ("NewTicket", &[("sub", Holds::Id)]),
    (
        "NewUser",
        &[
            ("email", Holds::Email),
            ("password", Holds::Password(PASSWORD_CHARS)),
            ("name", Holds::UserName),
            ("timezone", Holds::Named(NAME_BYTES)),
            ("organization_id", Holds::Pattern(ORGANIZATION)),
        ],
    ),
    ("UserChange", &[("name", Holds::UserName), ("timezone", Holds::Named(NAME_BYTES))]),
    (
        "NewMemory",
        &[
            ("agent_id", Holds::Id),
            ("user_id", Holds::Id),
            ("content", Holds::Content(CONTENT_CHARS)),
            ("importance", Holds::Fraction),
        ],
    ),
    ("MemoryChange", &[("content", Holds::Content(CONTENT_CHARS)), ("importance", Holds::Fraction)]),
    ("NewMemories", &[("memories", Holds::Items(ITEMS))]),
    ("MemoryIds", &[("ids", Holds::Items(ITEMS))]),
    (
        "MemoryQuery",
        &[
            ("query", Holds::Content(QUERY_CHARS)),
            ("min_importance", Holds::Fraction),
            ("threshold", Holds::Fraction),
            ("limit", Holds::Number(1, search::LIMIT)),
            ("offset", Holds::Number(0, search::OFFSET)),
        ],
    ),
    ("Login", &[("password", Holds::Password(0))]),
    (
        "PasswordChange",
        &[("current_password", Holds::Password(0)), ("new_password", Holds::Password(PASSWORD_CHARS))],
    ),
    (
        "CoreMemoryChange",
        &[
            ("value", Holds::Characters(BLOCK_CHARS_MOST)),
            ("limit", Holds::Number(1, BLOCK_CHARS_MOST as u64)),
        ],
    ),
    ("Health", &[("status", Holds::OneOf(&["healthy", "degraded", "stopping"]))]),
    ("HealthChecks", &[("store", Holds::OneOf(&["ok", "no_space", "reopening", "read_only"]))]),
    ("Connection", &[("transport", Holds::OneOf(&["ws", "sse", "sse_h2", "sse_http10"]))]),
    ("Gap", &[("reason", Holds::OneOf(&["trimmed", "lagged", "unknown_cursor"]))]),
];
/// Fields with free data, in every schema.
const FREE: &[(&str, Holds)] = &[
    ("metadata", Holds::Object),
    ("llm_config", Holds::Json),
    ("embedding_config", Holds::Json),
    ("tool_rules", Holds::Json),
    ("tool_calls", Holds::Json),
    ("json_schema", Holds::Json),
];
const ORG_NAME_BYTES: usize = crate::auth::NAME_BYTES;

/// Writes the limits into the schemas.
pub(super) fn apply(schemas: &mut Map<String, Value>) {
    for (name, fields) in LIMITS {
        for (field, holds) in *fields {
            if let Some(schema) =
                schemas.get_mut(*name).and_then(|it| it.get_mut("properties")?.get_mut(*field))
            {
                limit(schema, *holds);
            }
        }
    }
    for schema in schemas.values_mut() {
        for (field, holds) in FREE {
            if let Some(schema) = schema.get_mut("properties").and_then(|it| it.get_mut(*field)) {
                limit(schema, *holds);
            }
        }
    }
}

fn limit(schema: &mut Value, holds: Holds) {
    let bytes = |schema: &mut Value, most: usize| {
        schema["maxLength"] = json!(most);
        let says = schema["description"].as_str().unwrap_or_default();
        schema["description"] = json!(format!("{says} At most {most} bytes of UTF-8."));
    };
    match holds {
        Holds::Text(most) => bytes(schema, most),
        Holds::Characters(most) => schema["maxLength"] = json!(most),
        Holds::Named(most) => {
            schema["minLength"] = json!(1);
            schema["pattern"] = json!("\\S");
            bytes(schema, most);
        }
        Holds::Id => {
            schema["minLength"] = json!(1);
            schema["pattern"] = json!(NO_CONTROLS);
            bytes(schema, ID_BYTES);
        }
        Holds::Name(most) => {
            schema["pattern"] = json!(NO_CONTROLS);
            bytes(schema, most);
        }
        Holds::Content(most) => {
            schema["minLength"] = json!(1);
            schema["maxLength"] = json!(most);
        }
        Holds::Fraction => {
            schema["minimum"] = json!(0);
            schema["maximum"] = json!(1);
        }
        Holds::Items(most) => {
            schema["minItems"] = json!(1);
            schema["maxItems"] = json!(most);
        }
        Holds::UserName => {
            schema["pattern"] = json!("\\S[\\s\\S]*\\S");
            bytes(schema, NAME_BYTES);
        }
        Holds::Email => {
            schema["pattern"] = json!(EMAIL);
            bytes(schema, EMAIL_BYTES);
        }
        Holds::Password(least) => {
            schema["minLength"] = json!(least);
            bytes(schema, PASSWORD_BYTES);
        }
        Holds::Pattern(pattern) => schema["pattern"] = json!(pattern),
        Holds::Json => {
            *schema = json!({"description": schema["description"]});
        }
        Holds::Object => {
            *schema = json!({"type": ["object", "null"], "description": schema["description"]});
        }
        Holds::Number(least, most) => {
            schema["minimum"] = json!(least);
            schema["maximum"] = json!(most);
        }
        Holds::Each(choices) => schema["items"] = json!({"type": "string", "enum": choices}),
        Holds::Some(choices) => {
            schema["minItems"] = json!(1);
            schema["items"] = json!({"type": "string", "enum": choices});
        }
        Holds::Matching(most, bytes, pattern) => {
            schema["maxItems"] = json!(most);
            schema["items"] = json!({"type": "string", "minLength": 1, "maxLength": bytes});
            if !pattern.is_empty() {
                schema["items"]["pattern"] = json!(pattern);
            }
        }
        Holds::OneOf(choices) => schema["enum"] = json!(choices),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A limit of a field that does not exist any more would be in no document.
    #[test]
    fn every_limited_field_is_there() {
        let document: Value = serde_json::from_str(&super::super::OPENAPI).expect("JSON");
        for (name, fields) in LIMITS {
            for (field, _) in *fields {
                let schema = &document["components"]["schemas"][name]["properties"][field];
                assert!(schema.is_object(), "{name}.{field}");
            }
        }
    }
}
