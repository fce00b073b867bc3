//! Opening: the lock, the engine, a new epoch, and the threads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::thread;

use crate::store::backup::clear_stage;
use crate::store::commit::{Committer, CommitterState, Queue, StoreInner};
use crate::store::data_dir::{OpenError, open_engine, settle, take_lock};
use crate::store::dedup::DayClock;
use crate::store::disk::{SpaceWatch, StateWatch, StoreState, sync_dir};
use crate::store::engine::{self, EngineError, has_blobs};
use crate::store::log::{READERS, ReadPool};
use crate::store::options::StoreOptions;
use crate::store::quota::Quotas;
use crate::store::rows::{identity, records};
use crate::store::stats::Stats;
use crate::sync::{Mutex, RwLock};

/// The threads of an open store. Its handle waits for them.
pub(super) struct Threads {
    pub(super) handles: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Threads {
    /// Waits for every thread except the calling one.
    pub(super) fn join(&self) {
        let handles = std::mem::take(&mut *self.handles.lock());
        for handle in handles {
            if handle.thread().id() != thread::current().id() {
                let _ = handle.join(); // a thread that panicked has ended too
            }
        }
    }
}

/// Opens or creates the store of `options.dir` and starts its threads. On return a new epoch is durable.
pub(super) fn open(options: StoreOptions) -> Result<(Arc<StoreInner>, Threads), OpenError> {
    let dir = options.dir.clone();
    let failed = |error: EngineError| OpenError::engine(&dir, &error);
    let lock = take_lock(&dir)?;
    settle(&dir).map_err(|error| OpenError::io(&dir, &error))?;
    clear_stage(&dir).map_err(|error| OpenError::io(&dir, &error))?;
    if has_blobs(&engine::path(&dir)).map_err(|error| OpenError::io(&dir, &error))? {
        return Err(OpenError::Blobs { dir });
    }
    let total = options.io.space(&dir).map_or(0, |space| space.total);
    let quotas = Quotas::new(options.quotas(total));
    let engine =
        open_engine(&dir, &options.engine())?.keeping_rows(options.row_cache_bytes).counting(quotas.clone());
    let cursors = identity::identity(&engine).map_err(failed)?;
    sync_dir(&dir).map_err(|error| OpenError::io(&dir, &error))?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // This process may have no right to open it; then it did not create the directory either.
        let _ = sync_dir(parent);
    }
    let epoch = identity::begin_epoch(&engine, 0).map_err(failed)?;
    let next_tenant = records::last_tenant(&engine).map_err(failed)? + 1;
    let stats = Arc::new(Stats::default());
    let inner = Arc::new(StoreInner {
        cursors,
        epoch: AtomicU32::new(epoch),
        state: StateWatch::new(StoreState::Writable),
        engine: RwLock::new(None),
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
    let now_ms = inner.options.clock.now_ms();
    let committer_state = CommitterState::load(&engine, &inner, now_ms).map_err(failed)?;
    *inner.engine.write() = Some(engine);
    let mut space = SpaceWatch::new(&dir, inner.options.reserve_bytes);
    space.forget();
    let mut committer = Committer::new(inner.clone(), committer_state, space);
    committer.watch_space(0);
    let threads = start(&inner, committer).map_err(|error| OpenError::io(&dir, &error))?;
    Ok((inner, threads))
}

fn start(inner: &Arc<StoreInner>, committer: Committer) -> io::Result<Threads> {
    let threads = Threads { handles: Mutex::default() };
    let run = || -> io::Result<()> {
        let spawn =
            |name: String, body: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name).spawn(body);
        for at in 0..READERS {
            let inner = inner.clone();
            let body = move || inner.reads.serve(&inner.engine);
            threads.handles.lock().push(spawn(format!("nw-read-{at}"), Box::new(body))?);
        }
        threads.handles.lock().push(spawn("nw-commit".into(), Box::new(move || committer.run()))?);
        Ok(())
    };
    run().inspect_err(|_| inner.reads.close())?;
    Ok(threads)
}
