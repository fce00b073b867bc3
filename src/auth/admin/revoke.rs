//! Revoking tokens: one by its `jti`, or all of a user that were issued before an instant.
//!
//! * A user's tokens are valid from an instant on. A new password, a new role and the user's deletion move it
//!   past every token issued so far. Tokens carry milliseconds, so it also separates tokens that were issued
//!   in the same second.
//! * Code that moves the instant holds the user's lock from reading the user to the commit. A login holds the
//!   lock while it reads the user. So a token is never dated before the read of the user that it stands for,
//!   nor before that user's instant.
//! * This module does not know users' rows: `domain` has them.

use std::ops::Bound::{Excluded, Included, Unbounded};

use super::actor::Actor;
use super::change::AuthChange;
use super::fields::{check_id, check_limit};
use super::maintenance::{UPKEEP_LOOKS, UPKEEP_WRITES};
use crate::auth::Auth;
use crate::auth::error::AdminError;
use crate::auth::records::directory::{
    ENDED_PER_ORGANIZATION, OrganizationEntry, REVOCATIONS_PER_ORGANIZATION,
};
use crate::auth::records::rows::RecordChange;
use crate::auth::rights::authorized::{Authorized, Manage};
use crate::auth::tokens::jti;
use crate::ids::TenantId;
use crate::store::Rows;

impl Auth {
    /// Revokes the token with this `jti`. The daemon does not know whether such a token exists, so a repeated
    /// revocation, or the `jti` of another organization's token, succeeds without effect.
    ///
    /// # Errors
    /// `NotFound` for the organization, `Invalid`, `Limit`, `Ended`, `Records`. `Forbidden` for a token that
    /// has, or may have, wider rights than the caller.
    pub async fn revoke_token(
        &self,
        by: &Authorized<Manage>,
        org_id: Option<&str>,
        jti: &str,
    ) -> Result<(), AdminError> {
        check_id("jti", jti)?;
        let (organization, _changing) = self.lock_target(by.principal(), org_id).await?;
        let tenant = organization.tenant;
        by.principal().may_revoke_token(jti)?;
        let now_ms = self.clock.now_ms();
        let until_ms = jti::read(jti).map(|of| of.expires_at_ms);
        let (known, count, expired) = self.directory.read(|table| match table.by_tenant.get(&tenant) {
            None => (false, 0, Vec::new()),
            Some(entry) => {
                let full = entry.revoked.len() >= REVOCATIONS_PER_ORGANIZATION;
                // Only the entries after the new one in the order of names are examined, so which ones is a
                // matter of chance.
                let (rest, first) = ((Included(jti), Unbounded), (Unbounded, Excluded(jti)));
                let all = entry.revoked.range::<str, _>(rest).chain(entry.revoked.range::<str, _>(first));
                let some = all.take(if full { UPKEEP_LOOKS } else { 0 });
                let over = some.filter(|(_, until)| until.is_some_and(|end| end <= now_ms));
                let over = over.map(|(jti, _)| jti.clone()).take(UPKEEP_WRITES);
                (entry.revoked.contains_key(jti), entry.revoked.len(), over.collect())
            }
        });
        if known || until_ms.is_some_and(|end| end <= now_ms) {
            return Ok(());
        }
        check_limit("revoked tokens", count - expired.len(), REVOCATIONS_PER_ORGANIZATION)?;
        let mut writes = vec![RecordChange::Revoke { tenant, jti: jti.into(), until_ms }];
        writes.extend(expired.into_iter().map(|jti| RecordChange::ForgetRevocation(tenant, jti)));
        self.commit(self.actor(by), writes, Rows::new(), &[AuthChange::TokenRevoked(tenant, jti.into())])
            .await
    }

    /// Returns an instant after every token that a user was issued so far.
    #[must_use]
    pub fn next_valid_since(&self, tenant: TenantId, sub: &str) -> u64 {
        self.clock.now_ms().max(self.valid_since(tenant, sub)).saturating_add(1)
    }

    /// Returns the instant from which a user's tokens are valid; 0: always.
    pub(in crate::auth) fn valid_since(&self, tenant: TenantId, sub: &str) -> u64 {
        let since = |entry: &OrganizationEntry| entry.valid_since.get(sub).copied();
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
        check_limit(
            "users whose tokens were ended in 30 days",
            count - outlived.len(),
            ENDED_PER_ORGANIZATION,
        )?;
        let mut writes = vec![RecordChange::EndTokens { tenant, sub: sub.into(), since_ms }];
        writes.extend(outlived.into_iter().map(|other| RecordChange::ForgetEnd(tenant, other)));
        self.commit(actor, writes, beside, &[AuthChange::TokensEnded(tenant, sub.into())]).await
    }
}
