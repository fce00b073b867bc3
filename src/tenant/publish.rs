//! The write path: one function from checked events to numbered frames in ring and commit queue.
//!
//! Order: encode ([`Batch`]) → refuse while the store is not writable → reserve room → under the tenant's lock confirm the actor, number,
//! write the ids, put into the ring and queue for commit → wake. The lock covers no allocation of the encoded event and no IO.
//!
//! Whatever is committed for a request is committed here or in `auth`, and always on the authority of an [`Actor`] that is
//! confirmed last: `tests/architecture.rs` lets nobody else write to the store.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::auth::{Actor, Ended};
use crate::cursor::Cursor;
use crate::event::{Event, EventError};
use crate::frame::batch::{Batch, Numbering};
use crate::ids::Sequence;
use crate::store::{CommitError, Done, OverQuota, Permit, ReadError, Rows, StoreState};

use super::{Tenant, Tenants};

/// Why a publish was refused; nothing was published then, but for [`PublishError::Commit`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum PublishError {
    /// An event is not valid in its batch.
    #[error("{0}")]
    Invalid(#[from] EventError),
    /// An event is larger than `limits.event_bytes` once encoded.
    #[error("{0}")]
    TooLarge(EventError),
    /// The store takes nothing now: reserve reached, reopening, or read-only.
    #[error("the log takes no events now")]
    Unavailable,
    /// Too much of this tenant's waits for its commit.
    #[error("too many events wait for their commit")]
    Backlog,
    /// The organization would keep more than it may.
    #[error("{0}")]
    OverQuota(#[from] OverQuota),
    /// A key was used for something else within the day.
    #[error("{0}")]
    Conflict(&'static str),
    /// The credential of whoever asks has ended meanwhile.
    #[error("{0}")]
    Ended(#[from] Ended),
    /// What is needed to answer could not be read.
    #[error("the store cannot be read now")]
    Read(#[from] ReadError),
    /// The commit failed, or was refused, after the events may have gone live: their sequences are never used again.
    #[error("{}", commit_error(.0))]
    Commit(#[from] CommitError),
}

fn commit_error(error: &CommitError) -> String {
    match error {
        CommitError::Deleted => error.to_string(),
        _ => "the commit failed; whether the events were kept is unknown".into(),
    }
}

/// What was published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// The first event's sequence.
    pub first: Sequence,
    /// How many, without a hole.
    pub count: u32,
}

impl Receipt {
    /// The sequences, in order.
    pub fn sequences(self) -> impl Iterator<Item = Sequence> {
        (0..u64::from(self.count)).map(move |n| Sequence(self.first.0 + n))
    }
}

/// How a publisher hears of its commit: what goes to the committer, and what ends when that was told.
pub trait Notice {
    /// Ends with the commit.
    type Wait: Future<Output = Result<(), CommitError>>;

    /// Both ends of one notice.
    fn ask(&self) -> (Done, Self::Wait);
}

/// When subscribers see events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    AtOnce,
    /// With whatever was published after them.
    Committed,
}

/// Rows that join the events' commit, made when their first sequence is known.
pub type RowsFor<'a> = Box<dyn FnOnce(Receipt) -> Rows + 'a>;

/// Events that have room in the commit queue.
struct Reserved<'a> {
    tenant: &'a Arc<Tenant>,
    batch: Batch,
    permit: Permit,
}

impl Tenants {
    /// Encodes events for publishing; `origin` is the connection they come from, 0 for none.
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

    /// Whether publishing is possible now.
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

    /// Publishes events; with a `notice` it waits for their commit.
    ///
    /// # Errors
    /// [`PublishError`]; after [`PublishError::Commit`] subscribers may have seen the events.
    pub async fn publish(
        &self,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        batch: Batch,
        rows: Option<RowsFor<'_>>,
        notice: Option<&impl Notice>,
    ) -> Result<Receipt, PublishError> {
        self.publish_for_ids(actor, tenant, batch, rows, notice).await.map(|(receipt, _)| receipt)
    }

    /// [`Tenants::publish`], and the ids that the events got.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn publish_for_ids(
        &self,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        batch: Batch,
        rows: Option<RowsFor<'_>>,
        notice: Option<&impl Notice>,
    ) -> Result<(Receipt, Vec<Cursor>), PublishError> {
        let reserved = self.reserve(tenant, batch, 0).await?;
        let Some(notice) = notice else {
            return self.append(actor, reserved, rows, Shown::AtOnce, |_| Done::Nobody);
        };
        let (done, commit) = notice.ask();
        let published = self.append(actor, reserved, rows, Shown::AtOnce, |_| done)?;
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
    /// [`PublishError`]; after [`PublishError::Commit`] it is unknown whether they were kept.
    pub async fn write(&self, actor: Actor<'_>, rows: Rows) -> Result<(), PublishError> {
        self.check_writable()?;
        let written = self.store.write(rows); // queued by the first poll, which follows at once
        actor.confirm()?;
        Ok(written.await?)
    }

    /// Commits a change and the events that tell of it, all or nothing. Nobody sees the events before both are on disk.
    ///
    /// # Errors
    /// [`PublishError`]; after [`PublishError::Commit`] it is unknown whether the change was kept.
    pub async fn change(
        self: &Arc<Self>,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        batch: Batch,
        mut rows: Rows,
        notice: &impl Notice,
    ) -> Result<(), PublishError> {
        rows.hold_room(self.store.reserve(tenant.id, rows.growth())?);
        let reserved = self.reserve(tenant, batch, rows.weight()).await?;
        if reserved.batch.is_empty() {
            rows.hold(reserved.permit); // what has no event counts against the organization's share of the queue too
            return self.write(actor, rows).await;
        }
        let (done, commit) = notice.ask();
        let (tenants, whose) = (Arc::downgrade(self), tenant.clone());
        let rows: RowsFor<'_> = Box::new(|_| rows);
        self.append(actor, reserved, Some(rows), Shown::Committed, |receipt| {
            done.after(move |result| {
                if let Some(tenants) = tenants.upgrade() {
                    tenants.settle(&whose, receipt, result);
                }
            })
        })?;
        commit.await?;
        Ok(())
    }

    /// Lets subscribers see what was held until its commit, or takes it back unseen where the commit refused it.
    fn settle(&self, tenant: &Arc<Tenant>, receipt: Receipt, result: Result<(), CommitError>) {
        let more = {
            let mut side = tenant.write.lock();
            // Not all that is committed by now: what was held after this may have been refused, and hears of it next.
            let end = tenant.log.committed().next().0.min(receipt.first.0 + u64::from(receipt.count));
            if result == Err(CommitError::Deleted) {
                let before = side.ring.bytes();
                let more = side.ring.discard(end);
                self.ring_bytes.fetch_sub(before - side.ring.bytes(), Ordering::Relaxed);
                more
            } else {
                side.ring.unhold(end)
            }
        };
        if more {
            self.wake(tenant);
        }
    }

    /// Publishes without waiting: room must be free at once. What `done` makes hears of the commit on another thread.
    ///
    /// # Errors
    /// [`PublishError::Unavailable`], [`PublishError::Backlog`] or [`PublishError::Ended`]; `done` is not called then.
    pub fn publish_now(
        &self,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        batch: Batch,
        done: impl FnOnce(Receipt) -> Done,
    ) -> Result<Receipt, PublishError> {
        self.check_writable()?;
        let room = self.room_now(tenant, &batch).ok_or(PublishError::Backlog)?;
        self.publish_within(actor, tenant, batch, room, done)
    }

    /// Room in the commit queue for events, if there is some at once.
    #[must_use]
    pub fn room_now(&self, tenant: &Tenant, batch: &Batch) -> Option<Permit> {
        tenant.log.try_reserve(batch.len(), batch.size())
    }

    /// Publishes events for which there is `room`. What `done` makes hears of the commit on another thread.
    ///
    /// # Errors
    /// [`PublishError::Unavailable`] or [`PublishError::Ended`]; `done` is not called then.
    pub fn publish_within(
        &self,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        batch: Batch,
        room: Permit,
        done: impl FnOnce(Receipt) -> Done,
    ) -> Result<Receipt, PublishError> {
        let reserved = Reserved { tenant, batch, permit: room };
        self.append(actor, reserved, None, Shown::AtOnce, done).map(|(receipt, _)| receipt)
    }

    /// Numbers, shows and queues events whose room is reserved; answers their ids.
    fn append(
        &self,
        actor: Actor<'_>,
        Reserved { tenant, batch, permit }: Reserved<'_>,
        rows: Option<RowsFor<'_>>,
        shown: Shown,
        done: impl FnOnce(Receipt) -> Done,
    ) -> Result<(Receipt, Vec<Cursor>), PublishError> {
        let count = batch.len() as u32;
        let now = self.clock.now_ms();
        let published_us = match shown {
            Shown::AtOnce => self.clock.monotonic_us(),
            // Without a stamp: how long its commit took is not how long it took to be sent.
            Shown::Committed => 0,
        };
        let cursors = self.store.cursor_key();
        let mut ids = Vec::with_capacity(batch.len());
        let receipt = {
            let mut side = tenant.write.lock();
            // Again under the lock: a store that has begun to reopen restarts this ring under the same lock.
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
                    Shown::AtOnce => side.ring.publish(frame.clone(), committed),
                    Shown::Committed => side.ring.publish_held(frame.clone(), committed),
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

    /// Keeps the sum over all rings. Over its cap this ring gives up half of what is committed if it holds more than half of an equal
    /// part: a small ring does not pay for large ones, and small ones together are at most half the cap.
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

/// What is wrong with an event of `len` bytes where `most` are allowed.
pub(super) fn too_large(len: usize, most: usize) -> Option<EventError> {
    (len > most).then(|| EventError::new("", format!("is {len} bytes, the limit is {most}")))
}
