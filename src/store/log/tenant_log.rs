//! The watermarks of one tenant's log: where it ends, what is committed, and what is still retained.
//!
//! * `end` only grows. The tenant's appends move it, one after the other, or a new epoch does.
//! * `oldest <= last_event <= committed <= end`. Each field says who writes it; every thread may read it.
//! * `committed` is stored with `Release` after its rows changed, and `oldest` before. Both are loaded with
//!   `Acquire`: a reader that sees a watermark also sees the rows up to it.
//! * It holds no event and no file, so that 100,000 idle tenants fit into memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Release};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::ids::{Sequence, TenantId};
use crate::store::format::LogCounters;
use crate::store::format::piece::MAX_VALUE;

/// Limit on events of one tenant that are appended and not yet committed. A new epoch starts this far above
/// the recovered end, so that the sequence of an event that was delivered live but never committed is not
/// used again.
pub const UNCOMMITTED_EVENTS: u32 = 16 * 1024;
/// Limit on bytes of one tenant's events that are appended and not yet committed.
pub const UNCOMMITTED_BYTES: u64 = 8 << 20;
/// How long a publish waits for a permit.
pub const RESERVE_WAIT: Duration = Duration::from_secs(1);
/// One permit is for one event or for this many bytes, whichever needs more permits. So one counter enforces
/// both limits.
const PERMIT_BYTES: u64 = UNCOMMITTED_BYTES / UNCOMMITTED_EVENTS as u64;
const _: () = assert!(PERMIT_BYTES * (UNCOMMITTED_EVENTS as u64) == UNCOMMITTED_BYTES);
const _: () = assert!(UNCOMMITTED_BYTES > 64 * MAX_VALUE as u64);

/// One tenant's log, shared by everyone who reads or appends to it.
#[derive(Debug)]
pub struct TenantLog {
    tenant: TenantId,
    /// The last sequence appended, or where the epoch started. Written under the commit queue's lock.
    pub(crate) end: AtomicU64,
    /// Every event up to this sequence is on disk. Written by the committer.
    pub(crate) committed: AtomicU64,
    /// The last event on disk; 0 if there is none. Written by the committer.
    pub(crate) last_event: AtomicU64,
    /// The last trimmed event; 0 if there is none. Written by the committer.
    pub(crate) oldest: AtomicU64,
    /// Receive time of the last trimmed event, Unix milliseconds; 0 if there is none. Written by the
    /// committer.
    pub(crate) trimmed_ms: AtomicU64,
    /// Receive time of the last event appended, Unix milliseconds. Written under the commit queue's lock.
    pub(crate) last_received_ms: AtomicU64,
    /// Events retained on disk. Written by the committer.
    pub(crate) events: AtomicU64,
    /// Bytes of the retained values with their keys. Written by the committer.
    pub(crate) bytes: AtomicU64,
    /// Events after this sequence must not be trimmed, because they hold text of open streams that is in no
    /// segment; the largest number if there are none. Written under the tenant's lock.
    pub(crate) keep_after: AtomicU64,
    /// Set when a trim ended at `keep_after`, so that the streams write their text to segments. Written by the
    /// committer, cleared by the streams.
    pub(crate) trim_waits: AtomicBool,
    /// Whether a tombstone (`commit/tombstones.rs`) concerns this tenant; publishers of other tenants need no
    /// lookup. Written by the committer.
    pub(crate) tombstones: AtomicBool,
    /// Total permits, at most [`UNCOMMITTED_EVENTS`].
    room: u32,
    permits: Semaphore,
}

impl TenantLog {
    pub(crate) fn new(tenant: TenantId, epoch: u32, recovered: &LogCounters, uncommitted: u32) -> TenantLog {
        let room = uncommitted.clamp(1, UNCOMMITTED_EVENTS);
        let log = TenantLog {
            tenant,
            end: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            last_event: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
            trimmed_ms: AtomicU64::new(0),
            last_received_ms: AtomicU64::new(0),
            events: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            keep_after: AtomicU64::new(u64::MAX),
            trim_waits: AtomicBool::new(false),
            tombstones: AtomicBool::new(false),
            room,
            permits: Semaphore::new(room as usize),
        };
        log.begin_epoch(epoch, recovered);
        log
    }

    /// Moves to the start of `epoch`, one uncommitted limit above what is on disk.
    pub(crate) fn begin_epoch(&self, epoch: u32, recovered: &LogCounters) {
        let counter = recovered.end.counter() + u64::from(UNCOMMITTED_EVENTS);
        let start = Sequence::new(epoch, counter).0;
        self.oldest.store(recovered.oldest.0, Release);
        self.trimmed_ms.store(recovered.trimmed_ms, Release);
        self.last_received_ms.fetch_max(recovered.last_received_ms, Release);
        self.events.store(recovered.events, Release);
        self.bytes.store(recovered.bytes, Release);
        self.last_event.store(recovered.end.0, Release);
        self.end.store(start, Release);
        self.committed.store(start, Release);
    }

    /// Skips the appended sequences whose commit failed. They are in no log and are never used again.
    pub(crate) fn skip_uncommitted(&self) {
        self.committed.store(self.end.load(Acquire), Release);
    }

    /// The tenant of this log.
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }
    /// The last sequence appended, committed or not, or where the epoch started. The next append starts right
    /// after it.
    #[must_use]
    pub fn end(&self) -> Sequence {
        Sequence(self.end.load(Acquire))
    }
    /// The sequence up to which everything is on disk; where the epoch starts before its first commit.
    #[must_use]
    pub fn committed(&self) -> Sequence {
        Sequence(self.committed.load(Acquire))
    }
    /// The last event on disk; [`Sequence::ZERO`] if there never was one.
    #[must_use]
    pub fn last_event(&self) -> Sequence {
        Sequence(self.last_event.load(Acquire))
    }
    /// The position before the oldest retained event; [`Sequence::ZERO`] as long as nothing was trimmed.
    #[must_use]
    pub fn oldest(&self) -> Sequence {
        Sequence(self.oldest.load(Acquire))
    }
    /// Receive time of the last event appended, Unix milliseconds. It never decreases and survives restarts.
    #[must_use]
    pub fn last_received_ms(&self) -> u64 {
        self.last_received_ms.load(Acquire)
    }
    /// Events retained on disk.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events.load(Acquire)
    }
    /// Bytes retained on disk, without sled's own overhead.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Acquire)
    }
    /// Permits of events that are not yet committed, 0 to [`UNCOMMITTED_EVENTS`].
    #[must_use]
    pub fn uncommitted(&self) -> usize {
        self.room as usize - self.permits.available_permits()
    }

    /// Keeps the events after `position` from being trimmed; `None` releases all.
    pub fn keep_after(&self, position: Option<Sequence>) {
        self.keep_after.store(position.map_or(u64::MAX, |position| position.0), Release);
    }
    /// The position after which nothing is trimmed.
    #[must_use]
    pub fn kept_after(&self) -> Option<Sequence> {
        Some(self.keep_after.load(Acquire)).filter(|position| *position != u64::MAX).map(Sequence)
    }
    /// Returns true once after a trim ended at the kept position.
    #[must_use]
    pub fn take_trim_waits(&self) -> bool {
        self.trim_waits.load(Acquire) && self.trim_waits.swap(false, Release)
    }

    fn permits_for(&self, events: usize, bytes: usize) -> u32 {
        let by_bytes = (bytes as u64).div_ceil(PERMIT_BYTES);
        u32::try_from(by_bytes.max(events as u64)).unwrap_or(u32::MAX).clamp(1, self.room)
    }

    /// Acquires room for `events` events with `bytes` bytes in total, if it is free now and nobody waits for
    /// it.
    #[must_use]
    pub fn try_reserve(self: &Arc<Self>, events: usize, bytes: usize) -> Option<Permit> {
        let permits = self.permits_for(events, bytes);
        self.permits.try_acquire_many(permits).ok()?.forget();
        Some(Permit { log: self.clone(), permits })
    }

    /// Acquires room for `events` events with `bytes` bytes in total. Waits up to [`RESERVE_WAIT`], in order
    /// of arrival. Needs a tokio timer.
    ///
    /// # Errors
    /// [`UncommittedLimitReached`] if the disk does not keep up.
    pub async fn reserve(
        self: &Arc<Self>,
        events: usize,
        bytes: usize,
    ) -> Result<Permit, UncommittedLimitReached> {
        if let Some(permit) = self.try_reserve(events, bytes) {
            return Ok(permit);
        }
        let permits = self.permits_for(events, bytes);
        match tokio::time::timeout(RESERVE_WAIT, self.permits.acquire_many(permits)).await {
            Ok(Ok(permit)) => {
                permit.forget();
                Ok(Permit { log: self.clone(), permits })
            }
            _ => Err(UncommittedLimitReached),
        }
    }
}

/// The tenant's uncommitted limit was reached, and no room was released within [`RESERVE_WAIT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many events wait to be committed")]
pub struct UncommittedLimitReached;

/// Room in the commit queue. Dropping it releases the room. [`crate::store::Store::append`] keeps it until the
/// commit.
#[derive(Debug)]
pub struct Permit {
    log: Arc<TenantLog>,
    permits: u32,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.log.permits.add_permits(self.permits as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> Arc<TenantLog> {
        Arc::new(TenantLog::new(TenantId(1), 3, &LogCounters::default(), UNCOMMITTED_EVENTS))
    }

    #[test]
    fn an_epoch_begins_one_uncommitted_limit_above_the_recovered_end() {
        let recovered =
            LogCounters { end: Sequence::new(2, 100), last_received_ms: 5, ..LogCounters::default() };
        let log = TenantLog::new(TenantId(1), 3, &recovered, UNCOMMITTED_EVENTS);
        assert_eq!(log.end(), Sequence::new(3, 100 + u64::from(UNCOMMITTED_EVENTS)));
        assert_eq!(
            (log.committed(), log.last_event(), log.last_received_ms()),
            (log.end(), recovered.end, 5)
        );
    }

    #[test]
    fn permits_are_limited_by_events_and_bytes_and_are_returned() {
        let log = log();
        let events = log.try_reserve(UNCOMMITTED_EVENTS as usize, 1).expect("the whole room");
        assert!(log.try_reserve(1, 1).is_none());
        drop(events);
        let bytes = log.try_reserve(1, UNCOMMITTED_BYTES as usize).expect("the whole room");
        assert!(log.try_reserve(1, 1).is_none());
        drop(bytes);
        assert_eq!(log.uncommitted(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_publish_waits_in_order_and_times_out() {
        let log = log();
        let held = log.try_reserve(UNCOMMITTED_EVENTS as usize, 1).expect("the whole room");
        assert_eq!(log.reserve(1, 1).await.expect_err("full"), UncommittedLimitReached);
        let waiting = tokio::spawn({
            let log = log.clone();
            async move { log.reserve(3, 1).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(held);
        assert!(waiting.await.expect("joined"));
        assert_eq!(log.uncommitted(), 0);
    }
}
