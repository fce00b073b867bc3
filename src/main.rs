//! The `nervewire` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    nervewire::cli::main(std::env::args_os(), |_config, _options| ExitCode::from(69))
}
