//! The log of each organization: its watermarks, and reading it. The threads that read also serve lists and
//! searches.

pub(crate) mod log_read;
pub(crate) mod page;
pub(crate) mod page_cache;
pub(crate) mod read_pool;
pub(crate) mod read_queue;
pub(crate) mod recover;
pub(crate) mod tenant_log;
pub(crate) mod time_position;
