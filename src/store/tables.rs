//! What organizations keep besides events: rows in tables, and the orders they are listed in.
//!
//! * A row is bytes under (tenant, table, id). A place says that a row stands under a number in a group of a list; it has no
//!   value, so a page is one short range of keys and a look-up for each.
//! * Rows and places are written by whoever changes them, in the commit of the change: nothing here keeps them in step.
//! * A group is known by a digest, so any text may name one and keys stay short.

use std::ops::Bound;

use super::Store;
use super::daily::scope;
use super::engine::{Engine, EngineError, Value};
use super::keys::{self, Kind};
use super::read::ReadError;
use super::rows::{Rows, TooLong};
use crate::ids::TenantId;

const VERSION: u8 = 1;
/// Bytes of a group's digest.
const GROUP: usize = 16;

/// A table, by its number on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Table(pub u8);

/// A group of a list: what one page is taken from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    list: u8,
    digest: [u8; GROUP],
}

impl Group {
    /// The group of `list` (by its number on disk) that `parts` name.
    #[must_use]
    pub fn new(list: u8, parts: &[&str]) -> Group {
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        let mut digest = [0; GROUP];
        digest.copy_from_slice(&scope(&parts)[..GROUP]);
        Group { list, digest }
    }

    pub(super) fn prefix(self) -> Vec<u8> {
        [&[self.list][..], &self.digest].concat()
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

/// Which groups a page is of.
#[derive(Clone, Debug)]
pub enum Of {
    /// Rows in any of them, each once.
    Any(Vec<Group>),
    /// Rows in all of them.
    All(Vec<Group>),
}

impl From<Group> for Of {
    fn from(group: Group) -> Of {
        Of::All(vec![group])
    }
}

/// Which part of a list is asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Of what.
    pub of: Of,
    /// Only what comes after this number and id in the order asked for.
    pub after: Option<(u64, String)>,
    /// Highest numbers first.
    pub descending: bool,
    /// How many are passed over.
    pub skip: usize,
    /// How many at most.
    pub limit: usize,
}

/// A row of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// Where it stands.
    pub number: u64,
    /// Its id.
    pub id: String,
    /// What it holds.
    pub row: Vec<u8>,
}

fn row_key(table: Table, id: &str) -> Vec<u8> {
    [&[table.0][..], id.as_bytes()].concat()
}

fn place_key(place: &Place, id: &str) -> Vec<u8> {
    [&place.group.prefix()[..], &place.number.to_be_bytes(), id.as_bytes()].concat()
}

impl Rows {
    /// Creates or replaces a row.
    ///
    /// # Errors
    /// [`TooLong`]: over 72 KiB, or an id that is empty or over 256 bytes.
    pub fn put_row(&mut self, tenant: TenantId, table: Table, id: &str, row: &[u8]) -> Result<(), TooLong> {
        self.put(Kind::Row, tenant, &row_key(table, id), [&[VERSION], row].concat())
    }
    /// Removes a row.
    pub fn delete_row(&mut self, tenant: TenantId, table: Table, id: &str) {
        self.delete(Kind::Row, tenant, &row_key(table, id));
    }
    /// Gives a row a place.
    ///
    /// # Errors
    /// [`TooLong`]: an id that is empty or over 256 bytes.
    pub fn put_place(&mut self, tenant: TenantId, place: &Place, id: &str) -> Result<(), TooLong> {
        self.put(Kind::Place, tenant, &place_key(place, id), vec![VERSION])
    }
    /// Takes a row's place away.
    pub fn delete_place(&mut self, tenant: TenantId, place: &Place, id: &str) {
        self.delete(Kind::Place, tenant, &place_key(place, id));
    }
}

impl Store {
    /// A row, `None` if there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn row(&self, tenant: TenantId, table: Table, id: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let tail = row_key(table, id);
        self.run(tenant, move |engine| get(engine, tenant, &tail)).await
    }

    /// Rows by their ids, in that order; `None` where there is none.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn rows(
        &self,
        tenant: TenantId,
        table: Table,
        ids: Vec<String>,
    ) -> Result<Vec<Option<Vec<u8>>>, ReadError> {
        let read =
            move |engine: &Engine| ids.iter().map(|id| get(engine, tenant, &row_key(table, id))).collect();
        self.run(tenant, read).await
    }

    /// A page of a group, with the rows of `table` that stand there.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn page(&self, tenant: TenantId, table: Table, asked: Asked) -> Result<Vec<Listed>, ReadError> {
        self.run(tenant, move |engine| page(engine, tenant, table, &asked)).await
    }
}

fn get(engine: &Engine, tenant: TenantId, tail: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
    let Some(value) = engine.get(&keys::key(Kind::Row, tenant, tail))? else { return Ok(None) };
    match value.strip_prefix(&[VERSION]) {
        Some(row) => Ok(Some(row.to_vec())),
        None => Err(EngineError::Engine("a stored row is of another version".into())),
    }
}

fn page(engine: &Engine, tenant: TenantId, table: Table, asked: &Asked) -> Result<Vec<Listed>, EngineError> {
    let walk = Walk { engine, tenant, descending: asked.descending };
    let from = asked.after.clone().map_or(Bound::Unbounded, Bound::Excluded);
    let most = asked.skip + asked.limit;
    let found = match &asked.of {
        Of::All(groups) => walk.all(groups, from, most)?,
        Of::Any(groups) => walk.any(groups, from, most)?,
    };
    let mut listed = Vec::with_capacity(asked.limit.min(found.len()));
    for (number, id) in found.into_iter().skip(asked.skip) {
        // A row that went between the two looks is no row of the page.
        if let Some(row) = get(engine, tenant, &row_key(table, &id))? {
            listed.push(Listed { number, id, row });
        }
    }
    Ok(listed)
}

/// A number and an id: what places are ordered by.
type At = (u64, String);

/// A way through groups, in one direction.
struct Walk<'e> {
    engine: &'e Engine,
    tenant: TenantId,
    descending: bool,
}

impl Walk<'_> {
    /// The places of a group from `from` on.
    fn places(&self, group: Group, from: Bound<&At>) -> Box<dyn Iterator<Item = Result<At, EngineError>>> {
        let prefix = group.prefix();
        let key = |tail: &[u8]| keys::key(Kind::Place, self.tenant, tail);
        let at = from.map(|(number, id)| key(&place_key(&Place { group, number: *number }, id)));
        let (first, end) = (Bound::Included(key(&prefix)), Bound::Excluded(key(&after(&prefix))));
        let bounds = match (at, self.descending) {
            (Bound::Unbounded, _) => (first, end),
            (at, true) => (first, at),
            (at, false) => (at, end),
        };
        let read = |row: Result<(Value, Value), EngineError>| place(&row?.0);
        match self.descending {
            true => Box::new(self.engine.between(bounds).rev().map(read)),
            false => Box::new(self.engine.between(bounds).map(read)),
        }
    }

    /// Whether `a` comes before `b`.
    fn is_before(&self, a: &At, b: &At) -> bool {
        if self.descending { a > b } else { a < b }
    }

    /// Up to `most` places that are in all of `groups`: each leaps to where the others are.
    fn all(&self, groups: &[Group], from: Bound<At>, most: usize) -> Result<Vec<At>, EngineError> {
        let mut found = Vec::new();
        let Some((lead, others)) = groups.split_first() else { return Ok(found) };
        let mut places = self.places(*lead, from.as_ref());
        while found.len() < most {
            let Some(at) = places.next().transpose()? else { break };
            let mut leap = None;
            for &group in others {
                match self.places(group, Bound::Included(&at)).next().transpose()? {
                    Some(there) if there == at => {}
                    Some(further) => leap = Some(further),
                    None => return Ok(found),
                }
                if leap.is_some() {
                    break;
                }
            }
            match leap {
                Some(further) => places = self.places(*lead, Bound::Included(&further)),
                None => found.push(at),
            }
        }
        Ok(found)
    }

    /// Up to `most` places that are in any of `groups`, each once.
    fn any(&self, groups: &[Group], from: Bound<At>, most: usize) -> Result<Vec<At>, EngineError> {
        let mut found = Vec::new();
        let mut ways = Vec::with_capacity(groups.len());
        for &group in groups {
            let mut places = self.places(group, from.as_ref());
            let head = places.next().transpose()?;
            ways.push((head, places));
        }
        while found.len() < most {
            let heads = ways.iter().filter_map(|(head, _)| head.as_ref());
            let Some(next) = heads.reduce(|a, b| if self.is_before(b, a) { b } else { a }).cloned() else {
                break;
            };
            for (head, places) in ways.iter_mut().filter(|(head, _)| head.as_ref() == Some(&next)) {
                *head = places.next().transpose()?;
            }
            found.push(next);
        }
        Ok(found)
    }
}

/// Number and id of a place's key.
fn place(key: &[u8]) -> Result<At, EngineError> {
    let damaged = || EngineError::Engine("a stored place is damaged".into());
    let tail = key.get(keys::HEAD + 1 + GROUP..).and_then(|tail| tail.split_at_checked(8));
    let (number, id) = tail.ok_or_else(damaged)?;
    let number = u64::from_be_bytes(number.try_into().map_err(|_| damaged())?);
    Ok((number, String::from_utf8(id.to_vec()).map_err(|_| damaged())?))
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
