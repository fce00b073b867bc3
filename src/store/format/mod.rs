//! What is on disk, as bytes: keys, pieces of events, and the rows that point at pieces.
//!
//! * These are codecs. They know no engine, clock or disk.
//! * The formats are described in `docs/storage.md`.

pub(crate) mod deleted_users;
pub(crate) mod digest;
pub(crate) mod keys;
pub(crate) mod list_group;
pub(crate) mod log_counters;
pub(crate) mod log_entry;
pub(crate) mod piece;
