//! The applier: the thread that moves committed rows from the memtable into the state.
//!
//! * Rows of many commits are written together, in key order, and each key once. A row that changes often is
//!   written seldom, and neighbouring rows share a page.
//! * The position row is written last. The journal is synced first, so the state never gets ahead of what the
//!   journal could lose.
//! * A checkpoint makes the state durable. Only then may earlier segments without a live piece be removed.
//! * If the applier fails, commits fail too. Opening the engine again replays the journal.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::error::EngineError;
use super::inner::EngineInner;
use super::live_bytes::LiveBytes;
use super::memtable::{CommittedRows, row_bytes};
use super::progress::{TABLE_AGE, TABLE_BYTES};
use super::state::State;
use super::state_rows::{position, position_key, position_row};
use crate::store::journal::Position;

/// Rows written into the state before waiting commits may proceed.
const ROWS_AT_ONCE: usize = 64;
/// Longest time between checkpoints. A checkpoint is also made after [`CHECKPOINT_BYTES`] of journal. Both
/// bound what an opening after a crash has to replay.
const CHECKPOINT_AGE: Duration = Duration::from_secs(5);
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// When a new segment starts, a checkpoint is made at once if the journal exceeds this percentage of its live
/// bytes plus two segments, and segments could be removed. Otherwise they would wait for the next regular
/// checkpoint.
const BOUND_PERCENT: u64 = 130;

/// The thread. Dropping this joins it after everything committed is in the state.
pub(crate) struct Applier {
    shared: Arc<EngineInner>,
    thread: Option<JoinHandle<()>>,
}

impl Applier {
    pub(crate) fn start(shared: Arc<EngineInner>) -> Result<Applier, EngineError> {
        let own = shared.clone();
        let thread = thread::Builder::new()
            .name("nw-apply".into())
            .spawn(move || run(&own))
            .map_err(|error| EngineError::io(&error, false))?;
        Ok(Applier { shared, thread: Some(thread) })
    }
}

impl Drop for Applier {
    fn drop(&mut self) {
        self.shared.progress.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it catches its own panics
        }
        self.shared.journal.release_preallocated();
    }
}

/// The body of the thread.
fn run(shared: &EngineInner) {
    let work = || -> Result<(), EngineError> {
        let applied = position(&shared.state)?;
        shared.progress.inner.lock().checkpoint.get_or_insert(applied);
        ApplierThread { shared, applied, checked: Instant::now(), checkpoint: None }.run()
    };
    let result = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(EngineError::Engine("the state's engine panicked".into())));
    if let Err(error) = result {
        shared.progress.fail(error);
    }
}

struct ApplierThread<'s> {
    shared: &'s EngineInner,
    /// The position of the state.
    applied: Position,
    /// When the last checkpoint was made.
    checked: Instant,
    /// The position of the last checkpoint; `None` if none was made in this run.
    checkpoint: Option<Position>,
}

impl ApplierThread<'_> {
    fn run(&mut self) -> Result<(), EngineError> {
        loop {
            let (stop, requested, has_rolled) = self.wait();
            if let Some(table) = self.shared.memtable.freeze() {
                let EngineInner { journal, state, live, memtable, progress, .. } = self.shared;
                if journal.durable() < table.end && journal.sync()? < table.end {
                    return Err(EngineError::Engine(
                        "the journal lost records that were not durable yet".into(),
                    ));
                }
                write_rows(state, &table, |left| progress.unapplied(left))?;
                write_position(state, &table, &mut live.lock())?;
                self.applied = table.end;
                memtable.thaw();
            }
            let behind = self.applied.0.saturating_sub(self.checkpoint.unwrap_or_default().0);
            if self.checkpoint != Some(self.applied)
                && (stop
                    || requested.is_some()
                    || behind >= CHECKPOINT_BYTES
                    || (has_rolled && self.is_over_bound())
                    || self.checked.elapsed() >= CHECKPOINT_AGE)
            {
                self.check_point()?;
            }
            if let Some(requested) = requested {
                let mut inner = self.shared.progress.inner.lock();
                inner.made = requested;
                drop(inner);
                self.shared.progress.room.notify_all();
            }
            if stop {
                return Ok(());
            }
        }
    }

    /// Returns true if the journal exceeds its bound and a checkpoint would let segments be removed.
    fn is_over_bound(&self) -> bool {
        let EngineInner { journal, live, pins, .. } = self.shared;
        let (mut taken, mut kept, mut may_go) = (0_u64, 0_u64, false);
        let mut largest = 0;
        let live = live.lock();
        for segment in journal.segments() {
            let counts = live.of(segment.first);
            taken = taken.saturating_add(segment.bytes);
            kept = kept.saturating_add(counts.bytes);
            largest = largest.max(segment.bytes);
            may_go |= segment.is_sealed && segment.end <= self.applied && counts.pieces == 0;
        }
        may_go && !pins.is_pinned() && taken > kept.saturating_mul(BOUND_PERCENT) / 100 + 2 * largest
    }

    /// Waits for a table that is worth applying, for a new segment, or for the time of a checkpoint. Returns
    /// whether the engine is closing, the number of the last requested checkpoint that was not yet made, and
    /// whether a segment has started.
    fn wait(&self) -> (bool, Option<u64>, bool) {
        let mut inner = self.shared.progress.inner.lock();
        loop {
            let requested = (inner.requested > inner.made).then_some(inner.requested);
            let has_rolled = std::mem::take(&mut inner.has_rolled);
            if inner.stop || requested.is_some() || has_rolled {
                return (inner.stop, requested, has_rolled);
            }
            let filling = self.shared.memtable.filling();
            let age = filling.since.map(|since| since.elapsed());
            let left = match age {
                _ if filling.bytes >= TABLE_BYTES => return (false, None, false),
                Some(age) if age >= TABLE_AGE => return (false, None, false),
                Some(age) => TABLE_AGE - age,
                None => CHECKPOINT_AGE,
            };
            let due = CHECKPOINT_AGE.saturating_sub(self.checked.elapsed());
            let unchecked = self.checkpoint != Some(self.applied);
            if due.is_zero() && unchecked {
                return (false, None, false);
            }
            let left = if unchecked { left.min(due) } else { left };
            (inner, _) = self.shared.progress.work.wait_for(inner, left);
        }
    }

    /// Makes the state durable and removes the segments that are no longer needed.
    fn check_point(&mut self) -> Result<(), EngineError> {
        let position = self.applied;
        let EngineInner { journal, state, live, pins, .. } = self.shared;
        state.sync()?;
        (self.checked, self.checkpoint) = (Instant::now(), Some(position));
        self.shared.progress.inner.lock().checkpoint = Some(position);
        if pins.is_pinned() {
            return Ok(());
        }
        for segment in journal.segments() {
            let dead = live.lock().of(segment.first).pieces == 0;
            if segment.is_sealed && segment.end <= position && dead {
                journal.remove(segment.first)?;
            }
        }
        Ok(())
    }
}

/// Writes the rows of a table into the state. Calls `left` now and then with the bytes that remain.
pub(super) fn write_rows(
    state: &State,
    table: &CommittedRows,
    left: impl Fn(usize),
) -> Result<(), EngineError> {
    let mut bytes = table.bytes();
    for (at, (key, value)) in table.rows.iter().enumerate() {
        if at % ROWS_AT_ONCE == 0 {
            left(bytes);
        }
        state.write(key, value.as_ref())?;
        bytes = bytes.saturating_sub(row_bytes(key, value.as_ref()));
    }
    left(0);
    Ok(())
}

/// Completes a table in the state after its rows: writes the live counts of segments and, last, the position.
pub(super) fn write_position(
    state: &State,
    table: &CommittedRows,
    live: &mut LiveBytes,
) -> Result<(), EngineError> {
    for (key, value) in live.apply(table.live.iter(), table.end) {
        state.write(&key, value.as_ref())?;
    }
    state.write(&position_key(), Some(&position_row(table.end)))
}
