//! What a read returns: events of a log, or why they cannot be read.

use super::page::Page;
use crate::ids::Sequence;
use crate::store::engine::EngineError;

/// What follows a position in a tenant's log.
#[derive(Debug, Clone)]
pub enum LogRead {
    /// Events; the first one is the first committed event after the position.
    Page(Page),
    /// Events after the position were trimmed or are damaged. Reading continues after `resumes_at`.
    Gap {
        /// The position before the oldest retained event, or of the last damaged one.
        resumes_at: Sequence,
        /// The events are retained, but their stored bytes are damaged.
        is_damaged: bool,
    },
    /// There is no event between the position and `committed`.
    End {
        /// The commit watermark, loaded before the read.
        committed: Sequence,
    },
}

/// Why a read failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The database is being opened again, or is closed.
    #[error("the store cannot be read now")]
    Unavailable,
    /// Too many reads wait.
    #[error("too many reads wait")]
    Busy,
    /// Too many reads of this organization wait.
    #[error("too many reads of the organization wait")]
    OverShare,
    /// The database cannot be read. The cause is in the server's log.
    #[error("the store failed to read")]
    Failed,
}

/// Logs the error. The reader learns only that the read failed.
pub(crate) fn failed(error: EngineError) -> ReadError {
    tracing::error!(%error, "cannot read the log");
    ReadError::Failed
}
