//! Slots for connections, in blocks that never move: growing copies nothing, and an unused block is freed.
//!
//! * A block fills a page of the system as well as `T` divides it. A `Vec` that doubles used up to three
//!   times its live size in the allocator while thousands of clients connected.
//! * The lowest free slot is taken first. So after many connections have left, the rest gathers in the lower
//!   blocks, and the blocks above become free.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::{Index, IndexMut};

/// About how many bytes one block has.
const BLOCK_BYTES: usize = 4_096;

/// Slots of `T`, identified by number.
#[derive(Debug)]
pub struct Slab<T> {
    blocks: Vec<Block<T>>,
    /// Blocks with a free slot, each once, the lowest on top.
    open: BinaryHeap<Reverse<u32>>,
    /// Number of slots in use.
    len: usize,
}

#[derive(Debug)]
struct Block<T> {
    /// `Slab::BLOCK` slots, or none while all are free.
    slots: Box<[Option<T>]>,
    /// One bit per slot, set if it is free.
    free: u64,
}

impl<T> Slab<T> {
    /// Number of slots of one block: at most one per bit of [`Block::free`].
    const BLOCK: usize = {
        let fit = BLOCK_BYTES / size_of::<Option<T>>();
        if fit == 0 {
            1
        } else if fit > 64 {
            64
        } else {
            fit
        }
    };
    /// [`Block::free`] of an empty block.
    const ALL_FREE: u64 = u64::MAX >> (64 - Self::BLOCK);

    /// Creates a slab without slots.
    #[must_use]
    pub const fn new() -> Slab<T> {
        Slab { blocks: Vec::new(), open: BinaryHeap::new(), len: 0 }
    }

    /// Returns the number of slots in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if no slot is in use.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns one more than the highest slot that may be in use.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.blocks.len() * Self::BLOCK
    }

    /// Returns the slot that [`Slab::insert`] takes next.
    #[must_use]
    pub fn vacant_key(&self) -> usize {
        match self.open.peek() {
            Some(&Reverse(at)) => {
                let free = self.blocks.get(at as usize).map_or(0, |block| block.free.trailing_zeros());
                at as usize * Self::BLOCK + free as usize
            }
            None => self.blocks.len() * Self::BLOCK,
        }
    }

    /// Puts `value` into the next slot and returns the slot.
    pub fn insert(&mut self, value: T) -> usize {
        let slot = self.vacant_key();
        let (at, place) = (slot / Self::BLOCK, slot % Self::BLOCK);
        if at == self.blocks.len() {
            self.blocks.push(Block { slots: Box::default(), free: Self::ALL_FREE });
            self.open.push(Reverse(at as u32));
        }
        let block = &mut self.blocks[at];
        if block.slots.is_empty() {
            block.slots = (0..Self::BLOCK).map(|_| None).collect();
        }
        block.slots[place] = Some(value);
        block.free &= !(1 << place);
        if block.free == 0 {
            self.open.pop(); // it was at the top
        }
        self.len += 1;
        slot
    }

    /// Returns the value of a slot.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<&T> {
        self.blocks.get(slot / Self::BLOCK)?.slots.get(slot % Self::BLOCK)?.as_ref()
    }

    /// Returns the value of a slot.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        self.blocks.get_mut(slot / Self::BLOCK)?.slots.get_mut(slot % Self::BLOCK)?.as_mut()
    }

    /// Empties a slot. A block is freed with its last value.
    pub fn remove(&mut self, slot: usize) -> Option<T> {
        let (at, place) = (slot / Self::BLOCK, slot % Self::BLOCK);
        let block = self.blocks.get_mut(at)?;
        let value = block.slots.get_mut(place)?.take()?;
        if block.free == 0 {
            self.open.push(Reverse(at as u32));
        }
        block.free |= 1 << place;
        if block.free == Self::ALL_FREE {
            block.slots = Box::default();
        }
        self.len -= 1;
        if self.len == 0 {
            *self = Slab::new();
        }
        Some(value)
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab::new()
    }
}

impl<T> Index<usize> for Slab<T> {
    type Output = T;

    /// # Panics
    /// On an empty slot: callers keep a number only while the slot is in use.
    fn index(&self, slot: usize) -> &T {
        match self.get(slot) {
            Some(value) => value,
            None => empty(slot),
        }
    }
}

impl<T> IndexMut<usize> for Slab<T> {
    fn index_mut(&mut self, slot: usize) -> &mut T {
        match self.get_mut(slot) {
            Some(value) => value,
            None => empty(slot),
        }
    }
}

#[allow(clippy::panic)] // as `Vec`'s index; no index row or batch outlives its slot
fn empty(slot: usize) -> ! {
    panic!("slot {slot} is empty")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_used_again_and_found_in_order() {
        let mut slab = Slab::new();
        for n in 0..200 {
            assert_eq!(slab.vacant_key(), n);
            assert_eq!(slab.insert(n), n);
        }
        assert_eq!((slab.remove(70), slab.remove(70), slab.len()), (Some(70), None, 199));
        assert_eq!(slab.vacant_key(), 70);
        assert_eq!(slab.insert(1_000), 70);
        let seen: Vec<usize> = (0..slab.slots()).filter(|slot| slab.get(*slot).is_some()).collect();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        assert_eq!(slab[70], 1_000);
    }

    #[test]
    fn an_empty_block_is_freed_and_allocated_again() {
        let mut slab = Slab::new();
        let block = Slab::<usize>::BLOCK;
        (0..3 * block).for_each(|n| assert_eq!(slab.insert(n), n));
        // The middle block is emptied except for one slot, then completely.
        (block..2 * block - 1).for_each(|slot| assert_eq!(slab.remove(slot), Some(slot)));
        assert_eq!(slab.blocks[1].slots.len(), block);
        assert_eq!(slab.remove(2 * block - 1), Some(2 * block - 1));
        assert!(slab.blocks[1].slots.is_empty() && slab.get(block).is_none() && slab.remove(block).is_none());
        let taken = (0..slab.slots()).filter(|slot| slab.get(*slot).is_some()).count();
        assert_eq!((slab.len(), taken), (2 * block, 2 * block));
        // The lower block is filled first, in order, then the ones above.
        assert_eq!(slab.remove(3), Some(3));
        assert_eq!((slab.insert(1_003), slab.insert(1_000)), (3, block));
        (1..block).for_each(|n| assert_eq!(slab.insert(n), block + n));
        assert_eq!((slab.insert(0), slab.len()), (3 * block, 3 * block + 1));
    }

    #[test]
    fn removing_the_last_value_frees_the_memory() {
        let mut slab = Slab::new();
        let slots: Vec<usize> = (0..1_000).map(|n| slab.insert(n)).collect();
        assert!(slots.into_iter().all(|slot| slab.remove(slot).is_some()));
        assert!(slab.is_empty() && slab.blocks.is_empty() && slab.get(3).is_none());
    }
}
