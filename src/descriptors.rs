//! The limit of open file descriptors: the soft limit, which a process may raise to the hard limit itself.
//! Also a check whether standard output is discarded.

use std::os::unix::fs::MetadataExt as _;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard limit.
///
/// # Errors
/// The system refuses; then the limit stays as it was.
pub fn raise() -> std::io::Result<()> {
    let most = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?)
}

/// Returns the limit; `u64::MAX` means that there is none.
#[must_use]
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Returns true if standard output is `/dev/null`. A closed standard output becomes that before `main`.
#[must_use]
pub fn stdout_is_discarded() -> bool {
    let device = |path: &str| std::fs::metadata(path).ok().map(|it| it.rdev()).filter(|device| *device != 0);
    device("/dev/null").is_some_and(|null| device("/proc/self/fd/1") == Some(null))
}
