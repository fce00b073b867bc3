//! Sockets whose peers have not shown a valid credential: how many there may be, in all and from one address.
//!
//! * Where there are as many as there may be, the oldest goes, if it had [`TIME`] to show one; else the new one is refused.
//!   So peers that keep their sockets without a credential cannot keep others out.
//! * A socket counts for its address ([`Admission::admit_socket`]) until its peer has shown a credential; then what the
//!   credential opens counts.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::admission::{Admission, Refused, SocketPlace};

/// How long a peer has at least to show a credential.
const TIME: Duration = Duration::from_secs(1);

/// All such sockets of the process.
#[derive(Debug)]
pub struct Newcomers {
    /// 0: no limit.
    most: usize,
    admission: Arc<Admission>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By the order in which they came.
    sockets: BTreeMap<u64, (Instant, Arc<Notify>)>,
    next: u64,
}

/// One socket, until it is settled or dropped.
#[derive(Debug)]
pub struct Newcomer {
    newcomers: Arc<Newcomers>,
    number: u64,
    evicted: Arc<Notify>,
    place: RefCell<Option<SocketPlace>>,
    settled: Cell<bool>,
}

impl Newcomers {
    /// At most `most` at once; 0: no limit.
    #[must_use]
    pub fn new(most: usize, admission: Arc<Admission>) -> Arc<Newcomers> {
        Arc::new(Newcomers { most, admission, waiting: Mutex::default() })
    }

    /// A socket was accepted. Its address counts from [`Newcomer::comes_from`] on.
    ///
    /// # Errors
    /// [`Refused::Total`]: there are too many, all of them young.
    pub fn enter(self: &Arc<Self>) -> Result<Newcomer, Refused> {
        let now = Instant::now();
        let evicted = Arc::new(Notify::new());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if self.most != 0 && waiting.sockets.len() >= self.most {
            match waiting.sockets.first_entry() {
                Some(oldest) if now.duration_since(oldest.get().0) >= TIME => oldest.remove().1.notify_one(),
                _ => return Err(Refused::Total),
            }
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.sockets.insert(number, (now, evicted.clone()));
        Ok(Newcomer {
            newcomers: self.clone(),
            number,
            evicted,
            place: RefCell::default(),
            settled: Cell::new(false),
        })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).sockets.len()
    }
}

impl Newcomer {
    /// Counts the socket for the address of its peer.
    ///
    /// # Errors
    /// [`Refused::Address`].
    pub fn comes_from(&self, address: Option<IpAddr>) -> Result<(), Refused> {
        let place = self.newcomers.admission.admit_socket(address)?;
        *self.place.borrow_mut() = Some(place);
        Ok(())
    }

    /// Its peer has shown a valid credential.
    pub fn settle(&self) {
        if !self.settled.replace(true) {
            *self.place.borrow_mut() = None;
            self.leave();
        }
    }

    /// Whether its peer has shown a valid credential.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled.get()
    }

    /// Ends when the socket has to make room for another.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    fn leave(&self) {
        let mut waiting = self.newcomers.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.sockets.remove(&self.number);
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::super::admission::Limits;
    use super::super::presence::Presence;
    use super::*;
    use crate::time::SystemClock;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_makes_room_once_it_had_its_time() {
        let presence = Presence::new(Arc::new(SystemClock), Duration::ZERO);
        let limits =
            Limits { total: 0, per_organization: 0, per_user: 0, per_address: 2, count_local: false };
        let newcomers = Newcomers::new(2, Admission::new(limits, presence));
        let address = Some(IpAddr::from([192, 0, 2, 1]));
        let (first, second) = (newcomers.enter().expect("room"), newcomers.enter().expect("room"));
        assert_eq!(newcomers.enter().expect_err("both are young"), Refused::Total);
        tokio::time::advance(TIME).await;
        let third = newcomers.enter().expect("room made");
        first.evicted().await;
        drop(first);
        assert_eq!(newcomers.count(), 2);
        for newcomer in [&second, &third] {
            assert_eq!(newcomer.comes_from(address), Ok(()));
        }
        tokio::time::advance(TIME).await;
        second.settle();
        let fourth = newcomers.enter().expect("who is settled does not count");
        assert_eq!(fourth.comes_from(address), Ok(()), "nor for its address");
        let fifth = newcomers.enter().expect("room made");
        assert_eq!(fifth.comes_from(address), Err(Refused::Address(2)));
        drop((second, third, fourth, fifth));
        assert_eq!(newcomers.count(), 0);
    }
}
