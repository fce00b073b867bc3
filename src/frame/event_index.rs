//! Where the events of a page stand in its buffer: consecutive events of one tenant, in the order of their sequences, each of which
//! begins where the one before ends.
//!
//! It does not know the buffer, nor what a page keeps of an event besides.

use crate::ids::Sequence;

/// An event of a page.
pub trait Entry {
    /// Its sequence.
    fn sequence(&self) -> Sequence;
    /// Where its bytes end in the buffer.
    fn end(&self) -> usize;
}

/// The events of a page.
#[derive(Debug)]
pub struct EventIndex<E> {
    entries: Vec<E>,
}

impl<E: Entry> EventIndex<E> {
    pub(super) fn new(entries: Vec<E>) -> EventIndex<E> {
        EventIndex { entries }
    }

    /// Number of events.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if there are no events.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The sequence of event `at`.
    #[must_use]
    pub fn sequence(&self, at: usize) -> Option<Sequence> {
        Some(self.entries.get(at)?.sequence())
    }

    /// The sequence of the last event.
    #[must_use]
    pub fn last(&self) -> Option<Sequence> {
        Some(self.entries.last()?.sequence())
    }

    /// How many events stand at `position` or before it.
    #[must_use]
    pub fn count_to(&self, position: Sequence) -> usize {
        self.entries.partition_point(|entry| entry.sequence() <= position)
    }

    /// Where the bytes of event `at` begin; 0 where there is no such event.
    pub(super) fn start(&self, at: usize) -> usize {
        at.checked_sub(1).and_then(|before| self.entries.get(before)).map_or(0, Entry::end)
    }

    /// What the page keeps of the events.
    pub(super) fn entries(&self) -> &[E] {
        &self.entries
    }

    /// Bytes of memory that it takes.
    pub(super) fn size(&self) -> usize {
        self.entries.capacity() * size_of::<E>()
    }
}
