//! A small client of a Nervewire daemon: HTTP/1.1 requests, SSE streams and WebSockets, over TCP or a unix socket.
//!
//! * Every wait has a limit ([`Timeouts`]); every body and line has a size limit.
//! * A request is sent again only if not a byte of it left: an answer that never came says nothing about what happened.
//! * Each connection is driven by a task whose handle the client owns; dropping the client ends it.
//! * The credential goes into the `Authorization` header and nowhere else.
//!
//! It imports nothing of the daemon: an honest outsider that shares no parser with what it talks to. It speaks no TLS.

mod endpoint;
mod http1;
mod sse;
mod stream;
mod ws;

pub use endpoint::{Endpoint, EndpointError, encode};
pub use http1::{Client, Reply, Request, Timeouts};
pub use sse::{SseError, SseEvent, SseParser};
pub use stream::SseStream;
pub use ws::{WsMessage, WsStream};

/// What the daemon said when it refused a request: its error body, or what can be told without one.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The `code` of the error body, e.g. `NOT_FOUND`; empty if the body was none.
    pub code: String,
    /// The `message` of the error body, or a cut of what came instead.
    pub message: String,
    /// The `details` of the error body; null if none.
    pub details: serde_json::Value,
    /// Seconds of `Retry-After`, if it was sent as a number.
    pub retry_after: Option<u64>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if !self.details.is_null() {
            write!(f, " {}", self.details)?;
        }
        Ok(())
    }
}

/// Why a request, a stream or a socket failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection could be made.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where to.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// A wait met its limit.
    #[error("{0} took longer than {1:?}")]
    Timeout(&'static str, std::time::Duration),
    /// The peer answered with something that is not HTTP, or broke off.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// A request that cannot be written, such as a header value with a line break.
    #[error("request: {0}")]
    Request(#[from] http::Error),
    /// An answer beyond the limit of what the client holds.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The daemon refused.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// An answer of another shape than the contract's.
    #[error("unexpected answer: {0}")]
    Shape(String),
    /// An SSE stream that cannot be read.
    #[error("SSE: {0}")]
    Sse(#[from] SseError),
    /// A WebSocket that cannot be read or written.
    #[error("WebSocket: {0}")]
    WebSocket(Box<tokio_tungstenite::tungstenite::Error>),
}

impl From<tokio_tungstenite::tungstenite::Error> for ClientError {
    fn from(error: tokio_tungstenite::tungstenite::Error) -> Self {
        Self::WebSocket(Box::new(error))
    }
}
