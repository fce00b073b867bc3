//! Trimming: which events are removed, and when: by age, count and bytes of a tenant, and by bytes of all
//! tenants together.
//!
//! * A tenant's rows use part of its bytes, and of all tenants' ([`Quotas`]). Only events can be trimmed to
//!   make room for them.
//! * For the limit of all together, the tenant that stores most is trimmed, and never a tenant within an
//!   equal share. So no tenant loses history because of others.
//! * Whole stored values are removed, oldest first, and only while what remains is at least the limit.
//! * The low-water mark is raised in memory after the journal has the record that removes the rows, and
//!   before the rows are removed. So a trim that fails is not visible, and a reader that was overtaken
//!   notices. On disk the mark is in the same record, which is durable with the next commit.
//! * A set ordered by time holds, once for each tenant, when its oldest value is due. Other tenants are not
//!   visited.
//! * Age is measured by receive times. Those ahead of the clock (it was set back since) are not usable: such
//!   a value is removed once it was seen in the log for the whole age ([`SeenMark`]).
//! * This runs on the committer's thread, between commits.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};

use crate::ids::{Sequence, TenantId};
use crate::store::engine::{Batch, Engine, EngineError};
use crate::store::format::keys::{self, KeyKind};
use crate::store::format::piece::Head;
use crate::store::format::{COUNTERS_EVERY, LogCounters, LogEntry};
use crate::store::log::TenantLog;
use crate::store::quota::Quotas;

/// Values removed in one batch. It bounds how long a commit waits for a trim.
pub(crate) const VALUES_AT_ONCE: usize = 64;
/// When a trim that ended at events that streams still need is tried again, in milliseconds.
const KEPT_RETRY_MS: u64 = 1_000;
/// When all tenants together exceed their limit, they are trimmed to this part (as a divisor) below it,
/// because finding the tenant to trim visits all of them.
const SLACK: u64 = 128;

/// How long events are kept. 0 disables a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Largest age by receive time, in seconds.
    pub max_age_seconds: u64,
    /// Largest number of events of a tenant.
    pub max_events: u64,
    /// Largest number of bytes of a tenant, as stored.
    pub max_bytes: u64,
}

impl Default for Retention {
    /// 7 days, 1 GiB, any number of events.
    fn default() -> Self {
        Retention { max_age_seconds: 7 * 24 * 60 * 60, max_events: 0, max_bytes: 1 << 30 }
    }
}

impl Retention {
    fn age_ms(&self) -> Option<u64> {
        (self.max_age_seconds > 0).then(|| self.max_age_seconds.saturating_mul(1000))
    }
    /// Returns true if a value may be removed from a log of `events` and `bytes`.
    fn exceeds(&self, events: u64, bytes: u64, value: &OldestPiece, now_ms: u64) -> bool {
        let over = |limit: u64, held: u64, part: u64| limit > 0 && held.saturating_sub(part) >= limit;
        over(self.max_events, events, value.events)
            || over(self.max_bytes, bytes, value.bytes)
            || self.age_ms().is_some_and(|age| value.max_ms.saturating_add(age) < now_ms)
    }
}

/// A tenant's oldest value, as far as it is known.
#[derive(Clone, Copy, Debug)]
struct OldestPiece {
    events: u64,
    bytes: u64,
    max_ms: u64,
}

impl OldestPiece {
    /// A value that was not read yet: it may be of any size.
    const UNKNOWN: OldestPiece = OldestPiece { events: 0, bytes: 0, max_ms: u64::MAX };
}

/// The committer's data of a tenant that has rows in the log.
#[derive(Debug)]
struct TenantLogState {
    row: LogCounters,
    /// Known once it was read. A commit into an empty log needs no read.
    oldest: Option<OldestPiece>,
    /// Values since the counters row was written.
    unwritten: u32,
    /// Its entry in [`RetentionTracker::due`].
    due_ms: Option<u64>,
    /// Set while the oldest value's receive time is ahead of the clock.
    seen: Option<SeenMark>,
}

/// Every event up to `last` was in the log at `at_ms`, Unix milliseconds.
#[derive(Clone, Copy, Debug)]
struct SeenMark {
    last: Sequence,
    at_ms: u64,
}

impl TenantLogState {
    /// If the row was behind, loading the log has counted what it lacked. Returns the bytes of all tenants,
    /// corrected by that.
    fn catch_up(&mut self, log: &TenantLog, live_bytes: u64) -> u64 {
        if self.row.end >= log.last_event() {
            return live_bytes;
        }
        let before = self.row.bytes;
        (self.row.end, self.row.oldest) = (log.last_event(), log.oldest());
        (self.row.events, self.row.bytes) = (log.events(), log.bytes());
        (live_bytes + self.row.bytes).saturating_sub(before)
    }
}

/// What a commit added to a tenant's log.
pub(crate) struct AddedPiece {
    pub(crate) first: Sequence,
    pub(crate) head: Head,
    /// Bytes, including the key.
    pub(crate) bytes: u64,
}

/// A log to be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrimCandidate {
    pub(crate) tenant: TenantId,
    /// Set if the tenant is within its own limits, but all together exceed theirs: the size to which its rows
    /// and events may shrink.
    pub(crate) share: Option<u64>,
}

/// The result of one round of trimming.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrimRound {
    pub(crate) values: u64,
    pub(crate) events: u64,
}

/// What every tenant stores. Owned by the committer.
pub(crate) struct RetentionTracker {
    retention: Retention,
    quotas: Arc<Quotas>,
    tenants: HashMap<TenantId, TenantLogState>,
    /// When a tenant's oldest value reaches its age limit, Unix milliseconds: one entry for each
    /// [`TenantLogState::due_ms`].
    due: BTreeSet<(u64, TenantId)>,
    /// Tenants to be checked now.
    over: BTreeSet<TenantId>,
    /// Bytes of all tenants.
    live_bytes: u64,
    /// The time of the last call of [`RetentionTracker::next`].
    now_ms: u64,
}

impl RetentionTracker {
    /// Loads every tenant's counters row. Rows may be behind their logs, but never far.
    pub(crate) fn load(
        engine: &Engine,
        retention: Retention,
        quotas: Arc<Quotas>,
        now_ms: u64,
    ) -> Result<RetentionTracker, EngineError> {
        let mut retainer = RetentionTracker {
            retention,
            quotas,
            tenants: HashMap::new(),
            due: BTreeSet::new(),
            over: BTreeSet::new(),
            live_bytes: 0,
            now_ms,
        };
        for row in engine.range(&[KeyKind::Counters as u8], &[KeyKind::Counters as u8 + 1]) {
            let (key, value) = row?;
            let (Ok((_, tenant, _)), Some(row)) = (keys::parse(&key), LogCounters::read(&value)) else {
                return Err(EngineError::Engine("a counters row is damaged".into()));
            };
            retainer.live_bytes += row.bytes;
            let state = TenantLogState { row, oldest: None, unwritten: 0, due_ms: None, seen: None };
            retainer.tenants.insert(tenant, state);
            if retainer.retention_of(tenant).exceeds(row.events, row.bytes, &OldestPiece::UNKNOWN, 0) {
                retainer.over.insert(tenant);
            }
            retainer.age(tenant, row.oldest_ms, row.events);
        }
        Ok(retainer)
    }

    /// Number of entries of all tables.
    pub(crate) fn entries(&self) -> usize {
        self.tenants.len() + self.due.len() + self.over.len()
    }

    /// Bytes of all tenants' values and keys.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    /// The limits of one tenant; its rows take part of its bytes.
    fn retention_of(&self, tenant: TenantId) -> Retention {
        let limits = &self.quotas.limits;
        if limits.bytes == 0 {
            return self.retention;
        }
        let room = limits.event_bytes(self.quotas.usage(tenant)).unwrap_or(u64::MAX);
        let max_bytes = if self.retention.max_bytes == 0 { room } else { room.min(self.retention.max_bytes) };
        Retention { max_bytes, ..self.retention }
    }

    /// Schedules a tenant for trimming if its rows leave less room for its events than they take.
    pub(crate) fn schedule(&mut self, tenant: TenantId) {
        let retention = self.retention_of(tenant);
        let Some(state) = self.tenants.get(&tenant) else { return };
        let oldest = state.oldest.unwrap_or(OldestPiece::UNKNOWN);
        if retention.exceeds(state.row.events, state.row.bytes, &oldest, 0) {
            self.over.insert(tenant);
        }
    }

    /// Replaces the time when the oldest of a tenant's `events` reaches the age limit.
    fn age(&mut self, tenant: TenantId, oldest_ms: u64, events: u64) {
        let Some(state) = self.tenants.get_mut(&tenant) else { return };
        // If the receive time is ahead of the clock, it is checked again after the whole age.
        let since_ms = state.seen.map_or(oldest_ms.min(self.now_ms), |seen| seen.at_ms);
        let due_ms = self.retention.age_ms().filter(|_| events > 0);
        self.set_due(tenant, due_ms.map(|age| since_ms.saturating_add(age).saturating_add(1)));
    }

    /// Replaces the time when a tenant is looked at again.
    fn set_due(&mut self, tenant: TenantId, due_ms: Option<u64>) {
        let Some(state) = self.tenants.get_mut(&tenant) else { return };
        if let Some(before) = std::mem::replace(&mut state.due_ms, due_ms) {
            self.due.remove(&(before, tenant));
        }
        self.due.extend(due_ms.map(|due_ms| (due_ms, tenant)));
    }

    /// Counts what is about to be committed into `log`. Returns the counters row if it is time to write it.
    pub(crate) fn add(&mut self, log: &TenantLog, added: &[AddedPiece]) -> Option<Vec<u8>> {
        let tenant = log.tenant();
        let retention = self.retention_of(tenant);
        let state = self.tenants.entry(tenant).or_insert_with(|| TenantLogState {
            row: LogCounters::default(),
            oldest: None,
            unwritten: u32::MAX / 2, // there is no row yet, so write one
            due_ms: None,
            seen: None,
        });
        self.live_bytes = state.catch_up(log, self.live_bytes);
        let was_empty = state.row.events == 0;
        for value in added {
            state.row.add(value.first, &value.head, value.bytes);
            state.row.last_received_ms = state.row.last_received_ms.max(value.head.max_ms);
            self.live_bytes += value.bytes;
        }
        state.unwritten = state.unwritten.saturating_add(added.len() as u32);
        let oldest = state.oldest.unwrap_or(OldestPiece::UNKNOWN);
        if retention.exceeds(state.row.events, state.row.bytes, &oldest, 0) {
            self.over.insert(tenant);
        }
        let write = (was_empty || state.unwritten >= COUNTERS_EVERY).then(|| {
            state.unwritten = 0;
            state.row.write()
        });
        if was_empty {
            let (oldest_ms, events) = (state.row.oldest_ms, state.row.events);
            self.age(tenant, oldest_ms, events);
        }
        write
    }

    /// The events and bytes that are retained after the commit.
    pub(crate) fn retained(&self, tenant: TenantId) -> (u64, u64) {
        self.tenants.get(&tenant).map_or((0, 0), |state| (state.row.events, state.row.bytes))
    }

    /// Writes the counters rows that are behind their logs, before the store closes.
    pub(crate) fn unwritten(&mut self, batch: &mut Batch) {
        for (tenant, state) in self.tenants.iter_mut().filter(|(_, state)| state.unwritten > 0) {
            batch.put(keys::key(KeyKind::Counters, *tenant, &[]), state.row.write());
            state.unwritten = 0;
        }
    }

    /// The next log to be checked.
    pub(crate) fn next(&mut self, now_ms: u64) -> Option<TrimCandidate> {
        self.now_ms = now_ms;
        while let Some(&(due_ms, tenant)) = self.due.first()
            && due_ms <= now_ms
        {
            self.due.pop_first();
            if let Some(state) = self.tenants.get_mut(&tenant) {
                state.due_ms = None;
            }
            self.over.insert(tenant);
        }
        if let Some(tenant) = self.over.pop_first() {
            return Some(TrimCandidate { tenant, share: None });
        }
        self.is_full().then(|| self.largest()).flatten()
    }

    fn is_full(&self) -> bool {
        let most = self.quotas.limits.max_live_bytes;
        most > 0 && self.live_bytes.saturating_add(self.quotas.bytes()) > most
    }

    /// The tenant that stores most, among those that have events and store more than an equal share.
    fn largest(&self) -> Option<TrimCandidate> {
        let (keepers, largest) = self.quotas.with_rows(|rows| {
            let with_events = self.tenants.iter().filter(|(_, state)| state.row.events > 0);
            let without_rows = with_events.clone().filter(|(tenant, _)| !rows.contains(**tenant)).count();
            let total = |(tenant, state): (&TenantId, &TenantLogState)| {
                (state.row.bytes + rows.bytes(*tenant), *tenant)
            };
            (rows.len() + without_rows, with_events.map(total).max())
        });
        let (bytes, tenant) = largest?;
        let share = self.quotas.limits.max_live_bytes / keepers.max(1) as u64;
        (bytes > share).then_some(TrimCandidate { tenant, share: Some(share) })
    }

    /// Removes up to [`VALUES_AT_ONCE`] values of `log` that need not be kept.
    pub(crate) fn trim(
        &mut self,
        engine: &Engine,
        log: &TenantLog,
        share: Option<u64>,
        now_ms: u64,
    ) -> Result<TrimRound, EngineError> {
        let tenant = log.tenant();
        let (mut batch, mut trimmed, mut freed) = (Batch::default(), TrimRound::default(), 0);
        let (retention, rows) = (self.retention_of(tenant), self.quotas.usage(tenant).bytes);
        let Some(state) = self.tenants.get_mut(&tenant) else { return Ok(trimmed) };
        self.live_bytes = state.catch_up(log, self.live_bytes);
        let excess = share.map_or(0, |share| {
            let most = self.quotas.limits.max_live_bytes;
            let all = self.live_bytes.saturating_add(self.quotas.bytes());
            all.saturating_sub(most - most / SLACK).min((state.row.bytes + rows).saturating_sub(share))
        });
        state.oldest = None;
        let mut waits = false;
        let seen = state.seen.take();
        let (from, to) = (keys::log(tenant, state.row.oldest.next()), keys::after(KeyKind::Log, tenant));
        for row in engine.range(&from, &to) {
            let (key, value) = row?;
            let damaged = || EngineError::Engine("a log value is damaged".into());
            let (_, first) = keys::parse_log(&key).map_err(|_| damaged())?;
            let entry = LogEntry::read(&value).map_err(|_| damaged())?;
            let (head, bytes) = (entry.head, entry.bytes(&key));
            let oldest = OldestPiece { events: u64::from(head.count), bytes, max_ms: head.max_ms };
            let ahead = head.max_ms > now_ms;
            let outlived = seen.filter(|seen| ahead && head.last(first) <= seen.last).is_some_and(|seen| {
                self.retention.age_ms().is_some_and(|age| seen.at_ms.saturating_add(age) < now_ms)
            });
            let goes = retention.exceeds(state.row.events, state.row.bytes, &oldest, now_ms)
                || outlived
                || freed < excess;
            let is_kept = head.last(first).0 > log.keep_after.load(Acquire);
            if goes && is_kept {
                // Streams write their text to segments soon. Until then this tenant keeps more than its limit.
                log.trim_waits.store(true, Release);
                waits = true;
            }
            let goes = goes && !is_kept;
            if !goes || trimmed.values as usize == VALUES_AT_ONCE {
                if goes {
                    self.over.insert(tenant);
                }
                state.oldest = Some(oldest);
                state.row.oldest_ms = head.max_ms;
                if ahead {
                    let anew = SeenMark { last: log.last_event(), at_ms: now_ms };
                    state.seen = Some(seen.filter(|seen| first <= seen.last).unwrap_or(anew));
                }
                break;
            }
            batch.delete_piece(&key, &entry);
            freed += bytes;
            state.row.oldest = head.last(first);
            state.row.trimmed_ms = state.row.trimmed_ms.max(head.max_ms);
            state.row.events = state.row.events.saturating_sub(oldest.events);
            state.row.bytes = state.row.bytes.saturating_sub(bytes);
            trimmed.values += 1;
            trimmed.events += oldest.events;
        }
        let (row, empty) = (state.row, state.oldest.is_none());
        if empty {
            self.live_bytes = self.live_bytes.saturating_sub(state.row.bytes); // the remainder of a miscount
            (state.row.events, state.row.bytes, state.row.oldest_ms) = (0, 0, 0);
        }
        if trimmed.values > 0 {
            batch.put(keys::key(KeyKind::Counters, tenant, &[]), state.row.write());
            state.unwritten = 0;
            self.live_bytes = self.live_bytes.saturating_sub(freed);
            let (events, bytes) = (state.row.events, state.row.bytes);
            engine.apply_then(batch, || {
                log.trimmed_ms.store(row.trimmed_ms, Release);
                log.oldest.store(row.oldest.0, Release);
                log.events.store(events, Release);
                log.bytes.store(bytes, Release);
            })?;
        }
        match waits {
            true => self.set_due(tenant, Some(now_ms.saturating_add(KEPT_RETRY_MS))),
            false => self.age(tenant, row.oldest_ms, if empty { 0 } else { row.events }),
        }
        Ok(trimmed)
    }

    /// Counts what is removed from the values of `log`. Returns the counters row to write with the removal.
    pub(crate) fn shrunk(&mut self, log: &TenantLog, bytes: u64) -> Option<Vec<u8>> {
        let state = self.tenants.get_mut(&log.tenant())?;
        self.live_bytes = state.catch_up(log, self.live_bytes);
        let bytes = bytes.min(state.row.bytes);
        self.live_bytes = self.live_bytes.saturating_sub(bytes);
        state.row.bytes -= bytes;
        state.oldest = None; // the removed value may have been the oldest
        state.unwritten = 0;
        log.bytes.store(state.row.bytes, Release);
        Some(state.row.write())
    }

    /// Removes the data of an erased tenant.
    pub(crate) fn forget(&mut self, tenant: TenantId) {
        if let Some(state) = self.tenants.remove(&tenant) {
            self.live_bytes = self.live_bytes.saturating_sub(state.row.bytes);
            if let Some(due_ms) = state.due_ms {
                self.due.remove(&(due_ms, tenant));
            }
        }
        self.over.remove(&tenant);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, IoSlice};
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::*;
    use crate::store::disk::{Disk, Io};
    use crate::store::engine::EngineOptions;
    use crate::store::log::page::tests::pieces;
    use crate::store::log::recover;
    use crate::store::quota::QuotaLimits;

    const NO_LIMITS: QuotaLimits = QuotaLimits { bytes: 0, rows: 0, max_live_bytes: 0 };

    /// Fails writes on demand.
    #[derive(Default)]
    struct Failing(AtomicBool);

    impl Io for Failing {
        fn write_at(&self, file: &File, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
            match self.0.load(SeqCst) {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Disk.write_at(file, parts, at),
            }
        }
    }

    /// Regression: the low-water mark was raised before the trim was recorded, so readers got a gap although
    /// every event was still there.
    #[test]
    fn a_trim_that_fails_is_not_shown() {
        let (dir, io) = (tempfile::tempdir().expect("a directory"), Arc::new(Failing::default()));
        let engine = Engine::open(&EngineOptions::new(dir.path(), io.clone())).expect("opened");
        let mut batch = Batch::default();
        for piece in pieces([1, 3, 5], 100) {
            batch.put_piece(keys::log(TenantId(1), piece.first), piece.value, piece.head);
        }
        let counted = LogCounters { end: Sequence(5), events: 3, bytes: 1_000, ..LogCounters::default() };
        batch.put(keys::key(KeyKind::Counters, TenantId(1), &[]), counted.write());
        engine.commit(batch).expect("committed");
        let log =
            TenantLog::new(TenantId(1), 1, &recover::tenant(&engine, TenantId(1)).expect("a log"), u32::MAX);
        let retention = Retention { max_age_seconds: 0, max_events: 1, max_bytes: 0 };
        let load = || RetentionTracker::load(&engine, retention, Quotas::new(NO_LIMITS), 1).expect("loaded");
        io.0.store(true, SeqCst);
        assert!(load().trim(&engine, &log, None, 1).is_err());
        assert_eq!((log.oldest(), log.events()), (Sequence::ZERO, 3));
        io.0.store(false, SeqCst);
        assert_eq!(load().trim(&engine, &log, None, 1).expect("trimmed").values, 2);
        assert_eq!((log.oldest(), log.events()), (Sequence(3), 1));
    }

    const VALUE: OldestPiece = OldestPiece { events: 10, bytes: 1000, max_ms: 5_000 };

    #[test]
    fn a_piece_is_trimmed_only_while_the_rest_reaches_the_limit() {
        let by_events = Retention { max_age_seconds: 0, max_events: 90, max_bytes: 0 };
        assert!(by_events.exceeds(100, 1, &VALUE, 0));
        assert!(!by_events.exceeds(99, 1, &VALUE, 0));
        let by_bytes = Retention { max_age_seconds: 0, max_events: 0, max_bytes: 500 };
        assert!(by_bytes.exceeds(100, 1500, &VALUE, 0));
        assert!(!by_bytes.exceeds(100, 1499, &VALUE, 0));
        let by_age = Retention { max_age_seconds: 1, max_events: 0, max_bytes: 0 };
        assert!(by_age.exceeds(100, 1, &VALUE, 6_001));
        assert!(!by_age.exceeds(100, 1, &VALUE, 6_000));
        let never = Retention { max_age_seconds: 0, max_events: 0, max_bytes: 0 };
        assert!(!never.exceeds(u64::MAX, u64::MAX, &VALUE, u64::MAX));
    }
}
