//! Engine errors. They tell the committer whether opening the engine again may help, and readers whether
//! stored bytes are damaged.

use std::io;

use super::damage::Damage;
use crate::store::journal::JournalError;

/// Why the engine failed.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum EngineError {
    /// There is no space, or a disk quota is exceeded. Opening again may help once there is space.
    #[error("no space left on the file system")]
    Space,
    /// The kernel could not write or read data. What is stored is unknown until it is read from the disk
    /// itself.
    #[error("the disk failed: {0}")]
    Disk(String),
    /// Stored bytes fail their check.
    #[error("{0}: restore the data directory from a backup")]
    Damaged(Box<Damage>),
    /// Any other failure. Opening again may help.
    #[error("the storage engine failed: {0}")]
    Engine(String),
    /// Another version wrote the state, in this layout.
    #[error("the data directory is of layout {0}")]
    Layout(u32),
}

impl EngineError {
    pub(crate) fn io(error: &io::Error, syncing: bool) -> EngineError {
        const EIO: i32 = 5;
        match (error.kind(), error.raw_os_error()) {
            (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => EngineError::Space,
            (_, code) if syncing || code == Some(EIO) => EngineError::Disk(error.kind().to_string()),
            _ => EngineError::Engine(error.kind().to_string()),
        }
    }
}

impl From<JournalError> for EngineError {
    fn from(error: JournalError) -> EngineError {
        match error {
            JournalError::Space => EngineError::Space,
            JournalError::Disk(what) => EngineError::Disk(what),
            JournalError::Damaged { position, what, file } => {
                EngineError::Damaged(Box::new(Damage { position, what, file }))
            }
            other => EngineError::Engine(other.to_string()),
        }
    }
}
