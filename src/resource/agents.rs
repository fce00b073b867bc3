//! Agents: what a platform knows of each, its state, and `agent_update` for everything that happens to it.
//!
//! * A deleted agent leaves no row, so that it takes none of its organization's quota; its messages still name it.
//! * The state machine is [`State::may_become`]; whoever sets the state it has already changes nothing but `last_active_at`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::record::{self, Page, Position, Record};
use super::{
    Caller, ResourceError, TEXT_BYTES, free, given, is_version, lock_of, named, next_number, object,
    ownership, short,
};
use crate::auth::{Authorized, WriteOwned};
use crate::event::{Event, Kind};
use crate::store::{Group, List, Rows, Table};
use crate::tenant::publish::Notice;

/// What locks of agents are named with.
const KIND: &str = "agent";

/// What an agent does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = AgentStatus)]
pub enum State {
    /// Nothing.
    #[default]
    Idle,
    /// It thinks.
    Thinking,
    /// It acts.
    Executing,
    /// It waits for something.
    Waiting,
    /// It failed.
    Error,
}

impl State {
    /// Whether this state may follow upon `self`.
    #[must_use]
    pub fn may_become(self, next: State) -> bool {
        use State::{Error, Executing, Idle, Thinking, Waiting};
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

    /// Its name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            State::Idle => "idle",
            State::Thinking => "thinking",
            State::Executing => "executing",
            State::Waiting => "waiting",
            State::Error => "error",
        }
    }
}

/// JSON text, kept as it was sent.
pub type Json = Box<RawValue>;

/// An agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Agent {
    /// `agent-<uuid7>`.
    pub id: String,
    number: u64,
    /// The user who may change it with the scope `write`; `None`: it takes `agents`.
    #[serde(default)]
    pub owner: Option<String>,
    /// What its owner says of it.
    pub said: Said,
    /// What it does.
    pub state: State,
    /// Why it failed.
    pub error_message: Option<String>,
    /// When its state was last told, Unix milliseconds.
    pub last_active_ms: Option<u64>,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds.
    pub updated_ms: u64,
    /// Counts its changes.
    pub version: u64,
    deleted_ms: Option<u64>,
}

/// What an agent's owner says of it; all of it optional.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Said {
    /// Not blank, at most 255 bytes.
    pub name: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// The system prompt.
    pub system: Option<String>,
    /// A name the platform gives a meaning.
    pub agent_type: Option<String>,
    /// JSON of the platform's.
    pub llm_config: Option<Json>,
    /// JSON of the platform's.
    pub embedding_config: Option<Json>,
    /// JSON of the platform's.
    pub tool_rules: Option<Json>,
    /// A JSON object.
    pub metadata: Option<Json>,
}

/// What is to be said of an agent: a field that is absent stays as it is, `null` clears it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = AgentChange)]
pub struct Saying {
    /// Not blank.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "given")]
    name: Option<Option<String>>,
    /// For people.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "given")]
    description: Option<Option<String>>,
    /// The system prompt.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "given")]
    system: Option<Option<String>>,
    /// A name the platform gives a meaning.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "given")]
    agent_type: Option<Option<String>>,
    /// JSON of the platform's.
    #[schema(value_type = Option<Object>)]
    #[serde(deserialize_with = "given")]
    llm_config: Option<Option<Json>>,
    /// JSON of the platform's.
    #[schema(value_type = Option<Object>)]
    #[serde(deserialize_with = "given")]
    embedding_config: Option<Option<Json>>,
    /// JSON of the platform's.
    #[schema(value_type = Option<Object>)]
    #[serde(deserialize_with = "given")]
    tool_rules: Option<Option<Json>>,
    /// Free data.
    #[schema(value_type = Option<Object>)]
    #[serde(deserialize_with = "given")]
    metadata: Option<Option<Json>>,
    /// The user who may change it; absent in a new agent: the caller. Another than oneself, or `null` for nobody, takes the scope
    /// `agents`.
    #[schema(value_type = Option<String>)]
    #[serde(deserialize_with = "given")]
    owner: Option<Option<String>>,
}

impl Said {
    fn with(self, saying: Saying) -> Result<Said, ResourceError> {
        Ok(Said {
            name: named("name", saying.name.unwrap_or(self.name))?,
            description: short("description", saying.description.unwrap_or(self.description), TEXT_BYTES)?,
            system: short("system", saying.system.unwrap_or(self.system), TEXT_BYTES)?,
            agent_type: named("agent_type", saying.agent_type.unwrap_or(self.agent_type))?,
            llm_config: free("llm_config", saying.llm_config.unwrap_or(self.llm_config))?,
            embedding_config: free(
                "embedding_config",
                saying.embedding_config.unwrap_or(self.embedding_config),
            )?,
            tool_rules: free("tool_rules", saying.tool_rules.unwrap_or(self.tool_rules))?,
            metadata: object("metadata", saying.metadata.unwrap_or(self.metadata))?,
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

impl Agent {
    /// The event that tells of it.
    fn told<'a>(&'a self, status: &'a str) -> Event<'a> {
        let mut event = Event::empty(Kind::AgentUpdate);
        event.agent_id = Some(Cow::Borrowed(&self.id));
        event.status = Some(Cow::Borrowed(status));
        event.error_message = self.error_message.as_deref().map(Cow::Borrowed);
        event
    }
}

/// Creates an agent; `kept` are rows that join its commit.
///
/// # Errors
/// [`ResourceError`].
pub async fn create<N: Notice>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    mut saying: Saying,
    kept: impl FnOnce(&Agent) -> Rows,
) -> Result<Agent, ResourceError> {
    let owner = ownership::of_new(&caller.principal, saying.owner.take())?;
    let now_ms = caller.now_ms();
    let agent = Agent {
        id: crate::ids::fresh("agent"),
        number: next_number(now_ms),
        owner,
        said: Said::default().with(saying)?,
        state: State::Idle,
        error_message: None,
        last_active_ms: None,
        created_ms: now_ms,
        updated_ms: now_ms,
        version: 1,
        deleted_ms: None,
    };
    if !is_permitted(caller, &agent.id) {
        return Err(ResourceError::Forbidden("the credential is narrowed to other agents"));
    }
    let mut rows = kept(&agent);
    record::put(&mut rows, caller.tenant.id(), None, &agent)?;
    caller.commit(right, rows, &[agent.told("created")]).await?;
    Ok(agent)
}

/// An agent.
///
/// # Errors
/// [`ResourceError::NotFound`], also of what the caller may not see.
pub async fn get<N: Notice>(caller: &Caller<'_, N>, id: &str) -> Result<Agent, ResourceError> {
    if !is_permitted(caller, id) {
        return Err(ResourceError::NotFound);
    }
    found(caller, id).await
}

async fn found<N: Notice>(caller: &Caller<'_, N>, id: &str) -> Result<Agent, ResourceError> {
    let found: Option<Agent> = record::get(caller.tenants.store(), caller.tenant.id(), id).await?;
    found.filter(|agent| agent.deleted_ms.is_none()).ok_or(ResourceError::NotFound)
}

/// Whether an agent exists of which the caller may see this kind of event; of those asked for often, without reading them.
///
/// # Errors
/// [`ResourceError::NotFound`].
pub async fn exists<N: Notice>(caller: &Caller<'_, N>, kind: Kind, id: &str) -> Result<(), ResourceError> {
    if !caller.rights.narrowing.permits(kind, Some(id), None) {
        return Err(ResourceError::NotFound);
    }
    let lock = lock_of(KIND, id);
    if caller.tenant.knows(&lock) {
        return Ok(());
    }
    let _alone = caller.alone(lock).await;
    found(caller, id).await?;
    caller.tenant.learn(lock);
    Ok(())
}

/// Whether the caller may change an agent, or what belongs to it. That the caller may see it was asked of [`exists`].
///
/// # Errors
/// [`ResourceError::NotFound`], [`ResourceError::Forbidden`].
pub(super) async fn may_change<N: Notice>(caller: &Caller<'_, N>, id: &str) -> Result<(), ResourceError> {
    ownership::check(&caller.principal, found(caller, id).await?.owner.as_deref())
}

/// Agents in the order of their making.
///
/// # Errors
/// [`ResourceError`].
pub async fn list<N: Notice>(
    caller: &Caller<'_, N>,
    page: &Page,
) -> Result<(Vec<Agent>, Option<Position>), ResourceError> {
    let (narrowing, store) = (&caller.rights.narrowing, caller.tenants.store());
    let Some(names) = narrowing.agents() else {
        return match narrowing.permits(Kind::AgentUpdate, None, None) {
            true => record::list(store, caller.tenant.id(), Group::new(List::AllAgents, &[]), page).await,
            false => Ok((Vec::new(), None)),
        };
    };
    // A credential is narrowed to a few: they are read one by one, and nothing of the others.
    let mut agents = Vec::new();
    for id in names.iter() {
        match get(caller, id).await {
            Ok(agent) => agents.push(agent),
            Err(ResourceError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(record::page_of(agents, page))
}

/// Changes what is said of an agent, if `version` is still its own.
///
/// # Errors
/// [`ResourceError`].
pub async fn change<N: Notice>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    id: &str,
    version: Option<u64>,
    mut saying: Saying,
) -> Result<Agent, ResourceError> {
    alter(caller, right, id, version, |agent, _| {
        agent.owner = ownership::of_changed(&caller.principal, agent.owner.take(), saying.owner.take())?;
        agent.said = std::mem::take(&mut agent.said).with(saying)?;
        Ok(agent.state.name())
    })
    .await
}

/// Tells an agent's state, if `version` is still its own.
///
/// # Errors
/// [`ResourceError::Conflict`]: the state may not follow upon the present one.
pub async fn set_state<N: Notice>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    id: &str,
    version: Option<u64>,
    state: State,
    error_message: Option<String>,
) -> Result<Agent, ResourceError> {
    let error_message = short("error_message", error_message, TEXT_BYTES)?;
    alter(caller, right, id, version, |agent, now_ms| {
        if !agent.state.may_become(state) {
            let (from, to) = (agent.state.name(), state.name());
            return Err(ResourceError::Conflict(format!("an agent that is {from} cannot become {to}")));
        }
        agent.state = state;
        agent.error_message = error_message.filter(|_| state == State::Error);
        agent.last_active_ms = Some(now_ms);
        Ok(state.name())
    })
    .await
}

/// Deletes an agent.
///
/// # Errors
/// [`ResourceError`].
pub async fn delete<N: Notice>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    id: &str,
    version: Option<u64>,
) -> Result<(), ResourceError> {
    let deleted = |agent: &mut Agent, now_ms| {
        caller.tenant.unlearn(&lock_of(KIND, id));
        agent.deleted_ms = Some(now_ms);
        agent.error_message = None;
        Ok("deleted")
    };
    alter(caller, right, id, version, deleted).await.map(drop)
}

/// Reads an agent that the caller may change, has it changed, and commits it with an event of the status that `by` answers.
async fn alter<N: Notice>(
    caller: &Caller<'_, N>,
    right: &Authorized<WriteOwned>,
    id: &str,
    version: Option<u64>,
    by: impl FnOnce(&mut Agent, u64) -> Result<&'static str, ResourceError>,
) -> Result<Agent, ResourceError> {
    let alone = caller.alone(lock_of(KIND, id)).await;
    let old = get(caller, id).await?;
    ownership::check(&caller.principal, old.owner.as_deref())?;
    is_version(version, old.version)?;
    let (mut agent, now_ms) = (old.clone(), caller.now_ms());
    let status = by(&mut agent, now_ms)?;
    agent.updated_ms = now_ms;
    agent.version += 1;
    let mut rows = Rows::new();
    rows.hold(alone);
    match agent.deleted_ms {
        None => record::put(&mut rows, caller.tenant.id(), Some(&old), &agent)?,
        Some(_) => record::remove(&mut rows, caller.tenant.id(), &old),
    }
    caller.commit(right, rows, &[agent.told(status)]).await?;
    Ok(agent)
}

fn is_permitted<N>(caller: &Caller<'_, N>, id: &str) -> bool {
    caller.rights.narrowing.permits(Kind::AgentUpdate, Some(id), None)
}

#[cfg(test)]
mod tests {
    use super::State::{Error, Executing, Idle, Thinking, Waiting};
    use super::*;

    #[test]
    fn the_state_machine_is_the_contracts() {
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
    fn what_is_absent_stays_and_null_clears() {
        let said = Said { name: Some("a".into()), system: Some("s".into()), ..Said::default() };
        let saying: Saying = serde_json::from_str(r#"{"system":null,"description":"d"}"#).expect("valid");
        let said = said.with(saying).expect("valid");
        assert_eq!(
            (said.name.as_deref(), said.system, said.description.as_deref()),
            (Some("a"), None, Some("d"))
        );
        assert!(serde_json::from_str::<Saying>(r#"{"nmae":"x"}"#).is_err());
    }
}
