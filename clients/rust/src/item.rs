//! What a subscription returns: events, gaps, and changes in the state of its connection.

use std::time::Duration;

use crate::stream_end::StreamEnd;
use crate::{ClientError, Event};

/// An item of a subscription.
#[derive(Debug)]
#[non_exhaustive]
pub enum Item {
    /// An event, in order, each once.
    Event(ReceivedEvent),
    /// Events are missing. A client that keeps state from events must read that state again over REST.
    Gap(Gap),
    /// A stream has ended, after its last event: the control frame `done`.
    Done(StreamDone),
    /// A change in the state of the connection.
    Status(Status),
}

/// The end of a stream that a subscription read from its first chunk.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamDone {
    /// The stream.
    pub request_id: String,
    /// How it ended. `error` is absent: an event of type `error` has it.
    pub end: StreamEnd,
}

/// An event as it was received.
#[derive(Clone, Debug, PartialEq)]
pub struct ReceivedEvent {
    /// Its id, which is the cursor after it.
    pub id: String,
    /// The event.
    pub event: Event,
    /// Its JSON as the daemon sent it.
    pub json: String,
}

/// A declared loss of events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The cursor that was presented.
    pub after: String,
    /// The cursor at which delivery continues.
    pub resumes_at: String,
    /// `trimmed`, `lagged`, `unknown_cursor`, or a reason that a later version adds.
    pub reason: String,
}

/// The state of a subscription's connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum Status {
    /// A stream is open.
    Connected {
        /// The connection's id, for administrators.
        connection_id: String,
        /// Whether the stream continues after the cursor without a gap.
        resumed: bool,
        /// Maximum number of events to be replayed before `CaughtUp`.
        replaying: u64,
        /// Whether an earlier stream of this subscription was lost.
        reconnected: bool,
    },
    /// All missed events were delivered. From here on events are live.
    CaughtUp,
    /// The daemon reports that something it was sent is wrong.
    ServerError {
        /// The `code`, as in an error body.
        code: String,
        /// The `message`, as in an error body.
        message: String,
    },
    /// The stream was lost. Another one is opened after a wait.
    Lost {
        /// How it ended, or why it could not be opened.
        error: ClientError,
        /// The wait before the next attempt.
        retry_in: Duration,
    },
}
