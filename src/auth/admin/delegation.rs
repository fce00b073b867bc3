//! Limits of a manager's rights over other credentials and users.
//!
//! * Nobody disables, enables, revokes or deletes a credential or user with wider rights than their own. The
//!   daemon does not know the rights of tokens and users that it did not create. They may be an admin's, so
//!   every scope of the organization is needed.
//! * A user lasts until somebody deletes them. So only a credential that lasts as long may create one, raise
//!   one's role or enable one again: an API key without expiry, or an admin who logged in. Otherwise a
//!   credential that expires would leave rights that do not.

use super::organizations::AdminError;
use crate::auth::rights::permissions::Role;
use crate::auth::rights::principal::{CredentialId, Principal};
use crate::auth::rights::scope::ScopeSet;
use crate::auth::tokens::jti;
use crate::filter::Narrowing;

impl Principal {
    /// Returns true if rights of this extent are not wider than the principal's own.
    pub(in crate::auth) fn reaches(&self, scopes: ScopeSet, narrowing: &Narrowing) -> bool {
        self.scopes.covers(scopes) && narrowing.within(&self.narrowing)
    }

    /// Returns an error if this principal expires while a user that it creates would not.
    ///
    /// # Errors
    /// `Forbidden`.
    pub fn check_lasting(&self) -> Result<(), AdminError> {
        let lasting = match &self.credential {
            CredentialId::Key { .. } => self.expires_at_ms.is_none(),
            CredentialId::Token { session, .. } => *session,
            CredentialId::Local => true,
        };
        match lasting {
            true => Ok(()),
            false => Err(AdminError::Forbidden(
                "this credential ends and what it would give to a user does not: use an API key without expiry, or log in as an \
                 admin",
            )),
        }
    }

    /// Checks that the principal may revoke the token with this `jti`.
    pub(in crate::auth) fn may_revoke_token(&self, jti: &str) -> Result<(), AdminError> {
        if matches!(&self.credential, CredentialId::Token { jti: Some(own), .. } if own.as_ref() == jti) {
            return Ok(());
        }
        let reached = match jti::read(jti).and_then(|of| of.rights) {
            Some((scopes, narrowed)) => self.scopes.covers(scopes) && (narrowed || self.narrowing.is_none()),
            None => self.reaches(ScopeSet::ORGANIZATION, &Narrowing::default()),
        };
        match reached {
            true => Ok(()),
            false => Err(AdminError::Forbidden("this token is, or may be, wider than your own rights")),
        }
    }

    /// Checks that the principal may disable or enable a user with this role; `None`: a user who is not
    /// registered here.
    pub(in crate::auth) fn may_disable(&self, role: Option<Role>, disabled: bool) -> Result<(), AdminError> {
        let scopes = role.map_or(ScopeSet::ORGANIZATION, Role::scopes);
        if !self.reaches(scopes, &Narrowing::default()) {
            return Err(AdminError::Forbidden("this user has, or may have, wider rights than your own"));
        }
        if disabled { Ok(()) } else { self.check_lasting() }
    }
}
