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
pub(super) struct Changing {
    all: RwLock<()>,
    /// An entry exists while somebody holds its lock or waits for it.
    tenants: DashMap<TenantId, Arc<Mutex<()>>>,
}

/// The locks that a change holds: of its own organization and of its caller's.
pub(super) struct ChangingTenants<'a> {
    changing: &'a Changing,
    /// `None` while the lock is being acquired, and after it is released.
    held: Vec<(TenantId, Option<OwnedMutexGuard<()>>)>,
    _all: RwLockReadGuard<'a, ()>,
}

impl Changing {
    /// Waits until no other change runs.
    pub(super) async fn lock(&self) -> RwLockWriteGuard<'_, ()> {
        self.all.write().await
    }

    /// Waits until no other change of these organizations runs. The caller must read their state again
    /// afterwards.
    pub(super) async fn lock_tenants(&self, one: TenantId, other: TenantId) -> ChangingTenants<'_> {
        let (all, held) = (self.all.read().await, Vec::with_capacity(2));
        let mut tenants = ChangingTenants { changing: self, held, _all: all };
        // The locks are acquired in order, so two changes never wait for each other.
        let mut wanted = vec![one.min(other), one.max(other)];
        wanted.dedup();
        for tenant in wanted {
            let lock = self.tenants.entry(tenant).or_default().clone();
            tenants.held.push((tenant, None));
            let guard = lock.lock_owned().await;
            if let Some(last) = tenants.held.last_mut() {
                last.1 = Some(guard);
            }
        }
        tenants
    }
}

impl Drop for ChangingTenants<'_> {
    fn drop(&mut self) {
        for (tenant, guard) in self.held.drain(..) {
            drop(guard);
            self.changing.tenants.remove_if(&tenant, |_, lock| Arc::strong_count(lock) == 1);
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
    async fn changes_of_one_organization_hold_up_its_own_alone() {
        let changing = Changing::default();
        let held = changing.lock_tenants(A, A).await;
        let mut next = Box::pin(changing.lock_tenants(A, A));
        assert!((&mut next).now_or_never().is_none());
        drop(changing.lock_tenants(B, B).now_or_never().expect("another organization's lock is free"));
        assert!(changing.lock().now_or_never().is_none(), "a change of all organizations waits");
        assert!(changing.lock_tenants(B, A).now_or_never().is_none(), "an operator's change waits for both");
        drop(held);
        drop((&mut next).now_or_never().expect("free"));
        let mut all = changing.lock().now_or_never();
        assert!(all.is_some() && changing.lock_tenants(B, B).now_or_never().is_none());
        all.take();
        assert!(changing.tenants.is_empty(), "no entry is left");
    }

    #[tokio::test]
    async fn who_gives_up_waiting_leaves_nothing_behind() {
        let changing = Changing::default();
        let held = changing.lock_tenants(A, A).await;
        let mut waits = Box::pin(changing.lock_tenants(A, A));
        assert!((&mut waits).now_or_never().is_none());
        drop(held);
        drop(waits);
        assert!(changing.tenants.is_empty());
    }
}
