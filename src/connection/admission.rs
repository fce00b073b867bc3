//! Who may connect: counts of live connections overall, per organization, per user and per address.
//!
//! * A place is taken before the upgrade and given back by dropping [`Admitted`], whatever ends the connection.
//! * Loopback addresses have no limit per address, so that a proxy or load tester on the machine is not refused.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

use crate::auth::Principal;
use crate::ids::TenantId;

/// How many connections may live at once; 0: no limit of that kind.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In the whole process.
    pub total: usize,
    /// Of one organization.
    pub per_organization: usize,
    /// Of one user of an organization (a credential with a `sub`).
    pub per_user: usize,
    /// From one address (IPv6: one /64).
    pub per_address: usize,
}

/// Which limit refused a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refused {
    /// The process is full.
    #[error("the server holds as many connections as it may")]
    Total,
    /// The organization is full.
    #[error("the organization holds as many connections as it may ({0})")]
    Organization(usize),
    /// The user is full.
    #[error("the user holds as many connections as it may ({0})")]
    User(usize),
    /// The address is full.
    #[error("the address holds as many connections as it may ({0})")]
    Address(usize),
}

/// The counts.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    total: AtomicUsize,
    organizations: DashMap<TenantId, usize>,
    users: DashMap<(TenantId, Box<str>), usize>,
    addresses: DashMap<IpAddr, usize>,
}

/// A place in every count, held by a live connection.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    principal: Arc<Principal>,
    /// IPv4 as mapped, none as `::`: a byte less than an `Option<IpAddr>`, which is eight in a [`super::Connection`].
    peer: Ipv6Addr,
}

impl Admission {
    /// No connections yet.
    #[must_use]
    pub fn new(limits: Limits) -> Arc<Admission> {
        Arc::new(Admission {
            limits,
            total: AtomicUsize::new(0),
            organizations: DashMap::new(),
            users: DashMap::new(),
            addresses: DashMap::new(),
        })
    }

    /// Takes a place for `principal` coming from `peer` (`None`: a unix socket).
    ///
    /// # Errors
    /// [`Refused`] names the limit that is reached; nothing is taken then.
    pub fn admit(
        self: &Arc<Self>,
        principal: Arc<Principal>,
        peer: Option<IpAddr>,
    ) -> Result<Admitted, Refused> {
        if self.total.fetch_add(1, Ordering::Relaxed) >= self.limits.total && self.limits.total != 0 {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Total);
        }
        // Built first, so that an error below gives back exactly what was taken so far.
        let mut taken = Taken { admission: self, organization: None, user: None, armed: true };
        let tenant = principal.tenant;
        if !take(&self.organizations, tenant, self.limits.per_organization) {
            return Err(Refused::Organization(self.limits.per_organization));
        }
        taken.organization = Some(tenant);
        if let Some(sub) = principal.sub.as_deref() {
            let user = (tenant, Box::from(sub));
            if !take(&self.users, user.clone(), self.limits.per_user) {
                return Err(Refused::User(self.limits.per_user));
            }
            taken.user = Some(user);
        }
        if let Some(address) = counted(peer)
            && !take(&self.addresses, address, self.limits.per_address)
        {
            return Err(Refused::Address(self.limits.per_address));
        }
        taken.armed = false; // from here on `Admitted` gives it all back
        let peer = match peer {
            None => Ipv6Addr::UNSPECIFIED,
            Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
            Some(IpAddr::V6(v6)) => v6,
        };
        Ok(Admitted { admission: self.clone(), principal, peer })
    }

    /// Live connections.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Live connections of one organization.
    #[must_use]
    pub fn of_organization(&self, tenant: TenantId) -> usize {
        self.organizations.get(&tenant).map_or(0, |n| *n)
    }
}

impl Admitted {
    /// Who it is.
    #[must_use]
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }
    /// Replaces the principal by a renewed one: same organization, same subject, so the counts stand.
    pub fn renew(&mut self, principal: Arc<Principal>) {
        debug_assert!(
            self.principal.tenant == principal.tenant
                && self.principal.sub.as_deref() == principal.sub.as_deref()
        );
        self.principal = principal;
    }
    /// Where it comes from; `None`: a unix socket.
    #[must_use]
    pub fn peer(&self) -> Option<IpAddr> {
        (!self.peer.is_unspecified()).then(|| self.peer.to_canonical())
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let admission = &self.admission;
        let tenant = self.principal.tenant;
        admission.total.fetch_sub(1, Ordering::Relaxed);
        give(&admission.organizations, &tenant);
        if let Some(sub) = self.principal.sub.as_deref() {
            give(&admission.users, &(tenant, Box::from(sub)));
        }
        if let Some(address) = counted(self.peer()) {
            give(&admission.addresses, &address);
        }
    }
}

/// What a refused admission gives back.
struct Taken<'a> {
    admission: &'a Admission,
    organization: Option<TenantId>,
    user: Option<(TenantId, Box<str>)>,
    armed: bool,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        self.admission.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(tenant) = &self.organization {
            give(&self.admission.organizations, tenant);
        }
        if let Some(user) = &self.user {
            give(&self.admission.users, user);
        }
    }
}

/// The address a limit counts: none for loopback and unix sockets, the /64 of IPv6.
fn counted(peer: Option<IpAddr>) -> Option<IpAddr> {
    match peer?.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V6(v6) => {
            let s = v6.segments();
            Some(IpAddr::V6(Ipv6Addr::new(s[0], s[1], s[2], s[3], 0, 0, 0, 0)))
        }
        v4 => Some(v4),
    }
}

fn take<K: Eq + Hash>(counts: &DashMap<K, usize>, key: K, limit: usize) -> bool {
    let mut count = counts.entry(key).or_insert(0);
    let room = limit == 0 || *count < limit;
    *count += usize::from(room);
    room
}

fn give<K: Eq + Hash>(counts: &DashMap<K, usize>, key: &K) {
    counts.remove_if_mut(key, |_, count| {
        *count = count.saturating_sub(1);
        *count == 0
    });
}
