//! The steps that all listed resources share: create, get, list, change and delete.
//!
//! * [`ListResource`] has what differs between the resources. A new one implements it, and its handlers in
//!   `http/resources` follow from it.
//! * A change checks, in this order: that the caller may see the resource, may change it, and has named its
//!   current version. What the request wants to change is checked last.
//! * A change holds the lock of its resource from the read to the commit.

use std::sync::Arc;

use super::record::{self, PageRequest, PageStart, Record};
use super::{Caller, ResourceError, check_version, lock_key};
use crate::auth::{Authorized, Principal, Right};
use crate::event::Event;
use crate::filter::Rights;
use crate::ids::TenantId;
use crate::store::{Group, GroupSelector, Rows};
use crate::tenant::Tenant;
use crate::tenant::idempotency::KeyGuards;
use crate::tenant::publish::CommitWaiter;

/// What a commit does to a resource.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    /// Returns the name that events and versions use.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Create => "created",
            Operation::Update => "updated",
            Operation::Delete => "deleted",
        }
    }
}

/// The rows that a list may show to the caller.
pub(crate) enum ListSource {
    /// No row: the caller may see none.
    Empty,
    /// The rows of these groups.
    Groups(GroupSelector),
    /// Those of these resources that exist.
    Ids(Vec<String>),
}

impl ListSource {
    /// The rows that are in any of the groups.
    pub(super) fn any_of(groups: Vec<Group>) -> ListSource {
        match groups.is_empty() {
            true => ListSource::Empty,
            false => ListSource::Groups(GroupSelector::Any(groups)),
        }
    }
}

/// A resource that is found by its id and in lists.
pub(crate) trait ListResource: Record + Clone {
    /// The kind of resource in the names of locks.
    const KIND: &'static str;
    /// False for a resource that never changes and so has one version only.
    const HAS_VERSIONS: bool = true;
    /// The right that creating, changing and deleting needs.
    type WriteRight: Right;
    /// The fields of a new resource.
    type New;
    /// Selects the resources of a list.
    type Filter: Default;

    /// Returns the current version, from 1.
    fn version(&self) -> u64;

    /// Returns the event that reports the operation, if one does.
    fn event(&self, operation: Operation) -> Option<Event<'_>>;

    /// Returns false if the caller may see no resource with this id. It is checked before a read.
    fn permits_id(_rights: &Rights, _id: &str) -> bool {
        true
    }

    /// Returns true if the caller may see the resource.
    fn is_visible(&self, _rights: &Rights) -> bool {
        true
    }

    /// Checks that the caller, who may see the resource, may also change or delete it.
    fn check_write(&self, right: &Authorized<Self::WriteRight>) -> Result<(), ResourceError>;

    /// Returns the rows of a list. Only those that the caller may see are listed.
    fn source(rights: &Rights, filter: &Self::Filter) -> Result<ListSource, ResourceError>;

    /// Builds a new resource, if the caller may create it. Nothing is stored yet.
    async fn build<N: CommitWaiter>(
        caller: &Caller<'_, N>,
        right: &Authorized<Self::WriteRight>,
        new: Self::New,
    ) -> Result<Self, ResourceError>;

    /// Adds the rows that change `old` into `new`.
    fn put(
        rows: &mut Rows,
        tenant: TenantId,
        old: Option<&Self>,
        new: &Self,
        _operation: Operation,
    ) -> Result<(), ResourceError> {
        record::put(rows, tenant, old, new)
    }

    /// Adds the rows that delete the resource completely.
    fn remove(&self, rows: &mut Rows, tenant: TenantId) {
        record::remove(rows, tenant, self);
    }

    /// Called under the resource's lock before it is deleted.
    fn forget(&self, _tenant: &Tenant) {}

    /// The lock that every change of the resource holds.
    fn lock(id: &str) -> [u8; 32] {
        lock_key(Self::KIND, id)
    }
}

/// A resource that can be changed after it was created.
pub(crate) trait PatchResource: ListResource {
    /// A change. What it leaves out stays as it is.
    type Patch;

    /// Applies a change.
    fn patched(self, principal: &Principal, patch: Self::Patch) -> Result<Self, ResourceError>;

    /// Sets the time of the last change, and the next version.
    fn advance_version(&mut self, now_ms: u64);
}

/// Creates a resource. `response_rows` returns rows to add to its commit.
///
/// # Errors
/// [`ResourceError`].
pub(crate) async fn create<R: ListResource, N: CommitWaiter>(
    caller: &Caller<'_, N>,
    right: &Authorized<R::WriteRight>,
    new: R::New,
    response_rows: impl FnOnce(&R) -> Rows,
) -> Result<R, ResourceError> {
    let resource = R::build(caller, right, new).await?;
    let mut rows = response_rows(&resource);
    R::put(&mut rows, caller.tenant.id(), None, &resource, Operation::Create)?;
    caller.commit(right, rows, resource.event(Operation::Create).as_slice()).await?;
    Ok(resource)
}

/// Gets a resource.
///
/// # Errors
/// [`ResourceError::NotFound`], also for a resource that the caller may not see.
pub(crate) async fn get<R: ListResource, N: CommitWaiter>(
    caller: &Caller<'_, N>,
    id: &str,
) -> Result<R, ResourceError> {
    if !R::permits_id(&caller.rights, id) {
        return Err(ResourceError::NotFound);
    }
    let found: Option<R> = record::get(caller.tenants.store(), caller.tenant.id(), id).await?;
    found.filter(|resource| resource.is_visible(&caller.rights)).ok_or(ResourceError::NotFound)
}

/// Lists resources in the order of creation. Also returns the position of the next page; `None` for the last
/// one.
///
/// # Errors
/// [`ResourceError`].
pub(crate) async fn list<R: ListResource, N: CommitWaiter>(
    caller: &Caller<'_, N>,
    filter: &R::Filter,
    page: &PageRequest,
) -> Result<(Vec<R>, Option<PageStart>), ResourceError> {
    match R::source(&caller.rights, filter)? {
        ListSource::Empty => Ok((Vec::new(), None)),
        ListSource::Groups(groups) => {
            record::list(caller.tenants.store(), caller.tenant.id(), groups, page).await
        }
        ListSource::Ids(ids) => {
            let mut found = Vec::new();
            for id in ids {
                match get(caller, &id).await {
                    Ok(resource) => found.push(resource),
                    Err(ResourceError::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(record::page_of(found, page))
        }
    }
}

/// Changes the given fields of a resource, if `version` is still the current one.
///
/// # Errors
/// [`ResourceError`].
pub(crate) async fn patch<R: PatchResource, N: CommitWaiter>(
    caller: &Caller<'_, N>,
    right: &Authorized<R::WriteRight>,
    id: &str,
    version: Option<u64>,
    patch: R::Patch,
) -> Result<R, ResourceError> {
    update(caller, right, id, version, |resource: R, _| resource.patched(&caller.principal, patch)).await
}

/// Replaces a resource by what `change` makes of it at a time, if `version` is still the current one.
pub(super) async fn update<R: PatchResource, N: CommitWaiter>(
    caller: &Caller<'_, N>,
    right: &Authorized<R::WriteRight>,
    id: &str,
    version: Option<u64>,
    change: impl FnOnce(R, u64) -> Result<R, ResourceError>,
) -> Result<R, ResourceError> {
    let (old, guard): (R, _) = lock_to_write(caller, right, id, version).await?;
    let now_ms = caller.now_ms();
    let mut resource = change(old.clone(), now_ms)?;
    resource.advance_version(now_ms);
    let mut rows = Rows::new();
    rows.hold_until_commit(guard);
    R::put(&mut rows, caller.tenant.id(), Some(&old), &resource, Operation::Update)?;
    caller.commit(right, rows, resource.event(Operation::Update).as_slice()).await?;
    Ok(resource)
}

/// Deletes a resource, if `version` is still the current one.
///
/// # Errors
/// [`ResourceError`].
pub(crate) async fn delete<R: ListResource, N: CommitWaiter>(
    caller: &Caller<'_, N>,
    right: &Authorized<R::WriteRight>,
    id: &str,
    version: Option<u64>,
) -> Result<(), ResourceError> {
    let (resource, guard): (R, _) = lock_to_write(caller, right, id, version).await?;
    resource.forget(&caller.tenant);
    let mut rows = Rows::new();
    rows.hold_until_commit(guard);
    resource.remove(&mut rows, caller.tenant.id());
    caller.commit(right, rows, resource.event(Operation::Delete).as_slice()).await
}

/// Locks and reads a resource that the caller may change.
async fn lock_to_write<R: ListResource, N: CommitWaiter>(
    caller: &Caller<'_, N>,
    right: &Authorized<R::WriteRight>,
    id: &str,
    version: Option<u64>,
) -> Result<(R, Arc<KeyGuards>), ResourceError> {
    let guard = caller.lock(R::lock(id)).await;
    let resource: R = get(caller, id).await?;
    resource.check_write(right)?;
    check_version(version, resource.version())?;
    Ok((resource, guard))
}
