//! How far the applier is: what it shares with the committer, which waits for room and for checkpoints.

use std::time::Duration;

use super::error::EngineError;
use super::memtable::{ActiveSize, Memtable};
use crate::store::journal::Position;
use crate::sync::{Condvar, Mutex};

/// Size of the active table, in bytes, at which the applier starts to write it into the state.
pub(super) const TABLE_BYTES: usize = 8 << 20;
/// Bytes of rows not yet in the state at which commits wait for the applier.
const UNAPPLIED_BYTES: usize = 24 << 20;
/// Longest time that a committed row stays out of the state while commits arrive.
pub(super) const TABLE_AGE: Duration = Duration::from_millis(1_000);

/// What the applier and the committer share.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) inner: Mutex<ApplierState>,
    /// Notifies the applier that there is work.
    pub(super) work: Condvar,
    /// Notifies the committer that a table was applied or that the applier failed.
    pub(super) room: Condvar,
}

#[derive(Default)]
pub(super) struct ApplierState {
    pub(super) stop: bool,
    pub(super) failed: Option<EngineError>,
    /// Whether a segment has started since the applier last checked.
    pub(super) has_rolled: bool,
    /// Number of checkpoints requested; the next field is the number of requests served.
    pub(super) requested: u64,
    pub(super) made: u64,
    /// The position of the last checkpoint; at first, the position of the state when it was opened.
    pub(super) checkpoint: Option<Position>,
    /// Bytes of the table being applied that are not yet in the state.
    pub(super) unapplied: usize,
}

impl Progress {
    /// Returns the error that stopped the applier, if it stopped.
    pub(crate) fn check(&self) -> Result<(), EngineError> {
        self.inner.lock().failed.clone().map_or(Ok(()), Err)
    }

    /// Waits until the memtable has room for another commit. Room is freed row by row while the applier
    /// works, so commits slow down to its pace and do not stop for a whole table.
    pub(crate) fn wait_for_room(&self, memtable: &Memtable) -> Result<(), EngineError> {
        let mut inner = self.inner.lock();
        loop {
            if let Some(error) = &inner.failed {
                return Err(error.clone());
            }
            let filling = memtable.filling();
            if filling.bytes.saturating_add(inner.unapplied) < UNAPPLIED_BYTES {
                return Ok(());
            }
            self.work.notify_one();
            (inner, _) = self.room.wait_for(inner, TABLE_AGE);
        }
    }

    /// Wakes the applier after a commit if it may have work now.
    pub(crate) fn filled(&self, filling: &ActiveSize) {
        if filling.is_first || filling.bytes >= TABLE_BYTES {
            drop(self.inner.lock()); // the applier either waits already or has yet to check
            self.work.notify_one();
        }
    }

    /// Tells the applier that a segment has started, so that it checks whether others can be removed.
    pub(crate) fn rolled(&self) {
        self.inner.lock().has_rolled = true;
        self.work.notify_one();
    }

    /// The position of the last known checkpoint.
    pub(crate) fn last_checkpoint(&self) -> Position {
        self.inner.lock().checkpoint.unwrap_or_default()
    }

    /// Writes everything committed so far into the state, makes it durable and returns the state's position.
    /// The thread waits for the disk.
    pub(crate) fn check_point(&self) -> Result<Position, EngineError> {
        let mut inner = self.inner.lock();
        inner.requested += 1;
        let own = inner.requested;
        self.work.notify_one();
        loop {
            if let Some(error) = &inner.failed {
                return Err(error.clone());
            }
            if inner.made >= own {
                return Ok(inner.checkpoint.unwrap_or_default());
            }
            inner = self.room.wait(inner);
        }
    }

    /// Sets how many bytes of the table being applied are not yet in the state.
    pub(super) fn unapplied(&self, bytes: usize) {
        self.inner.lock().unapplied = bytes;
        self.room.notify_all();
    }

    pub(super) fn fail(&self, error: EngineError) {
        self.inner.lock().failed.get_or_insert(error);
        self.room.notify_all();
    }

    pub(super) fn stop(&self) {
        self.inner.lock().stop = true;
        self.work.notify_all();
    }
}
