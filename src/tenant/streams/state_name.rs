//! The states of a stream, and their names.

use serde::{Deserialize, Serialize};

/// The state of a stream. All but `Open` are terminal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamState {
    /// Its producer may append.
    Open,
    /// Its producer finished it.
    Completed,
    /// Its producer said that it failed.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
    /// Its producer fell silent.
    Abandoned,
}

impl StreamState {
    /// Every state.
    pub const ALL: [StreamState; 5] = [
        StreamState::Open,
        StreamState::Completed,
        StreamState::Failed,
        StreamState::Cancelled,
        StreamState::Abandoned,
    ];
    /// The terminal states.
    pub const TERMINAL: [StreamState; 4] =
        [StreamState::Completed, StreamState::Failed, StreamState::Cancelled, StreamState::Abandoned];

    /// Returns the name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            StreamState::Open => "open",
            StreamState::Completed => "completed",
            StreamState::Failed => "failed",
            StreamState::Cancelled => "cancelled",
            StreamState::Abandoned => "abandoned",
        }
    }
    /// Returns the state with a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<StreamState> {
        StreamState::ALL.into_iter().find(|state| state.name() == name)
    }
}
