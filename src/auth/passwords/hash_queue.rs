//! Limits how many password hashes run or wait, in total and per address or organization, and decides their
//! order.
//!
//! * At most `at_once` hashes run. Turns rotate among the waiting parties: addresses that log in and
//!   organizations that set passwords. So a party that sends many requests delays another party by one hash
//!   per running hash, not by all of its own.
//! * Each party has a small number of permits and needs one for as long as it hashes or waits. Without a free
//!   permit it is refused at once.
//! * A login that finds the queue full replaces the last login of the party with the most waiting logins, if
//!   that party has more than its own. So a few addresses cannot keep out the logins of others.
//! * Dropping a waiting future leaves the queue. Dropping a [`HashTurn`] starts the next one.
//!
//! Clients over a unix socket or loopback have no address of their own. They are one party, which may fill
//! the queue.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::password::PasswordError;
use crate::auth::request::failure_counts::bucket;
use crate::ids::TenantId;
use crate::sync::Mutex;

/// Maximum number of waiting logins, two or three seconds of work. Stops a flood of logins from piling up.
pub const LOGINS_WAITING: usize = 64;
/// Maximum number of waiting or running logins from one address.
pub const LOGINS_PER_ADDRESS: usize = 16;
/// Maximum number of waiting or running registrations and password changes.
pub const SETTERS: usize = 16;
/// Maximum number of those for one organization. Stops one organization from keeping the others out.
pub const SETTERS_PER_ORGANIZATION: usize = 4;

/// A party that waits for hashes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Party {
    /// Logins from an address, identified by `failure_counts::bucket`.
    Address(u64),
    /// Logins over loopback and unix sockets.
    Local,
    /// Registrations and password changes of an organization.
    Organization(TenantId),
}

impl Party {
    fn of_peer(peer: Option<IpAddr>) -> Party {
        match peer.filter(|peer| !peer.to_canonical().is_loopback()) {
            Some(address) => Party::Address(bucket(address)),
            None => Party::Local,
        }
    }

    fn permits(self) -> usize {
        match self {
            Party::Address(_) => LOGINS_PER_ADDRESS,
            Party::Local => LOGINS_WAITING + 1,
            Party::Organization(_) => SETTERS_PER_ORGANIZATION,
        }
    }

    fn logs_in(self) -> bool {
        !matches!(self, Party::Organization(_))
    }
}

/// The queue.
#[derive(Debug)]
pub(in crate::auth) struct HashQueue {
    at_once: usize,
    state: Mutex<QueueState>,
}

#[derive(Debug, Default)]
struct QueueState {
    /// Turns that are held, at most `at_once`.
    running: usize,
    /// Waiting logins, at most [`LOGINS_WAITING`].
    logins: usize,
    /// Permits held by organizations, at most [`SETTERS`].
    setters: usize,
    /// The parties that hold a permit.
    lanes: HashMap<Party, Lane>,
    /// The parties that have a waiter, each once; the front is next.
    order: VecDeque<Party>,
    next_id: u64,
}

#[derive(Debug, Default)]
struct Lane {
    permits: usize,
    /// Waiters in the order of arrival. A message grants the turn; a closed channel refuses it.
    waiting: VecDeque<(u64, oneshot::Sender<()>)>,
}

/// A permit of a party. It is held while the party waits and hashes, once or several times.
#[derive(Clone)]
pub struct QueuePermit(Arc<PermitInner>);

struct PermitInner {
    queue: Arc<HashQueue>,
    party: Party,
}

impl fmt::Debug for QueuePermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueuePermit({:?})", self.0.party)
    }
}

/// The right to run one hash. It holds its party's permit.
#[derive(Debug)]
pub struct HashTurn {
    permit: QueuePermit,
}

impl HashQueue {
    /// Creates a queue that runs `at_once` hashes at a time.
    pub(in crate::auth) fn new(at_once: usize) -> Arc<HashQueue> {
        Arc::new(HashQueue { at_once: at_once.max(1), state: Mutex::default() })
    }

    /// Returns an error if [`HashQueue::login`] would refuse this peer now.
    pub(in crate::auth) fn check_login(&self, peer: Option<IpAddr>) -> Result<(), PasswordError> {
        self.state.lock().check_permit(Party::of_peer(peer))
    }

    /// Acquires a permit for a login (`None`: over a unix socket).
    pub(in crate::auth) fn login(
        self: &Arc<Self>,
        peer: Option<IpAddr>,
    ) -> Result<QueuePermit, PasswordError> {
        self.permit(Party::of_peer(peer))
    }

    /// Acquires a permit for setting a password in this organization.
    pub(in crate::auth) fn set_password(
        self: &Arc<Self>,
        tenant: TenantId,
    ) -> Result<QueuePermit, PasswordError> {
        self.permit(Party::Organization(tenant))
    }

    fn permit(self: &Arc<Self>, party: Party) -> Result<QueuePermit, PasswordError> {
        let mut state = self.state.lock();
        state.check_permit(party)?;
        state.setters += usize::from(!party.logs_in());
        state.lanes.entry(party).or_default().permits += 1;
        Ok(QueuePermit(Arc::new(PermitInner { queue: Arc::clone(self), party })))
    }

    /// Releases a turn and starts the next waiter.
    fn release(&self) {
        let mut state = self.state.lock();
        state.running -= 1;
        state.start(self.at_once);
    }
}

impl QueuePermit {
    /// Waits for this party's turn.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] if the queue is full, [`PasswordError::Share`] if this party has most of the
    /// queue.
    pub async fn acquire(&self) -> Result<HashTurn, PasswordError> {
        let mut waiter = {
            let mut state = self.0.queue.state.lock();
            let (id, granted) = state.enqueue(self.0.party)?;
            state.start(self.0.queue.at_once);
            Waiter { permit: self, id, granted, settled: false }
        };
        let granted = (&mut waiter.granted).await;
        waiter.settled = true;
        granted.map_err(|_| PasswordError::Share)?;
        Ok(HashTurn { permit: self.clone() })
    }
}

impl QueueState {
    fn check_permit(&self, party: Party) -> Result<(), PasswordError> {
        let held = self.lanes.get(&party).map_or(0, |lane| lane.permits);
        match party.logs_in() || self.setters < SETTERS {
            _ if held >= party.permits() => Err(PasswordError::Share),
            true => Ok(()),
            false => Err(PasswordError::Busy),
        }
    }

    /// Appends a waiter to the party's lane.
    fn enqueue(&mut self, party: Party) -> Result<(u64, oneshot::Receiver<()>), PasswordError> {
        if party.logs_in() {
            if self.logins >= LOGINS_WAITING {
                self.make_room(party)?;
            }
            self.logins += 1;
        }
        let (sender, receiver) = oneshot::channel();
        let id = self.next_id;
        self.next_id += 1;
        let lane = self.lanes.entry(party).or_default();
        if lane.waiting.is_empty() {
            self.order.push_back(party);
        }
        lane.waiting.push_back((id, sender));
        Ok((id, receiver))
    }

    /// Refuses the last login of the party with the most waiting logins, if it has at least two more than
    /// `party`.
    fn make_room(&mut self, party: Party) -> Result<(), PasswordError> {
        let own = self.lanes.get(&party).map_or(0, |lane| lane.waiting.len());
        let logins = self.lanes.iter().filter(|(party, _)| party.logs_in());
        let most = logins
            .max_by_key(|(_, lane)| lane.waiting.len())
            .map(|(party, lane)| (*party, lane.waiting.len()));
        match most {
            Some((longest, waiting)) if waiting > own + 1 => {
                let last = self.lanes.get(&longest).and_then(|lane| lane.waiting.back()).map(|(id, _)| *id);
                if let Some(id) = last {
                    self.dequeue(longest, id);
                }
                Ok(())
            }
            Some((longest, _)) if longest == party => Err(PasswordError::Share),
            _ => Err(PasswordError::Busy),
        }
    }

    /// Removes a waiter. Returns false if it no longer waits.
    fn dequeue(&mut self, party: Party, id: u64) -> bool {
        let Some(lane) = self.lanes.get_mut(&party) else { return false };
        let Some(at) = lane.waiting.iter().position(|(waiting, _)| *waiting == id) else { return false };
        lane.waiting.remove(at);
        if lane.waiting.is_empty() {
            self.order.retain(|waiting| *waiting != party);
        }
        self.logins -= usize::from(party.logs_in());
        true
    }

    /// Gives free turns to the next waiters.
    fn start(&mut self, at_once: usize) {
        while self.running < at_once {
            let Some(party) = self.order.pop_front() else { return };
            let Some(lane) = self.lanes.get_mut(&party) else { continue };
            let Some((_, next)) = lane.waiting.pop_front() else { continue };
            if !lane.waiting.is_empty() {
                self.order.push_back(party);
            }
            self.logins -= usize::from(party.logs_in());
            // A waiter leaves the lane before its receiver is dropped, so this send succeeds.
            self.running += usize::from(next.send(()).is_ok());
        }
    }
}

/// A waiter. If it is dropped while it waits, it leaves the queue. If it is dropped with a turn that was not
/// taken, it releases the turn.
struct Waiter<'a> {
    permit: &'a QueuePermit,
    id: u64,
    granted: oneshot::Receiver<()>,
    settled: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let PermitInner { queue, party } = &*self.permit.0;
        let waited = queue.state.lock().dequeue(*party, self.id);
        if !waited && self.granted.try_recv().is_ok() {
            queue.release();
        }
    }
}

impl Drop for HashTurn {
    fn drop(&mut self) {
        self.permit.0.queue.release();
    }
}

impl Drop for PermitInner {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.setters -= usize::from(!self.party.logs_in());
        if let Some(lane) = state.lanes.get_mut(&self.party) {
            lane.permits -= 1;
            if lane.permits == 0 {
                state.lanes.remove(&self.party);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt as _;

    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    type Waiting = Pin<Box<dyn Future<Output = Result<HashTurn, PasswordError>>>>;

    /// Returns a login that waits, or the reason why it was refused.
    fn wait(queue: &Arc<HashQueue>, peer: Option<IpAddr>) -> Result<Waiting, PasswordError> {
        let permit = queue.login(peer)?;
        let mut waiting: Waiting = Box::pin(async move { permit.acquire().await });
        match waiting.as_mut().now_or_never() {
            None => Ok(waiting),
            Some(Ok(_)) => panic!("it does not wait"),
            Some(Err(error)) => Err(error),
        }
    }

    fn empty(queue: &HashQueue) -> bool {
        let state = queue.state.lock();
        (state.running, state.logins, state.setters) == (0, 0, 0)
            && state.lanes.is_empty()
            && state.order.is_empty()
    }

    /// Lets every waiter run, one after the other, and returns their order as indices in `waiting`.
    fn order(held: HashTurn, waiting: &mut Vec<(usize, Waiting)>) -> Vec<usize> {
        let mut order = Vec::new();
        let mut held = Some(held);
        while held.take().is_some() {
            let next = waiting.iter_mut().position(|(_, waiter)| match waiter.as_mut().now_or_never() {
                Some(turn) => {
                    held = Some(turn.expect("its turn"));
                    true
                }
                None => false,
            });
            order.extend(next.map(|at| waiting.remove(at).0));
        }
        order
    }

    #[tokio::test]
    async fn turns_rotate_among_addresses() {
        let queue = HashQueue::new(1);
        let held = queue.login(None).expect("a permit").acquire().await.expect("nobody runs");
        let peers =
            ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.1", "192.0.2.3", "192.0.2.2"];
        let mut waiting =
            peers.iter().map(|peer| wait(&queue, ip(peer)).expect("waits")).enumerate().collect();
        assert_eq!(order(held, &mut waiting), [0, 3, 5, 1, 6, 2, 4]);
        assert!(empty(&queue));
    }

    #[tokio::test]
    async fn at_most_the_configured_number_runs_at_once() {
        let queue = HashQueue::new(3);
        let permit = queue.login(ip("192.0.2.1")).expect("a permit");
        let mut running = Vec::new();
        for _ in 0..3 {
            running.push(permit.acquire().await.expect("there is a turn"));
        }
        let mut fourth = wait(&queue, ip("192.0.2.2")).expect("waits");
        running.pop();
        let turn = fourth.as_mut().now_or_never().expect("it runs").expect("its turn");
        drop((running, turn, permit));
        assert!(empty(&queue));
    }

    #[tokio::test]
    async fn an_address_has_a_limited_number_of_permits() {
        let queue = HashQueue::new(1);
        let held = queue.login(None).expect("a permit").acquire().await.expect("nobody runs");
        let flood: Vec<_> = (0..100).map_while(|_| wait(&queue, ip("2001:db8:0:1::1")).ok()).collect();
        assert_eq!(flood.len(), LOGINS_PER_ADDRESS);
        let neighbour = ip("2001:db8:0:1:ffff::2");
        assert_eq!(queue.check_login(neighbour), Err(PasswordError::Share), "the same /64");
        assert!(queue.login(neighbour).is_err());
        assert_eq!(queue.check_login(ip("2001:db8:0:2::1")), Ok(()));
        drop(flood);
        assert!(queue.login(neighbour).is_ok(), "a waiter that left holds no permit");
        drop(held);
        assert!(empty(&queue));
    }

    /// Four addresses fill the queue. A login from another address replaces one of theirs and runs after one
    /// of each.
    #[tokio::test]
    async fn a_full_queue_replaces_a_login_of_the_busiest_address() {
        let queue = HashQueue::new(1);
        let held = queue.login(None).expect("a permit").acquire().await.expect("nobody runs");
        let mut flood: Vec<(usize, Waiting)> = Vec::new();
        for n in 0..LOGINS_WAITING {
            flood.push((n, wait(&queue, ip(&format!("192.0.2.{}", n % 4))).expect("waits")));
        }
        assert_eq!(wait(&queue, ip("192.0.2.0")).err(), Some(PasswordError::Share));
        let other = wait(&queue, ip("198.51.100.1")).expect("it replaces a login of the flood");
        let refused = flood.iter_mut().filter_map(|(_, waiter)| waiter.as_mut().now_or_never());
        let refused: Vec<_> = refused.map(|turn| turn.err()).collect();
        assert_eq!(refused, [Some(PasswordError::Share)]);
        flood.retain(|(n, _)| *n < LOGINS_WAITING - 4);
        flood.push((1_000, other));
        let order = order(held, &mut flood);
        assert_eq!(order.iter().position(|n| *n == 1_000), Some(4), "{order:?}");
        assert!(empty(&queue));

        // When every party has one waiter, the next login is refused.
        let held = queue.login(None).expect("a permit").acquire().await.expect("nobody runs");
        let crowd = (0..LOGINS_WAITING).map(|n| wait(&queue, ip(&format!("10.0.0.{n}"))).expect("waits"));
        let crowd: Vec<_> = crowd.collect();
        assert_eq!(wait(&queue, ip("198.51.100.1")).err(), Some(PasswordError::Busy));
        drop((crowd, held));
        assert!(empty(&queue));
    }

    /// Clients without an address of their own may fill the queue, and lose waiters like any other party.
    #[tokio::test]
    async fn local_clients_are_one_party() {
        for local in [None, ip("127.0.0.1"), ip("::1"), ip("::ffff:127.0.0.1")] {
            let queue = HashQueue::new(1);
            let held = queue.login(local).expect("a permit").acquire().await.expect("nobody runs");
            let all: Vec<_> = (0..100).map_while(|_| wait(&queue, local).ok()).collect();
            assert_eq!(all.len(), LOGINS_WAITING);
            assert_eq!(queue.check_login(local), Err(PasswordError::Share));
            assert!(wait(&queue, ip("192.0.2.1")).is_ok());
            drop((all, held));
            assert!(empty(&queue));
        }
    }

    #[tokio::test]
    async fn organizations_that_set_passwords_have_their_own_permits() {
        let queue = HashQueue::new(1);
        let of =
            |tenant| (0..70).map_while(|_| queue.set_password(TenantId(tenant)).ok()).collect::<Vec<_>>();
        let first = of(1);
        assert_eq!(first.len(), SETTERS_PER_ORGANIZATION);
        let others: Vec<_> = (2..=9).flat_map(of).collect();
        assert_eq!(first.len() + others.len(), SETTERS);
        assert_eq!(queue.set_password(TenantId(1)).err(), Some(PasswordError::Share));
        assert_eq!(queue.set_password(TenantId(10)).err(), Some(PasswordError::Busy));
        let turn = queue.login(None).expect("logins have their own permits").acquire().await.expect("a turn");
        drop(first);
        let permit = queue.set_password(TenantId(10)).expect("there is room again");
        assert!(permit.acquire().now_or_never().is_none(), "it waits and is dropped");
        drop(turn);
        let turn = permit.acquire().await.expect("its turn");
        drop((permit, others));
        assert_eq!(queue.state.lock().setters, 1, "a turn holds its permit");
        drop(turn);
        assert!(empty(&queue));
    }

    /// A turn that was granted to a waiter that left at the same moment is not lost.
    #[tokio::test]
    async fn an_unused_permit_goes_to_the_next_waiter() {
        let queue = HashQueue::new(1);
        let held = queue.login(None).expect("a permit").acquire().await.expect("nobody runs");
        let first = wait(&queue, ip("192.0.2.1")).expect("waits");
        let mut second = wait(&queue, ip("192.0.2.2")).expect("waits");
        drop(held);
        assert!(second.as_mut().now_or_never().is_none(), "the first has the turn");
        drop(first);
        drop(second.as_mut().now_or_never().expect("it runs").expect("its turn"));
        drop(second);
        assert!(empty(&queue));
    }
}
