//! Rows of tables in memory: those written or read last, bounded by bytes.
//!
//! * The rows of a page lie far apart: from the engine each costs the reading and decoding of a page with a dozen others.
//! * A change comes here after the engine and before anyone is told of it, so who was told never finds what was before.
//! * What is read while its row changes is not kept: the change takes away the place that was held for it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use quick_cache::Weighter;
use quick_cache::sync::{Cache, GuardResult};

use super::engine::Value;

/// What a row costs besides its key and value, as measured with mimalloc: the table's entry, and the rounding of two pieces.
const OVERHEAD: usize = 200;

#[derive(Clone)]
struct Bytes;

impl Weighter<Vec<u8>, Value> for Bytes {
    fn weight(&self, key: &Vec<u8>, row: &Value) -> u64 {
        (OVERHEAD + key.len() + row.len()) as u64
    }
}

/// The cache.
pub(crate) struct RowCache {
    rows: Cache<Vec<u8>, Value, Bytes>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What the cache holds and how often it helped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCacheStats {
    /// Bytes of rows, with what keeping them costs.
    pub bytes: u64,
    /// As many there may be.
    pub limit: u64,
    /// Rows that were found in memory, since the database was opened.
    pub hits: u64,
    /// Rows that were looked for in the engine.
    pub misses: u64,
}

/// How many rows the library is told to expect. It makes room for as many at first, and divides the cache into no more parts than a
/// 32nd of it; neither it nor a part is bound to that number.
const EXPECTED: usize = 1_024;

impl RowCache {
    /// One that holds up to `bytes`.
    pub(super) fn new(bytes: u64) -> RowCache {
        let rows = Cache::with_weighter(EXPECTED, bytes, Bytes);
        RowCache { rows, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The row under `key`: from here, or from `read`, and then it is here.
    pub(super) fn get<E>(
        &self,
        key: &[u8],
        read: impl FnOnce() -> Result<Option<Value>, E>,
    ) -> Result<Option<Value>, E> {
        match self.rows.get_value_or_guard(key, None) {
            GuardResult::Value(row) => {
                self.hits.fetch_add(1, Relaxed);
                Ok(Some(row))
            }
            GuardResult::Guard(guard) => {
                self.misses.fetch_add(1, Relaxed);
                let row = read()?;
                if let Some(row) = &row {
                    let _ = guard.insert(row.clone()); // refused where the row changed meanwhile
                }
                Ok(row)
            }
            GuardResult::Timeout => read(),
        }
    }

    /// The row under `key` if it is here. It counts as neither found nor missed, and grows no older.
    pub(super) fn peek(&self, key: &[u8]) -> Option<Value> {
        self.rows.peek(key)
    }

    /// The row under `key` is `row` now, `None`: it is gone or not known. Kept if it is no more than half a part of the cache.
    pub(super) fn put(&self, key: Vec<u8>, row: Option<Value>) {
        match row {
            Some(row) if Bytes.weight(&key, &row) <= self.rows.shard_capacity() / 2 => {
                self.rows.insert(key, row)
            }
            // Put, a row too large for its part of the cache would not take a reader's place away.
            _ => drop(self.rows.remove(&key)),
        }
    }

    pub(super) fn stats(&self) -> RowCacheStats {
        RowCacheStats {
            bytes: self.rows.weight(),
            limit: self.rows.capacity(),
            hits: self.hits.load(Relaxed),
            misses: self.misses.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn cache(bytes: u64) -> RowCache {
        RowCache::new(bytes)
    }

    fn get(cache: &RowCache, key: &str, stored: Option<&str>) -> Option<Value> {
        let read = || Ok::<_, Infallible>(stored.map(Value::from));
        cache.get(key.as_bytes(), read).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn what_was_read_or_written_is_not_read_again() {
        let cache = cache(1 << 20);
        assert_eq!(get(&cache, "a", Some("1")).as_deref(), Some(&b"1"[..]));
        assert_eq!(get(&cache, "a", None).as_deref(), Some(&b"1"[..]), "from memory");
        cache.put(b"a".to_vec(), Some("2".into()));
        assert_eq!(get(&cache, "a", None).as_deref(), Some(&b"2"[..]), "as it was written");
        cache.put(b"a".to_vec(), None);
        assert_eq!(get(&cache, "a", None), None, "gone");
        assert_eq!(
            get(&cache, "a", Some("3")).as_deref(),
            Some(&b"3"[..]),
            "there again: that it was gone is not kept"
        );
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses), (2, 3));
        assert_eq!(stats.bytes, (OVERHEAD + 2) as u64);
    }

    #[test]
    fn what_changes_while_it_is_read_is_not_kept() {
        let larger_than_the_cache = "x".repeat(70 << 10);
        for now in [Some("new"), None, Some(&larger_than_the_cache)] {
            let cache = cache(64 << 10);
            let read = || {
                cache.put(b"a".to_vec(), now.map(Value::from));
                Ok::<_, Infallible>(Some(Value::from("old")))
            };
            let seen = cache.get(b"a", read).unwrap_or_else(|never| match never {});
            assert_eq!(seen.as_deref(), Some(&b"old"[..]), "it was asked for before");
            assert!(get(&cache, "a", now) == now.map(Value::from), "what was read before is still there");
        }
    }

    #[test]
    fn an_error_keeps_nothing_and_nobody_out() {
        let cache = cache(1 << 20);
        assert_eq!(cache.get(b"a", || Err("broken")), Err("broken"));
        assert_eq!(get(&cache, "a", Some("1")).as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn it_holds_no_more_than_it_may() {
        const MOST: u64 = 1 << 20;
        let cache = cache(MOST);
        for n in 0..10_000 {
            cache.put(format!("row {n}").into_bytes(), Some(vec![0; 1_000].into()));
            assert!(cache.stats().bytes <= MOST);
        }
        assert!(cache.stats().bytes > MOST / 2, "and not much less: {}", cache.stats().bytes);
        cache.put(b"huge".to_vec(), Some(vec![0; 2 << 20].into()));
        assert_eq!(get(&cache, "huge", None), None, "what is larger than its part of the cache is not kept");
    }
}
