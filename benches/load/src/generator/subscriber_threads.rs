//! Subscribers on several threads, reported as one: this thread's share with the publishers, and shares on
//! other threads.
//!
//! * An event is complete when it is complete in every share. Shares report this through one bounded queue,
//!   and wake this thread's engine.
//! * The threads end with the crew. Each has a handle.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::engine::Engine;
use super::stall_detector::StallDetector;
use super::subscribers::{Subscribers, WINDOW};
use crate::error::BenchError;
use crate::progress::{Progress, Silent};
use crate::report::DeliveryFaults;
use crate::wire::{Access, Wire};

/// The longest wait of a share for a descriptor to become ready. It also bounds how long a share takes to
/// stop.
const TICK: Duration = Duration::from_millis(50);

/// The state that shares report to.
struct Shared {
    /// Events complete in one share since the crew last read them. There are at most [`WINDOW`] for each
    /// share, because a mode has no more in progress.
    complete: Mutex<Vec<u64>>,
    /// First deliveries of all shares except this thread's.
    deliveries: AtomicU64,
    /// Number of shares that have joined.
    joined: AtomicUsize,
    /// The first error of a share.
    trouble: Mutex<Option<BenchError>>,
    stop: AtomicBool,
    /// An eventfd, written when something above has changed.
    bell: OwnedFd,
}

/// Locks a mutex. Poison is ignored: only a share that panicked while it held plain data poisons a lock, and
/// that data stays valid.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn ring(&self) {
        // The write fails only if the counter is full, and then the eventfd is readable already.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

/// Subscribers on one or several threads.
pub(crate) struct SubscriberThreads {
    own: Subscribers,
    shares: Vec<JoinHandle<Subscribers>>,
    shared: Arc<Shared>,
    /// Number of shares in which event n is complete, at n modulo [`WINDOW`]; reset to 0 when it is complete
    /// in all.
    had: Box<[u16]>,
    complete: Vec<u64>,
    len: usize,
}

impl std::fmt::Debug for SubscriberThreads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crew").field("subscribers", &self.len).finish_non_exhaustive()
    }
}

/// The number of subscribers and threads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// Subscribers in total.
    pub subscribers: usize,
    /// Threads, including this one; at least 1.
    pub threads: usize,
}

impl SubscriberThreads {
    /// Connects the subscribers and waits until all are ready.
    pub(crate) fn join(
        engine: &mut Engine,
        access: &Access,
        wire: Wire,
        size: Size,
        patience: Duration,
        progress: &mut dyn Progress,
    ) -> Result<SubscriberThreads, BenchError> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let bell = bell.map_err(BenchError::sys("make an eventfd"))?;
        let shared = Arc::new(Shared {
            complete: Mutex::default(),
            deliveries: AtomicU64::new(0),
            joined: AtomicUsize::new(0),
            trouble: Mutex::default(),
            stop: AtomicBool::new(false),
            bell,
        });
        let count = size.threads.clamp(1, size.subscribers.max(1));
        let mut threads = SubscriberThreads {
            own: Subscribers::new(),
            shares: Vec::new(),
            shared,
            had: vec![0; WINDOW].into_boxed_slice(),
            complete: Vec::new(),
            len: size.subscribers,
        };
        let each = size.subscribers / count;
        for _ in 1..count {
            let (access, shared) = (access.clone(), threads.shared.clone());
            threads.shares.push(std::thread::spawn(move || share(&access, wire, each, patience, &shared)));
        }
        engine.watch(&threads.shared.bell)?;
        let own = size.subscribers - each * (count - 1);
        threads.own.join(engine, access, wire, own, patience, progress)?;
        let mut stall = StallDetector::new(patience);
        while threads.shared.joined.load(Ordering::Acquire) < threads.shares.len() {
            threads.turn(engine, TICK)?;
            let joined = threads.shared.joined.load(Ordering::Acquire);
            stall.check(joined as u64, || {
                format!("{joined} of {} threads have joined", threads.shares.len())
            })?;
        }
        Ok(threads)
    }

    /// Serves what is ready on this thread. Returns true if anything was ready.
    pub(crate) fn turn(&mut self, engine: &mut Engine, timeout: Duration) -> Result<bool, BenchError> {
        let any = engine.turn(timeout, &mut self.own)?;
        self.own.check()?;
        if self.shares.is_empty() {
            return Ok(any);
        }
        let mut counter = [0; 8];
        let _ = rustix::io::read(&self.shared.bell, &mut counter); // nothing to read means that it was not written
        if let Some(error) = lock(&self.shared.trouble).take() {
            return Err(error);
        }
        let reported = std::mem::take(&mut *lock(&self.shared.complete));
        for n in self.own.completed().chain(reported) {
            let had = &mut self.had[n as usize % WINDOW];
            *had += 1;
            if usize::from(*had) > self.shares.len() {
                *had = 0;
                self.complete.push(n);
            }
        }
        Ok(any)
    }

    /// Returns the events that all subscribers have received since the last call.
    pub(crate) fn completed(&mut self) -> std::vec::Drain<'_, u64> {
        if self.shares.is_empty() { self.own.completed() } else { self.complete.drain(..) }
    }

    /// Returns the publishers that got a response since the last call, numbered from 0.
    pub(crate) fn answered(&mut self) -> std::vec::Drain<'_, usize> {
        self.own.answered()
    }

    /// Returns the first deliveries so far. Those of other threads are as of their last turn.
    pub(crate) fn deliveries(&self) -> u64 {
        self.own.deliveries() + self.shared.deliveries.load(Ordering::Acquire)
    }

    /// Returns the number of subscribers.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Ends the threads and returns losses, repeats and reorderings of the first `end` events.
    pub(crate) fn delivery_faults(mut self, end: u64) -> DeliveryFaults {
        let mut delivery_faults = self.own.delivery_faults(end);
        self.shared.stop.store(true, Ordering::Release);
        for share in self.shares.drain(..) {
            // A share that panicked has printed its error. Its subscribers count as having received nothing.
            delivery_faults
                .add(share.join().map(|subscribers| subscribers.delivery_faults(end)).unwrap_or_default());
        }
        delivery_faults
    }
}

impl Drop for SubscriberThreads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        for share in self.shares.drain(..) {
            let _ = share.join(); // a panic has been printed
        }
    }
}

/// Runs the share of one thread until the crew stops.
fn share(access: &Access, wire: Wire, count: usize, patience: Duration, shared: &Shared) -> Subscribers {
    let mut subscribers = Subscribers::new();
    if let Err(error) = serve(&mut subscribers, access, wire, count, patience, shared) {
        lock(&shared.trouble).get_or_insert(error);
        shared.ring();
    }
    subscribers
}

fn serve(
    subscribers: &mut Subscribers,
    access: &Access,
    wire: Wire,
    count: usize,
    patience: Duration,
    shared: &Shared,
) -> Result<(), BenchError> {
    let mut engine = Engine::new()?;
    subscribers.join(&mut engine, access, wire, count, patience, &mut Silent)?;
    shared.joined.fetch_add(1, Ordering::AcqRel);
    shared.ring();
    let mut reported = 0;
    while !shared.stop.load(Ordering::Acquire) {
        engine.turn(TICK, subscribers)?;
        subscribers.check()?;
        let deliveries = subscribers.deliveries();
        if deliveries > reported {
            shared.deliveries.fetch_add(deliveries - reported, Ordering::AcqRel);
            reported = deliveries;
        }
        let complete = subscribers.completed();
        if complete.len() > 0 {
            lock(&shared.complete).extend(complete);
            shared.ring();
        }
    }
    Ok(())
}
