//! Decoded values of the log, shared by everyone who reads the same stretch; bounded by bytes, least recently read first out.
//!
//! * An entry covers the positions from `from` up to its last event: no event lies between `from` and its first one. So a
//!   reader at any position finds its entry without asking the disk, and the next one after it.
//! * Only committed values come in. What was trimmed may linger: whoever reads compares with the low-water mark.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::frame::Frame;
use crate::ids::{Sequence, TenantId};
use crate::sync::Mutex;

/// Where a page ends: what a reader is handed at once.
pub(super) const PAGE_FRAMES: usize = 64;
pub(super) const PAGE_BYTES: usize = 128 * 1024;

/// Consecutive committed events of one tenant.
#[derive(Debug)]
pub struct Page {
    /// In order; at least one.
    pub frames: Vec<Arc<Frame>>,
}

/// One stored value, decoded.
pub(super) struct Decoded {
    /// No event lies between this position and the first one here.
    pub(super) from: Sequence,
    /// At least one.
    pub(super) frames: Vec<Arc<Frame>>,
}

struct Entry {
    from: Sequence,
    frames: Arc<[Arc<Frame>]>,
    bytes: usize,
    /// Key in `ages`.
    age: u64,
}

#[derive(Default)]
struct Entries {
    /// By tenant and last sequence.
    entries: BTreeMap<(TenantId, Sequence), Entry>,
    ages: BTreeMap<u64, (TenantId, Sequence)>,
    next_age: u64,
    bytes: usize,
    /// How often something was forgotten.
    forgotten: u64,
}

/// The cache.
pub(super) struct PageCache {
    inner: Mutex<Entries>,
    /// Most bytes of frames in it.
    limit: usize,
}

impl PageCache {
    pub(super) fn new(limit: usize) -> PageCache {
        PageCache { inner: Mutex::default(), limit }
    }

    /// What follows `after` in `tenant`, if it is here.
    pub(super) fn page(&self, tenant: TenantId, after: Sequence) -> Option<Page> {
        let mut inner = self.inner.lock();
        let (mut frames, mut bytes, mut at) = (Vec::new(), 0, after);
        while let Some(found) = inner.touch(tenant, at) {
            let start = found.partition_point(|frame| frame.sequence() <= at);
            for frame in &found[start..] {
                if !frames.is_empty() && (frames.len() == PAGE_FRAMES || bytes + frame.size() > PAGE_BYTES) {
                    return Some(Page { frames });
                }
                bytes += frame.size();
                at = frame.sequence();
                frames.push(frame.clone());
            }
        }
        (!frames.is_empty()).then_some(Page { frames })
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
    pub(super) fn insert(&self, tenant: TenantId, values: Vec<Decoded>, before: u64) {
        let mut inner = self.inner.lock();
        if inner.forgotten != before {
            return;
        }
        for value in values {
            inner.insert(tenant, value);
        }
        while inner.bytes > self.limit {
            let Some((_, key)) = inner.ages.pop_first() else { break };
            if let Some(entry) = inner.entries.remove(&key) {
                inner.bytes -= entry.bytes;
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
                inner.bytes -= entry.bytes;
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

impl Entries {
    /// The entry that holds what follows `after`.
    fn find(&mut self, tenant: TenantId, after: Sequence) -> Option<((TenantId, Sequence), &mut Entry)> {
        let wanted = (tenant, Sequence(after.0.checked_add(1)?));
        let (key, entry) = self.entries.range_mut(wanted..).next()?;
        (key.0 == tenant && entry.from <= after).then_some((*key, entry))
    }

    fn touch(&mut self, tenant: TenantId, after: Sequence) -> Option<Arc<[Arc<Frame>]>> {
        let age = self.next_age;
        let (key, entry) = self.find(tenant, after)?;
        let frames = entry.frames.clone();
        let old = std::mem::replace(&mut entry.age, age);
        self.next_age += 1;
        self.ages.remove(&old);
        self.ages.insert(age, key);
        Some(frames)
    }

    fn insert(&mut self, tenant: TenantId, value: Decoded) {
        let Some(last) = value.frames.last().map(|frame| frame.sequence()) else { return };
        let mut from = value.from;
        if let Some(old) = self.entries.remove(&(tenant, last)) {
            from = from.min(old.from);
            self.bytes -= old.bytes;
            self.ages.remove(&old.age);
        }
        let bytes = value.frames.iter().map(|frame| frame.size() + 24).sum(); // 24: the Arc and its pointer
        let entry = Entry { from, frames: value.frames.into(), bytes, age: self.next_age };
        self.ages.insert(entry.age, (tenant, last));
        self.entries.insert((tenant, last), entry);
        self.next_age += 1;
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::tests::frame;

    fn value(from: u64, sequences: std::ops::RangeInclusive<u64>) -> Decoded {
        let event = r#"{"type":"custom","channel":"c","data":1}"#;
        Decoded { from: Sequence(from), frames: sequences.map(|s| Arc::new(frame(event, s))).collect() }
    }

    fn sequences(page: Option<Page>) -> Vec<u64> {
        page.map(|p| p.frames.iter().map(|f| f.sequence().0).collect()).unwrap_or_default()
    }

    #[test]
    fn a_reader_at_any_covered_position_is_served_across_values() {
        let (cache, tenant) = (PageCache::new(1 << 20), TenantId(1));
        cache.insert(tenant, vec![value(0, 5..=7), value(7, 20..=21)], 0);
        assert_eq!(sequences(cache.page(tenant, Sequence(0))), [5, 6, 7, 20, 21]);
        assert_eq!(sequences(cache.page(tenant, Sequence(6))), [7, 20, 21]);
        assert_eq!(sequences(cache.page(tenant, Sequence(15))), [20, 21]);
        assert!(sequences(cache.page(tenant, Sequence(21))).is_empty());
        assert!(sequences(cache.page(TenantId(0), Sequence(0))).is_empty());
    }

    #[test]
    fn what_lies_before_an_entry_is_unknown_unless_it_was_seen() {
        let (cache, tenant) = (PageCache::new(1 << 20), TenantId(1));
        cache.insert(tenant, vec![value(9, 10..=11)], 0);
        assert!(sequences(cache.page(tenant, Sequence(8))).is_empty());
        cache.insert(tenant, vec![value(4, 10..=11)], 0);
        assert_eq!(sequences(cache.page(tenant, Sequence(8))), [10, 11]);
        cache.insert(tenant, vec![value(9, 10..=11)], 0);
        assert_eq!(sequences(cache.page(tenant, Sequence(4))), [10, 11], "what is known stays known");
    }

    /// A reader has a value in hand, its events are erased and forgotten, and only then does the reader come to keep it.
    #[test]
    fn what_was_read_before_it_was_forgotten_does_not_come_back() {
        let (cache, tenant) = (PageCache::new(1 << 20), TenantId(1));
        let before = cache.forgotten();
        let read = vec![value(0, 5..=7)];
        cache.forget(tenant);
        cache.insert(tenant, read, before);
        assert!(cache.page(tenant, Sequence(0)).is_none());
        cache.insert(tenant, vec![value(0, 6..=7)], cache.forgotten());
        assert_eq!(sequences(cache.page(tenant, Sequence(0))), [6, 7]);
    }

    #[test]
    fn the_least_recently_read_goes_first_and_bytes_are_bounded() {
        let one = value(0, 1..=1).frames[0].size() + 24;
        let (cache, tenant) = (PageCache::new(2 * one), TenantId(1));
        cache.insert(tenant, vec![value(0, 1..=1), value(1, 2..=2)], 0);
        assert_eq!(sequences(cache.page(tenant, Sequence(0))), [1, 2]);
        cache.insert(tenant, vec![value(2, 3..=3)], 0);
        assert!(sequences(cache.page(tenant, Sequence(0))).is_empty());
        assert_eq!(sequences(cache.page(tenant, Sequence(1))), [2, 3]);
        assert_eq!(cache.bytes(), 2 * one);
    }
}
