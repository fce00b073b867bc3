//! What is on disk, as bytes: keys, pieces of events, and the rows that point at pieces.
//!
//! * These are codecs. They know no engine, clock or disk.
//! * The formats are described in `docs/storage.md`.

pub(crate) mod keys;
pub(crate) mod log_entry;
pub(crate) mod piece;
