//! What happens to streams without a request: leases end, text goes into segments, old text is removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{join, join_all};

use crate::auth::Actor;
use crate::frame::batch::Batch;
use crate::ids::TenantId;
use crate::store::{CommitCallback, CommitError, Rows, StreamExpiry};
use crate::tenant::publish::{ChannelWaiter, PublishError};
use crate::tenant::streams::StreamError;
use crate::tenant::streams::leases::Lease;
use crate::tenant::streams::state::{Stream, StreamEnd, StreamState};
use crate::tenant::streams::table::{CHECKPOINT_SECONDS, FLOOR_SECONDS, ProducerNotice, StreamTable};
use crate::tenant::{STATE_KEPT, Tenant, Tenants};

use super::Admitted;
use super::stream::{StreamEffect, checkpoint_rows};
use super::stream_word::{StreamAuthority, StreamWord};

/// Expiries that are handled at once.
const EXPIRIES_AT_ONCE: usize = 256;

impl Tenants {
    /// Reads the open streams of all organizations after a start, so that their leases run.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn recover_streams(self: &Arc<Self>) -> Result<(), StreamError> {
        for id in self.store.tenants_with_open_streams().await? {
            let tenant = self.open(id).await?;
            self.load_streams(&tenant).await?;
        }
        Ok(())
    }

    /// Notes that an organization has open streams, so that [`Tenants::maintain_streams`] visits it.
    pub(in crate::tenant) fn note_streams(&self, tenant: &Tenant) {
        self.streaming.lock().insert(tenant.id);
    }

    /// Ends streams whose leases have ended and writes text to segments. Call it once a second.
    pub async fn maintain_streams(self: &Arc<Self>) {
        // Organizations do not wait for each other: one whose commits are slow delays its own streams only.
        let streaming: Vec<TenantId> = self.streaming.lock().iter().copied().collect();
        let mut leases: BTreeMap<TenantId, Vec<Lease>> = BTreeMap::new();
        for lease in self.leases.take_due(self.now_s()) {
            leases.entry(lease.tenant).or_default().push(lease);
        }
        let ends = leases.into_iter().map(|(tenant, leases)| self.end_leases(tenant, leases));
        let texts = streaming.into_iter().map(async |id| {
            let Some(tenant) = self.get(id) else {
                self.streaming.lock().remove(&id);
                // A stream may have been opened in this moment.
                if let Some(tenant) = self.get(id) {
                    self.note_streams(&tenant);
                }
                return;
            };
            if let Err(error) = self.maintain_tenant(&tenant).await {
                if is_deleted(&error) {
                    return self.forget_streams(id);
                }
                tracing::warn!(%error, tenant = id.0, "text of streams could not be stored; retrying");
            }
        });
        join(join_all(texts), join_all(ends)).await;
    }

    async fn end_leases(self: &Arc<Self>, tenant: TenantId, leases: Vec<Lease>) {
        for lease in leases {
            if let Err(error) = self.end_lease(&lease).await {
                tracing::debug!(%error, tenant = tenant.0, "a lease could not be ended; retrying");
                self.look_later(&lease, self.now_s() + 1).await;
            }
        }
    }

    /// Looks at a stream again in the second `due_s`.
    async fn look_later(self: &Arc<Self>, lease: &Lease, due_s: u64) {
        let due_s = self.leases.add(due_s, lease.tenant, lease.id.clone());
        if let Some(tenant) = self.get(lease.tenant)
            && let Ok(stream) = tenant.write.lock().streams.open(&lease.id)
        {
            stream.wheel_s = due_s;
        }
    }

    /// Ends a stream if its producer has been silent for its lease.
    async fn end_lease(self: &Arc<Self>, lease: &Lease) -> Result<(), StreamError> {
        let id = &lease.id;
        let tenant = self.open(lease.tenant).await?;
        self.load_streams(&tenant).await?;
        let now_s = self.now_s();
        let due_s = match tenant.write.lock().streams.open(id) {
            Ok(stream) if stream.ending.is_some() || stream.wheel_s != lease.due_s => return Ok(()),
            Ok(stream) => stream.lease_ends_s(),
            Err(StreamError::NotOpen) => return Ok(()),
            Err(error) => return Err(error),
        };
        if due_s > now_s {
            self.look_later(lease, due_s).await;
            return Ok(());
        }
        let end = Some(StreamEnd::abandoned());
        let word = StreamWord::without_chunks(Actor::daemon(), id, StreamAuthority::Lease, end);
        match self.stream_word(&tenant, word, None::<&ChannelWaiter>).await {
            Ok(_) => self.metrics.streams.leases_expired.add(1),
            // It was renewed in this moment.
            Err(StreamError::InUse) => self.look_later(lease, now_s + 1).await,
            Err(StreamError::Ended(_)) => {}
            // Its user or organization was deleted.
            Err(error) if is_deleted(&error) => self.forget_stream(&tenant, id),
            // Its opening is in the queue, or its rows were erased with its organization.
            Err(StreamError::NotFound) => match self.store.check_publishable(&tenant.log, &[]) {
                Ok(()) => self.look_later(lease, now_s + 1).await,
                Err(_) => self.forget_stream(&tenant, id),
            },
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Removes the streams of a deleted organization from memory. Their producers are refused from now on.
    pub fn forget_streams(&self, tenant: TenantId) {
        self.streaming.lock().remove(&tenant);
        let Some(tenant) = self.get(tenant) else { return };
        let open: Vec<Arc<str>> = tenant.write.lock().streams.iter().map(|(id, _)| id.clone()).collect();
        open.iter().for_each(|id| self.forget_stream(&tenant, id));
    }

    /// Removes a stream from memory whose user or organization was deleted.
    fn forget_stream(&self, tenant: &Tenant, id: &str) {
        let removed = {
            let side = &mut *tenant.write.lock();
            let removed = side.streams.remove(id);
            // Before the streams are read, the log keeps what their rows say.
            if side.streams.is_loaded {
                tenant.log.keep_after(side.streams.kept_after());
            }
            removed
        };
        if let Some(stream) = removed {
            self.count_open(-1);
            if let Some(producer) = stream.producer {
                (producer.notify)(id, ProducerNotice::Lost);
            }
        }
    }

    /// Cancels every open stream of a user who is about to be deleted.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn cancel_streams_of_user(
        self: &Arc<Self>,
        tenant: TenantId,
        sub: &str,
    ) -> Result<(), StreamError> {
        let tenant = self.open(tenant).await?;
        self.load_streams(&tenant).await?;
        let open: Vec<Arc<str>> = {
            let side = tenant.write.lock();
            let of_user =
                side.streams.iter().filter(|(_, stream)| stream.row.user_id.as_deref() == Some(sub));
            of_user.map(|(id, _)| id.clone()).collect()
        };
        for id in open {
            let end = Some(StreamEnd::cancelled(Some("the user was deleted".into())));
            let word = StreamWord::without_chunks(Actor::daemon(), &id, StreamAuthority::Canceller, end);
            match self.stream_word(&tenant, word, Some(&ChannelWaiter)).await {
                Ok(_) | Err(StreamError::Ended(_) | StreamError::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Erases a stream completely. Returns the number of changes.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn erase_stream(&self, tenant: &Arc<Tenant>, id: &str) -> Result<usize, StreamError> {
        let _guard = self.lock_stream(tenant, id).await;
        self.forget_stream(tenant, id);
        let Some(mut stream) = self.stored_stream(tenant, id).await? else {
            return Ok(1);
        };
        if stream.state == StreamState::Open {
            // It could not be ended before its user was deleted. Its segments are known from its row alone.
            let open = self.store.open_streams(tenant.id).await?.streams;
            let row = open.into_iter().find(|(open, _)| **open == *id);
            stream.segments = row.map_or(0, |(_, row)| row.checkpoint.segments);
        }
        let mut rows = Rows::new();
        stream.remove(&mut rows, tenant.id);
        let changes = rows.len();
        self.write(Actor::daemon(), rows).await?;
        Ok(changes)
    }

    /// Removes the text of an ended stream, whose state stays.
    ///
    /// # Errors
    /// [`StreamError`]; [`StreamError::InUse`] while it is open.
    pub async fn remove_stream_text(
        &self,
        tenant: &Arc<Tenant>,
        actor: Actor<'_>,
        id: &str,
    ) -> Result<(), StreamError> {
        let _guard = self.lock_stream(tenant, id).await;
        let stream = self.stored_stream(tenant, id).await?.ok_or(StreamError::NotFound)?;
        if stream.state == StreamState::Open {
            return Err(StreamError::InUse);
        }
        let mut rows = Rows::new();
        if !stream.is_expired {
            self.remove_text(tenant, &stream, &mut rows)?;
        }
        Ok(self.write(actor, rows).await?)
    }

    /// Writes the text of a tenant's streams to segments where it is time, and notes what its log must keep.
    async fn maintain_tenant(self: &Arc<Self>, tenant: &Arc<Tenant>) -> Result<(), StreamError> {
        self.load_streams(tenant).await?;
        let now_s = self.now_s();
        let is_urgent = tenant.log.take_trim_waits();
        let due: Vec<Arc<str>> = {
            let side = &mut *tenant.write.lock();
            if side.streams.is_empty() {
                self.streaming.lock().remove(&tenant.id);
                return Ok(());
            }
            tenant.log.keep_after(side.streams.kept_after());
            let is_due = |since_s: u64| is_urgent || since_s + CHECKPOINT_SECONDS <= now_s;
            let with_tail = side.streams.with_tail();
            let due = with_tail.filter(|(_, stream)| {
                stream.in_flight.is_none() && stream.ending.is_none() && is_due(stream.tail_since_s)
            });
            due.map(|(id, _)| id.clone()).collect()
        };
        for id in due {
            self.checkpoint(tenant, &id).await?;
        }
        self.write_floor(tenant, now_s).await
    }

    /// Writes a stream's tail to segments.
    async fn checkpoint(self: &Arc<Self>, tenant: &Arc<Tenant>, id: &Arc<str>) -> Result<(), StreamError> {
        self.check_writable()?;
        let batch = Batch::new(self.clock.now_ms(), 0, 0);
        let room = self.room(tenant, &batch, 2 * crate::tenant::streams::table::TAIL_BYTES).await?;
        let change = |streams: &mut StreamTable, _, _: &[_]| {
            let stream = streams.open(id)?;
            if stream.ending.is_some() || stream.in_flight.is_some() || stream.tail.is_empty() {
                return Err(StreamError::Changed);
            }
            let mut rows = Rows::new();
            let checkpoint = checkpoint_rows(tenant, id, stream, &mut rows)?;
            Ok((rows, StreamEffect::Checkpoint(id.clone(), checkpoint), ()))
        };
        let admitted = Admitted { actor: Actor::daemon(), tenant, batch, room };
        match self.append_stream(admitted, change, |(), _| CommitCallback::None) {
            Ok(_) | Err(StreamError::Changed | StreamError::NotOpen | StreamError::NotLoaded) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Stores up to where the log need not be read after a restart, from time to time.
    async fn write_floor(&self, tenant: &Arc<Tenant>, now_s: u64) -> Result<(), StreamError> {
        let floor = {
            let side = &mut *tenant.write.lock();
            let floor = side.streams.kept_after().unwrap_or_else(|| tenant.log.committed());
            let (last, written_s) = side.streams.floor;
            // Nothing was published since then, or it was written a moment ago.
            if floor <= last || written_s + FLOOR_SECONDS > now_s {
                return Ok(());
            }
            side.streams.floor = (floor, now_s);
            floor
        };
        let mut rows = Rows::new();
        rows.put_stream_floor(tenant.id, floor)?;
        Ok(self.write(Actor::daemon(), rows).await?)
    }

    /// Removes the text of streams that ended long ago, and later their states. Call it every few seconds.
    ///
    /// # Errors
    /// [`StreamError`]; what is left is tried again in the next call.
    pub async fn expire_streams(self: &Arc<Self>, now_ms: u64) -> Result<(), StreamError> {
        loop {
            let due = self.store.expired_streams(now_ms, EXPIRIES_AT_ONCE).await?;
            for expiry in &due {
                self.expire(expiry).await?;
            }
            if due.len() < EXPIRIES_AT_ONCE {
                return Ok(());
            }
        }
    }

    async fn expire(self: &Arc<Self>, expiry: &StreamExpiry) -> Result<(), StreamError> {
        let tenant = self.open(expiry.tenant).await?;
        let _guard = self.lock_stream(&tenant, &expiry.id).await;
        let mut rows = Rows::new();
        rows.delete_expiry(expiry);
        let stream = self.stored_stream(&tenant, &expiry.id).await?;
        // An entry with another time is of a text that was removed before, or of an earlier stream of this id.
        if let Some(stream) = stream.filter(|stream| stream.expires_ms == Some(expiry.due_ms)) {
            if stream.is_expired {
                stream.remove(&mut rows, tenant.id);
            } else {
                self.remove_text(&tenant, &stream, &mut rows)?;
            }
        }
        match self.write(Actor::daemon(), rows).await {
            // The organization was deleted: its rows are removed with it.
            Err(PublishError::Commit(CommitError::Deleted)) => {
                let mut rows = Rows::new();
                rows.delete_expiry(expiry);
                Ok(self.write(Actor::daemon(), rows).await?)
            }
            other => Ok(other?),
        }
    }

    /// Adds the rows that remove the text of an ended stream, whose state is kept.
    pub(super) fn remove_text(
        &self,
        tenant: &Tenant,
        stream: &Stream,
        rows: &mut Rows,
    ) -> Result<(), StreamError> {
        rows.delete_segments(tenant.id, &stream.request_id, 0..stream.segments);
        let more_ms = self.limits.streams.keep_seconds.saturating_mul((STATE_KEPT - 1) * 1_000);
        let due_ms = stream.expires_ms.unwrap_or_default().saturating_add(more_ms);
        let rest = Stream { segments: 0, is_expired: true, expires_ms: Some(due_ms), ..stream.clone() };
        rest.put(rows, tenant.id, Some(stream))?;
        let expiry = StreamExpiry { due_ms, tenant: tenant.id, id: stream.request_id.clone() };
        rows.put_expiry(&expiry)?;
        Ok(())
    }
}

/// Returns true if the organization, or the user, was deleted.
fn is_deleted(error: &StreamError) -> bool {
    matches!(error, StreamError::Publish(PublishError::Commit(CommitError::Deleted)))
}
