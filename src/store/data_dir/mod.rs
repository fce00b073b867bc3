//! The data directory: its lock (`lock.rs`), why a store in it does not open (`open_error.rs`), migration from
//! an older version (`migrate.rs`) and compaction (`compact.rs`). Both write a copy, which `swap.rs` puts in
//! place of the original.

mod compact;
mod lock;
mod migrate;
mod open_error;
mod swap;

pub use self::compact::{CompactionResult, compact};
pub(crate) use self::lock::{DirLock, UNFINISHED, lock_any, take_lock};
pub(crate) use self::migrate::open_engine;
pub use self::open_error::{OpenError, find};
pub(crate) use self::swap::settle;
