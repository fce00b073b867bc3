//! The end of connections: closing with a reason, and the one place that drops a connection.
//!
//! * Dropping a [`Connection`](crate::connection::Connection) releases its permits and its descriptor.
//!   [`WorkerLoop::drop_connection`] undoes the rest (index row, view, gauges), and no other code does.
//! * A WebSocket that the server closes lingers, with its input discarded, until the peer closes or
//!   [`LINGER_TICKS`] have passed: closing at once would reset the connection and could destroy the close
//!   frame on its way.

use crate::close::CloseReason;
use crate::connection::{EventSource, ReadMode, Sink, Tick};
use crate::frame::control::Control;
use crate::frame::{chunked, ws};
use crate::transport::WireFormat;

use super::WorkerLoop;
use super::sockets::Token;

/// Ticks (seconds) that a closed WebSocket may take to answer the close.
const LINGER_TICKS: Tick = 1;

impl WorkerLoop<'_> {
    /// Closes a connection with a reason that is sent to its peer.
    pub(super) fn close(&mut self, token: Token, reason: CloseReason) {
        let Some(connection) = self.state.connection(token) else { return };
        if connection.flags.closing {
            return;
        }
        let end_of_body = match connection.transport.wire_format() {
            WireFormat::Ws => {
                let mut frame = Vec::new();
                if let Some(code) = reason.code() {
                    ws::close(Some(code), reason.words().1, &mut frame);
                }
                return self.end_ws(token, &frame, reason);
            }
            WireFormat::SseChunked => chunked::END,
            WireFormat::Sse => &[],
        };
        let (code, message) = reason.words();
        self.control(token, &Control::Error { code, message, details: None, reference: None });
        self.raw_control(token, end_of_body);
        self.drop_connection(token, reason);
    }

    /// Ends an SSE response after everything that is still to be written.
    pub(super) fn finish(&mut self, token: Token, reason: CloseReason) {
        let Some(connection) = self.state.connection(token) else { return };
        if connection.transport.wire_format() == WireFormat::SseChunked {
            self.raw_control(token, chunked::END);
        }
        self.leave_tenant(token);
        let Some(connection) = self.state.connection(token) else { return };
        connection.flags.source = EventSource::Finished;
        connection.close_reason = reason;
        if connection.out.is_none() {
            self.drop_connection(token, reason);
        } else {
            self.state.run(token);
        }
    }

    /// Sends a last frame, leaves the tenant, and lingers until the peer closes.
    pub(super) fn end_ws(&mut self, token: Token, frame: &[u8], reason: CloseReason) {
        self.raw_control(token, frame);
        let Some(connection) = self.state.connection(token) else { return };
        if connection.flags.write_state.is_blocked() {
            // The frame cannot be sent, so the connection is reset.
            self.drop_connection(token, reason);
            return;
        }
        if let Some(fd) = connection.sink.socket() {
            // An error says that the connection is gone already.
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
        }
        connection.flags.closing = true;
        connection.close_reason = reason;
        // Further input is read and discarded in a later turn, since this may be called during a read.
        connection.flags.unread = true;
        self.leave_tenant(token);
        self.schedule_within(token, LINGER_TICKS);
        self.state.run(token);
    }

    /// Removes a connection from its tenant's view: it gets no more events.
    pub(super) fn leave_tenant(&mut self, token: Token) {
        let Some(connection) = self.state.connection(token) else { return };
        let mode = std::mem::replace(&mut connection.mode, ReadMode::Silent);
        let (view, row) = (connection.view, connection.row.take());
        connection.mask = 0;
        let pending = std::mem::take(&mut connection.pending);
        self.worker.metrics().pending.add(-i64::from(pending));
        self.worker.metrics().dropped.add(u64::from(pending));
        if mode == ReadMode::Behind {
            self.worker.metrics().behind.add(-1);
        }
        if let Some(row) = row {
            self.state.remove_row(view, row);
            self.state.leave_view(view, self.worker.id);
        }
    }

    /// Closes a connection whose credential has ended, without waiting for the mail about it.
    pub(super) fn close_if_ended(&mut self, token: Token) {
        let Some(admitted) = self.state.connection(token).and_then(|connection| connection.admitted.as_ref())
        else {
            return;
        };
        if let Err(ended) = self.worker.shared.auth.confirm(admitted.principal()) {
            self.close(token, crate::error_response::close_reason(ended));
        }
    }

    /// Drops a connection at once; the only place that does.
    pub(super) fn drop_connection(&mut self, token: Token, reason: CloseReason) {
        if self.state.connection(token).is_none() {
            return;
        }
        self.leave_tenant(token);
        self.state.stream_readers.remove(token.slot);
        let Some(connection) = self.state.connections.remove(token.slot as usize) else { return };
        self.state.churned = true;
        self.state.wheel.on_entry_dead();
        let is_finished = connection.flags.source == EventSource::Finished;
        let reason = if connection.flags.closing || is_finished { connection.close_reason } else { reason };
        if reason == CloseReason::Stalled
            && let Some(fd) = connection.sink.socket()
        {
            let _ = socket2::SockRef::from(&fd).set_linger(Some(std::time::Duration::ZERO));
        }
        if let Sink::Body(queue) = &connection.sink {
            queue.end();
        }
        if connection.sink.socket().is_some() {
            self.worker.socket_closed();
        }
        if let Some(admitted) = &connection.admitted {
            self.state.index.remove(admitted.principal(), token.slot);
            if connection.view == u32::MAX {
                self.state.release_tenant(admitted.principal().tenant);
            }
        }
        self.worker.metrics().connections[connection.transport].add(-1);
        self.worker.metrics().closed[reason as usize].add(1);
        tracing::debug!(connection = connection.id, reason = reason.label(), "connection ended");
    }
}
