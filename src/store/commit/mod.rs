//! Commits: the queue in front of the disk, the thread that writes, and what happens when a commit fails.

pub(crate) mod committer;
pub(crate) mod inner;
pub(crate) mod queue;
pub(crate) mod reopen;
pub(crate) mod tombstones;
