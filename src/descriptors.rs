//! How many descriptors this process may have open: its soft limit, which it may raise to the hard one by itself.

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
