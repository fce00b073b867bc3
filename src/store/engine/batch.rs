//! A batch: what one commit writes and removes.

use crate::ids::TenantId;
use crate::store::format::LogEntry;
use crate::store::format::piece::{Head, MAX_VALUE};
use crate::store::journal::PieceLocation;
use crate::store::quota::usage::{ChangedLength, Usage};

/// One row of a batch.
pub(crate) struct RowChange {
    pub(crate) key: Vec<u8>,
    /// The value; `None` removes the row.
    pub(crate) value: Option<Vec<u8>>,
    /// Whether nothing is stored under the key, so that no lookup is needed.
    pub(crate) is_new: bool,
}

/// Packed events of one tenant, to be stored in the journal, and the key of the row that points at them.
pub(crate) struct NewPiece {
    pub(super) key: Vec<u8>,
    pub(super) bytes: Vec<u8>,
    pub(super) head: Head,
}

/// Rows that are written and removed atomically.
#[derive(Default)]
pub(crate) struct Batch {
    /// The changes in order: a later one replaces an earlier one with the same key.
    pub(super) rows: Vec<RowChange>,
    pub(super) pieces: Vec<NewPiece>,
    /// Pieces that no row points at any more.
    pub(super) freed: Vec<PieceLocation>,
    /// Bytes of its keys and values.
    pub(crate) bytes: u64,
}

impl Batch {
    pub(crate) fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        debug_assert!(value.len() <= MAX_VALUE, "a value of {} bytes", value.len());
        self.push(key, Some(value), false);
    }
    /// [`Batch::put`] of a key under which nothing is stored.
    pub(crate) fn put_new(&mut self, key: Vec<u8>, value: Vec<u8>) {
        debug_assert!(value.len() <= MAX_VALUE, "a value of {} bytes", value.len());
        self.push(key, Some(value), true);
    }
    pub(crate) fn delete(&mut self, key: &[u8]) {
        self.push(key.to_vec(), None, false);
    }
    /// Stores packed events in the journal, and under `key` the row that points at them.
    pub(crate) fn put_piece(&mut self, key: Vec<u8>, bytes: Vec<u8>, head: Head) {
        self.bytes += (key.len() + bytes.len()) as u64;
        self.pieces.push(NewPiece { key, bytes, head });
    }
    /// [`Batch::put_piece`] that replaces `old`.
    pub(crate) fn replace_piece(&mut self, key: Vec<u8>, old: &LogEntry, bytes: Vec<u8>, head: Head) {
        self.freed.push(old.piece);
        self.put_piece(key, bytes, head);
    }
    /// Removes packed events.
    pub(crate) fn delete_piece(&mut self, key: &[u8], entry: &LogEntry) {
        self.freed.push(entry.piece);
        self.delete(key);
    }
    fn push(&mut self, key: Vec<u8>, value: Option<Vec<u8>>, is_new: bool) {
        self.bytes += (key.len() + value.as_ref().map_or(0, Vec::len)) as u64;
        self.rows.push(RowChange { key, value, is_new });
    }
    /// Stores the usage of an organization.
    pub(super) fn write_usage(&mut self, tenant: TenantId, usage: Usage) {
        let (key, value) = usage.row(tenant);
        self.push(key, value, false);
    }
    /// The lengths that the changes leave, in order, without those of pieces.
    pub(super) fn changed_lengths(&self) -> impl Iterator<Item = ChangedLength<'_>> + Clone {
        self.rows.iter().map(|row| ChangedLength {
            key: &row.key,
            after: row.value.as_ref().map(Vec::len),
            is_new: row.is_new,
        })
    }
    /// The changes in order, without those of pieces.
    pub(crate) fn changes(&self) -> &[RowChange] {
        &self.rows
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.pieces.is_empty()
    }
}
