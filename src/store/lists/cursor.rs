//! List iterators: entries of lists in order, and those of several groups merged.
//!
//! * An iterator (`ListCursor`) is before its next entry and has one direction. It seeks ahead when another
//!   iterator is further.
//! * Nothing is a snapshot: an entry that is added or removed meanwhile may or may not be found. No other
//!   entry is missed, because entries never move.

use std::collections::VecDeque;
use std::ops::Bound;

use super::index::{self, after_span, entry_of, number_of, span_of, start_of};
use crate::ids::TenantId;
use crate::store::engine::{Engine, EngineError, Value};
use crate::store::format::keys::{self, KeyKind, end_of_prefix};
use crate::store::format::{EntryKey, Group};

/// The lists to read, and the direction.
#[derive(Clone, Copy)]
pub(crate) struct ListReader<'e> {
    pub(crate) engine: &'e Engine,
    pub(crate) tenant: TenantId,
    /// Whether the highest numbers come first.
    pub(super) descending: bool,
}

impl<'e> ListReader<'e> {
    /// The entries of any of `groups`.
    pub(super) fn merged_cursor(
        &self,
        groups: &[Group],
        from: Bound<&EntryKey>,
    ) -> Result<MergedCursor<'e>, EngineError> {
        let mut cursors: Vec<Box<dyn ListCursor + 'e>> = Vec::with_capacity(2 * groups.len());
        for &group in groups {
            cursors.push(Box::new(EntryCursor::new(*self, group, from)?));
            cursors.push(Box::new(RunCursor::new(*self, group, from)?));
        }
        Ok(MergedCursor { reader: *self, cursors })
    }

    pub(super) fn is_before(&self, a: &EntryKey, b: &EntryKey) -> bool {
        if self.descending { a > b } else { a < b }
    }

    /// Returns true if an entry is within the part of the list that starts at `from`, in this direction.
    fn is_within(&self, from: &Bound<EntryKey>, number: u64, id: &str) -> bool {
        let order = |(from_number, from_id): &EntryKey| {
            let order = (number, id).cmp(&(*from_number, from_id));
            if self.descending { order.reverse() } else { order }
        };
        match from {
            Bound::Unbounded => true,
            Bound::Included(from) => order(from).is_ge(),
            Bound::Excluded(from) => order(from).is_gt(),
        }
    }

    /// The rows of `kind` in `group`, in this direction. `from` bounds what follows the group in their key
    /// tails.
    fn rows(&self, kind: KeyKind, group: Group, from: Bound<Vec<u8>>) -> RowIter {
        let prefix = group.prefix();
        let key = |tail: &[u8]| keys::key(kind, self.tenant, tail);
        let at = from.map(|tail| key(&[&prefix[..], &tail].concat()));
        let (first, end) = (Bound::Included(key(&prefix)), Bound::Excluded(key(&end_of_prefix(&prefix))));
        match (at, self.descending) {
            (Bound::Unbounded, true) => Box::new(self.engine.between((first, end)).rev()),
            (Bound::Unbounded, false) => Box::new(self.engine.between((first, end))),
            (at, true) => Box::new(self.engine.between((first, at)).rev()),
            (at, false) => Box::new(self.engine.between((at, end))),
        }
    }
}

/// Keys and values, in an iterator's direction.
type RowIter = Box<dyn Iterator<Item = Result<(Value, Value), EngineError>>>;

/// Iterates over entries in order.
pub(crate) trait ListCursor {
    /// The next entry.
    fn head(&self) -> Option<&EntryKey>;
    /// Moves past the next entry.
    fn pop(&mut self) -> Result<(), EngineError>;
    /// Moves past all entries before `at`. Returns true if it had to start a new read there.
    fn seek(&mut self, at: &EntryKey) -> Result<bool, EngineError>;
}

/// The single entries of a group.
struct EntryCursor<'e> {
    reader: ListReader<'e>,
    group: Group,
    head: Option<EntryKey>,
    rest: RowIter,
}

impl<'e> EntryCursor<'e> {
    fn new(
        reader: ListReader<'e>,
        group: Group,
        from: Bound<&EntryKey>,
    ) -> Result<EntryCursor<'e>, EngineError> {
        let from = from.map(|(number, id)| [&number.to_be_bytes()[..], id.as_bytes()].concat());
        let mut cursor =
            EntryCursor { reader, group, head: None, rest: reader.rows(KeyKind::ListEntry, group, from) };
        cursor.pop()?;
        Ok(cursor)
    }

    fn is_behind(&self, at: &EntryKey) -> bool {
        self.head().is_some_and(|head| self.reader.is_before(head, at))
    }
}

impl ListCursor for EntryCursor<'_> {
    fn head(&self) -> Option<&EntryKey> {
        self.head.as_ref()
    }

    fn pop(&mut self) -> Result<(), EngineError> {
        let next = self.rest.next().transpose()?;
        self.head = next.map(|(key, _)| entry_of(&key)).transpose()?;
        Ok(())
    }

    fn seek(&mut self, at: &EntryKey) -> Result<bool, EngineError> {
        if self.is_behind(at) {
            self.pop()?; // `at` may be the next entry
        }
        if !self.is_behind(at) {
            return Ok(false);
        }
        *self = EntryCursor::new(self.reader, self.group, Bound::Included(at))?;
        Ok(true)
    }
}

/// The entries of a group that are in runs, a span at a time, because runs of one span overlap.
struct RunCursor<'e> {
    reader: ListReader<'e>,
    group: Group,
    from: Bound<EntryKey>,
    span: VecDeque<EntryKey>,
    /// The first run after the span.
    next: Option<(Value, Value)>,
    rest: RowIter,
}

impl<'e> RunCursor<'e> {
    fn new(
        reader: ListReader<'e>,
        group: Group,
        from: Bound<&EntryKey>,
    ) -> Result<RunCursor<'e>, EngineError> {
        let key = |number: u64| number.to_be_bytes().to_vec();
        let edge = match from {
            Bound::Unbounded => Bound::Unbounded,
            Bound::Included((number, _)) | Bound::Excluded((number, _)) => match reader.descending {
                true => after_span(*number).map_or(Bound::Unbounded, |end| Bound::Excluded(key(end))),
                false => Bound::Included(key(start_of(span_of(*number)))),
            },
        };
        let mut rest = reader.rows(KeyKind::ListRun, group, edge);
        let next = rest.next().transpose()?;
        let mut cursor = RunCursor { reader, group, from: from.cloned(), span: VecDeque::new(), next, rest };
        cursor.fill()?;
        Ok(cursor)
    }

    /// Reads the next span that has entries, if none is loaded.
    fn fill(&mut self) -> Result<(), EngineError> {
        while self.span.is_empty()
            && let Some((key, value)) = self.next.take()
        {
            let mut entries = Vec::new();
            let wanted = |number, id: &str| self.reader.is_within(&self.from, number, id);
            let span = span_of(number_of(&key)?);
            index::decode(&key, &value, wanted, &mut entries)?;
            while let Some((key, value)) = self.rest.next().transpose()? {
                if span_of(number_of(&key)?) != span {
                    self.next = Some((key, value));
                    break;
                }
                index::decode(&key, &value, wanted, &mut entries)?;
            }
            entries.sort_unstable();
            entries.dedup();
            if self.reader.descending {
                entries.reverse();
            }
            self.span = entries.into();
        }
        Ok(())
    }
}

impl ListCursor for RunCursor<'_> {
    fn head(&self) -> Option<&EntryKey> {
        self.span.front()
    }

    fn pop(&mut self) -> Result<(), EngineError> {
        self.span.pop_front();
        self.fill()
    }

    fn seek(&mut self, at: &EntryKey) -> Result<bool, EngineError> {
        if self.span.back().is_some_and(|last| self.reader.is_before(last, at)) {
            let Some((key, _)) = &self.next else {
                self.span.clear();
                return Ok(false);
            };
            let (next, target) = (span_of(number_of(key)?), span_of(at.0));
            let is_behind = if self.reader.descending { next > target } else { next < target };
            if is_behind {
                *self = RunCursor::new(self.reader, self.group, Bound::Included(at))?;
                return Ok(true);
            }
            self.span.clear();
            self.fill()?;
        }
        let passed = self.span.partition_point(|entry| self.reader.is_before(entry, at));
        self.span.drain(..passed);
        self.fill()?;
        Ok(false)
    }
}

/// Merges several iterators. An entry that is in more than one of them is returned once.
pub(crate) struct MergedCursor<'e> {
    reader: ListReader<'e>,
    cursors: Vec<Box<dyn ListCursor + 'e>>,
}

impl ListCursor for MergedCursor<'_> {
    fn head(&self) -> Option<&EntryKey> {
        let heads = self.cursors.iter().filter_map(|cursor| cursor.head());
        heads.reduce(|a, b| if self.reader.is_before(b, a) { b } else { a })
    }

    fn pop(&mut self) -> Result<(), EngineError> {
        let Some(head) = self.head().cloned() else { return Ok(()) };
        for cursor in self.cursors.iter_mut().filter(|cursor| cursor.head() == Some(&head)) {
            cursor.pop()?;
        }
        Ok(())
    }

    fn seek(&mut self, at: &EntryKey) -> Result<bool, EngineError> {
        self.cursors.iter_mut().try_fold(false, |anew, cursor| Ok(cursor.seek(at)? || anew))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::store::disk::Disk;
    use crate::store::engine::{Batch, EngineOptions};
    use crate::store::format::ListEntry;
    use crate::store::format::keys::List;
    use crate::store::lists::index::IndexWrites;
    use crate::store::lists::page::GroupSelector;

    const TENANT: TenantId = TenantId(3);
    const GROUPS: usize = 3;

    fn group(which: usize) -> Group {
        Group::new(List::AllMemories, &[&which.to_string()])
    }

    /// A model of list entries, beside the stored ones.
    struct Lists {
        engine: Engine,
        model: [BTreeSet<EntryKey>; GROUPS],
        _dir: tempfile::TempDir,
    }

    impl Lists {
        fn new() -> Lists {
            let dir = tempfile::tempdir().expect("a directory");
            let options = EngineOptions { fsync: false, ..EngineOptions::new(dir.path(), Arc::new(Disk)) };
            let engine = Engine::open(&options).expect("opened");
            Lists { engine, model: Default::default(), _dir: dir }
        }

        /// One commit: in each given group, an existing entry is removed and a missing one is added.
        fn commit(&mut self, changes: &[(usize, EntryKey)]) {
            let mut writes = IndexWrites::default();
            for (which, at) in changes {
                let is_in = self.model[*which].insert(at.clone());
                if !is_in {
                    self.model[*which].remove(at);
                }
                let place = ListEntry { group: group(*which), number: at.0 };
                writes.add(TENANT, &place, at.1.clone(), is_in);
            }
            let mut batch = Batch::default();
            writes.write(&self.engine, &mut batch).expect("gathered");
            self.engine.commit(batch).expect("committed");
        }

        fn reader(&self, descending: bool) -> ListReader<'_> {
            ListReader { engine: &self.engine, tenant: TENANT, descending }
        }

        fn page(
            &self,
            of: &GroupSelector,
            after: Option<&EntryKey>,
            descending: bool,
            most: usize,
        ) -> Vec<EntryKey> {
            let is_in = |at: &EntryKey, groups: &[Group]| {
                let is_there = |target: &Group| {
                    (0..GROUPS).any(|which| group(which) == *target && self.model[which].contains(at))
                };
                Ok(groups.iter().all(is_there))
            };
            // The page is read in stretches, like one that takes long.
            let (mut found, mut after) = (Vec::new(), after.cloned());
            for looks in (1..4).cycle() {
                let left = most - found.len();
                let read =
                    self.reader(descending).page(of, after.as_ref(), (left, looks), is_in).expect("read");
                found.extend(read.entries);
                after = read.goes_on_after;
                if after.is_none() {
                    break;
                }
            }
            found
        }

        fn runs(&self) -> usize {
            self.engine.range(&[KeyKind::ListRun as u8], &[KeyKind::ListRun as u8 + 1]).count()
        }

        fn single_entries(&self) -> usize {
            self.engine.range(&[KeyKind::ListEntry as u8], &[KeyKind::ListEntry as u8 + 1]).count()
        }
    }

    fn at(number: u64) -> EntryKey {
        (number, format!("id-{number}"))
    }

    #[test]
    fn entries_of_one_commit_and_group_are_one_run() {
        let mut lists = Lists::new();
        lists.commit(&[(0, at(1)), (0, at(2)), (0, at(3)), (1, at(1))]);
        assert_eq!((lists.runs(), lists.single_entries()), (1, 1));
        lists.commit(&[(0, at(start_of(1))), (0, at(start_of(2)))]);
        assert_eq!((lists.runs(), lists.single_entries()), (1, 3), "a run does not cross spans");
        lists.commit(&[(0, at(2))]);
        assert_eq!((lists.runs(), lists.single_entries()), (1, 3));
        lists.commit(&[(0, at(1))]);
        assert_eq!((lists.runs(), lists.single_entries()), (1, 3), "the rest of a run keeps its key");
        let all = lists.page(&group(0).into(), None, false, 9);
        assert_eq!(all, [at(3), at(start_of(1)), at(start_of(2))]);
        lists.commit(&[(0, at(3))]);
        assert_eq!((lists.runs(), lists.single_entries()), (0, 3));
    }

    /// A reader that has passed the single entries of a span, but not its runs, still finds what is left of
    /// the runs.
    #[test]
    fn an_entry_is_found_while_its_neighbours_are_removed() {
        for descending in [false, true] {
            let mut lists = Lists::new();
            lists.commit(&[(0, at(10)), (0, at(11))]);
            lists.commit(&[(0, at(20)), (0, at(21)), (0, at(22))]);
            let (engine, tenant) = (&lists.engine, TENANT);
            let reader = ListReader { engine, tenant, descending };
            let mut cursor = reader.merged_cursor(&[group(0)], Bound::Unbounded).expect("begun");
            for gone in [10, 21, 20] {
                let mut writes = IndexWrites::default();
                writes.add(TENANT, &ListEntry { group: group(0), number: gone }, at(gone).1, false);
                let mut batch = Batch::default();
                writes.write(engine, &mut batch).expect("gathered");
                engine.commit(batch).expect("committed");
            }
            let mut found = Vec::new();
            while let Some(head) = cursor.head().cloned() {
                found.push(head);
                cursor.pop().expect("read");
            }
            assert!(found.contains(&at(11)) && found.contains(&at(22)), "{found:?}");
        }
    }

    /// No caller adds an existing entry again. If one did, it must not remove other entries.
    #[test]
    fn an_entry_put_twice_is_removed_alone() {
        let mut lists = Lists::new();
        lists.commit(&[(0, at(1)), (0, at(2))]);
        lists.model[0].remove(&at(1));
        lists.commit(&[(0, at(1)), (0, at(3))]);
        let all = || lists.page(&group(0).into(), None, true, 9);
        assert_eq!(all(), [at(3), at(2), at(1)]);
        lists.commit(&[(0, at(1))]);
        assert_eq!(lists.page(&group(0).into(), None, true, 9), [at(3), at(2)]);
    }

    /// What an intersection reads depends on the smaller list, whichever leads.
    #[test]
    fn an_intersection_of_few_and_many_reads_few() {
        const MANY: u64 = 2_000;
        const FEW: u64 = 5;
        let mut lists = Lists::new();
        let many: Vec<_> = (0..MANY).map(|n| (0, at(n << 8))).collect();
        many.chunks(100).for_each(|commit| lists.commit(commit));
        let few: Vec<_> = (0..FEW).map(|n| (1, at(((MANY / FEW * n) << 8) + 1))).collect();
        lists.commit(&few);
        lists.commit(&[(1, at((MANY - 1) << 8))]);
        for (groups, descending) in [([0, 1], false), ([1, 0], false), ([0, 1], true), ([1, 0], true)] {
            let looked = std::cell::Cell::new(0);
            let is_in = |at: &EntryKey, _: &[Group]| {
                looked.set(looked.get() + 1);
                Ok(groups.iter().all(|which| lists.model[*which].contains(at)))
            };
            let of = GroupSelector::All(groups.map(group).into());
            let found = lists.reader(descending).page(&of, None, (9, usize::MAX), is_in).expect("read");
            assert_eq!(found.entries, [at((MANY - 1) << 8)]);
            assert!(looked.get() <= 8 * (FEW + 2), "{} rows for {groups:?}", looked.get());
        }
    }

    #[test]
    fn the_lowest_and_highest_numbers_are_listed() {
        let mut lists = Lists::new();
        lists.commit(&[(0, at(0)), (0, at(1)), (0, at(u64::MAX)), (0, at(u64::MAX - 1))]);
        let ends = [at(0), at(1), at(u64::MAX - 1), at(u64::MAX)];
        assert_eq!(lists.page(&group(0).into(), None, false, 9), ends);
        assert_eq!(lists.page(&group(0).into(), Some(&ends[2]), true, 9), [at(1), at(0)]);
        lists.commit(&[(0, at(u64::MAX))]);
        assert_eq!(lists.page(&group(0).into(), None, false, 9), ends[..3]);
    }

    prop_compose! {
        /// Numbers of a few spans, some of them at a span's edges, with few ids, so that equal numbers occur.
        fn any_at()(span in 0u64..3, offset in prop_oneof![0u64..6, start_of(1) - 3..start_of(1)], id in 0..3) -> EntryKey {
            (start_of(span) + offset, format!("id-{id}"))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn pages_equal_those_of_a_sorted_set(
            commits in prop::collection::vec(prop::collection::vec((0..GROUPS, any_at()), 1..24), 1..8),
            pages in prop::collection::vec((1usize..8, any::<bool>(), any::<bool>(), prop::option::of(any_at()), 0usize..9), 24),
        ) {
            let mut lists = Lists::new();
            for commit in &commits {
                lists.commit(commit);
            }
            for (groups, all, descending, after, most) in pages {
                let chosen: Vec<usize> = (0..GROUPS).filter(|which| groups & (1 << which) != 0).collect();
                let sets = chosen.iter().map(|which| lists.model[*which].clone());
                let met = if all { sets.reduce(|a, b| &a & &b) } else { sets.reduce(|a, b| &a | &b) };
                let mut met: Vec<EntryKey> = met.expect("one at least").into_iter().collect();
                if descending {
                    met.reverse();
                }
                let within = |at: &EntryKey| after.as_ref().is_none_or(|after| lists.reader(descending).is_before(after, at));
                let expected: Vec<EntryKey> = met.into_iter().filter(within).take(most).collect();
                let target: Vec<Group> = chosen.into_iter().map(group).collect();
                let of = if all { GroupSelector::All(target) } else { GroupSelector::Any(target) };
                prop_assert_eq!(lists.page(&of, after.as_ref(), descending, most), expected);
            }
        }
    }
}
