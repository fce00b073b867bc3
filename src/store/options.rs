//! Options for opening a store, and their defaults.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{self, Config};
use crate::memory_limit;
use crate::store::disk::{Disk, Io};
use crate::store::engine::{EngineOptions, SEGMENT_BYTES};
use crate::store::log::UNCOMMITTED_EVENTS;
use crate::store::quota::QuotaLimits;
use crate::store::retention::Retention;
use crate::time::{Clock, SystemClock};

/// When a commit is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// After the data is on disk: it survives power loss.
    #[default]
    Fsync,
    /// After the kernel has the data: it survives `kill -9`, but not power loss.
    Memory,
}

impl Durability {
    pub(crate) fn is_fsync(self) -> bool {
        self == Durability::Fsync
    }
}

/// The row cache's default part of the memory, as a divisor; the next constant is the minimum in bytes.
const ROW_CACHE_SHARE: u64 = 16;
const ROW_CACHE_LEAST: u64 = 32 << 20;

/// A segment of the journal is at most this part of the file system, but not smaller than [`SEGMENT_LEAST`]
/// bytes.
const SEGMENTS_AT_LEAST: u64 = 64;
const SEGMENT_LEAST: u64 = 1 << 20;

/// Bytes of decoded events that are kept for readers. The text of `store.cache_bytes` names the number.
const PAGE_CACHE_BYTES: usize = 32 << 20;

/// Options for opening a store.
#[derive(Clone)]
pub struct StoreOptions {
    /// The data directory; created if absent.
    pub dir: PathBuf,
    /// The storage engine's own cache, in bytes.
    pub cache_bytes: u64,
    /// Size of a segment of the journal, in bytes.
    pub segment_bytes: u64,
    /// Limit of the row cache, in bytes.
    pub row_cache_bytes: u64,
    /// Limit of the cache of decoded events, in bytes.
    pub page_cache_bytes: usize,
    /// Free bytes below which publishing stops.
    pub reserve_bytes: u64,
    /// Limit on the bytes of all organizations, events and rows; 0 means a sixth of the file system.
    pub max_live_bytes: u64,
    /// Limit on the bytes of one organization, events and rows; 0 means a share of the limit of all.
    pub bytes_per_organization: u64,
    /// Limit on the resources of one organization; 0 means no limit.
    pub rows_per_organization: u64,
    /// When a commit is acknowledged.
    pub durability: Durability,
    /// How long events are kept.
    pub retention: Retention,
    /// Limit on events of one tenant that wait for their commit, each counted as at least 512 bytes; at most
    /// [`UNCOMMITTED_EVENTS`].
    pub uncommitted_events: u32,
    /// Limit on idempotency rows of an organization. The oldest are removed and counted.
    pub idempotency_rows: u64,
    /// The clock that determines age.
    pub clock: Arc<dyn Clock>,
    /// The disk. Tests provide one that fails.
    #[doc(hidden)]
    pub io: Arc<dyn Io>,
}

impl StoreOptions {
    /// The default options for the data directory `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> StoreOptions {
        StoreOptions {
            dir: dir.into(),
            cache_bytes: 64 << 20,
            segment_bytes: SEGMENT_BYTES,
            row_cache_bytes: 64 << 20,
            page_cache_bytes: PAGE_CACHE_BYTES,
            reserve_bytes: 256 << 20,
            max_live_bytes: 0,
            bytes_per_organization: 0,
            rows_per_organization: 0,
            durability: Durability::Fsync,
            retention: Retention::default(),
            uncommitted_events: UNCOMMITTED_EVENTS,
            idempotency_rows: 1_000_000,
            clock: Arc::new(SystemClock),
            io: Arc::new(Disk),
        }
    }

    /// The quotas of organizations on a file system of `total` bytes.
    pub(crate) fn quotas(&self, total: u64) -> QuotaLimits {
        QuotaLimits {
            bytes: self.bytes_per_organization,
            rows: self.rows_per_organization,
            max_live_bytes: match self.max_live_bytes {
                0 => total / 6,
                some => some,
            },
        }
    }

    /// The options for opening the engine. On a small file system segments are smaller, so that two of them
    /// do not fill it.
    pub(crate) fn engine(&self) -> EngineOptions {
        let total = self.io.space(&self.dir).map_or(u64::MAX, |space| space.total);
        EngineOptions {
            cache_bytes: self.cache_bytes,
            segment_bytes: self.segment_bytes.min((total / SEGMENTS_AT_LEAST).max(SEGMENT_LEAST)),
            fsync: self.durability.is_fsync(),
            ..EngineOptions::new(&self.dir, self.io.clone())
        }
    }
}

impl From<&Config> for StoreOptions {
    fn from(config: &Config) -> StoreOptions {
        StoreOptions {
            cache_bytes: config.store.cache_bytes,
            segment_bytes: config.store.segment_bytes,
            row_cache_bytes: match config.store.row_cache_bytes {
                0 => (memory_limit::memory() / ROW_CACHE_SHARE).max(ROW_CACHE_LEAST),
                some => some,
            },
            reserve_bytes: config.store.reserve_bytes,
            max_live_bytes: config.store.max_live_bytes,
            bytes_per_organization: config.limits.bytes_per_organization,
            rows_per_organization: config.limits.rows_per_organization,
            durability: match config.store.durability {
                config::Durability::Fsync => Durability::Fsync,
                config::Durability::Memory => Durability::Memory,
            },
            retention: Retention {
                max_age_seconds: config.retention.max_age_seconds,
                max_events: config.retention.max_events,
                max_bytes: config.retention.max_bytes,
            },
            uncommitted_events: u32::try_from(config.limits.uncommitted_events).unwrap_or(u32::MAX),
            ..StoreOptions::new(&config.data_dir)
        }
    }
}
