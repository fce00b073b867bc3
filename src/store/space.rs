//! Room on the file system, and what the store may do with it.
//!
//! * sled must never meet a full disk: under the reserve, publishing is refused before a sequence is assigned.
//! * Refusing and allowing are an eighth of the reserve apart, so that the state does not flap.
//! * The ballast is room kept back for sled to open again after all when a full disk was met.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

pub use super::disk::{Disk, Io, Space};

/// What the store can do now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum StoreState {
    /// Everything.
    Writable = 0,
    /// The file system is almost full: reads and small rows (credentials) go on, publishing answers 503.
    Reserve = 1,
    /// A commit failed; the database is being opened again. Nothing is read or written.
    Reopening = 2,
    /// The disk failed to take data: what is durable can be read, and the database is opened again when the disk takes data.
    ReadOnly = 3,
    /// Closed.
    Closed = 4,
}

/// A [`StoreState`] that is read by one load; who waits for it to change holds a receiver.
pub(super) struct State {
    now: AtomicU8,
    changes: tokio::sync::watch::Sender<StoreState>,
}

impl State {
    pub(super) fn new(state: StoreState) -> State {
        State { now: AtomicU8::new(state as u8), changes: tokio::sync::watch::Sender::new(state) }
    }
    pub(super) fn get(&self) -> StoreState {
        match self.now.load(Ordering::Acquire) {
            0 => StoreState::Writable,
            1 => StoreState::Reserve,
            2 => StoreState::Reopening,
            3 => StoreState::ReadOnly,
            _ => StoreState::Closed,
        }
    }
    pub(super) fn set(&self, state: StoreState) {
        self.now.store(state as u8, Ordering::Release);
        self.changes.send_if_modified(|old| std::mem::replace(old, state) != state);
    }
    pub(super) fn watch(&self) -> tokio::sync::watch::Receiver<StoreState> {
        self.changes.subscribe()
    }
}

/// Most bytes of the ballast; a small reserve keeps a sixteenth of itself.
const BALLAST_BYTES: u64 = 16 << 20;
/// Space is asked for again after this time, or after [`CHECK_BYTES`] written.
const CHECK_EVERY: Duration = Duration::from_secs(1);
const CHECK_BYTES: u64 = 4 << 20;

/// Watches the room in one directory. Owned by the committer.
pub(super) struct SpaceWatch {
    dir: PathBuf,
    /// Below this, publishing stops. Bytes.
    reserve: u64,
    /// When space was last asked for; `None`: ask now.
    checked: Option<Instant>,
    /// Bytes since then.
    written: u64,
}

impl SpaceWatch {
    pub(super) fn new(dir: &Path, reserve: u64) -> SpaceWatch {
        SpaceWatch { dir: dir.to_owned(), reserve, checked: None, written: 0 }
    }

    /// Notes bytes written; the free bytes, when it is time to look again.
    pub(super) fn look(&mut self, io: &dyn Io, written: u64) -> Option<Space> {
        self.written += written;
        let recent = self.checked.is_some_and(|at| at.elapsed() < CHECK_EVERY);
        if recent && self.written < CHECK_BYTES {
            return None;
        }
        (self.checked, self.written) = (Some(Instant::now()), 0);
        io.space(&self.dir).ok()
    }

    /// Makes the next [`SpaceWatch::look`] ask.
    pub(super) fn forget(&mut self) {
        self.checked = None;
    }

    /// The state that `free` bytes allow, coming from `state`.
    pub(super) fn judge(&self, state: StoreState, free: u64) -> StoreState {
        match state {
            StoreState::Writable if free < self.reserve => StoreState::Reserve,
            StoreState::Reserve if free >= self.reserve + self.reserve / 8 => StoreState::Writable,
            same => same,
        }
    }

    fn ballast(&self) -> PathBuf {
        ballast_of(&self.dir)
    }

    /// Lays the ballast down if there is ample room for it. Failing to is no error: it is only a reserve.
    pub(super) fn keep_ballast(&self, free: u64) {
        let len = BALLAST_BYTES.min(self.reserve / 16);
        // A crash may have left less than was laid.
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

    /// Gives the ballast's room back.
    pub(super) fn drop_ballast(&self) {
        drop_ballast(&self.dir);
    }
}

fn ballast_of(dir: &Path) -> PathBuf {
    dir.join("ballast")
}

/// Gives the room of the ballast in the data directory `dir` back.
pub(super) fn drop_ballast(dir: &Path) {
    let _ = fs::remove_file(ballast_of(dir)); // absent is what we want
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusing_and_allowing_are_apart() {
        let watch = SpaceWatch::new(Path::new("/"), 800);
        assert_eq!(watch.judge(StoreState::Writable, 800), StoreState::Writable);
        assert_eq!(watch.judge(StoreState::Writable, 799), StoreState::Reserve);
        assert_eq!(watch.judge(StoreState::Reserve, 899), StoreState::Reserve);
        assert_eq!(watch.judge(StoreState::Reserve, 900), StoreState::Writable);
        assert_eq!(watch.judge(StoreState::ReadOnly, 900), StoreState::ReadOnly);
    }

    #[test]
    fn the_ballast_is_laid_only_where_there_is_ample_room() {
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
