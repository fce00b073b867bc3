//! The only file that names sled: the state of the store, a sorted map of rows on disk.
//!
//! * The state is that of a position in the journal. Rows are written here after they are durable in the
//!   journal, so a crash at any point loses nothing: opening replays the journal from the position that the
//!   state holds.
//! * That is why rows are written one by one. A sled batch costs a manifest that has to be written and waited
//!   for, and blocks readers meanwhile.
//! * `flush()` of sled 0.34 is not an fsync on Linux: [`State::sync`] calls `fdatasync` on a file handle of
//!   its own.
//! * `flush_async` is never called: it deadlocks under concurrency. Rows come from one thread.
//! * After a failed `fdatasync` the kernel's cache may hold pages that the disk does not have, and mark them
//!   clean. The file [`DOUBTFUL`] tells the next opening, in this process or another, to drop them and to
//!   read what is really on disk. The journal still has everything since the last checkpoint.
//! * A sled handle that has seen an IO error stays broken: after [`EngineError`] the state has to be opened
//!   again.

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::error::EngineError;
use crate::store::disk::{Io, private_dir, sync_dir};
use crate::store::format::piece::SEGMENT_BYTES;

/// The bytes of a row's value, shared with sled's cache.
pub(crate) type Value = sled::IVec;

/// How often sled reclaims space (and syncs its file for its own purposes), in milliseconds. Without it sled
/// never reclaims space.
const HOUSEKEEPING_MS: u64 = 500;
/// How long sled's threads may hold the file of a closed database: they release it when they have finished
/// their current work.
const LET_GO: Duration = Duration::from_secs(2);
/// The file in the database's directory that marks that a sync of the database failed.
const DOUBTFUL: &str = "doubtful";
/// Number of changed rows after which the replaced pages are freed.
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
    /// `None` only while this is dropped.
    db: Option<sled::Db>,
    /// The file sled writes to, opened a second time for fsync.
    file: File,
    /// The database's directory.
    dir: PathBuf,
    io: Arc<dyn Io>,
    /// Rows changed since replaced pages were last freed.
    changed: AtomicUsize,
}

/// Returns true if there is a file in `blobs/`, where sled puts pages it never syncs. There must be none.
pub(crate) fn has_blobs(database: &Path) -> io::Result<bool> {
    match fs::read_dir(database.join("blobs")) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes snapshots that sled had not finished when its process ended. sled would take them for complete
/// ones, find them damaged, and never open again. They replace nothing before they are renamed.
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

/// Makes the next opening of the database drop the kernel's cache of it.
fn mark_doubtful(database: &Path) {
    let marked = File::create(database.join(DOUBTFUL)).and_then(|_| sync_dir(database));
    if let Err(error) = marked {
        tracing::error!(%error, "a failed sync of the state could not be recorded: restart the machine before the daemon");
    }
}

/// If an earlier sync of the database failed, drops the kernel's cache of it and returns true.
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
        let started = Instant::now();
        let db = loop {
            match config.open() {
                // Sled's own lock is held. This process holds the directory's lock, so it was this process,
                // which has just closed the database.
                Err(sled::Error::Io(error))
                    if error.kind() == io::ErrorKind::Other && started.elapsed() < LET_GO =>
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
            // One of its syncs may have reported, only once, what the kernel failed to write before.
            mark_doubtful(database);
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

    /// Writes or removes one row. It is not durable before [`State::sync`].
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
        // Sled's collector frees some hundred allocations with every 128th operation of a thread, and each
        // change replaces a page. Without help, a process that writes much keeps many replaced pages.
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

    /// Checks whether the disk accepts data for the state after it failed.
    ///
    /// # Errors
    /// [`EngineError`].
    pub(crate) fn probe(&self) -> Result<(), EngineError> {
        let synced = self.io.sync_state(&self.file).map_err(|error| EngineError::io(&error, true));
        synced.inspect_err(|error| self.doubt(error))
    }

    /// Records for the next opening that the disk failed, if `error` says so.
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
        // sled flushes when it is dropped and panics if that fails, for example on a full disk. Nothing is
        // lost then: what it did not write is in the journal.
        let db = self.db.take();
        if catch_unwind(AssertUnwindSafe(|| drop(db))).is_err() {
            tracing::warn!("the state could not be closed cleanly; the next opening replays the journal");
        }
    }
}
