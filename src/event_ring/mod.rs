//! Fan-out ring of a tenant: one writer at a time, any number of workers reading, no lock on the read side.
//!
//! * Positions are complete sequences. Those in `tail..head` are readable, consecutive, and at
//!   `sequence & mask`.
//! * `tail` and `head` only grow, across epochs too. A sequence below `tail` is unlinked: no reader that pins
//!   from then on follows its slot, so stale pointers may stay in the array.
//! * `head` is the end of what readers may see. The writer may be ahead of it by frames that are *held* until
//!   their commit.
//! * A frame carries its sequence: a lapped reader sees a wrong number, never torn bytes.
//! * Frames and arrays are owned by [`RingWriter`] (as safe `Arc`s) and dropped when no pin protects them
//!   ([`pins`]); readers see raw pointers to them. The two `unsafe` blocks of the module are both in
//!   [`Ring::read`].
//! * The ring does not know sockets, tenants or the log. A reader that gets [`RingRead::Behind`] reads the log
//!   from the same cursor.
//!
//! Why raw pointers: `benches/ring.rs` compares with a mutex around a `VecDeque` and with tokio's broadcast
//! channel.

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

/// A frame that a ring can carry.
pub trait RingItem: Send + Sync + 'static {
    /// Returns the position of this frame, which never changes.
    fn sequence(&self) -> u64;
    /// Returns what the frame counts against [`RingLimits::max_bytes`]; never changes.
    fn bytes(&self) -> usize;
}

/// Limits of what a ring keeps.
#[derive(Clone, Copy, Debug)]
pub struct RingLimits {
    /// Slots of the first array (8 bytes each, and the same again for ownership); rounded up to a power of
    /// two.
    pub initial_slots: usize,
    /// The most slots after doubling; rounded up to a power of two, at least `initial_slots`.
    pub max_slots: usize,
    /// The sum of [`RingItem::bytes`] above which committed frames leave. Uncommitted ones may exceed it.
    pub max_bytes: usize,
}

/// The result of [`Ring::read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingRead {
    /// At least one frame was appended, the first with the requested sequence. There may be more.
    Frames,
    /// No frame at or above the requested sequence is visible.
    AtHead,
    /// The requested frame has left the ring (or is between two epochs): the log has it.
    Behind {
        /// The first sequence that this ring can serve now or will serve next. It is above the requested one.
        tail: u64,
    },
}

/// Creates an empty ring whose first frame gets sequence `start`. No array is allocated before the first
/// publish.
pub fn ring<F: RingItem>(pins: &Arc<Pins>, limits: RingLimits, start: u64) -> (RingWriter<F>, Arc<Ring<F>>) {
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
pub struct Ring<F: RingItem> {
    /// The sequence after the last visible frame; stored by the writer after the slot.
    head: AtomicU64,
    /// The oldest sequence that is not unlinked. The writer stores it before anything at a lower sequence is
    /// retired, and before `slots` is cleared.
    tail: AtomicU64,
    /// The array, owned by the writer; null while the tenant is quiet. The writer stores it before the `head`
    /// that needs it.
    slots: AtomicPtr<Slots<F>>,
    pins: Arc<Pins>,
    /// What the writer still owned when it was dropped. Readers may be inside, so it is freed with the ring
    /// itself.
    estate: Mutex<Option<Box<writer::SlotMemory<F>>>>,
}

impl<F: RingItem> Ring<F> {
    /// Returns the sequence after the last visible frame, where a subscription from `now` begins.
    pub fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    /// Returns the oldest sequence that the ring can serve; equals the writer's head while it keeps no frame.
    pub fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// Appends to `out` up to `max` (at least one) frames, consecutive from sequence `from`. It never blocks
    /// or waits for a writer, and writers never wait for it.
    ///
    /// # Panics
    /// If `reader` belongs to other [`Pins`] than this ring's, which would make reading unsound.
    pub fn read(&self, reader: &mut Reader, from: u64, out: &mut Vec<Arc<F>>, max: usize) -> RingRead {
        assert!(reader.belongs_to(&self.pins), "the reader is pinned elsewhere");
        // Acquire, partner: the Release store of `head` in `RingWriter`: slots and array below `head` are
        // visible.
        let head = self.head.load(Ordering::Acquire);
        if from >= head {
            return RingRead::AtHead;
        }
        let end = head.min(from.saturating_add(max.max(1) as u64));
        let already = out.len();
        // Outside the pin: allocation may take long.
        out.reserve((end - from).min(self.tail_to(head)) as usize);

        let pinned = reader.pin();
        // Loaded after the pin: whatever is unlinked and not yet protected by the pin is below this tail.
        let tail = self.tail.load(Ordering::Acquire);
        if from < tail {
            return RingRead::Behind { tail };
        }
        // Acquire, partner: the Release stores in `RingWriter::grow` and `::empty`.
        let slots = self.slots.load(Ordering::Acquire);
        if slots.is_null() {
            // Released meanwhile. The tail was stored first, so it is now above `from`.
            return RingRead::Behind { tail: self.tail() };
        }
        // SAFETY: `slots` came from an `Arc` that the writer keeps until `pins` shows no reader that pinned
        // before the pointer was replaced (proof in `pins`); this thread has been pinned since before it
        // loaded the pointer.
        #[allow(unsafe_code)]
        let slots = unsafe { &*slots };
        slots.alive.touch();
        for sequence in from..end {
            // Acquire, partner: the Release store in `RingWriter::put`: the frame's contents are visible.
            let frame = slots.at(sequence).load(Ordering::Acquire).cast_const();
            if frame.is_null() {
                break; // A newer array, made after this sequence had left.
            }
            // SAFETY: `frame` came from an `Arc` that the writer keeps until no reader is left that pinned
            // before the frame was unlinked, and it was not unlinked before this pin:
            // `tail <= sequence < head`, so the slot of `sequence` holds that frame or one that came later to
            // the same slot, all of them at or above the `tail` that was loaded under the pin. So the reference
            // count is at least one while it is raised here.
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
            return RingRead::Frames;
        }
        // `from` left between the two reads. The tail was stored before the slot that was read here got a
        // later frame.
        RingRead::Behind { tail: self.tail() }
    }

    /// Returns how many frames can be between tail and `head`; this bounds the reservation for a `from` that
    /// is far too low.
    fn tail_to(&self, head: u64) -> u64 {
        head.saturating_sub(self.tail.load(Ordering::Relaxed))
    }
}

impl<F: RingItem> std::fmt::Debug for Ring<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("tail", &self.tail()).field("head", &self.head()).finish_non_exhaustive()
    }
}

/// One array of slots. Its size never changes; growing replaces it.
struct Slots<F> {
    /// The length minus one; the length is a power of two.
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
