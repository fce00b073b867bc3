//! Core memory: labelled text blocks that an agent always has in its prompt, either about all users or about
//! one user.
//!
//! * For an agent and a user (or none) there is one block of each label. It is found by these three, and
//!   changed under their lock.
//! * The blocks of a user are visible to that user and to principals that may read all. To others they look
//!   as if they did not exist.
//! * The blocks about one user need the same right as that user's memories. The blocks about all users are
//!   part of the agent: they need the right to change the agent.
//! * Each change publishes `memory_update` with the block's id. When the agent is deleted, its blocks cannot
//!   be reached any more.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::record::{self, PageRequest, PageStart, Record};
use super::{Caller, ResourceError, agents, check_version, next_number};
use crate::auth::{Authorized, WriteAsUser, WriteOwned};
use crate::event::{Event, EventKind, check_id};
use crate::store::{Group, List, Rows, Table, key_digest};
use crate::tenant::publish::CommitWaiter;

/// Default limit of a block's text, in characters.
pub const BLOCK_CHARS: u32 = 2_000;
/// Highest limit of a block's text, in characters. It is low because all blocks of an agent are part of every
/// prompt.
pub const BLOCK_CHARS_MOST: u32 = 10_000;

/// Label of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = CoreMemoryLabel)]
pub enum Label {
    /// The person that the agent talks with.
    Human,
    /// The character of the agent.
    Persona,
    /// Rules that the agent must follow.
    System,
}

impl Label {
    /// All labels.
    pub const ALL: [Label; 3] = [Label::Human, Label::Persona, Label::System];

    /// Returns the label's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Label::Human => "human",
            Label::Persona => "persona",
            Label::System => "system",
        }
    }

    /// Returns the label with this name.
    ///
    /// # Errors
    /// The name is not a label.
    pub fn named(name: &str) -> Result<Label, ResourceError> {
        let found = Label::ALL.into_iter().find(|label| label.name() == name);
        found.ok_or_else(|| ResourceError::invalid("label", "must be human, persona or system"))
    }
}

/// A block of core memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Block {
    /// Id: `block-<uuid7>`.
    pub id: String,
    number: u64,
    /// Agent whose core memory the block is in.
    pub agent_id: String,
    /// User that the block is about; `None` means all users.
    pub user_id: Option<String>,
    /// Label of the block.
    pub label: Label,
    /// Text of the block.
    pub value: String,
    /// Maximum length of the text, in characters.
    pub limit: u32,
    /// Time of creation, Unix milliseconds.
    pub created_ms: u64,
    /// Time of the last change, Unix milliseconds.
    pub updated_ms: u64,
    /// Version; it increases with each change.
    pub version: u64,
}

/// New content of a block.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CoreMemoryChange)]
pub struct BlockContent {
    /// Text of the block.
    pub value: String,
    /// Maximum length of the text, in characters. If left out, the limit stays as it is; a new block has
    /// 2,000.
    #[serde(default, deserialize_with = "crate::json_integer::optional")]
    pub limit: Option<u32>,
}

impl Record for Block {
    const TABLE: Table = Table::CoreMemory;
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
        let user = self.user_id.as_deref();
        let of_user = user.map(Block::of_user);
        std::iter::once(Block::of_agent(&self.agent_id, user)).chain(of_user).collect()
    }
}

impl Block {
    /// The agent and user that the block belongs to.
    pub(super) fn owner(&self) -> CoreMemoryOwner<'_> {
        CoreMemoryOwner { agent_id: &self.agent_id, user_id: self.user_id.as_deref() }
    }
    fn of_agent(agent_id: &str, user_id: Option<&str>) -> Group {
        match user_id {
            Some(user_id) => Group::new(List::CoreMemoryOfAgent, &[agent_id, user_id]),
            None => Group::new(List::CoreMemoryOfAgent, &[agent_id]),
        }
    }

    pub(super) fn of_user(user_id: &str) -> Group {
        Group::new(List::CoreMemoryOfUser, &[user_id])
    }

    /// The event that reports a change of this block. `metadata` is [`Block::metadata`].
    fn event<'a>(&'a self, operation: &'a str, metadata: &'a str) -> Event<'a> {
        let mut event = Event::empty(EventKind::MemoryUpdate);
        event.memory_id = Some(Cow::Borrowed(&self.id));
        event.agent_id = Some(Cow::Borrowed(&self.agent_id));
        event.operation = Some(Cow::Borrowed(operation));
        event.user_id = self.user_id.as_deref().map(Cow::Borrowed);
        event.metadata = Some(Cow::Borrowed(metadata));
        event
    }

    fn metadata(&self) -> String {
        format!("{{\"core_memory\":\"{}\"}}", self.label.name())
    }
}

/// Selects the core memory of an agent about one user or about all users.
#[derive(Clone, Copy, Debug)]
pub struct CoreMemoryOwner<'a> {
    /// The agent.
    pub agent_id: &'a str,
    /// The user; `None` means the blocks about all users.
    pub user_id: Option<&'a str>,
}

impl CoreMemoryOwner<'_> {
    pub(super) fn lock(&self) -> [u8; 32] {
        let user = self.user_id.map(str::as_bytes);
        match user {
            Some(user) => key_digest(&[b"core memory", self.agent_id.as_bytes(), user]),
            None => key_digest(&[b"core memory", self.agent_id.as_bytes()]),
        }
    }

    /// Returns true if the caller may see these blocks. The agent must exist.
    async fn is_seen<N: CommitWaiter>(&self, caller: &Caller<'_, N>) -> Result<bool, ResourceError> {
        agents::exists(caller, EventKind::MemoryUpdate, self.agent_id).await?;
        let rights = &caller.rights;
        Ok(self.user_id.is_none_or(|user_id| rights.sees_all_users || rights.sub.as_deref() == Some(user_id)))
    }

    /// Reads the blocks. There are at most as many as labels.
    async fn blocks<N: CommitWaiter>(&self, caller: &Caller<'_, N>) -> Result<Vec<Block>, ResourceError> {
        let page = PageRequest { from: PageStart::Offset(0), descending: false, limit: Label::ALL.len() };
        let group = Block::of_agent(self.agent_id, self.user_id);
        Ok(record::list(caller.tenants.store(), caller.tenant.id(), group, &page).await?.0)
    }

    async fn block<N: CommitWaiter>(
        &self,
        caller: &Caller<'_, N>,
        label: Label,
    ) -> Result<Option<Block>, ResourceError> {
        Ok(self.blocks(caller).await?.into_iter().find(|block| block.label == label))
    }

    /// Checks that the caller may change these blocks. The agent must exist.
    async fn may_write<N: CommitWaiter>(&self, caller: &Caller<'_, N>) -> Result<(), ResourceError> {
        agents::exists(caller, EventKind::MemoryUpdate, self.agent_id).await?;
        let Some(user_id) = self.user_id else { return agents::may_change(caller, self.agent_id).await };
        let mut event = Event::empty(EventKind::MemoryUpdate);
        event.agent_id = Some(Cow::Borrowed(self.agent_id));
        event.user_id = Some(Cow::Borrowed(user_id));
        let refused = || ResourceError::Forbidden("the credential may not change this core memory");
        let right = caller.principal.authorize::<WriteAsUser>().map_err(|_| refused())?;
        right.check(&mut event).map_err(|_| refused())
    }
}

/// Lists the blocks of an agent about all users, or about one user. For another user the list is empty.
///
/// # Errors
/// [`ResourceError::NotFound`]: the agent does not exist.
pub async fn list<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    owner: CoreMemoryOwner<'_>,
) -> Result<Vec<Block>, ResourceError> {
    match owner.is_seen(caller).await? {
        true => owner.blocks(caller).await,
        false => Ok(Vec::new()),
    }
}

/// Gets a block.
///
/// # Errors
/// [`ResourceError::NotFound`], also for a block that the caller may not see.
pub async fn get<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    owner: CoreMemoryOwner<'_>,
    label: Label,
) -> Result<Block, ResourceError> {
    match owner.is_seen(caller).await? {
        true => owner.block(caller, label).await?.ok_or(ResourceError::NotFound),
        false => Err(ResourceError::NotFound),
    }
}

/// Creates or replaces a block, if `version` is still the current one. Also returns whether it is new.
///
/// # Errors
/// [`ResourceError`].
pub async fn put<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    owner: CoreMemoryOwner<'_>,
    label: Label,
    version: Option<u64>,
    content: BlockContent,
) -> Result<(Block, bool), ResourceError> {
    owner.may_write(caller).await?;
    if let Some(user_id) = owner.user_id {
        check_id(user_id).map_err(|reason| ResourceError::invalid("user_id", reason))?;
    }
    let guard = caller.lock(owner.lock()).await;
    let old = owner.block(caller, label).await?;
    check_version(version, old.as_ref().map_or(0, |old| old.version))?;
    let limit = content.limit.or(old.as_ref().map(|old| old.limit)).unwrap_or(BLOCK_CHARS);
    check(&content.value, limit)?;
    let now_ms = caller.now_ms();
    let mut block = old.clone().unwrap_or_else(|| Block {
        id: crate::ids::fresh("block"),
        number: next_number(now_ms),
        agent_id: owner.agent_id.to_owned(),
        user_id: owner.user_id.map(str::to_owned),
        label,
        value: String::new(),
        limit,
        created_ms: now_ms,
        updated_ms: now_ms,
        version: 0,
    });
    block.value = content.value;
    block.limit = limit;
    block.updated_ms = now_ms;
    block.version += 1;
    let mut rows = Rows::new();
    rows.hold_until_commit(guard);
    record::put(&mut rows, caller.tenant.id(), old.as_ref(), &block)?;
    let operation = if old.is_some() { "updated" } else { "created" };
    caller.commit(right, rows, &[block.event(operation, &block.metadata())]).await?;
    Ok((block, old.is_none()))
}

/// Deletes a block.
///
/// # Errors
/// [`ResourceError`].
pub async fn delete<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    owner: CoreMemoryOwner<'_>,
    label: Label,
    version: Option<u64>,
) -> Result<(), ResourceError> {
    owner.may_write(caller).await?;
    let guard = caller.lock(owner.lock()).await;
    let block = owner.block(caller, label).await?.ok_or(ResourceError::NotFound)?;
    check_version(version, block.version)?;
    let mut rows = Rows::new();
    rows.hold_until_commit(guard);
    record::remove(&mut rows, caller.tenant.id(), &block);
    caller.commit(right, rows, &[block.event("deleted", &block.metadata())]).await
}

fn check(value: &str, limit: u32) -> Result<(), ResourceError> {
    if !(1..=BLOCK_CHARS_MOST).contains(&limit) {
        return Err(ResourceError::invalid("limit", format!("must be 1 to {BLOCK_CHARS_MOST} characters")));
    }
    match value.chars().count() {
        chars if chars > limit as usize => {
            Err(ResourceError::invalid("value", format!("is {chars} characters, the limit is {limit}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_a_block_counts_characters() {
        assert!(check(&"ä".repeat(20), 20).is_ok());
        assert!(check(&"ä".repeat(21), 20).is_err());
        assert!(check("", 0).is_err() && check("", BLOCK_CHARS_MOST + 1).is_err());
        assert!(check(&"x".repeat(BLOCK_CHARS_MOST as usize), BLOCK_CHARS_MOST).is_ok());
    }

    #[test]
    fn shared_and_user_blocks_have_different_locks_and_groups() {
        let owner = |user_id| CoreMemoryOwner { agent_id: "agent-1", user_id };
        assert_ne!(owner(None).lock(), owner(Some("ann")).lock());
        assert_ne!(Block::of_agent("agent-1", None), Block::of_agent("agent-1", Some("ann")));
        for label in Label::ALL {
            assert_eq!(Label::named(label.name()).ok(), Some(label));
        }
        assert!(Label::named("Human").is_err());
    }
}
