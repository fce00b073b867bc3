//! The start of connections: taking over a socket or response body from hyper, and the control frames that
//! every connection is sent.
//!
//! The response head and `ready` are one write. Rights are checked here too, because later rechecks only
//! follow later changes.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use crate::auth::Principal;
use crate::close::CloseReason;
use crate::connection::admission::ConnectionPermit;
use crate::connection::body_queue::BodyQueue;
use crate::connection::sink::MemorySink;
use crate::connection::{Connection, Flags, ReadMode, Sink};
use crate::cursor::Cursor;
use crate::filter::Filter;
use crate::frame::control::Control;
use crate::ids::{Sequence, TenantId};
use crate::tenant::Tenant;
use crate::tenant::start::ResolvedStart;
use crate::transport::Transport;

use super::connection_index::Owner;
use super::sockets::Token;
use super::stream_readers::StreamSubscription;
use super::{Worker, WorkerLoop, WorkerState};

/// A connection that is handed over to the worker.
pub struct ConnectionHandoff {
    /// Its permits and its principal; `None` for the diagnostic echo.
    pub admitted: Option<ConnectionPermit>,
    /// Its organization, kept in memory until the worker keeps it; `None` for the diagnostic echo.
    pub tenant: Option<Arc<Tenant>>,
    /// The protocol that the client speaks.
    pub transport: Transport,
    /// The filter to subscribe to; `None` if the connection only publishes.
    pub filter: Option<Filter>,
    /// Where the subscription starts.
    pub start: ResolvedStart,
    /// The streams that are read from their start.
    pub streams: Option<StreamSubscription>,
    /// `echo=false`.
    pub no_echo: bool,
    /// `heartbeat=event`.
    pub heartbeat_event: bool,
    /// The response head, for a socket that was taken over from hyper.
    pub head: Vec<u8>,
    /// Bytes that the client sent after the request head.
    pub leftover: Bytes,
}

impl Worker {
    /// Takes over a socket: adds it to the epoll set, writes head and `ready` in one write, and starts its
    /// subscription.
    ///
    /// # Errors
    /// The kernel refused the socket.
    pub fn adopt_socket(self: &Rc<Self>, socket: OwnedFd, handoff: ConnectionHandoff) -> io::Result<()> {
        self.with_state(|it| {
            let token = it.state.vacant_token();
            self.sockets.add(&socket, token)?;
            it.adopt(token, Sink::Socket(socket), handoff);
            io::Result::Ok(())
        })?;
        self.nudge();
        Ok(())
    }

    /// Serves a response body like a socket. The response reads from the returned queue.
    pub fn adopt_body(self: &Rc<Self>, handoff: ConnectionHandoff) -> Rc<BodyQueue> {
        let worker = Rc::downgrade(self);
        let tenant = handoff.admitted.as_ref().map(|admitted| admitted.principal().tenant);
        let queue = self.with_state(|it| {
            let token = it.state.vacant_token();
            let queue = BodyQueue::new(self.shared.unread_streams.claim(tenant), move || {
                if let Some(worker) = worker.upgrade() {
                    worker.body_ready.borrow_mut().push_back(token);
                    worker.nudge();
                }
            });
            it.adopt(token, Sink::Body(queue.clone()), handoff);
            queue
        });
        self.nudge();
        queue
    }

    /// Serves a connection without a transport; only the simulation uses it (`benches/million.rs`).
    pub fn adopt_memory(self: &Rc<Self>, ledger: Rc<MemorySink>, handoff: ConnectionHandoff) {
        self.with_state(|it| {
            let token = it.state.vacant_token();
            it.adopt(token, Sink::Memory(ledger), handoff);
        });
        self.nudge();
    }
}

impl WorkerLoop<'_> {
    fn adopt(&mut self, token: Token, sink: Sink, handoff: ConnectionHandoff) {
        let now = self.state.wheel.now();
        let interval = self.worker.keepalive_ticks(handoff.transport);
        let mut handoff = handoff;
        let is_echo = handoff.admitted.is_none();
        let mut ended = None;
        if let Some(admitted) = &mut handoff.admitted {
            self.state.share_principal(admitted);
            let rights = self.worker.shared.auth.still_valid(admitted.principal());
            ended = rights.err().map(crate::error_response::close_reason);
        }
        // The connection was granted before the drain began, so nothing else would close it.
        ended = ended.or_else(|| self.worker.stop.borrow().then_some(CloseReason::Restart));
        let connection = Connection {
            id: self.worker.shared.connection_id(),
            generation: token.generation,
            flags: Flags {
                no_echo: handoff.no_echo,
                heartbeat_event: handoff.heartbeat_event,
                unread: !handoff.leftover.is_empty(),
                ..Flags::default()
            },
            admitted: handoff.admitted,
            sink,
            transport: handoff.transport,
            mode: ReadMode::Silent,
            view: u32::MAX,
            row: None,
            position: Sequence::ZERO,
            evaluated: Sequence::ZERO,
            last_sent: Sequence::ZERO,
            mask: 0,
            pending: 0,
            since_ms: self.worker.shared.clock.now_ms(),
            sent_events: 0,
            sent_bytes: 0,
            last_heard: now,
            // Heartbeats are spread: the first one comes anywhere within the interval.
            heartbeat_at: now + 1 + token.generation % interval,
            wheel_tick: 0,
            out: None,
            inbound: None,
            bad_frames: 0,
            inflight: 0,
            close_reason: CloseReason::Peer,
        };
        self.state.churned = true;
        self.state.connections.insert(connection); // at `token.slot`, which was vacant
        self.state.index_owners(token.slot, None);
        self.worker.metrics().connections[handoff.transport].add(1);
        self.schedule(token);
        if let Some(connection) = self.state.connection(token) {
            // Kept back, so that what follows is written together with it.
            let out = connection.outbox();
            (out.control, out.since) = (handoff.head.as_slice().into(), now);
        }
        if let Some(tenant) = handoff.tenant.as_ref().filter(|_| !is_echo) {
            self.state.hold_tenant(tenant);
        }
        // Rights are checked here too, since later rechecks only follow later changes.
        if let Some(reason) = ended {
            self.flush(token, now); // the response head is sent before the reason
            return self.close(token, reason);
        }
        if !is_echo {
            match handoff.filter {
                Some(filter) => {
                    self.subscribe(token, filter, Some(handoff.start), None);
                    if let Some(streams) = handoff.streams {
                        self.read_streams(token, streams);
                    }
                }
                None => self.write_ready(token, &ResolvedStart::NOW, None),
            }
        }
        if let Some(admitted) =
            self.state.connection(token).and_then(|connection| connection.admitted.as_ref())
        {
            admitted.arrived(); // it has its position now, so it gets its own presence event
        }
        self.take_leftover(token, &handoff.leftover);
        if self.flush(token, now) {
            self.state.run(token);
        }
    }

    /// Writes a control frame, or keeps it until the transport takes it.
    pub(super) fn control(&mut self, token: Token, control: &Control<'_>) {
        let Some(connection) = self.state.connection(token) else { return };
        let format = connection.transport.wire_format();
        let mut bytes = std::mem::take(&mut self.state.control);
        bytes.clear();
        control.encode(format, &mut bytes);
        self.raw_control(token, &bytes);
        self.state.control = bytes;
    }

    /// Returns a position as the connection's client sees it.
    pub(super) fn cursor_of(&mut self, token: Token, position: Sequence) -> Cursor {
        let cursors = self.worker.shared.tenants.cursors();
        let Some(connection) = self.state.connection(token) else {
            return Cursor([b'A'; crate::cursor::CURSOR_LEN]);
        };
        let (view, tenant) = (connection.view, connection.admitted.as_ref().map(|it| it.principal().tenant));
        match (self.state.views.get_mut(view as usize), tenant) {
            (Some(it), Some(tenant)) if it.tenant.id() == tenant => it.cursor(&cursors, position),
            (_, tenant) => cursors.encode(tenant.unwrap_or(TenantId(0)), position),
        }
    }

    /// Writes control bytes, or keeps them until the transport takes them.
    pub(super) fn raw_control(&mut self, token: Token, bytes: &[u8]) {
        let now = self.state.wheel.now();
        let Some(connection) = self.state.connection(token) else { return };
        let was_blocked = connection.flags.write_state.is_blocked();
        let wrote = connection.control(bytes);
        // Keeping bytes for a blocked connection is no progress, so its stall continues.
        if wrote.blocked && !was_blocked {
            connection.outbox().since = now;
        }
        if wrote.gone {
            self.drop_connection(token, CloseReason::Peer);
        }
    }
}

impl WorkerState {
    /// Returns the token of the next connection.
    fn vacant_token(&mut self) -> Token {
        Token { slot: self.connections.vacant_key() as u32, generation: self.next_generation() }
    }

    /// Lets connections of one API key share one principal.
    fn share_principal(&self, admitted: &mut ConnectionPermit) {
        let principal = admitted.principal();
        // A ticket in a user's name was issued by a key too, but its principal is the user's own.
        let Some(key_id) = principal.key_id().filter(|_| principal.sub.is_none()) else { return };
        let tag = self.index.tag(Owner::Key(principal.tenant, key_id));
        let slot = self.index.next(tag, 0);
        let holder = slot.and_then(|slot| self.connections.get(slot as usize)?.admitted.as_ref());
        if let Some(known) =
            holder.map(ConnectionPermit::principal).filter(|known| *known == principal).cloned()
        {
            admitted.renew(known);
        }
    }

    /// Adds a connection to the index under its owners, in place of those of an earlier principal.
    pub(super) fn index_owners(&mut self, slot: u32, before: Option<&Principal>) {
        let Some(admitted) = self.connections.get(slot as usize).and_then(|it| it.admitted.as_ref()) else {
            return;
        };
        if let Some(before) = before {
            self.index.remove(before, slot);
        }
        self.index.insert(admitted.principal(), slot);
    }
}
