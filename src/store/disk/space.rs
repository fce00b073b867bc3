//! Free space on the file system, and what it lets the store do.
//!
//! * sled must never see a full disk: below the reserve, publishing is refused before a sequence is assigned.
//! * The limits of refusing and accepting are an eighth of the reserve apart, so that the state does not
//!   flap.
//! * The ballast is a file that reserves space, so that sled can open again after the disk was full.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::io::{Io, Space};

/// What the store accepts now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum StoreState {
    /// Everything.
    Writable = 0,
    /// The file system is almost full: reads and small rows (credentials) continue, and publishing returns
    /// 503.
    Reserve = 1,
    /// A commit failed, and the database is being opened again. Nothing is read or written.
    Reopening = 2,
    /// The disk refused data. Durable data can be read, and the database is opened again when the disk
    /// accepts data.
    ReadOnly = 3,
    /// The store is closed.
    Closed = 4,
}

/// A [`StoreState`] that is read with one load. A receiver is notified of changes.
pub(crate) struct StateWatch {
    now: AtomicU8,
    changes: tokio::sync::watch::Sender<StoreState>,
}

impl StateWatch {
    pub(crate) fn new(state: StoreState) -> StateWatch {
        StateWatch { now: AtomicU8::new(state as u8), changes: tokio::sync::watch::Sender::new(state) }
    }
    pub(crate) fn get(&self) -> StoreState {
        match self.now.load(Ordering::Acquire) {
            0 => StoreState::Writable,
            1 => StoreState::Reserve,
            2 => StoreState::Reopening,
            3 => StoreState::ReadOnly,
            _ => StoreState::Closed,
        }
    }
    pub(crate) fn set(&self, state: StoreState) {
        self.now.store(state as u8, Ordering::Release);
        self.changes.send_if_modified(|old| std::mem::replace(old, state) != state);
    }
    pub(crate) fn watch(&self) -> tokio::sync::watch::Receiver<StoreState> {
        self.changes.subscribe()
    }
}

/// Largest size of the ballast, in bytes. It is at most a sixteenth of the reserve.
const BALLAST_BYTES: u64 = 16 << 20;
/// The free space is checked again after this time, or after [`CHECK_BYTES`] written.
const CHECK_EVERY: Duration = Duration::from_secs(1);
const CHECK_BYTES: u64 = 4 << 20;

/// Watches the free space of one directory. Owned by the committer.
pub(crate) struct SpaceWatch {
    dir: PathBuf,
    /// Free bytes below which publishing stops.
    reserve: u64,
    /// When the space was last checked; `None` means that it is checked next time.
    checked: Option<Instant>,
    /// Bytes written since then.
    written: u64,
}

impl SpaceWatch {
    pub(crate) fn new(dir: &Path, reserve: u64) -> SpaceWatch {
        SpaceWatch { dir: dir.to_owned(), reserve, checked: None, written: 0 }
    }

    /// Adds to the bytes written. Returns the space if it is time to check again.
    pub(crate) fn check(&mut self, io: &dyn Io, written: u64) -> Option<Space> {
        self.written += written;
        let recent = self.checked.is_some_and(|at| at.elapsed() < CHECK_EVERY);
        if recent && self.written < CHECK_BYTES {
            return None;
        }
        (self.checked, self.written) = (Some(Instant::now()), 0);
        io.space(&self.dir).ok()
    }

    /// Makes the next [`SpaceWatch::check`] check.
    pub(crate) fn forget(&mut self) {
        self.checked = None;
    }

    /// The state for `free` bytes, coming from `state`.
    pub(crate) fn next_state(&self, state: StoreState, free: u64) -> StoreState {
        match state {
            StoreState::Writable if free < self.reserve => StoreState::Reserve,
            StoreState::Reserve if free >= self.reserve + self.reserve / 8 => StoreState::Writable,
            same => same,
        }
    }

    fn ballast(&self) -> PathBuf {
        ballast_of(&self.dir)
    }

    /// Creates the ballast if there is ample space for it. A failure is no error: the ballast is only a
    /// reserve.
    pub(crate) fn keep_ballast(&self, free: u64) {
        let len = BALLAST_BYTES.min(self.reserve / 16);
        // A crash may have left less than was written.
        let laid = fs::metadata(self.ballast()).map_or(0, |file| file.len());
        if len == 0 || free < self.reserve + 2 * len || laid >= len {
            return;
        }
        let lay = || -> io::Result<()> {
            let file = File::create(self.ballast())?;
            Ok(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len)?)
        };
        if let Err(error) = lay() {
            tracing::debug!(%error, "no ballast");
            self.drop_ballast();
        }
    }

    /// Releases the ballast's space.
    pub(crate) fn drop_ballast(&self) {
        drop_ballast(&self.dir);
    }
}

fn ballast_of(dir: &Path) -> PathBuf {
    dir.join("ballast")
}

/// Releases the space of the ballast in the data directory `dir`.
pub(crate) fn drop_ballast(dir: &Path) {
    let _ = fs::remove_file(ballast_of(dir)); // an absent file is fine
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_resumes_only_above_the_limit_that_stopped_it() {
        let watch = SpaceWatch::new(Path::new("/"), 800);
        assert_eq!(watch.next_state(StoreState::Writable, 800), StoreState::Writable);
        assert_eq!(watch.next_state(StoreState::Writable, 799), StoreState::Reserve);
        assert_eq!(watch.next_state(StoreState::Reserve, 899), StoreState::Reserve);
        assert_eq!(watch.next_state(StoreState::Reserve, 900), StoreState::Writable);
        assert_eq!(watch.next_state(StoreState::ReadOnly, 900), StoreState::ReadOnly);
    }

    #[test]
    fn the_ballast_is_created_only_if_there_is_ample_space() {
        let dir = tempfile::tempdir().expect("a directory");
        let watch = SpaceWatch::new(dir.path(), 1 << 20);
        watch.keep_ballast(1 << 20);
        assert!(!watch.ballast().exists());
        watch.keep_ballast(2 << 20);
        assert_eq!(fs::metadata(watch.ballast()).expect("laid").len(), 1 << 16);
        File::create(watch.ballast()).expect("emptied, as by a power cut");
        watch.keep_ballast(2 << 20);
        assert_eq!(fs::metadata(watch.ballast()).expect("laid again").len(), 1 << 16);
        watch.drop_ballast();
        assert!(!watch.ballast().exists());
    }
}
