//! The applier: the thread that moves committed rows from the memtable into the state.
//!
//! * Rows of many commits are written together, in key order, and each key once. A row that changes often is
//!   written seldom, and neighbouring rows share a page.
//! * The position row is written last. The journal is synced first, so the state never gets ahead of what the
//!   journal could lose.
//! * A checkpoint makes the state durable. Only then may earlier segments without a live piece be removed.
//! * If the applier fails, commits fail too. Opening the engine again replays the journal.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::store::engine::live_bytes::LiveBytes;
use crate::store::engine::memtable::{ActiveSize, Memtable, Table, row_bytes};
use crate::store::engine::state::{State, Value};
use crate::store::engine::{EngineError, Shared, live_change, piece_of, position_key};
use crate::store::format::keys::{self, MetaKey};
use crate::store::journal::{self, Change, Journal, JournalError, Position, Record};
use crate::sync::{Condvar, Mutex};

/// Size of the active table, in bytes, at which the applier starts to write it into the state.
const TABLE_BYTES: usize = 8 << 20;
/// Bytes of rows not yet in the state at which commits wait for the applier.
const UNAPPLIED_BYTES: usize = 24 << 20;
/// Rows written into the state before waiting commits may proceed.
const ROWS_AT_ONCE: usize = 64;
/// Longest time that a committed row stays out of the state while commits arrive.
const TABLE_AGE: Duration = Duration::from_millis(1_000);
/// Longest time between checkpoints. A checkpoint is also made after [`CHECKPOINT_BYTES`] of journal. Both
/// bound what an opening after a crash has to replay.
const CHECKPOINT_AGE: Duration = Duration::from_secs(5);
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// When a new segment starts, a checkpoint is made at once if the journal exceeds this percentage of its live
/// bytes plus two segments, and segments could be removed. Otherwise they would wait for the next regular
/// checkpoint.
const BOUND_PERCENT: u64 = 130;

/// What the applier and the committer share.
#[derive(Default)]
pub(crate) struct Progress {
    inner: Mutex<Inner>,
    /// Notifies the applier that there is work.
    work: Condvar,
    /// Notifies the committer that a table was applied or that the applier failed.
    room: Condvar,
}

#[derive(Default)]
struct Inner {
    stop: bool,
    failed: Option<EngineError>,
    /// Whether a segment has started since the applier last checked.
    has_rolled: bool,
    /// Number of checkpoints requested; the next field is the number of requests served.
    requested: u64,
    made: u64,
    /// The position of the last checkpoint; at first, the position of the state when it was opened.
    checkpoint: Option<Position>,
    /// Bytes of the table being applied that are not yet in the state.
    unapplied: usize,
}

impl Progress {
    /// Returns the error that stopped the applier, if it stopped.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        self.inner.lock().failed.clone().map_or(Ok(()), Err)
    }

    /// Waits until the memtable has room for another commit. Room is freed row by row while the applier
    /// works, so commits slow down to its pace and do not stop for a whole table.
    pub(crate) fn wait_for_room(&self, memtable: &Memtable) -> Result<(), EngineError> {
        let mut inner = self.inner.lock();
        loop {
            if let Some(error) = &inner.failed {
                return Err(error.clone());
            }
            let filling = memtable.filling();
            if filling.bytes.saturating_add(inner.unapplied) < UNAPPLIED_BYTES {
                return Ok(());
            }
            self.work.notify_one();
            (inner, _) = self.room.wait_for(inner, TABLE_AGE);
        }
    }

    /// Wakes the applier after a commit if it may have work now.
    pub(crate) fn filled(&self, filling: &ActiveSize) {
        if filling.is_first || filling.bytes >= TABLE_BYTES {
            drop(self.inner.lock()); // the applier either waits already or has yet to check
            self.work.notify_one();
        }
    }

    /// Tells the applier that a segment has started, so that it checks whether others can be removed.
    pub(crate) fn rolled(&self) {
        self.inner.lock().has_rolled = true;
        self.work.notify_one();
    }

    /// The position of the last known checkpoint.
    pub(crate) fn last_checkpoint(&self) -> Position {
        self.inner.lock().checkpoint.unwrap_or_default()
    }

    /// Writes everything committed so far into the state, makes it durable and returns the state's position.
    /// Blocks.
    pub(crate) fn check_point(&self) -> Result<Position, EngineError> {
        let mut inner = self.inner.lock();
        inner.requested += 1;
        let own = inner.requested;
        self.work.notify_one();
        loop {
            if let Some(error) = &inner.failed {
                return Err(error.clone());
            }
            if inner.made >= own {
                return Ok(inner.checkpoint.unwrap_or_default());
            }
            inner = self.room.wait(inner);
        }
    }

    /// Sets how many bytes of the table being applied are not yet in the state.
    fn unapplied(&self, bytes: usize) {
        self.inner.lock().unapplied = bytes;
        self.room.notify_all();
    }

    fn fail(&self, error: EngineError) {
        self.inner.lock().failed.get_or_insert(error);
        self.room.notify_all();
    }

    fn stop(&self) {
        self.inner.lock().stop = true;
        self.work.notify_all();
    }
}

/// The position of the state.
pub(crate) fn position(state: &State) -> Result<Position, EngineError> {
    match state.get(&position_key())? {
        None => Ok(Position(0)),
        Some(row) => match row.as_ref().split_first_chunk() {
            Some((&[1], rest)) if rest.len() == 8 => {
                let mut position = [0; 8];
                position.copy_from_slice(rest);
                Ok(Position(u64::from_be_bytes(position)))
            }
            _ => Err(EngineError::Engine("the position row is damaged".into())),
        },
    }
}

/// The id of the journal that the state belongs to; `None` if the state was never opened with one.
pub(crate) fn journal_of(state: &State) -> Result<Option<[u8; 16]>, EngineError> {
    match state.get(&keys::meta(MetaKey::Journal))? {
        None => Ok(None),
        Some(row) => match row.as_ref().split_first_chunk() {
            Some((&[1], id)) if let Ok(id) = <[u8; 16]>::try_from(id) => Ok(Some(id)),
            _ => Err(EngineError::Engine("the row of the journal's id is damaged".into())),
        },
    }
}

/// The thread. Dropping this joins it after everything committed is in the state.
pub(crate) struct Applier {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Applier {
    pub(crate) fn start(shared: Arc<Shared>) -> Result<Applier, EngineError> {
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
fn run(shared: &Shared) {
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
    shared: &'s Shared,
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
                let Shared { journal, state, live, memtable, progress, .. } = self.shared;
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
        let Shared { journal, live, pins, .. } = self.shared;
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
        let Shared { journal, state, live, pins, .. } = self.shared;
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
fn write_rows(state: &State, table: &Table, left: impl Fn(usize)) -> Result<(), EngineError> {
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
fn write_position(state: &State, table: &Table, live: &mut LiveBytes) -> Result<(), EngineError> {
    for (key, value) in live.apply(table.live.iter(), table.end) {
        state.write(&key, value.as_ref())?;
    }
    state.write(&position_key(), Some(&position_row(table.end)))
}

/// The row that holds the state's position.
pub(crate) fn position_row(position: Position) -> Value {
    Value::from([&[1], position.0.to_be_bytes().as_slice()].concat())
}

/// State of an opening: the state database, and in memory what the journal holds beyond it.
pub(crate) struct Replay {
    state: State,
    live: LiveBytes,
    memtable: Memtable,
    /// The first position of each segment, in order.
    segments: Vec<Position>,
}

impl Replay {
    pub(crate) fn new(state: State, live: LiveBytes) -> Replay {
        Replay { state, live, memtable: Memtable::default(), segments: Vec::new() }
    }

    /// Opens the journal and replays every record from `from` on.
    pub(crate) fn run(
        mut self,
        options: journal::Options,
        from: Position,
    ) -> Result<(Journal, Replay), EngineError> {
        self.segments =
            journal::first_positions(&options.dir).map_err(|error| EngineError::io(&error, false))?;
        let mut failed = None;
        let result = Journal::open(options, from, &mut |record| {
            self.take(record).map_err(|error| {
                let what = error.to_string();
                failed = Some(error);
                JournalError::Io(what)
            })
        });
        match (result, failed) {
            (_, Some(error)) => Err(error),
            (journal, None) => Ok((journal?, self)),
        }
    }

    fn take(&mut self, record: &Record<'_>) -> Result<(), EngineError> {
        let (mut rows, mut live) = (Vec::new(), Vec::new());
        for change in record.changes() {
            match change? {
                Change::Put { key, value } => {
                    if let Some(piece) = piece_of(key, value) {
                        live.push((piece, 1));
                    }
                    rows.push((Value::from(key), Some(Value::from(value))));
                }
                Change::Delete { key } => rows.push((Value::from(key), None)),
                Change::Free(piece) => live.push((piece, -1)),
                Change::Piece(_) => {}
            }
        }
        let segment_of = |position: Position| {
            let after = self.segments.partition_point(|first| *first <= position);
            self.segments.get(after.checked_sub(1)?).copied()
        };
        // Records that the state counts already are not counted again.
        let live = live
            .into_iter()
            .filter_map(|(piece, sign)| Some((segment_of(piece.position)?, live_change(&piece, sign))))
            .filter(|(segment, _)| !self.live.counts(*segment, record.end));
        let filling = self.memtable.insert(rows.into_iter(), live, record.end);
        if filling.bytes >= TABLE_BYTES
            && let Some(table) = self.memtable.freeze()
        {
            write_rows(&self.state, &table, |_| ())?;
            write_position(&self.state, &table, &mut self.live)?;
            self.memtable.thaw();
        }
        Ok(())
    }

    /// Records which journal the state belongs to, and checks that every segment with live pieces exists.
    ///
    /// # Errors
    /// [`EngineError`]: a segment is missing.
    pub(crate) fn check(&self, journal: &Journal) -> Result<(), EngineError> {
        let id = keys::meta(MetaKey::Journal);
        if self.state.get(&id)?.is_none() {
            self.state.write(&id, Some(&Value::from([&[1], journal.id().as_slice()].concat())))?;
        }
        let there: HashSet<Position> = journal.segments().iter().map(|segment| segment.first).collect();
        match self.live.segments().find(|segment| !there.contains(segment)) {
            None => Ok(()),
            Some(first) => {
                let file = journal.path_of(first);
                let what = format!(
                    "{} is missing, and events lie in it: restore the data directory from a backup",
                    file.display()
                );
                Err(EngineError::Engine(what))
            }
        }
    }

    pub(crate) fn into_shared(self, journal: Journal) -> Shared {
        Shared {
            journal,
            state: self.state,
            memtable: self.memtable,
            live: Mutex::new(self.live),
            progress: Progress::default(),
            pins: Arc::default(),
        }
    }
}
