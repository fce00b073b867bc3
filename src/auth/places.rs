//! Places of those whose passwords are verified or hashed: how many may wait or run at once, and of whom.
//!
//! * Logins have a room of their own, and nobody who has a credential already (a registrar, a user with another password) takes
//!   a place of it. Whoever finds no place is refused at once; nobody waits for one.
//! * Of the logins' room one address (IPv6: one /64) has a part, of the other one organization. Unix sockets and loopback have
//!   no part but all: there stands a proxy with everybody behind it.
//! * Counts are held for those who have a place, so there are no more of them than places.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::failures::bucket;
use super::password::{HASHES_AT_ONCE, HASHES_WAITING, PasswordError};
use crate::ids::TenantId;
use crate::sync::Mutex;

/// Of the logins that wait or run, how many may come from one address; stops a few addresses from keeping everybody else out.
pub const LOGINS_PER_ADDRESS: usize = 16;
/// Registrations and changes of passwords that wait or run; stops them from keeping logins waiting for long.
pub const SETTERS: usize = 16;
/// Of those, how many may be of one organization; stops one from keeping the others out.
pub const SETTERS_PER_ORGANIZATION: usize = 4;

/// A room with so many places, of which everybody has a part.
struct Room<K> {
    places: Arc<Semaphore>,
    of: Arc<Mutex<HashMap<K, usize>>>,
    part: usize,
}

impl<K: Copy + Eq + Hash + Send + Sync + 'static> Room<K> {
    fn new(places: usize, part: usize) -> Room<K> {
        Room { places: Arc::new(Semaphore::new(places)), of: Arc::default(), part }
    }

    fn check(&self, of: Option<K>) -> Result<(), PasswordError> {
        let held = || of.and_then(|of| self.of.lock().get(&of).copied()).unwrap_or_default();
        match self.places.available_permits() > 0 && held() < self.part {
            true => Ok(()),
            false => Err(PasswordError::Busy),
        }
    }

    fn take(&self, of: Option<K>) -> Result<Place, PasswordError> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let Some(of) = of else { return Ok(Place::new(place, None)) };
        let mut counts = self.of.lock();
        let count = counts.entry(of).or_default();
        // Nobody without a place has an entry: below their part, or in the map already.
        if *count >= self.part {
            return Err(PasswordError::Busy);
        }
        *count += 1;
        drop(counts);
        let counted: Box<dyn Counted> = Box::new(One { of, counts: Arc::clone(&self.of) });
        Ok(Place::new(place, Some(counted)))
    }
}

/// A place; held until it and the work that was begun in it are over.
#[derive(Clone)]
pub struct Place {
    _held: Arc<Held>,
}

struct Held {
    _counted: Option<Box<dyn Counted>>,
    _place: OwnedSemaphorePermit,
}

impl Place {
    fn new(place: OwnedSemaphorePermit, counted: Option<Box<dyn Counted>>) -> Place {
        Place { _held: Arc::new(Held { _counted: counted, _place: place }) }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place")
    }
}

/// Somebody's place, counted until it is dropped.
trait Counted: Send + Sync {}

struct One<K: Eq + Hash> {
    of: K,
    counts: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Eq + Hash + Send + Sync> Counted for One<K> {}

impl<K: Eq + Hash> Drop for One<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.of) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(&self.of);
            }
        }
    }
}

/// Both rooms.
pub(super) struct Places {
    logins: Room<u64>,
    setters: Room<TenantId>,
}

impl Default for Places {
    fn default() -> Places {
        Places {
            logins: Room::new(HASHES_AT_ONCE + HASHES_WAITING, LOGINS_PER_ADDRESS),
            setters: Room::new(SETTERS, SETTERS_PER_ORGANIZATION),
        }
    }
}

impl Places {
    /// Whether a login from there would find a place.
    pub(super) fn check_login(&self, peer: Option<IpAddr>) -> Result<(), PasswordError> {
        self.logins.check(counted(peer))
    }

    /// A place for a login from there.
    pub(super) fn login(&self, peer: Option<IpAddr>) -> Result<Place, PasswordError> {
        self.logins.take(counted(peer))
    }

    /// A place for somebody of this organization, who sets a password.
    pub(super) fn setter(&self, tenant: TenantId) -> Result<Place, PasswordError> {
        self.setters.take(Some(tenant))
    }
}

/// What counts as one address; `None`: not counted.
fn counted(peer: Option<IpAddr>) -> Option<u64> {
    peer.filter(|peer| !peer.to_canonical().is_loopback()).map(bucket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    fn logins(places: &Places, peer: Option<IpAddr>, count: usize) -> Vec<Place> {
        (0..count).map_while(|_| places.login(peer).ok()).collect()
    }

    #[test]
    fn an_address_has_its_part_of_the_logins() {
        let places = Places::default();
        let flood = logins(&places, ip("2001:db8:0:1::1"), 100);
        assert_eq!(flood.len(), LOGINS_PER_ADDRESS);
        let neighbour = ip("2001:db8:0:1:ffff::2");
        assert_eq!(places.check_login(neighbour), Err(PasswordError::Busy), "the same /64");
        assert!(places.login(neighbour).is_err());
        assert_eq!(places.check_login(ip("2001:db8:0:2::1")), Ok(()));
        assert!(places.login(ip("192.0.2.1")).is_ok());
        drop(flood);
        assert!(places.login(neighbour).is_ok());
        assert!(places.logins.of.lock().is_empty(), "who has no place is not counted");
    }

    /// Behind a proxy on the machine everybody comes from one address.
    #[test]
    fn a_proxy_has_the_whole_room_and_no_more() {
        for proxy in [None, ip("127.0.0.1"), ip("::1"), ip("::ffff:127.0.0.1")] {
            let places = Places::default();
            let all = logins(&places, proxy, 100);
            assert_eq!(all.len(), HASHES_AT_ONCE + HASHES_WAITING);
            assert_eq!(places.check_login(ip("192.0.2.1")), Err(PasswordError::Busy));
            assert!(places.login(ip("192.0.2.1")).is_err());
            assert!(places.logins.of.lock().is_empty(), "refused, and not counted");
        }
    }

    #[test]
    fn who_sets_passwords_takes_no_place_of_a_login_nor_of_other_organizations() {
        let places = Places::default();
        let of = |tenant| (0..70).map_while(|_| places.setter(TenantId(tenant)).ok()).collect::<Vec<_>>();
        let first = of(1);
        assert_eq!(first.len(), SETTERS_PER_ORGANIZATION);
        let others: Vec<_> = (2..=9).flat_map(of).collect();
        assert_eq!(first.len() + others.len(), SETTERS);
        assert_eq!(logins(&places, None, 100).len(), HASHES_AT_ONCE + HASHES_WAITING);
        drop(first);
        let copy = places.setter(TenantId(9)).expect("there is room again");
        let work = copy.clone();
        drop(copy);
        assert_eq!(places.setters.of.lock().get(&TenantId(9)), Some(&1), "the work goes on in it");
        drop(work);
        assert_eq!(places.setters.of.lock().get(&TenantId(9)), None);
    }
}
