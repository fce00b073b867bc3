//! Backups: made beside a running store or of a stopped one, restored into a new data directory, and verified.
//!
//! * A backup is the rows of the state and the journal from a position before them on. The rows are read while they change, so
//!   each is of some position between *from* (a checkpoint) and *first* (the journal's end when the last was read). Records hold
//!   absolute values: replaying them from *from* to *first* or later makes the rows those of one moment. No earlier position can be
//!   restored: a row may be newer already.
//! * What segments hold live is counted, not absolute: those rows and the state's position are left out and made anew.
//! * While rows are read and segments linked, a pin keeps segments from being removed ([`super::pin`]).
//! * A running daemon makes a backup inside its own data directory ([`stage`]), from where the command links or copies it.
//!
//! The formats are described in `docs/storage.md`; `manifest.rs` and `rows_file.rs` are their only code.

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

pub use self::fetch::{Made, copy_stage, must_be_outside};
pub use self::manifest::Manifest;
pub use self::restore::{Restored, Until, restore};
pub use self::stage::StageStatus;
pub use self::verify::{Verified, verify};

pub(super) use self::restore::UNFINISHED;
pub(super) use self::stage::{Stage, clear_stage};

use self::manifest::{FORMAT, ROWS, journal_of};
use super::disk::Disk;
use super::engine::{Engine, EngineError, EngineOptions};
use super::journal::{self, JournalError, Position};
use super::keys::{self, Kind, Meta};
use super::state::{private_dir, sync_dir};
use super::{OpenError, Shared, engine, lock, recover};
use crate::time::Clock;

/// Rows read before others have the engine again.
const ROWS_AT_ONCE: usize = 1_024;
/// How long a backup may keep segments from being removed.
const PIN_LIMIT: Duration = Duration::from_secs(60 * 60);
/// Free bytes, over those below which publishing stops, that a backup leaves beside what it is about to write.
const ROOM: u64 = 64 << 20;
/// Rows between two looks at the room.
const LOOKED_EVERY: u64 = 64 * ROWS_AT_ONCE as u64;
/// Files of a data directory that belong to its store and lie beside it: the key that signs tokens.
const BESIDE: [&str; 1] = ["auth.key"];

/// Is told what is done and how far it is.
pub trait Progress {
    /// So many of `of` steps of `what` are done; `of` is 0 where nobody knows how many there are.
    ///
    /// # Errors
    /// [`BackupError::Cancelled`] where it is not to go on.
    fn at(&mut self, what: &'static str, done: u64, of: u64) -> Result<(), BackupError>;
}

impl<F: FnMut(&'static str, u64, u64)> Progress for F {
    fn at(&mut self, what: &'static str, done: u64, of: u64) -> Result<(), BackupError> {
        self(what, done, of);
        Ok(())
    }
}

/// Why a backup, a restore or a verification did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The data directory.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The place to write to is taken.
    #[error("{} is not empty: name a directory that is empty or absent", path.display())]
    Taken {
        /// Which.
        path: PathBuf,
    },
    /// The place to write to is the store's own.
    #[error(
        "{} lies in the data directory {}, which is not the place for its own backup: name a directory outside of it, on another disk if there is one",
        path.display(),
        dir.display()
    )]
    Inside {
        /// Where the backup was to be.
        path: PathBuf,
        /// The data directory.
        dir: PathBuf,
    },
    /// There is no backup.
    #[error("{} is not a backup: it has no manifest, which is written last", path.display())]
    NotABackup {
        /// Where one was looked for.
        path: PathBuf,
    },
    /// A newer version wrote it.
    #[error("the backup is of format {format}, this program reads format {FORMAT}: use the newer program")]
    Newer {
        /// Its format.
        format: u32,
    },
    /// Its rows are of a layout that this program cannot verify or restore.
    #[error(
        "the rows are of layout {found}, this program reads layout {known}: an older directory is taken over when the daemon opens it; for a newer one use the newer program"
    )]
    Layout {
        /// Layout found.
        found: u32,
        /// The layout known here.
        known: u32,
    },
    /// A file is not what was written.
    #[error("{} is damaged ({what}): use another backup", file.display())]
    Damaged {
        /// Which.
        file: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The backup is of another store than the one it is to go on with.
    #[error("the backup there is of another store: name another directory")]
    Other,
    /// What came after the end of a backup is not all there any more.
    #[error("the journal since position {since} is partly gone: make a new backup in another directory")]
    Gone {
        /// Where the backup ends.
        since: u64,
    },
    /// There is one already.
    #[error("a backup is being made already: try again when it is done")]
    Busy,
    /// Somebody asked for its end.
    #[error("the backup was called off")]
    Cancelled,
    /// The store was opened again or closed meanwhile.
    #[error("the store was closed or opened again while the backup was made: make it again")]
    Reopened,
    /// Going on would leave less room than publishing needs.
    #[error(
        "there is not enough room for the backup of a running daemon: {free} bytes are free on its file system, and {least} must stay free while its rows are written beside the store (store.reserve_bytes, an eighth of that, and 64 MiB). Free some, or stop the daemon for the backup"
    )]
    NoRoom {
        /// Bytes that are free.
        free: u64,
        /// Bytes that must stay free.
        least: u64,
    },
    /// It held segments for longer than it may.
    #[error("the backup took longer than {} minutes: make it when there is less to do", PIN_LIMIT.as_secs() / 60)]
    TooSlow,
    /// The moment asked for is none that the backup knows.
    #[error("the backup can be restored as of positions {first} to {last} ({} to {})", crate::time::rfc3339(*first_ms), crate::time::rfc3339(*last_ms))]
    OutOfRange {
        /// Earliest position.
        first: u64,
        /// Latest position.
        last: u64,
        /// When the earliest was, Unix milliseconds.
        first_ms: u64,
        /// When the latest was, Unix milliseconds.
        last_ms: u64,
    },
    /// The file system is full. Opening a state takes some room even where nothing is changed.
    #[error(
        "no space is left on the file system, and opening the store takes some: free some, then try again"
    )]
    Full,
    /// The store failed.
    #[error("{0}")]
    Store(String),
    /// The file system refused.
    #[error("{}: {reason}", path.display())]
    Io {
        /// What was worked on.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
}

impl BackupError {
    pub(super) fn io(path: &Path, error: &io::Error) -> BackupError {
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

/// A new file for us alone.
fn private_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

/// What is backed up: an engine that nobody else has, or that of a running store.
enum Source<'a> {
    Stopped(&'a Engine),
    Running { shared: &'a Shared, epoch: u32 },
}

impl Source<'_> {
    /// Lets `read` have the engine, for a short time where others need it.
    fn with<T>(&self, read: impl FnOnce(&Engine) -> Result<T, BackupError>) -> Result<T, BackupError> {
        match self {
            Source::Stopped(engine) => read(engine),
            Source::Running { shared, epoch } => {
                let engine = shared.engine.read();
                // A store that was opened again may have taken back what was read before.
                let same = shared.epoch.load(Relaxed) == *epoch;
                engine.as_ref().filter(|_| same).map_or(Err(BackupError::Reopened), read)
            }
        }
    }
}

impl Source<'_> {
    /// A running store must not have to stop publishing for want of the room that its backup takes.
    fn check_room(&self) -> Result<(), BackupError> {
        let Source::Running { shared, .. } = self else { return Ok(()) };
        let options = &shared.options;
        let least = options.reserve_bytes.saturating_add(options.reserve_bytes / 8).saturating_add(ROOM);
        match options.io.space(&options.dir) {
            Ok(space) if space.free < least => Err(BackupError::NoRoom { free: space.free, least }),
            _ => Ok(()), // as the committer has it: what cannot be asked is no reason
        }
    }
}

/// A part of a journal that a backup ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Since {
    /// The journal's id, hexadecimal.
    pub(super) journal: String,
    /// Where the backup ends.
    pub(super) position: Position,
}

/// Backs the stopped store of the data directory `dir` up into the directory `to`, or adds what came since to the backup there.
///
/// # Errors
/// [`BackupError`]; an interrupted backup has no manifest, and one that was to be added to is as it was.
pub fn backup(
    dir: &Path,
    to: &Path,
    clock: &dyn Clock,
    progress: &mut dyn Progress,
) -> Result<Made, BackupError> {
    fetch::must_be_outside(dir, to)?;
    let _lock = lock::take_lock(dir)?;
    super::compact::settle(dir).map_err(|error| OpenError::io(dir, &error))?;
    let engine = super::migrate::open_engine(dir, &EngineOptions::new(dir, Arc::new(Disk)))?;
    let plan = fetch::Plan::of(to)?;
    let stage = dir.join(stage::NAME);
    stage::clear_stage(dir).map_err(|error| BackupError::io(&stage, &error))?;
    let made = make(&Source::Stopped(&engine), dir, plan.since(), &|| clock.now_ms(), progress)
        .and_then(|()| fetch::copy_stage(&stage, to, progress));
    let cleared = stage::clear_stage(dir).map_err(|error| BackupError::io(&stage, &error));
    made.and_then(|made| cleared.map(|()| made))
}

/// Makes the backup of the store in `dir` in its stage: whole, or what came `since`.
fn make(
    source: &Source<'_>,
    dir: &Path,
    since: Option<&Since>,
    now_ms: &dyn Fn() -> u64,
    progress: &mut dyn Progress,
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
            progress.at("bringing the state to the disk", 0, 0)?;
            let from = source.with(|engine| Ok(engine.check_point()?))?;
            (from, export(source, &stage.join(ROWS), progress)?)
        }
    };
    // Everything that a row shows was appended before this.
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
    // The last segments may be gone: nothing of them lives, and the rows have what they said.
    let last = segments.last().map_or(from.0, |(_, end)| (*end).max(from.0));
    let manifest = Manifest {
        format: FORMAT,
        layout: recover::SCHEMA,
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

/// Writes the rows to a file; how many.
fn export(source: &Source<'_>, path: &Path, progress: &mut dyn Progress) -> Result<u64, BackupError> {
    let failed = |error: io::Error| BackupError::io(path, &error);
    let mut writer = rows_file::Writer::create(path).map_err(failed)?;
    let (mut lower, mut looked_at) = (Bound::Unbounded, None);
    loop {
        progress.at("rows", writer.rows, 0)?;
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

/// Whether a row is absolute, and no part of what says where the state stands.
fn is_exported(key: &[u8]) -> bool {
    let of_its_own = [Meta::Position, Meta::Journal].map(keys::meta);
    keys::kind_of(key) != Some(Kind::Segment) && !of_its_own.iter().any(|own| own == key)
}

/// Seals the journal and links every segment into the stage of `dir`, those that came `since` if that is given.
fn link(
    source: &Source<'_>,
    dir: &Path,
    since: Option<&Since>,
    progress: &mut dyn Progress,
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
        progress.at("bytes of segments", done, of)?;
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
