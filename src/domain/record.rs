//! A resource as rows: its JSON under its id, and a list index entry in every list it belongs to.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ResourceError;
use crate::ids::TenantId;
use crate::store::{Group, GroupSelector, ListQuery, MAX_VALUE, ReadError, Rows, Store, Table, TooLong};

/// Maximum of bytes of a resource's JSON. The response that shows it is a little longer and must fit into a
/// row too, because it is stored for an `Idempotency-Key`.
const RECORD_BYTES: usize = MAX_VALUE - 2 * 1024;

/// A stored resource.
pub(crate) trait Record: Serialize + DeserializeOwned {
    /// Table of the resource's rows.
    const TABLE: Table;
    /// Id of the resource.
    fn id(&self) -> &str;
    /// Number that orders the resource in lists. It never changes.
    fn number(&self) -> u64;
    /// The lists that the resource belongs to; none once it is deleted.
    fn groups(&self) -> Vec<Group>;
    /// The user that the resource belongs to, if any. It is erased with the user, and cannot be written once
    /// the user is deleted.
    fn user(&self) -> Option<&str> {
        None
    }
    /// [`Record::groups`] of a stored row; `None` if the row cannot be parsed.
    fn groups_of(row: &[u8]) -> Option<Vec<Group>> {
        serde_json::from_slice::<Self>(row).ok().map(|record| record.groups())
    }
}

/// Position at which a page starts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PageStart {
    /// After this many rows, for clients that use `offset`.
    Offset(usize),
    /// After the row with this number and id.
    After(u64, String),
}

/// Selects a page of a list.
#[derive(Clone, Debug)]
pub struct PageRequest {
    /// Position at which the page starts.
    pub from: PageStart,
    /// True for newest first.
    pub descending: bool,
    /// Maximum of rows.
    pub limit: usize,
}

/// Adds the rows that change `old` into `new`.
pub(super) fn put<R: Record>(
    rows: &mut Rows,
    tenant: TenantId,
    old: Option<&R>,
    new: &R,
) -> Result<(), ResourceError> {
    let json = serde_json::to_vec(new).unwrap_or_default(); // structs of texts and numbers: this cannot fail
    if json.len() > RECORD_BYTES {
        return Err(TooLong { what: "resource", len: json.len() }.into());
    }
    match old.map(|old| serde_json::to_vec(old).unwrap_or_default().len()) {
        None => rows.create_row(tenant, R::TABLE, new.id(), &json)?,
        Some(old) => rows.replace_row(tenant, R::TABLE, new.id(), &json, old)?,
    }
    if let Some(user) = new.user() {
        rows.in_name_of(tenant, user);
    }
    let before = old.map(Record::groups).unwrap_or_default();
    Ok(rows.change_list_entries(tenant, new.id(), new.number(), &before, &new.groups())?)
}

/// Adds the rows that delete `old` completely.
pub(super) fn remove<R: Record>(rows: &mut Rows, tenant: TenantId, old: &R) {
    rows.delete_row(tenant, R::TABLE, old.id());
    rows.delete_list_entries(tenant, old.id(), old.number(), &old.groups());
}

/// Reads a resource by its id. `None` also if an id of this length cannot exist.
pub(super) async fn get<R: Record>(
    store: &Store,
    tenant: TenantId,
    id: &str,
) -> Result<Option<R>, ResourceError> {
    if id.is_empty() || id.len() > crate::event::ID_BYTES {
        return Ok(None);
    }
    match store.row(tenant, R::TABLE, id).await? {
        Some(row) => Ok(Some(read(&row)?)),
        None => Ok(None),
    }
}

/// Reads resources by their ids, in the same order. `None` for each that does not exist.
pub(super) async fn get_all<R: Record>(
    store: &Store,
    tenant: TenantId,
    ids: Vec<String>,
) -> Result<Vec<Option<R>>, ResourceError> {
    let rows = store.rows(tenant, R::TABLE, ids).await?;
    rows.iter().map(|row| row.as_deref().map(read).transpose()).collect()
}

/// Reads a page of a list. Also returns the position of the next page; `None` for the last one.
pub(super) async fn list<R: Record>(
    store: &Store,
    tenant: TenantId,
    of: impl Into<GroupSelector>,
    page: &PageRequest,
) -> Result<(Vec<R>, Option<PageStart>), ResourceError> {
    let (after, skip) = match &page.from {
        PageStart::Offset(skip) => (None, *skip),
        PageStart::After(number, id) => (Some((*number, id.clone())), 0),
    };
    let groups_of = R::groups_of;
    let (of, descending, limit) = (of.into(), page.descending, page.limit);
    let query = ListQuery { groups: of, after, descending, skip, limit, groups_of };
    let listed = store.page(tenant, R::TABLE, query).await?;
    let records = listed.rows.iter().map(|row| read(row)).collect::<Result<_, _>>()?;
    let next = listed.next.map(|(number, id)| PageStart::After(number, id));
    Ok((records, next))
}

/// Returns a page of records that are all in memory, as [`list`] would return it.
pub(super) fn page_of<R: Record>(mut records: Vec<R>, page: &PageRequest) -> (Vec<R>, Option<PageStart>) {
    let at = |record: &R| (record.number(), record.id().to_owned());
    records.sort_by_key(at);
    if page.descending {
        records.reverse();
    }
    match &page.from {
        PageStart::Offset(skip) => drop(records.drain(..(*skip).min(records.len()))),
        PageStart::After(number, id) => {
            let from = (*number, id.clone());
            records.retain(|record| if page.descending { at(record) < from } else { at(record) > from });
        }
    }
    let more = records.len() > page.limit;
    records.truncate(page.limit);
    let next =
        records.last().filter(|_| more).map(|last| PageStart::After(last.number(), last.id().to_owned()));
    (records, next)
}

fn read<R: Record>(row: &[u8]) -> Result<R, ResourceError> {
    serde_json::from_slice(row).map_err(|error| {
        tracing::error!(%error, table = ?R::TABLE, "a stored resource cannot be read");
        ResourceError::Read(ReadError::Failed)
    })
}
