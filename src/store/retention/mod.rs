//! What the committer removes between commits: events over their limits (`trim.rs`), everything of deleted
//! organizations and users (`sweep.rs`), and the disk space of pieces that are no longer in a log
//! (`reclaim.rs`).

#[cfg(test)]
mod erasure_tests;
pub(crate) mod reclaim;
mod sweep;
#[cfg(test)]
mod sweep_fault_tests;
mod trim;

pub(crate) use self::sweep::{SweepOutcome, Sweeper};
pub use self::trim::Retention;
pub(crate) use self::trim::{AddedPiece, RetentionTracker, VALUES_AT_ONCE};
