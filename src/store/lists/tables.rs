//! Resources of organizations: rows in tables, and the lists they are in.
//!
//! * A row is bytes under (tenant, table, id). A list index entry says that a row has a number in a group of
//!   a list (`index.rs`). So a page is a short range of keys and a lookup for each.
//! * The code that changes a row also writes its list index entries, in the same commit. Nothing here keeps
//!   them consistent.

use crate::ids::TenantId;
use crate::store::Store;
use crate::store::engine::{Engine, EngineError};
use crate::store::format::keys::{self, KeyKind, Table};
use crate::store::format::list_group::{EntryKey, Group};
use crate::store::lists::cursor::{GroupSelector, ListReader};
use crate::store::log::read_pool::ReadError;
use crate::store::rows::builder::{PriorValue, Rows, TooLong};

const VERSION: u8 = 1;
/// Entries that an intersection reads before another organization has its turn; this takes some milliseconds.
const SLICE: usize = 500;

/// The requested part of a list.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// The groups.
    pub groups: GroupSelector,
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
pub struct ListPage {
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
        self.write_row(tenant, table, id, row, PriorValue::Unknown)
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
        self.write_row(tenant, table, id, row, PriorValue::Nothing)
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
        self.write_row(tenant, table, id, row, PriorValue::Value(1 + old))
    }
    fn write_row(
        &mut self,
        tenant: TenantId,
        table: Table,
        id: &str,
        row: &[u8],
        before: PriorValue,
    ) -> Result<(), TooLong> {
        self.put(KeyKind::Row, tenant, &row_key(table, id), [&[VERSION], row].concat(), before)
    }
    /// Deletes a row.
    pub fn delete_row(&mut self, tenant: TenantId, table: Table, id: &str) {
        self.delete(KeyKind::Row, tenant, &row_key(table, id), 1);
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
    pub async fn page(
        &self,
        tenant: TenantId,
        table: Table,
        query: ListQuery,
    ) -> Result<ListPage, ReadError> {
        let mut page = PageRead {
            tenant,
            table,
            after: query.after.clone(),
            skip: query.skip,
            query,
            rows: Vec::new(),
            last: None,
        };
        match &page.query.groups {
            // The common entries of several groups may be far apart.
            GroupSelector::All(groups) if groups.len() > 1 => {
                self.run_long(tenant, move |engine| page.read_slice(engine, SLICE)).await
            }
            _ => {
                let whole = move |engine: &Engine| loop {
                    if let Some(page) = page.read_slice(engine, usize::MAX)? {
                        return Ok(page);
                    }
                };
                self.run(tenant, whole).await
            }
        }
    }
}

fn get(engine: &Engine, tenant: TenantId, tail: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
    let value = engine.row(&keys::key(KeyKind::Row, tenant, tail))?;
    value.map(|value| Ok(row_body(&value)?.to_vec())).transpose()
}

/// The content of a row's value.
fn row_body(value: &[u8]) -> Result<&[u8], EngineError> {
    value
        .strip_prefix(&[VERSION])
        .ok_or_else(|| EngineError::Engine("a stored row is of another version".into()))
}

/// A page that is being read, perhaps in several slices.
struct PageRead {
    tenant: TenantId,
    table: Table,
    query: ListQuery,
    /// The entry after which reading continues.
    after: Option<EntryKey>,
    /// Entries still to be skipped.
    skip: usize,
    rows: Vec<Vec<u8>>,
    /// The last entry that was skipped or taken.
    last: Option<EntryKey>,
}

impl PageRead {
    /// Reads up to `looks` more entries if groups have to be intersected; `None` if there is more to read.
    fn read_slice(&mut self, engine: &Engine, looks: usize) -> Result<Option<ListPage>, EngineError> {
        let PageRead { tenant, table, query, after, skip, rows, last } = self;
        let (tenant, table) = (*tenant, *table);
        let reader = ListReader { engine, tenant, descending: query.descending };
        // A row that cannot be read is taken for the page, and fails there.
        let is_in = |row: &[u8], groups: &[Group]| {
            (query.groups_of)(row).is_none_or(|own| groups.iter().all(|group| own.contains(group)))
        };
        let entry_is_in = |at: &EntryKey, groups: &[Group]| {
            let row = engine.peek_row(&keys::key(KeyKind::Row, tenant, &row_key(table, &at.1)))?;
            row.map_or(Ok(false), |row| Ok(is_in(row_body(&row)?, groups)))
        };
        // A row that has to be in several groups may have left one between the two reads.
        let several: &[Group] = match &query.groups {
            GroupSelector::All(groups) if groups.len() > 1 => groups,
            _ => &[],
        };
        loop {
            let most = *skip + query.limit - rows.len();
            // One more entry tells whether another page follows.
            let mut found = reader.page(&query.groups, after.as_ref(), (most + 1, looks), entry_is_in)?;
            let more = found.entries.len() > most;
            found.entries.truncate(most);
            for (_, id) in found.entries.iter().skip(*skip) {
                let row = get(engine, tenant, &row_key(table, id))?;
                rows.extend(row.filter(|row| several.is_empty() || is_in(row, several)));
            }
            *skip = skip.saturating_sub(found.entries.len());
            if let Some(place) = found.entries.pop() {
                *last = Some(place);
            }
            if found.goes_on_after.is_some() {
                *after = found.goes_on_after;
                return Ok(None);
            }
            // A row that was deleted between the two reads is not part of the page, and does not end it
            // either.
            if !more || rows.len() >= query.limit {
                let next = last.take().filter(|_| more);
                return Ok(Some(ListPage { rows: std::mem::take(rows), next }));
            }
            *after = last.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Group, List, ListEntry, StoreOptions};

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
            rows.put_list_entry(TENANT, &ListEntry { group, number }, &id).expect("short");
            if number % 3 == 0 {
                rows.put_row(TENANT, TABLE, &id, id.as_bytes()).expect("short");
            }
        }
        store.write(rows).await.expect("written");
        for (descending, expected) in [(false, ["0", "3", "6", "9"]), (true, ["9", "6", "3", "0"])] {
            for limit in 1..6 {
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let query = ListQuery {
                        groups: group.into(),
                        after,
                        descending,
                        skip: 0,
                        limit,
                        groups_of: |_| None,
                    };
                    let page = store.page(TENANT, TABLE, query).await.expect("read");
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
