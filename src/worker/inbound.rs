//! Input from clients: bytes from a socket, messages from the decoder, client frames from messages.
//!
//! * There is one read buffer per worker. A connection keeps input only while it is paused
//!   ([`crate::connection::Inbound::unprocessed`]).
//! * A connection with too much pending output, or that waits for something, is not read: TCP's own
//!   backpressure slows its peer.
//! * A peer's bytes never cause a panic: the result is a response, a close code, or the end of the
//!   connection.

use std::io;

use crate::close::CloseReason;
use crate::connection::byte_shares::FREE_BYTES;
use crate::connection::client_frame::{ClientFrame, Subscribe};
use crate::error_response::ErrorResponse;
use crate::frame::control::{Control, Ref};
use crate::frame::ws;
use crate::frame::ws_decode::{Limits, Message, Violation};
use crate::tenant::start;

use super::WorkerLoop;
use super::sockets::Token;
use super::ws_publish::PublishFrame;

/// Bad frames in a row before the connection is closed with code 1008.
pub const BAD_FRAMES: u8 = 10;
/// Reads of one connection before others have their turn.
const READS_PER_TURN: usize = 1;
/// Microseconds for one connection's messages before others have their turn. A buffer can hold thousands of
/// messages.
const SHARE_US: u64 = 200;

impl WorkerLoop<'_> {
    /// Reads a connection until it is drained, is paused, or has had its turn. A read that does not fill the
    /// buffer has drained the socket, and later input causes a new edge. This is not so if the peer has
    /// already ended its side: `ended` says that an edge reported this, or that it is unknown which edges
    /// there were.
    pub(super) fn read(&mut self, token: Token, ended: bool) {
        let mut input = std::mem::take(&mut self.state.input);
        for turn in 0.. {
            let now = self.state.wheel.now();
            let Some(connection) = self.state.connection(token) else { break };
            if !connection.flags.closing && !connection.may_read() {
                connection.flags.unread = true; // reading continues when the reason is gone
                break;
            }
            if turn == READS_PER_TURN {
                connection.flags.unread = true;
                self.state.run(token);
                break;
            }
            if let Some(mut kept) = connection.inbound.as_mut().and_then(|it| it.unprocessed.take()) {
                self.feed(token, &mut kept);
                continue;
            }
            match connection.sink.read(&mut input) {
                Ok(0) => {
                    self.drop_connection(token, CloseReason::Peer);
                    break;
                }
                Ok(n) => {
                    connection.last_heard = now;
                    // An SSE client sends nothing after its request, and input of a closed WebSocket is
                    // ignored.
                    if !connection.flags.closing && connection.transport.is_duplex() {
                        self.feed(token, &mut input[..n]);
                    }
                    if n < input.len()
                        && !ended
                        && let Some(connection) = self.state.connection(token)
                        && connection.inbound.as_ref().is_none_or(|it| it.unprocessed.is_none())
                    {
                        connection.flags.unread = false;
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.flags.unread = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.drop_connection(token, CloseReason::Peer);
                    break;
                }
            }
        }
        self.state.input = input;
    }

    /// Continues reading if the reason for not reading is gone.
    pub(super) fn resume_reading(&mut self, token: Token) {
        if self
            .state
            .connection(token)
            .is_some_and(|connection| connection.flags.unread && connection.may_read())
        {
            self.state.run(token);
        }
    }

    /// Handles bytes that hyper had read after the request head.
    pub(super) fn take_leftover(&mut self, token: Token, leftover: &[u8]) {
        if let Some(connection) = self.state.connection(token)
            && !leftover.is_empty()
            && connection.transport.is_duplex()
        {
            connection.inbound().unprocessed = Some(leftover.into());
        }
    }

    fn feed(&mut self, token: Token, bytes: &mut [u8]) {
        let Some(connection) = self.state.connection(token) else { return };
        let echo = connection.is_echo();
        let limits = if echo { Limits::ECHO } else { self.worker.shared.ws_limits };
        let mut decoder =
            connection.inbound.as_mut().map(|it| std::mem::take(&mut it.decoder)).unwrap_or_default();
        let mut at = 0;
        let until_us = self.worker.shared.clock.monotonic_us() + SHARE_US;
        let mut whole = false;
        while at < bytes.len() {
            match decoder.next(&mut bytes[at..], &limits) {
                Ok(step) => {
                    at += step.used;
                    whole |= matches!(step.message, Some(Message::Text(_) | Message::Binary(_)));
                    match step.message {
                        Some(message) if echo => self.on_echo(token, message),
                        Some(message) => self.on_message(token, message),
                        None => break,
                    }
                }
                Err(violation) => {
                    self.close(token, close_of(violation));
                    return;
                }
            }
            let Some(connection) = self.state.connection(token) else { return };
            if connection.flags.closing {
                return;
            }
            let is_over = !connection.may_read() || self.worker.shared.clock.monotonic_us() >= until_us;
            if is_over && at < bytes.len() {
                connection.inbound().unprocessed = Some(bytes[at..].into());
                connection.flags.unread = true;
                break;
            }
        }
        decoder.free(); // frees the last message; incomplete ones stay
        if let Some(connection) = self.state.connection(token) {
            if decoder.is_partial() {
                connection.inbound().decoder = decoder;
            }
            connection.release_empty_inbound();
        }
        self.account(token, whole);
    }

    /// Counts the peer's incomplete input against its organization's share, and sets the time by which a
    /// message must be complete. `whole` says that a message was completed since the last call.
    fn account(&mut self, token: Token, whole: bool) {
        let now = self.state.wheel.now();
        let Some(connection) = self.state.connection(token) else { return };
        let tenant = connection.admitted.as_ref().map(|admitted| admitted.principal().tenant);
        let Some(inbound) = connection.inbound.as_mut() else { return };
        let partial = inbound.decoder.held_bytes();
        let held = partial + inbound.unprocessed.as_ref().map_or(0, |kept| kept.len());
        let begun = whole || inbound.since.is_none();
        match (inbound.decoder.is_partial(), begun) {
            (false, _) => inbound.since = None,
            (true, true) => inbound.since = Some(now),
            (true, false) => {}
        }
        // The diagnostic echo takes whatever conformance suites send, and is not open to strangers.
        if held == 0 || tenant.is_none() {
            inbound.claim = None;
            return;
        }
        let claim = inbound.claim.get_or_insert_with(|| self.worker.shared.incoming.claim(tenant));
        if claim.set(held).is_err() {
            // Input that only waits for this worker is not the peer's fault.
            if partial > FREE_BYTES || connection.flags.write_state.is_blocked() {
                return self.close(token, CloseReason::OverShare);
            }
            claim.force(held);
        }
        if begun && let Some(late) = self.deadline(token) {
            self.schedule_within(token, late.saturating_sub(now));
        }
    }

    fn on_message(&mut self, token: Token, message: Message<'_>) {
        match message {
            Message::Text(text) => self.on_text(token, text),
            Message::Binary(_) => self.close(token, CloseReason::Binary),
            other => self.on_control(token, other),
        }
    }

    /// Handles the diagnostic echo: each message is returned as one of its type.
    fn on_echo(&mut self, token: Token, message: Message<'_>) {
        let mut bytes = Vec::new();
        match message {
            Message::Text(text) => ws::text(text, &mut bytes),
            Message::Binary(payload) => ws::binary(payload, &mut bytes),
            other => return self.on_control(token, other),
        }
        self.raw_control(token, &bytes);
    }

    fn on_control(&mut self, token: Token, message: Message<'_>) {
        let mut bytes = Vec::new();
        match message {
            Message::Ping(payload) => {
                ws::pong(payload, &mut bytes);
                self.raw_control(token, &bytes);
            }
            Message::Close { code, .. } => {
                ws::close(code, "", &mut bytes);
                self.end_ws(token, &bytes, CloseReason::Peer);
            }
            Message::Pong(_) | Message::Text(_) | Message::Binary(_) => {}
        }
    }

    fn on_text(&mut self, token: Token, text: &str) {
        let parsed = ClientFrame::parse(text);
        let Some(connection) = self.state.connection(token) else { return };
        connection.bad_frames = if parsed.is_ok() { 0 } else { connection.bad_frames + 1 };
        let bad = connection.bad_frames;
        match parsed {
            Ok(ClientFrame::Ping) => {
                let timestamp_ms = self.worker.shared.clock.now_ms();
                self.control(token, &Control::Pong { timestamp_ms });
            }
            Ok(ClientFrame::Pong) => {}
            Ok(ClientFrame::Subscribe(subscribe)) => self.on_subscribe(token, subscribe),
            Ok(ClientFrame::Auth { token: credential, reference }) => {
                self.on_auth(token, credential.as_ref(), reference);
            }
            Ok(ClientFrame::Publish { reference, events, batch, ack }) => {
                self.publish(token, PublishFrame { reference, events, batch, ack });
            }
            Ok(ClientFrame::Append(frame)) => self.append_to_stream(token, frame),
            Ok(ClientFrame::End(frame)) => self.end_stream(token, frame),
            Ok(ClientFrame::Cancel { request_id, reason, reference }) => {
                self.cancel_stream(token, request_id.into(), reason.map(Into::into), reference);
            }
            Err(error) => {
                self.refuse(token, &ErrorResponse::bad_request(error.reason), error.reference);
                if bad >= BAD_FRAMES {
                    self.close(token, CloseReason::Policy);
                }
            }
        }
    }

    fn on_subscribe(&mut self, token: Token, subscribe: Subscribe) {
        let Subscribe { reference, filter, from, from_start } = subscribe;
        let Some(connection) = self.state.connection(token) else { return };
        let Some(admitted) = &connection.admitted else { return };
        if let Err(missing) = admitted.principal().authorize::<crate::auth::Subscribe>() {
            return self.refuse(token, &missing.into(), reference);
        }
        // Charged like an HTTP request, because resolving the start position may read the log.
        if let Err(over) = self
            .worker
            .shared
            .tenants
            .rates()
            .request(admitted.principal().tenant, self.worker.shared.clock.now_ms())
        {
            return self.refuse(token, &over.into(), reference);
        }
        let Some(tenant) = self.worker.shared.tenants.get(admitted.principal().tenant) else { return };
        if from_start {
            return self.subscribe_to_streams(token, tenant, filter, from, reference);
        }
        let Some(from) = from else { return self.subscribe(token, filter, None, reference) };
        if let Some(start) = start::resolve_now(&self.worker.shared.tenants.cursors(), &tenant, &from) {
            return self.subscribe(token, filter, Some(start), reference);
        }
        // Only `since` reads the log. The old subscription continues until the result is there, and unread
        // input waits.
        connection.flags.paused = true;
        let worker = self.worker.clone();
        tokio::task::spawn_local(async move {
            let start = start::resolve(worker.shared.tenants.store(), &tenant, &from).await;
            worker.with_state(|it| {
                if let Some(connection) = it.state.connection(token) {
                    connection.flags.paused = false;
                }
                match start {
                    Ok(start) => it.subscribe(token, filter, Some(start), reference),
                    Err(error) => it.refuse(token, &error.into(), reference),
                }
                it.resume_reading(token);
            });
            worker.nudge();
        });
    }

    fn on_auth(&mut self, token: Token, credential: &str, reference: Option<Ref>) {
        let Some(connection) = self.state.connection(token) else { return };
        let Some(admitted) = connection.admitted.as_mut() else { return };
        match self.worker.shared.auth.renew(admitted.principal(), credential, admitted.peer()) {
            Ok(principal) => {
                let rights = self.worker.shared.auth.still_valid(&principal);
                let may_subscribe = principal.authorize::<crate::auth::Subscribe>().is_ok();
                let subscribed = connection.row.is_some();
                let before = admitted.principal().clone();
                admitted.renew(principal);
                self.state.index_owners(token.slot, Some(&before));
                match rights {
                    // The new credential must allow the subscription, or the connection is closed.
                    Ok(_) if subscribed && !may_subscribe => {
                        return self.close(token, CloseReason::Revoked);
                    }
                    Ok(rights) => self.renew_rights(token, rights),
                    Err(ended) => {
                        return self.close(token, crate::error_response::close_reason(ended));
                    }
                }
                self.schedule(token); // the new expiry may come sooner
                self.control(
                    token,
                    &Control::Ack { reference: reference.as_ref(), ids: &[], next_index: None },
                );
            }
            Err(crate::auth::RenewError::ChangedIdentity) => self.close(token, CloseReason::Revoked),
            Err(crate::auth::RenewError::Refused(error)) => self.refuse(token, &error.into(), reference),
        }
    }
}

fn close_of(violation: Violation) -> CloseReason {
    match violation.code() {
        1007 => CloseReason::BadText,
        1009 => CloseReason::TooLarge,
        _ => CloseReason::Protocol,
    }
}
