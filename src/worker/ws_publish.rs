//! Publishing over a WebSocket: a client may send further frames while acks are pending; each ack is sent
//! when its commit is done.
//!
//! * The common publish is synchronous up to the commit queue. The ack returns as mail from the committer's
//!   thread, addressed by slot and generation. If the client has left by then, the event stays published and
//!   the ack is dropped.
//! * A publish that must wait (for room in the queue, or for a `message_id` to be looked up) runs as a task
//!   while the connection's input is paused, so the order of one connection's publishes is kept.

use serde_json::value::RawValue;

use crate::auth::{Authorized, Publish};
use crate::close::CloseReason;
use crate::connection::{PendingAck, RATE_REFUSALS};
use crate::cursor::Cursor;
use crate::error_response::ErrorResponse;
use crate::event::Event;
use crate::frame::control::{Control, Ref};
use crate::ids::TenantId;
use crate::store::CommitCallback;
use crate::tenant::admission::{AckMode, PublishKind, PublishRequest, Published, PublishedNow};
use crate::tenant::body_reader;
use crate::tenant::draft::{Draft, DraftOptions};
use crate::tenant::publish::{PublishError, Receipt};

use super::mail::{CommittedPublish, Mail};
use super::sockets::Token;
use super::{Worker, WorkerLoop};

/// A client's `publish`.
pub(super) struct PublishFrame<'a> {
    pub(super) reference: Option<Ref>,
    pub(super) events: Vec<&'a RawValue>,
    /// `events` was given, so errors name the item.
    pub(super) batch: bool,
    pub(super) ack: AckMode,
}

impl Worker {
    /// Returns the callback that brings the committer's result to this thread.
    fn ack_by_mail(&self, token: Token, reference: Option<Ref>, receipt: Receipt) -> CommitCallback {
        let (shared, worker) = (self.shared.clone(), self.id);
        CommitCallback::call(move |result| {
            let (receipt, next_index) = (result.map(|()| receipt), None);
            let committed = CommittedPublish { token, reference, receipt, next_index };
            shared.mail[worker].push(Mail::Committed(committed));
        })
    }

    fn publish_request<'a>(
        &'a self,
        right: &'a Authorized<Publish>,
        events: Draft,
        ack: AckMode,
    ) -> PublishRequest<'a> {
        PublishRequest {
            actor: self.shared.auth.actor(right),
            tenant: right.principal().tenant,
            events,
            kind: PublishKind::Events { key: None, ack },
        }
    }
}

impl WorkerLoop<'_> {
    /// Publishes, or sends an error.
    pub(super) fn publish(&mut self, token: Token, frame: PublishFrame<'_>) {
        let reference = frame.reference.clone();
        if let Err(refusal) = self.try_publish(token, frame) {
            self.refuse_publish(token, &refusal, reference);
        }
    }

    /// Counts a frame that was refused for its rate, or ends such a row.
    pub(super) fn count_refusal(&mut self, token: Token, is_over_rate: bool) {
        let Some(connection) = self.state.connection(token) else { return };
        match (is_over_rate, &mut connection.inbound) {
            (true, _) => {
                let inbound = connection.inbound();
                inbound.refused = inbound.refused.saturating_add(1);
            }
            (false, Some(inbound)) => inbound.refused = 0,
            (false, None) => {}
        }
    }

    /// Sends an `error`. Closes the connection if its credential has ended, or if too many of its frames in a
    /// row were refused for their rate.
    pub(super) fn refuse_publish(&mut self, token: Token, refusal: &ErrorResponse, reference: Option<Ref>) {
        self.refuse(token, refusal, reference);
        self.close_if_ended(token);
        let inbound = self.state.connection(token).and_then(|it| it.inbound.as_ref());
        if inbound.is_some_and(|inbound| inbound.refused >= RATE_REFUSALS) {
            self.close(token, CloseReason::OverRate);
        }
    }

    fn try_publish(&mut self, token: Token, frame: PublishFrame<'_>) -> Result<(), ErrorResponse> {
        let now_ms = self.worker.shared.clock.now_ms();
        let Some(connection) = self.state.connection(token) else { return Ok(()) };
        let Some(admitted) = &connection.admitted else { return Ok(()) };
        self.worker.shared.serving()?;
        let right = admitted.principal().authorize::<Publish>()?;
        let PublishFrame { reference, events, batch, ack } = frame;
        let tenants = &self.worker.shared.tenants;
        // The rate is charged before the events are read, because their number is known.
        let charge = tenants.rates().publish(right.principal(), events.len(), now_ms);
        let origin = connection.id;
        self.count_refusal(token, charge.is_err());
        let options = DraftOptions { origin, charge: charge?, ..DraftOptions::default() };
        let mut draft = tenants.draft(options);
        let mut each = |mut event: Event<'_>| draft.push(&right, &mut event);
        match events[..] {
            [event] if !batch => each(Event::parse(event.get())?),
            _ => body_reader::read_items(&events, &mut each)?,
        }
        let request = self.worker.publish_request(&right, draft, ack);
        let done = |receipt| self.worker.ack_by_mail(token, reference.clone(), receipt);
        match tenants.publish_now(request, done)? {
            PublishedNow::Queued(receipt) if ack == AckMode::Memory => {
                self.ack(token, reference, receipt, None);
            }
            PublishedNow::Queued(_) => {
                if let Some(connection) = self.state.connection(token) {
                    connection.inflight += 1;
                }
            }
            PublishedNow::MustWait(request) => {
                let draft = request.events;
                self.defer_publish(token, right, draft, ack, reference);
            }
        }
        Ok(())
    }

    pub(super) fn on_committed(&mut self, committed: CommittedPublish) {
        let CommittedPublish { token, reference, receipt, next_index } = committed;
        let Some(connection) = self.state.connection(token) else { return };
        connection.inflight = connection.inflight.saturating_sub(1);
        match receipt {
            Ok(receipt) => self.ack(token, reference, receipt, next_index),
            Err(error) => self.refuse(token, &PublishError::Commit(error).into(), reference),
        }
        self.resume_reading(token);
    }

    /// Publishes in a task, while the connection's input is paused.
    fn defer_publish(
        &mut self,
        token: Token,
        right: Authorized<Publish>,
        draft: Draft,
        ack: AckMode,
        reference: Option<Ref>,
    ) {
        let Some(connection) = self.state.connection(token) else { return };
        connection.flags.paused = true;
        let worker = self.worker.clone();
        // The task ends with its publish, which waits at most `RESERVE_WAIT` and one commit.
        tokio::task::spawn_local(async move {
            let request = worker.publish_request(&right, draft, ack);
            let published = worker.shared.tenants.publish(request, &worker).await;
            worker.with_state(|it| {
                match published {
                    Ok(Published { ids, .. }) => {
                        let reference = reference.as_ref();
                        it.control(token, &Control::Ack { reference, ids: &ids, next_index: None });
                    }
                    Err(error) => {
                        it.refuse(token, &error.into(), reference);
                        it.close_if_ended(token);
                    }
                }
                if let Some(connection) = it.state.connection(token) {
                    connection.flags.paused = false;
                }
                it.resume_reading(token);
            });
            worker.nudge();
        });
    }

    /// Sends an ack, or keeps it while the connection is blocked.
    fn ack(&mut self, token: Token, reference: Option<Ref>, receipt: Receipt, next_index: Option<u64>) {
        let Some(connection) = self.state.connection(token) else { return };
        let Some(tenant) = connection.admitted.as_ref().map(|it| it.principal().tenant) else { return };
        if connection.flags.write_state.is_blocked() {
            // At most `INFLIGHT_PUBLISHES` are in progress at once, and no more are read while blocked.
            let owed = PendingAck { reference, first: receipt.first, count: receipt.count, next_index };
            connection.outbox().acks.push_back(owed);
            return;
        }
        self.write_ack(token, tenant, reference.as_ref(), receipt, next_index);
    }

    fn write_ack(
        &mut self,
        token: Token,
        tenant: TenantId,
        reference: Option<&Ref>,
        receipt: Receipt,
        next_index: Option<u64>,
    ) {
        let cursors = self.worker.shared.tenants.cursors();
        let ids: Vec<Cursor> = receipt.sequences().map(|sequence| cursors.encode(tenant, sequence)).collect();
        self.control(token, &Control::Ack { reference, ids: &ids, next_index });
    }

    /// Sends acks that were kept; returns true if none is left.
    pub(super) fn send_owed_acks(&mut self, token: Token) -> bool {
        while let Some(connection) = self.state.connection(token) {
            if connection.flags.write_state.is_blocked() {
                return false;
            }
            let Some(tenant) = connection.admitted.as_ref().map(|it| it.principal().tenant) else {
                return true;
            };
            let Some(owed) = connection.out.as_mut().and_then(|out| out.acks.pop_front()) else {
                return true;
            };
            if connection.out.as_ref().is_some_and(|out| out.is_empty()) {
                connection.out = None;
            }
            let receipt = Receipt { first: owed.first, count: owed.count };
            self.write_ack(token, tenant, owed.reference.as_ref(), receipt, owed.next_index);
        }
        false
    }

    /// Sends an `error`.
    pub(super) fn refuse(&mut self, token: Token, refusal: &ErrorResponse, reference: Option<Ref>) {
        let details = (!refusal.details.is_null()).then_some(&refusal.details);
        let (code, message) = (refusal.code, refusal.message.as_str());
        self.control(token, &Control::Error { code, message, details, reference: reference.as_ref() });
    }
}
