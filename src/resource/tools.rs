//! Tools that a platform's agents can call, found by their tags. The daemon does not run tools, and publishes
//! no event about them.
//!
//! * A tool has no agent, type or channel. A narrowing excludes everything that lacks the field it names, so
//!   a narrowed credential can neither see nor change tools.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::agents::Json;
use super::record::{self, Page, Position, Record};
use super::{
    Caller, ResourceError, TEXT_BYTES, free, given, is_version, lock_of, named, next_number, object,
    ownership, short,
};
use crate::auth::{Authorized, WriteOwned};
use crate::store::{Group, List, Of, Rows, Table};
use crate::tenant::publish::Notice;

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
    pub said: Said,
    /// Time of creation, Unix milliseconds.
    pub created_ms: u64,
    /// Time of the last change, Unix milliseconds.
    pub updated_ms: u64,
    /// Version; it increases with each change.
    pub version: u64,
}

/// The fields of a tool that its owner sets, besides the name. All are optional.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Said {
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
pub struct Saying {
    /// Name, not blank. Required for a new tool.
    #[schema(value_type = Option<String>)]
    name: Option<String>,
    /// Description for people and models.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "given")]
    description: Option<Option<String>>,
    /// JSON schema of the tool's arguments.
    #[schema(value_type = Option<Object>)]
    #[serde(deserialize_with = "given")]
    json_schema: Option<Option<Json>>,
    /// Type of the source code, as the platform defines it.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "given")]
    source_type: Option<Option<String>>,
    /// Source code of the tool.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "given")]
    source_code: Option<Option<String>>,
    /// Tags, without commas.
    #[schema(value_type = Option<Vec<String>>)]
    #[serde(deserialize_with = "given")]
    tags: Option<Option<Vec<String>>>,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    #[serde(deserialize_with = "given")]
    metadata: Option<Option<Json>>,
    /// User who may change the tool. A new tool belongs to the caller if this is left out. Only the scope
    /// `agents` allows another user, or `null` for none.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "given")]
    owner: Option<Option<String>>,
}

impl Tool {
    fn with(mut self, saying: Saying) -> Result<Tool, ResourceError> {
        let said = self.said;
        self.name = named("name", Some(saying.name.unwrap_or(self.name)))?.unwrap_or_default();
        self.said = Said {
            description: short("description", saying.description.unwrap_or(said.description), TEXT_BYTES)?,
            json_schema: free("json_schema", saying.json_schema.unwrap_or(said.json_schema))?,
            source_type: named("source_type", saying.source_type.unwrap_or(said.source_type))?,
            source_code: short("source_code", saying.source_code.unwrap_or(said.source_code), SOURCE_BYTES)?,
            tags: tags(saying.tags.map_or(said.tags, Option::unwrap_or_default))?,
            metadata: object("metadata", saying.metadata.unwrap_or(said.metadata))?,
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
        groups_with(&self.said.tags)
    }
    /// An intersection of tags calls this for many rows, so only their tags are parsed.
    fn groups_of(row: &[u8]) -> Option<Vec<Group>> {
        #[derive(Deserialize)]
        struct Row {
            said: Tagged,
        }
        #[derive(Deserialize)]
        struct Tagged {
            tags: Vec<String>,
        }
        serde_json::from_slice::<Row>(row).ok().map(|row| groups_with(&row.said.tags))
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

/// Creates a tool. `kept` returns rows to add to its commit.
///
/// # Errors
/// [`ResourceError`].
pub async fn create<N: Notice>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    mut saying: Saying,
    kept: impl FnOnce(&Tool) -> Rows,
) -> Result<Tool, ResourceError> {
    if !caller.rights.narrowing.is_none() {
        return Err(ResourceError::Forbidden("a narrowed credential cannot write tools"));
    }
    let owner = ownership::of_new(&caller.principal, saying.owner.take())?;
    if saying.name.is_none() {
        return Err(ResourceError::invalid("name", "is required"));
    }
    let now_ms = caller.now_ms();
    let new = Tool {
        id: crate::ids::fresh("tool"),
        number: next_number(now_ms),
        name: String::new(),
        owner,
        said: Said::default(),
        created_ms: now_ms,
        updated_ms: now_ms,
        version: 1,
    };
    let tool = new.with(saying)?;
    let mut rows = kept(&tool);
    record::put(&mut rows, caller.tenant.id(), None, &tool)?;
    caller.commit(right, rows, &[]).await?;
    Ok(tool)
}

/// Gets a tool.
///
/// # Errors
/// [`ResourceError::NotFound`], also for a narrowed credential.
pub async fn get<N: Notice>(caller: &Caller<'_, N>, id: &str) -> Result<Tool, ResourceError> {
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
pub async fn list<N: Notice>(
    caller: &Caller<'_, N>,
    wanted: Vec<String>,
    match_all: bool,
    page: &Page,
) -> Result<(Vec<Tool>, Option<Position>), ResourceError> {
    let wanted = tags(wanted)?;
    if !caller.rights.narrowing.is_none() {
        return Ok((Vec::new(), None));
    }
    let groups: Vec<Group> = wanted.iter().map(|tag| Group::new(List::ToolsWithTag, &[tag])).collect();
    let of = match (groups.is_empty(), match_all) {
        (true, _) => Of::from(Group::new(List::AllTools, &[])),
        (false, true) => Of::All(groups),
        (false, false) => Of::Any(groups),
    };
    record::list(caller.tenants.store(), caller.tenant.id(), of, page).await
}

/// Changes a tool, if `version` is still the current one.
///
/// # Errors
/// [`ResourceError`].
pub async fn change<N: Notice>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    id: &str,
    version: Option<u64>,
    mut saying: Saying,
) -> Result<Tool, ResourceError> {
    let alone = caller.alone(lock_of("tool", id)).await;
    let old = get(caller, id).await?;
    ownership::check(&caller.principal, old.owner.as_deref())?;
    is_version(version, old.version)?;
    let owner = ownership::of_changed(&caller.principal, old.owner.clone(), saying.owner.take())?;
    let mut tool = old.clone().with(saying)?;
    tool.owner = owner;
    tool.updated_ms = caller.now_ms();
    tool.version += 1;
    let mut rows = Rows::new();
    rows.hold(alone);
    record::put(&mut rows, caller.tenant.id(), Some(&old), &tool)?;
    caller.commit(right, rows, &[]).await?;
    Ok(tool)
}

/// Deletes a tool.
///
/// # Errors
/// [`ResourceError`].
pub async fn delete<N: Notice>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    id: &str,
    version: Option<u64>,
) -> Result<(), ResourceError> {
    let alone = caller.alone(lock_of("tool", id)).await;
    let tool = get(caller, id).await?;
    ownership::check(&caller.principal, tool.owner.as_deref())?;
    is_version(version, tool.version)?;
    let mut rows = Rows::new();
    rows.hold(alone);
    record::remove(&mut rows, caller.tenant.id(), &tool);
    caller.commit(right, rows, &[]).await
}
