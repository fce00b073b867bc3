//! Restore: makes a new data directory from a backup, as of the backup's end or an earlier moment.
//!
//! * Order: the mark [`UNFINISHED`]; segments into `journal.new`; rows into `log.new`, then the records of
//!   the journal over them, and the live counts of segments; a new identity; then the names `journal` and
//!   `log`; last, the mark is removed. A directory with the mark is refused by everything but another
//!   restore, which starts from scratch.
//! * The new store has an id and a cursor key of its own. Cursors of the old store are refused, so a client
//!   that has seen events that are not in the backup does not continue as if nothing had happened. Stored
//!   events hold no id; they get one when they are read.
//! * Segments are copied, never linked, because the last one will be written to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use super::error::{BackupError, ProgressSink};
use super::fetch::{copy, copy_segments};
use super::files::{BESIDE, hex, private_file};
use super::manifest::{Manifest, ROWS, journal_of};
use super::rows_file;
use crate::store::data_dir::{UNFINISHED, lock_any};
use crate::store::disk::{Disk, Io, private_dir, sync_dir};
use crate::store::engine::{self, LiveBytes, LiveBytesChange, State, Value, position_key, position_row};
use crate::store::format::keys::{self, MetaKey};
use crate::store::format::{LogEntry, piece_of};
use crate::store::journal::{self, Change, Extent, JournalError, Position, Record, Visit};
use crate::store::rows::identity;

/// sled's cache while rows are written, in bytes.
const CACHE_BYTES: u64 = 64 << 20;
/// Rows written between two progress reports.
const TOLD_EVERY: u64 = 4_096;

/// The moment to which a backup is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The end of the backup.
    End,
    /// The last record that ends at or before this position of the journal.
    Position(u64),
    /// Before the first record with an event received after this time, Unix milliseconds.
    Time(u64),
}

/// The result of a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Rows of the backup.
    pub rows: u64,
    /// Records that were replayed over them.
    pub records: u64,
    /// The position of the journal that was restored.
    pub position: u64,
}

/// Restores the backup in `from` into the data directory `dir`, which must be empty, absent or left by an
/// unfinished restore.
///
/// # Errors
/// [`BackupError`]. The directory is then marked as unfinished, or was not touched.
pub fn restore(
    from: &Path,
    dir: &Path,
    until: Until,
    progress: &mut dyn ProgressSink,
) -> Result<Restored, BackupError> {
    let manifest = Manifest::read(from)?;
    in_range(&manifest, until)?;
    if !engine::is_readable(manifest.layout) {
        let (found, known) = (manifest.layout, engine::SCHEMA);
        return Err(BackupError::Layout { found, known });
    }
    let failed = |error: io::Error| BackupError::io(dir, &error);
    if !is_free(dir).map_err(failed)? {
        return Err(BackupError::Taken { path: dir.to_owned() });
    }
    let _lock = lock_any(dir)?;
    if !is_free(dir).map_err(failed)? {
        return Err(BackupError::Taken { path: dir.to_owned() });
    }
    private_file(&dir.join(UNFINISHED)).and_then(|mark| mark.sync_all()).map_err(failed)?;
    sync_dir(dir).map_err(failed)?;
    clear(dir).map_err(failed)?;

    let (journal, state) = (dir.join("journal.new"), dir.join("log.new"));
    private_dir(&journal).map_err(failed)?;
    copy_segments((&journal_of(from), &journal), &manifest.segments, copy, progress)?;
    let restored = fill(from, (&journal, &state), &manifest, until, progress)?;
    for name in BESIDE {
        let path = from.join(name);
        let len = fs::metadata(&path).map_or(0, |file| file.len());
        if len > 0 {
            copy(&path, &dir.join(name), len).map_err(failed)?;
        }
    }
    let finish = || -> io::Result<()> {
        for entry in fs::read_dir(&state)? {
            File::open(entry?.path())?.sync_all()?;
        }
        sync_dir(&state)?;
        sync_dir(dir)?;
        fs::rename(&journal, engine::journal_path(dir))?;
        fs::rename(&state, engine::path(dir))?;
        sync_dir(dir)?;
        fs::remove_file(dir.join(UNFINISHED))?;
        sync_dir(dir)
    };
    finish().map_err(failed)?;
    Ok(restored)
}

/// Returns true if a store may be restored into `dir`.
fn is_free(dir: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        entries => entries?,
    };
    if dir.join(UNFINISHED).exists() {
        return Ok(true);
    }
    for entry in entries {
        // A process that opened the directory earlier has left a lock file.
        if entry?.file_name() != "lock" {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes what an interrupted restore has left.
fn clear(dir: &Path) -> io::Result<()> {
    for made in [dir.join("journal.new"), dir.join("log.new"), engine::journal_path(dir), engine::path(dir)] {
        match fs::remove_dir_all(made) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn out_of_range(manifest: &Manifest) -> BackupError {
    let Manifest { first, last, first_ms, last_ms, .. } = *manifest;
    BackupError::OutOfRange { first, last, first_ms, last_ms }
}

fn in_range(manifest: &Manifest, until: Until) -> Result<(), BackupError> {
    let is_known = match until {
        Until::End => true,
        Until::Position(position) => (manifest.first..=manifest.last).contains(&position),
        Until::Time(ms) => (manifest.first_ms..=manifest.last_ms).contains(&ms),
    };
    if is_known { Ok(()) } else { Err(out_of_range(manifest)) }
}

/// Builds the state from the copied journal as of `until`, and cuts the journal there.
fn fill(
    from: &Path,
    (journal, path): (&Path, &Path),
    manifest: &Manifest,
    until: Until,
    progress: &mut dyn ProgressSink,
) -> Result<Restored, BackupError> {
    let io: Arc<dyn Io> = Arc::new(Disk);
    let state = State::open(path, CACHE_BYTES, io.clone())?;
    let rows = take_rows(from, manifest, &state, progress)?;
    let (records, position) = replay(journal, manifest, until, &state, progress)?;
    if position.0 < manifest.first {
        // A record before the first moment has an event after the requested time.
        return Err(out_of_range(manifest));
    }
    if manifest.segments.is_empty() || manifest.journal_end() < position {
        // Nothing was committed since the checkpoint, and the last segments before it have been removed.
        journal::begin(journal, &*io, manifest.journal_id()?, position)?;
    } else {
        journal::cut(journal, &*io, position)?;
    }
    count_live(journal, &state, position, progress)?;
    let identity = Value::from(identity::identity_row()?);
    state.write(&keys::meta(MetaKey::Identity), Some(&identity))?;
    state.write(&position_key(), Some(&position_row(position)))?;
    state.sync()?;
    Ok(Restored { rows, records, position: position.0 })
}

/// Writes the rows of a backup into an empty state. Returns their number.
pub(super) fn take_rows(
    from: &Path,
    manifest: &Manifest,
    state: &State,
    progress: &mut dyn ProgressSink,
) -> Result<u64, BackupError> {
    let path = from.join(ROWS);
    let mut done = 0;
    let rows = rows_file::Reader::open(&path)?.read(&mut |key, value| {
        state.write(key, Some(&Value::from(value)))?;
        done += 1;
        if done % TOLD_EVERY == 1 { progress.report("rows", done, manifest.rows) } else { Ok(()) }
    })?;
    if rows != manifest.rows {
        let what = format!("it holds {rows} rows instead of {}", manifest.rows);
        return Err(BackupError::Damaged { file: path, what });
    }
    Ok(rows)
}

/// Replays the records of a journal over the rows of its backup. Returns their number, and where the last one
/// ends. Every segment is read and checked, including earlier ones.
pub(super) fn replay(
    journal: &Path,
    manifest: &Manifest,
    until: Until,
    state: &State,
    progress: &mut dyn ProgressSink,
) -> Result<(u64, Position), BackupError> {
    let from = manifest.from();
    if manifest.segments.is_empty() {
        return Ok((0, from));
    }
    let (mut records, mut position, mut stopped, mut failed) = (0, from, false, None);
    let (mut done, mut begins_here) = (0, from == manifest.last());
    let visit = &mut |visit: Visit<'_>| match visit {
        Visit::Damaged(error) => Err(error),
        Visit::Torn(position) => {
            Err(JournalError::Missing { from: position, to: manifest.last(), dir: journal.to_owned() })
        }
        Visit::Segment(segment) => {
            if let Err(error) = progress.report("bytes of the journal", done, manifest.journal_bytes()) {
                failed = Some(error);
                return Err(JournalError::Io("cancelled".into()));
            }
            done += segment.end.0.saturating_sub(segment.first.0);
            Ok(())
        }
        Visit::Record(record) if record.position < from || stopped => Ok(()),
        Visit::Record(record) => {
            begins_here |= record.position == from;
            stopped = match until {
                Until::End => false,
                Until::Position(last) => record.end.0 > last,
                Until::Time(ms) => is_after(record, ms)?,
            };
            if stopped {
                return Ok(());
            }
            (records, position) = (records + 1, record.end);
            apply(record, state).map_err(|error| {
                let what = error.to_string();
                failed = Some(error);
                JournalError::Io(what)
            })
        }
    };
    let extent = Extent { from, until: Some(manifest.journal_end()), is_whole: true };
    let checked = journal::check(journal, &(Arc::new(Disk) as Arc<dyn Io>), extent, visit);
    if let Some(error) = failed {
        return Err(error);
    }
    let (id, _) = checked?;
    let damaged = |what: &str| BackupError::Damaged { file: journal.to_owned(), what: what.into() };
    if hex(&id) != manifest.journal {
        return Err(damaged("it is another journal than the manifest names"));
    }
    if !begins_here {
        return Err(damaged("no record begins where the rows end"));
    }
    Ok((records, position))
}

/// Returns true if the record holds an event received after `ms`.
fn is_after(record: &Record<'_>, ms: u64) -> Result<bool, JournalError> {
    for change in record.changes() {
        if let Change::Put { key, value } = change?
            && piece_of(key, value).is_some_and(|piece| record.bytes(piece).is_some())
            && LogEntry::read(value).is_ok_and(|entry| entry.head.min_ms > ms)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn apply(record: &Record<'_>, state: &State) -> Result<(), BackupError> {
    for change in record.changes() {
        match change? {
            Change::Put { key, value } => state.write(key, Some(&Value::from(value)))?,
            Change::Delete { key } => state.write(key, None)?,
            Change::Free(_) | Change::Piece(_) => {}
        }
    }
    Ok(())
}

/// Counts what is live in each segment, and writes the rows with these counts.
fn count_live(
    journal: &Path,
    state: &State,
    end: Position,
    progress: &mut dyn ProgressSink,
) -> Result<(), BackupError> {
    let firsts = journal::first_positions(journal).map_err(|error| BackupError::io(journal, &error))?;
    let mut live: BTreeMap<Position, LiveBytesChange> = BTreeMap::new();
    let mut done = 0;
    let bounds = crate::store::format::keys::kind_range(keys::KeyKind::Log);
    for row in state.between((Bound::Included(&bounds.0), Bound::Excluded(&bounds.1)))? {
        let (key, value) = row?;
        let damaged = || BackupError::Store("a row of the log is damaged: use another backup".into());
        let piece = piece_of(&key, &value).filter(|piece| piece.end() <= end).ok_or_else(damaged)?;
        let after = firsts.partition_point(|first| *first <= piece.position);
        let segment = after.checked_sub(1).and_then(|at| firsts.get(at)).ok_or_else(damaged)?;
        *live.entry(*segment).or_default() += LiveBytesChange::of(&piece, 1);
        done += 1;
        if done % TOLD_EVERY == 1 {
            progress.report("pieces of logs", done, 0)?;
        }
    }
    for (key, value) in LiveBytes::default().apply(live.iter(), end) {
        state.write(&key, value.as_ref())?;
    }
    Ok(())
}
