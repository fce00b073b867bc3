//! Where rows stand in lists.
//!
//! * A place that its commit makes alone in its group is a key without a value. Several are a run, one value that holds them
//!   all: the engine copies a page for every row that it writes, however small, and that is what a commit costs.
//! * The numbers of a run lie in one span ([`SPAN_BITS`]), so who reads on from a number begins at its span, and holds no more
//!   than a span.
//! * Places never move: readers read keys one after the other, and would overlook what is put behind them meanwhile. A place that
//!   goes is taken out of its run where that stands, so a run's key says where it began and no more.
//! * A group is known by a digest, so any text may name one and keys stay short.

use super::daily::scope;
use super::engine::{Batch, Engine, EngineError};
use super::keys::{self, Kind, List};
use super::rows::{Rows, TooLong, check_tail};
use crate::ids::TenantId;

const VERSION: u8 = 1;
/// Bytes of a group's digest.
const GROUP: usize = 16;
/// Bytes before a place's id: list, digest, number.
pub(super) const BEFORE_ID: usize = 1 + GROUP + 8;
/// Numbers of a span, as a power of two: with numbers that are microseconds, about what a busy list gets in one commit. Part of the
/// format on disk: runs of another span need another version.
const SPAN_BITS: u32 = 12;
/// Most places of a run: bounds what is written anew when one of them goes.
const RUN: usize = 128;

/// Bytes of a place in a run besides its id: how far into the span, and how long the id is.
const IN_RUN: usize = 2 + 2;
const _: () = assert!(SPAN_BITS <= u16::BITS);
const _: () = assert!(RUN * (IN_RUN + keys::MAX_NAME) < super::pack::MAX_VALUE); // a byte is the version's

/// A group of a list: what one page is taken from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Group {
    list: List,
    digest: [u8; GROUP],
}

impl Group {
    /// The group of `list` that `parts` name.
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

/// Where a row stands: under `number`, and among equal numbers by its id.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// In which group.
    pub group: Group,
    /// Under what.
    pub number: u64,
}

/// A number and an id: what places are ordered by.
pub(super) type At = (u64, String);

/// The key tail of a place that stands alone, and of a run that begins with it.
fn tail(group: Group, number: u64, id: &str) -> Vec<u8> {
    [&group.prefix()[..], &number.to_be_bytes(), id.as_bytes()].concat()
}

/// The span of a number, and the first number of a span.
pub(super) const fn span_of(number: u64) -> u64 {
    number >> SPAN_BITS
}
pub(super) const fn start_of(span: u64) -> u64 {
    span << SPAN_BITS
}

/// The first number after the span of one; `None`: it is the last span.
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

/// Its number.
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
            value.extend_from_slice(&(short as u16).to_be_bytes()); // both are below 65,536: see the assertions above
        }
        value.extend_from_slice(id.as_bytes());
    }
    value
}

/// Adds the places of a run that `wanted` wants to `into`.
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

/// The first key tail after every one that begins with `prefix`.
pub(super) fn after(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![u8::MAX; keys::MAX_NAME] // only where a list's number and digest are all ones
}

impl Rows {
    /// Gives a row a place, where it has none.
    ///
    /// # Errors
    /// [`TooLong`]: an id that is empty or over 256 bytes.
    pub fn put_place(&mut self, tenant: TenantId, place: &Place, id: &str) -> Result<(), TooLong> {
        check_tail(Kind::Place, BEFORE_ID + id.len())?;
        self.place(tenant, place, id, true);
        Ok(())
    }
    /// Takes a row's place away.
    pub fn delete_place(&mut self, tenant: TenantId, place: &Place, id: &str) {
        self.place(tenant, place, id, false);
    }
}

/// What one commit does to places, gathered so that those of one group are written together.
#[derive(Default)]
pub(super) struct Sheet {
    /// As they were said; of several words on one place the last holds.
    notes: Vec<Note>,
}

struct Note {
    tenant: TenantId,
    group: Group,
    at: At,
    stands: bool,
    /// It was said more than once, so the place may stand already.
    again: bool,
}

impl Note {
    /// What places are gathered and put in order by.
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

    /// Puts everything that was noted into `batch`.
    pub(super) fn write(mut self, engine: &Engine, batch: &mut Batch) -> Result<(), EngineError> {
        self.notes.sort_by(|a, b| a.key().cmp(&b.key())); // stable: the last word stays the last
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

/// One group's places, as a commit writes them.
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

    /// Removes the places of `gone`, which are of one span and in order, alone and out of their runs.
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

    /// Puts places of one span. Where a run begins like this one that must not be replaced, each is put alone.
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
        let whole = [1, 1 + IN_RUN + 1, 1 + 2 * IN_RUN + 1 + 12]; // where a place ends
        for len in (0..value.len()).filter(|len| !whole.contains(len)) {
            assert!(decode(&key, &value[..len], |_, _| true, &mut Vec::new()).is_err(), "cut to {len}");
        }
        assert!(decode(&key[..keys::HEAD + 3], &value, |_, _| true, &mut Vec::new()).is_err());
    }
}
