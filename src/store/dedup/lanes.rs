//! Rows that expire after a day: responses to an `IdempotencyRecord-Key`, and client-given `message_id`s.
//!
//! * Each tenant has a lane per kind: rows numbered in the order of creation, oldest first. The two ends of
//!   the lane give its length, so nothing is counted at a start, and rows over the age or number limit are
//!   always at its front.
//! * A row is removed only by the lane entry that was created with it: a row that was written again stays.
//! * A day is a day of running time. Rows are dated and aged by [`DayClock`], which changes of the wall clock
//!   do not affect.
//! * A lane exceeds its number limit by at most what one commit adds; the excess is removed before the next
//!   commit ([`DayLanes::collect`]).
//! * Callers compare bodies; this module stores only digests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ids::{Sequence, TenantId};
use crate::store::engine::{Batch, Engine, EngineError, Value};
use crate::store::format::keys::{self, ExpiryLane, KeyKind};
use crate::store::rows::builder::{Rows, TooLong};
use crate::time::Clock;

/// How long such a row is kept, in milliseconds.
pub const DAY_MS: u64 = 24 * 60 * 60 * 1000;
/// Limit on `message_id` rows of an organization; the oldest are removed first.
pub(crate) const MESSAGE_IDS: u64 = 16_000_000;
/// Rows removed in one batch.
const REMOVE_AT_ONCE: usize = 256;

const VERSION: u8 = 1;
const LANE_IDEMPOTENCY: u8 = ExpiryLane::Idempotency as u8;
const LANE_MESSAGE_ID: u8 = ExpiryLane::MessageId as u8;

/// The stored row of a request with an `IdempotencyRecord-Key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyRecord {
    /// SHA-256 of the request body.
    pub body: [u8; 32],
    /// The response.
    pub answer: StoredResponse,
    /// Creation time in Unix milliseconds by the store's [`DayClock`]. The commit sets it; a value set before
    /// is ignored.
    pub created_ms: u64,
}

/// A response in its shortest stored form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredResponse {
    /// A publish of `count` events that start at `first`.
    Published {
        /// Sequence of the first event.
        first: Sequence,
        /// Number of events.
        count: u32,
    },
    /// Status, version and body of a response, which is repeated as it is.
    Stored {
        /// HTTP status.
        status: u16,
        /// The version of the resource in the body, if it has one.
        version: Option<u64>,
        /// The body.
        body: Vec<u8>,
    },
    /// The response held a secret and was not stored. Only the id of the created resource is.
    Withheld {
        /// The id of the created resource.
        id: String,
    },
}

/// The stored row of a client-given `message_id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageIdRecord {
    /// SHA-256 of the published event.
    pub body: [u8; 32],
    /// Sequence of the first event with this id.
    pub sequence: Sequence,
    /// Creation time, as in [`IdempotencyRecord::created_ms`].
    pub created_ms: u64,
}

impl Rows {
    /// Stores a response under `scope` (see [`scope`]) for a day.
    ///
    /// # Errors
    /// [`TooLong`] if the response does not fit into a row.
    pub fn put_idempotency(
        &mut self,
        tenant: TenantId,
        scope: &[u8; 32],
        row: &IdempotencyRecord,
    ) -> Result<(), TooLong> {
        let mut value = head(row.created_ms, &row.body);
        match &row.answer {
            StoredResponse::Published { first, count } => {
                value.push(0);
                value.extend_from_slice(&first.0.to_be_bytes());
                value.extend_from_slice(&count.to_be_bytes());
            }
            StoredResponse::Stored { status, version, body } => {
                value.push(if version.is_some() { 3 } else { 1 });
                value.extend_from_slice(&status.to_be_bytes());
                value.extend(version.iter().flat_map(|version| version.to_be_bytes()));
                value.extend_from_slice(body);
            }
            StoredResponse::Withheld { id } => {
                value.push(2);
                value.extend_from_slice(id.as_bytes());
            }
        }
        self.put_dedup(LANE_IDEMPOTENCY, KeyKind::Idempotency, tenant, scope, value)
    }

    /// Stores a `message_id` under the `scope` of user and id for a day.
    ///
    /// # Errors
    /// Never in practice: the row is small.
    pub fn put_message_id(
        &mut self,
        tenant: TenantId,
        scope: &[u8; 32],
        row: &MessageIdRecord,
    ) -> Result<(), TooLong> {
        let mut value = head(row.created_ms, &row.body);
        value.extend_from_slice(&row.sequence.0.to_be_bytes());
        self.put_dedup(LANE_MESSAGE_ID, KeyKind::MessageId, tenant, scope, value)
    }
}

/// Encodes `version ‖ created u64 BE ‖ body digest`.
fn head(created_ms: u64, body: &[u8; 32]) -> Vec<u8> {
    let mut value = Vec::with_capacity(64);
    value.push(VERSION);
    value.extend_from_slice(&created_ms.to_be_bytes());
    value.extend_from_slice(body);
    value
}

/// The bytes of [`head`] that hold the creation time.
const CREATED: std::ops::Range<usize> = 1..9;

fn created(value: &[u8]) -> Option<u64> {
    match value.split_first() {
        Some((&VERSION, rest)) => rest.first_chunk().map(|ms| u64::from_be_bytes(*ms)),
        _ => None,
    }
}

fn split_head(value: &[u8]) -> Option<(u64, [u8; 32], &[u8])> {
    let created_ms = created(value)?;
    let (body, rest) = value.get(9..)?.split_first_chunk()?;
    Some((created_ms, *body, rest))
}

pub(crate) fn read_idempotency(value: &[u8]) -> Option<IdempotencyRecord> {
    let (created_ms, body, rest) = split_head(value)?;
    let (&tag, rest) = rest.split_first()?;
    let answer = match tag {
        0 => {
            let (first, count) = rest.split_first_chunk()?;
            let count = u32::from_be_bytes(count.try_into().ok()?);
            StoredResponse::Published { first: Sequence(u64::from_be_bytes(*first)), count }
        }
        1 => {
            let (status, body) = rest.split_first_chunk()?;
            StoredResponse::Stored { status: u16::from_be_bytes(*status), version: None, body: body.to_vec() }
        }
        3 => {
            let (status, rest) = rest.split_first_chunk()?;
            let (version, body) = rest.split_first_chunk()?;
            let version = Some(u64::from_be_bytes(*version));
            StoredResponse::Stored { status: u16::from_be_bytes(*status), version, body: body.to_vec() }
        }
        2 => StoredResponse::Withheld { id: std::str::from_utf8(rest).ok()?.to_owned() },
        _ => return None,
    };
    Some(IdempotencyRecord { body, answer, created_ms })
}

pub(crate) fn read_message_id(value: &[u8]) -> Option<MessageIdRecord> {
    let (created_ms, body, rest) = split_head(value)?;
    let sequence = Sequence(u64::from_be_bytes(rest.try_into().ok()?));
    Some(MessageIdRecord { body, sequence, created_ms })
}

/// The clock that dates and ages the rows of lanes. It starts at the wall clock's time when the store opens,
/// or at the newest row's time if that is later, and continues with the monotonic clock. Within a run no row
/// looks older or younger than it is, and none is from the future.
#[derive(Debug, Default)]
pub(crate) struct DayClock {
    /// Unix milliseconds at the monotonic clock's zero. Written when the store opens.
    zero_ms: AtomicU64,
}

impl DayClock {
    fn start(&self, clock: &dyn Clock, newest_ms: u64) {
        let now_ms = clock.now_ms().max(newest_ms);
        self.zero_ms.fetch_max(now_ms.saturating_sub(clock.monotonic_us() / 1_000), Ordering::Relaxed);
    }

    /// The current time in Unix milliseconds.
    pub(crate) fn now_ms(&self, clock: &dyn Clock) -> u64 {
        self.zero_ms.load(Ordering::Relaxed).saturating_add(clock.monotonic_us() / 1_000)
    }
}

/// The two ends of one tenant's lane.
#[derive(Debug)]
struct DayLane {
    /// Ordinal of the oldest row.
    first: u64,
    /// Ordinal of the next row.
    next: u64,
    /// Creation time of the oldest row in Unix milliseconds; its key in [`DayLanes::due`].
    oldest_ms: u64,
}

/// Every lane that has rows. Owned by the committer.
#[derive(Default)]
pub(crate) struct DayLanes {
    lanes: BTreeMap<(TenantId, u8), DayLane>,
    /// The lanes by the age of their oldest row.
    due: BTreeSet<(u64, TenantId, u8)>,
    /// Lanes that may exceed their number limit.
    over: BTreeSet<(TenantId, u8)>,
    /// Limit on idempotency rows of a tenant.
    idempotency_rows: u64,
    /// Rows added since the last collection.
    pushed: u64,
}

/// The number of rows that one collection removed, and how many of them were removed by the number limit
/// before a day had passed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct CollectedRows {
    pub(crate) removed: u64,
    pub(crate) dropped: u64,
}

impl CollectedRows {
    fn add(&mut self, more: CollectedRows) {
        self.removed += more.removed;
        self.dropped += more.dropped;
    }
}

/// Encodes `created u64 BE ‖ the row's key` behind a version byte.
fn entry(created_ms: u64, key: &[u8]) -> Vec<u8> {
    [&[VERSION], created_ms.to_be_bytes().as_slice(), key].concat()
}

impl DayLanes {
    /// Finds every lane by its two ends, and starts `day` after the newest row.
    pub(crate) fn load(
        engine: &Engine,
        idempotency_rows: u64,
        day: &DayClock,
        clock: &dyn Clock,
    ) -> Result<DayLanes, EngineError> {
        let mut lanes = DayLanes { idempotency_rows, ..DayLanes::default() };
        let mut newest_ms = 0;
        let end = [KeyKind::Expiry as u8 + 1];
        let mut from = vec![KeyKind::Expiry as u8];
        while let Some((key, value)) = engine.first(&from, &end)? {
            let (tenant, lane, first) = parse(&key)?;
            from = keys::expiry(tenant, lane, u64::MAX);
            let next = match engine.last(&keys::expiry(tenant, lane, first), &from)? {
                Some((key, value)) => {
                    newest_ms = newest_ms.max(created(&value).unwrap_or(0));
                    parse(&key)?.2 + 1
                }
                None => first + 1,
            };
            let oldest_ms = created(&value).unwrap_or(0);
            lanes.lanes.insert((tenant, lane), DayLane { first, next, oldest_ms });
            lanes.due.insert((oldest_ms, tenant, lane));
            lanes.over.insert((tenant, lane));
        }
        day.start(clock, newest_ms);
        Ok(lanes)
    }

    /// Adds a row, dated `now_ms`, and its lane entry.
    pub(crate) fn push(
        &mut self,
        batch: &mut Batch,
        lane: u8,
        tenant: TenantId,
        key: Vec<u8>,
        mut value: Vec<u8>,
        created_ms: u64,
    ) {
        if let Some(date) = value.get_mut(CREATED) {
            date.copy_from_slice(&created_ms.to_be_bytes());
        }
        self.pushed += 1;
        let limit = self.limit(lane);
        let due = &mut self.due;
        let ends = self.lanes.entry((tenant, lane)).or_insert_with(|| {
            due.insert((created_ms, tenant, lane));
            DayLane { first: 0, next: 0, oldest_ms: created_ms }
        });
        batch.put(keys::expiry(tenant, lane, ends.next), entry(created_ms, &key));
        batch.put(key, value);
        ends.next += 1;
        if ends.next - ends.first > limit {
            self.over.insert((tenant, lane));
        }
    }

    fn limit(&self, lane: u8) -> u64 {
        if lane == LANE_IDEMPOTENCY { self.idempotency_rows } else { MESSAGE_IDS }
    }

    /// Number of entries of all in-memory tables.
    pub(crate) fn entries(&self) -> usize {
        self.lanes.len() + self.due.len() + self.over.len()
    }

    /// Removes an erased tenant's lanes.
    pub(crate) fn forget(&mut self, tenant: TenantId) {
        for lane in [LANE_IDEMPOTENCY, LANE_MESSAGE_ID] {
            if let Some(ends) = self.lanes.remove(&(tenant, lane)) {
                self.due.remove(&(ends.oldest_ms, tenant, lane));
                self.over.remove(&(tenant, lane));
            }
        }
    }

    /// Removes rows over the number limit, as many as were added since the last call and one batch more, and
    /// one batch of rows over the age limit. So neither kind delays the other, and no tenant's lane delays
    /// another's for long.
    pub(crate) fn collect(&mut self, engine: &Engine, now_ms: u64) -> Result<CollectedRows, EngineError> {
        let mut collected = CollectedRows::default();
        let most = std::mem::take(&mut self.pushed) + REMOVE_AT_ONCE as u64;
        while collected.removed < most
            && let Some((tenant, lane)) = self.over.pop_first()
        {
            let limit = self.limit(lane);
            let excess =
                self.lanes.get(&(tenant, lane)).map_or(0, |l| (l.next - l.first).saturating_sub(limit));
            if excess > 0 {
                self.over.insert((tenant, lane));
                collected.add(self.take(engine, tenant, lane, excess, now_ms)?);
            }
        }
        if let Some(&(oldest_ms, tenant, lane)) = self.due.first()
            && oldest_ms.saturating_add(DAY_MS) <= now_ms
        {
            collected.add(self.take(engine, tenant, lane, 0, now_ms)?);
        }
        Ok(collected)
    }

    fn take(
        &mut self,
        engine: &Engine,
        tenant: TenantId,
        lane: u8,
        excess: u64,
        now_ms: u64,
    ) -> Result<CollectedRows, EngineError> {
        let (mut batch, mut collected) = (Batch::default(), CollectedRows::default());
        let Some(ends) = self.lanes.get_mut(&(tenant, lane)) else { return Ok(collected) };
        let (mut first, mut oldest_ms) = (ends.next, None);
        let from = keys::expiry(tenant, lane, ends.first);
        for row in engine.range(&from, &keys::expiry(tenant, lane, u64::MAX)) {
            let (key, value) = row?;
            let ordinal = parse(&key)?.2;
            let created_ms = created(&value).unwrap_or(0);
            // Only a version without the day clock left rows from the future.
            let old = created_ms.saturating_add(DAY_MS) <= now_ms || created_ms > now_ms;
            let done = collected.removed as usize >= REMOVE_AT_ONCE;
            if done || !(old || collected.removed < excess) {
                (first, oldest_ms) = (ordinal, Some(created_ms));
                break;
            }
            batch.delete(&key);
            let row = value.get(9..).unwrap_or_default();
            if engine.get(row)?.as_deref().and_then(created) == Some(created_ms) {
                batch.delete(row);
            }
            collected.removed += 1;
            collected.dropped += u64::from(!old);
        }
        engine.apply(batch)?;
        self.due.remove(&(ends.oldest_ms, tenant, lane));
        ends.first = first;
        match oldest_ms {
            Some(ms) => {
                ends.oldest_ms = ms;
                self.due.insert((ms, tenant, lane));
            }
            // The lane is empty. Ordinals may start again, because no row holds the old ones.
            None => drop(self.lanes.remove(&(tenant, lane))),
        }
        Ok(collected)
    }
}

fn parse(key: &[u8]) -> Result<(TenantId, u8, u64), EngineError> {
    keys::parse_expiry(key).map_err(|_| EngineError::Engine("an expiry key is damaged".into()))
}

/// Returns a row's value unless it is over a day old by the [`DayClock`].
pub(crate) fn fresh(value: Option<Value>, now_ms: u64) -> Option<Value> {
    value.filter(|value| created(value).is_some_and(|ms| now_ms < ms.saturating_add(DAY_MS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_round_trip_and_refuse_other_lengths() {
        let answers = [
            StoredResponse::Published { first: Sequence(9), count: 3 },
            StoredResponse::Stored { status: 201, version: None, body: b"{}".to_vec() },
            StoredResponse::Stored { status: 201, version: Some(7), body: b"{}".to_vec() },
            StoredResponse::Withheld { id: "key-1".into() },
        ];
        for answer in answers {
            let row = IdempotencyRecord { body: [3; 32], answer, created_ms: 77 };
            let mut rows = Rows::new();
            rows.put_idempotency(TenantId(1), &[1; 32], &row).expect("small");
            let Some(crate::store::rows::builder::PendingChange::Dedup { value, .. }) =
                rows.into_changes().pop()
            else {
                panic!("a daily row");
            };
            assert_eq!(read_idempotency(&value), Some(row));
            assert!((0..42).all(|len| read_idempotency(&value[..len]).is_none()));
        }
        assert_eq!(read_message_id(&[1; 48]), None);
    }
}
