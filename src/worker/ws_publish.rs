//! Publishing over a WebSocket: a client may send further frames while acks are pending; each ack is sent
//! when its commit is done.
//!
//! * The common publish is synchronous up to the commit queue. The ack returns as mail from the committer's
//!   thread, addressed by slot and generation. If the client has left by then, the event stays published and
//!   the ack is dropped.
//! * A publish that must wait (for room in the queue, or for a `message_id` to be looked up) runs as a task
//!   while the connection's input is paused, so the order of one connection's publishes is kept.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::auth::{Authorized, Publish};
use crate::close::CloseReason;
use crate::connection::PendingAck;
use crate::connection::rate;
use crate::cursor::Cursor;
use crate::error_response::ErrorResponse;
use crate::event::Event;
use crate::frame::control::{Control, Ref};
use crate::ids::TenantId;
use crate::store::CommitCallback;
use crate::tenant::Tenant;
use crate::tenant::body_reader;
use crate::tenant::draft::Draft;
use crate::tenant::idempotency::{PublishOptions, Published};
use crate::tenant::publish::{PublishError, Receipt};

use super::mail::{CommittedPublish, Mail};
use super::sockets::Token;
use super::{Worker, WorkerState};

/// A client's `publish`.
pub(super) struct PublishFrame<'a> {
    pub(super) reference: Option<Ref>,
    pub(super) events: Vec<&'a RawValue>,
    /// `events` was given, so errors name the item.
    pub(super) batch: bool,
    pub(super) durable: bool,
}

/// A publish that has to wait.
struct DeferredPublish {
    tenant: Arc<Tenant>,
    draft: Draft,
    reference: Option<Ref>,
    durable: bool,
}

impl Worker {
    /// Publishes, or sends an error.
    pub(super) fn publish(self: &Rc<Self>, state: &mut WorkerState, token: Token, frame: PublishFrame<'_>) {
        let reference = frame.reference.clone();
        if let Err(refusal) = self.try_publish(state, token, frame) {
            self.refuse(state, token, &refusal, reference);
            self.close_if_ended(state, token);
            let exhausted = state
                .connection(token)
                .and_then(|it| it.inbound.as_ref())
                .is_some_and(|inbound| inbound.refused >= rate::REFUSALS);
            if exhausted {
                self.close(state, token, CloseReason::OverRate);
            }
        }
    }

    fn try_publish(
        self: &Rc<Self>,
        state: &mut WorkerState,
        token: Token,
        frame: PublishFrame<'_>,
    ) -> Result<(), ErrorResponse> {
        let now_ms = self.shared.clock.now_ms();
        let Some(connection) = state.connection(token) else { return Ok(()) };
        let Some(admitted) = &connection.admitted else { return Ok(()) };
        self.shared.serving()?;
        let right = admitted.principal().authorize::<Publish>()?;
        let events = frame.events.len();
        if let Err(over) = self.shared.rates.publish(right.principal(), events, now_ms) {
            let inbound = connection.inbound();
            inbound.refused = inbound.refused.saturating_add(1);
            return Err(over.into());
        }
        if let Some(inbound) = &mut connection.inbound {
            inbound.refused = 0;
        }
        let origin = connection.id;
        let PublishFrame { reference, events, batch, durable } = frame;
        let mut draft = self.shared.tenants.draft(origin, 0);
        read(&right, &events, batch, &mut draft)?;
        let Some(tenant) = self.shared.tenants.get(right.principal().tenant) else { return Ok(()) };
        if !draft.is_keyed() {
            draft.close()?;
            let (tenants, actor) = (&self.shared.tenants, self.shared.auth.actor(&right));
            tenants.check_writable()?;
            if let Some(room) = tenants.room_now(&tenant, draft.batch()) {
                let done = |receipt| match durable {
                    true => self.ack_by_mail(token, reference.clone(), receipt),
                    false => CommitCallback::None,
                };
                let receipt = tenants.publish_within(actor, &tenant, draft.into_batch(), room, done)?;
                if !durable {
                    self.ack(state, token, reference, receipt);
                } else if let Some(connection) = state.connection(token) {
                    connection.inflight += 1;
                }
                return Ok(());
            }
        }
        self.defer_publish(state, token, right, DeferredPublish { tenant, draft, reference, durable });
        Ok(())
    }

    /// Returns the callback that brings the committer's result to this thread.
    fn ack_by_mail(&self, token: Token, reference: Option<Ref>, receipt: Receipt) -> CommitCallback {
        let (shared, worker) = (self.shared.clone(), self.id);
        CommitCallback::call(move |result| {
            let receipt = result.map(|()| receipt);
            shared.mail[worker].push(Mail::Committed(CommittedPublish { token, reference, receipt }));
        })
    }

    pub(super) fn on_committed(self: &Rc<Self>, state: &mut WorkerState, committed: CommittedPublish) {
        let CommittedPublish { token, reference, receipt } = committed;
        let Some(connection) = state.connection(token) else { return };
        connection.inflight = connection.inflight.saturating_sub(1);
        match receipt {
            Ok(receipt) => self.ack(state, token, reference, receipt),
            Err(error) => self.refuse(state, token, &PublishError::Commit(error).into(), reference),
        }
        self.resume_reading(state, token);
    }

    /// Publishes in a task, while the connection's input is paused.
    fn defer_publish(
        self: &Rc<Self>,
        state: &mut WorkerState,
        token: Token,
        right: Authorized<Publish>,
        later: DeferredPublish,
    ) {
        let Some(connection) = state.connection(token) else { return };
        connection.flags.paused = true;
        let DeferredPublish { tenant, draft, reference, durable } = later;
        let worker = self.clone();
        // The task ends with its publish, which waits at most `RESERVE_WAIT` and one commit.
        tokio::task::spawn_local(async move {
            let (tenants, actor) = (&worker.shared.tenants, worker.shared.auth.actor(&right));
            let options = PublishOptions { durable, key: None };
            let published = tenants.publish_events(actor, &tenant, draft, options, &worker).await;
            let state = &mut *worker.state.borrow_mut();
            match published {
                Ok(Published { ids, .. }) => {
                    worker.control(state, token, &Control::Ack { reference: reference.as_ref(), ids: &ids });
                }
                Err(error) => {
                    worker.refuse(state, token, &error.into(), reference);
                    worker.close_if_ended(state, token);
                }
            }
            if let Some(connection) = state.connection(token) {
                connection.flags.paused = false;
            }
            worker.resume_reading(state, token);
            worker.nudge();
        });
    }

    /// Sends an ack, or keeps it while the connection is blocked.
    fn ack(self: &Rc<Self>, state: &mut WorkerState, token: Token, reference: Option<Ref>, receipt: Receipt) {
        let Some(connection) = state.connection(token) else { return };
        let Some(tenant) = connection.admitted.as_ref().map(|it| it.principal().tenant) else { return };
        if connection.flags.write_state.is_blocked() {
            // At most `INFLIGHT_PUBLISHES` are in progress at once, and no more are read while blocked.
            let owed = PendingAck { reference, first: receipt.first, count: receipt.count };
            connection.outbox().acks.push_back(owed);
            return;
        }
        self.write_ack(state, token, tenant, reference.as_ref(), receipt);
    }

    fn write_ack(
        self: &Rc<Self>,
        state: &mut WorkerState,
        token: Token,
        tenant: TenantId,
        reference: Option<&Ref>,
        receipt: Receipt,
    ) {
        let cursors = self.shared.tenants.cursors();
        let ids: Vec<Cursor> = receipt.sequences().map(|sequence| cursors.encode(tenant, sequence)).collect();
        self.control(state, token, &Control::Ack { reference, ids: &ids });
    }

    /// Sends acks that were kept; returns true if none is left.
    pub(super) fn send_owed_acks(self: &Rc<Self>, state: &mut WorkerState, token: Token) -> bool {
        while let Some(connection) = state.connection(token) {
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
            self.write_ack(state, token, tenant, owed.reference.as_ref(), receipt);
        }
        false
    }

    /// Sends an `error`.
    pub(super) fn refuse(
        self: &Rc<Self>,
        state: &mut WorkerState,
        token: Token,
        refusal: &ErrorResponse,
        reference: Option<Ref>,
    ) {
        let details = (!refusal.details.is_null()).then_some(&refusal.details);
        let (code, message) = (refusal.code, refusal.message.as_str());
        self.control(state, token, &Control::Error { code, message, details, reference: reference.as_ref() });
    }
}

/// Reads the events of a publish into its draft, and checks that each is valid and allowed for this
/// publisher.
fn read(
    right: &Authorized<Publish>,
    events: &[&RawValue],
    batch: bool,
    draft: &mut Draft,
) -> Result<(), ErrorResponse> {
    let mut denied = None;
    let mut each = |mut event: Event<'_>| {
        if denied.is_none() {
            match right.check(&mut event) {
                Ok(()) => draft.push(&mut event),
                Err(error) => denied = Some(error),
            }
        }
    };
    match events {
        [event] if !batch => each(Event::parse(event.get())?),
        events => body_reader::read_items(events, &mut each)?,
    }
    denied.map_or(Ok(()), |denied| Err(denied.into()))
}
