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

use super::admission::{Admission, Refused, SocketPlace, network};

/// All sockets of the process without a valid credential.
#[derive(Debug)]
pub struct Newcomers {
    /// The limit; 0 means none.
    most: usize,
    admission: Arc<Admission>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Sockets of trusted proxies, in the order of their arrival. At most [`Newcomers::most`].
    unnamed: Sockets,
    /// Sockets by address (see `network`); no address is without a socket. Together at most
    /// [`Newcomers::most`].
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
pub struct Newcomer {
    newcomers: Arc<Newcomers>,
    number: u64,
    /// `None` while the socket is unnamed.
    address: Cell<Option<IpAddr>>,
    evicted: Arc<Notify>,
    place: RefCell<Option<SocketPlace>>,
    settled: Cell<bool>,
}

impl Newcomers {
    /// Creates the limit: at most `most` sockets at once; 0 means no limit.
    #[must_use]
    pub fn new(most: usize, admission: Arc<Admission>) -> Arc<Newcomers> {
        Arc::new(Newcomers { most, admission, waiting: Mutex::default() })
    }

    /// Adds an accepted socket. `None` says that a trusted proxy opened it and may name its client; then it
    /// counts in the limit of an address from [`Newcomer::comes_from`] on.
    #[must_use]
    pub fn enter(self: &Arc<Self>, from: Option<Option<IpAddr>>) -> Newcomer {
        let address = from.map(network);
        let evicted = Arc::new(Notify::new());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let number = waiting.next;
        waiting.next += 1;
        waiting.put(address, number, evicted.clone(), self.most);
        drop(waiting);
        Newcomer {
            newcomers: self.clone(),
            number,
            address: Cell::new(address),
            evicted,
            place: RefCell::default(),
            settled: Cell::new(false),
        }
    }

    /// Returns the number of sockets.
    #[must_use]
    pub fn count(&self) -> usize {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.count + waiting.unnamed.len()
    }
}

impl Waiting {
    /// Adds a socket, and closes another if there are more than `most` now.
    fn put(&mut self, address: Option<IpAddr>, number: u64, evicted: Arc<Notify>, most: usize) {
        let ended = if let Some(address) = address {
            self.change(address, |sockets| sockets.insert(number, evicted));
            self.count += 1;
            let biggest =
                self.ranks.last_key_value().map(|((_, Reverse(oldest)), address)| (*address, *oldest));
            biggest
                .filter(|_| most != 0 && self.count > most)
                .and_then(|(address, oldest)| self.take(Some(address), oldest))
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
    fn take(&mut self, address: Option<IpAddr>, number: u64) -> Option<Arc<Notify>> {
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

impl Newcomer {
    /// Counts the socket for its peer's address, in the limit of that address too.
    ///
    /// # Errors
    /// [`Refused::Address`].
    pub fn comes_from(&self, address: Option<IpAddr>) -> Result<(), Refused> {
        self.counts_for(address);
        let place = self.newcomers.admission.admit_socket(address)?;
        *self.place.borrow_mut() = Some(place);
        Ok(())
    }

    /// Counts the socket for this address without a limit per address: a trusted proxy that named no client.
    pub fn counts_for(&self, address: Option<IpAddr>) {
        let address = Some(network(address));
        let before = self.address.replace(address);
        if before != address {
            let mut waiting = self.newcomers.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(evicted) = waiting.take(before, self.number) {
                waiting.put(address, self.number, evicted, self.newcomers.most);
            }
        }
    }

    /// Records that the peer has presented a valid credential.
    pub fn settle(&self) {
        if !self.settled.replace(true) {
            *self.place.borrow_mut() = None;
            self.leave();
        }
    }

    /// Returns true if the peer has presented a valid credential.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled.get()
    }

    /// Completes when the socket has to be closed to make room for another.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    fn leave(&self) {
        let mut waiting = self.newcomers.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.take(self.address.get(), self.number);
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.leave();
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

    fn newcomers(most: usize) -> Arc<Newcomers> {
        let presence = Presence::new(Arc::new(SystemClock), Duration::ZERO);
        let limits =
            Limits { total: 0, per_organization: 0, per_user: 0, per_address: 2, count_local: false };
        Newcomers::new(most, Admission::new(limits, presence))
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    fn made_room(newcomer: &Newcomer) -> bool {
        pin!(newcomer.evicted()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test]
    async fn the_oldest_of_the_address_that_holds_most_makes_room() {
        let newcomers = newcomers(4);
        let [a, b] = ["2001:db8::1", "192.0.2.1"].map(address);
        let patient = newcomers.enter(Some(b));
        let greedy = [a, address("2001:db8::2"), a].map(|it| newcomers.enter(Some(it)));
        let another = newcomers.enter(Some(b));
        assert!(made_room(&greedy[0]), "three of one /64 against two");
        let third = newcomers.enter(Some(b));
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
    async fn who_is_settled_does_not_count() {
        let newcomers = newcomers(3);
        let a = address("192.0.2.1");
        let [first, second, third] = [a; 3].map(|it| newcomers.enter(Some(it)));
        assert_eq!((first.comes_from(a), second.comes_from(a)), (Ok(()), Ok(())));
        assert_eq!(third.comes_from(a), Err(Refused::Address(2)));
        first.settle();
        assert_eq!(third.comes_from(a), Ok(()), "nor for its address");
        let fourth = newcomers.enter(Some(a));
        assert_eq!(newcomers.count(), 3);
        assert!(![&first, &second, &third, &fourth].into_iter().any(made_room));
    }

    #[tokio::test]
    async fn sockets_without_a_name_make_room_among_themselves() {
        let newcomers = newcomers(2);
        let [a, b] = ["192.0.2.1", "192.0.2.2"].map(address);
        let named = newcomers.enter(Some(b));
        let unnamed = [(); 3].map(|()| newcomers.enter(None));
        assert!(made_room(&unnamed[0]) && !made_room(&named));
        unnamed[0].counts_for(a);
        assert_eq!(newcomers.count(), 3, "what has made room does not come back");
        unnamed[1].counts_for(a);
        unnamed[2].counts_for(a);
        assert!(made_room(&unnamed[1]) && !made_room(&named));
        drop((named, unnamed));
        assert_eq!(newcomers.count(), 0);
    }
}
