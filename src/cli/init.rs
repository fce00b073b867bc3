//! `init`: creates the store, its first organization and its first key.

use serde_json::json;

use super::args::InitArgs;
use super::exit::{CliError, Exit};
use super::{offline, output};
use crate::config::Config;
use crate::descriptors;

pub(super) fn run(args: &InitArgs) -> Result<(), CliError> {
    let config = Config::load(&super::sources(&args.config, None)?)?;
    let made = offline::init(&config)?;
    let (org_id, key) = (&made.organization.id, made.key.api_key.expose());
    let shown = output::line(&match args.json {
        true => json!({ "org_id": org_id, "key_id": made.key.row.id, "api_key": key }).to_string(),
        false => format!("organization  {org_id}\napi key       {key}"),
    });
    if shown.is_err() || descriptors::stdout_is_discarded() {
        let hint = format!("it is in {}: store it elsewhere and delete the file", made.file.display());
        return Err(CliError::new(
            Exit::Failed,
            "the store was created, but its first key could not be shown",
            hint,
        ));
    }
    if let Err(error) = made.remove_file() {
        output::print_note(&format!("cannot remove {}, which holds the key: {error}", made.file.display()));
    }
    if !args.json {
        output::print_note(
            "the key is not stored and not shown again; save it, for example: export NERVEWIRE_KEY=…",
        );
    }
    Ok(())
}
