//! Asks for confirmation before something is deleted permanently.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use super::exit::{CliError, Exit};

/// Maximum bytes read of an answer.
const ANSWER_BYTES: u64 = 64;

/// Returns `Ok` if `what`, a sentence without its full stop, may be done: `yes` was given, or a user at a
/// terminal agreed.
pub(super) fn confirm(what: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let hint = "there is no terminal to ask on: add --yes to skip the confirmation";
        return Err(CliError::new(Exit::Usage, format!("{what}; nothing was deleted"), hint));
    }
    let _ = write!(io::stderr(), "{what}. Continue? [y/N] "); // if this fails, no answer means No
    let mut answer = String::new();
    let read = io::stdin().lock().take(ANSWER_BYTES).read_line(&mut answer);
    match read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        true => Ok(()),
        false => Err(CliError::new(Exit::Failed, "nothing was deleted", "")),
    }
}
