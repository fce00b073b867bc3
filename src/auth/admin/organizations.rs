//! Administration of organizations, revocations and disabled users. REST handlers and the offline command
//! line share this code.
//!
//! * A change is checked, written, synced to disk and applied in memory; then the hooks run, and only then
//!   the caller gets its response. The last check before the write is that the caller's credential is still
//!   valid ([`Actor`]).
//! * Changes of an organization run one at a time, so what was checked is still true when it is written.
//! * An organization of somebody else and an unknown one give the same [`AdminError::NotFound`]. Only the
//!   operator, who may delete any organization, may act in organizations other than its own.
//! * If the caller is dropped (its client hung up), a write that has begun continues, and memory is still
//!   updated.

use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use super::change_locks::ChangeGuard;
use super::issue::{IssuedKey, NewKey};
use super::maintenance::{UPKEEP_LOOKS, UPKEEP_WRITES};
use crate::auth::error::CredentialEnded;
use crate::auth::records::rows::{OrganizationRow, RecordChange, RecordsError, Visibility};
use crate::auth::rights::permissions::Role;
use crate::auth::rights::principal::{Authorized, Manage, Operate, Principal};
use crate::auth::rights::scope::{Scope, ScopeSet};
use crate::auth::tokens::jwt::is_id;
use crate::auth::{
    Actor, Auth, AuthChange, DISABLED_PER_ORGANIZATION, ORGANIZATIONS, Organization,
    REVOCATIONS_PER_ORGANIZATION,
};
use crate::ids::{TenantId, fresh, is_org_id};
use crate::store::Rows;

/// Maximum length of a display name, in bytes.
pub const NAME_BYTES: usize = 256;
/// Why an administrative change was not made. Only `error_response` maps it to a status.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The object does not exist or the caller may not see it: 404.
    #[error("not found")]
    NotFound,
    /// The object already exists or is in use: 409.
    #[error("{0}")]
    Conflict(&'static str),
    /// The object has this version, not the version that the caller named: 412.
    #[error("it has changed: its version is {0} now")]
    Changed(u64),
    /// The object would have wider rights than the caller: 403.
    #[error("{0}")]
    Forbidden(&'static str),
    /// A field is invalid: 400.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field's path, such as `scopes[1]`.
        field: String,
        /// What is wrong, as text for a person.
        reason: String,
    },
    /// One more object would exceed a named limit: 409.
    #[error("at most {max} {what}")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// The maximum number.
        max: usize,
    },
    /// There is no room for one more object at the moment: 429.
    #[error("at most {max} {what}")]
    Full {
        /// What is limited.
        what: &'static str,
        /// The maximum number.
        max: usize,
    },
    /// The caller's credential has ended in the meantime: 401.
    #[error("{0}")]
    Ended(#[from] CredentialEnded),
    /// The system returned no random bytes: 500.
    #[error("the system returned no random bytes")]
    Random,
    /// The write failed. It is unknown whether it is on disk: 503.
    #[error("the change could not be written")]
    Records(#[source] RecordsError),
}

impl AdminError {
    pub(in crate::auth) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        AdminError::Invalid { field: field.into(), reason: reason.into() }
    }
}

/// Fields of a new organization.
#[derive(Debug, Clone, Default)]
pub struct NewOrganization {
    /// The public id. `None` generates one (`org-…`).
    pub id: Option<String>,
    /// Display name, at most 256 bytes.
    pub name: String,
    /// Which users see which events; see [`Visibility`].
    pub visibility: Visibility,
    /// Whether the organization gets presence events (which of its users are connected).
    pub presence: bool,
    /// Whether to create the first key too, with scope `*`. Without it nobody could create one.
    pub first_key: bool,
}

/// The result of creating an organization.
#[derive(Debug, Clone)]
pub struct CreatedOrganization {
    /// The organization.
    pub organization: Organization,
    /// Its first key. The secret is shown only once.
    pub key: Option<IssuedKey>,
}

/// Fields of an organization to change. `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct OrganizationChange {
    /// Display name, at most 256 bytes.
    pub name: Option<String>,
    /// Which users see which events; see [`Visibility`].
    pub visibility: Option<Visibility>,
    /// Whether the organization gets presence events (which of its users are connected).
    pub presence: Option<bool>,
}

impl Auth {
    /// If the store has no organizations, creates `default` and its bootstrap key (`*` and `operator`), which
    /// is shown once.
    ///
    /// # Errors
    /// [`AdminError::Records`], [`AdminError::Random`].
    pub async fn bootstrap(&self) -> Result<Option<(Organization, IssuedKey)>, AdminError> {
        self.bootstrap_after(|_| true).await
    }

    /// Like [`Auth::bootstrap`], but calls `ready` before the commit. If `ready` returns false, nothing is
    /// created.
    pub(in crate::auth) async fn bootstrap_after(
        &self,
        ready: impl FnOnce(&IssuedKey) -> bool,
    ) -> Result<Option<(Organization, IssuedKey)>, AdminError> {
        let _changing = self.changing.lock().await;
        if !self.directory.read(|table| table.by_tenant.is_empty()) {
            return Ok(None);
        }
        let organization = self.new_row("default".into(), NewOrganization::default());
        let key = self.new_key(&organization, "bootstrap".into(), ScopeSet::OPERATOR)?;
        if !ready(&key) {
            return Ok(None);
        }
        let writes =
            vec![RecordChange::PutOrganization(organization.clone()), RecordChange::PutKey(key.row.clone())];
        self.commit(Actor::daemon(), writes, Rows::new(), &[]).await?;
        Ok(Some((organization, key)))
    }

    /// Creates an organization.
    ///
    /// # Errors
    /// `Conflict` if the id is taken, `Invalid`, `Limit`, `Records`.
    pub async fn create_organization(
        &self,
        by: &Authorized<Operate>,
        new: NewOrganization,
    ) -> Result<CreatedOrganization, AdminError> {
        self.create_organization_with(by, new, |_| Rows::new()).await
    }

    /// Like [`Auth::create_organization`], and commits the caller's own rows, such as its idempotency row, in
    /// the same commit.
    ///
    /// # Errors
    /// The same as [`Auth::create_organization`].
    pub async fn create_organization_with(
        &self,
        by: &Authorized<Operate>,
        new: NewOrganization,
        beside: impl FnOnce(&Organization) -> Rows,
    ) -> Result<CreatedOrganization, AdminError> {
        let mut new = new;
        let id = new.id.take().unwrap_or_else(|| fresh("org"));
        if !is_org_id(&id) {
            return Err(AdminError::invalid("id", "must be 1 to 128 of letters, digits, '.', '_' and '-'"));
        }
        check_name(&new.name)?;
        let _changing = self.changing.lock().await;
        let (taken, count) =
            self.directory.read(|table| (table.by_id.contains(id.as_str()), table.by_tenant.len()));
        if taken {
            return Err(AdminError::Conflict("an organization with this id already exists"));
        }
        limit("organizations", count, ORGANIZATIONS)?;
        let first_key = new.first_key;
        let organization = self.new_row(id, new);
        let mut writes = vec![RecordChange::PutOrganization(organization.clone())];
        let key = match first_key {
            true => Some(self.new_key(&organization, "first".into(), ScopeSet::ORGANIZATION)?),
            false => None,
        };
        writes.extend(key.iter().map(|key| RecordChange::PutKey(key.row.clone())));
        let beside = beside(&organization);
        let watched = organization.presence.then_some(AuthChange::PresenceChanged(organization.tenant, true));
        self.commit(self.actor(by), writes, beside, watched.as_slice()).await?;
        Ok(CreatedOrganization { organization, key })
    }

    /// Lists up to `limit` organizations with ids greater than `after`, in the order of ids.
    #[must_use]
    pub fn organizations(
        &self,
        _by: &Authorized<Operate>,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<Arc<Organization>> {
        self.directory.read(|table| {
            let rest = table.by_id.range::<str, _>((after.map_or(Unbounded, Excluded), Unbounded));
            rest.take(limit).map(crate::auth::records::directory::OrgIdOrder::organization).cloned().collect()
        })
    }

    /// Returns the organization `org_id`, or the caller's own if `None`, for requests about the organization
    /// as a whole: its users and its statistics.
    ///
    /// # Errors
    /// `NotFound` if it is unknown or not the caller's. `Forbidden` for a narrowed credential, because such
    /// requests concern no single agent, channel or type.
    pub fn find_organization(
        &self,
        by: &Authorized<Manage>,
        org_id: Option<&str>,
    ) -> Result<Arc<Organization>, AdminError> {
        let organization = self.target(by.principal(), org_id)?;
        match by.principal().narrowing.is_none() {
            true => Ok(organization),
            false => Err(AdminError::Forbidden("a narrowed credential may administer only keys and tokens")),
        }
    }

    /// Lists the organizations that get presence events.
    #[must_use]
    pub fn with_presence(&self) -> Vec<TenantId> {
        self.directory.read(|table| {
            let watched = table.by_tenant.values().filter(|entry| entry.organization.presence);
            watched.map(|entry| entry.organization.tenant).collect()
        })
    }

    /// Changes an organization's name, visibility or presence setting if its version is still `version`.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`, `Records`. `Changed` if the version differs. `Forbidden` for a narrowed
    /// credential, and, for `visibility`, for a credential without `read:all`: it could give itself access to
    /// what it may not see.
    pub async fn change_organization(
        &self,
        by: &Authorized<Manage>,
        org_id: Option<&str>,
        version: Option<u64>,
        change: OrganizationChange,
    ) -> Result<Organization, AdminError> {
        check_name(change.name.as_deref().unwrap_or_default())?;
        let (old, _changing) = self.lock_target(by.principal(), org_id).await?;
        let new = OrganizationRow {
            name: change.name.unwrap_or_else(|| old.name.clone()),
            visibility: change.visibility.unwrap_or(old.visibility),
            presence: change.presence.unwrap_or(old.presence),
            ..Organization::clone(&old)
        };
        if !by.principal().narrowing.is_none() {
            return Err(AdminError::Forbidden("a narrowed credential may not change an organization"));
        }
        if new.visibility != old.visibility && !by.principal().scopes.has(Scope::ReadAll) {
            return Err(AdminError::Forbidden("visibility: changing it needs the scope read:all"));
        }
        if version.is_some_and(|version| version != old.version()) {
            return Err(AdminError::Changed(old.version()));
        }
        let seen = (new.visibility != old.visibility).then_some(AuthChange::VisibilityChanged(new.tenant));
        let watched =
            (new.presence != old.presence).then_some(AuthChange::PresenceChanged(new.tenant, new.presence));
        let changes: Vec<AuthChange> = seen.into_iter().chain(watched).collect();
        self.commit(self.actor(by), vec![RecordChange::PutOrganization(new.clone())], Rows::new(), &changes)
            .await?;
        Ok(new)
    }

    /// Deletes an organization, its keys and, within 24 hours, its events.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for the organization of the calling key; `Records`.
    pub async fn delete_organization(
        &self,
        by: &Authorized<Operate>,
        org_id: &str,
    ) -> Result<Organization, AdminError> {
        let _changing = self.changing.lock().await;
        let organization = self.target(by.principal(), Some(org_id))?;
        if organization.tenant == by.principal().tenant {
            return Err(AdminError::Conflict("the calling key belongs to this organization"));
        }
        let tenant = organization.tenant;
        let write = RecordChange::DeleteOrganization(Organization::clone(&organization));
        self.commit(self.actor(by), vec![write], Rows::new(), &[AuthChange::OrganizationDeleted(tenant)])
            .await?;
        Ok(Organization::clone(&organization))
    }

    /// Revokes the token with this `jti`. The daemon does not know whether such a token exists, so a repeated
    /// revocation, or the `jti` of another organization's token, succeeds without effect.
    ///
    /// # Errors
    /// `NotFound` for the organization, `Invalid`, `Limit`, `CredentialEnded`, `Records`. `Forbidden` for a token that
    /// has, or may have, wider rights than the caller.
    pub async fn revoke_token(
        &self,
        by: &Authorized<Manage>,
        org_id: Option<&str>,
        jti: &str,
    ) -> Result<(), AdminError> {
        if !is_id(jti) {
            return Err(AdminError::invalid("jti", "must be 1 to 256 bytes without control characters"));
        }
        let (organization, _changing) = self.lock_target(by.principal(), org_id).await?;
        let tenant = organization.tenant;
        by.principal().may_revoke_token(jti)?;
        let now_ms = self.clock.now_ms();
        let until_ms = crate::auth::tokens::jti::read(jti).map(|of| of.expires_at_ms);
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
        limit("revoked tokens", count - expired.len(), REVOCATIONS_PER_ORGANIZATION)?;
        let mut writes = vec![RecordChange::Revoke { tenant, jti: jti.into(), until_ms }];
        writes.extend(expired.into_iter().map(|jti| RecordChange::ForgetRevocation(tenant, jti)));
        self.commit(self.actor(by), writes, Rows::new(), &[AuthChange::TokenRevoked(tenant, jti.into())])
            .await
    }

    /// Disables or enables a user. The user need not be registered here; `role` is the role of a registered
    /// user.
    ///
    /// # Errors
    /// `NotFound` for the organization, `Invalid`, `Limit`, `CredentialEnded`, `Records`. `Forbidden` for a user who
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
        if !is_id(sub) {
            return Err(AdminError::invalid("sub", "must be 1 to 256 bytes without control characters"));
        }
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
            limit("disabled users", count, DISABLED_PER_ORGANIZATION)?;
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
        let entry = |entry: &crate::auth::records::directory::OrganizationEntry| entry.disabled.contains(sub);
        self.directory.read(|table| table.by_tenant.get(&tenant).is_some_and(entry))
    }

    /// Returns the organization that a manager addresses: its own or, for the operator, any.
    pub(in crate::auth) fn target(
        &self,
        by: &Principal,
        org_id: Option<&str>,
    ) -> Result<Arc<Organization>, AdminError> {
        let found = self.directory.read(|table| {
            let entry = match org_id {
                None => table.by_tenant.get(&by.tenant),
                Some(id) => table.by_org_id(id),
            };
            entry.map(|entry| Arc::clone(&entry.organization))
        });
        let reach = |found: &Arc<Organization>| found.tenant == by.tenant || by.scopes.has(Scope::Operate);
        found.filter(reach).ok_or(AdminError::NotFound)
    }

    /// Resolves and locks the organization to change.
    pub(in crate::auth) async fn lock_target(
        &self,
        by: &Principal,
        org_id: Option<&str>,
    ) -> Result<(Arc<Organization>, ChangeGuard<'_>), AdminError> {
        let tenant = self.target(by, org_id)?.tenant;
        let changing = self.changing.lock_tenants(by.tenant, tenant).await;
        // The organization may have been deleted during the wait, and another one created with the same id.
        let organization = self.target(by, org_id)?;
        match organization.tenant == tenant {
            true => Ok((organization, changing)),
            false => Err(AdminError::NotFound),
        }
    }

    /// Confirms the actor, writes, updates memory and calls the hooks. The caller holds the lock of the organization.
    pub(in crate::auth) async fn commit(
        &self,
        actor: Actor<'_>,
        writes: Vec<RecordChange>,
        beside: Rows,
        changes: &[AuthChange],
    ) -> Result<(), AdminError> {
        actor.confirm()?;
        let written = self.records.commit(writes.clone(), beside);
        let mut follow = DirectoryUpdate { auth: self, writes, changes };
        match written.await {
            Ok(()) => {
                drop(follow);
                Ok(())
            }
            Err(error) => {
                follow.writes.clear();
                follow.changes = &[];
                Err(match error {
                    // Names and ids are limited to far less than a row; a narrowing is not.
                    RecordsError::TooLong => {
                        AdminError::invalid("agents", "agents and channels are too long")
                    }
                    RecordsError::Deleted => AdminError::NotFound,
                    error => AdminError::Records(error),
                })
            }
        }
    }

    fn new_row(&self, id: String, new: NewOrganization) -> OrganizationRow {
        let tenant = self.directory.take_number();
        let NewOrganization { name, visibility, presence, .. } = new;
        OrganizationRow { tenant, id, name, visibility, presence, created_at_ms: self.clock.now_ms() }
    }

    fn new_key(&self, of: &OrganizationRow, name: String, scopes: ScopeSet) -> Result<IssuedKey, AdminError> {
        self.make_key(of.tenant, scopes, NewKey { name, ..NewKey::default() }, Default::default())
    }
}

/// Applies a write that has begun to memory: when the write completes, or when the caller is dropped while it
/// runs.
struct DirectoryUpdate<'a> {
    auth: &'a Auth,
    writes: Vec<RecordChange>,
    changes: &'a [AuthChange],
}

impl Drop for DirectoryUpdate<'_> {
    fn drop(&mut self) {
        self.auth.directory.apply(std::mem::take(&mut self.writes));
        self.changes.iter().for_each(|change| self.auth.notify(change));
    }
}

pub(in crate::auth) fn check_name(name: &str) -> Result<(), AdminError> {
    match name.len() <= NAME_BYTES && !name.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(AdminError::invalid("name", "must be at most 256 bytes without control characters")),
    }
}

pub(in crate::auth) fn limit(what: &'static str, count: usize, max: usize) -> Result<(), AdminError> {
    match count < max {
        true => Ok(()),
        false => Err(AdminError::Limit { what, max }),
    }
}
