//! Lanes: the order in which the rows of each organization expire.
//!
//! * Each tenant has a lane per kind: rows numbered in the order of creation, oldest first. The two ends of
//!   the lane give its length, so nothing is counted at a start, and rows over the age or number limit are
//!   always at its front.
//! * A row is removed only by the lane entry that was created with it: a row that was written again stays.
//! * A day is a day of running time. Rows are dated and aged by [`DayClock`], which changes of the wall clock
//!   do not affect.
//! * A lane exceeds its number limit by at most what one commit adds; the excess is removed before the next
//!   commit ([`DayLanes::collect`]).

use std::collections::{BTreeMap, BTreeSet};

use super::day_clock::DayClock;
use super::records::{CREATED, DAY_MS, LANE_IDEMPOTENCY, LANE_MESSAGE_ID, VERSION, created};
use crate::ids::TenantId;
use crate::store::engine::{Batch, Engine, EngineError};
use crate::store::format::keys::{self, KeyKind};
use crate::time::Clock;

/// Limit on `message_id` rows of an organization; the oldest are removed first.
pub(super) const MESSAGE_IDS: u64 = 16_000_000;
/// Rows removed in one batch.
const REMOVE_AT_ONCE: usize = 256;

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
