//! The storage engine: the journal, the state as of a position in the journal, and the memtable with the rows
//! committed since.
//!
//! * [`Engine::commit`] appends one record to the journal, syncs it, and only then makes its rows visible.
//!   Rows of a failed commit are never visible.
//! * Rows go into the memtable (`memtable.rs`); the applier (`applier.rs`) writes them into the state
//!   (`state.rs`) later, on its own thread. Reads merge both (`merged_range.rs`). An opening replays the
//!   journal from the state's position (`replay.rs`).
//! * Commits come from one thread. After a write returns [`EngineError`], the caller drops the engine and
//!   opens it again.
//! * The engine treats keys and values as bytes, with three exceptions: it knows which rows it caches in memory
//!   (`format/keys.rs` decides), that the row of a log entry points into the journal, and it writes the usage of
//!   organizations with each batch.

mod applier;
mod batch;
mod damage;
mod error;
#[cfg(test)]
mod fault_tests;
mod inner;
mod live_bytes;
mod memtable;
mod merged_range;
mod pin;
mod progress;
mod replay;
mod row_cache;
mod state;
mod state_rows;
#[cfg(test)]
pub(in crate::store) mod tests;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

pub(crate) use self::batch::Batch;
pub(crate) use self::damage::{Damage, DamagedPieces};
pub(crate) use self::error::EngineError;
pub(crate) use self::live_bytes::{LiveBytes, LiveBytesChange, SegmentCounts};
pub use self::row_cache::RowCacheStats;
pub(crate) use self::state::{State, Value, guard_damaged, has_blobs};
pub(crate) use self::state_rows::{SCHEMA, is_readable, journal_of, position, position_key, position_row};

use self::applier::Applier;
use self::batch::{NewPiece, RowChange};
use self::inner::EngineInner;
use self::merged_range::MergedRange;
use self::pin::Pin;
use self::replay::Replay;
use self::row_cache::RowCache;
use crate::store::disk::Io;
use crate::store::format::{LogEntry, keys, piece_of};
use crate::store::journal::{self, Journal, NewRecord, PieceLocation, Position, RecordKind, SegmentInfo};
use crate::store::quota::Quotas;

/// Default size of a segment of the journal, in bytes.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;

/// Options for opening an engine.
#[derive(Clone)]
pub(crate) struct EngineOptions {
    /// The directory of the state.
    pub(crate) state: PathBuf,
    /// The directory of the journal.
    pub(crate) journal: PathBuf,
    /// sled's own cache, in bytes.
    pub(crate) cache_bytes: u64,
    /// Size of a segment of the journal, in bytes.
    pub(crate) segment_bytes: u64,
    /// Whether each commit is synced to the disk.
    pub(crate) fsync: bool,
    /// The end of the journal, if this process knows it. Records after it belong to failed commits and are
    /// cut off.
    pub(crate) end: Option<Position>,
    pub(crate) io: Arc<dyn Io>,
}

/// How much disk space the journal takes, and why.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct JournalStats {
    /// Number of segment files.
    pub segments: u64,
    /// Bytes that they take on disk.
    pub bytes: u64,
    /// Bytes of retained events in them.
    pub live_bytes: u64,
    /// Bytes of records that an opening after a crash would replay.
    pub replay_bytes: u64,
}

/// The open journal and state of a data directory.
pub(crate) struct Engine {
    inner: Arc<EngineInner>,
    /// Dropped before `inner`.
    _applier: Applier,
    fsync: bool,
    io: Arc<dyn Io>,
    epoch: AtomicU32,
    /// The row cache; `None` if only sled's own pages are cached.
    rows: Option<RowCache>,
    /// The usage of organizations; `None` if it is not counted.
    quotas: Option<Arc<Quotas>>,
}

impl EngineOptions {
    /// The default options for the data directory `dir`.
    pub(crate) fn new(dir: &Path, io: Arc<dyn Io>) -> EngineOptions {
        EngineOptions {
            state: path(dir),
            journal: journal_path(dir),
            cache_bytes: 32 << 20,
            segment_bytes: SEGMENT_BYTES,
            fsync: true,
            end: None,
            io,
        }
    }
}

/// The path of the state in a data directory. Older versions look for this name and refuse the layout.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Returns true if there is a state in the data directory `dir`.
pub(crate) fn has_state(dir: &Path) -> bool {
    path(dir).join("db").exists()
}

/// The path of the journal in a data directory.
pub(crate) fn journal_path(dir: &Path) -> PathBuf {
    dir.join("journal")
}

impl Engine {
    /// Opens or creates state and journal, and replays what the state lacks.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn open(options: &EngineOptions) -> Result<Engine, EngineError> {
        let io = options.io.clone();
        io.write().map_err(|error| EngineError::io(&error, false))?;
        let state = State::open(&options.state, options.cache_bytes, io.clone())?;
        state_rows::check_layout(&state)?;
        let from = position(&state)?;
        let live = LiveBytes::load(&state)?;
        let state_journal = journal_of(&state)?;
        let replay = Replay::new(state, live);
        let journal = journal::Options {
            dir: options.journal.clone(),
            segment_bytes: options.segment_bytes,
            end: options.end,
            id: state_journal,
            io: io.clone(),
        };
        let (journal, replayed) = replay.run(journal, from)?;
        replayed.check(&journal)?;
        let epoch = AtomicU32::new(journal.epoch());
        let inner = Arc::new(replayed.into_inner(journal));
        let applier = Applier::start(inner.clone())?;
        Ok(Engine { inner, _applier: applier, fsync: options.fsync, io, epoch, rows: None, quotas: None })
    }

    /// Caches up to `bytes` of rows in memory from now on.
    pub(crate) fn keeping_rows(self, bytes: u64) -> Engine {
        Engine { rows: Some(RowCache::new(bytes)), ..self }
    }

    /// Counts the usage of organizations from now on, with every batch.
    pub(crate) fn counting(self, quotas: Arc<Quotas>) -> Engine {
        Engine { quotas: Some(quotas), ..self }
    }

    /// Closes the engine. Returns the position up to which commits were acknowledged. Anything in the journal
    /// after it is left over from failed commits.
    pub(crate) fn close(self) -> Position {
        let inner = self.inner.clone();
        drop(self);
        inner.journal.end()
    }

    /// Sets the epoch of the records that follow.
    pub(crate) fn set_epoch(&self, epoch: u32) {
        self.epoch.store(epoch, Relaxed);
    }

    /// Statistics of the row cache; all zeros if there is none.
    pub(crate) fn row_cache(&self) -> RowCacheStats {
        self.rows.as_ref().map(RowCache::stats).unwrap_or_default()
    }

    /// The journal.
    pub(crate) fn journal(&self) -> &Journal {
        &self.inner.journal
    }

    /// Writes everything committed so far into the state and makes it durable. Returns the state's position.
    /// The thread waits for the disk.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn check_point(&self) -> Result<Position, EngineError> {
        self.inner.progress.check_point()
    }

    /// How much disk space the journal takes.
    pub(crate) fn journal_stats(&self) -> JournalStats {
        let segments = self.segments();
        let checked = self.inner.progress.last_checkpoint();
        JournalStats {
            segments: segments.len() as u64,
            bytes: segments.iter().map(|(segment, _)| segment.bytes).sum(),
            live_bytes: segments.iter().map(|(_, live)| live.bytes).sum(),
            replay_bytes: self.inner.journal.end().0.saturating_sub(checked.0),
        }
    }

    /// Prevents the removal of segments for at most `limit`; `None` if another pin is held.
    pub(crate) fn pin(&self, limit: Duration) -> Option<Pin> {
        self.inner.pins.take(limit)
    }

    /// Every segment of the journal with its live counts, in order.
    pub(crate) fn segments(&self) -> Vec<(SegmentInfo, SegmentCounts)> {
        // The memtable is read first: a change that moves into the state meanwhile is counted twice, rather
        // than not at all.
        let changes = self.inner.memtable.live();
        let live = self.inner.live.lock();
        let segments = self.inner.journal.segments();
        let counts = |segment: &SegmentInfo| {
            live.of(segment.first).after(changes.get(&segment.first).copied().unwrap_or_default())
        };
        let counted = |segment| {
            let counts = counts(&segment);
            (segment, counts)
        };
        segments.into_iter().map(counted).collect()
    }

    /// Checks whether the disk accepts data again after it failed. The engine has to be opened again in any
    /// case.
    pub(crate) fn probe(&self) -> Result<(), EngineError> {
        self.inner.journal.probe()?;
        self.inner.state.probe()
    }

    /// Checks whether the applier still runs, and returns the error that stopped it otherwise.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        self.inner.progress.check()
    }

    /// Appends `batch` to the journal and makes it visible. It is durable with the next commit. This is only
    /// for changes that may be undone by a crash because they are then found and done again: what trimming,
    /// collecting and erasing remove.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn apply(&self, batch: Batch) -> Result<(), EngineError> {
        self.apply_then(batch, || ())
    }

    /// [`Engine::apply`], which calls `recorded` once the record is in the journal and before its rows are
    /// visible.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn apply_then(&self, batch: Batch, recorded: impl FnOnce()) -> Result<(), EngineError> {
        self.write(batch, false, RecordKind::Maintenance, recorded)
    }

    /// Makes `batch` and everything applied before it durable, then makes it visible.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        self.write(batch, self.fsync, RecordKind::Commit, || ())
    }

    fn write(
        &self,
        mut batch: Batch,
        sync: bool,
        kind: RecordKind,
        recorded: impl FnOnce(),
    ) -> Result<(), EngineError> {
        self.io.write().map_err(|error| EngineError::io(&error, false))?;
        self.inner.progress.wait_for_room(&self.inner.memtable)?;
        let usage = match &self.quotas {
            Some(quotas) => {
                let usage = quotas.measure(batch.changed_lengths(), |key| self.length(key))?;
                usage.iter().for_each(|(tenant, usage)| batch.write_usage(*tenant, *usage));
                usage
            }
            None => Vec::new(),
        };
        let EngineInner { journal, memtable, progress, .. } = &*self.inner;
        // A piece that is visible and then lost with a failed sync could not be read any more.
        let sync = sync || (self.fsync && !batch.pieces.is_empty());
        let end = if batch.is_empty() { journal.end() } else { self.append(&mut batch, kind)? };
        // This does not compare with the journal's end: if the applier's sync fails meanwhile, the end moves
        // back before this record.
        if sync && journal.durable() < end && journal.sync()? < end {
            return Err(EngineError::Disk("a sync of the journal failed".into()));
        }
        recorded();
        if batch.is_empty() {
            return Ok(());
        }
        let segment_of = |piece: &PieceLocation| journal.segment_of(piece.position);
        let live: Vec<_> = batch
            .freed
            .iter()
            .filter_map(|piece| Some((segment_of(piece)?, LiveBytesChange::of(piece, -1))))
            .chain(batch.rows.iter().filter_map(|row| {
                let piece = piece_of(&row.key, row.value.as_deref()?)?;
                Some((segment_of(&piece)?, LiveBytesChange::of(&piece, 1)))
            }))
            .collect();
        let rows: Vec<memtable::Row> =
            batch.rows.into_iter().map(|row| (Value::from(row.key), row.value.map(Value::from))).collect();
        let changed: Vec<_> = match &self.rows {
            Some(_) => rows.iter().filter(|(key, _)| keys::is_row(key)).cloned().collect(),
            None => Vec::new(),
        };
        let filling = memtable.insert(rows.into_iter(), live.into_iter(), end);
        if let Some(kept) = &self.rows {
            for (key, row) in changed {
                kept.put(key.to_vec(), row);
            }
        }
        if let Some(quotas) = &self.quotas {
            quotas.apply_measured(usage);
        }
        progress.filled(&filling);
        Ok(())
    }

    /// Appends the batch's record, and turns its pieces into rows that point at them. Returns the end of the
    /// record.
    fn append(&self, batch: &mut Batch, kind: RecordKind) -> Result<Position, EngineError> {
        let journal = &self.inner.journal;
        let mut record = NewRecord::new(kind, self.epoch.load(Relaxed), journal.end());
        for NewPiece { key, bytes, head } in std::mem::take(&mut batch.pieces) {
            let piece = record.add_piece(bytes);
            let value = LogEntry { piece, head }.write();
            batch.rows.push(RowChange { key, value: Some(value), is_new: false });
        }
        record.expect_rows(batch.rows.iter().map(|row| (&*row.key, row.value.as_deref())));
        for row in &batch.rows {
            match &row.value {
                Some(value) => record.put(&row.key, value),
                None => record.delete(&row.key),
            }
        }
        batch.freed.iter().for_each(|piece| record.free(*piece));
        let last = journal.last_segment();
        let end = journal.append(&record)?;
        if journal.last_segment() != last {
            self.inner.progress.rolled();
        }
        Ok(end)
    }

    /// Reads and checks the bytes of a piece.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn piece(&self, piece: &PieceLocation) -> Result<Vec<u8>, EngineError> {
        Ok(self.inner.journal.read(*piece)?)
    }

    /// [`Engine::piece`] into `bytes`, like [`Journal::read_into`].
    pub(crate) fn piece_into(&self, piece: &PieceLocation, bytes: &mut Vec<u8>) -> Result<(), EngineError> {
        Ok(self.inner.journal.read_into(*piece, bytes)?)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        match self.inner.memtable.get(key) {
            Some(row) => Ok(row),
            None => self.inner.state.get(key),
        }
    }

    /// [`Engine::get`] of a row, using and filling the row cache.
    pub(crate) fn row(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        match &self.rows {
            Some(rows) if keys::is_row(key) => rows.get(key, || self.get(key)),
            _ => self.get(key),
        }
    }

    /// Reads a row without adding it to the row cache.
    pub(crate) fn peek_row(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        match self.rows.as_ref().and_then(|rows| rows.peek(key)) {
            Some(row) => Ok(Some(row)),
            None => self.get(key),
        }
    }

    /// The length of the value under a key, from the row cache if it is there; `None` if there is no value.
    pub(crate) fn length(&self, key: &[u8]) -> Result<Option<usize>, EngineError> {
        let row = if keys::is_row(key) { self.peek_row(key)? } else { self.get(key)? };
        Ok(row.map(|row| row.len()))
    }

    /// Rows from `from` (inclusive) to `to` (exclusive), in order.
    pub(crate) fn range(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = Result<(Value, Value), EngineError>> + use<> {
        self.between((Bound::Included(from.to_vec()), Bound::Excluded(to.to_vec())))
    }

    /// Rows within bounds, in order.
    pub(crate) fn between(
        &self,
        (lower, upper): (Bound<Vec<u8>>, Bound<Vec<u8>>),
    ) -> impl DoubleEndedIterator<Item = Result<(Value, Value), EngineError>> + use<> {
        MergedRange::new(self.inner.clone(), lower, upper)
    }

    /// The first row from `from` (inclusive) to `to` (exclusive).
    pub(crate) fn first(&self, from: &[u8], to: &[u8]) -> Result<Option<(Value, Value)>, EngineError> {
        self.range(from, to).next().transpose()
    }

    /// The last row from `from` (inclusive) to `to` (exclusive).
    pub(crate) fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Value, Value)>, EngineError> {
        self.range(from, to).next_back().transpose()
    }
}
