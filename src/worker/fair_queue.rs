//! A queue that organizations share: each has a queue of its own, and they are served in turns.
//!
//! * However many items one organization has queued, another one's first item waits for at most one item of
//!   each other organization.
//! * It owns memory only for organizations with queued items.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::ids::TenantId;

/// The queue.
#[derive(Debug)]
pub(super) struct FairQueue<T> {
    queues: HashMap<TenantId, VecDeque<T>>,
    /// The organizations with a queue, each once, in the order in which they are served.
    turns: VecDeque<TenantId>,
    len: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        FairQueue { queues: HashMap::new(), turns: VecDeque::new(), len: 0 }
    }
}

impl<T> FairQueue<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an item behind those of its organization.
    pub(super) fn push(&mut self, tenant: TenantId, item: T) {
        self.queue(tenant).push_back(item);
    }

    /// Returns an item that was popped and is not finished to the front of its organization's queue. The
    /// organization goes to the back, as it has had its turn.
    pub(super) fn push_front(&mut self, tenant: TenantId, item: T) {
        self.queue(tenant).push_front(item);
    }

    fn queue(&mut self, tenant: TenantId) -> &mut VecDeque<T> {
        self.len += 1;
        self.queues.entry(tenant).or_insert_with(|| {
            self.turns.push_back(tenant);
            VecDeque::new()
        })
    }

    /// Takes the first item of the organization whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(TenantId, T)> {
        let tenant = self.turns.pop_front()?;
        let Entry::Occupied(mut queue) = self.queues.entry(tenant) else { return None };
        let item = queue.get_mut().pop_front()?;
        self.len -= 1;
        if queue.get().is_empty() {
            queue.remove();
        } else {
            self.turns.push_back(tenant);
        }
        Some((tenant, item))
    }

    /// Returns the number of queued items of an organization.
    pub(super) fn len_of(&self, tenant: TenantId) -> usize {
        self.queues.get(&tenant).map_or(0, VecDeque::len)
    }

    /// Keeps the items of an organization for which `wanted` returns true.
    pub(super) fn retain(&mut self, tenant: TenantId, wanted: impl FnMut(&T) -> bool) {
        let Entry::Occupied(mut queue) = self.queues.entry(tenant) else { return };
        let before = queue.get().len();
        queue.get_mut().retain(wanted);
        self.len -= before - queue.get().len();
        if queue.get().is_empty() {
            queue.remove();
            self.turns.retain(|turn| *turn != tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOUD: TenantId = TenantId(1);
    const QUIET: TenantId = TenantId(2);

    fn order(queue: &mut FairQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop()).map(|(_, item)| item).collect()
    }

    #[test]
    fn organizations_take_turns_and_each_keeps_its_order() {
        let mut queue = FairQueue::default();
        (0..4).for_each(|item| queue.push(LOUD, item));
        queue.push(QUIET, 10);
        assert_eq!((queue.len(), queue.len_of(LOUD)), (5, 4));
        assert_eq!(order(&mut queue), [0, 10, 1, 2, 3]);
        assert!(queue.is_empty() && queue.queues.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn an_unfinished_item_continues_after_the_other_organizations() {
        let mut queue = FairQueue::default();
        (0..2).for_each(|item| queue.push(LOUD, item));
        queue.push(QUIET, 10);
        let (tenant, first) = queue.pop().expect("one");
        queue.push_front(tenant, first);
        assert_eq!(order(&mut queue), [10, 0, 1]);
    }

    #[test]
    fn retain_removes_items_and_empty_queues() {
        let mut queue = FairQueue::default();
        (0..4).for_each(|item| queue.push(LOUD, item));
        queue.push(QUIET, 10);
        queue.retain(LOUD, |item| item % 2 == 1);
        assert_eq!(queue.len(), 3);
        queue.retain(LOUD, |_| false);
        assert_eq!((queue.len(), order(&mut queue)), (1, vec![10]));
    }
}
