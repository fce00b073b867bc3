//! Rewrites stored API keys once, when their scopes are of the time before `write`, `agents` and `mint` were scopes of their own.
//!
//! * The store has a marker: the version of the scopes that its keys are written in. It is set in the commit of the last keys,
//!   before anything is served, so no key that is made later is ever rewritten.
//! * A rewritten key is unchanged by a second rewriting, so a start that was cut off is repeated whole.
//! * What becomes of a key is [`ScopeSet::of_old_key`].

use super::records::RecordsError;
use super::scope::ScopeSet;
use super::stored::read_error;
use crate::store::{ApiKey, Rows, Store};

/// The version of today's scopes. A store without a marker has version 0.
const VERSION: u8 = 1;
/// Most keys that are rewritten in one commit.
const KEYS_A_COMMIT: usize = 500;

/// What a start that rewrote keys says, after their number.
pub const REWRITTEN_KEYS: &str = "stored API keys keep what they could do: those with publish or publish:org have write and agents \
     too, those with all five older scopes have all eight; narrow them by making new keys with --scope";

/// Writes `keys`, which are all of the store's, out in today's scopes, where that was not done yet; answers how many were changed.
///
/// # Errors
/// They could not be written: nothing may be served then, since the next start would take new keys for old ones.
pub(super) fn run(store: &Store, keys: &mut [ApiKey]) -> Result<usize, RecordsError> {
    if store.scopes_version_blocking().map_err(read_error)? >= VERSION {
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
