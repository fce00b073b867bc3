//! What `serve` is told beside the configuration: facts of one start, which no file or variable sets.

use std::net::SocketAddr;
use std::path::PathBuf;

/// What `serve` is told beside the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServeOptions {
    /// File to write `{"listen","admin_listen","pid"}` to, once it serves.
    pub ready_file: Option<PathBuf>,
    /// Loopback address of the diagnostic echo; `None` = off.
    pub diagnostic_echo: Option<SocketAddr>,
}
