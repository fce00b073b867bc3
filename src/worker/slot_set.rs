//! A set of slab slots that takes at most a few bytes per slot, whatever their number and distances.
//!
//! * Slots are kept in chunks of [`CHUNK`]: a sorted list of two bytes each while a chunk has few, else one
//!   bit each.
//! * Iteration continues from a slot, not from a position in the set, so the set may change meanwhile: a slot
//!   that stays is found.

/// Number of slots that one chunk covers.
const CHUNK: u32 = 1 << 14;
/// Number of words of a chunk's bits.
const WORDS: usize = CHUNK as usize / 64;
/// The most slots of a chunk that is a list; the list then takes as many bytes as the bits.
const LISTED: usize = WORDS * 4;

/// The set.
#[derive(Debug, Default)]
pub(super) struct SlotSet {
    /// Sorted by the number of the chunk; no chunk is empty.
    chunks: Vec<(u32, Chunk)>,
}

#[derive(Debug)]
enum Chunk {
    /// Offsets in the chunk, sorted.
    List(Vec<u16>),
    /// A bit for each offset, and how many are set.
    Bits(Box<[u64; WORDS]>, u32),
}

impl SlotSet {
    pub(super) fn insert(&mut self, slot: u32) {
        let (number, offset) = (slot / CHUNK, (slot % CHUNK) as u16);
        match self.chunks.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(at) => self.chunks[at].1.insert(offset),
            Err(at) => {
                if self.chunks.is_empty() {
                    self.chunks.reserve_exact(1);
                }
                self.chunks.insert(at, (number, Chunk::List(vec![offset])));
            }
        }
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let (number, offset) = (slot / CHUNK, (slot % CHUNK) as u16);
        let Ok(at) = self.chunks.binary_search_by_key(&number, |(number, _)| *number) else { return };
        self.chunks[at].1.remove(offset);
        if self.chunks[at].1.len() == 0 {
            self.chunks.remove(at);
        }
    }

    /// Returns the lowest slot of the set from `from` on.
    pub(super) fn next(&self, from: u32) -> Option<u32> {
        let (number, offset) = (from / CHUNK, (from % CHUNK) as u16);
        let at = self.chunks.partition_point(|(it, _)| *it < number);
        self.chunks[at..].iter().find_map(|(it, chunk)| {
            let from = if *it == number { offset } else { 0 };
            chunk.next(from).map(|offset| it * CHUNK + u32::from(offset))
        })
    }

    /// Returns the slot of a set that has only one.
    pub(super) fn only(&self) -> Option<u32> {
        match &self.chunks[..] {
            [(number, chunk)] if chunk.len() == 1 => Some(number * CHUNK + u32::from(chunk.next(0)?)),
            _ => None,
        }
    }
}

impl Chunk {
    fn len(&self) -> usize {
        match self {
            Chunk::List(list) => list.len(),
            Chunk::Bits(_, len) => *len as usize,
        }
    }

    fn insert(&mut self, offset: u16) {
        match self {
            Chunk::List(list) => {
                let Err(at) = list.binary_search(&offset) else { return };
                list.insert(at, offset);
                if list.len() > LISTED {
                    let mut bits = Box::new([0; WORDS]);
                    list.iter().for_each(|offset| bits[usize::from(*offset) / 64] |= 1 << (offset % 64));
                    *self = Chunk::Bits(bits, list.len() as u32);
                }
            }
            Chunk::Bits(bits, len) => {
                let word = &mut bits[usize::from(offset) / 64];
                *len += u32::from(*word & (1 << (offset % 64)) == 0);
                *word |= 1 << (offset % 64);
            }
        }
    }

    fn remove(&mut self, offset: u16) {
        match self {
            Chunk::List(list) => {
                let Ok(at) = list.binary_search(&offset) else { return };
                list.remove(at);
                if list.capacity() > 8 && list.len() < list.capacity() / 4 {
                    list.shrink_to(list.len() * 2);
                }
            }
            Chunk::Bits(bits, len) => {
                let word = &mut bits[usize::from(offset) / 64];
                *len -= u32::from(*word & (1 << (offset % 64)) != 0);
                *word &= !(1 << (offset % 64));
                // This is below the number at which a list becomes bits, so that one connection that comes
                // and goes does not convert it each time.
                if (*len as usize) < LISTED / 2 {
                    let set =
                        (0..CHUNK as u16).filter(|it| bits[usize::from(*it) / 64] & (1 << (it % 64)) != 0);
                    *self = Chunk::List(set.collect());
                }
            }
        }
    }

    fn next(&self, from: u16) -> Option<u16> {
        match self {
            Chunk::List(list) => list.get(list.partition_point(|offset| *offset < from)).copied(),
            Chunk::Bits(bits, _) => {
                let first = usize::from(from) / 64;
                let masked = |word: usize| match word == first {
                    true => bits[word] & (u64::MAX << (from % 64)),
                    false => bits[word],
                };
                let word = (first..WORDS).find(|word| masked(*word) != 0)?;
                Some((word * 64) as u16 + masked(word).trailing_zeros() as u16)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn all(set: &SlotSet) -> Vec<u32> {
        let (mut found, mut from) = (Vec::new(), 0);
        while let Some(slot) = set.next(from) {
            found.push(slot);
            from = slot + 1;
        }
        found
    }

    #[test]
    fn a_full_chunk_becomes_bits_and_a_sparse_one_a_list() {
        let mut set = SlotSet::default();
        (0..CHUNK).for_each(|slot| set.insert(slot));
        assert!(matches!(set.chunks[..], [(0, Chunk::Bits(_, CHUNK))]));
        assert!(all(&set).into_iter().eq(0..CHUNK));
        (0..CHUNK - 1).for_each(|slot| set.remove(slot));
        assert!(matches!(&set.chunks[..], [(0, Chunk::List(list))] if list.capacity() <= 8));
        assert_eq!(set.only(), Some(CHUNK - 1));
        set.remove(CHUNK - 1);
        assert!(set.chunks.is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_equals_a_sorted_set(
            ops in prop::collection::vec((any::<bool>(), prop_oneof![0u32..3_000, 0u32..1 << 20]), 0..4_000),
            from in 0u32..1 << 20,
        ) {
            let (mut set, mut model) = (SlotSet::default(), BTreeSet::new());
            for (insert, slot) in ops {
                match insert {
                    true => { set.insert(slot); model.insert(slot); }
                    false => { set.remove(slot); model.remove(&slot); }
                }
            }
            prop_assert!(all(&set).into_iter().eq(model.iter().copied()));
            prop_assert_eq!(set.next(from), model.range(from..).next().copied());
            prop_assert_eq!(set.only(), model.first().copied().filter(|_| model.len() == 1));
        }
    }
}
