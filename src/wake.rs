//! Waking workers: one bit per (tenant, worker), never anything per connection.
//!
//! * A publisher stores the ring's head and then calls [`WakeBits::signal`]. The bit's change 0→1 puts the
//!   tenant on the worker's [`WakeQueue`], so a tenant is on a queue at most once and a queue is never longer
//!   than the number of tenants.
//! * A worker takes a tenant off its queue, then calls [`WakeBits::take`], then reads the head, until it
//!   has read all events up to the head.
//! * A worker that gets a first subscriber calls [`WakeBits::subscribe`], then reads the head.
//! * Each of these three has a SeqCst fence between its store and its load. Two such sides cannot both miss
//!   the other's store, which is the whole proof that no wake-up is lost; `tests/loom` checks it on this
//!   code.
//! * The queue rings its bell only if the worker may have seen it silent, so a burst costs one system call.
//!
//! It does not know rings, tenants or sockets.

#[cfg(not(loom))]
use std::os::fd::{AsFd, BorrowedFd};

use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, fence};

/// The most workers that the bits of a tenant can name.
pub const MAX_WORKERS: usize = 64;

/// The inbox of a worker. Any thread pushes; the worker waits for the bell and drains.
pub struct WakeQueue<T> {
    items: Mutex<Vec<T>>,
    /// True from the push that rings the bell until the drain that follows. Pushers set it, the worker clears
    /// it.
    notified: AtomicBool,
    bell: EventFd,
}

impl<T> WakeQueue<T> {
    /// Creates an empty queue with its own bell.
    ///
    /// # Errors
    /// The process has no file descriptor left for the bell.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { items: Mutex::new(Vec::new()), notified: AtomicBool::new(false), bell: EventFd::new()? })
    }

    /// Adds `item` and ensures that the worker will drain the queue. There is no order between pushers.
    pub fn push(&self, item: T) {
        self.items.lock().push(item);
        // AcqRel, partner: the swap in `drain`. If this reads true, a drain has yet to swap, and that drain
        // sees the item.
        if !self.notified.swap(true, Ordering::AcqRel) {
            self.bell.notify();
        }
    }

    /// Moves everything into `out` and silences the bell. One worker calls it, when the bell rang or when the
    /// worker is awake anyway; if the bell has not rung it costs one load.
    pub fn drain(&self, out: &mut Vec<T>) {
        if !self.notified.load(Ordering::Relaxed) {
            return; // A push in progress has yet to ring.
        }
        // The order matters: a push that finds `notified` cleared rings a bell, and after that bell is
        // silenced the queue is always read. Silencing last could swallow that ring and leave `notified` set
        // for ever.
        self.bell.clear();
        self.notified.swap(false, Ordering::AcqRel); // partner: the swap in `push`
        let mut items = self.items.lock();
        if out.is_empty() {
            std::mem::swap(&mut *items, out); // two buffers in turn, no allocation
        } else {
            out.append(&mut items);
        }
    }
}

#[cfg(all(loom, test))]
impl<T> WakeQueue<T> {
    /// Blocks until the bell rings, as a worker does in its epoll.
    pub fn wait(&self) {
        self.bell.wait();
    }
}

#[cfg(not(loom))]
impl<T> AsFd for WakeQueue<T> {
    /// Readable while the bell rings; each ring is an edge.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.0.as_fd()
    }
}

impl<T> std::fmt::Debug for WakeQueue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WakeQueue").field("notified", &self.notified).finish_non_exhaustive()
    }
}

/// An eventfd.
#[cfg(not(loom))]
struct EventFd(std::os::fd::OwnedFd);

#[cfg(not(loom))]
impl EventFd {
    fn new() -> std::io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        Ok(Self(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
    }

    fn notify(&self) {
        // It fails only if the count would overflow, and then the bell is ringing already.
        let _ = rustix::io::retry_on_intr(|| rustix::io::write(&self.0, &1u64.to_ne_bytes()));
    }

    fn clear(&self) {
        // It fails only with EAGAIN: a pusher has set `notified` and is about to ring, so there will be one
        // idle wake-up.
        let _ = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut [0u8; 8]));
    }
}

/// The eventfd as loom can model it.
#[cfg(loom)]
struct EventFd {
    ringing: loom::sync::Mutex<bool>,
    rung: loom::sync::Condvar,
}

#[cfg(loom)]
impl EventFd {
    fn new() -> std::io::Result<Self> {
        Ok(Self { ringing: loom::sync::Mutex::new(false), rung: loom::sync::Condvar::new() })
    }

    fn notify(&self) {
        *self.ringing.lock().unwrap() = true;
        self.rung.notify_one();
    }

    fn clear(&self) {
        *self.ringing.lock().unwrap() = false;
    }

    /// Waits as the worker does in epoll.
    #[cfg(test)]
    fn wait(&self) {
        let mut ringing = self.ringing.lock().unwrap();
        while !*ringing {
            ringing = self.rung.wait(ringing).unwrap();
        }
    }
}

/// State of a tenant: which workers have subscribers of it, and which of them were already notified of new
/// events.
#[derive(Debug)]
pub struct WakeBits {
    /// Bit n: worker n has subscribers. Only worker n changes it.
    interested: AtomicU64,
    /// Bit n: the tenant is on worker n's queue, or off it and about to be passed to `take`. Set by
    /// signalers, cleared by worker n.
    pending: AtomicU64,
}

impl Default for WakeBits {
    fn default() -> Self {
        Self::new()
    }
}

impl WakeBits {
    /// Creates bits without subscribers.
    pub fn new() -> Self {
        Self { interested: AtomicU64::new(0), pending: AtomicU64::new(0) }
    }

    /// Records that `worker` (< [`MAX_WORKERS`]) has its first subscriber. It reads the ring's head *after*
    /// this: it sees everything below that head, and whatever is published later will wake it.
    pub fn subscribe(&self, worker: usize) {
        self.interested.fetch_or(bit(worker), Ordering::Relaxed);
        fence(Ordering::SeqCst); // partner: the fence in `signal`
    }

    /// Records that the last subscriber of `worker` has left. The tenant may still be on its queue and is
    /// taken off as usual.
    pub fn unsubscribe(&self, worker: usize) {
        self.interested.fetch_and(!bit(worker), Ordering::Relaxed);
    }

    /// Returns true if any worker has subscribers.
    pub fn any(&self) -> bool {
        self.interested.load(Ordering::Relaxed) != 0
    }

    /// Calls `push(worker)` for each worker with subscribers that is not yet notified; call it after storing
    /// the ring's head. Any number of threads may signal; one of them pushes.
    pub fn signal(&self, mut push: impl FnMut(usize)) {
        fence(Ordering::SeqCst); // partners: the fences in `subscribe` and `take`
        let interested = self.interested.load(Ordering::Relaxed);
        // A set bit seen here means that its `take` comes after our fence, so it will see our head.
        if interested & !self.pending.load(Ordering::Relaxed) == 0 {
            return;
        }
        // Relaxed: the queue's mutex carries the item, the fences carry the head.
        let mut fresh = interested & !self.pending.fetch_or(interested, Ordering::Relaxed);
        while fresh != 0 {
            push(fresh.trailing_zeros() as usize);
            fresh &= fresh - 1;
        }
    }

    /// Records that `worker` has taken the tenant off its queue and is about to read the head (not before
    /// this returns).
    pub fn take(&self, worker: usize) {
        self.pending.fetch_and(!bit(worker), Ordering::Relaxed);
        fence(Ordering::SeqCst); // partner: the fence in `signal`
    }
}

fn bit(worker: usize) -> u64 {
    debug_assert!(worker < MAX_WORKERS);
    1 << (worker % MAX_WORKERS)
}

#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::sync::Arc;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    /// Waits as a worker's epoll would; returns false after ten seconds without a ring.
    fn rings(queue: &WakeQueue<impl Sized>, patience: Timespec) -> bool {
        poll(&mut [PollFd::new(queue, PollFlags::IN)], Some(&patience)).unwrap() == 1
    }
    const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
    const LONG: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

    #[test]
    fn a_burst_rings_once_and_draining_silences() {
        let queue = WakeQueue::new().unwrap();
        assert!(!rings(&queue, NOW));
        (0..3).for_each(|item| queue.push(item));
        let mut count = [0; 8];
        rustix::io::read(&queue, &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1, "one write for three pushes");

        let mut out = vec![9];
        queue.drain(&mut out);
        assert_eq!(out, [9, 0, 1, 2]);
        queue.push(3);
        assert!(rings(&queue, NOW), "the next burst rings again");
        out.clear();
        queue.drain(&mut out);
        assert_eq!(out, [3]);
        assert!(!rings(&queue, NOW));
    }

    #[test]
    fn only_subscribed_workers_are_woken_and_once() {
        let bits = WakeBits::new();
        let signalled = || {
            let mut signalled = Vec::new();
            bits.signal(|worker| signalled.push(worker));
            signalled
        };
        assert!(signalled().is_empty());
        bits.subscribe(0);
        bits.subscribe(63);
        assert!(bits.any());
        assert_eq!(signalled(), [0, 63]);
        assert!(signalled().is_empty());
        bits.take(63);
        assert_eq!(signalled(), [63]);
        bits.take(0);
        bits.take(63);
        bits.unsubscribe(63);
        assert_eq!(signalled(), [0]);
    }

    /// Four publishers increment counters and signal; a worker that sleeps whenever it can still sees every
    /// last value.
    #[test]
    fn no_wake_up_is_lost_under_load() {
        const PUBLISHERS: usize = 4;
        const LAST: u64 = 20_000;
        let queue = Arc::new(WakeQueue::new().unwrap());
        let tenants: Vec<_> =
            (0..PUBLISHERS).map(|_| Arc::new((AtomicU64::new(0), WakeBits::new()))).collect();
        tenants.iter().for_each(|tenant| tenant.1.subscribe(5));
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|index| {
                let (queue, tenant) = (queue.clone(), tenants[index].clone());
                std::thread::spawn(move || {
                    for value in 1..=LAST {
                        tenant.0.store(value, Ordering::Relaxed);
                        tenant.1.signal(|worker| {
                            assert_eq!(worker, 5);
                            queue.push(index);
                        });
                    }
                })
            })
            .collect();
        let (mut seen, mut out) = ([0; PUBLISHERS], Vec::new());
        while seen != [LAST; PUBLISHERS] {
            assert!(rings(&queue, LONG), "lost a wake-up at {seen:?}");
            queue.drain(&mut out);
            assert!(out.len() <= PUBLISHERS, "a tenant is on the queue at most once");
            for index in out.drain(..) {
                tenants[index].1.take(5);
                seen[index] = tenants[index].0.load(Ordering::Relaxed);
            }
        }
        publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
    }
}

/// Run by `tests/loom`.
#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::{sync::Arc, thread};

    fn check(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(3));
        builder.check(model);
    }

    /// A tenant reduced to its head, and the inbox of each worker.
    struct World {
        head: AtomicU64,
        bits: WakeBits,
        queues: Vec<WakeQueue<()>>,
    }

    impl World {
        fn new(workers: usize) -> Arc<Self> {
            let queues = (0..workers).map(|_| WakeQueue::new().unwrap()).collect();
            Arc::new(Self { head: AtomicU64::new(0), bits: WakeBits::new(), queues })
        }

        fn publish(&self) {
            self.head.fetch_add(1, Ordering::Relaxed);
            self.bits.signal(|worker| self.queues[worker].push(()));
        }

        /// Follows the tenant until its head is `end`, sleeping in between. A lost wake-up is a deadlock,
        /// which loom reports.
        fn follow(&self, worker: usize, end: u64) {
            self.bits.subscribe(worker);
            let mut seen = self.head.load(Ordering::Relaxed);
            let mut out = Vec::new();
            while seen < end {
                self.queues[worker].wait();
                self.queues[worker].drain(&mut out);
                assert!(out.len() <= 1, "the tenant is on the queue at most once");
                if out.pop().is_some() {
                    self.bits.take(worker);
                    seen = self.head.load(Ordering::Relaxed);
                }
            }
        }
    }

    #[test]
    fn loom_a_registration_racing_publishes_loses_nothing() {
        check(|| {
            let world = World::new(1);
            let publisher = {
                let world = world.clone();
                thread::spawn(move || {
                    world.publish();
                    world.publish();
                })
            };
            world.follow(0, 2);
            publisher.join().unwrap();
        });
    }

    #[test]
    fn loom_two_publishers_wake_a_worker_between_them() {
        check(|| {
            let world = World::new(1);
            let publishers = [(); 2].map(|()| {
                let world = world.clone();
                thread::spawn(move || world.publish())
            });
            world.follow(0, 2);
            publishers.into_iter().for_each(|publisher| publisher.join().unwrap());
        });
    }

    /// One worker's bits are not cleared or set while the other's change.
    #[test]
    fn loom_two_workers_are_woken_each_for_itself() {
        check(|| {
            let world = World::new(2);
            let other = {
                let world = world.clone();
                thread::spawn(move || world.follow(1, 2))
            };
            let publisher = {
                let world = world.clone();
                thread::spawn(move || {
                    world.publish();
                    world.publish();
                })
            };
            world.follow(0, 2);
            other.join().unwrap();
            publisher.join().unwrap();
        });
    }

    /// Pushes `items` one by one from each of the pushers; the worker gets all of them.
    fn push_and_collect<const N: usize>(pushers: [&'static [u32]; N]) {
        check(move || {
            let queue = Arc::new(WakeQueue::new().unwrap());
            let mut missing: u32 = pushers.iter().flat_map(|items| items.iter()).sum();
            let pushers = pushers.map(|items| {
                let queue = queue.clone();
                thread::spawn(move || items.iter().for_each(|item| queue.push(*item)))
            });
            let mut out = Vec::new();
            while missing > 0 {
                queue.wait();
                queue.drain(&mut out);
                missing -= out.drain(..).sum::<u32>();
            }
            pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
        });
    }

    #[test]
    fn loom_two_pushers_share_a_bell() {
        push_and_collect([&[1], &[2]]);
    }

    /// The drain after the first push must not swallow the bell of the second, or the third rings none.
    #[test]
    fn loom_a_drain_swallows_no_bell() {
        push_and_collect([&[1, 2, 3]]);
    }
}
