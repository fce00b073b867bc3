//! Organizations, API keys, revocations and disabled users: on disk and in memory.
//!
//! * [`rows`]: the rows, and the interface of the store that keeps them.
//! * [`stored`]: that interface on the real store; [`scope_migration`] rewrites old keys once.
//! * [`directory`]: the same data in memory, where every request looks it up.

pub(super) mod directory;
pub(super) mod rows;
pub(super) mod scope_migration;
pub(super) mod stored;
