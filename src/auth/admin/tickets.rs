//! Makes tickets.

use std::sync::Arc;

use super::delegation::{may_mint, token_end};
use super::fields::check_id;
use crate::auth::Auth;
use crate::auth::error::AdminError;
use crate::auth::rights::authorized::{Authenticated, Authorized, Mint};
use crate::auth::rights::credential::{CredentialId, CredentialSource};
use crate::auth::rights::permissions::Role;
use crate::auth::rights::principal::Principal;
use crate::auth::rights::scope::ScopeSet;
use crate::auth::tickets::ticket::{Ticket, TicketError};

impl Auth {
    /// Makes a ticket for the principal of `by`. With `reconnect` the ticket is for SSE and polling only, and
    /// bound to `origin` (the request's `Origin`).
    ///
    /// # Errors
    /// No random bytes, a narrowing that is too long for a URL, or a credential that has ended.
    pub fn ticket(
        &self,
        by: &Authorized<Authenticated>,
        origin: Option<&str>,
        reconnect: bool,
    ) -> Result<Ticket, AdminError> {
        self.actor(by).confirm()?;
        let principal = by.principal();
        let now_ms = self.clock.now_ms();
        let ticket = match reconnect {
            true => self.seal.make(principal, origin, now_ms, &self.random),
            false => self.one_shots.make(principal, now_ms, &self.random),
        };
        ticket.map_err(|error| match error {
            TicketError::Unmakeable => AdminError::Conflict("the credential is too long for a ticket"),
            TicketError::Full { what, max } => AdminError::Full { what, max },
        })
    }

    /// Returns the principal that a user has by the role `user`, for a ticket in the user's name.
    ///
    /// # Errors
    /// `Invalid`, `Forbidden` if it would be wider than the caller's own rights, `NotFound`, `Random`.
    pub fn principal_for_ticket(
        &self,
        by: &Authorized<Mint>,
        sub: &str,
    ) -> Result<Arc<Principal>, AdminError> {
        self.actor(by).confirm()?;
        let issuer = by.principal();
        check_id("sub", sub)?;
        may_mint(issuer, sub, ScopeSet::MINTABLE, None)?;
        let now_ms = self.clock.now_ms();
        let expires_at_ms = token_end(None, issuer, now_ms)?;
        // The ticket ends with the credential that made it, and when the user's own tokens end.
        let issued_at_ms = now_ms.max(self.valid_since(issuer.tenant, sub));
        let credential = match issuer.credential.clone() {
            CredentialId::Key { key_id, .. } => CredentialId::Key { key_id, issued_at_ms },
            CredentialId::Token { key, jti, .. } => {
                CredentialId::Token { key, jti, issued_at_ms, session: false }
            }
            CredentialId::Local => CredentialId::Local,
        };
        Ok(Arc::new(Principal {
            tenant: issuer.tenant,
            org_id: Arc::clone(&issuer.org_id),
            sub: Some(sub.into()),
            roles: [Role::User.name().into()].into(),
            scopes: ScopeSet::MINTABLE,
            narrowing: issuer.narrowing.clone(),
            expires_at_ms: Some(expires_at_ms),
            credential,
            via: CredentialSource::Ticket,
        }))
    }
}
