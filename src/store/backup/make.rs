//! Making a backup: the rows of the state, and links to the segments of the journal.

use std::fs;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::error::{BackupError, FORMAT, PIN_LIMIT, ProgressSink};
use super::fetch::{self, BackupSummary};
use super::files::{BESIDE, STAGE, clear_stage, hex};
use super::manifest::{BackupStart, Manifest, ROWS, journal_of};
use super::rows_file;
use crate::store::commit::StoreInner;
use crate::store::data_dir::{OpenError, open_engine, settle, take_lock};
use crate::store::disk::{Disk, private_dir, sync_dir};
use crate::store::engine::{self, Engine, EngineOptions};
use crate::store::format::keys::{self, KeyKind, MetaKey};
use crate::store::journal;
use crate::time::Clock;

/// Rows read before the engine is released to others.
const ROWS_AT_ONCE: usize = 1_024;
/// Free bytes, above those below which publishing stops, that a backup leaves beside what it is about to
/// write.
const ROOM: u64 = 64 << 20;
/// Rows between two checks of the free space.
const LOOKED_EVERY: u64 = 64 * ROWS_AT_ONCE as u64;

/// What is backed up: an engine that is used only here, or that of a running store.
pub(super) enum BackupSource<'a> {
    Stopped(&'a Engine),
    Running { store: &'a StoreInner, epoch: u32 },
}

impl BackupSource<'_> {
    /// Calls `read` with the engine. The engine of a running store is held only for that time.
    fn with<T>(&self, read: impl FnOnce(&Engine) -> Result<T, BackupError>) -> Result<T, BackupError> {
        match self {
            BackupSource::Stopped(engine) => read(engine),
            BackupSource::Running { store, epoch } => {
                let engine = store.engine.read();
                // A store that was opened again may have undone what was read before.
                let same = store.epoch.load(Relaxed) == *epoch;
                engine.as_ref().filter(|_| same).map_or(Err(BackupError::Reopened), read)
            }
        }
    }

    /// Checks the free space: a running store must not have to stop publishing because of its backup.
    fn check_room(&self) -> Result<(), BackupError> {
        let BackupSource::Running { store, .. } = self else { return Ok(()) };
        let options = &store.options;
        let least = options.reserve_bytes.saturating_add(options.reserve_bytes / 8).saturating_add(ROOM);
        match options.io.space(&options.dir) {
            Ok(space) if space.free < least => Err(BackupError::NoRoom { free: space.free, least }),
            _ => Ok(()), // as in the committer: space that cannot be determined is no reason to stop
        }
    }
}

/// Backs up the stopped store of the data directory `dir` into the directory `to`, or adds what came since to
/// the existing backup there.
///
/// # Errors
/// [`BackupError`]; an interrupted backup has no manifest, and an existing backup is unchanged.
pub fn backup(
    dir: &Path,
    to: &Path,
    clock: &dyn Clock,
    progress: &mut dyn ProgressSink,
) -> Result<BackupSummary, BackupError> {
    fetch::must_be_outside(dir, to)?;
    let _lock = take_lock(dir)?;
    settle(dir).map_err(|error| OpenError::io(dir, &error))?;
    let engine = open_engine(dir, &EngineOptions::new(dir, Arc::new(Disk)))?;
    let plan = fetch::FetchPlan::of(to)?;
    let stage = dir.join(STAGE);
    clear_stage(dir).map_err(|error| BackupError::io(&stage, &error))?;
    let made = make(&BackupSource::Stopped(&engine), dir, plan.since(), &|| clock.now_ms(), progress)
        .and_then(|()| fetch::copy_stage(&stage, to, progress));
    let cleared = clear_stage(dir).map_err(|error| BackupError::io(&stage, &error));
    made.and_then(|made| cleared.map(|()| made))
}

/// Makes the backup of the store in `dir` in its stage: full, or what came `since`.
pub(super) fn make(
    source: &BackupSource<'_>,
    dir: &Path,
    since: Option<&BackupStart>,
    now_ms: &dyn Fn() -> u64,
    progress: &mut dyn ProgressSink,
) -> Result<(), BackupError> {
    let stage = dir.join(STAGE);
    let failed = |error: io::Error| BackupError::io(&stage, &error);
    private_dir(&stage).map_err(failed)?;
    private_dir(&journal_of(&stage)).map_err(failed)?;
    let pin = source.with(|engine| engine.pin(PIN_LIMIT).ok_or(BackupError::Busy))?;
    let id = source.with(|engine| Ok(hex(&engine.journal().id())))?;
    let (from, rows) = match since {
        Some(since) if since.journal != id => return Err(BackupError::Other),
        Some(since) => (since.position, 0),
        None => {
            progress.report("writing the state to disk", 0, 0)?;
            let from = source.with(|engine| Ok(engine.check_point()?))?;
            (from, export(source, &stage.join(ROWS), progress)?)
        }
    };
    // Every row that was read is from a record that was appended before this.
    let first = source.with(|engine| Ok(engine.journal().end()))?;
    let first_ms = now_ms();
    let segments = link(source, dir, since, progress)?;
    if !pin.holds() {
        return Err(BackupError::TooSlow);
    }
    drop(pin);
    for name in BESIDE {
        match fs::copy(dir.join(name), stage.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    // The last segments may have been removed: nothing in them is live, and the rows hold their contents.
    let last = segments.last().map_or(from.0, |(_, end)| (*end).max(from.0));
    let manifest = Manifest {
        format: FORMAT,
        layout: engine::SCHEMA,
        journal: id,
        from: from.0,
        first: first.0.min(last),
        first_ms,
        last,
        last_ms: now_ms().max(first_ms),
        rows,
        segments,
    };
    manifest.write(&stage)
}

/// Writes the rows to a file. Returns their number.
fn export(
    source: &BackupSource<'_>,
    path: &Path,
    progress: &mut dyn ProgressSink,
) -> Result<u64, BackupError> {
    let failed = |error: io::Error| BackupError::io(path, &error);
    let mut writer = rows_file::Writer::create(path).map_err(failed)?;
    let (mut lower, mut looked_at) = (Bound::Unbounded, None);
    loop {
        progress.report("rows", writer.rows, 0)?;
        if looked_at.is_none_or(|at| writer.rows - at >= LOOKED_EVERY) {
            source.check_room()?;
            looked_at = Some(writer.rows);
        }
        let mut read = 0;
        source.with(|engine| {
            for row in engine.between((lower.clone(), Bound::Unbounded)).take(ROWS_AT_ONCE) {
                let (key, value) = row?;
                if is_exported(&key) {
                    writer.add(&key, &value).map_err(failed)?;
                }
                lower = Bound::Excluded(key.to_vec());
                read += 1;
            }
            Ok(())
        })?;
        if read < ROWS_AT_ONCE {
            return writer.finish().map_err(failed);
        }
    }
}

/// Returns true if a row has an absolute value and is not the state's position.
fn is_exported(key: &[u8]) -> bool {
    let of_its_own = [MetaKey::Position, MetaKey::Journal].map(keys::meta);
    keys::kind_of(key) != Some(KeyKind::Segment) && !of_its_own.iter().any(|own| own == key)
}

/// Seals the journal and links every segment into the stage of `dir`; only those that came `since` if it is
/// given.
fn link(
    source: &BackupSource<'_>,
    dir: &Path,
    since: Option<&BackupStart>,
    progress: &mut dyn ProgressSink,
) -> Result<Vec<(u64, u64)>, BackupError> {
    let listed = source.with(|engine| {
        engine.journal().seal()?;
        Ok(engine.journal().segments())
    })?;
    let mut segments: Vec<_> = listed.into_iter().filter(|segment| segment.is_sealed).collect();
    if let Some(since) = since {
        segments.retain(|segment| segment.end > since.position);
        let mut next = since.position;
        for segment in &segments {
            if segment.first != next {
                return Err(BackupError::Gone { since: since.position.0 });
            }
            next = segment.end;
        }
        let end = source.with(|engine| Ok(engine.journal().segments().last().map(|last| last.first)))?;
        if segments.is_empty() && end.is_none_or(|end| end != since.position) {
            return Err(BackupError::Gone { since: since.position.0 });
        }
    }
    let (of, mut done) = (segments.iter().map(|segment| segment.end.0 - segment.first.0).sum(), 0);
    let to = journal_of(&dir.join(STAGE));
    for segment in &segments {
        progress.report("bytes of segments", done, of)?;
        let (from, _) = journal::file_of(&engine::journal_path(dir), segment.first, segment.end);
        let (to, len) = journal::file_of(&to, segment.first, segment.end);
        source
            .with(|_| fetch::link_or_copy(&from, &to, len).map_err(|error| BackupError::io(&from, &error)))?;
        done += segment.end.0 - segment.first.0;
    }
    sync_dir(&to).map_err(|error| BackupError::io(&to, &error))?;
    Ok(segments.iter().map(|segment| (segment.first.0, segment.end.0)).collect())
}
