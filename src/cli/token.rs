//! `token`: creates a JWT, or revokes one.

use serde_json::json;

use super::args::{TokenArgs, TokenCommand};
use super::backend::NewToken;
use super::exit::{CliError, Exit};
use super::{key, output};

pub(super) fn run(args: TokenArgs) -> Result<(), CliError> {
    if let Some(TokenCommand::Revoke { jti, org, admin }) = args.command {
        super::backend(&admin)?.revoke_token(org.as_deref(), &jti)?;
        let text = format!("revoked {}", output::plain(&jti));
        return output::line(&if admin.json { json!({ "revoked": jti }).to_string() } else { text });
    }
    let sub = args.user.filter(|user| !user.is_empty()).ok_or_else(|| {
        let hint =
            "add --user with the id of the user; for a service create a key instead: `nervewire key create`";
        CliError::new(Exit::Usage, "a token needs a user", hint)
    })?;
    let new = NewToken { org_id: args.org, sub, roles: args.roles, grant: key::grant(args.grant) };
    let minted = super::backend(&args.admin)?.mint_token(&new)?;
    if args.admin.json {
        let json = json!({ "token": minted.token, "jti": minted.jti, "expires_at": minted.expires_at });
        return output::line(&json.to_string());
    }
    output::line(&minted.token)?;
    output::print_note(&output::plain(&format!("jti {}, expires {}", minted.jti, minted.expires_at)));
    Ok(())
}
