//! Replaces the state, or state and journal, of a data directory by finished copies.
//!
//! * Directories: `log` is the state and `journal` the journal. A name ending in `.new` is an unfinished
//!   copy, and `log.old` is what a finished copy replaces. A migration (`migrate.rs`) also makes a
//!   `journal.new`; a compaction does not.
//! * Order: the copies are complete and durable; `log` is renamed to `log.old`; `journal.new`, if it exists,
//!   to `journal`; `log.new` to `log`; `log.old` is removed. So if `log` is missing, `log.new` is complete;
//!   if `log` exists, every copy is to be discarded. [`settle`] relies on this alone.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use crate::store::disk::sync_dir;
use crate::store::engine;

/// Replaces the originals with the finished copies.
pub(crate) fn swap(dir: &Path) -> io::Result<()> {
    let (live, copy) = (engine::path(dir), dir.join("log.new"));
    for entry in fs::read_dir(&copy)? {
        File::open(entry?.path())?.sync_all()?;
    }
    sync_dir(&copy)?;
    sync_dir(dir)?;
    fs::rename(&live, dir.join("log.old"))?;
    sync_dir(dir)?;
    finish(dir)
}

/// The steps of [`swap`] that remain once `log.old` exists.
fn finish(dir: &Path) -> io::Result<()> {
    let journal = dir.join("journal.new");
    if journal.exists() {
        fs::rename(journal, engine::journal_path(dir))?;
        sync_dir(dir)?;
    }
    fs::rename(dir.join("log.new"), engine::path(dir))?;
    sync_dir(dir)?;
    fs::remove_dir_all(dir.join("log.old"))
}

/// Completes or undoes an interrupted compaction or migration.
pub(crate) fn settle(dir: &Path) -> io::Result<()> {
    let (live, copy, old) = (engine::path(dir), dir.join("log.new"), dir.join("log.old"));
    if !live.exists() && copy.exists() && old.exists() {
        finish(dir)?;
    } else if !live.exists() && old.exists() {
        fs::rename(&old, &live)?;
        sync_dir(dir)?;
    }
    for rubbish in [copy, old, dir.join("journal.new")] {
        match fs::remove_dir_all(&rubbish) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
