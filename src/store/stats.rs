//! Statistics of the store, for metrics. Counters only grow; gauges are marked as such.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::store::engine::DamagedPieces;

/// Upper bounds of the commit latency buckets in microseconds; the last bucket has none.
pub const LATENCY_BOUNDS_US: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];

/// Live statistics. Any thread may read every field.
#[derive(Debug, Default)]
pub struct Stats {
    /// Durable commits.
    pub commits: AtomicU64,
    /// Events in them.
    pub committed_events: AtomicU64,
    /// Bytes of keys and values in them.
    pub committed_bytes: AtomicU64,
    /// Failed commits.
    pub failed_commits: AtomicU64,
    /// How often the database was opened again in this process.
    pub reopenings: AtomicU64,
    /// Commits by latency, not cumulative; see [`LATENCY_BOUNDS_US`].
    pub latency: [AtomicU64; LATENCY_BOUNDS_US.len() + 1],
    /// Sum of these latencies, in microseconds.
    pub latency_us: AtomicU64,
    /// Gauge: items waiting in the commit queue, each an append or a write.
    pub queued: AtomicU64,
    /// Gauge: bytes of all retained events as stored.
    pub log_bytes: AtomicU64,
    /// Gauge: free bytes of the file system at the last check.
    pub free_bytes: AtomicU64,
    /// Trimmed values.
    pub trimmed_values: AtomicU64,
    /// Events in them.
    pub trimmed_events: AtomicU64,
    /// Scans of the log on disk, for readers that found no decoded page.
    pub log_scans: AtomicU64,
    /// Rounds of trimming, collecting and erasing, one after each commit and twice a second.
    pub housekeeping_rounds: AtomicU64,
    /// Gauge: deleted organizations and users with rows or events left to erase.
    pub erasures: AtomicU64,
    /// Gauge: deleted organizations (a range of numbers counts once) and users whose writes are refused.
    pub tombstones: AtomicU64,
    /// Gauge: entries of the committer's tables (logs, due trims, lanes, erasures).
    pub committer_entries: AtomicU64,
    /// Idempotency rows removed before their day had passed, because there were too many.
    pub idempotency_dropped: AtomicU64,
    /// The damaged pieces that were found.
    pub(crate) damaged: DamagedPieces,
    /// Gauge: those of `erasures` that wait for another attempt, because a piece could not be read.
    pub erasures_postponed: AtomicU64,
}

impl Stats {
    /// Stored pieces of events that were found damaged in this run, each counted once.
    #[must_use]
    pub fn damaged_pieces(&self) -> u64 {
        self.damaged.count()
    }

    pub(crate) fn commit(&self, took: Duration, events: u64, bytes: u64) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        self.latency[bucket].fetch_add(1, Relaxed);
        self.latency_us.fetch_add(us, Relaxed);
        self.commits.fetch_add(1, Relaxed);
        self.committed_events.fetch_add(events, Relaxed);
        self.committed_bytes.fetch_add(bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_counts_in_the_bucket_that_holds_its_time() {
        let stats = Stats::default();
        for us in [100, 101, 1_000_001] {
            stats.commit(Duration::from_micros(us), 1, 1);
        }
        let counts: Vec<_> = stats.latency.iter().map(|b| b.load(Relaxed)).collect();
        assert_eq!((counts[0], counts[1], counts[12]), (1, 1, 1));
    }
}
