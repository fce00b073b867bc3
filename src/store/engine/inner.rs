//! What the engine shares with its applier and with iterators.

use std::sync::Arc;

use super::live_bytes::LiveBytes;
use super::memtable::Memtable;
use super::pin::Pins;
use super::progress::Progress;
use super::state::State;
use crate::store::journal::Journal;
use crate::sync::Mutex;

/// What the engine shares with its applier and with iterators.
pub(crate) struct EngineInner {
    pub(crate) journal: Journal,
    pub(crate) state: State,
    pub(crate) memtable: Memtable,
    /// The live pieces of each segment, as of the state.
    pub(crate) live: Mutex<LiveBytes>,
    pub(crate) progress: Progress,
    /// While a pin is held, no segment is removed.
    pub(crate) pins: Arc<Pins>,
}
