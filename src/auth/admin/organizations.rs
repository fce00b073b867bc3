//! Creates, finds, changes and deletes organizations.

use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use super::api_keys::{IssuedKey, NewKey};
use super::change::AuthChange;
use super::fields::{check_limit, check_name};
use crate::auth::Auth;
use crate::auth::error::AdminError;
use crate::auth::records::directory::ORGANIZATIONS;
use crate::auth::records::rows::{Organization, RecordChange};
use crate::auth::rights::authorized::{Authorized, Manage, Operate};
use crate::auth::rights::scope::{Scope, ScopeSet};
use crate::ids::{TenantId, fresh, is_org_id};
use crate::store::{Rows, Visibility};

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
        check_limit("organizations", count, ORGANIZATIONS)?;
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

    /// Returns the current row of the organization with this number.
    #[must_use]
    pub fn organization(&self, tenant: TenantId) -> Option<Arc<Organization>> {
        self.directory.read(|table| table.by_tenant.get(&tenant).map(|entry| Arc::clone(&entry.organization)))
    }

    /// Returns the organization with this public id, for a user who wants to log in.
    #[must_use]
    pub fn organization_named(&self, org_id: &str) -> Option<Arc<Organization>> {
        self.directory.read(|table| table.by_org_id(org_id).map(|entry| Arc::clone(&entry.organization)))
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
        let new = Organization {
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

    pub(super) fn new_row(&self, id: String, new: NewOrganization) -> Organization {
        let tenant = self.directory.take_number();
        let NewOrganization { name, visibility, presence, .. } = new;
        Organization { tenant, id, name, visibility, presence, created_at_ms: self.clock.now_ms() }
    }

    pub(super) fn new_key(
        &self,
        of: &Organization,
        name: String,
        scopes: ScopeSet,
    ) -> Result<IssuedKey, AdminError> {
        self.make_key(of.tenant, scopes, NewKey { name, ..NewKey::default() }, Default::default())
    }
}
