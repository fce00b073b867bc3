//! `bench`: runs the load tester (the crate `nervewire-load`) and maps its result to an exit code.

use nervewire_load::{BenchError, Mode};

use super::exit::{CliError, Exit};
use super::output;

pub(super) fn run(mode: Mode) -> Result<(), CliError> {
    let outcome = nervewire_load::run(mode)?;
    output::line(&outcome.text)?;
    match outcome.passed {
        true => Ok(()),
        false => Err(CliError::new(Exit::Failed, "a bar was missed or a run failed; see above", "")),
    }
}

impl From<BenchError> for CliError {
    fn from(error: BenchError) -> Self {
        let exit = match &error {
            BenchError::Usage(_) => Exit::Usage,
            _ => Exit::Failed,
        };
        CliError::new(exit, error.to_string(), "")
    }
}
