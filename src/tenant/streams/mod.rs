//! LLM streams: text that grows while it is read, and that is certain to end.
//!
//! * A stream is open, then exactly one of the terminal states, for ever. Whatever happens to its producer,
//!   its readers or the daemon, its lease ends it.
//! * The state of open streams is in memory, in the tenant's write side ([`table::StreamTable`]), so the lock
//!   that numbers events also decides who may append. Rows on disk follow in the same order, because the
//!   commit queue keeps the order of that lock.
//! * The text is in segments up to a checkpoint, and after it in the stream's tail: in memory, and as events
//!   in the log. So a reader that joins late never reads the log.
//! * Only what is committed is shown.
//!
//! Appending and ending are in `admission/stream*.rs`, because nothing else appends to the log.

pub mod error;
pub(super) mod leases;
pub(super) mod load;
pub mod page;
pub mod start;
pub mod state;
mod state_name;
pub(super) mod table;
pub(super) mod token;
pub mod view;

pub use self::error::StreamError;
pub use self::page::StreamPage;
pub use self::start::{StreamStart, start_streams};
pub use self::state::{Stream, StreamFailure, StreamState};
pub use self::table::{Producer, ProducerNotice};
pub use self::view::StreamView;
