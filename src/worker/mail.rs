//! Messages from other threads to a worker, and how it handles them: listings, closing, changed rights,
//! commits, the drain.

use std::rc::Rc;

use serde::Serialize;

use crate::auth::AuthChange;
use crate::ids::TenantId;

use super::commits::CommitNotice;
use super::scan::{ClosedReply, ConnectionSelector, DescribedReply, FoundConnection, FoundReply};
use super::sockets::Token;
use super::ws_publish::CommittedPublish;
use super::{Accepted, Worker, WorkerState};

/// A message to a worker.
pub enum Mail {
    /// A new socket, assigned to this worker by load.
    Accepted(Accepted),
    /// A publish over WebSocket was committed, or its commit failed.
    Committed(CommittedPublish),
    /// A commit that a task waits for is over.
    CommitNotice(CommitNotice),
    /// Finds the connections with the lowest ids after `after`, about `most` of them.
    List {
        /// Which connections to find.
        selector: ConnectionSelector,
        /// Only ids above this one.
        after: Option<u64>,
        /// How many to find; the result may have some more.
        most: usize,
        /// Where to send the result.
        reply: FoundReply,
    },
    /// Describes connections of one organization that were found on this worker.
    Describe {
        /// The organization.
        tenant: TenantId,
        /// The connections that were found.
        found: Vec<FoundConnection>,
        /// Where to send the result.
        reply: DescribedReply,
    },
    /// Closes connections; the reply is their number.
    Close(ConnectionSelector, ClosedReply),
    /// Credentials, users or organizations changed: check the rights of their connections.
    Recheck(AuthChange),
    /// The daemon stops: close every connection, spread over this many seconds.
    Drain {
        /// 0 means at once.
        seconds: u64,
    },
}

/// One connection, as a listing shows it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Connection)]
pub struct ConnectionInfo {
    /// Its id.
    pub id: String,
    /// `ws`, `sse`, `sse_h2`, `sse_http10`.
    pub transport: &'static str,
    /// The credential's `sub`.
    pub user: Option<String>,
    /// The API key that the connection was opened with.
    pub key_id: Option<String>,
    /// The filter as query parameters; empty for everything that the connection may see.
    pub filter: String,
    /// The client's address; absent for a unix socket.
    pub peer: Option<String>,
    /// When the connection was opened.
    #[schema(format = DateTime)]
    pub since: String,
    /// Number of events written.
    pub sent_events: u64,
    /// Number of bytes written.
    pub sent_bytes: u64,
    /// How many sequences the cursor is behind the end.
    pub cursor_lag: u64,
    /// True if the connection only publishes.
    pub publish_only: bool,
}

impl Worker {
    pub(super) fn on_mail(self: &Rc<Self>, state: &mut WorkerState, mail: Mail) {
        match mail {
            Mail::Accepted(accepted) => match self.on_accepted.get() {
                Some(serve) => serve(accepted),
                None => tracing::warn!("a socket was assigned to a worker that is not serving yet"),
            },
            Mail::Committed(committed) => {
                if let Some(tenant) = state.tenant_of(committed.token()) {
                    state.acks.push(tenant, committed);
                }
            }
            Mail::CommitNotice(notice) => self.commits.on_notice(&notice),
            Mail::List { selector, after, most, reply } => state.list(selector, after, most, reply),
            Mail::Describe { tenant, found, reply } => state.describe(tenant, found, reply),
            Mail::Close(selector, reply) => state.close_selected(selector, reply),
            Mail::Recheck(change) => state.scans.recheck(&change),
            Mail::Drain { seconds } => self.drain(state, seconds),
        }
    }

    pub(super) fn describe(
        &self,
        state: &mut WorkerState,
        found: &FoundConnection,
    ) -> Option<ConnectionInfo> {
        let token = Token { slot: found.slot, generation: found.generation };
        state.connection(token)?;
        let connection = state.connections.get(token.slot as usize)?;
        let admitted = connection.admitted.as_ref()?;
        let principal = admitted.principal();
        let view = state.views.get(connection.view as usize).filter(|_| connection.row.is_some());
        let filter = match (view, connection.row) {
            (Some(view), Some(row)) => {
                view.index.selection(row).map(|it| it.filter.to_string()).unwrap_or_default()
            }
            _ => String::new(),
        };
        let lag = view.map_or(0, |view| {
            let position = view.position_of(connection);
            view.tenant.head().counter().saturating_sub(position.counter())
        });
        Some(ConnectionInfo {
            id: connection_name(connection.id),
            transport: connection.transport.label(),
            user: principal.sub.as_deref().map(str::to_owned),
            key_id: principal.key_id().map(str::to_owned),
            filter,
            peer: admitted.peer().map(|peer| peer.to_string()),
            since: crate::time::rfc3339(connection.since_ms),
            sent_events: connection.sent_events,
            sent_bytes: connection.sent_bytes,
            cursor_lag: lag,
            publish_only: connection.row.is_none(),
        })
    }

    /// Closes a connection whose credential has ended, without waiting for the mail about it.
    pub(super) fn close_if_ended(self: &Rc<Self>, state: &mut WorkerState, token: Token) {
        let Some(admitted) = state.connection(token).and_then(|connection| connection.admitted.as_ref())
        else {
            return;
        };
        if let Err(ended) = self.shared.auth.confirm(admitted.principal()) {
            self.close(state, token, crate::error_response::close_reason(ended));
        }
    }
}

/// Returns a connection id as clients see it.
#[must_use]
pub fn connection_name(id: u64) -> String {
    format!("conn-{id:016x}")
}

/// Returns the connection id of a name.
#[must_use]
pub fn connection_id(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("conn-")?, 16).ok()
}
