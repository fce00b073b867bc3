//! `stream`: writes standard input to an LLM stream as it comes, or reads a stream.

mod read;
mod utf8;
mod write;

use nervewire_client::StreamFailure;

use super::args::StreamArgs;
use super::exit::{CliError, Exit};
use super::{non_empty, rest};

pub(super) fn run(args: &StreamArgs) -> Result<(), CliError> {
    let client = rest::client(non_empty(&args.remote.url), non_empty(&args.remote.key))?;
    let runtime = rest::runtime()?;
    match &args.read {
        Some(request_id) => runtime.block_on(read::read(&client, request_id, args)),
        None => runtime.block_on(write::write(&client, args)),
    }
}

/// Returns the error for a stream that did not complete.
fn not_completed(exit: Exit, what: &str, failure: Option<StreamFailure>) -> CliError {
    let message = match failure {
        Some(failure) if exit == Exit::StreamFailed => {
            format!("{what}: {}: {}", failure.code, failure.message)
        }
        // The daemon's message without a reason is `what` again.
        Some(failure) if failure.message != what => format!("{what}: {}", failure.message),
        _ => what.to_owned(),
    };
    CliError::new(exit, message, "")
}
