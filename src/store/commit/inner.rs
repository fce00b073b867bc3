//! What the handles and the threads of an open store share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::queue::Queue;
use super::tombstones::Tombstones;
use crate::cursor::CursorKey;
use crate::ids::TenantId;
use crate::store::data_dir::DirLock;
use crate::store::dedup::DayClock;
use crate::store::disk::StateWatch;
use crate::store::engine::{Engine, EngineError};
use crate::store::log::{ReadPool, TenantLog, recover};
use crate::store::options::StoreOptions;
use crate::store::quota::Quotas;
use crate::store::rows::stream_rows;
use crate::store::stats::Stats;
use crate::sync::{Mutex, RwLock};

pub(crate) type ReopenHook = Box<dyn Fn() + Send + Sync>;

/// What the handles and the threads share.
pub(crate) struct StoreInner {
    pub(crate) options: StoreOptions,
    pub(crate) cursors: CursorKey,
    /// The running epoch. Written by the committer.
    pub(crate) epoch: AtomicU32,
    pub(crate) state: StateWatch,
    /// The open engine; `None` while it is being opened again, and after it is closed. Taken out by the
    /// committer only.
    pub(crate) engine: RwLock<Option<Engine>>,
    pub(crate) queue: Queue,
    pub(crate) reads: Arc<ReadPool>,
    /// Every log that was loaded in this run and not dropped since.
    pub(crate) logs: Mutex<Logs>,
    /// The clock of rows that are kept for a day.
    pub(crate) day: DayClock,
    /// Written by the committer.
    pub(crate) tombstones: RwLock<Tombstones>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) quotas: Arc<Quotas>,
    pub(crate) hooks: Mutex<Vec<ReopenHook>>,
    /// The number of the next organization.
    pub(crate) next_tenant: AtomicU64,
    /// Released by the committer after it has closed the database.
    pub(crate) lock: Mutex<Option<DirLock>>,
}

/// The logs in memory.
#[derive(Default)]
pub(crate) struct Logs {
    pub(crate) loaded: HashMap<TenantId, Arc<TenantLog>>,
    /// The number of logs being read from disk. What they read must still be true when they are entered here.
    /// So while this is not 0, no log is dropped, because it could be written to again under another number
    /// meanwhile.
    loading: usize,
}

impl Logs {
    /// Drops a log that nobody holds and that is completely on disk. The next use reads it from disk.
    pub(crate) fn forget_quiet(&mut self, tenant: TenantId) {
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

impl StoreInner {
    /// The log of `tenant`; reads the disk if it is not in memory.
    pub(crate) fn log_in(&self, engine: &Engine, tenant: TenantId) -> Result<Arc<TenantLog>, EngineError> {
        {
            let mut logs = self.logs.lock();
            if let Some(log) = logs.loaded.get(&tenant) {
                return Ok(log.clone());
            }
            logs.loading += 1;
        }
        let recovered = recover::tenant(engine, tenant);
        let kept = stream_rows::open_streams(engine, tenant);
        let mut logs = self.logs.lock();
        logs.loading -= 1;
        // The engine is borrowed throughout, so no new epoch can have started since.
        let epoch = self.epoch.load(Ordering::Relaxed);
        let log = Arc::new(TenantLog::new(tenant, epoch, &recovered?, self.options.uncommitted_events));
        log.keep_after(kept?.log_from());
        // This happens with the logs locked: adding a tombstone marks the logs that are loaded, and later
        // ones are marked here.
        log.tombstones.store(self.tombstones.read().concern(tenant), Ordering::Release);
        Ok(logs.loaded.entry(tenant).or_insert(log).clone())
    }

    /// From now on refuses everything of these organizations and users.
    pub(super) fn add_tombstones(&self, tenants: &[TenantId], users: &[(TenantId, String)]) {
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

    pub(super) fn forget_log(&self, tenant: TenantId) {
        if let Some(log) = self.logs.lock().loaded.remove(&tenant) {
            log.oldest.store(log.last_event().0, Ordering::Release); // a reader gets a gap, then the end
        }
    }
}
