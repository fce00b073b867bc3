//! Agents: their fields and their state, and `agent_update` for every change.
//!
//! * A deleted agent leaves no row, so it does not count against its organization's quota. Its messages still
//!   name it.
//! * [`AgentStatus::may_become`] is the state machine. Setting the current state again changes only
//!   `last_active_at`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::list_resource::{self, ListResource, ListSource, Operation, PatchResource};
use super::record::{self, Record};
use super::{
    Caller, ResourceError, TEXT_BYTES, check_json, check_name, check_object, check_text, double_option,
    next_number, ownership,
};
use crate::auth::{Authorized, Principal, WriteOwned};
use crate::event::{Event, EventKind};
use crate::filter::Rights;
use crate::store::{Group, List, Table};
use crate::tenant::Tenant;
use crate::tenant::publish::CommitWaiter;

/// State of an agent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AgentStatus)]
pub enum AgentStatus {
    /// The agent has no task.
    #[default]
    Idle,
    /// The agent is reasoning.
    Thinking,
    /// The agent is executing an action.
    Executing,
    /// The agent is waiting for something.
    Waiting,
    /// The agent has failed.
    Error,
}

impl AgentStatus {
    /// Returns true if `next` may follow this state.
    #[must_use]
    pub fn may_become(self, next: AgentStatus) -> bool {
        use AgentStatus::{Error, Executing, Idle, Thinking, Waiting};
        self == next
            || next == Error
            || matches!(
                (self, next),
                (Idle, Thinking)
                    | (Thinking, Executing | Idle)
                    | (Executing, Idle | Waiting)
                    | (Waiting, Executing | Idle)
                    | (Error, Idle)
            )
    }

    /// Returns the state's name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            AgentStatus::Idle => "idle",
            AgentStatus::Thinking => "thinking",
            AgentStatus::Executing => "executing",
            AgentStatus::Waiting => "waiting",
            AgentStatus::Error => "error",
        }
    }
}

/// JSON text, stored as it was sent.
pub type Json = Box<RawValue>;

/// An agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Agent {
    /// Id: `agent-<uuid7>`.
    pub id: String,
    number: u64,
    /// User who may change the agent with the scope `write`. `None` means that only the scope `agents` can
    /// change it.
    #[serde(default)]
    pub owner: Option<String>,
    /// The fields that its owner sets.
    #[serde(rename = "said")]
    pub fields: AgentFields,
    /// Current state.
    pub state: AgentStatus,
    /// Reason of the failure, if the state is `Error`.
    pub error_message: Option<String>,
    /// When the state was last set, Unix milliseconds.
    pub last_active_ms: Option<u64>,
    /// Time of creation, Unix milliseconds.
    pub created_ms: u64,
    /// Time of the last change, Unix milliseconds.
    pub updated_ms: u64,
    /// Version; it increases with each change.
    pub version: u64,
    deleted_ms: Option<u64>,
}

/// The fields of an agent that its owner sets. All are optional.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AgentFields {
    /// Name, not blank, at most 255 bytes.
    pub name: Option<String>,
    /// Description for people.
    pub description: Option<String>,
    /// System prompt.
    pub system: Option<String>,
    /// Type of the agent, as the platform defines it.
    pub agent_type: Option<String>,
    /// Model settings, as the platform defines them.
    pub llm_config: Option<Json>,
    /// Embedding settings, as the platform defines them.
    pub embedding_config: Option<Json>,
    /// Tool rules, as the platform defines them.
    pub tool_rules: Option<Json>,
    /// A JSON object.
    pub metadata: Option<Json>,
}

/// A change of an agent. A field that is left out stays as it is; `null` clears it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = AgentChange)]
pub struct AgentPatch {
    /// Name for people, not blank.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "double_option")]
    name: Option<Option<String>>,
    /// Description for people.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "double_option")]
    description: Option<Option<String>>,
    /// System prompt.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "double_option")]
    system: Option<Option<String>>,
    /// Type of the agent, as the platform defines it.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "double_option")]
    agent_type: Option<Option<String>>,
    /// Model settings, as the platform defines them.
    #[schema(value_type = Option<Object>)]
    #[serde(deserialize_with = "double_option")]
    llm_config: Option<Option<Json>>,
    /// Embedding settings, as the platform defines them.
    #[schema(value_type = Option<Object>)]
    #[serde(deserialize_with = "double_option")]
    embedding_config: Option<Option<Json>>,
    /// Tool rules, as the platform defines them.
    #[schema(value_type = Option<Object>)]
    #[serde(deserialize_with = "double_option")]
    tool_rules: Option<Option<Json>>,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    #[serde(deserialize_with = "double_option")]
    metadata: Option<Option<Json>>,
    /// User who may change the agent. A new agent belongs to the caller if this is left out. Only the scope
    /// `agents` allows another user, or `null` for none.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "double_option")]
    owner: Option<Option<String>>,
}

impl AgentFields {
    fn patched(self, patch: AgentPatch) -> Result<AgentFields, ResourceError> {
        Ok(AgentFields {
            name: check_name("name", patch.name.unwrap_or(self.name))?,
            description: check_text(
                "description",
                patch.description.unwrap_or(self.description),
                TEXT_BYTES,
            )?,
            system: check_text("system", patch.system.unwrap_or(self.system), TEXT_BYTES)?,
            agent_type: check_name("agent_type", patch.agent_type.unwrap_or(self.agent_type))?,
            llm_config: check_json("llm_config", patch.llm_config.unwrap_or(self.llm_config))?,
            embedding_config: check_json(
                "embedding_config",
                patch.embedding_config.unwrap_or(self.embedding_config),
            )?,
            tool_rules: check_json("tool_rules", patch.tool_rules.unwrap_or(self.tool_rules))?,
            metadata: check_object("metadata", patch.metadata.unwrap_or(self.metadata))?,
        })
    }
}

impl Record for Agent {
    const TABLE: Table = Table::Agents;
    fn id(&self) -> &str {
        &self.id
    }
    fn number(&self) -> u64 {
        self.number
    }
    fn groups(&self) -> Vec<Group> {
        match self.deleted_ms {
            None => vec![Group::new(List::AllAgents, &[])],
            Some(_) => Vec::new(),
        }
    }
}

impl ListResource for Agent {
    const KIND: &'static str = "agent";
    type WriteRight = WriteOwned;
    type New = AgentPatch;
    type Filter = ();

    fn version(&self) -> u64 {
        self.version
    }
    fn event(&self, operation: Operation) -> Option<Event<'_>> {
        let mut event = Event::empty(EventKind::AgentUpdate);
        event.agent_id = Some(Cow::Borrowed(&self.id));
        let (status, error_message) = match operation {
            Operation::Update => (self.state.name(), self.error_message.as_deref()),
            Operation::Create | Operation::Delete => (operation.name(), None),
        };
        event.status = Some(Cow::Borrowed(status));
        event.error_message = error_message.map(Cow::Borrowed);
        Some(event)
    }
    fn permits_id(rights: &Rights, id: &str) -> bool {
        rights.narrowing.permits(EventKind::AgentUpdate, Some(id), None)
    }
    fn is_visible(&self, _: &Rights) -> bool {
        self.deleted_ms.is_none()
    }
    fn check_write(&self, right: &Authorized<WriteOwned>) -> Result<(), ResourceError> {
        ownership::check(right.principal(), self.owner.as_deref())
    }
    fn source(rights: &Rights, (): &()) -> Result<ListSource, ResourceError> {
        let narrowing = &rights.narrowing;
        Ok(match narrowing.agents() {
            // A credential is narrowed to a few agents, so those are read one by one and no others.
            Some(ids) => ListSource::Ids(ids.iter().map(str::to_owned).collect()),
            None if narrowing.permits(EventKind::AgentUpdate, None, None) => {
                ListSource::Groups(Group::new(List::AllAgents, &[]).into())
            }
            None => ListSource::Empty,
        })
    }
    async fn build<N: CommitWaiter>(
        caller: &Caller<'_, N>,
        _: &Authorized<WriteOwned>,
        mut new: AgentPatch,
    ) -> Result<Agent, ResourceError> {
        let owner = ownership::of_new(&caller.principal, new.owner.take())?;
        let now_ms = caller.now_ms();
        let agent = Agent {
            id: crate::ids::fresh("agent"),
            number: next_number(now_ms),
            owner,
            fields: AgentFields::default().patched(new)?,
            state: AgentStatus::Idle,
            error_message: None,
            last_active_ms: None,
            created_ms: now_ms,
            updated_ms: now_ms,
            version: 1,
            deleted_ms: None,
        };
        match Agent::permits_id(&caller.rights, &agent.id) {
            true => Ok(agent),
            false => Err(ResourceError::Forbidden("the credential is narrowed to other agents")),
        }
    }
    fn forget(&self, tenant: &Tenant) {
        tenant.forget_known(&Agent::lock(&self.id));
    }
}

impl PatchResource for Agent {
    type Patch = AgentPatch;

    fn patched(mut self, principal: &Principal, mut patch: AgentPatch) -> Result<Agent, ResourceError> {
        self.owner = ownership::of_changed(principal, self.owner, patch.owner.take())?;
        self.fields = self.fields.patched(patch)?;
        Ok(self)
    }
    fn advance_version(&mut self, now_ms: u64) {
        self.updated_ms = now_ms;
        self.version += 1;
    }
}

async fn find_live<N: CommitWaiter>(caller: &Caller<'_, N>, id: &str) -> Result<Agent, ResourceError> {
    let found: Option<Agent> = record::get(caller.tenants.store(), caller.tenant.id(), id).await?;
    found.filter(|agent| agent.deleted_ms.is_none()).ok_or(ResourceError::NotFound)
}

/// Checks that an agent exists for which the caller may see events of this kind. Agents that are often
/// requested are checked without a read.
///
/// # Errors
/// [`ResourceError::NotFound`].
pub async fn exists<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    kind: EventKind,
    id: &str,
) -> Result<(), ResourceError> {
    if !caller.rights.narrowing.permits(kind, Some(id), None) {
        return Err(ResourceError::NotFound);
    }
    let lock = Agent::lock(id);
    if caller.tenant.is_known(&lock) {
        return Ok(());
    }
    let _guard = caller.lock(lock).await;
    find_live(caller, id).await?;
    caller.tenant.remember_known(lock);
    Ok(())
}

/// Checks that the caller may change an agent, or what belongs to it. [`exists`] has already checked that the
/// caller may see it.
///
/// # Errors
/// [`ResourceError::NotFound`], [`ResourceError::Forbidden`].
pub(super) async fn may_change<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    id: &str,
) -> Result<(), ResourceError> {
    ownership::check(&caller.principal, find_live(caller, id).await?.owner.as_deref())
}

/// Sets an agent's state, if `version` is still the current one.
///
/// # Errors
/// [`ResourceError::Conflict`]: the state may not follow the current one.
pub async fn set_state<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    id: &str,
    version: Option<u64>,
    state: AgentStatus,
    error_message: Option<String>,
) -> Result<Agent, ResourceError> {
    let error_message = check_text("error_message", error_message, TEXT_BYTES)?;
    list_resource::update(caller, right, id, version, |mut agent: Agent, now_ms| {
        if !agent.state.may_become(state) {
            let (from, to) = (agent.state.name(), state.name());
            return Err(ResourceError::Conflict(format!("an agent that is {from} cannot become {to}")));
        }
        agent.state = state;
        agent.error_message = error_message.filter(|_| state == AgentStatus::Error);
        agent.last_active_ms = Some(now_ms);
        Ok(agent)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::AgentStatus::{Error, Executing, Idle, Thinking, Waiting};
    use super::*;

    #[test]
    fn agent_states_change_as_the_protocol_allows() {
        let all = [Idle, Thinking, Executing, Waiting, Error];
        let allowed = [
            (Idle, vec![Idle, Thinking, Error]),
            (Thinking, vec![Idle, Thinking, Executing, Error]),
            (Executing, vec![Idle, Executing, Waiting, Error]),
            (Waiting, vec![Idle, Executing, Waiting, Error]),
            (Error, vec![Idle, Error]),
        ];
        for (from, to) in allowed {
            assert_eq!(
                all.into_iter().filter(|next| from.may_become(*next)).collect::<Vec<_>>(),
                to,
                "{from:?}"
            );
        }
    }

    #[test]
    fn a_patch_keeps_absent_fields_and_clears_null_fields() {
        let fields =
            AgentFields { name: Some("a".into()), system: Some("s".into()), ..AgentFields::default() };
        let patch: AgentPatch = serde_json::from_str(r#"{"system":null,"description":"d"}"#).expect("valid");
        let fields = fields.patched(patch).expect("valid");
        assert_eq!(
            (fields.name.as_deref(), fields.system, fields.description.as_deref()),
            (Some("a"), None, Some("d"))
        );
        assert!(serde_json::from_str::<AgentPatch>(r#"{"nmae":"x"}"#).is_err());
    }
}
