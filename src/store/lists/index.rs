//! The list index: entries that say where rows are in lists.
//!
//! * An entry that its commit writes alone in its group is a key whose value is the version byte alone.
//!   Several entries are a run: one value that holds them all. The engine copies a page for every row that it
//!   writes, however small, and this is the main cost of a commit.
//! * The numbers of a run are in one span ([`SPAN_BITS`]). So a reader that continues from a number starts at
//!   its span, and holds no more than a span.
//! * Entries never move: readers read keys one after the other, and would miss an entry that moves behind
//!   them. A deleted entry is removed from its run under the same key, so a run's key only says where the run
//!   started.

use crate::ids::TenantId;
use crate::store::engine::{Batch, Engine, EngineError};
use crate::store::format::keys::{self, KeyKind, end_of_prefix};
use crate::store::format::{BEFORE_ID, EntryKey, GROUP, Group, ListEntry};
use crate::store::rows::{Rows, TooLong, check_tail};

const VERSION: u8 = 1;
/// Size of a span, as a power of two. Numbers are microseconds, so a span is about what a busy list gets in
/// one commit. This is part of the format on disk: runs with another span need another version.
const SPAN_BITS: u32 = 12;
/// Limit on the entries of a run. It bounds what is rewritten when one of them is removed.
const RUN: usize = 128;

/// Bytes of an entry in a run besides its id: the offset in the span, and the length of the id.
const IN_RUN: usize = 2 + 2;
const _: () = assert!(SPAN_BITS <= u16::BITS);
// One byte is for the version.
const _: () = assert!(RUN * (IN_RUN + keys::MAX_NAME) < crate::store::format::piece::MAX_VALUE);

/// The key tail of a single entry, and of a run that starts with it.
fn tail(group: Group, number: u64, id: &str) -> Vec<u8> {
    [&group.prefix()[..], &number.to_be_bytes(), id.as_bytes()].concat()
}

/// The number of the span that holds `number`.
pub(super) const fn span_of(number: u64) -> u64 {
    number >> SPAN_BITS
}
/// The first number of a span.
pub(super) const fn start_of(span: u64) -> u64 {
    span << SPAN_BITS
}

/// The first number after the span of `number`; `None` if it is the last span.
pub(super) fn after_span(number: u64) -> Option<u64> {
    start_of(span_of(number)).checked_add(1 << SPAN_BITS)
}

fn parts(key: &[u8]) -> Result<(u64, &[u8]), EngineError> {
    let tail = key.get(keys::HEAD + 1 + GROUP..).and_then(|tail| tail.split_first_chunk());
    tail.map(|(number, id)| (u64::from_be_bytes(*number), id)).ok_or_else(damaged)
}

/// Number and id of a key.
pub(super) fn entry_of(key: &[u8]) -> Result<EntryKey, EngineError> {
    let (number, id) = parts(key)?;
    Ok((number, text(id)?.to_owned()))
}

/// The number of a key.
pub(super) fn number_of(key: &[u8]) -> Result<u64, EngineError> {
    Ok(parts(key)?.0)
}

fn encode<'a>(run: impl Iterator<Item = &'a EntryKey> + Clone) -> Vec<u8> {
    let ids: usize = run.clone().map(|(_, id)| IN_RUN + id.len()).sum();
    let mut value = Vec::with_capacity(1 + ids);
    value.push(VERSION);
    for (number, id) in run {
        let offset = number - start_of(span_of(*number));
        for short in [offset as usize, id.len()] {
            // Both are below 65,536: see the assertions above.
            value.extend_from_slice(&(short as u16).to_be_bytes());
        }
        value.extend_from_slice(id.as_bytes());
    }
    value
}

/// Adds the entries of a run that `wanted` accepts to `into`.
pub(crate) fn decode(
    key: &[u8],
    value: &[u8],
    wanted: impl Fn(u64, &str) -> bool,
    into: &mut Vec<EntryKey>,
) -> Result<(), EngineError> {
    let start = start_of(span_of(number_of(key)?));
    let mut rest = value.strip_prefix(&[VERSION]).ok_or_else(damaged)?;
    while !rest.is_empty() {
        let (&[a, b, c, d], after) = rest.split_first_chunk().ok_or_else(damaged)?;
        let id = usize::from(u16::from_be_bytes([c, d]));
        let (id, after) = after.split_at_checked(id).ok_or_else(damaged)?;
        let (number, id) = (start + u64::from(u16::from_be_bytes([a, b])), text(id)?);
        if wanted(number, id) {
            into.push((number, id.to_owned()));
        }
        rest = after;
    }
    Ok(())
}

fn text(id: &[u8]) -> Result<&str, EngineError> {
    std::str::from_utf8(id).map_err(|_| damaged())
}

fn damaged() -> EngineError {
    EngineError::Engine("a stored list entry is damaged".into())
}

impl Rows {
    /// Adds a list index entry for a row, if it does not exist.
    ///
    /// # Errors
    /// [`TooLong`] for an id that is empty or longer than 256 bytes.
    pub fn put_list_entry(&mut self, tenant: TenantId, entry: &ListEntry, id: &str) -> Result<(), TooLong> {
        check_tail(KeyKind::ListEntry, BEFORE_ID + id.len())?;
        self.list_entry(tenant, entry, id, true);
        Ok(())
    }
    /// Removes a row's list index entry.
    pub fn delete_list_entry(&mut self, tenant: TenantId, entry: &ListEntry, id: &str) {
        self.list_entry(tenant, entry, id, false);
    }
    /// Moves a row from the lists `before` to the lists `after`. Entries of lists that are in both stay.
    ///
    /// # Errors
    /// [`TooLong`], as for [`Rows::put_list_entry`].
    pub fn change_list_entries(
        &mut self,
        tenant: TenantId,
        id: &str,
        number: u64,
        before: &[Group],
        after: &[Group],
    ) -> Result<(), TooLong> {
        for &group in before.iter().filter(|group| !after.contains(group)) {
            self.delete_list_entry(tenant, &ListEntry { group, number }, id);
        }
        for &group in after.iter().filter(|group| !before.contains(group)) {
            self.put_list_entry(tenant, &ListEntry { group, number }, id)?;
        }
        Ok(())
    }
    /// Removes a row from lists.
    pub fn delete_list_entries(&mut self, tenant: TenantId, id: &str, number: u64, groups: &[Group]) {
        for &group in groups {
            self.delete_list_entry(tenant, &ListEntry { group, number }, id);
        }
    }
}

/// The changes of list index entries in one commit, gathered so that those of one group are written together.
#[derive(Default)]
pub(crate) struct IndexWrites {
    /// The changes in the order they were made; the last one for an entry applies.
    writes: Vec<IndexWrite>,
}

struct IndexWrite {
    tenant: TenantId,
    group: Group,
    entry: EntryKey,
    is_present: bool,
    /// The entry was changed more than once, so it may exist already.
    is_repeated: bool,
}

impl IndexWrite {
    /// The sort key of a change.
    fn key(&self) -> (TenantId, Group, &EntryKey) {
        (self.tenant, self.group, &self.entry)
    }
}

impl IndexWrites {
    pub(crate) fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(crate) fn add(&mut self, tenant: TenantId, entry: &ListEntry, id: String, is_present: bool) {
        self.writes.push(IndexWrite {
            tenant,
            group: entry.group,
            entry: (entry.number, id),
            is_present,
            is_repeated: false,
        });
    }

    /// Writes all changes into `batch`.
    pub(crate) fn write(mut self, engine: &Engine, batch: &mut Batch) -> Result<(), EngineError> {
        // The sort is stable: the last change stays the last.
        self.writes.sort_by(|a, b| a.key().cmp(&b.key()));
        self.writes.dedup_by(|later, kept| {
            let same = later.key() == kept.key();
            if same {
                (kept.is_present, kept.is_repeated) = (later.is_present, true);
            }
            same
        });
        let together = |a: &IndexWrite, b: &IndexWrite| {
            (a.tenant, a.group, span_of(a.entry.0)) == (b.tenant, b.group, span_of(b.entry.0))
        };
        for span in self.writes.chunk_by(together) {
            let group = GroupWriter { engine, tenant: span[0].tenant, group: span[0].group };
            let (present, removed): (Vec<&IndexWrite>, Vec<&IndexWrite>) =
                span.iter().partition(|write| write.is_present);
            group.remove(&removed, batch)?;
            for run in present.chunks(RUN) {
                group.put(run, batch)?;
            }
        }
        Ok(())
    }
}

/// The entries of one group, as a commit writes them.
struct GroupWriter<'e> {
    engine: &'e Engine,
    tenant: TenantId,
    group: Group,
}

impl GroupWriter<'_> {
    fn key(&self, kind: KeyKind, (number, id): &EntryKey) -> Vec<u8> {
        let mut key = Vec::with_capacity(keys::HEAD + BEFORE_ID + id.len());
        keys::begin(&mut key, kind, self.tenant);
        key.push(self.group.list as u8);
        key.extend_from_slice(&self.group.digest);
        key.extend_from_slice(&number.to_be_bytes());
        key.extend_from_slice(id.as_bytes());
        key
    }

    /// Removes the entries of `removed`, which are of one span and in order, both single ones and those in runs.
    fn remove(&self, removed: &[&IndexWrite], batch: &mut Batch) -> Result<(), EngineError> {
        let Some(number) = removed.first().map(|write| write.entry.0) else { return Ok(()) };
        for write in removed {
            batch.delete(&self.key(KeyKind::ListEntry, &write.entry));
        }
        let at = |number: u64| tail(self.group, number, "");
        let end = after_span(number).map_or_else(|| end_of_prefix(&self.group.prefix()), at);
        let key = |tail: &[u8]| keys::key(KeyKind::ListRun, self.tenant, tail);
        for row in self.engine.range(&key(&at(start_of(span_of(number)))), &key(&end)) {
            let (run, value) = row?;
            let mut left = Vec::new();
            decode(&run, &value, |_, _| true, &mut left)?;
            let before = left.len();
            left.retain(|at| removed.binary_search_by(|write| write.entry.cmp(at)).is_err());
            match left.len() {
                len if len == before => {}
                0 => batch.delete(&run),
                _ => batch.put(run.to_vec(), encode(left.iter())),
            }
        }
        Ok(())
    }

    /// Adds entries of one span. If a run that must not be replaced starts with the same entry, each entry is
    /// written alone.
    fn put(&self, run: &[&IndexWrite], batch: &mut Batch) -> Result<(), EngineError> {
        if let [first, _, ..] = run {
            let key = self.key(KeyKind::ListRun, &first.entry);
            if self.engine.get(&key)?.is_none() {
                batch.put_new(key, encode(run.iter().map(|write| &write.entry)));
                return Ok(());
            }
        }
        for write in run {
            let key = self.key(KeyKind::ListEntry, &write.entry);
            match write.is_repeated {
                true => batch.put(key, vec![VERSION]),
                false => batch.put_new(key, vec![VERSION]),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::format::keys::List;

    #[test]
    fn a_run_round_trips_and_refuses_cut_bytes() {
        let group = Group::new(List::AllMessages, &["a"]);
        let run: Vec<EntryKey> =
            [(start_of(7), "x"), (start_of(7) + 5, "a longer one"), (start_of(8) - 1, "")]
                .map(|(n, id)| (n, id.to_owned()))
                .into();
        let key = keys::key(KeyKind::ListRun, TenantId(3), &tail(group, run[0].0, &run[0].1));
        let value = encode(run.iter());
        let mut back = Vec::new();
        decode(&key, &value, |_, _| true, &mut back).expect("sound");
        assert_eq!(back, run);
        back.clear();
        decode(&key, &value, |number, id| number > start_of(7) && !id.is_empty(), &mut back).expect("sound");
        assert_eq!(back, run[1..2]);
        let whole = [1, 1 + IN_RUN + 1, 1 + 2 * IN_RUN + 1 + 12]; // where an entry ends
        for len in (0..value.len()).filter(|len| !whole.contains(len)) {
            assert!(decode(&key, &value[..len], |_, _| true, &mut Vec::new()).is_err(), "cut to {len}");
        }
        assert!(decode(&key[..keys::HEAD + 3], &value, |_, _| true, &mut Vec::new()).is_err());
    }
}
