//! Measures publish and read of the ring with 1, 2 and 4 readers. Baselines: a mutex around a `VecDeque`, and
//! tokio's broadcast.
//!
//! `publish`: the writer's cost of one frame while the ring is full, so each publish also retires a frame.
//! The readers follow in their threads and never sleep (0: there are no readers). `read`: one reader's cost
//! per frame, in batches of 64, from a ring without a writer, while the other readers read the same ring.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::VecDeque;
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nervewire::event_ring::{Pins, Reader, Ring, RingItem, RingLimits, RingRead, RingWriter, ring};
use tokio::sync::broadcast;

const SLOTS: usize = 4096;
const BATCH: usize = 64;
/// How often one reader reads the full ring. Starting a thread takes long compared with one pass.
const PASSES: usize = 16;

struct Frame(u64);

impl RingItem for Frame {
    fn sequence(&self) -> u64 {
        self.0
    }
    fn bytes(&self) -> usize {
        300
    }
}

/// A fan-out implementation.
trait Fanout: Sized {
    type Follower: Follower;
    fn new(readers: usize) -> (Self, Vec<Self::Follower>);
    fn publish(&mut self, frame: Arc<Frame>);
}

/// A reader that never blocks.
trait Follower: Send + 'static {
    /// Takes up to [`BATCH`] frames.
    fn turn(&mut self, out: &mut Vec<Arc<Frame>>);
    /// Moves back to the oldest frame. This works at least [`PASSES`] times.
    fn rewind(&mut self);
}

struct Lockfree(RingWriter<Frame>);
struct LockfreeFollower(Arc<Ring<Frame>>, Reader, u64);

impl Fanout for Lockfree {
    type Follower = LockfreeFollower;
    fn new(readers: usize) -> (Self, Vec<Self::Follower>) {
        let (pins, readers) = Pins::new(readers);
        let limits = RingLimits { initial_slots: SLOTS, max_slots: SLOTS, max_bytes: usize::MAX };
        let (writer, ring) = ring(&pins, limits, 0);
        let followers = readers.into_iter().map(|reader| LockfreeFollower(ring.clone(), reader, 0));
        (Self(writer), followers.collect())
    }
    fn publish(&mut self, frame: Arc<Frame>) {
        let committed = frame.0;
        self.0.publish(frame, committed);
    }
}

impl Follower for LockfreeFollower {
    fn turn(&mut self, out: &mut Vec<Arc<Frame>>) {
        if let RingRead::Behind { tail } = self.0.read(&mut self.1, self.2, out, BATCH) {
            self.2 = tail;
        }
        self.2 += out.len() as u64;
    }
    fn rewind(&mut self) {
        self.2 = self.0.tail();
    }
}

/// The frames, and the sequence of the first one.
type Shelf = Arc<Mutex<(VecDeque<Arc<Frame>>, u64)>>;
struct Locked(Shelf);
struct LockedFollower(Shelf, u64);

impl Fanout for Locked {
    type Follower = LockedFollower;
    fn new(readers: usize) -> (Self, Vec<Self::Follower>) {
        let shelf: Shelf = Arc::new(Mutex::new((VecDeque::with_capacity(SLOTS), 0)));
        (Self(shelf.clone()), (0..readers).map(|_| LockedFollower(shelf.clone(), 0)).collect())
    }
    fn publish(&mut self, frame: Arc<Frame>) {
        let mut shelf = self.0.lock().unwrap();
        if shelf.0.len() == SLOTS {
            shelf.0.pop_front();
            shelf.1 += 1;
        }
        shelf.0.push_back(frame);
    }
}

impl Follower for LockedFollower {
    fn turn(&mut self, out: &mut Vec<Arc<Frame>>) {
        let shelf = self.0.lock().unwrap();
        self.1 = self.1.max(shelf.1);
        out.extend(shelf.0.iter().skip((self.1 - shelf.1) as usize).take(BATCH).cloned());
        self.1 += out.len() as u64;
    }
    fn rewind(&mut self) {
        self.1 = 0;
    }
}

struct Broadcast(broadcast::Sender<Arc<Frame>>);
/// The last receiver is the one in use.
struct BroadcastFollower(Vec<broadcast::Receiver<Arc<Frame>>>);

impl Broadcast {
    /// A receiver cannot move back, so `passes` of them are created at the beginning.
    fn with_passes(readers: usize, passes: usize) -> (Self, Vec<BroadcastFollower>) {
        let (sender, _) = broadcast::channel(SLOTS);
        let receivers = || (0..passes).map(|_| sender.subscribe()).collect();
        let followers = (0..readers).map(|_| BroadcastFollower(receivers())).collect();
        (Self(sender), followers)
    }
}

impl Fanout for Broadcast {
    type Follower = BroadcastFollower;
    fn new(readers: usize) -> (Self, Vec<Self::Follower>) {
        Self::with_passes(readers, 1)
    }
    fn publish(&mut self, frame: Arc<Frame>) {
        let _ = self.0.send(frame);
    }
}

/// The same with many receivers, for `read`.
struct BroadcastPasses(Broadcast);

impl Fanout for BroadcastPasses {
    type Follower = BroadcastFollower;
    fn new(readers: usize) -> (Self, Vec<Self::Follower>) {
        let (sender, followers) = Broadcast::with_passes(readers, PASSES + 1);
        (Self(sender), followers)
    }
    fn publish(&mut self, frame: Arc<Frame>) {
        self.0.publish(frame);
    }
}

impl Follower for BroadcastFollower {
    fn turn(&mut self, out: &mut Vec<Arc<Frame>>) {
        let Some(receiver) = self.0.last_mut() else { return };
        while out.len() < BATCH {
            match receiver.try_recv() {
                Ok(frame) => out.push(frame),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
    }
    fn rewind(&mut self) {
        self.0.pop();
    }
}

/// Runs `work` while the followers read in their own threads. With `round` they start over at the end, else
/// they follow.
fn beside<F: Follower>(followers: Vec<F>, round: bool, work: impl FnOnce() -> Duration) -> Duration {
    let (stop, begun, all) = (AtomicBool::new(false), AtomicUsize::new(0), followers.len());
    thread::scope(|scope| {
        for mut follower in followers {
            let (stop, begun) = (&stop, &begun);
            scope.spawn(move || {
                let mut out = Vec::with_capacity(BATCH);
                begun.fetch_add(1, Ordering::Relaxed);
                while !stop.load(Ordering::Relaxed) {
                    follower.turn(black_box(&mut out));
                    match (out.is_empty(), round) {
                        (true, true) => follower.rewind(),
                        (true, false) => spin_loop(),
                        _ => out.clear(),
                    }
                }
            });
        }
        while begun.load(Ordering::Relaxed) < all {
            thread::yield_now();
        }
        let took = work();
        stop.store(true, Ordering::Relaxed);
        took
    })
}

fn publish<T: Fanout>(readers: usize, count: u64) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = count;
    while left > 0 {
        let now = left.min(100_000);
        left -= now;
        let (mut fanout, followers) = T::new(readers);
        let kept: Vec<_> = (0..now + SLOTS as u64).map(|sequence| Arc::new(Frame(sequence))).collect();
        // A second owner of the frames keeps the cost of freeing them out of the figure.
        let mut frames = kept.clone().into_iter();
        frames.by_ref().take(SLOTS).for_each(|frame| fanout.publish(frame));
        took += beside(followers, false, || {
            let begun = Instant::now();
            frames.for_each(|frame| fanout.publish(frame));
            begun.elapsed()
        });
    }
    took
}

fn read<T: Fanout>(readers: usize, count: u64) -> Duration {
    let (mut taken, mut took) = (0, Duration::ZERO);
    while taken < count {
        let (mut fanout, mut followers) = T::new(readers);
        (0..SLOTS as u64).for_each(|sequence| fanout.publish(Arc::new(Frame(sequence))));
        let Some(mut mine) = followers.pop() else { break };
        took += beside(followers, true, || {
            let mut out = Vec::with_capacity(BATCH);
            let begun = Instant::now();
            for _ in 0..PASSES {
                for _ in 0..SLOTS / BATCH {
                    mine.turn(black_box(&mut out));
                    taken += out.len() as u64;
                    out.clear();
                }
                mine.rewind();
            }
            begun.elapsed()
        });
    }
    took.mul_f64(count as f64 / taken.max(1) as f64)
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("publish");
    group.throughput(Throughput::Elements(1));
    for readers in [0, 1, 2, 4] {
        let id = |name| BenchmarkId::new(name, readers);
        group.bench_function(id("ring"), |b| b.iter_custom(|n| publish::<Lockfree>(readers, n)));
        group.bench_function(id("mutex"), |b| b.iter_custom(|n| publish::<Locked>(readers, n)));
        group.bench_function(id("broadcast"), |b| b.iter_custom(|n| publish::<Broadcast>(readers, n)));
    }
    group.finish();
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(1));
    for readers in [1, 2, 4] {
        let id = |name| BenchmarkId::new(name, readers);
        group.bench_function(id("ring"), |b| b.iter_custom(|n| read::<Lockfree>(readers, n)));
        group.bench_function(id("mutex"), |b| b.iter_custom(|n| read::<Locked>(readers, n)));
        group.bench_function(id("broadcast"), |b| b.iter_custom(|n| read::<BroadcastPasses>(readers, n)));
    }
    group.finish();
}

criterion_group! {
    name = all;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = benches
}
criterion_main!(all);
