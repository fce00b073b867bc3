//! A disk where one call fails, and which knows what would be on it after a power cut.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use nervewire::store::{Disk, Io, Space};
use nervewire::sync::Mutex;

/// The kind of a system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    Write,
    Sync,
    SyncState,
    SyncAll,
    SyncDir,
    Space,
    Create,
    Open,
    WriteAt,
    ReadAt,
    Allocate,
    Truncate,
    Rename,
    Remove,
}

pub(crate) const CALLS: [Call; 14] = [
    Call::Write,
    Call::Sync,
    Call::SyncState,
    Call::SyncAll,
    Call::SyncDir,
    Call::Space,
    Call::Create,
    Call::Open,
    Call::WriteAt,
    Call::ReadAt,
    Call::Allocate,
    Call::Truncate,
    Call::Rename,
    Call::Remove,
];

/// The kind of failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// `EIO`, once.
    Eio,
    /// `ENOSPC` from then on, until the disk is healed.
    Full,
    /// Half of the bytes, once.
    Short,
    /// Half of the bytes, then `ENOSPC`.
    ShortThenFull,
    /// Half of the bytes, then `EIO` at the next call.
    ShortThenEio,
    /// From then on, the call does nothing and reports success.
    Lie,
}

/// The files that would exist after a power cut.
#[derive(Default)]
struct Durable {
    /// File contents by inode.
    files: HashMap<u64, Vec<u8>>,
    /// The names in the journal.
    names: BTreeMap<String, u64>,
    /// The files of the state.
    state: BTreeMap<String, Vec<u8>>,
}

/// The disk.
#[derive(Default)]
pub(crate) struct Saboteur {
    plan: Option<(Call, Fault, u64)>,
    counts: [AtomicU64; CALLS.len()],
    tripped: AtomicBool,
    healed: AtomicBool,
    durable: Mutex<Durable>,
}

fn error(errno: rustix::io::Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw_os_error())
}

fn content(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).expect("small")];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

impl Saboteur {
    /// A disk whose `n`-th call of a kind fails, counted from 1.
    pub(crate) fn with(call: Call, fault: Fault, n: u64) -> Saboteur {
        Saboteur { plan: Some((call, fault, n)), ..Saboteur::default() }
    }

    pub(crate) fn count(&self, call: Call) -> u64 {
        self.counts[call as usize].load(SeqCst)
    }

    pub(crate) fn has_tripped(&self) -> bool {
        self.tripped.load(SeqCst)
    }

    /// No further call fails from now on. Failures that have happened stay, and so does `Lie`.
    pub(crate) fn heal(&self) {
        if self.has_tripped() {
            self.healed.store(true, SeqCst);
        }
    }

    pub(crate) fn lies(&self) -> bool {
        self.plan.is_some_and(|(_, fault, _)| fault == Fault::Lie)
    }

    /// Counts a call. Returns its failure, if any.
    fn meet(&self, call: Call) -> Option<Fault> {
        let n = self.counts[call as usize].fetch_add(1, SeqCst) + 1;
        let (_, fault, at) = self.plan.filter(|(planned, _, _)| *planned == call)?;
        let lasts = match fault {
            Fault::Eio | Fault::Short => n == at,
            Fault::Full | Fault::ShortThenFull => n >= at && !self.healed.load(SeqCst),
            Fault::ShortThenEio => n == at || n == at + 1,
            Fault::Lie => n >= at,
        };
        if !lasts {
            return None;
        }
        self.tripped.store(true, SeqCst);
        Some(match (fault, n == at) {
            (Fault::ShortThenFull | Fault::ShortThenEio, true) => Fault::Short,
            (Fault::ShortThenFull, false) => Fault::Full,
            (Fault::ShortThenEio, false) => Fault::Eio,
            _ => fault,
        })
    }

    /// The error of a call that cannot be done in part.
    fn whole(&self, call: Call) -> io::Result<Option<Fault>> {
        match self.meet(call) {
            Some(Fault::Eio) => Err(error(rustix::io::Errno::IO)),
            Some(Fault::Full) => Err(error(rustix::io::Errno::NOSPC)),
            other => Ok(other),
        }
    }

    fn synced(&self, file: &File) -> io::Result<()> {
        let bytes = content(file)?;
        self.durable.lock().files.insert(file.metadata()?.ino(), bytes);
        Ok(())
    }

    /// Creates a data directory with what the disk would hold after a power cut now.
    pub(crate) fn lose_power(&self, to: &Path) {
        let durable = self.durable.lock();
        for part in ["journal", "log"] {
            fs::create_dir_all(to.join(part)).expect("made");
        }
        for (name, inode) in &durable.names {
            let bytes = durable.files.get(inode).cloned().unwrap_or_default();
            fs::write(to.join("journal").join(name), bytes).expect("written");
        }
        for (name, bytes) in &durable.state {
            fs::write(to.join("log").join(name), bytes).expect("written");
        }
    }
}

impl Io for Saboteur {
    fn write(&self) -> io::Result<()> {
        self.whole(Call::Write).map(drop)
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        match self.whole(Call::Sync)? {
            Some(_) => Ok(()),
            None => file.sync_data().and_then(|()| self.synced(file)),
        }
    }
    fn sync_state(&self, file: &File) -> io::Result<()> {
        if self.whole(Call::SyncState)?.is_some() {
            return Ok(());
        }
        file.sync_data()?;
        let path = fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)))?;
        let mut state = BTreeMap::new();
        for entry in fs::read_dir(path.parent().expect("a directory"))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                state.insert(entry.file_name().into_string().expect("UTF-8"), fs::read(entry.path())?);
            }
        }
        self.durable.lock().state = state;
        Ok(())
    }
    fn sync_all(&self, file: &File) -> io::Result<()> {
        match self.whole(Call::SyncAll)? {
            Some(_) => Ok(()),
            None => file.sync_all().and_then(|()| self.synced(file)),
        }
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.whole(Call::SyncDir)?.is_some() {
            return Ok(());
        }
        // Locked, because an older listing of another thread must not replace a newer one.
        let mut durable = self.durable.lock();
        Disk.sync_dir(dir)?;
        if dir.ends_with("journal") {
            let mut names = BTreeMap::new();
            for entry in fs::read_dir(dir)? {
                let entry = entry?;
                names.insert(entry.file_name().into_string().expect("UTF-8"), entry.metadata()?.ino());
            }
            durable.names = names;
        }
        Ok(())
    }
    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.whole(Call::Space)?;
        Disk.space(dir)
    }
    fn create(&self, path: &Path) -> io::Result<File> {
        self.whole(Call::Create)?;
        Disk.create(path)
    }
    fn open(&self, path: &Path, writable: bool) -> io::Result<File> {
        self.whole(Call::Open)?;
        Disk.open(path, writable)
    }
    fn write_at(&self, file: &File, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        match self.whole(Call::WriteAt)? {
            None => Disk.write_at(file, parts, at),
            Some(_) => {
                let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
                let half = all.len().div_ceil(2);
                Disk.write_at(file, &[IoSlice::new(&all[..half])], at)
            }
        }
    }
    fn read_at(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let len = match self.whole(Call::ReadAt)? {
            None => buf.len(),
            Some(_) => buf.len().div_ceil(2),
        };
        Disk.read_at(file, &mut buf[..len], at)
    }
    fn allocate(&self, file: &File, len: u64) -> io::Result<()> {
        self.whole(Call::Allocate)?;
        Disk.allocate(file, len)
    }
    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.whole(Call::Truncate)?;
        Disk.truncate(file, len)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.whole(Call::Rename)?;
        Disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.whole(Call::Remove)?;
        Disk.remove(path)
    }
}
