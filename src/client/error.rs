//! What can go wrong between a client and a daemon: what the daemon said, apart from what the connection did.
//!
//! * No text here holds a credential: neither requests nor their headers are quoted.
//! * It chooses nothing: whether to come back is `policy`'s, which exit code the command line's.

use std::fmt;
use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio_tungstenite::tungstenite;

use super::sse::SseError;

/// What the daemon said when it refused a request: its error body, or what can be told without one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The `code` of the error body, e.g. `NOT_FOUND`; empty if the body was none.
    pub code: String,
    /// The `message` of the error body, or a cut of what came instead.
    pub message: String,
    /// The `details` of the error body; null if none.
    pub details: Value,
    /// Seconds of `Retry-After`, if it was sent as a number.
    pub retry_after: Option<u64>,
    /// `x-request-id`: by it the daemon's log finds the request.
    pub request_id: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        // A refused field is in the message already.
        let repeats = self.details.get("reason").and_then(Value::as_str);
        if !self.details.is_null() && !repeats.is_some_and(|reason| self.message.ends_with(reason)) {
            write!(f, " {}", self.details)?;
        }
        Ok(())
    }
}

/// Why a request, a stream or a socket failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The daemon refused.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// The daemon closed the WebSocket with a code of protocol §5.
    #[error("closed with {code}{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Closed {
        /// The code.
        code: u16,
        /// What it said beside the code; may be empty.
        reason: String,
    },
    /// The daemon ended the SSE stream with `event: closing`.
    #[error("closed: {code}: {message}")]
    Closing {
        /// As in an error body.
        code: String,
        /// As in an error body.
        message: String,
    },
    /// The stream broke off without a word.
    #[error("the stream has ended")]
    Ended,
    /// No connection could be made.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// A wait met its limit.
    #[error("{0} took longer than {1:?}")]
    Timeout(&'static str, Duration),
    /// The peer answered with something that is not HTTP, or broke off.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// A request that cannot be written, such as a header value with a line break.
    #[error("request: {0}")]
    Request(#[from] http::Error),
    /// A body that cannot be written as JSON.
    #[error("the body is no JSON: {0}")]
    Body(serde_json::Error),
    /// An answer beyond the limit of what the client holds.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// An answer of another shape than the contract's.
    #[error("unexpected answer: {0}")]
    Shape(String),
    /// An SSE stream that cannot be read.
    #[error("SSE: {0}")]
    Sse(#[from] SseError),
    /// A WebSocket that cannot be read or written.
    #[error("WebSocket: {0}")]
    WebSocket(Box<tungstenite::Error>),
}

impl From<tungstenite::Error> for ClientError {
    fn from(error: tungstenite::Error) -> Self {
        Self::WebSocket(Box::new(error))
    }
}

impl ClientError {
    /// What the daemon said, if it was the daemon that refused.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether the credential is what the daemon did not want: another one may do.
    pub fn is_unauthorized(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.status == 401,
            Self::Closed { code, .. } => *code == 4401,
            Self::Closing { code, .. } => code == "UNAUTHORIZED",
            _ => false,
        }
    }
}
