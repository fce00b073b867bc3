//! `init`: the store, its first organization and its first key.

use serde_json::json;

use super::args::InitArgs;
use super::outcome::CliError;
use super::{offline, output};
use crate::config::Config;

pub(super) fn run(args: &InitArgs) -> Result<(), CliError> {
    let config = Config::load(&super::sources(&args.config, None)?)?;
    let made = offline::init(&config)?;
    if args.json {
        let json = json!({ "org_id": made.org_id, "key_id": made.key_id, "api_key": made.api_key });
        return output::line(&json.to_string());
    }
    output::line(&format!("organization  {}\napi key       {}", made.org_id, made.api_key))?;
    output::note("the key is not stored and not shown again; keep it, for example: export NERVEWIRE_KEY=…");
    Ok(())
}
