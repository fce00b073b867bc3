//! Sessions of users who have a password: attempts to log in, the token that a proven password gives, and the end of all tokens
//! that were issued before something changed.
//!
//! * A user's tokens are good from an instant on: another password, another role and the user's deletion move it past every
//!   token issued so far. Tokens carry milliseconds, so it parts what was issued in the same second too.
//! * Whoever moves the instant holds the user's lock from reading the user to the commit, and who logs in holds it while reading
//!   the user: a token is dated not before the user it was made of was read, nor before that user's instant.
//! * Guesses are limited by address, in all and for one account, before the password is looked at (`guesses`).
//! * Knows no user's row: that is `resource`'s.

use std::net::IpAddr;
use std::sync::Arc;

use super::admin::{AdminError, limit};
use super::directory::ENDED_PER_ORGANIZATION;
use super::failures::bucket;
use super::guesses::Guess;
use super::issue::{IssuedToken, Signed, TOKEN_DEFAULT_MS};
use super::password::{Passwords, Proven};
use super::permissions::Role;
use super::records::Write;
use super::upkeep::{UPKEEP_LOOKS, UPKEEP_WRITES};
use super::{Actor, Auth, Change, Organization};
use crate::filter::Narrowing;
use crate::ids::TenantId;
use crate::store::Rows;

/// Too many passwords of this address were wrong: 429. It says neither of which account, nor whether there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many failed logins")]
pub struct TooMany {
    /// Seconds, at least 1: the `Retry-After`.
    pub retry_after: u64,
}

/// A password is about to be verified; it counts as wrong until it was right.
#[derive(Debug)]
#[must_use]
pub struct Attempt<'a> {
    auth: &'a Auth,
    guess: Guess,
}

impl Attempt<'_> {
    /// The password was right.
    pub fn succeeded(self) {
        self.auth.guesses.succeed(&self.guess);
    }
    /// The password was wrong, or there is no such user: it stays counted.
    pub fn failed(self) {}
    /// The password was not verified.
    pub fn void(self) {
        self.auth.guesses.withdraw(&self.guess);
    }
}

impl Auth {
    /// What hashes passwords.
    #[must_use]
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// The organization of this public id, for a user who would log in.
    #[must_use]
    pub fn organization_named(&self, org_id: &str) -> Option<Arc<Organization>> {
        self.directory.read(|table| table.by_org_id(org_id).map(|entry| Arc::clone(&entry.organization)))
    }

    /// Whether a password of this account may be tried from there: asked before anything is done for it.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn may_attempt(&self, peer: Option<IpAddr>, org_id: &str, email: &str) -> Result<(), TooMany> {
        let guess = Guess::new(peer.map_or(0, bucket), org_id, email);
        self.guesses.check(&guess, self.clock.now_ms()).map_err(|retry_after| TooMany { retry_after })
    }

    /// Begins to try one: asked when its turn to be hashed has come, so that what waited is held to what failed meanwhile.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn attempt(&self, peer: Option<IpAddr>, org_id: &str, email: &str) -> Result<Attempt<'_>, TooMany> {
        let guess = Guess::new(peer.map_or(0, bucket), org_id, email);
        let begun = self.guesses.begin(&guess, self.clock.now_ms());
        begun.map_err(|retry_after| TooMany { retry_after })?;
        Ok(Attempt { auth: self, guess })
    }

    /// A token of the user whose password was proven: 24 hours, the rights of the role.
    ///
    /// # Errors
    /// `NotFound`: the organization has gone; `Random`.
    pub fn session(&self, of: &Proven, role: Role, issued_at_ms: u64) -> Result<IssuedToken, AdminError> {
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

    /// An instant after everything that was issued to a user so far.
    #[must_use]
    pub fn next_since(&self, tenant: TenantId, sub: &str) -> u64 {
        self.clock.now_ms().max(self.good_since(tenant, sub)).saturating_add(1)
    }

    /// Since when a user's tokens are good; 0: always.
    pub(super) fn good_since(&self, tenant: TenantId, sub: &str) -> u64 {
        let since = |entry: &super::Entry| entry.good_since.get(sub).copied();
        self.directory.read(|table| table.by_tenant.get(&tenant).and_then(since)).unwrap_or_default()
    }

    /// Ends every token of a user that was issued before `since_ms` ([`Auth::next_since`]), in the commit of `beside`.
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
            let others = entry.good_since.len() - usize::from(entry.good_since.contains_key(sub));
            let full = others >= ENDED_PER_ORGANIZATION;
            let looks = if full { UPKEEP_LOOKS } else { 0 };
            let outlived = entry.outlived(now_ms, sub, looks).filter(|other| *other != sub);
            let outlived = outlived.take(UPKEEP_WRITES).map(str::to_owned);
            Ok::<_, AdminError>((others, outlived.collect::<Vec<_>>()))
        })?;
        limit("users whose tokens were ended in 30 days", count - outlived.len(), ENDED_PER_ORGANIZATION)?;
        let mut writes = vec![Write::EndTokens { tenant, sub: sub.into(), since_ms }];
        writes.extend(outlived.into_iter().map(|other| Write::ForgetEnd(tenant, other)));
        self.commit(actor, writes, beside, &[Change::TokensEnded(tenant, sub.into())]).await
    }
}
