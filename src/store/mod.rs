//! The store: every tenant's log, and the rows of resources and credentials.
//!
//! * One thread writes ([`commit`]), and a few read ([`log`]). Callers wait for the disk only in `async`
//!   calls and in functions named `…_blocking`.
//! * An acknowledged event survives power loss. An event that was only appended may be lost; its sequence is
//!   never used again in either case.
//! * Only [`engine`] knows the storage engine. The store knows no ring, subscriber, credential or transport.

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
mod quota;
mod retention;
mod rows;
mod search;
mod stats;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

pub use backup::{
    BackupError, BackupSummary, Manifest, ProgressSink, Restored, StageStatus, Until, Verified, backup,
    copy_stage, must_be_outside, restore, verify,
};
pub use commit::queue::{CommitCallback, CommitError, Frames};
pub use data_dir::compact::{CompactionResult, compact};
pub use data_dir::open_error::{OpenError, find};
pub use dedup::records::{DAY_MS, IdempotencyRecord, MessageIdRecord, StoredResponse};
#[doc(hidden)]
pub use disk::io::{Disk, Io, Space};
pub use disk::space::StoreState;
pub use engine::{JournalStats, RowCacheStats};
pub use format::digest::scope;
pub use format::keys::{List, Table};
pub use format::list_group::{Group, ListEntry};
pub use format::piece::{MAX_EVENT_BYTES, MAX_VALUE};
pub use handle::Store;
#[doc(hidden)]
pub use journal::harness as journal_harness;
pub use lists::page::{GroupSelector, ListPage, ListQuery};
pub use log::log_read::{LogRead, ReadError};
pub use log::page::{JsonEvents, Page};
#[doc(hidden)]
pub use log::page::{decode_piece, encode_pieces};
pub use log::read_queue::{LONG_WAITING, SHORT_WAITING};
pub use log::tenant_log::{
    Permit, RESERVE_WAIT, TenantLog, UNCOMMITTED_BYTES, UNCOMMITTED_EVENTS, UncommittedLimitReached,
};
pub use log::time_position::TimePosition;
pub use quota::ledger::{Growth, OverQuota, QuotaTotals, Reservation};
pub use quota::usage::Usage;
pub use retention::trim::Retention;
pub use rows::builder::{PriorValue, Rows, TooLong};
pub use rows::records::{ApiKey, DisabledUser, Organization, RevokedToken, TokensValidSince, Visibility};
pub use search::posting::{Document, POSTINGS, PostingPayload, TERM_BYTES, length_of};
pub use search::query::{QueryTerm, SearchQuery};
pub use search::rank::{Hit, Hits};
pub use search::scan::EXPANDED;
pub use stats::{LATENCY_BOUNDS_US, Stats};

use self::commit::committer::{Committer, CommitterState};
use self::commit::queue::Queue;
use self::commit::tombstones::Tombstones;
use self::data_dir::lock::{DirLock, take_lock};
use self::dedup::day_clock::DayClock;
pub(crate) use self::disk::dirs::sync_dir;
use self::disk::space::{SpaceWatch, State};
use self::engine::{Engine, EngineError, EngineOptions};
use self::log::read_pool::ReadPool;
use self::log::read_queue::READERS;
use self::quota::ledger::Quotas;
use crate::config::{self, Config};
use crate::cursor::CursorKey;
use crate::ids::TenantId;
use crate::memory_limit;
use crate::sync::{Mutex, RwLock};
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
    fn is_fsync(self) -> bool {
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
            segment_bytes: engine::SEGMENT_BYTES,
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
}

impl StoreOptions {
    /// The quotas of organizations on a file system of `total` bytes.
    fn quotas(&self, total: u64) -> quota::ledger::QuotaLimits {
        quota::ledger::QuotaLimits {
            bytes: self.bytes_per_organization,
            rows: self.rows_per_organization,
            max_live_bytes: match self.max_live_bytes {
                0 => total / 6,
                some => some,
            },
        }
    }
}

impl StoreOptions {
    /// The options for opening the engine. On a small file system segments are smaller, so that two of them
    /// do not fill it.
    fn engine(&self) -> EngineOptions {
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

type ReopenHook = Box<dyn Fn() + Send + Sync>;

/// What the handles and the threads share.
struct Shared {
    options: StoreOptions,
    cursors: CursorKey,
    /// The running epoch. Written by the committer.
    epoch: AtomicU32,
    state: State,
    /// The open engine; `None` while it is being opened again, and after it is closed. Taken out by the
    /// committer only.
    engine: RwLock<Option<Engine>>,
    /// The backup that is in progress or waits to be downloaded.
    stage: backup::Stage,
    queue: Queue,
    reads: Arc<ReadPool>,
    /// Every log that was loaded in this run and not dropped since.
    logs: Mutex<Logs>,
    /// The clock of rows that are kept for a day.
    day: DayClock,
    /// Written by the committer.
    tombstones: RwLock<Tombstones>,
    stats: Arc<Stats>,
    quotas: Arc<Quotas>,
    hooks: Mutex<Vec<ReopenHook>>,
    /// The number of the next organization.
    next_tenant: AtomicU64,
    /// Released by the committer after it has closed the database.
    lock: Mutex<Option<DirLock>>,
}

/// The logs in memory.
#[derive(Default)]
struct Logs {
    loaded: HashMap<TenantId, Arc<TenantLog>>,
    /// The number of logs being read from disk. What they read must still be true when they are entered here.
    /// So while this is not 0, no log is dropped, because it could be written to again under another number
    /// meanwhile.
    loading: usize,
}

impl Logs {
    /// Drops a log that nobody holds and that is completely on disk. The next use reads it from disk.
    fn forget_quiet(&mut self, tenant: TenantId) {
        let quiet = |log: &Arc<TenantLog>| {
            Arc::strong_count(log) == 1 && log.uncommitted() == 0 && log.end() == log.committed()
        };
        if self.loading == 0 && self.loaded.get(&tenant).is_some_and(quiet) {
            self.loaded.remove(&tenant);
            if self.loaded.capacity() > 1_024 && self.loaded.len() < self.loaded.capacity() / 8 {
                self.loaded.shrink_to(self.loaded.len() * 2);
            }
        }
    }
}

impl Shared {
    /// The log of `tenant`; reads the disk if it is not in memory.
    fn log_in(&self, engine: &Engine, tenant: TenantId) -> Result<Arc<TenantLog>, EngineError> {
        {
            let mut logs = self.logs.lock();
            if let Some(log) = logs.loaded.get(&tenant) {
                return Ok(log.clone());
            }
            logs.loading += 1;
        }
        let recovered = log::recover::tenant(engine, tenant);
        let mut logs = self.logs.lock();
        logs.loading -= 1;
        // The engine is borrowed throughout, so no new epoch can have started since.
        let epoch = self.epoch.load(Ordering::Relaxed);
        let log = Arc::new(TenantLog::new(tenant, epoch, &recovered?, self.options.uncommitted_events));
        // This happens with the logs locked: adding a tombstone marks the logs that are loaded, and later
        // ones are marked here.
        log.tombstones.store(self.tombstones.read().concern(tenant), Ordering::Release);
        Ok(logs.loaded.entry(tenant).or_insert(log).clone())
    }

    /// From now on refuses everything of these organizations and users.
    fn add_tombstones(&self, tenants: &[TenantId], users: &[(TenantId, String)]) {
        if tenants.is_empty() && users.is_empty() {
            return;
        }
        {
            let mut tombstones = self.tombstones.write();
            tenants.iter().for_each(|tenant| tombstones.add_organization(*tenant));
            users.iter().for_each(|(tenant, user)| tombstones.add_user(*tenant, user));
        }
        let logs = self.logs.lock();
        let concerned = tenants.iter().chain(users.iter().map(|(tenant, _)| tenant));
        for log in concerned.filter_map(|tenant| logs.loaded.get(tenant)) {
            log.tombstones.store(true, Ordering::Release);
        }
    }

    fn forget_log(&self, tenant: TenantId) {
        if let Some(log) = self.logs.lock().loaded.remove(&tenant) {
            log.oldest.store(log.last_event().0, Ordering::Release); // a reader gets a gap, then the end
        }
    }
}

/// The threads of an open store. Its handle waits for them.
struct Threads {
    handles: Mutex<Vec<thread::JoinHandle<()>>>,
}

/// Opens or creates the store of `options.dir` and starts its threads. On return a new epoch is durable.
fn open(options: StoreOptions) -> Result<(Arc<Shared>, Threads), OpenError> {
    let dir = options.dir.clone();
    let failed = |error: EngineError| OpenError::engine(&dir, &error);
    let lock = take_lock(&dir)?;
    data_dir::swap::settle(&dir).map_err(|error| OpenError::io(&dir, &error))?;
    backup::clear_stage(&dir).map_err(|error| OpenError::io(&dir, &error))?;
    if engine::has_blobs(&engine::path(&dir)).map_err(|error| OpenError::io(&dir, &error))? {
        return Err(OpenError::Blobs { dir });
    }
    let total = options.io.space(&dir).map_or(0, |space| space.total);
    let quotas = Quotas::new(options.quotas(total));
    let engine = data_dir::migrate::open_engine(&dir, &options.engine())?
        .keeping_rows(options.row_cache_bytes)
        .counting(quotas.clone());
    let cursors = rows::identity::identity(&engine).map_err(failed)?;
    sync_dir(&dir).map_err(|error| OpenError::io(&dir, &error))?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // This process may have no right to open it; then it did not create the directory either.
        let _ = sync_dir(parent);
    }
    let epoch = rows::identity::begin_epoch(&engine, 0).map_err(failed)?;
    let next_tenant = rows::records::last_tenant(&engine).map_err(failed)? + 1;
    let stats = Arc::new(Stats::default());
    let shared = Arc::new(Shared {
        cursors,
        epoch: AtomicU32::new(epoch),
        state: State::new(StoreState::Writable),
        engine: RwLock::new(None),
        stage: backup::Stage::default(),
        queue: Queue::new(stats.clone()),
        reads: Arc::new(ReadPool::new(options.page_cache_bytes, cursors, stats.clone())),
        logs: Mutex::default(),
        day: DayClock::default(),
        tombstones: RwLock::default(),
        stats,
        quotas,
        hooks: Mutex::default(),
        next_tenant: AtomicU64::new(next_tenant),
        options,
        lock: Mutex::new(Some(lock)),
    });
    let now_ms = shared.options.clock.now_ms();
    let books = CommitterState::load(&engine, &shared, now_ms).map_err(failed)?;
    *shared.engine.write() = Some(engine);
    let mut space = SpaceWatch::new(&dir, shared.options.reserve_bytes);
    space.forget();
    let mut committer = Committer::new(shared.clone(), books, space);
    committer.watch_space(0);
    let threads = start(&shared, committer).map_err(|error| OpenError::io(&dir, &error))?;
    Ok((shared, threads))
}

fn start(shared: &Arc<Shared>, committer: Committer) -> io::Result<Threads> {
    let threads = Threads { handles: Mutex::default() };
    let run = || -> io::Result<()> {
        let spawn =
            |name: String, body: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name).spawn(body);
        for at in 0..READERS {
            let shared = shared.clone();
            let body = move || shared.reads.serve(&shared.engine);
            threads.handles.lock().push(spawn(format!("nw-read-{at}"), Box::new(body))?);
        }
        threads.handles.lock().push(spawn("nw-commit".into(), Box::new(move || committer.run()))?);
        Ok(())
    };
    run().inspect_err(|_| shared.reads.close())?;
    Ok(threads)
}
