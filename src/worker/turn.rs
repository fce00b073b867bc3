//! One turn of a worker's loop: sockets that are ready, bodies, mail, acks, scans, heartbeats, tenants with
//! new events, connections with work left.
//!
//! * New events come before everything: after each step the tenants with new events that this turn has not
//!   served are served. So one tenant can delay another's events by one step, not by a turn.
//! * Work that may be long has a share of time and continues in the next turn: between two turns the reactor,
//!   accepts, requests and the tick run.
//! * Each part makes some progress in every turn, so that none starves another.

use std::io;
use std::rc::Rc;

use crate::close::CloseReason;
use crate::connection::{Sink, WriteState};
use crate::time::Clock;

use super::mail::Mail;
use super::sockets::{Ready, Token};
use super::{Worker, WorkerState};

/// Microseconds per turn for each of: sockets that are ready, tenants with new events, connections with work
/// left.
const SHARE_US: u64 = 200;
/// Pieces of mail between two checks of the clock and of tenants with new events.
const MAIL_PER_STEP: usize = 16;
/// Tenants with new events that are served in a turn whatever the time. So one with a large audience delays
/// at least this many others by no more than its own share.
const LEAST_NEWS: usize = 4;

impl Worker {
    /// Does one round over everything that has work. Returns true if work remains for the next turn.
    pub(super) fn turn(self: &Rc<Self>) -> io::Result<bool> {
        let state = &mut *self.state.borrow_mut();
        self.metrics().turns.add(1);
        state.turn += 1;
        self.fair_share.borrow_mut().renew();
        self.serve_fresh_tenants(state);
        let mut more_events = true;
        if state.events.is_empty() {
            more_events = self.sockets.take(&mut state.events)?;
        }
        let clock = self.shared.clock.clone();
        let mut budget = Budget::new(&*clock, 1);
        while budget.lasts()
            && let Some(event) = state.events.pop_front()
        {
            self.on_ready(state, event);
            self.serve_fresh_tenants(state);
        }
        more_events |= !state.events.is_empty();

        let mut budget = Budget::new(&*clock, 1);
        while budget.lasts()
            && let Some(token) = self.next_ready_body()
        {
            self.on_body_ready(state, token);
            self.serve_fresh_tenants(state);
        }
        self.read_mail(state);
        let mut budget = Budget::new(&*clock, 1);
        while budget.lasts()
            && let Some((_, committed)) = state.acks.pop()
        {
            self.on_committed(state, committed);
            self.serve_fresh_tenants(state);
        }
        let mut budget = Budget::new(&*clock, 1);
        while budget.lasts() && !state.scans.is_empty() {
            self.scan(state);
            self.serve_fresh_tenants(state);
        }
        let mut budget = Budget::new(&*clock, 1);
        while budget.lasts() && self.look_at_next(state) {
            self.serve_fresh_tenants(state);
        }

        let mut budget = Budget::new(&*clock, 1);
        for _ in 0..state.news.len() {
            if !budget.lasts() {
                break;
            }
            let Some(view) = state.news.pop_front() else { break };
            self.serve(state, view);
            self.serve_fresh_tenants(state);
        }
        let mut budget = Budget::new(&*clock, 1);
        for _ in 0..state.run.len() {
            if !budget.lasts() {
                break;
            }
            let Some((_, token)) = state.run.pop() else { break };
            self.advance(state, token);
            self.serve_fresh_tenants(state);
        }
        let waiting = self.fair_share.borrow().is_waited_for();
        Ok(more_events
            || waiting
            || !self.body_ready.borrow().is_empty()
            || !state.mail.is_empty()
            || !state.acks.is_empty()
            || !state.scans.is_empty()
            || !state.due.is_empty()
            || !state.fresh.is_empty()
            || !state.news.is_empty()
            || !state.run.is_empty())
    }

    fn next_ready_body(&self) -> Option<Token> {
        self.body_ready.borrow_mut().pop_front()
    }

    /// Takes the mail from the mailbox. Each piece is a short step, or adds the work to a queue that has a
    /// share of its own.
    fn read_mail(self: &Rc<Self>, state: &mut WorkerState) {
        if state.mail.is_empty() {
            let mut fresh = Vec::from(std::mem::take(&mut state.mail)); // two buffers in turn, no allocation
            self.shared.mail[self.id].drain(&mut fresh);
            state.mail = fresh.into();
        }
        let clock = self.shared.clock.clone();
        let mut budget = Budget::new(&*clock, 1);
        while !state.mail.is_empty() && budget.lasts() {
            for _ in 0..MAIL_PER_STEP {
                let Some(mail) = state.mail.pop_front() else { break };
                self.on_mail(state, mail);
            }
            self.serve_fresh_tenants(state);
        }
    }

    fn on_mail(self: &Rc<Self>, state: &mut WorkerState, mail: Mail) {
        match mail {
            Mail::Accepted(accepted) => match self.on_accepted.get() {
                Some(serve) => serve(accepted),
                None => tracing::warn!("a socket was assigned to a worker that is not serving yet"),
            },
            Mail::Committed(committed) => {
                if let Some(tenant) = state.tenant_of(committed.token) {
                    state.acks.push(tenant, committed);
                }
            }
            Mail::CommitNotice(notice) => self.commits.on_notice(&notice),
            Mail::List { selector, after, most, reply } => state.list(selector, after, most, reply),
            Mail::Describe { tenant, found, reply } => state.describe(tenant, found, reply),
            Mail::Close(selector, reply) => state.close_selected(selector, reply),
            Mail::Recheck(change) => state.scans.recheck(&change),
            Mail::Drain { seconds } => self.drain(state, seconds),
        }
    }

    /// Serves tenants with new events that had no share of this turn; if there are none it costs one load. A
    /// tenant with more work joins those that wait for another share.
    fn serve_fresh_tenants(self: &Rc<Self>, state: &mut WorkerState) {
        let mut signalled = std::mem::take(&mut state.signalled);
        self.shared.wakes[self.id].drain(&mut signalled);
        for tenant in signalled.drain(..) {
            tenant.wake_bits().take(self.id);
            if let Some(&view) = state.by_tenant.get(&tenant.id()) {
                state.queue_view(view);
            }
        }
        state.signalled = signalled;
        if state.fresh.is_empty() {
            return;
        }
        let clock = self.shared.clock.clone();
        let mut budget = Budget::new(&*clock, LEAST_NEWS);
        while budget.lasts()
            && let Some(view) = state.fresh.pop_front()
        {
            self.serve(state, view);
        }
    }

    /// Serves one view for its share.
    fn serve(self: &Rc<Self>, state: &mut WorkerState, view: u32) {
        if let Some(it) = state.views.get_mut(view as usize) {
            it.served = state.turn;
        }
        if self.fan_out(state, view) {
            state.news.push_back(view);
        } else if let Some(view) = state.views.get_mut(view as usize) {
            view.queued = false;
        }
    }

    fn on_body_ready(self: &Rc<Self>, state: &mut WorkerState, token: Token) {
        let Some(connection) = state.connection(token) else { return };
        if matches!(&connection.sink, Sink::Body(queue) if queue.is_dropped()) {
            self.drop_connection(state, token, CloseReason::Peer);
            return;
        }
        self.on_ready(state, Ready { token, readable: false, writable: true, ended: false });
    }

    fn on_ready(self: &Rc<Self>, state: &mut WorkerState, event: Ready) {
        let now = state.wheel.now();
        let Some(connection) = state.connection(event.token) else { return };
        if event.writable && connection.flags.write_state.is_blocked() {
            connection.flags.write_state = WriteState::Ready;
            connection.last_heard = now; // a blocked socket that takes bytes again counts as input
            state.run(event.token);
        }
        if event.readable {
            self.read(state, event.token, event.ended);
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
