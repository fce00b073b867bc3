//! The identity of a store and its epoch.
//!
//! * The identity is made once. Cursors are signed with it.
//! * A new epoch is durable before anybody learns of it.

use ring::rand::{SecureRandom, SystemRandom};

use crate::cursor::CursorKey;
use crate::ids::COUNTER_BITS;
use crate::store::engine::{Batch, Engine, EngineError};
use crate::store::format::keys::{self, MetaKey};

/// A sequence has 24 bits for the epoch. That is enough for two thousand starts a day for twenty years.
const LAST_EPOCH: u32 = (1 << (64 - COUNTER_BITS)) - 1;

fn damaged(what: &str) -> EngineError {
    EngineError::Engine(format!("{what} is damaged"))
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
    use crate::store::disk::Disk;
    use crate::store::engine::tests::engine;
    use crate::store::engine::{EngineOptions, SCHEMA, State, Value};

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
        let options = EngineOptions::new(dir.path(), std::sync::Arc::new(Disk));
        for other in [SCHEMA - 2, SCHEMA + 1] {
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
}
