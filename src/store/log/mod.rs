//! The log of each organization: where it ends, and reading it.
//!
//! `tenant_log.rs` has the watermarks, `recover.rs` finds them at an opening. A read goes through
//! `read_queue.rs` to a thread of `read_pool.rs`, which decodes pieces into pages (`page.rs`) and caches them
//! (`page_cache.rs`). The same threads serve lists and searches.

pub(crate) mod log_read;
pub(crate) mod page;
mod page_cache;
mod read_pool;
mod read_queue;
pub(crate) mod recover;
mod tenant_log;
pub(crate) mod time_position;

pub(crate) use self::read_pool::ReadPool;
pub(crate) use self::read_queue::READERS;
pub use self::read_queue::{LONG_WAITING, SHORT_WAITING};
pub use self::tenant_log::{
    Permit, RESERVE_WAIT, TenantLog, UNCOMMITTED_BYTES, UNCOMMITTED_EVENTS, UncommittedLimitReached,
};
