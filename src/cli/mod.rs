//! The command line: `nervewire <command>`.
//!
//! * A command reads its flags, does one thing, and prints results to standard output and everything else to
//!   standard error.
//! * A command ends with a [`CliError`] or with nothing. Only `exit.rs` turns that into an exit code.
//! * Administration uses [`AdminBackend`]: REST if an address or a key is given, else the data directory.
//!
//! This module does not know how the daemon works: `main` passes in the function that `serve` runs.

mod archive;
pub mod args;
mod backend;
mod backup;
mod bench;
mod check_config;
mod compact;
mod completions;
mod confirm;
mod connections;
mod event_args;
mod exit;
mod init;
mod key;
mod offline;
mod org;
mod output;
mod parse;
mod publish;
mod remote_args;
mod rest;
mod restore;
mod serve;
mod stats;
mod stream;
mod stream_args;
mod tail;
mod token;
mod verify;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use crate::config::ServeOptions;
use crate::config::{Config, FlagValue, Sources};
use args::{AdminArgs, Cli, Command, ConfigArgs, ListenArgs};
pub use backend::{
    AdminBackend, CreatedKey, Grant, KeyInfo, MintedToken, NewKey, NewOrganization, NewToken, Organization,
};
pub use exit::{CliError, Exit};

/// The function that `serve` runs. It blocks until the daemon has ended.
pub type Serve = fn(Config, ServeOptions) -> ExitCode;

/// Runs the command that `arguments` (with the program's name first) name.
pub fn main(arguments: impl IntoIterator<Item = OsString>, serve: Serve) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
            // Printing most likely failed because the pipe is closed. The exit code is the same in both
            // cases.
            let _ = error.print();
            return code;
        }
    };
    let done = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => match serve::prepare(args) {
            Ok((config, options)) => return serve(config, options),
            Err(error) => Err(error),
        },
        Command::Init(args) => init::run(&args),
        Command::Org(command) => org::run(command),
        Command::Key(command) => key::run(command),
        Command::Token(args) => token::run(args),
        Command::Publish(args) => publish::run(*args),
        Command::Tail(args) => tail::run(&args),
        Command::Stream(args) => stream::run(&args),
        Command::Connections(command) => connections::run(command),
        Command::Stats(args) => stats::run(&args),
        Command::Bench(command) => bench::run(*command),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::Compact(args) => compact::run(&args),
        Command::Backup(args) => backup::run(&args),
        Command::Restore(args) => restore::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Completions { shell } => completions::run(shell),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::report_failure(&error);
            error.exit_code()
        }
    }
}

/// Collects the sources of the configuration: file, environment and these flags.
fn sources(config: &ConfigArgs, listen: Option<&ListenArgs>) -> Result<Sources, CliError> {
    let mut flags = Vec::new();
    let mut flag = |flag, key, values: &[String]| {
        if !values.is_empty() {
            flags.push(FlagValue { flag, key, values: values.to_vec() });
        }
    };
    flag("--data-dir", "data_dir", config.data_dir.as_slice());
    if let Some(listen) = listen {
        flag("--listen", "listen", &listen.listen);
        flag("--admin-listen", "admin_listen", listen.admin_listen.as_slice());
    }
    let variable = std::env::var_os("NERVEWIRE_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
    Ok(Sources::read(config.config.as_deref().or(variable.as_deref()), flags)?)
}

/// Returns the value of a flag or variable. An empty variable counts as absent.
fn non_empty(value: &Option<String>) -> Option<&str> {
    value.as_deref().map(str::trim).filter(|value| !value.is_empty())
}

/// Returns the backend that these flags select. A flag overrides a variable: `--data-dir` selects the data
/// directory even if `NERVEWIRE_KEY` is set.
fn backend(admin: &AdminArgs) -> Result<Box<dyn AdminBackend>, CliError> {
    let remote = [("--url", admin.url.as_deref()), ("--key", admin.key.as_deref())];
    let local =
        [("--data-dir", admin.config.data_dir.is_some()), ("--config", admin.config.config.is_some())];
    let local = local.into_iter().find_map(|(flag, is_given)| is_given.then_some(flag));
    for (flag, value) in remote {
        let Some(value) = value else { continue };
        if let Some(local) = local {
            let what = format!("{local} and {flag} cannot be used together");
            let hint = format!(
                "give {flag} to use a running daemon, or {local} to work on the data directory of a stopped one"
            );
            return Err(CliError::new(Exit::Usage, what, hint));
        }
        if value.trim().is_empty() {
            let hint = format!("check that the variable it is taken from is set, or leave out {flag}");
            return Err(CliError::new(Exit::Usage, format!("{flag} is empty"), hint));
        }
    }
    let variable = |name: &str| std::env::var(name).ok().filter(|_| local.is_none());
    let url = admin.url.clone().or_else(|| variable("NERVEWIRE_URL"));
    let key = admin.key.clone().or_else(|| variable("NERVEWIRE_KEY"));
    match (non_empty(&url), non_empty(&key)) {
        (None, None) => offline::open(&Config::load(&sources(&admin.config, None)?)?),
        (url, key) => Ok(Box::new(rest::Rest::new(url, key)?)),
    }
}

#[cfg(test)]
mod tests;
