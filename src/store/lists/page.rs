//! Pages of lists, with the rows that the entries name.
//!
//! * A row is bytes under (tenant, table, id). A list index entry says that a row has a number in a group of
//!   a list (`index.rs`). So a page is a short range of keys and a lookup for each.
//! * The code that changes a row also writes its list index entries, in the same commit. Nothing here keeps
//!   them consistent.

use std::ops::Bound;

use super::cursor::{ListCursor as _, ListReader, MergedCursor};
use super::intersect::ListScan;
use crate::ids::TenantId;
use crate::store::engine::{Engine, EngineError};
use crate::store::format::keys::{self, KeyKind, Table};
use crate::store::format::{EntryKey, Group};
use crate::store::rows::{get_row, row_body, row_key};

/// Entries that an intersection reads before another organization has its turn; this takes some milliseconds.
pub(crate) const SLICE: usize = 500;

/// The groups of a page.
#[derive(Clone, Debug)]
pub enum GroupSelector {
    /// Rows in any of these groups, each once.
    Any(Vec<Group>),
    /// Rows in all of these groups.
    All(Vec<Group>),
}

impl From<Group> for GroupSelector {
    fn from(group: Group) -> GroupSelector {
        GroupSelector::All(vec![group])
    }
}

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

impl ListReader<'_> {
    /// Returns up to `most` entries of `of` after `after`. If several groups have to be intersected, it reads
    /// at most `looks` entries. `is_in` returns whether the row of an entry is also in other groups.
    pub(crate) fn page(
        &self,
        of: &GroupSelector,
        after: Option<&EntryKey>,
        (most, looks): (usize, usize),
        is_in: impl Fn(&EntryKey, &[Group]) -> Result<bool, EngineError>,
    ) -> Result<ListScan, EngineError> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        match of {
            GroupSelector::Any(groups) => self.union(self.merged_cursor(groups, from)?, most),
            GroupSelector::All(groups) => match groups.split_first() {
                Some((lead, others)) => {
                    self.intersect(*lead, others, from, (most, looks), &|at| is_in(at, others))
                }
                None => Ok(ListScan::complete(Vec::new())),
            },
        }
    }

    fn union(&self, mut cursor: MergedCursor<'_>, most: usize) -> Result<ListScan, EngineError> {
        let mut found = Vec::new();
        while found.len() < most
            && let Some(at) = cursor.head().cloned()
        {
            cursor.pop()?;
            found.push(at);
        }
        Ok(ListScan::complete(found))
    }
}

/// A page that is being read, perhaps in several slices.
pub(crate) struct PageRead {
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
    pub(crate) fn new(tenant: TenantId, table: Table, query: ListQuery) -> PageRead {
        let (after, skip) = (query.after.clone(), query.skip);
        PageRead { tenant, table, query, after, skip, rows: Vec::new(), last: None }
    }

    /// Returns true if several groups have to be intersected. Their common entries may be far apart.
    pub(crate) fn is_long(&self) -> bool {
        matches!(&self.query.groups, GroupSelector::All(groups) if groups.len() > 1)
    }

    /// Reads up to `looks` more entries if groups have to be intersected; `None` if there is more to read.
    pub(crate) fn read_slice(
        &mut self,
        engine: &Engine,
        looks: usize,
    ) -> Result<Option<ListPage>, EngineError> {
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
                let row = get_row(engine, tenant, &row_key(table, id))?;
                rows.extend(row.filter(|row| several.is_empty() || is_in(row, several)));
            }
            *skip = skip.saturating_sub(found.entries.len());
            if let Some(entry) = found.entries.pop() {
                *last = Some(entry);
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
    use crate::store::{List, ListEntry, Rows, Store, StoreOptions};

    const TENANT: TenantId = TenantId(3);
    const TABLE: Table = Table::Memories;

    /// Rows are deleted while a page of them is read, so the page finds entries without a row.
    #[tokio::test]
    async fn a_page_continues_after_rows_that_were_deleted_while_it_was_read() {
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
