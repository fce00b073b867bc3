//! Pages of the log, shared by everyone who reads the same stretch; bounded by bytes, least recently read first out.
//!
//! * An entry covers the positions from `from` up to its last event: no event lies between `from` and its first one. So a
//!   reader at any position finds its entry without asking the disk, and the next one after it.
//! * Only committed events come in. What was trimmed may linger: whoever reads compares with the low-water mark.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::page::{self, PageForm, Stretch};
use crate::frame::frame_page::FramePage;
use crate::ids::{Sequence, TenantId};
use crate::sync::Mutex;

struct Entry<P> {
    from: Sequence,
    page: Arc<P>,
    /// Key in `ages`.
    age: u64,
}

struct Entries<P> {
    /// By tenant and last sequence.
    entries: BTreeMap<(TenantId, Sequence), Entry<P>>,
    ages: BTreeMap<u64, (TenantId, Sequence)>,
    next_age: u64,
    bytes: usize,
    /// How often something was forgotten.
    forgotten: u64,
}

impl<P> Default for Entries<P> {
    fn default() -> Entries<P> {
        Entries { entries: BTreeMap::new(), ages: BTreeMap::new(), next_age: 0, bytes: 0, forgotten: 0 }
    }
}

/// The cache of pages of one form.
pub(super) struct PageCache<P = FramePage> {
    inner: Mutex<Entries<P>>,
    /// Most bytes of frames in it.
    limit: usize,
}

impl<P: PageForm> PageCache<P> {
    pub(super) fn new(limit: usize) -> PageCache<P> {
        PageCache { inner: Mutex::default(), limit }
    }

    /// The page that holds what follows `after` in `tenant`, if it is here.
    pub(super) fn page(&self, tenant: TenantId, after: Sequence) -> Option<Arc<P>> {
        self.inner.lock().touch(tenant, after)
    }

    /// Whether [`PageCache::page`] has an answer.
    pub(super) fn has(&self, tenant: TenantId, after: Sequence) -> bool {
        self.inner.lock().find(tenant, after).is_some()
    }

    /// How often something was forgotten; to be asked before reading what is to be inserted.
    pub(super) fn forgotten(&self) -> u64 {
        self.inner.lock().forgotten
    }

    /// Keeps what was read since [`PageCache::forgotten`] answered `before`; nothing if something was forgotten meanwhile, since it
    /// may have been read before it was erased.
    pub(super) fn insert(&self, tenant: TenantId, pages: &[Stretch<P>], before: u64) {
        // Pages are let go of without the lock.
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

    /// Drops what is held of `tenant`.
    pub(super) fn forget(&self, tenant: TenantId) {
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

    pub(super) fn clear(&self) {
        let mut inner = self.inner.lock();
        let forgotten = inner.forgotten + 1; // whatever is being read now is of before
        *inner = Entries { forgotten, ..Entries::default() };
    }

    /// Bytes of frames held.
    pub(super) fn bytes(&self) -> usize {
        self.inner.lock().bytes
    }
}

impl<P: PageForm> Entries<P> {
    /// The entry that holds what follows `after`.
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

    /// Adds a page, unless one is here that ends with the same event and holds as much; the one in its place is returned.
    fn insert(&mut self, tenant: TenantId, Stretch { from, page }: &Stretch<P>) -> Option<Entry<P>> {
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
    use super::super::page::Page;
    use super::super::page::tests::stretches;
    use super::*;

    fn page(from: u64, sequences: std::ops::RangeInclusive<u64>) -> Vec<Stretch> {
        stretches(from, sequences, 1)
    }

    /// The sequences of what follows `after`.
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
    fn what_lies_before_an_entry_is_unknown_unless_it_was_seen() {
        let (cache, tenant) = (PageCache::new(1 << 20), TenantId(1));
        cache.insert(tenant, &page(9, 10..=11), 0);
        assert!(follows(&cache, tenant, 8).is_empty());
        cache.insert(tenant, &page(4, 10..=11), 0);
        assert_eq!(follows(&cache, tenant, 8), [10, 11]);
        cache.insert(tenant, &page(9, 10..=11), 0);
        assert_eq!(follows(&cache, tenant, 4), [10, 11], "what is known stays known");
        cache.insert(tenant, &page(10, 11..=11), 0);
        assert_eq!(follows(&cache, tenant, 4), [10, 11], "a page that begins later changes nothing");
    }

    /// A reader has a page in hand, its events are erased and forgotten, and only then does the reader come to keep it.
    #[test]
    fn what_was_read_before_it_was_forgotten_does_not_come_back() {
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
    fn the_least_recently_read_goes_first_and_bytes_are_bounded() {
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
