//! Limits the sockets whose peers have not presented a valid credential, in total and per address.
//!
//! * Above the limit, the address (IPv6: the /64) with the most such sockets loses its oldest one, however
//!   young that is. So an address takes room from others only while they hold as many as it does, and a new
//!   socket is never refused.
//! * Loopback and unix sockets count as one address each. A socket of a trusted proxy counts from the moment
//!   the proxy has named its client, or clearly names none. Until then it is unnamed: the same number of
//!   unnamed sockets may wait in addition to the others, and above it the oldest is closed.
//! * A socket counts for its address ([`Admission::admit_socket`]) until its peer has presented a credential.
//!   From then on its connection or request is counted instead.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::admission::{Admission, AdmissionError, SocketPermit, network};

/// All sockets of the process without a valid credential.
#[derive(Debug)]
pub struct UnauthenticatedSockets {
    /// The limit; 0 means none.
    most: usize,
    admission: Arc<Admission>,
    waiting: Mutex<SocketTable>,
}

#[derive(Debug, Default)]
struct SocketTable {
    /// Sockets of trusted proxies, in the order of their arrival. At most [`UnauthenticatedSockets::most`].
    unnamed: Sockets,
    /// Sockets by address (see `network`); no address is without a socket. Together at most
    /// [`UnauthenticatedSockets::most`].
    named: HashMap<IpAddr, Sockets>,
    /// The addresses by their number of sockets, then by the age of the oldest one. The address with the most
    /// sockets comes last.
    ranks: BTreeMap<(usize, Reverse<u64>), IpAddr>,
    /// The number of sockets in `named`.
    count: usize,
    next: u64,
}

/// Sockets in the order of their arrival, each with the notification that closes it.
type Sockets = BTreeMap<u64, Arc<Notify>>;

/// One socket, until its peer presents a valid credential or it is dropped.
#[derive(Debug)]
pub struct UnauthenticatedSocket {
    sockets: Arc<UnauthenticatedSockets>,
    number: u64,
    /// `None` while the socket is unnamed.
    address: Cell<Option<IpAddr>>,
    evicted: Arc<Notify>,
    place: RefCell<Option<SocketPermit>>,
    authenticated: Cell<bool>,
}

impl UnauthenticatedSockets {
    /// Creates the limit: at most `most` sockets at once; 0 means no limit.
    #[must_use]
    pub fn new(most: usize, admission: Arc<Admission>) -> Arc<UnauthenticatedSockets> {
        Arc::new(UnauthenticatedSockets { most, admission, waiting: Mutex::default() })
    }

    /// Adds an accepted socket. `None` says that a trusted proxy opened it and may name its client; then it
    /// counts in the limit of an address from [`UnauthenticatedSocket::limit_by_address`] on.
    #[must_use]
    pub fn add(self: &Arc<Self>, from: Option<Option<IpAddr>>) -> UnauthenticatedSocket {
        let address = from.map(network);
        let evicted = Arc::new(Notify::new());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let number = waiting.next;
        waiting.next += 1;
        waiting.insert(address, number, evicted.clone(), self.most);
        drop(waiting);
        UnauthenticatedSocket {
            sockets: self.clone(),
            number,
            address: Cell::new(address),
            evicted,
            place: RefCell::default(),
            authenticated: Cell::new(false),
        }
    }

    /// Returns the number of sockets.
    #[must_use]
    pub fn count(&self) -> usize {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.count + waiting.unnamed.len()
    }
}

impl SocketTable {
    /// Adds a socket, and closes another if there are more than `most` now.
    fn insert(&mut self, address: Option<IpAddr>, number: u64, evicted: Arc<Notify>, most: usize) {
        let ended = if let Some(address) = address {
            self.change(address, |sockets| sockets.insert(number, evicted));
            self.count += 1;
            let biggest =
                self.ranks.last_key_value().map(|((_, Reverse(oldest)), address)| (*address, *oldest));
            biggest
                .filter(|_| most != 0 && self.count > most)
                .and_then(|(address, oldest)| self.remove(Some(address), oldest))
        } else {
            self.unnamed.insert(number, evicted);
            (most != 0 && self.unnamed.len() > most)
                .then(|| self.unnamed.pop_first())
                .flatten()
                .map(|(_, it)| it)
        };
        if let Some(ended) = ended {
            ended.notify_one();
        }
    }

    /// Removes a socket. `None` says that it was already closed to make room.
    fn remove(&mut self, address: Option<IpAddr>, number: u64) -> Option<Arc<Notify>> {
        let Some(address) = address else { return self.unnamed.remove(&number) };
        let evicted = self.change(address, |sockets| sockets.remove(&number))?;
        self.count -= 1;
        Some(evicted)
    }

    /// Changes the sockets of an address and updates its rank.
    fn change<T>(&mut self, address: IpAddr, change: impl FnOnce(&mut Sockets) -> T) -> T {
        let rank = |sockets: &Sockets| {
            sockets.first_key_value().map(|(oldest, _)| (sockets.len(), Reverse(*oldest)))
        };
        let sockets = self.named.entry(address).or_default();
        let before = rank(sockets);
        let changed = change(sockets);
        let after = rank(sockets);
        if let Some(before) = before {
            self.ranks.remove(&before);
        }
        match after {
            Some(after) => drop(self.ranks.insert(after, address)),
            None => drop(self.named.remove(&address)),
        }
        changed
    }
}

impl UnauthenticatedSocket {
    /// Counts the socket for its peer's address, in the limit of that address too.
    ///
    /// # Errors
    /// [`AdmissionError::Address`].
    pub fn limit_by_address(&self, address: Option<IpAddr>) -> Result<(), AdmissionError> {
        self.count_for_address(address);
        let place = self.sockets.admission.admit_socket(address)?;
        *self.place.borrow_mut() = Some(place);
        Ok(())
    }

    /// Counts the socket for this address without a limit per address: a trusted proxy that named no client.
    pub fn count_for_address(&self, address: Option<IpAddr>) {
        let address = Some(network(address));
        let before = self.address.replace(address);
        if before != address {
            let mut waiting = self.sockets.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(evicted) = waiting.remove(before, self.number) {
                waiting.insert(address, self.number, evicted, self.sockets.most);
            }
        }
    }

    /// Records that the peer has presented a valid credential.
    pub fn mark_authenticated(&self) {
        if !self.authenticated.replace(true) {
            *self.place.borrow_mut() = None;
            self.unregister();
        }
    }

    /// Returns true if the peer has presented a valid credential.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.authenticated.get()
    }

    /// Completes when the socket has to be closed to make room for another.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    fn unregister(&self) {
        let mut waiting = self.sockets.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.remove(self.address.get(), self.number);
    }
}

impl Drop for UnauthenticatedSocket {
    fn drop(&mut self) {
        self.unregister();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use super::super::admission::Limits;
    use super::super::presence::Presence;
    use super::*;
    use crate::time::SystemClock;

    fn newcomers(most: usize) -> Arc<UnauthenticatedSockets> {
        let presence = Presence::new(Arc::new(SystemClock), Duration::ZERO);
        let limits =
            Limits { total: 0, per_organization: 0, per_user: 0, per_address: 2, count_local: false };
        UnauthenticatedSockets::new(most, Admission::new(limits, presence))
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    fn made_room(newcomer: &UnauthenticatedSocket) -> bool {
        pin!(newcomer.evicted()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn the_oldest_socket_of_the_busiest_address_is_evicted() {
        let newcomers = newcomers(4);
        let [a, b] = ["2001:db8::1", "192.0.2.1"].map(address);
        let patient = newcomers.add(Some(b));
        let greedy = [a, address("2001:db8::2"), a].map(|it| newcomers.add(Some(it)));
        let another = newcomers.add(Some(b));
        assert!(made_room(&greedy[0]), "three of one /64 against two");
        let third = newcomers.add(Some(b));
        assert!(made_room(&patient), "now it is the one with most");
        for none in [&greedy[1], &greedy[2], &another, &third] {
            assert!(!made_room(none));
        }
        drop((patient, greedy, another, third));
        assert_eq!(newcomers.count(), 0);
        let waiting = newcomers.waiting.lock().expect("no panic");
        assert!(waiting.named.is_empty() && waiting.ranks.is_empty(), "{waiting:?}");
    }

    #[tokio::test]
    async fn an_authenticated_socket_is_not_counted() {
        let newcomers = newcomers(3);
        let a = address("192.0.2.1");
        let [first, second, third] = [a; 3].map(|it| newcomers.add(Some(it)));
        assert_eq!((first.limit_by_address(a), second.limit_by_address(a)), (Ok(()), Ok(())));
        assert_eq!(third.limit_by_address(a), Err(AdmissionError::Address(2)));
        first.mark_authenticated();
        assert_eq!(third.limit_by_address(a), Ok(()), "nor for its address");
        let fourth = newcomers.add(Some(a));
        assert_eq!(newcomers.count(), 3);
        assert!(![&first, &second, &third, &fourth].into_iter().any(made_room));
    }

    #[tokio::test]
    async fn sockets_without_an_address_are_evicted_among_themselves() {
        let newcomers = newcomers(2);
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(address);
        let named = newcomers.add(Some(b));
        let unnamed = [(); 3].map(|()| newcomers.add(None));
        assert!(made_room(&unnamed[0]) && !made_room(&named));
        unnamed[0].count_for_address(a);
        assert_eq!(newcomers.count(), 3, "what has made room does not come back");
        unnamed[1].count_for_address(a);
        unnamed[2].count_for_address(a);
        assert!(made_room(&unnamed[1]) && !made_room(&named));
        drop((named, unnamed));
        assert_eq!(newcomers.count(), 0);
    }
}
