//! Backups of the running store.

use super::store::Store;
use crate::store::backup::{BackupError, BackupStart, StageStatus};
use crate::store::journal::Position;

impl Store {
    /// Starts a backup of the running store, or of what came `since`: the id (hexadecimal) of a journal, and
    /// the position at which an existing backup of it ends.
    ///
    /// # Errors
    /// [`BackupError::Busy`] while another backup is in progress.
    pub fn start_backup(&self, since: Option<(String, u64)>) -> Result<(), BackupError> {
        let since = since.map(|(journal, position)| BackupStart { journal, position: Position(position) });
        let thread = self.stage().start(self.inner(), since)?;
        self.adopt(thread);
        Ok(())
    }

    /// The status of the backup.
    #[must_use]
    pub fn backup_status(&self) -> StageStatus {
        self.stage().status()
    }

    /// Marks the backup as no longer needed, because it was copied or cancelled. Its thread removes it.
    pub fn drop_backup(&self) {
        self.stage().discard();
    }
}
