//! The stage: the backup of a running store is made in `backup/` of its data directory, and a command copies
//! it from there.
//!
//! * The daemon writes nowhere else, so no credential lets anybody write files elsewhere.
//! * There is one backup at a time, on a thread of its own. A backup that is not downloaded is removed after
//!   [`KEPT`], when the store closes, and when the store is opened.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::error::{BackupError, ProgressSink};
use super::files::{STAGE, clear_stage};
use super::make::{BackupSource, make};
use super::manifest::BackupStart;
use crate::store::commit::StoreInner;
use crate::store::disk::StoreState;
use crate::sync::{Condvar, Mutex};

/// How long a finished backup waits. Its links keep the space of removed segments in use.
const KEPT: Duration = Duration::from_secs(60 * 60);
/// How often the thread checks whether the store has closed.
const LOOK: Duration = Duration::from_millis(200);

/// The status of the backup of a running store.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum StageStatus {
    /// There is no backup.
    #[default]
    None,
    /// The backup is in progress.
    Running {
        /// The current step.
        what: &'static str,
        /// Units of the step that are done.
        done: u64,
        /// Units of the step in total; 0 if unknown.
        of: u64,
    },
    /// The backup is ready to be copied.
    Ready {
        /// The directory of the backup.
        dir: PathBuf,
    },
    /// The backup failed.
    Failed {
        /// The reason.
        why: String,
    },
}

/// The backup that is in progress or ready.
#[derive(Default)]
pub(crate) struct Stage {
    status: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Default)]
struct Inner {
    status: StageStatus,
    /// Whether the backup is no longer needed.
    dropped: bool,
}

impl Stage {
    /// Starts a backup of the running store, or of what came `since`. Returns its thread.
    pub(crate) fn start(
        self: &Arc<Stage>,
        store: &Arc<StoreInner>,
        since: Option<BackupStart>,
    ) -> Result<thread::JoinHandle<()>, BackupError> {
        {
            let mut inner = self.status.lock();
            if matches!(inner.status, StageStatus::Running { .. }) || inner.dropped {
                return Err(BackupError::Busy);
            }
            inner.status = StageStatus::Running { what: "beginning", done: 0, of: 0 };
        }
        let (own_store, own_stage) = (store.clone(), self.clone());
        let work = move || Job { store: &own_store, stage: &own_stage }.run(since.as_ref());
        thread::Builder::new().name("nw-backup".into()).spawn(work).map_err(|error| {
            self.status.lock().status = StageStatus::None;
            BackupError::io(&store.options.dir, &error)
        })
    }

    /// The status of the backup.
    pub(crate) fn status(&self) -> StageStatus {
        self.status.lock().status.clone()
    }

    /// Marks the backup as no longer needed. Its thread removes it.
    pub(crate) fn discard(&self) {
        let mut inner = self.status.lock();
        match inner.status {
            StageStatus::Running { .. } | StageStatus::Ready { .. } => inner.dropped = true,
            _ => inner.status = StageStatus::None,
        }
        drop(inner);
        self.changed.notify_all();
    }
}

/// The work of the thread.
#[derive(Clone, Copy)]
struct Job<'s> {
    store: &'s StoreInner,
    stage: &'s Stage,
}

impl Job<'_> {
    fn run(&self, since: Option<&BackupStart>) {
        let Job { store, stage } = self;
        let dir = &store.options.dir;
        let made = clear_stage(dir).map_err(|error| BackupError::io(dir, &error)).and_then(|()| {
            let epoch = store.epoch.load(std::sync::atomic::Ordering::Relaxed);
            let source = BackupSource::Running { store, epoch };
            let work = || make(&source, dir, since, &|| store.options.clock.now_ms(), &mut Watched(*self));
            // sled may panic on an IO error.
            catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(BackupError::Reopened))
        });
        let is_made = made.is_ok();
        let outcome = match made.and_then(|()| self.check()) {
            Ok(()) => {
                let path = dir.join(STAGE);
                StageStatus::Ready { dir: fs::canonicalize(&path).unwrap_or(path) }
            }
            Err(error) => {
                tracing::warn!(%error, "a backup failed");
                StageStatus::Failed { why: error.to_string() }
            }
        };
        let until = Instant::now() + KEPT;
        let mut inner = stage.status.lock();
        inner.status = outcome;
        while is_made
            && !inner.dropped
            && store.state.get() != StoreState::Closed
            && !store.queue.is_closing()
            && Instant::now() < until
        {
            (inner, _) = stage.changed.wait_for(inner, LOOK);
        }
        if let Err(error) = clear_stage(dir) {
            tracing::warn!(%error, "a finished backup could not be removed");
        }
        if is_made || inner.dropped {
            inner.status = StageStatus::None;
        }
        inner.dropped = false;
    }

    fn check(&self) -> Result<(), BackupError> {
        match self.stage.status.lock().dropped {
            true => Err(BackupError::Cancelled),
            false => Ok(()),
        }
    }
}

/// Records the progress.
struct Watched<'s>(Job<'s>);

impl ProgressSink for Watched<'_> {
    fn report(&mut self, what: &'static str, done: u64, of: u64) -> Result<(), BackupError> {
        let mut inner = self.0.stage.status.lock();
        if inner.dropped || self.0.store.queue.is_closing() {
            return Err(BackupError::Cancelled);
        }
        inner.status = StageStatus::Running { what, done, of };
        Ok(())
    }
}
