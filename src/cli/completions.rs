//! `completions`: prints a completion script for a shell.

use clap::CommandFactory as _;

use super::args::Cli;
use super::exit::CliError;
use super::output;

pub(super) fn run(shell: clap_complete::Shell) -> Result<(), CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "nervewire", &mut script);
    output::raw(&script)
}
