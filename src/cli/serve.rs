//! `serve`: checks the whole configuration and passes it on.

use super::args::ServeArgs;
use super::exit::{CliError, Exit};
use crate::config::{Config, ServeOptions};

pub(super) fn prepare(args: ServeArgs) -> Result<(Config, ServeOptions), CliError> {
    let sources = super::sources(&args.config, Some(&args.listen))?;
    let config = Config::load(&sources)?;
    if let Some(addr) = args.diagnostic_echo
        && !addr.ip().is_loopback()
    {
        return Err(CliError::new(
            Exit::Usage,
            format!(
                "--diagnostic-echo {addr}: the echo has no authentication and is served only on loopback"
            ),
            "for example --diagnostic-echo 127.0.0.1:9001",
        ));
    }
    let options = ServeOptions {
        ready_file: args.ready_file,
        diagnostic_echo: args.diagnostic_echo,
        config_file: args.config.config,
        flags: sources.flags,
    };
    Ok((config, options))
}
