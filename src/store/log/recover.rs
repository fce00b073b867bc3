//! Recovery of a log: where it ends, and how much is in it.
//!
//! A counters row may be behind its log by up to [`COUNTERS_EVERY`](crate::store::format::COUNTERS_EVERY) values. The log's last key decides, before
//! the tenant's first sequence of this run is assigned. A row that is ahead of the log never lowers the end.

use crate::ids::{Sequence, TenantId};
use crate::store::engine::{Engine, EngineError};
use crate::store::format::keys::{self, KeyKind};
use crate::store::format::{LogCounters, LogEntry};

fn damaged(what: &str) -> EngineError {
    EngineError::Engine(format!("{what} is damaged"))
}

/// Finds where the tenant's log ends, and compares the counters row with the log itself.
pub(crate) fn tenant(engine: &Engine, tenant: TenantId) -> Result<LogCounters, EngineError> {
    let row = engine.get(&keys::key(KeyKind::Counters, tenant, &[]))?;
    let row = match &row {
        Some(row) => LogCounters::read(row),
        None => None,
    };
    let (from, to) = (keys::log(tenant, Sequence::ZERO), keys::after(KeyKind::Log, tenant));
    let last = match engine.last(&from, &to)? {
        None => None,
        Some((key, value)) => {
            let (_, first) = keys::parse_log(&key).map_err(|_| damaged("a log key"))?;
            Some(LogEntry::read(&value).map_err(|_| damaged("a log entry"))?.head.last(first))
        }
    };
    match (row, last) {
        (None, None) => Ok(LogCounters::default()),
        (Some(row), Some(last)) if last == row.end && row.events > 0 => Ok(row),
        (Some(row), None) if row.events == 0 => Ok(row),
        (Some(row), Some(last)) if last > row.end => {
            let mut recovered = row;
            count(engine, tenant, row.end, &mut recovered)?;
            let (row, log) = (row.end, last);
            tracing::info!(tenant = tenant.0, ?row, ?log, "counters were behind the log: repaired");
            Ok(recovered)
        }
        (row, _) => {
            // There is no row, or it names events that the log does not have. Count the log, and keep the
            // higher end.
            let row = row.unwrap_or_default();
            let mut recovered = LogCounters { events: 0, bytes: 0, oldest_ms: 0, ..row };
            count(engine, tenant, row.oldest, &mut recovered)?;
            tracing::warn!(tenant = tenant.0, row = ?row.end, log = ?last, "counters disagreed with the log: counted anew");
            Ok(recovered)
        }
    }
}

/// Adds every value after `after`.
fn count(
    engine: &Engine,
    tenant: TenantId,
    after: Sequence,
    into: &mut LogCounters,
) -> Result<(), EngineError> {
    for row in engine.range(&keys::log(tenant, after.next()), &keys::after(KeyKind::Log, tenant)) {
        let (key, value) = row?;
        let (_, first) = keys::parse_log(&key).map_err(|_| damaged("a log key"))?;
        let entry = LogEntry::read(&value).map_err(|_| damaged("a log entry"))?;
        into.add(first, &entry.head, entry.bytes(&key));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::Batch;
    use crate::store::engine::tests::engine;

    /// The row says more than the log holds: the log is counted, and no sequence is used again.
    #[test]
    fn counters_ahead_of_the_log_never_lower_the_end() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = engine(dir.path());
        let id = TenantId(3);
        let mut packer = crate::store::format::piece::Packer::default();
        let mut packed = Vec::new();
        for sequence in 11..=14 {
            let frame = crate::frame::tests::frame(r#"{"type":"custom","channel":"c","data":1}"#, sequence);
            packer.push(&frame, true, &mut |value| packed.push(value)).expect("fits");
        }
        packer.finish(&mut |value| packed.push(value));
        let mut batch = Batch::default();
        let value = packed.remove(0);
        batch.put_piece(keys::log(id, value.first), value.value, value.head);
        let row = LogCounters {
            end: Sequence(20),
            oldest: Sequence(10),
            events: 10,
            last_received_ms: u64::MAX,
            ..LogCounters::default()
        };
        batch.put(keys::key(KeyKind::Counters, id, &[]), row.write());
        engine.commit(batch).expect("committed");
        let found = tenant(&engine, id).expect("read");
        assert_eq!((found.end, found.oldest, found.events), (Sequence(20), Sequence(10), 4));
        assert_eq!(found.last_received_ms, u64::MAX);
        assert_eq!(tenant(&engine, TenantId(4)).expect("read"), LogCounters::default());
    }
}
