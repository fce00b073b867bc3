//! The store's face: a handle that is cheap to clone. The last one to go closes the store.
//!
//! * Calls are `async` where they wait for a disk, and named `…_blocking` where they read it on the caller's thread.
//! * [`Store::append`] is the one that must be called in the tenant's order: under the tenant's lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use super::daily::{self, Idempotency, MessageId};
use super::engine::{Engine, EngineError, Value};
use super::keys::{self, Kind};
use super::log::{Permit, TenantLog};
use super::queue::{Append, CommitError, Done, Frames, Item};
use super::quota::{Growth, OverQuota, QuotaTotals, Reservation};
use super::read::{self, LogRead, ReadError};
use super::records::{self, ApiKey, DisabledUser, Organization, Revoked, UserSince};
use super::row_cache::RowCacheStats;
use super::rows::Rows;
use super::since::{self, Since};
use super::space::StoreState;
use super::state::guard_damaged;
use super::stats::{JournalStats, Stats};
use super::usage::{self, Usage};
use super::{OpenError, Shared, StoreOptions, Threads};
use crate::cursor::CursorKey;
use crate::frame::Frame;
use crate::ids::{Sequence, TenantId};

/// An open store.
#[derive(Clone)]
pub struct Store(Arc<Open>);

struct Open {
    shared: Arc<Shared>,
    threads: Threads,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.threads.join();
    }
}

impl Threads {
    /// Waits for every thread but the one that calls.
    fn join(&self) {
        let handles = std::mem::take(&mut *self.handles.lock());
        for handle in handles {
            if handle.thread().id() != thread::current().id() {
                let _ = handle.join(); // a thread that panicked has ended too
            }
        }
    }
}

impl Store {
    /// Opens or creates a store; blocks. A new epoch is durable on return.
    ///
    /// # Errors
    /// [`OpenError`], each naming the data directory and what to do.
    pub fn open(options: StoreOptions) -> Result<Store, OpenError> {
        let dir = options.dir.clone();
        let opened: Result<_, EngineError> = guard_damaged(|| Ok(super::open(options)));
        let (shared, threads) = opened.map_err(|error| OpenError::engine(&dir, &error))??;
        Ok(Store(Arc::new(Open { shared, threads })))
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    /// Waits for `thread`, too, when the store closes.
    pub(super) fn adopt(&self, thread: thread::JoinHandle<()>) {
        let mut handles = self.0.threads.handles.lock();
        handles.retain(|handle| !handle.is_finished());
        handles.push(thread);
    }

    /// Commits what is queued, closes the database and gives the data directory back, whoever else holds a handle; every
    /// later call fails.
    pub async fn close(&self) {
        self.shared().queue.close();
        let mut state = self.watch_state();
        let _ = state.wait_for(|state| *state == StoreState::Closed).await; // the sender lives as long as we do
        self.0.threads.join();
    }
    /// [`Store::close`] for a thread without a runtime.
    pub fn close_blocking(&self) {
        self.shared().queue.close();
        self.0.threads.join();
    }

    /// What cursors of this store are signed with.
    #[must_use]
    pub fn cursor_key(&self) -> CursorKey {
        self.shared().cursors
    }
    /// The running epoch.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.shared().epoch.load(Ordering::Relaxed)
    }
    /// What the store can do now. One load: ask before a sequence is assigned.
    #[must_use]
    pub fn state(&self) -> StoreState {
        self.shared().state.get()
    }
    /// Says when [`Store::state`] changes.
    #[must_use]
    pub fn watch_state(&self) -> tokio::sync::watch::Receiver<StoreState> {
        self.shared().state.watch()
    }
    /// Live statistics.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.shared().stats
    }
    /// Bytes of decoded events kept for readers.
    #[must_use]
    pub fn page_cache_bytes(&self) -> usize {
        self.shared().reads.cached_bytes()
    }
    /// How much disk the journal takes; all zeros while the store is not open.
    #[must_use]
    pub fn journal(&self) -> JournalStats {
        self.shared().engine.read().as_ref().map(Engine::journal_stats).unwrap_or_default()
    }
    /// What is kept of rows of tables in memory; all zeros while the database is not open.
    #[must_use]
    pub fn row_cache(&self) -> RowCacheStats {
        self.shared().engine.read().as_ref().map(Engine::row_cache).unwrap_or_default()
    }
    /// `hook` runs on the committer's thread where logs have passed over events: after a commit failed, and after the store was opened
    /// again, when every log stands at the start of a new epoch. Publishing is refused meanwhile. It must not wait for a commit.
    pub fn on_epoch(&self, hook: impl Fn() + Send + Sync + 'static) {
        self.shared().hooks.lock().push(Box::new(hook));
    }

    /// Room for a change of `tenant` that adds `growth`, to be held by the change; `None` where it adds nothing.
    ///
    /// # Errors
    /// [`OverQuota`]: the organization would keep more than it may.
    pub fn reserve(&self, tenant: TenantId, growth: Growth) -> Result<Option<Reservation>, OverQuota> {
        self.shared().quotas.reserve(tenant, growth)
    }
    /// What `tenant` keeps besides its log.
    #[must_use]
    pub fn usage(&self, tenant: TenantId) -> Usage {
        self.shared().quotas.usage(tenant)
    }
    /// What all organizations keep besides their logs; looks at each of them.
    #[must_use]
    pub fn quota_totals(&self) -> QuotaTotals {
        self.shared().quotas.totals()
    }
    /// Counts the rows of every organization, for tests: what [`Store::usage`] must say of each that keeps some.
    ///
    /// # Errors
    /// [`ReadError`].
    #[doc(hidden)]
    pub fn counted_usage_blocking(&self) -> Result<HashMap<TenantId, Usage>, ReadError> {
        self.read_blocking(usage::count)
    }

    /// The log of `tenant`, if it is in memory. Never reads the disk.
    #[must_use]
    pub fn loaded_log(&self, tenant: TenantId) -> Option<Arc<TenantLog>> {
        self.shared().logs.lock().loaded.get(&tenant).cloned()
    }
    /// Forgets the log of `tenant` if nobody holds it and all of it is on disk. Its numbers go on above the old ones when
    /// it is asked for again, as after a restart.
    pub fn forget_quiet(&self, tenant: TenantId) {
        self.shared().logs.lock().forget_quiet(tenant);
    }
    /// The log of `tenant`. Reads the disk on the caller's thread when nobody asked for it before in this run.
    ///
    /// # Errors
    /// [`ReadError`] when it had to be read and could not.
    pub fn log_blocking(&self, tenant: TenantId) -> Result<Arc<TenantLog>, ReadError> {
        match self.loaded_log(tenant) {
            Some(log) => Ok(log),
            None => self.read_blocking(|engine| self.shared().log_in(engine, tenant)),
        }
    }
    /// The log of `tenant`, read on a reader thread when nobody asked for it before in this run.
    ///
    /// # Errors
    /// [`ReadError`] when it had to be read and could not.
    pub async fn log(&self, tenant: TenantId) -> Result<Arc<TenantLog>, ReadError> {
        if let Some(log) = self.loaded_log(tenant) {
            return Ok(log);
        }
        let shared = self.shared().clone();
        self.run(tenant, move |engine| shared.log_in(engine, tenant)).await
    }

    /// Whether events may be published into `log`, as far as is known now; whether they are kept is decided at their commit.
    ///
    /// # Errors
    /// [`CommitError::Deleted`].
    pub fn check_publishable(&self, log: &TenantLog, frames: &[Arc<Frame>]) -> Result<(), CommitError> {
        let refused = || self.shared().tombstones.read().refuse_events(log.tenant(), frames);
        match log.tombstones.load(Ordering::Acquire) && refused() {
            true => Err(CommitError::Deleted),
            false => Ok(()),
        }
    }

    /// Enqueues sealed frames that follow `log.end()`, and `rows` to be committed with them, all or nothing. Never blocks;
    /// call it under the tenant's lock, so that ring and log agree on order. `done` runs on the committer's thread when
    /// they are durable or have failed.
    pub fn append(
        &self,
        log: &Arc<TenantLog>,
        frames: impl Into<Frames>,
        rows: Rows,
        permit: Option<Permit>,
        done: Done,
    ) {
        let append = Append { log: log.clone(), frames: frames.into(), _permit: permit };
        self.push(Item::new(Some(append), rows, done));
    }

    /// Commits rows, all or nothing.
    ///
    /// # Errors
    /// [`CommitError`].
    pub async fn write(&self, rows: Rows) -> Result<(), CommitError> {
        let (done, committed) = Done::channel();
        self.push(Item::new(None, rows, done));
        committed.await.unwrap_or(Err(CommitError::Unavailable))
    }
    /// [`Store::write`] for a thread without a runtime.
    ///
    /// # Errors
    /// [`CommitError`].
    pub fn write_blocking(&self, rows: Rows) -> Result<(), CommitError> {
        let (send, receive) = std::sync::mpsc::sync_channel(1);
        let done = Done::call(move |result| {
            let _ = send.send(result); // whoever waited may have gone
        });
        self.push(Item::new(None, rows, done));
        receive.recv().unwrap_or(Err(CommitError::Unavailable))
    }
    /// Commits rows some time soon; nobody is told how it went. For what may be lost, such as a last use.
    pub fn write_later(&self, rows: Rows) {
        self.push(Item::new(None, rows, Done::Nobody));
    }

    /// Reads on a reader thread, in `tenant`'s turn.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        tenant: TenantId,
        task: impl FnOnce(&Engine) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.shared().reads.run(tenant, task).await
    }

    /// Reads on a reader thread in slices, each in `tenant`'s turn, until one of them returns a result.
    pub(super) async fn run_long<T: Send + 'static>(
        &self,
        tenant: TenantId,
        task: impl FnMut(&Engine) -> Result<Option<T>, EngineError> + Send + 'static,
    ) -> Result<T, ReadError> {
        self.shared().reads.run_long(tenant, task).await
    }

    /// Logs in memory.
    #[cfg(test)]
    pub(crate) fn logs_in_memory(&self) -> usize {
        self.shared().logs.lock().loaded.len()
    }

    /// Enqueues rows; for tests, which need not wait for one write before the next.
    #[cfg(test)]
    pub(super) fn push_rows(&self, rows: Rows, done: Done) {
        self.push(Item::new(None, rows, done));
    }

    fn push(&self, item: Item) {
        self.shared().queue.push(item);
    }

    /// The committed events after `after`, as many as a page holds.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_log(&self, log: &Arc<TenantLog>, after: Sequence) -> Result<LogRead, ReadError> {
        self.shared().reads.log(log, after).await
    }
    /// The committed events after `after` as JSON, as many as a page holds, for a reader who may see every event. `None`:
    /// [`Store::read_log`] says what is there.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn read_json(
        &self,
        log: &Arc<TenantLog>,
        after: Sequence,
    ) -> Result<Option<super::JsonEvents>, ReadError> {
        self.shared().reads.json(log, after).await
    }
    /// The page that follows `after`, if it is in memory: for callers that may not wait.
    #[must_use]
    pub fn page_in_memory(&self, log: &TenantLog, after: Sequence) -> Option<super::Page> {
        match self.shared().reads.known(log, after) {
            Some(LogRead::Page(page)) => Some(page),
            _ => None,
        }
    }
    /// Whether [`Store::page_in_memory`] has one.
    #[must_use]
    pub fn has_in_memory(&self, log: &TenantLog, after: Sequence) -> bool {
        self.shared().reads.has_page(log, after)
    }
    /// Where the first event received at or after `since_ms` (Unix milliseconds) begins; the commit watermark if there is
    /// none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn position_since(&self, log: &Arc<TenantLog>, since_ms: u64) -> Result<Since, ReadError> {
        let (tenant, log) = (log.tenant(), log.clone());
        let task = move |engine: &Engine| since::position_since(engine, &log, since_ms);
        self.run(tenant, task).await
    }

    /// What is remembered under an `Idempotency-Key`'s [`super::scope`]; `None` after a day.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn idempotency(
        &self,
        tenant: TenantId,
        scope: [u8; 32],
    ) -> Result<Option<Idempotency>, ReadError> {
        let value = self.daily(Kind::Idempotency, tenant, scope).await?;
        Ok(value.and_then(|value| daily::read_idempotency(&value)))
    }
    /// What is remembered of a client-given `message_id` under its [`super::scope`]; `None` after a day.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn message_id(
        &self,
        tenant: TenantId,
        scope: [u8; 32],
    ) -> Result<Option<MessageId>, ReadError> {
        let value = self.daily(Kind::MessageId, tenant, scope).await?;
        Ok(value.and_then(|value| daily::read_message_id(&value)))
    }

    async fn daily(&self, kind: Kind, tenant: TenantId, scope: [u8; 32]) -> Result<Option<Value>, ReadError> {
        let now_ms = self.shared().day.now_ms(&*self.shared().options.clock);
        let key = keys::key(kind, tenant, &scope);
        let read = self.run(tenant, move |engine| engine.get(&key)).await?;
        Ok(daily::fresh(read, now_ms))
    }

    /// A number for a new organization. One that is never put is lost at the next start, harmlessly.
    #[must_use]
    pub fn new_tenant(&self) -> TenantId {
        TenantId(self.shared().next_tenant.fetch_add(1, Ordering::Relaxed))
    }
    /// Every organization, deleted ones included.
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
    /// The version of the scopes that API keys are written in; 0 where it was never noted.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn scopes_version_blocking(&self) -> Result<u8, ReadError> {
        self.read_blocking(records::scopes_version)
    }
    /// Every revoked token, some already expired.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn revoked_blocking(&self) -> Result<Vec<Revoked>, ReadError> {
        self.read_blocking(records::all)
    }
    /// Every disabled user.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn disabled_users_blocking(&self) -> Result<Vec<DisabledUser>, ReadError> {
        self.read_blocking(records::all)
    }
    /// Everyone whose tokens were ended, some of them long ago.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn users_since_blocking(&self) -> Result<Vec<UserSince>, ReadError> {
        self.read_blocking(records::all)
    }
    /// The bytes kept under `name`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn secret_blocking(&self, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
        self.read_blocking(|engine| records::secret(engine, name))
    }

    fn read_blocking<T>(&self, read: impl FnOnce(&Engine) -> Result<T, EngineError>) -> Result<T, ReadError> {
        match self.shared().engine.read().as_ref() {
            Some(engine) => read(engine).map_err(read::failed),
            None => Err(ReadError::Unavailable),
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("epoch", &self.epoch()).field("state", &self.state()).finish()
    }
}
