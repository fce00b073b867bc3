//! Compaction: returns disk space while no daemon runs. Live pieces are copied out of mostly dead segments,
//! and the state's rows into a new file, because sled never shrinks its own.

use std::fs;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use super::lock::take_lock;
use super::migrate::open_engine;
use super::open_error::{OpenError, find};
use super::swap::{settle, swap};
use crate::store::disk::Disk;
use crate::store::engine::{self, EngineError, EngineOptions, State};
use crate::store::retention::reclaim;

/// sled's cache during the copy, in bytes.
const CACHE_BYTES: u64 = 32 << 20;

/// Size of the segments that live pieces are copied into, in bytes.
const SEGMENT_BYTES: u64 = 16 << 20;

/// The result of a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionResult {
    /// Rows copied.
    pub rows: u64,
    /// Bytes on disk before.
    pub before: u64,
    /// Bytes on disk after.
    pub after: u64,
}

/// Compacts journal and state of the data directory `dir`. No daemon may run on it. It needs free space for
/// the live rows beside the old file. If it is interrupted at any point, the next opening loses nothing.
///
/// # Errors
/// [`OpenError`]; the old database is then untouched.
pub fn compact(dir: &Path) -> Result<CompactionResult, OpenError> {
    let _lock = take_lock(dir)?;
    settle(dir).map_err(|error| OpenError::io(dir, &error))?;
    find(dir)?;
    let live = engine::path(dir);
    let journal = engine::journal_path(dir);
    let bytes = || -> Result<u64, OpenError> {
        let bytes = disk_bytes(&live).and_then(|state| Ok(state + disk_bytes(&journal)?));
        bytes.map_err(|error| OpenError::io(dir, &error))
    };
    let before = bytes()?;
    let options = EngineOptions { segment_bytes: SEGMENT_BYTES, ..EngineOptions::new(dir, Arc::new(Disk)) };
    let engine = open_engine(dir, &options)?;
    reclaim::all(&engine).map_err(|error| OpenError::engine(dir, &error))?;
    engine.check_point().map_err(|error| OpenError::engine(dir, &error))?;
    drop(engine);
    let copy = dir.join("log.new");
    let rows = copy_rows(dir, &live, &copy).inspect_err(|_| drop(fs::remove_dir_all(&copy)))?;
    swap(dir).map_err(|error| OpenError::io(dir, &error))?;
    Ok(CompactionResult { rows, before, after: bytes()? })
}

fn copy_rows(dir: &Path, live: &Path, copy: &Path) -> Result<u64, OpenError> {
    let failed = |error: EngineError| OpenError::engine(dir, &error);
    let open = |path: &Path| State::open(path, CACHE_BYTES, Arc::new(Disk)).map_err(failed);
    let all = || (Bound::Unbounded, Bound::Unbounded);
    let (from, to) = (open(live)?, open(copy)?);
    let mut rows = 0;
    for row in from.between(all()).map_err(failed)? {
        let (key, value) = row.map_err(failed)?;
        to.write(&key, Some(&value)).map_err(failed)?;
        rows += 1;
    }
    to.sync().map_err(failed)?;
    drop(to);
    let copied = open(copy)?;
    let mut count = 0;
    for row in copied.between(all()).map_err(failed)? {
        row.map_err(failed)?;
        count += 1;
    }
    match count == rows {
        true => Ok(rows),
        false => Err(failed(EngineError::Engine("the copy is not whole".into()))),
    }
}

fn disk_bytes(database: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(database)? {
        bytes += entry?.metadata()?.blocks() * 512;
    }
    Ok(bytes)
}
