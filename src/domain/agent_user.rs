//! Resources that belong to an agent and to a user, or to all users: who may see, list and write them.
//!
//! * A resource of a user is visible to that user and to principals that may read all. One without a user is
//!   visible to all.
//! * Each such resource is in four groups: all, of its agent, of its user, of both. So no row is read only to
//!   be skipped.

use super::ResourceError;
use crate::auth::{Authorized, WriteAsUser};
use crate::event::{Event, EventKind};
use crate::filter::Rights;
use crate::store::{Group, List};

/// The user of a resource that belongs to all users. No user's id is empty.
pub(super) const EVERYBODY: &str = "";

/// Selects resources of an agent, of a user, of both, or all.
#[derive(Debug, Default)]
pub struct AgentUserFilter {
    /// The agent.
    pub agent_id: Option<String>,
    /// The user.
    pub user_id: Option<String>,
}

impl AgentUserFilter {
    /// Returns the users whose resources the caller may see, `None` for all; empty if there are none.
    pub(super) fn visible_users<'a>(&'a self, rights: &'a Rights) -> Vec<Option<&'a str>> {
        let own = rights.sub.as_deref();
        match (self.user_id.as_deref(), rights.sees_all_users) {
            (user, true) => vec![user],
            (None, false) => std::iter::once(Some(EVERYBODY)).chain(own.map(Some)).collect(),
            (user, false) if own == user => vec![own],
            (Some(_), false) => Vec::new(),
        }
    }

    /// Returns false if the caller may see nothing of the agent, or nothing of this kind.
    ///
    /// # Errors
    /// The credential is narrowed to some agents, and the filter names none.
    pub(super) fn permits_agent(&self, rights: &Rights, kind: EventKind) -> Result<bool, ResourceError> {
        let narrowing = &rights.narrowing;
        match self.agent_id.as_deref() {
            Some(agent) => Ok(narrowing.permits(kind, Some(agent), None)),
            None if !narrowing.permits_kind(kind) => Ok(false),
            None if narrowing.agents().is_some() => {
                let reason = "is required: the credential is narrowed to some agents";
                Err(ResourceError::invalid("agent_id", reason))
            }
            None => Ok(true),
        }
    }
}

/// The lists of a kind of resource.
pub(super) struct AgentUserLists {
    pub(super) all: List,
    pub(super) of_agent: List,
    pub(super) of_user: List,
    pub(super) of_agent_and_user: List,
}

impl AgentUserLists {
    fn group(&self, agent: Option<&str>, user: Option<&str>) -> Group {
        match (agent, user) {
            (None, None) => Group::new(self.all, &[]),
            (Some(agent), None) => Group::new(self.of_agent, &[agent]),
            (None, Some(user)) => Group::new(self.of_user, &[user]),
            (Some(agent), Some(user)) => Group::new(self.of_agent_and_user, &[agent, user]),
        }
    }

    /// Returns the groups of a resource.
    pub(super) fn groups(&self, agent: &str, user: &str) -> Vec<Group> {
        let (agent, user) = (Some(agent), Some(user));
        vec![self.group(None, None), self.group(agent, None), self.group(None, user), self.group(agent, user)]
    }

    /// Returns the groups of what belongs to these users and to the agent, or to any agent. No resource is in
    /// two of them.
    pub(super) fn of_users(&self, agent: Option<&str>, users: &[Option<&str>]) -> Vec<Group> {
        users.iter().map(|user| self.group(agent, *user)).collect()
    }
}

/// Returns true if the caller may publish `event` for its own user. The check sets the caller as the user if
/// the caller may write only for themselves. Such a caller may not change what belongs to all users.
pub(super) fn may_publish(right: &Authorized<WriteAsUser>, mut event: Event<'_>) -> bool {
    let user = event.user_id.clone();
    right.check(&mut event).is_ok() && event.user_id == user
}
