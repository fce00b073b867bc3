//! What all words about streams share: their commit, and what follows from it.
//!
//! * A word is checked against the open streams under the tenant's lock, in the append ([`Tenants::append_change`]).
//!   Its events are encoded before, so they are encoded again if another word came in between.
//! * Events of streams are hidden until their commit, so no reader keeps text that a crash takes back.
//! * A word that is refused because the streams are not in memory, or because its stream is not open, is
//!   continued by the caller: it loads them, or finds out how the stream ended.

use std::sync::Arc;

use crate::cursor::Cursor;
use crate::event::Event;
use crate::frame::Frame;
use crate::frame::batch::Batch;
use crate::store::{
    Checkpoint, CommitCallback, CommitError, MAX_EVENT_BYTES, OpenStreamRow, PriorValue, Rows, key_digest,
};
use crate::tenant::idempotency::KeyGuards;
use crate::tenant::publish::{CommitWaiter, PublishError, Receipt};
use crate::tenant::streams::StreamError;
use crate::tenant::streams::state::{Stream, StreamState};
use crate::tenant::streams::table::{OpenStream, ProducerNotice, StreamTable};
use crate::tenant::streams::token;
use crate::tenant::{Tenant, Tenants};

use super::Admitted;
use super::append::ShowFrames;

/// What becomes true of a stream when a commit is on disk.
#[derive(Clone, Debug)]
pub(super) enum StreamEffect {
    /// Nothing but that its events are visible.
    None,
    /// It is open.
    Open(Arc<str>),
    /// Its text up to here is in segments.
    Checkpoint(Arc<str>, Checkpoint),
    /// It has ended.
    End(Arc<str>, StreamState),
}

impl StreamEffect {
    fn id(&self) -> Option<&str> {
        match self {
            StreamEffect::None => None,
            StreamEffect::Open(id) | StreamEffect::Checkpoint(id, _) | StreamEffect::End(id, _) => Some(id),
        }
    }
}

impl Tenants {
    /// Appends the events of a word about a stream. `change` checks the word and changes the stream; it
    /// returns rows and their effect. What `done` makes is notified of the commit.
    pub(super) fn append_stream<T>(
        self: &Arc<Self>,
        admitted: Admitted<'_>,
        change: impl FnOnce(
            &mut StreamTable,
            Receipt,
            &[Arc<Frame>],
        ) -> Result<(Rows, StreamEffect, T), StreamError>,
        done: impl FnOnce(&T, Receipt) -> CommitCallback,
    ) -> Result<(Receipt, Vec<Cursor>, T), StreamError> {
        let (tenants, held) = (Arc::downgrade(self), admitted.tenant.clone());
        let (receipt, ids, (_, value)) = self.append_change(
            admitted,
            |streams, receipt, frames| {
                let (rows, effect, value) = change(streams, receipt, frames)?;
                Ok::<_, StreamError>((rows, (effect, value)))
            },
            ShowFrames::AfterCommit,
            |receipt, (effect, value)| {
                let effect = effect.clone();
                done(value, receipt).after(move |result| {
                    if let Some(tenants) = tenants.upgrade() {
                        tenants.settle(&held, receipt, result);
                        tenants.settle_stream(&held, &effect, result);
                    }
                })
            },
        )?;
        Ok((receipt, ids, value))
    }

    /// Waits until everything that was queued before is on disk.
    pub(super) async fn stream_barrier(&self, waiter: &impl CommitWaiter) -> Result<(), StreamError> {
        let (done, commit) = waiter.register();
        self.store.write_then(Rows::new(), done);
        commit.await.map_err(PublishError::from)?;
        Ok(())
    }

    /// Applies what a commit has made true, or forgets a stream whose user or organization was deleted.
    fn settle_stream(&self, tenant: &Tenant, effect: &StreamEffect, result: Result<(), CommitError>) {
        if effect.id().is_none() {
            return;
        }
        let side = &mut *tenant.write.lock();
        let removed = match (effect, result) {
            (StreamEffect::Checkpoint(id, checkpoint), Ok(())) => {
                if let Some(stream) = side.streams.get_mut(id)
                    && stream.in_flight == Some(*checkpoint)
                {
                    stream.in_flight = None;
                    stream.row.checkpoint = *checkpoint;
                    stream.tail.forget_before(checkpoint.next_index);
                    stream.tail_since_s = self.now_s();
                    side.streams.note_tail(id);
                }
                None
            }
            (StreamEffect::End(id, state), Ok(())) => {
                self.metrics.streams.count_end(state.name());
                side.streams.remove(id)
            }
            (
                StreamEffect::Open(id) | StreamEffect::End(id, _) | StreamEffect::Checkpoint(id, _),
                Err(CommitError::Deleted),
            ) => side.streams.remove(id),
            // After any other error the table was emptied.
            (_, Err(_)) | (StreamEffect::None | StreamEffect::Open(_), _) => return,
        };
        if let Some(removed) = removed {
            self.count_open(-1);
            if let (true, Some(producer), Some(id)) = (result.is_err(), removed.producer, effect.id()) {
                (producer.notify)(id, ProducerNotice::Lost);
            }
        }
        if side.streams.is_loaded {
            tenant.log.keep_after(side.streams.kept_after_now(tenant.log.kept_after()));
        }
    }

    /// Encodes events of a stream.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`].
    pub(super) fn encode_stream_events(
        &self,
        batch: &mut Batch,
        events: &[Event<'_>],
    ) -> Result<(), PublishError> {
        for event in events {
            let len = batch.push(event);
            if len > MAX_EVENT_BYTES + 1_024 {
                let reason = format!("is {len} bytes as JSON, the limit is {MAX_EVENT_BYTES}");
                return Err(PublishError::TooLarge(crate::event::EventError::new("chunk", reason)));
            }
        }
        Ok(())
    }

    /// Loads the tenant's streams if `error` says that they are not in memory.
    ///
    /// # Errors
    /// Any other `error`, or the streams cannot be read.
    pub(super) async fn load_for(&self, tenant: &Arc<Tenant>, error: StreamError) -> Result<(), StreamError> {
        match error {
            StreamError::NotLoaded => Ok(self.load_streams(tenant).await?),
            StreamError::Changed => Ok(()),
            other => Err(other),
        }
    }

    /// Returns the stored row of a stream that is not open, if its producer holds `token`.
    ///
    /// # Errors
    /// [`StreamError::NotFound`], or the token is not the newest one.
    pub(super) async fn ended_stream(
        &self,
        tenant: &Tenant,
        id: &str,
        token: &str,
    ) -> Result<Stream, StreamError> {
        let stream = self.stored_stream(tenant, id).await?.ok_or(StreamError::NotFound)?;
        token::check(token, stream.generation, &token::from_hex(&stream.token_digest))?;
        Ok(stream)
    }

    /// Locks a stream's id: its opening, its removal.
    pub(super) async fn lock_stream(&self, tenant: &Tenant, id: &str) -> Arc<KeyGuards> {
        self.lock_keys(tenant.id, vec![lock_of(id)]).await
    }
}

/// The lock of a stream's id.
pub(super) fn lock_of(id: &str) -> [u8; 32] {
    key_digest(&[b"stream", id.as_bytes()])
}

/// The rows of a checkpoint over the whole tail, which the stream then has in flight.
pub(super) fn checkpoint_rows(
    tenant: &Tenant,
    id: &str,
    stream: &mut OpenStream,
    rows: &mut Rows,
) -> Result<Checkpoint, StreamError> {
    let checkpoint = segment_rows(tenant, id, stream, rows)?;
    let row = OpenStreamRow { checkpoint, ..stream.row.clone() };
    change_open_stream(tenant, id, &row, rows)?;
    stream.in_flight = Some(checkpoint);
    Ok(checkpoint)
}

/// Writes the row of an open stream again, which fails once its user is deleted.
pub(super) fn change_open_stream(
    tenant: &Tenant,
    id: &str,
    row: &OpenStreamRow,
    rows: &mut Rows,
) -> Result<(), StreamError> {
    rows.put_open_stream(tenant.id, id, row, PriorValue::Value(0))?;
    if let Some(user) = &row.user_id {
        rows.in_name_of(tenant.id, user);
    }
    Ok(())
}

/// The rows of the segments that bring all of a stream's text into segments.
pub(super) fn segment_rows(
    tenant: &Tenant,
    id: &str,
    stream: &OpenStream,
    rows: &mut Rows,
) -> Result<Checkpoint, StreamError> {
    let (checkpoint, segments) = stream.next_checkpoint();
    let first = checkpoint.segments - segments.len() as u32;
    for (number, segment) in (first..).zip(&segments) {
        rows.put_segment(tenant.id, id, number, segment)?;
    }
    Ok(checkpoint)
}
