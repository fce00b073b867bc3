//! Per-tenant fan-out ring: one writer at a time, any number of workers reading, no lock on the read side.
//!
//! * Positions are whole sequences. Those in `tail..head` are readable, consecutive, and sit at `sequence & mask`.
//! * `tail` and `head` only grow, across epochs too. A sequence below `tail` is unlinked: no reader that pins from
//!   then on follows its slot, so stale pointers may stay in the array.
//! * `head` is what readers may see; the writer may be ahead of it by frames that are *held* until their commit.
//! * A frame carries its sequence: a lapped reader sees a wrong number, never torn bytes.
//! * Frames and arrays are owned by [`RingWriter`] (safe `Arc`s) and dropped when no pin can reach them
//!   ([`pins`]); readers see bare pointers to them. The two `unsafe` blocks of the module are both in [`Ring::read`].
//! * The ring knows no sockets, tenants or log; whoever is told [`Read::Behind`] reads the log from the same cursor.
//!
//! Why bare pointers: measured in `benches/ring.rs` against a mutex around a `VecDeque` and tokio's broadcast.

pub mod pins;
mod writer;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
#[allow(clippy::unwrap_used)]
mod tests;

pub use pins::{Pins, Reader};
pub use writer::RingWriter;

use crate::sync::{Alive, Arc, AtomicPtr, AtomicU64, Mutex, Ordering};

/// What a ring carries.
pub trait Slotted: Send + Sync + 'static {
    /// The position of this frame; fixed for its life.
    fn sequence(&self) -> u64;
    /// What it counts against [`RingLimits::max_bytes`]; fixed for its life.
    fn bytes(&self) -> usize;
}

/// How much a ring may keep.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// Slots of the first array (8 bytes each, as much again for ownership); rounded up to a power of two.
    pub initial_slots: usize,
    /// Where doubling ends; rounded up to a power of two, at least `initial_slots`.
    pub max_slots: usize,
    /// Sum of [`Slotted::bytes`] above which committed frames leave. Uncommitted ones may exceed it.
    pub max_bytes: usize,
}

/// What [`Ring::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// At least one frame was appended, the first with the sequence asked for; there may be more.
    Frames,
    /// Nothing at or above the sequence asked for is visible.
    AtHead,
    /// The frame asked for has left the ring (or lies between two epochs): the log has it.
    Behind {
        /// The first sequence this ring can still serve, or will serve next; above the one asked for.
        tail: u64,
    },
}

/// An empty ring whose first frame gets sequence `start`; no array is allocated before the first publish.
pub fn ring<F: Slotted>(pins: &Arc<Pins>, limits: RingLimits, start: u64) -> (RingWriter<F>, Arc<Ring<F>>) {
    let ring = Arc::new(Ring {
        head: AtomicU64::new(start),
        tail: AtomicU64::new(start),
        slots: AtomicPtr::new(std::ptr::null_mut()),
        pins: pins.clone(),
        estate: Mutex::new(None),
    });
    (RingWriter::new(ring.clone(), limits, start), ring)
}

/// The readers' side of a ring.
pub struct Ring<F: Slotted> {
    /// The sequence after the last visible frame; stored by the writer after the slot.
    head: AtomicU64,
    /// The oldest sequence not unlinked; stored by the writer before anything at a lower sequence is retired, and
    /// before `slots` is cleared.
    tail: AtomicU64,
    /// The array, owned by the writer; null while quiet. Stored by the writer, before the `head` that needs it.
    slots: AtomicPtr<Slots<F>>,
    pins: Arc<Pins>,
    /// What the writer still owned when it was dropped; readers may be inside, so it goes with the ring itself.
    estate: Mutex<Option<Box<writer::Estate<F>>>>,
}

impl<F: Slotted> Ring<F> {
    /// The sequence after the last visible frame: where a subscription to `now` begins.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// The oldest sequence the ring can serve; equals the writer's head while nothing is kept.
    pub fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// Appends to `out` up to `max` (at least one) frames, consecutive from sequence `from`. Never blocks and never waits for a
    /// writer; writers never wait for it.
    ///
    /// # Panics
    /// If `reader` belongs to other [`Pins`] than this ring's, which would make reading unsound.
    pub fn read(&self, reader: &mut Reader, from: u64, out: &mut Vec<Arc<F>>, max: usize) -> Read {
        assert!(reader.belongs_to(&self.pins), "the reader is pinned elsewhere");
        // Acquire, partner: the Release store of `head` in `RingWriter`: slots and array below `head` are visible.
        let head = self.head.load(Ordering::Acquire);
        if from >= head {
            return Read::AtHead;
        }
        let end = head.min(from.saturating_add(max.max(1) as u64));
        let already = out.len();
        out.reserve((end - from).min(self.tail_to(head)) as usize); // outside the pin: allocation may take long

        let pinned = reader.pin();
        // After the pin: whatever is unlinked and not yet protected by the pin is below this tail.
        let tail = self.tail.load(Ordering::Acquire);
        if from < tail {
            return Read::Behind { tail };
        }
        // Acquire, partner: the Release stores in `RingWriter::grow` and `::empty`.
        let slots = self.slots.load(Ordering::Acquire);
        if slots.is_null() {
            // Released since; the tail was stored first, so it is now above `from`.
            return Read::Behind { tail: self.tail() };
        }
        // SAFETY: `slots` came from an `Arc` that the writer keeps until `pins` shows no reader that pinned before
        // the pointer was replaced (proof in `pins`); this thread has been pinned since before it loaded it.
        #[allow(unsafe_code)]
        let slots = unsafe { &*slots };
        slots.alive.touch();
        for sequence in from..end {
            // Acquire, partner: the Release store in `RingWriter::put`: the frame's contents are visible.
            let frame = slots.at(sequence).load(Ordering::Acquire).cast_const();
            if frame.is_null() {
                break; // A newer array, made after this sequence had left.
            }
            // SAFETY: `frame` came from an `Arc` the writer keeps until no reader that pinned before the frame was
            // unlinked is left, and it was not unlinked before this pin: `tail <= sequence < head`, so the slot of
            // `sequence` holds that frame or one that came later to the same slot, all of them at or above the
            // `tail` that was loaded under the pin. So the count is at least one while it is raised here.
            #[allow(unsafe_code)]
            let frame = unsafe {
                if (*frame).sequence() != sequence {
                    break; // Lapped: the slot serves a later frame by now.
                }
                Arc::increment_strong_count(frame);
                Arc::from_raw(frame)
            };
            out.push(frame);
        }
        drop(pinned);
        if out.len() > already {
            return Read::Frames;
        }
        // `from` left between the two looks; the tail was stored before its slot, which we read, was given away.
        Read::Behind { tail: self.tail() }
    }

    /// How many frames can lie between tail and `head`; bounds the reservation of an absurdly low `from`.
    fn tail_to(&self, head: u64) -> u64 {
        head.saturating_sub(self.tail.load(Ordering::Relaxed))
    }
}

impl<F: Slotted> std::fmt::Debug for Ring<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("tail", &self.tail()).field("head", &self.head()).finish_non_exhaustive()
    }
}

/// One array of slots. Its size never changes; growing replaces it.
struct Slots<F> {
    /// Length − 1; the length is a power of two.
    mask: u64,
    slots: Box<[AtomicPtr<F>]>,
    alive: Alive,
}

impl<F> Slots<F> {
    fn new(len: usize) -> Self {
        debug_assert!(len.is_power_of_two());
        let slots = (0..len).map(|_| AtomicPtr::new(std::ptr::null_mut())).collect();
        Self { mask: len as u64 - 1, slots, alive: Alive::default() }
    }

    fn len(&self) -> usize {
        self.slots.len()
    }

    fn at(&self, sequence: u64) -> &AtomicPtr<F> {
        &self.slots[(sequence & self.mask) as usize]
    }
}
