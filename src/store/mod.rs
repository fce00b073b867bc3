//! The store: every tenant's log, and the rows of resources and credentials.
//!
//! * One thread writes (`commit`), and a few read (`log`). Callers wait for the disk only in `async` calls and
//!   in functions named `…_blocking`.
//! * An acknowledged event survives power loss. An event that was only appended may be lost; its sequence is
//!   never used again in either case.
//! * Only `engine` knows the storage engine. The store knows no ring, subscriber, credential or transport.
//! * A folder imports only those above it in this list: `disk`, `journal`, `format`, `quota`, `engine`, `rows`;
//!   `dedup`, `log`, `lists`, `search`; `retention`, `data_dir`, `commit`, `backup`, `handle`.

mod backup;
mod commit;
mod data_dir;
mod dedup;
mod disk;
mod engine;
mod format;
mod handle;
mod journal;
mod lists;
mod log;
mod options;
mod quota;
mod retention;
mod rows;
mod search;
mod stats;

pub use self::backup::{
    BackupError, BackupSummary, Manifest, ProgressSink, Restored, StageStatus, Until, Verified, backup,
    copy_stage, must_be_outside, restore, verify,
};
pub use self::commit::{CommitCallback, CommitError, Frames};
pub use self::data_dir::{CompactionResult, compact};
pub use self::data_dir::{OpenError, find};
pub use self::dedup::{DAY_MS, IdempotencyRecord, MessageIdRecord, StoredResponse};
pub use self::disk::StoreState;
pub(crate) use self::disk::sync_dir;
#[doc(hidden)]
pub use self::disk::{Disk, Io, Space};
pub use self::engine::{JournalStats, RowCacheStats};
pub use self::format::key_digest;
pub use self::format::keys::{List, Table};
pub use self::format::piece::{MAX_EVENT_BYTES, MAX_VALUE};
pub use self::format::{Group, ListEntry};
pub use self::handle::Store;
#[doc(hidden)]
pub use self::journal::harness as journal_harness;
pub use self::lists::{GroupSelector, ListPage, ListQuery};
pub use self::log::log_read::{LogRead, ReadError};
pub use self::log::page::{JsonEvents, Page};
#[doc(hidden)]
pub use self::log::page::{decode_piece, encode_pieces};
pub use self::log::time_position::TimePosition;
pub use self::log::{LONG_WAITING, SHORT_WAITING};
pub use self::log::{
    Permit, RESERVE_WAIT, TenantLog, UNCOMMITTED_BYTES, UNCOMMITTED_EVENTS, UncommittedLimitReached,
};
pub use self::options::{Durability, StoreOptions};
pub use self::quota::usage::Usage;
pub use self::quota::{Growth, OverQuota, QuotaTotals, Reservation};
pub use self::retention::Retention;
pub use self::rows::records::{
    ApiKey, DisabledUser, Organization, RevokedToken, TokensValidSince, Visibility,
};
pub use self::rows::stream_rows::{Checkpoint, OpenStreamRow, OpenStreams, StreamExpiry};
pub use self::rows::stream_text::{CHUNK_WEIGHT, StoredChunk, StreamText};
pub use self::rows::{PriorValue, Rows, TooLong};
pub use self::search::EXPANDED;
pub use self::search::{Document, POSTINGS, PostingPayload, TERM_BYTES, length_of};
pub use self::search::{Hit, Hits};
pub use self::search::{QueryTerm, SearchQuery};
pub use self::stats::{LATENCY_BOUNDS_US, Stats};
