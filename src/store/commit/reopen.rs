//! Handling of a failed commit: the store opens its engine again without a restart.
//!
//! * The batch and everything queued behind it fail: whether they exist after a restart is unknown. From then
//!   on nothing is accepted until a new epoch is durable and every loaded log is at its start, so no sequence
//!   is ever used twice.
//! * What failed does not come back in this process: the journal is opened up to the last acknowledged
//!   commit. So memory that mirrors committed rows (`auth`) still agrees with the disk.
//! * After a failed sync the kernel may hold pages that the disk does not have, and mark them clean, so a
//!   second sync would succeed wrongly. Therefore nothing that was not durable before is kept: the journal is
//!   cut back, and the opening drops the kernel's pages of the journal's end and of the state, and reads what
//!   is really on disk.
//! * Until the disk accepts data again, the engine stays open and durable data can be read. Then the engine
//!   is opened again.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::committer::{Committer, CommitterState};
use super::inner::StoreInner;
use super::queue::{CommitError, Item};
use crate::store::disk::StoreState;
use crate::store::engine::{Engine, EngineError, EngineOptions};
use crate::store::format::LogCounters;
use crate::store::journal::Position;
use crate::store::log::{TenantLog, recover};
use crate::store::rows::identity;
use crate::store::rows::stream_rows::{self, OpenStreams};

/// The first and the longest pause between attempts, which are first to write to a disk that failed, then to
/// open again. The pause doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);

impl Committer {
    /// Fails `items` and everything behind them, and opens the database again. If the disk itself failed, it
    /// first waits until the disk accepts data.
    pub(crate) fn fail(&mut self, error: EngineError, items: &mut VecDeque<Item>) {
        let inner = self.inner.clone();
        let state = match error {
            EngineError::Disk(_) => StoreState::ReadOnly,
            _ => StoreState::Reopening,
        };
        tracing::error!(%error, ?state, "a commit failed");
        inner.stats.failed_commits.fetch_add(1, Relaxed);
        inner.state.set(state);
        let behind = {
            let mut waiting = inner.queue.lock();
            waiting.refuse = Some(CommitError::Unavailable);
            waiting.take_all()
        };
        // Failed events may have been visible before their commit. A client that learned of the failure must not
        // see them any more.
        inner.logs.lock().loaded.values().for_each(|log| log.skip_uncommitted());
        call_hooks(&inner);
        for item in items.drain(..).chain(behind) {
            item.done.call_with(Err(item.refused.unwrap_or(CommitError::Unknown)));
        }
        if state == StoreState::ReadOnly && !self.wait_for_disk() {
            return;
        }
        inner.state.set(StoreState::Reopening);
        self.reopen();
    }

    /// Tries until the disk accepts data again. Returns false if the store closes first.
    fn wait_for_disk(&self) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            if self.inner.queue.pause(pause) {
                return false;
            }
            match self.engine(Engine::probe) {
                Ok(()) => return true,
                Err(error) => {
                    tracing::warn!(%error, "the disk still fails; what is stored can be read, and nothing is written");
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }
        }
    }

    /// Tries until the engine is open again, or the store closes.
    fn reopen(&mut self) {
        let inner = self.inner.clone();
        let engine = inner.engine.write().take();
        if let Some(engine) = engine {
            self.acknowledged = Some(engine.close());
        }
        inner.reads.clear();
        self.space.drop_ballast();
        let mut pause = FIRST_PAUSE;
        loop {
            if inner.queue.pause(pause) {
                return;
            }
            let now_ms = self.clock.now_ms(&*inner.options.clock);
            let end = self.acknowledged;
            let attempt = catch_unwind(AssertUnwindSafe(|| open_again(&inner, end, now_ms)))
                .unwrap_or_else(|_| Err(EngineError::Engine("it panicked".into())));
            match attempt {
                Ok((state, engine)) => {
                    self.state = state;
                    *inner.engine.write() = Some(engine);
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "the store cannot be opened again yet");
                    pause = (pause * 2).min(LAST_PAUSE);
                }
            }
        }
        inner.stats.reopenings.fetch_add(1, Relaxed);
        call_hooks(&inner);
        inner.queue.lock().refuse = None;
        // Stays so until there is known to be enough space.
        inner.state.set(StoreState::Reserve);
        self.space.forget();
        self.watch_space(0);
        tracing::info!(epoch = inner.epoch.load(Relaxed), "the store is open again");
    }
}

fn call_hooks(inner: &StoreInner) {
    for hook in inner.hooks.lock().iter() {
        // A panic in one listener must not end the committer, which everything depends on.
        if catch_unwind(AssertUnwindSafe(hook)).is_err() {
            tracing::error!("a listener for new epochs panicked");
        }
    }
}

/// Opens the engine, starts an epoch, and moves every loaded log to its start.
fn open_again(
    inner: &Arc<StoreInner>,
    end: Option<Position>,
    now_ms: u64,
) -> Result<(CommitterState, Engine), EngineError> {
    let options = &inner.options;
    let engine = Engine::open(&EngineOptions { end, ..options.engine() })?
        .keeping_rows(options.row_cache_bytes)
        .counting(inner.quotas.clone());
    let epoch = identity::begin_epoch(&engine, inner.epoch.load(Relaxed))?;
    let state = CommitterState::load(&engine, inner, now_ms)?;
    let logs: Vec<Arc<TenantLog>> = inner.logs.lock().loaded.values().cloned().collect();
    let mut starts: Vec<(Arc<TenantLog>, LogCounters, OpenStreams)> = Vec::with_capacity(logs.len());
    for log in logs {
        let recovered = recover::tenant(&engine, log.tenant())?;
        let streams = stream_rows::open_streams(&engine, log.tenant())?;
        starts.push((log, recovered, streams));
    }
    inner.epoch.store(epoch, Relaxed);
    for (log, recovered, streams) in starts {
        log.keep_after(streams.log_from());
        log.begin_epoch(epoch, &recovered);
    }
    Ok((state, engine))
}
