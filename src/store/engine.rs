//! The one file that names sled: a key-value map with atomic batches and a real fsync.
//!
//! * `flush()` of sled 0.34 is not an fsync on Linux: [`Engine::commit`] calls `sync_data` on a file handle of its own.
//! * `flush_async` is never called: it deadlocks under concurrency. Batches come from one thread, the committer.
//! * A sled handle that has met an IO error stays broken: whoever sees [`EngineError`] drops the engine.
//! * It knows bytes, not what they mean; which of them it keeps in memory itself, `keys.rs` says.

use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::keys;
use super::pack::{MAX_VALUE, SEGMENT_BYTES};
use super::quota::Quotas;
use super::row_cache::{RowCache, RowCacheStats};
use super::space::Io;

/// Bytes of a row's value, shared with sled's cache.
pub(crate) type Value = sled::IVec;

/// How often sled reclaims space (and fsyncs for its own sake), milliseconds: without it space is never reclaimed.
const HOUSEKEEPING_MS: u64 = 500;

/// How long sled's threads may hold the file of a database that was closed: they let go of it when they have finished what
/// they were at.
const LET_GO: Duration = Duration::from_secs(2);

/// Why the engine failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EngineError {
    /// No space, or over a disk quota: opening again may help once there is.
    #[error("no space left on the file system")]
    Space,
    /// The kernel could not bring data to the disk: what is there is unknown, and asking again would hide that.
    #[error("the disk failed: {0}")]
    Disk(String),
    /// Anything else; opening again may help.
    #[error("the storage engine failed: {0}")]
    Engine(String),
}

impl EngineError {
    fn io(error: &io::Error, syncing: bool) -> EngineError {
        const EIO: i32 = 5;
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => EngineError::Space,
            (_, code) if syncing || code == Some(EIO) => EngineError::Disk(error.kind().to_string()),
            _ => EngineError::Engine(error.kind().to_string()),
        }
    }
}

impl From<sled::Error> for EngineError {
    fn from(error: sled::Error) -> EngineError {
        match &error {
            sled::Error::Io(io) => EngineError::io(io, false),
            sled::Error::Corruption { .. } => EngineError::Engine("damaged data".into()),
            other => EngineError::Engine(other.to_string()),
        }
    }
}

/// One row of a batch.
pub(crate) struct RowChange {
    pub(crate) key: Vec<u8>,
    /// `None`: it is removed.
    pub(crate) value: Option<Vec<u8>>,
    /// Nothing is stored under its key, so nobody needs to look.
    pub(crate) is_new: bool,
}

/// Rows written and removed together or not at all.
#[derive(Default)]
pub(crate) struct Batch {
    /// In order: a later row under the same key replaces an earlier one.
    rows: Vec<RowChange>,
    /// Keys and values in it, bytes.
    pub(crate) bytes: u64,
}

impl Batch {
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        debug_assert!(value.len() <= MAX_VALUE, "a value of {} bytes", value.len());
        self.push(key, Some(value), false);
    }
    /// [`Batch::put`] of a key under which nothing is stored.
    pub(crate) fn put_new(&mut self, key: Vec<u8>, value: Vec<u8>) {
        debug_assert!(value.len() <= MAX_VALUE, "a value of {} bytes", value.len());
        self.push(key, Some(value), true);
    }
    pub(crate) fn delete(&mut self, key: &[u8]) {
        self.push(key.to_vec(), None, false);
    }
    fn push(&mut self, key: Vec<u8>, value: Option<Vec<u8>>, is_new: bool) {
        self.bytes += (key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
        self.rows.push(RowChange { key, value, is_new });
    }
    /// In order.
    pub(crate) fn changes(&self) -> &[RowChange] {
        &self.rows
    }
}

/// An open database.
pub(crate) struct Engine {
    db: sled::Db,
    /// The file sled writes to, opened a second time for fsync.
    file: File,
    io: Arc<dyn Io>,
    fsync: bool,
    /// `None`: nothing is kept besides sled's own pages.
    rows: Option<RowCache>,
    /// `None`: what organizations keep is not counted.
    quotas: Option<Arc<Quotas>>,
}

/// Where the database of a data directory lies.
pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// The first file in `blobs/`, where sled puts pages it never fsyncs; there must be none.
pub(crate) fn has_blobs(database: &Path) -> io::Result<bool> {
    match fs::read_dir(database.join("blobs")) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A directory only we may enter, made if absent.
pub(crate) fn private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    match fs::set_permissions(dir, fs::Permissions::from_mode(0o700)) {
        // It was there before and is another's, who let us in: theirs to decide.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Brings a directory's entries (names, renames) to the disk.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Changes of a batch after which what they replaced is freed once.
const FREED_EVERY: usize = 64;

/// Frees the pages in memory that `changes` changes of a batch replaced. sled's collector frees some hundred pieces with every
/// 128th operation of a thread; a batch is one operation however long, and each of its changes replaces a page: left to itself,
/// a process that writes batches keeps every page it ever changed.
fn free_replaced(changes: usize) {
    for _ in 0..changes.div_ceil(FREED_EVERY) {
        crossbeam_epoch::pin().flush();
    }
}

impl Engine {
    /// Opens or creates the database in `database`.
    pub(crate) fn open(
        database: &Path,
        cache_bytes: u64,
        fsync: bool,
        io: Arc<dyn Io>,
    ) -> Result<Engine, EngineError> {
        io.write().map_err(|error| EngineError::io(&error, false))?;
        let prepare = || -> io::Result<()> {
            private_dir(database)?;
            private_dir(&database.join("blobs"))
        };
        prepare().map_err(|error| EngineError::io(&error, false))?;
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
        let file = reopen().map_err(|error| EngineError::io(&error, false))?;
        Ok(Engine { db, file, io, fsync, rows: None, quotas: None })
    }

    /// Keeps up to `bytes` of rows in memory from now on.
    pub(crate) fn keeping_rows(self, bytes: u64) -> Engine {
        Engine { rows: Some(RowCache::new(bytes)), ..self }
    }

    /// Counts from now on what organizations keep, with every batch.
    pub(crate) fn counting(self, quotas: Arc<Quotas>) -> Engine {
        Engine { quotas: Some(quotas), ..self }
    }

    /// What is kept, all zeros if nothing is.
    pub(crate) fn row_cache(&self) -> RowCacheStats {
        self.rows.as_ref().map(RowCache::stats).unwrap_or_default()
    }

    /// Makes `batch` visible, all of it or nothing; not yet durable.
    pub(crate) fn apply(&self, mut batch: Batch) -> Result<(), EngineError> {
        self.io.write().map_err(|error| EngineError::io(&error, false))?;
        let Some(quotas) = &self.quotas else { return self.apply_uncounted(batch) };
        let usage = quotas.measure(self, &mut batch)?;
        self.apply_uncounted(batch)?;
        quotas.settle(usage);
        Ok(())
    }

    fn apply_uncounted(&self, batch: Batch) -> Result<(), EngineError> {
        let rows: Vec<(Vec<u8>, Option<Value>)> =
            batch.rows.into_iter().map(|row| (row.key, row.value.map(Value::from))).collect();
        let Some(kept) = &self.rows else { return self.apply_rows(rows) };
        let changed: Vec<_> = rows.iter().filter(|(key, _)| keys::is_row(key)).cloned().collect();
        let applied = self.apply_rows(rows);
        for (key, row) in changed {
            kept.put(key, row.filter(|_| applied.is_ok()));
        }
        applied
    }

    fn apply_rows(&self, mut rows: Vec<(Vec<u8>, Option<Value>)>) -> Result<(), EngineError> {
        // One row is atomic by itself. As a batch it would cost sled a manifest of its own, written out and waited for before
        // the row: a third more of what a lone publisher waits for.
        if rows.len() == 1
            && let Some((key, value)) = rows.pop()
        {
            match value {
                Some(value) => self.db.insert(key, value)?,
                None => self.db.remove(key)?,
            };
            return Ok(());
        }
        let changes = rows.len();
        let mut together = sled::Batch::default();
        for (key, value) in rows {
            match value {
                Some(value) => together.insert(key, value),
                None => together.remove(key),
            }
        }
        self.db.apply_batch(together)?;
        free_replaced(changes);
        Ok(())
    }

    /// Makes `batch` and everything applied before it durable.
    pub(crate) fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        self.apply(batch)?;
        self.db.flush()?;
        match self.fsync {
            true => self.io.sync(&self.file).map_err(|error| EngineError::io(&error, true)),
            false => Ok(()),
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        Ok(self.db.get(key)?)
    }

    /// [`Engine::get`] of a row that may be kept in memory.
    pub(crate) fn row(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        match &self.rows {
            Some(rows) if keys::is_row(key) => rows.get(key, || self.get(key)),
            _ => self.get(key),
        }
    }

    /// A row as it is, in memory or not, without keeping it.
    pub(crate) fn look_at_row(&self, key: &[u8]) -> Result<Option<Value>, EngineError> {
        match self.rows.as_ref().and_then(|rows| rows.peek(key)) {
            Some(row) => Ok(Some(row)),
            None => self.get(key),
        }
    }

    /// How long the value under a key is, `None` if there is none; of a row that is kept in memory, from there.
    pub(crate) fn length(&self, key: &[u8]) -> Result<Option<usize>, EngineError> {
        let row = if keys::is_row(key) { self.look_at_row(key)? } else { self.get(key)? };
        Ok(row.map(|row| row.len()))
    }

    /// Rows from `from` (included) to `to` (excluded), in order.
    pub(crate) fn range(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> impl DoubleEndedIterator<Item = Result<(Value, Value), EngineError>> + use<> {
        self.db.range::<&[u8], _>(from..to).map(|row| row.map_err(EngineError::from))
    }

    /// Rows within bounds, in order.
    pub(crate) fn between(
        &self,
        bounds: (Bound<Vec<u8>>, Bound<Vec<u8>>),
    ) -> impl DoubleEndedIterator<Item = Result<(Value, Value), EngineError>> + use<> {
        self.db.range::<Vec<u8>, _>(bounds).map(|row| row.map_err(EngineError::from))
    }

    /// The first row from `from` (included) to `to` (excluded).
    pub(crate) fn first(&self, from: &[u8], to: &[u8]) -> Result<Option<(Value, Value)>, EngineError> {
        self.range(from, to).next().transpose()
    }

    /// The last row from `from` (included) to `to` (excluded).
    pub(crate) fn last(&self, from: &[u8], to: &[u8]) -> Result<Option<(Value, Value)>, EngineError> {
        self.range(from, to).next_back().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::Kind;
    use super::super::space::Disk;
    use super::*;
    use crate::ids::TenantId;

    fn batch(rows: &[(&[u8], Option<&str>)]) -> Batch {
        let mut batch = Batch::default();
        for (key, row) in rows {
            match row {
                Some(row) => batch.put(key.to_vec(), row.as_bytes().to_vec()),
                None => batch.delete(key),
            }
        }
        batch
    }

    #[test]
    fn rows_in_memory_are_what_the_engine_holds() {
        let dir = tempfile::tempdir().expect("a directory");
        let opened = Engine::open(&dir.path().join("log"), 8 << 20, false, Arc::new(Disk)).expect("opened");
        let engine = opened.keeping_rows(1 << 20);
        let [a, b] = [b"a", b"b"].map(|tail| keys::key(Kind::Row, TenantId(3), tail));
        let other = keys::key(Kind::Secret, TenantId(3), b"a");
        let commits: &[&[(&[u8], Option<&str>)]] = &[
            &[(&a, Some("1"))],
            &[(&a, Some("2")), (&b, Some("1")), (&other, Some("1"))],
            &[(&b, None)],
            &[(&a, None), (&a, Some("3")), (&b, Some("2")), (&b, None)],
            &[(&a, None), (&b, Some("3"))],
        ];
        for (at, rows) in commits.iter().enumerate() {
            engine.commit(batch(rows)).expect("committed");
            for key in [&a, &b, &other] {
                assert_eq!(
                    engine.row(key).expect("read"),
                    engine.get(key).expect("read"),
                    "after commit {at}"
                );
            }
        }
        let stats = engine.row_cache();
        assert_eq!(
            (stats.hits, stats.misses),
            (6, 4),
            "every row that was there came from memory, and no other kind did"
        );
    }
}
