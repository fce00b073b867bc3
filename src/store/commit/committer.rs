//! The committer: the only thread that commits. It alone appends records to the journal.
//!
//! * Everything queued while one commit ran goes into the next commit. A commit writes one record and syncs
//!   it once, then makes rows and watermarks visible, then notifies the waiters. The order matters: an ack
//!   means that the event survives power loss.
//! * Between commits the committer trims, collects and erases in small batches, and checks the free space.
//! * A commit that fails also fails everything queued behind it; see `reopen.rs`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::{Duration, Instant};

use super::inner::StoreInner;
use super::queue::{CommitError, Item};
use super::tombstones::Tombstones;
use crate::allocator;
use crate::ids::{Sequence, TenantId};
use crate::store::dedup::DayLanes;
use crate::store::disk::{SpaceWatch, StoreState};
use crate::store::engine::{Batch, Engine, EngineError};
use crate::store::format::keys::{self, KeyKind};
use crate::store::format::piece::{Packed, Packer};
use crate::store::journal::Position;
use crate::store::lists::index::IndexWrites;
use crate::store::log::TenantLog;
use crate::store::quota::usage::counted_key;
use crate::store::retention::reclaim::Reclaimer;
use crate::store::retention::{AddedPiece, RetentionTracker, SweepOutcome, Sweeper, VALUES_AT_ONCE};
use crate::store::rows::{PendingChange, usage_rows};
use crate::time::CautiousClock;

/// How long the committer sleeps when there is no work. Housekeeping is at most this late.
const IDLE: Duration = Duration::from_millis(500);
/// Values that may be trimmed after one commit, in addition to as many as the commit wrote. Trimming so keeps
/// up with any publisher, and the next commit waits a bounded time even when much is over its limits at once.
const TRIMMED_AFTER_COMMIT: usize = 4 * VALUES_AT_ONCE;

/// What the committer knows about the database. It is loaded again each time the database is opened.
pub(crate) struct CommitterState {
    pub(crate) retainer: RetentionTracker,
    pub(crate) lanes: DayLanes,
    pub(crate) sweep: Sweeper,
    pub(crate) reclaimer: Reclaimer,
}

impl CommitterState {
    pub(crate) fn load(
        engine: &Engine,
        inner: &StoreInner,
        now_ms: u64,
    ) -> Result<CommitterState, EngineError> {
        let options = &inner.options;
        inner.quotas.replace_usage(usage_rows::load(engine)?);
        let mut state = CommitterState {
            retainer: RetentionTracker::load(engine, options.retention, inner.quotas.clone(), now_ms)?,
            lanes: DayLanes::load(engine, options.idempotency_rows, &inner.day, &*options.clock)?,
            sweep: Sweeper::load(engine)?,
            reclaimer: Reclaimer::default(),
        };
        let erasing = state.sweep.erasing();
        inner.add_tombstones(&erasing, &state.sweep.erasing_users());
        inner.stats.erasures.store(state.sweep.entries() as u64, Relaxed);
        for tenant in erasing {
            state.forget(tenant);
        }
        Ok(state)
    }

    fn entries(&self) -> usize {
        self.retainer.entries() + self.lanes.entries() + self.sweep.entries()
    }

    fn forget(&mut self, tenant: TenantId) {
        self.retainer.forget(tenant);
        self.lanes.forget(tenant);
    }
}

/// What one commit changes for one tenant.
struct TenantCommit {
    log: Arc<TenantLog>,
    packer: Packer,
    added: Vec<AddedPiece>,
    last: Sequence,
}

/// What a commit marks for erasure.
#[derive(Default)]
struct CommitErasures {
    tenants: Vec<TenantId>,
    users: Vec<(TenantId, String)>,
    /// The same erasures as tombstones, for later items of the same commit.
    tombstones: Tombstones,
}

/// The committer's state.
pub(crate) struct Committer {
    pub(crate) inner: Arc<StoreInner>,
    pub(crate) state: CommitterState,
    pub(crate) space: SpaceWatch,
    /// The clock for retention and revocations.
    pub(crate) clock: CautiousClock,
    /// Where the journal ended when the engine was last closed in order to be opened again.
    pub(crate) acknowledged: Option<Position>,
    /// Cleared by each commit; kept to reuse its memory.
    touched: HashMap<TenantId, TenantCommit>,
}

impl Committer {
    pub(crate) fn new(inner: Arc<StoreInner>, state: CommitterState, space: SpaceWatch) -> Committer {
        let mut clock = CautiousClock::default();
        clock.now_ms(&*inner.options.clock); // the time of opening is trusted
        Committer { inner, state, space, clock, acknowledged: None, touched: HashMap::new() }
    }

    /// The body of the thread. Runs until the store closes and the queue is empty.
    pub(crate) fn run(mut self) {
        let mut items = VecDeque::new();
        let (mut busy, mut wrote_since) = (false, false);
        loop {
            let patience = if busy { Duration::ZERO } else { IDLE };
            let closing = self.inner.queue.take(patience, &mut items);
            if closing && items.is_empty() {
                break;
            }
            if !busy && items.is_empty() && std::mem::take(&mut wrote_since) {
                items = VecDeque::new();
                // Events and pages are freed on this thread; after a flood this is most of them.
                allocator::release_free_pages(true);
            }
            let wrote = if items.is_empty() { 0 } else { self.commit(&mut items) };
            wrote_since |= wrote > 0;
            busy = match self.inner.state.get() {
                StoreState::Writable | StoreState::Reserve => self.housekeeping(wrote),
                _ => false,
            };
        }
        self.finish();
    }

    /// Commits `items` and notifies the waiters. Returns the number of log values written.
    fn commit(&mut self, items: &mut VecDeque<Item>) -> usize {
        let started = Instant::now();
        let mut erased = CommitErasures::default();
        // sled may panic on an IO error. That is a failed commit like any other.
        let result = catch_unwind(AssertUnwindSafe(|| self.write(items, &mut erased)))
            .unwrap_or_else(|_| Err(EngineError::Engine("it panicked".into())));
        match result {
            Ok((values, events, bytes)) => {
                self.inner.add_tombstones(&erased.tenants, &erased.users);
                self.publish_watermarks();
                // Erasures are counted before anybody learns of them, so that none looks finished before it
                // has started.
                let erasures = self.state.sweep.entries() + erased.tenants.len() + erased.users.len();
                self.inner.stats.erasures.store(erasures as u64, Relaxed);
                for item in items.drain(..) {
                    item.done.call_with(item.refused.map_or(Ok(()), Err));
                }
                for tenant in erased.tenants {
                    self.inner.forget_log(tenant);
                    self.state.forget(tenant);
                    self.state.sweep.erase(tenant);
                }
                for (tenant, user) in erased.users {
                    self.state.sweep.erase_user(tenant, &user);
                }
                if bytes > 0 {
                    self.inner.stats.commit(started.elapsed(), events, bytes);
                }
                self.watch_space(bytes);
                values
            }
            Err(error) => {
                self.touched.clear();
                self.fail(error, items);
                0
            }
        }
    }

    /// Builds the batch and commits it. Returns the numbers of values, events and bytes written.
    fn write(
        &mut self,
        items: &mut VecDeque<Item>,
        erased: &mut CommitErasures,
    ) -> Result<(usize, u64, u64), EngineError> {
        let (mut batch, mut index_writes) = (Batch::default(), IndexWrites::default());
        let mut events = 0;
        let inner = self.inner.clone();
        let tombstones = inner.tombstones.read();
        for item in items.iter_mut().filter(|item| item.refused.is_none()) {
            let frames = item.append.as_ref().map_or(&[][..], |append| append.frames.as_slice());
            if tombstones.refuse(item) || erased.tombstones.refuse(item) {
                item.refused = Some(CommitError::Deleted);
            } else if !frames.iter().all(|frame| Packer::fits(frame)) {
                item.refused = Some(CommitError::TooLarge);
            } else {
                for change in std::mem::take(&mut item.rows).into_changes() {
                    self.change(&mut batch, &mut index_writes, change, erased);
                }
            }
            let Some(append) = &item.append else { continue };
            let touched = self.touched.entry(append.log.tenant()).or_insert_with(|| TenantCommit {
                log: append.log.clone(),
                packer: Packer::default(),
                added: Vec::new(),
                last: Sequence::ZERO,
            });
            let tenant = append.log.tenant();
            let known = [&*tombstones, &erased.tombstones];
            let concerned = known.iter().any(|tombstones| tombstones.concern(tenant));
            let is_deleted = concerned && known.iter().any(|tombstones| tombstones.has_organization(tenant));
            for frame in append.frames.as_slice() {
                touched.last = frame.sequence();
                if is_deleted {
                    continue; // nothing of it is written any more, not even a mark for an erased event
                }
                // A refused event already has its sequence, so a mark for an erased event is written in its
                // place.
                let presence = |tombstones: &&Tombstones| tombstones.has_presence(tenant, frame);
                let kept = item.refused.is_none() && !(concerned && known.iter().any(presence));
                let mut sink = |packed| put(&mut batch, tenant, &mut touched.added, packed);
                let _ = touched.packer.push(frame, kept, &mut sink); // it fits, or is only a mark
                events += 1;
            }
        }
        drop(tombstones);
        if !index_writes.is_empty() {
            self.engine(|engine| index_writes.write(engine, &mut batch))?;
        }
        let mut values = 0;
        for (tenant, touched) in &mut self.touched {
            touched.packer.finish(&mut |packed| put(&mut batch, *tenant, &mut touched.added, packed));
            values += touched.added.len();
            if touched.added.is_empty() {
                continue;
            }
            if let Some(row) = self.state.retainer.add(&touched.log, &touched.added) {
                batch.put(keys::key(KeyKind::Counters, *tenant, &[]), row);
            }
        }
        let bytes = batch.bytes;
        if bytes > 0 {
            let tenants = match self.inner.quotas.limits.bytes {
                0 => HashSet::new(),
                _ => {
                    batch.changes().iter().filter_map(|row| counted_key(&row.key)).map(|row| row.1).collect()
                }
            };
            self.engine(|engine| engine.commit(batch))?;
            for tenant in tenants {
                self.state.retainer.schedule(tenant); // its rows may now leave less room for its events
            }
        }
        Ok((values, events, bytes))
    }

    fn change(
        &mut self,
        batch: &mut Batch,
        index_writes: &mut IndexWrites,
        change: PendingChange,
        erased: &mut CommitErasures,
    ) {
        match change {
            PendingChange::Put { key, value, is_new: true } => batch.put_new(key, value),
            PendingChange::Put { key, value, is_new: false } => batch.put(key, value),
            PendingChange::Delete(key) => batch.delete(&key),
            PendingChange::Dedup { lane, tenant, key, value } => {
                let now_ms = self.inner.day.now_ms(&*self.inner.options.clock);
                self.state.lanes.push(batch, lane, tenant, key, value, now_ms);
            }
            PendingChange::ListEntry { tenant, entry, id, is_present } => {
                index_writes.add(tenant, &entry, id, is_present)
            }
            PendingChange::Erase(tenant) => {
                put_erasure(batch, tenant, None);
                erased.tombstones.add_organization(tenant);
                erased.tenants.push(tenant);
            }
            PendingChange::EraseUser(tenant, user) => {
                put_erasure(batch, tenant, Some(&user));
                erased.tombstones.add_user(tenant, &user);
                erased.users.push((tenant, user));
            }
        }
    }

    fn publish_watermarks(&mut self) {
        for (tenant, touched) in self.touched.drain() {
            let (events, bytes) = self.state.retainer.retained(tenant);
            let log = &touched.log;
            log.events.store(events, Release);
            log.bytes.store(bytes, Release);
            // `last_event` is stored first: a reader that loads `committed` and then `last_event` misses no
            // event in between.
            log.last_event.store(touched.last.0, Release);
            log.committed.store(touched.last.0, Release);
        }
    }

    /// Runs `f` on the open engine.
    pub(crate) fn engine<T>(
        &self,
        f: impl FnOnce(&Engine) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        match self.inner.engine.read().as_ref() {
            Some(engine) => f(engine),
            None => Err(EngineError::Engine("the engine is not open".into())),
        }
    }

    /// Trims, collects and erases a little. Returns true if there is more to do at once.
    fn housekeeping(&mut self, wrote: usize) -> bool {
        let result = catch_unwind(AssertUnwindSafe(|| self.housekeeping_round(wrote)))
            .unwrap_or_else(|_| Err(EngineError::Engine("it panicked".into())));
        match result {
            Ok(more) => more,
            Err(error) => {
                self.fail(error, &mut VecDeque::new());
                false
            }
        }
    }

    fn housekeeping_round(&mut self, wrote: usize) -> Result<bool, EngineError> {
        let inner = self.inner.clone();
        let engine = inner.engine.read();
        let Some(engine) = engine.as_ref() else { return Ok(false) };
        engine.check()?;
        let (now_ms, stats) = (self.clock.now_ms(&*inner.options.clock), &inner.stats);
        let mut more = false;
        let mut left = wrote + TRIMMED_AFTER_COMMIT;
        while let Some(candidate) = self.state.retainer.next(now_ms) {
            let log = inner.log_in(engine, candidate.tenant)?;
            let trimmed = self.state.retainer.trim(engine, &log, candidate.share, now_ms)?;
            drop(log);
            // Do not keep a log that was loaded only for this.
            inner.logs.lock().forget_quiet(candidate.tenant);
            stats.trimmed_values.fetch_add(trimmed.values, Relaxed);
            stats.trimmed_events.fetch_add(trimmed.events, Relaxed);
            if candidate.share.is_some() && trimmed.values == 0 {
                break; // the budget is used up
            }
            left = left.saturating_sub(trimmed.values as usize + 1); // the check itself also costs
            if left == 0 {
                more = true;
                break;
            }
        }
        stats.log_bytes.store(self.state.retainer.live_bytes(), Relaxed);
        let collected = self.state.lanes.collect(engine, inner.day.now_ms(&*inner.options.clock))?;
        stats.idempotency_dropped.fetch_add(collected.dropped, Relaxed);
        let retainer = &mut self.state.retainer;
        let shrunk = |tenant, bytes| {
            let log = inner.log_in(engine, tenant)?;
            let row = retainer.shrunk(&log, bytes);
            drop(log);
            inner.logs.lock().forget_quiet(tenant);
            Ok(row)
        };
        match self.state.sweep.step(engine, stats, now_ms, shrunk)? {
            SweepOutcome::Partial => {}
            SweepOutcome::Tenant(tenant) => {
                // The log is dropped again, because a reader may have loaded it since.
                inner.forget_log(tenant);
                inner.reads.forget(tenant);
                self.state.forget(tenant);
                inner.quotas.forget(tenant);
                tracing::info!(tenant = tenant.0, "erased");
            }
            SweepOutcome::Events(_, 0) => {}
            SweepOutcome::Events(tenant, _) => inner.reads.forget(tenant),
            SweepOutcome::User(tenant) => {
                inner.reads.forget(tenant); // pages that a reader was reading meanwhile
                tracing::info!(tenant = tenant.0, "erased the events of users");
            }
            SweepOutcome::Postponed(tenant, pause_ms) => {
                inner.reads.forget(tenant);
                tracing::error!(
                    tenant = tenant.0,
                    again_in_s = pause_ms / 1000,
                    "not all events of erased users could be read: the erasure goes on when they can be read, or when they are trimmed"
                );
            }
        }
        self.state.sweep.revocations(engine, now_ms)?;
        let reclaims = self.state.reclaimer.step(engine)?;
        stats.committer_entries.store(self.state.entries() as u64, Relaxed);
        stats.erasures.store(self.state.sweep.entries() as u64, Relaxed);
        stats.erasures_postponed.store(self.state.sweep.postponed() as u64, Relaxed);
        stats.tombstones.store(inner.tombstones.read().entries() as u64, Relaxed);
        stats.housekeeping_rounds.fetch_add(1, Relaxed);
        if wrote == 0 {
            self.watch_space(0);
        }
        Ok(more || reclaims || collected.removed > 0 || self.state.sweep.is_busy())
    }

    /// Checks the free space at intervals and sets what it allows.
    pub(crate) fn watch_space(&mut self, written: u64) {
        let Some(space) = self.space.check(&*self.inner.options.io, written) else { return };
        self.inner.stats.free_bytes.store(space.free, Relaxed);
        let state = self.inner.state.get();
        let allowed = self.space.next_state(state, space.free);
        if allowed == StoreState::Writable {
            self.space.keep_ballast(space.free);
        }
        if allowed != state {
            tracing::warn!(
                free_bytes = space.free,
                ?allowed,
                "free space on the file system changed what the store accepts"
            );
            self.inner.state.set(allowed);
        }
    }

    /// Writes deferred items, closes the database, and fails later requests.
    fn finish(mut self) {
        if matches!(self.inner.state.get(), StoreState::Writable | StoreState::Reserve) {
            let mut batch = Batch::default();
            self.state.retainer.unwritten(&mut batch);
            let result = catch_unwind(AssertUnwindSafe(|| self.engine(|engine| engine.commit(batch))));
            if let Ok(Err(error)) = result {
                tracing::warn!(%error, "the last commit failed; nothing acknowledged is lost");
            }
        }
        self.inner.reads.close();
        drop(self.inner.engine.write().take());
        drop(self.inner.lock.lock().take());
        self.inner.state.set(StoreState::Closed);
        let late = {
            let mut waiting = self.inner.queue.lock();
            waiting.ended = true;
            waiting.take_all()
        };
        for item in late {
            item.done.call_with(Err(CommitError::Unavailable));
        }
    }
}

/// Puts the row that records a pending erasure: of a whole tenant, or of one of its users.
fn put_erasure(batch: &mut Batch, tenant: TenantId, user: Option<&str>) {
    let (kind, tail) = user.map_or((KeyKind::Erase, ""), |user| (KeyKind::EraseUser, user));
    batch.put(keys::key(kind, tenant, tail.as_bytes()), vec![1]);
}

fn put(batch: &mut Batch, tenant: TenantId, added: &mut Vec<AddedPiece>, packed: Packed) {
    let key = keys::log(tenant, packed.first);
    let bytes = (key.len() + packed.value.len()) as u64;
    added.push(AddedPiece { first: packed.first, head: packed.head, bytes });
    batch.put_piece(key, packed.value, packed.head);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::frame;
    use crate::store::format::piece::MAX_VALUE;
    use crate::store::{CommitCallback, CommitError, LogRead, Rows, Store, StoreOptions};
    use crate::time::ManualClock;

    /// The limits in front of the store let no such event through. If one came, its client would be answered
    /// that the commit was refused, so nothing of it may be stored.
    #[tokio::test]
    async fn an_event_that_is_too_large_refuses_its_rows_and_the_events_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let clock = Arc::new(ManualClock::at(1_700_000_000_000)); // when the frames were received
        let options = StoreOptions { clock, ..StoreOptions::new(dir.path()) };
        let store = Store::open(options).expect("the store opens");
        let log = store.log(TenantId(1)).await.expect("read");
        let start = log.end();
        let publish = async |lengths: &[usize], rows: Rows| {
            let next = (log.end().next().0..).zip(lengths);
            let frames: Vec<_> = next
                .map(|(sequence, len)| {
                    let text = "x".repeat(*len);
                    let json = format!(r#"{{"type":"message","agent_id":"a","content":"{text}"}}"#);
                    Arc::new(frame(&json, sequence))
                })
                .collect();
            let (done, committed) = CommitCallback::channel();
            store.append(&log, frames, rows, None, done);
            committed.await.expect("a result")
        };
        let mut rows = Rows::new();
        rows.put_secret("name", b"value").expect("short");
        assert_eq!(publish(&[1, MAX_VALUE, 1], rows).await, Err(CommitError::TooLarge));
        assert_eq!(store.secret_blocking("name"), Ok(None));
        let stored = async || match store.read_log(&log, start).await.expect("read") {
            LogRead::Page(page) => page.frames().len(),
            LogRead::End { .. } => 0,
            other => panic!("{other:?}"),
        };
        assert_eq!(stored().await, 0);

        assert_eq!(publish(&[1], Rows::new()).await, Ok(()));
        assert_eq!(stored().await, 1);
    }
}
