//! The row cache: rows of tables in memory, those written or read last, bounded in bytes.
//!
//! * The rows of a page of a list are far apart: for each, the engine reads and decodes one of its pages with
//!   a dozen other rows.
//! * A change reaches this cache after the engine and before its commit is reported. So a caller that
//!   was notified of the change never reads an older row.
//! * A row that changes while it is read is not cached: the change removes the placeholder of the read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use quick_cache::Weighter;
use quick_cache::sync::{Cache, GuardResult};

use super::state::Value;

/// Memory of a row besides its key and value, as measured with mimalloc: the table's entry, and the rounding
/// of two allocations.
const OVERHEAD: usize = 200;

#[derive(Clone)]
struct Bytes;

impl Weighter<Vec<u8>, Value> for Bytes {
    fn weight(&self, key: &Vec<u8>, row: &Value) -> u64 {
        (OVERHEAD + key.len() + row.len()) as u64
    }
}

/// The row cache.
pub(crate) struct RowCache {
    rows: Cache<Vec<u8>, Value, Bytes>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// Statistics of the row cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCacheStats {
    /// Bytes of rows, including the overhead.
    pub bytes: u64,
    /// Limit of these bytes.
    pub limit: u64,
    /// Rows found in the cache since the database was opened.
    pub hits: u64,
    /// Rows looked up in the engine.
    pub misses: u64,
}

/// The number of rows that the library expects. It allocates room for as many at first, and divides
/// the cache into at most a 32nd of it as shards. Neither the cache nor a shard is limited to that number.
const EXPECTED: usize = 1_024;

impl RowCache {
    /// Creates a cache of up to `bytes`.
    pub(crate) fn new(bytes: u64) -> RowCache {
        let rows = Cache::with_weighter(EXPECTED, bytes, Bytes);
        RowCache { rows, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    /// The row under `key` from the cache; if it is not there, from `read`, and then it is cached.
    pub(crate) fn get<E>(
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
                    let _ = guard.insert(row.clone()); // refused if the row changed meanwhile
                }
                Ok(row)
            }
            GuardResult::Timeout => read(),
        }
    }

    /// The row under `key` if it is cached. This is not counted as a hit or a miss, and does not change the
    /// eviction order.
    pub(crate) fn peek(&self, key: &[u8]) -> Option<Value> {
        self.rows.peek(key)
    }

    /// Stores `row` as the current row under `key`; `None` if it was removed or is not known. It is cached if
    /// it is at most half of a shard of the cache.
    pub(crate) fn put(&self, key: Vec<u8>, row: Option<Value>) {
        match row {
            Some(row) if Bytes.weight(&key, &row) <= self.rows.shard_capacity() / 2 => {
                self.rows.insert(key, row)
            }
            // This is not a `put`: one of a row too large for its shard would not remove a reader's
            // placeholder.
            _ => drop(self.rows.remove(&key)),
        }
    }

    pub(crate) fn stats(&self) -> RowCacheStats {
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
    fn rows_read_or_written_are_served_from_the_cache() {
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
    fn a_row_that_changes_while_it_is_read_is_not_cached() {
        let larger_than_the_cache = "x".repeat(70 << 10);
        for now in [Some("new"), None, Some(&larger_than_the_cache)] {
            let cache = cache(64 << 10);
            let read = || {
                cache.put(b"a".to_vec(), now.map(Value::from));
                Ok::<_, Infallible>(Some(Value::from("old")))
            };
            let seen = cache.get(b"a", read).unwrap_or_else(|never| match never {});
            assert_eq!(seen.as_deref(), Some(&b"old"[..]), "the read started before the change");
            assert!(
                get(&cache, "a", now) == now.map(Value::from),
                "the row read before the change is still cached"
            );
        }
    }

    #[test]
    fn an_error_caches_nothing_and_blocks_no_reader() {
        let cache = cache(1 << 20);
        assert_eq!(cache.get(b"a", || Err("broken")), Err("broken"));
        assert_eq!(get(&cache, "a", Some("1")).as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn the_row_cache_stays_within_its_limit() {
        const MOST: u64 = 1 << 20;
        let cache = cache(MOST);
        for n in 0..10_000 {
            cache.put(format!("row {n}").into_bytes(), Some(vec![0; 1_000].into()));
            assert!(cache.stats().bytes <= MOST);
        }
        assert!(cache.stats().bytes > MOST / 2, "and not much less: {}", cache.stats().bytes);
        cache.put(b"huge".to_vec(), Some(vec![0; 2 << 20].into()));
        assert_eq!(get(&cache, "huge", None), None, "a row larger than its shard is not cached");
    }
}
