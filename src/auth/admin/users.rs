//! Disabling users.

use super::change::AuthChange;
use super::fields::{check_id, check_limit};
use crate::auth::Auth;
use crate::auth::error::AdminError;
use crate::auth::records::directory::{DISABLED_PER_ORGANIZATION, OrganizationEntry};
use crate::auth::records::rows::RecordChange;
use crate::auth::rights::authorized::{Authorized, Manage};
use crate::auth::rights::permissions::Role;
use crate::ids::TenantId;
use crate::store::Rows;

impl Auth {
    /// Disables or enables a user. The user need not be registered here; `role` is the role of a registered
    /// user.
    ///
    /// # Errors
    /// `NotFound` for the organization, `Invalid`, `Limit`, `Ended`, `Records`. `Forbidden` for a user who
    /// has, or may have, wider rights than the caller, and if a credential that expires would enable a user
    /// permanently.
    pub async fn set_disabled(
        &self,
        by: &Authorized<Manage>,
        org_id: Option<&str>,
        sub: &str,
        role: Option<Role>,
        disabled: bool,
    ) -> Result<(), AdminError> {
        check_id("sub", sub)?;
        let (organization, _changing) = self.lock_target(by.principal(), org_id).await?;
        let tenant = organization.tenant;
        by.principal().may_disable(role, disabled)?;
        let (now, count) = self.directory.read(|table| {
            let subs = table.by_tenant.get(&tenant).map(|entry| &entry.disabled);
            subs.map_or((false, 0), |subs| (subs.contains(sub), subs.len()))
        });
        if now == disabled {
            return Ok(());
        }
        if disabled {
            check_limit("disabled users", count, DISABLED_PER_ORGANIZATION)?;
        }
        let write = RecordChange::SetDisabled { tenant, sub: sub.into(), disabled };
        self.commit(
            self.actor(by),
            vec![write],
            Rows::new(),
            &[AuthChange::UserDisabled(tenant, sub.into(), disabled)],
        )
        .await
    }

    /// Returns true if the user is disabled.
    #[must_use]
    pub fn is_disabled(&self, tenant: TenantId, sub: &str) -> bool {
        let entry = |entry: &OrganizationEntry| entry.disabled.contains(sub);
        self.directory.read(|table| table.by_tenant.get(&tenant).is_some_and(entry))
    }
}
