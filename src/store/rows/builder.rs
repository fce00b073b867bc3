//! Rows to be written in one atomic batch, alone or together with events.
//!
//! * A builder checks a row's size and key, so every [`Rows`] can be written.
//! * The meaning of rows is in `records.rs` and in `dedup`; this module only collects them.

use std::any::Any;

use crate::ids::TenantId;
use crate::store::format::keys::{self, KeyKind};
use crate::store::format::piece::MAX_VALUE;
use crate::store::format::{BEFORE_ID, ListEntry};
use crate::store::quota::usage::{counted_key, dedup_bytes};
use crate::store::quota::{Growth, Reservation};

/// A row cannot be stored: its key or its value is longer than the store accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {what} of {len} bytes is too long to be stored")]
pub struct TooLong {
    /// What is too long.
    pub what: &'static str,
    /// Its length in bytes.
    pub len: usize,
}

/// The weight of a change besides its bytes: the engine finds and rewrites a page for it, however small it
/// is. Without this, a commit's byte limit would let a hundred thousand small rows delay everybody. With it,
/// the largest possible write, a batch of memories, weighs as much as one organization may have uncommitted.
const CHANGE: usize = 1024;

/// Changes to be committed together. Later ones replace earlier ones of the same row.
#[derive(Default)]
pub struct Rows {
    changes: Vec<PendingChange>,
    /// See [`Rows::weight`].
    weight: usize,
    /// See [`Rows::in_name_of`].
    names: Vec<(TenantId, Box<str>)>,
    /// See [`Rows::growth`].
    growth: Growth,
    /// Dropped when the commit has ended, with any result.
    guards: Vec<CommitGuard>,
}

/// A guard that is held until a commit has ended.
pub(crate) type CommitGuard = Box<dyn Any + Send>;

pub(crate) enum PendingChange {
    Put {
        key: Vec<u8>,
        value: Vec<u8>,
        /// Whether nothing is stored under the key.
        is_new: bool,
    },
    Delete(Vec<u8>),
    /// A row that expires after a day: stored under `key`, and added to its tenant's lane.
    Dedup {
        lane: u8,
        tenant: TenantId,
        key: Vec<u8>,
        value: Vec<u8>,
    },
    /// Adds or removes a row's list index entry.
    ListEntry {
        tenant: TenantId,
        entry: ListEntry,
        id: String,
        is_present: bool,
    },
    Erase(TenantId),
    EraseUser(TenantId, String),
}

/// What is stored under the key of a row before it is put.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PriorValue {
    /// Unknown.
    Unknown,
    /// Nothing. The caller guarantees it, so there is no lookup.
    Nothing,
    /// A value of about this many bytes.
    Value(usize),
}

impl Rows {
    /// Creates an empty list of changes.
    #[must_use]
    pub fn new() -> Rows {
        Rows::default()
    }
    /// Returns true if there are no changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }
    /// The cost of the changes for a commit, in bytes: their keys and values, and [`CHANGE`] for each.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }
    /// Upper bound of what the changes add to their organization's usage.
    #[must_use]
    pub fn growth(&self) -> Growth {
        self.growth
    }
    /// Adds all of `other`.
    pub fn extend(&mut self, other: Rows) {
        self.changes.extend(other.changes);
        self.weight += other.weight;
        self.names.extend(other.names);
        self.growth += other.growth;
        self.guards.extend(other.guards);
    }
    /// Holds `guard`, a lock that protects these rows, until the commit has ended, even if the caller has
    /// gone.
    pub fn hold_until_commit(&mut self, guard: impl Send + 'static) {
        self.guards.push(Box::new(guard));
    }
    /// Marks these rows as written on behalf of a user. All of them are refused if that user was deleted
    /// before.
    pub fn in_name_of(&mut self, tenant: TenantId, user: &str) {
        if !self.names.iter().any(|(of, name)| *of == tenant && **name == *user) {
            self.weight += size_of::<(TenantId, Box<str>)>() + user.len();
            self.names.push((tenant, user.into()));
        }
    }
    pub(crate) fn names(&self) -> impl Iterator<Item = (TenantId, &str)> {
        self.names.iter().map(|(tenant, user)| (*tenant, &**user))
    }
    /// The tenants that get rows by these changes, without those that only lose rows.
    pub(crate) fn written_into(&self) -> impl Iterator<Item = TenantId> {
        self.changes.iter().filter_map(|change| match change {
            PendingChange::Put { key, .. } => keys::tenant(key),
            PendingChange::Dedup { tenant, .. }
            | PendingChange::ListEntry { tenant, is_present: true, .. }
            | PendingChange::EraseUser(tenant, _) => Some(*tenant),
            PendingChange::Delete(_) | PendingChange::ListEntry { .. } | PendingChange::Erase(_) => None,
        })
    }
    pub(crate) fn take_guards(&mut self) -> Vec<CommitGuard> {
        std::mem::take(&mut self.guards)
    }
    /// Removes every row and event of `tenant`, in small batches after the commit; this resumes after a
    /// restart. Its organization row stays: put it with `deleted` set in the same commit.
    pub fn erase_tenant(&mut self, tenant: TenantId) {
        self.changes.push(PendingChange::Erase(tenant));
    }

    /// Removes every event of `user` that is in `tenant`'s log at the commit, in small batches after it; this
    /// resumes after a restart.
    ///
    /// # Errors
    /// [`TooLong`] for an id that is empty or longer than 256 bytes.
    pub fn erase_user(&mut self, tenant: TenantId, user: &str) -> Result<(), TooLong> {
        checked(KeyKind::EraseUser, tenant, user.as_bytes(), &[])?;
        self.changes.push(PendingChange::EraseUser(tenant, user.to_owned()));
        Ok(())
    }

    pub(crate) fn into_changes(self) -> Vec<PendingChange> {
        self.changes
    }

    pub(crate) fn put(
        &mut self,
        kind: KeyKind,
        tenant: TenantId,
        tail: &[u8],
        value: Vec<u8>,
        before: PriorValue,
    ) -> Result<(), TooLong> {
        let key = checked(kind, tenant, tail, &value)?;
        self.weight += CHANGE + key.len() + value.len();
        let replaced = match before {
            PriorValue::Value(len) => Some(len),
            PriorValue::Unknown | PriorValue::Nothing => None,
        };
        self.grow(&key, Some(value.len()), replaced);
        self.changes.push(PendingChange::Put { key, value, is_new: before == PriorValue::Nothing });
        Ok(())
    }

    /// Deletes a row whose value is `len` bytes or more.
    pub(crate) fn delete(&mut self, kind: KeyKind, tenant: TenantId, tail: &[u8], len: usize) {
        let key = keys::key(kind, tenant, tail);
        self.weight += CHANGE + key.len();
        self.grow(&key, None, Some(len));
        self.changes.push(PendingChange::Delete(key));
    }

    /// Counts that the value under `key` changes from `before` to `after` bytes; `None` means that there is
    /// no value.
    fn grow(&mut self, key: &[u8], after: Option<usize>, before: Option<usize>) {
        let Some((kind, _)) = counted_key(key) else { return };
        let bytes = |value: Option<usize>| value.map_or(0, |len| (key.len() + len) as i64);
        self.growth.bytes += bytes(after) - bytes(before);
        if kind == KeyKind::Row {
            self.growth.rows += i64::from(after.is_some()) - i64::from(before.is_some());
        }
    }

    /// Makes the commit hold a reservation.
    pub fn hold_reservation(&mut self, room: Option<Reservation>) {
        self.guards.extend(room.map(|room| Box::new(room) as CommitGuard));
    }

    pub(crate) fn list_entry(&mut self, tenant: TenantId, entry: &ListEntry, id: &str, is_present: bool) {
        self.weight += CHANGE + size_of::<ListEntry>() + id.len();
        let bytes = if tenant.0 == 0 { 0 } else { (keys::HEAD + BEFORE_ID + id.len() + 1) as i64 };
        self.growth.bytes += if is_present { bytes } else { -bytes };
        self.changes.push(PendingChange::ListEntry {
            tenant,
            entry: entry.clone(),
            id: id.to_owned(),
            is_present,
        });
    }

    pub(crate) fn put_dedup(
        &mut self,
        lane: u8,
        kind: KeyKind,
        tenant: TenantId,
        tail: &[u8],
        value: Vec<u8>,
    ) -> Result<(), TooLong> {
        let key = checked(kind, tenant, tail, &value)?;
        self.weight += CHANGE + key.len() + value.len();
        self.growth.bytes += dedup_bytes(tail.len(), value.len()) as i64;
        self.changes.push(PendingChange::Dedup { lane, tenant, key, value });
        Ok(())
    }
}

/// Checks that a key of `kind` may have a tail of `len` bytes.
pub(crate) fn check_tail(kind: KeyKind, len: usize) -> Result<(), TooLong> {
    let (least, most) = keys::tail_len(kind);
    if (least..=most).contains(&len) { Ok(()) } else { Err(TooLong { what: "key", len }) }
}

fn checked(kind: KeyKind, tenant: TenantId, tail: &[u8], value: &[u8]) -> Result<Vec<u8>, TooLong> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_weigh_their_bytes_and_a_constant_for_each_change() {
        let mut rows = Rows::new();
        rows.put(KeyKind::Secret, TenantId(0), b"name", vec![1; 100], PriorValue::Unknown).expect("short");
        assert_eq!((rows.len(), rows.weight()), (1, CHANGE + keys::HEAD + 4 + 100));
        let mut more = Rows::new();
        more.delete(KeyKind::Secret, TenantId(0), b"name", 0);
        rows.extend(more);
        assert_eq!((rows.len(), rows.weight()), (2, 2 * (CHANGE + keys::HEAD + 4) + 100));
        assert_eq!(rows.growth(), Growth::default(), "the store's own rows count for no organization");
    }

    #[test]
    fn replaced_and_deleted_rows_do_not_add_to_growth() {
        let tenant = TenantId(3);
        let mut rows = Rows::new();
        let put = |rows: &mut Rows, len: usize, before: PriorValue| {
            rows.put(KeyKind::Row, tenant, b"row", vec![1; len], before).expect("short");
            rows.growth()
        };
        let row = (keys::HEAD + 3) as i64;
        assert_eq!(put(&mut rows, 100, PriorValue::Nothing), Growth { rows: 1, bytes: row + 100 });
        assert_eq!(put(&mut rows, 40, PriorValue::Value(100)), Growth { rows: 1, bytes: row + 40 });
        rows.delete(KeyKind::Row, tenant, b"row", 40);
        assert_eq!(rows.growth(), Growth::default());
        assert_eq!(put(&mut Rows::new(), 10, PriorValue::Unknown), Growth { rows: 1, bytes: row + 10 });
    }
}
