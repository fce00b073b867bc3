//! Why a backup, a restore or a verification fails, and how they report progress.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::data_dir::OpenError;
use crate::store::engine::EngineError;
use crate::store::journal::JournalError;

/// The backup format that this program writes and reads.
pub(super) const FORMAT: u32 = 1;
/// How long a backup may keep segments from being removed.
pub(super) const PIN_LIMIT: Duration = Duration::from_secs(60 * 60);

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
