//! Finds the subscriptions of one tenant on one worker that get a frame, by hash and not by a scan.
//!
//! * Subscriptions with an equal [`Selection`] share an *audience*; a frame is compared once per audience.
//! * An audience has an entry in the list of each pair of a *lead* (the most selective values that it asks
//!   for, else none) and a *scope* (whose events it sees). A frame looks up its own few (lead, scope) pairs.
//! * Hashes, keyed per process, only find candidates; [`Selection::matches`] decides byte for byte. A
//!   collision costs a comparison and never sends an event to the wrong user.
//! * It does not know sockets, positions or tenants; `Id` is the worker's handle of a connection.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};
use std::sync::LazyLock;

use siphasher::sip::SipHasher13;
use slab::Slab;

use crate::filter::{RowId, Selection, below};
use crate::frame::{Frame, RoutingKey};

/// The most (lead, scope) pairs of one audience with users as scopes. Above it, the scope is [`ANYONE`]. This
/// bounds the rows of a filter with [`crate::filter::FILTER_VALUES`] values in every field.
const CROSSED: usize = 256;

/// The index. An empty one owns no memory.
#[derive(Debug)]
pub struct Index<Id> {
    keys: Keys,
    audiences: Slab<Audience<Id>>,
    /// Hash of a selection → its audience. Two selections with the same hash, which is very unlikely, do not
    /// share an audience.
    by_selection: Table<u32>,
    /// Hash of (lead, scope) → audiences.
    candidates: Table<List>,
    /// Number of list entries of each [`LookupKey`], for subscriptions that see anyone's events and for others. So
    /// a frame does not look up a kind of lead that no subscription has.
    leads: [Entries; LEADS],
    members: usize,
    /// Number of the present [`Index::for_each_match`].
    visit: u32,
    /// Number of selections that frames were compared with so far.
    #[cfg(test)]
    compared: usize,
}

/// Numbers of list entries of one [`LookupKey`].
#[derive(Clone, Copy, Debug, Default)]
struct Entries {
    /// Entries in pairs with [`ANYONE`].
    anyone: u32,
    /// Entries in pairs with a user, or with [`UNADDRESSED`].
    scoped: u32,
}

impl Entries {
    fn any(self) -> bool {
        self.anyone > 0 || self.scoped > 0
    }
    fn of(&mut self, pair: &Pair) -> &mut u32 {
        if pair.anyone { &mut self.anyone } else { &mut self.scoped }
    }
}

/// A (lead, scope) pair by which an audience is found.
struct Pair {
    lead: LookupKey,
    /// The scope is [`ANYONE`].
    anyone: bool,
    hash: u64,
}

/// The SipHash keys of this process.
#[derive(Clone, Copy, Debug)]
struct Keys(u64, u64);

impl Keys {
    fn of_this_process() -> Keys {
        static KEYS: LazyLock<Keys> = LazyLock::new(|| {
            let random = RandomState::new();
            Keys(random.hash_one(0u8), random.hash_one(1u8))
        });
        *KEYS
    }
    fn of_selection(self, selection: &Selection) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.0, self.1);
        selection.hash(&mut hasher);
        hasher.finish()
    }
    /// Hashes a value of one domain. Each domain has its own key, so that only the value is hashed.
    fn of_value(self, domain: u8, value: &[u8]) -> u64 {
        SipHasher13::new_with_keys(self.0 ^ (u64::from(domain) + 1), self.1).hash(value)
    }
    fn of_user(self, user: &[u8]) -> u64 {
        self.of_value(LEADS as u8, user)
    }
    fn of_lead(self, lead: LookupKey, value: &[u8]) -> u64 {
        self.of_value(lead as u8, value)
    }
}

/// The keys are hashes already, so the table does not hash them again.
type Table<V> = HashMap<u64, V, BuildHasherDefault<IdentityHasher>>;

#[derive(Debug, Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[derive(Debug)]
struct Audience<Id> {
    selection: Selection,
    members: Members<Id>,
    /// Its position in each of its lists, in the order of [`Index::pairs`].
    places: Box<[u32]>,
    /// The last visit that saw it: two patterns may find it, and it must be reported once.
    seen: u32,
}

#[derive(Debug)]
enum Members<Id> {
    One(Id),
    Many(Vec<Id>),
}

/// A list of audiences; most have one entry.
#[derive(Debug)]
enum List {
    One(u32),
    Many(Vec<u32>),
}

/// The kind of value by which an audience is found, the most selective first.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum LookupKey {
    Request = 0,
    Channel,
    Agent,
    /// A pattern's prefix, including its slash.
    ChannelPrefix,
    /// No value: only the scope.
    Scope,
}
const LEADS: usize = 5;

/// The result of a removal.
#[derive(Debug, PartialEq, Eq)]
pub struct RemovedMember<Id> {
    /// The removed member.
    pub id: Id,
    /// The member that now has the row: its [`RowId`] is from now on that of the removed member.
    pub moved: Option<Id>,
}

impl<Id: Copy> Index<Id> {
    /// Creates an empty index with this process's hash keys.
    #[must_use]
    pub fn new() -> Index<Id> {
        Index {
            keys: Keys::of_this_process(),
            audiences: Slab::new(),
            by_selection: Table::default(),
            candidates: Table::default(),
            leads: [Entries::default(); LEADS],
            members: 0,
            visit: 0,
            #[cfg(test)]
            compared: 0,
        }
    }
    /// Returns the number of subscriptions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members
    }
    /// Returns true if there are no subscriptions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members == 0
    }
    /// Returns the number of different selections: the most that a frame is compared with.
    #[must_use]
    pub fn audiences(&self) -> usize {
        self.audiences.len()
    }

    /// Adds a subscription. Returns `None` only if 2³² audiences exist.
    pub fn insert(&mut self, mut selection: Selection, id: Id) -> Option<RowId> {
        if selection.rights.sees_all_users {
            // Has no effect here; without it all that see all users share one audience.
            selection.rights.sub = None;
        }
        let hash = self.keys.of_selection(&selection);
        let shared = self.by_selection.get(&hash).copied();
        if let Some(at) = shared
            && let Some(audience) = self.audiences.get_mut(at as usize)
            && audience.selection == selection
        {
            self.members += 1;
            return RowId::new(at, audience.members.push(id));
        }
        let at = u32::try_from(self.audiences.vacant_key()).ok()?;
        let row = RowId::new(at, 0)?;
        let mut places = Vec::new();
        for pair in pairs(self.keys, &selection) {
            *self.leads[pair.lead as usize].of(&pair) += 1;
            places.push(match self.candidates.entry(pair.hash) {
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert(List::One(at));
                    0
                }
                std::collections::hash_map::Entry::Occupied(mut entry) => entry.get_mut().push(at),
            });
        }
        let places = places.into_boxed_slice();
        self.audiences.insert(Audience { selection, members: Members::One(id), places, seen: self.visit });
        self.by_selection.entry(hash).or_insert(at);
        self.members += 1;
        Some(row)
    }

    /// Removes a subscription. Returns `None` if there is no such row.
    pub fn remove(&mut self, row: RowId) -> Option<RemovedMember<Id>> {
        let audience = self.audiences.get_mut(row.audience() as usize)?;
        let place = row.place() as usize;
        let id = *audience.members.as_slice().get(place)?;
        self.members -= 1;
        if let Members::Many(members) = &mut audience.members {
            members.swap_remove(place);
            let moved = members.get(place).copied();
            match members[..] {
                [last] => audience.members = Members::One(last),
                _ => spare(members),
            }
            return Some(RemovedMember { id, moved });
        }
        self.remove_audience(row.audience());
        Some(RemovedMember { id, moved: None })
    }

    /// Returns the selection of a row. If it sees all users, its `sub` is missing.
    #[must_use]
    pub fn selection(&self, row: RowId) -> Option<&Selection> {
        self.audiences.get(row.audience() as usize).map(|audience| &audience.selection)
    }

    /// Calls `each` with the members of each audience that gets `frame`. No member comes twice; nothing is
    /// allocated.
    pub fn for_each_match(&mut self, frame: &Frame, mut each: impl FnMut(&[Id])) {
        if self.candidates.is_empty() {
            return;
        }
        self.visit = self.visit.wrapping_add(1);
        if self.visit == 0 {
            self.audiences.iter_mut().for_each(|(_, audience)| audience.seen = 0);
            self.visit = 1;
        }
        let mut scope = None;
        for (lead, key) in [
            (LookupKey::Request, RoutingKey::Request),
            (LookupKey::Agent, RoutingKey::Agent),
            (LookupKey::Channel, RoutingKey::Channel),
        ] {
            if self.leads[lead as usize].any()
                && let Some(value) = frame.key_bytes(key)
            {
                self.look_up(frame, lead, self.keys.of_lead(lead, value), &mut scope, &mut each);
            }
        }
        if self.leads[LookupKey::ChannelPrefix as usize].any()
            && let Some(channel) = frame.key_bytes(RoutingKey::Channel)
        {
            for slash in (0..channel.len()).filter(|at| channel[*at] == b'/') {
                let value = self.keys.of_lead(LookupKey::ChannelPrefix, &channel[..=slash]);
                self.look_up(frame, LookupKey::ChannelPrefix, value, &mut scope, &mut each);
            }
        }
        if self.leads[LookupKey::Scope as usize].any() {
            self.look_up(frame, LookupKey::Scope, NO_LEAD, &mut scope, &mut each);
        }
    }

    /// Looks up one lead. `scope` is the frame's own, hashed on first use.
    fn look_up(
        &mut self,
        frame: &Frame,
        lead: LookupKey,
        value: u64,
        scope: &mut Option<u64>,
        each: &mut impl FnMut(&[Id]),
    ) {
        let Entries { anyone, scoped } = self.leads[lead as usize];
        let own = (scoped > 0).then(|| {
            *scope.get_or_insert_with(|| {
                frame.key_bytes(RoutingKey::User).map_or(UNADDRESSED, |user| self.keys.of_user(user))
            })
        });
        for scope in [(anyone > 0).then_some(ANYONE), own].into_iter().flatten() {
            let Some(list) = self.candidates.get(&cross(value, scope)) else { continue };
            for at in list.as_slice() {
                let Some(audience) = self.audiences.get_mut(*at as usize) else { continue };
                if audience.seen != self.visit {
                    audience.seen = self.visit;
                    #[cfg(test)]
                    {
                        self.compared += 1;
                    }
                    if audience.selection.matches(frame) {
                        each(audience.members.as_slice());
                    }
                }
            }
        }
    }

    fn remove_audience(&mut self, at: u32) {
        let Some(audience) = self.audiences.try_remove(at as usize) else { return };
        let hash = self.keys.of_selection(&audience.selection);
        if self.by_selection.get(&hash) == Some(&at) {
            self.by_selection.remove(&hash);
        }
        for (pair, place) in pairs(self.keys, &audience.selection).into_iter().zip(&audience.places) {
            *self.leads[pair.lead as usize].of(&pair) -= 1;
            let Some(list) = self.candidates.get_mut(&pair.hash) else { continue };
            match list.swap_remove(*place) {
                AfterRemoval::Nobody => drop(self.candidates.remove(&pair.hash)),
                AfterRemoval::Moved(moved) => self.moved(moved, pair.hash, *place),
                AfterRemoval::Same => {}
            }
        }
        shrink(&mut self.candidates);
        shrink(&mut self.by_selection);
        if self.audiences.is_empty() {
            self.audiences = Slab::new();
        }
    }

    /// Records that audience `at` is now at `member` of the list of `hash`; before, it was the last one there.
    fn moved(&mut self, at: u32, hash: u64, place: u32) {
        let Some(audience) = self.audiences.get_mut(at as usize) else { return };
        let pairs = pairs(self.keys, &audience.selection);
        let last = self.candidates.get(&hash).map_or(0, |list| list.as_slice().len() as u32);
        for (own, slot) in pairs.into_iter().zip(&mut audience.places) {
            // Compared by hash and old position, since two of its pairs could have the same hash.
            if own.hash == hash && *slot == last {
                *slot = place;
                return;
            }
        }
    }
}

impl<Id: Copy> Default for Index<Id> {
    fn default() -> Self {
        Index::new()
    }
}

/// Frees memory after many subscriptions have left; rarely, so that it costs nothing on average.
fn shrink<V>(table: &mut Table<V>) {
    if table.capacity() > 64 && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len() * 2);
    } else if table.is_empty() {
        *table = Table::default();
    }
}

/// Like [`shrink`], for a list.
fn spare<T>(list: &mut Vec<T>) {
    if list.capacity() > 64 && list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}

const ANYONE: u64 = 0x9e37_79b9_7f4a_7c15;
const UNADDRESSED: u64 = 0xc2b2_ae3d_27d4_eb4f;
const NO_LEAD: u64 = 0x1656_67b1_9e37_79f9;

/// Joins two keyed hashes (or constants), neither of which can be predicted from outside.
fn cross(lead: u64, scope: u64) -> u64 {
    lead.rotate_left(29).wrapping_mul(ANYONE) ^ scope
}

/// Returns the (lead, scope) pairs by which a selection is found; none for one that can never match. Always
/// the same for equal selections.
fn pairs(keys: Keys, selection: &Selection) -> Vec<Pair> {
    let (filter, rights) = (&selection.filter, &selection.rights);
    let narrowing = &rights.narrowing;
    let channels = if filter.channels().is_empty() { narrowing.channels() } else { Some(filter.channels()) };
    let agents = if filter.agents().is_empty() { narrowing.agents() } else { Some(filter.agents()) };
    let exact = channels.is_some_and(|channels| channels.iter().all(|name| below(name).is_none()));
    let leads: Vec<(LookupKey, u64)> = if !filter.requests().is_empty() {
        filter
            .requests()
            .iter()
            .map(|id| (LookupKey::Request, keys.of_lead(LookupKey::Request, id.as_bytes())))
            .collect()
    } else if let Some(agents) = agents.filter(|_| !exact) {
        agents.iter().map(|id| (LookupKey::Agent, keys.of_lead(LookupKey::Agent, id.as_bytes()))).collect()
    } else if let Some(channels) = channels {
        let lead = |name| match below(name) {
            Some(prefix) => {
                (LookupKey::ChannelPrefix, keys.of_lead(LookupKey::ChannelPrefix, prefix.as_bytes()))
            }
            None => (LookupKey::Channel, keys.of_lead(LookupKey::Channel, name.as_bytes())),
        };
        channels.iter().map(lead).collect()
    } else {
        vec![(LookupKey::Scope, NO_LEAD)]
    };
    let users = filter.users();
    let scopes: Vec<u64> = match (&rights.sub, rights.sees_all_users) {
        (_, true) if users.is_empty() || users.len() * leads.len() > CROSSED => vec![ANYONE],
        (_, true) => users.iter().map(|user| keys.of_user(user.as_bytes())).collect(),
        (Some(sub), false) if users.is_empty() => vec![UNADDRESSED, keys.of_user(sub.as_bytes())],
        (Some(sub), false) if users.contains(sub) => vec![keys.of_user(sub.as_bytes())],
        (None, false) if users.is_empty() => vec![UNADDRESSED],
        (_, false) => Vec::new(), // it asks for users that it may not see
    };
    let pair = |lead, value, scope| Pair { lead, anyone: scope == ANYONE, hash: cross(value, scope) };
    leads.iter().flat_map(|(lead, value)| scopes.iter().map(|scope| pair(*lead, *value, *scope))).collect()
}

impl<Id: Copy> Members<Id> {
    fn as_slice(&self) -> &[Id] {
        match self {
            Members::One(id) => std::slice::from_ref(id),
            Members::Many(members) => members,
        }
    }
    /// Returns the position of the new entry.
    fn push(&mut self, id: Id) -> u32 {
        match self {
            Members::One(first) => {
                *self = Members::Many(vec![*first, id]);
                1
            }
            Members::Many(members) => {
                members.push(id);
                (members.len() - 1) as u32
            }
        }
    }
}

enum AfterRemoval {
    Nobody,
    Same,
    /// The last entry was moved to the removed one's position.
    Moved(u32),
}

impl List {
    fn as_slice(&self) -> &[u32] {
        match self {
            List::One(at) => std::slice::from_ref(at),
            List::Many(list) => list,
        }
    }
    /// Returns the position of the new entry.
    fn push(&mut self, at: u32) -> u32 {
        match self {
            List::One(first) => {
                *self = List::Many(vec![*first, at]);
                1
            }
            List::Many(list) => {
                list.push(at);
                (list.len() - 1) as u32
            }
        }
    }
    fn swap_remove(&mut self, place: u32) -> AfterRemoval {
        let List::Many(list) = self else { return AfterRemoval::Nobody };
        if place as usize >= list.len() {
            return AfterRemoval::Same;
        }
        list.swap_remove(place as usize);
        let moved = list.get(place as usize).copied();
        match list[..] {
            [last] => *self = List::One(last),
            _ => spare(list),
        }
        moved.map_or(AfterRemoval::Same, AfterRemoval::Moved)
    }
}

#[cfg(test)]
mod tests;
