//! Locks for administrative changes: one change of an organization at a time; different organizations in
//! parallel.
//!
//! * A change holds its lock from its check to its commit, so two changes cannot both find a limit not yet
//!   reached.
//! * What concerns all organizations (creating and deleting them, maintenance) waits for running changes and
//!   blocks new ones.
//! * Changes of one organization wait only for each other. However many there are, they delay no other
//!   organization's revocation.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::ids::TenantId;

/// The locks of all organizations.
#[derive(Default)]
pub(in crate::auth) struct ChangeLocks {
    all: RwLock<()>,
    /// An entry exists while somebody holds its lock or waits for it.
    tenants: DashMap<TenantId, Arc<Mutex<()>>>,
}

/// The locks that a change holds: of its own organization and of its caller's.
pub(in crate::auth) struct ChangeGuard<'a> {
    locks: &'a ChangeLocks,
    /// `None` while the lock is being acquired, and after it is released.
    guards: Vec<(TenantId, Option<OwnedMutexGuard<()>>)>,
    _all: RwLockReadGuard<'a, ()>,
}

impl ChangeLocks {
    /// Waits until no other change runs.
    pub(in crate::auth) async fn lock(&self) -> RwLockWriteGuard<'_, ()> {
        self.all.write().await
    }

    /// Waits until no other change of these organizations runs. The caller must read their state again
    /// afterwards.
    pub(in crate::auth) async fn lock_tenants(&self, one: TenantId, other: TenantId) -> ChangeGuard<'_> {
        let (all, guards) = (self.all.read().await, Vec::with_capacity(2));
        let mut tenants = ChangeGuard { locks: self, guards, _all: all };
        // The locks are acquired in order, so two changes never wait for each other.
        let mut wanted = vec![one.min(other), one.max(other)];
        wanted.dedup();
        for tenant in wanted {
            let lock = self.tenants.entry(tenant).or_default().clone();
            tenants.guards.push((tenant, None));
            let guard = lock.lock_owned().await;
            if let Some(last) = tenants.guards.last_mut() {
                last.1 = Some(guard);
            }
        }
        tenants
    }
}

impl Drop for ChangeGuard<'_> {
    fn drop(&mut self) {
        for (tenant, guard) in self.guards.drain(..) {
            drop(guard);
            self.locks.tenants.remove_if(&tenant, |_, lock| Arc::strong_count(lock) == 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const A: TenantId = TenantId(1);
    const B: TenantId = TenantId(2);

    #[tokio::test]
    async fn changes_of_one_organization_delay_no_other_organization() {
        let locks = ChangeLocks::default();
        let guards = locks.lock_tenants(A, A).await;
        let mut next = Box::pin(locks.lock_tenants(A, A));
        assert!((&mut next).now_or_never().is_none());
        drop(locks.lock_tenants(B, B).now_or_never().expect("another organization's lock is free"));
        assert!(locks.lock().now_or_never().is_none(), "a change of all organizations waits");
        assert!(locks.lock_tenants(B, A).now_or_never().is_none(), "an operator's change waits for both");
        drop(guards);
        drop((&mut next).now_or_never().expect("free"));
        let mut all = locks.lock().now_or_never();
        assert!(all.is_some() && locks.lock_tenants(B, B).now_or_never().is_none());
        all.take();
        assert!(locks.tenants.is_empty(), "no entry is left");
    }

    #[tokio::test]
    async fn a_dropped_waiter_leaves_no_entry() {
        let locks = ChangeLocks::default();
        let guards = locks.lock_tenants(A, A).await;
        let mut waits = Box::pin(locks.lock_tenants(A, A));
        assert!((&mut waits).now_or_never().is_none());
        drop(guards);
        drop(waits);
        assert!(locks.tenants.is_empty());
    }
}
