//! Tools that a platform's agents can call, found by their tags. The daemon does not run tools, and publishes
//! no event about them.
//!
//! * A tool has no agent, type or channel. A narrowing excludes everything that lacks the field it names, so
//!   a narrowed credential can neither see nor change tools.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::agents::Json;
use super::record::{self, PageRequest, PageStart, Record};
use super::{
    Caller, ResourceError, TEXT_BYTES, check_json, check_name, check_object, check_text, check_version,
    double_option, lock_key, next_number, ownership,
};
use crate::auth::{Authorized, WriteOwned};
use crate::store::{Group, GroupSelector, List, Rows, Table};
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
    fn patched(mut self, patch: ToolPatch) -> Result<Tool, ResourceError> {
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

/// Creates a tool. `response_rows` returns rows to add to its commit.
///
/// # Errors
/// [`ResourceError`].
pub async fn create<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    mut patch: ToolPatch,
    response_rows: impl FnOnce(&Tool) -> Rows,
) -> Result<Tool, ResourceError> {
    if !caller.rights.narrowing.is_none() {
        return Err(ResourceError::Forbidden("a narrowed credential cannot write tools"));
    }
    let owner = ownership::of_new(&caller.principal, patch.owner.take())?;
    if patch.name.is_none() {
        return Err(ResourceError::invalid("name", "is required"));
    }
    let now_ms = caller.now_ms();
    let new = Tool {
        id: crate::ids::fresh("tool"),
        number: next_number(now_ms),
        name: String::new(),
        owner,
        fields: ToolFields::default(),
        created_ms: now_ms,
        updated_ms: now_ms,
        version: 1,
    };
    let tool = new.patched(patch)?;
    let mut rows = response_rows(&tool);
    record::put(&mut rows, caller.tenant.id(), None, &tool)?;
    caller.commit(right, rows, &[]).await?;
    Ok(tool)
}

/// Gets a tool.
///
/// # Errors
/// [`ResourceError::NotFound`], also for a narrowed credential.
pub async fn get<N: CommitWaiter>(caller: &Caller<'_, N>, id: &str) -> Result<Tool, ResourceError> {
    if !caller.rights.narrowing.is_none() {
        return Err(ResourceError::NotFound);
    }
    let found = record::get(caller.tenants.store(), caller.tenant.id(), id).await?;
    found.ok_or(ResourceError::NotFound)
}

/// Lists tools in the order of creation: all, or those with any or all of `tags`. A narrowed credential sees
/// none.
///
/// # Errors
/// [`ResourceError`].
pub async fn list<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    wanted: Vec<String>,
    match_all: bool,
    page: &PageRequest,
) -> Result<(Vec<Tool>, Option<PageStart>), ResourceError> {
    let wanted = tags(wanted)?;
    if !caller.rights.narrowing.is_none() {
        return Ok((Vec::new(), None));
    }
    let groups: Vec<Group> = wanted.iter().map(|tag| Group::new(List::ToolsWithTag, &[tag])).collect();
    let of = match (groups.is_empty(), match_all) {
        (true, _) => GroupSelector::from(Group::new(List::AllTools, &[])),
        (false, true) => GroupSelector::All(groups),
        (false, false) => GroupSelector::Any(groups),
    };
    record::list(caller.tenants.store(), caller.tenant.id(), of, page).await
}

/// Changes a tool, if `version` is still the current one.
///
/// # Errors
/// [`ResourceError`].
pub async fn change<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    id: &str,
    version: Option<u64>,
    mut patch: ToolPatch,
) -> Result<Tool, ResourceError> {
    let guard = caller.lock(lock_key("tool", id)).await;
    let old = get(caller, id).await?;
    ownership::check(&caller.principal, old.owner.as_deref())?;
    check_version(version, old.version)?;
    let owner = ownership::of_changed(&caller.principal, old.owner.clone(), patch.owner.take())?;
    let mut tool = old.clone().patched(patch)?;
    tool.owner = owner;
    tool.updated_ms = caller.now_ms();
    tool.version += 1;
    let mut rows = Rows::new();
    rows.hold_until_commit(guard);
    record::put(&mut rows, caller.tenant.id(), Some(&old), &tool)?;
    caller.commit(right, rows, &[]).await?;
    Ok(tool)
}

/// Deletes a tool.
///
/// # Errors
/// [`ResourceError`].
pub async fn delete<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    id: &str,
    version: Option<u64>,
) -> Result<(), ResourceError> {
    let guard = caller.lock(lock_key("tool", id)).await;
    let tool = get(caller, id).await?;
    ownership::check(&caller.principal, tool.owner.as_deref())?;
    check_version(version, tool.version)?;
    let mut rows = Rows::new();
    rows.hold_until_commit(guard);
    record::remove(&mut rows, caller.tenant.id(), &tool);
    caller.commit(right, rows, &[]).await
}
