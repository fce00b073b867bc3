//! Asks before something is deleted that does not come back.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};

use super::outcome::{CliError, Exit};

/// Most bytes read of an answer.
const ANSWER_BYTES: u64 = 64;

/// Returns once `what`, a sentence without its full stop, may be done: `yes` was given, or somebody at a terminal agreed.
pub(super) fn confirm(what: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let hint = "nobody can be asked here: add --yes to do it without being asked";
        return Err(CliError::new(Exit::Usage, format!("{what}; nothing was deleted"), hint));
    }
    let _ = write!(io::stderr(), "{what}. Go on? [y/N] "); // without it the answer is No
    let mut answer = String::new();
    let read = io::stdin().lock().take(ANSWER_BYTES).read_line(&mut answer);
    match read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        true => Ok(()),
        false => Err(CliError::new(Exit::Failed, "nothing was deleted", "")),
    }
}
