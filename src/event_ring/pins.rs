//! Pins that announce which readers are reading. There is one per worker, shared by all rings of the process,
//! so a ring has no cost per reader.
//!
//! An object to which a reader may hold a raw pointer is freed in three steps: the writer *unlinks* it,
//! stamps it with the clock, and drops it once every pin is idle or newer than the stamp.
//!
//! * A pin holds the clock as its reader last saw it, or idle. Only its [`Reader`] stores it.
//! * The clock only grows, and only when a pinned reader delays the freeing of something unlinked. Any writer
//!   may advance it. The clock itself orders nothing; the two fences do.
//!
//! Why that is enough: the reader does `load clock = c; store pin = c; F2; load pointers`, the writer
//! `unlink; F1; load clock = s; load pins`, where F1 and F2 are SeqCst fences and so totally ordered. F1
//! before F2: the reader's loads see the unlink, so the reader never gets the object. F2 before F1: the
//! writer sees this pin or a later store to it, and `s >= c` by coherence. While the writer still reads `c`
//! the object stays; a later store is a release that follows the reader's last use, and the writer's load of
//! it acquires.
//!
//! This module does not know what is protected.

use crate::sync::{Arc, AtomicU64, Ordering, fence};

/// The pin of a reader that holds no pointers; greater than every stamp.
pub(super) const IDLE: u64 = u64::MAX;

/// Two cache lines, because x86 prefetches them in pairs: workers must not share a line that each of them
/// stores to twice per read.
#[derive(Debug)]
#[repr(align(128))]
struct Padded<T>(T);

/// The pins of one process's workers. Every ring that these workers read is created with it.
#[derive(Debug)]
pub struct Pins {
    /// The number of stamps so far; advanced by a writer whose garbage is held up.
    clock: Padded<AtomicU64>,
    /// One per reader, stored only by that reader.
    pins: Box<[Padded<AtomicU64>]>,
}

/// The right to read rings as one worker. It is not `Clone`, and [`super::Ring::read`] takes it as `&mut`, so
/// two threads can never store the same pin.
#[derive(Debug)]
pub struct Reader {
    pins: Arc<Pins>,
    index: usize,
}

impl Pins {
    /// Creates pins for `readers` workers, and the handle of each.
    pub fn new(readers: usize) -> (Arc<Pins>, Vec<Reader>) {
        let pins = (0..readers).map(|_| Padded(AtomicU64::new(IDLE))).collect();
        let pins = Arc::new(Pins { clock: Padded(AtomicU64::new(0)), pins });
        let readers = (0..readers).map(|index| Reader { pins: pins.clone(), index }).collect();
        (pins, readers)
    }

    /// Returns the stamp for what was just unlinked, and the lowest pin; call it after unlinking. Objects
    /// with a stamp lower than that pin can be dropped.
    pub(super) fn survey(&self) -> (u64, u64) {
        fence(Ordering::SeqCst); // F1, partner: F2 in `Reader::pin`
        let stamp = self.clock.0.load(Ordering::Relaxed);
        // Acquire, partner: the Release stores of `Reader::pin` and `Pinned::drop`.
        let least = self.pins.iter().map(|pin| pin.0.load(Ordering::Acquire)).min();
        (stamp, least.unwrap_or(IDLE))
    }

    /// Advances the clock, so that readers that pin from now on differ from those that hold up garbage with
    /// `stamp`.
    pub(super) fn pass(&self, stamp: u64) {
        // If this fails, another writer has advanced the clock, which is as good. No data depends on the
        // clock.
        let _ = self.clock.0.compare_exchange(stamp, stamp + 1, Ordering::Relaxed, Ordering::Relaxed);
    }
}

impl Reader {
    /// Returns true if this reader's pin is one of `pins`; a ring created with other pins would not see it.
    pub(super) fn belongs_to(&self, pins: &Arc<Pins>) -> bool {
        Arc::ptr_eq(&self.pins, pins)
    }

    /// Pins the reader: until the guard drops, nothing that is unlinked after this call is freed.
    pub(super) fn pin(&mut self) -> Pinned<'_> {
        let pin = &self.pins.pins[self.index].0;
        // Release, partner: the Acquire loads in `Pins::survey`. It ends the previous visit for a writer that
        // sees this store and not the idle one before it.
        pin.store(self.pins.clock.0.load(Ordering::Relaxed), Ordering::Release);
        fence(Ordering::SeqCst); // F2, partner: F1 in `Pins::survey`
        Pinned { pin }
    }
}

/// Guard of a reader that is inside a ring.
pub(super) struct Pinned<'a> {
    pin: &'a AtomicU64,
}

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        self.pin.store(IDLE, Ordering::Release); // partner: the Acquire loads in `Pins::survey`
    }
}
