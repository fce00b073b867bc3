//! `check-config`: checks the configuration and prints it.

use serde_json::json;

use super::args::CheckConfigArgs;
use super::exit::{CliError, Exit};
use super::output;
use crate::config::{Config, ConfigError, Sources, print};

pub(super) fn run(args: &CheckConfigArgs) -> Result<(), CliError> {
    let loaded = super::sources(&args.config, Some(&args.listen)).map(|sources| (load(&sources), sources));
    let (checked, sources) = loaded?;
    match checked {
        Ok(text) if args.print => output::raw(text.as_bytes()),
        Ok(_) if args.json => output::line(&json!({ "ok": true, "problems": [] }).to_string()),
        Ok(_) => {
            let file = sources.file.map_or_else(|| "no file".to_owned(), |file| file.name);
            output::line(&format!("the configuration is valid ({file}); --print shows it"))
        }
        Err(error) if args.json => {
            let problems: Vec<_> = error
                .problems
                .iter()
                .map(|problem| json!({ "key": problem.key, "source": problem.origin.to_string(), "what": problem.what }))
                .collect();
            output::line(&json!({ "ok": false, "problems": problems }).to_string())?;
            let count = output::counted(problems.len() as u64, "problem");
            Err(CliError::new(Exit::Usage, format!("the configuration has {count}"), ""))
        }
        Err(error) => Err(error.into()),
    }
}

/// Returns the configuration as text to print, or its problems.
fn load(sources: &Sources) -> Result<String, ConfigError> {
    Config::load_traced(sources).map(|(config, origins)| print(&config, &origins))
}
