//! Errors between a client and a daemon. Errors that the daemon reports are separate from errors of the
//! connection.
//!
//! * No text here contains a credential: neither requests nor their headers are quoted.
//! * This module decides nothing: `retry` decides whether to reconnect, the command line which exit code to
//!   use.

use std::fmt;
use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio_tungstenite::tungstenite;

use crate::sse_parser::SseError;

/// The daemon's refusal of a request: its error body, or what is known without one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// The `code` of the error body, e.g. `NOT_FOUND`; empty without an error body.
    pub code: String,
    /// The `message` of the error body, or the start of another body.
    pub message: String,
    /// The `details` of the error body; null if there are none.
    pub details: Value,
    /// Seconds of `Retry-After`, if it was sent as a number.
    pub retry_after: Option<u64>,
    /// `x-request-id`, by which the request is found in the daemon's log.
    pub request_id: Option<String>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        // The message already names a refused field.
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
    /// The daemon refused the request.
    #[error("{0}")]
    Refused(Box<ApiError>),
    /// The daemon closed the WebSocket with a code of protocol §5.
    #[error("closed with {code}{}{reason}", if reason.is_empty() { "" } else { ": " })]
    Closed {
        /// The close code.
        code: u16,
        /// The close reason; may be empty.
        reason: String,
    },
    /// The daemon ended the SSE stream with `event: closing`.
    #[error("closed: {code}: {message}")]
    Closing {
        /// The `code`, as in an error body.
        code: String,
        /// The `message`, as in an error body.
        message: String,
    },
    /// The stream ended without an error or a close code.
    #[error("the stream has ended")]
    Ended,
    /// A stream of a `request_id` has ended, and everything after the cursor was read (204).
    #[error("the stream has ended and was read to its end")]
    ReadToEnd,
    /// Text of a stream can no longer be delivered, such as after the daemon was restored from a backup.
    #[error("text of the stream is missing: {reason}")]
    TextMissing {
        /// The `reason` of the daemon's `gap`.
        reason: String,
    },
    /// No connection could be made.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The address.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A step took longer than its limit.
    #[error("{0} took longer than {1:?}")]
    Timeout(&'static str, Duration),
    /// The response is not HTTP, or the connection was lost.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// A request that cannot be written, such as a header value with a line break.
    #[error("request: {0}")]
    Request(#[from] http::Error),
    /// A body that cannot be written as JSON.
    #[error("the body is not JSON: {0}")]
    Body(serde_json::Error),
    /// A response that is larger than the client accepts.
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
    /// A response with a shape that the protocol does not define.
    #[error("unexpected response: {0}")]
    UnexpectedResponse(String),
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
    /// Returns the daemon's refusal, if the daemon refused.
    pub fn api_error(&self) -> Option<&ApiError> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Returns true if the daemon did not accept the credential: another one may work.
    pub fn is_unauthorized(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.status == 401,
            Self::Closed { code, .. } => *code == 4401,
            Self::Closing { code, .. } => code == "UNAUTHORIZED",
            _ => false,
        }
    }
}
