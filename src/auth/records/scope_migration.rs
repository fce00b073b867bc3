//! Rewrites stored API keys once, if their scopes are from before `write`, `agents` and `mint` were scopes of
//! their own.
//!
//! * The store has a marker: the version of the scopes in its keys. It is set in the same commit as the last
//!   keys, before the daemon serves anything, so a key that is created later is never rewritten.
//! * Rewriting a key again does not change it, so a start that was interrupted repeats the whole migration.
//! * [`ScopeSet::of_old_key`] defines the new scopes of a key.

use crate::auth::error::RecordsError;
use crate::auth::rights::scope::ScopeSet;
use crate::store::{ApiKey, Rows, Store};

/// The version of the current scopes. A store without a marker has version 0.
const VERSION: u8 = 1;
/// Maximum number of keys rewritten in one commit.
const KEYS_A_COMMIT: usize = 500;

/// The log text of a start that rewrote keys, after their number.
pub const REWRITTEN_KEYS: &str = "stored API keys keep what they could do: keys with publish or publish:org also have write and agents, \
     keys with all five older scopes have all eight; to narrow a key, create a new one with --scope";

/// Rewrites `keys`, which are all keys of the store, with the current scopes unless that was done before.
/// Returns how many were changed.
///
/// # Errors
/// The keys could not be written. Then nothing may be served, because the next start would take new keys for
/// old ones.
pub(in crate::auth) fn run(store: &Store, keys: &mut [ApiKey]) -> Result<usize, RecordsError> {
    if store.scopes_version_blocking()? >= VERSION {
        return Ok(0);
    }
    let mut rewritten = Vec::new();
    for key in keys.iter_mut() {
        let old = ScopeSet::from_stored(&key.scopes);
        let new = old.of_old_key();
        if new != old {
            key.scopes = new.names().into_iter().map(str::to_owned).collect();
            rewritten.push(&*key);
        }
    }
    for some in rewritten.chunks(KEYS_A_COMMIT) {
        let mut rows = Rows::new();
        some.iter().try_for_each(|key| rows.put_api_key(key)).map_err(|_| RecordsError::TooLong)?;
        store.write_blocking(rows).map_err(|_| RecordsError::Unavailable)?;
    }
    let mut rows = Rows::new();
    rows.put_scopes_version(VERSION).map_err(|_| RecordsError::TooLong)?;
    store.write_blocking(rows).map_err(|_| RecordsError::Unavailable)?;
    Ok(rewritten.len())
}
