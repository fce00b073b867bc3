//! One administrative change: which organization it concerns, its lock, and its commit.
//!
//! * A change is checked, written, synced to disk and applied in memory; then the hooks run, and only then
//!   the caller gets its response. The last check before the write is that the caller's credential is still
//!   valid ([`Actor`]).
//! * Changes of an organization run one at a time, so what was checked is still true when it is written.
//! * An organization of somebody else and an unknown one give the same [`AdminError::NotFound`]. Only the
//!   operator, who may delete any organization, may act in organizations other than its own.
//! * If the caller is dropped (its client hung up), a write that has begun continues, and memory is still
//!   updated.

use std::sync::Arc;

use super::actor::Actor;
use super::change::AuthChange;
use super::change_locks::ChangeGuard;
use crate::auth::Auth;
use crate::auth::error::{AdminError, RecordsError};
use crate::auth::records::rows::{Organization, RecordChange};
use crate::auth::rights::principal::Principal;
use crate::auth::rights::scope::Scope;
use crate::store::Rows;

impl Auth {
    /// Returns the organization that a manager addresses: its own or, for the operator, any.
    pub(super) fn target(
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
    pub(super) async fn lock_target(
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
    pub(super) async fn commit(
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
