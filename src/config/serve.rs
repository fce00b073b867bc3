//! What `serve` is told beside the configuration: facts of one start, which no file or variable sets.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Config, ConfigError, FlagValue, Sources};

/// What `serve` is told beside the configuration.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// File to write `{"listen","admin_listen","pid"}` to, once it serves.
    pub ready_file: Option<PathBuf>,
    /// Loopback address of the diagnostic echo; `None` = off.
    pub diagnostic_echo: Option<SocketAddr>,
    /// The file named on the command line, if one was.
    pub config_file: Option<PathBuf>,
    /// The flags of this start that set keys.
    pub flags: Vec<FlagValue>,
}

impl ServeOptions {
    /// Reads file, environment and flags again, as at the start.
    ///
    /// # Errors
    /// As [`Sources::read`] and [`Config::load`].
    pub fn reload(&self) -> Result<Config, ConfigError> {
        Config::load(&Sources::read(self.config_file.as_deref(), self.flags.clone())?)
    }
}
