//! What other threads ask of a worker, and how it answers: listings, kicks, changed rights, commits, the end.

use std::rc::Rc;

use serde::Serialize;

use crate::auth::Change;
use crate::ids::TenantId;

use super::commits::Told;
use super::scan::{ClosedReply, DescribedReply, Found, FoundReply, Selector};
use super::sockets::Token;
use super::ws_publish::Committed;
use super::{Accepted, State, Worker};

/// A message to a worker.
pub enum Mail {
    /// A fresh socket, dealt by load.
    Accepted(Accepted),
    /// A WebSocket's publish was committed, or was not.
    Committed(Committed),
    /// A commit that a task waits for is over.
    Told(Told),
    /// Find the connections with the lowest ids after one, at most so many.
    List {
        /// Among these.
        selector: Selector,
        /// Only ids above this one.
        after: Option<u64>,
        /// So many, or some more.
        most: usize,
        /// Whom to answer.
        reply: FoundReply,
    },
    /// Describe connections of one organization that were found on this worker.
    Describe {
        /// The organization.
        tenant: TenantId,
        /// What was found.
        found: Vec<Found>,
        /// Whom to answer.
        reply: DescribedReply,
    },
    /// Close connections; answers how many.
    Close(Selector, ClosedReply),
    /// Credentials, users or organizations changed: look at the rights of the connections concerned.
    Recheck(Change),
    /// The daemon stops: close everything, spread over this many seconds.
    Drain {
        /// 0: at once.
        seconds: u64,
    },
}

/// One connection, as a listing shows it.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = Connection)]
pub struct Listed {
    /// Its id.
    pub id: String,
    /// `ws`, `sse`, `sse_h2`, `sse_http10`.
    pub transport: &'static str,
    /// The credential's `sub`.
    pub user: Option<String>,
    /// The API key it came with.
    pub key_id: Option<String>,
    /// What it asks for, as query parameters; empty: everything it may see.
    pub filter: String,
    /// Where it comes from; absent for a unix socket.
    pub peer: Option<String>,
    /// Since when it is open.
    #[schema(format = DateTime)]
    pub since: String,
    /// Events written.
    pub sent_events: u64,
    /// Bytes written.
    pub sent_bytes: u64,
    /// How many sequences its cursor is behind the end.
    pub cursor_lag: u64,
    /// Whether it was opened for publishing only.
    pub publish_only: bool,
}

impl Worker {
    pub(super) fn on_mail(self: &Rc<Self>, state: &mut State, mail: Mail) {
        match mail {
            Mail::Accepted(accepted) => match self.on_accepted.get() {
                Some(serve) => serve(accepted),
                None => tracing::warn!("a socket was dealt to a worker that does not serve yet"),
            },
            Mail::Committed(committed) => {
                if let Some(tenant) = state.tenant_of(committed.token()) {
                    state.acks.push(tenant, committed);
                }
            }
            Mail::Told(told) => self.commits.on_told(&told),
            Mail::List { selector, after, most, reply } => state.list(selector, after, most, reply),
            Mail::Describe { tenant, found, reply } => state.describe(tenant, found, reply),
            Mail::Close(selector, reply) => state.close_selected(selector, reply),
            Mail::Recheck(change) => state.scans.recheck(&change),
            Mail::Drain { seconds } => self.drain(state, seconds),
        }
    }

    pub(super) fn describe(&self, state: &mut State, found: &Found) -> Option<Listed> {
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
        Some(Listed {
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

    /// Closes a connection whose credential has ended, without waiting for the mail that tells of it.
    pub(super) fn close_if_ended(self: &Rc<Self>, state: &mut State, token: Token) {
        let Some(admitted) = state.connection(token).and_then(|connection| connection.admitted.as_ref())
        else {
            return;
        };
        if let Err(ended) = self.shared.auth.confirm(admitted.principal()) {
            self.close(state, token, crate::outcome::close_of(ended));
        }
    }
}

/// A connection id as clients see it.
#[must_use]
pub fn connection_name(id: u64) -> String {
    format!("conn-{id:016x}")
}

/// The id a name stands for.
#[must_use]
pub fn connection_id(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix("conn-")?, 16).ok()
}
