//! The store: every tenant's log, and the rows about who may do what.
//!
//! * One thread writes ([`commit`]), a few read ([`read`]); whoever calls in never waits for the disk but in an `async` call
//!   or where the name says blocking.
//! * An event that was acknowledged survives power loss; one that was only appended may not, and its sequence is
//!   never used again either way.
//! * Only [`engine`] names the storage engine. The store knows no ring, subscriber, credential or transport.

mod applier;
mod backup;
mod cache;
mod commit;
mod compact;
mod daily;
mod damage;
mod disk;
mod engine;
mod engine_error;
#[cfg(test)]
mod erasure_tests;
mod handle;
mod journal;
mod keys;
mod live;
mod lock;
mod log;
mod log_entry;
mod meet;
mod memtable;
mod merged;
mod migrate;
mod open_error;
mod pack;
mod page;
mod pin;
mod places;
mod queue;
mod quota;
mod rank;
mod read;
mod read_queue;
mod reclaim;
mod records;
mod recover;
mod reopen;
mod row_cache;
mod rows;
mod since;
mod space;
mod state;
mod stats;
mod sweep;
mod tables;
mod terms;
mod tombstones;
mod trim;
mod usage;
mod walk;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;

pub use backup::{
    BackupError, Made, Manifest, Progress, Restored, StageStatus, Until, Verified, backup, copy_stage,
    must_be_outside, restore, verify,
};
pub use compact::{Compacted, compact};
pub use daily::{Answer, DAY_MS, Idempotency, MessageId, scope};
pub use handle::Store;
#[doc(hidden)]
pub use journal::door as journal_door;
pub use keys::{List, Table};
pub use log::{Congested, Permit, RESERVE_WAIT, TenantLog, UNCOMMITTED_BYTES, UNCOMMITTED_EVENTS};
pub use open_error::{OpenError, find};
pub use pack::{MAX_EVENT_BYTES, MAX_VALUE};
pub use page::{JsonEvents, Page};
#[doc(hidden)]
pub use page::{decode_piece, encode_pieces};
pub use places::{Group, Place};
pub use queue::{CommitError, Done, Frames};
pub use quota::{Growth, OverQuota, QuotaTotals, Reservation};
pub use rank::{Hit, Hits};
pub use read::{LogRead, ReadError};
pub use read_queue::{LONG_WAITING, SHORT_WAITING};
pub use records::{ApiKey, DisabledUser, Organization, Revoked, UserSince, Visibility};
pub use row_cache::RowCacheStats;
pub use rows::{Before, Rows, TooLong};
pub use since::Since;
pub use space::StoreState;
#[doc(hidden)]
pub use space::{Disk, Io, Space};
pub use stats::{JournalStats, LATENCY_BOUNDS_US, Stats};
pub use tables::{Asked, Listed};
pub use terms::{Document, EXPANDED, Mark, POSTINGS, Sought, TERM_BYTES, Word, length_of};
pub use trim::Retention;
pub use usage::Usage;
pub use walk::Of;

use self::commit::{Books, Committer};
use self::daily::DayClock;
pub(crate) use self::engine::sync_dir;
use self::engine::{Engine, EngineError, EngineOptions};
use self::lock::{DirLock, take_lock};
use self::queue::Queue;
use self::quota::Quotas;
use self::read::Reads;
use self::space::{SpaceWatch, State};
use self::tombstones::Tombstones;
use crate::config::{self, Config};
use crate::cursor::CursorKey;
use crate::ids::TenantId;
use crate::machine;
use crate::sync::{Mutex, RwLock};
use crate::time::{Clock, SystemClock};

/// What an acknowledgement waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The disk: it survives power loss.
    #[default]
    Fsync,
    /// The kernel: it survives `kill -9`, not power loss.
    Memory,
}

impl Durability {
    fn is_fsync(self) -> bool {
        self == Durability::Fsync
    }
}

/// Which part of the memory rows are kept in, where the configuration does not say; and how much at least.
const ROW_CACHE_SHARE: u64 = 16;
const ROW_CACHE_LEAST: u64 = 32 << 20;

/// A segment of the journal is at most this part of the file system, but not smaller than [`SEGMENT_LEAST`] bytes.
const SEGMENTS_AT_LEAST: u64 = 64;
const SEGMENT_LEAST: u64 = 1 << 20;

/// Bytes of events that were decoded for readers and are kept. The text of `store.cache_bytes` names the number.
const PAGE_CACHE_BYTES: usize = 32 << 20;

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// The data directory; made if absent.
    pub dir: PathBuf,
    /// The storage engine's own cache, bytes.
    pub cache_bytes: u64,
    /// Bytes of a segment of the journal.
    pub segment_bytes: u64,
    /// Rows of tables kept for readers, bytes.
    pub row_cache_bytes: u64,
    /// Decoded events kept for readers, bytes.
    pub page_cache_bytes: usize,
    /// Free bytes below which publishing stops.
    pub reserve_bytes: u64,
    /// Most bytes of all organizations, events and rows; 0: a sixth of the file system.
    pub max_live_bytes: u64,
    /// Most bytes of one organization, events and rows; 0: a share of those of all.
    pub bytes_per_organization: u64,
    /// Most resources of one organization; 0: any number.
    pub rows_per_organization: u64,
    /// What an acknowledgement waits for.
    pub durability: Durability,
    /// How long events are kept.
    pub retention: Retention,
    /// Events of one tenant that may wait for their commit, each counted as 512 bytes at least; at most
    /// [`UNCOMMITTED_EVENTS`].
    pub uncommitted_events: u32,
    /// Most idempotency rows of an organization; the oldest are dropped and counted.
    pub idempotency_rows: u64,
    /// Decides age.
    pub clock: Arc<dyn Clock>,
    /// The disk; tests hand in one that fails.
    #[doc(hidden)]
    pub io: Arc<dyn Io>,
}

impl StoreOptions {
    /// The defaults, in `dir`.
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
    /// What organizations may keep on a file system of `total` bytes.
    fn quotas(&self, total: u64) -> quota::Limits {
        quota::Limits {
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
    /// How the engine is opened. On a small file system segments are smaller, so that two of them do not fill it.
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
                0 => (machine::memory() / ROW_CACHE_SHARE).max(ROW_CACHE_LEAST),
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

type Hook = Box<dyn Fn() + Send + Sync>;

/// What the handles and the threads share.
struct Shared {
    options: StoreOptions,
    cursors: CursorKey,
    /// Written by the committer.
    epoch: AtomicU32,
    state: State,
    /// `None` while it is being opened again, and when closed. Taken out by the committer only.
    engine: RwLock<Option<Engine>>,
    /// The backup that is being made or waits to be fetched.
    stage: backup::Stage,
    queue: Queue,
    reads: Arc<Reads>,
    /// Every log that was asked for in this run and not forgotten.
    logs: Mutex<Logs>,
    /// Dates and ages what is kept for a day.
    day: DayClock,
    /// Written by the committer.
    tombstones: RwLock<Tombstones>,
    stats: Arc<Stats>,
    quotas: Arc<Quotas>,
    hooks: Mutex<Vec<Hook>>,
    /// The number the next organization gets.
    next_tenant: AtomicU64,
    /// Given back by the committer after it has closed the database.
    lock: Mutex<Option<DirLock>>,
}

/// The logs in memory.
#[derive(Default)]
struct Logs {
    loaded: HashMap<TenantId, Arc<TenantLog>>,
    /// How many are being read from disk: what they find must still be so when they enter it here, so that nothing is
    /// forgotten (and written to again, under another number) meanwhile.
    loading: usize,
}

impl Logs {
    /// Drops a log that nobody holds and of which everything is on disk; the next to ask reads it from there.
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
    /// The log of `tenant`; reads the disk when it is the first to ask in this run.
    fn log_in(&self, engine: &Engine, tenant: TenantId) -> Result<Arc<TenantLog>, EngineError> {
        {
            let mut logs = self.logs.lock();
            if let Some(log) = logs.loaded.get(&tenant) {
                return Ok(log.clone());
            }
            logs.loading += 1;
        }
        let recovered = recover::tenant(engine, tenant);
        let mut logs = self.logs.lock();
        logs.loading -= 1;
        // The engine is borrowed throughout, so no reopening can have begun an epoch since.
        let epoch = self.epoch.load(Ordering::Relaxed);
        let log = Arc::new(TenantLog::new(tenant, epoch, &recovered?, self.options.uncommitted_events));
        // With the logs locked: whoever adds a tombstone marks the logs that are loaded afterwards.
        log.tombstones.store(self.tombstones.read().concern(tenant), Ordering::Release);
        Ok(logs.loaded.entry(tenant).or_insert(log).clone())
    }

    /// From now on everything of these organizations and users is refused.
    fn bury(&self, tenants: &[TenantId], users: &[(TenantId, String)]) {
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
            log.oldest.store(log.last_event().0, Ordering::Release); // who still reads it finds a gap, then the end
        }
    }
}

/// The threads of an open store; its handle waits for them.
struct Threads {
    handles: Mutex<Vec<thread::JoinHandle<()>>>,
}

/// Opens or creates the store of `options.dir`, and starts its threads. A new epoch is durable on return.
fn open(options: StoreOptions) -> Result<(Arc<Shared>, Threads), OpenError> {
    let dir = options.dir.clone();
    let failed = |error: EngineError| OpenError::engine(&dir, &error);
    let lock = take_lock(&dir)?;
    compact::settle(&dir).map_err(|error| OpenError::io(&dir, &error))?;
    backup::clear_stage(&dir).map_err(|error| OpenError::io(&dir, &error))?;
    if engine::has_blobs(&engine::path(&dir)).map_err(|error| OpenError::io(&dir, &error))? {
        return Err(OpenError::Blobs { dir });
    }
    let total = options.io.space(&dir).map_or(0, |space| space.total);
    let quotas = Quotas::new(options.quotas(total));
    let engine = migrate::open_engine(&dir, &options.engine())?
        .keeping_rows(options.row_cache_bytes)
        .counting(quotas.clone());
    let cursors = recover::identity(&engine).map_err(failed)?;
    engine::sync_dir(&dir).map_err(|error| OpenError::io(&dir, &error))?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let _ = engine::sync_dir(parent); // it may not be ours to open; then it was not we who made the directory
    }
    let epoch = recover::begin_epoch(&engine, 0).map_err(failed)?;
    let next_tenant = records::last_tenant(&engine).map_err(failed)? + 1;
    let stats = Arc::new(Stats::default());
    let shared = Arc::new(Shared {
        cursors,
        epoch: AtomicU32::new(epoch),
        state: State::new(StoreState::Writable),
        engine: RwLock::new(None),
        stage: backup::Stage::default(),
        queue: Queue::new(stats.clone()),
        reads: Arc::new(Reads::new(options.page_cache_bytes, cursors, stats.clone())),
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
    let books = Books::load(&engine, &shared, now_ms).map_err(failed)?;
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
        for at in 0..read::READERS {
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
