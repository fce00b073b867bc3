//! The transports of connections, and how events look on each.
//!
//! * A [`Transport`] is what users and metrics see; a [`WireFormat`] is how the bytes of an event are framed.
//! * Whatever depends on the transport is a `match` on one of the two that names every case. So a new
//!   transport does not compile until each place has decided what it does for it.

use std::ops::Index;

/// The protocol by which a client is connected.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Transport {
    /// WebSocket.
    Ws = 0,
    /// SSE over HTTP/1.1, in chunks.
    Sse = 1,
    /// SSE as an HTTP/2 stream.
    SseH2 = 2,
    /// SSE over HTTP/1.0, whose body ends with the connection.
    SseHttp10 = 3,
}

/// How events and control messages are framed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WireFormat {
    /// One WebSocket text message per event.
    Ws,
    /// `text/event-stream` with one HTTP/1.1 chunk per event.
    SseChunked,
    /// `text/event-stream` without chunks: in HTTP/2 data frames, and over HTTP/1.0.
    Sse,
}

impl Transport {
    /// Every transport, in the order of their ordinals.
    pub const ALL: [Transport; 4] = [Transport::Ws, Transport::Sse, Transport::SseH2, Transport::SseHttp10];

    /// The labels of [`Transport::ALL`].
    pub const LABELS: [&str; Transport::ALL.len()] = {
        let mut labels = [""; Transport::ALL.len()];
        let mut at = 0;
        while at < labels.len() {
            labels[at] = Transport::ALL[at].label();
            at += 1;
        }
        labels
    };

    /// Returns the name used in metrics and listings.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Transport::Ws => "ws",
            Transport::Sse => "sse",
            Transport::SseH2 => "sse_h2",
            Transport::SseHttp10 => "sse_http10",
        }
    }

    /// Returns how events look on this transport.
    #[must_use]
    pub const fn wire_format(self) -> WireFormat {
        match self {
            Transport::Ws => WireFormat::Ws,
            Transport::Sse => WireFormat::SseChunked,
            Transport::SseH2 | Transport::SseHttp10 => WireFormat::Sse,
        }
    }

    /// Returns true if the client sends frames too. Its input is parsed then, and its silence ends the
    /// connection. On the other transports the client sends nothing after its request.
    #[must_use]
    pub const fn is_duplex(self) -> bool {
        match self {
            Transport::Ws => true,
            Transport::Sse | Transport::SseH2 | Transport::SseHttp10 => false,
        }
    }
}

/// One value for each transport.
#[derive(Debug, Default)]
pub struct PerTransport<T>([T; Transport::ALL.len()]);

impl<T> Index<Transport> for PerTransport<T> {
    type Output = T;

    fn index(&self, transport: Transport) -> &T {
        &self.0[transport as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transport_is_listed_once_in_the_order_of_its_ordinal() {
        let ordinals = Transport::ALL.map(|transport| transport as usize);
        assert_eq!(ordinals, std::array::from_fn(|at| at));
        assert_eq!(Transport::LABELS, Transport::ALL.map(Transport::label));
    }
}
