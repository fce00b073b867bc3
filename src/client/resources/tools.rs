//! Tools, found by their tags.

use serde_json::Value;

use super::super::Client;
use super::super::event::{Metadata, wire};
use super::super::resource::{Change, Create, Query, Resource, Resources};

impl Client {
    /// Tools.
    pub fn tools(&self) -> Resources<'_, Tool> {
        self.resource()
    }
}

wire! {
    /// A tool.
    Tool {
        /// `tool-…`.
        id: String,
        /// Whose.
        organization_id: String,
        /// For people and agents.
        name: String,
        /// By these it is found.
        tags: Vec<String>,
        /// RFC 3339.
        created_at: String,
        /// RFC 3339.
        updated_at: String,
    } maybe {
        /// For agents.
        description: String,
        /// What it takes.
        json_schema: Value,
        /// Free text.
        source_type: String,
        /// What it does.
        source_code: String,
        /// The user who may change it with the scope `write`; absent: changing it takes `agents`.
        owner: String,
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// What a tool is made of.
    NewTool {
        /// 1–255 bytes.
        name: String,
    } maybe {
        /// For agents.
        description: String,
        /// What it takes.
        json_schema: Value,
        /// Free text.
        source_type: String,
        /// What it does.
        source_code: String,
        /// By these it is found.
        tags: Vec<String>,
        /// The user who may change it; another than oneself takes the scope `agents`.
        owner: String,
        /// Free data.
        metadata: Metadata,
    }
}

wire! {
    /// What to change in a tool.
    ToolChange {} maybe {
        /// 1–255 bytes.
        name: String,
        /// For agents.
        description: Option<String>,
        /// What it takes.
        json_schema: Option<Value>,
        /// Free text.
        source_type: Option<String>,
        /// What it does.
        source_code: Option<String>,
        /// By these it is found.
        tags: Vec<String>,
        /// The user who may change it, or nobody; takes the scope `agents`.
        owner: Option<String>,
        /// Free data.
        metadata: Option<Metadata>,
    }
}

/// Which tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolsOf {
    /// With these tags; a tag holds no comma.
    pub tags: Vec<String>,
    /// With all of them instead of any.
    pub match_all: bool,
}

impl Query for ToolsOf {
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
    type Of = ToolsOf;
}

impl Create for Tool {
    type New = NewTool;
    type Made = Self;
}

impl Change for Tool {
    type Change = ToolChange;
}
