//! What the committer removes between commits: events over their limits, everything of deleted organizations
//! and users, and the disk space of pieces that are no longer in a log.

#[cfg(test)]
mod erasure_tests;
pub(crate) mod reclaim;
pub(crate) mod sweep;
pub(crate) mod trim;
