//! Opening a stream, and taking over one that another producer had.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::auth::{Actor, Auth, Authorized, Publish, Scope};
use crate::event::check_id;
use crate::frame::batch::Batch;
use crate::ids::{Sequence, fresh, next_number};
use crate::store::{Checkpoint, OpenStreamRow, PriorValue, Rows, key_digest};
use crate::tenant::publish::{CommitWaiter, PublishError};
use crate::tenant::streams::StreamError;
use crate::tenant::streams::page::EventIds;
use crate::tenant::streams::state::{LEASE_SECONDS, Stream, StreamState, check_object};
use crate::tenant::streams::table::{OpenStream, ProducerNotice};
use crate::tenant::streams::token;
use crate::tenant::{Tenant, Tenants};

use super::Admitted;
use super::stream::{StreamEffect, change_open_stream};
use super::stream_word::{agent_status_event, permits};

/// A stream to be opened.
#[derive(Debug, Default)]
pub struct OpenRequest {
    /// The id; a new one is made if it is left out.
    pub request_id: Option<String>,
    /// The agent that speaks.
    pub agent_id: Option<String>,
    /// The user who may read it.
    pub user_id: Option<String>,
    /// Free data, a JSON object.
    pub metadata: Option<Box<RawValue>>,
    /// How long the producer may be silent, in seconds.
    pub lease_seconds: Option<u32>,
    /// Whether the status of the agent follows the stream.
    pub agent_status: bool,
    /// Whether to take over the stream if it is open.
    pub takeover: bool,
}

/// A stream that was opened or taken over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OpenedStream {
    /// The id.
    pub request_id: String,
    /// The token of its producer.
    pub producer_token: String,
    /// How often it was opened or taken over.
    pub generation: u32,
    /// The index that the next chunk has.
    pub next_index: u64,
    /// How long the producer may be silent, in seconds.
    pub lease_seconds: u32,
}

impl OpenRequest {
    fn check(&self) -> Result<(), StreamError> {
        let ids =
            [("request_id", &self.request_id), ("agent_id", &self.agent_id), ("user_id", &self.user_id)];
        for (field, id) in ids {
            if let Some(Err(reason)) = id.as_deref().map(check_id) {
                return Err(StreamError::invalid(field, reason));
            }
        }
        let (least, most, _) = LEASE_SECONDS;
        if self.lease_seconds.is_some_and(|seconds| !(least..=most).contains(&seconds)) {
            return Err(StreamError::invalid("lease_seconds", format!("must be {least} to {most}")));
        }
        check_object("metadata", self.metadata.as_deref())?;
        if self.agent_status && self.agent_id.is_none() {
            return Err(StreamError::invalid("agent_id", "is required with agent_status"));
        }
        Ok(())
    }
}

impl Tenants {
    /// Opens a stream, or takes it over. Returns true if it is new.
    ///
    /// # Errors
    /// [`StreamError`].
    pub async fn open_stream(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        auth: &Auth,
        right: &Authorized<Publish>,
        mut request: OpenRequest,
        waiter: &impl CommitWaiter,
    ) -> Result<(OpenedStream, bool), StreamError> {
        request.check()?;
        let principal = right.principal();
        self.rates.publish(principal, 1, self.clock.now_ms()).map_err(PublishError::from)?;
        self.check_writable()?;
        let id: Arc<str> = request.request_id.take().unwrap_or_else(|| fresh("stream")).into();
        // Held until the commit is over, so that two openings of one id come one after the other.
        let guard = self.lock_stream(tenant, &id).await;
        loop {
            self.load_streams(tenant).await?;
            let is_open = match tenant.write.lock().streams.open(&id) {
                Ok(stream) if stream.ending.is_some() => return Err(StreamError::InUse),
                Ok(_) => true,
                Err(StreamError::NotLoaded) => continue,
                Err(_) => false,
            };
            if is_open && request.takeover {
                return Ok((self.take_over(tenant, auth.actor(right), &id, &request, waiter).await?, false));
            }
            if is_open || self.stored_stream(tenant, &id).await?.is_some() {
                return Err(StreamError::InUse);
            }
            let mut rows = Rows::new();
            rows.hold_until_commit(guard.clone());
            match self.open_new(tenant, auth, right, &id, &request, rows, waiter).await {
                Err(StreamError::NotLoaded) => {}
                opened => return Ok((opened?, true)),
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the caller, the stream and its commit")]
    async fn open_new(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        auth: &Auth,
        right: &Authorized<Publish>,
        id: &Arc<str>,
        request: &OpenRequest,
        mut rows: Rows,
        waiter: &impl CommitWaiter,
    ) -> Result<OpenedStream, StreamError> {
        let user_id = self.check_open(right, id, request)?;
        let token = token::issue(1).ok_or(StreamError::Publish(PublishError::Unavailable))?;
        let now_ms = self.clock.now_ms();
        let lease_seconds = request.lease_seconds.unwrap_or(LEASE_SECONDS.2);
        let row = OpenStreamRow {
            generation: 1,
            token_digest: token.digest,
            lease_seconds,
            agent_status: request.agent_status,
            number: next_number(now_ms),
            opened_ms: now_ms,
            opened_after: Sequence::ZERO,
            checkpoint: Checkpoint::default(),
            opener: right.principal().subject().into(),
            agent_id: request.agent_id.as_deref().map(Into::into),
            user_id: user_id.as_deref().map(Into::into),
        };
        let mut record = Stream {
            request_id: id.to_string(),
            number: row.number,
            agent_id: request.agent_id.clone(),
            user_id,
            metadata: request.metadata.clone(),
            opener: row.opener.to_string(),
            state: StreamState::Open,
            generation: 1,
            next_index: 0,
            text_bytes: 0,
            segments: 0,
            is_expired: false,
            expires_ms: None,
            lease_seconds,
            opened_ms: now_ms,
            opened_after: 0,
            ended_ms: None,
            end_sequence: None,
            finish_reason: None,
            usage: None,
            error: None,
            token_digest: String::new(),
        };
        let mut measured = Rows::new();
        record.put(&mut measured, tenant.id(), None)?;
        measured.put_open_stream(tenant.id(), id, &row, PriorValue::Nothing)?;
        rows.hold_reservation(
            self.store.reserve(tenant.id(), measured.growth()).map_err(PublishError::from)?,
        );
        let (weight, limits) = (measured.weight(), self.limits.streams);
        let batch = self.status_batch(request.agent_status, request.agent_id.as_deref(), "thinking")?;
        let room = self.room(tenant, &batch, weight).await?;
        let (done, commit) = waiter.register();
        let opened = self.append_stream(
            Admitted { actor: auth.actor(right), tenant, batch, room },
            |streams, receipt, _| {
                if !streams.is_loaded {
                    return Err(StreamError::NotLoaded);
                }
                let (limit, max) = ("streams.open_per_organization", limits.open_per_organization);
                if streams.len() >= max {
                    return Err(StreamError::TooManyOpen { limit, max });
                }
                if self.open_streams() >= limits.open {
                    return Err(StreamError::TooManyOpen { limit: "streams.open", max: limits.open });
                }
                let mut row = row;
                row.opened_after = Sequence(receipt.first.0 - 1);
                row.checkpoint.sequence = row.opened_after;
                record.opened_after = row.opened_after.0;
                record.put(&mut rows, tenant.id(), None)?;
                rows.put_open_stream(tenant.id(), id, &row, PriorValue::Nothing)?;
                if let Some(sub) = &right.principal().sub {
                    rows.in_name_of(tenant.id(), sub);
                }
                let mut stream = OpenStream::new(row, self.now_s());
                stream.awaits_first_us = Some(self.clock.monotonic_us());
                stream.wheel_s = self.leases.add(stream.lease_ends_s(), tenant.id(), id.clone());
                streams.insert(id.clone(), stream);
                self.count_open(1);
                Ok((rows, StreamEffect::Open(id.clone()), ()))
            },
            |(), _| done,
        );
        opened?;
        tenant.forget_known(&plain_id(id));
        self.note_streams(tenant);
        self.metrics.streams.opened.add(1);
        commit.await.map_err(PublishError::from)?;
        Ok(OpenedStream {
            request_id: id.to_string(),
            producer_token: token.text,
            generation: 1,
            next_index: 0,
            lease_seconds,
        })
    }

    /// Checks that the caller may open the stream. Returns its user.
    fn check_open(
        &self,
        right: &Authorized<Publish>,
        id: &str,
        request: &OpenRequest,
    ) -> Result<Option<String>, StreamError> {
        let (agent_id, user_id) = (request.agent_id.as_deref(), request.user_id.as_deref());
        let mut event = EventIds { request_id: id, agent_id, user_id }.chunk();
        right.check(&mut event)?;
        if request.agent_status {
            let mut status = agent_status_event(request.agent_id.as_deref().unwrap_or_default(), "thinking");
            right.check(&mut status)?;
        }
        Ok(event.user_id.map(Cow::into_owned))
    }

    /// A batch with the event of an agent's status, if the stream has one.
    fn status_batch(
        &self,
        has_status: bool,
        agent: Option<&str>,
        status: &'static str,
    ) -> Result<Batch, PublishError> {
        let mut batch = Batch::new(self.clock.now_ms(), 0, 0);
        if let (true, Some(agent)) = (has_status, agent) {
            self.encode_stream_events(&mut batch, &[agent_status_event(agent, status)])?;
        }
        batch.close();
        Ok(batch)
    }

    async fn take_over(
        self: &Arc<Self>,
        tenant: &Arc<Tenant>,
        actor: Actor<'_>,
        id: &Arc<str>,
        request: &OpenRequest,
        waiter: &impl CommitWaiter,
    ) -> Result<OpenedStream, StreamError> {
        let batch = self.status_batch(false, None, "")?;
        let room = self.room(tenant, &batch, 0).await?;
        let (done, commit) = waiter.register();
        let lease = request.lease_seconds;
        let (_, _, (opened, before)) = self.append_stream(
            Admitted { actor, tenant, batch, room },
            |streams, _, _| {
                let stream = streams.open(id)?;
                let caller = actor.principal().ok_or(StreamError::InUse)?;
                let is_own = *stream.row.opener == *caller.subject();
                let may = (is_own || caller.scopes.has(Scope::Manage)) && permits(actor, stream);
                // An id that is in use by others looks the same, whether the caller may see the stream or not.
                if stream.ending.is_some() || !may {
                    return Err(StreamError::InUse);
                }
                let generation = stream.row.generation + 1;
                let token = token::issue(generation).ok_or(PublishError::Unavailable)?;
                let row = OpenStreamRow {
                    generation,
                    token_digest: token.digest,
                    lease_seconds: lease.unwrap_or(stream.row.lease_seconds),
                    checkpoint: stream.in_flight.unwrap_or(stream.row.checkpoint),
                    ..stream.row.clone()
                };
                let mut rows = Rows::new();
                change_open_stream(tenant, id, &row, &mut rows)?;
                stream.row = OpenStreamRow { checkpoint: stream.row.checkpoint, ..row };
                stream.heard_s = self.now_s();
                let before = stream.producer.take();
                // A shorter lease may end before the wheel looks at the old one.
                if stream.lease_ends_s() < stream.wheel_s {
                    stream.wheel_s = self.leases.add(stream.lease_ends_s(), tenant.id(), id.clone());
                }
                let opened = OpenedStream {
                    request_id: id.to_string(),
                    producer_token: token.text,
                    generation,
                    next_index: stream.next_index,
                    lease_seconds: stream.row.lease_seconds,
                };
                Ok((rows, StreamEffect::None, (opened, before)))
            },
            |_, _| done,
        )?;
        if let Some(before) = before {
            (before.notify)(id, ProducerNotice::Lost);
        }
        commit.await.map_err(PublishError::from)?;
        Ok(opened)
    }
}

/// The digest under which a `request_id` is remembered as one of plain events.
pub(super) fn plain_id(id: &str) -> [u8; 32] {
    key_digest(&[b"plain request_id", id.as_bytes()])
}
