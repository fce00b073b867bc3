//! Memories: what agents and users must remember. They can be searched by words; each change makes a version
//! and publishes `memory_update`.
//!
//! * A memory of a user is visible to that user and to principals that may read all; a memory without a user
//!   is visible to the whole organization. A principal may write a memory if it could publish the memory's
//!   event.
//! * The user and agent of a memory never change. A memory belongs to four groups (all, of its agent, of its
//!   user, of both). Each group has its own list and search index, so no row is read only to be skipped.
//! * An event must name an agent, so a memory without one is published as [`NO_AGENT`]'s. Agents' ids are
//!   generated, so no agent has this id.
//! * A deleted memory leaves no version and no word behind.

pub mod batch;
mod indexed;
mod kinds;
pub mod search;
mod versions;
mod words;

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

pub use kinds::{MemoryType, Scope};
pub use versions::{VERSIONS, Version, history};
pub use words::{WORDS, WORDS_ASKED};

use super::agent_user::{self, AgentUserFilter, AgentUserLists, EVERYBODY};
use super::agents::{self, Json};
use super::list_resource::{ListResource, ListSource, Operation, PatchResource};
use super::record::{self, Record};
use super::{Caller, ResourceError, check_object, double_option, next_number};
use crate::auth::{Authorized, Principal, WriteAsUser};
use crate::event::{Event, EventKind, check_id};
use crate::filter::Rights;
use crate::ids::TenantId;
use crate::store::{Group, List, Rows, Table};
use crate::tenant::publish::CommitWaiter;

const ID_PREFIX: &str = "memory";
/// Maximum length of a memory's text, in characters.
pub const CONTENT_CHARS: usize = 10_000;
/// The agent that the event of a memory without an agent names. Requests select such memories with it.
pub const NO_AGENT: &str = "none";
/// The lists that memories belong to.
const LISTS: AgentUserLists = AgentUserLists {
    all: List::AllMemories,
    of_agent: List::MemoriesOfAgent,
    of_user: List::MemoriesOfUser,
    of_agent_and_user: List::MemoriesOfAgentAndUser,
};
const IMPORTANCE: f64 = 0.5;

/// A memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Memory {
    /// Id: `memory-<uuid7>`.
    pub id: String,
    number: u64,
    /// Agent that the memory belongs to, if any.
    pub agent_id: Option<String>,
    /// User that the memory belongs to; `None` means all users.
    pub user_id: Option<String>,
    /// What the memory belongs to, if it was given.
    pub scope: Option<Scope>,
    /// The fields that can be changed.
    #[serde(rename = "said")]
    pub fields: MemoryFields,
    /// Time of creation, Unix milliseconds.
    pub created_ms: u64,
    /// Time of the last change, Unix milliseconds.
    pub updated_ms: u64,
    /// Version; it increases with each change.
    pub version: u64,
}

/// The fields of a memory that can be changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoryFields {
    /// Text, 1 to [`CONTENT_CHARS`] characters.
    pub content: String,
    /// Type of the memory.
    pub memory_type: MemoryType,
    /// Importance, 0 to 1.
    pub importance: f64,
    /// A JSON object.
    pub metadata: Option<Json>,
}

/// A memory to create.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMemory {
    /// Agent that the memory belongs to, if any. It must exist.
    pub agent_id: Option<String>,
    /// User that the memory belongs to. If left out: the caller, or all users if the caller may write for the
    /// whole organization.
    pub user_id: Option<String>,
    /// Text of the memory.
    pub content: Option<String>,
    /// Type of the memory; `Semantic` if left out.
    pub memory_type: Option<MemoryType>,
    /// Importance, 0 to 1; 0.5 if left out.
    pub importance: Option<f64>,
    /// What the memory belongs to.
    pub scope: Option<Scope>,
    /// A JSON object.
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Json>,
}

/// A change of a memory. A field that is left out stays as it is; `null` resets it to its default.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = MemoryChange)]
pub struct MemoryPatch {
    /// Text of the memory.
    content: Option<String>,
    /// Type of the memory.
    #[schema(value_type = Option<MemoryType>)]
    #[serde(deserialize_with = "double_option")]
    memory_type: Option<Option<MemoryType>>,
    /// Importance, 0 to 1.
    #[schema(value_type = Option<f64>)]
    #[serde(deserialize_with = "double_option")]
    importance: Option<Option<f64>>,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    #[serde(deserialize_with = "double_option")]
    metadata: Option<Option<Json>>,
}

impl MemoryFields {
    fn new(
        content: Option<String>,
        memory_type: Option<MemoryType>,
        importance: Option<f64>,
        metadata: Option<Json>,
    ) -> Result<MemoryFields, ResourceError> {
        let content = content.ok_or_else(|| ResourceError::invalid("content", "is required"))?;
        let characters = content.chars().count();
        if !(1..=CONTENT_CHARS).contains(&characters) {
            let reason = format!("has {characters} characters, must have 1 to {CONTENT_CHARS}");
            return Err(ResourceError::invalid("content", reason));
        }
        let importance = importance.unwrap_or(IMPORTANCE);
        if !(0.0..=1.0).contains(&importance) {
            return Err(ResourceError::invalid("importance", "must be a number from 0 to 1"));
        }
        let metadata = check_object("metadata", metadata)?;
        Ok(MemoryFields { content, memory_type: memory_type.unwrap_or_default(), importance, metadata })
    }

    fn patched(self, patch: MemoryPatch) -> Result<MemoryFields, ResourceError> {
        MemoryFields::new(
            Some(patch.content.unwrap_or(self.content)),
            patch.memory_type.unwrap_or(Some(self.memory_type)),
            patch.importance.unwrap_or(Some(self.importance)),
            patch.metadata.unwrap_or(self.metadata),
        )
    }
}

impl Record for Memory {
    const TABLE: Table = Table::Memories;
    fn id(&self) -> &str {
        &self.id
    }
    fn number(&self) -> u64 {
        self.number
    }
    fn user(&self) -> Option<&str> {
        self.user_id.as_deref()
    }
    fn groups(&self) -> Vec<Group> {
        LISTS.groups(self.agent(), self.user_id.as_deref().unwrap_or(EVERYBODY))
    }
}

impl Memory {
    /// The list of a user's memories.
    pub(super) fn of_user(user: &str) -> Group {
        Group::new(List::MemoriesOfUser, &[user])
    }

    fn agent(&self) -> &str {
        self.agent_id.as_deref().unwrap_or(NO_AGENT)
    }

    fn as_event(&self, operation: Operation) -> Event<'_> {
        let mut event = Event::empty(EventKind::MemoryUpdate);
        event.memory_id = Some(Cow::Borrowed(&self.id));
        event.agent_id = Some(Cow::Borrowed(self.agent()));
        event.user_id = self.user_id.as_deref().map(Cow::Borrowed);
        event.operation = Some(Cow::Borrowed(operation.name()));
        event
    }
}

impl ListResource for Memory {
    const KIND: &'static str = "memory";
    type WriteRight = WriteAsUser;
    type New = NewMemory;
    type Filter = AgentUserFilter;

    fn version(&self) -> u64 {
        self.version
    }
    fn event(&self, operation: Operation) -> Option<Event<'_>> {
        Some(self.as_event(operation))
    }
    fn is_visible(&self, rights: &Rights) -> bool {
        rights.permit_resource(EventKind::MemoryUpdate, Some(self.agent()), self.user_id.as_deref())
    }
    fn check_write(&self, right: &Authorized<WriteAsUser>) -> Result<(), ResourceError> {
        match agent_user::may_publish(right, self.as_event(Operation::Update)) {
            true => Ok(()),
            false => Err(ResourceError::Forbidden("the credential may not write this memory")),
        }
    }
    fn source(rights: &Rights, filter: &AgentUserFilter) -> Result<ListSource, ResourceError> {
        Ok(ListSource::any_of(visible_groups(rights, filter)?))
    }
    /// An agent that does not exist is an invalid `agent_id`.
    async fn build<N: CommitWaiter>(
        caller: &Caller<'_, N>,
        right: &Authorized<WriteAsUser>,
        new: NewMemory,
    ) -> Result<Memory, ResourceError> {
        let now_ms = caller.now_ms();
        for (field, id) in [("agent_id", &new.agent_id), ("user_id", &new.user_id)] {
            let checked = id.as_deref().map_or(Ok(()), check_id);
            checked.map_err(|reason| ResourceError::invalid(field, reason))?;
        }
        let mut memory = Memory {
            id: crate::ids::fresh(ID_PREFIX),
            number: next_number(now_ms),
            agent_id: new.agent_id,
            user_id: new.user_id,
            scope: new.scope,
            fields: MemoryFields::new(new.content, new.memory_type, new.importance, new.metadata)?,
            created_ms: now_ms,
            updated_ms: now_ms,
            version: 1,
        };
        // For a credential that is narrowed to other agents, this agent does not exist.
        let no_agent = || ResourceError::invalid("agent_id", "there is no such agent");
        if memory.agent_id.as_ref().is_some_and(|id| !caller.rights.narrowing.permits_agent(id)) {
            return Err(no_agent());
        }
        let mut event = memory.as_event(Operation::Create);
        right
            .check(&mut event)
            .map_err(|_| ResourceError::Forbidden("the credential may not create this memory"))?;
        let user_id = event.user_id.map(Cow::into_owned);
        memory.user_id = user_id;
        if let Some(agent_id) = &memory.agent_id {
            match agents::exists(caller, EventKind::MemoryUpdate, agent_id).await {
                Err(ResourceError::NotFound) => return Err(no_agent()),
                found => found?,
            }
        }
        Ok(memory)
    }
    fn put(
        rows: &mut Rows,
        tenant: TenantId,
        old: Option<&Memory>,
        new: &Memory,
        operation: Operation,
    ) -> Result<(), ResourceError> {
        record::put(rows, tenant, old, new)?;
        versions::put(rows, tenant, new, operation.name())?;
        indexed::put(rows, tenant, old, new)
    }
    fn remove(&self, rows: &mut Rows, tenant: TenantId) {
        record::remove(rows, tenant, self);
        versions::remove(rows, tenant, self);
        indexed::remove(rows, tenant, self);
    }
}

impl PatchResource for Memory {
    type Patch = MemoryPatch;

    fn patched(mut self, _: &Principal, patch: MemoryPatch) -> Result<Memory, ResourceError> {
        self.fields = self.fields.patched(patch)?;
        Ok(self)
    }
    fn advance_version(&mut self, now_ms: u64) {
        self.updated_ms = now_ms;
        self.version += 1;
    }
}

/// Returns the groups of the memories that the caller may see.
fn visible_groups(rights: &Rights, filter: &AgentUserFilter) -> Result<Vec<Group>, ResourceError> {
    match filter.permits_agent(rights, EventKind::MemoryUpdate)? {
        true => Ok(LISTS.of_users(filter.agent_id.as_deref(), &filter.visible_users(rights))),
        false => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields_of(json: &str) -> Result<MemoryFields, ResourceError> {
        let new: NewMemory = serde_json::from_str(json).expect(json);
        MemoryFields::new(new.content, new.memory_type, new.importance, new.metadata)
    }

    #[test]
    fn a_memory_with_invalid_fields_is_refused() {
        let plain = fields_of(r#"{"content":"x"}"#).expect("valid");
        assert_eq!((plain.memory_type, plain.importance), (MemoryType::Semantic, 0.5));
        let full = format!(r#"{{"content":"{}","importance":1,"metadata":{{}}}}"#, "ü".repeat(CONTENT_CHARS));
        assert!(fields_of(&full).is_ok(), "characters are counted, not bytes");
        let long = format!(r#"{{"content":"{}"}}"#, "x".repeat(CONTENT_CHARS + 1));
        for bad in [
            "{}",
            r#"{"content":""}"#,
            &long,
            r#"{"content":"x","importance":1.01}"#,
            r#"{"content":"x","importance":-0.1}"#,
            r#"{"content":"x","metadata":[]}"#,
        ] {
            assert!(fields_of(bad).is_err(), "{bad:.60}");
        }
        assert!(serde_json::from_str::<NewMemory>(r#"{"content":"x","importance":1e999}"#).is_err());
    }

    #[test]
    fn a_patch_keeps_absent_fields_and_resets_null_fields() {
        let old = fields_of(r#"{"content":"x","memory_type":"core","importance":1,"metadata":{"a":1}}"#)
            .expect("valid");
        let change = |json: &str| {
            let patch: MemoryPatch = serde_json::from_str(json).expect(json);
            old.clone().patched(patch).expect(json)
        };
        let same = change("{}");
        assert_eq!((same.content.as_str(), same.memory_type, same.importance), ("x", MemoryType::Core, 1.0));
        let cleared = change(r#"{"content":"y","memory_type":null,"importance":null,"metadata":null}"#);
        assert_eq!(
            (cleared.content.as_str(), cleared.memory_type, cleared.importance),
            ("y", MemoryType::Semantic, 0.5)
        );
        assert!(cleared.metadata.is_none() && same.metadata.is_some());
        for bad in [r#"{"user_id":"eve"}"#, r#"{"agent_id":"a"}"#, r#"{"memory_type":"vague"}"#] {
            assert!(serde_json::from_str::<MemoryPatch>(bad).is_err(), "{bad}");
        }
    }
}
