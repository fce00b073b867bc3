//! Why a word about a stream was refused.

use crate::auth::PublishDenied;
use crate::store::{ReadError, TooLong};
use crate::tenant::publish::PublishError;

use super::state_name::StreamState;

/// Why a stream was not opened, appended to or ended. Nothing was changed, unless the commit failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StreamError {
    /// There is no such stream, or the caller may not see it.
    #[error("not found")]
    NotFound,
    /// The producer's token is missing or wrong.
    #[error("a valid X-Producer-Token is required: it is in the answer that opened the stream")]
    BadToken,
    /// The token is of an earlier generation.
    #[error("another producer has taken the stream over")]
    Fenced,
    /// The stream has ended.
    #[error("the stream has ended: it is {}", .0.name())]
    Ended(StreamState),
    /// The id is in use.
    #[error("the request_id is in use")]
    InUse,
    /// The index leaves a gap.
    #[error("the stream's next index is {expected}")]
    IndexTooHigh {
        /// The index that the next chunk must have.
        expected: u64,
    },
    /// Too many streams are open.
    #[error("too many open streams: {limit} is {max}")]
    TooManyOpen {
        /// The configuration key of the limit.
        limit: &'static str,
        /// The limit.
        max: usize,
    },
    /// The stream would have too much text. It stays open.
    #[error("the stream's text is longer than streams.bytes allows ({max})")]
    TooMuchText {
        /// The limit in bytes.
        max: u64,
    },
    /// A field is not valid.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The caller may not open a stream like this.
    #[error("{0}")]
    Denied(#[from] PublishDenied),
    /// The row would be too long.
    #[error("{0}")]
    TooLong(#[from] TooLong),
    /// The commit was refused or failed.
    #[error("{0}")]
    Publish(#[from] PublishError),
    /// The store could not be read.
    #[error("{0}")]
    Read(#[from] ReadError),
    /// The tenant's streams are not in memory. The caller loads them and tries again.
    #[error("the streams are being read")]
    NotLoaded,
    /// No stream with this id is open. The caller finds out why.
    #[error("the stream is not open")]
    NotOpen,
    /// The stream's tail is as long as it may be while its checkpoint is being committed. The caller waits for
    /// the commit and tries again.
    #[error("the stream's text is being written")]
    TailFull,
    /// Another word of the producer came in between. The caller tries again.
    #[error("the stream has changed")]
    Changed,
}

impl StreamError {
    /// Creates [`StreamError::Invalid`].
    pub fn invalid(field: impl Into<String>, reason: impl Into<String>) -> StreamError {
        StreamError::Invalid { field: field.into(), reason: reason.into() }
    }
}
