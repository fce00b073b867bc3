//! `verify`: checks that a backup or a data directory is sound.

use serde_json::json;

use super::args::VerifyArgs;
use super::backup::{ProgressBar, failed};
use super::exit::{CliError, Exit};
use super::{archive, output};
use crate::config::Config;
use crate::store::{self, Verified};

pub(super) fn run(args: &VerifyArgs) -> Result<(), CliError> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => Config::load(&super::sources(&args.config, None)?)?.data_dir,
    };
    let mut bar = ProgressBar::default();
    let unpacked = archive::existing(&dir)?;
    let it = store::verify(unpacked.dir(), &mut bar).map_err(|error| unpacked.named(failed(error)))?;
    let problems: Vec<String> = it.problems.iter().map(|problem| unpacked.renamed(problem)).collect();
    drop(bar);
    output::line(&if args.json {
        json!({
            "backup": it.is_backup, "organizations": it.organizations, "segments": it.segments,
            "records": it.records, "rows": it.rows, "pieces": it.pieces, "events": it.events,
            "found": it.found, "problems": problems,
        })
        .to_string()
    } else {
        let checked = checked(&it);
        match it.found {
            0 if it.is_backup => format!("The backup is sound: {checked} checked."),
            0 => format!("The store is sound: {checked} checked."),
            _ => {
                let problems = problems.iter().map(|problem| output::plain(problem));
                problems.chain([format!("{checked} checked")]).collect::<Vec<_>>().join("\n")
            }
        }
    })?;
    match it.found {
        0 => Ok(()),
        found => {
            let what = format!("{} is not sound: {}", dir.display(), output::counted(found, "problem"));
            let hint =
                if it.is_backup { "use another backup" } else { "restore a backup into a new directory" };
            Err(CliError::new(Exit::Failed, what, hint))
        }
    }
}

/// What was looked at.
fn checked(it: &Verified) -> String {
    let [organizations, events, rows] =
        [(it.organizations, "organization"), (it.events, "event"), (it.rows, "row")]
            .map(|(number, thing)| output::counted(number, thing));
    format!("{organizations}, {events}, {rows}")
}
