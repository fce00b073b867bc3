//! What the store asks of the disk, one method a system call: the seam where tests make each of them fail.
//!
//! * Every default is the real call. A method does one thing, so that a test that fails its n-th call knows which that was.
//! * Calls may do less than they were asked for (short reads and writes), as the kernel may. Callers go on with the rest.
//! * It knows no file format.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::Errno;

/// Bytes of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Available to us.
    pub free: u64,
    /// In all.
    pub total: u64,
}

/// The disk as the store sees it; tests hand in one that fails.
#[doc(hidden)]
pub trait Io: Send + Sync {
    /// Asked before every batch is applied to the storage engine; an error is treated as the batch's.
    ///
    /// # Errors
    /// As the disk would.
    fn write(&self) -> io::Result<()> {
        Ok(())
    }
    /// `fdatasync`: the bytes of `file`, and its size where it grew.
    ///
    /// # Errors
    /// As the kernel gives it.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
    /// `fdatasync` of the storage engine's file.
    ///
    /// # Errors
    /// As the kernel gives it.
    fn sync_state(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
    /// `fsync`: the bytes of `file` and all that is known about it.
    ///
    /// # Errors
    /// As the kernel gives it.
    fn sync_all(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }
    /// `fsync` of the directory `dir`: the names in it.
    ///
    /// # Errors
    /// As the kernel gives it.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
    /// Room on the file system of `dir`.
    ///
    /// # Errors
    /// As `statvfs` gives it.
    fn space(&self, dir: &Path) -> io::Result<Space> {
        let fs = rustix::fs::statvfs(dir)?;
        Ok(Space {
            free: fs.f_bavail.saturating_mul(fs.f_frsize),
            total: fs.f_blocks.saturating_mul(fs.f_frsize),
        })
    }
    /// Creates `path` for reading and writing, for us alone, and empties it if it is there.
    ///
    /// # Errors
    /// As `open` gives it.
    fn create(&self, path: &Path) -> io::Result<File> {
        File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
    }
    /// Opens `path`, which must be there, for reading, and for writing where `writable` says so.
    ///
    /// # Errors
    /// As `open` gives it.
    fn open(&self, path: &Path, writable: bool) -> io::Result<File> {
        File::options().read(true).write(writable).open(path)
    }
    /// `pwritev`: writes `parts` one after the other from byte `at` of `file`; returns how many bytes it wrote.
    ///
    /// # Errors
    /// As the kernel gives it.
    fn write_at(&self, file: &File, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(file, parts, at)?)
    }
    /// `pread`: reads into `buf` from byte `at` of `file`; returns how many bytes it read, 0 at the end of the file.
    ///
    /// # Errors
    /// As the kernel gives it.
    fn read_at(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
        file.read_at(buf, at)
    }
    /// `posix_fadvise`: whether the kernel may read more of `file` than it is asked for. It may not where there is nothing yet: what it
    /// reads ahead of the end lies in large folios, which every later append would have to look through, and which
    /// [`Io::next_data`] takes for data. A hint, so it cannot fail.
    fn read_ahead(&self, file: &File, enabled: bool) {
        let advice = if enabled { Advice::Normal } else { Advice::Random };
        let _ = rustix::fs::fadvise(file, 0, None, advice);
    }
    /// `posix_fadvise`: drops what the kernel has of `file` in memory, but for what is not written yet.
    ///
    /// # Errors
    /// As the kernel gives it.
    fn drop_pages(&self, file: &File) -> io::Result<()> {
        Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?)
    }
    /// `lseek` for data: the first byte of `file` from `at` on that may be another than zero; `None` if there is none.
    ///
    /// # Errors
    /// As the kernel gives it.
    fn next_data(&self, file: &File, at: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at)), // a file system that does not know
            Err(error) => Err(error.into()),
        }
    }
    /// `fallocate`: takes room on the disk for the first `len` bytes of `file`, which is that long afterwards at least.
    ///
    /// # Errors
    /// As the kernel gives it; [`io::ErrorKind::Unsupported`] where the file system knows no such thing.
    fn allocate(&self, file: &File, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len)?)
    }
    /// `ftruncate`: makes `file` end at byte `len`.
    ///
    /// # Errors
    /// As the kernel gives it.
    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }
    /// Renames `from` to `to`, on the same file system.
    ///
    /// # Errors
    /// As the kernel gives it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    /// Unlinks the file `path`.
    ///
    /// # Errors
    /// As the kernel gives it.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// The real disk.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Disk;

impl Io for Disk {}
