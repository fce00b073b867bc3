//! `key`: creates, lists and deletes API keys.

use serde_json::json;

use super::args::{GrantArgs, KeyCommand};
use super::backend::{Grant, NewKey};
use super::confirm::confirm;
use super::exit::{CliError, Exit};
use super::{org, output};
use crate::auth::Scope;

pub(super) fn run(command: KeyCommand) -> Result<(), CliError> {
    match command {
        KeyCommand::Create { org, name, operator, grant: args, admin } => {
            let grant = grant(args);
            if grant.scopes.is_none() && !operator {
                let hint = format!("add --scope with one or more of {}", Scope::REQUESTABLE);
                return Err(CliError::new(Exit::Usage, "a key needs scopes", hint));
            }
            let new = NewKey { org_id: org, name, grant };
            let mut backend = super::backend(&admin)?;
            let key = if operator { backend.create_operator_key(&new) } else { backend.create_key(&new) }?;
            let key_id = output::plain(&key.key_id);
            let shown = output::line(&match admin.json {
                true => json!({ "key_id": key.key_id, "api_key": key.api_key }).to_string(),
                false => key.api_key,
            });
            if shown.is_err() {
                let what = format!("key {key_id} was created, but it could not be shown");
                let hint = format!("delete it with `nervewire key delete {key_id}`, and create another");
                return Err(CliError::new(Exit::Failed, what, hint));
            }
            if !admin.json {
                output::print_note(&format!("key {key_id} is shown once; its secret is not stored"));
            }
            Ok(())
        }
        KeyCommand::List { org, admin } => {
            let keys = super::backend(&admin)?.list_keys(org.as_deref())?;
            let columns = ["key_id", "name", "org_id", "scopes", "expires_at", "last_used_at", "created_at"];
            output::line(&org::list(&keys, admin.json, &columns)?)
        }
        KeyCommand::Delete { key_id, yes, org, admin } => {
            let mut backend = super::backend(&admin)?;
            if let Some(warning) = backend.warning_of_key(&key_id) {
                confirm(&warning, yes)?;
            }
            backend.delete_key(org.as_deref(), &key_id)?;
            org::deleted(&key_id, admin.json)
        }
    }
}

/// Returns the requested rights. `--agent ''` is the empty list, which matches nothing.
pub(super) fn grant(args: GrantArgs) -> Grant {
    let list = |values: Option<Vec<String>>| {
        values.map(|values| values.into_iter().filter(|value| !value.is_empty()).collect::<Vec<_>>())
    };
    Grant {
        scopes: list(args.scopes),
        expires_in_seconds: args.expires,
        agents: list(args.agents),
        channels: list(args.channels),
        types: list(args.types),
    }
}
