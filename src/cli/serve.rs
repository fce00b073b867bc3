//! `serve`: proves the configuration whole and hands it on.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::args::ServeArgs;
use super::outcome::{CliError, Exit};
use crate::config::Config;

/// What `serve` is told beside the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServeOptions {
    /// File to write `{"listen","admin_listen","pid"}` to, once it serves.
    pub ready_file: Option<PathBuf>,
    /// Loopback address of the diagnostic echo; `None` = off.
    pub diagnostic_echo: Option<SocketAddr>,
}

pub(super) fn prepare(args: ServeArgs) -> Result<(Config, ServeOptions), CliError> {
    let config = Config::load(&super::sources(&args.config, Some(&args.listen))?)?;
    if let Some(addr) = args.diagnostic_echo
        && !addr.ip().is_loopback()
    {
        return Err(CliError::new(
            Exit::Usage,
            format!("--diagnostic-echo {addr}: the echo answers anyone and is served on loopback only"),
            "for example --diagnostic-echo 127.0.0.1:9001",
        ));
    }
    Ok((config, ServeOptions { ready_file: args.ready_file, diagnostic_echo: args.diagnostic_echo }))
}
