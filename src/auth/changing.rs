//! Who may change what `auth` keeps: one change of an organization at a time, and changes of different organizations beside each other.
//!
//! * A change holds its place from its check to its commit, so that two cannot both find a limit not reached.
//! * What concerns organizations together (making and deleting them, maintenance) waits for changes under way and holds off new ones.
//! * An organization's changes wait for its own, however many there are: they hold up nobody else's revocation.

use std::sync::Arc;

use dashmap::DashMap;
use tokio::sync::{Mutex, OwnedMutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::ids::TenantId;

/// The places.
#[derive(Default)]
pub(super) struct Changing {
    all: RwLock<()>,
    /// An entry lives while somebody holds it or waits for it.
    tenants: DashMap<TenantId, Arc<Mutex<()>>>,
}

/// The places of a change, of its own organization and of its caller's.
pub(super) struct ChangingTenants<'a> {
    changing: &'a Changing,
    /// `None` while a place is waited for, and at the end.
    held: Vec<(TenantId, Option<OwnedMutexGuard<()>>)>,
    _all: RwLockReadGuard<'a, ()>,
}

impl Changing {
    /// Waits until nothing else is changed.
    pub(super) async fn lock(&self) -> RwLockWriteGuard<'_, ()> {
        self.all.write().await
    }

    /// Waits until nothing else of these organizations is changed. What was known of them before may not be so any more.
    pub(super) async fn lock_tenants(&self, one: TenantId, other: TenantId) -> ChangingTenants<'_> {
        let (all, held) = (self.all.read().await, Vec::with_capacity(2));
        let mut tenants = ChangingTenants { changing: self, held, _all: all };
        // In order, so that two changes never wait for each other.
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
        drop(changing.lock_tenants(B, B).now_or_never().expect("another's place is free"));
        assert!(changing.lock().now_or_never().is_none(), "what concerns all waits");
        assert!(changing.lock_tenants(B, A).now_or_never().is_none(), "an operator's change waits for both");
        drop(held);
        drop((&mut next).now_or_never().expect("free"));
        let mut all = changing.lock().now_or_never();
        assert!(all.is_some() && changing.lock_tenants(B, B).now_or_never().is_none());
        all.take();
        assert!(changing.tenants.is_empty(), "nothing is left behind");
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
