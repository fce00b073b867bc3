//! The data directory: its lock, why a store in it does not open, and what rewrites it as a whole
//! (compaction, migration from an older version).

pub(crate) mod compact;
pub(crate) mod lock;
pub(crate) mod migrate;
pub(crate) mod open_error;
pub(crate) mod swap;
