//! The result of a publish: its receipt, or why it was refused; and how a publisher is notified of its
//! commit.

use crate::auth::{CredentialEnded, PublishDenied};
use crate::event::EventError;
use crate::ids::Sequence;
use crate::store::{CommitCallback, CommitError, OverQuota, ReadError};

use super::rate::RateExceeded;

/// Why a publish was refused. Nothing was published, unless it is [`PublishError::Commit`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// The publisher may not publish an event.
    #[error("{reason}")]
    Denied {
        /// Index of the event.
        item: usize,
        /// Why not.
        reason: PublishDenied,
    },
    /// The publisher exceeds its rate.
    #[error("{0}")]
    OverRate(#[from] RateExceeded),
    /// An event is not valid in its batch.
    #[error("{0}")]
    Invalid(#[from] EventError),
    /// An event is larger than `limits.event_bytes` once encoded.
    #[error("{0}")]
    TooLarge(EventError),
    /// The store accepts nothing now: free space is at its reserve, or the store is being reopened, or it is
    /// read-only.
    #[error("the log accepts no events now")]
    Unavailable,
    /// Too many of this tenant's events wait for their commit.
    #[error("too many events wait for their commit")]
    Backlog,
    /// The organization would exceed its quota.
    #[error("{0}")]
    OverQuota(#[from] OverQuota),
    /// A key was used for something else within the last day.
    #[error("{0}")]
    Conflict(&'static str),
    /// The caller's credential ended meanwhile.
    #[error("{0}")]
    Ended(#[from] CredentialEnded),
    /// The store could not be read.
    #[error("the store cannot be read now")]
    Read(#[from] ReadError),
    /// The commit failed or was refused, after subscribers may have received the events. Their sequences are
    /// never used again.
    #[error("{}", commit_error(.0))]
    Commit(#[from] CommitError),
}

fn commit_error(error: &CommitError) -> String {
    match error {
        CommitError::Deleted => error.to_string(),
        _ => "the commit failed; it is not known whether the events were stored".into(),
    }
}

/// The sequences of published events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// Sequence of the first event.
    pub first: Sequence,
    /// Number of events. Their sequences are consecutive.
    pub count: u32,
}

impl Receipt {
    /// Returns the sequences in order.
    pub fn sequences(self) -> impl Iterator<Item = Sequence> {
        (0..u64::from(self.count)).map(move |n| Sequence(self.first.0 + n))
    }
}

/// How a publisher is notified of its commit: one end goes to the committer, the other completes with the
/// commit.
pub trait CommitWaiter {
    /// Completes with the commit.
    type Wait: Future<Output = Result<(), CommitError>>;

    /// Creates both ends of a notice.
    fn register(&self) -> (CommitCallback, Self::Wait);
}

/// Waits for a commit in a task that belongs to no worker.
#[derive(Clone, Copy, Debug)]
pub struct ChannelWaiter;

impl CommitWaiter for ChannelWaiter {
    type Wait = std::pin::Pin<Box<dyn Future<Output = Result<(), CommitError>> + Send>>;

    fn register(&self) -> (CommitCallback, Self::Wait) {
        let (done, committed) = CommitCallback::channel();
        (done, Box::pin(async move { committed.await.unwrap_or(Err(CommitError::Unavailable)) }))
    }
}
