//! Whether a principal is still valid: its credential is not revoked, ended or expired, and neither is the
//! credential that made it.
//!
//! * It is checked with every request, before every commit, and for live connections after every change.
//! * The check reads memory only. It does no IO and does not wait.

use std::sync::Arc;

use crate::auth::Auth;
use crate::auth::error::CredentialEnded;
use crate::auth::records::directory::{DirectoryTable, OrganizationEntry};
use crate::auth::rights::credential::CredentialId;
use crate::auth::rights::principal::Principal;
use crate::auth::tokens::jti::{self, MintedBy};
use crate::auth::tokens::keys::KeySet;
use crate::filter::Rights;

impl Auth {
    /// Checks that a principal is still valid and returns its current read rights.
    ///
    /// # Errors
    /// The reason why its credential has ended.
    pub fn still_valid(&self, principal: &Principal) -> Result<Rights, CredentialEnded> {
        let (now_ms, keys) = (self.clock.now_ms(), Arc::clone(&self.keys.read()));
        self.directory.read(|table| {
            let entry = check_valid(table, &keys, principal, now_ms)?;
            Ok(principal.rights(entry.organization.visibility))
        })
    }

    /// Returns an error if the principal's credential has ended. The offline command line's never ends.
    ///
    /// # Errors
    /// The reason why the credential has ended.
    pub fn confirm(&self, principal: &Principal) -> Result<(), CredentialEnded> {
        if principal.credential == CredentialId::Local {
            return Ok(());
        }
        let now_ms = self.clock.now_ms();
        let keys = self.keys.read();
        self.directory.read(|table| check_valid(table, &keys, principal, now_ms).map(drop))
    }
}

/// Checks that a principal is still valid, and returns its organization.
pub(in crate::auth) fn check_valid<'t>(
    table: &'t DirectoryTable,
    keys: &KeySet,
    principal: &Principal,
    now_ms: u64,
) -> Result<&'t OrganizationEntry, CredentialEnded> {
    let entry = table.by_tenant.get(&principal.tenant).ok_or(CredentialEnded::OrganizationDeleted)?;
    match &principal.credential {
        CredentialId::Key { key_id, issued_at_ms } => {
            let key = entry.keys.get(key_id.as_ref());
            if key.is_none() || entry.has_ended(principal.sub.as_deref(), *issued_at_ms) {
                return Err(CredentialEnded::Revoked);
            }
        }
        CredentialId::Token { key, jti, issued_at_ms, .. } => {
            let key = keys.recorded(*key).ok_or(CredentialEnded::Revoked)?;
            let revoked = jti.as_ref().is_some_and(|jti| entry.revoked.contains_key(jti.as_ref()));
            let ended = entry.has_ended(principal.sub.as_deref(), *issued_at_ms);
            let maker = jti.as_deref().filter(|_| key.is_own()).and_then(jti::maker);
            let unmade =
                maker.is_some_and(|maker| maker_has_ended(table, entry, keys, &maker, *issued_at_ms));
            if revoked || ended || unmade || !key.allows_organization(&principal.org_id) {
                return Err(CredentialEnded::Revoked);
            }
        }
        CredentialId::Local => return Err(CredentialEnded::Revoked),
    }
    if principal.sub.as_ref().is_some_and(|sub| entry.disabled.contains(sub.as_ref())) {
        return Err(CredentialEnded::Disabled);
    }
    match principal.expires_at_ms.is_some_and(|end| end <= now_ms) {
        true => Err(CredentialEnded::Expired),
        false => Ok(entry),
    }
}

/// Returns true if the credential that minted a token has ended: its API key was deleted, its verifying key
/// was removed, its user was disabled, or the user's tokens of that time were ended.
fn maker_has_ended(
    table: &DirectoryTable,
    entry: &OrganizationEntry,
    keys: &KeySet,
    maker: &MintedBy<'_>,
    issued_at_ms: u64,
) -> bool {
    match maker {
        // An operator's key may mint for other organizations than its own.
        MintedBy::Key(id) => table.key(id).is_none(),
        MintedBy::Token(key, sub) => {
            let user_ended =
                |sub: &str| entry.disabled.contains(sub) || entry.has_ended(Some(sub), issued_at_ms);
            keys.recorded(*key).is_none() || sub.as_deref().is_some_and(user_ended)
        }
    }
}
