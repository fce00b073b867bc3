//! Backups: made of a running or a stopped store, restored into a new data directory, and verified.
//!
//! * A backup is the rows of the state, and the journal from a position before them on. The rows are read
//!   while they change, so each is of some position between *from* (a checkpoint) and *first* (the journal's
//!   end when the last row was read). Records hold absolute values: replaying them from *from* to *first* or
//!   later gives the rows of one moment. No earlier position can be restored, because a row may already be
//!   newer.
//! * The live counts of segments are relative. So these rows and the state's position are left out and
//!   rebuilt.
//! * While rows are read and segments linked, a pin keeps segments from being removed (`engine/pin.rs`).
//! * A running daemon makes a backup inside its own data directory ([`stage`]). The command then links or
//!   copies it from there.
//!
//! The formats are described in `docs/storage.md`; only `manifest.rs` and `rows_file.rs` implement them.

mod fetch;
mod manifest;
mod restore;
mod row_check;
mod rows_file;
mod stage;
mod verify;
mod view;

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

pub use self::fetch::{BackupSummary, copy_stage, must_be_outside};
pub use self::manifest::Manifest;
pub use self::restore::{Restored, Until, restore};
pub use self::stage::StageStatus;
pub use self::verify::{Verified, verify};

pub(crate) use self::stage::{Stage, clear_stage};

use self::manifest::{FORMAT, ROWS, journal_of};
use crate::store::commit::StoreInner;
use crate::store::data_dir::{OpenError, open_engine, settle, take_lock};
use crate::store::disk::{Disk, private_dir, sync_dir};
use crate::store::engine;
use crate::store::engine::{Engine, EngineError, EngineOptions};
use crate::store::format::keys::{self, KeyKind, MetaKey};
use crate::store::journal::{self, JournalError, Position};
use crate::time::Clock;

/// Rows read before the engine is released to others.
const ROWS_AT_ONCE: usize = 1_024;
/// How long a backup may keep segments from being removed.
const PIN_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Free bytes, above those below which publishing stops, that a backup leaves beside what it is about to
/// write.
const ROOM: u64 = 64 << 20;
/// Rows between two checks of the free space.
const LOOKED_EVERY: u64 = 64 * ROWS_AT_ONCE as u64;
/// Files in a data directory that belong to its store but are not part of it: the key that signs tokens.
const BESIDE: [&str; 1] = ["auth.key"];

/// Receives the progress of an operation.
pub trait ProgressSink {
    /// Called when `done` of `of` steps of `what` are done; `of` is 0 if the total is unknown.
    ///
    /// # Errors
    /// [`BackupError::Cancelled`] to stop the operation.
    fn report(&mut self, what: &'static str, done: u64, of: u64) -> Result<(), BackupError>;
}

impl<F: FnMut(&'static str, u64, u64)> ProgressSink for F {
    fn report(&mut self, what: &'static str, done: u64, of: u64) -> Result<(), BackupError> {
        self(what, done, of);
        Ok(())
    }
}

/// Why a backup, a restore or a verification failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The data directory cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The target directory is not empty.
    #[error("{} is not empty: name a directory that is empty or absent", path.display())]
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// The destination is inside the data directory.
    #[error(
        "{} is inside the data directory {}, which cannot hold its own backup: name a directory outside of it, if possible on another disk",
        path.display(),
        dir.display()
    )]
    Inside {
        /// The destination.
        path: PathBuf,
        /// The data directory.
        dir: PathBuf,
    },
    /// The directory is not a backup.
    #[error("{} is not a backup: it has no manifest, which is written last", path.display())]
    NotABackup {
        /// The directory.
        path: PathBuf,
    },
    /// A newer version wrote the backup.
    #[error("the backup is of format {format}, this program reads format {FORMAT}: use the newer program")]
    Newer {
        /// The backup's format.
        format: u32,
    },
    /// The rows have a layout that this program cannot verify or restore.
    #[error(
        "the rows are of layout {found}, this program reads layout {known}: the daemon migrates an older directory when it opens it; for a newer one use the newer program"
    )]
    Layout {
        /// The layout found.
        found: u32,
        /// The layout that this program reads.
        known: u32,
    },
    /// The bytes of a file fail their check.
    #[error("{} is damaged ({what}): use another backup", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The existing backup is of another store.
    #[error("the backup there is of another store: name another directory")]
    Other,
    /// The journal after the end of the existing backup is not complete any more.
    #[error("the journal since position {since} is incomplete: make a new backup in another directory")]
    Gone {
        /// Where the backup ends.
        since: u64,
    },
    /// Another backup is in progress.
    #[error("another backup is in progress: try again when it has finished")]
    Busy,
    /// The backup was cancelled.
    #[error("the backup was cancelled")]
    Cancelled,
    /// The store was opened again or closed meanwhile.
    #[error("the store was closed or opened again during the backup: start the backup again")]
    Reopened,
    /// Continuing would leave less free space than publishing needs.
    #[error(
        "not enough free space to back up a running daemon: {free} bytes are free on its file system, and {least} must stay free while the rows are written beside the store (store.reserve_bytes, an eighth of that, and 64 MiB). Free space, or stop the daemon for the backup"
    )]
    NoRoom {
        /// Free bytes of the file system.
        free: u64,
        /// Bytes that must stay free.
        least: u64,
    },
    /// The backup held segments for longer than allowed.
    #[error("the backup took longer than {} minutes: make it when there is less load", PIN_LIMIT.as_secs() / 60)]
    TooSlow,
    /// The requested moment is outside the backup.
    #[error("the backup can be restored as of positions {first} to {last} ({} to {})", crate::time::rfc3339(*first_ms), crate::time::rfc3339(*last_ms))]
    OutOfRange {
        /// The earliest position.
        first: u64,
        /// The latest position.
        last: u64,
        /// The time of the earliest position, Unix milliseconds.
        first_ms: u64,
        /// The time of the latest position, Unix milliseconds.
        last_ms: u64,
    },
    /// The file system is full. Opening a state takes some space even if nothing changes.
    #[error(
        "no space is left on the file system, and opening the store needs some: free space, then try again"
    )]
    Full,
    /// The store failed.
    #[error("{0}")]
    Store(String),
    /// The file system returned an error.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The path of the failed operation.
        path: PathBuf,
        /// The error.
        reason: String,
    },
}

impl BackupError {
    pub(crate) fn io(path: &Path, error: &io::Error) -> BackupError {
        BackupError::Io { path: path.to_owned(), reason: error.to_string() }
    }
}

impl From<EngineError> for BackupError {
    fn from(error: EngineError) -> BackupError {
        match error {
            EngineError::Space => BackupError::Full,
            error => BackupError::Store(error.to_string()),
        }
    }
}

impl From<JournalError> for BackupError {
    fn from(error: JournalError) -> BackupError {
        match error {
            JournalError::Space => BackupError::Full,
            error => BackupError::Store(error.to_string()),
        }
    }
}

/// Creates a file with access for this user only.
fn private_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// What is backed up: an engine that is used only here, or that of a running store.
enum BackupSource<'a> {
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
}

impl BackupSource<'_> {
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

/// The part of the journal to add to an existing backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackupStart {
    /// The journal's id, hexadecimal.
    pub(crate) journal: String,
    /// Where the existing backup ends.
    pub(crate) position: Position,
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
    let stage = dir.join(stage::NAME);
    stage::clear_stage(dir).map_err(|error| BackupError::io(&stage, &error))?;
    let made = make(&BackupSource::Stopped(&engine), dir, plan.since(), &|| clock.now_ms(), progress)
        .and_then(|()| fetch::copy_stage(&stage, to, progress));
    let cleared = stage::clear_stage(dir).map_err(|error| BackupError::io(&stage, &error));
    made.and_then(|made| cleared.map(|()| made))
}

/// Makes the backup of the store in `dir` in its stage: full, or what came `since`.
fn make(
    source: &BackupSource<'_>,
    dir: &Path,
    since: Option<&BackupStart>,
    now_ms: &dyn Fn() -> u64,
    progress: &mut dyn ProgressSink,
) -> Result<(), BackupError> {
    let stage = dir.join(stage::NAME);
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
    let to = journal_of(&dir.join(stage::NAME));
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
