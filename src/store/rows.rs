//! Rows to be written in one atomic batch, alone or together with events.
//!
//! * A builder checks a row's size and key; a [`Rows`] that was built can be written.
//! * What a row means is `records.rs` and `daily.rs`; this is only their sum.

use std::any::Any;

use super::engine::Batch;
use super::keys::{self, Kind};
use super::pack::MAX_VALUE;
use super::places::Place;
use crate::ids::TenantId;

/// A row cannot be stored: its key or its value is longer than the store takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {what} of {len} bytes is too long to be stored")]
pub struct TooLong {
    /// What is too long.
    pub what: &'static str,
    /// How long it is, bytes.
    pub len: usize,
}

/// What a change weighs besides its bytes: the engine finds and rewrites a page for it, however small it is. Without this a
/// commit's bytes would let a hundred thousand small rows hold everybody up. With it a write of the most rows there are, a batch of
/// memories, is as much as one organization may have under way.
const CHANGE: usize = 1024;

/// Changes to be committed together. Later ones win over earlier ones of the same row.
#[derive(Default)]
pub struct Rows {
    changes: Vec<Change>,
    /// See [`Rows::weight`].
    weight: usize,
    /// See [`Rows::in_name_of`].
    names: Vec<(TenantId, Box<str>)>,
    /// Dropped when the commit is over, however it ended.
    held: Vec<Held>,
}

/// Whatever lasts until a commit is over.
pub(super) type Held = Box<dyn Any + Send>;

pub(super) enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    /// A row that goes again after a day: put under `key`, and enqueued in its tenant's lane.
    Daily {
        lane: u8,
        tenant: TenantId,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    /// A row has a place from now on, or no more.
    Place {
        tenant: TenantId,
        place: Place,
        id: String,
        stands: bool,
    },
    Erase(TenantId),
    EraseUser(TenantId, String),
}

impl Rows {
    /// No change.
    #[must_use]
    pub fn new() -> Rows {
        Rows::default()
    }
    /// Whether nothing is to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
    /// How many changes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }
    /// What they cost a commit, in bytes: their keys and values, and [`CHANGE`] each.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }
    /// Adds all of `other`.
    pub fn extend(&mut self, other: Rows) {
        self.changes.extend(other.changes);
        self.weight += other.weight;
        self.names.extend(other.names);
        self.held.extend(other.held);
    }
    /// Keeps `guard` until the commit is over, also where whoever asked for it has gone: a lock that protects these rows.
    pub fn hold(&mut self, guard: impl Send + 'static) {
        self.held.push(Box::new(guard));
    }
    /// Says that something of these rows is a user's: all of them are refused where that user was deleted before.
    pub fn in_name_of(&mut self, tenant: TenantId, user: &str) {
        if !self.names.iter().any(|(of, name)| *of == tenant && **name == *user) {
            self.weight += size_of::<(TenantId, Box<str>)>() + user.len();
            self.names.push((tenant, user.into()));
        }
    }
    pub(super) fn names(&self) -> impl Iterator<Item = (TenantId, &str)> {
        self.names.iter().map(|(tenant, user)| (*tenant, &**user))
    }
    /// The tenants that get rows by these changes; those that only lose some are not among them.
    pub(super) fn written_into(&self) -> impl Iterator<Item = TenantId> {
        self.changes.iter().filter_map(|change| match change {
            Change::Put(key, _) => keys::tenant(key),
            Change::Daily { tenant, .. }
            | Change::Place { tenant, stands: true, .. }
            | Change::EraseUser(tenant, _) => Some(*tenant),
            Change::Delete(_) | Change::Place { .. } | Change::Erase(_) => None,
        })
    }
    pub(super) fn take_held(&mut self) -> Vec<Held> {
        std::mem::take(&mut self.held)
    }
    /// Removes every row and event of `tenant`, in small batches after the commit; resumed after a restart. Its
    /// organization row stays: put it with `deleted` set beside this.
    pub fn erase_tenant(&mut self, tenant: TenantId) {
        self.changes.push(Change::Erase(tenant));
    }

    /// Removes every event of `user` that is in `tenant`'s log at the commit, in small batches after it; resumed after a
    /// restart.
    ///
    /// # Errors
    /// [`TooLong`]: an id that is empty or over 256 bytes.
    pub fn erase_user(&mut self, tenant: TenantId, user: &str) -> Result<(), TooLong> {
        checked(Kind::EraseUser, tenant, user.as_bytes(), &[])?;
        self.changes.push(Change::EraseUser(tenant, user.to_owned()));
        Ok(())
    }

    pub(super) fn into_changes(self) -> Vec<Change> {
        self.changes
    }

    pub(super) fn put(
        &mut self,
        kind: Kind,
        tenant: TenantId,
        tail: &[u8],
        value: Vec<u8>,
    ) -> Result<(), TooLong> {
        let key = checked(kind, tenant, tail, &value)?;
        self.weight += CHANGE + key.len() + value.len();
        self.changes.push(Change::Put(key, value));
        Ok(())
    }

    pub(super) fn delete(&mut self, kind: Kind, tenant: TenantId, tail: &[u8]) {
        let key = keys::key(kind, tenant, tail);
        self.weight += CHANGE + key.len();
        self.changes.push(Change::Delete(key));
    }

    pub(super) fn place(&mut self, tenant: TenantId, place: &Place, id: &str, stands: bool) {
        self.weight += CHANGE + size_of::<Place>() + id.len();
        self.changes.push(Change::Place { tenant, place: place.clone(), id: id.to_owned(), stands });
    }

    pub(super) fn put_daily(
        &mut self,
        lane: u8,
        kind: Kind,
        tenant: TenantId,
        tail: &[u8],
        value: Vec<u8>,
    ) -> Result<(), TooLong> {
        let key = checked(kind, tenant, tail, &value)?;
        self.weight += CHANGE + key.len() + value.len();
        self.changes.push(Change::Daily { lane, tenant, key, value });
        Ok(())
    }
}

/// Whether a key of `kind` may have a tail of `len` bytes.
pub(super) fn check_tail(kind: Kind, len: usize) -> Result<(), TooLong> {
    let (least, most) = keys::tail_len(kind);
    if (least..=most).contains(&len) { Ok(()) } else { Err(TooLong { what: "key", len }) }
}

fn checked(kind: Kind, tenant: TenantId, tail: &[u8], value: &[u8]) -> Result<Vec<u8>, TooLong> {
    check_tail(kind, tail.len())?;
    if value.len() > MAX_VALUE {
        return Err(TooLong { what: "row", len: value.len() });
    }
    Ok(keys::key(kind, tenant, tail))
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("changes", &self.changes.len()).finish()
    }
}

/// Puts the row that remembers an erasure still to be done: of a whole tenant, or of one of its users.
pub(super) fn put_erasure(batch: &mut Batch, tenant: TenantId, user: Option<&str>) {
    let (kind, tail) = user.map_or((Kind::Erase, ""), |user| (Kind::EraseUser, user));
    batch.put(keys::key(kind, tenant, tail.as_bytes()), vec![1]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_know_what_they_weigh() {
        let mut rows = Rows::new();
        rows.put(Kind::Secret, TenantId(0), b"name", vec![1; 100]).expect("short");
        assert_eq!((rows.len(), rows.weight()), (1, CHANGE + keys::HEAD + 4 + 100));
        let mut more = Rows::new();
        more.delete(Kind::Secret, TenantId(0), b"name");
        rows.extend(more);
        assert_eq!((rows.len(), rows.weight()), (2, 2 * (CHANGE + keys::HEAD + 4) + 100));
    }
}
