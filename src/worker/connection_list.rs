//! Which connections a listing or closing selects, and how a listing shows one.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::auth::Principal;
use crate::connection::Connection;
use crate::filter::Narrowing;
use crate::ids::TenantId;

use super::WorkerLoop;
use super::connection_index::Owner;

/// The most listings and closings of one organization that wait on a worker; more are refused.
pub const WAITING: usize = 64;

/// Too many listings and closings of the organization are waiting.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("too many listings of the organization's connections are waiting ({WAITING})")]
pub struct ScanQueueFull;

/// Selects connections of one organization.
#[derive(Clone, Debug)]
pub struct ConnectionSelector {
    /// The organization.
    pub tenant: TenantId,
    /// Only the connection with this id.
    pub id: Option<u64>,
    /// Only connections of this `sub`.
    pub user: Option<Arc<str>>,
    /// Only connections of this API key.
    pub key: Option<Arc<str>>,
    /// Only connections whose credentials are limited at least this much.
    pub within: Narrowing,
}

impl ConnectionSelector {
    pub(super) fn owner(&self) -> Owner<'_> {
        match (&self.user, &self.key) {
            (Some(user), _) => Owner::User(self.tenant, user),
            (None, Some(key)) => Owner::Key(self.tenant, key),
            (None, None) => Owner::Organization(self.tenant),
        }
    }

    pub(super) fn matches(&self, principal: &Principal, connection: &Connection) -> bool {
        principal.tenant == self.tenant
            && !connection.flags.closing
            && self.id.is_none_or(|id| id == connection.id)
            && self.user.as_deref().is_none_or(|user| principal.sub.as_deref() == Some(user))
            && self.key.as_deref().is_none_or(|key| principal.key_id() == Some(key))
            && principal.narrowing.within(&self.within)
    }
}

/// A connection that a listing found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FoundConnection {
    /// Its id.
    pub id: u64,
    /// Its worker.
    pub worker: usize,
    /// Its slot on that worker.
    pub slot: u32,
    /// The generation of that slot.
    pub generation: u32,
}

/// Sends the result of a listing.
pub type FoundReply = oneshot::Sender<Result<Vec<FoundConnection>, ScanQueueFull>>;
/// Sends the descriptions of the connections that were found.
pub type DescribedReply = oneshot::Sender<Result<Vec<ConnectionInfo>, ScanQueueFull>>;
/// Sends the number of closed connections.
pub type ClosedReply = oneshot::Sender<Result<usize, ScanQueueFull>>;

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

impl WorkerLoop<'_> {
    /// Describes a connection; `None` if it has ended.
    pub(super) fn describe_connection(&self, found: &FoundConnection) -> Option<ConnectionInfo> {
        let connection = self.state.connections.get(found.slot as usize)?;
        if connection.generation != found.generation {
            return None;
        }
        let admitted = connection.admitted.as_ref()?;
        let principal = admitted.principal();
        let view = self.state.views.get(connection.view as usize).filter(|_| connection.row.is_some());
        let filter = match (view, connection.row) {
            (Some(view), Some(row)) => {
                view.index.selection(row).map(|it| it.filter.to_string()).unwrap_or_default()
            }
            _ => String::new(),
        };
        let lag = view.map_or(0, |view| {
            let position = view.position_of(connection);
            view.tenant.last_visible().counter().saturating_sub(position.counter())
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
