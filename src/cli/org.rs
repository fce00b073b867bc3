//! `org`: creates, lists and deletes organizations.

use serde_json::json;

use super::args::OrgCommand;
use super::backend::NewOrganization;
use super::confirm::confirm;
use super::exit::{CliError, Exit};
use super::output::{self, plain};

pub(super) fn run(command: OrgCommand) -> Result<(), CliError> {
    match command {
        OrgCommand::Create { id, name, visibility, presence, admin } => {
            let new = NewOrganization { id, name, visibility, presence };
            let org = super::backend(&admin)?.create_org(&new)?;
            output::line(&if admin.json { to_json(&org)? } else { org.id })
        }
        OrgCommand::List(admin) => {
            let orgs = super::backend(&admin)?.list_orgs()?;
            output::line(&list(&orgs, admin.json, &["id", "name", "visibility", "presence", "created_at"])?)
        }
        OrgCommand::Delete { id, yes, admin } => {
            let mut backend = super::backend(&admin)?;
            let what = format!(
                "this deletes the organization {} with its keys, its users and its events",
                plain(&id)
            );
            confirm(&what, yes)?;
            backend.delete_org(&id)?;
            deleted(&id, admin.json)
        }
    }
}

/// Prints that `id` was deleted.
pub(super) fn deleted(id: &str, json: bool) -> Result<(), CliError> {
    output::line(&if json { json!({ "deleted": id }).to_string() } else { format!("deleted {}", plain(id)) })
}

pub(super) fn to_json(value: &impl serde::Serialize) -> Result<String, CliError> {
    serde_json::to_string(value).map_err(|error| CliError::new(Exit::Failed, error.to_string(), ""))
}

/// Prints a JSON array with all fields, or a table with some of them.
pub(super) fn list<T: serde::Serialize>(
    rows: &[T],
    json: bool,
    columns: &[&str],
) -> Result<String, CliError> {
    if json {
        return to_json(&rows);
    }
    let rows: Result<Vec<_>, _> = rows.iter().map(serde_json::to_value).collect();
    let rows = rows.map_err(|error| CliError::new(Exit::Failed, error.to_string(), ""))?;
    Ok(output::table(columns, &rows))
}
