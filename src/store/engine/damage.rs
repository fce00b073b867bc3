//! Damaged pieces of the log: pieces whose stored bytes fail their check. They are counted, and the server's
//! log says where they are.
//!
//! * Only bytes that fail their check are damage. A read that the disk refused (EIO) is an error, and a later
//!   attempt may succeed.
//! * Readers skip a damaged piece with a gap. It is neither removed nor repaired here: its row stays until
//!   retention removes it, so the piece is readable again once a sound copy of its segment file is in place.
//! * A piece is counted once in a run of the process, however often it is read.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::ids::{Sequence, TenantId};
use crate::store::journal::Position;
use crate::sync::Mutex;

/// Number of damaged pieces that are remembered, so that each is counted once. Pieces beyond this limit are
/// not counted.
const REMEMBERED: usize = 65_536;
/// Shortest time between two lines in the server's log. Readers may find thousands of damaged pieces in a
/// second.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Stored bytes that fail their check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged at position {position} ({what})", file.display())]
pub(crate) struct Damage {
    /// Position where the damaged bytes start.
    pub(crate) position: Position,
    /// The check that failed.
    pub(crate) what: &'static str,
    /// The segment file.
    pub(crate) file: PathBuf,
}

/// The damaged pieces found in this run.
#[derive(Debug, Default)]
pub(crate) struct DamagedPieces(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seen: BTreeSet<Position>,
    /// When the last line was logged.
    logged: Option<Instant>,
    /// Number of pieces found since then and not logged.
    unlogged: u64,
}

impl DamagedPieces {
    /// Number of damaged pieces found.
    pub(crate) fn count(&self) -> u64 {
        self.0.lock().seen.len() as u64
    }

    /// Counts the damaged piece of `tenant` that holds the events from `first` to `last`, and logs its
    /// location. `name` returns the public id of the organization.
    pub(crate) fn note(
        &self,
        tenant: TenantId,
        (first, last): (Sequence, Sequence),
        damage: &Damage,
        name: impl FnOnce() -> String,
    ) {
        let unlogged = {
            let mut inner = self.0.lock();
            if inner.seen.len() >= REMEMBERED || !inner.seen.insert(damage.position) {
                return;
            }
            if inner.logged.is_some_and(|at| at.elapsed() < LOG_EVERY) {
                inner.unlogged += 1;
                return;
            }
            inner.logged = Some(Instant::now());
            std::mem::take(&mut inner.unlogged)
        };
        tracing::error!(
            organization = name(),
            tenant = tenant.0,
            segment = %damage.file.display(),
            position = damage.position.0,
            what = damage.what,
            first = first.0,
            last = last.0,
            unlogged,
            "stored events are damaged; readers get a gap in their place. Check the disk. To get the events back, stop the daemon and \
             put the segment file of a backup in the place of this one"
        );
    }
}
