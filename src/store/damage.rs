//! Pieces of the log whose stored bytes are not what was written: they are counted, and the operator learns where they lie.
//!
//! * Only bytes that fail their check are damage. A read that the disk refused (EIO) is an error, which a later attempt may not meet.
//! * Readers pass over a damaged piece with a gap. It is neither removed nor repaired here: its row stays until retention removes it, so
//!   that the piece can be read again once a sound copy of its segment file is in place.
//! * A piece counts once in a run of the process, however often it is read.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::engine::Engine;
use super::journal::Position;
use super::keys::{self, Kind};
use super::records::{self, Organization};
use crate::ids::{Sequence, TenantId};
use crate::sync::Mutex;

/// Damaged pieces that are remembered, so that each counts once. The ones beyond it do not count.
const REMEMBERED: usize = 65_536;
/// Time between two lines in the server's log: readers may meet thousands of damaged pieces in a second.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Stored bytes that fail their check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is damaged at position {position} ({what})", file.display())]
pub(crate) struct Damage {
    /// Where the damaged bytes begin.
    pub(crate) position: Position,
    /// Which check failed.
    pub(crate) what: &'static str,
    /// The segment file.
    pub(crate) file: PathBuf,
}

/// The damaged pieces that were met in this run.
#[derive(Debug, Default)]
pub(super) struct DamagedPieces(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    seen: BTreeSet<Position>,
    /// When the last line was logged.
    logged: Option<Instant>,
    /// Pieces that were met since, without a line of their own.
    unlogged: u64,
}

impl DamagedPieces {
    /// Pieces that were met.
    pub(super) fn count(&self) -> u64 {
        self.0.lock().seen.len() as u64
    }

    /// Counts the damaged piece of `tenant` that holds the events from `first` to `last`, and logs where it lies.
    pub(super) fn note(
        &self,
        engine: &Engine,
        tenant: TenantId,
        (first, last): (Sequence, Sequence),
        damage: &Damage,
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
            organization = name_of(engine, tenant),
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

/// The public id of an organization; its number where its row cannot be read.
fn name_of(engine: &Engine, tenant: TenantId) -> String {
    let key = keys::key(Kind::Organization, tenant, &[]);
    let row = engine.get(&key).ok().flatten();
    let organization = row.and_then(|row| records::read::<Organization>(&key, &row).ok());
    organization.map_or_else(|| tenant.0.to_string(), |organization| organization.org_id)
}
