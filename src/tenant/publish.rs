//! The write path: from checked events to numbered frames in the ring and the commit queue.
//!
//! Order: encode ([`Batch`]) → refuse if the store is not writable → reserve room → under the tenant's lock
//! confirm the actor, number the events, write the ids, add to the ring and the commit queue → wake the
//! workers. The lock covers no allocation for encoded events and no IO.
//!
//! Every commit for a request is made here or in `auth`, on the authority of an [`Actor`] that is confirmed
//! last. `tests/architecture.rs` checks that no other module writes to the store.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::auth::{Actor, CredentialEnded};
use crate::cursor::Cursor;
use crate::event::{Event, EventError};
use crate::frame::batch::{Batch, Numbering};
use crate::ids::Sequence;
use crate::store::{CommitCallback, CommitError, OverQuota, Permit, ReadError, Rows, StoreState};

use super::{Tenant, Tenants};

/// Why a publish was refused. Nothing was published, unless it is [`PublishError::Commit`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// An event is not valid in its batch.
    #[error("{0}")]
    Invalid(#[from] EventError),
    /// An event is larger than `limits.event_bytes` once encoded.
    #[error("{0}")]
    TooLarge(EventError),
    /// The store accepts nothing now: free space is at its reserve, or the store is being reopened, or it is
    /// read-only.
    #[error("the log accepts no events now")]
    Unavailable,
    /// Too many of this tenant's events wait for their commit.
    #[error("too many events wait for their commit")]
    Backlog,
    /// The organization would exceed its quota.
    #[error("{0}")]
    OverQuota(#[from] OverQuota),
    /// A key was used for something else within the last day.
    #[error("{0}")]
    Conflict(&'static str),
    /// The caller's credential ended meanwhile.
    #[error("{0}")]
    Ended(#[from] CredentialEnded),
    /// The store could not be read.
    #[error("the store cannot be read now")]
    Read(#[from] ReadError),
    /// The commit failed or was refused, after subscribers may have received the events. Their sequences are
    /// never used again.
    #[error("{}", commit_error(.0))]
    Commit(#[from] CommitError),
}

fn commit_error(error: &CommitError) -> String {
    match error {
        CommitError::Deleted => error.to_string(),
        _ => "the commit failed; it is not known whether the events were stored".into(),
    }
}

/// The sequences of published events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// Sequence of the first event.
    pub first: Sequence,
    /// Number of events. Their sequences are consecutive.
    pub count: u32,
}

impl Receipt {
    /// Returns the sequences in order.
    pub fn sequences(self) -> impl Iterator<Item = Sequence> {
        (0..u64::from(self.count)).map(move |n| Sequence(self.first.0 + n))
    }
}

/// How a publisher is notified of its commit: one end goes to the committer, the other completes with the
/// commit.
pub trait CommitWaiter {
    /// Completes with the commit.
    type Wait: Future<Output = Result<(), CommitError>>;

    /// Creates both ends of a notice.
    fn register(&self) -> (CommitCallback, Self::Wait);
}

/// When events become visible to subscribers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ShowFrames {
    Now,
    /// When the events are committed, together with events published after them.
    AfterCommit,
}

/// Rows to add to the events' commit. They are made when the first sequence is known.
pub type RowsFor<'a> = Box<dyn FnOnce(Receipt) -> Rows + 'a>;

/// Events with reserved room in the commit queue.
struct Reserved<'a> {
    tenant: &'a Arc<Tenant>,
    batch: Batch,
    permit: Permit,
}

impl Tenants {
    /// Encodes events for publishing. `origin` is the connection that they come from, 0 for none.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`].
    pub fn encode(&self, events: &[Event<'_>], origin: u64) -> Result<Batch, PublishError> {
        let mut batch = Batch::new(self.clock.now_ms(), origin, 0);
        for (at, event) in events.iter().enumerate() {
            if let Some(error) = too_large(batch.push(event), self.limits.event_bytes) {
                return Err(PublishError::TooLarge(if events.len() > 1 { error.at(at) } else { error }));
            }
        }
        batch.close();
        Ok(batch)
    }

    /// Checks that publishing is possible now.
    ///
    /// # Errors
    /// [`PublishError::Unavailable`] otherwise.
    pub fn check_writable(&self) -> Result<(), PublishError> {
        match self.store.state() {
            StoreState::Writable => Ok(()),
            _ => {
                self.metrics.publish_unavailable.add(1);
                Err(PublishError::Unavailable)
            }
        }
    }

    /// Publishes events. With a `notice` it waits for their commit.
    ///
    /// # Errors
    /// [`PublishError`]. After [`PublishError::Commit`] subscribers may have received the events.
    pub async fn publish(
        &self,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        batch: Batch,
        rows: Option<RowsFor<'_>>,
        notice: Option<&impl CommitWaiter>,
    ) -> Result<Receipt, PublishError> {
        self.publish_for_ids(actor, tenant, batch, rows, notice).await.map(|(receipt, _)| receipt)
    }

    /// [`Tenants::publish`], which also returns the ids of the events.
    ///
    /// # Errors
    /// The same as there.
    pub(super) async fn publish_for_ids(
        &self,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        batch: Batch,
        rows: Option<RowsFor<'_>>,
        notice: Option<&impl CommitWaiter>,
    ) -> Result<(Receipt, Vec<Cursor>), PublishError> {
        let reserved = self.reserve(tenant, batch, 0).await?;
        let Some(notice) = notice else {
            return self.append(actor, reserved, rows, ShowFrames::Now, |_| CommitCallback::None);
        };
        let (done, commit) = notice.register();
        let published = self.append(actor, reserved, rows, ShowFrames::Now, |_| done)?;
        commit.await?;
        Ok(published)
    }

    /// Waits for room in the commit queue for events and `rows_weight` bytes of rows.
    async fn reserve<'t>(
        &self,
        tenant: &'t Arc<Tenant>,
        batch: Batch,
        rows_weight: usize,
    ) -> Result<Reserved<'t>, PublishError> {
        self.check_writable()?;
        match tenant.log.reserve(batch.len(), batch.size() + rows_weight).await {
            Ok(permit) => Ok(Reserved { tenant, batch, permit }),
            Err(_) => {
                self.metrics.publish_unavailable.add(1);
                Err(PublishError::Backlog)
            }
        }
    }

    /// Commits rows without events.
    ///
    /// # Errors
    /// [`PublishError`]. After [`PublishError::Commit`] it is not known whether the rows were stored.
    pub async fn write(&self, actor: Actor<'_>, rows: Rows) -> Result<(), PublishError> {
        self.check_writable()?;
        let written = self.store.write(rows); // a future: nothing is queued before it is polled below
        actor.confirm()?;
        Ok(written.await?)
    }

    /// Commits a change and the events that report it, all or nothing. The events become visible only when
    /// both are on disk.
    ///
    /// # Errors
    /// [`PublishError`]. After [`PublishError::Commit`] it is not known whether the change was stored.
    pub async fn change(
        self: &Arc<Self>,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        batch: Batch,
        mut rows: Rows,
        notice: &impl CommitWaiter,
    ) -> Result<(), PublishError> {
        rows.hold_reservation(self.store.reserve(tenant.id, rows.growth())?);
        let reserved = self.reserve(tenant, batch, rows.weight()).await?;
        if reserved.batch.is_empty() {
            // rows without an event count against the organization's share of the queue too
            rows.hold_until_commit(reserved.permit);
            return self.write(actor, rows).await;
        }
        let (done, commit) = notice.register();
        let (tenants, held_tenant) = (Arc::downgrade(self), tenant.clone());
        let rows: RowsFor<'_> = Box::new(|_| rows);
        self.append(actor, reserved, Some(rows), ShowFrames::AfterCommit, |receipt| {
            done.after(move |result| {
                if let Some(tenants) = tenants.upgrade() {
                    tenants.settle(&held_tenant, receipt, result);
                }
            })
        })?;
        commit.await?;
        Ok(())
    }

    /// Makes events visible that were hidden until their commit, or removes them if the commit was refused.
    fn settle(&self, tenant: &Arc<Tenant>, receipt: Receipt, result: Result<(), CommitError>) {
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

    /// Publishes without waiting: room must be free at once. What `done` returns is notified of the commit,
    /// on another thread.
    ///
    /// # Errors
    /// [`PublishError::Unavailable`], [`PublishError::Backlog`] or [`PublishError::Ended`]. `done` is not
    /// called then.
    pub fn publish_now(
        &self,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        batch: Batch,
        done: impl FnOnce(Receipt) -> CommitCallback,
    ) -> Result<Receipt, PublishError> {
        self.check_writable()?;
        let room = self.room_now(tenant, &batch).ok_or(PublishError::Backlog)?;
        self.publish_within(actor, tenant, batch, room, done)
    }

    /// Reserves room in the commit queue for events, if there is enough at once.
    #[must_use]
    pub fn room_now(&self, tenant: &Tenant, batch: &Batch) -> Option<Permit> {
        tenant.log.try_reserve(batch.len(), batch.size())
    }

    /// Publishes events for which `room` is reserved. What `done` returns is notified of the commit, on
    /// another thread.
    ///
    /// # Errors
    /// [`PublishError::Unavailable`] or [`PublishError::Ended`]. `done` is not called then.
    pub fn publish_within(
        &self,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        batch: Batch,
        room: Permit,
        done: impl FnOnce(Receipt) -> CommitCallback,
    ) -> Result<Receipt, PublishError> {
        let reserved = Reserved { tenant, batch, permit: room };
        self.append(actor, reserved, None, ShowFrames::Now, done).map(|(receipt, _)| receipt)
    }

    /// Numbers events whose room is reserved, adds them to ring and commit queue, and returns their ids.
    fn append(
        &self,
        actor: Actor<'_>,
        Reserved { tenant, batch, permit }: Reserved<'_>,
        rows: Option<RowsFor<'_>>,
        shown: ShowFrames,
        done: impl FnOnce(Receipt) -> CommitCallback,
    ) -> Result<(Receipt, Vec<Cursor>), PublishError> {
        let count = batch.len() as u32;
        let now = self.clock.now_ms();
        let published_us = match shown {
            ShowFrames::Now => self.clock.monotonic_us(),
            // No time stamp: the time of the commit must not count as delivery time.
            ShowFrames::AfterCommit => 0,
        };
        let cursors = self.store.cursor_key();
        let mut ids = Vec::with_capacity(batch.len());
        let receipt = {
            let mut side = tenant.write.lock();
            // Checked again under the lock: a store that starts to reopen restarts this ring under the same
            // lock.
            self.check_writable()?;
            actor.confirm()?;
            let receipt = Receipt { first: Sequence(side.ring.head()), count };
            let received_ms = side.received_ms.max(now);
            let numbering = Numbering { first: receipt.first, received_ms, published_us };
            let frames = batch.seal(numbering, |sequence| {
                let cursor = cursors.encode(tenant.id, sequence);
                ids.push(cursor);
                cursor
            });
            self.store.check_publishable(&tenant.log, &frames)?;
            side.received_ms = received_ms;
            let committed = tenant.log.committed().next().0;
            let before = side.ring.bytes();
            for frame in &frames {
                match shown {
                    ShowFrames::Now => side.ring.publish(frame.clone(), committed),
                    ShowFrames::AfterCommit => side.ring.publish_hidden(frame.clone(), committed),
                }
            }
            self.account(&mut side, before, committed);
            let rows = rows.map_or_else(Rows::default, |rows| rows(receipt));
            self.store.append(&tenant.log, frames, rows, Some(permit), done(receipt));
            receipt
        };
        tenant.published_ms.store(now, Ordering::Relaxed);
        self.metrics.published.add(u64::from(count));
        self.wake(tenant);
        Ok((receipt, ids))
    }

    /// Updates the sum over all rings. If it exceeds its limit, and this ring has more than half of an equal
    /// share, the ring drops half of its committed frames. So large rings do not displace small ones, and
    /// small rings together take at most half of the limit.
    fn account(&self, side: &mut super::WriteSide, before: usize, committed: u64) {
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

/// Returns the error for an event of `len` bytes if only `most` are allowed.
pub(super) fn too_large(len: usize, most: usize) -> Option<EventError> {
    (len > most).then(|| EventError::new("", format!("is {len} bytes, the limit is {most}")))
}
