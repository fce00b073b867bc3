//! The list index: entries that say where rows are in lists.
//!
//! * An entry that its commit writes alone in its group is a key without a value. Several entries are a run:
//!   one value that holds them all. The engine copies a page for every row that it writes, however small, and
//!   this is the main cost of a commit.
//! * The numbers of a run are in one span ([`SPAN_BITS`]). So a reader that continues from a number starts at
//!   its span, and holds no more than a span.
//! * Entries never move: readers read keys one after the other, and would miss an entry that moves behind
//!   them. A deleted entry is removed from its run under the same key, so a run's key only says where the run
//!   started.
//! * A group is identified by a digest, so any text may name one and keys stay short.

use super::daily::scope;
use super::engine::{Batch, Engine, EngineError};
use super::keys::{self, Kind, List};
use super::rows::{Rows, TooLong, check_tail};
use crate::ids::TenantId;

const VERSION: u8 = 1;
/// Bytes of a group's digest.
const GROUP: usize = 16;
/// Bytes before an entry's id: list, digest, number.
pub(super) const BEFORE_ID: usize = 1 + GROUP + 8;
/// Size of a span, as a power of two. Numbers are microseconds, so a span is about what a busy list gets in
/// one commit. This is part of the format on disk: runs with another span need another version.
const SPAN_BITS: u32 = 12;
/// Limit on the entries of a run. It bounds what is rewritten when one of them is removed.
const RUN: usize = 128;

/// Bytes of an entry in a run besides its id: the offset in the span, and the length of the id.
const IN_RUN: usize = 2 + 2;
const _: () = assert!(SPAN_BITS <= u16::BITS);
// One byte is for the version.
const _: () = assert!(RUN * (IN_RUN + keys::MAX_NAME) < super::pack::MAX_VALUE);

/// A group of a list: what one page is taken from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Group {
    list: List,
    digest: [u8; GROUP],
}

impl Group {
    /// The group of `list` that is named by `parts`.
    #[must_use]
    pub fn new(list: List, parts: &[&str]) -> Group {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        let mut digest = [0; GROUP];
        digest.copy_from_slice(&scope(&parts)[..GROUP]);
        Group { list, digest }
    }

    pub(super) fn prefix(self) -> Vec<u8> {
        [&[self.list as u8][..], &self.digest].concat()
    }
}

/// A list index entry without its id: entries of a group are ordered by `number`, and those with equal
/// numbers by id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The group.
    pub group: Group,
    /// The number that it is ordered by.
    pub number: u64,
}

/// A number and an id, which entries are ordered by.
pub(super) type At = (u64, String);

/// The key tail of a single entry, and of a run that starts with it.
fn tail(group: Group, number: u64, id: &str) -> Vec<u8> {
    [&group.prefix()[..], &number.to_be_bytes(), id.as_bytes()].concat()
}

/// The first number of the span of `number`.
pub(super) const fn span_of(number: u64) -> u64 {
    number >> SPAN_BITS
}
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
pub(super) fn at_of(key: &[u8]) -> Result<At, EngineError> {
    let (number, id) = parts(key)?;
    Ok((number, text(id)?.to_owned()))
}

/// The number of a key.
pub(super) fn number_of(key: &[u8]) -> Result<u64, EngineError> {
    Ok(parts(key)?.0)
}

fn encode<'a>(run: impl Iterator<Item = &'a At> + Clone) -> Vec<u8> {
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
pub(super) fn decode(
    key: &[u8],
    value: &[u8],
    wanted: impl Fn(u64, &str) -> bool,
    into: &mut Vec<At>,
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
    EngineError::Engine("a stored place is damaged".into())
}

/// The first key tail after all that start with `prefix`.
pub(super) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; keys::MAX_NAME] // only if a list's number and digest are all ones
}

impl Rows {
    /// Adds a list index entry for a row, if it does not exist.
    ///
    /// # Errors
    /// [`TooLong`] for an id that is empty or longer than 256 bytes.
    pub fn put_place(&mut self, tenant: TenantId, place: &Place, id: &str) -> Result<(), TooLong> {
        check_tail(Kind::Place, BEFORE_ID + id.len())?;
        self.place(tenant, place, id, true);
        Ok(())
    }
    /// Removes a row's list index entry.
    pub fn delete_place(&mut self, tenant: TenantId, place: &Place, id: &str) {
        self.place(tenant, place, id, false);
    }
}

/// The changes of list index entries in one commit, gathered so that those of one group are written together.
#[derive(Default)]
pub(super) struct Sheet {
    /// The changes in the order they were made; the last one for an entry applies.
    notes: Vec<Note>,
}

struct Note {
    tenant: TenantId,
    group: Group,
    at: At,
    stands: bool,
    /// The entry was changed more than once, so it may exist already.
    again: bool,
}

impl Note {
    /// The sort key of a change.
    fn key(&self) -> (TenantId, Group, &At) {
        (self.tenant, self.group, &self.at)
    }
}

impl Sheet {
    pub(super) fn is_empty(&self) -> bool {
        self.notes.is_empty()
    }

    pub(super) fn note(&mut self, tenant: TenantId, place: &Place, id: String, stands: bool) {
        self.notes.push(Note { tenant, group: place.group, at: (place.number, id), stands, again: false });
    }

    /// Writes all changes into `batch`.
    pub(super) fn write(mut self, engine: &Engine, batch: &mut Batch) -> Result<(), EngineError> {
        // The sort is stable: the last change stays the last.
        self.notes.sort_by(|a, b| a.key().cmp(&b.key()));
        self.notes.dedup_by(|later, kept| {
            let same = later.key() == kept.key();
            if same {
                (kept.stands, kept.again) = (later.stands, true);
            }
            same
        });
        let together =
            |a: &Note, b: &Note| (a.tenant, a.group, span_of(a.at.0)) == (b.tenant, b.group, span_of(b.at.0));
        for span in self.notes.chunk_by(together) {
            let whose = Whose { engine, tenant: span[0].tenant, group: span[0].group };
            let (stands, gone): (Vec<&Note>, Vec<&Note>) = span.iter().partition(|note| note.stands);
            whose.take(&gone, batch)?;
            for run in stands.chunks(RUN) {
                whose.put(run, batch)?;
            }
        }
        Ok(())
    }
}

/// The entries of one group, as a commit writes them.
struct Whose<'e> {
    engine: &'e Engine,
    tenant: TenantId,
    group: Group,
}

impl Whose<'_> {
    fn key(&self, kind: Kind, (number, id): &At) -> Vec<u8> {
        let mut key = Vec::with_capacity(keys::HEAD + BEFORE_ID + id.len());
        keys::begin(&mut key, kind, self.tenant);
        key.push(self.group.list as u8);
        key.extend_from_slice(&self.group.digest);
        key.extend_from_slice(&number.to_be_bytes());
        key.extend_from_slice(id.as_bytes());
        key
    }

    /// Removes the entries of `gone`, which are of one span and in order, both single ones and those in runs.
    fn take(&self, gone: &[&Note], batch: &mut Batch) -> Result<(), EngineError> {
        let Some(number) = gone.first().map(|note| note.at.0) else { return Ok(()) };
        for note in gone {
            batch.delete(&self.key(Kind::Place, &note.at));
        }
        let at = |number: u64| tail(self.group, number, "");
        let end = after_span(number).map_or_else(|| after(&self.group.prefix()), at);
        let key = |tail: &[u8]| keys::key(Kind::Run, self.tenant, tail);
        for row in self.engine.range(&key(&at(start_of(span_of(number)))), &key(&end)) {
            let (run, value) = row?;
            let mut left = Vec::new();
            decode(&run, &value, |_, _| true, &mut left)?;
            let stood = left.len();
            left.retain(|at| gone.binary_search_by(|note| note.at.cmp(at)).is_err());
            match left.len() {
                len if len == stood => {}
                0 => batch.delete(&run),
                _ => batch.put(run.to_vec(), encode(left.iter())),
            }
        }
        Ok(())
    }

    /// Adds entries of one span. If a run that must not be replaced starts with the same entry, each entry is
    /// written alone.
    fn put(&self, run: &[&Note], batch: &mut Batch) -> Result<(), EngineError> {
        if let [first, _, ..] = run {
            let key = self.key(Kind::Run, &first.at);
            if self.engine.get(&key)?.is_none() {
                batch.put_new(key, encode(run.iter().map(|note| &note.at)));
                return Ok(());
            }
        }
        for note in run {
            let key = self.key(Kind::Place, &note.at);
            match note.again {
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

    #[test]
    fn a_run_comes_back_and_nothing_cut_is_one() {
        let group = Group::new(List::AllMessages, &["a"]);
        let run: Vec<At> = [(start_of(7), "x"), (start_of(7) + 5, "a longer one"), (start_of(8) - 1, "")]
            .map(|(n, id)| (n, id.to_owned()))
            .into();
        let key = keys::key(Kind::Run, TenantId(3), &tail(group, run[0].0, &run[0].1));
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
