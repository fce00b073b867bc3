//! The lock of a data directory: only one process may use it. The kernel releases the lock when its holder
//! dies.

use std::fs::{File, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::open_error::OpenError;
use crate::store::disk::private_dir;

/// The file that marks a data directory with an unfinished restore.
pub(crate) const UNFINISHED: &str = "restoring";

/// The acquired lock of a data directory. Dropping it releases the lock.
#[derive(Debug)]
pub(crate) struct DirLock {
    file: File,
}

impl Drop for DirLock {
    /// Unlocks explicitly: a child process that was forked and has not yet executed its program has a copy of
    /// the file, which would hold the lock a moment longer.
    fn drop(&mut self) {
        let _ = rustix::fs::flock(&self.file, rustix::fs::FlockOperation::Unlock);
    }
}

/// Why the lock could not be acquired.
#[derive(Debug)]
pub(crate) enum LockError {
    /// Another process holds the lock; its process id, if it could be read.
    Held(Option<u32>),
    Io(io::Error),
}

impl DirLock {
    /// Acquires the lock and writes this process's id into the lock file.
    pub(crate) fn take(dir: &Path) -> Result<DirLock, LockError> {
        let open = || -> io::Result<File> {
            let file =
                File::options().read(true).write(true).create(true).truncate(false).open(dir.join("lock"))?;
            file.set_permissions(Permissions::from_mode(0o600))?;
            Ok(file)
        };
        let mut file = open().map_err(LockError::Io)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut text = String::new();
                let read = file.take(32).read_to_string(&mut text);
                return Err(LockError::Held(read.ok().and_then(|_| text.trim().parse().ok())));
            }
            Err(error) => return Err(LockError::Io(error.into())),
        }
        let mut sign = || -> io::Result<()> {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        // On a full disk the lock is valid without the process id. The store reports what is wrong with the
        // disk.
        if let Err(error) = sign() {
            tracing::debug!(%error, "the process id could not be written to the lock file");
        }
        Ok(DirLock { file })
    }
}

/// Acquires the lock of a data directory, which is created if absent. A directory with an unfinished restore
/// is refused.
pub(crate) fn take_lock(dir: &Path) -> Result<DirLock, OpenError> {
    let lock = lock_any(dir)?;
    match dir.join(UNFINISHED).exists() {
        true => Err(OpenError::Unfinished { dir: dir.to_owned() }),
        false => Ok(lock),
    }
}

/// [`take_lock`] of a directory in any state.
pub(crate) fn lock_any(dir: &Path) -> Result<DirLock, OpenError> {
    private_dir(dir).map_err(|error| OpenError::io(dir, &error))?;
    DirLock::take(dir).map_err(|error| match error {
        LockError::Held(pid) => OpenError::InUse { dir: dir.to_owned(), pid },
        LockError::Io(error) => OpenError::io(dir, &error),
    })
}
