//! Limits of live connections: in total, per organization, per user and per address.
//!
//! * A permit is acquired before the upgrade and released by dropping [`ConnectionPermit`], whatever ends the
//!   connection.
//! * When few connections are left, only organizations with less than an equal part get them, so none can
//!   take all.
//! * A waiting poll takes a permit too ([`PollPermit`]) but does not make its user present. So streams are
//!   counted separately from permits.
//! * Loopback and unix sockets have no limit per address, so that a proxy or load tester on the machine is
//!   not refused. This does not apply to trusted proxies, because their clients have addresses of their own.

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

/// How many users of an organization [`Admission::enrol_connected`] puts on the roster under one lock. Between two
/// such steps the organization's connections can come and go.
const ENROLLED_AT_ONCE: usize = 256;

/// The most live connections of each kind; 0 means no limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// In the whole process.
    pub total: usize,
    /// Of one organization.
    pub per_organization: usize,
    /// Of one user of an organization (a credential with a `sub`).
    pub per_user: usize,
    /// From one address (for IPv6, from one /64).
    pub per_address: usize,
    /// Whether `per_address` also applies to loopback and unix sockets.
    pub count_local: bool,
}

/// One part in this many of all connections is reserved for organizations that hold less than an equal part.
const SHARED_PART: usize = 8;

/// The limit that refused a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The limit of the process is reached.
    #[error("the server has reached its connection limit")]
    Total,
    /// The organization's limit is reached.
    #[error("the organization has reached its connection limit ({0})")]
    Organization(usize),
    /// The user's limit is reached.
    #[error("the user has reached its connection limit ({0})")]
    User(usize),
    /// The address's limit is reached.
    #[error("the address has reached its connection limit ({0})")]
    Address(usize),
}

impl AdmissionError {
    /// Returns the configuration key of the limit and its present value, or `None` for the limit of the whole
    /// process.
    #[must_use]
    pub fn limit(self) -> Option<(&'static str, usize)> {
        match self {
            AdmissionError::Total => None,
            AdmissionError::Organization(max) => Some(("limits.connections_per_organization", max)),
            AdmissionError::User(max) => Some(("limits.connections_per_user", max)),
            AdmissionError::Address(max) => Some(("limits.connections_per_address", max)),
        }
    }
}

/// Counts the live connections against their limits.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    total: AtomicUsize,
    organizations: DashMap<TenantId, usize>,
    /// Grouped by organization, so that a search never looks at another organization's users.
    users: DashMap<TenantId, BTreeMap<Box<str>, UserCounts>>,
    addresses: DashMap<IpAddr, usize>,
    /// Sockets without a credential. They are counted separately, so that an address whose streams use up its
    /// permits can still send requests.
    newcomers: DashMap<IpAddr, usize>,
    presence: Arc<Presence>,
}

/// Permits of one user.
#[derive(Default, Debug)]
struct UserCounts {
    /// Number of connections and waiting polls.
    places: u32,
    /// Number of connections without the polls; at most `places`.
    streams: u32,
}

/// What a permit is acquired for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PermitKind {
    Stream,
    Poll,
}

/// A live connection's permit in every count.
#[derive(Debug)]
pub struct ConnectionPermit {
    admission: Arc<Admission>,
    principal: Arc<Principal>,
    /// IPv4 is stored as IPv4-mapped and "no address" as `::`. This is a byte less than an `Option<IpAddr>`,
    /// which saves eight bytes in a [`super::Connection`].
    peer: Ipv6Addr,
}

/// A waiting poll's permit in every count.
#[derive(Debug)]
pub struct PollPermit {
    admission: Arc<Admission>,
    principal: Arc<Principal>,
    peer: Option<IpAddr>,
}

/// A permit in the count of its address, for a socket whose peer has not presented a credential.
#[derive(Debug)]
pub struct SocketPermit {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
}

/// The unit that is counted as one address: for IPv6 the /64. Unix sockets are `::`, which is no client's
/// address.
pub(super) fn network(peer: Option<IpAddr>) -> IpAddr {
    match peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |peer| peer.to_canonical()) {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

impl Admission {
    /// Creates empty counts. `presence` is notified when a user's first stream begins and when its last one
    /// ends.
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

    /// Acquires a permit for a stream of `principal` that comes from `peer` (`None`: a unix socket).
    ///
    /// # Errors
    /// [`AdmissionError`] names the limit that is reached; nothing is acquired then.
    pub fn admit(
        self: &Arc<Self>,
        principal: Arc<Principal>,
        peer: Option<IpAddr>,
    ) -> Result<ConnectionPermit, AdmissionError> {
        self.acquire(&principal, peer, PermitKind::Stream)?;
        let peer = match peer {
            None => Ipv6Addr::UNSPECIFIED,
            Some(IpAddr::V4(v4)) => v4.to_ipv6_mapped(),
            Some(IpAddr::V6(v6)) => v6,
        };
        Ok(ConnectionPermit { admission: self.clone(), principal, peer })
    }

    /// Like [`Admission::admit`], for a poll that waits for events.
    ///
    /// # Errors
    /// As [`Admission::admit`].
    pub fn admit_poll(
        self: &Arc<Self>,
        principal: Arc<Principal>,
        peer: Option<IpAddr>,
    ) -> Result<PollPermit, AdmissionError> {
        self.acquire(&principal, peer, PermitKind::Poll)?;
        Ok(PollPermit { admission: self.clone(), principal, peer })
    }

    /// Acquires a permit for a socket whose peer has not presented a credential. Only the limit per address
    /// applies.
    ///
    /// # Errors
    /// [`AdmissionError::Address`].
    pub fn admit_socket(self: &Arc<Self>, peer: Option<IpAddr>) -> Result<SocketPermit, AdmissionError> {
        let address = self.limited_address(peer);
        match address {
            Some(address) if !take(&self.newcomers, address, self.limits.per_address) => {
                Err(AdmissionError::Address(self.limits.per_address))
            }
            _ => Ok(SocketPermit { admission: self.clone(), address }),
        }
    }

    fn acquire(
        &self,
        principal: &Principal,
        peer: Option<IpAddr>,
        kind: PermitKind,
    ) -> Result<(), AdmissionError> {
        let total = self.total.fetch_add(1, Ordering::Relaxed);
        if total >= self.limits.total && self.limits.total != 0 {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return Err(AdmissionError::Total);
        }
        // This guard is built first, so that an error below releases exactly what was acquired so far.
        let mut taken = TakenPlaces { admission: self, kind, organization: None, user: None, armed: true };
        let tenant = principal.tenant;
        let most = self.organization_limit(total);
        if !take(&self.organizations, tenant, most) {
            return Err(AdmissionError::Organization(most));
        }
        taken.organization = Some(tenant);
        if let Some(sub) = principal.sub.as_deref() {
            if !self.acquire_user(tenant, sub, kind) {
                return Err(AdmissionError::User(self.limits.per_user));
            }
            taken.user = Some((tenant, sub));
        }
        if let Some(address) = self.limited_address(peer)
            && !take(&self.addresses, address, self.limits.per_address)
        {
            return Err(AdmissionError::Address(self.limits.per_address));
        }
        taken.armed = false; // from here on `ConnectionPermit` or `PollPermit` releases everything
        Ok(())
    }

    /// Returns how many connections one organization may hold while all organizations hold `total`; 0 means
    /// no limit.
    fn organization_limit(&self, total: usize) -> usize {
        let all = self.limits.total;
        if self.limits.per_organization != 0 || all == 0 || total < all - all / SHARED_PART {
            return self.limits.per_organization;
        }
        (all / self.organizations.len().max(1)).max(1)
    }

    fn acquire_user(&self, tenant: TenantId, sub: &str, kind: PermitKind) -> bool {
        let mut users = self.users.entry(tenant).or_default();
        let counts = users.entry(sub.into()).or_default();
        let room = self.limits.per_user == 0 || (counts.places as usize) < self.limits.per_user;
        counts.places += u32::from(room);
        if room && kind == PermitKind::Stream {
            counts.streams += 1;
            if counts.streams == 1 {
                self.presence.stream_opened(tenant, sub);
            }
        }
        room
    }

    fn release_user(&self, tenant: TenantId, sub: &str, kind: PermitKind) {
        self.users.remove_if_mut(&tenant, |_, users| {
            if let Some(counts) = users.get_mut(sub) {
                counts.places = counts.places.saturating_sub(1);
                if kind == PermitKind::Stream {
                    counts.streams = counts.streams.saturating_sub(1);
                    if counts.streams == 0 {
                        self.presence.last_stream_closed(tenant, sub);
                    }
                }
                if counts.places == 0 {
                    users.remove(sub);
                }
            }
            users.is_empty()
        });
    }

    fn release(&self, principal: &Principal, peer: Option<IpAddr>, kind: PermitKind) {
        self.total.fetch_sub(1, Ordering::Relaxed);
        give(&self.organizations, &principal.tenant);
        if let Some(sub) = principal.sub.as_deref() {
            self.release_user(principal.tenant, sub, kind);
        }
        if let Some(address) = self.limited_address(peer) {
            give(&self.addresses, &address);
        }
    }

    /// Returns the address that a limit counts: `None` for local peers, else the [`network`].
    fn limited_address(&self, peer: Option<IpAddr>) -> Option<IpAddr> {
        let local = peer.is_none_or(|peer| {
            let peer = peer.to_canonical();
            peer.is_loopback() || peer.is_unspecified()
        });
        (self.limits.count_local || !local).then(|| network(peer))
    }

    /// Returns the rosters of present users.
    #[must_use]
    pub fn presence(&self) -> &Arc<Presence> {
        &self.presence
    }

    /// Puts some connected users of an organization on its roster, starting after `after` in the order of
    /// their `sub`. Returns the `sub` to continue after, or `None` when all users were visited.
    pub fn enrol_connected(&self, tenant: TenantId, after: Option<&str>) -> Option<Box<str>> {
        let users = self.users.get(&tenant)?;
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut last = None;
        for (sub, counts) in users.range::<str, _>((after, Bound::Unbounded)).take(ENROLLED_AT_ONCE) {
            if counts.streams > 0 {
                self.presence.stream_found(tenant, sub);
            }
            last = Some(sub);
        }
        last.cloned()
    }

    /// Returns the number of live streams of one user.
    #[must_use]
    pub fn streams_of(&self, tenant: TenantId, sub: &str) -> u32 {
        self.users
            .get(&tenant)
            .and_then(|users| users.get(sub).map(|counts| counts.streams))
            .unwrap_or_default()
    }

    /// Returns the number of live connections.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    /// Returns the number of live connections of one organization.
    #[must_use]
    pub fn of_organization(&self, tenant: TenantId) -> usize {
        self.organizations.get(&tenant).map_or(0, |n| *n)
    }
}

impl ConnectionPermit {
    /// Returns the principal of the connection.
    #[must_use]
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }
    /// Marks the connection as served, which makes its user present.
    pub fn arrived(&self) {
        if let Some(sub) = self.principal.sub.as_deref() {
            self.admission.presence.arrived(self.principal.tenant, sub);
        }
    }
    /// Replaces the principal by a renewed one. Organization and subject are the same, so the counts stay
    /// valid.
    pub fn renew(&mut self, principal: Arc<Principal>) {
        debug_assert!(
            self.principal.tenant == principal.tenant
                && self.principal.sub.as_deref() == principal.sub.as_deref()
        );
        self.principal = principal;
    }
    /// Returns the peer's address, or `None` for a unix socket.
    #[must_use]
    pub fn peer(&self) -> Option<IpAddr> {
        (!self.peer.is_unspecified()).then(|| self.peer.to_canonical())
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.admission.release(&self.principal, self.peer(), PermitKind::Stream);
    }
}

impl Drop for SocketPermit {
    fn drop(&mut self) {
        if let Some(address) = &self.address {
            give(&self.admission.newcomers, address);
        }
    }
}

impl Drop for PollPermit {
    fn drop(&mut self) {
        self.admission.release(&self.principal, self.peer, PermitKind::Poll);
    }
}

/// Counts acquired so far by an admission; dropping this releases them unless the admission succeeded.
struct TakenPlaces<'a> {
    admission: &'a Admission,
    kind: PermitKind,
    organization: Option<TenantId>,
    user: Option<(TenantId, &'a str)>,
    armed: bool,
}

impl Drop for TakenPlaces<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        self.admission.total.fetch_sub(1, Ordering::Relaxed);
        if let Some(tenant) = &self.organization {
            give(&self.admission.organizations, tenant);
        }
        if let Some((tenant, sub)) = self.user {
            self.admission.release_user(tenant, sub, self.kind);
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
