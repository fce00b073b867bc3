//! The store's API: a handle that is cheap to clone. Dropping the last handle closes the store.
//!
//! * Calls are `async` if they wait for a disk, and named `…_blocking` if they read it on the caller's
//!   thread.
//! * [`Store::append`] must be called in the tenant's order, that is, under the tenant's lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use super::open::{Threads, open};
use crate::cursor::CursorKey;
use crate::frame::Frame;
use crate::ids::{Sequence, TenantId};
use crate::store::backup::Stage;
use crate::store::commit::{Append, CommitCallback, CommitError, Frames, Item, StoreInner};
use crate::store::data_dir::OpenError;
use crate::store::dedup::{IdempotencyRecord, MessageIdRecord, fresh, read_idempotency, read_message_id};
use crate::store::disk::StoreState;
use crate::store::engine::{Engine, EngineError, JournalStats, RowCacheStats, Value, guard_damaged};
use crate::store::format::keys::{self, KeyKind};
use crate::store::log::log_read::{self, LogRead, ReadError};
use crate::store::log::page::{JsonEvents, Page};
use crate::store::log::time_position::{self, TimePosition};
use crate::store::log::{Permit, TenantLog};
use crate::store::options::StoreOptions;
use crate::store::quota::usage::Usage;
use crate::store::quota::{Growth, OverQuota, QuotaTotals, Reservation};
use crate::store::rows::records::{self, ApiKey, DisabledUser, Organization, RevokedToken, TokensValidSince};
use crate::store::rows::{Rows, usage_rows};
use crate::store::stats::Stats;

/// An open store.
#[derive(Clone)]
pub struct Store(Arc<OpenStore>);

struct OpenStore {
    inner: Arc<StoreInner>,
    threads: Threads,
    stage: Arc<Stage>,
}

impl Drop for OpenStore {
    fn drop(&mut self) {
        self.inner.queue.close();
        self.threads.join();
    }
}

impl Store {
    /// Opens or creates a store. Blocks. On return a new epoch is durable.
    ///
    /// # Errors
    /// [`OpenError`]; each names the data directory and what to do.
    pub fn open(options: StoreOptions) -> Result<Store, OpenError> {
        let dir = options.dir.clone();
        let opened: Result<_, EngineError> = guard_damaged(|| Ok(open(options)));
        let (inner, threads) = opened.map_err(|error| OpenError::engine(&dir, &error))??;
        Ok(Store(Arc::new(OpenStore { inner, threads, stage: Arc::default() })))
    }

    pub(in crate::store) fn inner(&self) -> &Arc<StoreInner> {
        &self.0.inner
    }

    pub(super) fn stage(&self) -> &Arc<Stage> {
        &self.0.stage
    }

    /// Makes closing the store also wait for `thread`.
    pub(in crate::store) fn adopt(&self, thread: thread::JoinHandle<()>) {
        let mut handles = self.0.threads.handles.lock();
        handles.retain(|handle| !handle.is_finished());
        handles.push(thread);
    }

    /// Commits what is queued, closes the database and releases the data directory, even if other handles
    /// exist. Every later call fails.
    pub async fn close(&self) {
        self.inner().queue.close();
        let mut state = self.watch_state();
        let _ = state.wait_for(|state| *state == StoreState::Closed).await; // `self` keeps the sender alive
        self.0.threads.join();
    }
    /// [`Store::close`] for a thread without a runtime.
    pub fn close_blocking(&self) {
        self.inner().queue.close();
        self.0.threads.join();
    }

    /// The key that signs cursors of this store.
    #[must_use]
    pub fn cursor_key(&self) -> CursorKey {
        self.inner().cursors
    }
    /// The running epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.inner().epoch.load(Ordering::Relaxed)
    }
    /// What the store accepts now. It is one atomic load; check it before assigning a sequence.
    #[must_use]
    pub fn state(&self) -> StoreState {
        self.inner().state.get()
    }
    /// A receiver that is notified when [`Store::state`] changes.
    #[must_use]
    pub fn watch_state(&self) -> tokio::sync::watch::Receiver<StoreState> {
        self.inner().state.watch()
    }
    /// Live statistics.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.inner().stats
    }
    /// Bytes of decoded events cached for readers.
    #[must_use]
    pub fn page_cache_bytes(&self) -> usize {
        self.inner().reads.cached_bytes()
    }
    /// How much disk space the journal takes; all zeros while the store is not open.
    #[must_use]
    pub fn journal(&self) -> JournalStats {
        self.inner().engine.read().as_ref().map(Engine::journal_stats).unwrap_or_default()
    }
    /// Statistics of the row cache; all zeros while the database is not open.
    #[must_use]
    pub fn row_cache(&self) -> RowCacheStats {
        self.inner().engine.read().as_ref().map(Engine::row_cache).unwrap_or_default()
    }
    /// Sets a `hook` that runs on the committer's thread when logs have skipped sequences: after a commit
    /// failed, and after the store was opened again, when every log is at the start of a new epoch.
    /// Publishing is refused meanwhile. The hook must not wait for a commit.
    pub fn on_epoch(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.inner().hooks.lock().push(Box::new(hook));
    }

    /// Reserves quota for a change of `tenant` that adds `growth`; the change holds the reservation. Returns
    /// `None` if it adds nothing.
    ///
    /// # Errors
    /// [`OverQuota`]: the organization would exceed its quota.
    pub fn reserve(&self, tenant: TenantId, growth: Growth) -> Result<Option<Reservation>, OverQuota> {
        self.inner().quotas.reserve(tenant, growth)
    }
    /// What `tenant` stores besides its log.
    #[must_use]
    pub fn usage(&self, tenant: TenantId) -> Usage {
        self.inner().quotas.usage(tenant)
    }
    /// What all organizations store besides their logs. Visits each of them.
    #[must_use]
    pub fn quota_totals(&self) -> QuotaTotals {
        self.inner().quotas.totals()
    }
    /// Counts the rows of every organization, for tests. [`Store::usage`] must return the same for each
    /// organization that has rows.
    ///
    /// # Errors
    /// [`ReadError`].
    #[doc(hidden)]
    pub fn counted_usage_blocking(&self) -> Result<HashMap<TenantId, Usage>, ReadError> {
        self.read_blocking(usage_rows::count)
    }

    /// The log of `tenant`, if it is in memory. Never reads the disk.
    #[must_use]
    pub fn loaded_log(&self, tenant: TenantId) -> Option<Arc<TenantLog>> {
        self.inner().logs.lock().loaded.get(&tenant).cloned()
    }
    /// Drops the log of `tenant` from memory if nobody holds it and all of it is on disk. When it is loaded
    /// again, its sequences continue above the old ones, as after a restart.
    pub fn forget_quiet(&self, tenant: TenantId) {
        self.inner().logs.lock().forget_quiet(tenant);
    }
    /// The log of `tenant`. Reads the disk on the caller's thread if the log is not in memory.
    ///
    /// # Errors
    /// [`ReadError`] if the log had to be read and could not be.
    pub fn log_blocking(&self, tenant: TenantId) -> Result<Arc<TenantLog>, ReadError> {
        match self.loaded_log(tenant) {
            Some(log) => Ok(log),
            None => self.read_blocking(|engine| self.inner().log_in(engine, tenant)),
        }
    }
    /// The log of `tenant`. Reads the disk on a reader thread if the log is not in memory.
    ///
    /// # Errors
    /// [`ReadError`] if the log had to be read and could not be.
    pub async fn log(&self, tenant: TenantId) -> Result<Arc<TenantLog>, ReadError> {
        if let Some(log) = self.loaded_log(tenant) {
            return Ok(log);
        }
        let inner = self.inner().clone();
        self.run(tenant, move |engine| inner.log_in(engine, tenant)).await
    }

    /// Checks whether events may be published into `log`, as far as is known now. The commit makes the final
    /// decision.
    ///
    /// # Errors
    /// [`CommitError::Deleted`] if the organization or a user is deleted.
    pub fn check_publishable(&self, log: &TenantLog, frames: &[Arc<Frame>]) -> Result<(), CommitError> {
        let refused = || self.inner().tombstones.read().refuse_events(log.tenant(), frames);
        match log.tombstones.load(Ordering::Acquire) && refused() {
            true => Err(CommitError::Deleted),
            false => Ok(()),
        }
    }

    /// Enqueues sealed frames that follow `log.end()`, and `rows` to be committed with them, all or nothing.
    /// Never blocks. Call it under the tenant's lock, so that ring and log agree on the order. `done` runs on
    /// the committer's thread when they are durable or have failed.
    pub fn append(
        &self,
        log: &Arc<TenantLog>,
        frames: impl Into<Frames>,
        rows: Rows,
        permit: Option<Permit>,
        done: CommitCallback,
    ) {
        let append = Append { log: log.clone(), frames: frames.into(), _permit: permit };
        self.push(Item::new(Some(append), rows, done));
    }

    /// Commits rows, all or nothing.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn write(&self, rows: Rows) -> Result<(), CommitError> {
        let (done, committed) = CommitCallback::channel();
        self.push(Item::new(None, rows, done));
        committed.await.unwrap_or(Err(CommitError::Unavailable))
    }
    /// [`Store::write`] for a thread without a runtime.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn write_blocking(&self, rows: Rows) -> Result<(), CommitError> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        let done = CommitCallback::call(move |result| {
            let _ = send.send(result); // the waiter may have gone
        });
        self.push(Item::new(None, rows, done));
        receive.recv().unwrap_or(Err(CommitError::Unavailable))
    }
    /// Enqueues rows to be committed, all or nothing. `done` runs on the committer's thread when they are
    /// durable or have failed. Without rows it runs when everything queued before is durable.
    pub fn write_then(&self, rows: Rows, done: CommitCallback) {
        self.push(Item::new(None, rows, done));
    }
    /// Like [`Store::write_then`], with rows that have waited for `room`. A full queue does not refuse them.
    pub fn write_with_room(&self, rows: Rows, room: Permit, done: CommitCallback) {
        self.push(Item::with_room(rows, room, done));
    }
    /// Commits rows soon, without a result. Use it for data that may be lost, such as the time of last use.
    pub fn write_later(&self, rows: Rows) {
        self.push(Item::new(None, rows, CommitCallback::None));
    }

    /// Reads on a reader thread, in `tenant`'s turn.
    pub(in crate::store) async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        task: impl FnOnce(&Engine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.inner().reads.run(tenant, task).await
    }

    /// Reads on a reader thread in slices, each in `tenant`'s turn, until a slice returns a result.
    pub(in crate::store) async fn run_long<T: Send + 'static>(
        &self,
        tenant: TenantId,
        task: impl FnMut(&Engine) -> Result<Option<T>, EngineError> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.inner().reads.run_long(tenant, task).await
    }

    /// Number of logs in memory.
    #[cfg(test)]
    pub(crate) fn logs_in_memory(&self) -> usize {
        self.inner().logs.lock().loaded.len()
    }

    /// Enqueues rows, for tests that must not wait for one write before the next.
    #[cfg(test)]
    pub(in crate::store) fn push_rows(&self, rows: Rows, done: CommitCallback) {
        self.push(Item::new(None, rows, done));
    }

    fn push(&self, item: Item) {
        self.inner().queue.push(item);
    }

    /// The committed events after `after`, as many as a page holds.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_log(&self, log: &Arc<TenantLog>, after: Sequence) -> Result<LogRead, ReadError> {
        self.inner().reads.log(log, after).await
    }
    /// The committed events after `after` as JSON, as many as a page holds, for a reader that may see every
    /// event. On `None`, call [`Store::read_log`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_json(
        &self,
        log: &Arc<TenantLog>,
        after: Sequence,
    ) -> Result<Option<JsonEvents>, ReadError> {
        self.inner().reads.json(log, after).await
    }
    /// The page with the events after `after`, if it is in memory, for callers that may not wait.
    #[must_use]
    pub fn page_in_memory(&self, log: &TenantLog, after: Sequence) -> Option<Page> {
        match self.inner().reads.read_cached(log, after) {
            Some(LogRead::Page(page)) => Some(page),
            _ => None,
        }
    }
    /// Returns true if [`Store::page_in_memory`] would return a page.
    #[must_use]
    pub fn has_in_memory(&self, log: &TenantLog, after: Sequence) -> bool {
        self.inner().reads.has_page(log, after)
    }
    /// The position right before the first event received at or after `since_ms` (Unix milliseconds); the
    /// commit watermark if there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn position_since(
        &self,
        log: &Arc<TenantLog>,
        since_ms: u64,
    ) -> Result<TimePosition, ReadError> {
        let (tenant, log) = (log.tenant(), log.clone());
        let task = move |engine: &Engine| time_position::position_since(engine, &log, since_ms);
        self.run(tenant, task).await
    }

    /// The row stored under an `Idempotency-Key`'s [`key_digest`](crate::store::key_digest); `None` after a day.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn idempotency(
        &self,
        tenant: TenantId,
        digest: [u8; 32],
    ) -> Result<Option<IdempotencyRecord>, ReadError> {
        let value = self.dedup_record(KeyKind::Idempotency, tenant, digest).await?;
        Ok(value.and_then(|value| read_idempotency(&value)))
    }
    /// The row of a client-given `message_id` under its [`key_digest`](crate::store::key_digest); `None` after a day.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn message_id(
        &self,
        tenant: TenantId,
        digest: [u8; 32],
    ) -> Result<Option<MessageIdRecord>, ReadError> {
        let value = self.dedup_record(KeyKind::MessageId, tenant, digest).await?;
        Ok(value.and_then(|value| read_message_id(&value)))
    }

    async fn dedup_record(
        &self,
        kind: KeyKind,
        tenant: TenantId,
        digest: [u8; 32],
    ) -> Result<Option<Value>, ReadError> {
        let now_ms = self.inner().day.now_ms(&*self.inner().options.clock);
        let key = keys::key(kind, tenant, &digest);
        let read = self.run(tenant, move |engine| engine.get(&key)).await?;
        Ok(fresh(read, now_ms))
    }

    /// Allocates a number for a new organization. A number that is never stored is lost at the next start,
    /// which is harmless.
    #[must_use]
    pub fn new_tenant(&self) -> TenantId {
        TenantId(self.inner().next_tenant.fetch_add(1, Ordering::Relaxed))
    }
    /// Every organization, including deleted ones.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn organizations_blocking(&self) -> Result<Vec<Organization>, ReadError> {
        self.read_blocking(records::all)
    }
    /// Every API key.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn api_keys_blocking(&self) -> Result<Vec<ApiKey>, ReadError> {
        self.read_blocking(records::all)
    }
    /// The version of the scopes that API keys are stored with; 0 if it was never stored.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn scopes_version_blocking(&self) -> Result<u8, ReadError> {
        self.read_blocking(records::scopes_version)
    }
    /// Every revoked token, including expired ones that were not removed yet.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn revoked_blocking(&self) -> Result<Vec<RevokedToken>, ReadError> {
        self.read_blocking(records::all)
    }
    /// Every disabled user.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn disabled_users_blocking(&self) -> Result<Vec<DisabledUser>, ReadError> {
        self.read_blocking(records::all)
    }
    /// Every user whose tokens were ended, however long ago.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn users_since_blocking(&self) -> Result<Vec<TokensValidSince>, ReadError> {
        self.read_blocking(records::all)
    }
    /// The bytes stored under `name`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn secret_blocking(&self, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
        self.read_blocking(|engine| records::secret(engine, name))
    }

    fn read_blocking<T>(&self, read: impl FnOnce(&Engine) -> Result<T, EngineError>) -> Result<T, ReadError> {
        match self.inner().engine.read().as_ref() {
            Some(engine) => read(engine).map_err(log_read::failed),
            None => Err(ReadError::Unavailable),
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("epoch", &self.epoch()).field("state", &self.state()).finish()
    }
}
