//! `compact`: frees disk space that the store no longer needs.

use serde_json::json;

use super::args::CompactArgs;
use super::exit::CliError;
use super::{offline, output};
use crate::config::Config;

pub(super) fn run(args: &CompactArgs) -> Result<(), CliError> {
    let config = Config::load(&super::sources(&args.config, None)?)?;
    let done = offline::compact(&config)?;
    let (before, after) = (done.bytes_before, done.bytes_after);
    output::line(&if args.json {
        json!({ "bytes_before": before, "bytes_after": after }).to_string()
    } else {
        format!("{} before, {} after", output::counted(before, "byte"), output::counted(after, "byte"))
    })
}
