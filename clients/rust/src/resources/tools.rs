//! Tools, which are found by their tags.

use serde_json::Value;

use super::collection::{Collection, Create, ListFilter, Resource, Update};
use crate::Client;
use crate::event::Metadata;
use crate::macros::protocol_struct;

impl Client {
    /// Returns the tools.
    pub fn tools(&self) -> Collection<'_, Tool> {
        self.resource()
    }
}

protocol_struct! {
    /// A tool.
    Tool {
        /// The id, `tool-…`.
        id: String,
        /// The organization of the tool.
        organization_id: String,
        /// The name, for people and agents.
        name: String,
        /// Tags, by which lists are filtered.
        tags: Vec<String>,
        /// Time of creation, RFC 3339.
        created_at: String,
        /// Time of the last change, RFC 3339.
        updated_at: String,
    } optional {
        /// Description for agents.
        description: String,
        /// JSON schema of the input.
        json_schema: Value,
        /// Free text.
        source_type: String,
        /// Source code of the tool.
        source_code: String,
        /// The user who may change it with the scope `write`. Absent: changing it needs the scope `agents`.
        owner: String,
        /// Free data.
        metadata: Metadata,
    }
}

protocol_struct! {
    /// Fields of a new tool.
    NewTool {
        /// The name, 1–255 bytes.
        name: String,
    } optional {
        /// Description for agents.
        description: String,
        /// JSON schema of the input.
        json_schema: Value,
        /// Free text.
        source_type: String,
        /// Source code of the tool.
        source_code: String,
        /// Tags, by which lists are filtered.
        tags: Vec<String>,
        /// The user who may change it. Naming another user than oneself needs the scope `agents`.
        owner: String,
        /// Free data.
        metadata: Metadata,
    }
}

protocol_struct! {
    /// Fields of a tool to change.
    ToolChange {} optional {
        /// The name, 1–255 bytes.
        name: String,
        /// Description for agents.
        description: Option<String>,
        /// JSON schema of the input.
        json_schema: Option<Value>,
        /// Free text.
        source_type: Option<String>,
        /// Source code of the tool.
        source_code: Option<String>,
        /// Tags, by which lists are filtered.
        tags: Vec<String>,
        /// The user who may change it, or nobody. Setting it needs the scope `agents`.
        owner: Option<String>,
        /// Free data.
        metadata: Option<Metadata>,
    }
}

/// Selects the tools of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolFilter {
    /// Only tools with these tags. A tag contains no comma.
    pub tags: Vec<String>,
    /// Requires all of the tags instead of any.
    pub match_all: bool,
}

impl ListFilter for ToolFilter {
    fn pairs(&self) -> Vec<(&'static str, String)> {
        if self.tags.is_empty() {
            return Vec::new();
        }
        let mut pairs = vec![("tags", self.tags.join(","))];
        pairs.extend(self.match_all.then(|| ("match_all", "true".to_owned())));
        pairs
    }
}

impl Resource for Tool {
    const PATH: &'static str = "/api/v1/tools";
    type Filter = ToolFilter;
}

impl Create for Tool {
    type NewBody = NewTool;
    type Created = Self;
}

impl Update for Tool {
    type Patch = ToolChange;
}
