//! Readers that are no connections and wait for a tenant's events: long-polls.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::event_ring::RingRead;
use crate::frame::Frame;
use crate::ids::Sequence;
use crate::tenant::Tenant;

use super::Worker;
use super::view::BATCH_FRAMES;

/// A reader that waits for a tenant's events; see [`Worker::watch`].
pub struct EventWatch {
    worker: Rc<Worker>,
    view: u32,
    new_events: Rc<Notify>,
}

impl EventWatch {
    /// Completes when the worker has seen events after this call.
    pub fn events_seen(&self) -> impl Future<Output = ()> + use<> {
        let notified = Rc::clone(&self.new_events);
        // Registered at once and not at the first poll, so that no event is missed.
        let mut waiting = Box::pin(async move { notified.notified().await });
        let _ = futures_util::FutureExt::now_or_never(&mut waiting);
        waiting
    }
}

impl Drop for EventWatch {
    fn drop(&mut self) {
        let state = &mut *self.worker.state.borrow_mut();
        state.leave_view(self.view, self.worker.id);
    }
}

impl Worker {
    /// Keeps this worker's view of a tenant for a reader that waits for new events.
    #[must_use]
    pub fn watch(self: &Rc<Self>, tenant: &Arc<Tenant>) -> EventWatch {
        let state = &mut *self.state.borrow_mut();
        let view = state.join_view(tenant, self.id);
        let new_events = state.views[view as usize].new_events.clone();
        EventWatch { worker: self.clone(), view, new_events }
    }

    /// Reads a tenant's ring after `position`.
    pub fn read_ring(&self, tenant: &Tenant, position: Sequence, out: &mut Vec<Arc<Frame>>) -> RingRead {
        let state = &mut *self.state.borrow_mut();
        tenant.ring().read(&mut state.reader, position.next().0, out, BATCH_FRAMES)
    }
}
