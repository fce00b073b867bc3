//! Usage: what organizations store besides their logs. It defines which rows count, and how a batch changes
//! the numbers.
//!
//! * The numbers of an organization are a row of their own ([`KeyKind::Usage`]), written in each batch that
//!   changes them.
//! * This module knows keys and lengths, not what rows mean, and no limit.

use std::collections::HashMap;
use std::time::Instant;

use crate::ids::TenantId;
use crate::store::engine::{Batch, Engine, EngineError};
use crate::store::format::keys::{self, KeyKind, MetaKey};

/// If the store has no mark of this version, the rows of all organizations are counted again.
pub(crate) const VERSION: u8 = 1;
/// Organizations whose usage is written in one batch when all rows are counted.
const COUNTED_AT_ONCE: usize = 10_000;

/// The usage of an organization.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Resources: agents, messages, memories and their versions, core memory, tools, users.
    pub rows: u64,
    /// Bytes of keys and values of everything but the log: resources, list index entries, postings,
    /// idempotency rows, credentials.
    pub bytes: u64,
    /// Stored `Idempotency-Key`s and `message_id`s.
    pub idempotency_rows: u64,
}

impl Usage {
    const LEN: usize = 1 + 3 * 8;

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
fn is_counted(kind: KeyKind) -> bool {
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
        | KeyKind::ListRun => true,
        KeyKind::Meta
        | KeyKind::Log
        | KeyKind::Counters
        | KeyKind::Organization
        | KeyKind::Erase
        | KeyKind::Secret
        | KeyKind::EraseUser
        | KeyKind::Usage
        | KeyKind::Segment => false,
    }
}

/// Kind and organization of a key that counts.
pub(crate) fn counted_key(key: &[u8]) -> Option<(KeyKind, TenantId)> {
    let kind = keys::kind_of(key).filter(|kind| is_counted(*kind))?;
    let tenant: &[u8; 8] = key.get(1..)?.first_chunk()?;
    // Rows of tenant 0 are the store's own.
    Some((kind, TenantId(u64::from_be_bytes(*tenant)))).filter(|(_, tenant)| tenant.0 != 0)
}

/// Loads every organization's usage. If no earlier run has counted the rows, it counts them first.
pub(crate) fn load(engine: &Engine) -> Result<Vec<(TenantId, Usage)>, EngineError> {
    if engine.get(&keys::meta(MetaKey::Usage))?.as_deref() != Some(&[VERSION]) {
        recount(engine)?;
    }
    let mut found = Vec::new();
    for row in engine.range(&[KeyKind::Usage as u8], &[KeyKind::Usage as u8 + 1]) {
        let (key, value) = row?;
        match (keys::parse(&key), Usage::read(&value)) {
            (Ok((_, tenant, _)), Some(usage)) => found.push((tenant, usage)),
            _ => return Err(EngineError::Engine("a usage row is damaged".into())),
        }
    }
    Ok(found)
}

/// How `batch` changes the usage of each organization.
pub(crate) fn differences(
    engine: &Engine,
    batch: &Batch,
) -> Result<HashMap<TenantId, Difference>, EngineError> {
    let mut differences = HashMap::<TenantId, Difference>::new();
    let mut lengths = HashMap::<&[u8], Option<usize>>::new(); // the lengths after the changes so far
    let counted_changes = || {
        let changes = batch.changes().iter();
        changes.filter_map(|change| counted_key(&change.key).map(|(kind, tenant)| (change, kind, tenant)))
    };
    // If every row is new, no row is changed twice and none had a length before. Most commits are like that.
    let all_are_new = counted_changes().all(|(change, ..)| change.is_new);
    for (change, kind, tenant) in counted_changes() {
        let after = change.value.as_ref().map(Vec::len);
        let before = if all_are_new {
            None
        } else {
            match lengths.insert(&change.key, after) {
                Some(length) => length,
                None if change.is_new => None,
                None => engine.length(&change.key)?,
            }
        };
        differences.entry(tenant).or_default().add(kind, change.key.len(), before, after);
    }
    Ok(differences)
}

/// The usage of every organization, counted from its rows.
pub(crate) fn count(engine: &Engine) -> Result<HashMap<TenantId, Usage>, EngineError> {
    let mut found = HashMap::<TenantId, Difference>::new();
    for kind in KeyKind::ALL.iter().copied().filter(|kind| is_counted(*kind)) {
        for row in engine.range(&[kind as u8], &[kind as u8 + 1]) {
            let (key, value) = row?;
            if let Some((kind, tenant)) = counted_key(&key) {
                found.entry(tenant).or_default().add(kind, key.len(), None, Some(value.len()));
            }
        }
    }
    let all = found.into_iter();
    Ok(all.map(|(tenant, difference)| (tenant, difference.applied_to(Usage::default()))).collect())
}

/// Counts all rows, and replaces the stored usage of every organization.
fn recount(engine: &Engine) -> Result<(), EngineError> {
    let started = Instant::now();
    let mut batch = Batch::default();
    for row in engine.range(&[KeyKind::Usage as u8], &[KeyKind::Usage as u8 + 1]) {
        batch.delete(&row?.0);
    }
    let found = count(engine)?;
    let organizations = found.len();
    for (at, (tenant, usage)) in found.into_iter().enumerate() {
        batch.put(keys::key(KeyKind::Usage, tenant, &[]), usage.write());
        if at % COUNTED_AT_ONCE == COUNTED_AT_ONCE - 1 {
            engine.apply(std::mem::take(&mut batch))?;
        }
    }
    batch.put(keys::meta(MetaKey::Usage), vec![VERSION]); // written last: without it everything is counted again
    engine.commit(batch)?;
    if organizations > 0 {
        tracing::info!(organizations, took = ?started.elapsed(), "counted the usage of all organizations; later starts need not count again");
    }
    Ok(())
}
