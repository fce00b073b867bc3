//! The write path: one function from checked events to numbered frames in ring and commit queue.
//!
//! Order: encode → refuse while the store is not writable → reserve room → under the tenant's lock confirm the actor, number,
//! patch the ids, put into the ring and queue for commit → wake. The lock covers no allocation of the encoded event and no IO.
//!
//! Whatever is committed for a request is committed here or in `auth`, and always on the authority of an [`Actor`] that is
//! confirmed last: `tests/architecture.rs` lets nobody else write to the store.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::auth::{Actor, Ended};
use crate::event::{Event, EventError};
use crate::frame::Frame;
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

/// Events of a batch that are encoded before others have their turn; some hundred microseconds.
const ENCODED_AT_ONCE: usize = 64;

/// When subscribers see events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    AtOnce,
    /// With whatever was published after them.
    Committed,
}

/// Rows that join the events' commit, made when their first sequence is known.
pub type RowsFor<'a> = Box<dyn FnOnce(Receipt) -> Rows + 'a>;

/// Frames that have room in the commit queue.
struct Reserved<'a> {
    tenant: &'a Arc<Tenant>,
    frames: Vec<Arc<Frame>>,
    permit: Permit,
}

impl Tenants {
    /// Encodes events for publishing; `origin` is the connection they come from, 0 for none.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`].
    pub fn encode(&self, events: &[Event<'_>], origin: u64) -> Result<Vec<Arc<Frame>>, PublishError> {
        let mut frames = Vec::with_capacity(events.len());
        self.encode_next(events, origin, events.len(), &mut frames)?;
        Ok(frames)
    }

    /// [`Tenants::encode`], with a pause for others on this thread after every [`ENCODED_AT_ONCE`] events.
    ///
    /// # Errors
    /// As there.
    pub(super) async fn encode_in_parts(
        &self,
        events: &[Event<'_>],
        origin: u64,
    ) -> Result<Vec<Arc<Frame>>, PublishError> {
        let mut frames = Vec::with_capacity(events.len());
        while frames.len() < events.len() {
            if !frames.is_empty() {
                tokio::task::yield_now().await;
            }
            self.encode_next(events, origin, ENCODED_AT_ONCE, &mut frames)?;
        }
        Ok(frames)
    }

    /// Encodes up to `most` of the events that have no frame yet.
    fn encode_next(
        &self,
        events: &[Event<'_>],
        origin: u64,
        most: usize,
        frames: &mut Vec<Arc<Frame>>,
    ) -> Result<(), PublishError> {
        let now = self.clock.now_ms();
        for (at, event) in events.iter().enumerate().skip(frames.len()).take(most) {
            let frame = Frame::encode(event, now, origin);
            let (len, max) = (frame.json().len(), self.limits.event_bytes);
            if len > max {
                let error = EventError::new("", format!("is {len} bytes, the limit is {max}"));
                return Err(PublishError::TooLarge(if events.len() > 1 { error.at(at) } else { error }));
            }
            frames.push(Arc::new(frame));
        }
        Ok(())
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

    /// Publishes freshly encoded frames (held by nobody else); with a `notice` it waits for their commit.
    ///
    /// # Errors
    /// [`PublishError`]; after [`PublishError::Commit`] subscribers may have seen the events.
    pub async fn publish(
        &self,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        frames: Vec<Arc<Frame>>,
        rows: Option<RowsFor<'_>>,
        notice: Option<&impl Notice>,
    ) -> Result<Receipt, PublishError> {
        let reserved = self.reserve(tenant, frames, 0).await?;
        let Some(notice) = notice else {
            return self.append(actor, reserved, rows, Shown::AtOnce, |_| Done::Nobody);
        };
        let (done, commit) = notice.ask();
        let receipt = self.append(actor, reserved, rows, Shown::AtOnce, |_| done)?;
        commit.await?;
        Ok(receipt)
    }

    /// Waits for room in the commit queue for frames and `rows_weight` bytes of rows.
    async fn reserve<'t>(
        &self,
        tenant: &'t Arc<Tenant>,
        frames: Vec<Arc<Frame>>,
        rows_weight: usize,
    ) -> Result<Reserved<'t>, PublishError> {
        self.check_writable()?;
        let bytes = frames.iter().map(|frame| frame.size()).sum::<usize>() + rows_weight;
        match tenant.log.reserve(frames.len(), bytes).await {
            Ok(permit) => Ok(Reserved { tenant, frames, permit }),
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
        frames: Vec<Arc<Frame>>,
        mut rows: Rows,
        notice: &impl Notice,
    ) -> Result<(), PublishError> {
        rows.hold_room(self.store.reserve(tenant.id, rows.growth())?);
        let reserved = self.reserve(tenant, frames, rows.weight()).await?;
        if reserved.frames.is_empty() {
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
        frames: Vec<Arc<Frame>>,
        done: impl FnOnce(Receipt) -> Done,
    ) -> Result<Receipt, PublishError> {
        self.check_writable()?;
        let bytes = frames.iter().map(|frame| frame.size()).sum();
        let permit = tenant.log.try_reserve(frames.len(), bytes).ok_or(PublishError::Backlog)?;
        self.append(actor, Reserved { tenant, frames, permit }, None, Shown::AtOnce, done)
    }

    /// Numbers, shows and queues frames whose room is reserved.
    fn append(
        &self,
        actor: Actor<'_>,
        Reserved { tenant, mut frames, permit }: Reserved<'_>,
        rows: Option<RowsFor<'_>>,
        shown: Shown,
        done: impl FnOnce(Receipt) -> Done,
    ) -> Result<Receipt, PublishError> {
        let count = frames.len() as u32;
        let now = self.clock.now_ms();
        let now_us = self.clock.monotonic_us();
        let receipt = {
            let mut side = tenant.write.lock();
            // Again under the lock: a store that has begun to reopen restarts this ring under the same lock.
            self.check_writable()?;
            actor.confirm()?;
            self.store.check_publishable(&tenant.log, &frames)?;
            let receipt = Receipt { first: Sequence(side.ring.head()), count };
            side.received_ms = side.received_ms.max(now);
            let committed = tenant.log.committed().next().0;
            let before = side.ring.bytes();
            for frame in &mut frames {
                let sequence = Sequence(side.ring.head());
                let cursor = self.store.cursor_key().encode(tenant.id, sequence);
                // Freshly encoded and not shared yet, so this is never a copy.
                let fresh = Arc::make_mut(frame);
                fresh.seal(sequence, side.received_ms, &cursor);
                match shown {
                    Shown::AtOnce => {
                        fresh.stamp(now_us);
                        side.ring.publish(frame.clone(), committed);
                    }
                    // Without a stamp: how long its commit took is not how long it took to be sent.
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
        Ok(receipt)
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
