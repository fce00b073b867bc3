//! Options of `serve` besides the configuration. They belong to one start; no file or variable sets them.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Config, ConfigError, FlagValue, Sources};

/// Options of `serve` besides the configuration.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// File to which `{"listen","admin_listen","pid"}` is written once the daemon serves.
    pub ready_file: Option<PathBuf>,
    /// Loopback address of the diagnostic echo server; `None` = off.
    pub diagnostic_echo: Option<SocketAddr>,
    /// The configuration file named on the command line.
    pub config_file: Option<PathBuf>,
    /// The command line flags that set keys.
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
