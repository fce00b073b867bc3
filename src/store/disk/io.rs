//! The store's disk operations, one method for each system call. Tests replace it to make each call fail.
//!
//! * Every default is the real call. A method makes one call, so a test that fails the n-th call knows which
//!   one it was.
//! * Calls may do less than requested (short reads and writes), as the kernel may. Callers continue with the
//!   rest.
//! * This module knows no file format.

use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Advice, FallocateFlags, SeekFrom};
use rustix::io::Errno;

/// Size of a file system, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Bytes available to this process.
    pub free: u64,
    /// Total bytes.
    pub total: u64,
}

/// The disk as the store sees it. Tests provide one that fails.
#[doc(hidden)]
pub trait Io: Send + Sync {
    /// Called before every batch is applied to the storage engine. An error fails the batch.
    ///
    /// # Errors
    /// Any error that a disk could return.
    fn write(&self) -> io::Result<()> {
        Ok(())
    }
    /// `fdatasync`: makes the bytes of `file` durable, and its size if it grew.
    ///
    /// # Errors
    /// The error of the system call.
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
    /// `fdatasync` of the storage engine's file.
    ///
    /// # Errors
    /// The error of the system call.
    fn sync_state(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
    /// `fsync`: makes the bytes and all metadata of `file` durable.
    ///
    /// # Errors
    /// The error of the system call.
    fn sync_all(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }
    /// `fsync` of the directory `dir`: makes its entries durable.
    ///
    /// # Errors
    /// The error of the system call.
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }
    /// `statvfs`: the size and free space of the file system of `dir`.
    ///
    /// # Errors
    /// The error of the system call.
    fn space(&self, dir: &Path) -> io::Result<Space> {
        let fs = rustix::fs::statvfs(dir)?;
        Ok(Space {
            free: fs.f_bavail.saturating_mul(fs.f_frsize),
            total: fs.f_blocks.saturating_mul(fs.f_frsize),
        })
    }
    /// Creates `path` for reading and writing with access for this user only, and truncates an existing file.
    ///
    /// # Errors
    /// The error of the system call.
    fn create(&self, path: &Path) -> io::Result<File> {
        File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
    }
    /// Opens the existing file `path` for reading, and also for writing if `writable` is true.
    ///
    /// # Errors
    /// The error of the system call.
    fn open(&self, path: &Path, writable: bool) -> io::Result<File> {
        File::options().read(true).write(writable).open(path)
    }
    /// `pwritev`: writes `parts` one after the other at byte `at` of `file`. Returns the number of bytes
    /// written.
    ///
    /// # Errors
    /// The error of the system call.
    fn write_at(&self, file: &File, parts: &[IoSlice<'_>], at: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(file, parts, at)?)
    }
    /// `pread`: reads into `buf` from byte `at` of `file`. Returns the number of bytes read, 0 at the end of
    /// the file.
    ///
    /// # Errors
    /// The error of the system call.
    fn read_at(&self, file: &File, buf: &mut [u8], at: u64) -> io::Result<usize> {
        file.read_at(buf, at)
    }
    /// `posix_fadvise`: sets whether the kernel may read ahead in `file`. It must not where no data was
    /// written yet: pages read beyond the end are in large folios, which every later append would have to
    /// search, and which [`Io::next_data`] takes for data. This is a hint, so it cannot fail.
    fn read_ahead(&self, file: &File, enabled: bool) {
        let advice = if enabled { Advice::Normal } else { Advice::Random };
        let _ = rustix::fs::fadvise(file, 0, None, advice);
    }
    /// `posix_fadvise`: drops the kernel's cached pages of `file`, except unwritten ones.
    ///
    /// # Errors
    /// The error of the system call.
    fn drop_pages(&self, file: &File) -> io::Result<()> {
        Ok(rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?)
    }
    /// `lseek` with `SEEK_DATA`: the first byte of `file` from `at` on that may be non-zero; `None` if there
    /// is none.
    ///
    /// # Errors
    /// The error of the system call.
    fn next_data(&self, file: &File, at: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => Ok(Some(data)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at)), // the file system does not support it
            Err(error) => Err(error.into()),
        }
    }
    /// `fallocate`: reserves disk space for the first `len` bytes of `file`. The file is at least that long
    /// afterwards.
    ///
    /// # Errors
    /// The error of the system call; [`io::ErrorKind::Unsupported`] if the file system does not support it.
    fn allocate(&self, file: &File, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len)?)
    }
    /// `ftruncate`: sets the length of `file` to `len` bytes.
    ///
    /// # Errors
    /// The error of the system call.
    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }
    /// `rename`: renames `from` to `to` on the same file system.
    ///
    /// # Errors
    /// The error of the system call.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    /// `unlink`: removes the file `path`.
    ///
    /// # Errors
    /// The error of the system call.
    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
}

/// The real disk.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Disk;

impl Io for Disk {}
