//! Admission of a publish: the only way for events into an organization's log.
//!
//! HTTP, WebSocket, changes of resources, and the daemon's own events are each a [`PublishRequest`]. It is
//! checked here, in this order:
//!
//! 1. Rights. Each event was checked as it was read into the [`Draft`]; one that was denied ends the request.
//! 2. Rate. It is charged now, unless it was charged before the events were read ([`RateCharge`](super::rate::RateCharge)).
//! 3. Shape: the size of each encoded event, and `message_id`s that are given twice.
//! 4. Idempotency key and `message_id`s: a repeat gets the ids of the first request.
//! 5. Room, in the quota and in the commit queue. [`Tenants::publish`] waits at most a second for it.
//! 6. Under the organization's lock, the credential again (`append`).
//!
//! `append` is private to this module, so nothing is appended without these checks. Every other commit for a
//! request is [`Tenants::write`] or made in `auth`, also on the authority of an [`Actor`] that is confirmed
//! last. `tests/architecture.rs` checks that no other module writes to the store.

mod append;
pub mod stream;
pub mod stream_open;
pub mod stream_upkeep;
pub mod stream_word;

use std::sync::Arc;

use crate::auth::Actor;
use crate::cursor::Cursor;
use crate::frame::batch::Batch;
use crate::ids::{Sequence, TenantId};
use crate::store::{CommitCallback, Growth, Permit, Rows, StoreState};

use super::draft::Draft;
use super::idempotency::{DedupKey, refuse_duplicates};
use super::publish::{CommitWaiter, PublishError, Receipt};
use super::{Tenant, Tenants};
use append::ShowFrames;
use stream_open::plain_id;

/// Events, or a change with the events that report it, to be published.
pub struct PublishRequest<'a> {
    /// On whose authority. It is confirmed last, right before the commit.
    pub actor: Actor<'a>,
    /// The organization.
    pub tenant: TenantId,
    /// The events.
    pub events: Draft,
    /// What is committed with the events, and when they become visible.
    pub kind: PublishKind,
}

/// The kinds of a [`PublishRequest`].
pub enum PublishKind {
    /// Events alone. They become visible at once.
    Events {
        /// Publish only once for this key.
        key: Option<DedupKey>,
        /// When the publisher gets its answer.
        ack: AckMode,
    },
    /// Rows of resources and the events that report the change, all or nothing. The events become visible
    /// when both are on disk, together with events published after them.
    Change(Rows),
}

/// When the publisher gets its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AckMode {
    /// After the commit.
    Durable,
    /// Once the events are in the commit queue. A publish with a key, or with a `message_id` from the
    /// publisher, waits for the commit in this mode too.
    Memory,
}

/// The result of a publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Published {
    /// Ids of the events, in the order they were given.
    pub ids: Vec<Cursor>,
    /// True if this repeats the result of an earlier request with the same `Idempotency-Key`.
    pub replayed: bool,
}

/// The result of [`Tenants::publish_now`].
#[allow(
    clippy::large_enum_variant,
    reason = "a box would be an allocation; the value lives on the stack for one match"
)]
pub enum PublishedNow<'a> {
    /// The events are visible and in the commit queue.
    Queued(Receipt),
    /// The request has to wait, and nothing was published. [`Tenants::publish`] continues it.
    MustWait(PublishRequest<'a>),
}

/// Events that passed every check but the last, with room in the commit queue. Only this module makes one.
struct Admitted<'a> {
    actor: Actor<'a>,
    tenant: &'a Arc<Tenant>,
    batch: Batch,
    room: Permit,
}

impl Tenants {
    /// Publishes, and waits for the commit unless the events are acknowledged from memory.
    ///
    /// # Errors
    /// [`PublishError`]. After [`PublishError::Commit`] subscribers may have received the events, and it is
    /// not known whether a change was stored.
    pub async fn publish(
        self: &Arc<Self>,
        request: PublishRequest<'_>,
        waiter: &impl CommitWaiter,
    ) -> Result<Published, PublishError> {
        let PublishRequest { actor, tenant, mut events, kind } = request;
        self.check_rights_and_rate(actor, &mut events)?;
        let tenant = &self.open(tenant).await?;
        events.close()?;
        self.refuse_ids_of_streams(tenant, &events.request_ids).await?;
        match kind {
            PublishKind::Events { key: None, ack } if !events.is_keyed() => {
                let waiter = (ack == AckMode::Durable).then_some(waiter);
                let rows = |_| Rows::default();
                let (_, ids) = self.publish_batch(actor, tenant, events.batch, rows, waiter).await?;
                Ok(Published { ids, replayed: false })
            }
            PublishKind::Events { key, .. } => self.publish_once(actor, tenant, events, key, waiter).await,
            PublishKind::Change(rows) => self.change(actor, tenant, events.batch, rows, waiter).await,
        }
    }

    /// Publishes without waiting. In [`AckMode::Durable`], what `done` returns is notified of the commit, on
    /// another thread.
    ///
    /// # Errors
    /// [`PublishError`]; `done` is not called then.
    pub fn publish_now<'a>(
        &self,
        mut request: PublishRequest<'a>,
        done: impl FnOnce(Receipt) -> CommitCallback,
    ) -> Result<PublishedNow<'a>, PublishError> {
        let actor = request.actor;
        self.check_rights_and_rate(actor, &mut request.events)?;
        let ack = match request.kind {
            PublishKind::Events { key: None, ack } if !request.events.is_keyed() => ack,
            _ => return Ok(PublishedNow::MustWait(request)),
        };
        let Some(tenant) = self.get(request.tenant) else { return Ok(PublishedNow::MustWait(request)) };
        request.events.close()?;
        self.check_writable()?;
        if !self.are_plain_ids(&tenant, &request.events.request_ids) {
            return Ok(PublishedNow::MustWait(request));
        }
        let batch = &request.events.batch;
        let Some(room) = tenant.log.try_reserve(batch.len(), batch.size()) else {
            return Ok(PublishedNow::MustWait(request));
        };
        let admitted = Admitted { actor, tenant: &tenant, batch: request.events.batch, room };
        let done = |receipt| match ack {
            AckMode::Durable => done(receipt),
            AckMode::Memory => CommitCallback::None,
        };
        let (receipt, _) = self.append(admitted, |_| Rows::default(), ShowFrames::Now, done)?;
        Ok(PublishedNow::Queued(receipt))
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

    /// Returns true if it is known that none of these `request_id`s is that of a stream. The streams that are
    /// open are looked at again under the lock.
    fn are_plain_ids(&self, tenant: &Tenant, ids: &[Box<str>]) -> bool {
        if ids.is_empty() {
            return true;
        }
        let side = tenant.write.lock();
        let (is_loaded, has_any) = (side.streams.is_loaded, side.streams.has_any);
        drop(side);
        is_loaded && (!has_any || ids.iter().all(|id| tenant.is_known(&plain_id(id))))
    }

    /// Refuses events that name a stream, open or ended: its chunks come from its producer only.
    async fn refuse_ids_of_streams(
        &self,
        tenant: &Arc<Tenant>,
        ids: &[Box<str>],
    ) -> Result<(), PublishError> {
        if self.are_plain_ids(tenant, ids) {
            return Ok(());
        }
        self.load_streams(tenant).await?;
        if self.are_plain_ids(tenant, ids) {
            return Ok(());
        }
        let ids: Vec<&str> = ids.iter().map(|id| &**id).collect();
        // No stream is opened under these ids before they are remembered.
        let _guards = self.lock_keys(tenant.id, ids.iter().map(|id| stream::lock_of(id)).collect()).await;
        let found = self.stored_streams(tenant, &ids).await?;
        if found.iter().any(Option::is_some) {
            return Err(PublishError::Conflict(append::OF_A_STREAM));
        }
        ids.iter().for_each(|id| tenant.remember_known(plain_id(id)));
        Ok(())
    }

    /// Checks the rights and charges the rate.
    fn check_rights_and_rate(&self, actor: Actor<'_>, events: &mut Draft) -> Result<(), PublishError> {
        events.check_rights()?;
        if let Some(principal) = actor.principal()
            && !events.charge.is_paid()
        {
            let writes = events.received_events().max(1); // a change without events is one
            events.charge = self.rates.publish(principal, writes, self.clock.now_ms())?;
        }
        Ok(())
    }

    /// Waits for room in the commit queue for events and `rows_weight` bytes of rows.
    async fn room(
        &self,
        tenant: &Arc<Tenant>,
        batch: &Batch,
        rows_weight: usize,
    ) -> Result<Permit, PublishError> {
        self.check_writable()?;
        tenant.log.reserve(batch.len(), batch.size() + rows_weight).await.map_err(|_| {
            self.metrics.publish_unavailable.add(1);
            PublishError::Backlog
        })
    }

    /// Waits for room, appends, and waits for the commit if there is a `waiter`.
    async fn publish_batch(
        &self,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        batch: Batch,
        rows: impl FnOnce(Receipt) -> Rows,
        waiter: Option<&impl CommitWaiter>,
    ) -> Result<(Receipt, Vec<Cursor>), PublishError> {
        let room = self.room(tenant, &batch, 0).await?;
        let admitted = Admitted { actor, tenant, batch, room };
        let Some(waiter) = waiter else {
            return self.append(admitted, rows, ShowFrames::Now, |_| CommitCallback::None);
        };
        let (done, commit) = waiter.register();
        let published = self.append(admitted, rows, ShowFrames::Now, |_| done)?;
        commit.await?;
        Ok(published)
    }

    /// Publishes each event once for its `message_id`, and all once for `key`.
    async fn publish_once(
        &self,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        events: Draft,
        key: Option<DedupKey>,
        waiter: &impl CommitWaiter,
    ) -> Result<Published, PublishError> {
        let Draft { mut batch, messages, .. } = events;
        let cursors = |ids: &mut dyn Iterator<Item = Sequence>| -> Vec<Cursor> {
            ids.map(|id| self.cursors().encode(tenant.id, id)).collect()
        };
        self.check_writable()?;
        refuse_duplicates(&messages)?;
        let digests = messages.iter().flatten().chain(&key).map(|keyed| keyed.digest).collect();
        let guards = self.lock_keys(tenant.id, digests).await;
        if let Some(key) = &key
            && let Some(earlier) = self.earlier_ids(tenant, key).await?
        {
            actor.confirm()?;
            return Ok(Published { ids: cursors(&mut earlier.into_iter()), replayed: true });
        }
        let mut ids = self.known_messages(tenant, &messages).await?;
        ids.resize(batch.len(), None);
        let places: Vec<usize> = (0..ids.len()).filter(|at| ids[*at].is_none()).collect();
        batch.retain(|at| ids[at].is_none());
        if batch.is_empty() {
            actor.confirm()?;
        } else {
            let growth = Growth::of_publish(messages.iter().flatten().count(), key.map(|_| ids.len()));
            let quota = self.store.reserve(tenant.id, growth)?;
            let created_ms = self.clock.now_ms();
            let rows = |receipt: Receipt| {
                for (place, sequence) in places.iter().zip(receipt.sequences()) {
                    ids[*place] = Some(sequence);
                }
                let mut rows = self.dedup_rows(tenant, &messages, &ids, key, created_ms);
                rows.hold_until_commit(guards);
                rows.hold_reservation(quota);
                rows
            };
            self.publish_batch(actor, tenant, batch, rows, Some(waiter)).await?;
        }
        Ok(Published { ids: cursors(&mut ids.into_iter().flatten()), replayed: false })
    }

    /// Commits a change and the events that report it.
    async fn change(
        self: &Arc<Self>,
        actor: Actor<'_>,
        tenant: &Arc<Tenant>,
        batch: Batch,
        mut rows: Rows,
        waiter: &impl CommitWaiter,
    ) -> Result<Published, PublishError> {
        rows.hold_reservation(self.store.reserve(tenant.id, rows.growth())?);
        let room = self.room(tenant, &batch, rows.weight()).await?;
        if batch.is_empty() {
            // rows without an event count against the organization's share of the queue too
            rows.hold_until_commit(room);
            self.write(actor, rows).await?;
            return Ok(Published { ids: Vec::new(), replayed: false });
        }
        let (done, commit) = waiter.register();
        let (tenants, held_tenant) = (Arc::downgrade(self), tenant.clone());
        let admitted = Admitted { actor, tenant, batch, room };
        let (_, ids) = self.append(
            admitted,
            |_| rows,
            ShowFrames::AfterCommit,
            |receipt| {
                done.after(move |result| {
                    if let Some(tenants) = tenants.upgrade() {
                        tenants.settle(&held_tenant, receipt, result);
                    }
                })
            },
        )?;
        commit.await?;
        Ok(Published { ids, replayed: false })
    }
}
