//! Tools that a platform's agents can call, found by their tags. The daemon does not run tools, and publishes
//! no event about them.
//!
//! * A tool has no agent, type or channel. A narrowing excludes everything that lacks the field it names, so
//!   a narrowed credential can neither see nor change tools.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::agents::Json;
use super::list_resource::{ListResource, ListSource, Operation, PatchResource};
use super::record::Record;
use super::{
    Caller, ResourceError, TEXT_BYTES, check_json, check_name, check_object, check_text, double_option,
    next_number, ownership,
};
use crate::auth::{Authorized, Principal, WriteOwned};
use crate::event::Event;
use crate::filter::Rights;
use crate::store::{Group, GroupSelector, List, Table};
use crate::tenant::publish::CommitWaiter;

/// Maximum of tags of a tool, and in a query.
pub const TAGS: usize = 32;
/// Maximum of bytes of a tag.
pub const TAG_BYTES: usize = 64;
/// Maximum of bytes of a tool's source code.
pub const SOURCE_BYTES: usize = 32 * 1024;

/// A tool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tool {
    /// Id: `tool-<uuid7>`.
    pub id: String,
    number: u64,
    /// Name, not blank, at most 255 bytes.
    pub name: String,
    /// User who may change the tool with the scope `write`. `None` means that only the scope `agents` can
    /// change it.
    #[serde(default)]
    pub owner: Option<String>,
    /// The other fields that its owner sets.
    #[serde(rename = "said")]
    pub fields: ToolFields,
    /// Time of creation, Unix milliseconds.
    pub created_ms: u64,
    /// Time of the last change, Unix milliseconds.
    pub updated_ms: u64,
    /// Version; it increases with each change.
    pub version: u64,
}

/// The fields of a tool that its owner sets, besides the name. All are optional.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ToolFields {
    /// Description for people and models.
    pub description: Option<String>,
    /// JSON schema of the tool's arguments.
    pub json_schema: Option<Json>,
    /// Type of the source code, as the platform defines it.
    pub source_type: Option<String>,
    /// Source code of the tool.
    pub source_code: Option<String>,
    /// Tags, in the order they were given, without duplicates.
    pub tags: Vec<String>,
    /// A JSON object.
    pub metadata: Option<Json>,
}

/// Selects tools.
#[derive(Debug, Default)]
pub struct ToolFilter {
    /// Tags that the tools have; all tools if empty.
    pub tags: Vec<String>,
    /// True for tools that have all of the tags, false for those that have any.
    pub match_all: bool,
}

/// A change of a tool. A field that is left out stays as it is; `null` clears it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = ToolChange)]
pub struct ToolPatch {
    /// Name, not blank. Required for a new tool.
    #[schema(value_type = Option<String>)]
    name: Option<String>,
    /// Description for people and models.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "double_option")]
    description: Option<Option<String>>,
    /// JSON schema of the tool's arguments.
    #[schema(value_type = Option<Object>)]
    #[serde(deserialize_with = "double_option")]
    json_schema: Option<Option<Json>>,
    /// Type of the source code, as the platform defines it.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "double_option")]
    source_type: Option<Option<String>>,
    /// Source code of the tool.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "double_option")]
    source_code: Option<Option<String>>,
    /// Tags, without commas.
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(deserialize_with = "double_option")]
    tags: Option<Option<Vec<String>>>,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    #[serde(deserialize_with = "double_option")]
    metadata: Option<Option<Json>>,
    /// User who may change the tool. A new tool belongs to the caller if this is left out. Only the scope
    /// `agents` allows another user, or `null` for none.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "double_option")]
    owner: Option<Option<String>>,
}

impl Tool {
    fn with_fields(mut self, patch: ToolPatch) -> Result<Tool, ResourceError> {
        let fields = self.fields;
        self.name = check_name("name", Some(patch.name.unwrap_or(self.name)))?.unwrap_or_default();
        self.fields = ToolFields {
            description: check_text(
                "description",
                patch.description.unwrap_or(fields.description),
                TEXT_BYTES,
            )?,
            json_schema: check_json("json_schema", patch.json_schema.unwrap_or(fields.json_schema))?,
            source_type: check_name("source_type", patch.source_type.unwrap_or(fields.source_type))?,
            source_code: check_text(
                "source_code",
                patch.source_code.unwrap_or(fields.source_code),
                SOURCE_BYTES,
            )?,
            tags: tags(patch.tags.map_or(fields.tags, Option::unwrap_or_default))?,
            metadata: check_object("metadata", patch.metadata.unwrap_or(fields.metadata))?,
        };
        Ok(self)
    }
}

impl Record for Tool {
    const TABLE: Table = Table::Tools;
    fn id(&self) -> &str {
        &self.id
    }
    fn number(&self) -> u64 {
        self.number
    }
    fn groups(&self) -> Vec<Group> {
        groups_with(&self.fields.tags)
    }
    /// An intersection of tags calls this for many rows, so only their tags are parsed.
    fn groups_of(row: &[u8]) -> Option<Vec<Group>> {
        #[derive(Deserialize)]
        struct RowTags {
            #[serde(rename = "said")]
            fields: FieldsTags,
        }
        #[derive(Deserialize)]
        struct FieldsTags {
            tags: Vec<String>,
        }
        serde_json::from_slice::<RowTags>(row).ok().map(|row| groups_with(&row.fields.tags))
    }
}

fn groups_with(tags: &[String]) -> Vec<Group> {
    let tagged = tags.iter().map(|tag| Group::new(List::ToolsWithTag, &[tag]));
    std::iter::once(Group::new(List::AllTools, &[])).chain(tagged).collect()
}

/// Removes duplicate tags and checks the others.
///
/// # Errors
/// A tag is empty or too long, or there are too many.
pub fn tags(given: Vec<String>) -> Result<Vec<String>, ResourceError> {
    if given.len() > TAGS {
        return Err(ResourceError::invalid("tags", format!("are {}, the limit is {TAGS}", given.len())));
    }
    let mut tags: Vec<String> = Vec::with_capacity(given.len());
    for tag in given {
        if tag.trim().is_empty() || tag.len() > TAG_BYTES || tag.contains(',') {
            let reason = format!("a tag must have 1 to {TAG_BYTES} bytes and no comma");
            return Err(ResourceError::invalid("tags", reason));
        }
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

impl ListResource for Tool {
    const KIND: &'static str = "tool";
    type WriteRight = WriteOwned;
    type New = ToolPatch;
    type Filter = ToolFilter;

    fn version(&self) -> u64 {
        self.version
    }
    fn event(&self, _: Operation) -> Option<Event<'_>> {
        None
    }
    fn permits_id(rights: &Rights, _: &str) -> bool {
        rights.narrowing.is_none()
    }
    fn check_write(&self, right: &Authorized<WriteOwned>) -> Result<(), ResourceError> {
        ownership::check(right.principal(), self.owner.as_deref())
    }
    fn source(rights: &Rights, filter: &ToolFilter) -> Result<ListSource, ResourceError> {
        let tags = tags(filter.tags.clone())?;
        if !rights.narrowing.is_none() {
            return Ok(ListSource::Empty);
        }
        let groups: Vec<Group> = tags.iter().map(|tag| Group::new(List::ToolsWithTag, &[tag])).collect();
        Ok(ListSource::Groups(match (groups.is_empty(), filter.match_all) {
            (true, _) => Group::new(List::AllTools, &[]).into(),
            (false, true) => GroupSelector::All(groups),
            (false, false) => GroupSelector::Any(groups),
        }))
    }
    async fn build<N: CommitWaiter>(
        caller: &Caller<'_, N>,
        _: &Authorized<WriteOwned>,
        mut new: ToolPatch,
    ) -> Result<Tool, ResourceError> {
        if !caller.rights.narrowing.is_none() {
            return Err(ResourceError::Forbidden("a narrowed credential cannot write tools"));
        }
        let owner = ownership::of_new(&caller.principal, new.owner.take())?;
        if new.name.is_none() {
            return Err(ResourceError::invalid("name", "is required"));
        }
        let now_ms = caller.now_ms();
        let tool = Tool {
            id: crate::ids::fresh("tool"),
            number: next_number(now_ms),
            name: String::new(),
            owner,
            fields: ToolFields::default(),
            created_ms: now_ms,
            updated_ms: now_ms,
            version: 1,
        };
        tool.with_fields(new)
    }
}

impl PatchResource for Tool {
    type Patch = ToolPatch;

    fn patched(mut self, principal: &Principal, mut patch: ToolPatch) -> Result<Tool, ResourceError> {
        self.owner = ownership::of_changed(principal, self.owner, patch.owner.take())?;
        self.with_fields(patch)
    }
    fn advance_version(&mut self, now_ms: u64) {
        self.updated_ms = now_ms;
        self.version += 1;
    }
}
