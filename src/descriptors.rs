//! How many descriptors this process may have open: its soft limit, which it may raise to the hard one by itself. And whether
//! standard output leads anywhere.

use std::os::unix::fs::MetadataExt as _;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as it goes.
///
/// # Errors
/// The system refuses; then the limit stays as it was.
pub fn raise() -> std::io::Result<()> {
    let most = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?)
}

/// The limit; `u64::MAX`: there is none.
#[must_use]
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Whether what is written to standard output is thrown away: it is `/dev/null`, which a closed one becomes before `main`.
#[must_use]
pub fn stdout_is_discarded() -> bool {
    let device = |path: &str| std::fs::metadata(path).ok().map(|it| it.rdev()).filter(|device| *device != 0);
    device("/dev/null").is_some_and(|null| device("/proc/self/fd/1") == Some(null))
}
