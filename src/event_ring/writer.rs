//! The writer of a ring: it assigns slots, decides which frames leave, and owns every frame until no reader
//! can reach it.
//!
//! * It is inside the tenant's mutex; `&mut self` makes it the only writer.
//! * `tail <= visible <= next`. A frame in `visible..next` is held, or follows one that is.
//! * To unlink is to move `tail` past a frame, or to replace `slots`. Only unlinked objects go to `retired`,
//!   and only `collect` drops them.
//! * It does not know what is committed, only the given `committed_end`: the sequence after the last commit.

use std::collections::VecDeque;

use super::{Pins, Ring, RingItem, RingLimits, Slots};
use crate::sync::{Arc, Ordering};

/// The number of retired objects that a publish leaves before it surveys the pins. A survey fetches a cache
/// line from each reading core, which was most of the cost of a publish under readers. So up to this many
/// frames stay above the ring's limits until the next publish or trim. Under loom every step surveys.
pub(super) const RECLAIM_BATCH: usize = if cfg!(loom) { 1 } else { 16 };

/// The stamp of what was unlinked since the last survey of the pins.
const UNSTAMPED: u64 = u64::MAX;

/// The writer's side of a ring, created by [`super::ring`].
pub struct RingWriter<F: RingItem> {
    ring: Arc<Ring<F>>,
    limits: RingLimits,
    /// The sequence of the next frame.
    next: u64,
    /// Sum of [`RingItem::bytes`] over `memory.frames`.
    bytes: usize,
    /// Sequences of held frames, ascending; nearly always empty.
    hidden: VecDeque<u64>,
    /// `None` while the tenant is quiet.
    memory: Option<Box<SlotMemory<F>>>,
}

/// Everything that is freed when a tenant becomes quiet, and that must outlive the readers if the writer is
/// dropped.
pub(super) struct SlotMemory<F> {
    /// The array that readers see; `None` after a release that a reader still holds up.
    slots: Option<Arc<Slots<F>>>,
    /// The frames `tail..next`, oldest first.
    frames: VecDeque<Arc<F>>,
    /// Unlinked objects that a reader may still use, by ascending stamp.
    retired: VecDeque<(u64, Retired<F>)>,
}

/// Kept only to be dropped later, so its fields are never read.
#[allow(dead_code)]
enum Retired<F> {
    Frame(Arc<F>),
    Frames(VecDeque<Arc<F>>),
    Slots(Arc<Slots<F>>),
}

impl<F: RingItem> RingWriter<F> {
    pub(super) fn new(ring: Arc<Ring<F>>, limits: RingLimits, start: u64) -> Self {
        Self { ring, limits, next: start, bytes: 0, hidden: VecDeque::new(), memory: None }
    }

    /// Returns the sequence of the next frame. It is at or above [`Ring::head`], which stops before held
    /// frames.
    pub fn head(&self) -> u64 {
        self.next
    }

    /// Returns the oldest sequence kept.
    pub fn tail(&self) -> u64 {
        self.ring.tail.load(Ordering::Relaxed) // only this writer stores it
    }

    /// Returns the number of frames kept.
    pub fn len(&self) -> usize {
        (self.next - self.tail()) as usize
    }

    /// Returns true if no frame is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the sum of [`RingItem::bytes`] over the frames kept.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of slots allocated; 0 while the tenant is quiet.
    pub fn slots(&self) -> usize {
        self.memory.as_ref().and_then(|memory| memory.slots.as_ref()).map_or(0, |slots| slots.len())
    }

    /// Returns true if nothing waits for a reader to leave.
    pub fn is_quiescent(&self) -> bool {
        self.memory.as_ref().is_none_or(|memory| memory.retired.is_empty())
    }

    /// Returns true if one more frame fits without losing one at or above `committed_end`. If false, wait for
    /// the commit.
    pub fn has_room(&self, committed_end: u64) -> bool {
        self.len() < self.max_slots() || self.tail() < committed_end
    }

    /// Adds `frame` at the head and makes it visible to readers, unless an earlier one is held. The caller
    /// then signals.
    ///
    /// Below the byte limit and `max_slots` no frame leaves; above them committed frames leave, oldest first.
    /// Without [`has_room`](Self::has_room) the oldest uncommitted frame leaves too, and its readers wait for
    /// the log.
    ///
    /// # Panics
    /// If the frame's sequence is not [`head`](Self::head): readers would look for it for ever.
    pub fn publish(&mut self, frame: Arc<F>, committed_end: u64) {
        self.put(frame, committed_end);
        self.show();
    }

    /// Like [`publish`](Self::publish), but neither this frame nor any after it is visible before
    /// [`reveal`](Self::reveal) passes it.
    pub fn publish_hidden(&mut self, frame: Arc<F>, committed_end: u64) {
        self.put(frame, committed_end);
        self.hidden.push_back(self.next - 1);
    }

    /// Releases held frames below `committed_end`. Returns true if readers can see more than before, so that
    /// they must be signalled.
    pub fn reveal(&mut self, committed_end: u64) -> bool {
        while self.hidden.front().is_some_and(|first| *first < committed_end) {
            self.hidden.pop_front();
        }
        self.show()
    }

    /// Removes every frame below `end`, held ones without having been visible; readers continue with the log.
    /// For frames whose commit was refused. Returns true if readers can see more than before, so that they
    /// must be signalled.
    pub fn discard(&mut self, end: u64) -> bool {
        while self.tail() < end && self.evict() {}
        let more = self.reveal(end); // after the tail has passed them
        self.collect();
        more
    }

    /// Drops visible frames below `to`. `to` must not be above the committed end, or readers wait for the
    /// log.
    pub fn advance_tail(&mut self, to: u64) {
        let to = to.min(self.ring.head.load(Ordering::Relaxed));
        while self.tail() < to && self.evict() {}
        self.collect();
    }

    /// Drops committed frames, oldest first, until `bytes` are left (for the limit over all tenants). Returns
    /// the bytes that were dropped.
    pub fn shrink_to(&mut self, bytes: usize, committed_end: u64) -> usize {
        let before = self.bytes;
        self.evict_to(bytes, committed_end);
        self.collect();
        before - self.bytes
    }

    /// Releases every frame and the array; the next publish allocates again. For a tenant that is quiet and
    /// committed. If a reader is inside now, a later call (or publish) frees the rest: see
    /// [`is_quiescent`](Self::is_quiescent).
    pub fn release(&mut self) {
        self.hidden = VecDeque::new();
        self.empty(self.next);
    }

    /// Begins a new epoch: no frame is kept, and the next frame gets `start`, which must not be below
    /// [`head`](Self::head).
    pub fn restart(&mut self, start: u64) {
        debug_assert!(start >= self.next, "sequences only grow");
        self.hidden = VecDeque::new();
        self.empty(start);
    }

    fn max_slots(&self) -> usize {
        self.limits.max_slots.max(self.limits.initial_slots).max(1).next_power_of_two()
    }

    fn put(&mut self, frame: Arc<F>, committed_end: u64) {
        assert_eq!(frame.sequence(), self.next, "frames come in sequence");
        let bytes = frame.bytes();
        self.evict_to(self.limits.max_bytes.saturating_sub(bytes), committed_end);
        let (len, capacity) = (self.len(), self.slots());
        if len == capacity {
            if capacity < self.max_slots() {
                self.grow();
            } else {
                self.evict();
            }
        }
        if let Some(memory) = &mut self.memory
            && let Some(slots) = &memory.slots
        {
            // Release, partner: the Acquire load of the slot in `Ring::read`.
            slots.at(self.next).store(Arc::as_ptr(&frame).cast_mut(), Ordering::Release);
            memory.frames.push_back(frame);
        }
        self.bytes += bytes;
        self.next += 1;
        if self.memory.as_ref().is_some_and(|memory| memory.retired.len() >= RECLAIM_BATCH) {
            self.collect();
        }
    }

    /// Moves the visible head up to the first held frame. Returns true if it moved.
    fn show(&mut self) -> bool {
        let end = self.hidden.front().copied().unwrap_or(self.next);
        let moved = end > self.ring.head.load(Ordering::Relaxed);
        if moved {
            // Release, partner: the Acquire loads of `head` in `Ring`. The array and the slots were stored
            // before.
            self.ring.head.store(end, Ordering::Release);
        }
        moved
    }

    /// Replaces the array by one twice as long (or creates the first), with the same frames.
    fn grow(&mut self) {
        let first = self.limits.initial_slots.max(1).next_power_of_two();
        let tail = self.tail();
        let memory = self.memory.get_or_insert_with(|| {
            Box::new(SlotMemory { slots: None, frames: VecDeque::new(), retired: VecDeque::new() })
        });
        let slots = Arc::new(Slots::new(memory.slots.as_ref().map_or(first, |slots| slots.len() * 2)));
        for (sequence, frame) in (tail..).zip(&memory.frames) {
            slots.at(sequence).store(Arc::as_ptr(frame).cast_mut(), Ordering::Relaxed);
        }
        // Release, partner: the Acquire load of `slots` in `Ring::read`; it covers the Relaxed stores above.
        self.ring.slots.store(Arc::as_ptr(&slots).cast_mut(), Ordering::Release);
        memory.frames.reserve_exact(slots.len() - memory.frames.len());
        if let Some(old) = memory.slots.replace(slots) {
            memory.retired.push_back((UNSTAMPED, Retired::Slots(old)));
        }
    }

    /// Unlinks committed frames until `bytes` are left.
    fn evict_to(&mut self, bytes: usize, committed_end: u64) {
        let end = committed_end.min(self.ring.head.load(Ordering::Relaxed));
        while self.bytes > bytes && self.tail() < end && self.evict() {}
    }

    /// Unlinks the oldest frame. Returns false if there is none.
    fn evict(&mut self) -> bool {
        let Some(memory) = &mut self.memory else { return false };
        let Some(frame) = memory.frames.pop_front() else { return false };
        self.bytes -= frame.bytes();
        // Stored before the slot is reused: a reader that finds a later frame there also finds this tail, by
        // the slot's Release. Release, partner: the Acquire loads of `tail` in `Ring`, for the reader's
        // caller: after `Behind` it also sees the commit watermark by which the writer dropped the frame.
        self.ring.tail.store(frame.sequence() + 1, Ordering::Release);
        memory.retired.push_back((UNSTAMPED, Retired::Frame(frame)));
        true
    }

    /// Unlinks everything; the ring continues at `start`.
    fn empty(&mut self, start: u64) {
        self.next = start;
        self.bytes = 0;
        // Stored before `slots`: a reader that finds no array also finds this tail, by the Release of
        // `slots`. Release as in `evict`.
        self.ring.tail.store(start, Ordering::Release);
        self.ring.slots.store(std::ptr::null_mut(), Ordering::Release); // partner: the Acquire load in `read`
        self.ring.head.store(start, Ordering::Release);
        if let Some(memory) = &mut self.memory {
            if !memory.frames.is_empty() {
                let frames = std::mem::take(&mut memory.frames);
                memory.retired.push_back((UNSTAMPED, Retired::Frames(frames)));
            }
            if let Some(slots) = memory.slots.take() {
                memory.retired.push_back((UNSTAMPED, Retired::Slots(slots)));
            }
        }
        self.collect();
        if self.is_quiescent() {
            self.memory = None;
        }
    }

    /// Drops what no reader can reach any more. It costs one fence, and only if something was unlinked.
    fn collect(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.collect(&self.ring.pins);
        }
    }
}

impl<F> SlotMemory<F> {
    fn collect(&mut self, pins: &Pins) {
        if self.retired.is_empty() {
            return;
        }
        let (stamp, least) = pins.survey();
        for (unstamped, _) in self.retired.iter_mut().rev().take_while(|(stamp, _)| *stamp == UNSTAMPED) {
            *unstamped = stamp;
        }
        while self.retired.front().is_some_and(|(stamp, _)| *stamp < least) {
            self.retired.pop_front();
        }
        // Held up by this very stamp: readers that pin from now on must not delay it further.
        if self.retired.back().is_some_and(|(newest, _)| *newest == stamp) {
            pins.pass(stamp);
        }
    }
}

impl<F: RingItem> Drop for RingWriter<F> {
    /// Readers may be inside and have only the ring, so the ring takes everything over. Its frames stay
    /// readable.
    fn drop(&mut self) {
        *self.ring.estate.lock() = self.memory.take();
    }
}

impl<F: RingItem> std::fmt::Debug for RingWriter<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (tail, head) = (self.tail(), self.head());
        f.debug_struct("RingWriter").field("tail", &tail).field("head", &head).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom), target_pointer_width = "64"))]
mod tests {
    use super::*;

    struct Frame;
    impl RingItem for Frame {
        fn sequence(&self) -> u64 {
            0
        }
        fn bytes(&self) -> usize {
            0
        }
    }

    /// 100,000 quiet tenants at 512 bytes each in total leave the ring a third of that.
    #[test]
    fn a_quiet_ring_is_small() {
        let counts = 2 * size_of::<usize>();
        let size = size_of::<RingWriter<Frame>>() + size_of::<Ring<Frame>>() + counts;
        assert!(size <= 168, "{size} bytes");
    }
}
