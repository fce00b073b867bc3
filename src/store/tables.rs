//! Resources of organizations: rows in tables, and the lists they are in.
//!
//! * A row is bytes under (tenant, table, id). A list index entry says that a row has a number in a group of
//!   a list (`places.rs`). So a page is a short range of keys and a lookup for each.
//! * The code that changes a row also writes its list index entries, in the same commit. Nothing here keeps
//!   them consistent.

use super::Store;
use super::engine::{Engine, EngineError};
use super::keys::{self, Kind, Table};
use super::places::{At, Group};
use super::read::ReadError;
use super::rows::{Before, Rows, TooLong};
use super::walk::{Of, Walk};
use crate::ids::TenantId;

const VERSION: u8 = 1;
/// Entries that an intersection reads before another organization has its turn; this takes some milliseconds.
const SLICE: usize = 500;

/// The requested part of a list.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The groups.
    pub of: Of,
    /// Only rows after this number and id, in the requested order.
    pub after: Option<(u64, String)>,
    /// Whether the highest numbers come first.
    pub descending: bool,
    /// Number of rows to skip.
    pub skip: usize,
    /// Largest number of rows to return.
    pub limit: usize,
    /// The groups that a row is in according to its value; `None` if the value cannot be read.
    pub groups_of: fn(&[u8]) -> Option<Vec<Group>>,
}

/// A page of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The values of its rows, in order.
    pub rows: Vec<Vec<u8>>,
    /// The number and id after which the next page starts; `None` if this is the last page.
    pub next: Option<(u64, String)>,
}

fn row_key(table: Table, id: &str) -> Vec<u8> {
    [&[table as u8][..], id.as_bytes()].concat()
}

impl Rows {
    /// Creates or replaces a row.
    ///
    /// # Errors
    /// [`TooLong`] for more than 72 KiB, or for an id that is empty or longer than 256 bytes.
    pub fn put_row(&mut self, tenant: TenantId, table: Table, id: &str, row: &[u8]) -> Result<(), TooLong> {
        self.write_row(tenant, table, id, row, Before::Unknown)
    }
    /// Creates a row. The caller guarantees that it does not exist.
    ///
    /// # Errors
    /// As [`Rows::put_row`].
    pub fn create_row(
        &mut self,
        tenant: TenantId,
        table: Table,
        id: &str,
        row: &[u8],
    ) -> Result<(), TooLong> {
        self.write_row(tenant, table, id, row, Before::Nothing)
    }
    /// Replaces a row that holds `old` bytes, or about as many.
    ///
    /// # Errors
    /// As [`Rows::put_row`].
    pub fn replace_row(
        &mut self,
        tenant: TenantId,
        table: Table,
        id: &str,
        row: &[u8],
        old: usize,
    ) -> Result<(), TooLong> {
        self.write_row(tenant, table, id, row, Before::Value(1 + old))
    }
    fn write_row(
        &mut self,
        tenant: TenantId,
        table: Table,
        id: &str,
        row: &[u8],
        before: Before,
    ) -> Result<(), TooLong> {
        self.put(Kind::Row, tenant, &row_key(table, id), [&[VERSION], row].concat(), before)
    }
    /// Deletes a row.
    pub fn delete_row(&mut self, tenant: TenantId, table: Table, id: &str) {
        self.delete(Kind::Row, tenant, &row_key(table, id), 1);
    }
}

impl Store {
    /// A row; `None` if it does not exist.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn row(&self, tenant: TenantId, table: Table, id: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let tail = row_key(table, id);
        self.run(tenant, move |engine| get(engine, tenant, &tail)).await
    }

    /// Rows by their ids, in that order; `None` for each that does not exist.
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

    /// A page of a list, with the rows of `table`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn page(&self, tenant: TenantId, table: Table, asked: Asked) -> Result<Listed, ReadError> {
        let mut page = PageRead {
            tenant,
            table,
            after: asked.after.clone(),
            skip: asked.skip,
            asked,
            rows: Vec::new(),
            last: None,
        };
        match &page.asked.of {
            // The common entries of several groups may be far apart.
            Of::All(groups) if groups.len() > 1 => {
                self.run_long(tenant, move |engine| page.go_on(engine, SLICE)).await
            }
            _ => {
                let whole = move |engine: &Engine| loop {
                    if let Some(listed) = page.go_on(engine, usize::MAX)? {
                        return Ok(listed);
                    }
                };
                self.run(tenant, whole).await
            }
        }
    }
}

fn get(engine: &Engine, tenant: TenantId, tail: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
    let value = engine.row(&keys::key(Kind::Row, tenant, tail))?;
    value.map(|value| Ok(said(&value)?.to_vec())).transpose()
}

/// The content of a row's value.
fn said(value: &[u8]) -> Result<&[u8], EngineError> {
    value
        .strip_prefix(&[VERSION])
        .ok_or_else(|| EngineError::Engine("a stored row is of another version".into()))
}

/// A page that is being read, perhaps in several slices.
struct PageRead {
    tenant: TenantId,
    table: Table,
    asked: Asked,
    /// The entry after which reading continues.
    after: Option<At>,
    /// Entries still to be skipped.
    skip: usize,
    rows: Vec<Vec<u8>>,
    /// The last entry that was skipped or taken.
    last: Option<At>,
}

impl PageRead {
    /// Reads up to `looks` more entries if groups have to be intersected; `None` if there is more to read.
    fn go_on(&mut self, engine: &Engine, looks: usize) -> Result<Option<Listed>, EngineError> {
        let PageRead { tenant, table, asked, after, skip, rows, last } = self;
        let (tenant, table) = (*tenant, *table);
        let walk = Walk { engine, tenant, descending: asked.descending };
        // A row that cannot be read is taken for the page, and fails there.
        let is_in = |row: &[u8], groups: &[Group]| {
            (asked.groups_of)(row).is_none_or(|own| groups.iter().all(|group| own.contains(group)))
        };
        let stands = |at: &At, groups: &[Group]| {
            let row = engine.look_at_row(&keys::key(Kind::Row, tenant, &row_key(table, &at.1)))?;
            row.map_or(Ok(false), |row| Ok(is_in(said(&row)?, groups)))
        };
        // A row that has to be in several groups may have left one between the two reads.
        let several: &[Group] = match &asked.of {
            Of::All(groups) if groups.len() > 1 => groups,
            _ => &[],
        };
        loop {
            let most = *skip + asked.limit - rows.len();
            // One more entry tells whether another page follows.
            let mut found = walk.page(&asked.of, after.as_ref(), (most + 1, looks), stands)?;
            let more = found.places.len() > most;
            found.places.truncate(most);
            for (_, id) in found.places.iter().skip(*skip) {
                let row = get(engine, tenant, &row_key(table, id))?;
                rows.extend(row.filter(|row| several.is_empty() || is_in(row, several)));
            }
            *skip = skip.saturating_sub(found.places.len());
            if let Some(place) = found.places.pop() {
                *last = Some(place);
            }
            if found.goes_on_after.is_some() {
                *after = found.goes_on_after;
                return Ok(None);
            }
            // A row that was deleted between the two reads is not part of the page, and does not end it
            // either.
            if !more || rows.len() >= asked.limit {
                let next = last.take().filter(|_| more);
                return Ok(Some(Listed { rows: std::mem::take(rows), next }));
            }
            *after = last.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Group, List, Place, StoreOptions};

    const TENANT: TenantId = TenantId(3);
    const TABLE: Table = Table::Memories;

    /// Rows are deleted while a page of them is read, so the page finds entries without a row.
    #[tokio::test]
    async fn a_page_goes_on_after_rows_that_went_while_it_was_read() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(StoreOptions::new(dir.path())).expect("the store opens");
        let group = Group::new(List::AllMessages, &[]);
        let mut rows = Rows::new();
        for number in 0..10 {
            let id = number.to_string();
            rows.put_place(TENANT, &Place { group, number }, &id).expect("short");
            if number % 3 == 0 {
                rows.put_row(TENANT, TABLE, &id, id.as_bytes()).expect("short");
            }
        }
        store.write(rows).await.expect("written");
        for (descending, expected) in [(false, ["0", "3", "6", "9"]), (true, ["9", "6", "3", "0"])] {
            for limit in 1..6 {
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let asked =
                        Asked { of: group.into(), after, descending, skip: 0, limit, groups_of: |_| None };
                    let page = store.page(TENANT, TABLE, asked).await.expect("read");
                    assert!(page.rows.len() == limit || page.next.is_none(), "{page:?}");
                    found.extend(page.rows);
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                assert_eq!(found, expected.map(|id| id.as_bytes().to_vec()), "{limit} at a time");
            }
        }
    }
}
