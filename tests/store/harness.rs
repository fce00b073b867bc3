//! Helpers of the store tests: small stores, frames, and a disk that fails on demand.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use nervewire::event::Event;
use nervewire::frame::Frame;
use nervewire::ids::{Sequence, TenantId};
use nervewire::store::{CommitCallback, Io, LogRead, Rows, Space, Store, StoreOptions, TenantLog};
use nervewire::sync::Mutex;
use nervewire::time::{Clock, SystemClock};

pub(crate) const T1: TenantId = TenantId(1);
pub(crate) const T2: TenantId = TenantId(2);

pub(crate) fn options(dir: &Path) -> StoreOptions {
    let mut options = StoreOptions::new(dir);
    (options.cache_bytes, options.reserve_bytes) = (16 << 20, 1 << 20);
    options
}

pub(crate) fn with<T>(dir: &Path, change: impl FnOnce(&mut StoreOptions) -> T) -> StoreOptions {
    let mut options = options(dir);
    change(&mut options);
    options
}

pub(crate) fn store(dir: &Path) -> Store {
    Store::open(options(dir)).expect("the store opens")
}

/// A sealed frame whose content is `len` bytes.
pub(crate) fn frame(
    store: &Store,
    tenant: TenantId,
    sequence: Sequence,
    now_ms: u64,
    len: usize,
) -> Arc<Frame> {
    let json = format!(r#"{{"type":"message","agent_id":"a","content":"{}"}}"#, "x".repeat(len));
    let mut frame = Frame::encode(&Event::parse(&json).expect("valid"), now_ms, 0);
    frame.seal(sequence, now_ms, &store.cursor_key().encode(tenant, sequence));
    Arc::new(frame)
}

/// Appends `count` events in one commit and waits for it.
pub(crate) async fn publish(store: &Store, tenant: TenantId, count: usize, len: usize) -> Vec<Arc<Frame>> {
    publish_at(store, tenant, count, len, SystemClock.now_ms()).await
}

pub(crate) async fn publish_at(
    store: &Store,
    tenant: TenantId,
    count: usize,
    len: usize,
    now_ms: u64,
) -> Vec<Arc<Frame>> {
    let log = store.log(tenant).await.expect("a log");
    let end = log.end();
    let frames: Vec<_> =
        (1..=count as u64).map(|n| frame(store, tenant, Sequence(end.0 + n), now_ms, len)).collect();
    let (done, commit_result) = CommitCallback::channel();
    store.append(&log, frames.clone(), Rows::new(), None, done);
    assert_eq!(commit_result.await, Ok(Ok(())));
    assert_eq!(log.committed(), frames[count - 1].sequence());
    frames
}

/// Reads to the end. A gap fails the test.
pub(crate) async fn read_all(store: &Store, log: &Arc<TenantLog>, after: Sequence) -> Vec<Arc<Frame>> {
    match try_read_all(store, log, after).await {
        Ok(frames) => frames,
        Err(resumes_at) => panic!("a gap up to {resumes_at:?}"),
    }
}

/// Reads to the end or to a gap. Returns the end of the gap in that case.
pub(crate) async fn try_read_all(
    store: &Store,
    log: &Arc<TenantLog>,
    after: Sequence,
) -> Result<Vec<Arc<Frame>>, Sequence> {
    let (mut at, mut frames) = (after, Vec::new());
    loop {
        match store.read_log(log, at).await.expect("readable") {
            LogRead::Page(page) => {
                assert!(page.frames()[0].sequence() > at);
                assert!(page.frames().windows(2).all(|pair| pair[0].sequence() < pair[1].sequence()));
                frames.extend(page.frames().iter().cloned().map(Arc::new));
                at = frames[frames.len() - 1].sequence();
            }
            LogRead::End { .. } => return Ok(frames),
            LogRead::Gap { resumes_at, .. } => return Err(resumes_at),
        }
    }
}

/// Copies the data directory of a running store: what `kill -9` leaves behind. The state is copied first, so
/// it never contains what the journal lacks.
pub(crate) fn copy_image(from: &Path, to: &Path) {
    for part in ["log", "journal"] {
        std::fs::create_dir_all(to.join(part)).expect("made");
        for entry in std::fs::read_dir(from.join(part)).expect("a directory") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_file() {
                std::fs::copy(entry.path(), to.join(part).join(entry.file_name())).expect("copied");
            }
        }
    }
}

/// Waits until housekeeping has reached a state.
pub(crate) async fn until<T>(mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2000 {
        if let Some(found) = found() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came about");
}

/// A disk that fails on demand.
#[derive(Default)]
pub(crate) struct Faults {
    /// Errno of the next failing syncs, and their number.
    errno: AtomicI32,
    failing: AtomicU64,
    opening: AtomicBool,
    /// Every sync fails with `EIO`.
    broken: AtomicBool,
    /// Syncs that failed because of `broken`.
    refused: AtomicU64,
    /// Free bytes to report; 0: the real number.
    free: AtomicU64,
    gate: Mutex<Option<HeldSync>>,
}

struct HeldSync {
    reached: tokio::sync::oneshot::Sender<()>,
    release: std::sync::mpsc::Receiver<io::Result<()>>,
}

/// The test's side of a sync that blocks.
pub(crate) struct Gate {
    reached: Mutex<Option<tokio::sync::oneshot::Receiver<()>>>,
    release: std::sync::mpsc::Sender<io::Result<()>>,
}

impl Gate {
    pub(crate) async fn reached(&self) {
        let reached = self.reached.lock().take().expect("asked once");
        reached.await.expect("the sync is reached");
    }
    pub(crate) fn release(&self, result: io::Result<()>) {
        self.release.send(result).expect("it waits");
    }
}

impl Faults {
    pub(crate) fn fail_syncs(&self, errno: i32, count: u64) {
        self.errno.store(errno, SeqCst);
        self.failing.store(count, SeqCst);
    }
    pub(crate) fn fail_opening(&self, fail: bool) {
        self.opening.store(fail, SeqCst);
    }
    pub(crate) fn break_disk(&self, broken: bool) {
        self.broken.store(broken, SeqCst);
    }
    /// Syncs that failed because of `broken`, in total.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(SeqCst)
    }
    fn check(&self) -> io::Result<()> {
        if !self.broken.load(SeqCst) {
            return Ok(());
        }
        self.refused.fetch_add(1, SeqCst);
        Err(io::Error::from_raw_os_error(5))
    }
    pub(crate) fn set_free(&self, free: u64) {
        self.free.store(free, SeqCst);
    }
    pub(crate) fn hold_next_sync(&self) -> Gate {
        let (reached, seen) = tokio::sync::oneshot::channel();
        let (release, released) = std::sync::mpsc::channel();
        *self.gate.lock() = Some(HeldSync { reached, release: released });
        Gate { reached: Mutex::new(Some(seen)), release }
    }
}

impl Io for Faults {
    fn write(&self) -> io::Result<()> {
        match self.opening.load(SeqCst) {
            true => Err(io::Error::from_raw_os_error(28)),
            false => Ok(()),
        }
    }
    fn sync_all(&self, file: &File) -> io::Result<()> {
        self.check().and_then(|()| file.sync_all())
    }
    fn sync_state(&self, file: &File) -> io::Result<()> {
        self.check().and_then(|()| file.sync_data())
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        self.check()?;
        if let Some(held) = self.gate.lock().take() {
            let _ = held.reached.send(());
            return held.release.recv().expect("released");
        }
        if self.failing.load(SeqCst) > 0 {
            self.failing.fetch_sub(1, SeqCst);
            return Err(io::Error::from_raw_os_error(self.errno.load(SeqCst)));
        }
        file.sync_data()
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        match self.free.load(SeqCst) {
            0 => {
                let fs = rustix::fs::statvfs(dir)?;
                Ok(Space { free: fs.f_bavail * fs.f_frsize, total: fs.f_blocks * fs.f_frsize })
            }
            free => Ok(Space { free, total: 1 << 40 }),
        }
    }
}

pub(crate) fn now() -> u64 {
    SystemClock.now_ms()
}

/// A tmpfs mount, removed on drop.
pub(crate) struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    pub(crate) fn mount(mib: u32) -> Result<SmallDisk, String> {
        let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"]).arg(dir.path());
        match mount.output() {
            Ok(output) if output.status.success() => Ok(SmallDisk { dir }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
    /// Fills the disk except for `left` bytes; `None`: completely.
    pub(crate) fn fill(&self, left: Option<u64>) {
        let fs = rustix::fs::statvfs(self.path()).expect("statvfs");
        let len = (fs.f_bavail * fs.f_frsize).saturating_sub(left.unwrap_or(0));
        let file = File::create(self.path().join("filler")).expect("created");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, len).expect("filled");
    }
    pub(crate) fn free(&self) {
        std::fs::remove_file(self.path().join("filler")).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Pseudo-random numbers that are the same in every run (xorshift).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
