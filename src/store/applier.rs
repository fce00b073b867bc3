//! The applier: the thread that brings committed rows from memory into the state.
//!
//! * Rows of many commits are written together, each once, in the order of their keys: what changes often is written seldom, and
//!   neighbours meet in one page.
//! * The position comes last. The state is never that of a position which the journal could lose: the journal is synced first.
//! * A checkpoint makes the state durable. Only then may segments before it go that hold no live piece.
//! * Where it fails, commits fail with it; whoever opens the engine again begins with the journal.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::engine::{EngineError, Shared, live_change, piece_of, position_key};
use super::journal::{self, Change, Journal, JournalError, Position, Record};
use super::keys::{self, Meta};
use super::live::Live;
use super::memtable::{Filling, Memtable, Table, row_bytes};
use super::state::{State, Value};
use crate::sync::{Condvar, Mutex};

/// Bytes of rows that are brought into the state at once.
const TABLE_BYTES: usize = 8 << 20;
/// Bytes of rows outside of the state at which commits wait for the applier.
const UNAPPLIED_BYTES: usize = 24 << 20;
/// Rows brought into the state before commits that wait may go on.
const ROWS_AT_ONCE: usize = 64;
/// How long rows stay out of the state at most, where somebody commits.
const TABLE_AGE: Duration = Duration::from_millis(1_000);
/// The state is made durable after this time, or after [`CHECKPOINT_BYTES`] of the journal: what opening after a crash reads.
const CHECKPOINT_AGE: Duration = Duration::from_secs(5);
const CHECKPOINT_BYTES: u64 = 64 << 20;
/// When a segment begins, the state is made durable at once if the journal takes more than this part, in percent, of what is live in it, and
/// two segments, and segments could go: they would wait for the next checkpoint otherwise.
const BOUND_PERCENT: u64 = 130;

/// What the applier and the committer tell each other.
#[derive(Default)]
pub(super) struct Progress {
    inner: Mutex<Inner>,
    /// For the applier: there is something to do.
    work: Condvar,
    /// For the committer: a table was applied, or the applier failed.
    room: Condvar,
}

#[derive(Default)]
struct Inner {
    stop: bool,
    failed: Option<EngineError>,
    /// A segment began since the applier last looked.
    has_rolled: bool,
    /// Checkpoints that were asked for, and those of them that were made.
    asked: u64,
    made: u64,
    /// The position of the last checkpoint, or what the state was of when it was opened.
    checkpoint: Option<Position>,
    /// Bytes of the table being applied that are not in the state yet.
    unapplied: usize,
}

impl Progress {
    /// Why the applier stopped, if it did.
    pub(super) fn check(&self) -> Result<(), EngineError> {
        self.inner.lock().failed.clone().map_or(Ok(()), Err)
    }

    /// Waits until the tables in memory have room for another commit. Room comes row by row as the applier works, so that commits
    /// slow down to its pace instead of standing still for as long as a table takes.
    pub(super) fn wait_for_room(&self, memtable: &Memtable) -> Result<(), EngineError> {
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

    /// A commit came: wakes the applier where it may have something to do now.
    pub(super) fn filled(&self, filling: &Filling) {
        if filling.is_first || filling.bytes >= TABLE_BYTES {
            drop(self.inner.lock()); // the applier either waits, or has yet to look
            self.work.notify_one();
        }
    }

    /// A segment of the journal began: the applier looks whether others can go.
    pub(super) fn rolled(&self) {
        self.inner.lock().has_rolled = true;
        self.work.notify_one();
    }

    /// The position of the last checkpoint that is known.
    pub(super) fn last_checkpoint(&self) -> Position {
        self.inner.lock().checkpoint.unwrap_or_default()
    }

    /// Has everything committed so far brought into the state and made durable; blocks. The position of the state then.
    pub(super) fn check_point(&self) -> Result<Position, EngineError> {
        let mut inner = self.inner.lock();
        inner.asked += 1;
        let own = inner.asked;
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

    /// So many bytes of the table being applied are not in the state yet.
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

/// The position that the state is of.
pub(super) fn position(state: &State) -> Result<Position, EngineError> {
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

/// The id of the journal that the state belongs to; `None` before the state was opened with one.
pub(super) fn journal_of(state: &State) -> Result<Option<[u8; 16]>, EngineError> {
    match state.get(&keys::meta(Meta::Journal))? {
        None => Ok(None),
        Some(row) => match row.as_ref().split_first_chunk() {
            Some((&[1], id)) if let Ok(id) = <[u8; 16]>::try_from(id) => Ok(Some(id)),
            _ => Err(EngineError::Engine("the row of the journal's id is damaged".into())),
        },
    }
}

/// The thread, joined when this is dropped, after everything committed is in the state.
pub(super) struct Applier {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Applier {
    pub(super) fn start(shared: Arc<Shared>) -> Result<Applier, EngineError> {
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
        self.shared.journal.give_back();
    }
}

/// The body of the thread.
fn run(shared: &Shared) {
    let work = || -> Result<(), EngineError> {
        let applied = position(&shared.state)?;
        shared.progress.inner.lock().checkpoint.get_or_insert(applied);
        Worker { shared, applied, checked: Instant::now(), checkpoint: None }.run()
    };
    let result = catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(EngineError::Engine("the state's engine panicked".into())));
    if let Err(error) = result {
        shared.progress.fail(error);
    }
}

struct Worker<'s> {
    shared: &'s Shared,
    /// The position that the state is of.
    applied: Position,
    /// When the last checkpoint was made.
    checked: Instant,
    /// Where it was; `None`: there was none in this run.
    checkpoint: Option<Position>,
}

impl Worker<'_> {
    fn run(&mut self) -> Result<(), EngineError> {
        loop {
            let (stop, asked, has_rolled) = self.wait();
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
                    || asked.is_some()
                    || behind >= CHECKPOINT_BYTES
                    || (has_rolled && self.is_over_bound())
                    || self.checked.elapsed() >= CHECKPOINT_AGE)
            {
                self.check_point()?;
            }
            if let Some(asked) = asked {
                let mut inner = self.shared.progress.inner.lock();
                inner.made = asked;
                drop(inner);
                self.shared.progress.room.notify_all();
            }
            if stop {
                return Ok(());
            }
        }
    }

    /// Whether the journal takes more than its bound and a checkpoint would let segments go.
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
        may_go && !pins.are_held() && taken > kept.saturating_mul(BOUND_PERCENT) / 100 + 2 * largest
    }

    /// Waits for a table that is worth applying, for a new segment, or for the time of a checkpoint. Returns whether the engine closes, the
    /// number of the last checkpoint that was asked for and not made, and whether a segment began.
    fn wait(&self) -> (bool, Option<u64>, bool) {
        let mut inner = self.shared.progress.inner.lock();
        loop {
            let asked = (inner.asked > inner.made).then_some(inner.asked);
            let has_rolled = std::mem::take(&mut inner.has_rolled);
            if inner.stop || asked.is_some() || has_rolled {
                return (inner.stop, asked, has_rolled);
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

    /// Makes the state durable, and removes the segments that are not needed any more.
    fn check_point(&mut self) -> Result<(), EngineError> {
        let position = self.applied;
        let Shared { journal, state, live, pins, .. } = self.shared;
        state.sync()?;
        (self.checked, self.checkpoint) = (Instant::now(), Some(position));
        self.shared.progress.inner.lock().checkpoint = Some(position);
        if pins.are_held() {
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

/// Brings the rows of a table into the state. `left` hears now and then how many of its bytes are still to come.
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

/// Brings what is left of a table into the state after its rows: what is live in which segment, and last the position.
fn write_position(state: &State, table: &Table, live: &mut Live) -> Result<(), EngineError> {
    for (key, value) in live.apply(table.live.iter(), table.end) {
        state.write(&key, value.as_ref())?;
    }
    state.write(&position_key(), Some(&position_row(table.end)))
}

/// The row that says of which position the state is.
pub(super) fn position_row(position: Position) -> Value {
    Value::from([&[1], position.0.to_be_bytes().as_slice()].concat())
}

/// An opening: the state, and in memory what the journal holds beyond it.
pub(super) struct Replay {
    state: State,
    live: Live,
    memtable: Memtable,
    /// The first position of each segment, in order.
    segments: Vec<Position>,
}

impl Replay {
    pub(super) fn new(state: State, live: Live) -> Replay {
        Replay { state, live, memtable: Memtable::default(), segments: Vec::new() }
    }

    /// Opens the journal and takes over every record from `from` on.
    pub(super) fn run(
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
        // What the state counts already is not counted again.
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

    /// Notes which journal the state belongs to, and looks whether every segment is there in which something lives.
    ///
    /// # Errors
    /// [`EngineError`]: a segment is missing.
    pub(super) fn check(&self, journal: &Journal) -> Result<(), EngineError> {
        let id = keys::meta(Meta::Journal);
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

    pub(super) fn into_shared(self, journal: Journal) -> Shared {
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
