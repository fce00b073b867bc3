//! Rows: what callers hand over to be committed, and rows with a meaning of their own.
//!
//! `builder.rs` collects changes into [`Rows`]. The other files add methods to it and read their rows back:
//! organizations and credentials (`records.rs`), resources (`table_rows.rs`), usage (`usage_rows.rs`), streams (`stream_rows.rs`, `stream_text.rs`), and the
//! identity and epoch of the store (`identity.rs`).

mod builder;
pub(crate) mod identity;
pub(crate) mod records;
pub(crate) mod stream_rows;
pub(crate) mod stream_text;
mod table_rows;
pub(crate) mod usage_rows;

pub(crate) use self::builder::{CommitGuard, PendingChange, check_tail};
pub use self::builder::{PriorValue, Rows, TooLong};
pub(crate) use self::table_rows::{get_row, row_body, row_key};
