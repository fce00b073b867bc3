//! Finds the position of a time in a tenant's log.
//!
//! * Receive times never decrease along the log. So bisection over its sequences finds the value, and reading
//!   it finds the event. This costs at most 64 single reads, whatever the log's length.
//! * The log knows its last trimmed event. So a time before that is distinguished from a time before the
//!   first event ever.

use std::sync::atomic::Ordering::Acquire;

use super::read_pool::{PieceRead, read_piece};
use super::tenant_log::TenantLog;
use crate::ids::Sequence;
use crate::store::engine::{Engine, EngineError};
use crate::store::format::LogEntry;
use crate::store::format::keys::{self, KeyKind};
use crate::store::format::piece::Records;

/// The position of a time in a tenant's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimePosition {
    /// The position before the first event received at that time or later.
    At(Sequence),
    /// Events of that time were trimmed: the position before the oldest retained one.
    Trimmed(Sequence),
}

/// Finds the position before the first event received at `since_ms` or later, by bisection.
pub(crate) fn position_since(
    engine: &Engine,
    log: &TenantLog,
    since_ms: u64,
) -> Result<TimePosition, EngineError> {
    let damaged = || EngineError::Engine("a log value is damaged".into());
    let committed = log.committed();
    let (tenant, end) = (log.tenant(), keys::after(KeyKind::Log, log.tenant()));
    let (mut low, mut high) = (log.oldest().next().0, committed.0 + 1);
    let mut found = None;
    // The position is in the first value whose latest receive time is not before `since_ms`. `low..high`
    // holds where that value may start.
    while low < high {
        let middle = low + (high - low) / 2;
        let row = engine.first(&keys::log(tenant, Sequence(middle)), &end)?;
        let value = match row {
            Some((key, value)) => {
                let (_, first) = keys::parse_log(&key).map_err(|_| damaged())?;
                let entry = LogEntry::read(&value).map_err(|_| damaged())?;
                (first <= committed).then_some((first, entry))
            }
            None => None,
        };
        match value {
            Some((first, entry)) if entry.head.max_ms < since_ms => low = first.0 + 1,
            Some((first, entry)) => {
                found = Some((first, entry));
                high = middle;
            }
            None => high = middle,
        }
    }
    if since_ms <= log.trimmed_ms.load(Acquire) {
        return Ok(TimePosition::Trimmed(log.oldest()));
    }
    let Some((first, entry)) = found else { return Ok(TimePosition::At(committed)) };
    let mut piece = Vec::new();
    match read_piece(engine, &keys::log(tenant, first), entry, &mut piece)? {
        PieceRead::Whole => {}
        PieceRead::Gone => return Ok(TimePosition::Trimmed(log.oldest())),
        // A reader that continues from here gets the gap.
        PieceRead::Damaged(_) => return Ok(TimePosition::At(Sequence(first.0.saturating_sub(1)))),
    }
    let records = Records::of(&piece).map_err(|_| damaged())?;
    let head = records.head;
    for (at, record) in (0..).zip(records) {
        // The events that made this value the right one may be erased.
        if record.map_err(|_| damaged())?.is_some_and(|record| record.received_ms() >= since_ms) {
            return Ok(TimePosition::At(Sequence((first.0 + at).saturating_sub(1))));
        }
    }
    Ok(TimePosition::At(head.last(first)))
}
