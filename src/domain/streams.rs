//! Streams as a resource: who may see, list, cancel and clear them.
//!
//! Their life is in [`crate::tenant::streams`].

use super::agent_user::{AgentUserFilter, EVERYBODY};
use super::record::{self, PageRequest, PageStart, Record};
use super::{Caller, ResourceError};
use crate::auth::{Principal, Scope};
use crate::event::EventKind;
use crate::filter::Rights;
use crate::store::{Group, GroupSelector, List, Table};
use crate::tenant::publish::CommitWaiter;
use crate::tenant::streams::{Stream, StreamState};

/// Selects streams.
#[derive(Debug, Default)]
pub struct StreamFilter {
    /// The agent and the user.
    pub agent_user: AgentUserFilter,
    /// The state.
    pub state: Option<StreamState>,
}

impl Record for Stream {
    const TABLE: Table = Table::Streams;
    fn id(&self) -> &str {
        &self.request_id
    }
    fn number(&self) -> u64 {
        self.number
    }
    fn groups(&self) -> Vec<Group> {
        Stream::groups(self)
    }
    fn user(&self) -> Option<&str> {
        self.user_id.as_deref()
    }
}

/// The streams of a user, for their erasure.
pub(super) fn of_user(sub: &str) -> Group {
    Group::new(List::StreamsOfUser, &[sub])
}

/// Lists streams in the order of their opening, as their rows say: what an open stream has now is in
/// [`Tenants::stream`](crate::tenant::Tenants::stream). Also returns the position of the next page; `None` for
/// the last one.
///
/// # Errors
/// [`ResourceError`].
pub async fn list<N: CommitWaiter>(
    caller: &Caller<'_, N>,
    filter: &StreamFilter,
    page: &PageRequest,
) -> Result<(Vec<Stream>, Option<PageStart>), ResourceError> {
    let (rights, agent_user) = (&caller.rights, &filter.agent_user);
    if !agent_user.permits_agent(rights, EventKind::StreamChunk)? {
        return Ok((Vec::new(), None));
    }
    let shared = [
        agent_user.agent_id.as_deref().map(|agent| Group::new(List::StreamsOfAgent, &[agent])),
        filter.state.map(|state| Group::new(List::StreamsInState, &[state.name()])),
    ];
    let shared: Vec<Group> = shared.into_iter().flatten().collect();
    let users = agent_user.visible_users(rights);
    let (store, tenant) = (caller.tenants.store(), caller.tenant.id());
    if let [user] = users[..] {
        return record::list(store, tenant, selector(user, &shared), page).await;
    }
    // The caller's own streams and those for everybody are two lists: a page is the first of both together.
    let mut found = Vec::new();
    let reach = match page.from {
        PageStart::Offset(skip) => {
            PageRequest { from: PageStart::Offset(0), limit: skip + page.limit + 1, ..page.clone() }
        }
        PageStart::After(..) => PageRequest { limit: page.limit + 1, ..page.clone() },
    };
    for user in users {
        found.extend(record::list::<Stream>(store, tenant, selector(user, &shared), &reach).await?.0);
    }
    Ok(record::page_of(found, page))
}

fn selector(user: Option<&str>, shared: &[Group]) -> GroupSelector {
    let of_user =
        user.map(|user| Group::new(List::StreamsOfUser, &[if user == EVERYBODY { "" } else { user }]));
    let groups: Vec<Group> = of_user.into_iter().chain(shared.iter().copied()).collect();
    match groups[..] {
        [] => Group::new(List::AllStreams, &[]).into(),
        [group] => group.into(),
        _ => GroupSelector::All(groups),
    }
}

/// Checks that the caller may cancel a stream or remove its text: its user may, and who may publish for all
/// or manages the organization.
///
/// # Errors
/// [`ResourceError::NotFound`] if the caller may not even see it, else [`ResourceError::Forbidden`].
pub fn check_cancel(principal: &Principal, rights: &Rights, stream: &Stream) -> Result<(), ResourceError> {
    let permits = rights.narrowing.permits(EventKind::StreamChunk, stream.agent_id.as_deref(), None);
    let is_own = stream.user_id.is_some() && stream.user_id.as_deref() == principal.sub.as_deref();
    let may = is_own || principal.scopes.has(Scope::PublishOrg) || principal.scopes.has(Scope::Manage);
    match (may && permits, stream.is_visible(rights)) {
        (true, _) => Ok(()),
        (false, true) => Err(ResourceError::Forbidden(
            "only the stream's user, or a credential with publish:org or manage, may do this",
        )),
        (false, false) => Err(ResourceError::NotFound),
    }
}
