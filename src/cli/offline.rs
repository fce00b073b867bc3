//! Administration of a stopped daemon, on its data directory.
//!
//! The seam to store and auth: until those are plugged in, each function says that it needs a running daemon.

use super::backend::AdminBackend;
use super::outcome::{CliError, Exit};
use crate::config::Config;

/// What `init` made.
pub(super) struct Initialized {
    pub(super) org_id: String,
    pub(super) key_id: String,
    /// Shown once.
    pub(super) api_key: String,
}

/// What `compact` did, in bytes of the store's file.
pub(super) struct Compacted {
    pub(super) bytes_before: u64,
    pub(super) bytes_after: u64,
}

/// Takes the data directory, for as long as the result lives.
pub(super) fn open(config: &Config) -> Result<Box<dyn AdminBackend>, CliError> {
    Err(unplugged(config))
}

/// Makes the store, its first organization and key.
pub(super) fn init(config: &Config) -> Result<Initialized, CliError> {
    Err(unplugged(config))
}

/// Rewrites the store.
pub(super) fn compact(config: &Config) -> Result<Compacted, CliError> {
    Err(unplugged(config))
}

/// The error for a data directory that a daemon holds.
#[expect(dead_code, reason = "for the store, once it is plugged in")]
pub(super) fn in_use(config: &Config) -> CliError {
    CliError::new(
        Exit::DataDirInUse,
        format!("a daemon is using {}", config.data_dir.display()),
        "ask that daemon: give --url and --key (or NERVEWIRE_URL and NERVEWIRE_KEY), or stop it first",
    )
}

fn unplugged(config: &Config) -> CliError {
    let message = format!("cannot work on {} without a daemon yet", config.data_dir.display());
    CliError::new(Exit::Unavailable, message, "start the daemon and give --url and --key")
}
