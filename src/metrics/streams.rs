//! The counters of LLM streams.

use super::{Counter, Times};

/// The counters of LLM streams.
#[derive(Debug, Default)]
pub struct StreamMetrics {
    /// Streams opened.
    pub opened: Counter,
    /// Streams ended, by terminal state, in the order of [`StreamMetrics::STATES`].
    pub ended: [Counter; StreamMetrics::STATES.len()],
    /// Chunks appended.
    pub chunks: Counter,
    /// Bytes of text appended.
    pub text_bytes: Counter,
    /// Leases that ended because the producer fell silent.
    pub leases_expired: Counter,
    /// Time from the opening of a stream to its first chunk.
    pub first_chunk: Times,
}

impl StreamMetrics {
    /// The names of the terminal states.
    pub const STATES: [&str; 4] = ["completed", "failed", "cancelled", "abandoned"];

    /// Counts the end of a stream in the state with this name.
    pub fn count_end(&self, state: &str) {
        let counters = Self::STATES.iter().zip(&self.ended);
        counters.filter(|(name, _)| **name == state).for_each(|(_, counter)| counter.add(1));
    }
}
