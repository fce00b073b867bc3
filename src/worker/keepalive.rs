//! Work that is due by the second: heartbeats, silence, stalls and expiry, all from one timer wheel.
//!
//! * A tick only collects the connections that are due. They are handled in the turns that follow, which give
//!   them a share of their time: the heartbeats of a million connections in one second delay nothing else.
//! * Each connection has one valid entry in the wheel ([`crate::connection::Connection::wheel_tick`]); an entry
//!   that is no longer valid is ignored.
//! * The silence timer is reset by bytes from the peer, or by a blocked socket that becomes writable, never
//!   by our own write.
//! * A cursor sent here never passes an undelivered match.

use crate::allocator;
use crate::close::CloseReason;
use crate::connection::{Tick, WriteState};
use crate::frame::control::Control;
use crate::frame::{sse, ws};
use crate::ids::Sequence;
use crate::transport::{Transport, WireFormat};

use super::sockets::Token;
use super::wheel::Wheel;
use super::{Worker, WorkerLoop, WorkerState};

/// Entries of the wheel that are cleaned up before the next tenants with new events.
const TIDIED_PER_STEP: usize = 256;

impl Worker {
    /// Returns the ticks between a transport's keep-alives.
    pub(super) fn keepalive_ticks(&self, transport: Transport) -> Tick {
        let config = &self.shared.config;
        let seconds = match transport {
            Transport::Ws => config.heartbeat_seconds,
            Transport::Sse | Transport::SseHttp10 | Transport::SseH2 => config.sse_keepalive_seconds,
        };
        Tick::try_from(seconds).unwrap_or(Tick::MAX / 4).max(1)
    }

    fn stall_ticks(&self) -> Tick {
        let seconds = self.shared.config.write_timeout_ms.div_ceil(1_000);
        Tick::try_from(seconds).unwrap_or(Tick::MAX / 4).max(1)
    }
}

impl WorkerLoop<'_> {
    /// Advances the wheel by one second. [`WorkerLoop::look_at_next`] handles what is due, over the turns that
    /// follow.
    pub(super) fn tick(&mut self) {
        let due = self.state.wheel.tick();
        if !due.is_empty() {
            self.state.due.push_back((self.state.wheel.now(), due.into_iter()));
        }
        self.state.wheel.begin_cleanup();
        // Connections that come and go leave nearly empty pages behind, which are freed when a burst of them
        // is over.
        let churned = std::mem::take(&mut self.state.churned);
        allocator::release_free_pages(self.state.churned_before && !churned);
        self.state.churned_before = churned;
    }

    /// Handles the next connection that is due, else removes some dead entries of the wheel. Returns false if
    /// there are none.
    pub(super) fn look_at_next(&mut self) -> bool {
        while let Some((tick, due)) = self.state.due.front_mut() {
            let tick = *tick;
            if let Some(token) = due.next() {
                self.check_deadlines(token, tick);
                return true;
            }
            self.state.due.pop_front();
        }
        let WorkerState { wheel, connections, .. } = &mut *self.state;
        wheel.cleanup_step(TIDIED_PER_STEP, |token, at| {
            connections
                .get(token.slot as usize)
                .is_some_and(|it| it.generation == token.generation && it.wheel_tick == at)
        })
    }

    /// Adds a connection to the wheel for its earliest deadline.
    pub(super) fn schedule(&mut self, token: Token) {
        let now = self.state.wheel.now();
        let stall = self.worker.stall_ticks();
        let now_ms = self.worker.shared.clock.now_ms();
        let Some(connection) = self.state.connection(token) else { return };
        let mut ticks = connection.heartbeat_at.saturating_sub(now).min(stall);
        if let Some(ms) = connection.admitted.as_ref().and_then(|it| it.principal().expires_at_ms) {
            let left = ms.saturating_sub(now_ms).div_ceil(1_000);
            ticks = ticks.min(Tick::try_from(left).unwrap_or(Tick::MAX));
        }
        if let Some(late) = self.deadline(token) {
            ticks = ticks.min(late.saturating_sub(now));
        }
        self.schedule_within(token, ticks);
    }

    /// Returns when the peer's incomplete message is too late. A message that grows gets more time.
    pub(super) fn deadline(&mut self, token: Token) -> Option<Tick> {
        let inbound = self.state.connection(token)?.inbound.as_ref()?;
        let seconds = self.worker.shared.config.receive_time(inbound.decoder.held_bytes()).as_secs() + 1;
        Some(inbound.since?.saturating_add(Tick::try_from(seconds).unwrap_or(Tick::MAX / 4)))
    }

    /// Ensures that the connection is handled within `ticks`. An entry that is due sooner stays the valid
    /// one, and a later deadline is entered then: so a peer that moves its deadline again and again leaves no
    /// entry for each time.
    pub(super) fn schedule_within(&mut self, token: Token, ticks: Tick) {
        let now = self.state.wheel.now();
        let at = Wheel::tick_of(now, ticks);
        let Some(connection) = self.state.connection(token) else { return };
        if connection.wheel_tick > now && connection.wheel_tick <= at {
            return;
        }
        connection.wheel_tick = at;
        self.state.wheel.schedule(ticks, token);
    }

    /// Handles a connection whose entry was due at `tick`.
    fn check_deadlines(&mut self, token: Token, tick: Tick) {
        let (now, now_ms) = (self.state.wheel.now(), self.worker.shared.clock.now_ms());
        let stall = self.worker.stall_ticks();
        let late = self.deadline(token).is_some_and(|late| late <= now);
        let Some(connection) = self.state.connection(token) else { return };
        if connection.wheel_tick != tick {
            return; // a newer entry is elsewhere
        }
        if connection.flags.closing {
            self.drop_connection(token, CloseReason::Peer);
            return;
        }
        let interval = self.worker.keepalive_ticks(connection.transport);
        let expires = connection.admitted.as_ref().and_then(|it| it.principal().expires_at_ms);
        let silent =
            connection.transport.is_duplex() && now.saturating_sub(connection.last_heard) > 2 * interval;
        let stalled = connection.flags.write_state == WriteState::Blocked
            && connection.out.as_ref().is_some_and(|out| now - out.since >= stall);
        let ended = if expires.is_some_and(|ms| ms <= now_ms) {
            Some(CloseReason::Expired)
        } else if stalled {
            Some(CloseReason::Stalled)
        } else if silent {
            Some(CloseReason::HeartbeatMissed)
        } else if late {
            Some(CloseReason::Late)
        } else {
            None
        };
        if let Some(reason) = ended {
            match reason {
                CloseReason::Stalled => self.drop_connection(token, reason),
                _ => self.close(token, reason),
            }
            return;
        }
        if connection.heartbeat_at <= now {
            connection.heartbeat_at = now + interval;
            if !connection.flags.write_state.is_blocked() && !connection.is_echo() {
                self.heartbeat(token);
            }
        }
        self.schedule(token);
    }

    /// Sends a heartbeat: on WebSocket a Ping and the JSON `ping` in one write; on SSE a comment, or an event
    /// if the position moved.
    fn heartbeat(&mut self, token: Token) {
        let timestamp_ms = self.worker.shared.clock.now_ms();
        let Some(connection) = self.state.connection(token) else { return };
        let Some(admitted) = &connection.admitted else { return };
        let (view, format) = (connection.view, connection.transport.wire_format());
        let tenant = admitted.principal().tenant;
        let (last_sent, always) = (connection.last_sent, connection.flags.heartbeat_event);
        let position = match self.state.views.get(view as usize) {
            Some(it) if connection_is_subscribed(self.state, token) => {
                it.position_of(&self.state.connections[token.slot as usize])
            }
            _ => {
                self.worker.shared.tenants.get(tenant).map_or(Sequence::ZERO, |tenant| tenant.last_visible())
            }
        };
        if let Some(connection) = self.state.connection(token) {
            connection.last_sent = position;
        }
        let cursor = self.cursor_of(token, position);
        let mut bytes = Vec::with_capacity(128);
        match format {
            WireFormat::Ws => {
                ws::ping(&[], &mut bytes);
                Control::Ping { timestamp_ms, cursor }.encode(format, &mut bytes);
            }
            WireFormat::Sse | WireFormat::SseChunked if always || position != last_sent => {
                Control::Heartbeat { timestamp_ms, cursor }.encode(format, &mut bytes);
            }
            WireFormat::Sse => bytes.extend_from_slice(sse::KEEP_ALIVE),
            WireFormat::SseChunked => bytes.extend_from_slice(sse::KEEP_ALIVE_CHUNKED),
        }
        self.raw_control(token, &bytes);
    }
}

fn connection_is_subscribed(state: &WorkerState, token: Token) -> bool {
    state.connections.get(token.slot as usize).is_some_and(|connection| connection.row.is_some())
}
