//! What is on disk, as bytes: every key, packed pieces of events, and the rows that the log and the lists are
//! made of.
//!
//! These are codecs and identities: they know no engine, clock or disk. `keys.rs` is the registry of all kinds
//! of keys. The layouts are described in `docs/storage.md`.

mod deleted_users;
mod digest;
pub(crate) mod keys;
mod list_group;
mod log_counters;
mod log_entry;
pub(crate) mod piece;

pub(crate) use self::deleted_users::DeletedUsers;
pub use self::digest::key_digest;
pub(crate) use self::list_group::{BEFORE_ID, EntryKey, GROUP};
pub use self::list_group::{Group, ListEntry};
pub(crate) use self::log_counters::{COUNTERS_EVERY, LogCounters};
pub(crate) use self::log_entry::{LogEntry, piece_of};
