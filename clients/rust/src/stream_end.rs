//! The states of a stream and how it ended (protocol §8.1).

use crate::event::Metadata;
use crate::macros::{protocol_struct, string_enum};

string_enum! {
    "lowercase"
    /// The state of a stream. A state other than `Open` is for ever.
    StreamState {
        /// It takes chunks.
        Open,
        /// Its producer finished it.
        Completed,
        /// Its producer reported an error.
        Failed,
        /// Somebody cancelled it.
        Cancelled,
        /// Its producer fell silent for longer than the lease.
        Abandoned,
    }
}

protocol_struct! {
    /// How a stream ended.
    StreamEnd {
        /// The state, never `Open`.
        state: StreamState,
    } optional {
        /// Why the producer finished it, e.g. `stop` or `length`.
        finish_reason: String,
        /// What the producer reported, e.g. `{"output_tokens": 17}`.
        usage: Metadata,
        /// Why it did not complete; absent for `Completed`.
        error: StreamFailure,
    }
}

protocol_struct! {
    /// Why a stream did not complete.
    StreamFailure {
        /// `CANCELLED`, `ABANDONED`, or the code that the producer gave.
        code: String,
        /// The text for people.
        message: String,
    } optional {}
}
