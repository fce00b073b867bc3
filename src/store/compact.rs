//! Copying the live rows to a new file, since sled never shrinks its own.
//!
//! * The directories: `log` is the database, `log.new` an unfinished copy, `log.old` what a finished copy replaces.
//! * Order: the copy is whole and on disk; `log` becomes `log.old`; `log.new` becomes `log`; `log.old` goes. So where
//!   `log` is missing, `log.new` is whole; where `log` exists, anything else is rubbish. [`settle`] knows no more than that.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::engine::{self, Batch, Engine, EngineError, sync_dir};
use super::recover::{self, Identity};
use super::space::Disk;
use super::{OpenError, newer};

/// Bytes of rows copied in one batch.
const COPY_BYTES: u64 = 4 << 20;
/// sled's cache while copying.
const CACHE_BYTES: u64 = 32 << 20;

/// What a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// Rows copied.
    pub rows: u64,
    /// Bytes on disk before.
    pub before: u64,
    /// Bytes on disk after.
    pub after: u64,
}

/// Copies the live rows of the data directory `dir` to a new database and puts it in the old one's place. No daemon may
/// run on it. Needs room for the live rows beside the old file; interrupted at any point, the next opening finds one
/// whole database.
///
/// # Errors
/// [`OpenError`], the old database being untouched.
pub fn compact(dir: &Path) -> Result<Compacted, OpenError> {
    let _lock = super::take_lock(dir)?;
    settle(dir).map_err(|error| OpenError::io(dir, &error))?;
    let live = engine::path(dir);
    if !live.exists() {
        return Err(OpenError::Missing { dir: dir.to_owned() });
    }
    let before = disk_bytes(&live).map_err(|error| OpenError::io(dir, &error))?;
    let copy = dir.join("log.new");
    let rows = copy_rows(dir, &live, &copy).inspect_err(|_| drop(fs::remove_dir_all(&copy)))?;
    swap(dir, &live, &copy).map_err(|error| OpenError::io(dir, &error))?;
    let after = disk_bytes(&live).map_err(|error| OpenError::io(dir, &error))?;
    Ok(Compacted { rows, before, after })
}

fn copy_rows(dir: &Path, live: &Path, copy: &Path) -> Result<u64, OpenError> {
    let failed = |error: EngineError| OpenError::engine(dir, &error);
    let from = Engine::open(live, CACHE_BYTES, true, Arc::new(Disk)).map_err(failed)?;
    if let Identity::Newer(schema) = recover::identity(&from).map_err(failed)? {
        return Err(newer(dir, schema));
    }
    let to = Engine::open(copy, CACHE_BYTES, true, Arc::new(Disk)).map_err(failed)?;
    let (mut rows, mut batch) = (0, Batch::default());
    for row in from.range(&[0], &[u8::MAX; 32]) {
        let (key, value) = row.map_err(failed)?;
        batch.put(key.to_vec(), value.to_vec());
        rows += 1;
        if batch.bytes >= COPY_BYTES {
            to.commit(std::mem::take(&mut batch)).map_err(failed)?;
        }
    }
    to.commit(batch).map_err(failed)?;
    drop(to);
    let copied = Engine::open(copy, CACHE_BYTES, true, Arc::new(Disk)).map_err(failed)?;
    let mut count = 0;
    for row in copied.range(&[0], &[u8::MAX; 32]) {
        row.map_err(failed)?;
        count += 1;
    }
    match count == rows {
        true => Ok(rows),
        false => Err(failed(EngineError::Engine("the copy is not whole".into()))),
    }
}

/// Puts the finished copy in the database's place.
fn swap(dir: &Path, live: &Path, copy: &Path) -> io::Result<()> {
    for entry in fs::read_dir(copy)? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync_dir(copy)?;
    sync_dir(dir)?;
    fs::rename(live, dir.join("log.old"))?;
    sync_dir(dir)?;
    fs::rename(copy, live)?;
    sync_dir(dir)?;
    fs::remove_dir_all(dir.join("log.old"))
}

/// Finishes or undoes a compaction that was interrupted.
pub(super) fn settle(dir: &Path) -> io::Result<()> {
    let (live, copy, old) = (engine::path(dir), dir.join("log.new"), dir.join("log.old"));
    if !live.exists() && copy.exists() && old.exists() {
        fs::rename(&copy, &live)?;
        sync_dir(dir)?;
    } else if !live.exists() && old.exists() {
        fs::rename(&old, &live)?;
        sync_dir(dir)?;
    }
    for rubbish in [copy, old] {
        match fs::remove_dir_all(&rubbish) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn disk_bytes(database: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(database)? {
        bytes += entry?.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}
