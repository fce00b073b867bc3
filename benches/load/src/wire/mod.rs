//! The bytes between the load tester and a server: requests and stamped events that it sends, and messages
//! that it reads. Nothing here opens a connection, except for [`http_connection`].

mod access;
pub(crate) mod event_id;
pub(crate) mod http_connection;
pub(crate) mod message;
pub(crate) mod request;
pub(crate) mod stamp;
pub(crate) mod stream;

pub use access::Access;
pub(crate) use access::credential_header;

/// Maximum events of one publish (protocol §8).
pub(crate) const EVENTS_PER_PUBLISH: usize = 1_000;

/// The protocol after the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Wire {
    // Unmasked, with each message in one frame.
    /// WebSocket.
    Ws,
    /// SSE over HTTP/1.1.
    Sse,
    /// HTTP/1.1 responses with `Content-Length`. Publishers use it, and no subscriber.
    #[value(skip)]
    Http,
}

impl Wire {
    /// Returns the name for people.
    #[must_use]
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Wire::Ws => "WebSocket",
            Wire::Sse => "SSE",
            Wire::Http => "HTTP keep-alive",
        }
    }
    /// Returns the name used in flags and JSON.
    #[must_use]
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Wire::Ws => "ws",
            Wire::Sse => "sse",
            Wire::Http => "http",
        }
    }
}
