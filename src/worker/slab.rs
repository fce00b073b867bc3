//! Slots for connections, in blocks that never move: growing copies nothing and leaves no large hole behind.
//!
//! A `Vec` that doubles held up to three times its live size in the allocator while thousands connected; blocks hold what is used,
//! rounded up to [`BLOCK`] slots. Freed slots are used again, last freed first.

use std::ops::{Index, IndexMut};

/// Slots of one block.
const BLOCK: usize = 64;

/// Slots of `T`, named by number.
#[derive(Debug)]
pub struct Slab<T> {
    blocks: Vec<Box<[Option<T>]>>,
    /// Slots that were used and are free.
    free: Vec<u32>,
    /// Slots that were used at some time: 0 to here.
    used: usize,
}

impl<T> Slab<T> {
    /// No slots.
    #[must_use]
    pub const fn new() -> Slab<T> {
        Slab { blocks: Vec::new(), free: Vec::new(), used: 0 }
    }

    /// How many are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used - self.free.len()
    }

    /// Whether none is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The slot that [`Slab::insert`] takes next.
    #[must_use]
    pub fn vacant_key(&self) -> usize {
        self.free.last().map_or(self.used, |slot| *slot as usize)
    }

    /// Puts `value` into the next slot and answers which.
    pub fn insert(&mut self, value: T) -> usize {
        let slot = match self.free.pop() {
            Some(slot) => slot as usize,
            None => {
                if self.used == self.blocks.len() * BLOCK {
                    self.blocks.push((0..BLOCK).map(|_| None).collect());
                }
                self.used += 1;
                self.used - 1
            }
        };
        self.blocks[slot / BLOCK][slot % BLOCK] = Some(value);
        slot
    }

    /// What is in a slot.
    #[must_use]
    pub fn get(&self, slot: usize) -> Option<&T> {
        self.blocks.get(slot / BLOCK)?[slot % BLOCK].as_ref()
    }

    /// What is in a slot.
    pub fn get_mut(&mut self, slot: usize) -> Option<&mut T> {
        self.blocks.get_mut(slot / BLOCK)?[slot % BLOCK].as_mut()
    }

    /// Empties a slot. The last one leaves no block behind.
    pub fn remove(&mut self, slot: usize) -> Option<T> {
        let value = self.blocks.get_mut(slot / BLOCK)?[slot % BLOCK].take()?;
        self.free.push(slot as u32);
        if self.is_empty() {
            *self = Slab::new();
        }
        Some(value)
    }

    /// Every taken slot with what is in it.
    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.blocks.iter().flatten().enumerate().filter_map(|(slot, value)| Some((slot, value.as_ref()?)))
    }

    /// Every taken slot with what is in it.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (usize, &mut T)> {
        self.blocks.iter_mut().flatten().enumerate().filter_map(|(slot, value)| Some((slot, value.as_mut()?)))
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
    /// On an empty slot: callers hold a number only while it is taken.
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

#[allow(clippy::panic)] // what `Vec`'s own index does; an index row or batch never outlives its slot
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
        let seen: Vec<usize> = slab.iter().map(|(slot, _)| slot).collect();
        assert_eq!(seen, (0..200).collect::<Vec<_>>());
        assert_eq!(slab[70], 1_000);
    }

    #[test]
    fn the_last_one_takes_the_memory_with_it() {
        let mut slab = Slab::new();
        let slots: Vec<usize> = (0..1_000).map(|n| slab.insert(n)).collect();
        assert!(slots.into_iter().all(|slot| slab.remove(slot).is_some()));
        assert!(slab.is_empty() && slab.blocks.is_empty() && slab.get(3).is_none());
    }
}
