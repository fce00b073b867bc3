//! Why a producer's stream takes no more text.

use std::sync::Arc;

use crate::{ClientError, StreamState};

/// Why a [`StreamWriter`](crate::StreamWriter) cannot continue. It is the same for every later call, so it
/// can be cloned.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// Another producer took the stream over (409 `STREAM_FENCED`). That producer ends the stream.
    #[error("another producer has taken the stream over")]
    Fenced,
    /// The stream was cancelled (409 `STREAM_CANCELLED`): stop producing.
    #[error("the stream was cancelled")]
    Cancelled,
    /// The lease ran out while the daemon heard nothing of the producer (409 `STREAM_ABANDONED`).
    #[error("the stream was abandoned: its lease ran out")]
    Abandoned,
    /// The stream is finished or failed already (409 `STREAM_ENDED`).
    #[error("the stream has ended")]
    Ended,
    /// The daemon's stream continues at another index than this producer's text, so chunks are missing or
    /// were written by somebody else.
    #[error("the daemon expects chunk {expected}; this producer has chunks {first} to {next}")]
    OutOfStep {
        /// The index that the daemon expects.
        expected: u64,
        /// The index of the oldest chunk that this producer still has.
        first: u64,
        /// The index that this producer gives to its next chunk.
        next: u64,
    },
    /// The daemon refused a request for another reason, or could not be reached for too long. The stream may
    /// still be open; [`StreamWriter::fail`](crate::StreamWriter::fail) and
    /// [`StreamWriter::cancel`](crate::StreamWriter::cancel) can still end it.
    #[error("{0}")]
    Client(Arc<ClientError>),
}

impl StreamError {
    /// Returns the error for a failed request of the producer.
    pub(super) fn of(error: ClientError) -> Self {
        match error.api_error().filter(|refusal| refusal.status == 409).map(|refusal| refusal.code.as_str()) {
            Some("STREAM_FENCED") => Self::Fenced,
            Some("STREAM_CANCELLED") => Self::Cancelled,
            Some("STREAM_ABANDONED") => Self::Abandoned,
            Some("STREAM_ENDED") => Self::Ended,
            _ => Self::Client(Arc::new(error)),
        }
    }

    /// Returns the error for a stream that is found in this state; `None` if it is open.
    pub(super) fn of_state(state: &StreamState) -> Option<Self> {
        match state {
            StreamState::Open => None,
            StreamState::Cancelled => Some(Self::Cancelled),
            StreamState::Abandoned => Some(Self::Abandoned),
            _ => Some(Self::Ended),
        }
    }

    /// Returns true if no request can change the stream any more.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self, Self::Client(_))
    }
}
