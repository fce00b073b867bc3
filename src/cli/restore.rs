//! `restore`: restores a backup into a new data directory.

use serde_json::json;

use super::args::RestoreArgs;
use super::backup::{ProgressBar, failed};
use super::exit::CliError;
use super::{archive, output};
use crate::store::{self, Until};

pub(super) fn run(args: &RestoreArgs) -> Result<(), CliError> {
    let from = archive::existing(&args.from)?;
    let mut bar = ProgressBar::default();
    let done = store::restore(from.dir(), &args.dir, args.until.unwrap_or(Until::End), &mut bar)
        .map_err(|error| from.named(failed(error)))?;
    drop(bar);
    output::line(&if args.json {
        json!({ "position": done.position, "rows": done.rows, "records": done.records }).to_string()
    } else {
        let store::Restored { rows, records, position } = done;
        let (rows, records) = (output::counted(rows, "row"), output::counted(records, "record"));
        format!("restored as of position {position}: {rows} and {records} of the journal after them")
    })
}
