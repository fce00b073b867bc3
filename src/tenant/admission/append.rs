//! The append: admitted events get their sequences, and go into the ring and the commit queue.
//!
//! * One lock, the organization's, covers numbering, ring and queue, so ring and log have the same order. It
//!   covers no allocation for encoded events and no IO.
//! * The actor is confirmed last, under that lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::cursor::Cursor;
use crate::frame::batch::Numbering;
use crate::frame::{Frame, RoutingKey};
use crate::ids::Sequence;
use crate::store::{CommitCallback, CommitError, Rows};
use crate::tenant::publish::{PublishError, Receipt};
use crate::tenant::streams::table::StreamTable;
use crate::tenant::{Tenant, Tenants, WriteSide};

use super::Admitted;

/// When events become visible to subscribers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ShowFrames {
    Now,
    /// When the events are committed, together with events published after them.
    AfterCommit,
}

impl Tenants {
    /// Numbers events, adds them to ring and commit queue, wakes the workers, and returns the ids. `rows`
    /// makes the rows of the same commit, when the sequences are known. What `done` returns is notified of
    /// the commit.
    pub(super) fn append(
        &self,
        admitted: Admitted<'_>,
        rows: impl FnOnce(Receipt) -> Rows,
        shown: ShowFrames,
        done: impl FnOnce(Receipt) -> CommitCallback,
    ) -> Result<(Receipt, Vec<Cursor>), PublishError> {
        let change = |streams: &mut StreamTable, receipt, frames: &[Arc<Frame>]| {
            refuse_chunks_of_streams(streams, frames)?;
            Ok::<_, PublishError>((rows(receipt), ()))
        };
        let (receipt, ids, ()) = self.append_change(admitted, change, shown, |receipt, ()| done(receipt))?;
        Ok((receipt, ids))
    }

    /// Like [`Tenants::append`], where `change` also sees and changes the tenant's open streams. It is the last
    /// check: if it fails nothing was changed, and if it succeeds nothing fails before the commit. It may add no
    /// event at all.
    pub(super) fn append_change<T, E: From<PublishError>>(
        &self,
        Admitted { actor, tenant, batch, room }: Admitted<'_>,
        change: impl FnOnce(&mut StreamTable, Receipt, &[Arc<Frame>]) -> Result<(Rows, T), E>,
        shown: ShowFrames,
        done: impl FnOnce(Receipt, &T) -> CommitCallback,
    ) -> Result<(Receipt, Vec<Cursor>, T), E> {
        let count = batch.len() as u32;
        let now = self.clock.now_ms();
        let published_us = match shown {
            ShowFrames::Now => self.clock.monotonic_us(),
            // No time stamp: the time of the commit must not count as delivery time.
            ShowFrames::AfterCommit => 0,
        };
        let cursors = self.store.cursor_key();
        let mut ids = Vec::with_capacity(batch.len());
        let (receipt, changed) = {
            let side = &mut *tenant.write.lock();
            // Checked again under the lock: a store that starts to reopen restarts this ring under the same
            // lock.
            self.check_writable()?;
            actor.confirm().map_err(PublishError::from)?;
            let receipt = Receipt { first: Sequence(side.ring.head()), count };
            let received_ms = side.received_ms.max(now);
            let numbering = Numbering { first: receipt.first, received_ms, published_us };
            let frames = batch.seal(numbering, |sequence| {
                let cursor = cursors.encode(tenant.id, sequence);
                ids.push(cursor);
                cursor
            });
            self.store.check_publishable(&tenant.log, &frames).map_err(PublishError::from)?;
            let (rows, changed) = change(&mut side.streams, receipt, &frames)?;
            side.received_ms = received_ms;
            let committed = tenant.log.committed().next().0;
            let before = side.ring.bytes();
            for frame in &frames {
                match shown {
                    ShowFrames::Now => side.ring.publish(frame.clone(), committed),
                    ShowFrames::AfterCommit => side.ring.publish_hidden(frame.clone(), committed),
                }
            }
            self.account(side, before, committed);
            let done = done(receipt, &changed);
            if frames.is_empty() {
                self.store.write_with_room(rows, room, done);
            } else {
                self.store.append(&tenant.log, frames, rows, Some(room), done);
            }
            (receipt, changed)
        };
        tenant.published_ms.store(now, Ordering::Relaxed);
        self.metrics.published.add(u64::from(count));
        self.wake(tenant);
        Ok((receipt, ids, changed))
    }

    /// Makes events visible that were hidden until their commit, or removes them if the commit was refused.
    pub(super) fn settle(&self, tenant: &Arc<Tenant>, receipt: Receipt, result: Result<(), CommitError>) {
        let more = {
            let mut side = tenant.write.lock();
            // Not up to the committed end: a later hidden change may have been refused, and is settled next.
            let end = tenant.log.committed().next().0.min(receipt.first.0 + u64::from(receipt.count));
            if result == Err(CommitError::Deleted) {
                let before = side.ring.bytes();
                let more = side.ring.discard(end);
                self.ring_bytes.fetch_sub(before - side.ring.bytes(), Ordering::Relaxed);
                more
            } else {
                side.ring.reveal(end)
            }
        };
        if more {
            self.wake(tenant);
        }
    }

    /// Updates the sum over all rings. If it exceeds its limit, and this ring has more than half of an equal
    /// share, the ring drops half of its committed frames. So large rings do not displace small ones, and
    /// small rings together take at most half of the limit.
    fn account(&self, side: &mut WriteSide, before: usize, committed: u64) {
        let change = side.ring.bytes() as isize - before as isize;
        let total =
            self.ring_bytes.fetch_add(change as usize, Ordering::Relaxed).wrapping_add(change as usize);
        let part = self.limits.ring_bytes_total / 2 / self.sharing.load(Ordering::Relaxed).max(1);
        if total > self.limits.ring_bytes_total && side.ring.bytes() > part {
            let freed = side.ring.shrink_to(side.ring.bytes() / 2, committed);
            self.ring_bytes.fetch_sub(freed, Ordering::Relaxed);
        }
    }
}

/// Refuses chunks and errors that name an open stream: they come from its producer only.
fn refuse_chunks_of_streams(streams: &StreamTable, frames: &[Arc<Frame>]) -> Result<(), PublishError> {
    let of_stream =
        |frame: &&Arc<Frame>| frame.key(RoutingKey::Request).is_some_and(|id| streams.get(id).is_some());
    match !streams.is_empty() && frames.iter().any(|frame| of_stream(&frame)) {
        true => Err(PublishError::Conflict(OF_A_STREAM)),
        false => Ok(()),
    }
}

/// The refusal of an event that names a stream.
pub(super) const OF_A_STREAM: &str =
    "the request_id is that of a stream: its chunks are appended with POST /api/v1/streams/{id}/chunks";
