//! The clock of rows that are kept for a day.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::Clock;

/// The clock that dates and ages the rows of lanes. It starts at the wall clock's time when the store opens,
/// or at the newest row's time if that is later, and continues with the monotonic clock. Within a run no row
/// looks older or younger than it is, and none is from the future.
#[derive(Debug, Default)]
pub(crate) struct DayClock {
    /// Unix milliseconds at the monotonic clock's zero. Written when the store opens.
    zero_ms: AtomicU64,
}

impl DayClock {
    pub(super) fn start(&self, clock: &dyn Clock, newest_ms: u64) {
        let now_ms = clock.now_ms().max(newest_ms);
        self.zero_ms.fetch_max(now_ms.saturating_sub(clock.monotonic_us() / 1_000), Ordering::Relaxed);
    }

    /// The current time in Unix milliseconds.
    pub(crate) fn now_ms(&self, clock: &dyn Clock) -> u64 {
        self.zero_ms.load(Ordering::Relaxed).saturating_add(clock.monotonic_us() / 1_000)
    }
}
