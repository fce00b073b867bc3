//! Migration of a data directory of an older version: copies its rows into a new state, and its events into a
//! journal.
//!
//! * In layouts 1 to 3 the packed events were values of the log's rows. They are copied unchanged and stay
//!   readable.
//! * The old state is not touched before the copies are complete and durable; then they replace it
//!   (`swap.rs`). An interrupted migration starts again at the next opening.
//! * Cursors, keys and ids stay valid: they are rows like any other.

use std::ops::Bound;
use std::path::Path;
use std::time::Instant;

use super::open_error::{OpenError, find};
use super::swap::swap;
use crate::store::disk::drop_ballast;
use crate::store::engine::{Batch, Engine, EngineError, EngineOptions, SCHEMA, State, guard_damaged};
use crate::store::format::keys::{self, KeyKind, MetaKey};
use crate::store::format::piece::Head;

/// Bytes of rows copied in one commit.
const COPY_BYTES: u64 = 4 << 20;
/// Copied bytes between two progress lines.
const PROGRESS_BYTES: u64 = 1 << 30;

/// Opens the engine of `dir`, after a migration if an older version wrote it.
pub(crate) fn open_engine(dir: &Path, options: &EngineOptions) -> Result<Engine, OpenError> {
    let known = SCHEMA;
    // A journal without its state would be taken for that of a new store.
    if let Err(error @ OpenError::StateGone { .. }) = find(dir) {
        return Err(error);
    }
    match guard_damaged(|| open_on_full_disk(dir, options)) {
        Err(EngineError::Layout(found)) if found < known => {
            migrate(dir, options, found)?;
            Engine::open(options).map_err(|error| OpenError::engine(dir, &error))
        }
        Err(EngineError::Layout(found)) => Err(OpenError::Newer { dir: dir.to_owned(), found, known }),
        other => other.map_err(|error| OpenError::engine(dir, &error)),
    }
}

/// Opens the engine of `dir`. Opening the state needs some disk space, so on a full disk the ballast is
/// released.
fn open_on_full_disk(dir: &Path, options: &EngineOptions) -> Result<Engine, EngineError> {
    match Engine::open(options) {
        Err(EngineError::Space) => {
            tracing::warn!("the disk is full; reserved space is released so that the store can open");
            drop_ballast(dir);
            Engine::open(options)
        }
        opened => opened,
    }
}

/// Copies the data directory `dir`, which has layout `from`, into the layout of this version.
///
/// # Errors
/// [`OpenError`]; the old state is then unchanged.
fn migrate(dir: &Path, options: &EngineOptions, from: u32) -> Result<(), OpenError> {
    let started = Instant::now();
    let failed = |error: EngineError| OpenError::engine(dir, &error);
    tracing::info!(
        from,
        to = SCHEMA,
        "migrating the data directory to a new layout; this needs as much free space as the data takes"
    );
    if options.journal.exists() {
        let reason =
            "it holds a journal beside a state that is older than journals: restore files of one time".into();
        return Err(OpenError::Io { dir: dir.to_owned(), reason });
    }
    let journal = dir.join("journal.new");
    let copy = EngineOptions { state: dir.join("log.new"), journal, fsync: true, ..options.clone() };
    let old = State::open(&options.state, options.cache_bytes, options.io.clone()).map_err(failed)?;
    let bytes = copy_rows(&old, &copy).map_err(failed)?;
    drop(old);
    swap(dir).map_err(|error| OpenError::io(dir, &error))?;
    tracing::info!(bytes, took = ?started.elapsed(), "the data directory was migrated; older versions cannot open it now");
    Ok(())
}

fn copy_rows(old: &State, copy: &EngineOptions) -> Result<u64, EngineError> {
    let new = Engine::open(copy)?;
    let (mut batch, mut bytes, mut reported) = (Batch::default(), 0, 0);
    for row in old.between((Bound::Unbounded, Bound::Unbounded))? {
        let (key, value) = row?;
        match keys::kind_of(&key) {
            Some(KeyKind::Meta) if *key == *keys::meta(MetaKey::Schema) => continue,
            Some(KeyKind::Log) => {
                let head = Head::read(&value).map_err(|error| EngineError::Engine(error.to_string()))?;
                batch.put_piece(key.to_vec(), value.to_vec(), head);
            }
            Some(_) => batch.put_new(key.to_vec(), value.to_vec()),
            None => return Err(EngineError::Engine("a stored key is not one of this version".into())),
        }
        if batch.bytes >= COPY_BYTES {
            bytes += batch.bytes;
            new.commit(std::mem::take(&mut batch))?;
            if bytes - reported >= PROGRESS_BYTES {
                reported = bytes;
                tracing::info!(bytes, "migrating");
            }
        }
    }
    bytes += batch.bytes;
    new.commit(batch)?;
    new.check_point()?;
    Ok(bytes)
}
