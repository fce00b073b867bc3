//! Finds the connections of an organization, a user or an API key on this worker.
//!
//! * An owner is identified by 32 bits of a keyed hash, so each connection that is found must be checked:
//!   owners that share a hash cost a comparison.
//! * A single slot is stored in the table itself, several in a [`SlotSet`]: the connections of one API key
//!   cost a bit each, a user with one connection about 12 bytes (`docs/benchmarks.md`, "Density").
//! * It knows slots and principals, not connections.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

use slab::Slab;

use crate::auth::Principal;
use crate::ids::TenantId;

use super::slot_set::SlotSet;

/// Number of tables that owners are spread over. A table that grows then moves only a part of them.
const TABLES: usize = 64;
/// Marks an entry as the number of a set; slots are below this.
const SET: u32 = 1 << 31;

/// The owner of connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) enum Owner<'a> {
    Organization(TenantId),
    /// A `sub` of an organization.
    User(TenantId, &'a str),
    /// An API key of an organization, by its id.
    Key(TenantId, &'a str),
    /// The tokens that an API key issued, by the key's id. The operator's key issues tokens for any
    /// organization.
    MadeByKey(&'a str),
    /// The tokens that a user's tokens issued.
    MadeByUser(TenantId, &'a str),
}

/// An owner's hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(super) struct OwnerTag(u32);

type Table = HashMap<OwnerTag, u32, BuildHasherDefault<Spread>>;

/// Spreads hashes of 32 bits over 64.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u32(&mut self, tag: u32) {
        self.0 = u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// The index.
pub(super) struct ConnectionIndex {
    tables: Box<[Table]>,
    sets: Slab<SlotSet>,
    keys: RandomState,
}

impl ConnectionIndex {
    pub(super) fn new() -> ConnectionIndex {
        let tables = (0..TABLES).map(|_| Table::default()).collect();
        ConnectionIndex { tables, sets: Slab::new(), keys: RandomState::new() }
    }

    pub(super) fn tag(&self, owner: Owner<'_>) -> OwnerTag {
        OwnerTag(self.keys.hash_one(owner) as u32)
    }

    /// Adds the connection in `slot` under each of its owners.
    pub(super) fn insert(&mut self, principal: &Principal, slot: u32) {
        for tag in self.tags(principal) {
            self.add(tag, slot);
        }
    }

    /// Removes what [`ConnectionIndex::insert`] added for the same owners.
    pub(super) fn remove(&mut self, principal: &Principal, slot: u32) {
        for tag in self.tags(principal) {
            self.take(tag, slot);
        }
    }

    fn tags(&self, principal: &Principal) -> impl Iterator<Item = OwnerTag> + use<> {
        let (tenant, by_user) = (principal.tenant, principal.made_by_user());
        let owners = [
            Some(Owner::Organization(tenant)),
            principal.sub.as_deref().map(|sub| Owner::User(tenant, sub)),
            principal.key_id().map(|key| Owner::Key(tenant, key)),
            principal.made_by_key().map(Owner::MadeByKey),
            by_user.as_deref().map(|sub| Owner::MadeByUser(tenant, sub)),
        ];
        owners.map(|owner| owner.map(|owner| self.tag(owner))).into_iter().flatten()
    }

    /// Returns the lowest slot from `from` on that may be one of the owner's.
    pub(super) fn next(&self, tag: OwnerTag, from: u32) -> Option<u32> {
        let entry = *self.tables[tag.0 as usize % TABLES].get(&tag)?;
        match entry & SET {
            0 => Some(entry).filter(|slot| *slot >= from),
            _ => self.sets.get((entry & !SET) as usize)?.next(from),
        }
    }

    fn add(&mut self, tag: OwnerTag, slot: u32) {
        match self.tables[tag.0 as usize % TABLES].entry(tag) {
            Entry::Vacant(entry) => drop(entry.insert(slot)),
            Entry::Occupied(mut entry) if entry.get() & SET == 0 => {
                let mut set = SlotSet::default();
                set.insert(*entry.get());
                set.insert(slot);
                *entry.get_mut() = SET | self.sets.insert(set) as u32;
            }
            Entry::Occupied(entry) => {
                if let Some(set) = self.sets.get_mut((entry.get() & !SET) as usize) {
                    set.insert(slot);
                }
            }
        }
    }

    fn take(&mut self, tag: OwnerTag, slot: u32) {
        let table = &mut self.tables[tag.0 as usize % TABLES];
        let Entry::Occupied(mut entry) = table.entry(tag) else { return };
        if entry.get() & SET == 0 {
            if *entry.get() == slot {
                entry.remove();
                shrink(table);
            }
            return;
        }
        let at = (entry.get() & !SET) as usize;
        let Some(set) = self.sets.get_mut(at) else { return };
        set.remove(slot);
        if let Some(only) = set.only() {
            *entry.get_mut() = only;
            self.sets.remove(at);
            if self.sets.is_empty() {
                self.sets = Slab::new();
            }
        }
    }
}

/// Frees memory after many connections have left; rarely, so that it costs nothing on average.
fn shrink(table: &mut Table) {
    if table.is_empty() {
        *table = Table::default();
    } else if table.capacity() > 64 && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: &ConnectionIndex, tag: OwnerTag) -> Vec<u32> {
        let (mut found, mut from) = (Vec::new(), 0);
        while let Some(slot) = index.next(tag, from) {
            found.push(slot);
            from = slot + 1;
        }
        found
    }

    #[test]
    fn one_and_several_slots_of_an_owner_are_found_and_removed() {
        let mut index = ConnectionIndex::new();
        let [a, b] =
            [Owner::User(TenantId(1), "ann"), Owner::Key(TenantId(1), "ann")].map(|it| index.tag(it));
        assert_ne!(a, b);
        for slot in [7, 3, 5] {
            index.add(a, slot);
        }
        index.add(b, 4);
        assert_eq!((found(&index, a), found(&index, b)), (vec![3, 5, 7], vec![4]));
        assert_eq!((index.next(a, 6), index.next(a, 8), index.next(b, 5)), (Some(7), None, None));
        for slot in [3, 9, 7] {
            index.take(a, slot);
        }
        assert_eq!((found(&index, a), index.sets.len()), (vec![5], 0));
        index.take(a, 5);
        index.take(b, 4);
        assert!(index.tables.iter().all(HashMap::is_empty));
    }
}
