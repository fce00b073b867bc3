//! Core memory: what an agent always has before it, in labelled blocks; its own, shared by all, or one user's.
//!
//! * There is one block of a label for an agent and a user (or none): it is found by these, and changed under their lock.
//! * A user's blocks are seen by them and by who may read all; another user's and none look alike.
//! * A user's blocks are written as that user's memories are. Everybody's are part of the agent: they are written by who may change
//!   the agent.
//! * Each change is told as `memory_update` of the block's id. Without its agent a block cannot be reached.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::record::{self, Page, Position, Record};
use super::{Caller, ResourceError, agents, is_version, next_number};
use crate::auth::{Authorized, WriteAsUser, WriteOwned};
use crate::event::{Event, Kind, check_id};
use crate::store::{Group, List, Rows, Table, scope};
use crate::tenant::publish::Notice;

/// Most characters of a block whose limit nobody set.
pub const BLOCK_CHARS: u32 = 2_000;
/// The highest limit of a block: all blocks of an agent go into every prompt.
pub const BLOCK_CHARS_MOST: u32 = 10_000;

/// What a block is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = CoreMemoryLabel)]
pub enum Label {
    /// Whom the agent talks with.
    Human,
    /// Who the agent is.
    Persona,
    /// What it must keep to.
    System,
}

impl Label {
    /// Every label.
    pub const ALL: [Label; 3] = [Label::Human, Label::Persona, Label::System];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Label::Human => "human",
            Label::Persona => "persona",
            Label::System => "system",
        }
    }

    /// The label of this name.
    ///
    /// # Errors
    /// Another is invalid.
    pub fn named(name: &str) -> Result<Label, ResourceError> {
        let found = Label::ALL.into_iter().find(|label| label.name() == name);
        found.ok_or_else(|| ResourceError::invalid("label", "must be human, persona or system"))
    }
}

/// A block of core memory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Block {
    /// `block-<uuid7>`.
    pub id: String,
    number: u64,
    /// Whose memory it is.
    pub agent_id: String,
    /// Whom it is about; `None`: everybody.
    pub user_id: Option<String>,
    /// What it is about.
    pub label: Label,
    /// The text.
    pub value: String,
    /// Most characters of the text.
    pub limit: u32,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds.
    pub updated_ms: u64,
    /// Counts its changes.
    pub version: u64,
}

/// What a block is to hold.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CoreMemoryChange)]
pub struct Holding {
    /// The text.
    pub value: String,
    /// Most characters of the text; absent: as it is, 2,000 at first.
    #[serde(default, deserialize_with = "crate::whole::optional")]
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
    /// Where it belongs.
    pub(super) fn whose(&self) -> Whose<'_> {
        Whose { agent_id: &self.agent_id, user_id: self.user_id.as_deref() }
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

    /// The event that tells of it; `metadata` is [`Block::metadata`].
    fn told<'a>(&'a self, operation: &'a str, metadata: &'a str) -> Event<'a> {
        let mut event = Event::empty(Kind::MemoryUpdate);
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

/// Whose core memory is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// Which agent's.
    pub agent_id: &'a str,
    /// About whom; `None`: everybody.
    pub user_id: Option<&'a str>,
}

impl Whose<'_> {
    pub(super) fn lock(&self) -> [u8; 32] {
        let user = self.user_id.map(str::as_bytes);
        match user {
            Some(user) => scope(&[b"core memory", self.agent_id.as_bytes(), user]),
            None => scope(&[b"core memory", self.agent_id.as_bytes()]),
        }
    }

    /// Whether the caller sees it; the agent must be there.
    async fn is_seen<N: Notice>(&self, caller: &Caller<'_, N>) -> Result<bool, ResourceError> {
        agents::exists(caller, Kind::MemoryUpdate, self.agent_id).await?;
        let rights = &caller.rights;
        Ok(self.user_id.is_none_or(|user_id| rights.sees_all_users || rights.sub.as_deref() == Some(user_id)))
    }

    /// Its blocks; there are no more than labels.
    async fn blocks<N: Notice>(&self, caller: &Caller<'_, N>) -> Result<Vec<Block>, ResourceError> {
        let page = Page { from: Position::Offset(0), descending: false, limit: Label::ALL.len() };
        let group = Block::of_agent(self.agent_id, self.user_id);
        Ok(record::list(caller.tenants.store(), caller.tenant.id(), group, &page).await?.0)
    }

    async fn block<N: Notice>(
        &self,
        caller: &Caller<'_, N>,
        label: Label,
    ) -> Result<Option<Block>, ResourceError> {
        Ok(self.blocks(caller).await?.into_iter().find(|block| block.label == label))
    }

    /// Whether the caller may write it; the agent must be there.
    async fn may_write<N: Notice>(&self, caller: &Caller<'_, N>) -> Result<(), ResourceError> {
        agents::exists(caller, Kind::MemoryUpdate, self.agent_id).await?;
        let Some(user_id) = self.user_id else { return agents::may_change(caller, self.agent_id).await };
        let mut event = Event::empty(Kind::MemoryUpdate);
        event.agent_id = Some(Cow::Borrowed(self.agent_id));
        event.user_id = Some(Cow::Borrowed(user_id));
        let refused = || ResourceError::Forbidden("the credential may not change this core memory");
        let right = caller.principal.authorize::<WriteAsUser>().map_err(|_| refused())?;
        right.check(&mut event).map_err(|_| refused())
    }
}

/// The blocks of an agent, everybody's or a user's. Another user's are an empty list.
///
/// # Errors
/// [`ResourceError::NotFound`]: no such agent.
pub async fn list<N: Notice>(caller: &Caller<'_, N>, whose: Whose<'_>) -> Result<Vec<Block>, ResourceError> {
    match whose.is_seen(caller).await? {
        true => whose.blocks(caller).await,
        false => Ok(Vec::new()),
    }
}

/// A block.
///
/// # Errors
/// [`ResourceError::NotFound`], also of what the caller may not see.
pub async fn get<N: Notice>(
    caller: &Caller<'_, N>,
    whose: Whose<'_>,
    label: Label,
) -> Result<Block, ResourceError> {
    match whose.is_seen(caller).await? {
        true => whose.block(caller, label).await?.ok_or(ResourceError::NotFound),
        false => Err(ResourceError::NotFound),
    }
}

/// Makes a block, or has it hold something else, if `version` is still its own; whether it is new.
///
/// # Errors
/// [`ResourceError`].
pub async fn put<N: Notice>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    whose: Whose<'_>,
    label: Label,
    version: Option<u64>,
    holding: Holding,
) -> Result<(Block, bool), ResourceError> {
    whose.may_write(caller).await?;
    if let Some(user_id) = whose.user_id {
        check_id(user_id).map_err(|reason| ResourceError::invalid("user_id", reason))?;
    }
    let alone = caller.alone(whose.lock()).await;
    let old = whose.block(caller, label).await?;
    is_version(version, old.as_ref().map_or(0, |old| old.version))?;
    let limit = holding.limit.or(old.as_ref().map(|old| old.limit)).unwrap_or(BLOCK_CHARS);
    check(&holding.value, limit)?;
    let now_ms = caller.now_ms();
    let mut block = old.clone().unwrap_or_else(|| Block {
        id: crate::ids::fresh("block"),
        number: next_number(now_ms),
        agent_id: whose.agent_id.to_owned(),
        user_id: whose.user_id.map(str::to_owned),
        label,
        value: String::new(),
        limit,
        created_ms: now_ms,
        updated_ms: now_ms,
        version: 0,
    });
    block.value = holding.value;
    block.limit = limit;
    block.updated_ms = now_ms;
    block.version += 1;
    let mut rows = Rows::new();
    rows.hold(alone);
    record::put(&mut rows, caller.tenant.id(), old.as_ref(), &block)?;
    let operation = if old.is_some() { "updated" } else { "created" };
    caller.commit(right, rows, &[block.told(operation, &block.metadata())]).await?;
    Ok((block, old.is_none()))
}

/// Deletes a block.
///
/// # Errors
/// [`ResourceError`].
pub async fn delete<N: Notice>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    whose: Whose<'_>,
    label: Label,
    version: Option<u64>,
) -> Result<(), ResourceError> {
    whose.may_write(caller).await?;
    let alone = caller.alone(whose.lock()).await;
    let block = whose.block(caller, label).await?.ok_or(ResourceError::NotFound)?;
    is_version(version, block.version)?;
    let mut rows = Rows::new();
    rows.hold(alone);
    record::remove(&mut rows, caller.tenant.id(), &block);
    caller.commit(right, rows, &[block.told("deleted", &block.metadata())]).await
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
    fn a_text_is_measured_in_characters() {
        assert!(check(&"ä".repeat(20), 20).is_ok());
        assert!(check(&"ä".repeat(21), 20).is_err());
        assert!(check("", 0).is_err() && check("", BLOCK_CHARS_MOST + 1).is_err());
        assert!(check(&"x".repeat(BLOCK_CHARS_MOST as usize), BLOCK_CHARS_MOST).is_ok());
    }

    #[test]
    fn everybodys_and_a_users_have_different_locks_and_places() {
        let whose = |user_id| Whose { agent_id: "agent-1", user_id };
        assert_ne!(whose(None).lock(), whose(Some("ann")).lock());
        assert_ne!(Block::of_agent("agent-1", None), Block::of_agent("agent-1", Some("ann")));
        for label in Label::ALL {
            assert_eq!(Label::named(label.name()).ok(), Some(label));
        }
        assert!(Label::named("Human").is_err());
    }
}
