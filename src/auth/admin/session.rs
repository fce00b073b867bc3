//! Sessions of users with a password: login attempts, the token that a verified password gives, and ending
//! all tokens that were issued before a change.
//!
//! * A user's tokens are valid from an instant on. A new password, a new role and the user's deletion move it
//!   past every token issued so far. Tokens carry milliseconds, so it also separates tokens that were issued
//!   in the same second.
//! * Code that moves the instant holds the user's lock from reading the user to the commit. A login holds the
//!   lock while it reads the user. So a token is never dated before the read of the user that it stands for,
//!   nor before that user's instant.
//! * Guesses are limited by address, in total and for one account, before the password is verified
//!   (`attempt_limiter`).
//! * This module does not know users' rows: `resource` has them.

use std::net::IpAddr;
use std::sync::Arc;

use super::issue::{IssuedToken, Signed, TOKEN_DEFAULT_MS};
use super::maintenance::{UPKEEP_LOOKS, UPKEEP_WRITES};
use super::organizations::{AdminError, limit};
use crate::auth::passwords::attempt_limiter::AttemptKey;
use crate::auth::passwords::password::{PasswordProof, Passwords};
use crate::auth::records::directory::ENDED_PER_ORGANIZATION;
use crate::auth::records::rows::RecordChange;
use crate::auth::request::failure_counts::bucket;
use crate::auth::rights::permissions::Role;
use crate::auth::{Actor, Auth, AuthChange, Organization};
use crate::filter::Narrowing;
use crate::ids::TenantId;
use crate::store::Rows;

/// Too many wrong passwords from this address: 429. It does not say for which account, nor whether the
/// account exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failed logins")]
pub struct TooManyAttempts {
    /// `Retry-After` in seconds, at least 1.
    pub retry_after: u64,
}

/// A password that is about to be verified. It counts as wrong until [`LoginAttempt::succeeded`] is called.
#[derive(Debug)]
#[must_use]
pub struct LoginAttempt<'a> {
    auth: &'a Auth,
    key: AttemptKey,
}

impl LoginAttempt<'_> {
    /// Records that the password was right.
    pub fn succeeded(self) {
        self.auth.guesses.reset(&self.key);
    }
    /// Records that the password was wrong, or that there is no such user. The attempt stays counted.
    pub fn failed(self) {}
    /// Removes the attempt from the counts, because the password was not verified.
    pub fn withdraw(self) {
        self.auth.guesses.withdraw(&self.key);
    }
}

impl Auth {
    /// The password hasher.
    #[must_use]
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Returns the organization with this public id, for a user who wants to log in.
    #[must_use]
    pub fn organization_named(&self, org_id: &str) -> Option<Arc<Organization>> {
        self.directory.read(|table| table.by_org_id(org_id).map(|entry| Arc::clone(&entry.organization)))
    }

    /// Checks whether this peer may try a password of this account. It is called before any work is done for
    /// the login.
    ///
    /// # Errors
    /// [`TooManyAttempts`].
    pub fn check_attempt(
        &self,
        peer: Option<IpAddr>,
        org_id: &str,
        email: &str,
    ) -> Result<(), TooManyAttempts> {
        let guess = AttemptKey::new(peer.map_or(0, bucket), org_id, email);
        self.guesses.check(&guess, self.clock.now_ms()).map_err(|retry_after| TooManyAttempts { retry_after })
    }

    /// Starts an attempt. It is called when its turn to hash has come, so that failures during the wait count
    /// too.
    ///
    /// # Errors
    /// [`TooManyAttempts`].
    pub fn begin_attempt(
        &self,
        peer: Option<IpAddr>,
        org_id: &str,
        email: &str,
    ) -> Result<LoginAttempt<'_>, TooManyAttempts> {
        let guess = AttemptKey::new(peer.map_or(0, bucket), org_id, email);
        let begun = self.guesses.begin(&guess, self.clock.now_ms());
        begun.map_err(|retry_after| TooManyAttempts { retry_after })?;
        Ok(LoginAttempt { auth: self, key: guess })
    }

    /// Issues a token to the user whose password was verified: 24 hours, with the rights of the role.
    ///
    /// # Errors
    /// `NotFound`: the organization was deleted; `Random`.
    pub fn session(
        &self,
        of: &PasswordProof,
        role: Role,
        issued_at_ms: u64,
    ) -> Result<IssuedToken, AdminError> {
        let organization = self.organization(of.tenant).ok_or(AdminError::NotFound)?;
        self.sign(Signed {
            sub: &of.sub,
            org_id: &organization.id,
            roles: &[role.name().to_owned()],
            scopes: None,
            narrowing: &Narrowing::default(),
            issued_at_ms,
            expires_at_ms: self.clock.now_ms().saturating_add(TOKEN_DEFAULT_MS),
            session: true,
            maker: None,
        })
    }

    /// Returns an instant after every token that a user was issued so far.
    #[must_use]
    pub fn next_valid_since(&self, tenant: TenantId, sub: &str) -> u64 {
        self.clock.now_ms().max(self.valid_since(tenant, sub)).saturating_add(1)
    }

    /// Returns the instant from which a user's tokens are valid; 0: always.
    pub(in crate::auth) fn valid_since(&self, tenant: TenantId, sub: &str) -> u64 {
        let since =
            |entry: &crate::auth::records::directory::OrganizationEntry| entry.valid_since.get(sub).copied();
        self.directory.read(|table| table.by_tenant.get(&tenant).and_then(since)).unwrap_or_default()
    }

    /// Ends all tokens of a user that were issued before `since_ms` ([`Auth::next_valid_since`]), in the same
    /// commit as `beside`.
    ///
    /// # Errors
    /// `NotFound` for the organization, `Limit`, `Ended`, `Records`.
    pub async fn end_tokens(
        &self,
        actor: Actor<'_>,
        tenant: TenantId,
        sub: &str,
        since_ms: u64,
        beside: Rows,
    ) -> Result<(), AdminError> {
        let _changing = self.changing.lock_tenants(tenant, tenant).await;
        let now_ms = self.clock.now_ms();
        let (count, outlived) = self.directory.read(|table| {
            let entry = table.by_tenant.get(&tenant).ok_or(AdminError::NotFound)?;
            let others = entry.valid_since.len() - usize::from(entry.valid_since.contains_key(sub));
            let full = others >= ENDED_PER_ORGANIZATION;
            let looks = if full { UPKEEP_LOOKS } else { 0 };
            let outlived = entry.expired_ends(now_ms, sub, looks).filter(|other| *other != sub);
            let outlived = outlived.take(UPKEEP_WRITES).map(str::to_owned);
            Ok::<_, AdminError>((others, outlived.collect::<Vec<_>>()))
        })?;
        limit("users whose tokens were ended in 30 days", count - outlived.len(), ENDED_PER_ORGANIZATION)?;
        let mut writes = vec![RecordChange::EndTokens { tenant, sub: sub.into(), since_ms }];
        writes.extend(outlived.into_iter().map(|other| RecordChange::ForgetEnd(tenant, other)));
        self.commit(actor, writes, beside, &[AuthChange::TokensEnded(tenant, sub.into())]).await
    }
}
