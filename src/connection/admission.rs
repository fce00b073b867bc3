//! Who may connect: counts of live connections overall, per organization, per user and per address.
//!
//! * A place is taken before the upgrade and given back by dropping [`Admitted`], whatever ends the connection.
//! * Where connections run short, those that are left are for organizations that hold less than an equal part: none can take all.
//! * A waiting poll takes a place too ([`Polled`]), and does not make its user present: streams are counted beside places.
//! * Loopback and unix sockets have no limit per address, so that a proxy or load tester on the machine is not refused; unless they
//!   are trusted proxies, whose clients have addresses of their own.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

use crate::auth::Principal;
use crate::ids::TenantId;

use super::presence::Presence;

/// Users of an organization that are mustered while their count is locked: connections of the organization come and go between.
const MUSTERED: usize = 256;

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
    /// Whether that holds for loopback and unix sockets too.
    pub count_local: bool,
}

/// Which part of all connections only organizations get that hold less than an equal part of all.
const SHARED_PART: usize = 8;

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

impl Refused {
    /// The configuration key of the limit, and what it allows now; `None`: it is nobody's own.
    #[must_use]
    pub fn limit(self) -> Option<(&'static str, usize)> {
        match self {
            Refused::Total => None,
            Refused::Organization(max) => Some(("limits.connections_per_organization", max)),
            Refused::User(max) => Some(("limits.connections_per_user", max)),
            Refused::Address(max) => Some(("limits.connections_per_address", max)),
        }
    }
}

/// The counts.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    total: AtomicUsize,
    organizations: DashMap<TenantId, usize>,
    /// By organization, so that nobody has to look at another one's users.
    users: DashMap<TenantId, BTreeMap<Box<str>, Held>>,
    addresses: DashMap<IpAddr, usize>,
    /// Sockets without a credential. Counted apart, so that an address whose streams fill its places can still send requests.
    newcomers: DashMap<IpAddr, usize>,
    presence: Arc<Presence>,
}

/// What one user holds.
#[derive(Default, Debug)]
struct Held {
    /// Connections and waiting polls.
    places: u32,
    /// Connections alone; at most `places`.
    streams: u32,
}

/// What takes a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taker {
    Stream,
    Poll,
}

/// A place in every count, held by a live connection.
#[derive(Debug)]
pub struct Admitted {
    admission: Arc<Admission>,
    principal: Arc<Principal>,
    /// IPv4 as mapped, none as `::`: a byte less than an `Option<IpAddr>`, which is eight in a [`super::Connection`].
    peer: Ipv6Addr,
}

/// A place in every count, held by a request that waits for news.
#[derive(Debug)]
pub struct Polled {
    admission: Arc<Admission>,
    principal: Arc<Principal>,
    peer: Option<IpAddr>,
}

/// A place in the count of its address, held by a socket whose peer has not shown a credential.
#[derive(Debug)]
pub struct SocketPlace {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
}

/// What counts as one address: the /64 of IPv6. Unix sockets are `::`, which is no client's.
pub(super) fn network(peer: Option<IpAddr>) -> IpAddr {
    match peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.to_canonical()) {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

impl Admission {
    /// No connections yet. `presence` is told when a user comes and goes.
    #[must_use]
    pub fn new(limits: Limits, presence: Arc<Presence>) -> Arc<Admission> {
        Arc::new(Admission {
            limits,
            total: AtomicUsize::new(0),
            organizations: DashMap::new(),
            users: DashMap::new(),
            addresses: DashMap::new(),
            newcomers: DashMap::new(),
            presence,
        })
    }

    /// Takes a place for a stream of `principal` coming from `peer` (`None`: a unix socket).
    ///
    /// # Errors
    /// [`Refused`] names the limit that is reached; nothing is taken then.
    pub fn admit(
        self: &Arc<Self>,
        principal: Arc<Principal>,
        peer: Option<IpAddr>,
    ) -> Result<Admitted, Refused> {
        self.take(&principal, peer, Taker::Stream)?;
        let peer = match peer {
            None => Ipv6Addr::UNSPECIFIED,
            Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
            Some(IpAddr::V6(v6)) => v6,
        };
        Ok(Admitted { admission: self.clone(), principal, peer })
    }

    /// [`Admission::admit`] for a request that waits for news.
    ///
    /// # Errors
    /// As there.
    pub fn admit_poll(
        self: &Arc<Self>,
        principal: Arc<Principal>,
        peer: Option<IpAddr>,
    ) -> Result<Polled, Refused> {
        self.take(&principal, peer, Taker::Poll)?;
        Ok(Polled { admission: self.clone(), principal, peer })
    }

    /// Takes a place for a socket whose peer has not shown a credential: its address alone has a limit for it.
    ///
    /// # Errors
    /// [`Refused::Address`].
    pub fn admit_socket(self: &Arc<Self>, peer: Option<IpAddr>) -> Result<SocketPlace, Refused> {
        let address = self.counted(peer);
        match address {
            Some(address) if !take(&self.newcomers, address, self.limits.per_address) => {
                Err(Refused::Address(self.limits.per_address))
            }
            _ => Ok(SocketPlace { admission: self.clone(), address }),
        }
    }

    fn take(&self, principal: &Principal, peer: Option<IpAddr>, taker: Taker) -> Result<(), Refused> {
        let total = self.total.fetch_add(1, Ordering::Relaxed);
        if total >= self.limits.total && self.limits.total != 0 {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(Refused::Total);
        }
        // Built first, so that an error below gives back exactly what was taken so far.
        let mut taken = Taken { admission: self, taker, organization: None, user: None, armed: true };
        let tenant = principal.tenant;
        let most = self.most_of_organization(total);
        if !take(&self.organizations, tenant, most) {
            return Err(Refused::Organization(most));
        }
        taken.organization = Some(tenant);
        if let Some(sub) = principal.sub.as_deref() {
            if !self.take_user(tenant, sub, taker) {
                return Err(Refused::User(self.limits.per_user));
            }
            taken.user = Some((tenant, sub));
        }
        if let Some(address) = self.counted(peer)
            && !take(&self.addresses, address, self.limits.per_address)
        {
            return Err(Refused::Address(self.limits.per_address));
        }
        taken.armed = false; // from here on `Admitted` or `Polled` gives it all back
        Ok(())
    }

    /// How many connections one organization may hold while all hold `total`; 0: any number.
    fn most_of_organization(&self, total: usize) -> usize {
        let all = self.limits.total;
        if self.limits.per_organization != 0 || all == 0 || total < all - all / SHARED_PART {
            return self.limits.per_organization;
        }
        (all / self.organizations.len().max(1)).max(1)
    }

    fn take_user(&self, tenant: TenantId, sub: &str, taker: Taker) -> bool {
        let mut users = self.users.entry(tenant).or_default();
        let held = users.entry(sub.into()).or_default();
        let room = self.limits.per_user == 0 || (held.places as usize) < self.limits.per_user;
        held.places += u32::from(room);
        if room && taker == Taker::Stream {
            held.streams += 1;
            if held.streams == 1 {
                self.presence.came(tenant, sub);
            }
        }
        room
    }

    fn give_user(&self, tenant: TenantId, sub: &str, taker: Taker) {
        self.users.remove_if_mut(&tenant, |_, users| {
            if let Some(held) = users.get_mut(sub) {
                held.places = held.places.saturating_sub(1);
                if taker == Taker::Stream {
                    held.streams = held.streams.saturating_sub(1);
                    if held.streams == 0 {
                        self.presence.went(tenant, sub);
                    }
                }
                if held.places == 0 {
                    users.remove(sub);
                }
            }
            users.is_empty()
        });
    }

    fn give(&self, principal: &Principal, peer: Option<IpAddr>, taker: Taker) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        give(&self.organizations, &principal.tenant);
        if let Some(sub) = principal.sub.as_deref() {
            self.give_user(principal.tenant, sub, taker);
        }
        if let Some(address) = self.counted(peer) {
            give(&self.addresses, &address);
        }
    }

    /// The address a limit counts: none for local peers, else the [`network`].
    fn counted(&self, peer: Option<IpAddr>) -> Option<IpAddr> {
        let local = peer.is_none_or(|peer| {
            let peer = peer.to_canonical();
            peer.is_loopback() || peer.is_unspecified()
        });
        (self.limits.count_local || !local).then(|| network(peer))
    }

    /// Who is present.
    #[must_use]
    pub fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// Has some connected users of an organization put on its roster, those after one in the order of their `sub`. Returns after whom
    /// to go on; `None`: that was all.
    pub fn muster(&self, tenant: TenantId, after: Option<&str>) -> Option<Box<str>> {
        let users = self.users.get(&tenant)?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for (sub, held) in users.range::<str, _>((after, Bound::Unbounded)).take(MUSTERED) {
            if held.streams > 0 {
                self.presence.found(tenant, sub);
            }
            last = Some(sub);
        }
        last.cloned()
    }

    /// Live streams of one user.
    #[must_use]
    pub fn streams_of(&self, tenant: TenantId, sub: &str) -> u32 {
        self.users.get(&tenant).and_then(|users| users.get(sub).map(|held| held.streams)).unwrap_or_default()
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
    /// It is served now: its user is present.
    pub fn arrived(&self) {
        if let Some(sub) = self.principal.sub.as_deref() {
            self.admission.presence.arrived(self.principal.tenant, sub);
        }
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
        self.admission.give(&self.principal, self.peer(), Taker::Stream);
    }
}

impl Drop for SocketPlace {
    fn drop(&mut self) {
        if let Some(address) = &self.address {
            give(&self.admission.newcomers, address);
        }
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.admission.give(&self.principal, self.peer, Taker::Poll);
    }
}

/// What a refused admission gives back.
struct Taken<'a> {
    admission: &'a Admission,
    taker: Taker,
    organization: Option<TenantId>,
    user: Option<(TenantId, &'a str)>,
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
        if let Some((tenant, sub)) = self.user {
            self.admission.give_user(tenant, sub, self.taker);
        }
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
