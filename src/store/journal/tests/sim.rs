//! A disk for tests: real files, whose calls fail on demand, and a simulation of what a power cut would leave
//! of them.
//!
//! * Files hold what the kernel would show: everything that was written. In addition the simulation keeps
//!   what is durable, and the operations since, in order.
//! * A power cut keeps what is durable, any of the sectors that were written since, in any order, and changes
//!   of sizes and names up to some point, as a journalling file system does.
//! * After a failed sync, the kernel forgets what it could not write, still shows it, and reports no error
//!   the next time.
//! * It does not know the journal's format.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::io::Errno;

use crate::store::disk::{Disk, Io};
use crate::sync::Mutex;

/// The unit that is written completely or not at all.
const SECTOR: u64 = 512;

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It returns an error and does nothing.
    Errno(Errno),
    /// It returns an error after half of a write.
    Half(Errno),
    /// It does not fail, but writes or reads half as much as requested.
    Short,
}

/// Which calls fail.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    None,
    /// The n-th call from now on, counted from 0.
    Once(u64, How),
    /// The n-th call and all after it.
    From(u64, How),
    /// The next sync of a file.
    Sync(Errno),
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Len(u64),
}

#[derive(Default, Clone)]
struct Shadow {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Naming {
    Set(String, u64),
    Rename(String, String),
    Remove(String),
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Naming::Set(name, id) => drop(names.insert(name.clone(), *id)),
            Naming::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            Naming::Remove(name) => drop(names.remove(name)),
        }
    }
}

#[derive(Default)]
struct State {
    /// The file that each inode is now; inodes are reused.
    inodes: HashMap<u64, u64>,
    files: HashMap<u64, Shadow>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    namings: Vec<Naming>,
    /// Number of calls so far; the next field is the pending fault.
    calls: u64,
    fault: Option<(u64, Fault)>,
    /// Number of failed calls.
    failed: u64,
    /// Whether syncs do nothing and report success.
    lies: bool,
}

/// The disk.
#[derive(Default)]
pub(super) struct Sim(Mutex<State>);

impl Sim {
    /// A disk on which the contents of `dir` are durable.
    pub(super) fn over(dir: &Path) -> Sim {
        let sim = Sim::default();
        let mut state = sim.0.lock();
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            let file = File::open(&path).expect("open");
            let shadow = Shadow { durable: fs::read(&path).expect("readable"), pending: Vec::new() };
            let id = state.add(&file, shadow);
            state.durable_names.insert(name(&path), id);
        }
        state.names = state.durable_names.clone();
        drop(state);
        sim
    }

    pub(super) fn set_fault(&self, fault: Fault) {
        let mut state = self.0.lock();
        state.fault = Some((state.calls, fault));
    }

    pub(super) fn lie(&self) {
        self.0.lock().lies = true;
    }

    /// Number of failed calls.
    pub(super) fn failed(&self) -> u64 {
        self.0.lock().failed
    }

    /// Writes what a power cut leaves into the empty `dir`. `random` decides what of the pending operations
    /// reached the disk.
    pub(super) fn cut_power(&self, dir: &Path, random: &mut Random) {
        let state = self.0.lock();
        let mut names = state.durable_names.clone();
        let kept = random.below(state.namings.len() as u64 + 1) as usize;
        state.namings[..kept].iter().for_each(|naming| naming.apply(&mut names));
        for (name, id) in names {
            fs::write(dir.join(name), state.files[&id].torn(random)).expect("written");
        }
    }

    fn call(&self, is_sync: bool) -> io::Result<bool> {
        let mut state = self.0.lock();
        let now = state.calls;
        state.calls += 1;
        let fails = match state.fault {
            Some((since, Fault::Once(n, how))) if now == since + n => Some(how),
            Some((since, Fault::From(n, how))) if now >= since + n => Some(how),
            Some((_, Fault::Sync(errno))) if is_sync => {
                state.fault = None;
                Some(How::Errno(errno))
            }
            _ => None,
        };
        state.failed += u64::from(fails.is_some());
        match fails {
            Some(How::Errno(errno)) => Err(errno.into()),
            Some(How::Half(errno)) => Err(errno.into()),
            Some(How::Short) => Ok(true),
            None => Ok(false),
        }
    }

    fn fails_half(&self) -> bool {
        let state = self.0.lock();
        matches!(state.fault, Some((_, Fault::Once(_, How::Half(_)) | Fault::From(_, How::Half(_)))))
    }
}

impl State {
    fn add(&mut self, file: &File, shadow: Shadow) -> u64 {
        let id = self.files.len() as u64;
        self.inodes.insert(inode(file), id);
        self.files.insert(id, shadow);
        id
    }

    fn change(&mut self, file: &File, change: Change) {
        let id = self.inodes[&inode(file)];
        self.files.get_mut(&id).expect("known").pending.push(change);
    }
}

impl Shadow {
    fn apply(durable: &mut Vec<u8>, change: &Change, mut keeps: impl FnMut() -> bool) {
        match change {
            Change::Len(len) => durable.resize(*len as usize, 0),
            Change::Write(at, bytes) => {
                let (mut from, end) = (*at, at + bytes.len() as u64);
                while from < end {
                    let to = end.min((from / SECTOR + 1) * SECTOR);
                    if keeps() {
                        if (durable.len() as u64) < to {
                            durable.resize(to as usize, 0);
                        }
                        let part = &bytes[(from - at) as usize..(to - at) as usize];
                        durable[from as usize..to as usize].copy_from_slice(part);
                    }
                    from = to;
                }
            }
        }
    }

    fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            Shadow::apply(&mut self.durable, &change, || true);
        }
    }

    fn torn(&self, random: &mut Random) -> Vec<u8> {
        let mut durable = self.durable.clone();
        let sizes = self.pending.iter().filter(|change| matches!(change, Change::Len(_))).count();
        let (mut sizes, luck) = (random.below(sizes as u64 + 1), random.below(4));
        for change in &self.pending {
            match change {
                Change::Len(_) if sizes == 0 => {}
                Change::Len(_) => {
                    sizes -= 1;
                    Shadow::apply(&mut durable, change, || true);
                }
                // Any part of it, from nothing to all.
                Change::Write(..) => Shadow::apply(&mut durable, change, || random.below(3) < luck),
            }
        }
        durable
    }
}

fn inode(file: &File) -> u64 {
    file.metadata().expect("metadata").ino()
}

fn name(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned()
}

impl Io for Sim {
    fn sync(&self, file: &File) -> io::Result<()> {
        let result = self.call(true);
        let mut state = self.0.lock();
        let id = state.inodes[&inode(file)];
        let lies = state.lies;
        let shadow = state.files.get_mut(&id).expect("known");
        match &result {
            Ok(_) if lies => {}
            Ok(_) => shadow.sync(),
            Err(_) => shadow.pending.retain(|change| matches!(change, Change::Len(_))),
        }
        result.map(|_| ())
    }
    fn sync_all(&self, file: &File) -> io::Result<()> {
        self.sync(file)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(true)?;
        let mut state = self.0.lock();
        if !state.lies && dir.ends_with("journal") {
            state.namings.clear();
            state.durable_names = state.names.clone();
        }
        Ok(())
    }
    fn create(&self, path: &Path) -> io::Result<File> {
        self.call(false)?;
        let mut state = self.0.lock();
        let is_there = state.names.contains_key(&name(path));
        let file = Disk.create(path)?;
        if is_there {
            state.change(&file, Change::Len(0));
        } else {
            let naming = Naming::Set(name(path), state.add(&file, Shadow::default()));
            naming.apply(&mut state.names);
            state.namings.push(naming);
        }
        Ok(file)
    }
    fn open(&self, path: &Path, writable: bool) -> io::Result<File> {
        self.call(false)?;
        Disk.open(path, writable)
    }
    fn write_at(&self, file: &File, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let result = self.call(false);
        match &result {
            Ok(true) => bytes.truncate(bytes.len().div_ceil(2)),
            Ok(false) => {}
            Err(_) if self.fails_half() => bytes.truncate(bytes.len() / 2),
            Err(_) => bytes.clear(),
        }
        file.write_all_at(&bytes, at)?;
        let len = bytes.len();
        if len > 0 {
            self.0.lock().change(file, Change::Write(at, bytes));
        }
        result.map(|_| len)
    }
    fn read_at(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
        let is_short = self.call(false)?;
        let len = if is_short { buf.len().div_ceil(2) } else { buf.len() };
        Disk.read_at(file, &mut buf[..len], at)
    }
    fn next_data(&self, file: &File, at: u64) -> io::Result<Option<u64>> {
        self.call(false)?;
        Disk.next_data(file, at)
    }
    fn allocate(&self, file: &File, len: u64) -> io::Result<()> {
        self.call(false)?;
        Disk.allocate(file, len)?;
        let len = file.metadata()?.len();
        self.0.lock().change(file, Change::Len(len));
        Ok(())
    }
    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.call(false)?;
        self.0.lock().change(file, Change::Len(len));
        Disk.truncate(file, len)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(false)?;
        let naming = Naming::Rename(name(from), name(to));
        let mut state = self.0.lock();
        naming.apply(&mut state.names);
        state.namings.push(naming);
        Disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.call(false)?;
        Disk.remove(path)?;
        let naming = Naming::Remove(name(path));
        let mut state = self.0.lock();
        naming.apply(&mut state.names);
        state.namings.push(naming);
        Ok(())
    }
}

/// A random generator (xorshift) that gives the same numbers in every run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end.max(1)
    }
}
