//! `verify`: checks that a backup or a data directory is sound.

use serde_json::json;

use super::args::VerifyArgs;
use super::backup::{Bar, failed};
use super::outcome::{CliError, Exit};
use super::{archive, output};
use crate::config::Config;
use crate::store;

pub(super) fn run(args: &VerifyArgs) -> Result<(), CliError> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => Config::load(&super::sources(&args.config, None)?)?.data_dir,
    };
    let mut bar = Bar::default();
    let unpacked = archive::existing(&dir)?;
    let it = store::verify(unpacked.dir(), &mut bar).map_err(failed)?;
    drop(bar);
    output::line(&if args.json {
        json!({
            "backup": it.is_backup, "segments": it.segments, "records": it.records, "rows": it.rows,
            "pieces": it.pieces, "events": it.events, "found": it.found, "problems": it.problems,
        })
        .to_string()
    } else {
        let mut lines = vec![format!(
            "{} segments, {} records, {} rows, {} pieces with {} events",
            it.segments, it.records, it.rows, it.pieces, it.events
        )];
        lines.extend(it.problems.iter().map(|problem| output::plain(problem)));
        lines.join("\n")
    })?;
    match it.found {
        0 => Ok(()),
        found => {
            let what = format!("{} is not sound: {found} problems", dir.display());
            let hint =
                if it.is_backup { "use another backup" } else { "restore a backup into a new directory" };
            Err(CliError::new(Exit::Failed, what, hint))
        }
    }
}
