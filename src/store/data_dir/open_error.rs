//! Why a store does not open, and whether there is one.
//!
//! An error names the data directory and says what to do. It does not know who asked.

use std::io;
use std::path::{Path, PathBuf};

use crate::store::engine::{self, EngineError};
use crate::store::journal;

/// Looks for a store in the data directory `dir`: a state, what an interrupted compaction left, or a journal from
/// its beginning.
///
/// # Errors
/// [`OpenError::Missing`], and [`OpenError::StateGone`] where only a part of one is there.
pub fn find(dir: &Path) -> Result<(), OpenError> {
    if engine::has_state(dir) || dir.join("log.old").exists() {
        return Ok(());
    }
    let segments = journal::first_positions(&engine::journal_path(dir)).unwrap_or_default();
    match segments.first() {
        None => Err(OpenError::Missing { dir: dir.to_owned() }),
        // A journal that is complete from its beginning holds every row. A power cut before the first checkpoint
        // leaves it without a state.
        Some(first) if first.0 == 0 => Ok(()),
        Some(_) => Err(OpenError::StateGone { dir: dir.to_owned() }),
    }
}

/// Why a store did not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process holds the data directory.
    #[error("the data directory {} is in use by process {}: stop it, or give this one another directory", dir.display(), pid.map_or("?".into(), |pid| pid.to_string()))]
    InUse {
        /// The data directory.
        dir: PathBuf,
        /// Who holds it, if it could be read.
        pid: Option<u32>,
    },
    /// A newer version has written it.
    #[error("the data directory {} was written by a newer version (layout {found}, this one reads up to {known}): run that version", dir.display())]
    Newer {
        /// The data directory.
        dir: PathBuf,
        /// Layout found.
        found: u32,
        /// Newest layout known here.
        known: u32,
    },
    /// There is no store in it.
    #[error("there is no store in the data directory {}", dir.display())]
    Missing {
        /// The data directory.
        dir: PathBuf,
    },
    /// There is a journal in it, and no state.
    #[error("the data directory {} holds a journal, and the state that belongs to it, log/db, is gone: bring it back, or restore a backup into another directory", dir.display())]
    StateGone {
        /// The data directory.
        dir: PathBuf,
    },
    /// It holds files that the storage engine never brings to the disk safely; this program makes none.
    #[error("the data directory {} holds files in log/blobs, which this program never writes: restore a sound copy", dir.display())]
    Blobs {
        /// The data directory.
        dir: PathBuf,
    },
    /// It is being restored, or that was interrupted.
    #[error("the data directory {} was not restored to the end: run `nervewire restore` again", dir.display())]
    Unfinished {
        /// The data directory.
        dir: PathBuf,
    },
    /// The file system refuses.
    #[error("the data directory {} cannot be used: {reason}", dir.display())]
    Io {
        /// The data directory.
        dir: PathBuf,
        /// What is wrong, for a person.
        reason: String,
    },
}

impl OpenError {
    pub(crate) fn io(dir: &Path, error: &io::Error) -> OpenError {
        use io::ErrorKind::{AlreadyExists, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
        let advice = match error.kind() {
            PermissionDenied | ReadOnlyFilesystem => {
                ": choose one that this user may write, or change its owner"
            }
            AlreadyExists | NotADirectory => ": it is a file, and has to be a directory",
            NotFound => ": no directory can be created there",
            _ => "",
        };
        OpenError::Io { dir: dir.to_owned(), reason: format!("{}{advice}", error.kind()) }
    }
    pub(crate) fn engine(dir: &Path, error: &EngineError) -> OpenError {
        OpenError::Io { dir: dir.to_owned(), reason: error.to_string() }
    }
}
