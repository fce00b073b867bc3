//! The command line: `nervewire <command>`.
//!
//! * A command reads its flags, does one thing, prints results to standard output and everything else to standard error.
//! * How it ended is a [`CliError`] or nothing; `outcome.rs` alone turns that into an exit code.
//! * Administration goes through [`AdminBackend`]: REST where `--url` or `--key` is given, else the data directory.
//!
//! It does not know how the daemon works: `main` passes in what `serve` runs.

pub mod args;
mod backend;
pub mod bench;
pub mod bench_publish;
pub mod bench_tenants;
mod check_config;
mod compact;
mod completions;
mod connections;
mod init;
mod key;
mod offline;
mod org;
mod outcome;
mod output;
mod parse;
mod publish;
mod rest;
mod serve;
mod stats;
mod tail;
mod token;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

use crate::config::ServeOptions;
use crate::config::{Config, FlagValue, Sources};
use args::{AdminArgs, Cli, Command, ConfigArgs, ListenArgs};
pub use backend::{
    AdminBackend, CreatedKey, Grant, KeyInfo, MintedToken, NewKey, NewOrganization, NewToken, Organization,
};
pub use outcome::{CliError, Exit};

/// What `serve` runs: blocks until the daemon has ended.
pub type Serve = fn(Config, ServeOptions) -> ExitCode;

/// Does what `arguments` (the program's name first) ask for.
pub fn main(arguments: impl IntoIterator<Item = OsString>, serve: Serve) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS };
            // A closed pipe, most likely; the code says the same either way.
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
        Command::Connections(command) => connections::run(command),
        Command::Stats(args) => stats::run(&args),
        Command::Bench(command) => bench::run(*command),
        Command::CheckConfig(args) => check_config::run(&args),
        Command::Compact(args) => compact::run(&args),
        Command::Completions { shell } => completions::run(shell),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::tell(&error);
            error.exit_code()
        }
    }
}

/// File, environment and these flags.
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
    Ok(Sources::read(config.config.as_deref(), flags)?)
}

/// A flag or variable that says something: an empty variable counts as absent.
fn given(value: &Option<String>) -> Option<&str> {
    value.as_deref().map(str::trim).filter(|value| !value.is_empty())
}

/// Who does the administration these flags ask for.
fn backend(admin: &AdminArgs) -> Result<Box<dyn AdminBackend>, CliError> {
    let (url, key) = (given(&admin.url), given(&admin.key));
    if url.is_some() || key.is_some() {
        return Ok(Box::new(rest::Rest::new(url, key)?));
    }
    offline::open(&Config::load(&sources(&admin.config, None)?)?)
}

#[cfg(test)]
mod tests;
