//! Cache of log pages, shared by all readers of the same stretch. It is bounded in bytes; the least recently
//! read page is evicted first.
//!
//! * An entry covers the positions from `from` to its last event: no event lies between `from` and its first
//!   event. So a reader at any position finds its entry, and the next one, without reading the disk.
//! * Only committed events enter. Trimmed events may remain for a while: readers compare with the low-water
//!   mark.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::page::{self, PageForm, PageSpan};
use crate::frame::frame_page::FramePage;
use crate::ids::{Sequence, TenantId};
use crate::sync::Mutex;

struct Entry<P> {
    from: Sequence,
    page: Arc<P>,
    /// The entry's key in `ages`.
    age: u64,
}

struct Entries<P> {
    /// Entries by tenant and last sequence.
    entries: BTreeMap<(TenantId, Sequence), Entry<P>>,
    ages: BTreeMap<u64, (TenantId, Sequence)>,
    next_age: u64,
    bytes: usize,
    /// Number of times that pages were invalidated.
    forgotten: u64,
}

impl<P> Default for Entries<P> {
    fn default() -> Entries<P> {
        Entries { entries: BTreeMap::new(), ages: BTreeMap::new(), next_age: 0, bytes: 0, forgotten: 0 }
    }
}

/// The cache of pages in one form.
pub(crate) struct PageCache<P = FramePage> {
    inner: Mutex<Entries<P>>,
    /// Limit on the bytes of frames.
    limit: usize,
}

impl<P: PageForm> PageCache<P> {
    pub(crate) fn new(limit: usize) -> PageCache<P> {
        PageCache { inner: Mutex::default(), limit }
    }

    /// Returns the page with the events after `after` in `tenant`, if it is cached.
    pub(crate) fn page(&self, tenant: TenantId, after: Sequence) -> Option<Arc<P>> {
        self.inner.lock().touch(tenant, after)
    }

    /// Returns true if [`PageCache::page`] would return a page.
    pub(crate) fn has(&self, tenant: TenantId, after: Sequence) -> bool {
        self.inner.lock().find(tenant, after).is_some()
    }

    /// Number of invalidations so far. Read it before reading the data that is to be inserted.
    pub(crate) fn forgotten(&self) -> u64 {
        self.inner.lock().forgotten
    }

    /// Inserts pages that were read since [`PageCache::forgotten`] returned `before`. Inserts nothing if
    /// there was an invalidation in between, because the pages may have been read before an erasure.
    pub(crate) fn insert(&self, tenant: TenantId, pages: &[PageSpan<P>], before: u64) {
        // Pages are dropped outside the lock.
        let mut dropped = Vec::new();
        let mut inner = self.inner.lock();
        if inner.forgotten != before {
            return;
        }
        for stretch in pages {
            dropped.extend(inner.insert(tenant, stretch));
        }
        while inner.bytes > self.limit {
            let Some((_, key)) = inner.ages.pop_first() else { break };
            if let Some(entry) = inner.entries.remove(&key) {
                inner.bytes -= page::size(&*entry.page);
                dropped.push(entry);
            }
        }
    }

    /// Drops the pages of `tenant`.
    pub(crate) fn forget(&self, tenant: TenantId) {
        let mut inner = self.inner.lock();
        inner.forgotten += 1;
        let range = (tenant, Sequence::ZERO)..=(tenant, Sequence(u64::MAX));
        let keys: Vec<_> = inner.entries.range(range).map(|(key, _)| *key).collect();
        for key in keys {
            if let Some(entry) = inner.entries.remove(&key) {
                inner.ages.remove(&entry.age);
                inner.bytes -= page::size(&*entry.page);
            }
        }
    }

    pub(crate) fn clear(&self) {
        let mut inner = self.inner.lock();
        let forgotten = inner.forgotten + 1; // reads now in progress started before this
        *inner = Entries { forgotten, ..Entries::default() };
    }

    /// Bytes of cached frames.
    pub(crate) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }
}

impl<P: PageForm> Entries<P> {
    /// Finds the entry with the events after `after`.
    fn find(&mut self, tenant: TenantId, after: Sequence) -> Option<((TenantId, Sequence), &mut Entry<P>)> {
        let wanted = (tenant, Sequence(after.0.checked_add(1)?));
        let (key, entry) = self.entries.range_mut(wanted..).next()?;
        (key.0 == tenant && entry.from <= after).then_some((*key, entry))
    }

    fn touch(&mut self, tenant: TenantId, after: Sequence) -> Option<Arc<P>> {
        let age = self.next_age;
        let (key, entry) = self.find(tenant, after)?;
        let page = entry.page.clone();
        let old = std::mem::replace(&mut entry.age, age);
        self.next_age += 1;
        self.ages.remove(&old);
        self.ages.insert(age, key);
        Some(page)
    }

    /// Inserts a page, unless an entry that ends with the same event covers as much. Returns the replaced
    /// page.
    fn insert(&mut self, tenant: TenantId, PageSpan { from, page }: &PageSpan<P>) -> Option<Entry<P>> {
        let key = (tenant, page.last()?);
        if self.entries.get(&key).is_some_and(|known| known.from <= *from) {
            return None;
        }
        let entry = Entry { from: *from, page: page.clone(), age: self.next_age };
        self.ages.insert(entry.age, key);
        self.next_age += 1;
        self.bytes += page::size(&**page);
        let old = self.entries.insert(key, entry)?;
        self.bytes -= page::size(&*old.page);
        self.ages.remove(&old.age);
        Some(old)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::log::page::Page;
    use crate::store::log::page::tests::stretches;

    fn page(from: u64, sequences: std::ops::RangeInclusive<u64>) -> Vec<PageSpan> {
        stretches(from, sequences, 1)
    }

    /// The sequences of the events after `after`.
    fn follows(cache: &PageCache, tenant: TenantId, after: u64) -> Vec<u64> {
        let page = cache.page(tenant, Sequence(after)).and_then(|page| Page::after(&page, Sequence(after)));
        page.map(|page| page.frames().iter().map(|frame| frame.sequence().0).collect()).unwrap_or_default()
    }

    #[test]
    fn a_reader_at_any_covered_position_is_served() {
        let (cache, tenant) = (PageCache::new(1 << 20), TenantId(1));
        cache.insert(tenant, &[page(0, 5..=7), page(7, 20..=21)].concat(), 0);
        assert_eq!(follows(&cache, tenant, 0), [5, 6, 7]);
        assert_eq!(follows(&cache, tenant, 6), [7]);
        assert_eq!(follows(&cache, tenant, 7), [20, 21]);
        assert_eq!(follows(&cache, tenant, 15), [20, 21]);
        assert!(follows(&cache, tenant, 21).is_empty());
        assert!(follows(&cache, TenantId(0), 0).is_empty());
    }

    #[test]
    fn a_cached_page_serves_positions_before_it_only_if_they_were_read() {
        let (cache, tenant) = (PageCache::new(1 << 20), TenantId(1));
        cache.insert(tenant, &page(9, 10..=11), 0);
        assert!(follows(&cache, tenant, 8).is_empty());
        cache.insert(tenant, &page(4, 10..=11), 0);
        assert_eq!(follows(&cache, tenant, 8), [10, 11]);
        cache.insert(tenant, &page(9, 10..=11), 0);
        assert_eq!(follows(&cache, tenant, 4), [10, 11], "the cached page stays");
        cache.insert(tenant, &page(10, 11..=11), 0);
        assert_eq!(follows(&cache, tenant, 4), [10, 11], "a page that begins later changes nothing");
    }

    /// A reader has read a page, its events are erased and the cache is invalidated, and only then does the
    /// reader insert the page.
    #[test]
    fn a_page_read_before_its_tenant_was_forgotten_is_not_cached() {
        let (cache, tenant) = (PageCache::new(1 << 20), TenantId(1));
        let before = cache.forgotten();
        let read = page(0, 5..=7);
        cache.forget(tenant);
        cache.insert(tenant, &read, before);
        assert!(cache.page(tenant, Sequence(0)).is_none());
        cache.insert(tenant, &page(0, 6..=7), cache.forgotten());
        assert_eq!(follows(&cache, tenant, 0), [6, 7]);
    }

    #[test]
    fn the_least_recently_read_page_is_evicted_first_and_bytes_are_bounded() {
        let one = page::size(&*page(0, 1..=1)[0].page);
        let (cache, tenant) = (PageCache::new(2 * one), TenantId(1));
        cache.insert(tenant, &[page(0, 1..=1), page(1, 2..=2)].concat(), 0);
        assert_eq!(follows(&cache, tenant, 0), [1]);
        cache.insert(tenant, &page(2, 3..=3), 0);
        assert_eq!(follows(&cache, tenant, 0), [1]);
        assert!(follows(&cache, tenant, 1).is_empty());
        assert_eq!(follows(&cache, tenant, 2), [3]);
        assert_eq!(cache.bytes(), 2 * one);
    }
}
