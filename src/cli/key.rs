//! `key`: create, list, delete API keys.

use serde_json::json;

use super::args::{GrantArgs, KeyCommand};
use super::backend::{Grant, NewKey};
use super::outcome::{CliError, Exit};
use super::{org, output};
use crate::auth::Scope;

pub(super) fn run(command: KeyCommand) -> Result<(), CliError> {
    match command {
        KeyCommand::Create { org, name, grant: args, admin } => {
            let grant = grant(args);
            if grant.scopes.is_none() {
                let hint = format!("give --scopes with some of {}", Scope::REQUESTABLE);
                return Err(CliError::new(Exit::Usage, "a key needs scopes", hint));
            }
            let new = NewKey { org_id: org, name, grant };
            let key = super::backend(&admin)?.create_key(&new)?;
            if admin.json {
                return output::line(&json!({ "key_id": key.key_id, "api_key": key.api_key }).to_string());
            }
            output::line(&key.api_key)?;
            output::note(&format!(
                "key {} is shown once; its secret is not stored",
                output::plain(&key.key_id)
            ));
            Ok(())
        }
        KeyCommand::List { org, admin } => {
            let keys = super::backend(&admin)?.list_keys(org.as_deref())?;
            let columns = ["key_id", "name", "org_id", "scopes", "expires_at", "last_used_at", "created_at"];
            output::line(&org::list(&keys, admin.json, &columns)?)
        }
        KeyCommand::Delete { key_id, org, admin } => {
            super::backend(&admin)?.delete_key(org.as_deref(), &key_id)?;
            org::deleted(&key_id, admin.json)
        }
    }
}

/// The rights asked for; `--agents ''` is the empty list, which matches nothing.
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
