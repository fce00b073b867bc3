//! Messages from other threads to a worker. The loop handles them in turns (`turn`).

use crate::auth::AuthChange;
use crate::frame::control::Ref;
use crate::ids::TenantId;
use crate::store::CommitError;
use crate::tenant::publish::Receipt;

use super::Accepted;
use super::connection_list::{ClosedReply, ConnectionSelector, DescribedReply, FoundConnection, FoundReply};
use super::sockets::Token;

/// A message to a worker.
pub enum Mail {
    /// A new socket, assigned to this worker by load.
    Accepted(Accepted),
    /// A publish over WebSocket was committed, or its commit failed.
    Committed(CommittedPublish),
    /// A stream to which a connection appends was cancelled.
    StreamCancelled(Token, Box<str>),
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

/// The result of a commit that a task waits for, sent by the committer's thread.
#[derive(Debug)]
pub struct CommitNotice {
    /// The slot of the wait.
    pub(super) slot: u32,
    pub(super) outcome: Result<(), CommitError>,
}

/// A publish over WebSocket, of events or of chunks of a stream, whose commit is over.
pub struct CommittedPublish {
    pub(super) token: Token,
    pub(super) reference: Option<Ref>,
    pub(super) receipt: Result<Receipt, CommitError>,
    /// For chunks of a stream: the index of its next chunk.
    pub(super) next_index: Option<u64>,
}
