//! Usage: what organizations store besides their logs. It defines which rows count, and how a batch changes
//! the numbers.
//!
//! * The numbers of an organization are a row of their own ([`KeyKind::Usage`]), written in each batch that
//!   changes them.
//! * This module knows keys and lengths, not what rows mean, and no limit.

use std::collections::HashMap;

use crate::ids::TenantId;
use crate::store::format::keys::{self, KeyKind};

/// If the store has no mark of this version, the rows of all organizations are counted again.
pub(crate) const VERSION: u8 = 1;

/// The usage of an organization.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Resources: agents, messages, memories and their versions, core memory, tools, users.
    pub rows: u64,
    /// Bytes of keys and values of everything but the log: resources, list index entries, postings,
    /// idempotency rows, credentials, text of streams.
    pub bytes: u64,
    /// Stored `Idempotency-Key`s and `message_id`s.
    pub idempotency_rows: u64,
}

impl Usage {
    const LEN: usize = 1 + 3 * 8;

    /// The row of `tenant`: its key and value; no value if the organization stores nothing.
    pub(crate) fn row(self, tenant: TenantId) -> (Vec<u8>, Option<Vec<u8>>) {
        let value = (self != Usage::default()).then(|| self.write());
        (keys::key(KeyKind::Usage, tenant, &[]), value)
    }

    pub(crate) fn write(self) -> Vec<u8> {
        let mut value = Vec::with_capacity(Self::LEN);
        value.push(VERSION);
        for number in [self.rows, self.bytes, self.idempotency_rows] {
            value.extend_from_slice(&number.to_be_bytes());
        }
        value
    }

    pub(crate) fn read(value: &[u8]) -> Option<Usage> {
        let (&[VERSION], rest) = value.split_first_chunk()? else { return None };
        let (numbers, rest) = rest.as_chunks::<8>();
        match (numbers, rest) {
            (&[rows, bytes, idempotency_rows], []) => Some(Usage {
                rows: u64::from_be_bytes(rows),
                bytes: u64::from_be_bytes(bytes),
                idempotency_rows: u64::from_be_bytes(idempotency_rows),
            }),
            _ => None,
        }
    }
}

/// How one batch changes the usage of one organization.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Difference {
    rows: i64,
    bytes: i64,
    idempotency_rows: i64,
}

impl Difference {
    /// Counts a value that changes from `before` to `after` bytes; `None` means that there is no value.
    pub(crate) fn add(&mut self, kind: KeyKind, key: usize, before: Option<usize>, after: Option<usize>) {
        let bytes = |value: Option<usize>| value.map_or(0, |value| (key + value) as i64);
        let number = i64::from(after.is_some()) - i64::from(before.is_some());
        self.bytes += bytes(after) - bytes(before);
        match kind {
            KeyKind::Row => self.rows += number,
            KeyKind::Idempotency | KeyKind::MessageId => self.idempotency_rows += number,
            _ => {}
        }
    }

    pub(crate) fn applied_to(self, usage: Usage) -> Usage {
        Usage {
            rows: usage.rows.saturating_add_signed(self.rows),
            bytes: usage.bytes.saturating_add_signed(self.bytes),
            idempotency_rows: usage.idempotency_rows.saturating_add_signed(self.idempotency_rows),
        }
    }
}

/// Returns true if rows of a kind count towards an organization's usage.
pub(crate) fn is_counted(kind: KeyKind) -> bool {
    match kind {
        KeyKind::ApiKey
        | KeyKind::Revoked
        | KeyKind::DisabledUser
        | KeyKind::Idempotency
        | KeyKind::MessageId
        | KeyKind::Expiry
        | KeyKind::Row
        | KeyKind::ListEntry
        | KeyKind::Term
        | KeyKind::UserSince
        | KeyKind::ListRun
        | KeyKind::OpenStream
        | KeyKind::StreamText => true,
        KeyKind::Meta
        | KeyKind::Log
        | KeyKind::Counters
        | KeyKind::Organization
        | KeyKind::Erase
        | KeyKind::Secret
        | KeyKind::EraseUser
        | KeyKind::Usage
        | KeyKind::Segment
        | KeyKind::StreamFloor
        | KeyKind::StreamExpiry => false,
    }
}

/// Kind and organization of a key that counts.
pub(crate) fn counted_key(key: &[u8]) -> Option<(KeyKind, TenantId)> {
    let kind = keys::kind_of(key).filter(|kind| is_counted(*kind))?;
    let tenant: &[u8; 8] = key.get(1..)?.first_chunk()?;
    // Rows of tenant 0 are the store's own.
    Some((kind, TenantId(u64::from_be_bytes(*tenant)))).filter(|(_, tenant)| tenant.0 != 0)
}

/// One changed row, as usage counts it.
#[derive(Clone, Copy)]
pub(crate) struct ChangedLength<'a> {
    pub(crate) key: &'a [u8],
    /// The length of the new value; `None` if the row is removed.
    pub(crate) after: Option<usize>,
    /// Whether nothing is stored under the key, so that no lookup is needed.
    pub(crate) is_new: bool,
}

/// How changes, in order, change the usage of each organization. `length` returns the length of the value
/// under a key.
pub(super) fn differences<'a, E>(
    changes: impl Iterator<Item = ChangedLength<'a>> + Clone,
    length: impl Fn(&[u8]) -> Result<Option<usize>, E>,
) -> Result<HashMap<TenantId, Difference>, E> {
    let mut differences = HashMap::<TenantId, Difference>::new();
    let mut lengths = HashMap::<&[u8], Option<usize>>::new(); // the lengths after the changes so far
    let counted =
        changes.filter_map(|change| counted_key(change.key).map(|(kind, tenant)| (change, kind, tenant)));
    // If every row is new, no row is changed twice and none had a length before. Most commits are like that.
    let all_are_new = counted.clone().all(|(change, ..)| change.is_new);
    for (ChangedLength { key, after, is_new }, kind, tenant) in counted {
        let before = if all_are_new {
            None
        } else {
            match lengths.insert(key, after) {
                Some(length) => length,
                None if is_new => None,
                None => length(key)?,
            }
        };
        differences.entry(tenant).or_default().add(kind, key.len(), before, after);
    }
    Ok(differences)
}

/// Bytes of a row that is kept for a day, and of its lane entry.
pub(crate) const fn dedup_bytes(tail: usize, value: usize) -> usize {
    let key = keys::HEAD + tail;
    key + value + (keys::HEAD + 9) + (9 + key)
}
