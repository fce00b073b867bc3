//! The one file that names sled: the state of the store, a sorted map of rows on disk.
//!
//! * The state is that of a position in the journal. Rows are brought here after they are durable there, so a crash at any point
//!   costs nothing: opening replays the journal from the position that the state holds.
//! * That is why rows are written one by one. A batch of sled costs a manifest that is written out and waited for, and shuts
//!   readers out for as long as it takes.
//! * `flush()` of sled 0.34 is not an fsync on Linux: [`State::sync`] calls `fdatasync` on a file handle of its own.
//! * `flush_async` is never called: it deadlocks under concurrency. Rows come from one thread.
//! * After a failed `fdatasync` the kernel's cache may hold pages that the disk does not have, and call them clean. [`DOUBTFUL`] says
//!   so to the next opening, in this process or another, which drops them and reads what is really there. The journal still
//!   has everything since the last checkpoint.
//! * A sled handle that has met an IO error stays broken: after [`EngineError`] the state has to be opened again.

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::engine::EngineError;
use super::pack::SEGMENT_BYTES;
use super::space::Io;

/// The bytes of a row's value, shared with sled's cache.
pub(crate) type Value = sled::IVec;

/// How often sled reclaims space (and syncs its file for its own sake), milliseconds: without it space is never reclaimed.
const HOUSEKEEPING_MS: u64 = 500;
/// How long sled's threads may hold the file of a database that was closed: they let go of it when they have finished what
/// they were at.
const LET_GO: Duration = Duration::from_secs(2);
/// The file in the database's directory that says that a sync of it failed.
const DOUBTFUL: &str = "doubtful";
/// Changed rows after which the pages they replaced are freed.
const FREED_EVERY: usize = 64;

impl From<sled::Error> for EngineError {
    fn from(error: sled::Error) -> EngineError {
        match &error {
            sled::Error::Io(io) => EngineError::io(io, false),
            sled::Error::Corruption { .. } => EngineError::Engine(DAMAGED.into()),
            other => EngineError::Engine(other.to_string()),
        }
    }
}

/// What is wrong where sled finds bytes that it has not written, and what to do.
const DAMAGED: &str = "the state, log/db, is damaged: restore a backup into a new directory (`nervewire restore`); \
                       `nervewire verify` shows what of the journal is sound";

/// Runs what opens or reads a database of which nobody knows whether it is whole: sled panics over some damage.
///
/// # Errors
/// What `read` says, and that the database is damaged.
pub(crate) fn guard_damaged<T, E: From<EngineError>>(read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let damaged = |_| Err(EngineError::Engine(DAMAGED.into()).into());
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(damaged)
}

/// An open state.
pub(crate) struct State {
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    /// The file sled writes to, opened a second time for fsync.
    file: File,
    /// The database's directory.
    dir: PathBuf,
    io: Arc<dyn Io>,
    /// Rows changed since replaced pages were freed.
    changed: AtomicUsize,
}

/// The first file in `blobs/`, where sled puts pages it never fsyncs; there must be none.
pub(crate) fn has_blobs(database: &Path) -> io::Result<bool> {
    match fs::read_dir(database.join("blobs")) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes snapshots that sled had not finished when its process ended: it would take them for whole ones, find them damaged, and
/// never open again. They replace nothing before they are renamed.
fn remove_unfinished_snapshots(database: &Path) -> io::Result<()> {
    for entry in fs::read_dir(database)? {
        let entry = entry?;
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with("snap.") && name.ends_with(".generating"))
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Has the next opening of the database drop what the kernel's cache has of it.
fn mark_doubtful(database: &Path) {
    let marked = File::create(database.join(DOUBTFUL)).and_then(|_| sync_dir(database));
    if let Err(error) = marked {
        tracing::error!(%error, "that the disk failed the state could not be noted: restart the machine before the daemon");
    }
}

/// Where an earlier sync of the database failed: drops what the kernel's cache has of it. Returns true if so.
fn forget_doubtful_pages(io: &dyn Io, database: &Path) -> Result<bool, EngineError> {
    if !database.join(DOUBTFUL).exists() {
        return Ok(false);
    }
    tracing::warn!("an earlier sync of the state failed; it is read from the disk again");
    let file = io.open(&database.join("db"), true).map_err(|error| EngineError::io(&error, false))?;
    // Pages that are still dirty cannot be dropped.
    io.sync_state(&file).map_err(|error| EngineError::io(&error, true))?;
    io.drop_pages(&file).map_err(|error| EngineError::io(&error, false))?;
    Ok(true)
}

/// A directory only we may enter, made if absent.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    match fs::set_permissions(dir, fs::Permissions::from_mode(0o700)) {
        // It was there before and belongs to somebody who let us in: theirs to decide.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Brings a directory's entries (names, renames) to the disk.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl State {
    /// Opens or creates the database in the directory `database`.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn open(database: &Path, cache_bytes: u64, io: Arc<dyn Io>) -> Result<State, EngineError> {
        let prepare = || -> io::Result<()> {
            private_dir(database)?;
            private_dir(&database.join("blobs"))?;
            remove_unfinished_snapshots(database)
        };
        prepare().map_err(|error| EngineError::io(&error, false))?;
        let was_doubtful = forget_doubtful_pages(&*io, database)?;
        let config = sled::Config::new()
            .path(database)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(cache_bytes)
            .flush_every_ms(Some(HOUSEKEEPING_MS));
        let asked = Instant::now();
        let db = loop {
            match config.open() {
                // Its lock: ours is held, so it is this process's own, which has just closed the database.
                Err(sled::Error::Io(error))
                    if error.kind() == io::ErrorKind::Other && asked.elapsed() < LET_GO =>
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
                opened => break opened?,
            }
        };
        let reopen = || -> io::Result<File> {
            for name in ["db", "conf"] {
                let path = database.join(name);
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
                File::open(&path)?.sync_all()?; // sled cannot open without its `conf`
            }
            let file = File::options().read(true).write(true).open(database.join("db"))?;
            sync_dir(database)?;
            Ok(file)
        };
        let file = reopen().map_err(|error| {
            mark_doubtful(database); // one of its syncs may have reported, once, what the kernel failed to write before
            EngineError::io(&error, false)
        })?;
        if was_doubtful {
            fs::remove_file(database.join(DOUBTFUL)).map_err(|error| EngineError::io(&error, false))?;
        }
        Ok(State { db: Some(db), file, dir: database.to_owned(), io, changed: AtomicUsize::new(0) })
    }

    fn db(&self) -> Result<&sled::Db, EngineError> {
        self.db.as_ref().ok_or_else(|| EngineError::Engine("the state is closed".into()))
    }

    /// Writes or removes one row; not durable before [`State::sync`].
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn write(&self, key: &[u8], value: Option<&Value>) -> Result<(), EngineError> {
        let db = self.db()?;
        let written = match value {
            Some(value) => db.insert(key, value.clone()),
            None => db.remove(key),
        };
        written.map_err(EngineError::from).inspect_err(|error| self.doubt(error))?;
        // sled's collector frees some hundred pieces with every 128th operation of a thread, and each change replaces a page: left to
        // itself, a process that writes much keeps many pages it has replaced.
        if self.changed.fetch_add(1, Relaxed) % FREED_EVERY == FREED_EVERY - 1 {
            crossbeam_epoch::pin().flush();
        }
        Ok(())
    }

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn sync(&self) -> Result<(), EngineError> {
        let flush = || -> Result<(), EngineError> {
            self.db()?.flush()?;
            self.io.sync_state(&self.file).map_err(|error| EngineError::io(&error, true))
        };
        flush().inspect_err(|error| self.doubt(error))
    }

    /// Whether the disk takes data for the state, after it failed.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn probe(&self) -> Result<(), EngineError> {
        let synced = self.io.sync_state(&self.file).map_err(|error| EngineError::io(&error, true));
        synced.inspect_err(|error| self.doubt(error))
    }

    /// Notes for the next opening that the disk failed, if `error` says so.
    fn doubt(&self, error: &EngineError) {
        if let EngineError::Disk(_) = error {
            mark_doubtful(&self.dir);
        }
    }

    /// The value under a key.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        Ok(self.db()?.get(key)?)
    }

    /// Rows within bounds, in order.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn between(
        &self,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<impl DoubleEndedIterator<Item = Result<(Value, Value), EngineError>> + use<>, EngineError>
    {
        Ok(self.db()?.range::<&[u8], _>(bounds).map(|row| row.map_err(EngineError::from)))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // sled flushes when it is dropped and panics where that fails, on a full disk for one. Nothing is lost by it: what it
        // did not bring to the disk is in the journal.
        let db = self.db.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!("the state could not be closed cleanly; the next opening replays the journal");
        }
    }
}
