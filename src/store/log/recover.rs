//! Recovery: what is read from disk when a database is opened: layout, identity, epoch, and where each
//! tenant's log ends.
//!
//! * A tenant's counters row may be behind its log by up to [`COUNTERS_EVERY`] values. The log's last key
//!   decides, before the tenant's first sequence of this run is assigned. A row that is ahead of the log
//!   never lowers the end.
//! * A new epoch is durable before anybody learns of it.

use ring::rand::{SecureRandom, SystemRandom};

use crate::cursor::CursorKey;
use crate::ids::{COUNTER_BITS, Sequence, TenantId};
use crate::store::engine::state::{State, Value};
use crate::store::engine::{Batch, Engine, EngineError};
use crate::store::format::keys::{self, KeyKind, MetaKey};
use crate::store::format::log_entry::LogEntry;
use crate::store::format::piece::Head;

/// The layout of everything on disk. A newer one is refused; an older one is copied into this one
/// (`migrate.rs`). In layout 4 events are in the journal, and the state is that of a position in the journal.
pub(crate) const SCHEMA: u32 = 4;
/// A sequence has 24 bits for the epoch. That is enough for two thousand starts a day for twenty years.
const LAST_EPOCH: u32 = (1 << (64 - COUNTER_BITS)) - 1;
/// Number of values after which a tenant's counters row is written again. It bounds how much of a log
/// recovery reads.
pub(crate) const COUNTERS_EVERY: u32 = 64;

/// The counters of one tenant's log as recovered from disk. Its row is `version u8 ‖ end ‖ oldest ‖ last
/// received ‖ trimmed received ‖ oldest received ‖ events ‖ bytes`, each u64 BE.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct RecoveredLog {
    /// The last event.
    pub(crate) end: Sequence,
    /// The last trimmed event.
    pub(crate) oldest: Sequence,
    /// Receive time of the last event, Unix milliseconds.
    pub(crate) last_received_ms: u64,
    /// Receive time of the last trimmed event, Unix milliseconds.
    pub(crate) trimmed_ms: u64,
    /// Latest receive time in the oldest retained value, Unix milliseconds; 0 if nothing is retained.
    pub(crate) oldest_ms: u64,
    /// Number of retained events.
    pub(crate) events: u64,
    /// Retained bytes, including keys.
    pub(crate) bytes: u64,
}

impl RecoveredLog {
    const VERSION: u8 = 1;
    const LEN: usize = 1 + 7 * 8;

    pub(crate) fn write(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(Self::LEN);
        row.push(Self::VERSION);
        for n in [
            self.end.0,
            self.oldest.0,
            self.last_received_ms,
            self.trimmed_ms,
            self.oldest_ms,
            self.events,
            self.bytes,
        ] {
            row.extend_from_slice(&n.to_be_bytes());
        }
        row
    }

    pub(crate) fn read(row: &[u8]) -> Option<RecoveredLog> {
        if row.len() != Self::LEN || row[0] != Self::VERSION {
            return None;
        }
        let n = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&row[1 + 8 * at..9 + 8 * at]);
            u64::from_be_bytes(bytes)
        };
        Some(RecoveredLog {
            end: Sequence(n(0)),
            oldest: Sequence(n(1)),
            last_received_ms: n(2),
            trimmed_ms: n(3),
            oldest_ms: n(4),
            events: n(5),
            bytes: n(6),
        })
    }

    /// Counts one more value, `bytes` long with its key.
    pub(crate) fn add(&mut self, first: Sequence, head: &Head, bytes: u64) {
        self.end = self.end.max(head.last(first));
        self.last_received_ms = self.last_received_ms.max(head.max_ms);
        if self.events == 0 {
            self.oldest_ms = head.max_ms;
        }
        self.events += u64::from(head.count);
        self.bytes += bytes;
    }
}

fn damaged(what: &str) -> EngineError {
    EngineError::Engine(format!("{what} is damaged"))
}

/// Finds where the tenant's log ends, and compares the counters row with the log itself.
pub(crate) fn tenant(engine: &Engine, tenant: TenantId) -> Result<RecoveredLog, EngineError> {
    let row = engine.get(&keys::key(KeyKind::Counters, tenant, &[]))?;
    let row = match &row {
        Some(row) => RecoveredLog::read(row),
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
        (None, None) => Ok(RecoveredLog::default()),
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
            let mut recovered = RecoveredLog { events: 0, bytes: 0, oldest_ms: 0, ..row };
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
    into: &mut RecoveredLog,
) -> Result<(), EngineError> {
    for row in engine.range(&keys::log(tenant, after.next()), &keys::after(KeyKind::Log, tenant)) {
        let (key, value) = row?;
        let (_, first) = keys::parse_log(&key).map_err(|_| damaged("a log key"))?;
        let entry = LogEntry::read(&value).map_err(|_| damaged("a log entry"))?;
        into.add(first, &entry.head, entry.bytes(&key));
    }
    Ok(())
}

/// Refuses a state of another layout, and marks an empty one with this layout. The mark must be there before
/// anything else, so that older versions refuse the state.
///
/// # Errors
/// [`EngineError::Layout`], or an error of the state.
pub(crate) fn check_layout(state: &State) -> Result<(), EngineError> {
    let Some(row) = state.get(&keys::meta(MetaKey::Schema))? else {
        state.write(&keys::meta(MetaKey::Schema), Some(&Value::from(&SCHEMA.to_be_bytes())))?;
        return state.sync();
    };
    let row: [u8; 4] = row.as_ref().try_into().map_err(|_| damaged("the schema row"))?;
    match u32::from_be_bytes(row) {
        SCHEMA => Ok(()),
        other => Err(EngineError::Layout(other)),
    }
}

/// Reads the identity, or creates it if there is none.
pub(crate) fn identity(engine: &Engine) -> Result<CursorKey, EngineError> {
    let Some(row) = engine.get(&keys::meta(MetaKey::Identity))? else {
        return match engine.get(&keys::meta(MetaKey::Epoch))? {
            None => create(engine),
            Some(_) => Err(damaged("the identity row")),
        };
    };
    match row.split_first() {
        Some((1, rest)) if rest.len() == 20 => {
            let (mut store_id, mut key) = ([0; 4], [0; 16]);
            store_id.copy_from_slice(&rest[..4]);
            key.copy_from_slice(&rest[4..]);
            Ok(CursorKey { store_id, key })
        }
        _ => Err(damaged("the identity row")),
    }
}

/// A store id and cursor key that no other store has.
fn random_identity() -> Result<[u8; 20], EngineError> {
    let mut made = [0; 20];
    let no_random = |_| EngineError::Engine("the system provides no random numbers".into());
    SystemRandom::new().fill(&mut made).map_err(no_random)?;
    Ok(made)
}

/// The row of a new identity.
///
/// # Errors
/// [`EngineError`] if the system provides no random numbers.
pub(crate) fn identity_row() -> Result<Vec<u8>, EngineError> {
    Ok([&[1], random_identity()?.as_slice()].concat())
}

fn create(engine: &Engine) -> Result<CursorKey, EngineError> {
    let made = random_identity()?;
    let (mut store_id, mut key) = ([0; 4], [0; 16]);
    store_id.copy_from_slice(&made[..4]);
    key.copy_from_slice(&made[4..]);
    let mut batch = Batch::default();
    batch.put(keys::meta(MetaKey::Identity), [&[1], made.as_slice()].concat());
    engine.commit(batch)?;
    Ok(CursorKey { store_id, key })
}

/// Starts the next epoch, above `running` and above the one on disk. It is durable on return.
pub(crate) fn begin_epoch(engine: &Engine, running: u32) -> Result<u32, EngineError> {
    let stored = match engine.get(&keys::meta(MetaKey::Epoch))? {
        None => 0,
        Some(row) => match *row.as_ref() {
            [1, a, b, c, d] => u32::from_be_bytes([a, b, c, d]),
            _ => return Err(damaged("the epoch row")),
        },
    };
    let epoch = stored.max(running).saturating_add(1);
    if epoch > LAST_EPOCH {
        return Err(EngineError::Engine("every epoch is used up".into()));
    }
    engine.set_epoch(epoch);
    let mut batch = Batch::default();
    batch.put(keys::meta(MetaKey::Epoch), [&[1], epoch.to_be_bytes().as_slice()].concat());
    engine.commit(batch)?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::EngineOptions;

    #[test]
    fn the_counters_row_round_trips_and_refuses_other_lengths() {
        let row = RecoveredLog {
            end: Sequence(1),
            oldest: Sequence(2),
            last_received_ms: 3,
            trimmed_ms: 4,
            oldest_ms: 5,
            events: 6,
            bytes: 7,
        };
        let written = row.write();
        assert_eq!(RecoveredLog::read(&written), Some(row));
        assert_eq!(RecoveredLog::read(&written[1..]), None);
        assert_eq!(RecoveredLog::read(&[&[9], &written[1..]].concat()), None);
    }

    fn engine(dir: &std::path::Path) -> Engine {
        let disk = std::sync::Arc::new(crate::store::disk::space::Disk);
        Engine::open(&EngineOptions::new(dir, disk)).expect("the engine opens")
    }

    #[test]
    fn another_layout_is_refused_and_the_identity_is_made_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = |engine: &Engine| identity(engine).map(|key| (key.store_id, key.key)).expect("known");
        let first = engine(dir.path());
        let made = key(&first);
        assert_eq!(key(&first), made);
        drop(first);
        let again = engine(dir.path());
        assert_eq!(key(&again), made);
        drop(again);
        let options = EngineOptions::new(dir.path(), std::sync::Arc::new(crate::store::disk::space::Disk));
        for other in [SCHEMA - 1, SCHEMA + 1] {
            let state = State::open(&options.state, 8 << 20, options.io.clone()).expect("the state opens");
            let row = Value::from(&other.to_be_bytes());
            state.write(&keys::meta(MetaKey::Schema), Some(&row)).expect("written");
            state.sync().expect("synced");
            drop(state);
            assert!(matches!(Engine::open(&options), Err(EngineError::Layout(found)) if found == other));
        }
    }

    #[test]
    fn an_epoch_is_above_what_runs_and_what_is_stored() {
        let dir = tempfile::tempdir().expect("a directory");
        let engine = engine(dir.path());
        assert_eq!(begin_epoch(&engine, 0).expect("begun"), 1);
        assert_eq!(begin_epoch(&engine, 1).expect("begun"), 2);
        assert_eq!(begin_epoch(&engine, 9).expect("begun"), 10);
        assert_eq!(begin_epoch(&engine, 0).expect("begun"), 11);
    }

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
        let row = RecoveredLog {
            end: Sequence(20),
            oldest: Sequence(10),
            events: 10,
            last_received_ms: u64::MAX,
            ..RecoveredLog::default()
        };
        batch.put(keys::key(KeyKind::Counters, id, &[]), row.write());
        engine.commit(batch).expect("committed");
        let found = tenant(&engine, id).expect("read");
        assert_eq!((found.end, found.oldest, found.events), (Sequence(20), Sequence(10), 4));
        assert_eq!(found.last_received_ms, u64::MAX);
        assert_eq!(tenant(&engine, TenantId(4)).expect("read"), RecoveredLog::default());
    }
}
