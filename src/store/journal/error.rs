//! Journal errors. Each text says what to do.

use std::io;
use std::path::{Path, PathBuf};

use super::layout::{MAX_RECORD, Position, VERSION};

/// Why the journal refused or failed an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JournalError {
    /// There is no space, or a disk quota is exceeded.
    #[error("no space left for the journal: free space on its file system")]
    Space,
    /// The kernel could not write or read data. What the disk holds is unknown.
    #[error("the disk of the journal failed ({0}): check the disk, then restart")]
    Disk(String),
    /// Any other error of the operating system.
    #[error("the journal cannot be used ({0}): check the owner and the permissions of its directory")]
    Io(String),
    /// Stored bytes fail their check. Nothing was changed.
    #[error("{} is damaged at position {position} ({what}): restore the data directory from a backup", file.display())]
    Damaged {
        /// Where the damaged bytes start.
        position: Position,
        /// The check that failed.
        what: &'static str,
        /// The segment file.
        file: PathBuf,
    },
    /// A newer version wrote the journal.
    #[error("the journal has records or segments of version {0}, this program reads version {known}: run the newer program", known = VERSION)]
    Newer(u32),
    /// Segment files that must exist are missing.
    #[error("{} has no segment with positions {from} to {to}: restore the data directory from a backup", dir.display())]
    Missing {
        /// The first position that no file holds.
        from: Position,
        /// The first later position that a file holds or that was requested.
        to: Position,
        /// The directory of the journal.
        dir: PathBuf,
    },
    /// The journal does not reach a requested position.
    #[error(
        "position {position} is beyond the end of the journal, {end}: journal and state are of different times, restore both from one backup"
    )]
    Beyond {
        /// The requested position.
        position: Position,
        /// Where the journal ends.
        end: Position,
    },
    /// The record exceeds the size limit.
    #[error("a record of {0} bytes is over the limit of {limit} bytes: commit less at once", limit = MAX_RECORD)]
    TooLong(u64),
    /// The key is longer than its length field can express.
    #[error("a key of {0} bytes is over the limit of 65535 bytes: use a shorter key")]
    KeyTooLong(u64),
    /// The record was built for another position than the end of the journal, so the positions of its pieces
    /// are wrong.
    #[error("the record was built for position {built_for}, but the journal ends at {end}: build it again")]
    Moved {
        /// The position it was built for.
        built_for: Position,
        /// Where the journal ends.
        end: Position,
    },
    /// The epoch is older than the journal's. Epochs only grow along a journal.
    #[error(
        "epoch {epoch} is older than epoch {last} of the journal: another process writes to it, stop one of them"
    )]
    OldEpoch {
        /// The record's epoch.
        epoch: u32,
        /// The newest epoch in the journal.
        last: u32,
    },
    /// The segment is still being written to.
    #[error("the segment at {0} is the last one and cannot be removed")]
    NotSealed(Position),
}

impl JournalError {
    /// The error of a call that does not sync.
    pub(super) fn io(error: &io::Error) -> JournalError {
        JournalError::of(error, false)
    }

    /// The error of a call that syncs. Whatever it is, the disk may hold less than was written.
    pub(super) fn sync(error: &io::Error) -> JournalError {
        JournalError::of(error, true)
    }

    fn of(error: &io::Error, syncing: bool) -> JournalError {
        let eio = rustix::io::Errno::IO.raw_os_error();
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => JournalError::Space,
            (_, code) if syncing || code == Some(eio) => JournalError::Disk(error.to_string()),
            _ => JournalError::Io(error.to_string()),
        }
    }

    pub(super) fn damaged(position: Position, what: &'static str, file: &Path) -> JournalError {
        JournalError::Damaged { position, what, file: file.to_owned() }
    }
}
