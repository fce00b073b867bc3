//! One turn of a worker's loop: sockets that are ready, bodies, mail, acks, scans, heartbeats, tenants with
//! new events, connections with work left.
//!
//! * New events come before everything: after each step the tenants with new events that this turn has not
//!   served are served. So one tenant can delay another's events by one step, not by a turn.
//! * Work that may be long has a share of time and continues in the next turn: between two turns the reactor,
//!   accepts, requests and the tick run.
//! * Each part makes some progress in every turn, so that none starves another.

use std::io;

use crate::close::CloseReason;
use crate::connection::{Sink, WriteState};
use crate::time::Clock;

use crate::frame::control::Control;

use super::WorkerLoop;
use super::mail::Mail;
use super::sockets::{Ready, Token};

/// Microseconds per turn for each of: sockets that are ready, tenants with new events, connections with work
/// left.
const SHARE_US: u64 = 200;
/// Pieces of mail between two checks of the clock and of tenants with new events.
const MAIL_PER_STEP: usize = 16;
/// Tenants with new events that are served in a turn whatever the time. So one with a large audience delays
/// at least this many others by no more than its own share.
const LEAST_VIEWS: usize = 4;

impl WorkerLoop<'_> {
    /// Does one round over everything that has work. Returns true if work remains for the next turn.
    pub(super) fn turn(&mut self) -> io::Result<bool> {
        self.worker.metrics().turns.add(1);
        self.state.turn += 1;
        self.worker.fair_share.borrow_mut().renew();
        self.serve_fresh_tenants();
        let mut more_events = true;
        if self.state.events.is_empty() {
            more_events = self.worker.sockets.take(&mut self.state.events)?;
        }
        let clock = self.worker.shared.clock.clone();
        let mut budget = Budget::new(&*clock, 1);
        while budget.lasts()
            && let Some(event) = self.state.events.pop_front()
        {
            self.on_ready(event);
            self.serve_fresh_tenants();
        }
        more_events |= !self.state.events.is_empty();

        let mut budget = Budget::new(&*clock, 1);
        while budget.lasts()
            && let Some(token) = self.next_ready_body()
        {
            self.on_body_ready(token);
            self.serve_fresh_tenants();
        }
        self.read_mail();
        let mut budget = Budget::new(&*clock, 1);
        while budget.lasts()
            && let Some((_, committed)) = self.state.acks.pop()
        {
            self.on_committed(committed);
            self.serve_fresh_tenants();
        }
        let mut budget = Budget::new(&*clock, 1);
        while budget.lasts() && !self.state.scans.is_empty() {
            self.scan();
            self.serve_fresh_tenants();
        }
        let mut budget = Budget::new(&*clock, 1);
        while budget.lasts() && self.look_at_next() {
            self.serve_fresh_tenants();
        }

        let mut budget = Budget::new(&*clock, 1);
        for _ in 0..self.state.served_views.len() {
            if !budget.lasts() {
                break;
            }
            let Some(view) = self.state.served_views.pop_front() else { break };
            self.serve(view);
            self.serve_fresh_tenants();
        }
        let mut budget = Budget::new(&*clock, 1);
        for _ in 0..self.state.run.len() {
            if !budget.lasts() {
                break;
            }
            let Some((_, token)) = self.state.run.pop() else { break };
            self.advance(token);
            self.serve_fresh_tenants();
        }
        let waiting = self.worker.fair_share.borrow().is_waited_for();
        Ok(more_events
            || waiting
            || !self.worker.body_ready.borrow().is_empty()
            || !self.state.mail.is_empty()
            || !self.state.acks.is_empty()
            || !self.state.scans.is_empty()
            || !self.state.due.is_empty()
            || !self.state.fresh_views.is_empty()
            || !self.state.served_views.is_empty()
            || !self.state.run.is_empty())
    }

    fn next_ready_body(&self) -> Option<Token> {
        self.worker.body_ready.borrow_mut().pop_front()
    }

    /// Takes the mail from the mailbox. Each piece is a short step, or adds the work to a queue that has a
    /// share of its own.
    fn read_mail(&mut self) {
        if self.state.mail.is_empty() {
            let mut fresh = Vec::from(std::mem::take(&mut self.state.mail)); // two buffers in turn, no allocation
            self.worker.shared.mail[self.worker.id].drain(&mut fresh);
            self.state.mail = fresh.into();
        }
        let clock = self.worker.shared.clock.clone();
        let mut budget = Budget::new(&*clock, 1);
        while !self.state.mail.is_empty() && budget.lasts() {
            for _ in 0..MAIL_PER_STEP {
                let Some(mail) = self.state.mail.pop_front() else { break };
                self.on_mail(mail);
            }
            self.serve_fresh_tenants();
        }
    }

    fn on_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Accepted(accepted) => match self.worker.on_accepted.get() {
                Some(serve) => serve(accepted),
                None => tracing::warn!("a socket was assigned to a worker that is not serving yet"),
            },
            Mail::StreamCancelled(token, id) => self.control(token, &Control::Cancel { request_id: &id }),
            Mail::Committed(committed) => {
                if let Some(tenant) = self.state.tenant_of(committed.token) {
                    self.state.acks.push(tenant, committed);
                }
            }
            Mail::CommitNotice(notice) => self.worker.commits.on_notice(&notice),
            Mail::List { selector, after, most, reply } => self.queue_list(selector, after, most, reply),
            Mail::Describe { tenant, found, reply } => self.queue_describe(tenant, found, reply),
            Mail::Close(selector, reply) => self.queue_close(selector, reply),
            Mail::Recheck(change) => self.state.scans.recheck(&change),
            Mail::Drain { seconds } => self.drain(seconds),
        }
    }

    /// Serves tenants with new events that had no share of this turn; if there are none it costs one load. A
    /// tenant with more work joins those that wait for another share.
    fn serve_fresh_tenants(&mut self) {
        let mut signalled = std::mem::take(&mut self.state.signalled);
        self.worker.shared.wakes[self.worker.id].drain(&mut signalled);
        for tenant in signalled.drain(..) {
            tenant.wake_bits().take(self.worker.id);
            if let Some(&view) = self.state.by_tenant.get(&tenant.id()) {
                self.state.queue_view(view);
            }
        }
        self.state.signalled = signalled;
        if self.state.fresh_views.is_empty() {
            return;
        }
        let clock = self.worker.shared.clock.clone();
        let mut budget = Budget::new(&*clock, LEAST_VIEWS);
        while budget.lasts()
            && let Some(view) = self.state.fresh_views.pop_front()
        {
            self.serve(view);
        }
    }

    /// Serves one view for its share.
    fn serve(&mut self, view: u32) {
        if let Some(it) = self.state.views.get_mut(view as usize) {
            it.served = self.state.turn;
        }
        if self.fan_out(view) {
            self.state.served_views.push_back(view);
        } else if let Some(view) = self.state.views.get_mut(view as usize) {
            view.queued = false;
        }
    }

    fn on_body_ready(&mut self, token: Token) {
        let Some(connection) = self.state.connection(token) else { return };
        if matches!(&connection.sink, Sink::Body(queue) if queue.is_dropped()) {
            self.drop_connection(token, CloseReason::Peer);
            return;
        }
        self.on_ready(Ready { token, readable: false, writable: true, ended: false });
    }

    fn on_ready(&mut self, event: Ready) {
        let now = self.state.wheel.now();
        let Some(connection) = self.state.connection(event.token) else { return };
        if event.writable && connection.flags.write_state.is_blocked() {
            connection.flags.write_state = WriteState::Ready;
            connection.last_heard = now; // a blocked socket that takes bytes again counts as input
            self.state.run(event.token);
        }
        if event.readable {
            self.read(event.token, event.ended);
        }
    }
}

/// The time for one part of a turn.
struct Budget<'a> {
    clock: &'a dyn Clock,
    until_us: u64,
    /// Steps that are taken whatever the time.
    least: usize,
}

impl<'a> Budget<'a> {
    fn new(clock: &'a dyn Clock, least: usize) -> Budget<'a> {
        Budget { clock, until_us: clock.monotonic_us() + SHARE_US, least }
    }

    /// Returns true if another step may be taken.
    fn lasts(&mut self) -> bool {
        if self.least > 0 {
            self.least -= 1;
            return true;
        }
        self.clock.monotonic_us() < self.until_us
    }
}
